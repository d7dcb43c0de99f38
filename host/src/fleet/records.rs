//! What hosts and deployers write for each other: revisions of apps, signs of life, reports.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Member, Outcome};
use crate::manifest::{Digest, Specification};
use crate::text::shown;

/// The format of what is written. A host reads no other one.
pub const FORMAT: u32 = 1;

/// This version of wasmbay.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Characters that the name of a host may have, as in a DNS label.
const MAX_NAME: usize = 63;

/// Whether a text can be the name of a host. It is a token of subjects, and a part of ids.
#[must_use]
pub fn is_host_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(plain)
}

/// A state of an app that was asked for. What a host does not know of it is not ignored: it would run something else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// [`FORMAT`].
    pub format: u32,
    /// Counts the revisions of the app, from 1.
    pub number: u64,
    /// The version of wasmbay that wrote it; unknown of those before it was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wasmbay: Option<String>,
    /// The verb that made it, such as `deploy` or `rollback to 3`.
    pub verb: String,
    /// What is to run; nothing once the app was undeployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub specification: Option<Specification>,
    /// What ran before, where new versions of its services get a share of the calls first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<Specification>,
    /// How that ended; it is written down by itself, see [`Revision::ended`].
    #[serde(skip)]
    pub outcome: Option<Outcome>,
    /// What was to run, where that was rolled back.
    #[serde(skip)]
    pub refused: Option<Specification>,
    /// Who asked for it: `user@machine`, as that machine says.
    pub author: String,
    /// When, as RFC 3339, by the clock of that machine.
    pub at: String,
    /// The manifest that it was made from, on that machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why, in the author's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What was known to break, and was forced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<String>,
}

/// A host's sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// Its name.
    pub name: String,
    /// Distinguishes the processes that had the name one after the other.
    pub id: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Where its gateway listens.
    #[serde(default)]
    pub gateway: Option<String>,
    /// The bytes of memory that services may reserve on it; any number unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// Its version of wasmbay.
    pub version: String,
    /// When it started, as RFC 3339.
    pub started: String,
    /// Whether it is about to stop, and hands over what it runs.
    #[serde(default)]
    pub leaving: bool,
    /// Whether it is drained: it stays, and runs nothing.
    #[serde(default)]
    pub drained: bool,
    /// The app of a host that runs all of that one and no other, as `wasmbay up` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
}

impl HostRecord {
    /// `alive`, `leaving`, `draining` while it still runs so many services, or `drained`.
    #[must_use]
    pub fn state(&self, services: usize) -> &'static str {
        match (self.leaving, self.drained) {
            (true, _) => "leaving",
            (false, true) if services > 0 => "draining",
            (false, true) => "drained",
            (false, false) => "alive",
        }
    }

    /// Whether services are placed on it.
    #[must_use]
    pub fn takes_services(&self) -> bool {
        !self.leaving && !self.drained
    }

    /// The host as services are placed on it.
    #[must_use]
    pub fn member(&self) -> Member {
        Member {
            name: self.name.clone(),
            labels: self.labels.clone(),
            gateway: self.gateway.is_some(),
            capacity: self.capacity,
            app: self.app.clone(),
        }
    }
}

/// That a host is to run nothing, until that is taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// The host.
    pub host: String,
    /// Who asked for it: `user@machine`, as that machine says.
    pub author: String,
    /// When, as RFC 3339, by the clock of that machine.
    pub at: String,
    /// Why, in the author's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a host says of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The host.
    pub host: String,
    /// The process; see [`HostRecord::id`].
    pub id: String,
    /// The app.
    pub app: String,
    /// The revision that the host runs or is bringing up.
    pub revision: u64,
    /// What hinders the app as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its services on this host.
    pub services: BTreeMap<String, ServiceReport>,
}

