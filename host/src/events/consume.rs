//! A subscriber of a durable wire: each stored event becomes a call, and what comes of it decides
//! whether the event is done, comes again, or is a dead letter.
//!
//! All hosts and workers pull from one consumer. The server hands an event to one of them at a
//! time, and to another one when it has heard nothing for the consumer's `ack_wait`; so whoever
//! works on an event for longer says so.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::{self, AckKind, Message, kv};
use async_nats::{Client, Subject};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{OnceCell, Semaphore, oneshot};
use tokio::task::{self, JoinError, JoinSet};

use super::letters::{Attempt, Letter, Letters, letter_id, rfc3339};
use super::{returned_error, stream};
use crate::call::{Blame, CallError, Code};
use crate::inbound::nats::{Occupant, Slot};
use crate::manifest::{Delivery, Outcome, Retry};
use crate::outbound::{Outbound, messaging};
use crate::service::{Function, Service};
use crate::turn::{First, Place, TURN, waiting};
use crate::{subject, wire};

/// How long a pull for events stays with the server. Then it is made again, so that one that got
/// lost costs no more than this.
const PULL: Duration = Duration::from_secs(30);

/// How often the server shows that a pull is still there. After twice this without a sign it is
/// made again.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The wait before a pull that failed is made again.
const REPULL: Duration = Duration::from_millis(250);

/// The waits before a consumer that cannot be reached is tried again, doubled from the first to
/// the last.
const FIRST_REOPEN: Duration = Duration::from_millis(250);
const LAST_REOPEN: Duration = Duration::from_secs(5);

/// The wait of an event that should have become a dead letter and could not.
const UNBURIED: Duration = Duration::from_secs(10);

/// What a service that hears a durable wire needs besides what every service does.
pub struct Subscription {
    delivery: Delivery,
    /// As many events as the service may work on here at a time; the others wait without
    /// being refused.
    room: Arc<Semaphore>,
    ledger: Arc<Ledger>,
}

/// Where failures are written down.
pub(crate) struct Ledger {
    letters: Letters,
    context: jetstream::Context,
    app: String,
    attempts: OnceCell<kv::Store>,
}

impl Subscription {
    /// A subscription with as many places as its service may run calls.
    #[must_use]
    pub(crate) fn new(delivery: Delivery, concurrency: u32, ledger: Arc<Ledger>) -> Self {
        let places = delivery.in_flight.min(concurrency);
        Self {
            delivery,
            room: Arc::new(Semaphore::new(places as usize)),
            ledger,
        }
    }
}

impl Ledger {
    pub(crate) fn new(context: jetstream::Context, app: &str) -> Self {
        Self {
            letters: Letters::new(context.clone(), app),
            context,
            app: app.to_owned(),
            attempts: OnceCell::new(),
        }
    }

    async fn attempts(&self) -> Result<&kv::Store, async_nats::Error> {
        let open = || async {
            let bucket = subject::attempts_bucket(&self.app);
            Ok(self.context.get_key_value(bucket).await?)
        };
        self.attempts.get_or_try_init(open).await
    }

    /// The attempts at an event that have failed so far.
    async fn read(&self, key: &str) -> Result<Vec<Attempt>, async_nats::Error> {
        match self.attempts().await?.get(key).await? {
            Some(text) => Ok(serde_json::from_slice(&text)?),
            None => Ok(Vec::new()),
        }
    }

    async fn write(&self, key: &str, attempts: &[Attempt]) -> Result<(), async_nats::Error> {
        let text = serde_json::to_vec(attempts)?;
        self.attempts().await?.put(key, text.into()).await?;
        Ok(())
    }

    async fn forget(&self, key: &str) {
        let forgotten =
            async { Ok::<_, async_nats::Error>(self.attempts().await?.purge(key).await?) };
        if let Err(error) = forgotten.await {
            // It goes by itself when it is old.
            tracing::debug!(%error, key, "attempts at an event");
        }
    }
}

