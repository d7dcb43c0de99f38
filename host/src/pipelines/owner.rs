//! The owner of a run: it calls what comes next, and stores what came of it before it goes on.
//!
//! Nothing holds a lock. An owner is who was handed the open run, until it was silent for longer than
//! [`ACK_WAIT`]; it tells the server every second that it lives. One that was paused for longer finds that
//! another wrote its journal, at its next write at the latest, and stops.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::{AckKind, Message};
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::journal::{self, HEADROOM, JournalError, Journals, Stored};
use super::run::{Action, Outcome, Phase, Run};
use super::{ACK_WAIT, OPERATOR, PROGRESS, now, stopped};
use crate::call::{Call, CallError, Identity, Kind, Trace};
use crate::headers::Headers;
use crate::interfaces::Backend;
use crate::json::{self, Limits, UnknownKeys};
use crate::nats::Link;
use crate::plan::StepCall;
use crate::spans::{Description, KeyValue, SpanKind, Tracer};
use crate::{subject, wire};

/// The waits before a journal that could not be written is written again, doubled from the first to the
/// last.
const FIRST_AGAIN: Duration = Duration::from_millis(100);
const LAST_AGAIN: Duration = Duration::from_secs(2);

/// Time between two looks at the journal of a run that waits: somebody may have cancelled it.
const LOOK: Duration = Duration::from_secs(2);

/// What working on runs takes.
pub(super) struct Work {
    pub(super) journals: Journals,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) link: Link,
    /// Records a span for each attempt of a step.
    pub(super) tracer: Tracer,
    /// The pipeline is not served here any more: the step under way is finished, and the rest is left to
    /// other hosts.
    pub(super) stopping: watch::Receiver<bool>,
}

/// How a run has ended.
enum Ended {
    /// Nothing is left to do.
    Well,
    /// It stays open for a person.
    ForNow,
}

/// Why an owner does not go on with its run.
enum Left {
    /// Another one owns the run, and this one says nothing any more.
    Lost,
    /// This host stops.
    Stopping,
    /// The journal cannot be read.
    Failed(JournalError),
}

impl From<JournalError> for Left {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Changed => Self::Lost,
            error => Self::Failed(error),
        }
    }
}

/// When the server last heard of an owner.
struct Alive(Mutex<Instant>);

impl Alive {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn silence(&self) -> Duration {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed()
    }

    /// Tells the server that the owner lives, for as long as it is polled.
    async fn keep(&self, message: &Message) -> Infallible {
        let mut every = tokio::time::interval(PROGRESS);
        loop {
            every.tick().await;
            if message.ack_with(AckKind::Progress).await.is_ok() {
                self.note();
            }
        }
    }
}

impl Work {
    /// Works on an open run that was handed to this host, until it has ended or is left.
    pub(super) async fn run(&self, message: Message) {
        let Some((pipeline, run)) = subject::of_open_run(&message.subject) else {
            let subject = &*message.subject;
            tracing::error!(subject, "an open run is none, and is dropped");
            return answer(&message, AckKind::Term).await;
        };
        let again = message.info().is_ok_and(|info| info.delivered > 1);
        let alive = Alive(Mutex::new(Instant::now()));
        let working = async {
            match self.take(pipeline, run, again, &alive).await? {
                Some(mut owner) => owner.work().await,
                // Its beginning was refused.
                None => Ok(Ended::Well),
            }
        };
        let worked = tokio::select! {
            worked = working => worked,
            never = alive.keep(&message) => match never {},
        };
        match worked {
            Ok(ended) => {
                if let (Ended::Well, Ok(info)) = (ended, message.info())
                    && let Err(error) = self.journals.delete(info.stream_sequence).await
                {
                    // It is handed out again.
                    tracing::debug!(run, pipeline, %error, "an open run that has ended");
                    return answer(&message, AckKind::Nak(Some(LAST_AGAIN))).await;
                }
                answer(&message, AckKind::Ack).await;
            }
            Err(Left::Lost) => tracing::info!(run, pipeline, "another owner goes on with a run"),
            Err(Left::Stopping) => answer(&message, AckKind::Nak(None)).await,
            Err(Left::Failed(error)) => {
                tracing::warn!(run, pipeline, %error, "a run cannot go on now");
                answer(&message, AckKind::Nak(Some(LAST_AGAIN))).await;
            }
        }
    }

