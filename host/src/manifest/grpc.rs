//! Wires with `external = "grpc://…"`: interfaces that a gRPC service outside answers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use toml::de::DeValue;

use super::file::Section;
use super::keys::wire;
use crate::text::shown;

/// A gRPC service that answers an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcSpec {
    /// Where it listens.
    pub address: GrpcAddress,
    /// Its full name; none is that of the interface.
    pub service: Option<String>,
    /// The method of each function that is not its name.
    pub methods: BTreeMap<String, String>,
}

/// `grpc://host:port`, or `grpcs://` with TLS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrpcAddress {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The name or address of its host; one of IPv6 has brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A text is no [`GrpcAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("accepted: grpc://host:port or grpcs://host:port")]
pub struct GrpcAddressError;

impl FromStr for GrpcAddress {
    type Err = GrpcAddressError;

    fn from_str(text: &str) -> Result<Self, GrpcAddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(GrpcAddressError)?;
        let tls = match scheme {
            "grpc" => false,
            "grpcs" => true,
            _ => return Err(GrpcAddressError),
        };
        let (host, port) = rest.rsplit_once(':').ok_or(GrpcAddressError)?;
        let is_name = |host: &str| {
            (1..=253).contains(&host.len())
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let is_host = match inner {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_name(host),
        };
        let port = port.parse().ok().filter(|port| *port > 0);
        match port.filter(|_| is_host) {
            Some(port) => Ok(Self {
                tls,
                host: host.to_owned(),
                port,
            }),
            None => Err(GrpcAddressError),
        }
    }
}

impl fmt::Display for GrpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "grpcs" } else { "grpc" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl GrpcSpec {
    /// Its entries in a wire, besides `external`.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'static str, serde_json::Value)> {
        let service = self.service.as_ref();
        let service = service.map(|name| (wire::PROTO_SERVICE.name, serde_json::json!(name)));
        let methods = (!self.methods.is_empty()).then(|| serde_json::json!(self.methods));
        let methods = methods.map(|methods| (wire::METHODS.name, methods));
        service.into_iter().chain(methods)
    }
}

/// Whether a text is a name of Protocol Buffers.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.len() <= 128
}

/// Whether a text is such a name with its package.
fn is_full_name(text: &str) -> bool {
    text.len() <= 256 && text.split('.').all(is_name)
}

/// Reads `proto-service` and `methods` of a wire to this address.
pub(super) fn read_wire(section: &Section<'_>, address: GrpcAddress) -> GrpcSpec {
    let service = section.text_that(&wire::PROTO_SERVICE, is_full_name);
    let mut methods = BTreeMap::new();
    for (name, method) in section.entries(&wire::METHODS, DeValue::as_str) {
        if !is_name(method) {
            section.report(
                name.at,
                format!(
                    "`methods.{}`: `{}` is no name of a method; accepted: letters, digits and `_`",
                    shown(name.value),
                    shown(method)
                ),
            );
        }
        methods.insert(name.value.to_owned(), method.to_owned());
    }
    GrpcSpec {
        address,
        service: service.map(|service| service.value.to_owned()),
        methods,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in [
            "grpc://payments:50051",
            "grpcs://pay.example.com:443",
            "grpc://[::1]:1",
            "grpc://127.0.0.1:65535",
        ] {
            assert_eq!(text.parse::<GrpcAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "grpc",
            "grpc://",
            "grpc://a",
            "grpc://a:",
            "grpc://a:0",
            "grpc://a:65536",
            "grpc://:1",
            "http://a:1",
            "grpc://a b:1",
            "grpc://a/b:1",
            "grpc://[x]:1",
            "grpc://user@a:1",
            "GRPC://a:1",
        ] {
            assert_eq!(text.parse::<GrpcAddress>(), Err(GrpcAddressError), "{text}");
        }
    }
}
