//! Calls to other services as NATS requests.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, kv};
use async_nats::{HeaderMap, StatusCode, Subject};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::messaging::{Expected, Message, Sending};
use super::{Outbound, keyvalue};
use crate::call::{Blame, Call, CallError, Code};
use crate::events::{Event, letters};
use crate::nats::{RequestError, Requests, wire_size};
use crate::wire;

/// The waits between tries while nobody answers: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_millis(250);

/// How long a stream may take to acknowledge an event before it is published again; doubled from
/// then on.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);

/// The NATS connection of one worker.
pub struct NatsOutbound {
    requests: Requests,
    session: u64,
    published: AtomicU64,
    /// The buckets that were opened, so that opening one again asks nothing.
    buckets: Mutex<HashMap<String, kv::Store>>,
}

impl NatsOutbound {
    /// Calls over this connection.
    #[must_use]
    pub fn new(requests: Requests) -> Self {
        Self {
            requests,
            session: rand::random(),
            published: AtomicU64::new(0),
            buckets: Mutex::default(),
        }
    }

    /// Sends a call and waits for its reply, at the longest until its deadline.
    ///
    /// A request without responders was delivered to nobody, so it is sent again until somebody
    /// answers or the deadline has passed. Nothing else is.
    async fn request(&self, subject: &str, call: Call) -> Result<Bytes, CallError> {
        let subject = Subject::from(subject);
        let mut retry = FIRST_RETRY;
        loop {
            let headers = wire::write_call(&call, Instant::now());
            let (body, deadline) = (call.body.clone(), call.deadline.into());
            let request = self
                .requests
                .request_until(subject.clone(), headers, body, deadline);
            match request.await {
                Ok(reply) => return wire::read_reply(reply.headers.as_ref(), reply.payload),
                Err(RequestError::NoResponders { .. }) if call.time_left() > retry => {
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
                Err(error) => return Err(unanswered(&error, &subject)),
            }
        }
    }
}

impl NatsOutbound {
    /// Publishes a message to whoever listens.
    async fn publish_once(
        &self,
        subject: Subject,
        reply_to: Option<Subject>,
        own: &[(String, String)],
        call: Call,
    ) -> Result<(), CallError> {
        let mut headers = wire::write_event(&call);
        wire::add_headers(&mut headers, own);
        self.check_size(&headers, &call, 0)?;
        let client = self.requests.client();
        let sent = async {
            match reply_to {
                Some(to) => {
                    client
                        .publish_with_reply_and_headers(subject, to, headers, call.body)
                        .await
                }
                None => {
                    client
                        .publish_with_headers(subject, headers, call.body)
                        .await
                }
            }
        };
        match tokio::time::timeout_at(call.deadline.into(), sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(refused(&RequestError::Closed)),
            // The connection is down and as much waits for it as may.
            Err(_) => Err(CallError::new(
                Code::Deadline,
                Blame::Network,
                "NATS did not take the message in time",
            )),
        }
    }

    /// Sends a raw message once and waits for a reply, at the longest until the deadline. That
    /// nobody listens is an answer, too: what was sent is not known to be safe to send again.
    async fn request_once(&self, message: Sending, bytes: usize) -> Result<Message, CallError> {
        let headers = asking(&message);
        let Sending { subject, call, .. } = message;
        let (to, deadline) = (subject.as_str().into(), call.deadline.into());
        let request = self
            .requests
            .request_until(to, headers, call.body, deadline);
        match request.await {
            Ok(reply) => received(reply, bytes),
            Err(error) => Err(unanswered(&error, &subject)),
        }
    }

