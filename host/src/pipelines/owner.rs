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
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::archive::Ready;
use super::attempt::{Attempt, Made};
use super::journal::{self, HEADROOM, JournalError, Journals, Stored};
use super::run::{Action, Asleep, Phase, Run, Slot};
use super::versions::Versions;
use super::{ACK_WAIT, OPERATOR, PROGRESS, now, stopped};
use crate::call::CallError;
use crate::headers::Headers;
use crate::interfaces::Backend;
use crate::nats::Link;
use crate::plan::Pipeline;
use crate::spans::Tracer;
use crate::{subject, wire};

/// The waits before a journal that could not be written is written again, doubled from the first to the
/// last.
const FIRST_AGAIN: Duration = Duration::from_millis(100);
pub(super) const LAST_AGAIN: Duration = Duration::from_secs(2);

/// Time from which on a run that waits is left by its owner until it is over.
const DOZE: Duration = Duration::from_secs(5);

/// Time between two looks at the journal of a run that waits: somebody may have cancelled it.
const LOOK: Duration = Duration::from_secs(2);

/// What working on runs takes.
pub(super) struct Work {
    pub(super) journals: Journals,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) link: Link,
    /// The pipeline as it is now.
    pub(super) pipeline: watch::Receiver<Arc<Pipeline>>,
    /// What runs it here, if it is a durable function.
    pub(super) versions: watch::Receiver<Versions>,
    /// Versions that ran it once.
    pub(super) ready: Ready,
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
pub(super) enum Left {
    /// Another one owns the run, and this one says nothing any more.
    Lost,
    /// This host stops.
    Stopping,
    /// It waits until it is woken.
    Asleep,
    /// The durable function does not run at this host.
    Elsewhere,
    /// This host cannot run the durable function now.
    Later(CallError),
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
        // Who was just handed a run was heard of.
        let begin = tokio::time::Instant::now() + PROGRESS;
        let mut every = tokio::time::interval_at(begin, PROGRESS);
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
    pub(super) async fn run(self: Arc<Self>, message: Message) {
        let Some((pipeline, run)) = subject::of_open_run(&message.subject) else {
            let subject = &*message.subject;
            tracing::error!(subject, "an open run is none, and is dropped");
            return answer(&message, AckKind::Term).await;
        };
        let again = message.info().is_ok_and(|info| info.delivered > 1);
        let alive = Alive(Mutex::new(Instant::now()));
        let open = message.info().map_or(0, |info| info.stream_sequence);
        let handed = Handed {
            again,
            open,
            why: &message.payload,
        };
        let working = async {
            match self.take(pipeline, run, handed, &alive).await? {
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
            Err(Left::Asleep) => answer(&message, AckKind::Ack).await,
            Err(Left::Stopping) => answer(&message, AckKind::Nak(None)).await,
            Err(Left::Elsewhere) => answer(&message, AckKind::Nak(Some(LAST_AGAIN))).await,
            Err(Left::Later(error)) => {
                tracing::debug!(run, pipeline, %error, "a run cannot go on now");
                answer(&message, AckKind::Nak(Some(LAST_AGAIN))).await;
            }
            Err(Left::Failed(error)) => {
                tracing::warn!(run, pipeline, %error, "a run cannot go on now");
                answer(&message, AckKind::Nak(Some(LAST_AGAIN))).await;
            }
        }
    }

    /// Makes this host the owner of a run, if there is one.
    async fn take<'w>(
        self: &'w Arc<Self>,
        pipeline: &str,
        id: &str,
        handed: Handed<'_>,
        alive: &'w Alive,
    ) -> Result<Option<Owner<'w>>, Left> {
        let Some(Stored { run, sequence }) = self.journals.read(Some(pipeline), id).await? else {
            return Ok(None);
        };
        let name = format!("{:016x}", rand::random::<u64>());
        let mut owner = Owner {
            work: self,
            name,
            open: handed.open,
            run,
            sequence,
            alive,
            unwritten: false,
        };
        if owner.run.has_ended() {
            return Ok(Some(owner));
        }
        let awaits = self.journals.awaits(&owner.run);
        let slept = owner.run.asleep.take().is_some();
        let heard = match slept {
            true => self.journals.hear(&mut owner.run, handed.why).await?,
            false => None,
        };
        // A host that stops leaves a run without an owner, after it has finished what it did.
        let is_left = owner.run.owner.is_empty() && (owner.run.writes > 0 || !handed.again);
        if is_left || slept {
            owner.run.owner.clone_from(&owner.name);
        } else {
            tracing::info!(run = id, pipeline, "takes over a run");
            owner.run.take_over(&owner.name);
        }
        // Who has it taken writes first: the one before may have been woken by the same message.
        if handed.again || slept || !is_left {
            owner.write(heard.as_slice()).await?;
        }
        if slept && let Err(error) = self.journals.awake(&owner.run, &awaits).await {
            // It wakes nothing any more.
            tracing::debug!(run = id, pipeline, %error, "what would have woken a run");
        }
        Ok(Some(owner))
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

async fn answer(message: &Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        // It is handed out again.
        tracing::debug!(%error, "an open run");
    }
}

