//! The [`Backend`] over NATS: calls, events, messages and buckets of guests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_nats::jetstream::ErrorCode;
use async_nats::{StatusCode, Subject, jetstream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;

use super::blobs::Objects;
use super::breaker::{Instead, Passage};
use super::feed;
use super::keyvalue::Bucket;
use super::local::{Local, LocalCalls};
use super::responders::Responders;
use super::{Wires, grpc, nest, streams};
use crate::call::{Call, CallError, Identity, Kind};
use crate::events::dead_letters;
use crate::events::health::StoreHealth;
use crate::headers::Headers;
use crate::interfaces::{
    Answer, Backend, Blobs, Expected, Feed, KeyValue, Message, OutgoingMessage, Pending, Source,
    Values,
};
use crate::json::{self, Streams};
use crate::manifest::{BlobstoreGrant, KeyValueGrant};
use crate::nats::{self, Link, RequestError, Requests};
use crate::plan::Event;
use crate::shape::Signature;
use crate::subject;
use crate::value::Value;
use crate::wire;

/// Waits between attempts without responders: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_millis(250);

/// Time for which a call without responders is sent again: a service that is swapped or restarted
/// is back by then, and the caller of one that does not exist gets its error soon.
const NO_RESPONDERS: Duration = Duration::from_secs(1);

/// Time for a stream to acknowledge an event before it is published again; doubled from then on.
const FIRST_ACK_TIMEOUT: Duration = Duration::from_secs(1);

/// The backend of one NATS connection.
pub(crate) struct NatsBackend {
    requests: Requests,
    /// The calls that need no NATS, and what carries those of the guests that they reach.
    local: Option<(LocalCalls, Weak<NatsBackend>)>,
    /// What some of the app's wires do with calls.
    wires: Wires,
    /// Connections to gRPC services outside.
    outside: grpc::Connections,
    /// Opens buckets; without one there are none.
    context: Option<jetstream::Context>,
    session: u64,
    published: AtomicU64,
    /// Learns what streams do not take.
    store: Arc<StoreHealth>,
    /// The buckets that were opened and what was granted of them, so that opening one again asks
    /// nothing.
    buckets: Mutex<HashMap<String, (KeyValueGrant, Bucket)>>,
    /// The same of objects.
    objects: Mutex<HashMap<String, (BlobstoreGrant, Objects)>>,
    responders: Responders,
}

impl NatsBackend {
    /// A backend on this connection, which has no buckets.
    #[must_use]
    pub(crate) fn new(requests: Requests) -> Self {
        Self {
            requests,
            local: None,
            wires: Wires::default(),
            outside: grpc::Connections::default(),
            context: None,
            store: Arc::default(),
            session: rand::random(),
            published: AtomicU64::new(0),
            buckets: Mutex::default(),
            objects: Mutex::default(),
            responders: Responders::default(),
        }
    }

    /// The backend of a worker: functions that its host serves are called in the process, and `store`
    /// learns when what an app stores is missing or full. Calls take the way that `wires` say.
    #[must_use]
    pub(crate) fn of_worker(
        requests: Requests,
        context: jetstream::Context,
        store: Arc<StoreHealth>,
        wires: Wires,
        local: &Local,
    ) -> Arc<Self> {
        let local = LocalCalls::new(local);
        Arc::new_cyclic(|own| Self {
            local: Some((local, Weak::clone(own))),
            context: Some(context),
            store,
            wires,
            ..Self::new(requests)
        })
    }

    /// Sends a call and waits for its reply until `last`.
    ///
    /// A request without responders was not delivered, so it is sent again for [`NO_RESPONDERS`].
    /// Nothing else is.
    pub(super) async fn call_until(
        &self,
        subject: &str,
        call: Call,
        last: Instant,
    ) -> Result<Bytes, CallError> {
        read_reply(self.request(subject, call, last).await?)
    }

    /// The reply to such a call, as it came.
    async fn request(
        &self,
        subject: &str,
        call: Call,
        last: Instant,
    ) -> Result<nats::Message, CallError> {
        let subject = Subject::from(subject);
        let unanswered_until = call.deadline.min(Instant::now() + NO_RESPONDERS);
        let mut retry = FIRST_RETRY;
        loop {
            let headers = wire::write_call(&call, Instant::now());
            let body = call.body.clone();
            let request = self
                .requests
                .call_until(subject.clone(), headers, body, last.into());
            match request.await {
                Ok(reply) => return Ok(reply),
                Err(RequestError::NoResponders { .. })
                    if Instant::now() + retry < unanswered_until =>
                {
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
                Err(error) => return Err(unanswered(&error, &subject)),
            }
        }
    }

    /// What calls of functions that this host serves need: the bytes that NATS carries with this call
    /// beside its headers, and what the callee's own calls go through.
    fn here(&self, call: &Call) -> Option<(&LocalCalls, usize, Arc<dyn Backend>)> {
        let (local, own) = self.local.as_ref()?;
        let carried = self.nats().max_payload();
        let left = carried.checked_sub(wire::size_bound(call))?;
        Some((local, left, own.upgrade()?))
    }

    /// Makes a call, whatever its wire says of a breaker: in the process where that is possible.
    fn carry<'a>(&'a self, subject: &'a str, call: Call) -> Pending<'a, Bytes> {
        if let Some(handler) = self.wires.nest.of(subject) {
            return Box::pin(async move { nest::call(self.nats(), &handler, call).await });
        }
        if let Some(called) = self.wires.outside.of(subject) {
            let limit = self.nats().max_payload();
            let answer = async move { grpc::call(&self.outside, &called, call, limit).await };
            return Box::pin(answer);
        }
        let last = call.deadline;
        let carried = self.nats().max_payload();
        let call = match self.here(&call) {
            Some((local, _, backend)) => match local.start(subject, call, carried, backend) {
                Ok(pending) => return pending,
                Err(call) => call,
            },
            None => call,
        };
        Box::pin(self.call_until(subject, call, last))
    }

    /// As [`Self::carry`] with values, if the call can be made in the process with them.
    fn carry_values(
        &self,
        subject: &str,
        values: Values<'_>,
        call: Call,
    ) -> Result<Pending<'static, Answer>, (Vec<Value>, Call)> {
        match self.here(&call) {
            Some((local, left, backend)) => {
                let limits = json::Limits {
                    bytes: values.limits.bytes.min(left),
                    ..values.limits
                };
                let carried = self.nats().max_payload();
                local.start_with(subject, Values { limits, ..values }, call, carried, backend)
            }
            None => Err((values.arguments, call)),
        }
    }

    /// Calls a function with streams, each of which is read by its name.
    async fn stream(
        &self,
        subject: &str,
        arguments: Vec<Value>,
        (signature, limits): (&Signature, json::Limits),
        mut call: Call,
    ) -> Result<Answer, CallError> {
        let wire = streams::Wire {
            link: self.nats(),
            app: subject::app_of(subject),
            deadline: call.deadline,
            limits,
        };
        wire.offer_arguments(&arguments, signature)?;
        let body = json::encode_arguments(&arguments, signature, &limits);
        call.body = body
            .map_err(|error| CallError::bad_arguments(format_args!("arguments: {error}")))?
            .into();
        call.kind = Kind::Streaming;
        let last = call.deadline;
        let reply = self.request(subject, call, last).await?;
        let is_named = wire::has_named(reply.headers.as_ref());
        let body = read_reply(reply)?;
        if !is_named {
            return Ok(Answer::Json(body));
        }
        let limits = json::Limits {
            streams: Streams::Named,
            ..limits
        };
        let result = json::decode_result(&body, signature, &limits);
        let result =
            result.map_err(|error| CallError::bad_reply(format_args!("result: {error}")))?;
        if let Some(result) = &result {
            wire.follow_result(result, signature)?;
        }
        Ok(Answer::Value(result))
    }

    /// The connection.
    pub(super) fn nats(&self) -> &Link {
        self.requests.link()
    }
}

impl NatsBackend {
    /// Publishes a message on core NATS.
    async fn publish_once(
        &self,
        subject: &str,
        reply_to: Option<&str>,
        own: &[(String, String)],
        call: Call,
    ) -> Result<(), CallError> {
        let mut headers = wire::write_event(&call);
        wire::add_headers(&mut headers, own);
        self.check_size(&headers, &call)?;
        let sent = async {
            self.nats().connected(None).await.map_err(|_| ())?;
            let sent = self.nats().publish(subject, reply_to, &headers, &call.body);
            sent.await.map_err(|_| ())
        };
        match tokio::time::timeout_at(call.deadline.into(), sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(refused(&RequestError::Closed)),
            // The connection is down and its queue is full.
            Err(_) => {
                let why = "NATS did not take the message in time";
                Err(CallError::no_reply_in_time(why))
            }
        }
    }

    /// Sends a message once and waits for a reply until the deadline. It is not sent again without
    /// responders: only the guest knows whether it expects one.
    async fn request_once(
        &self,
        message: OutgoingMessage,
        bytes: usize,
    ) -> Result<Message, CallError> {
        let headers = request_headers(&message);
        let OutgoingMessage { subject, call, .. } = message;
        let (to, deadline) = (subject.as_str().into(), call.deadline.into());
        let request = self
            .requests
            .request_until(to, headers, call.body, deadline);
        match request.await {
            Ok(reply) => received(reply, bytes),
            Err(error) => Err(unanswered(&error, &subject)),
        }
    }

    /// Sends a message and gathers replies: as many as are expected, or those until the deadline.
    async fn gather(
        &self,
        message: OutgoingMessage,
        expected: Expected,
    ) -> Result<Vec<Message>, CallError> {
        let headers = request_headers(&message);
        let OutgoingMessage { subject, call, .. } = message;
        self.check_size(&headers, &call)?;
        let link = self.nats();
        let closed = || refused(&RequestError::Closed);
        let mut replies: Vec<Message> = Vec::new();
        let gathering = async {
            let inbox = link.new_inbox();
            let mut answers = link.subscribe(&inbox, None).map_err(|_| closed())?;
            let sent = link.publish(&subject, Some(&inbox), &headers, &call.body);
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
            Err(_) if replies.is_empty() => Err(no_answer(&subject)),
            Err(_) => Ok(replies),
        }
    }

    /// Publishes an event and waits until the stream confirms it; returns its sequence.
    ///
    /// Without an acknowledgement it is published again: its id has the stream store it once,
    /// whichever of the two was lost, event or acknowledgement.
    pub(super) async fn store(
        &self,
        subject: &str,
        own: &[(String, String)],
        call: Call,
        stream: &str,
    ) -> Result<u64, CallError> {
        // Attempts at the step of a run are one event, as long as the stream remembers it.
        let id = match &call.identity {
            Some(Identity::Step(step)) => step.to_string(),
            _ => self.message_id(),
        };
        let write_headers = || {
            let mut headers = wire::write_event(&call);
            wire::add_headers(&mut headers, own);
            headers.append(wire::MESSAGE_ID, &id);
            headers
        };
        let first = write_headers();
        self.check_storable(&first, &call)?;
        let mut first = Some(first);
        let deadline = tokio::time::Instant::from(call.deadline);
        let (mut retry, mut ack_timeout) = (FIRST_RETRY, FIRST_ACK_TIMEOUT);
        loop {
            // Headers are written again only for an event that is sent again.
            let headers = first.take().unwrap_or_else(write_headers);
            let until = deadline.min(tokio::time::Instant::now() + ack_timeout);
            let (to, body) = (subject.into(), call.body.clone());
            let request = self.requests.request_until(to, headers, body, until);
            match request.await {
                Ok(reply) => return stored(&reply.payload, stream, &self.store),
                Err(RequestError::NoResponders { .. }) if call.time_left() > retry => {
                    self.store.report_missing(lost(subject, stream));
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
                Err(RequestError::Deadline) if until < deadline => ack_timeout *= 2,
                Err(RequestError::Deadline) => {
                    let why =
                        format!("stream {stream} did not confirm in time that it stored the event");
                    return Err(CallError::no_reply_in_time(why));
                }
                Err(error) => return Err(refused(&error)),
            }
        }
    }

    async fn bucket(
        &self,
        name: &str,
        granted: KeyValueGrant,
    ) -> Result<Arc<dyn KeyValue>, CallError> {
        let buckets = || self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, bucket)) = buckets().get(name)
            && *known == granted
        {
            return Ok(Arc::new(bucket.clone()));
        }
        let Some(context) = self.context.clone() else {
            let why = format!("there is no store for bucket {name}");
            return Err(CallError::unsupported(why));
        };
        let violations = self.requests.link().violations().clone();
        let opened = Bucket::open(context, violations, name, granted).await;
        let bucket = opened.map_err(|error| {
            let why = format!("bucket {name} cannot be opened: {error}");
            CallError::unavailable(why)
        })?;
        buckets().insert(name.to_owned(), (granted, bucket.clone()));
        Ok(Arc::new(bucket))
    }

    async fn objects(
        &self,
        name: &str,
        granted: BlobstoreGrant,
    ) -> Result<Arc<dyn Blobs>, CallError> {
        let known = || self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((as_granted, objects)) = known().get(name)
            && *as_granted == granted
        {
            return Ok(Arc::new(objects.clone()));
        }
        let Some(context) = self.context.clone() else {
            let why = format!("there is no store for the objects of bucket {name}");
            return Err(CallError::unsupported(why));
        };
        let violations = self.requests.link().violations().clone();
        let opened = Objects::open(context, violations, name, granted).await;
        let objects = opened.map_err(|error| {
            let why = format!("the objects of bucket {name} cannot be opened: {error}");
            CallError::unavailable(why)
        })?;
        known().insert(name.to_owned(), (granted, objects.clone()));
        Ok(Arc::new(objects))
    }

    /// A unique id of an event: random for the connection, counted within it.
    fn message_id(&self) -> String {
        let next = self.published.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{next:x}", self.session)
    }

    fn check_size(&self, headers: &Headers, call: &Call) -> Result<(), CallError> {
        let limit = self.nats().max_payload();
        match headers.size() + call.body.len() {
            size if size > limit => Err(refused(&RequestError::TooLarge { size, limit })),
            _ => Ok(()),
        }
    }

    /// Whether the event still fits when it has become a dead letter.
    fn check_storable(&self, headers: &Headers, call: &Call) -> Result<(), CallError> {
        let (size, carried) = (headers.size() + call.body.len(), self.nats().max_payload());
        // A server that takes little leaves half of it; such a dead letter has its body in the stream.
        let limit = carried - dead_letters::HEADROOM.min(carried / 2);
        if size <= limit {
            return Ok(());
        }
        Err(CallError::request_too_large(format_args!(
            "the event has {size} bytes, {limit} can be stored: NATS carries {carried}, and a dead letter has to fit"
        )))
    }
}

