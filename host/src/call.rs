//! Calls, replies and errors, free of NATS and of HTTP.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::shape::{Shape, Signature};
use crate::telemetry::Within;
use crate::text::one_line;

/// A call: the arguments, deadline, hops, caller and trace, without the function.
#[derive(Clone, Debug)]
pub struct Call {
    /// The arguments as JSON; empty for a function without parameters.
    pub body: Bytes,
    /// Time of its arrival at this host. The time since then counts as waiting.
    pub arrived: Instant,
    /// Time at which the caller stops waiting.
    pub deadline: Instant,
    /// Number of services that the call has passed through before this one.
    pub hops: u8,
    /// The calling service, if it is one.
    pub caller: Option<String>,
    /// The trace that the call belongs to.
    pub trace: Trace,
    /// Who the call is made for, as the gateway has found out; see [`Claims`](crate::claims::Claims).
    pub claims: Option<Arc<str>>,
    /// By what a repetition of the call can be recognised.
    pub identity: Option<Identity>,
    /// What it came as.
    pub kind: Kind,
}

/// What a call came as: whether anybody waits for its reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A request, whose caller waits.
    #[default]
    Request,
    /// A request whose caller reads streams by their names, and has its own read so.
    Streaming,
    /// An event or message, whose publisher does not.
    Event,
    /// A run of a job, which nobody has called.
    Job,
}

/// By what a repetition of a call can be recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The step of a pipeline's run that it is an attempt of.
    Step(Box<str>),
    /// The key that its caller chose for a run.
    Key(Box<str>),
}

/// W3C trace context, passed on as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent`: version, trace id, parent id, flags.
    pub parent: Option<String>,
    /// `tracestate`, opaque.
    pub state: Option<String>,
    /// `baggage`, opaque.
    pub baggage: Option<String>,
}

impl Trace {
    /// The ids of the trace and of the parent span.
    pub(crate) fn ids(&self) -> Option<Within> {
        let parent = self.parent.as_deref()?;
        let trace = u128::from_str_radix(parent.get(3..35)?, 16).ok()?;
        let span = u64::from_str_radix(parent.get(36..52)?, 16).ok()?;
        Some((trace, span))
    }
}

/// The kind of failure of a call. The number is the HTTP status at the gateway and the
/// `Nats-Service-Error-Code` of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Code {
    /// No failure yet: a run of a pipeline goes on, beyond the time that its caller waits.
    Accepted = 202,
    /// The arguments do not decode.
    BadArguments = 400,
    /// There is no such function.
    NotFound = 404,
    /// The message is larger than a limit, in either direction.
    TooLarge = 413,
    /// The service is busy and the bounded wait for it is over.
    Overloaded = 429,
    /// The guest trapped.
    Trap = 500,
    /// A service that the guest needs failed.
    Dependency = 502,
    /// The function has no responders now.
    Unavailable = 503,
    /// The deadline passed.
    Deadline = 504,
    /// The call passed through too many services.
    TooManyHops = 508,
}

/// The party at fault, which has to change something for the call to succeed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The sender of the call.
    Caller,
    /// The called service.
    Guest,
    /// The host that runs it.
    Host,
    /// NATS, or a service that does not answer.
    Network,
}

/// The error of a call without a result. A guest's own `err` value is a result.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// The kind of failure.
    pub code: Code,
    /// The party at fault.
    pub blame: Blame,
    /// The message for a person.
    pub message: String,
    /// The run of a pipeline that the error is about.
    pub run: Option<Box<str>>,
    /// It is certain that no service got the call.
    pub undelivered: bool,
    /// Where the guest was when it trapped. It stays in the process: the wire does not carry it.
    pub backtrace: Option<Box<str>>,
}

/// Upper bound of the bytes of an error's message: enough for every cause in a chain, and little of
/// the payload that NATS carries.
pub const MAX_MESSAGE: usize = 4_096;

/// Every [`Code`], for reading one back from its number.
pub const CODES: [Code; 10] = [
    Code::Accepted,
    Code::BadArguments,
    Code::NotFound,
    Code::TooLarge,
    Code::Overloaded,
    Code::Trap,
    Code::Dependency,
    Code::Unavailable,
    Code::Deadline,
    Code::TooManyHops,
];

