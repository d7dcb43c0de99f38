//! Names of interfaces and functions, as WIT writes them.
//!
//! Services share an [`InterfaceId`]; its [track](InterfaceId::track) is the part of the version by
//! which two of them are compatible. Nothing here knows of NATS or of components.

use std::fmt;
use std::str::FromStr;

use semver::Version;

/// `namespace:package/interface@version`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId {
    /// The namespace, such as `shop`.
    pub namespace: String,
    /// The package within the namespace.
    pub package: String,
    /// The interface within the package.
    pub name: String,
    /// The package's version, when it has one.
    pub version: Option<Version>,
}

/// A function of an interface: `namespace:package/interface.function@version`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId {
    /// The interface that declares the function.
    pub interface: InterfaceId,
    /// The function's name in kebab-case.
    pub name: String,
}

/// A function as typed by a person: `[[namespace:]package/]interface.function`, or all of it with a
/// version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRef {
    /// The namespace, if it was given.
    pub namespace: Option<String>,
    /// The package, if it was given.
    pub package: Option<String>,
    /// The interface.
    pub interface: String,
    /// The package's version, if it was given; then so were namespace and package.
    pub version: Option<Version>,
    /// The function.
    pub function: String,
}

/// A text is not the name of an interface or function.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// The text does not have the parts of a name.
    #[error("`{text}` is not {expected}")]
    Form {
        /// The text.
        text: String,
        /// The accepted form.
        expected: &'static str,
    },
    /// One part is not a WIT identifier.
    #[error("`{part}` in `{text}` is not a WIT name (words of letters and digits joined by `-`)")]
    Part {
        /// The text.
        text: String,
        /// The offending part.
        part: String,
    },
    /// The text after `@` is not a semantic version.
    #[error("`{version}` in `{text}` is not a version such as 1.2.3")]
    Version {
        /// The text.
        text: String,
        /// The offending version.
        version: String,
    },
}

const INTERFACE_FORM: &str = "an interface such as `acme:stock/reserve@1.0.0`";
const FUNCTION_FORM: &str = "a function such as `acme:stock/reserve.hold`";
const REFERENCE_FORM: &str = "a function such as `reserve.hold` or `acme:stock/reserve.hold@1.0.0`";

impl InterfaceId {
    /// The part of the version that compatible versions share: `v1` for 1.4.2, `v0_2` for 0.2.3,
    /// `v0_0_3` for 0.0.3, the whole version for a prerelease (with `_` for what a subject token
    /// cannot hold), `unversioned` without a version.
    ///
    /// Build metadata does not take part, as in semantic versioning.
    #[must_use]
    pub fn track(&self) -> String {
        self.version
            .as_ref()
            .map_or_else(|| "unversioned".to_owned(), track)
    }

    /// Whether the two name the same interface in compatible versions.
    #[must_use]
    pub fn compatible(&self, other: &Self) -> bool {
        self.same_name(other) && self.track() == other.track()
    }

    /// Whether `self` matches a reference such as a manifest's, which may leave the version out.
    #[must_use]
    pub fn answers_to(&self, reference: &Self) -> bool {
        self.same_name(reference)
            && (reference.version.is_none() || self.track() == reference.track())
    }

    fn same_name(&self, other: &Self) -> bool {
        self.namespace == other.namespace
            && self.package == other.package
            && self.name == other.name
    }

    /// The function of this interface that is called `name`.
    #[must_use]
    pub fn function(&self, name: impl Into<String>) -> FunctionId {
        FunctionId {
            interface: self.clone(),
            name: name.into(),
        }
    }
}

impl FunctionRef {
    /// Whether a function matches this reference.
    #[must_use]
    pub fn matches(&self, function: &FunctionId) -> bool {
        let id = &function.interface;
        let is = |given: &Option<String>, name: &str| given.as_ref().is_none_or(|g| g == name);
        function.name == self.function
            && id.name == self.interface
            && is(&self.package, &id.package)
            && is(&self.namespace, &id.namespace)
            && (self.version.is_none() || self.track() == Some(id.track()))
    }

