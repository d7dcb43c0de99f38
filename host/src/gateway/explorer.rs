//! A page on which people read what a gateway serves and try it: [RapiDoc](https://rapidocweb.com), version
//! 9.3.8, whose one file is part of the program. It reads `/openapi.json` and asks nothing of any other address.

use std::io::Read as _;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
};
use http::{HeaderMap, HeaderValue};

use super::answer::{Answer, Payload};
use super::compress;

/// Nothing from anywhere else. The styles of its elements are written into the page.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const HTML: &str = include_str!("explorer/index.html");

/// Packed, as almost every client takes it.
const SCRIPT: &[u8] = include_bytes!("explorer/rapidoc-min.js.gz");

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Explorer {
    Page,
    Script,
}

impl Explorer {
    pub(super) const PAGE: &str = "/openapi";
    const SCRIPT: &str = "/openapi/rapidoc.js";

    /// The file at a path.
    pub(super) fn find(path: &str) -> Option<Self> {
        match path {
            Self::PAGE => Some(Self::Page),
            Self::SCRIPT => Some(Self::Script),
            _ => None,
        }
    }

    pub(super) fn answer(self, asked: &HeaderMap) -> Answer {
        let mut headers = HeaderMap::new();
        let (kind, body) = match self {
            Self::Page => ("text/html; charset=utf-8", HTML.into()),
            Self::Script => (
                "text/javascript; charset=utf-8",
                script(asked, &mut headers),
            ),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CONTENT_SECURITY_POLICY, POLICY);
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        let mut answer = Answer::new(Payload::whole(body));
        *answer.headers_mut() = headers;
        answer
    }
}

/// The script, unpacked for who does not take it packed.
fn script(asked: &HeaderMap, headers: &mut HeaderMap) -> Bytes {
    static PLAIN: OnceLock<Bytes> = OnceLock::new();
    headers.insert(VARY, HeaderValue::from_name(ACCEPT_ENCODING));
    if compress::takes_gzip(asked) {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        return Bytes::from_static(SCRIPT);
    }
    let plain = PLAIN.get_or_init(|| {
        let mut plain = Vec::new();
        // It was packed when this was written.
        if let Err(error) = GzDecoder::new(SCRIPT).read_to_end(&mut plain) {
            tracing::error!(%error, "the script of the explorer");
        }
        plain.into()
    });
    plain.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_whole() {
        let mut headers = HeaderMap::new();
        let plain = script(&HeaderMap::new(), &mut headers);
        assert!(plain.len() > 800_000 && !headers.contains_key(CONTENT_ENCODING));
        let mut asked = HeaderMap::new();
        asked.insert(ACCEPT_ENCODING, HeaderValue::from_static("br, gzip"));
        assert!(script(&asked, &mut headers).len() < 300_000);
        assert_eq!(headers[CONTENT_ENCODING], "gzip");
    }
}
