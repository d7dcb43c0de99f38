//! Dead letters as JSON, for scripts and over HTTP.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::{DeadLetter, Entry};

/// The JSON of a dead letter.
#[derive(Serialize)]
struct Shown<'l> {
    #[serde(flatten)]
    dead_letter: &'l DeadLetter,
    revision: u64,
    /// A body that is JSON, as it came: numbers and order of keys included.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'l RawValue>,
    /// A body that is no JSON.
    #[serde(rename = "bodyText", skip_serializing_if = "Option::is_none")]
    text: Option<&'l str>,
    /// A body that is no text either.
    #[serde(rename = "bodyBase64", skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

impl DeadLetter {
    /// The dead letter with its body: as `body` if that is JSON, as `bodyText` if it is some other
    /// text, else as `bodyBase64`.
    #[must_use]
    pub fn with_body(&self) -> impl Serialize + '_ {
        let body: Option<&RawValue> = serde_json::from_slice(&self.body).ok();
        let text = std::str::from_utf8(&self.body);
        let bytes = || STANDARD.encode(&self.body);
        Shown {
            dead_letter: self,
            revision: self.revision,
            text: text.ok().filter(|_| body.is_none()),
            bytes: text.is_err().then(bytes),
            body,
        }
    }
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::DeadLetter(dead_letter) => Shown {
                dead_letter,
                revision: dead_letter.revision,
                body: None,
                text: None,
                bytes: None,
            }
            .serialize(serializer),
            Self::Unreadable(unreadable) => unreadable.serialize(serializer),
        }
    }
}
