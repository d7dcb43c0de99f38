//! Where a request comes from: the other end of its connection, or what a trusted proxy says of it.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, VIA};
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::auth::Certificate;
use super::connection::Activity;
use crate::manifest::Networks;

// Statics, since a name that is text is checked and hashed anew for each request.
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Proxies that a request is followed back through. Further ones are not looked at: a list may have as many as a
/// request has bytes for headers.
const MAX_PROXIES: usize = 32;

/// Where a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// The address of the client, as far as it is known.
    pub(super) address: IpAddr,
    /// Whether the client is on this machine: the connection is, and no proxy has passed the request on.
    pub(super) is_local: bool,
    /// Whether the client speaks TLS.
    pub(super) is_secure: bool,
    /// What the client has shown when the connection began. Behind a trusted proxy that is the proxy's own.
    pub(super) certificate: Certificate,
    /// Whether a trusted proxy has passed the request on.
    is_vouched: bool,
}

impl Sender {
    pub(super) fn of(activity: &Activity, headers: &HeaderMap, trusted: Option<&Networks>) -> Self {
        let peer = activity.peer;
        let is_passed_on = is_passed_on(headers);
        let trusted = trusted.filter(|trusted| is_passed_on && trusted.contain(peer));
        let said = trusted.and_then(|_| is_secure(headers));
        Self {
            address: trusted.map_or(peer, |trusted| client(headers, peer, trusted)),
            is_local: peer.is_loopback() && !is_passed_on,
            is_secure: said.unwrap_or_else(|| activity.shown().is_some()),
            certificate: match (trusted, activity.shown()) {
                (None, Some(certificate)) => certificate.clone(),
                _ => Certificate::Missing,
            },
            is_vouched: trusted.is_some(),
        }
    }

    /// The scheme by which the client sent the request.
    pub(super) fn scheme(&self) -> Scheme {
        if self.is_secure {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }

    /// Has a component read in the headers of a request what is known of its client, in place of what others say.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        for name in [&FORWARDED, &REAL_IP] {
            headers.remove(name);
        }
        if !self.is_vouched {
            headers.remove(&FORWARDED_HOST);
            headers.remove(&FORWARDED_PORT);
        }
        if let Ok(address) = HeaderValue::try_from(self.address.to_string()) {
            headers.insert(&FORWARDED_FOR, address);
        }
        let scheme = if self.is_secure { "https" } else { "http" };
        headers.insert(&FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
}

/// Whether a proxy says that it has passed a request on.
fn is_passed_on(headers: &HeaderMap) -> bool {
    let names = [
        &FORWARDED,
        &VIA,
        &FORWARDED_FOR,
        &FORWARDED_PROTO,
        &FORWARDED_HOST,
        &REAL_IP,
    ];
    names.into_iter().any(|name| headers.contains_key(name))
}

/// The client that trusted proxies tell of: the last one in their list that is no trusted proxy itself.
fn client(headers: &HeaderMap, peer: IpAddr, trusted: &Networks) -> IpAddr {
    let last = |name: &HeaderName, address: fn(&str) -> Option<IpAddr>| {
        let has = headers.contains_key(name);
        has.then(|| last_stranger(items(headers, name).map(address), peer, trusted))
    };
    let listed = last(&FORWARDED_FOR, address);
    let forwarded = last(&FORWARDED, |item| address(Element::read(item)?.client?));
    match (listed, forwarded) {
        // A proxy writes one of them and may pass on the other as its client wrote it.
        (Some(one), Some(other)) if one != other => peer,
        (one, other) => one.or(other).unwrap_or(peer),
    }
}

/// Follows a request back from proxy to proxy. What is no address ends that: the client is then known by its proxy.
fn last_stranger(
    addresses: impl Iterator<Item = Option<IpAddr>>,
    peer: IpAddr,
    trusted: &Networks,
) -> IpAddr {
    let mut last = peer;
    for address in addresses.take(MAX_PROXIES) {
        let Some(address) = address else { break };
        last = address;
        if !trusted.contain(address) {
            break;
        }
    }
    last
}

/// Whether the proxy that is nearest says that the client speaks TLS.
fn is_secure(headers: &HeaderMap) -> Option<bool> {
    let scheme = |text: &str| match text {
        _ if text.eq_ignore_ascii_case("https") => Some(true),
        _ if text.eq_ignore_ascii_case("http") => Some(false),
        _ => None,
    };
    let listed = items(headers, &FORWARDED_PROTO).next().and_then(scheme);
    let forwarded = items(headers, &FORWARDED).next().and_then(Element::read);
    let forwarded = forwarded.and_then(|element| scheme(element.proto?));
    match (listed, forwarded) {
        (Some(one), Some(other)) if one != other => None,
        (one, other) => one.or(other),
    }
}

/// The items of a list, the last one first. Each proxy adds one at the end, so that is what the nearest has written.
/// Commas within quotes part items too: what a client has written before must not reach over what follows, and an
/// item with half of a quoted text is none.
fn items<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().rev();
    // By bytes, since a client may have written what is no text before the item of its proxy.
    let items = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    items.map(|item| str::from_utf8(item).map_or("?", str::trim))
}

