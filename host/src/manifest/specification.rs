//! What a host is to run: an app, and its components by their bytes instead of by where they are.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::App;
use crate::text::{hex, serde_as_text, shown};

/// An app and the component of each of its services. It means the same on every host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
#[non_exhaustive]
pub struct Specification {
    /// The app.
    pub app: App,
    /// The component of each service.
    pub components: BTreeMap<String, Digest>,
}

/// The SHA-256 of a component's bytes: 64 hexadecimal digits, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

/// Why an app and some components are no [`Specification`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecificationError {
    /// A service is without a component.
    #[error("service \"{0}\" has no component")]
    Missing(String),
    /// A component is without a service.
    #[error("there is a component for \"{}\", which is no service of the app", shown(.0))]
    Unknown(String),
}

/// Why a text is no [`Digest`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no SHA-256; accepted: 64 digits of 0-9 and a-f")]
pub struct DigestError(pub String);

impl Specification {
    /// Specifies an app with these components.
    ///
    /// # Errors
    ///
    /// A service has no component, or a component no service.
    pub fn new(app: App, components: BTreeMap<String, Digest>) -> Result<Self, SpecificationError> {
        let mut services = app.services.keys();
        if let Some(service) = services.find(|name| !components.contains_key(*name)) {
            return Err(SpecificationError::Missing(service.clone()));
        }
        let mut named = components.keys();
        match named.find(|name| !app.services.contains_key(*name)) {
            Some(name) => Err(SpecificationError::Unknown(name.clone())),
            None => Ok(Self { app, components }),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    app: App,
    components: BTreeMap<String, Digest>,
}

impl TryFrom<Unchecked> for Specification {
    type Error = SpecificationError;

    fn try_from(Unchecked { app, components }: Unchecked) -> Result<Self, SpecificationError> {
        Self::new(app, components)
    }
}

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex(&Sha256::digest(bytes)))
    }

    /// The digest of what was hashed piece by piece.
    pub(crate) fn finish(hash: Sha256) -> Self {
        Self(hex(&hash.finalize()))
    }

    /// All of its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first twelve digits, enough to tell the components of an app apart.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(DigestError(shown(text).into_owned()))
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(Digest);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::manifest::Manifest;

    fn app() -> App {
        let text = "name = 'a'\n[service.b]\ncomponent = 'b'\n[service.c]\ncomponent = 'c'";
        Manifest::parse(Path::new("wasmbay.toml"), text)
            .unwrap()
            .app
    }

    fn specify(services: &[&str]) -> Result<Specification, SpecificationError> {
        let digest = |name: &&str| ((*name).to_owned(), Digest::of(name.as_bytes()));
        Specification::new(app(), services.iter().map(digest).collect())
    }

    #[test]
    fn each_service_has_a_component_and_each_component_a_service() {
        assert!(specify(&["b", "c"]).is_ok());
        let missing = SpecificationError::Missing("c".to_owned());
        assert_eq!(specify(&["b"]), Err(missing));
        let unknown = SpecificationError::Unknown("d".to_owned());
        assert_eq!(specify(&["b", "c", "d"]), Err(unknown));
    }

    #[test]
    fn a_specification_is_read_as_it_is_written_and_checked() {
        let specification = specify(&["b", "c"]).unwrap();
        let written = serde_json::to_value(&specification).unwrap();
        let read = |value: Value| serde_json::from_value::<Specification>(value);
        assert_eq!(read(written.clone()).unwrap(), specification);
        for (path, value, why) in [
            ("/app/service/b/reuse", json!(0), "`reuse` is 0"),
            ("/components/b", json!("ab"), "`ab` is no SHA-256"),
            ("/components", json!({}), "service \"b\" has no component"),
            ("/components", Value::Null, "expected a map"),
        ] {
            let mut changed = written.clone();
            *changed.pointer_mut(path).unwrap() = value;
            let refused = read(changed).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        let mut more = written;
        more["other"] = json!(1);
        assert!(read(more).is_err());
    }

    #[test]
    fn a_digest_is_64_lower_case_digits() {
        // As `sha256sum` has it of nothing.
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest = Digest::of(b"");
        assert_eq!((digest.as_str(), digest.short()), (nothing, "e3b0c44298fc"));
        assert_eq!(nothing.parse(), Ok(digest));
        for text in [
            "",
            &nothing[1..],
            &format!("{nothing}0"),
            &nothing.to_uppercase(),
            &nothing.replace('e', "g"),
            &"é".repeat(32),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