impl Code {
    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        self as u16
    }

    /// The code of a status that came over the wire.
    #[must_use]
    pub fn from_status(status: u16) -> Option<Self> {
        CODES.into_iter().find(|code| code.status() == status)
    }
}

impl Blame {
    /// The value in an error's body.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Guest => "guest",
            Self::Host => "host",
            Self::Network => "network",
        }
    }
}

impl fmt::Display for Blame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The constructors decide code and blame: one for each kind of failure.
impl CallError {
    /// An error of this kind. The message becomes one line of at most [`MAX_MESSAGE`] bytes: parts of
    /// it can come from guests.
    pub fn new(code: Code, blame: Blame, message: impl Into<String>) -> Self {
        let message = message.into();
        let line = one_line(&message, MAX_MESSAGE);
        Self {
            code,
            blame,
            message: line.into_owned(),
            run: None,
            undelivered: false,
            backtrace: None,
        }
    }

    /// The arguments do not decode.
    pub(crate) fn bad_arguments(why: impl Display) -> Self {
        Self::new(Code::BadArguments, Blame::Caller, why.to_string())
    }

    /// The function or handler does not exist.
    pub(crate) fn not_found(why: impl Display) -> Self {
        Self::new(Code::NotFound, Blame::Caller, why.to_string())
    }

    /// The caller sent more than a limit allows.
    pub(crate) fn request_too_large(why: impl Display) -> Self {
        Self::new(Code::TooLarge, Blame::Caller, why.to_string())
    }

    /// The service answered with more than a limit allows.
    pub(crate) fn result_too_large(why: impl Display) -> Self {
        Self::new(Code::TooLarge, Blame::Guest, why.to_string())
    }

    /// The host or the service has no room for the call.
    pub(crate) fn overloaded(why: impl Display) -> Self {
        Self::new(Code::Overloaded, Blame::Host, why.to_string())
    }

    /// The service's code failed.
    pub(crate) fn trap(why: impl Display) -> Self {
        Self::new(Code::Trap, Blame::Guest, why.to_string())
    }

    /// The host itself failed at the call; its log has more.
    pub(crate) fn host_failed() -> Self {
        let why = "the host failed, its log says why";
        Self::new(Code::Trap, Blame::Host, why)
    }

    /// A defect of the host.
    pub(crate) fn defect(why: impl Display) -> Self {
        Self::new(Code::Trap, Blame::Host, why.to_string())
    }

    /// An import failed and its type has no value for that; the blame is that of the import's error.
    /// Too many hops are no failure of one of the services that they passed through, so that error is
    /// passed on as it is.
    pub(crate) fn import_failed(function: impl Display, cause: &Self) -> Self {
        if cause.code == Code::TooManyHops {
            return cause.clone();
        }
        let why = format!("{function} failed: {}", cause.message);
        Self::new(Code::Dependency, cause.blame, why)
    }

    /// A stream that the service reads has broken off.
    pub(crate) fn stream_broken(why: impl Display) -> Self {
        let why = format!("a stream that it reads has broken off: {why}");
        Self::new(Code::Dependency, Blame::Guest, why)
    }

    /// A reply is no result of the function.
    pub(crate) fn bad_reply(why: impl Display) -> Self {
        Self::new(Code::Dependency, Blame::Guest, why.to_string())
    }

    /// No service answers, or NATS does not take the message.
    pub(crate) fn unavailable(why: impl Display) -> Self {
        Self::new(Code::Unavailable, Blame::Network, why.to_string())
    }

    /// No service answers, so that none got the call.
    pub(crate) fn no_responders(why: impl Display) -> Self {
        Self {
            undelivered: true,
            ..Self::unavailable(why)
        }
    }

    /// A run goes on while its caller does not wait any more.
    pub(crate) fn goes_on(run: &str) -> Self {
        let why = format!("run {run} goes on; `wasmbay runs show {run}` tells how it ended");
        Self::new(Code::Accepted, Blame::Host, why).of_run(run)
    }

    /// The backend does not support the operation of a guest.
    pub(crate) fn unsupported(why: impl Display) -> Self {
        Self::new(Code::Unavailable, Blame::Host, why.to_string())
    }

    /// The host stopped while the call was under way or had not begun.
    pub(crate) fn stopped() -> Self {
        let why = "the host stopped before the call had ended";
        Self::new(Code::Unavailable, Blame::Host, why)
    }

