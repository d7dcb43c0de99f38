//! Calls and replies as NATS messages: headers and bodies, both ways.
//!
//! The body of a call is its arguments, the body of a reply its result. Deadline, hops, caller and
//! trace are headers, and so is the error of a reply. This module reads and writes them; it sends
//! nothing.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::call::{Blame, Call, CallError, Code, Identity, Kind, Trace, is_traceparent};
use crate::headers::Headers;
use crate::text::{one_line, shown};

/// Milliseconds until the caller stops waiting.
pub const DEADLINE: &str = "Bay-Deadline-Ms";
/// Number of services that the call has passed through.
pub const HOPS: &str = "Bay-Hops";
/// The service that calls.
pub const CALLER: &str = "Bay-Caller";
/// Who the call is made for, as the gateway has found out.
pub const CLAIMS: &str = "Bay-Claims";
/// The type of the body; JSON when absent.
pub const CONTENT_TYPE: &str = "Content-Type";
/// The id by which JetStream stores an event once that is published twice.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The id of the dead letter of a replayed event, and the record of a stored dead letter.
pub const DEAD_LETTER: &str = "Bay-Dead-Letter";
/// The step of a run that a call is an attempt of: the same for each attempt.
pub const STEP: &str = "Bay-Step";
/// How streams stand in a body: `named`, or as lists when absent.
pub const STREAMS: &str = "Bay-Streams";
/// Whether a stream goes on after these items: `more`, or `end`. With `stop`, nobody reads it any more.
pub const STREAM: &str = "Bay-Stream";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace context, the vendors' part.
pub const TRACESTATE: &str = "tracestate";
/// W3C baggage.
pub const BAGGAGE: &str = "baggage";
/// The message of an error, by ADR-32.
pub const ERROR: &str = "Nats-Service-Error";
/// The code of an error, by ADR-32.
pub const ERROR_CODE: &str = "Nats-Service-Error-Code";

/// Upper bound of the deadline of a call.
pub const MAX_DEADLINE: Duration = Duration::from_secs(3600);

/// Upper bound of the bytes of a header that is passed on; a longer one is left out.
pub const MAX_HEADER: usize = 8 << 10;

/// Upper bound of the bytes of an error's message in a header; the body has all of it.
const MAX_ERROR: usize = 512;

const JSON: &str = "application/json";

/// The value of [`STREAMS`].
const NAMED: &str = "named";

/// The body of an error, the same on NATS and over HTTP.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// The content of an [`ErrorBody`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// [`Code::status`].
    pub code: u16,
    /// The message for a person.
    pub message: String,
    /// The party at fault.
    pub blame: Blame,
    /// The run of a pipeline that the error is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

impl From<&CallError> for ErrorBody {
    fn from(error: &CallError) -> Self {
        let CallError {
            code,
            blame,
            message,
            run,
            ..
        } = error;
        Self {
            error: ErrorDetail {
                code: code.status(),
                message: message.clone(),
                blame: *blame,
                run: run.as_deref().map(str::to_owned),
            },
        }
    }
}

/// An error's body as JSON.
#[must_use]
pub fn error_body(error: &CallError) -> Bytes {
    // A struct of a number and strings always serializes.
    serde_json::to_vec(&ErrorBody::from(error))
        .unwrap_or_default()
        .into()
}

/// Reads a message as a call that arrives `now`.
///
/// # Errors
///
/// [`Code::BadArguments`] for an invalid header. An invalid body is an error later, when it is
/// decoded by its type.
pub fn read_call(headers: Option<&Headers>, body: Bytes, now: Instant) -> Result<Call, CallError> {
    read(headers, body, now, |left| {
        let milliseconds = left
            .parse()
            .map_err(|_| bad_header(DEADLINE, left, "a number of milliseconds"))?;
        Ok(Duration::from_millis(milliseconds).min(MAX_DEADLINE))
    })
}

/// Reads a stored event as a call that arrives `now`. Its publisher does not wait any more, so a
/// deadline header is ignored.
///
/// # Errors
///
/// As [`read_call`].
pub fn read_event(headers: Option<&Headers>, body: Bytes, now: Instant) -> Result<Call, CallError> {
    let call = read(headers, body, now, |_| Ok(MAX_DEADLINE))?;
    let kind = Kind::Event;
    Ok(Call { kind, ..call })
}

