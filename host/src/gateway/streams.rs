//! Results that are streams, as server-sent events: an item is sent when the service has written it, and the
//! service waits for a client that reads slowly.

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::ACCEPT;

use super::Front;
use super::answer::{Answer, Payload, Refusal};
use super::events::{frame, last, with_headers};
use super::route::{CallRoute, Callee};
use crate::call::{Call, CallError};
use crate::interfaces::{self, Values};
use crate::json::{self, Limits};
use crate::shape::{Shape, Signature};
use crate::value::Value;
use crate::value::streams::Items;

/// The frame after the last item, by which a client knows that there are no more.
const END: &[u8] = b"event: end\ndata: null\n\n";

/// What the items of a result are, where it is a stream: alone, or as the ok value.
fn item_of(signature: &Signature) -> Option<&Shape> {
    let given = match signature.result.as_ref()? {
        Shape::Result { ok, .. } => ok.as_deref()?,
        shape => shape,
    };
    match given {
        Shape::Stream(item) => Some(item),
        _ => None,
    }
}

/// Whether a client asks for the events of a function that has some.
pub(super) fn is_asked(headers: &HeaderMap, signature: &Signature) -> bool {
    let accepted = headers.get_all(ACCEPT).into_iter();
    let mut kinds = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|kind| kind.split(';').next().unwrap_or_default().trim());
    item_of(signature).is_some() && kinds.any(|kind| kind.eq_ignore_ascii_case("text/event-stream"))
}

impl Front {
    /// Calls a function, and sends the items of its result as events. A result without a stream, which an `err`
    /// value is, is answered as to any client.
    pub(super) async fn stream(
        &self,
        route: &CallRoute,
        callee: &Callee,
        mut call: Call,
    ) -> Result<Answer, Refusal> {
        let signature = &route.planned.signature;
        if let Some(limit) = callee.limit {
            call.deadline = call.deadline.min(std::time::Instant::now() + limit);
        }
        let limits = Limits {
            bytes: self.link.max_payload(),
            ..Limits::default()
        };
        let arguments = json::decode_arguments(&call.body, signature, &limits);
        let arguments = arguments
            .map_err(|error| CallError::bad_arguments(format_args!("arguments: {error}")))?;
        call.body = Bytes::new();
        let values = Values {
            arguments,
            signature,
            identity: signature.identity(),
            limits,
        };
        let answer = self.backend.call_streams(&callee.subject, values, call);
        let body = match answer.await? {
            interfaces::Answer::Json(body) => body,
            interfaces::Answer::Value(value) => {
                if let (Some(items), Some(item)) = (items_of(value.as_ref()), item_of(signature)) {
                    return Ok(events(items, item.clone(), limits));
                }
                let reply = json::encode_reply(value.as_ref(), signature, &limits);
                reply
                    .map_err(|error| CallError::bad_reply(format_args!("result: {error}")))?
                    .body
            }
        };
        route.outcome.answer(&route.planned, body)
    }
}

fn items_of(value: Option<&Value>) -> Option<Items> {
    let given = match value? {
        Value::Result(Ok(Some(ok))) => ok,
        value => value,
    };
    match given {
        Value::Stream(stream) => stream.take(),
        _ => None,
    }
}

fn events(items: Items, item: Shape, limits: Limits) -> Answer {
    let frames = stream::unfold(Some((items, item)), move |left| async move {
        let (mut items, item) = left?;
        let (frames, ended) = match items.next().await {
            Some(Ok(chunk)) => match frames_of(&chunk, &item, &limits) {
                Ok(frames) => (frames, false),
                Err(error) => (last(&error), true),
            },
            Some(Err(broken)) => (last(&CallError::unavailable(broken)), true),
            None => (Bytes::from_static(END), true),
        };
        Some((frames, (!ended).then_some((items, item))))
    });
    with_headers(Answer::new(Payload::events(Box::pin(frames))))
}

/// A frame for each item, or one for bytes.
fn frames_of(chunk: &Value, item: &Shape, limits: &Limits) -> Result<Bytes, CallError> {
    let encode = |value: &Value, shape: &Shape| {
        let data = json::encode_value(value, shape, limits);
        data.map_err(|error| CallError::bad_reply(format_args!("item of a stream: {error}")))
    };
    let Value::List(values) = chunk else {
        return Ok(frame(None, &encode(chunk, &Shape::Bytes)?));
    };
    let mut frames = Vec::new();
    for value in values {
        frames.extend_from_slice(&frame(None, &encode(value, item)?));
    }
    Ok(frames.into())
}