    /// The caller's deadline had passed when the call arrived.
    pub(crate) fn deadline_before_start() -> Self {
        let why = "the caller's deadline had passed before the call could begin";
        Self::new(Code::Deadline, Blame::Network, why)
    }

    /// The caller's deadline passed before admission.
    pub(crate) fn deadline_in_queue() -> Self {
        let why = "the deadline passed before the call was admitted";
        Self::new(Code::Deadline, Blame::Guest, why)
    }

    /// The service took longer than its own limit.
    pub(crate) fn deadline_of_service(timeout: Duration) -> Self {
        let why = format!("no result within {timeout:?}");
        Self::new(Code::Deadline, Blame::Guest, why)
    }

    /// The service took longer than the caller had left.
    pub(crate) fn deadline_of_caller(left: Duration) -> Self {
        let why = format!("no result within the {left:?} that the caller had left");
        Self::new(Code::Deadline, Blame::Guest, why)
    }

    /// No reply came in time.
    pub(crate) fn no_reply_in_time(why: impl Display) -> Self {
        Self::new(Code::Deadline, Blame::Network, why.to_string())
    }

    /// The call passed through more services than are allowed.
    pub(crate) fn too_many_hops(hops: u8, limit: u8) -> Self {
        let why = format!(
            "the call passed through {hops} services, {limit} are allowed; do two of them call each other?"
        );
        Self::new(Code::TooManyHops, Blame::Caller, why)
    }

    /// The same error with a location before its message, such as service and function.
    pub(crate) fn within(self, location: impl Display) -> Self {
        let message = format!("{location}: {}", self.message);
        Self {
            message: one_line(&message, MAX_MESSAGE).into_owned(),
            ..self
        }
    }

    /// The same error, about this run.
    pub(crate) fn of_run(self, run: &str) -> Self {
        Self {
            run: Some(run.into()),
            ..self
        }
    }
}

/// The result of a function as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The result.
    pub body: Bytes,
    /// The side of a `result`.
    pub returned: Returned,
}

impl Reply {
    /// The reply with this body, of a function of this type.
    pub(crate) fn read(body: Bytes, signature: &Signature) -> Self {
        const START: &[u8] = b"{\"err\":";
        let is_result = matches!(signature.result, Some(Shape::Result { .. }));
        let returned = if is_result && body.starts_with(START) {
            let payload = START.len()..body.len().saturating_sub(1);
            Returned::Err(body.slice(payload))
        } else {
            Returned::Ok
        };
        Self { body, returned }
    }

    /// The `err` value that was returned, as JSON.
    pub(crate) fn refusal(&self) -> Option<String> {
        match &self.returned {
            Returned::Ok => None,
            Returned::Err(value) => Some(String::from_utf8_lossy(value).into_owned()),
        }
    }
}

/// Whether a function returned an `err` value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Returned {
    /// It did not; also when the function's result is no `result`.
    Ok,
    /// It did: the `err` side alone, as JSON.
    Err(Bytes),
}

impl Reply {
    /// The `err` value that the function returned, as JSON.
    #[must_use]
    pub fn error(&self) -> Option<Cow<'_, str>> {
        match &self.returned {
            Returned::Ok => None,
            Returned::Err(value) => Some(String::from_utf8_lossy(value)),
        }
    }
}

impl Call {
    /// A call from outside of any service, with a new trace.
    #[must_use]
    pub fn new(body: Bytes, timeout: Duration) -> Self {
        let arrived = Instant::now();
        Self {
            body,
            arrived,
            deadline: arrived + timeout,
            hops: 0,
            caller: None,
            trace: Trace::begin(true),
            claims: None,
            identity: None,
            kind: Kind::Request,
        }
    }

    /// Time left until the deadline; zero when it has passed.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl Trace {
    /// A new trace. Its `sampled` flag has recorders of spans record it: a NATS server that traces
    /// parses the headers of such a message, which costs as much as delivering it.
    #[must_use]
    pub fn begin(sampled: bool) -> Self {
        // Zero, which would not be valid, has the odds of 2^-64.
        let (trace, span) = rand::random();
        Self {
            parent: Some(traceparent(trace, span, sampled)),
            ..Self::default()
        }
    }
}

