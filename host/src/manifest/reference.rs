//! References to components in OCI registries: `oci://ghcr.io/acme/payment:1.2.0`.

use std::fmt;
use std::str::FromStr;

use super::Digest;
use crate::text::{serde_as_text, shown};

/// How a reference begins, so that it is no path.
const SCHEME: &str = "oci://";

/// How a digest begins.
const SHA256: &str = "sha256:";

/// Bytes of registry and repository together.
const MAX_NAME: usize = 255;

/// Bytes of a tag.
const MAX_TAG: usize = 128;

/// A component in a registry: by a tag, which its owner can move, or by the digest of its manifest, which always
/// means the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no [`Reference`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` {why}; accepted: `oci://REGISTRY/NAME:TAG` or `oci://REGISTRY/NAME@sha256:DIGEST`", shown(.text))]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

impl Reference {
    /// The registry's host, with its port unless that is the usual one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name in the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The last part of its name, such as `payment`.
    #[must_use]
    pub fn name(&self) -> &str {
        let last = self.repository.rsplit('/').next();
        last.unwrap_or(&self.repository)
    }

    /// Whether a text is meant as a reference and not as a path.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// What to write for a text that is a path in form and was meant to be found in a registry.
    pub(super) fn hint(text: &str) -> Option<String> {
        if text.parse::<Self>().is_ok() {
            return Some(format!("a component in a registry is `{SCHEME}{text}`"));
        }
        // A package, as `wkg` names it.
        let (name, version) = text.split_once('@')?;
        let (namespace, name) = name.split_once(':')?;
        let named = |text: &str| !text.is_empty() && !text.contains(['/', ':']);
        let is_package = named(namespace) && named(name) && semver::Version::parse(version).is_ok();
        is_package.then(|| {
            format!(
                "a package is named by where it is, `{SCHEME}REGISTRY/{namespace}/{name}:{version}`"
            )
        })
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// Reads a reference; the command line and the lock file leave `oci://` out.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        read(text.strip_prefix(SCHEME).unwrap_or(text)).map_err(|why| ReferenceError {
            text: text.to_owned(),
            why,
        })
    }
}

fn read(text: &str) -> Result<Reference, &'static str> {
    let (name, digest) = match text.split_once('@') {
        None => (text, None),
        Some((name, digest)) => {
            let digest = digest.strip_prefix(SHA256);
            let digest = digest.and_then(|digits| digits.parse::<Digest>().ok());
            let why =
                "has something else than `sha256:` and 64 digits of 0-9 and a-f behind the `@`";
            (name, Some(digest.ok_or(why)?))
        }
    };
    let (registry, name) = name.split_once('/').ok_or("names no registry")?;
    if !is_registry(registry) {
        return Err("does not begin with a registry, such as `ghcr.io` or `localhost:5000`");
    }
    let (repository, tag) = match name.split_once(':') {
        None => (name, None),
        Some((name, tag)) if is_tag(tag) => (name, Some(tag.to_owned())),
        Some(_) => {
            return Err("has a tag with other characters than letters, digits, `_`, `.` and `-`");
        }
    };
    if registry.len() + repository.len() > MAX_NAME {
        return Err("is too long");
    }
    if !repository.split('/').all(is_part) {
        return Err(
            "has a name with other characters than a-z, 0-9 and single `.`, `_`, `-` and `/` between them",
        );
    }
    if tag.is_none() && digest.is_none() {
        return Err("has neither a tag nor a digest");
    }
    Ok(Reference {
        registry: registry.to_owned(),
        repository: repository.to_owned(),
        tag,
        digest,
    })
}

/// A host that no folder is likely to be called by: with a dot or a port, or `localhost`.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, Some(port)),
        _ => (text, None),
    };
    let is_v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let label = |label: &str| !label.is_empty() && label.chars().all(plain);
    let is_name = host.split('.').all(label);
    is_v6 || is_name && (port.is_some() || host == "localhost" || host.contains('.'))
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= MAX_TAG
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

