//! Runs that nobody works on while they sleep or wait for an event, and what wakes them.
//!
//! A run that goes to sleep has written its journal, and keeps the message by which it is open, acknowledged:
//! it is listed, and has no place among those that are worked on. What wakes it replaces this message by
//! another one, on the condition that it is still there, so of all that would wake a run one does. A timer is a
//! message that is handed out and refused with a delay, so the waiting is the server's.
//!
//! Who waits for an event is found by the pipeline and a digest of event and key. What came before that is
//! looked for in the stream of the event, from the beginning of the run on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::jetstream::{AckKind, Context, Message};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::journal::{JournalError, Journals};
use super::now;
use super::run::{Run, Slot};
use super::stream;
use crate::plan::{Pipeline, Step, WaitFor};
use crate::subject;
use crate::text::hex;

/// The waits before timers or events are asked for again, doubled from the first to the last.
const FIRST_AGAIN: Duration = Duration::from_millis(100);
const LAST_AGAIN: Duration = Duration::from_secs(2);

/// Events that are read at a time.
const BATCH: usize = 256;

/// Upper bound of the time for a batch of them.
const BATCH_TIME: Duration = Duration::from_secs(5);

/// When to wake a run, and which message keeps it open.
#[derive(Serialize, Deserialize)]
struct Timer {
    open: u64,
    until: u64,
}

/// The step that waits.
#[derive(Serialize, Deserialize)]
struct Waits {
    open: u64,
}

/// What woke a run.
#[derive(Serialize, Deserialize)]
struct Woken {
    stream: String,
    sequence: u64,
}

/// A message as its journal's room has it: what is written here is always text.
fn text(value: &impl Serialize) -> Result<Bytes, JournalError> {
    let text = serde_json::to_vec(value);
    text.map(Bytes::from)
        .map_err(|error| JournalError::Unreadable(error.to_string()))
}

fn unreachable(error: impl std::fmt::Display) -> JournalError {
    JournalError::Unreachable(error.to_string())
}

/// What stands for an event and its key in a subject.
fn digest(wait: &WaitFor, key: &str) -> String {
    let path = serde_json::to_string(&wait.key).unwrap_or_default();
    let digest = Sha256::digest(format!("{}\n{path}\n{key}", wait.subject));
    hex(digest.get(..16).unwrap_or_default())
}

/// The subjects of the steps of a run that wait for an event.
fn awaits(app: &str, run: &Run) -> Vec<String> {
    let awaited = run.waited_for().into_iter().map(|awaited| {
        let key = digest(awaited.wait, awaited.key.get());
        let step = awaited.slot.step.to_string();
        subject::awaited(app, &run.pipeline.name, &key, &run.id, &step)
    });
    awaited.collect()
}

impl Journals {
    /// Sees to it that a run is woken at this time, or by an event that it waits for. It is stored already, and
    /// nobody works on it any more.
    pub(super) async fn doze(&self, run: &Run, open: u64, until: u64) -> Result<(), JournalError> {
        let subject = subject::timer(&self.app, &run.pipeline.name, &run.id);
        self.put(subject, text(&Timer { open, until })?).await?;
        for subject in awaits(&self.app, run) {
            self.put(subject, text(&Waits { open })?).await?;
        }
        // After this no event is missed, and what came before it is in the stream.
        if let Some(woken) = self.find(run).await? {
            let why = text(&woken)?;
            self.wake(&run.pipeline.name, &run.id, open, why).await?;
        }
        Ok(())
    }

    /// The first event since the run began that it waits for.
    async fn find(&self, run: &Run) -> Result<Option<Woken>, JournalError> {
        let since = UNIX_EPOCH + Duration::from_millis(run.began);
        let mut subjects: Vec<(&str, &str)> = Vec::new();
        for awaited in run.awaited() {
            let of = (&*awaited.wait.stream, &*awaited.wait.subject);
            if !subjects.contains(&of) {
                subjects.push(of);
            }
        }
        for (stream, subject) in subjects {
            if let Some(sequence) = look(&self.context, run, (stream, subject), since).await? {
                let stream = stream.to_owned();
                return Ok(Some(Woken { stream, sequence }));
            }
        }
        Ok(None)
    }

