//! The NATS micro service protocol (ADR-32): the subjects and messages of PING, INFO and STATS.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The root of ADR-32's subjects.
pub(crate) const ROOT: &str = "$SRV";

/// Keys of the metadata of a host's services: the app, the host's id, and the streams that it
/// stores to or consumes from.
pub(crate) const APP: &str = "app";
pub(crate) const HOST: &str = "host";
pub(crate) const STREAMS: &str = "streams";

/// A request to services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// The names of services.
    Ping,
    /// The endpoints of services.
    Info,
    /// The statistics of services.
    Stats,
}

impl Verb {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "PING",
            Self::Info => "INFO",
            Self::Stats => "STATS",
        }
    }

    /// The subject on which every service answers.
    #[must_use]
    pub fn subject(self) -> String {
        format!("{ROOT}.{}", self.as_str())
    }
}

/// One service's answer to any of the verbs; fields of other verbs are absent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// `io.nats.micro.v1.ping_response` and the like.
    #[serde(rename = "type")]
    pub kind: String,
    /// The service's name.
    pub name: String,
    /// The id, which differs between the hosts of a service.
    pub id: String,
    /// A semantic version; the digest is its build metadata.
    pub version: String,
    /// App, digest and host.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// For INFO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// For STATS: when the counts began, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// For INFO and STATS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<Endpoint>>,
}

/// One function in an [`Answer`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// `<interface>-<function>`.
    pub name: String,
    /// The subject of its calls.
    pub subject: String,
    /// The queue group of its subscription.
    #[serde(default)]
    pub queue_group: String,
    /// For INFO: interface, function and signature; for an event whether it is `durable` or `core`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// For STATS.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub stats: Option<EndpointStats>,
}

/// The statistics of one function. Times are in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointStats {
    /// Calls that were answered.
    pub num_requests: u64,
    /// Those answered with an error.
    pub num_errors: u64,
    /// `code:message` of the last of those.
    pub last_error: String,
    /// The time of all calls.
    pub processing_time: u64,
    /// The time of one call.
    pub average_processing_time: u64,
}

/// `$SRV.<verb>[.<name>[.<id>]]`.
pub(crate) fn parse(subject: &str) -> Option<(Verb, Option<&str>, Option<&str>)> {
    let mut tokens = subject.split('.').skip(1);
    let verb = tokens.next()?;
    let verb = [Verb::Ping, Verb::Info, Verb::Stats]
        .into_iter()
        .find(|v| v.as_str() == verb)?;
    let (name, id) = (tokens.next(), tokens.next());
    tokens.next().is_none().then_some((verb, name, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_of_the_protocol_are_parsed_and_no_others() {
        assert_eq!(parse("$SRV.PING"), Some((Verb::Ping, None, None)));
        assert_eq!(
            parse("$SRV.INFO.orders"),
            Some((Verb::Info, Some("orders"), None))
        );
        assert_eq!(
            parse("$SRV.STATS.a.b"),
            Some((Verb::Stats, Some("a"), Some("b")))
        );
        assert_eq!(parse("$SRV.STATS.a.b.c"), None);
        assert_eq!(parse("$SRV.SCHEMA"), None);
    }
}