/// A part of a repository's name: runs of letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_part(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let joins = text.split(word).filter(|join| !join.is_empty());
    text.starts_with(word)
        && text.ends_with(word)
        && joins
            .into_iter()
            .all(|join| matches!(join, "." | "_" | "__") || join.chars().all(|c| c == '-'))
}

/// Without `oci://`, as every other tool writes it.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{SHA256}{digest}")?;
        }
        Ok(())
    }
}

serde_as_text!(Reference);

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn references_are_read_as_they_are_written() {
        for (text, registry, repository, tag) in [
            (
                "ghcr.io/acme/payment:1.2.0",
                "ghcr.io",
                "acme/payment",
                Some("1.2.0"),
            ),
            ("localhost/a:b", "localhost", "a", Some("b")),
            (
                "registry:5000/a/b__c/d-e--f.g:_x",
                "registry:5000",
                "a/b__c/d-e--f.g",
                Some("_x"),
            ),
            ("[::1]:5000/a:b", "[::1]:5000", "a", Some("b")),
            ("127.0.0.1:5000/a:b", "127.0.0.1:5000", "a", Some("b")),
        ] {
            let read: Reference = text.parse().unwrap();
            assert_eq!(read.registry(), registry);
            assert_eq!(read.repository(), repository);
            assert_eq!(read.tag(), tag);
            assert_eq!(read.to_string(), text);
            assert_eq!(format!("oci://{text}").parse(), Ok(read));
        }
        for tag in ["", ":1"] {
            let text = format!("ghcr.io/acme/payment{tag}@sha256:{DIGEST}");
            let read: Reference = text.parse().unwrap();
            assert_eq!(read.digest().unwrap().as_str(), DIGEST);
            assert_eq!((read.to_string(), read.name()), (text, "payment"));
        }
    }

    #[test]
    fn what_is_none_is_refused_by_what_is_wrong() {
        for (text, why) in [
            ("payment:1", "names no registry"),
            ("guests/payment:1", "does not begin with a registry"),
            ("a..b/c:1", "does not begin with a registry"),
            ("[::x]/c:1", "does not begin with a registry"),
            ("ghcr.io/payment", "neither a tag nor a digest"),
            ("ghcr.io/Payment:1", "has a name with other characters"),
            ("ghcr.io/../x:1", "has a name with other characters"),
            ("ghcr.io/a//b:1", "has a name with other characters"),
            ("ghcr.io/a-:1", "has a name with other characters"),
            ("ghcr.io/a___b:1", "has a name with other characters"),
            ("ghcr.io/a:", "has a tag with other characters"),
            ("ghcr.io/a:b/c", "has a tag with other characters"),
            ("ghcr.io/a:.b", "has a tag with other characters"),
            ("ghcr.io/a@sha512:00", "behind the `@`"),
            ("ghcr.io/a@sha256:AB", "behind the `@`"),
            ("https://ghcr.io/a:1", "does not begin with a registry"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}`")), "{error}");
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!("ghcr.io/{}:1", "a".repeat(MAX_NAME - 6));
        let error = long.parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains("is too long"), "{error}");
        let long = format!("ghcr.io/a:{}", "1".repeat(MAX_TAG + 1));
        assert!(long.parse::<Reference>().is_err());
    }

    #[test]
    fn what_was_meant_is_suggested() {
        let hint = |text| Reference::hint(text).unwrap_or_default();
        assert!(hint("ghcr.io/a/b:1").ends_with("`oci://ghcr.io/a/b:1`"));
        assert!(hint("wasi:http@0.2.0").ends_with("`oci://REGISTRY/wasi/http:0.2.0`"));
        for path in [
            "guests/payment",
            "a.wasm",
            "c:/x@1",
            "a:b",
            "a:b@x",
            "../ghcr.io/a:1",
        ] {
            assert_eq!(hint(path), "", "{path}");
        }
    }
}
