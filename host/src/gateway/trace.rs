//! The trace of a request, its span, and its id.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::time::Instant;

use super::sender::Sender;
use crate::call::{Blame, Trace, is_traceparent};
use crate::spans::{Description, Failure, KeyValue, Span, SpanKind, Tracer};
use crate::wire::{self, MAX_HEADER};

// Statics, since a name that is text is checked and hashed anew for each request.
pub(super) static TRACEPARENT: HeaderName = HeaderName::from_static(wire::TRACEPARENT);
static TRACESTATE: HeaderName = HeaderName::from_static(wire::TRACESTATE);
static BAGGAGE: HeaderName = HeaderName::from_static(wire::BAGGAGE);
pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Upper bound of the bytes of an id that a client gives its request.
const MAX_REQUEST_ID: usize = 128;
const NO_ID: HeaderValue = HeaderValue::from_static("-");

/// The id that a client has given its request, if that is one, else its trace's.
pub(super) fn request_id(headers: &HeaderMap, parent: &HeaderValue) -> HeaderValue {
    let is_id = |value: &&HeaderValue| {
        let id = value.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=:".contains(byte);
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.iter().all(plain)
    };
    match headers.get(&REQUEST_ID).filter(is_id) {
        Some(id) => id.clone(),
        None => HeaderValue::from_str(trace_id(parent)).unwrap_or(NO_ID),
    }
}

/// The id of a request that has no span.
pub(super) fn id_of(headers: &HeaderMap) -> HeaderValue {
    let is_trace = |value: &&HeaderValue| value.to_str().is_ok_and(is_traceparent);
    let came = headers.get(&TRACEPARENT).filter(is_trace).cloned();
    let parent = came.or_else(|| HeaderValue::try_from(Trace::begin(false).parent?).ok());
    request_id(headers, parent.as_ref().unwrap_or(&NO_ID))
}

/// The request's trace, or a new one, its `traceparent` for the response, and its span. Where the
/// gateway records no spans a new one is not sampled.
pub(super) fn read_trace<'t>(
    headers: &HeaderMap,
    tracer: &'t Tracer,
    started: Instant,
) -> (Trace, HeaderValue, Span<'t>) {
    let mut trace = Trace {
        baggage: joined(headers, &BAGGAGE),
        ..Trace::default()
    };
    let came = headers.get(&TRACEPARENT).filter(|value| {
        let parent = value.to_str().ok().filter(|parent| is_traceparent(parent));
        trace.parent = parent.map(str::to_owned);
        trace.parent.is_some()
    });
    if came.is_some() {
        trace.state = joined(headers, &TRACESTATE);
    }
    let span = tracer.begin(&mut trace, started.into_std());
    if let Some(value) = came.filter(|_| !span.is_sampled()) {
        return (trace, value.clone(), span);
    }
    let parent = trace.parent.take().or_else(|| Trace::begin(false).parent);
    let parent = parent.unwrap_or_default();
    let value = HeaderValue::try_from(&parent);
    trace.parent = Some(parent);
    let value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
    (trace, value, span)
}

/// An answer that says the gateway or what is behind it has failed.
pub(super) fn failure(status: u16) -> Option<Failure<'static>> {
    (status >= 500).then_some(Failure {
        code: status,
        blame: Blame::Host,
        message: "",
        backtrace: None,
    })
}

/// What a request's span is of, by OpenTelemetry's conventions for HTTP. The query is left out: it may
/// have secrets.
pub(super) fn describe(
    method: &Method,
    route: &str,
    path: Option<&str>,
    status: u16,
    id: &HeaderValue,
    sender: &Sender,
) -> Description {
    let mut attributes = vec![
        KeyValue::new("http.request.method", method.to_string()),
        KeyValue::new("http.route", route.to_owned()),
        KeyValue::new("http.response.status_code", i64::from(status)),
        KeyValue::new(
            "http.request.header.x-request-id",
            id.to_str().unwrap_or_default().to_owned(),
        ),
        KeyValue::new("client.address", sender.address.to_string()),
        KeyValue::new("url.scheme", sender.scheme().as_str().to_owned()),
    ];
    if let Some(path) = path {
        attributes.push(KeyValue::new("url.path", path.to_owned()));
    }
    Description {
        kind: SpanKind::Server,
        name: format!("{method} {route}").into(),
        attributes,
    }
}

pub(super) fn trace_id(parent: &HeaderValue) -> &str {
    let parent = parent.to_str().unwrap_or_default();
    parent.get(3..35).unwrap_or_default()
}

/// A list header's lines as one; `None` if it is too long to pass on.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut lines = headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut all = lines.next()?.to_owned();
    for line in lines {
        all.push(',');
        all.push_str(line);
    }
    (all.len() <= MAX_HEADER).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::Spans;

    #[test]
    fn a_trace_goes_on_if_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (given, taken) in [(good, true), (&good[..54], false)] {
            let mut headers = HeaderMap::new();
            headers.insert(&TRACEPARENT, HeaderValue::from_str(given).unwrap());
            let tracer = Spans::default().tracer("shop", "gateway");
            let (trace, value, span) = read_trace(&headers, &tracer, Instant::now());
            assert!(!span.is_sampled());
            let parent = trace.parent.unwrap();
            assert!(is_traceparent(&parent));
            assert_eq!(parent == given, taken);
            assert_eq!(value, parent);
        }
    }

    #[test]
    fn lines_of_one_list_are_one_line() {
        let mut headers = HeaderMap::new();
        headers.append(&BAGGAGE, HeaderValue::from_static("a=1"));
        headers.append(&BAGGAGE, HeaderValue::from_static("b=2"));
        assert_eq!(joined(&headers, &BAGGAGE).as_deref(), Some("a=1,b=2"));
        headers.append(&BAGGAGE, "x".repeat(MAX_HEADER).try_into().unwrap());
        assert_eq!(joined(&headers, &BAGGAGE), None);
    }
}