/// Serves a consumer until `stop` is sent, and then until what has been pulled is done, at the
/// longest until the time that was sent. Gives the number of events that were given up; the
/// server has been told to hand them to somebody else.
pub(crate) async fn serve(
    client: Client,
    stream: String,
    consumer: String,
    slot: Arc<Slot>,
    outbound: Arc<dyn Outbound>,
    mut stop: oneshot::Receiver<Instant>,
) -> usize {
    let context = jetstream::new(client.clone());
    let mut work = Work {
        client,
        slot,
        outbound,
        parked: JoinSet::new(),
        replies: HashMap::new(),
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
                    tracing::warn!(stream, consumer, %error, "events cannot be pulled, trying on");
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
            // What has arrived is done here; what is still on its way comes again.
            if let Poll::Ready(next) = waiting(&mut messages)
                && let Err(error) = work.work_on(next, &mut messages, || true).await
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
    // What a pull asks for is no bound: the consumer hands out no more than may be unacknowledged.
    let most = usize::try_from(consumer.cached_info().config.max_ack_pending).unwrap_or(1);
    let messages = consumer
        .stream()
        .max_messages_per_batch(most.saturating_mul(4).max(16))
        .expires(PULL)
        .heartbeat(HEARTBEAT)
        .messages();
    Ok(messages.await?)
}

/// What one worker does for one consumer.
struct Work {
    client: Client,
    slot: Arc<Slot>,
    outbound: Arc<dyn Outbound>,
    parked: JoinSet<()>,
    /// Where the parked events are acknowledged, for those that have to be given up.
    replies: HashMap<task::Id, Subject>,
}

impl Work {
    /// Works on what comes until told to stop (then gives the deadline) or the pull has to be made
    /// anew.
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
                Some(ended) = self.parked.join_next_with_id() => {
                    self.forget(ended);
                    continue;
                }
                next = messages.next() => next,
            };
            let began = Instant::now();
            let turn = || began.elapsed() < TURN;
            if let Err(error) = self.work_on(next, messages, turn).await {
                // Mostly a heartbeat that is missing because the server was away.
                tracing::debug!(error, "pulling events anew");
                tokio::time::sleep(REPULL).await;
                return None;
            }
            self.reap();
            // The connection's own task reads and writes now: one write has the acknowledgements
            // of the whole turn.
            task::yield_now().await;
        }
    }

    /// Works on an event and on those that have arrived behind it, as long as there are any and
    /// `go_on` says so; parks those that have to wait for something.
    ///
    /// # Errors
    ///
    /// The pull has ended.
    async fn work_on(
        &mut self,
        mut next: Option<Result<Message, pull::MessagesError>>,
        messages: &mut pull::Stream,
        go_on: impl Fn() -> bool,
    ) -> Result<(), String> {
        let mut place = Place::new();
        loop {
            let message = match next {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the pull has ended".to_owned()),
            };
            let reply = message.message.reply.clone();
            let (slot, outbound) = (Arc::clone(&self.slot), Arc::clone(&self.outbound));
            let event = handle(message, slot, outbound);
            match place.first(event).await {
                First::Done => {}
                First::Waits(event) => {
                    let parked = self.parked.spawn(event);
                    self.replies.extend(reply.map(|reply| (parked.id(), reply)));
                }
                // Not acknowledged, so it comes again.
                First::Panicked => tracing::error!("the host failed at an event"),
            }
            if !go_on() {
                return Ok(());
            }
            next = match waiting(messages) {
                Poll::Ready(next) => next,
                Poll::Pending => return Ok(()),
            };
        }
    }

    fn reap(&mut self) {
        while let Some(ended) = self.parked.try_join_next_with_id() {
            self.forget(ended);
        }
    }

    fn forget(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.replies.remove(&id);
    }

    async fn finish(mut self, deadline: Instant) -> usize {
        let finish = async {
            while let Some(ended) = self.parked.join_next_with_id().await {
                self.forget(ended);
            }
        };
        if tokio::time::timeout_at(deadline.into(), finish)
            .await
            .is_ok()
        {
            return 0;
        }
        self.parked.abort_all();
        let mut given_up = 0;
        while let Some(ended) = self.parked.join_next_with_id().await {
            let Err(aborted) = ended else {
                continue;
            };
            given_up += 1;
            if let Some(reply) = self.replies.remove(&aborted.id()) {
                // Without it the event would come again too, only later.
                let _ = self.client.publish(reply, AckKind::Nak(None).into()).await;
            }
        }
        given_up
    }
}

