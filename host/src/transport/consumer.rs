//! Consumers of stored events and messages: each event becomes a call, and by its outcome it is
//! acknowledged, delivered again, or becomes a dead letter.
//!
//! All hosts and workers pull from one consumer. The server delivers an event to one of them at a
//! time, and to another one after the consumer's `ack_wait` without an acknowledgement; so work
//! that takes longer reports progress.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::{self, AckKind, Message};
use async_nats::{Client, Subject};
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio::task;

use super::{Binding, Delivery, Slot};
use crate::events::attempts::AttemptStore;
use crate::events::dead_letters::{Attempt, DeadLetter, DeadLetters, dead_letter_id, rfc3339};
use crate::events::retry::{self, Failure, Next};
use crate::events::stream;
use crate::interfaces::{self, Backend};
use crate::nats::Violations;
use crate::poll::{self, Budget, Ended, InFlight, POLL_BUDGET, TaskSlot};
use crate::{subject, wire};

/// Time for which a pull request stays with the server. Then it is made again, so that a lost one
/// costs no more than this.
const PULL: Duration = Duration::from_secs(30);

/// Interval of the server's heartbeats for a pull request. After twice this without one it is made
/// again.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The wait before a failed pull request is made again.
const REPULL: Duration = Duration::from_millis(250);

/// The waits before a consumer that cannot be reached is opened again, doubled from the first to
/// the last.
const FIRST_REOPEN: Duration = Duration::from_millis(250);
const LAST_REOPEN: Duration = Duration::from_secs(5);

/// The wait of an event whose dead letter could not be stored.
const RETRY_STORE: Duration = Duration::from_secs(10);

/// The stores of failures: attempts and dead letters.
pub(crate) struct Failures {
    dead_letters: DeadLetters,
    attempts: AttemptStore,
}

impl Failures {
    /// The failures of the app with this name.
    pub(crate) fn new(context: jetstream::Context, app: &str) -> Self {
        Self {
            dead_letters: DeadLetters::new(context.clone(), app),
            attempts: AttemptStore::new(context, app),
        }
    }
}

/// The connection and the stores that all consumers of a worker share.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) failures: Failures,
    /// What the connection's login was refused.
    pub(crate) violations: Violations,
}

