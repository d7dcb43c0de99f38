//! Where the services of an app run in a fleet, and under which names its gateway answers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use toml::Value;
use toml::de::DeValue;

use super::file::{Section, integer};
use super::keys::service;
use super::kinds::{Form, Kind, Setting};
use crate::text::shown;

/// Hosts of a fleet that run a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    /// So many, or as many as there are.
    Count(u32),
    /// All of them.
    All,
}

/// Upper bound of [`Replicas::Count`].
pub const MAX_REPLICAS: u32 = 1_000;

/// Characters that a label's name and value may have each.
const MAX_LABEL: usize = 63;

/// Why a text is no [`Replicas`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no number of replicas; accepted: 1 to {MAX_REPLICAS}, or all")]
pub struct ReplicasError(pub String);

impl FromStr for Replicas {
    type Err = ReplicasError;

    fn from_str(text: &str) -> Result<Self, ReplicasError> {
        if text == "all" {
            return Ok(Self::All);
        }
        let number = text.parse().ok();
        let number = number.filter(|number| (1..=MAX_REPLICAS).contains(number));
        let number = number.ok_or_else(|| ReplicasError(shown(text).into_owned()))?;
        Ok(Self::Count(number))
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(number) => write!(f, "{number}"),
            Self::All => f.write_str("all"),
        }
    }
}

impl Serialize for Replicas {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(number) => serializer.serialize_u32(*number),
            Self::All => serializer.serialize_str("all"),
        }
    }
}

/// A number of replicas.
pub(crate) struct Copies {
    pub(super) default: u32,
}

impl Kind for Copies {
    fn form(&self) -> Form {
        Form {
            kind: "integer or string",
            default: self.default.to_string(),
            accepted: format!("1 to {MAX_REPLICAS}, \"all\""),
        }
    }
}

impl Setting for Copies {
    type Value = Replicas;

    fn default(&self) -> Replicas {
        Replicas::Count(self.default)
    }

    fn read(&self, value: &DeValue<'_>) -> Option<Replicas> {
        match value {
            DeValue::String(text) if text == "all" => Some(Replicas::All),
            DeValue::Integer(number) => {
                let number = u32::try_from(integer(number)?).ok()?;
                let accepted = (1..=MAX_REPLICAS).contains(&number);
                accepted.then_some(Replicas::Count(number))
            }
            _ => None,
        }
    }

    fn write(&self, value: &Replicas) -> Option<Value> {
        Some(match value {
            Replicas::Count(number) => Value::Integer((*number).into()),
            Replicas::All => Value::String("all".to_owned()),
        })
    }
}

/// Names in the `Host` header of requests.
pub(crate) struct HostNames;

/// Upper bound of the names of one app.
const MAX_HOST_NAMES: usize = 64;

impl Kind for HostNames {
    fn form(&self) -> Form {
        Form {
            kind: "array of strings",
            default: "every name".to_owned(),
            accepted: format!(
                "up to {MAX_HOST_NAMES} such as `[\"shop.example.com\"]`, without port"
            ),
        }
    }
}

impl Setting for HostNames {
    type Value = Vec<String>;

    fn default(&self) -> Vec<String> {
        Vec::new()
    }

    fn read(&self, value: &DeValue<'_>) -> Option<Vec<String>> {
        let names = value.as_array()?;
        let names = (1..=MAX_HOST_NAMES)
            .contains(&names.len())
            .then_some(names)?;
        names
            .iter()
            .map(|name| host_name(name.get_ref().as_str()?))
            .collect()
    }

    fn write(&self, value: &Vec<String>) -> Option<Value> {
        let names = value.iter().cloned().map(Value::String);
        (!value.is_empty()).then(|| Value::Array(names.collect()))
    }
}

/// A name or an IP address as [`crate::gateway`] compares it: in lower case, without brackets.
fn host_name(text: &str) -> Option<String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(text).parse::<std::net::IpAddr>() {
        return Some(address.to_string());
    }
    let label = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        (1..=63).contains(&part.len()) && part.chars().all(plain)
    };
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_ascii_lowercase())
}

/// Whether a text can be the name or the value of a label.
#[must_use]
pub fn is_label_text(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    (1..=MAX_LABEL).contains(&text.len()) && text.chars().all(plain)
}

/// Reads the labels that a host must have.
pub(super) fn read_labels(section: &Section<'_>) -> BTreeMap<String, String> {
    let value = |value: &DeValue<'_>| {
        let text = value.as_str().filter(|text| is_label_text(text))?;
        Some(text.to_owned())
    };
    let mut labels = BTreeMap::new();
    for (name, value) in section.entries(&service::REQUIRE, value) {
        if is_label_text(name.value) {
            labels.insert(name.value.to_owned(), value);
        } else {
            let name_text = shown(name.value);
            section.report(name.at, format!("`require`: `{name_text}` is no name of a label; accepted: up to {MAX_LABEL} of letters, digits, `-`, `_`, `.` and `/`"));
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::App;
    use crate::manifest::tests::of_service as app;

    #[test]
    fn where_a_service_runs_is_read_as_it_is_written() {
        let app = app("replicas = \"all\"\nrequire = { zone = \"a\" }\n[gateway]\nhosts = [\"Shop.example.com\", \"[::1]\"]").unwrap();
        let service = &app.services["x"];
        assert_eq!(service.replicas, Replicas::All);
        assert_eq!(service.require["zone"], "a");
        assert_eq!(
            (service.spread.as_deref(), service.reserve()),
            (None, 128 << 20)
        );
        assert_eq!(app.gateway.hosts, ["shop.example.com", "::1"]);
        let text = serde_json::to_string(&app).unwrap();
        assert_eq!(serde_json::from_str::<App>(&text).unwrap(), app);
    }

    #[test]
    fn what_is_not_given_has_a_default() {
        let app = app("").unwrap();
        assert_eq!(app.services["x"].replicas, Replicas::Count(2));
        assert!(app.services["x"].require.is_empty() && app.gateway.hosts.is_empty());
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for lines in [
            "replicas = 0",
            "replicas = \"some\"",
            "replicas = 1001",
            "require = { zone = 1 }",
            "require = { \"zo ne\" = \"a\" }",
            "require = { zone = \"\" }",
            "spread = \"zo ne\"",
            "spread = 1",
            "reserve = \"1KiB\"",
            "reserve = -1",
            "[gateway]\nhosts = []",
            "[gateway]\nhosts = [\"shop.example.com:80\"]",
            "[gateway]\nhosts = [\"*.example.com\"]",
        ] {
            let error = app(lines).unwrap_err();
            assert!(error.contains("accepted"), "{lines}: {error}");
        }
        assert!("0".parse::<Replicas>().is_err());
        assert_eq!("all".parse(), Ok(Replicas::All));
    }
}
