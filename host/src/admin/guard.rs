//! Refuses requests that a browser sends for pages of other origins.
//!
//! A page of any origin can have its browser send requests to a loopback address. A request that
//! changes something then has an `Origin` that is not this address. A page whose own host name was
//! made to point here (DNS rebinding) is no other origin for the browser, but has that name in
//! `Host`; hence no name but `localhost` is accepted, and no address but those that lead here.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{Request, StatusCode};

use super::Refusal;

/// Refuses a request to another host name, and one of a page that was not loaded from here.
pub(crate) fn check<B>(request: &Request<B>, bound: IpAddr) -> Result<(), Refusal> {
    let refuse = |why: &str| Err(Refusal::caller(StatusCode::FORBIDDEN, why));
    let headers = request.headers();
    let hosts = headers.get_all(HOST).into_iter();
    // A value that is no text is no address either.
    let hosts = hosts.map(|host| host.to_str().unwrap_or_default());
    let uri = request.uri().authority().map(Authority::as_str);
    let named: Vec<&str> = uri.into_iter().chain(hosts).collect();
    let Some(own) = named.first() else {
        return Err(Refusal::caller(
            StatusCode::BAD_REQUEST,
            "the header Host is missing",
        ));
    };
    if !named.iter().all(|host| leads_here(host, bound)) {
        return refuse("the header Host has to be localhost or the address that is listened on");
    }
    let own = format!("http://{own}");
    let is_own =
        |origin: &http::HeaderValue| origin.as_bytes().eq_ignore_ascii_case(own.as_bytes());
    if !headers.get_all(ORIGIN).iter().all(is_own) {
        return refuse("requests of pages of other origins are refused");
    }
    Ok(())
}

/// Whether this authority can only be the address that is listened on, whatever resolver is asked.
/// The port may be another one: that of a tunnel.
fn leads_here(authority: &str, bound: IpAddr) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let address = bare.unwrap_or(host).parse::<IpAddr>();
    address.is_ok_and(|address| address.is_loopback() || address == bound || bound.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(bound: &str, uri: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let checked = check(&request, bound.parse().unwrap());
        checked.err().map(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn only_localhost_and_addresses_that_lead_here_are_accepted() {
        let host = |bound, host| status(bound, "/", &[("host", host)]);
        for name in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:8081",
            "[::1]:8081",
            "127.0.0.2",
        ] {
            assert_eq!(host("127.0.0.1", name), None, "{name}");
        }
        for name in [
            "evil.example:8081",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "10.0.0.7:8081",
            "0x7f000001",
            "",
            "a b",
        ] {
            assert_eq!(host("127.0.0.1", name), Some(403), "{name}");
        }
        assert_eq!(host("10.0.0.7", "10.0.0.7:8081"), None);
        assert_eq!(host("10.0.0.7", "10.0.0.8:8081"), Some(403));
        assert_eq!(host("0.0.0.0", "10.0.0.8:8081"), None);
        assert_eq!(host("0.0.0.0", "evil.example"), Some(403));
        assert_eq!(status("127.0.0.1", "/", &[]), Some(400));
    }

    #[test]
    fn every_name_of_a_request_counts() {
        let here = ("host", "localhost");
        assert_eq!(status("::1", "http://[::1]:1/", &[]), None);
        assert_eq!(status("::1", "http://evil.example/", &[here]), Some(403));
        assert_eq!(
            status("::1", "/", &[here, ("host", "evil.example")]),
            Some(403)
        );
    }

    #[test]
    fn a_page_has_to_be_loaded_from_here() {
        let origin = |origin| {
            let headers = [("host", "127.0.0.1:8081"), ("origin", origin)];
            status("127.0.0.1", "/dead-letters", &headers)
        };
        assert_eq!(origin("http://127.0.0.1:8081"), None);
        for other in [
            "null",
            "",
            "http://127.0.0.1:3000",
            "http://localhost:8081",
            "https://127.0.0.1:8081",
            "http://evil.example",
            "http://127.0.0.1:8081.evil.example",
        ] {
            assert_eq!(origin(other), Some(403), "{other}");
        }
    }
}