    /// The [track](InterfaceId::track) of the version that was given.
    #[must_use]
    pub fn track(&self) -> Option<String> {
        self.version.as_ref().map(track)
    }
}

impl fmt::Display for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.namespace, self.package, self.name)?;
        match &self.version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InterfaceId {
            namespace,
            package,
            name,
            version,
        } = &self.interface;
        write!(f, "{namespace}:{package}/{name}.{}", self.name)?;
        match version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

crate::text::serde_as_text!(InterfaceId, FunctionId);

impl FromStr for InterfaceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let form = || IdError::Form {
            text: text.to_owned(),
            expected: INTERFACE_FORM,
        };
        let (path, version) = match text.split_once('@') {
            Some((path, version)) => (path, Some(parse_version(text, version)?)),
            None => (text, None),
        };
        let (namespace, rest) = path.split_once(':').ok_or_else(form)?;
        let (package, name) = rest.split_once('/').ok_or_else(form)?;
        for part in [namespace, package, name] {
            check_label(text, part)?;
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            package: package.to_owned(),
            name: name.to_owned(),
            version,
        })
    }
}

impl FromStr for FunctionId {
    type Err = IdError;

    /// Reads `ns:package/interface.function@version`, and `ns:package/interface@version.function`
    /// too, since both are in use.
    fn from_str(text: &str) -> Result<Self, IdError> {
        let form = || IdError::Form {
            text: text.to_owned(),
            expected: FUNCTION_FORM,
        };
        let (path, version) = match text.split_once('@') {
            Some((path, version)) => (path, Some(version)),
            None => (text, None),
        };
        let (interface, name, version) = match (path.split_once('.'), version) {
            (Some((interface, name)), version) => (interface, name, version),
            // The function's name starts with a letter, a version's last part does not.
            (None, Some(version)) => {
                let (version, name) = version.rsplit_once('.').ok_or_else(form)?;
                (path, name, Some(version))
            }
            (None, None) => return Err(form()),
        };
        check_label(text, name)?;
        let mut interface: InterfaceId = interface.parse().map_err(|_| form())?;
        interface.version = version.map(|v| parse_version(text, v)).transpose()?;
        Ok(interface.function(name))
    }
}

impl FromStr for FunctionRef {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if let Ok(FunctionId { interface, name }) = text.parse() {
            return Ok(Self {
                namespace: Some(interface.namespace),
                package: Some(interface.package),
                interface: interface.name,
                version: interface.version,
                function: name,
            });
        }
        let form = || IdError::Form {
            text: text.to_owned(),
            expected: REFERENCE_FORM,
        };
        let (path, function) = text.rsplit_once('.').ok_or_else(form)?;
        let (package, interface) = match path.split_once('/') {
            Some((package, interface)) => (Some(package), interface),
            None => (None, path),
        };
        for part in package.into_iter().chain([interface, function]) {
            is_label(part).then_some(()).ok_or_else(form)?;
        }
        Ok(Self {
            namespace: None,
            package: package.map(str::to_owned),
            interface: interface.to_owned(),
            version: None,
            function: function.to_owned(),
        })
    }
}

fn track(v: &Version) -> String {
    if !v.pre.is_empty() {
        let pre = v.pre.as_str().replace('.', "_");
        return format!("v{}_{}_{}-{pre}", v.major, v.minor, v.patch);
    }
    match (v.major, v.minor, v.patch) {
        (0, 0, patch) => format!("v0_0_{patch}"),
        (0, minor, _) => format!("v0_{minor}"),
        (major, ..) => format!("v{major}"),
    }
}

fn parse_version(text: &str, version: &str) -> Result<Version, IdError> {
    Version::parse(version).map_err(|_| IdError::Version {
        text: text.to_owned(),
        version: version.to_owned(),
    })
}