    /// Makes this host the owner of a run, if there is one. `again` says that it was handed out before.
    async fn take<'w>(
        &'w self,
        pipeline: &str,
        id: &str,
        again: bool,
        alive: &'w Alive,
    ) -> Result<Option<Owner<'w>>, Left> {
        let Some(Stored { run, sequence }) = self.journals.read(Some(pipeline), id).await? else {
            return Ok(None);
        };
        let name = format!("{:016x}", rand::random::<u64>());
        let mut owner = Owner {
            work: self,
            run,
            sequence,
            alive,
            unwritten: false,
        };
        if owner.run.has_ended() {
            return Ok(Some(owner));
        }
        // A host that stops leaves a run without an owner, after it has finished what it did.
        let is_left = owner.run.owner.is_empty() && (owner.run.writes > 0 || !again);
        if is_left {
            owner.run.owner = name;
        } else {
            tracing::info!(run = id, pipeline, "takes over a run");
            owner.run.take_over(&name);
        }
        if again {
            owner.write(None).await?;
        }
        Ok(Some(owner))
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

async fn answer(message: &Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        // It is handed out again.
        tracing::debug!(%error, "an open run");
    }
}

/// A run and its owner.
struct Owner<'w> {
    work: &'w Work,
    run: Run,
    /// The sequence of the journal's last state.
    sequence: u64,
    alive: &'w Alive,
    /// A phase began or ended that is not written.
    unwritten: bool,
}

