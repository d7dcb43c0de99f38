//! Endpoints that a service may reach over sockets.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::values::parse_port;
use crate::text::shown;

/// A host and a port, such as `db.internal:5432`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name or address.
    pub host: EndpointHost,
    /// Its port.
    pub port: u16,
}

/// The host of an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointHost {
    /// A name, in lower case, whose addresses are looked up.
    Name(String),
    /// An address, which is meant whatever it is.
    Address(IpAddr),
}

/// Why a text is no [`Endpoint`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is no host with a port; accepted: `db.internal:5432`, `10.0.0.7:5432`, `[fd00::7]:5432`"
)]
pub struct EndpointError(pub String);

impl EndpointHost {
    /// Whether it is this name, as a guest has it.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        match self {
            Self::Name(own) => own.eq_ignore_ascii_case(name),
            Self::Address(own) => name.parse() == Ok(*own),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let refuse = || EndpointError(shown(text).into_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port = parse_port(port).filter(|port| *port > 0);
        let port = port.ok_or_else(refuse)?;
        if let Some(address) = host.strip_prefix('[') {
            let address = address.strip_suffix(']').ok_or_else(refuse)?;
            let address: Ipv6Addr = address.parse().map_err(|_| refuse())?;
            let host = EndpointHost::Address(address.into());
            return Ok(Self { host, port });
        }
        let is_label = |part: &str| {
            let mut all = part.chars();
            !part.is_empty() && all.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        };
        if host.len() > 253 || !host.split('.').all(is_label) {
            return Err(refuse());
        }
        let host = match host.parse::<IpAddr>() {
            Ok(address) => EndpointHost::Address(address),
            // A name whose last part is a number would be an address that is none.
            Err(_)
                if host.ends_with(|c: char| c.is_ascii_digit())
                    && !host.contains(|c: char| c.is_ascii_alphabetic()) =>
            {
                return Err(refuse());
            }
            Err(_) => EndpointHost::Name(host.to_ascii_lowercase()),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            EndpointHost::Name(name) => write!(f, "{name}:{}", self.port),
            EndpointHost::Address(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            EndpointHost::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

crate::text::serde_as_text!(Endpoint);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_they_are_written() {
        for text in [
            "db.internal:5432",
            "10.0.0.7:5432",
            "[fd00::7]:1",
            "a:65535",
            "localhost:80",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!(
            "DB.Internal:1".parse::<Endpoint>().unwrap().to_string(),
            "db.internal:1"
        );
        for text in [
            "",
            "db",
            "db:",
            ":5432",
            "db:0",
            "db:65536",
            "db:+1",
            "*.db:1",
            "d b:1",
            "http://db:1",
            "fd00::7:1",
            "[fd00::7]",
            "[db]:1",
            "10.0.0:1",
            "db..x:1",
            "db.:1",
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(
                error.to_string().contains("accepted: `db.internal:5432`"),
                "{text}"
            );
        }
    }

    #[test]
    fn names_are_compared_as_the_name_system_does() {
        let host = |text: &str| text.parse::<Endpoint>().unwrap().host;
        assert!(host("db.internal:1").is_named("DB.internal."));
        assert!(!host("db.internal:1").is_named("b.internal"));
        assert!(host("10.0.0.7:1").is_named("10.0.0.7"));
    }
}
