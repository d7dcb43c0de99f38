//! Consumers of stored events and messages: each event becomes a call, and by its outcome it is
//! acknowledged, delivered again, or becomes a dead letter.
//!
//! All hosts and workers pull from one consumer. The server delivers an event to one of them at a
//! time, and to another one after the consumer's `ack_wait` without an acknowledgement; so work
//! that takes longer reports progress.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subject;
use async_nats::jetstream::{self, AckKind};
use tokio::sync::oneshot;
use tokio::task;
use tokio::time::MissedTickBehavior;

use super::pull::{Appetite, Bounds, HEARTBEAT, PullError, Pulls, Stored};
use super::{Binding, Delivery, Slot};
use crate::call::{CallError, Code};
use crate::events::attempts::AttemptStore;
use crate::events::dead_letters::{Attempt, DeadLetter, DeadLetters, dead_letter_id, rfc3339};
use crate::events::health::StoreHealth;
use crate::events::retry::{self, Failure, Next};
use crate::events::stream;
use crate::headers::Headers;
use crate::interfaces::{self, Backend};
use crate::nats::{self, Delivered};
use crate::poll::{self, Budget, Ended, InFlight, POLL_BUDGET, TaskSlot};
use crate::runtime::Admitted;
use crate::{subject, wire};

/// The wait before a pull that failed is made again.
const REPULL: Duration = Duration::from_millis(250);

/// The waits before a consumer that cannot be reached is opened again, doubled from the first to
/// the last.
const FIRST_REOPEN: Duration = Duration::from_millis(250);
const LAST_REOPEN: Duration = Duration::from_secs(5);

/// The wait of an event whose dead letter could not be stored.
const RETRY_STORE: Duration = Duration::from_secs(10);

/// The waits of an event whose service the host has no instance for, doubled from the first to the
/// last.
const FIRST_BUSY: Duration = Duration::from_millis(20);
const LAST_BUSY: Duration = Duration::from_secs(1);

/// Where failures are written down.
pub(crate) struct Failures {
    dead_letters: DeadLetters,
    attempts: AttemptStore,
}

impl Failures {
    /// The failures of the app with this name.
    pub(crate) fn new(context: jetstream::Context, link: nats::Link, app: &str) -> Self {
        Self {
            dead_letters: DeadLetters::new(context.clone(), link, app),
            attempts: AttemptStore::new(context, app),
        }
    }
}

