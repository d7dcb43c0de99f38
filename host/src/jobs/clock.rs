//! When runs begin: what the server is told of it, and what it says.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::run::{Cause, Outcome, Run, id_at};
use super::serve::Counts;
use super::store::{Definition, Due, Failed, SLOT, Store, Stored};
use super::{FIRST_AGAIN, LAST_AGAIN, now, stream};
use crate::manifest::{JobSpec, Replicas, When};
use crate::subject;

/// Time between two looks at whether what should begin runs is there.
const LOOK: Duration = Duration::from_secs(30);

/// Times that are counted one by one when a host comes late.
const MAX_MISSED: u32 = 10_000;

/// How often something is looked at anew that others change meanwhile.
const TRIES: u32 = 10;

/// The jobs of an app, with what tells one version of a job from another.
pub(super) type Wanted = BTreeMap<String, Timed>;

/// A job, as its app has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timed {
    pub(super) spec: JobSpec,
    pub(super) replicas: Replicas,
    /// Changes with its component and its settings.
    pub(super) version: String,
}

/// Whether a run was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It is open, or was and has ended.
    Yes,
    /// This one is open instead.
    Busy(String),
}

/// What follows when a job is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// The time that the run is for, in seconds since 1970.
    due: u64,
    /// Times before it that nobody began a run for.
    missed: u32,
    /// When it is due next.
    next: Option<u64>,
}

/// What follows when a job was due then, and it is so late.
fn plan(when: &When, due: u64, now: u64) -> Plan {
    let (mut latest, mut missed) = (due, 0);
    let mut next = when.after(due);
    while let Some(time) = next.filter(|time| *time <= now) {
        (latest, missed) = (time, missed + 1);
        next = when.after(time);
        if missed == MAX_MISSED {
            // Months of minutes; it is late by more than anybody counts.
            next = when.after(now);
            break;
        }
    }
    Plan {
        due: latest,
        missed,
        next,
    }
}

/// Begins the runs of an app's jobs, those of other hosts included.
pub(super) struct Clock {
    pub(super) store: Store,
    pub(super) host: String,
    pub(super) wanted: watch::Receiver<Arc<Wanted>>,
    pub(super) counts: Arc<Counts>,
}

impl Clock {
    /// Runs for as long as it is polled.
    pub(super) async fn run(self) {
        tokio::join!(self.keep(), self.listen());
    }

    /// Keeps what begins runs as it should be.
    async fn keep(&self) {
        let mut wanted = self.wanted.clone();
        loop {
            let jobs = Arc::clone(&wanted.borrow_and_update());
            let mut again = FIRST_AGAIN;
            // What others have since changed is left as it is: they may know a later manifest.
            let mut changes = true;
            loop {
                let ensured = self.ensure(&jobs, changes).await;
                let wait = match &ensured {
                    Ok(()) => {
                        changes = false;
                        LOOK
                    }
                    Err(error) => {
                        tracing::warn!(app = self.store.app, %error, "jobs are not scheduled, trying again");
                        again = (again * 2).min(LAST_AGAIN);
                        again
                    }
                };
                match timeout(wait, wanted.changed()).await {
                    Ok(Ok(())) => break,
                    Ok(Err(_)) => return,
                    Err(_) => {}
                }
            }
        }
    }

    async fn ensure(&self, jobs: &Wanted, changes: bool) -> Result<(), Failed> {
        for (name, job) in jobs {
            let deployed = self.define(name, job, changes).await?;
            match &job.spec.when {
                When::Schedule(_) | When::Every(_) => self.schedule(name, job, changes).await?,
                When::Deploy if !deployed => self.deploy(name, job).await?,
                When::Deploy | When::Request => {}
                When::Always => self.open_slots(name, job, changes).await?,
            }
            if changes && !job.spec.when.is_timed() {
                for subjects in [
                    subject::job_schedule(&self.store.app, name),
                    subject::job_due(&self.store.app, name),
                ] {
                    self.store.purge(&subjects).await?;
                }
            }
        }
        Ok(())
    }

