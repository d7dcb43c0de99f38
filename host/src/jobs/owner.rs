//! The owner of a run: it runs the component, and stores what came of it before it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{AckKind, Message};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};

use super::clock::Wanted;
use super::run::{Next, Outcome, Run, Tried};
use super::serve::Counts;
use super::store::{Failed, Store, Stored};
use super::{ACK_WAIT, FIRST_AGAIN, LAST_AGAIN, PROGRESS, clock, now, stream};
use crate::call::{CallError, Code};
use crate::interfaces::{Backend, Tail};
use crate::manifest::{JobSpec, Replicas, When};
use crate::runtime::{Exit, Service};

/// Words of an owner between two looks at whether what it does is still wanted.
const LOOK: u32 = 5;

/// Upper bound of how much before a run's end what it calls has to have ended, and some for a slow machine.
const CALL_MARGIN: Duration = Duration::from_millis(30);

/// What running a job at this host takes.
pub(super) struct Work {
    pub(super) store: Store,
    pub(super) host: String,
    pub(super) job: String,
    pub(super) backend: Arc<dyn Backend>,
    /// The job as it is now.
    pub(super) service: watch::Receiver<Arc<Service>>,
    /// All jobs of the app, with how often each is to run at the same time.
    pub(super) wanted: watch::Receiver<Arc<Wanted>>,
    /// Until when what runs may end, once the job is not served here any more.
    pub(super) stopping: watch::Receiver<Option<Instant>>,
    pub(super) counts: Arc<Counts>,
}

/// Why an owner does not go on with its run.
enum Left {
    /// Another one owns the run.
    Lost,
    /// Nobody wants it any more.
    Unwanted,
    /// This host stops.
    Stopping,
    /// JetStream cannot be reached.
    Failed(Failed),
}

impl From<Failed> for Left {
    fn from(error: Failed) -> Self {
        match error {
            Failed::Changed => Self::Lost,
            error => Self::Failed(error),
        }
    }
}

/// A run and its owner.
struct Owner<'w> {
    work: &'w Work,
    service: Arc<Service>,
    spec: JobSpec,
    run: Run,
    /// The sequence of its last state, for who says that the owner lives.
    sequence: &'w AtomicU64,
}

impl Work {
    /// Works on the open runs of the job that are handed to this host, one after the other.
    pub(super) async fn run(self) {
        let mut stopping = self.stopping.clone();
        let mut again = FIRST_AGAIN;
        loop {
            let next = tokio::select! {
                biased;
                _ = stopping.wait_for(Option::is_some) => return,
                next = stream::next_open(&self.store, &self.job) => next,
            };
            match next {
                Ok(Some(message)) => {
                    again = FIRST_AGAIN;
                    self.work_on(&message).await;
                }
                Ok(None) => self.open_more().await,
                Err(error) => {
                    tracing::debug!(job = self.job, %error, "open runs");
                    tokio::select! {
                        () = sleep(again) => again = (again * 2).min(LAST_AGAIN),
                        _ = stopping.wait_for(Option::is_some) => return,
                    }
                }
            }
        }
    }

    /// Opens one more run of what is to run on all hosts, since there was none for this one.
    async fn open_more(&self) {
        let is_everywhere = self
            .wanted
            .borrow()
            .get(&self.job)
            .is_some_and(|job| job.spec.when == When::Always && job.replicas == Replicas::All);
        if is_everywhere {
            let slot = format!("{:08x}", rand::random::<u32>());
            if let Err(error) = clock::open_slot(&self.store, &self.job, &slot).await {
                tracing::debug!(job = self.job, %error, "one more run");
            }
        }
    }

    async fn work_on(&self, message: &Message) {
        let job = &*self.job;
        let (Ok(open), Ok(info)) = (
            serde_json::from_slice::<Run>(&message.payload),
            message.info(),
        ) else {
            tracing::error!(job, "an open run is none, and is dropped");
            return answer(message, AckKind::Term).await;
        };
        let (id, open_sequence) = (open.id.clone(), info.stream_sequence);
        let sequence = AtomicU64::new(0);
        let name = format!("{}-{:016x}", self.host, rand::random::<u64>());
        let working = async {
            let Some(mut owner) = self.take(&name, open, &sequence).await? else {
                return Ok(());
            };
            owner.work().await
        };
        let worked = tokio::select! {
            worked = working => worked,
            left = self.alive(message, (&id, &name), open_sequence, &sequence) => Err(left),
        };
        self.counts.stopped(job);
        match worked {
            Ok(()) => {
                if let Err(error) = self.store.delete(open_sequence).await {
                    // It is handed out again, and found ended.
                    tracing::debug!(job, run = id, %error, "a run that has ended");
                    return answer(message, AckKind::Nak(Some(LAST_AGAIN))).await;
                }
                answer(message, AckKind::Ack).await;
            }
            Err(Left::Lost) => tracing::info!(job, run = id, "another host goes on with a run"),
            Err(Left::Unwanted) => answer(message, AckKind::Ack).await,
            Err(Left::Stopping) => answer(message, AckKind::Nak(None)).await,
            Err(Left::Failed(error)) => {
                tracing::warn!(job, run = id, %error, "a run cannot go on now");
                answer(message, AckKind::Nak(Some(LAST_AGAIN))).await;
            }
        }
    }

