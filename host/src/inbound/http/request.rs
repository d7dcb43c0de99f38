//! One request: where it goes, what travels along, its body within its limits, its answer.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use matchit::Params;
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, Payload, Refusal, empty, rpc, status};
use super::connection::{Activity, Answers, Tasks};
use super::health::{healthz, readyz};
use super::route::{self, CallRoute, Destination, Own, Rpc, Way};
use super::{Front, Table};
use crate::call::{Blame, Call, CallError, Trace};
use crate::json::Limits;
use crate::wire::{self, MAX_HEADER};

const CLOSE: HeaderValue = HeaderValue::from_static("close");

// Statics, since a name that is text is checked and hashed anew for each request.
static TRACEPARENT: HeaderName = HeaderName::from_static(wire::TRACEPARENT);
static TRACESTATE: HeaderName = HeaderName::from_static(wire::TRACESTATE);
static BAGGAGE: HeaderName = HeaderName::from_static(wire::BAGGAGE);

impl Answers for Front {
    fn timeout(&self) -> Duration {
        self.gateway.spec.timeout
    }

    async fn answer(&self, request: Request<Incoming>, activity: &Arc<Activity>) -> Answer {
        let started = Instant::now();
        let running = activity.begin(started);
        let (method, version) = (request.method().clone(), request.version());
        let (trace, parent) = read_trace(request.headers());

        let table = self.gateway.table();
        let (label, result) = self
            .dispatch(table.as_deref(), request, trace, started)
            .await;
        let mut answer = result.unwrap_or_else(Refusal::answer);

        let headers = answer.headers_mut();
        headers.insert(&TRACEPARENT, parent.clone());
        if version < Version::HTTP_2 && self.gateway.is_closing() {
            headers.insert(CONNECTION, CLOSE);
        }
        if method == Method::HEAD {
            answer = without_body(answer, &self.tasks);
        }
        answer.body_mut().hold(running);
        tracing::info!(
            target: "gateway",
            %method,
            route = label,
            status = answer.status().as_u16(),
            duration = ?started.elapsed(),
            trace = trace_id(&parent),
            "request"
        );
        answer
    }
}

