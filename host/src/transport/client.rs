//! Calls and events from outside of a host, such as the command line's.

use std::time::Duration;

use bytes::Bytes;

use super::backend::NatsBackend;
use crate::call::{Call, CallError};
use crate::interfaces::Backend as _;
use crate::nats::{Link, RequestError, Requests};
use crate::plan::Event;

/// Time after a call's deadline within which its reply is accepted: the host that runs the service
/// has the same deadline, and its error says more.
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
    pub fn new(nats: Link) -> Result<Self, RequestError> {
        let backend = NatsBackend::new(Requests::new(nats)?);
        Ok(Self { backend })
    }

    /// Calls the function of this subject; returns its result as JSON.
    ///
    /// # Errors
    ///
    /// The error of the call, or no reply until half a second after its deadline.
    pub async fn call(&self, subject: &str, call: Call) -> Result<Bytes, CallError> {
        let last = call.deadline + REPLY_MARGIN;
        self.backend.call_until(subject, call, last).await
    }

    /// Publishes an event; returns when the server has it: its sequence, if a stream stores it.
    ///
    /// # Errors
    ///
    /// The event is too large or is not stored, or the server does not answer.
    pub async fn publish(&self, event: Event) -> Result<Option<u64>, CallError> {
        let Some(stream) = event.stream.clone() else {
            self.backend.publish(event).await?;
            let settled = self.backend.nats().settled().await;
            return settled.map(|()| None).map_err(CallError::unavailable);
        };
        let Event { subject, call, .. } = event;
        let sequence = self.backend.store(&subject, &[], call, &stream).await?;
        Ok(Some(sequence))
    }
}
