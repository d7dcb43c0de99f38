//! Requests that a browser sends for a page of another site call no function.
//!
//! A page of any origin can have its visitor's browser send requests to whatever the browser can
//! reach, this gateway among it, with the visitor's cookies or from inside the visitor's network. It
//! can read no answer, but the function has run. A browser says for whom it asks, in two headers
//! that no page can set; clients that are no browsers send neither and are not affected.

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri};

use super::answer::Refusal;

// Statics, since a name that is text is checked and hashed anew for each request.
static SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Refuses what a browser sends for a page of another origin. A link to a GET route may be
/// followed from anywhere.
pub(super) fn check(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(&SITE).map(|site| site.as_bytes()) {
        // The browser compared the origins itself, before a proxy could change `Host`.
        Some(b"same-origin" | b"none") => return Ok(()),
        Some(b"cross-site") if !follows_link(method, headers) => return Err(foreign()),
        _ => {}
    }
    let mut origins = headers.get_all(ORIGIN).iter().peekable();
    if origins.peek().is_none() {
        return Ok(());
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = uri.authority().map(Authority::as_str).or(host);
    let host = host.unwrap_or_default();
    if origins.all(|origin| is_own(origin.as_bytes(), host)) {
        Ok(())
    } else {
        Err(foreign())
    }
}

/// Whether somebody follows a link: a page that is shown, and not inside another one.
fn follows_link(method: &Method, headers: &HeaderMap) -> bool {
    let says = |name, value: &str| headers.get(name).is_some_and(|given| given == value);
    method.is_safe() && says(&MODE, "navigate") && says(&DEST, "document")
}

/// Whether an origin is that of the host which was asked. Its scheme is not compared: whether there
/// is TLS before the gateway, the gateway cannot know.
fn is_own(origin: &[u8], host: &str) -> bool {
    let (own, port) = if let Some(own) = origin.strip_prefix(b"https://") {
        (own, ":443")
    } else if let Some(own) = origin.strip_prefix(b"http://") {
        (own, ":80")
    } else {
        return false;
    };
    // A browser leaves the scheme's own port out.
    let host = host.strip_suffix(port).unwrap_or(host);
    !own.is_empty() && own.eq_ignore_ascii_case(host.as_bytes())
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

    fn allowed(method: &str, uri: &str, headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, (*value).parse().unwrap());
        }
        let checked = check(&method.parse().unwrap(), &uri.parse().unwrap(), &map);
        assert!(
            checked
                .as_ref()
                .err()
                .is_none_or(|refusal| refusal.status == 403)
        );
        checked.is_ok()
    }

    #[test]
    fn an_origin_has_to_be_the_host() {
        let from = |host, origin| allowed("POST", "/", &[("host", host), ("origin", origin)]);
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
            ("", "http://"),
            ("shop.example", "chrome-extension://shop.example"),
        ] {
            assert!(!from(host, origin), "{host} {origin}");
        }
        assert!(allowed("POST", "/", &[("host", "shop.example")]));
        assert!(!allowed("POST", "/", &[("origin", "http://shop.example")]));
        let both = [
            ("host", "a.example"),
            ("origin", "http://a.example"),
            ("origin", "http://b.example"),
        ];
        assert!(!allowed("POST", "/", &both));
        // The name in the request line comes before `Host`.
        assert!(!allowed("POST", "http://b.example/", &both[..2]));
        let other = [("host", "a.example"), ("origin", "http://b.example")];
        assert!(allowed("POST", "http://b.example/", &other));
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
            allowed("POST", "/", &headers)
        };
        assert!(proxied("same-origin"));
        assert!(proxied("none"));
        assert!(!proxied("same-site"));
        assert!(!proxied("cross-site"));
        assert!(!proxied("nonsense"));
        for method in ["GET", "POST"] {
            assert!(!allowed(method, "/", &[("sec-fetch-site", "cross-site")]));
        }
    }

    #[test]
    fn a_link_may_be_followed_from_anywhere() {
        let visit = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(allowed("GET", "/", &visit));
        assert!(!allowed("POST", "/", &visit));
        let framed = [visit[0], visit[1], ("sec-fetch-dest", "iframe")];
        assert!(!allowed("GET", "/", &framed));
        let fetched = [visit[0], ("sec-fetch-mode", "no-cors"), visit[2]];
        assert!(!allowed("GET", "/", &fetched));
    }
}
