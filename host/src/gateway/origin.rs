//! Requests that a browser sends for a page of another site call no function.
//!
//! A page of any origin can have its visitor's browser send requests to whatever the browser can
//! reach, this gateway among it, with the visitor's cookies or from inside the visitor's network. It
//! can read no answer, but the function has run. A browser says for whom it asks, in two headers
//! that no page can set; clients that are no browsers send neither and are not affected.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};

use super::answer::Refusal;
use super::cors::Cors;
use crate::text::shown;

// Statics, since a name that is text is checked and hashed anew for each request.
static SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Refuses a request without a valid name of the host that it asks, and what a browser sends for a
/// page of another origin. A link to a GET route may be followed from anywhere.
///
/// Pages that `cors` names may send what it says.
pub(super) fn check<B>(request: &Request<B>, cors: Option<&Cors>) -> Result<(), Refusal> {
    let host = host(request)?;
    let headers = request.headers();
    if cors.is_some_and(|cors| cors.allows(request.method(), headers)) {
        return Ok(());
    }
    match headers.get(&SITE).map(|site| site.as_bytes()) {
        // The browser compared the origins itself, before a proxy could change `Host`.
        Some(b"same-origin" | b"none") => return Ok(()),
        Some(b"cross-site") if !follows_link(request.method(), headers) => return Err(foreign()),
        _ => {}
    }
    let mut origins = headers.get_all(ORIGIN).iter();
    if origins.all(|origin| is_own(origin.as_bytes(), host)) {
        Ok(())
    } else {
        Err(foreign())
    }
}

/// The host that is asked, as RFC 9112 (3.2) has it: the one of the request line, else that of the
/// one header `Host`, which HTTP/1.0 can do without.
pub(super) fn host<B>(request: &Request<B>) -> Result<&[u8], Refusal> {
    let refuse = |why| Err(Refusal::caller(StatusCode::BAD_REQUEST, why));
    let mut hosts = request.headers().get_all(HOST).iter();
    let (header, second) = (hosts.next().map(HeaderValue::as_bytes), hosts.next());
    if second.is_some() {
        return refuse("the header Host is there twice");
    }
    let named = request
        .uri()
        .authority()
        .map(|name| name.as_str().as_bytes());
    if let Some(wrong) = header.into_iter().chain(named).find(|name| !is_host(name)) {
        let found = String::from_utf8_lossy(wrong);
        return refuse(&format!(
            "Host has to be a name or address with a port or without, not \"{}\"",
            shown(&found)
        ));
    }
    match named.or(header) {
        Some(host) => Ok(host),
        None if request.version() == Version::HTTP_10 => Ok(b""),
        None => refuse("the header Host is missing"),
    }
}

/// Whether this is a host with a port or without (RFC 3986, 3.2.2): a name with percent-encoding, an
/// IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &[u8]) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix(b"[") {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else {
            return false;
        };
        let (inside, port) = rest.split_at(end);
        if !inside
            .iter()
            .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
        {
            return false;
        }
        (inside, port.get(1..).unwrap_or_default())
    } else {
        let end = text.iter().position(|byte| *byte == b':');
        let (host, port) = text.split_at(end.unwrap_or(text.len()));
        let of_name =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
        if !host.iter().all(of_name) {
            return false;
        }
        (host, port)
    };
    let digits = port.strip_prefix(b":");
    !host.is_empty()
        && (port.is_empty() || digits.is_some_and(|port| port.iter().all(u8::is_ascii_digit)))
}

/// Whether the user follows a link: a page that is shown, and not inside another one.
fn follows_link(method: &Method, headers: &HeaderMap) -> bool {
    let says = |name, value: &str| headers.get(name).is_some_and(|given| given == value);
    method.is_safe() && says(&MODE, "navigate") && says(&DEST, "document")
}

/// Whether an origin is that of the host which was asked. Its scheme is not compared: whether there
/// is TLS before the gateway, the gateway cannot know.
fn is_own(origin: &[u8], host: &[u8]) -> bool {
    let (own, port) = if let Some(own) = origin.strip_prefix(b"https://") {
        (own, &b":443"[..])
    } else if let Some(own) = origin.strip_prefix(b"http://") {
        (own, &b":80"[..])
    } else {
        return false;
    };
    // A browser leaves the scheme's own port out.
    let host = host.strip_suffix(port).unwrap_or(host);
    !own.is_empty() && own.eq_ignore_ascii_case(host)
}