/// Reads each header once: lookups by name would cost more than the few headers.
fn read(
    headers: Option<&Headers>,
    body: Bytes,
    now: Instant,
    left: impl Fn(&str) -> Result<Duration, CallError>,
) -> Result<Call, CallError> {
    let mut call = without_headers(body, now);
    for (name, value) in headers.into_iter().flat_map(known) {
        match name {
            CONTENT_TYPE => {
                if !is_json(value) {
                    return Err(bad_header(CONTENT_TYPE, value, JSON));
                }
            }
            HOPS => {
                call.hops = value
                    .parse()
                    .map_err(|_| bad_header(HOPS, value, "a number up to 255"))?;
            }
            DEADLINE => call.deadline = now + left(value)?,
            STREAMS if value == NAMED => call.kind = Kind::Streaming,
            name => call.keep(name, value),
        }
    }
    Ok(call)
}

/// Reads what travels along with a message that arrives `now`. Its sender may know nothing of these
/// headers, so those that make no sense are left out.
#[must_use]
pub fn read_message(headers: Option<&Headers>, now: Instant) -> Call {
    let mut call = without_headers(Bytes::new(), now);
    call.kind = Kind::Event;
    for (name, value) in headers.into_iter().flat_map(known) {
        match name {
            HOPS => call.hops = value.parse().unwrap_or(0),
            name => call.keep(name, value),
        }
    }
    call
}

/// The headers that this module knows, each with its first value, by the names that it writes. Clients
/// write names in any case (Go's `http.Header` makes `Traceparent` of `traceparent`), and proxies change
/// it.
fn known(headers: &Headers) -> impl Iterator<Item = (&'static str, &str)> {
    const NAMES: [&str; 13] = [
        DEADLINE,
        TRACEPARENT,
        CALLER,
        STEP,
        HOPS,
        CONTENT_TYPE,
        TRACESTATE,
        BAGGAGE,
        CLAIMS,
        STREAMS,
        STREAM,
        ERROR,
        ERROR_CODE,
    ];
    let mut seen = [false; NAMES.len()];
    headers.iter().filter_map(move |(name, value)| {
        let mut names = NAMES.into_iter().zip(&mut seen);
        let (name, seen) = names.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        let first = !std::mem::replace(seen, true);
        first.then_some((name, value))
    })
}