/// How an attempt ended when it did not succeed.
struct Failure {
    /// None when no attempt can succeed.
    outcome: Option<Outcome>,
    code: Option<Code>,
    blame: Blame,
    error: String,
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let CallError {
            code,
            blame,
            message,
        } = error;
        let outcome = match code {
            Code::BadArguments | Code::NotFound | Code::TooLarge | Code::TooManyHops => None,
            Code::Trap | Code::Dependency => Some(Outcome::Trap),
            Code::Deadline => Some(Outcome::Timeout),
            Code::Overloaded | Code::Unavailable => Some(Outcome::Overload),
        };
        Self {
            outcome,
            code: Some(code),
            blame,
            error: message,
        }
    }
}

/// The life of one event at one subscriber, from its arrival to its acknowledgement.
async fn handle(message: Message, slot: Arc<Slot>, outbound: Arc<dyn Outbound>) {
    let occupant = slot.occupant();
    let Some(subscription) = &occupant.subscription else {
        return;
    };
    let mut attempt = pin!(attempt(&message, &occupant, &outbound));
    // Most events are done after their first turn and never need a timer.
    let first = poll_fn(|context| Poll::Ready(attempt.as_mut().poll(context))).await;
    let result = match first {
        Poll::Ready(result) => result,
        Poll::Pending => with_progress(&message, &occupant, attempt).await,
    };
    match result {
        Ok(()) => {
            if let Some(id) = replayed(&message)
                && let Err(error) = subscription.ledger.letters.settle(id).await
            {
                tracing::warn!(id, %error, "a dead letter was handled and is still there");
            }
            acknowledge(&message, AckKind::Ack).await;
        }
        Err(failure) => {
            // What the manifest says now, which may be other than when the attempt began.
            let now = slot.occupant();
            // Boxed, so that events which succeed do not carry its state about.
            Box::pin(settle(&message, &now, failure)).await;
        }
    }
}

/// Waits for an attempt, and tells the server from time to time that it goes on.
async fn with_progress(
    message: &Message,
    occupant: &Occupant,
    mut attempt: Pin<&mut impl Future<Output = Result<(), Failure>>>,
) -> Result<(), Failure> {
    let half = stream::ack_wait(occupant.service.spec.limits.timeout) / 2;
    loop {
        match tokio::time::timeout(half, &mut attempt).await {
            Ok(result) => return result,
            Err(_) => acknowledge(message, AckKind::Progress).await,
        }
    }
}

async fn acknowledge(message: &Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        // The event comes again.
        tracing::debug!(%error, "an acknowledgement could not be sent");
    }
}

async fn attempt(
    message: &Message,
    occupant: &Occupant,
    outbound: &Arc<dyn Outbound>,
) -> Result<(), Failure> {
    let Occupant {
        service,
        exported,
        subscription,
        ..
    } = occupant;
    let _place = match subscription {
        // The semaphore is never closed.
        Some(subscription) => subscription.room.acquire().await.ok(),
        None => None,
    };
    if occupant.raw {
        // Boxed, so that events do not carry its state about.
        return Box::pin(hand_over(message, service, outbound)).await;
    }
    let call = wire::read_event(
        message.headers.as_ref(),
        message.payload.clone(),
        Instant::now(),
    )?;
    let (name, _) = subject::of_stored(&message.subject).unwrap_or_default();
    let function = exported.function(name)?;
    let result = service.call(function, call, outbound).await?;
    match failed_with(function, &result) {
        None => Ok(()),
        Some(error) => Err(Failure {
            outcome: Some(Outcome::Err),
            code: None,
            blame: Blame::Guest,
            error,
        }),
    }
}

/// An attempt at a raw message. Nobody waits for a reply: the stream has acknowledged it.
async fn hand_over(
    message: &Message,
    service: &Service,
    outbound: &Arc<dyn Outbound>,
) -> Result<(), Failure> {
    let headers = message.headers.as_ref();
    let call = wire::read_raw(headers, Instant::now());
    let message = messaging::Message {
        subject: subject::original(&message.subject),
        body: message.payload.to_vec(),
        reply_to: None,
        headers: wire::read_headers(headers),
    };
    let returned = service.deliver(message, call, outbound).await?;
    returned.map_err(|error| Failure {
        outcome: Some(Outcome::Err),
        code: None,
        blame: Blame::Guest,
        error,
    })
}

fn failed_with(function: &Function, result: &Bytes) -> Option<String> {
    let error = returned_error(&function.signature, result)?;
    Some(String::from_utf8_lossy(error).into_owned())
}