/// What a host says of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its state.
    pub state: ServiceState,
    /// The component.
    pub digest: Digest,
    /// Since when, as RFC 3339.
    pub since: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The state of a service on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// Its component is fetched from the store, or compiled.
    Fetching,
    /// It is linked, and a first instance made.
    Starting,
    /// It answers.
    Serving,
    /// It could not be brought up; what ran before goes on, and the host tries again.
    Failed,
    /// It is not to run here any more, and goes on until it runs where it should.
    HandingOver,
}

impl ServiceState {
    /// As it is written and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Failed => "failed",
            Self::HandingOver => "handing-over",
        }
    }
}

/// A record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another version of wasmbay wrote it.
    #[error(
        "it is written in format {0}, and this version of wasmbay reads format {FORMAT}; run one version everywhere"
    )]
    Format(u32),
    /// Another version of wasmbay wrote it, with something that this one does not know.
    #[error(
        "wasmbay {version} wrote it, and this is wasmbay {VERSION}, which does not know all of it; run one version everywhere"
    )]
    Unknown {
        /// That version.
        version: String,
        /// What is not known.
        source: serde_json::Error,
    },
    /// It is none.
    #[error("it cannot be read")]
    Invalid(#[from] serde_json::Error),
    /// It was stored for another app.
    #[error("it is of \"{}\"", shown(.0))]
    Name(String),
}

#[derive(Deserialize)]
struct Formatted {
    format: u32,
}

/// What every version of wasmbay can read of a revision.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    number: u64,
    #[serde(default)]
    wasmbay: Option<String>,
}

/// The number of a revision, also of one that cannot be read otherwise.
pub(crate) fn number_of(bytes: &[u8]) -> Option<u64> {
    let header = serde_json::from_slice::<Header>(bytes).ok()?;
    Some(header.number)
}

/// Reads a record, after its format.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let Formatted { format } = serde_json::from_slice(bytes)?;
    if format != FORMAT {
        return Err(RecordError::Format(format));
    }
    Ok(serde_json::from_slice(bytes)?)
}

/// Reads a revision of this app.
pub(super) fn read_revision(app: &str, bytes: &[u8]) -> Result<Revision, RecordError> {
    let revision: Revision = read(bytes).map_err(|error| {
        let header = serde_json::from_slice::<Header>(bytes).ok();
        let version = header.and_then(|header| header.wasmbay);
        match (error, version.filter(|version| version != VERSION)) {
            (RecordError::Invalid(source), Some(version)) => RecordError::Unknown {
                version: shown(&version).into_owned(),
                source,
            },
            (error, _) => error,
        }
    })?;
    for specification in [&revision.specification, &revision.stable]
        .into_iter()
        .flatten()
    {
        if specification.app.name != app {
            return Err(RecordError::Name(specification.app.name.clone()));
        }
    }
    Ok(revision)
}

#[cfg(test)]
impl Revision {
    /// A revision of an app with the one service `a`, which has these lines.
    pub(crate) fn of_shop(number: u64, lines: &str) -> Self {
        let text = format!("name = \"shop\"\n[service.a]\ncomponent = \"a.wasm\"\n{lines}");
        let path = std::path::Path::new("wasmbay.toml");
        let app = crate::manifest::Manifest::parse(path, &text).unwrap().app;
        let components = BTreeMap::from([("a".to_owned(), Digest::of(b"a"))]);
        Self {
            format: FORMAT,
            number,
            wasmbay: None,
            verb: "deploy".to_owned(),
            specification: Some(Specification::new(app, components).unwrap()),
            stable: None,
            outcome: None,
            refused: None,
            author: String::new(),
            at: String::new(),
            source: None,
            message: None,
            forced: Vec::new(),
        }
    }
}