/// How an open run was handed to a host.
struct Handed<'a> {
    /// It was before.
    again: bool,
    /// The sequence of the message.
    open: u64,
    /// What woke it.
    why: &'a [u8],
}

/// A run and its owner.
pub(super) struct Owner<'w> {
    pub(super) work: &'w Arc<Work>,
    /// The name of this owner.
    name: String,
    /// The sequence of the message by which the run is open.
    open: u64,
    pub(super) run: Run,
    /// The sequence of the journal's last state.
    sequence: u64,
    alive: &'w Alive,
    /// A phase began or ended that is not written.
    pub(super) unwritten: bool,
}

impl Owner<'_> {
    async fn work(&mut self) -> Result<Ended, Left> {
        // What is under way is dropped with these, if the run is lost.
        let mut calls = JoinSet::new();
        loop {
            let (before, stops) = (self.run.phase, self.work.is_stopping());
            let action = match stops {
                true => self.run.settle(now()),
                false => self.run.next(now()),
            };
            self.unwritten |= before != self.run.phase;
            match action {
                Action::Ended => {
                    if self.unwritten {
                        self.write(&[]).await?;
                    }
                    return Ok(self.end().await);
                }
                _ if stops && calls.is_empty() => {
                    return Err(self.leave(Left::Stopping).await);
                }
                Action::Execute if !stops => Box::pin(self.execute()).await?,
                Action::Call(slot, arguments) if !stops => {
                    self.check().await?;
                    self.begin(&mut calls, slot, false, arguments);
                }
                Action::Undo(slot, arguments) if !stops => {
                    self.check().await?;
                    self.begin(&mut calls, slot, true, arguments);
                }
                Action::Wait(until) if !stops && self.is_long(until) => self.doze(until).await?,
                Action::Wait(until) if !stops => self.wait(until).await?,
                Action::Busy(until) if !stops => self.collect(&mut calls, until).await?,
                _ => self.collect(&mut calls, None).await?,
            }
        }
    }

    /// Whether nobody need work on the run until then.
    fn is_long(&self, until: u64) -> bool {
        let wait = Duration::from_millis(until.saturating_sub(now()));
        wait >= DOZE || !self.run.awaited().is_empty()
    }

    /// Leaves the run until it is woken, at this time or by an event; or not, if somebody cancels it now.
    async fn doze(&mut self, until: u64) -> Result<(), Left> {
        self.run.owner.clear();
        self.run.asleep = Some(Asleep::new(self.open));
        self.write(&[]).await?;
        if !self.run.cancelled {
            self.work.journals.doze(&self.run, self.open, until).await?;
            return Err(Left::Asleep);
        }
        self.run.asleep = None;
        self.run.owner.clone_from(&self.name);
        self.write(&[]).await
    }

    /// Waits until this time, or for some of it.
    async fn wait(&mut self, until: u64) -> Result<(), Left> {
        let wait = Duration::from_millis(until.saturating_sub(now()));
        let mut stopping = self.work.stopping.clone();
        let _ = timeout(wait.min(LOOK), stopped(&mut stopping)).await;
        if wait > LOOK {
            self.look().await?;
        }
        Ok(())
    }

    /// Leaves the run to any other host, for this reason.
    pub(super) async fn leave(&mut self, why: Left) -> Left {
        self.run.owner.clear();
        self.write(&[]).await.err().unwrap_or(why)
    }

    /// Begins a call.
    fn begin(&self, calls: &mut JoinSet<Made>, slot: Slot, undo: bool, arguments: Bytes) {
        let run = &self.run;
        let step = run.pipeline.steps.get(slot.step);
        let call = match undo {
            true => step.and_then(|step| step.undo.as_ref()),
            false => step.and_then(|step| step.call()),
        };
        let Some(call) = call else { return };
        let began = now();
        let deadline = run.began.saturating_add(run.pipeline.deadline);
        let left = match undo {
            true => u64::MAX,
            false => deadline.saturating_sub(began),
        };
        let attempt = Attempt {
            slot,
            undo,
            began,
            id: run.step_id(slot, undo),
            pipeline: run.pipeline.name.clone(),
            hops: run.hops.saturating_add(1),
            trace: run.trace.clone(),
            claims: run.claims.clone().map(Into::into),
            millis: call.timeout.min(left),
            subject: subject::of_function(&self.work.journals.app, &call.function),
            call: call.clone(),
        };
        let work = Arc::clone(self.work);
        calls.spawn(async move { attempt.make(&work, arguments).await });
    }

    /// Waits for the end of a call, at most until this time, and writes what came of all that have ended.
    async fn collect(&mut self, calls: &mut JoinSet<Made>, until: Option<u64>) -> Result<(), Left> {
        let until = until.map(|until| Duration::from_millis(until.saturating_sub(now())));
        let first = timeout(until.unwrap_or(Duration::MAX), calls.join_next()).await;
        let Ok(Some(first)) = first else {
            return Ok(());
        };
        let mut recorded = Vec::new();
        let mut made = Some(first);
        while let Some(ended) = made {
            let Made {
                slot,
                undo,
                began,
                outcome,
            } = ended.map_err(|error| {
                // What it did is as unknown as if this host had died.
                Left::Failed(JournalError::Unreachable(error.to_string()))
            })?;
            match undo {
                true => self.run.record_undo(slot, began, now(), outcome),
                false => self.run.record_call(slot, began, now(), outcome),
            }
            recorded.push(slot);
            made = calls.try_join_next();
        }
        self.run.settle(now());
        self.write(&recorded).await
    }

    /// Makes sure before a call that this is still the owner, if it was silent for so long that it may not
    /// be: a host that was paused.
    pub(super) async fn check(&mut self) -> Result<(), Left> {
        if self.alive.silence() < ACK_WAIT.saturating_sub(PROGRESS) {
            return Ok(());
        }
        self.look().await?;
        self.alive.note();
        Ok(())
    }

    /// Looks whether somebody else wrote the journal.
    pub(super) async fn look(&mut self) -> Result<(), Left> {
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
        if ![&*self.run.owner, &*self.name, OPERATOR].contains(&&*run.owner) {
            return Err(Left::Lost);
        }
        self.run.cancelled |= run.cancelled;
        self.sequence = sequence;
        Ok(())
    }

    /// Writes the journal, trying until it is written. `recorded` are the calls whose results are new.
    pub(super) async fn write(&mut self, recorded: &[Slot]) -> Result<(), Left> {
        self.run.writes += 1;
        let mut text = journal::text(&self.run)?;
        let carried = self.work.link.max_payload().saturating_sub(HEADROOM);
        if !recorded.is_empty() && text.len() > self.run.pipeline.journal.min(carried) {
            for slot in recorded {
                self.run.overflow(*slot);
            }
            self.run.settle(now());
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
                        self.run.settle(now());
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
        let run = &*run.masked();
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
            Phase::Stopped => {
                let why = run.why();
                tracing::error!(
                    run = id,
                    pipeline,
                    why,
                    "a durable function took another way than before, and is stopped; `wasmbay runs retry` runs it again, `wasmbay runs cancel` undoes it"
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