/// Serves a consumer until `stop` has a deadline, and then until every pulled event is done or the
/// deadline passes. Returns the number of events that were given up, which the server delivers
/// again.
pub(crate) async fn serve(
    link: Arc<Link>,
    stream: String,
    consumer: String,
    slot: Arc<Slot>,
    mut stop: oneshot::Receiver<Instant>,
) -> usize {
    let context = jetstream::new(link.client.clone());
    let mut work = Work {
        link,
        slot,
        in_flight: InFlight::new(),
    };
    let mut wait = FIRST_REOPEN;
    let deadline = loop {
        let pulled = async {
            match open(&context, &stream, &consumer).await {
                Ok(messages) => {
                    wait = FIRST_REOPEN;
                    Some(messages)
                }
                Err(error) => {
                    tracing::warn!(stream, consumer, %error, "events cannot be pulled, trying again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LAST_REOPEN);
                    None
                }
            }
        };
        let opened = tokio::select! {
            biased;
            deadline = &mut stop => break deadline.unwrap_or_else(|_| Instant::now()),
            opened = pulled => opened,
        };
        let Some(mut messages) = opened else {
            continue;
        };
        if let Some(deadline) = work.pull(&mut messages, &mut stop).await {
            // Events that have arrived are done here; those on their way are delivered again.
            if let Poll::Ready(next) = poll::ready(&mut messages)
                && let Err(error) = work.work_on(next, &mut messages, None).await
            {
                tracing::debug!(error, "at the end of pulling events");
            }
            break deadline;
        }
        work.reap();
    };
    work.finish(deadline).await
}

async fn open(
    context: &jetstream::Context,
    stream: &str,
    consumer: &str,
) -> Result<pull::Stream, async_nats::Error> {
    let consumer: PullConsumer = context.get_consumer_from_stream(consumer, stream).await?;
    // The batch is no bound: the consumer delivers no more than may be unacknowledged.
    let most = usize::try_from(consumer.cached_info().config.max_ack_pending).unwrap_or(1);
    let messages = consumer
        .stream()
        .max_messages_per_batch(most.saturating_mul(4).max(16))
        .expires(PULL)
        .heartbeat(HEARTBEAT)
        .messages();
    Ok(messages.await?)
}

/// The work of one worker for one consumer.
struct Work {
    link: Arc<Link>,
    slot: Arc<Slot>,
    /// Events under way by the subject of their acknowledgement.
    in_flight: InFlight<Subject>,
}

impl Work {
    /// Works on events until it is stopped (then it returns the deadline) or the pull request has
    /// to be made again.
    async fn pull(
        &mut self,
        messages: &mut pull::Stream,
        stop: &mut oneshot::Receiver<Instant>,
    ) -> Option<Instant> {
        loop {
            let next = tokio::select! {
                biased;
                deadline = &mut *stop => {
                    return Some(deadline.unwrap_or_else(|_| Instant::now()));
                }
                Some(ended) = self.in_flight.next() => {
                    settle(&ended);
                    continue;
                }
                next = messages.next() => next,
            };
            let budget = Budget::new(POLL_BUDGET);
            if let Err(error) = self.work_on(next, messages, Some(budget)).await {
                // Mostly a missing heartbeat, because the server was away.
                tracing::debug!(error, "pulling events anew");
                tokio::time::sleep(REPULL).await;
                return None;
            }
            self.reap();
            // The connection's own task reads and writes now: all acknowledgements go out in one
            // write.
            task::yield_now().await;
        }
    }

    /// Works on an event and on those that have arrived after it, within the budget if there is one.
    ///
    /// # Errors
    ///
    /// The pull has ended.
    async fn work_on(
        &mut self,
        mut next: Option<Result<Message, pull::MessagesError>>,
        messages: &mut pull::Stream,
        budget: Option<Budget>,
    ) -> Result<(), String> {
        let mut slot = TaskSlot::new();
        loop {
            let message = match next {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the pull has ended".to_owned()),
            };
            let reply = message.message.reply.clone();
            let event = handle(message, Arc::clone(&self.slot), Arc::clone(&self.link));
            if let Some(ended) = self.in_flight.start(&mut slot, reply, event).await {
                settle(&ended);
            }
            if budget
                .as_ref()
                .is_some_and(|budget| budget.left().is_none())
            {
                return Ok(());
            }
            next = match poll::ready(messages) {
                Poll::Ready(next) => next,
                Poll::Pending => return Ok(()),
            };
        }
    }

    fn reap(&mut self) {
        while let Some(ended) = self.in_flight.try_next() {
            settle(&ended);
        }
    }

    async fn finish(mut self, deadline: Instant) -> usize {
        let finish = async {
            while let Some(ended) = self.in_flight.next().await {
                settle(&ended);
            }
        };
        let in_time = tokio::time::timeout_at(deadline.into(), finish).await;
        if in_time.is_ok() {
            return 0;
        }
        let given_up = self.in_flight.abort().await;
        let number = given_up.len();
        for reply in given_up.into_iter().flatten() {
            // Without it the event would be delivered again too, only later.
            let nak = AckKind::Nak(None).into();
            let _ = self.link.client.publish(reply, nak).await;
        }
        number
    }
}

fn settle(ended: &Ended<Subject>) {
    if let Ended::Panicked(_) = ended {
        // Not acknowledged, so it is delivered again.
        tracing::error!("the host failed at an event");
    }
}

/// The life of one event at one subscriber, from its arrival to its acknowledgement.
async fn handle(message: Message, slot: Arc<Slot>, link: Arc<Link>) {
    let binding = slot.binding();
    let attempt = pin!(attempt(&message, &binding, &link.backend));
    match with_progress(&message, &binding, attempt).await {
        Ok(()) => {
            if let Some(id) = replayed(&message)
                && let Err(error) = link.failures.dead_letters.remove_handled(id).await
            {
                tracing::warn!(id, %error, "a dead letter was handled and is still there");
            }
            acknowledge(&message, AckKind::Ack).await;
        }
        Err(failure) => {
            // The policy of now, which may be another than when the attempt began.
            let now = slot.binding();
            // Boxed: else events that succeed would have room for its state.
            Box::pin(fail(&message, &now, &link.failures, failure)).await;
        }
    }
}

/// Waits for an attempt, and reports progress to the server every half ack wait.
async fn with_progress(
    message: &Message,
    binding: &Binding,
    mut attempt: Pin<&mut impl Future<Output = Result<(), Failure>>>,
) -> Result<(), Failure> {
    let half = stream::ack_wait(binding.service.spec.limits.timeout) / 2;
    loop {
        let deadline = tokio::time::Instant::now() + half;
        match poll::within(deadline, attempt.as_mut()).await {
            Ok(result) => return result,
            Err(_) => acknowledge(message, AckKind::Progress).await,
        }
    }
}

async fn acknowledge(message: &Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        // The event is delivered again.
        tracing::debug!(%error, "an acknowledgement could not be sent");
    }
}

