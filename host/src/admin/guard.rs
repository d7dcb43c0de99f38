//! Refuses requests that a browser sends for pages of other origins.
//!
//! A page of any origin can have its browser send requests to a loopback address. A request that
//! changes something then has an `Origin` that is not this address. A page whose own host name was
//! made to point here (DNS rebinding) is no other origin for the browser, but has that name in
//! `Host`; hence no name but `localhost` is accepted, and no address but those that lead here. Where a
//! token is asked for, which no page of others has, any name may lead here.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{Request, StatusCode};
use sha2::{Digest as _, Sha256};

use super::{Answer, Refusal, page};
use crate::gateway::connection::Received;

/// What is answered without a token: it says nothing of any app, and orchestrators ask for it.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// A token without which an admin address answers nothing but its health. Its text is not kept.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(Arc<[u8; 32]>);

/// A text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has 16 to 256 printable ASCII characters and no blank")]
pub struct NoToken;

impl AdminToken {
    /// Reads a token; blanks around it, such as the end of a file's line, are none of it.
    ///
    /// # Errors
    ///
    /// It is too short to be a secret, too long, or cannot be sent in a header.
    pub fn parse(text: &str) -> Result<Self, NoToken> {
        let text = text.trim();
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || !(16..=256).contains(&text.len()) {
            return Err(NoToken);
        }
        Ok(Self(Arc::new(Sha256::digest(text).into())))
    }

    /// Compared by digest, so how long it takes says nothing of the token.
    fn is(&self, given: &[u8]) -> bool {
        *self.0 == <[u8; 32]>::from(Sha256::digest(given))
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// Who may ask.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    /// The address that is listened on.
    pub(crate) bound: IpAddr,
    pub(crate) token: Option<AdminToken>,
}

impl Guard {
    /// Refuses a request that may not be asked; of one for a file of the page, which anybody may have, that.
    pub(crate) fn admit(&self, request: &Received) -> Result<Option<Answer>, Refusal> {
        if let Some(file) = page::find(request) {
            return Ok(Some(file));
        }
        check(request, self.bound, self.token.is_some())?;
        match &self.token {
            Some(token) if !OPEN.contains(&request.uri().path()) => authorized(request, token)?,
            _ => {}
        }
        Ok(None)
    }
}

fn authorized<B>(request: &Request<B>, token: &AdminToken) -> Result<(), Refusal> {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .map(|value| value.as_bytes());
    let bearer = given.and_then(|value| {
        let (scheme, token) = value.split_at_checked("bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
    });
    if bearer.is_some_and(|given| token.is(given)) {
        return Ok(());
    }
    let why = "this address asks for its token: `Authorization: Bearer TOKEN`";
    Err(Refusal::caller(StatusCode::UNAUTHORIZED, why))
}

/// Refuses a request to another host name, unless any may lead here, and one of a page that was not
/// loaded from here.
fn check<B>(request: &Request<B>, bound: IpAddr, any_name: bool) -> Result<(), Refusal> {
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
    if !any_name && !named.iter().all(|host| leads_here(host, bound)) {
        return refuse("the header Host has to be localhost or the address that is listened on");
    }
    let is_own = |origin: &http::HeaderValue| {
        let origin = origin.to_str().unwrap_or_default();
        // In front of a name may stand what ends TLS.
        let secure = origin.strip_prefix("https://").filter(|_| any_name);
        let host = secure.or_else(|| origin.strip_prefix("http://"));
        host.is_some_and(|host| host.eq_ignore_ascii_case(own))
    };
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
        let checked = check(&request, bound.parse().unwrap(), false);
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
    fn with_a_token_any_name_leads_here_and_nothing_but_the_token_opens() {
        let token = AdminToken::parse(" a-token-of-some-length\n").unwrap();
        let request = |headers: &[(&str, &str)]| {
            let mut request = Request::builder().header("host", "admin.example");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            request.body(()).unwrap()
        };
        let bound = IpAddr::from([0, 0, 0, 0]);
        let origin = |origin| check(&request(&[("origin", origin)]), bound, true).is_ok();
        assert!(origin("https://admin.example") && origin("http://admin.example"));
        assert!(!origin("https://evil.example"));
        let opens = |value| authorized(&request(&[("authorization", value)]), &token).is_ok();
        assert!(opens("Bearer a-token-of-some-length") && opens("bearer a-token-of-some-length"));
        for value in [
            "",
            "Bearer ",
            "Bearer a-token-of-some-lengt",
            "Bearer  a-token-of-some-length",
            "Basic a-token-of-some-length",
            "a-token-of-some-length",
        ] {
            assert!(!opens(value), "{value}");
        }
        assert!(authorized(&request(&[]), &token).is_err());
        assert!(!format!("{token:?}").contains("some"));
        for text in [
            "",
            "short",
            "fifteen-letters",
            "a token with blanks",
            &"x".repeat(257),
        ] {
            assert_eq!(AdminToken::parse(text), Err(NoToken), "{text}");
        }
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