/// A stream's answer to a message that it is to store.
#[derive(serde::Deserialize)]
struct Stored {
    stream: Option<String>,
    #[serde(default)]
    seq: u64,
    error: Option<StoreRefusal>,
}

#[derive(serde::Deserialize)]
struct StoreRefusal {
    description: String,
    err_code: Option<ErrorCode>,
}

impl StoreRefusal {
    /// Whether JetStream has no room at all, which is no matter of the stream's own bound.
    fn is_full(&self) -> bool {
        let no_room = [
            ErrorCode::INSUFFICIENT_RESOURCES,
            ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ];
        self.err_code.is_some_and(|code| no_room.contains(&code))
            || self.description.contains("no space left")
    }
}

fn lost(subject: &str, stream: &str) -> String {
    format!("nothing stores {subject}, which stream {stream} is to")
}

fn stored(answer: &[u8], stream: &str, store: &StoreHealth) -> Result<u64, CallError> {
    let why = match serde_json::from_slice(answer) {
        Ok(Stored {
            stream: Some(by),
            error: None,
            seq,
        }) if by == stream => {
            store.report_stored();
            return Ok(seq);
        }
        Ok(Stored {
            error: Some(error), ..
        }) => {
            if error.is_full() {
                store.report_full(format_args!("stream {stream}: {}", error.description));
            }
            error.description
        }
        _ => "something else answered".to_owned(),
    };
    let why = format!("stream {stream} did not store the event: {why}");
    Err(CallError::unavailable(why))
}

