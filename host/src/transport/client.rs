//! Calls and events from outside of a host, such as the command line's.

use std::time::Duration;

use bytes::Bytes;

use super::backend::NatsBackend;
use crate::call::{Call, CallError};
use crate::interfaces::Backend as _;
use crate::nats::{RequestError, Requests, settled};
use crate::plan::Event;

/// Time that the reply to a call whose deadline has passed may take to arrive: the host that runs the
/// service has the same deadline, and more to say when it passes.
const REPLY_MARGIN: Duration = Duration::from_millis(500);

/// Calls functions and publishes events over a NATS connection.
pub struct Client {
    backend: NatsBackend,
}

impl Client {
    /// A client on this connection.
    ///
    /// # Errors
    ///
    /// The connection is closed.
    pub async fn new(nats: async_nats::Client) -> Result<Self, RequestError> {
        let backend = NatsBackend::new(Requests::new(nats).await?);
        Ok(Self { backend })
    }

    /// Calls the function of this subject; returns its result as JSON.
    ///
    /// # Errors
    ///
    /// The error of the call, or that no reply came until its deadline and half a second after it.
    pub async fn call(&self, subject: &str, call: Call) -> Result<Bytes, CallError> {
        let last = call.deadline + REPLY_MARGIN;
        self.backend.call_until(subject, call, last).await
    }

    /// Publishes an event; done when the server has it. Returns its sequence in the stream that
    /// stored it, if it has one.
    ///
    /// # Errors
    ///
    /// It is too large, is not stored, or the server does not answer.
    pub async fn publish(&self, event: Event) -> Result<Option<u64>, CallError> {
        let Some(stream) = event.stream.clone() else {
            self.backend.publish(event).await?;
            let settled = settled(self.backend.nats()).await;
            return settled.map(|()| None).map_err(CallError::unavailable);
        };
        let Event { subject, call, .. } = event;
        let sequence = self.backend.store(&subject, &[], call, &stream).await?;
        Ok(Some(sequence))
    }
}
