//! The backend of a durable function: what its guest calls is asked of the run's owner, who answers from the
//! journal or calls, and writes the outcome before the guest sees it.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::call::{Call, CallError};
use crate::interfaces::{Backend, Pending};
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
}

impl Asked {
    pub(super) fn subject(&self) -> &str {
        match self {
            Self::Call(subject, _) => subject,
            Self::Event(event) => &event.subject,
        }
    }

    pub(super) fn body(&self) -> &Bytes {
        match self {
            Self::Call(_, call) => &call.body,
            Self::Event(event) => &event.call.body,
        }
    }
}

/// Asks the owner of a run. What is no call of a function and no event is unsupported: the manifest grants
/// none of it to a service with durable functions.
pub(super) struct Recorder(mpsc::Sender<Ask>);

impl Recorder {
    /// With the owner's side.
    pub(super) fn new() -> (Self, mpsc::Receiver<Ask>) {
        // A guest makes one call at a time.
        let (asks, asked) = mpsc::channel(1);
        (Self(asks), asked)
    }

    async fn ask(&self, what: Asked) -> Result<Bytes, CallError> {
        let (answer, answered) = oneshot::channel();
        let asked = self.0.send(Ask { what, answer }).await;
        asked.map_err(|_| CallError::stopped())?;
        answered.await.map_err(|_| CallError::stopped())?
    }
}

impl Backend for Recorder {
    fn call<'a>(&'a self, subject: &'a str, call: Call) -> Pending<'a, Bytes> {
        Box::pin(self.ask(Asked::Call(subject.to_owned(), call)))
    }

    fn publish(&self, event: Event) -> Pending<'_, ()> {
        Box::pin(async { self.ask(Asked::Event(event)).await.map(drop) })
    }
}
