//! The notations of single values: sizes, durations, hosts. Text in, value out; nothing here knows
//! where the text stood.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::text::{serde_as_text, shown};

/// The units of a size, largest first so that writing one takes the shortest form.
const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// The units of a duration in milliseconds, largest first.
const DURATIONS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads `512B`, `64KiB`, `64MiB` or `1GiB` as a number of bytes.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    parse_in(&SIZES, text)
}

/// Reads `250ms`, `2s`, `1m`, `12h` or `7d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse_in(&DURATIONS, text).map(Duration::from_millis)
}

/// Writes a number of bytes as [`parse_size`] reads it, in the largest unit that divides it.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    text_in(&SIZES, "B", bytes)
}

/// Writes a duration as [`parse_duration`] reads it, to the millisecond.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    text_in(&DURATIONS, "ms", millis)
}

/// Writes a duration as [`duration_text`] does.
pub(super) fn serialize_duration<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration_text(*duration))
}

fn parse_in(units: &[(&str, u64)], text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn text_in(units: &[(&str, u64)], smallest: &str, value: u64) -> String {
    let fits = |scale: u64| value != 0 && value.is_multiple_of(scale);
    match units.iter().find(|(_, scale)| fits(*scale)) {
        Some((unit, scale)) => format!("{}{unit}", value / scale),
        None => format!("{value}{smallest}"),
    }
}

/// A folder within the manifest's, such as `templates` or `data/prices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderName(String);

/// Why a text is no [`FolderName`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is no folder within the manifest's; accepted: names joined by `/`, none of them `.` or `..`"
)]
pub struct FolderNameError(pub String);

impl FolderName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FolderName {
    type Err = FolderNameError;

    fn from_str(text: &str) -> Result<Self, FolderNameError> {
        let is_name = |part: &str| !matches!(part, "" | "." | "..");
        let is_plain = !text.contains(|c: char| c.is_control() || c == '\\');
        if is_plain && text.len() <= 255 && text.split('/').all(is_name) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FolderNameError(shown(text).into_owned()))
        }
    }
}

impl fmt::Display for FolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(FolderName);

/// Hosts that outgoing HTTP may reach: `api.example.com`, `*.example.com`, `127.0.0.1:8080`.
///
/// `*.` stands for one or more labels, so `*.example.com` covers `a.b.example.com` and not
/// `example.com` itself. Without a port, the two standard ones (80 and 443) are meant: a grant for
/// a web site is none for whatever else listens on that machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Exactly(String),
    /// Every name that ends with this, which starts with a dot.
    Below(String),
}

/// Why a text is no [`HostPattern`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is no host; accepted: `api.example.com`, `*.example.com`, either with `:port`, without scheme and path"
)]
pub struct HostPatternError(pub String);

impl HostPattern {
    /// Whether a request to `host` (as a URL has it; IPv6 with or without brackets) on `port` is
    /// covered.
    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let named = match &self.host {
            Host::Exactly(name) => host == *name,
            Host::Below(suffix) => host
                .strip_suffix(suffix.as_str())
                .is_some_and(|below| !below.is_empty()),
        };
        named
            && self
                .port
                .map_or(matches!(port, 80 | 443), |own| own == port)
    }
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        let refuse = || HostPatternError(shown(text).into_owned());
        // An IPv6 address has colons of its own, so it is only accepted in brackets.
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or_else(refuse)?;
            let address: std::net::Ipv6Addr = address.parse().map_err(|_| refuse())?;
            let port = match port.strip_prefix(':') {
                Some(port) => Some(parse_port(port).ok_or_else(refuse)?),
                None if port.is_empty() => None,
                None => return Err(refuse()),
            };
            return Ok(Self {
                host: Host::Exactly(address.to_string()),
                port,
            });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(parse_port(port).ok_or_else(refuse)?)),
            None => (text, None),
        };
        let name = name.to_ascii_lowercase();
        let label = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        };
        let below = name.strip_prefix("*.");
        if name.len() > 253 || !below.unwrap_or(&name).split('.').all(label) {
            return Err(refuse());
        }
        let host = match below {
            // `*.0.0.1` would read as a pattern of addresses, which it is not.
            Some(rest) if rest.ends_with(|c: char| c.is_ascii_digit()) => return Err(refuse()),
            Some(rest) => Host::Below(format!(".{rest}")),
            None => Host::Exactly(name),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Exactly(name) if name.contains(':') => write!(f, "[{name}]")?,
            Host::Exactly(name) => f.write_str(name)?,
            Host::Below(suffix) => write!(f, "*{suffix}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

crate::text::serde_as_text!(HostPattern);

/// A port number in plain digits; `parse` alone would take `+80`.
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    text.chars()
        .all(|c| c.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_durations_are_read_as_they_are_written() {
        for (text, bytes) in [
            ("0B", 0),
            ("512B", 512),
            ("64KiB", 65_536),
            ("3MiB", 3 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(size_text(bytes), text);
        }
        for (text, millis) in [
            ("0ms", 0),
            ("250ms", 250),
            ("2s", 2_000),
            ("1m", 60_000),
            ("90s", 90_000),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
            assert_eq!(duration_text(Duration::from_millis(millis)), text);
        }
        for text in [
            "",
            "MiB",
            "1 MiB",
            "1MB",
            "1mib",
            "-1B",
            "1.5MiB",
            "99999999999GiB",
            "+1B",
            "12",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        for text in [
            "",
            "s",
            "1w",
            "1.5s",
            "2 s",
            "-1s",
            "2",
            "99999999999999999999s",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_grant_covers_its_hosts_and_no_others() {
        let covers = |pattern: &str, host: &str, port| {
            pattern.parse::<HostPattern>().unwrap().matches(host, port)
        };
        assert!(covers("api.example.com", "API.example.com.", 443));
        assert!(covers("api.example.com", "api.example.com", 80));
        assert!(!covers("api.example.com", "api.example.com", 8080));
        assert!(!covers("api.example.com", "api.example.com.evil.org", 443));
        assert!(!covers("api.example.com", "xapi.example.com", 443));
        assert!(covers("*.example.com", "a.b.example.com", 443));
        assert!(!covers("*.example.com", "example.com", 443));
        assert!(!covers("*.example.com", "badexample.com", 443));
        assert!(covers("*.example.com:8443", "a.example.com", 8443));
        assert!(!covers("*.example.com:8443", "a.example.com", 443));
        assert!(covers("127.0.0.1:9", "127.0.0.1", 9));
        assert!(covers("[::1]:9", "::1", 9));
        assert!(covers("[0:0::1]:9", "[::1]", 9));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "*",
            "*.",
            ".com",
            "a..b",
            "http://a.b",
            "a.b/c",
            "a.b:",
            "a.b:99999",
            "a:+80",
            "a.*.b",
            "*a.b",
            "[::1",
            "[::1]9",
            "[x]",
            "::1",
            "*.0.0.1",
            "a b",
            "bücher.example",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
        assert_eq!(
            "http://a.b".parse::<HostPattern>().unwrap_err().to_string(),
            "`http://a.b` is no host; accepted: `api.example.com`, `*.example.com`, either with \
             `:port`, without scheme and path"
        );
    }

    proptest! {
        #[test]
        fn a_pattern_reads_what_it_writes(text in r"(\*\.)?[a-z0-9]{1,5}\.[a-z]{1,4}(:[0-9]{1,4})?") {
            let pattern: HostPattern = text.parse().unwrap();
            prop_assert_eq!(pattern.to_string().parse::<HostPattern>().unwrap(), pattern);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (parse_size(&text), parse_duration(&text), text.parse::<HostPattern>());
        }
    }
}