/// The connection and the stores that all consumers of a worker share.
pub(crate) struct Link {
    pub(crate) nats: nats::Link,
    pub(crate) context: jetstream::Context,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) failures: Failures,
    /// The host's workers, which all pull.
    pub(crate) workers: usize,
    /// Learns what is missing.
    pub(crate) store: Arc<StoreHealth>,
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
    let pulling = Arc::clone(&link);
    let store = Arc::clone(&link.store);
    let mut work = Work {
        link,
        slot,
        in_flight: InFlight::new(),
        appetite: Appetite::default(),
        is_partition: stream::is_partition(&consumer),
    };
    let mut wait = FIRST_REOPEN;
    let deadline = loop {
        let pulled = async {
            match Pulls::open(&pulling, &stream, &consumer).await {
                Ok(pulls) => {
                    wait = FIRST_REOPEN;
                    Some(pulls)
                }
                Err(error) => {
                    report(&store, &stream, &consumer, &error);
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
        let Some(mut pulls) = opened else {
            continue;
        };
        match work.pull(&mut pulls, &mut stop).await {
            Ok(deadline) => {
                // Nothing is on its way any more, and what has arrived is done here.
                pulls.close().await;
                if let Ok(Some(first)) = pulls.ready()
                    && let Err(error) = work.work_on(first, &mut pulls, None).await
                {
                    tracing::debug!(%error, "at the end of pulling events");
                }
                break deadline;
            }
            Err(error) => {
                // Mostly a heartbeat that is missing because the server was away.
                report(&store, &stream, &consumer, &error);
                tracing::debug!(%error, "pulling events anew");
                tokio::time::sleep(REPULL).await;
            }
        }
        work.reap();
    };
    work.finish(deadline).await
}

/// Has a consumer that is gone created again.
fn report(store: &StoreHealth, stream: &str, consumer: &str, error: &PullError) {
    if let PullError::Gone(_) = error {
        store.report_missing(format_args!("consumer {consumer} of {stream}: {error}"));
    }
}

/// The work of one worker for one consumer.
struct Work {
    link: Arc<Link>,
    slot: Arc<Slot>,
    /// Events under way by the subject of their acknowledgement.
    in_flight: InFlight<Subject>,
    appetite: Appetite,
    is_partition: bool,
}

impl Work {
    /// Works on what comes until it is stopped; returns the deadline.
    ///
    /// # Errors
    ///
    /// The pulls have to be made anew.
    async fn pull(
        &mut self,
        pulls: &mut Pulls,
        stop: &mut oneshot::Receiver<Instant>,
    ) -> Result<Instant, PullError> {
        let mut look = tokio::time::interval(HEARTBEAT);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let binding = self.slot.binding();
            pulls.ask(self.room(&binding)).await?;
            let next = tokio::select! {
                biased;
                deadline = &mut *stop => {
                    return Ok(deadline.unwrap_or_else(|_| Instant::now()));
                }
                Some(ended) = self.in_flight.next() => {
                    settle(&ended);
                    continue;
                }
                next = pulls.next() => next?,
                // Nothing was asked for because others work on as much as may be.
                () = room(&binding), if pulls.asked() == 0 => continue,
                _ = look.tick() => {
                    if pulls.is_silent() {
                        return Err(PullError::Ended("no heartbeat".to_owned()));
                    }
                    continue;
                }
            };
            let budget = Budget::new(POLL_BUDGET);
            let all = self.work_on(next, pulls, Some(budget)).await?;
            self.reap();
            if !all {
                // The connection's own task reads and writes now. With nothing left to do it does so
                // while the next event is waited for: what is asked for goes out in one write with
                // all acknowledgements.
                task::yield_now().await;
            }
        }
    }

    /// The number of events that should be on their way.
    fn room(&mut self, binding: &Binding) -> usize {
        let Some(subscriber) = binding.delivery.subscriber() else {
            return 0;
        };
        let in_flight = if self.is_partition {
            1
        } else {
            subscriber.policy.in_flight as usize
        };
        self.appetite.room(Bounds {
            free: subscriber.permits.available_permits(),
            service: binding.service.free(),
            workers: self.link.workers,
            in_flight,
        })
    }

    /// Works on an event and on those that have arrived behind it, within the budget if there is
    /// one. Returns whether these were all.
    ///
    /// # Errors
    ///
    /// The pull has ended.
    async fn work_on(
        &mut self,
        first: Stored,
        pulls: &mut Pulls,
        budget: Option<Budget>,
    ) -> Result<bool, PullError> {
        let (mut slot, waker) = (TaskSlot::new(), poll::waker().await);
        let mut next = Some(first);
        while let Some(message) = next {
            let reply = message.message.reply.clone();
            let (to, link) = (Arc::clone(&self.slot), Arc::clone(&self.link));
            let event = || handle(message, to, link);
            match self.in_flight.start(&mut slot, &waker, reply, event) {
                Some(ended) => {
                    self.appetite.quick();
                    settle(&ended);
                }
                None => self.appetite.slow(),
            }
            if budget
                .as_ref()
                .is_some_and(|budget| budget.left().is_none())
            {
                return Ok(false);
            }
            next = pulls.ready()?;
        }
        Ok(true)
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
            let (none, nak) = (Headers::new(), bytes::Bytes::from(AckKind::Nak(None)));
            let sent = self.link.nats.publish(&reply, None, &none, &nak);
            let _ = sent.await;
        }
        number
    }
}

/// Done when one more event may be worked on.
async fn room(binding: &Binding) {
    match binding.delivery.subscriber() {
        // The semaphore is never closed.
        Some(subscriber) => drop(subscriber.permits.acquire().await),
        None => std::future::pending().await,
    }
}

fn settle(ended: &Ended<Subject>) {
    if let Ended::Panicked(_) = ended {
        // Not acknowledged, so it is delivered again.
        tracing::error!("the host failed at an event");
    }
}

