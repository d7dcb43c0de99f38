//! Requests to NestJS microservices, in place of calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::StatusCode;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::by_subject::BySubject;
use crate::call::{Call, CallError};
use crate::json::Limits;
use crate::nats::{Link, is_acknowledgement};
use crate::nest::{self, Packet};
use crate::plan::{Event, NestCalled, NestTold, NestWires};
use crate::subject;
use crate::wire;

/// Waits between requests that nobody subscribes to: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_millis(250);

/// Elements of a stream; more are refused.
const MAX_ELEMENTS: usize = 100_000;

/// What of an app is for handlers of NestJS: functions by the subject that they would have here, and events by
/// theirs.
#[derive(Default)]
pub(crate) struct Handlers {
    calls: BySubject<Arc<NestCalled>>,
    events: BySubject<Arc<NestTold>>,
}

impl Handlers {
    pub(crate) fn apply(&self, app: &str, planned: &NestWires) {
        let subject = |function| subject::of_function(app, function);
        let calls = planned.calls.iter();
        let calls = calls.map(|(function, called)| (subject(function), Arc::new(called.clone())));
        self.calls.replace(|_| calls.collect());
        let events = planned.events.iter();
        let events = events.map(|(function, told)| (subject(function), Arc::new(told.clone())));
        self.events.replace(|_| events.collect());
    }

    /// The same event for handlers of NestJS, with the subject of their pattern, if any get it.
    pub(super) fn told(&self, event: &Event, bytes: usize) -> Option<(String, Call)> {
        let of = |subject: &str| self.events.read(subject, Arc::clone);
        // An ordered event has a partition behind its function.
        let without = || of(event.subject.rsplit_once('.')?.0);
        let told = of(&event.subject).or_else(without)?;
        let limits = Limits {
            bytes,
            ..Limits::default()
        };
        // What publishes has checked it.
        let data = nest::data(&event.call.body, &told.signature, &limits).ok()?;
        // The pattern is no subject of the app: who a call is for is not for everybody there.
        let call = Call {
            body: nest::request(&told.pattern, &data, None),
            claims: None,
            caller: None,
            ..event.call.clone()
        };
        Some((told.pattern.subject(), call))
    }

    /// The handler that answers on this subject.
    pub(super) fn of(&self, subject: &str) -> Option<Arc<NestCalled>> {
        self.calls.read(subject, Arc::clone)
    }
}

/// How an attempt ended.
enum Attempt {
    Answered(Result<Bytes, CallError>),
    /// Nobody subscribes to the pattern.
    NoResponders,
}

/// Sends a request and waits for its responses until the deadline. One that nobody subscribes to is sent again: a
/// service that is replaced is back by then.
pub(super) async fn call(
    link: &Link,
    handler: &NestCalled,
    call: Call,
) -> Result<Bytes, CallError> {
    let limits = Limits {
        bytes: link.max_payload(),
        ..Limits::default()
    };
    let data = nest::data(&call.body, &handler.signature, &limits)?;
    let id = format!("{:032x}", rand::random::<u128>());
    let packet = nest::request(&handler.pattern, &data, Some(&id));
    let to = handler.pattern.subject();
    let mut retry = FIRST_RETRY;
    loop {
        let attempt = attempt(link, handler, (&to, &id), &packet, &call);
        match tokio::time::timeout_at(call.deadline.into(), attempt).await {
            Ok(Attempt::Answered(outcome)) => return outcome,
            Ok(Attempt::NoResponders) if call.time_left() > retry => {
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(LAST_RETRY);
            }
            Ok(Attempt::NoResponders) => {
                let why = format_args!("no service of NestJS handles `{to}`");
                return Err(CallError::no_responders(why));
            }
            Err(_) => {
                let why = format_args!(
                    "the service of NestJS that handles `{to}` did not answer in time"
                );
                return Err(CallError::no_reply_in_time(why));
            }
        }
    }
}

async fn attempt(
    link: &Link,
    handler: &NestCalled,
    (to, id): (&str, &str),
    packet: &Bytes,
    call: &Call,
) -> Attempt {
    let limits = Limits {
        bytes: link.max_payload(),
        ..Limits::default()
    };
    let headers = wire::write_call(call, Instant::now());
    let size = headers.size() + packet.len();
    if size > link.max_payload() {
        let why = format_args!(
            "the request has {size} bytes, NATS carries {}",
            link.max_payload()
        );
        return Attempt::Answered(Err(CallError::request_too_large(why)));
    }
    let closed = || {
        Attempt::Answered(Err(CallError::unavailable(
            "the connection to NATS is closed",
        )))
    };
    // Else it would be sent when the connection is back, when nobody waits any more.
    if link.connected(None).await.is_err() {
        return closed();
    }
    let mut refusals = link.violations().next_refusals();
    let inbox = link.new_inbox();
    let Ok(mut answers) = link.subscribe(&inbox, None) else {
        return closed();
    };
    if link
        .publish(to, Some(&inbox), &headers, packet)
        .await
        .is_err()
    {
        return closed();
    }
    let refuse = |why: &dyn std::fmt::Display| {
        let why = format_args!("the service of NestJS that handles `{to}` answered with {why}");
        Attempt::Answered(Err(CallError::bad_reply(why)))
    };
    let (mut responses, mut bytes): (Vec<Box<RawValue>>, usize) = (Vec::new(), 0);
    loop {
        let answer = tokio::select! {
            answer = futures_util::StreamExt::next(&mut answers) => answer,
            refusal = refusals.next() => {
                if refusal.subject == to {
                    return Attempt::Answered(Err(CallError::unsupported(refusal)));
                }
                continue;
            }
        };
        let Some(answer) = answer else {
            return closed();
        };
        // A stream may store what is published there, and acknowledges it to the same inbox.
        if is_acknowledgement(&answer) {
            continue;
        }
        if answer.status == Some(StatusCode::NO_RESPONDERS) && answer.payload.is_empty() {
            return Attempt::NoResponders;
        }
        let packet = match Packet::read(&answer.payload, id) {
            Ok(packet) => packet,
            Err(error) => return refuse(&format_args!("what is no JSON: {error}")),
        };
        let outcome = match packet {
            Packet::Other => continue,
            Packet::Error(error) => Err(error),
            Packet::Value(value, is_last) => {
                bytes += value.map_or(0, |value| value.get().len());
                responses.extend(value.map(RawValue::to_owned));
                // Elements of a stream are together no more than one message may be.
                if bytes > limits.bytes || responses.len() > MAX_ELEMENTS {
                    let most = limits.bytes;
                    let why = format_args!(
                        "the stream of `{to}` has more than {most} bytes or {MAX_ELEMENTS} elements"
                    );
                    return Attempt::Answered(Err(CallError::result_too_large(why)));
                }
                if handler.stream && !is_last {
                    continue;
                }
                Ok(&*responses)
            }
        };
        let result = nest::result(outcome, handler.stream, &handler.signature, &limits);
        return Attempt::Answered(
            result.map_err(|error| error.within(format_args!("`{to}` of NestJS"))),
        );
    }
}