/// The `traceparent` of a span. Most calls of a host that records spans begin a trace, and a formatter takes three
/// times as long for it.
pub(crate) fn traceparent(trace: u128, span: u64, sampled: bool) -> String {
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    push_hex(&mut text, &trace.to_be_bytes());
    text.push('-');
    push_hex(&mut text, &span.to_be_bytes());
    text.push_str(if sampled { "-01" } else { "-00" });
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    let digit = |half: u8| {
        char::from(if half < 10 {
            b'0' + half
        } else {
            b'a' + half - 10
        })
    };
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
}

/// Whether a text is a `traceparent` by W3C's rules; of later versions, the part that they keep.
pub(crate) fn is_traceparent(text: &str) -> bool {
    let bytes = text.as_bytes();
    let part = |range: std::ops::Range<usize>| bytes.get(range).unwrap_or_default();
    let is_hex = |range| {
        let digits = part(range);
        digits
            .iter()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |range| part(range).iter().all(|b| *b == b'0');
    let has_dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
    let has_length = match text.get(..2) {
        Some("00") => text.len() == 55,
        Some("ff") | None => false,
        Some(_) => text.len() == 55 || bytes.get(55) == Some(&b'-'),
    };
    has_length
        && has_dashes
        && [0..2, 3..35, 36..52, 53..55].into_iter().all(is_hex)
        && ![3..35, 36..52].into_iter().any(is_zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_written_as_a_formatter_does() {
        for (trace, span) in [(1, 1), (0x0af7_6519_16cd << 80 | 0xabcd_ef01, u64::MAX)] {
            let expected = format!("00-{trace:032x}-{span:016x}-00");
            assert_eq!(traceparent(trace, span, false), expected);
            assert!(traceparent(trace, span, true).ends_with("-01"));
        }
    }

    #[test]
    fn every_way_to_fail_has_its_code_and_blame() {
        let second = Duration::from_secs(1);
        let cause = CallError::unavailable("x");
        for (error, code, blame) in [
            (CallError::bad_arguments("x"), 400, Blame::Caller),
            (CallError::not_found("x"), 404, Blame::Caller),
            (CallError::request_too_large("x"), 413, Blame::Caller),
            (CallError::result_too_large("x"), 413, Blame::Guest),
            (CallError::overloaded("x"), 429, Blame::Host),
            (CallError::trap("x"), 500, Blame::Guest),
            (CallError::host_failed(), 500, Blame::Host),
            (CallError::defect("x"), 500, Blame::Host),
            (CallError::import_failed("f", &cause), 502, Blame::Network),
            (
                CallError::import_failed("f", &CallError::too_many_hops(17, 16)),
                508,
                Blame::Caller,
            ),
            (CallError::bad_reply("x"), 502, Blame::Guest),
            (CallError::unavailable("x"), 503, Blame::Network),
            (CallError::no_responders("x"), 503, Blame::Network),
            (CallError::goes_on("x"), 202, Blame::Host),
            (CallError::unsupported("x"), 503, Blame::Host),
            (CallError::stopped(), 503, Blame::Host),
            (CallError::deadline_before_start(), 504, Blame::Network),
            (CallError::deadline_in_queue(), 504, Blame::Guest),
            (CallError::deadline_of_service(second), 504, Blame::Guest),
            (CallError::deadline_of_caller(second), 504, Blame::Guest),
            (CallError::no_reply_in_time("x"), 504, Blame::Network),
            (CallError::too_many_hops(17, 16), 508, Blame::Caller),
        ] {
            assert_eq!((error.code.status(), error.blame), (code, blame), "{error}");
            let named = error.clone().within("service \"a\"");
            assert_eq!((named.code, named.blame), (error.code, error.blame));
            assert_eq!(named.message, format!("service \"a\": {error}"));
        }
    }

    #[test]
    fn a_message_is_one_bounded_line() {
        let error = CallError::trap("x\n".repeat(MAX_MESSAGE));
        assert!(!error.message.contains('\n'));
        assert!(error.message.len() <= 2 * MAX_MESSAGE);
    }

    #[test]
    fn a_traceparent_is_what_w3c_says() {
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
        for sampled in [false, true] {
            let parent = Trace::begin(sampled).parent.unwrap();
            assert!(is_traceparent(&parent) && parent.ends_with("1") == sampled);
        }
    }
}