/// An address, with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    let address = address.or_else(|_| text.parse::<SocketAddr>().map(|with| with.ip()));
    Some(address.ok()?.to_canonical())
}

/// An element of `Forwarded` (RFC 7239).
#[derive(Default)]
struct Element<'h> {
    client: Option<&'h str>,
    proto: Option<&'h str>,
}

impl<'h> Element<'h> {
    /// Nothing of one that is broken.
    fn read(text: &'h str) -> Option<Self> {
        let mut element = Self::default();
        for pair in text.split(';') {
            let (name, value) = pair.trim().split_once('=')?;
            let value = match value.strip_prefix('"') {
                Some(quoted) => quoted.strip_suffix('"')?,
                None => value,
            };
            if value.contains(['"', '\\']) {
                return None;
            }
            let known = match name {
                _ if name.eq_ignore_ascii_case("for") => &mut element.client,
                _ if name.eq_ignore_ascii_case("proto") => &mut element.proto,
                _ => continue,
            };
            if known.replace(value).is_some() {
                return None;
            }
        }
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::time::Instant;

    use super::*;
    use crate::manifest::Manifest;

    fn networks() -> Networks {
        let manifest = "name = 'a'\n[service.a]\ncomponent = 'a.wasm'\n[gateway]\ntrusted-proxies = ['10.0.0.0/8', '::1', '127.0.0.1', '2001:db8::/32']\n";
        let read = Manifest::parse(Path::new("wasmbay.toml"), manifest).unwrap();
        read.app.gateway.trusted_proxies.unwrap()
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    }

    fn sender(peer: &str, lines: &[(&str, &str)]) -> Sender {
        let activity = Activity::new(peer.parse().unwrap(), Instant::now(), false);
        Sender::of(&activity, &headers(lines), Some(&networks()))
    }

    #[track_caller]
    fn is_from(peer: &str, lines: &[(&str, &str)], expected: &str) {
        let sender = sender(peer, lines);
        assert_eq!(sender.address.to_string(), expected, "{peer} {lines:?}");
        assert!(!sender.is_local, "{peer} {lines:?}");
    }

    const FOR: &str = "x-forwarded-for";

    #[test]
    fn only_trusted_proxies_are_believed() {
        for lines in [
            &[(FOR, "1.2.3.4")][..],
            &[("forwarded", "for=1.2.3.4;proto=https")],
            &[("x-real-ip", "1.2.3.4"), ("x-forwarded-proto", "https")],
        ] {
            is_from("11.0.0.1", lines, "11.0.0.1");
            is_from("::2", lines, "::2");
            assert!(!sender("11.0.0.1", lines).is_secure);
        }
        is_from("10.0.0.1", &[(FOR, "1.2.3.4")], "1.2.3.4");
        is_from("::1", &[(FOR, "1.2.3.4")], "1.2.3.4");
        is_from(
            "::ffff:10.0.0.1",
            &[("forwarded", "for=1.2.3.4")],
            "1.2.3.4",
        );
        // What says no more than that is not believed for an address.
        is_from("10.0.0.1", &[("x-real-ip", "1.2.3.4")], "10.0.0.1");
        is_from("10.0.0.1", &[], "10.0.0.1");
    }

    #[test]
    fn a_client_is_the_last_that_is_no_trusted_proxy() {
        for (list, expected) in [
            ("1.1.1.1, 2.2.2.2", "2.2.2.2"),
            ("1.1.1.1, 2.2.2.2, 10.3.3.3,10.4.4.4", "2.2.2.2"),
            ("127.0.0.1, 2.2.2.2", "2.2.2.2"),
            ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
            ("2.2.2.2:4711", "2.2.2.2"),
            ("[2a00::1]:4711", "2a00::1"),
            ("[2a00::1]", "2a00::1"),
            ("2a00::1", "2a00::1"),
            ("::ffff:2.2.2.2, [2001:db8::1]:443", "2.2.2.2"),
        ] {
            is_from("10.0.0.1", &[(FOR, list)], expected);
        }
        is_from(
            "10.0.0.1",
            &[(FOR, "1.1.1.1"), (FOR, "2.2.2.2, 10.9.9.9")],
            "2.2.2.2",
        );
        for (list, expected) in [
            ("for=1.1.1.1, for=2.2.2.2;by=10.0.0.1;host=x", "2.2.2.2"),
            ("For=\"[2a00::1]:4711\" ; proto=http", "2a00::1"),
            ("for=2.2.2.2, for=\"10.0.0.9:80\"", "2.2.2.2"),
        ] {
            is_from("10.0.0.1", &[("forwarded", list)], expected);
        }
    }

    #[test]
    fn what_is_no_address_is_known_by_its_proxy() {
        for list in [
            "1.1.1.1, unknown",
            "1.1.1.1, _hidden",
            "1.1.1.1, 2.2.2.2.2",
            "1.1.1.1, ",
            "1.1.1.1, host.example",
            "1.1.1.1, [2a00::1",
            "1.1.1.1, 2.2.2.2:port",
            "1.1.1.1, 2.2.2.2:99999",
            "1.1.1.1, \u{fc}",
            "",
        ] {
            is_from("10.0.0.1", &[(FOR, list)], "10.0.0.1");
            is_from(
                "10.0.0.1",
                &[(FOR, &format!("{list}, 10.7.7.7"))],
                "10.7.7.7",
            );
        }
        for list in [
            "for=1.1.1.1, for=unknown",
            "for=1.1.1.1, for=_SEVKISEK",
            "for=1.1.1.1, for=\"_gazonk\"",
            "for=1.1.1.1, by=2.2.2.2",
            "for=1.1.1.1, for=2.2.2.2;for=3.3.3.3",
            "for=1.1.1.1, for=\"2.2.2.2",
            "for=1.1.1.1, for=2.2.2.2\"",
            "for=1.1.1.1, for=\"2.2.2\\.2\"",
            "for=1.1.1.1, 2.2.2.2",
            "for=1.1.1.1, ;;;",
            // A client named a host so, and its proxy quotes that.
            "for=1.1.1.1;host=\"a, for=2.2.2.2\"",
        ] {
            is_from("10.0.0.1", &[("forwarded", list)], "10.0.0.1");
        }
        // What a client opens does not reach over what its proxy adds.
        is_from(
            "10.0.0.1",
            &[("forwarded", "for=\"x, for=2.2.2.2")],
            "2.2.2.2",
        );
    }

    #[test]
    fn lists_beyond_the_bound_are_not_followed() {
        let list = |proxies: usize| format!("1.1.1.1{}", ", 10.9.9.9".repeat(proxies));
        is_from("10.0.0.1", &[(FOR, &list(MAX_PROXIES - 1))], "1.1.1.1");
        is_from("10.0.0.1", &[(FOR, &list(MAX_PROXIES))], "10.9.9.9");
        is_from("10.0.0.1", &[(FOR, &list(3_000))], "10.9.9.9");
        is_from(
            "10.0.0.1",
            &[(FOR, &format!("{},2.2.2.2", ",".repeat(30_000)))],
            "2.2.2.2",
        );
    }

    #[test]
    fn two_lists_that_differ_are_not_believed() {
        let both = |one, other| [(FOR, one), ("forwarded", other)];
        is_from("10.0.0.1", &both("1.1.1.1", "for=1.1.1.1"), "1.1.1.1");
        is_from("10.0.0.1", &both("1.1.1.1", "for=2.2.2.2"), "10.0.0.1");
        let proto = |lines: &[(&str, &str)]| sender("10.0.0.1", lines).is_secure;
        assert!(proto(&[("x-forwarded-proto", "HTTPS")]));
        assert!(proto(&[("x-forwarded-proto", "http, https")]));
        assert!(proto(&[("forwarded", "for=_a;proto=https")]));
        for lines in [
            &[("x-forwarded-proto", "https, http")][..],
            &[("x-forwarded-proto", "https, wss")],
            &[("forwarded", "proto=https, for=_a")],
            &[("forwarded", "proto=https"), ("x-forwarded-proto", "http")],
        ] {
            assert!(!proto(lines), "{lines:?}");
        }
    }

    #[test]
    fn a_request_is_local_unless_a_proxy_passed_it_on() {
        for peer in ["127.0.0.1", "127.8.0.1", "::1"] {
            assert!(sender(peer, &[]).is_local, "{peer}");
            assert!(sender(peer, &[("x-other", "x")]).is_local, "{peer}");
            for name in [
                "forwarded",
                "via",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-forwarded-host",
                "x-real-ip",
            ] {
                assert!(
                    !sender(peer, &[(name, "127.0.0.1")]).is_local,
                    "{peer} {name}"
                );
            }
        }
        for peer in ["10.0.0.1", "0.0.0.0", "fe80::1", "2001:db8::1"] {
            assert!(!sender(peer, &[]).is_local, "{peer}");
        }
    }

    #[test]
    fn a_certificate_is_of_the_client_unless_a_trusted_proxy_showed_it() {
        let from = |peer: &str, lines: &[(&str, &str)]| {
            let activity = Activity::new(peer.parse().unwrap(), Instant::now(), false);
            activity.set_shown(Certificate::Unusable("mine".to_owned()));
            Sender::of(&activity, &headers(lines), Some(&networks()))
        };
        let mine = Certificate::Unusable("mine".to_owned());
        for (peer, lines) in [
            ("11.0.0.1", &[][..]),
            ("11.0.0.1", &[(FOR, "1.1.1.1")]),
            ("10.0.0.1", &[]),
        ] {
            let sender = from(peer, lines);
            assert_eq!(sender.certificate, mine, "{peer} {lines:?}");
            assert!(sender.is_secure);
        }
        let passed_on = from("10.0.0.1", &[(FOR, "1.1.1.1")]);
        assert_eq!(passed_on.certificate, Certificate::Missing);
        assert!(passed_on.is_secure);
        assert!(!from("10.0.0.1", &[("x-forwarded-proto", "http")]).is_secure);
    }

    #[test]
    fn components_read_what_is_known() {
        let told = |peer: &str, lines: &[(&str, &str)]| {
            let mut all = headers(lines);
            sender(peer, lines).tell(&mut all);
            let mut all: Vec<_> = all
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            all.sort();
            all
        };
        let lines = [
            ("forwarded", "for=1.1.1.1"),
            (FOR, "9.9.9.9"),
            (FOR, "1.1.1.1"),
            ("x-real-ip", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
        ];
        assert_eq!(
            told("11.0.0.1", &lines),
            ["x-forwarded-for: 11.0.0.1", "x-forwarded-proto: http"]
        );
        assert_eq!(
            told("10.0.0.1", &lines),
            [
                "x-forwarded-for: 1.1.1.1",
                "x-forwarded-host: shop.example",
                "x-forwarded-proto: https"
            ]
        );
    }
}
