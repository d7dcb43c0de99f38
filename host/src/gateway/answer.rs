//! From a reply to a response: results, the function's own errors, and refusals.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use serde::Deserialize;
use serde_json::value::RawValue;
use wasmtime_wasi_http::WasiBody;

use super::connection::Running;
use crate::call::{Blame, CallError};
use crate::plan::PlannedRoute;
use crate::shape::{Shape, Signature};
use crate::wire::{ErrorBody, ErrorDetail};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Seconds after which a client may try again a request that was shed or had no responders.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// A response's body: whole, or written by a guest as it goes.
pub(crate) struct Payload {
    content: Content,
    /// The request counts as running until its response is handed to the connection.
    running: Option<Running>,
}

enum Content {
    Whole(Bytes),
    /// A message and what comes after it.
    Trailed(Option<Bytes>, Option<HeaderMap>),
    Stream(WasiBody),
    Events(Frames),
}

/// What is written bit by bit.
pub(super) type Frames = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

pub(crate) type Answer = Response<Payload>;

impl Payload {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self {
            content: Content::Whole(bytes),
            running: None,
        }
    }

    /// A body with trailers.
    pub(super) fn trailed(body: Bytes, trailers: HeaderMap) -> Self {
        Self {
            content: Content::Trailed(Some(body), Some(trailers)),
            running: None,
        }
    }

    pub(crate) fn stream(body: WasiBody) -> Self {
        Self {
            content: Content::Stream(body),
            running: None,
        }
    }

    pub(super) fn events(frames: Frames) -> Self {
        Self {
            content: Content::Events(frames),
            running: None,
        }
    }

    /// The body, if it is whole.
    pub(super) fn bytes(&self) -> Option<&Bytes> {
        match &self.content {
            Content::Whole(bytes) => Some(bytes),
            Content::Trailed(..) | Content::Stream(_) | Content::Events(_) => None,
        }
    }

    /// Puts another body in the place of this one.
    pub(super) fn replace(&mut self, bytes: Bytes) {
        self.content = Content::Whole(bytes);
    }

    pub(crate) fn hold(&mut self, running: Running) {
        self.running = Some(running);
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Trailed(body, trailers) => {
                let body = body.take().map(Frame::data);
                let frame = body.or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
            Content::Stream(body) => Pin::new(body).poll_frame(context),
            Content::Events(frames) => {
                let next = frames.as_mut().poll_next(context);
                next.map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Trailed(body, trailers) => body.is_none() && trailers.is_none(),
            Content::Stream(body) => body.is_end_stream(),
            Content::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Trailed(..) => SizeHint::default(),
            Content::Stream(body) => body.size_hint(),
            Content::Events(_) => SizeHint::new(),
        }
    }
}

/// A request without a result: an HTTP status and the body that goes with it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) blame: Blame,
    pub(crate) message: String,
    /// Headers that go with the status.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The run of a pipeline that it is about.
    pub(crate) run: Option<String>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, blame: Blame, message: impl Into<String>) -> Self {
        Self {
            status,
            blame,
            message: message.into(),
            headers: Vec::new(),
            run: None,
        }
    }

    /// Adds a header. A value that cannot be sent is left out.
    pub(crate) fn add(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = value.try_into() {
            self.headers.push((name, value));
        }
    }

    /// An error of the request.
    pub(crate) fn caller(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, Blame::Caller, message)
    }

    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody {
            error: ErrorDetail {
                code: self.status.as_u16(),
                message: self.message.clone(),
                blame: self.blame,
                run: self.run.clone(),
            },
        }
    }

    pub(crate) fn answer(self) -> Answer {
        if self.status == StatusCode::ACCEPTED {
            let run = serde_json::json!({ "run": self.run });
            return json(self.status, to_json(&run));
        }
        let mut answer = json(self.status, to_json(&self.body()));
        self.add_headers(answer.headers_mut());
        answer
    }

    /// Adds what a client is told beside the status, such as when to try again.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        if matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) && !headers.contains_key(RETRY_AFTER)
        {
            headers.insert(RETRY_AFTER, RETRY_SECONDS);
        }
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        let status = status(error.code.status());
        Self {
            run: error.run.map(Into::into),
            ..Self::new(status, error.blame, error.message)
        }
    }
}

