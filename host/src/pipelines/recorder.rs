//! The backend of a durable function: what its guest calls is asked of the run's owner, who answers from the
//! journal or calls, and writes the outcome before the guest sees it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::provided::{Operation, Recorded};
use super::run::Sequence;
use crate::call::{Call, CallError};
use crate::interfaces::{
    Backend, Expected, Fetch, Fetched, KeyValue, Message, OutgoingMessage, Pending,
};
use crate::manifest::KeyValueGrant;
use crate::plan::Event;

/// A call of a durable function.
pub(super) struct Ask {
    pub(super) what: Asked,
    pub(super) answer: oneshot::Sender<Result<Bytes, CallError>>,
}

/// What it calls.
pub(super) enum Asked {
    /// The function of this subject.
    Call(String, Call),
    /// Subscribers of an event.
    Event(Event),
    /// The host itself.
    Host(Operation),
}

impl Asked {
    pub(super) fn subject(&self) -> &str {
        match self {
            Self::Call(subject, _) => subject,
            Self::Event(event) => &event.subject,
            Self::Host(operation) => operation.name,
        }
    }

    pub(super) fn body(&self) -> &Bytes {
        match self {
            Self::Call(_, call) => &call.body,
            Self::Event(event) => &event.call.body,
            Self::Host(operation) => &operation.body,
        }
    }

    /// Which of the sequences of calls it belongs to. A guest makes its calls one after the other, and its
    /// requests by HTTP too, but some of those may be under way while it calls.
    pub(super) fn sequence(&self) -> Sequence {
        match self {
            Self::Host(operation) => Sequence::of(operation.name),
            Self::Call(..) | Self::Event(_) => Sequence::Calls,
        }
    }

    pub(super) fn operation(&self) -> Option<&Operation> {
        match self {
            Self::Host(operation) => Some(operation),
            Self::Call(..) | Self::Event(_) => None,
        }
    }
}

/// The way to the owner of a run.
#[derive(Clone)]
pub(super) struct Asks(mpsc::Sender<Ask>);

impl Asks {
    pub(super) async fn ask(&self, what: Asked) -> Result<Bytes, CallError> {
        let (answer, answered) = oneshot::channel();
        let asked = self.0.send(Ask { what, answer }).await;
        asked.map_err(|_| CallError::stopped())?;
        answered.await.map_err(|_| CallError::stopped())?
    }
}

/// Asks the owner of a run.
pub(super) struct Recorder(Asks);

impl Recorder {
    /// With the owner's side.
    pub(super) fn new() -> (Self, mpsc::Receiver<Ask>) {
        // A guest makes one call at a time.
        let (asks, asked) = mpsc::channel(1);
        (Self(Asks(asks)), asked)
    }
}

impl Backend for Recorder {
    fn call<'a>(&'a self, subject: &'a str, call: Call) -> Pending<'a, Bytes> {
        Box::pin(self.0.ask(Asked::Call(subject.to_owned(), call)))
    }

    fn publish(&self, event: Event) -> Pending<'_, ()> {
        Box::pin(async { self.0.ask(Asked::Event(event)).await.map(drop) })
    }

    fn open<'a>(
        &'a self,
        bucket: &'a str,
        granted: KeyValueGrant,
    ) -> Pending<'a, Arc<dyn KeyValue>> {
        let opened = Recorded::open(self.0.clone(), bucket, granted);
        Box::pin(std::future::ready(Ok(opened)))
    }

    fn send(&self, message: OutgoingMessage) -> Pending<'_, ()> {
        Box::pin(self.0.send(message))
    }

    fn fetch(&self, fetch: Fetch) -> Pending<'_, Fetched> {
        Box::pin(self.0.fetch(fetch))
    }

    fn request(&self, message: OutgoingMessage, expected: Expected) -> Pending<'_, Vec<Message>> {
        Box::pin(self.0.request(message, expected))
    }
}