    /// Gives a run the event that woke it, or one that had come in time when its timer did. Returns the step that
    /// waited for it.
    pub(super) async fn hear(
        &self,
        run: &mut Run,
        why: &[u8],
    ) -> Result<Option<Slot>, JournalError> {
        let woken = match serde_json::from_slice(why) {
            Ok(woken) => Some(woken),
            // All hosts may have been away, or been long about its consumer.
            Err(_) if !run.awaited().is_empty() => self.find(run).await?,
            Err(_) => None,
        };
        let Some(Woken { stream, sequence }) = woken else {
            return Ok(None);
        };
        let awaited = run.awaited();
        if !awaited.iter().any(|awaited| awaited.wait.stream == stream) {
            return Ok(None);
        }
        let found = self.context.get_stream_no_info(&stream).await;
        let found = found.map_err(unreachable)?;
        match found.get_raw_message(sequence).await {
            Ok(event) => {
                let body = &event.payload;
                Ok(run.take_event(&stream, sequence, &event.subject, body, now()))
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unreachable(error)),
        }
    }

    /// Deletes what would wake a run that is awake. What is left of it wakes nothing.
    pub(super) async fn awake(&self, run: &Run, awaits: &[String]) -> Result<(), JournalError> {
        let timer = subject::timer(&self.app, &run.pipeline.name, &run.id);
        for subject in std::iter::once(&timer).chain(awaits) {
            self.clear(subject).await?;
        }
        Ok(())
    }

    /// The subjects of what would wake a run, as it is before it is told what did.
    pub(super) fn awaits(&self, run: &Run) -> Vec<String> {
        awaits(&self.app, run)
    }

    /// Wakes runs whose time has come, for as long as it is polled.
    pub(super) async fn wake_in_time(&self) -> Infallible {
        let ask = || stream::timers(&self.context, &self.app);
        each(ask, "timers of runs", |message| self.timer(message)).await
    }

    async fn timer(&self, message: Message) -> Result<AckKind, JournalError> {
        let (Some((pipeline, id)), Ok(Timer { open, until })) = (
            subject::of_open_run(&message.subject),
            serde_json::from_slice(&message.payload),
        ) else {
            return Ok(AckKind::Term);
        };
        let left = until.saturating_sub(now());
        if left > 0 {
            return Ok(AckKind::Nak(Some(Duration::from_millis(left))));
        }
        if !self.wake(pipeline, id, open, Bytes::new()).await? {
            self.wake_later(pipeline, id, open).await?;
        }
        self.done(&message).await
    }

    /// Wakes a run that fell asleep again after the timer of its sleep before: one that was stored late, after a
    /// reconnect, has taken the place of the present one. Too early does no harm: it goes to sleep again.
    async fn wake_later(&self, pipeline: &str, id: &str, before: u64) -> Result<(), JournalError> {
        let stored = self.read(Some(pipeline), id).await?;
        let asleep = stored.and_then(|stored| stored.run.asleep);
        if let Some(asleep) = asleep.filter(|asleep| asleep.open != before) {
            self.wake(pipeline, id, asleep.open, Bytes::new()).await?;
        }
        Ok(())
    }

    /// Deletes a message that woke a run, or that has none to wake.
    async fn done(&self, message: &Message) -> Result<AckKind, JournalError> {
        let info = message.info().map_err(unreachable)?;
        self.delete(info.stream_sequence).await?;
        Ok(AckKind::Ack)
    }