impl Backend for NatsBackend {
    fn call<'a>(&'a self, subject: &'a str, call: Call) -> Pending<'a, Bytes> {
        match self.wires.breakers.pass(subject) {
            Passage::Free => self.carry(subject, call),
            Passage::Sent(sent) => Box::pin(async move {
                let outcome = self.carry(subject, call).await;
                sent.count(&outcome);
                outcome
            }),
            Passage::Refused(refused) => Box::pin(async move {
                // What a run has done is undone by what the wire leads to, and by nothing else.
                let is_step = matches!(call.identity, Some(Identity::Step(_)));
                match refused.instead(!is_step)? {
                    Instead::Json(result) => Ok(result),
                    Instead::Subject(subject) => self.carry(&subject, call).await,
                }
            }),
        }
    }

    fn misfit<'a>(
        &'a self,
        subject: &'a str,
        wanted: &'a Signature,
        deadline: Instant,
    ) -> BoxFuture<'a, Option<String>> {
        let asked = self
            .responders
            .misfit(self.nats(), subject, wanted, deadline.into());
        Box::pin(asked)
    }

    fn call_values<'a>(
        &'a self,
        subject: &'a str,
        values: Values<'_>,
        call: Call,
    ) -> Result<Pending<'a, Answer>, (Vec<Value>, Call)> {
        match self.wires.breakers.pass(subject) {
            Passage::Free => self.carry_values(subject, values, call),
            Passage::Sent(sent) => {
                let pending = self.carry_values(subject, values, call)?;
                Ok(Box::pin(async move {
                    let outcome = pending.await;
                    sent.count(&outcome);
                    outcome
                }))
            }
            Passage::Refused(_) => Err((values.arguments, call)),
        }
    }

    fn call_streams<'a>(
        &'a self,
        subject: &'a str,
        values: Values<'a>,
        mut call: Call,
    ) -> Pending<'a, Answer> {
        let typed = (values.signature, values.limits);
        if self.wires.nest.of(subject).is_some() || self.wires.outside.of(subject).is_some() {
            // There are no streams outside.
            return Box::pin(async move {
                call.body = values.whole().await?;
                self.call(subject, call).await.map(Answer::Json)
            });
        }
        let (arguments, call) = match self.call_values(subject, values, call) {
            Ok(pending) => return pending,
            Err(given_back) => given_back,
        };
        match self.wires.breakers.pass(subject) {
            Passage::Free => Box::pin(self.stream(subject, arguments, typed, call)),
            Passage::Sent(sent) => Box::pin(async move {
                let outcome = self.stream(subject, arguments, typed, call).await;
                sent.count(&outcome);
                outcome
            }),
            Passage::Refused(refused) => Box::pin(async move {
                match refused.instead(true)? {
                    Instead::Json(result) => Ok(Answer::Json(result)),
                    Instead::Subject(other) => self.stream(&other, arguments, typed, call).await,
                }
            }),
        }
    }

    fn publish(&self, event: Event) -> Pending<'_, ()> {
        let told = self.wires.nest.told(&event, self.nats().max_payload());
        let Event { subject, call, .. } = event;
        let published: Pending<'_, ()> = match event.stream {
            Some(stream) => {
                Box::pin(async move { self.store(&subject, &[], call, &stream).await.map(drop) })
            }
            None => Box::pin(async move { self.publish_once(&subject, None, &[], call).await }),
        };
        let Some((to, call)) = told else {
            return published;
        };
        Box::pin(async move {
            published.await?;
            // The event is out: who publishes it again for this would do so twice.
            if let Err(error) = self.publish_once(&to, None, &[], call).await {
                tracing::warn!(to, %error, "handlers of NestJS did not get an event");
            }
            Ok(())
        })
    }

    fn follow(&self, source: Source, after: Option<u64>) -> Pending<'_, Box<dyn Feed>> {
        let context = self.context.as_ref();
        Box::pin(feed::follow(context, self.nats(), source, after))
    }

    fn open<'a>(
        &'a self,
        bucket: &'a str,
        granted: KeyValueGrant,
    ) -> Pending<'a, Arc<dyn KeyValue>> {
        Box::pin(self.bucket(bucket, granted))
    }

    fn blobs<'a>(
        &'a self,
        bucket: &'a str,
        granted: BlobstoreGrant,
    ) -> Pending<'a, Arc<dyn Blobs>> {
        Box::pin(self.objects(bucket, granted))
    }

    fn send(&self, message: OutgoingMessage) -> Pending<'_, ()> {
        Box::pin(async move {
            let OutgoingMessage {
                subject,
                reply_to,
                headers,
                stream,
                call,
            } = message;
            match stream {
                Some(stream) => {
                    let stored = self.store(&subject, &headers, call, &stream).await;
                    stored.map(drop)
                }
                None => {
                    self.publish_once(&subject, reply_to.as_deref(), &headers, call)
                        .await
                }
            }
        })
    }

    fn request(&self, message: OutgoingMessage, expected: Expected) -> Pending<'_, Vec<Message>> {
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

