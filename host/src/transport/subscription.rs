//! Core subscriptions: messages become calls, and calls become replies, exactly one for each message
//! with a reply subject.
//!
//! A subscription lives on one worker, whose runtime has one thread. A call is polled at once on
//! the thread of its message, so that a short one never changes threads or waits in a queue; a call
//! that has not finished by then (it waits for an import, or the guest has used up its poll budget)
//! becomes a task beside the loop.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use async_nats::Subject;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::value::RawValue;
use tokio::sync::{oneshot, watch};
use tokio::task;

use super::backlog::{Backlog, work_budget};
use super::{Binding, Delivery, Drained, NestDelivery, NestWay, Slot, streams};
use crate::call::{Call, CallError, Code, Kind, Reply};
use crate::headers::Headers;
use crate::interfaces::{self, Answer, Backend};
use crate::json::{Limits, UnknownKeys};
use crate::nats::{self, Message, PublishError};
use crate::nest::{self, RequestPacket};
use crate::plan::Event;
use crate::poll::{self, Budget, Ended, InFlight, POLL_BUDGET, TaskSlot};
use crate::runtime::{Function, Service};
use crate::subject;
use crate::text::{one_line, shown};
use crate::wire;

/// Time after the deadline of a drain within which the server has to confirm it.
const CONFIRM: Duration = Duration::from_millis(500);

/// Upper bound of the bytes of a guest's error in a log record.
const MAX_LOGGED: usize = 500;