/// Whether a media type is JSON, such as `application/json; charset=utf-8` or
/// `application/problem+json`.
pub(crate) fn is_json(media_type: &str) -> bool {
    let kind = media_type.split(';').next().unwrap_or_default().trim();
    let suffix = kind.len().checked_sub(5).and_then(|at| kind.get(at..));
    kind.eq_ignore_ascii_case(JSON)
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

fn without_headers(body: Bytes, now: Instant) -> Call {
    Call {
        body,
        arrived: now,
        deadline: now + MAX_DEADLINE,
        hops: 0,
        caller: None,
        trace: Trace::default(),
        claims: None,
        identity: None,
        kind: Kind::Request,
    }
}

impl Call {
    /// Keeps a header of caller, claims or trace, if it is not too long.
    fn keep(&mut self, name: &str, value: &str) {
        if name == STEP && (1..=MAX_HEADER).contains(&value.len()) {
            self.identity = Some(Identity::Step(value.into()));
        }
        if name == CLAIMS && value.len() <= MAX_HEADER {
            self.claims = Some(value.into());
        }
        let field = match name {
            CALLER => &mut self.caller,
            // One that is malformed is no trace to go on with.
            TRACEPARENT if !is_traceparent(value) => return,
            TRACEPARENT => &mut self.trace.parent,
            TRACESTATE => &mut self.trace.state,
            BAGGAGE => &mut self.trace.baggage,
            _ => return,
        };
        if value.len() <= MAX_HEADER {
            *field = Some(value.to_owned());
        }
    }
}

/// Whether a header is of the host, of NATS or of tracing: guests can neither set nor see it.
#[must_use]
pub fn is_own_header(name: &str) -> bool {
    let starts = |prefix: &str| {
        let start = name.as_bytes().get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    let traced = [TRACEPARENT, TRACESTATE, BAGGAGE];
    starts("Bay-") || starts("Nats-") || traced.iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// The headers of a message that its sender chose.
#[must_use]
pub fn read_headers(headers: Option<&Headers>) -> Vec<(String, String)> {
    let all = headers.into_iter().flat_map(Headers::iter);
    all.filter(|(name, _)| !is_own_header(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Adds the headers that a guest chose, whose names and values were checked.
pub fn add_headers(headers: &mut Headers, chosen: &[(String, String)]) {
    for (name, value) in chosen.iter().filter(|(name, _)| !is_own_header(name)) {
        headers.append(name, one_line(value, usize::MAX));
    }
}

fn bad_header(name: &str, value: &str, expected: &str) -> CallError {
    let found = shown(value);
    CallError::bad_arguments(format_args!(
        "header {name}: expected {expected}, found \"{found}\""
    ))
}

/// The headers of a call that is sent `now`.
#[must_use]
pub fn write_call(call: &Call, now: Instant) -> Headers {
    let mut headers = Headers::new();
    let left = call.deadline.saturating_duration_since(now).as_millis();
    let left = u64::try_from(left).unwrap_or(u64::MAX);
    headers.append(DEADLINE, left);
    // Absent means 0, and each header costs.
    if call.hops > 0 {
        write_hops(&mut headers, call);
    }
    if call.kind == Kind::Streaming {
        write_named(&mut headers);
    }
    write_context(&mut headers, call);
    headers
}

/// Says that streams stand in a body by their names.
pub(crate) fn write_named(headers: &mut Headers) {
    headers.append(STREAMS, NAMED);
}

/// Whether streams stand in the body of a reply by their names.
pub(crate) fn has_named(headers: Option<&Headers>) -> bool {
    let mut known = headers.into_iter().flat_map(known);
    known.any(|header| header == (STREAMS, NAMED))
}

/// How the stream goes on of which a message has items.
pub(crate) fn stream_state(headers: Option<&Headers>) -> Option<&str> {
    let mut known = headers.into_iter().flat_map(known);
    known.find_map(|(name, value)| (name == STREAM).then_some(value))
}

/// The headers of an event: those of a call without a deadline, since no caller waits.
#[must_use]
pub fn write_event(call: &Call) -> Headers {
    let mut headers = Headers::new();
    write_hops(&mut headers, call);
    write_context(&mut headers, call);
    headers
}

fn write_hops(headers: &mut Headers, call: &Call) {
    headers.append(HOPS, call.hops);
}

fn write_context(headers: &mut Headers, call: &Call) {
    let Trace {
        parent,
        state,
        baggage,
    } = &call.trace;
    let optional = [
        (CALLER, call.caller.as_deref()),
        (CLAIMS, call.claims.as_deref()),
        (TRACEPARENT, parent.as_deref()),
        (TRACESTATE, state.as_deref()),
        (BAGGAGE, baggage.as_deref()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            headers.append(name, one_line(value, MAX_HEADER));
        }
    }
    match &call.identity {
        Some(Identity::Step(step)) => headers.append(STEP, one_line(step, MAX_HEADER)),
        Some(Identity::Key(key)) => headers.append(MESSAGE_ID, one_line(key, MAX_HEADER)),
        None => {}
    }
}

/// An upper bound of the bytes that a call takes on the wire, headers included.
pub(crate) fn size_bound(call: &Call) -> usize {
    // Names, numbers, separators and the version line.
    const FIXED: usize = 256;
    let Trace {
        parent,
        state,
        baggage,
    } = &call.trace;
    let texts = [
        call.caller.as_deref(),
        call.claims.as_deref(),
        parent.as_deref(),
        state.as_deref(),
        baggage.as_deref(),
    ];
    let identity = call.identity.as_ref().map_or(0, |identity| match identity {
        Identity::Step(text) | Identity::Key(text) => (10 * text.len()).min(MAX_HEADER + 16) + 16,
    });
    let texts = texts.into_iter().flatten();
    // A character that is escaped takes up to ten bytes.
    let headers = texts.map(|text| (10 * text.len()).min(MAX_HEADER + 16));
    headers.sum::<usize>() + identity + FIXED + call.body.len()
}

/// The headers and body of a reply that is an error.
#[must_use]
pub fn write_error(error: &CallError) -> (Headers, Bytes) {
    let mut headers = Headers::new();
    headers.append(ERROR, one_line(&error.message, MAX_ERROR));
    headers.append(ERROR_CODE, error.code.status());
    (headers, error_body(error))
}

/// Reads a reply: its result or its error.
///
/// Any service of ADR-32 can have sent it: an unknown code counts as a trap, and with a body of
/// another form the message is the header's.
///
/// # Errors
///
/// The error of the reply.
pub fn read_reply(headers: Option<&Headers>, body: Bytes) -> Result<Bytes, CallError> {
    let Some(headers) = headers else {
        return Ok(body);
    };
    let (mut code, mut message) = (None, None);
    for (name, value) in known(headers) {
        match name {
            ERROR_CODE => code = Some(value),
            ERROR => message = Some(value),
            _ => {}
        }
    }
    if code.is_none() && message.is_none() {
        return Ok(body);
    }
    let status = code.and_then(|code| code.parse().ok()).unwrap_or(500);
    let code = Code::from_status(status).unwrap_or(Code::Trap);
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(&body) {
        let ErrorDetail {
            blame,
            message,
            run,
            ..
        } = body.error;
        let error = CallError::new(code, blame, message);
        return Err(CallError {
            run: run.map(Into::into),
            ..error
        });
    }
    let message = message.unwrap_or("the service gave no reason");
    Err(CallError::new(code, Blame::Guest, message))
}

#[cfg(test)]
mod tests;
