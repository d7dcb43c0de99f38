//! What stands around messages: their frames, their compression, and the metadata that says how to read them.

use std::io::Read as _;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::header::TE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;

use super::web::{Form, Text};
use crate::gateway::answer::Refusal;
use crate::gateway::connection::Received;
use crate::gateway::request::check_length;
use crate::text::shown;

pub(super) const GZIP: &str = "gzip";

pub(super) static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub(super) static ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Bytes of a message's prefix: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Refuses a client that may not get trailers, without which it would not know how its call ended.
pub(super) fn check_trailers(form: Form, headers: &HeaderMap) -> Result<(), Refusal> {
    if form != Form::Grpc {
        return Ok(());
    }
    let mut values = headers.get_all(TE).iter().filter_map(|te| te.to_str().ok());
    if values.any(|te| {
        te.split(',')
            .any(|te| te.trim().eq_ignore_ascii_case("trailers"))
    }) {
        return Ok(());
    }
    let why =
        "the request has no `te: trailers`, so something on its way does not pass trailers on";
    Err(Refusal::caller(StatusCode::BAD_REQUEST, why))
}

/// Whether compressed messages of a request are gzip; else they are none.
pub(super) fn has_gzip(headers: &HeaderMap) -> Result<bool, Refusal> {
    match headers.get(&ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(false),
        Some(encoding) if encoding == GZIP.as_bytes() => Ok(true),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            let why = format!("grpc-encoding: {}; accepted: identity, gzip", shown(&other));
            Err(Refusal::caller(StatusCode::NOT_IMPLEMENTED, why))
        }
    }
}

pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(&ACCEPT_ENCODING).iter();
    let mut values = values.filter_map(|value| value.to_str().ok());
    values.any(|value| value.split(',').any(|one| one.trim() == GZIP))
}

/// The time that a client gives its call.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(value) = headers.get(&TIMEOUT) else {
        return Ok(None);
    };
    let read = || {
        let text = value.to_str().ok()?;
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let is_number =
            (1..=8).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        let number: u64 = number.parse().ok().filter(|_| is_number)?;
        Some(match unit {
            "H" => Duration::from_secs(number * 3600),
            "M" => Duration::from_secs(number * 60),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        })
    };
    let why = "grpc-timeout: accepted: one to eight digits and one of H, M, S, m, u, n";
    let bad = || Refusal::caller(StatusCode::BAD_REQUEST, why);
    read().map(Some).ok_or_else(bad)
}

/// Takes the next whole message off the front of what has come.
pub(super) fn next_message(
    came: &mut BytesMut,
    limit: usize,
    gzip: bool,
) -> Result<Option<Bytes>, Refusal> {
    let bad = |why: String| Refusal::caller(StatusCode::BAD_REQUEST, why);
    let Some((prefix, rest)) = came.split_at_checked(PREFIX) else {
        return Ok(None);
    };
    let mut prefix = prefix;
    let flag = prefix.get_u8();
    let length = prefix.get_u32() as usize;
    let is_compressed = match flag {
        0 => false,
        1 if gzip => true,
        1 => {
            return Err(bad(
                "a message is compressed, without grpc-encoding: gzip".to_owned()
            ));
        }
        other => {
            return Err(bad(format!(
                "a message begins with {other}, not with 0 or 1"
            )));
        }
    };
    if length > limit {
        return Err(too_large(limit, &format!("it has {length}")));
    }
    if rest.len() < length {
        return Ok(None);
    }
    came.advance(PREFIX);
    let message = came.split_to(length).freeze();
    if is_compressed {
        return inflate(&message, limit).map(Some);
    }
    Ok(Some(message))
}

fn too_large(limit: usize, found: &str) -> Refusal {
    let why = format!("a message may have {limit} bytes, and {found}");
    Refusal::caller(StatusCode::PAYLOAD_TOO_LARGE, why)
}

fn inflate(message: &[u8], limit: usize) -> Result<Bytes, Refusal> {
    let mut whole = Vec::new();
    let bound = (limit as u64).saturating_add(1);
    let read = MultiGzDecoder::new(message)
        .take(bound)
        .read_to_end(&mut whole);
    if read.is_err() {
        let why = "a message says that it is gzip, and is not";
        return Err(Refusal::caller(StatusCode::BAD_REQUEST, why));
    }
    if whole.len() > limit {
        return Err(too_large(limit, "this one has more when it is unpacked"));
    }
    Ok(whole.into())
}

/// Reads the body of a unary call, and never more of it than one message may have. What was not read stays.
pub(super) async fn read_one(
    form: Form,
    request: &mut Received,
    limit: usize,
) -> Result<Bytes, Refusal> {
    let gzip = has_gzip(request.headers())?;
    let body = request.body_mut();
    let one = || {
        let why = "the method takes exactly one message";
        Refusal::caller(StatusCode::NOT_IMPLEMENTED, why)
    };
    let cut = |why: &str| Refusal::caller(StatusCode::BAD_REQUEST, why);
    let Some(incoming) = body else {
        return Err(one());
    };
    let mut bound = limit.saturating_add(PREFIX);
    let mut text = (form == Form::WebText).then(Text::default);
    if text.is_some() {
        // Four characters for three bytes, and the last ones padded.
        bound = bound.div_ceil(3).saturating_mul(4);
    }
    check_length(incoming, bound)?;
    let mut came = BytesMut::new();
    let mut message = None;
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else {
            *body = None;
            return Err(cut("the request broke off"));
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if message.is_some() && !data.is_empty() {
            return Err(one());
        }
        match &mut text {
            None => came.extend_from_slice(&data),
            Some(text) => text
                .decode(&data, &mut came)
                .ok_or_else(|| cut("the body is not base64"))?,
        }
        if message.is_none() {
            message = next_message(&mut came, limit, gzip)?;
        }
        if message.is_some() && !came.is_empty() {
            return Err(one());
        }
    }
    *body = None;
    if text.is_some_and(|text| !text.is_whole()) {
        return Err(cut("the body ends within its base64"));
    }
    match message {
        Some(message) => Ok(message),
        None if came.is_empty() => Err(one()),
        None => Err(cut("the request ends within its message")),
    }
}

pub(super) fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.put_u8(flag);
    // A message above 4 GiB is above every limit.
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}
