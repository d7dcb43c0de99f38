//! gRPC-Web, which browsers speak: the same messages where nobody can read trailers, so these are the last frame of
//! the body, and base64 around all of it for clients that can only read text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::BodyExt as _;
use hyper::body::Frame;

use super::frame::framed;
use crate::gateway::answer::{Answer, Payload};
use crate::gateway::cors::Cors;

const WEB: HeaderValue = HeaderValue::from_static("application/grpc-web+proto");
const WEB_TEXT: HeaderValue = HeaderValue::from_static("application/grpc-web-text+proto");

/// The header by which a browser's clients of gRPC-Web say that they are some.
const X_GRPC_WEB: &str = "x-grpc-web";

/// The first byte of the frame that has the trailers.
const TRAILERS: u8 = 0x80;

/// How messages and trailers go over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Grpc,
    Web,
    /// As `Web`, in base64.
    WebText,
}

impl Form {
    /// The form of a content type, by what follows `application/grpc`.
    pub(super) fn of(kind: &str) -> Option<Self> {
        let (kind, _) = kind.split_once(';').unwrap_or((kind, ""));
        let kind = kind.trim_end().to_ascii_lowercase();
        match kind.strip_suffix("+proto").unwrap_or(&kind) {
            "" => Some(Self::Grpc),
            "-web" => Some(Self::Web),
            "-web-text" => Some(Self::WebText),
            _ => None,
        }
    }

    /// An answer of gRPC in this form.
    pub(super) fn write(self, answer: Answer) -> Answer {
        let kind = match self {
            Self::Grpc => return answer,
            Self::Web => WEB,
            Self::WebText => WEB_TEXT,
        };
        let (mut head, body) = answer.into_parts();
        head.headers.insert(CONTENT_TYPE, kind);
        let body = body.map_frame(move |frame| {
            let data = frame.into_data().unwrap_or_else(|frame| {
                let trailers = frame.into_trailers().unwrap_or_default();
                framed(TRAILERS, &block(&trailers))
            });
            Frame::data(match self {
                // Pieces that are encoded one by one are what the protocol has.
                Self::WebText => STANDARD.encode(data).into(),
                Self::Grpc | Self::Web => data,
            })
        });
        Answer::from_parts(head, Payload::stream(body.boxed_unsync()))
    }
}

/// Trailers as lines of HTTP/1.1.
fn block(trailers: &HeaderMap) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in trailers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Whether a browser asks whether a page may send a request of gRPC-Web.
pub(in crate::gateway) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    let asked = headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let mut asked = asked.flat_map(|line| line.to_str().unwrap_or_default().split(','));
    Cors::asked(method, headers) == Some(Method::POST)
        && asked.any(|name| name.trim().eq_ignore_ascii_case(X_GRPC_WEB))
}

/// Base64 that comes in pieces. Each stretch of it may have been encoded, and padded, by itself.
#[derive(Default)]
pub(super) struct Text {
    /// The begin of four characters.
    rest: BytesMut,
}

impl Text {
    /// Adds the bytes behind a piece. Nothing if it is no base64.
    pub(super) fn decode(&mut self, piece: &[u8], out: &mut BytesMut) -> Option<()> {
        self.rest.extend_from_slice(piece);
        let whole = self.rest.len() - self.rest.len() % 4;
        let mut left: Bytes = self.rest.split_to(whole).freeze();
        while !left.is_empty() {
            let mut fours = left.chunks_exact(4);
            let padded = fours.position(|four| four.ends_with(b"="));
            let stretch = left.split_to(padded.map_or(left.len(), |at| (at + 1) * 4));
            out.extend_from_slice(&STANDARD.decode(stretch).ok()?);
        }
        Some(())
    }

    /// Whether it can end here.
    pub(super) fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
    use proptest::prelude::*;

    use super::super::answers::{response, trailers};
    use super::*;
    use crate::grpc::status::Code;

    #[test]
    fn a_content_type_has_a_form() {
        for (kind, form) in [
            ("", Some(Form::Grpc)),
            ("+proto", Some(Form::Grpc)),
            (" ; a=b", Some(Form::Grpc)),
            ("-web", Some(Form::Web)),
            ("-Web+Proto;charset=utf-8", Some(Form::Web)),
            ("-web-text", Some(Form::WebText)),
            ("-web-text+proto", Some(Form::WebText)),
            ("+json", None),
            ("-web+json", None),
            ("-web-texts", None),
            ("x", None),
        ] {
            assert_eq!(Form::of(kind), form, "{kind}");
        }
    }

    #[tokio::test]
    async fn trailers_are_the_last_frame() {
        let answer = || {
            let message = framed(0, b"abc");
            response(
                Payload::trailed(message, trailers(Code::Ok)),
                StatusCode::OK,
            )
        };
        let expected = b"\0\0\0\0\x03abc\x80\0\0\0\x0fgrpc-status:0\r\n";
        let web = Form::Web.write(answer());
        assert_eq!(web.headers()[CONTENT_TYPE], WEB);
        let body = web.into_body().collect().await.unwrap();
        assert!(body.trailers().is_none());
        assert_eq!(&*body.to_bytes(), expected);
        let text = Form::WebText.write(answer());
        assert_eq!(text.headers()[CONTENT_TYPE], WEB_TEXT);
        let body = text.into_body().collect().await.unwrap().to_bytes();
        let (mut text, mut out) = (Text::default(), BytesMut::new());
        text.decode(&body, &mut out).unwrap();
        assert_eq!(&*out, expected);
    }

    #[test]
    fn what_is_no_base64_is_none() {
        for bad in ["a===", "ab=c", "é123", "ab-_", "ab c", "YQ==="] {
            let (mut text, mut out) = (Text::default(), BytesMut::new());
            let decoded = text.decode(bad.as_bytes(), &mut out);
            assert!(decoded.is_none() || !text.is_whole(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_is_read_in_any_pieces(
            stretches in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5),
            size in 1_usize..9,
        ) {
            let encoded: String = stretches.iter().map(|one| STANDARD.encode(one)).collect();
            let (mut text, mut out) = (Text::default(), BytesMut::new());
            for piece in encoded.as_bytes().chunks(size) {
                text.decode(piece, &mut out).unwrap();
            }
            prop_assert!(text.is_whole());
            prop_assert_eq!(&*out, &*stretches.concat());
        }
    }

    #[test]
    fn a_browser_asks_before_it_speaks_grpc_web() {
        let is = |method: Method, asked: &'static str, names: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_static("https://app.example"));
            for (name, value) in [
                (ACCESS_CONTROL_REQUEST_METHOD, asked),
                (ACCESS_CONTROL_REQUEST_HEADERS, names),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
            is_preflight(&method, &headers)
        };
        let names = "content-type, X-Grpc-Web";
        assert!(is(Method::OPTIONS, "POST", names));
        assert!(!is(Method::OPTIONS, "GET", names));
        assert!(!is(Method::POST, "POST", names));
        assert!(!is(Method::OPTIONS, "POST", "content-type,x-grpc"));
    }
}