    /// Writes down what a job is; returns whether this version was run, as far as that is asked.
    async fn define(&self, name: &str, job: &Timed, changes: bool) -> Result<bool, Failed> {
        let subject = subject::job(&self.store.app, name);
        for _ in 0..TRIES {
            let known = self.store.last::<Definition>(&subject).await?;
            let mut wanted = Definition::of(&job.spec);
            wanted.deployed = known
                .as_ref()
                .and_then(|known| known.value.deployed.clone());
            let deployed = wanted.deployed.as_ref() == Some(&job.version);
            let last = match known {
                Some(known) if known.value == wanted || !changes => return Ok(deployed),
                Some(known) => known.sequence,
                None => 0,
            };
            match self.store.write(subject.clone(), &wanted, last).await {
                Ok(_) => return Ok(deployed),
                Err(Failed::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Failed::Changed)
    }

    /// Sees to it that the server says when a job is due.
    async fn schedule(&self, name: &str, job: &Timed, changes: bool) -> Result<(), Failed> {
        let store = &self.store;
        let (_, when) = job.spec.when.written();
        let first = job.spec.when.after(store.time().await?);
        let Some(first) = first.map(|at| Due::new(&job.spec.when, at)) else {
            return Ok(());
        };
        for _ in 0..TRIES {
            let subject = subject::job_schedule(&store.app, name);
            let last = match store.last::<Due>(&subject).await? {
                Some(known) if known.value.when == when || !changes => return Ok(()),
                Some(known) => known.sequence,
                None => {
                    let due = store
                        .last::<Due>(&subject::job_due(&store.app, name))
                        .await?;
                    // Who is handed it says when the next one is.
                    if due.is_some_and(|due| due.value.when == when || !changes) {
                        return Ok(());
                    }
                    0
                }
            };
            match store.schedule(name, &first, last).await {
                Ok(_) => return Ok(()),
                Err(Failed::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Failed::Changed)
    }

    /// Begins the run of a job's new version, when the one before has ended.
    async fn deploy(&self, name: &str, job: &Timed) -> Result<(), Failed> {
        let id = format!("deploy-{}", job.version);
        let run = Run::new(id, name, Cause::Deploy, now());
        if let Opened::Busy(_) = open(&self.store, &run, SLOT).await? {
            return Ok(());
        }
        let subject = subject::job(&self.store.app, name);
        if let Some(known) = self.store.last::<Definition>(&subject).await? {
            let mut definition = known.value;
            definition.deployed = Some(job.version.clone());
            match self.store.write(subject, &definition, known.sequence).await {
                // Whoever changed it looks at it again.
                Ok(_) | Err(Failed::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Opens what is always to run, as often as that, and closes what is too much.
    async fn open_slots(&self, name: &str, job: &Timed, changes: bool) -> Result<(), Failed> {
        let store = &self.store;
        let many = match job.replicas {
            Replicas::Count(many) => many,
            // Each host that finds none opens one more.
            Replicas::All => 1,
        };
        for slot in 0..many {
            open_slot(store, name, &slot.to_string()).await?;
        }
        if !changes || job.replicas == Replicas::All {
            return Ok(());
        }
        let all = subject::open_job(&store.app, name, "*");
        for (subject, Stored { sequence, .. }) in store.all::<Run>(&all).await? {
            let slot = subject
                .rsplit('.')
                .next()
                .and_then(|slot| slot.parse().ok());
            if slot.is_none_or(|slot: u32| slot >= many) {
                store.delete(sequence).await?;
            }
        }
        Ok(())
    }

    /// Begins runs that are due.
    async fn listen(&self) -> Infallible {
        let mut again = FIRST_AGAIN;
        let mut wanted = self.wanted.clone();
        loop {
            // A sender that is gone ends all of this.
            let _ = wanted
                .wait_for(|jobs| jobs.values().any(|job| job.spec.when.is_timed()))
                .await;
            match stream::next_due(&self.store).await {
                Ok(message) => {
                    again = FIRST_AGAIN;
                    if let Some(message) = message {
                        self.due(&message).await;
                    }
                }
                Err(error) => {
                    tracing::debug!(app = self.store.app, %error, "jobs that are due");
                    sleep(again).await;
                    again = (again * 2).min(LAST_AGAIN);
                }
            }
        }
    }

    async fn due(&self, message: &Message) {
        let kind = match self.begin(message).await {
            Ok(kind) => kind,
            Err(error) => {
                tracing::warn!(app = self.store.app, %error, "a run that is due is not begun, trying again");
                AckKind::Nak(Some(LAST_AGAIN))
            }
        };
        if let Err(error) = message.ack_with(kind).await {
            tracing::debug!(%error, "a job that is due");
        }
    }

    /// Begins a run that is due, and says when the next one is.
    async fn begin(&self, message: &Message) -> Result<AckKind, Failed> {
        let (Some(name), Ok(due), Ok(info)) = (
            subject::of_job(&message.subject),
            serde_json::from_slice::<Due>(&message.payload),
            message.info(),
        ) else {
            return Ok(AckKind::Term);
        };
        let job = self.wanted.borrow().get(name).cloned();
        let Some(job) = job.filter(|job| job.spec.when.is_timed()) else {
            // Another host may know it by now.
            return Ok(AckKind::Nak(Some(LAST_AGAIN)));
        };
        let (when, now) = (&job.spec.when, self.store.time().await?);
        let plan = match when.written().1 == due.when {
            true => plan(when, due.at, now),
            // It is due by the schedule that it had.
            false => Plan {
                due: due.at,
                missed: 0,
                next: when.after(now),
            },
        };
        let millis = plan.due.saturating_mul(1_000);
        let mut run = Run::new(id_at(millis), name, Cause::Schedule, millis);
        run.missed = plan.missed;
        if let Opened::Busy(other) = open(&self.store, &run, SLOT).await? {
            self.skip(run, &other, &job.spec).await?;
        }
        if let Some(next) = plan.next {
            let next = Due::new(when, next);
            match self.store.schedule(name, &next, 0).await {
                // By who deployed another schedule, or who was handed this before.
                Ok(_) | Err(Failed::Changed) => {}
                Err(error) => return Err(error),
            }
        }
        self.store.delete(info.stream_sequence).await?;
        Ok(AckKind::Ack)
    }

    /// Records that a run was due while another one was under way.
    async fn skip(&self, run: Run, other: &str, spec: &JobSpec) -> Result<(), Failed> {
        let (name, id, now) = (run.job.clone(), run.id.clone(), now());
        let run = run.skipped(other, &self.host, now);
        match self.store.write_run(&run, spec.keep.age, 0).await {
            Ok(_) => {}
            Err(Failed::Changed) => return Ok(()),
            Err(error) => return Err(error),
        }
        tracing::warn!(
            app = self.store.app,
            job = name,
            run = id,
            other,
            "a run is skipped, since another one is under way"
        );
        self.counts.ended(&name, Outcome::Skipped, now);
        self.store.trim(&name, spec.keep.runs).await
    }
}

/// Opens a run, unless one is open, or it was before.
pub(super) async fn open(store: &Store, run: &Run, slot: &str) -> Result<Opened, Failed> {
    if store.read_run(&run.job, &run.id).await?.is_some() {
        return Ok(Opened::Yes);
    }
    let subject = subject::open_job(&store.app, &run.job, slot);
    for _ in 0..TRIES {
        match store.write(subject.clone(), run, 0).await {
            Ok(_) => return Ok(Opened::Yes),
            Err(Failed::Changed) => {}
            Err(error) => return Err(error),
        }
        match store.last::<Run>(&subject).await? {
            Some(other) if other.value.id == run.id => return Ok(Opened::Yes),
            Some(other) => return Ok(Opened::Busy(other.value.id)),
            // It has just ended.
            None => {}
        }
    }
    Err(Failed::Changed)
}

/// Opens a run of what is always to run, if it is not open there.
pub(super) async fn open_slot(store: &Store, job: &str, slot: &str) -> Result<(), Failed> {
    let run = Run::new(format!("slot-{slot}"), job, Cause::Always, now());
    let subject = subject::open_job(&store.app, job, slot);
    if store.last::<Run>(&subject).await?.is_some() {
        return Ok(());
    }
    match store.write(subject, &run, 0).await {
        Ok(_) | Err(Failed::Changed) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_run_once_for_the_last_of_the_times() {
        let every = When::Every(Duration::from_secs(10));
        let on_time = Plan {
            due: 100,
            missed: 0,
            next: Some(110),
        };
        assert_eq!(plan(&every, 100, 100), on_time);
        assert_eq!(plan(&every, 100, 109), on_time);
        let late = Plan {
            due: 130,
            missed: 3,
            next: Some(140),
        };
        assert_eq!(plan(&every, 100, 139), late);
        let at = |due, missed| Plan {
            due,
            missed,
            next: None,
        };
        assert_eq!(plan(&When::Request, 100, 139), at(100, 0));
    }

    #[test]
    fn who_comes_years_late_is_not_held_up() {
        let every = When::Every(Duration::from_secs(1));
        let late = plan(&every, 0, 1_000_000_000);
        assert_eq!((late.missed, late.next), (MAX_MISSED, Some(1_000_000_001)));
    }
}