    /// Says that the owner lives, until it does not own the run any more.
    async fn alive(
        &self,
        message: &Message,
        (id, owner): (&str, &str),
        open: u64,
        sequence: &AtomicU64,
    ) -> Left {
        let mut last = Instant::now();
        let mut words = 0_u32;
        loop {
            sleep(PROGRESS).await;
            words = words.wrapping_add(1);
            // A host that was paused may have been taken for dead meanwhile.
            if last.elapsed() >= ACK_WAIT.saturating_sub(PROGRESS)
                && let Ok(Some(stored)) = self.store.read_run(&self.job, id).await
                && stored.value.owner != owner
                && stored.sequence > sequence.load(Ordering::Relaxed)
            {
                return Left::Lost;
            }
            if words.is_multiple_of(LOOK)
                && self.is_always()
                && let Ok(false) = self.store.has(open).await
            {
                return Left::Unwanted;
            }
            if message.ack_with(AckKind::Progress).await.is_ok() {
                last = Instant::now();
            }
        }
    }

    fn is_always(&self) -> bool {
        let service = self.service.borrow();
        let job = service.spec.job.as_ref();
        job.is_some_and(|job| job.when == When::Always)
    }

    /// Makes this host the owner of a run that has not ended.
    async fn take<'w>(
        &'w self,
        name: &str,
        open: Run,
        sequence: &'w AtomicU64,
    ) -> Result<Option<Owner<'w>>, Left> {
        let stored = self.store.read_run(&open.job, &open.id).await?;
        let (mut run, last) = match stored {
            Some(Stored { value, sequence }) => (value, sequence),
            None => (open, 0),
        };
        if run.ended.is_some() {
            return Ok(None);
        }
        let service = Arc::clone(&self.service.borrow());
        let Some(spec) = service.spec.job.clone() else {
            return Err(Left::Stopping);
        };
        if run.current().is_some() {
            tracing::warn!(
                job = run.job,
                run = run.id,
                "takes over a run whose host fell silent"
            );
            self.counts.ended(&run.job, Outcome::Lost, now());
        }
        run.take(name, &spec, now());
        sequence.store(last, Ordering::Relaxed);
        let mut owner = Owner {
            work: self,
            service,
            spec,
            run,
            sequence,
        };
        // Whoever had it sees that by its next write.
        owner.write().await?;
        Ok(Some(owner))
    }
}

async fn answer(message: &Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        // It is handed out again.
        tracing::debug!(%error, "an open run");
    }
}

