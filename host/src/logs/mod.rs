//! Log records: what a host and its guests say, as the host prints it in JSON and as it is kept in JetStream.
//!
//! A [`Capture`] makes a [`Record`] of each event of `tracing`. Printing and keeping are bounded and never
//! waited for: a record that finds no room is lost and counted. Kept records lie in one stream of the NATS
//! system ([`Records::keep`]), from which [`read`] has them for all hosts. A collector of OpenTelemetry gets the
//! same ([`Export`]).

mod capture;
mod export;
mod keep;
mod read;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use capture::{Capture, Records, capture};
pub use export::Export;
pub use keep::{MAX_AGE, MAX_BYTES, QUEUE};
pub use read::{LogsError, Wanted, read};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, as RFC 3339 in UTC.
    pub timestamp: String,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: String,
    /// The host.
    pub host: String,
    /// What of the host speaks; `guest` for what its guests write.
    pub target: String,
    /// The app that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The trace during which it was written, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// The span, 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// What it says.
    #[serde(default)]
    pub message: String,
    /// Everything else.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Record {
    /// As one line of JSON, without its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Texts and numbers under texts can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}