/// Serves a subscription until `stop` is sent, and then until every message that the server had
/// handed out is answered: by the service until the time that was sent, with 503 from then on.
/// Returns the number of the latter, and whether the server confirmed the end.
pub(crate) async fn serve(
    link: nats::Link,
    messages: nats::Subscription,
    slot: Arc<Slot>,
    backend: Arc<dyn Backend>,
    mut stop: oneshot::Receiver<Instant>,
) -> Drained {
    let mut changes = slot.changes();
    let mut subscription = Subscription {
        binding: copy(&mut changes),
        changes,
        link: Arc::new(Link {
            nats: link,
            backend,
        }),
        messages,
        backlog: Backlog::new(),
        shed_reply: wire::write_error(&shed()),
        in_flight: InFlight::new(),
        refused: 0,
    };
    let deadline = loop {
        if subscription.backlog.is_empty() {
            tokio::select! {
                biased;
                // A dropped sender leaves no time.
                deadline = &mut stop => break deadline.unwrap_or_else(|_| Instant::now()),
                Ok(()) = subscription.changes.changed() => subscription.follow(),
                Some(ended) = subscription.in_flight.next() => subscription.settle(ended).await,
                first = subscription.messages.next() => match first {
                    Some(message) => subscription.queue(message, Instant::now()),
                    // The connection is closed: no more messages can come.
                    None => break Instant::now(),
                },
            }
        } else {
            match stop.try_recv() {
                Ok(deadline) => break deadline,
                Err(oneshot::error::TryRecvError::Closed) => break Instant::now(),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
        }
        let began = Instant::now();
        subscription.take_arrived().await;
        let budget = work_budget(began.elapsed());
        subscription.work(Budget::new(budget)).await;
        if !subscription.backlog.is_empty() {
            // The connection's own task reads and writes now. With nothing left to do, the wait for the
            // next message is a turn for it as well.
            task::yield_now().await;
        }
    };
    subscription.drain(deadline).await
}

/// The worker's connection, for replies and for the imports of guests.
struct Link {
    nats: nats::Link,
    backend: Arc<dyn Backend>,
}

/// Where the reply of a call goes, and as what.
struct To {
    subject: Subject,
    /// The id of a request of NestJS, whose client understands packets with it only.
    nest: Option<Box<RawValue>>,
    /// Whether it was sent, for calls that go on after that: those whose results have streams.
    sent: Option<Arc<AtomicBool>>,
}

struct Subscription {
    link: Arc<Link>,
    messages: nats::Subscription,
    /// A copy of the binding in the slot: all workers would count references to the one there.
    binding: Arc<Binding>,
    changes: watch::Receiver<Arc<Binding>>,
    backlog: Backlog<Message>,
    /// The reply to what is shed, made once: a flood is no time to format.
    shed_reply: (Headers, Bytes),
    /// Calls under way by the subject of their reply.
    in_flight: InFlight<To>,
    /// Messages that were dropped for their reply subject.
    refused: u64,
}

impl Subscription {
    fn follow(&mut self) {
        self.binding = copy(&mut self.changes);
    }

    /// Moves what has arrived into the backlog, and sheds what is too much or has waited for too long.
    async fn take_arrived(&mut self) {
        let arrived = Instant::now();
        while let Poll::Ready(Some(message)) = poll::ready(&mut self.messages) {
            self.queue(message, arrived);
        }
        // As admission decides; here it costs no more than the reply.
        let wait = self.binding.service.longest_wait();
        let mut lost = 0;
        while let Some(message) = self.backlog.shed(arrived, wait) {
            self.binding.service.counts().shed.add(1);
            match self.reply_of(&message) {
                Some(To {
                    subject,
                    nest: None,
                    ..
                }) => {
                    let (headers, body) = &self.shed_reply;
                    log_unsent(self.link.nats.publish(&subject, None, headers, body).await);
                }
                to @ Some(_) => reply_error(&self.link.nats, to, &shed()).await,
                None => lost += 1,
            }
        }
        if lost > 0 {
            let service = &self.binding.service.spec.name;
            tracing::warn!(
                service,
                lost,
                "too many messages wait, those without a reply subject are lost"
            );
        }
    }

    /// Works on messages of the backlog within a budget.
    async fn work(&mut self, budget: Budget) {
        if self.changes.has_changed().unwrap_or_default() {
            self.follow();
        }
        let wait = self.binding.service.longest_wait();
        let is_call = match &self.binding.delivery {
            Delivery::Call => true,
            Delivery::Nest(handler) => matches!(handler.way, NestWay::Service),
            _ => false,
        };
        let (mut slot, waker) = (TaskSlot::new(), poll::waker().await);
        while let Some(now) = budget.left()
            && let Some((arrived, message)) = self.backlog.next(now, wait, is_call)
        {
            let to = self.reply_of(&message);
            let (link, binding) = (Arc::clone(&self.link), Arc::clone(&self.binding));
            let sent = to.as_ref().and_then(|to| to.sent.clone());
            let handled = || handle(link, message, arrived, binding, sent);
            if let Some(ended) = self.in_flight.start(&mut slot, &waker, to, handled) {
                self.settle(ended).await;
            }
        }
        while let Some(ended) = self.in_flight.try_next() {
            self.settle(ended).await;
        }
    }

    /// Where the host's reply to a message goes, if there is one.
    fn reply_of(&self, message: &Message) -> Option<To> {
        let subject = message.reply.clone();
        let subject = subject.filter(|_| !self.binding.delivery.is_message())?;
        let nest = match &self.binding.delivery {
            Delivery::Nest(_) => nest::id_of(&message.payload),
            _ => None,
        };
        let gives_streams = self.binding.exported.gives_streams;
        let sent = gives_streams.then(Arc::default);
        Some(To {
            subject,
            nest,
            sent,
        })
    }

    /// Queues a message, unless its reply would go where its sender may have no permission to publish.
    fn queue(&mut self, message: Message, arrived: Instant) {
        if let Some(reply) = &message.reply
            && !self.binding.delivery.is_message()
            && subject::is_reserved(reply)
        {
            self.refused += 1;
            // Often enough to be noticed, and no flood.
            if self.refused.is_power_of_two() {
                let (refused, reply) = (self.refused, shown(reply));
                let subject = shown(&message.subject);
                tracing::warn!(%subject, %reply, refused, "messages were dropped: no reply is sent to subjects of NATS or of hosts");
            }
            return;
        }
        let size = message.length;
        self.backlog.push(message, size, arrived);
    }

    /// Replies for a call that panicked.
    async fn settle(&mut self, ended: Ended<To>) {
        if let Ended::Panicked(to) = ended {
            let service = &self.binding.service.spec.name;
            let error = CallError::host_failed().within(format_args!("service \"{service}\""));
            reply_error(&self.link.nats, to, &error).await;
        }
    }

    /// Stops the flow and answers everything that had arrived before it stopped.
    async fn drain(mut self, deadline: Instant) -> Drained {
        // Without a server, nothing is confirmed; what runs is given up all the same in time.
        let confirmed = self.messages.unsubscribe();
        let confirmed = tokio::time::timeout_at((deadline + CONFIRM).into(), confirmed);
        let stopped = matches!(confirmed.await, Ok(Ok(())));
        if !stopped {
            tracing::warn!("NATS did not confirm the end of a subscription, calls may be lost");
        }
        self.take_arrived().await;
        while !self.backlog.is_empty() && Instant::now() < deadline {
            self.work(Budget::new(POLL_BUDGET)).await;
            task::yield_now().await;
        }
        let finish = async {
            while let Some(ended) = self.in_flight.next().await {
                self.settle(ended).await;
            }
        };
        // Even then messages can be left in the backlog.
        let _ = tokio::time::timeout_at(deadline.into(), finish).await;
        Drained {
            given_up: self.give_up().await,
            confirmed: stopped,
        }
    }

    /// Ends the calls that still run, and answers their callers and those of the backlog.
    async fn give_up(mut self) -> usize {
        let left: Vec<_> = self.backlog.drain().collect();
        let mut given_up: Vec<_> = left.iter().map(|message| self.reply_of(message)).collect();
        let Self {
            in_flight, link, ..
        } = self;
        given_up.extend(in_flight.abort().await);
        let number = given_up.len();
        for to in given_up {
            reply_error(&link.nats, to, &CallError::stopped()).await;
        }
        number
    }
}

fn copy(changes: &mut watch::Receiver<Arc<Binding>>) -> Arc<Binding> {
    Arc::new(Binding::clone(&changes.borrow_and_update()))
}

/// The life of one message.
async fn handle(
    link: Arc<Link>,
    message: Message,
    arrived: Instant,
    binding: Arc<Binding>,
    sent: Option<Arc<AtomicBool>>,
) {
    if binding.delivery.is_message() {
        // Boxed: else every call would have room for its state.
        return Box::pin(deliver(link, message, arrived, binding)).await;
    }
    if let Delivery::Nest(handler) = &binding.delivery {
        let handler = Arc::clone(handler);
        return Box::pin(answer_nest(link, message, arrived, binding, handler)).await;
    }
    let Message {
        subject,
        reply: to,
        headers,
        payload,
        malformed,
        ..
    } = message;
    let result = async {
        if let Some(why) = malformed {
            return Err(CallError::bad_arguments(why));
        }
        let mut call = wire::read_call(headers.as_ref(), payload, arrived)?;
        if to.is_none() {
            call.kind = Kind::Event;
        }
        let name = subject::function_name(&subject).unwrap_or_default();
        let Binding {
            service, exported, ..
        } = binding.chosen_for(name);
        let function = exported.function(name)?;
        if call.kind == Kind::Streaming {
            // Boxed: else every call would have room for its state.
            let streamed = stream(&link, service, function, call, (&subject, &to, sent));
            return Box::pin(streamed).await;
        }
        service.call(function, call, &link.backend).await.map(Some)
    };
    let result: Result<Option<Reply>, CallError> = result.await;
    let result = match result {
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => return,
        Err(error) => Err(error),
    };
    let Some(to) = to else {
        return log_outcome(&binding, &subject, result.as_ref().map(Reply::error));
    };
    match result {
        Ok(Reply { body, .. }) => reply(&link.nats, to, body).await,
        Err(error) => reply_error(&link.nats, Some(To::plain(to)), &error).await,
    }
}

/// The call of a function by a caller that reads streams by their names. Where the result has streams it is sent
/// before the call has ended, and there is no other reply.
async fn stream(
    link: &Link,
    service: &Service,
    function: &Function,
    call: Call,
    (subject, to, sent): (&Subject, &Option<Subject>, Option<Arc<AtomicBool>>),
) -> Result<Option<Reply>, CallError> {
    let limits = service.limits;
    let wire = streams::Wire {
        link: &link.nats,
        app: subject::app_of(subject),
        deadline: service.last(&call),
        limits,
    };
    let arguments = service.decode(function, &call)?;
    wire.follow_arguments(&arguments, &function.signature)?;
    let (early, mut given) = oneshot::channel();
    let called = service.call_values(
        function,
        arguments,
        limits,
        call,
        &link.backend,
        Some(early),
    );
    let mut called = pin!(called);
    let ended = tokio::select! {
        biased;
        Ok(value) = &mut given => Err(value),
        ended = &mut called => Ok(ended),
    };
    let (value, goes_on) = match (ended, given.try_recv()) {
        (Err(value), _) => (value, true),
        (Ok(_), Ok(value)) => (value, false),
        // There are no streams in what it has returned.
        (Ok(ended), Err(_)) => {
            return match ended? {
                Answer::Value(value) => service.encode(function, value.as_ref()).map(Some),
                Answer::Json(body) => Ok(Some(Reply::read(body, &function.signature))),
            };
        }
    };
    let offered = wire.offer_result(&value, &function.signature);
    let reply = offered.and_then(|()| {
        let reply = service.encode(function, Some(&value))?;
        super::check_result(reply.body.len(), link.nats.max_payload())?;
        Ok(reply)
    });
    drop(value);
    if let Some(sent) = sent {
        sent.store(true, Ordering::SeqCst);
    }
    match (to, reply) {
        (Some(to), Ok(reply)) => {
            let mut headers = Headers::new();
            wire::write_named(&mut headers);
            log_unsent(link.nats.publish(to, None, &headers, &reply.body).await);
        }
        (to, Err(error)) => {
            reply_error(&link.nats, to.clone().map(To::plain), &error).await;
        }
        (None, Ok(_)) => {}
    }
    if goes_on {
        // Its failure is that of its streams, which their readers learn.
        let _ = called.await;
    }
    Ok(None)
}

/// The life of one request or event of a client of NestJS.
async fn answer_nest(
    link: Arc<Link>,
    message: Message,
    arrived: Instant,
    binding: Arc<Binding>,
    handler: Arc<NestDelivery>,
) {
    let Message {
        subject,
        reply: to,
        headers,
        payload,
        malformed,
        ..
    } = message;
    let id = nest::id_of(&payload);
    let result = async {
        if let Some(why) = malformed {
            return Err(CallError::bad_arguments(why));
        }
        let packet = RequestPacket::read(&payload);
        let packet = packet.map_err(|error| {
            CallError::bad_arguments(format_args!("the packet is no JSON: {error}"))
        })?;
        let arguments = nest::arguments(packet.data, &handler.signature);
        let mut call = wire::read_call(headers.as_ref(), arguments, arrived)?;
        // What its entities have beyond the types that are shared is ignored, as between services.
        call.caller.get_or_insert_with(|| NEST.to_owned());
        if to.is_none() {
            call.kind = Kind::Event;
        }
        let limits = &binding.service.spec.limits;
        match &handler.way {
            NestWay::Service => {
                let Binding {
                    service, exported, ..
                } = binding.chosen_for(&handler.function);
                let function = exported.function(&handler.function)?;
                service.call(function, call, &link.backend).await
            }
            NestWay::Run(subject, _) if to.is_none() => {
                let _room = handler.room()?;
                call.deadline = call.deadline.min(Instant::now() + limits.timeout);
                let event = Event {
                    subject: subject.clone(),
                    stream: None,
                    call,
                };
                link.backend.publish(event).await?;
                Ok(Reply::read(Bytes::new(), &handler.signature))
            }
            NestWay::Run(subject, limit) => {
                let _room = handler.room()?;
                call.deadline = call.deadline.min(Instant::now() + *limit);
                let body = link.backend.call(subject, call).await?;
                Ok(Reply::read(body, &handler.signature))
            }
            NestWay::Publish(publication) => {
                let _room = handler.room()?;
                call.deadline = call.deadline.min(Instant::now() + limits.timeout);
                let limits = Limits {
                    bytes: call.body.len(),
                    unknown_keys: UnknownKeys::Ignore,
                    ..Limits::default()
                };
                let event = publication.check(call, &limits)?;
                link.backend.publish(event).await?;
                Ok(Reply::read(Bytes::new(), &handler.signature))
            }
        }
    };
    let result: Result<Reply, CallError> = result.await;
    match (to, id) {
        (None, _) => log_outcome(&binding, &subject, result.as_ref().map(Reply::error)),
        (Some(to), None) => match result {
            Ok(Reply { body, .. }) => reply(&link.nats, to, body).await,
            Err(error) => reply_error(&link.nats, Some(To::plain(to)), &error).await,
        },
        (Some(to), Some(id)) => reply_packets(&link.nats, to, id, result, &handler).await,
    }
}

/// The caller of calls that clients of NestJS make, which name none.
const NEST: &str = "nestjs";

/// Sends the packets that answer a request of NestJS: at least one, of which exactly one is the last.
async fn reply_packets(
    link: &nats::Link,
    to: Subject,
    id: Box<RawValue>,
    result: Result<Reply, CallError>,
    handler: &NestDelivery,
) {
    let packets = result.and_then(|result| {
        let packets = nest::result_packets(&result, &handler.signature, &id, handler.stream);
        let mut sizes = packets.iter().map(Bytes::len);
        sizes.try_for_each(|size| super::check_result(size, link.max_payload()))?;
        Ok(packets)
    });
    match packets {
        Ok(packets) => {
            for packet in packets {
                log_unsent(link.publish(&to, None, &Headers::new(), &packet).await);
            }
        }
        Err(error) => {
            let to = To {
                subject: to,
                nest: Some(id),
                sent: None,
            };
            reply_error(link, Some(to), &error).await;
        }
    }
}

impl To {
    fn plain(subject: Subject) -> Self {
        Self {
            subject,
            nest: None,
            sent: None,
        }
    }
}

/// The error of what is too much.
fn shed() -> CallError {
    CallError::overloaded("more calls come than the service can take")
}

/// The life of one message that is no call. Only the guest may reply.
async fn deliver(link: Arc<Link>, message: Message, arrived: Instant, binding: Arc<Binding>) {
    if let Some(why) = message.malformed {
        let error = CallError::bad_arguments(why);
        return log_outcome(&binding, &message.subject, Err(&error));
    }
    let call = wire::read_message(message.headers.as_ref(), arrived);
    let subject = message.subject.clone();
    let message = interfaces::Message {
        headers: wire::read_headers(message.headers.as_ref()),
        subject: message.subject.into_string(),
        body: message.payload.into(),
        reply_to: message.reply.map(Subject::into_string),
    };
    let service = &binding.chosen().service;
    let delivered = service.deliver(message, call, &link.backend).await;
    let returned = delivered
        .as_ref()
        .map(|returned| returned.as_ref().err().map(Into::into));
    log_outcome(&binding, &subject, returned);
}

/// Logs the failure of a message without a reply subject: no caller gets the error.
fn log_outcome(
    binding: &Binding,
    subject: &str,
    outcome: Result<Option<std::borrow::Cow<'_, str>>, &CallError>,
) {
    let service = &binding.service.spec.name;
    match outcome {
        Ok(None) => {}
        Ok(Some(error)) => {
            let error = one_line(&error, MAX_LOGGED);
            tracing::warn!(service, subject, %error, "an event or message failed");
        }
        // No caller learns that what it published cannot be handled.
        Err(error)
            if matches!(
                error.code,
                Code::BadArguments | Code::NotFound | Code::TooLarge | Code::TooManyHops
            ) =>
        {
            let error = one_line(&error.message, MAX_LOGGED);
            tracing::warn!(service, subject, %error, "an event or message cannot be handled");
        }
        // The service itself logs traps.
        Err(error) => {
            let (code, blame) = (error.code.status(), error.blame.as_str());
            tracing::debug!(code, blame, "an event or message failed: {error}");
        }
    }
}

/// Sends the one reply of a call.
async fn reply(link: &nats::Link, to: Subject, body: Bytes) {
    match super::check_result(body.len(), link.max_payload()) {
        Ok(()) => log_unsent(link.publish(&to, None, &Headers::new(), &body).await),
        Err(error) => reply_error(link, Some(To::plain(to)), &error).await,
    }
}

/// Sends the one reply of a call that failed, if it has a reply subject.
async fn reply_error(link: &nats::Link, to: Option<To>, error: &CallError) {
    if let Some(To {
        subject,
        nest,
        sent,
    }) = to
    {
        if sent.is_some_and(|sent| sent.load(Ordering::SeqCst)) {
            return;
        }
        let (headers, mut body) = wire::write_error(error);
        if let Some(id) = nest {
            body = nest::error_packet(error, &id);
        }
        log_unsent(link.publish(&subject, None, &headers, &body).await);
    }
}

fn log_unsent(sent: Result<(), PublishError>) {
    if let Err(error) = sent {
        tracing::warn!(%error, "a reply could not be sent");
    }
}