/// The headers of a message that waits for replies.
fn request_headers(message: &OutgoingMessage) -> Headers {
    let mut headers = wire::write_call(&message.call, Instant::now());
    wire::add_headers(&mut headers, &message.headers);
    headers
}

/// Reads a reply: its result or its error.
fn read_reply(reply: nats::Message) -> Result<Bytes, CallError> {
    if let Some(why) = reply.malformed {
        return Err(CallError::bad_reply(format_args!("the reply: {why}")));
    }
    wire::read_reply(reply.headers.as_ref(), reply.payload)
}

/// A reply as a message, if it is no error and has no more than `limit` bytes.
fn received(reply: nats::Message, limit: usize) -> Result<Message, CallError> {
    let headers = wire::read_headers(reply.headers.as_ref());
    let (subject, reply_to) = (reply.subject.clone(), reply.reply.clone());
    let body = read_reply(reply)?;
    let size = body.len();
    if size > limit {
        let why = format!("the reply has {size} bytes, {limit} are allowed");
        return Err(CallError::request_too_large(why));
    }
    Ok(Message {
        subject: subject.into_string(),
        body: body.into(),
        reply_to: reply_to.map(Subject::into_string),
        headers,
    })
}

fn no_answer(subject: &str) -> CallError {
    CallError::no_reply_in_time(format_args!("{subject} did not answer in time"))
}

fn unanswered(error: &RequestError, subject: &str) -> CallError {
    match error {
        RequestError::Deadline => no_answer(subject),
        error => refused(error),
    }
}

fn refused(error: &RequestError) -> CallError {
    match error {
        RequestError::TooLarge { .. } => CallError::request_too_large(error),
        RequestError::NoResponders { .. } => CallError::no_responders(error),
        RequestError::Refused(_) => CallError::unsupported(error),
        _ => CallError::unavailable(error),
    }
}