/// A status of the manifest or of a [`Code`](crate::call::Code), which are all valid.
pub(crate) fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(crate) fn to_json(value: &impl serde::Serialize) -> Bytes {
    // Structs of text, numbers and lists always serialize.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// A response with a JSON body.
pub(crate) fn json(status: StatusCode, body: Bytes) -> Answer {
    let mut answer = Response::new(Payload::whole(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// A response without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Payload::whole(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// A JSON response, without a body for statuses that have none.
fn with_value(status: StatusCode, value: Bytes) -> Answer {
    match status {
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED => {
            empty(status)
        }
        _ => json(status, value),
    }
}

/// The answer at an RPC path: the result as it is on the wire.
pub(crate) fn rpc(reply: Bytes) -> Answer {
    if reply.is_empty() {
        empty(StatusCode::NO_CONTENT)
    } else {
        json(StatusCode::OK, reply)
    }
}

/// The kind of a function's result, as far as the status depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No result.
    Nothing,
    /// A value that is no `result`.
    Value,
    /// A `result`; whether its sides have payloads, and whether an error has cases.
    Result { ok: bool, err: bool, cases: bool },
}

/// A `result` as the wire has it, its payload unread.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sides<'a> {
    #[serde(borrow)]
    Ok(&'a RawValue),
    #[serde(borrow)]
    Err(&'a RawValue),
}

/// The case of a variant or enum, its payload unread.
#[derive(Deserialize)]
#[serde(untagged)]
enum Case<'a> {
    Bare(#[serde(borrow)] Cow<'a, str>),
    Tagged {
        #[serde(borrow)]
        tag: Cow<'a, str>,
    },
}

impl Outcome {
    pub(crate) fn of(signature: &Signature) -> Self {
        match &signature.result {
            None => Self::Nothing,
            Some(Shape::Result { ok, err }) => Self::Result {
                ok: ok.is_some(),
                err: err.is_some(),
                cases: matches!(err.as_deref(), Some(Shape::Variant(_) | Shape::Enum(_))),
            },
            Some(_) => Self::Value,
        }
    }

    /// The answer to a request whose route is `planned`.
    ///
    /// A payload is passed on as it came, a part of the reply's own bytes.
    pub(crate) fn answer(self, planned: &PlannedRoute, reply: Bytes) -> Result<Answer, Refusal> {
        let success = status(planned.status);
        let (ok, err, cases) = match self {
            Self::Nothing => return Ok(empty(success)),
            Self::Value => return Ok(with_value(success, reply)),
            Self::Result { ok, err, cases } => (ok, err, cases),
        };
        let sides = serde_json::from_slice(&reply).map_err(|error| {
            // Hosts never send this; any NATS client can.
            let why = format!("{}: the reply is no result: {error}", planned.function);
            CallError::bad_reply(why)
        })?;
        Ok(match sides {
            Sides::Ok(value) if ok => with_value(success, part(&reply, value)),
            Sides::Ok(_) => empty(success),
            Sides::Err(value) => {
                let case = if cases {
                    serde_json::from_str::<Case<'_>>(value.get()).ok()
                } else {
                    None
                };
                let name = case.as_ref().map(|case| match case {
                    Case::Bare(name) | Case::Tagged { tag: name } => &**name,
                });
                let status = status(planned.error_status(name));
                if err {
                    with_value(status, part(&reply, value))
                } else {
                    empty(status)
                }
            }
        })
    }
}

fn part(reply: &Bytes, value: &RawValue) -> Bytes {
    reply.slice_ref(value.get().as_bytes())
}