    /// Sends a raw message and gathers replies: as many as are expected, or what has come until the
    /// deadline.
    async fn gather(
        &self,
        message: Sending,
        expected: Expected,
    ) -> Result<Vec<Message>, CallError> {
        let headers = asking(&message);
        let Sending { subject, call, .. } = message;
        self.check_size(&headers, &call, 0)?;
        let client = self.requests.client();
        let closed = || refused(&RequestError::Closed);
        let mut replies: Vec<Message> = Vec::new();
        let gathering = async {
            let inbox = client.new_inbox();
            let mut answers = client
                .subscribe(inbox.clone())
                .await
                .map_err(|_| closed())?;
            let to = Subject::from(subject.as_str());
            let sent = client.publish_with_reply_and_headers(to, inbox, headers, call.body);
            sent.await.map_err(|_| closed())?;
            let mut left = expected.bytes;
            while replies.len() < expected.replies {
                let reply = answers.next().await.ok_or_else(closed)?;
                if reply.status == Some(StatusCode::NO_RESPONDERS) && reply.payload.is_empty() {
                    let subject = subject.as_str().into();
                    return Err(refused(&RequestError::NoResponders { subject }));
                }
                let reply = received(reply, left)?;
                left = left.saturating_sub(reply.body.len());
                replies.push(reply);
            }
            Ok(())
        };
        match tokio::time::timeout_at(call.deadline.into(), gathering).await {
            Ok(Err(error)) => Err(error),
            Ok(Ok(())) => Ok(replies),
            Err(_) if replies.is_empty() => Err(silent(&subject)),
            Err(_) => Ok(replies),
        }
    }

    /// Publishes an event and waits until the stream says that it has it.
    ///
    /// What is not acknowledged within a while is published again: its id has the stream store it
    /// once, whichever of the two was lost, event or acknowledgement.
    async fn store(
        &self,
        subject: &str,
        own: &[(String, String)],
        call: Call,
        stream: &str,
    ) -> Result<(), CallError> {
        let id = self.message_id();
        let write_headers = || {
            let mut headers = wire::write_event(&call);
            wire::add_headers(&mut headers, own);
            headers.insert(wire::MESSAGE_ID, id.as_str());
            headers
        };
        let first = write_headers();
        self.check_size(&first, &call, letters::ROOM)?;
        let mut first = Some(first);
        let deadline = tokio::time::Instant::from(call.deadline);
        let (mut retry, mut patience) = (FIRST_RETRY, FIRST_PATIENCE);
        loop {
            // Only what is sent again needs its headers again.
            let headers = first.take().unwrap_or_else(write_headers);
            let until = deadline.min(tokio::time::Instant::now() + patience);
            let (to, body) = (subject.into(), call.body.clone());
            let request = self.requests.request_until(to, headers, body, until);
            match request.await {
                Ok(reply) => return stored(&reply.payload, stream),
                Err(RequestError::NoResponders { .. }) if call.time_left() > retry => {
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
                Err(RequestError::Deadline) if until < deadline => patience *= 2,
                Err(RequestError::Deadline) => {
                    return Err(CallError::new(
                        Code::Deadline,
                        Blame::Network,
                        format!("stream {stream} did not say in time that it stored the event"),
                    ));
                }
                Err(error) => return Err(refused(&error)),
            }
        }
    }

    async fn open(&self, bucket: &str) -> Result<kv::Store, CallError> {
        let buckets = || self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = buckets().get(bucket) {
            return Ok(store.clone());
        }
        let context = jetstream::new(self.requests.client().clone());
        let opened = keyvalue::bucket(&context, bucket).await;
        let store = opened.map_err(|error| {
            let message = format!("bucket {bucket} cannot be opened: {error}");
            CallError::new(Code::Unavailable, Blame::Network, message)
        })?;
        buckets().insert(bucket.to_owned(), store.clone());
        Ok(store)
    }

    /// An id that no other event has: random for the connection, counted within it.
    fn message_id(&self) -> String {
        let next = self.published.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{next:x}", self.session)
    }

    fn check_size(&self, headers: &HeaderMap, call: &Call, room: usize) -> Result<(), CallError> {
        let limit = self.requests.client().max_payload().saturating_sub(room);
        match wire_size(headers, call.body.len()) {
            size if size > limit => Err(refused(&RequestError::TooLarge { size, limit })),
            _ => Ok(()),
        }
    }
}

/// What a stream answers to a message that it is to store.
#[derive(serde::Deserialize)]
struct Answer {
    stream: Option<String>,
    error: Option<AnswerError>,
}

#[derive(serde::Deserialize)]
struct AnswerError {
    description: String,
}

fn stored(answer: &[u8], stream: &str) -> Result<(), CallError> {
    let why = match serde_json::from_slice(answer) {
        Ok(Answer {
            stream: Some(by),
            error: None,
        }) if by == stream => return Ok(()),
        Ok(Answer {
            error: Some(error), ..
        }) => error.description,
        _ => "something else answered".to_owned(),
    };
    Err(CallError::new(
        Code::Unavailable,
        Blame::Network,
        format!("stream {stream} did not store the event: {why}"),
    ))
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
        match event.stream.clone() {
            Some(stream) => Box::pin(async move {
                let Event { subject, call, .. } = event;
                self.store(&subject, &[], call, &stream).await
            }),
            None => Box::pin(self.publish_once(event.subject.into(), None, &[], event.call)),
        }
    }

