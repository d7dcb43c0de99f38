//! One call and how it ends, free of NATS and of HTTP.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// What arrives with a call besides its function: the arguments and what travels along.
#[derive(Clone, Debug)]
pub struct Call {
    /// The arguments as JSON; empty for a function without parameters.
    pub body: Bytes,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// How many services the call has passed through before this one.
    pub hops: u8,
    /// The service that calls, when a service does.
    pub caller: Option<String>,
    /// The trace that the call belongs to.
    pub trace: Trace,
}

/// W3C trace context, carried as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent`: version, trace id, parent id, flags.
    pub parent: Option<String>,
    /// `tracestate`, opaque.
    pub state: Option<String>,
    /// `baggage`, opaque.
    pub baggage: Option<String>,
}

/// How a call failed. The number is the HTTP status that the gateway answers with, and the
/// `Nats-Service-Error-Code` of the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Code {
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
    /// Nobody answers for the function now.
    Unavailable = 503,
    /// The deadline passed.
    Deadline = 504,
    /// The call passed through too many services.
    TooManyHops = 508,
}

/// Who has to change something for the call to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// Whoever sent the call.
    Caller,
    /// The called service.
    Guest,
    /// The host that runs it.
    Host,
    /// What lies between.
    Network,
}

/// Why a call has no result. A guest's own `err` value is a result, not this.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// The kind of failure.
    pub code: Code,
    /// Who has to change something.
    pub blame: Blame,
    /// What happened, for a person.
    pub message: String,
}

/// The longest message of an error, in bytes: enough for every cause in a chain, and little beside
/// what NATS carries.
pub const MAX_MESSAGE: usize = 4_096;

/// Every [`Code`], for reading one back from its number.
pub const CODES: [Code; 9] = [
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
    /// The word in an error's body.
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

impl CallError {
    /// An error of this kind. The message is cut at [`MAX_MESSAGE`], and control characters in it,
    /// which can come from guests, become spaces.
    pub fn new(code: Code, blame: Blame, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        if message.contains(char::is_control) {
            message = message.replace(char::is_control, " ");
        }
        Self {
            code,
            blame,
            message,
        }
    }
}

impl Call {
    /// What is left until the deadline; zero when it has passed.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}