    /// Wakes runs of a pipeline that wait for events, for as long as it is polled.
    pub(super) async fn wake_by_events(&self, mut pipelines: watch::Receiver<Arc<Pipeline>>) {
        loop {
            let pipeline = Arc::clone(&pipelines.borrow_and_update());
            let listening = stream::streams(&pipeline).into_iter().map(|stream| {
                let pipeline = Arc::clone(&pipeline);
                async move {
                    let ask = || stream::events_of(&self.context, &stream, &pipeline.name);
                    let event = |message| self.event(&pipeline, message);
                    each(ask, "events that runs wait for", event).await
                }
            });
            let listening = async {
                join_all(listening).await;
                // Nothing waits.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = listening => {}
                changed = pipelines.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Wakes the runs that wait for an event.
    async fn event(&self, pipeline: &Pipeline, message: Message) -> Result<AckKind, JournalError> {
        let info = message.info().map_err(unreachable)?;
        let woken = text(&Woken {
            stream: info.stream.to_owned(),
            sequence: info.stream_sequence,
        })?;
        let waits = pipeline.steps.iter().filter_map(Step::wait);
        let mut seen = Vec::new();
        for wait in waits.filter(|wait| wait.is_of(&message.subject)) {
            let arguments = wait.read(&message.payload);
            let key = arguments.as_deref().and_then(|event| wait.key_of(event));
            let Some(key) = key.map(|key| digest(wait, key)) else {
                tracing::warn!(
                    subject = &*message.subject,
                    "an event has another type than runs wait for, and wakes none"
                );
                continue;
            };
            if !seen.contains(&key) {
                self.wake_all(&pipeline.name, &key, &woken).await?;
                seen.push(key);
            }
        }
        Ok(AckKind::Ack)
    }

    /// Wakes the runs that wait for an event with this digest.
    async fn wake_all(&self, pipeline: &str, key: &str, why: &Bytes) -> Result<(), JournalError> {
        let wanted = subject::awaited(&self.app, pipeline, key, "*", "*");
        let mut from = 1;
        while let Some(waits) = self.first(&wanted, from).await? {
            if let (Some((pipeline, id)), Ok(Waits { open })) = (
                subject::of_awaited(&waits.subject),
                serde_json::from_slice(&waits.payload),
            ) {
                self.wake(pipeline, id, open, why.clone()).await?;
            }
            self.delete(waits.sequence).await?;
            from = waits.sequence + 1;
        }
        Ok(())
    }
}

/// The sequence of the first event of a subject since this time that a run waits for.
async fn look(
    context: &Context,
    run: &Run,
    (stream, subject): (&str, &str),
    since: SystemTime,
) -> Result<Option<u64>, JournalError> {
    let consumer = stream::since(context, stream, subject, since).await;
    let consumer = consumer.map_err(unreachable)?;
    let found = look_at(&consumer, run, stream).await;
    // The server forgets it by itself, but a stream has room for some thousands only.
    let name = &consumer.cached_info().name;
    let deleted = context.delete_consumer_from_stream(name, stream).await;
    if let Err(error) = deleted {
        tracing::debug!(%error, "a consumer was not deleted");
    }
    found
}

async fn look_at(
    consumer: &PullConsumer,
    run: &Run,
    stream: &str,
) -> Result<Option<u64>, JournalError> {
    let mut left = consumer.cached_info().num_pending;
    while left > 0 {
        let batch = consumer.fetch().max_messages(BATCH).messages();
        let batch = tokio::time::timeout(BATCH_TIME, batch).await;
        let mut batch = batch.map_err(unreachable)?.map_err(unreachable)?;
        // The rest is not kept any more, if none comes.
        left = 0;
        while let Some(message) = batch.next().await {
            let message = message.map_err(unreachable)?;
            let info = message.info().map_err(unreachable)?;
            let (sequence, body) = (info.stream_sequence, &message.payload);
            let wants = run.wants_event(stream, sequence, &message.subject, body);
            if wants.is_some() {
                return Ok(Some(sequence));
            }
            left = info.pending;
        }
    }
    Ok(None)
}

/// Handles one message after the other, for as long as it is polled. What fails is handed out again.
async fn each<A, F>(ask: impl Fn() -> A, what: &str, handle: impl Fn(Message) -> F) -> Infallible
where
    A: Future<Output = Result<async_nats::jetstream::consumer::pull::Stream, async_nats::Error>>,
    F: Future<Output = Result<AckKind, JournalError>>,
{
    let mut again = FIRST_AGAIN;
    loop {
        match ask().await {
            Ok(mut messages) => {
                while let Some(message) = messages.next().await {
                    let message = match message {
                        Ok(message) => message,
                        Err(error) => {
                            tracing::debug!(%error, "{what}");
                            break;
                        }
                    };
                    again = FIRST_AGAIN;
                    let kind = handle(message.clone()).await.unwrap_or_else(|error| {
                        tracing::debug!(%error, "{what}, trying again");
                        AckKind::Nak(Some(LAST_AGAIN))
                    });
                    if let Err(error) = message.ack_with(kind).await {
                        tracing::debug!(%error, "{what}");
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "{what} cannot be asked for, trying again"),
        }
        tokio::time::sleep(again).await;
        again = (again * 2).min(LAST_AGAIN);
    }
}
