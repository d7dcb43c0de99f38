//! Answers: a message with its trailers, or a status alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::frame::{ACCEPT_ENCODING, ENCODING, GZIP, framed};
use crate::gateway::answer::{Answer, Payload, Refusal};
use crate::gateway::compress::packed;
use crate::grpc::status::{self, Code, Failed};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip");

static STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(super) static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// Bytes from which an answer is compressed, if its client takes that: below, it would hardly shrink.
const COMPRESSED_FROM: usize = 1 << 10;

/// Bytes of an error's message, which is a header.
const MAX_MESSAGE: usize = 1 << 10;

/// The HTTP status that an answer of gRPC stands for, since its own one is always 200.
#[derive(Clone, Copy)]
struct StandsFor(StatusCode);

/// The status for figures and the log.
pub(in crate::gateway) fn http_status(answer: &Answer) -> StatusCode {
    let meant = answer.extensions().get::<StandsFor>();
    meant.map_or_else(|| answer.status(), |StandsFor(status)| *status)
}

pub(super) fn response(payload: Payload, stands_for: StatusCode) -> Answer {
    let mut answer = Response::new(payload);
    answer.extensions_mut().insert(StandsFor(stands_for));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(&ACCEPT_ENCODING, ENCODINGS);
    answer
}

pub(super) fn trailers(code: Code) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(&STATUS, (code as u16).into());
    trailers
}

/// The answer with a message.
pub(super) async fn succeeded(message: Vec<u8>, gzip: bool) -> Answer {
    let message = Bytes::from(message);
    let packed = if gzip && message.len() >= COMPRESSED_FROM {
        packed(message.clone()).await
    } else {
        None
    };
    let body = match &packed {
        Some(packed) => framed(1, packed),
        None => framed(0, &message),
    };
    let payload = Payload::trailed(body, trailers(Code::Ok));
    let mut answer = response(payload, StatusCode::OK);
    if packed.is_some() {
        let gzip = HeaderValue::from_static(GZIP);
        answer.headers_mut().insert(&ENCODING, gzip);
    }
    answer
}

/// Has a status in place of a result.
pub(super) fn refuse(headers: &mut HeaderMap, refusal: &Refusal, app: &str) {
    let line = crate::text::one_line(&refusal.message, MAX_MESSAGE);
    let failed = Failed {
        status: refusal.status.as_u16(),
        message: &line,
        blame: refusal.blame.as_str(),
        app,
        run: refusal.run.as_deref(),
    };
    headers.insert(&STATUS, (failed.code() as u16).into());
    let message = status::message(&line).try_into();
    headers.extend(message.ok().map(|message| (MESSAGE.clone(), message)));
    let details = STANDARD_NO_PAD.encode(failed.details()).try_into();
    headers.extend(details.ok().map(|details| (DETAILS.clone(), details)));
}

/// The answer without one: trailers that are the headers.
pub(super) fn failed(refusal: &Refusal, app: &str) -> Answer {
    let mut answer = response(Payload::whole(Bytes::new()), refusal.status);
    // Such as when to try again, and what a client has to show.
    refusal.add_headers(answer.headers_mut());
    refuse(answer.headers_mut(), refusal, app);
    answer
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_large_answer_is_compressed_for_who_takes_it() {
        for (size, gzip, is_packed) in [
            (COMPRESSED_FROM, true, true),
            (COMPRESSED_FROM - 1, true, false),
            (1 << 20, true, true),
            (1 << 20, false, false),
        ] {
            let answer = succeeded(vec![7; size], gzip).await;
            let encoding = answer.headers().get(&ENCODING).is_some();
            let body = answer.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
            let bytes = body.to_bytes();
            assert_eq!((encoding, bytes[0] == 1), (is_packed, is_packed), "{size}");
            let mut message = Vec::new();
            if is_packed {
                GzDecoder::new(&bytes[5..])
                    .read_to_end(&mut message)
                    .unwrap();
            } else {
                message.extend_from_slice(&bytes[5..]);
            }
            assert!(message == vec![7; size], "{size}");
        }
    }

    #[test]
    fn a_refusal_is_a_status_in_the_headers() {
        let refusal = Refusal::caller(
            StatusCode::BAD_REQUEST,
            format!("a\nb{}", "x".repeat(9_000)),
        );
        let answer = failed(&refusal, "shop");
        assert_eq!(
            (answer.status().as_u16(), http_status(&answer).as_u16()),
            (200, 400)
        );
        assert_eq!(answer.headers()["grpc-status"], "3");
        let message = answer.headers()["grpc-message"].to_str().unwrap();
        assert!(
            message.starts_with("a\\nbx") && message.len() < 2 * MAX_MESSAGE,
            "{message}"
        );
    }
}