impl Owner<'_> {
    async fn work(&mut self) -> Result<Ended, Left> {
        loop {
            let before = self.run.phase;
            let action = self.run.next(now());
            self.unwritten |= before != self.run.phase;
            if matches!(action, Action::Ended) {
                if self.unwritten {
                    self.write(None).await?;
                }
                return Ok(self.end().await);
            }
            if self.work.is_stopping() {
                self.run.owner.clear();
                self.write(None).await?;
                return Err(Left::Stopping);
            }
            match action {
                Action::Ended => {}
                Action::Wait(until) => {
                    let wait = Duration::from_millis(until.saturating_sub(now()));
                    let mut stopping = self.work.stopping.clone();
                    let _ = timeout(wait.min(LOOK), stopped(&mut stopping)).await;
                    if wait > LOOK {
                        self.look().await?;
                    }
                }
                Action::Call(index, arguments) => {
                    self.check().await?;
                    let Some(call) = self
                        .run
                        .pipeline
                        .steps
                        .get(index)
                        .map(|step| step.call.clone())
                    else {
                        continue;
                    };
                    let began = now();
                    let deadline = self.run.began.saturating_add(self.run.pipeline.deadline);
                    let time = call.timeout.min(deadline.saturating_sub(began));
                    let id = self.run.step_id(index, false);
                    let outcome = self.call(&call, id, arguments, time).await;
                    self.run.record_call(index, began, now(), outcome);
                    self.run.next(now());
                    self.write(Some(index)).await?;
                }
                Action::Undo(index, arguments) => {
                    self.check().await?;
                    let undo = self.run.pipeline.steps.get(index);
                    let Some(undo) = undo.and_then(|step| step.undo.clone()) else {
                        continue;
                    };
                    let began = now();
                    let id = self.run.step_id(index, true);
                    let outcome = self.call(&undo, id, arguments, undo.timeout).await;
                    self.run.record_undo(index, began, now(), outcome);
                    self.run.next(now());
                    self.write(Some(index)).await?;
                }
            }
        }
    }

    async fn call(&self, call: &StepCall, id: String, body: Bytes, millis: u64) -> Outcome {
        let arrived = Instant::now();
        let mut trace = Trace {
            parent: self.run.trace.clone(),
            ..Trace::default()
        };
        let span = self.work.tracer.begin(&mut trace, arrived);
        if trace.parent.is_none() {
            trace = Trace::begin(false);
        }
        let describe = || Description {
            kind: SpanKind::Client,
            name: format!("step {}", call.function).into(),
            attributes: vec![
                KeyValue::new("rpc.system.name", "wasmbay"),
                KeyValue::new("rpc.method", call.function.to_string()),
                KeyValue::new("wasmbay.step", id.clone()),
            ],
        };
        let made = Call {
            body,
            arrived,
            deadline: arrived + Duration::from_millis(millis),
            hops: self.run.hops.saturating_add(1),
            caller: Some(self.run.pipeline.name.clone()),
            trace,
            identity: Some(Identity::Step(id.as_str().into())),
            kind: Kind::Request,
        };
        let subject = subject::of_function(&self.work.journals.app, &call.function);
        let reply = self.work.backend.call(&subject, made).await;
        span.end(reply.as_ref().err(), describe);
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return Outcome::Failed(error),
        };
        // As this host writes it, so that paths find what the types say.
        let limits = Limits {
            bytes: self.work.link.max_payload(),
            unknown_keys: UnknownKeys::Ignore,
            ..Limits::default()
        };
        let read = json::decode_result(&reply, &call.signature, &limits);
        let text =
            read.and_then(|value| json::encode_result(value.as_ref(), &call.signature, &limits));
        match text {
            Ok(text) => Outcome::read(&call.signature, &text).unwrap_or_else(|| {
                let why = "the reply cannot be kept";
                Outcome::Failed(CallError::bad_reply(why))
            }),
            Err(error) => {
                let why = format!("the reply of {}: {error}", call.function);
                Outcome::Failed(CallError::bad_reply(why))
            }
        }
    }

    /// Makes sure before a call that this is still the owner, if it was silent for so long that it may not
    /// be: a host that was paused.
    async fn check(&mut self) -> Result<(), Left> {
        if self.alive.silence() < ACK_WAIT.saturating_sub(PROGRESS) {
            return Ok(());
        }
        self.look().await?;
        self.alive.note();
        Ok(())
    }

    /// Looks whether somebody else wrote the journal.
    async fn look(&mut self) -> Result<(), Left> {
        let run = &self.run;
        let stored = self
            .work
            .journals
            .read(Some(&run.pipeline.name), &run.id)
            .await?;
        match stored {
            Some(stored) if stored.sequence != self.sequence => self.merge(stored),
            Some(_) => Ok(()),
            None => Err(Left::Lost),
        }
    }

    /// Takes up what an operator wrote.
    fn merge(&mut self, stored: Stored) -> Result<(), Left> {
        let Stored { run, sequence } = stored;
        if run.owner != self.run.owner && run.owner != OPERATOR {
            return Err(Left::Lost);
        }
        self.run.cancelled |= run.cancelled;
        self.sequence = sequence;
        Ok(())
    }

    /// Writes the journal, trying until it is written. `recorded` is the step whose result is new.
    async fn write(&mut self, recorded: Option<usize>) -> Result<(), Left> {
        self.run.writes += 1;
        let mut text = journal::text(&self.run)?;
        let carried = self.work.link.max_payload().saturating_sub(HEADROOM);
        if let Some(index) = recorded
            && text.len() > self.run.pipeline.journal.min(carried)
        {
            self.run.overflow(index);
            self.run.next(now());
            text = journal::text(&self.run)?;
        }
        let mut again = FIRST_AGAIN;
        loop {
            let written = self
                .work
                .journals
                .write(&self.run, text.clone(), self.sequence);
            let error = match written.await {
                Ok(sequence) => {
                    self.sequence = sequence;
                    self.unwritten = false;
                    return Ok(());
                }
                Err(JournalError::Changed) => match self.changed().await {
                    Ok(true) => return Ok(()),
                    Ok(false) => {
                        self.run.next(now());
                        text = journal::text(&self.run)?;
                        continue;
                    }
                    Err(Left::Failed(error @ JournalError::Unreachable(_))) => error,
                    Err(left) => return Err(left),
                },
                Err(error) => error,
            };
            if self.work.is_stopping() || matches!(error, JournalError::Unreadable(_)) {
                return Err(Left::Failed(error));
            }
            tracing::warn!(run = self.run.id, %error, "a journal is not written, trying again");
            sleep(again).await;
            again = (again * 2).min(LAST_AGAIN);
        }
    }

    /// Whether the journal has what was to be written already: its acknowledgement was lost.
    async fn changed(&mut self) -> Result<bool, Left> {
        let run = &self.run;
        let stored = self
            .work
            .journals
            .read(Some(&run.pipeline.name), &run.id)
            .await?;
        let stored = stored.ok_or(Left::Lost)?;
        let is_ours = stored.run.owner == run.owner && stored.run.writes == run.writes;
        self.merge(stored)?;
        if is_ours {
            self.unwritten = false;
        }
        Ok(is_ours)
    }

    /// Tells those who wait that the run has ended.
    async fn end(&self) -> Ended {
        let run = &self.run;
        let reply = run.reply();
        let (headers, body) = match &reply {
            Ok(body) => (Headers::new(), body.clone()),
            Err(error) => wire::write_error(error),
        };
        let carried = self.work.link.max_payload().saturating_sub(HEADROOM);
        if body.len() <= carried {
            let subject = subject::ended_run(&self.work.journals.app, &run.id);
            // Who waits looks at the journal from time to time.
            if let Err(error) = self
                .work
                .link
                .publish(&subject, None, &headers, &body)
                .await
            {
                tracing::debug!(%error, "the end of a run");
            }
        }
        let (id, pipeline) = (&run.id, &run.pipeline.name);
        match run.phase {
            Phase::UndoFailed => {
                let (why, undo) = (run.why(), run.why_not_undone());
                tracing::error!(
                    run = id,
                    pipeline,
                    why,
                    undo,
                    "a run has failed and is not undone; `wasmbay runs retry` tries again"
                );
                return Ended::ForNow;
            }
            Phase::RolledBack => {
                tracing::warn!(
                    run = id,
                    pipeline,
                    why = run.why(),
                    "a run has failed and is undone"
                );
            }
            _ => tracing::debug!(run = id, pipeline, "a run is completed"),
        }
        Ended::Well
    }
}