fn foreign() -> Refusal {
    Refusal::caller(
        StatusCode::FORBIDDEN,
        "a page of another origin may not ask here",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let checked = check(&request.body(()).unwrap(), None);
        checked.err().map(|refusal| refusal.status.as_u16())
    }

    fn allowed(method: &str, headers: &[(&str, &str)]) -> bool {
        let own = ("host", "shop.example");
        let status = if headers.iter().any(|(name, _)| *name == "host") {
            status(method, "/", headers)
        } else {
            status(method, "/", &[&[own], headers].concat())
        };
        assert!(matches!(status, None | Some(403)), "{status:?}");
        status.is_none()
    }

    #[test]
    fn a_host_is_named_once_and_well() {
        let host = |host| status("POST", "/", &[("host", host)]);
        for good in [
            "shop.example",
            "shop.example:8080",
            "shop.example:",
            "127.0.0.1:1",
            "[::1]",
            "[2001:db8::1]:443",
            "caf%C3%A9.example",
            "_dmarc.example",
        ] {
            assert_eq!(host(good), None, "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a/b",
            "a@b",
            "a:b",
            "a:1:2",
            "[::1",
            "[::1]x",
            "[]",
            "[x]",
            "é.example",
            "a,b/",
            "<script>",
        ] {
            assert_eq!(host(bad), Some(400), "{bad}");
        }
        assert_eq!(status("POST", "/", &[]), Some(400));
        let twice = [("host", "a.example"), ("host", "a.example")];
        assert_eq!(status("POST", "/", &twice), Some(400));
        // Named in the request line, as HTTP/2 has it.
        assert_eq!(status("POST", "http://a.example/", &[]), None);
        assert_eq!(status("POST", "http://a@a.example/", &[]), Some(400));
        assert_eq!(
            status("POST", "http://a.example/", &[("host", "a/b")]),
            Some(400)
        );
        let mut old = Request::new(());
        *old.version_mut() = Version::HTTP_10;
        check(&old, None).unwrap();
        old.headers_mut()
            .insert(ORIGIN, HeaderValue::from_static("http://a"));
        assert_eq!(check(&old, None).unwrap_err().status, 403);
    }

    #[test]
    fn an_origin_has_to_be_the_host() {
        let from = |host, origin| allowed("POST", &[("host", host), ("origin", origin)]);
        for (host, origin) in [
            ("shop.example", "https://shop.example"),
            ("Shop.Example", "http://shop.example"),
            ("shop.example:443", "https://shop.example"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert!(from(host, origin), "{host} {origin}");
        }
        for (host, origin) in [
            ("shop.example", "https://evil.example"),
            ("shop.example", "https://shop.example.evil.example"),
            ("shop.example", "https://shop.example:444"),
            ("shop.example:443", "http://shop.example"),
            ("127.0.0.1:8080", "http://127.0.0.1:3000"),
            ("localhost:8080", "http://127.0.0.1:8080"),
            ("shop.example", "null"),
            ("shop.example", ""),
            ("shop.example", "http://"),
            ("shop.example", "chrome-extension://shop.example"),
        ] {
            assert!(!from(host, origin), "{host} {origin}");
        }
        assert!(allowed("POST", &[("host", "shop.example")]));
        let both = [
            ("host", "a.example"),
            ("origin", "http://a.example"),
            ("origin", "http://b.example"),
        ];
        assert!(!allowed("POST", &both));
        // The name in the request line comes before `Host`.
        let named = |headers| status("POST", "http://b.example/", headers);
        assert_eq!(named(&both[..2]), Some(403));
        let other = [("host", "a.example"), ("origin", "http://b.example")];
        assert_eq!(named(&other), None);
    }

    #[test]
    fn what_the_browser_says_itself_counts_first() {
        // As behind a proxy that puts its own name into `Host`.
        let proxied = |site| {
            let headers = [
                ("host", "10.0.0.7:8080"),
                ("origin", "https://shop.example"),
                ("sec-fetch-site", site),
            ];
            allowed("POST", &headers)
        };
        assert!(proxied("same-origin"));
        assert!(proxied("none"));
        assert!(!proxied("same-site"));
        assert!(!proxied("cross-site"));
        assert!(!proxied("nonsense"));
        for method in ["GET", "POST"] {
            assert!(!allowed(method, &[("sec-fetch-site", "cross-site")]));
        }
    }

    #[test]
    fn a_link_may_be_followed_from_anywhere() {
        let visit = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(allowed("GET", &visit));
        assert!(!allowed("POST", &visit));
        let framed = [visit[0], visit[1], ("sec-fetch-dest", "iframe")];
        assert!(!allowed("GET", &framed));
        let fetched = [visit[0], ("sec-fetch-mode", "no-cors"), visit[2]];
        assert!(!allowed("GET", &fetched));
    }
}
