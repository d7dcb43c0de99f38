//! Calls to other services as NATS requests.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use async_nats::Subject;
use bytes::Bytes;

use super::Outbound;
use crate::call::{Blame, Call, CallError, Code};
use crate::events::Event;
use crate::nats::{RequestError, Requests, wire_size};
use crate::wire;

/// The waits between tries while nobody answers: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_millis(250);

/// The NATS connection of one worker.
pub struct NatsOutbound {
    requests: Requests,
}

impl NatsOutbound {
    /// Calls over this connection.
    #[must_use]
    pub fn new(requests: Requests) -> Self {
        Self { requests }
    }

    /// Sends a call and waits for its reply, at the longest until its deadline.
    ///
    /// A request without responders was delivered to nobody, so it is sent again until somebody
    /// answers or the deadline has passed. Nothing else is.
    async fn request(&self, subject: &str, call: Call) -> Result<Bytes, CallError> {
        let deadline = call.deadline.into();
        let subject = Subject::from(subject);
        let mut retry = FIRST_RETRY;
        loop {
            let headers = wire::write_call(&call, Instant::now());
            let request = self
                .requests
                .request(subject.clone(), headers, call.body.clone());
            match tokio::time::timeout_at(deadline, request).await {
                Ok(Ok(reply)) => return wire::read_reply(reply.headers.as_ref(), reply.payload),
                Ok(Err(RequestError::NoResponders { .. })) if call.time_left() > retry => {
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
                Ok(Err(error)) => return Err(refused(&error)),
                Err(_) => {
                    return Err(CallError::new(
                        Code::Deadline,
                        Blame::Network,
                        format!("{subject} did not answer in time"),
                    ));
                }
            }
        }
    }
}

impl NatsOutbound {
    /// Publishes an event.
    async fn send(&self, event: Event) -> Result<(), CallError> {
        let Event { subject, call, .. } = event;
        let headers = wire::write_event(&call);
        let (size, limit) = (
            wire_size(&headers, call.body.len()),
            self.requests.client().max_payload(),
        );
        if size > limit {
            return Err(refused(&RequestError::TooLarge { size, limit }));
        }
        let sent = self
            .requests
            .client()
            .publish_with_headers(subject, headers, call.body);
        match tokio::time::timeout_at(call.deadline.into(), sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(refused(&RequestError::Closed)),
            // The connection is down and as much waits for it as may.
            Err(_) => Err(CallError::new(
                Code::Deadline,
                Blame::Network,
                "NATS did not take the event in time",
            )),
        }
    }
}

impl Outbound for NatsOutbound {
    fn call<'a>(
        &'a self,
        subject: &'a str,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send + 'a>> {
        Box::pin(self.request(subject, call))
    }

    fn publish<'a>(
        &'a self,
        event: Event,
    ) -> Pin<Box<dyn Future<Output = Result<(), CallError>> + Send + 'a>> {
        Box::pin(self.send(event))
    }
}

fn refused(error: &RequestError) -> CallError {
    let (code, blame) = match error {
        RequestError::TooLarge { .. } => (Code::TooLarge, Blame::Caller),
        _ => (Code::Unavailable, Blame::Network),
    };
    CallError::new(code, blame, error.to_string())
}