    fn data<'a>(
        &'a self,
        bucket: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<kv::Store, CallError>> + Send + 'a>> {
        Box::pin(self.open(bucket))
    }

    fn send<'a>(
        &'a self,
        message: Sending,
    ) -> Pin<Box<dyn Future<Output = Result<(), CallError>> + Send + 'a>> {
        Box::pin(async move {
            let Sending {
                subject,
                reply_to,
                headers,
                stream,
                call,
            } = message;
            match stream {
                Some(stream) => self.store(&subject, &headers, call, &stream).await,
                None => {
                    let reply_to = reply_to.map(Subject::from);
                    self.publish_once(subject.into(), reply_to, &headers, call)
                        .await
                }
            }
        })
    }

    fn ask<'a>(
        &'a self,
        message: Sending,
        expected: Expected,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Message>, CallError>> + Send + 'a>> {
        Box::pin(async move {
            match expected.replies {
                1 => {
                    let reply = self.request_once(message, expected.bytes).await?;
                    Ok(vec![reply])
                }
                _ => self.gather(message, expected).await,
            }
        })
    }
}

/// The headers of a raw message that asks for something.
fn asking(message: &Sending) -> HeaderMap {
    let mut headers = wire::write_call(&message.call, Instant::now());
    wire::add_headers(&mut headers, &message.headers);
    headers
}

/// A reply as a raw message, when it is no error and has no more than so many bytes.
fn received(reply: async_nats::Message, limit: usize) -> Result<Message, CallError> {
    let headers = wire::read_headers(reply.headers.as_ref());
    let body = wire::read_reply(reply.headers.as_ref(), reply.payload)?;
    let size = body.len();
    if size > limit {
        let why = format!("the reply has {size} bytes, {limit} are allowed");
        return Err(CallError::new(Code::TooLarge, Blame::Caller, why));
    }
    Ok(Message {
        subject: reply.subject.into_string(),
        body: body.into(),
        reply_to: reply.reply.map(Subject::into_string),
        headers,
    })
}

fn silent(subject: &str) -> CallError {
    let why = format!("{subject} did not answer in time");
    CallError::new(Code::Deadline, Blame::Network, why)
}

fn unanswered(error: &RequestError, subject: &str) -> CallError {
    match error {
        RequestError::Deadline => silent(subject),
        error => refused(error),
    }
}

fn refused(error: &RequestError) -> CallError {
    let (code, blame) = match error {
        RequestError::TooLarge { .. } => (Code::TooLarge, Blame::Caller),
        _ => (Code::Unavailable, Blame::Network),
    };
    CallError::new(code, blame, error.to_string())
}