impl Owner<'_> {
    async fn work(&mut self) -> Result<(), Left> {
        let mut stopping = self.work.stopping.clone();
        loop {
            match self.run.next(now()) {
                Next::Ended => {
                    let keep = self.spec.keep.runs;
                    if let Err(error) = self.work.store.trim(&self.run.job, keep).await {
                        tracing::debug!(job = self.run.job, %error, "older runs");
                    }
                    return Ok(());
                }
                Next::Wait(until) => {
                    let wait = Duration::from_millis(until.saturating_sub(now()));
                    tokio::select! {
                        () = sleep(wait) => {}
                        _ = stopping.wait_for(Option::is_some) => return Err(Left::Stopping),
                    }
                }
                Next::Attempt => self.attempt(&mut stopping).await?,
            }
        }
    }

    async fn attempt(
        &mut self,
        stopping: &mut watch::Receiver<Option<Instant>>,
    ) -> Result<(), Left> {
        if stopping.borrow().is_some() {
            return Err(Left::Stopping);
        }
        let mut replaced = self.work.service.clone();
        // The next attempt is of what is deployed by now.
        self.service = Arc::clone(&replaced.borrow_and_update());
        if let Some(spec) = &self.service.spec.job {
            self.spec = spec.clone();
        }
        self.run.begin(&self.work.host, now());
        self.write().await?;
        let (job, id) = (self.run.job.clone(), self.run.id.clone());
        let number = self.run.current().map_or(0, |attempt| attempt.number);
        self.work.counts.started(&job);
        tracing::debug!(job, run = id, attempt = number, "begins");
        let tail = Arc::new(Tail::new(&id));
        let is_always = self.spec.when == When::Always;
        let service = Arc::clone(&self.service);
        let began = Instant::now();
        let mut tried = {
            let running = service.command(&tail, &self.work.backend);
            let interrupted = async {
                let Ok(until) = stopping.wait_for(Option::is_some).await.map(|until| *until) else {
                    return;
                };
                // What never ends by itself is not waited for.
                if let Some(until) = until.filter(|_| !is_always) {
                    sleep_until(until.into()).await;
                }
            };
            let replaced = async {
                // A sender that is gone is that of a host that stops.
                if !is_always || replaced.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                ended = running => tried(ended),
                () = interrupted => Tried::of(Outcome::Interrupted),
                () = replaced => Tried::of(Outcome::Replaced),
            }
        };
        self.work.counts.stopped(&job);
        tried.output = tail.lines();
        if tried.outcome == Outcome::Trapped && is_late(began.elapsed(), &service) {
            tried.outcome = Outcome::TimedOut;
        }
        let (outcome, why) = (tried.outcome, tried.why.clone());
        self.run.record(tried, &self.spec, now());
        self.work.counts.ended(&job, outcome, now());
        self.tell(number, outcome, why.as_deref());
        self.write().await?;
        match outcome {
            Outcome::Interrupted => Err(Left::Stopping),
            _ => Ok(()),
        }
    }

    fn tell(&self, attempt: u32, outcome: Outcome, why: Option<&str>) {
        let (app, service, run) = (&*self.work.store.app, &*self.run.job, &*self.run.id);
        let (ended, is_last) = (outcome.as_str(), self.run.ended.is_some());
        if outcome == Outcome::Succeeded {
            tracing::debug!(app, service, run, attempt, outcome = ended, "a job has run");
        } else if is_last {
            tracing::error!(
                app,
                service,
                run,
                attempt,
                outcome = ended,
                why,
                "a job has failed"
            );
        } else {
            tracing::warn!(
                app,
                service,
                run,
                attempt,
                outcome = ended,
                why,
                "an attempt of a job has ended"
            );
        }
    }

    /// Writes the run, trying until it is written.
    async fn write(&mut self) -> Result<(), Left> {
        let mut again = FIRST_AGAIN;
        loop {
            let last = self.sequence.load(Ordering::Relaxed);
            let age = self.spec.keep.age;
            match self.work.store.write_run(&self.run, age, last).await {
                Ok(sequence) => {
                    self.sequence.store(sequence, Ordering::Relaxed);
                    return Ok(());
                }
                Err(Failed::Changed) => {
                    // Its own write may have been stored without an answer.
                    let stored = self
                        .work
                        .store
                        .read_run(&self.run.job, &self.run.id)
                        .await?;
                    match stored {
                        Some(stored) if stored.value == self.run => {
                            self.sequence.store(stored.sequence, Ordering::Relaxed);
                            return Ok(());
                        }
                        _ => return Err(Left::Lost),
                    }
                }
                Err(error) => {
                    let stops = self.work.stopping.borrow().is_some();
                    if stops || matches!(error, Failed::Unreadable(_) | Failed::Missing) {
                        return Err(Left::Failed(error));
                    }
                    tracing::warn!(job = self.run.job, run = self.run.id, %error, "a run is not stored, trying again");
                    sleep(again).await;
                    again = (again * 2).min(LAST_AGAIN);
                }
            }
        }
    }
}

/// How an attempt went, by how the command ended.
fn tried(ended: Result<Exit, CallError>) -> Tried {
    let (outcome, exit, why) = match ended {
        Ok(Exit::Done) => (Outcome::Succeeded, Some(0), None),
        Ok(Exit::Error) => (
            Outcome::Failed,
            None,
            Some("`run` returned an error".to_owned()),
        ),
        Ok(Exit::Status(status)) => {
            let why = format!("it exited with status {status}");
            (Outcome::Failed, Some(status), Some(why))
        }
        Err(error) => {
            let outcome = match error.code {
                Code::Deadline => Outcome::TimedOut,
                Code::Overloaded => Outcome::NotStarted,
                _ => Outcome::Trapped,
            };
            (outcome, None, Some(reason(&error.to_string())))
        }
    };
    Tried {
        exit,
        why,
        ..Tried::of(outcome)
    }
}

/// Whether what failed after this time did so for want of more: what a component calls fails a little before its own
/// time is over.
fn is_late(elapsed: Duration, service: &Service) -> bool {
    let timeout = service.spec.limits.timeout;
    elapsed + (timeout / 10).min(CALL_MARGIN) >= timeout
}

/// An error without the job and the function that it is of, which the run has.
fn reason(error: &str) -> String {
    let of_function = error.strip_prefix("service ");
    let reason = of_function.and_then(|error| error.splitn(3, ": ").nth(2));
    reason.unwrap_or(error).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_end_are_told_apart() {
        let outcome = |ended| {
            let Tried { outcome, exit, .. } = tried(ended);
            (outcome, exit)
        };
        assert_eq!(outcome(Ok(Exit::Done)), (Outcome::Succeeded, Some(0)));
        assert_eq!(outcome(Ok(Exit::Error)), (Outcome::Failed, None));
        assert_eq!(outcome(Ok(Exit::Status(3))), (Outcome::Failed, Some(3)));
        let late = CallError::deadline_of_service(Duration::from_secs(1));
        assert_eq!(outcome(Err(late)), (Outcome::TimedOut, None));
        let full = CallError::overloaded("full");
        assert_eq!(outcome(Err(full)), (Outcome::NotStarted, None));
        let trapped = CallError::trap("unreachable");
        assert_eq!(outcome(Err(trapped)), (Outcome::Trapped, None));
        let error = "service \"a\": wasi:cli/run.run@0.2.0: it trapped: oh: no";
        assert_eq!(reason(error), "it trapped: oh: no");
        assert_eq!(reason("oh: no: not: this"), "oh: no: not: this");
    }
}