impl Front {
    /// Sends the request where it goes; also gives the route's name.
    async fn dispatch<'t>(
        &self,
        table: Option<&'t Table>,
        request: Request<Incoming>,
        trace: Trace,
        started: Instant,
    ) -> (&'t str, Result<Answer, Refusal>) {
        let deadline = started + self.gateway.spec.timeout;
        let call = Call {
            body: Bytes::new(),
            deadline: deadline.into_std(),
            hops: 0,
            caller: None,
            trace,
        };
        let uri = request.uri().clone();
        let path = route::normalized(uri.path());
        let Some(table) = table else {
            return match route::own(request.method(), &path) {
                Some(Ok(Own::Healthz)) => (route::HEALTHZ, Ok(healthz())),
                Some(Ok(Own::Readyz)) => {
                    let answer = Box::pin(readyz(&self.gateway, None, &self.client));
                    (route::READYZ, Ok(answer.await))
                }
                _ => (route::NO_ROUTE, Err(not_yet())),
            };
        };
        match table.find(request.method(), &path) {
            Destination::Healthz => (route::HEALTHZ, Ok(healthz())),
            Destination::Readyz => {
                let answer = Box::pin(readyz(&self.gateway, Some(table), &self.client));
                (route::READYZ, Ok(answer.await))
            }
            Destination::Refused(refusal) => (route::NO_ROUTE, Err(refusal)),
            Destination::Rpc(function) => {
                (route::RPC, self.call_rpc(function, request, call).await)
            }
            Destination::Call(route, params) => {
                let answer = self.call_route(route, &params, uri.query(), request, call);
                (&*route.planned.route.path, answer.await)
            }
            Destination::Http(route) => {
                // Boxed, so that calls do not carry its state about.
                let answer = Box::pin(self.hand_over(route, request, call));
                (&*route.path, self.in_time(deadline, answer).await)
            }
        }
    }

    /// Bounds what has no deadline of its own.
    async fn in_time<T>(
        &self,
        deadline: Instant,
        answer: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        timeout_at(deadline, answer).await.unwrap_or_else(|_| {
            let why = format!("no answer within {:?}", self.gateway.spec.timeout);
            Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, Blame::Host, why))
        })
    }

    async fn call_route(
        &self,
        route: &CallRoute,
        params: &Params<'_, '_>,
        query: Option<&str>,
        request: Request<Incoming>,
        mut call: Call,
    ) -> Result<Answer, Refusal> {
        let body = match route.arguments.takes_body() {
            true => self.read_json(request, call.deadline.into()).await?,
            false => Bytes::new(),
        };
        call.body = route.arguments.arguments(params, query, body)?;
        match self.send(&route.way, call).await? {
            Some(reply) => route.outcome.answer(&route.planned, reply),
            None => Ok(empty(status(route.planned.status))),
        }
    }

    async fn call_rpc(
        &self,
        function: &Rpc,
        request: Request<Incoming>,
        mut call: Call,
    ) -> Result<Answer, Refusal> {
        call.body = self.read_json(request, call.deadline.into()).await?;
        let reply = self.send(&function.way, call).await?;
        Ok(reply.map_or_else(|| empty(StatusCode::ACCEPTED), rpc))
    }

    /// Calls, or publishes what is wired as an event: that has no reply. Either ends by the call's
    /// deadline.
    async fn send(&self, way: &Way, call: Call) -> Result<Option<Bytes>, CallError> {
        match way {
            Way::Call(subject) => self.outbound.call(subject, call).await.map(Some),
            Way::Publish(publication) => {
                let limits = Limits {
                    bytes: call.body.len(),
                    ..Limits::default()
                };
                let event = publication.check(call, &limits)?;
                self.outbound.publish(event).await.map(|()| None)
            }
        }
    }

    async fn read_json(
        &self,
        request: Request<Incoming>,
        deadline: Instant,
    ) -> Result<Bytes, Refusal> {
        check_json(request.headers())?;
        let mut reading = pin!(read_body(request.into_body(), self.gateway.spec.body));
        // Most bodies come together with their headers and need no timer.
        let first = poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await;
        match first {
            Poll::Ready(body) => body,
            Poll::Pending => self.in_time(deadline, reading).await,
        }
    }
}

/// What HEAD gets: the headers of the answer, its length among them.
pub(super) fn without_body(answer: Answer, tasks: &Weak<Tasks>) -> Answer {
    let (mut head, mut body) = answer.into_parts();
    match body.size_hint().exact() {
        Some(length) if length > 0 => {
            head.headers.insert(CONTENT_LENGTH, length.into());
        }
        Some(_) => {}
        // A guest that writes it would take it amiss if nobody read.
        None => {
            if let Some(tasks) = tasks.upgrade() {
                tasks.spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
            }
        }
    }
    Answer::from_parts(head, Payload::whole(Bytes::new()))
}

fn not_yet() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        Blame::Host,
        "nothing is served yet",
    )
}

/// Refuses a body that says to be something other than plain JSON.
pub(super) fn check_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |what: &str, found: &HeaderValue| {
        let found = String::from_utf8_lossy(found.as_bytes());
        let found: String = found.chars().take(80).collect();
        let why = format!("{what}, not {}", found.escape_debug());
        Err(Refusal::caller(StatusCode::UNSUPPORTED_MEDIA_TYPE, why))
    };
    if let Some(coding) = headers.get(CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return refuse("the body must be sent without Content-Encoding", coding);
    }
    let Some(given) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let kind = given.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let suffixed = kind.len().checked_sub(5).and_then(|at| kind.get(at..));
    if kind.eq_ignore_ascii_case("application/json")
        || suffixed.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
    {
        return Ok(());
    }
    refuse(
        "the body must be JSON (Content-Type: application/json)",
        given,
    )
}

/// Refuses a body whose announced length is above the limit before any of it is read.
pub(super) fn check_length(body: &Incoming, limit: usize) -> Result<(), Refusal> {
    match body.size_hint().lower() > limit as u64 {
        true => Err(too_large(limit)),
        false => Ok(()),
    }
}