/// The life of one event at one subscriber, from its arrival to its acknowledgement.
async fn handle(message: Stored, slot: Arc<Slot>, link: Arc<Link>) {
    let binding = slot.binding();
    let binding = match binding.canary {
        None => &*binding,
        Some(_) => {
            let named = subject::of_stored(&message.message.subject);
            binding.chosen_for(named.unwrap_or_default().0)
        }
    };
    let attempt = pin!(attempt(&message, binding, &link.backend));
    match with_progress(&message, binding, attempt).await {
        Ok(()) => {
            if let Some(id) = replayed(&message)
                && let Err(error) = link.failures.dead_letters.remove_handled(id).await
            {
                tracing::warn!(id, %error, "a dead letter was handled and is still there");
            }
            message.acknowledge(AckKind::Ack).await;
            // Boxed, so that events which succeed at once do not carry its state about.
            Box::pin(forget(&message, binding, &link.failures)).await;
        }
        Err(failure) => {
            // The policy of now, which may be another than when the attempt began.
            let now = slot.binding();
            Box::pin(fail(&message, &now, &link, failure)).await;
        }
    }
}

/// Waits for an attempt, and reports progress to the server every half ack wait.
async fn with_progress(
    message: &Stored,
    binding: &Binding,
    mut attempt: Pin<&mut impl Future<Output = Result<(), Failure>>>,
) -> Result<(), Failure> {
    let half = stream::ack_wait(binding.service.spec.limits.timeout) / 2;
    loop {
        let deadline = tokio::time::Instant::now() + half;
        match poll::within(deadline, attempt.as_mut()).await {
            Ok(result) => return result,
            Err(_) => message.acknowledge(AckKind::Progress).await,
        }
    }
}

