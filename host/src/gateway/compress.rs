//! Answers that are compressed for clients that take them so.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue};

use super::answer::Answer;

const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const ACCEPT: HeaderValue = HeaderValue::from_static("accept-encoding");

/// Upper bound of the bytes that are compressed where they are; more is for another thread, as it takes
/// longer than others should wait.
const AT_ONCE: usize = 32 << 10;

/// Upper bound of the bytes of an answer that is compressed at all.
const MAX: usize = 8 << 20;

/// Whether a client takes gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut named, mut any) = (None, None);
    for line in headers.get_all(ACCEPT_ENCODING) {
        for coding in line.to_str().unwrap_or_default().split(',') {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let wanted = weight.is_none_or(|q| q.parse().is_ok_and(|q: f32| q > 0.0));
            if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                named = Some(wanted);
            } else if name == "*" {
                any = Some(wanted);
            }
        }
    }
    named.or(any).unwrap_or(false)
}

/// The answer, compressed if it is large enough and whole. What a component or an event writes bit by bit
/// goes out as it comes.
pub(super) async fn compress(mut answer: Answer, least: usize, takes_gzip: bool) -> Answer {
    let Some(body) = answer.body().bytes().cloned() else {
        return answer;
    };
    if body.len() < least || body.len() > MAX || answer.headers().contains_key(CONTENT_ENCODING) {
        return answer;
    }
    answer.headers_mut().append(VARY, ACCEPT);
    if !takes_gzip {
        return answer;
    }
    if let Some(smaller) = packed(body).await {
        answer.headers_mut().insert(CONTENT_ENCODING, GZIP);
        answer.body_mut().replace(smaller);
    }
    answer
}

/// The bytes compressed, if they are fewer then.
pub(super) async fn packed(body: Bytes) -> Option<Bytes> {
    if body.len() <= AT_ONCE {
        return gzip(&body);
    }
    let done = tokio::task::spawn_blocking(move || gzip(&body)).await;
    done.ok().flatten()
}

fn gzip(body: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    let smaller = encoder.finish().ok()?;
    (smaller.len() < body.len()).then(|| smaller.into())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::gateway::answer::{empty, json};

    #[test]
    fn a_client_says_what_it_takes() {
        for (value, takes) in [
            ("gzip", true),
            ("GZIP", true),
            ("br, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip; q=0.0", false),
            ("*", true),
            ("*;q=0", false),
            ("gzip, *;q=0", true),
            ("*, gzip;q=0", false),
            ("br", false),
            ("identity", false),
            ("", false),
            ("gzip;q=x", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(takes_gzip(&headers), takes, "{value}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    async fn compressed(body: &[u8], takes: bool) -> (bool, bool, Vec<u8>) {
        let answer = json(StatusCode::OK, Bytes::copy_from_slice(body));
        let answer = compress(answer, 1_024, takes).await;
        let has = |name| answer.headers().contains_key(name);
        let (coded, varies) = (has(CONTENT_ENCODING), has(VARY));
        let body = answer.into_body().collect().await.ok().unwrap().to_bytes();
        (coded, varies, body.to_vec())
    }

    #[tokio::test]
    async fn what_is_large_enough_becomes_smaller() {
        use std::io::Read as _;
        for size in [1_024, AT_ONCE, AT_ONCE + 1, 1 << 20] {
            let body = b"0123456789".repeat(size / 10 + 1);
            let (coded, varies, bytes) = compressed(&body, true).await;
            assert!(coded && varies && bytes.len() < body.len());
            let mut read = Vec::new();
            flate2::read::GzDecoder::new(&*bytes)
                .read_to_end(&mut read)
                .unwrap();
            assert_eq!(read, body);
            let (coded, varies, bytes) = compressed(&body, false).await;
            assert!(!coded && varies && bytes == body);
        }
        for untouched in [vec![b'x'; 1_023], vec![b'x'; MAX + 1]] {
            let (coded, varies, bytes) = compressed(&untouched, true).await;
            assert!(!coded && !varies && bytes == untouched);
        }
        // What does not become smaller stays as it is.
        let random: Vec<u8> = (0..4_096).map(|_| rand::random()).collect();
        let (coded, varies, bytes) = compressed(&random, true).await;
        assert!(!coded && varies && bytes == random);
        let nothing = compress(empty(StatusCode::NO_CONTENT), 1, true).await;
        assert!(nothing.headers().is_empty());
    }
}