fn too_large(limit: usize) -> Refusal {
    let why = format!("the body has more than {limit} bytes");
    Refusal::caller(StatusCode::PAYLOAD_TOO_LARGE, why)
}

/// Reads all of a body, and never more than the limit. One that comes in one piece is not copied.
pub(super) async fn read_body(mut body: Incoming, limit: usize) -> Result<Bytes, Refusal> {
    check_length(&body, limit)?;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Refusal::caller(
                StatusCode::BAD_REQUEST,
                format!("the body cannot be read: {error}"),
            )
        })?;
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + all.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The request's trace, or the beginning of a new one; also as the response's header.
fn read_trace(headers: &HeaderMap) -> (Trace, HeaderValue) {
    let baggage = joined(headers, &BAGGAGE);
    if let Some(value) = headers.get(&TRACEPARENT)
        && let Some(parent) = value.to_str().ok().filter(|parent| is_traceparent(parent))
    {
        let trace = Trace {
            parent: Some(parent.to_owned()),
            state: joined(headers, &TRACESTATE),
            baggage,
        };
        return (trace, value.clone());
    }
    let parent = new_traceparent();
    let value = HeaderValue::try_from(parent.as_str());
    let value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
    (
        Trace {
            parent: Some(parent),
            state: None,
            baggage,
        },
        value,
    )
}

/// The beginning of a trace. It is not flagged as sampled, since the gateway records no spans; and
/// a server of NATS that sees that flag looks at a message's headers more closely, which costs it
/// as much as delivering the message does.
fn new_traceparent() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut parent = String::with_capacity(55);
    let hex = |parent: &mut String, bytes: &[u8]| {
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                let digit = DIGITS.get(usize::from(digit)).copied();
                parent.push(char::from(digit.unwrap_or(b'0')));
            }
        }
    };
    // Zero, which would not be valid, has the odds of 2⁻⁶⁴.
    let (trace, span): ([u8; 16], [u8; 8]) = rand::random();
    parent.push_str("00-");
    hex(&mut parent, &trace);
    parent.push('-');
    hex(&mut parent, &span);
    parent.push_str("-00");
    parent
}

fn trace_id(parent: &HeaderValue) -> &str {
    let parent = parent.to_str().unwrap_or_default();
    parent.get(3..35).unwrap_or_default()
}

/// A list header's lines as one; nothing if that is too long to travel.
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

/// Whether this is a `traceparent` by W3C's rules; of later versions, the part that they keep.
fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = |range: std::ops::Range<usize>| {
        bytes
            .get(range)
            .is_some_and(|part| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    };
    let zero = |range: std::ops::Range<usize>| {
        bytes
            .get(range)
            .is_some_and(|part| part.iter().all(|b| *b == b'0'))
    };
    let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
    let length = match text.get(..2) {
        Some("00") => text.len() == 55,
        Some("ff") | None => false,
        Some(_) => text.len() == 55 || bytes.get(55) == Some(&b'-'),
    };
    length
        && dashes
        && [0..2, 3..35, 36..52, 53..55].into_iter().all(hex)
        && ![3..35, 36..52].into_iter().any(zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_over_if_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        assert!(is_traceparent(&format!("cc{}-more", &good[2..])));
        for bad in [
            "",
            "00",
            &good[..54],
            &format!("{good}-more"),
            &good.to_uppercase(),
            &good.replace("00-4", "ff-4"),
            &good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &good.replace('-', "_"),
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
        let (made, value) = read_trace(&HeaderMap::new());
        assert!(is_traceparent(made.parent.as_deref().unwrap()));
        assert_eq!(value, made.parent.unwrap());
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

    #[test]
    fn only_json_is_taken_for_json() {
        let check = |name, value| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            check_json(&headers).map_err(|refusal| refusal.status.as_u16())
        };
        check_json(&HeaderMap::new()).unwrap();
        for kind in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/ld+json",
        ] {
            check(CONTENT_TYPE, kind).unwrap();
        }
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "",
            "json",
        ] {
            assert_eq!(check(CONTENT_TYPE, kind), Err(415), "{kind}");
        }
        assert_eq!(check(CONTENT_ENCODING, "gzip"), Err(415));
        check(CONTENT_ENCODING, "identity").unwrap();
    }
}