#[cfg(test)]
impl HostRecord {
    /// A host that takes services.
    pub(crate) fn of(name: &str, id: &str) -> Self {
        Self {
            format: FORMAT,
            name: name.to_owned(),
            id: id.to_owned(),
            labels: BTreeMap::new(),
            gateway: None,
            capacity: None,
            version: String::new(),
            started: String::new(),
            leaving: false,
            drained: false,
            app: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision() -> Revision {
        Revision {
            author: "ada@desk".to_owned(),
            at: "2026-11-30T16:00:00Z".to_owned(),
            message: Some("try it".to_owned()),
            ..Revision::of_shop(7, "replicas = 3")
        }
    }

    #[test]
    fn a_revision_is_read_as_it_is_written() {
        let revision = revision();
        let bytes = serde_json::to_vec(&revision).unwrap();
        assert_eq!(read_revision("shop", &bytes).unwrap(), revision);
        assert!(matches!(
            read_revision("other", &bytes),
            Err(RecordError::Name(name)) if name == "shop"
        ));
    }

    #[test]
    fn another_format_is_said_before_anything_else() {
        let error = read::<Revision>(br#"{"format":2,"unknown":true}"#).unwrap_err();
        assert!(matches!(error, RecordError::Format(2)), "{error}");
        for bytes in [&b""[..], b"{}", b"{\"format\":1}", b"\xff"] {
            let error = read::<Revision>(bytes).unwrap_err();
            assert!(matches!(error, RecordError::Invalid(_)), "{error}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_ignored() {
        let mut written = serde_json::to_value(revision()).unwrap();
        written["wasmbay"] = "9.9.9".into();
        let read = |value: &serde_json::Value| read_revision("shop", value.to_string().as_bytes());
        assert!(read(&written).is_ok());
        for pointer in [
            "",
            "/specification",
            "/specification/app",
            "/specification/app/service/a",
        ] {
            let mut newer = written.clone();
            newer.pointer_mut(pointer).unwrap()["shiny"] = true.into();
            let error = read(&newer).unwrap_err();
            let RecordError::Unknown { version, source } = &error else {
                panic!("{pointer}: {error}");
            };
            assert_eq!(version, "9.9.9");
            assert!(source.to_string().contains("shiny"), "{pointer}: {source}");
            assert!(
                error.to_string().starts_with("wasmbay 9.9.9 wrote it"),
                "{error}"
            );
            assert_eq!(number_of(newer.to_string().as_bytes()), Some(7));
            // Of the same version it is a defect and no other version's.
            newer["wasmbay"] = VERSION.into();
            assert!(matches!(read(&newer), Err(RecordError::Invalid(_))));
        }
    }

    /// What the first version with fleets has stored.
    #[test]
    fn what_earlier_versions_have_stored_is_read() {
        let digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
        let stored = format!(
            r#"{{"format":1,"number":7,"verb":"deploy","specification":{{"app":{{"name":"shop","service":{{"a":{{"replicas":3}}}}}},"components":{{"a":"{digest}"}}}},"author":"ada@desk","at":"2026-11-30T16:00:00Z"}}"#
        );
        let read = read_revision("shop", stored.as_bytes()).unwrap();
        assert_eq!(
            Revision {
                message: Some("try it".to_owned()),
                ..read
            },
            revision()
        );
        let host = r#"{"format":1,"name":"a","id":"1","version":"0.1.0","started":"2026-11-30T16:00:00Z"}"#;
        assert!(
            super::read::<HostRecord>(host.as_bytes())
                .unwrap()
                .takes_services()
        );
        let report = format!(
            r#"{{"format":1,"host":"a","id":"1","app":"shop","revision":7,"services":{{"a":{{"state":"serving","digest":"{digest}","since":""}}}}}}"#
        );
        let report = super::read::<Report>(report.as_bytes()).unwrap();
        assert_eq!(report.services["a"].state, ServiceState::Serving);
        let drain = r#"{"format":1,"host":"a","author":"ada@desk","at":""}"#;
        assert!(super::read::<DrainRecord>(drain.as_bytes()).is_ok());
    }

    #[test]
    fn a_name_of_a_host_is_one_token() {
        assert!(is_host_name("host-1"));
        for name in ["", "a.b", "A", "a b", "a_b", &"a".repeat(64)] {
            assert!(!is_host_name(name), "{name}");
        }
    }
}