async fn attempt(
    message: &Message,
    binding: &Binding,
    backend: &Arc<dyn Backend>,
) -> Result<(), Failure> {
    let Binding {
        service, exported, ..
    } = binding;
    let _permit = match binding.delivery.subscriber() {
        // The semaphore is never closed.
        Some(subscriber) => subscriber.permits.acquire().await.ok(),
        None => None,
    };
    let headers = message.headers.as_ref();
    if let Delivery::DurableMessage(_) | Delivery::Message = binding.delivery {
        let call = wire::read_message(headers, Instant::now());
        let message = interfaces::Message {
            subject: subject::original(&message.subject),
            body: message.payload.to_vec(),
            reply_to: None,
            headers: wire::read_headers(headers),
        };
        // Boxed: else every event would have room for its state.
        let returned = Box::pin(service.deliver(message, call, backend)).await?;
        return returned.map_err(Failure::returned);
    }
    let call = wire::read_event(headers, message.payload.clone(), Instant::now())?;
    let (name, _) = subject::of_stored(&message.subject).unwrap_or_default();
    let function = exported.function(name)?;
    let reply = service.call(function, call, backend).await?;
    match reply.error() {
        None => Ok(()),
        Some(error) => Err(Failure::returned(error)),
    }
}

/// The id of the dead letter of a replayed event. Any client can send the header; publishing on the
/// replay subjects takes a permission.
fn replayed(message: &Message) -> Option<&str> {
    let id = message.headers.as_ref()?.get(wire::DEAD_LETTER)?;
    subject::is_replay(&message.subject).then_some(id.as_str())
}

/// Has a failed event delivered again after a wait, or makes it a dead letter.
async fn fail(message: &Message, binding: &Binding, failures: &Failures, failure: Failure) {
    let (Some(subscriber), Ok(info)) = (binding.delivery.subscriber(), message.info()) else {
        return;
    };
    let service = &binding.service.spec.name;
    let id = match replayed(message) {
        Some(id) => id.to_owned(),
        None => dead_letter_id(info.stream, info.stream_sequence, info.published, service),
    };
    let Failure {
        outcome,
        code,
        blame,
        error,
    } = failure;
    let key = format!("{service}.{id}.{}", info.stream_sequence);
    let mut attempts = match failures.attempts.read(&key).await {
        Ok(attempts) => attempts,
        Err(error) => {
            // Without the earlier ones it would be tried for ever, or given up too early.
            tracing::warn!(service, id, %error, "attempts at an event cannot be read");
            return acknowledge(message, AckKind::Nak(Some(RETRY_STORE))).await;
        }
    };
    let code = code.map(crate::call::Code::status);
    attempts.push(Attempt::now(outcome, code, blame, &error));
    let tried = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
    let random = rand::random_range(-1.0..=1.0);
    if let Next::Retry(delay) = retry::next(&subscriber.policy.retry, outcome, tried, random) {
        if let Err(error) = failures.attempts.write(&key, &attempts).await {
            tracing::warn!(service, id, %error, "an attempt at an event cannot be stored");
        }
        tracing::debug!(
            service,
            id,
            tried,
            ?delay,
            "an event failed and is delivered again: {error}"
        );
        return acknowledge(message, AckKind::Nak(Some(delay))).await;
    }
    let Some(dead_letter) = dead_letter(message, binding, id.clone(), attempts) else {
        return;
    };
    let replayed = replayed(message).is_some();
    match failures.dead_letters.store(dead_letter, replayed).await {
        Ok(()) => {
            tracing::warn!(service, id, tried, "an event is a dead letter now: {error}");
            acknowledge(message, AckKind::Term).await;
            failures.attempts.remove(&key).await;
        }
        Err(refused) => {
            tracing::error!(service, id, %refused, "a dead letter cannot be stored, its event is tried again");
            acknowledge(message, AckKind::Nak(Some(RETRY_STORE))).await;
        }
    }
}

fn dead_letter(
    message: &Message,
    binding: &Binding,
    id: String,
    attempts: Vec<Attempt>,
) -> Option<DeadLetter> {
    let info = message.info().ok()?;
    let exported = &binding.exported;
    let function = if binding.delivery.is_message() {
        exported.functions.values().next()?.id.clone()
    } else {
        let (name, _) = subject::of_stored(&message.subject)?;
        exported.id.function(name)
    };
    let headers = message.headers.as_ref().map(|headers| {
        let texts = |values: &[async_nats::HeaderValue]| {
            values
                .iter()
                .map(|value| value.as_str().to_owned())
                .collect()
        };
        headers
            .iter()
            .map(|(name, values)| (name.to_string(), texts(values)))
            .collect()
    });
    Some(DeadLetter {
        id,
        service: binding.service.spec.name.clone(),
        digest: binding.service.component.digest.clone(),
        function: function.to_string(),
        subject: subject::original(&message.subject),
        headers: headers.unwrap_or_default(),
        stream: info.stream.to_owned(),
        sequence: info.stream_sequence,
        published: rfc3339(info.published),
        attempts,
        left_out: 0,
        edited: false,
        moved_to: None,
        size: message.payload.len(),
        body_left: false,
        revision: 0,
        body: message.payload.clone(),
    })
}