/// One attempt at an event. That the host is busy is none: the event waits for its turn.
async fn attempt(
    message: &Stored,
    binding: &Binding,
    backend: &Arc<dyn Backend>,
) -> Result<(), Failure> {
    if let Delivery::Orphaned(_, why) = &binding.delivery {
        return Err(CallError::not_found(why).into());
    }
    let service = &binding.service;
    let subscriber = binding.delivery.subscriber();
    if subscriber.is_some_and(|s| {
        s.elsewhere
            .iter()
            .any(|one| one.matches(&message.message.subject))
    }) {
        return Ok(());
    }
    let _permit = match subscriber {
        // The semaphore is never closed.
        Some(subscriber) => subscriber.permits.acquire().await.ok(),
        None => None,
    };
    let mut wait = FIRST_BUSY;
    loop {
        let admitted = service.admit().await;
        match call(message, binding, backend, admitted).await {
            Ok(returned) => return returned.map_err(Failure::returned),
            // It was admitted, so what is missing is an instance: other services have them all.
            Err(error) if error.code == Code::Overloaded => {
                tracing::debug!("an event waits: {error}");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LAST_BUSY);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Hands an event or a message to its service; what the guest itself returns is the inner result.
async fn call(
    message: &Stored,
    binding: &Binding,
    backend: &Arc<dyn Backend>,
    admitted: Admitted<'_>,
) -> Result<Result<(), String>, CallError> {
    let Binding {
        service, exported, ..
    } = binding;
    let message = &message.message;
    if let Some(why) = message.malformed {
        return Err(CallError::bad_arguments(why));
    }
    let headers = message.headers.as_ref();
    if let Delivery::DurableMessage(_) | Delivery::Message = binding.delivery {
        let call = wire::read_message(headers, Instant::now());
        let message = interfaces::Message {
            subject: subject::original(&message.subject),
            body: message.payload.to_vec(),
            reply_to: None,
            headers: wire::read_headers(headers),
        };
        // Boxed, so that events do not carry its state about.
        return Box::pin(service.deliver_admitted(admitted, message, call, backend)).await;
    }
    let call = wire::read_event(headers, message.payload.clone(), Instant::now())?;
    let (name, _) = subject::of_stored(&message.subject).unwrap_or_default();
    let function = exported.function(name)?;
    let reply = service
        .call_admitted(admitted, function, call, backend)
        .await?;
    match reply.error() {
        None => Ok(Ok(())),
        Some(error) => Ok(Err(error.into_owned())),
    }
}

/// The id of the dead letter of a replayed event. Any client can send the header; publishing on the
/// replay subjects takes a permission.
fn replayed(Stored { message, .. }: &Stored) -> Option<&str> {
    let id = message.headers.as_ref()?.get(wire::DEAD_LETTER)?;
    subject::is_replay(&message.subject).then_some(id)
}

/// The id of an event's dead letter, and the key of the attempts at it.
fn names(message: &Stored, delivered: &Delivered<'_>, service: &str) -> (String, String) {
    let id = match replayed(message) {
        Some(id) => id.to_owned(),
        None => {
            let Delivered {
                stream,
                sequence,
                published,
                ..
            } = *delivered;
            dead_letter_id(stream, sequence, published, service)
        }
    };
    let key = format!("{service}.{id}.{}", delivered.sequence);
    (id, key)
}

/// Removes what is written down of an event that failed and is handled now.
async fn forget(message: &Stored, binding: &Binding, failures: &Failures) {
    if let Some(delivered) = message.delivered()
        && delivered.times > 1
    {
        let (_, key) = names(message, &delivered, &binding.service.spec.name);
        failures.attempts.remove(&key).await;
    }
}

/// Has an event that failed come again after a while, or makes it a dead letter.
async fn fail(message: &Stored, binding: &Binding, link: &Link, failure: Failure) {
    let Link {
        failures, store, ..
    } = link;
    let (Some(subscriber), Some(delivered)) = (binding.delivery.subscriber(), message.delivered())
    else {
        return;
    };
    let service = &binding.service.spec.name;
    let (id, key) = names(message, &delivered, service);
    let Failure {
        outcome,
        code,
        blame,
        error,
    } = failure;
    let (mut attempts, readable) = match failures.attempts.read(&key).await {
        Ok(attempts) => (attempts, true),
        Err(error) => {
            tracing::warn!(service, id, %error, "attempts at an event cannot be read");
            store.report_missing(format_args!("attempts at events cannot be read: {error}"));
            (Vec::new(), false)
        }
    };
    let code = code.map(Code::status);
    attempts.push(Attempt::now(outcome, code, blame, &error));
    let tried = retry::tried(attempts.len(), delivered.times);
    let random = rand::random_range(-1.0..=1.0);
    if let Next::Retry(delay) = retry::next(&subscriber.policy.retry, outcome, tried, random) {
        // What could not be read is not replaced.
        if readable && let Err(error) = failures.attempts.write(&key, &attempts).await {
            tracing::warn!(service, id, %error, "an attempt at an event cannot be written down");
        }
        binding.service.counts().retried.add(1);
        tracing::debug!(
            service,
            id,
            tried,
            ?delay,
            "an event failed and is delivered again: {error}"
        );
        return message.acknowledge(AckKind::Nak(Some(delay))).await;
    }
    let left_out = (tried as usize).saturating_sub(attempts.len());
    let Some(dead_letter) = dead_letter(message, binding, id.clone(), attempts) else {
        return;
    };
    let dead_letter = DeadLetter {
        left_out,
        ..dead_letter
    };
    let replayed = replayed(message).is_some();
    let (began, function) = (Instant::now(), dead_letter.function.clone());
    match failures.dead_letters.store(dead_letter, replayed).await {
        Ok(()) => {
            let headers = message.message.headers.as_ref();
            let trace = wire::read_message(headers, began).trace;
            binding.service.dead_lettered(&function, &id, trace, began);
            tracing::warn!(service, id, tried, "an event is a dead letter now: {error}");
            message.acknowledge(AckKind::Term).await;
            failures.attempts.remove(&key).await;
        }
        Err(refused) => {
            store.report_missing(format_args!("dead letters cannot be stored: {refused}"));
            tracing::error!(service, id, %refused, "a dead letter cannot be stored, its event is tried again");
            message.acknowledge(AckKind::Nak(Some(RETRY_STORE))).await;
        }
    }
}

fn dead_letter(
    message: &Stored,
    binding: &Binding,
    id: String,
    attempts: Vec<Attempt>,
) -> Option<DeadLetter> {
    let delivered = message.delivered()?;
    let message = &message.message;
    let exported = &binding.exported;
    let function = if binding.delivery.is_message() {
        exported.functions.values().next()?.id.clone()
    } else {
        let (name, _) = subject::of_stored(&message.subject)?;
        exported.id.function(name)
    };
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in message.headers.iter().flat_map(Headers::iter) {
        let values = headers.entry(name.to_owned()).or_default();
        values.push(value.to_owned());
    }
    Some(DeadLetter {
        id,
        service: binding.service.spec.name.clone(),
        digest: binding.service.component.digest.to_string(),
        function: function.to_string(),
        subject: subject::original(&message.subject),
        headers,
        stream: delivered.stream.to_owned(),
        sequence: delivered.sequence,
        published: rfc3339(delivered.published),
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