/// Checks one kebab-case label of the component model: words of letters and digits, joined by
/// single hyphens, the first of them starting with a letter.
fn check_label(text: &str, part: &str) -> Result<(), IdError> {
    if is_label(part) {
        Ok(())
    } else {
        Err(IdError::Part {
            text: text.to_owned(),
            part: part.to_owned(),
        })
    }
}

/// Whether `part` is a kebab-case label of the component model.
#[must_use]
pub fn is_label(part: &str) -> bool {
    part.starts_with(|c: char| c.is_ascii_alphabetic())
        && part
            .split('-')
            .all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_may_be_named_in_short() {
        let function: FunctionId = "acme:stock/reserve.hold@1.4.2".parse().unwrap();
        for text in [
            "reserve.hold",
            "stock/reserve.hold",
            "acme:stock/reserve.hold",
            "acme:stock/reserve.hold@1.0.0",
            "acme:stock/reserve@1.9.0.hold",
        ] {
            let reference: FunctionRef = text.parse().unwrap();
            assert!(reference.matches(&function), "{text}");
        }
        for text in [
            "reserve.free",
            "reserves.hold",
            "shop/reserve.hold",
            "shop:stock/reserve.hold",
            "acme:stock/reserve.hold@2.0.0",
        ] {
            let reference: FunctionRef = text.parse().unwrap();
            assert!(!reference.matches(&function), "{text}");
        }
        for text in [
            "", "hold", "a.b.c", "reserve.", "*.hold", "a/b/c.d", "bay.>",
        ] {
            assert!(text.parse::<FunctionRef>().is_err(), "{text}");
        }
    }

    fn track(version: &str) -> String {
        let id: InterfaceId = format!("a:b/c@{version}").parse().unwrap();
        id.track()
    }

    #[test]
    fn a_track_is_what_compatible_versions_share() {
        assert_eq!(track("1.4.2"), "v1");
        assert_eq!(track("0.2.3"), "v0_2");
        assert_eq!(track("0.0.3"), "v0_0_3");
        assert_eq!(track("1.0.0-rc.1"), "v1_0_0-rc_1");
        assert_eq!(track("1.0.0+build.5"), "v1");
        assert_eq!(
            "a:b/c".parse::<InterfaceId>().unwrap().track(),
            "unversioned"
        );
    }

    #[test]
    fn a_reference_may_leave_the_version_out() {
        let id: InterfaceId = "a:b/c@1.2.0".parse().unwrap();
        for reference in ["a:b/c", "a:b/c@1.0.0", "a:b/c@1.9.9"] {
            assert!(id.answers_to(&reference.parse().unwrap()), "{reference}");
        }
        for reference in ["a:b/d", "a:b/c@2.0.0", "a:b/c@1.2.0-rc.1"] {
            assert!(!id.answers_to(&reference.parse().unwrap()), "{reference}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in ["a:b/c@1.2.0", "shop:stock-room/hold2", "a:b/c@0.2.0-rc.1"] {
            assert_eq!(text.parse::<InterfaceId>().unwrap().to_string(), text);
        }
        for text in ["a:b/c.d@1.2.0", "shop:orders/orders.place-all"] {
            assert_eq!(text.parse::<FunctionId>().unwrap().to_string(), text);
        }
        let either: FunctionId = "a:b/c@1.2.0.d".parse().unwrap();
        assert_eq!(either.to_string(), "a:b/c.d@1.2.0");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "", "a", "a:b", "a/b", "a:b/c@", "a:b/c@1", "a:b/.c", "a:*/c", "a:b/c-", "a:b/9c",
            "a:b /c",
        ] {
            assert!(text.parse::<InterfaceId>().is_err(), "{text}");
        }
        for text in ["a:b/c", "a:b/c.", "a:b/c.d.e", "a:b/c.>", "a:b/c@1.0.0"] {
            assert!(text.parse::<FunctionId>().is_err(), "{text}");
        }
    }
}