/// The letter that a replayed event is. Anybody can send a header; not anybody may publish where
/// letters are replayed.
fn replayed(message: &Message) -> Option<&str> {
    let id = message.headers.as_ref()?.get(wire::LETTER)?;
    subject::is_replay(&message.subject).then_some(id.as_str())
}

/// Decides what becomes of an event that failed: once more after a while, or a dead letter.
async fn settle(message: &Message, occupant: &Occupant, failure: Failure) {
    let Some(subscription) = &occupant.subscription else {
        return;
    };
    let (Ok(info), ledger) = (message.info(), &subscription.ledger) else {
        return;
    };
    let retry = &subscription.delivery.retry;
    let service = &occupant.service.spec.name;
    let id = match replayed(message) {
        Some(id) => id.to_owned(),
        None => letter_id(info.stream, info.stream_sequence, info.published, service),
    };
    let Failure {
        outcome,
        code,
        blame,
        error,
    } = failure;
    let key = format!("{service}.{id}.{}", info.stream_sequence);
    let mut attempts = match ledger.read(&key).await {
        Ok(attempts) => attempts,
        Err(error) => {
            // Without what was before it would be tried for ever, or given up too early.
            tracing::warn!(service, id, %error, "attempts at an event cannot be read");
            return acknowledge(message, AckKind::Nak(Some(UNBURIED))).await;
        }
    };
    attempts.push(Attempt::now(outcome, code.map(Code::status), blame, &error));
    let tried = u32::try_from(attempts.len()).unwrap_or(u32::MAX);
    let again =
        outcome.is_some_and(|outcome| retry.on.contains(&outcome)) && tried < retry.attempts;
    if again {
        if let Err(error) = ledger.write(&key, &attempts).await {
            tracing::warn!(service, id, %error, "an attempt at an event cannot be written down");
        }
        let delay = delay(retry, tried, rand::random_range(-1.0..=1.0));
        tracing::debug!(
            service,
            id,
            tried,
            ?delay,
            "an event failed and comes again: {error}"
        );
        return acknowledge(message, AckKind::Nak(Some(delay))).await;
    }
    let letter = write(message, occupant, id.clone(), attempts);
    let Some(letter) = letter else {
        return;
    };
    match ledger
        .letters
        .bury(letter, replayed(message).is_some())
        .await
    {
        Ok(()) => {
            tracing::warn!(service, id, tried, "an event is a dead letter now: {error}");
            acknowledge(message, AckKind::Term).await;
            ledger.forget(&key).await;
        }
        Err(refused) => {
            tracing::error!(service, id, %refused, "a dead letter cannot be stored, its event is tried on");
            acknowledge(message, AckKind::Nak(Some(UNBURIED))).await;
        }
    }
}

/// The wait after so many failed attempts; `random` is from -1 to 1.
fn delay(retry: &Retry, tried: u32, random: f64) -> Duration {
    let step = usize::try_from(tried)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let steps = &retry.backoff;
    let wait = steps
        .get(step)
        .or(steps.last())
        .copied()
        .unwrap_or_default();
    wait.mul_f64(1.0 + random * f64::from(retry.jitter) / 100.0)
}

fn write(
    message: &Message,
    occupant: &Occupant,
    id: String,
    attempts: Vec<Attempt>,
) -> Option<Letter> {
    let info = message.info().ok()?;
    let function = match occupant.raw {
        true => occupant.exported.functions.values().next()?.id.clone(),
        false => {
            let (name, _) = subject::of_stored(&message.subject)?;
            occupant.exported.id.function(name)
        }
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
    Some(Letter {
        id,
        service: occupant.service.spec.name.clone(),
        digest: occupant.service.component.digest.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_the_ladder_and_its_last_step_repeats() {
        let retry = Retry::default();
        let waits = [1, 2, 3, 4, 900].map(|tried| delay(&retry, tried, 0.0).as_millis());
        assert_eq!(waits, [100, 1_000, 10_000, 10_000, 10_000]);
        assert_eq!(delay(&retry, 2, 1.0).as_millis(), 1_200);
        assert_eq!(delay(&retry, 2, -1.0).as_millis(), 800);
    }

    #[test]
    fn what_cannot_succeed_is_not_tried_again() {
        for code in crate::call::CODES {
            let failure = Failure::from(CallError::new(code, Blame::Guest, "x"));
            let hopeless = matches!(code.status(), 400 | 404 | 413 | 508);
            assert_eq!(failure.outcome.is_none(), hopeless, "{code:?}");
        }
    }
}
