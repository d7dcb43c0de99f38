//! Jobs as operators see them: listed, run, and what they have run.

use async_nats::jetstream::Context;
use serde::Serialize;

use super::clock::{self, Opened};
use super::now;
use super::run::{Cause, Outcome, Run, id_at};
use super::store::{Definition, Due, Failed, SLOT, Store};
use crate::subject;

/// The jobs of an app.
pub struct Jobs {
    store: Store,
}

/// Why something could not be done with a job.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The app has no such job.
    #[error("there is no job \"{}\" in {app}{}", crate::text::shown(.job), suggestion(.known))]
    NotFound {
        /// The app.
        app: String,
        /// What was asked for.
        job: String,
        /// The jobs that there are.
        known: Vec<String>,
    },
    /// A run of it is under way.
    #[error("run {run} of {job} is under way, and a job has one run at a time")]
    Busy {
        /// The job.
        job: String,
        /// The run.
        run: String,
    },
    /// It runs all the time.
    #[error("{0} has `restart`, so it runs all the time, and not by request")]
    Always(String),
    /// JetStream did not do it.
    #[error("jobs of {app}: {why}")]
    Store {
        /// The app.
        app: String,
        /// Why not.
        why: String,
    },
}

fn suggestion(known: &[String]) -> String {
    match known {
        [] => "; it has none".to_owned(),
        known => format!(" (jobs: {})", known.join(", ")),
    }
}

/// A job in a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ListedJob {
    /// Its name.
    pub job: String,
    /// The key of the manifest that says when it runs.
    pub key: String,
    /// What that says.
    pub when: String,
    /// When it is due next, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// The runs that are under way, or wait for a host.
    pub running: Vec<RunningJob>,
    /// The last run that has ended; skipped ones do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Run>,
}

/// A run that is under way.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RunningJob {
    /// Its id.
    pub run: String,
    /// The host, while an attempt is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The attempt.
    pub attempt: u32,
    /// When that began, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began: Option<u64>,
    /// When the next one begins, of a run that waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

impl Jobs {
    /// The jobs of the app of this name.
    #[must_use]
    pub fn new(context: Context, app: &str) -> Self {
        Self {
            store: Store::new(context, app),
        }
    }

    /// All of them, by name.
    ///
    /// # Errors
    ///
    /// JetStream does not answer.
    pub async fn list(&self) -> Result<Vec<ListedJob>, JobError> {
        let app = &self.store.app;
        let mut listed = Vec::new();
        for (name, definition) in self.definitions().await? {
            let at = async |subject: String| {
                let due = self.store.last::<Due>(&subject).await;
                due.map(|due| due.map(|due| due.value.at.saturating_mul(1_000)))
            };
            let due = at(subject::job_due(app, &name)).await;
            let next = match due.map_err(|error| self.failed(error))? {
                Some(due) => Some(due),
                None => at(subject::job_schedule(app, &name))
                    .await
                    .map_err(|error| self.failed(error))?,
            };
            let open = self
                .store
                .all::<Run>(&subject::open_job(app, &name, "*"))
                .await;
            let open = open.map_err(|error| self.failed(error))?;
            let runs = self.runs(&name).await?;
            let running = open.into_iter().map(|(_, open)| {
                let id = open.value.id;
                let run = runs.iter().find(|run| run.id == id);
                let last = run.and_then(|run| run.attempts.last());
                let current = run.and_then(Run::current);
                RunningJob {
                    host: current.map(|attempt| attempt.host.clone()),
                    attempt: last.map_or(0, |attempt| attempt.number),
                    began: current.map(|attempt| attempt.began),
                    next: run.and_then(|run| run.next),
                    run: id,
                }
            });
            let running = running.collect();
            let ended = |run: &&Run| run.outcome.is_some_and(|how| how != Outcome::Skipped);
            let last = runs.iter().rfind(ended).cloned();
            listed.push(ListedJob {
                job: name,
                key: definition.key,
                when: definition.when,
                next,
                running,
                last,
            });
        }
        Ok(listed)
    }

    /// The runs of a job that are kept, the last one first.
    ///
    /// # Errors
    ///
    /// There is no such job, or JetStream does not answer.
    pub async fn history(&self, job: &str) -> Result<Vec<Run>, JobError> {
        self.definition(job).await?;
        let mut runs = self.runs(job).await?;
        runs.reverse();
        Ok(runs)
    }

    /// Begins a run of a job, and returns its id.
    ///
    /// # Errors
    ///
    /// There is no such job, one of its runs is under way, or JetStream does not answer.
    pub async fn run(&self, job: &str) -> Result<String, JobError> {
        let definition = self.definition(job).await?;
        if definition.when == "always" {
            return Err(JobError::Always(job.to_owned()));
        }
        let now = now();
        let id = format!("{}-{:04x}", id_at(now), rand::random::<u16>());
        let run = Run::new(id.clone(), job, Cause::Request, now);
        let opened = clock::open(&self.store, &run, SLOT).await;
        match opened.map_err(|error| self.failed(error))? {
            Opened::Yes => Ok(id),
            Opened::Busy(run) => Err(JobError::Busy {
                job: job.to_owned(),
                run,
            }),
        }
    }

    /// A run of a job, if it is kept; nothing of one that no host has begun.
    ///
    /// # Errors
    ///
    /// JetStream does not answer.
    pub async fn look(&self, job: &str, id: &str) -> Result<Option<Run>, JobError> {
        let run = self.store.read_run(job, id).await;
        let run = run.map_err(|error| self.failed(error))?;
        Ok(run.map(|run| run.value))
    }

    /// In the order in which they were due.
    async fn runs(&self, job: &str) -> Result<Vec<Run>, JobError> {
        let subjects = subject::job_run(&self.store.app, job, "*");
        let runs = self.store.all::<Run>(&subjects).await;
        let runs = runs.map_err(|error| self.failed(error))?.into_iter();
        let mut runs: Vec<_> = runs.map(|(_, run)| run.value).collect();
        runs.sort_by_key(|run| run.due);
        Ok(runs)
    }

    async fn definitions(&self) -> Result<Vec<(String, Definition)>, JobError> {
        let subjects = subject::job(&self.store.app, "*");
        let known = match self.store.all::<Definition>(&subjects).await {
            Err(Failed::Missing) => return Ok(Vec::new()),
            known => known.map_err(|error| self.failed(error))?,
        };
        let mut jobs: Vec<_> = known
            .into_iter()
            .filter_map(|(subject, known)| {
                Some((subject::of_job(&subject)?.to_owned(), known.value))
            })
            .collect();
        jobs.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(jobs)
    }

    async fn definition(&self, job: &str) -> Result<Definition, JobError> {
        let mut all = self.definitions().await?;
        let known = all.iter().map(|(name, _)| name.clone()).collect();
        match all.iter().position(|(name, _)| name == job) {
            Some(at) => Ok(all.swap_remove(at).1),
            None => Err(JobError::NotFound {
                app: self.store.app.clone(),
                job: job.to_owned(),
                known,
            }),
        }
    }

    fn failed(&self, error: Failed) -> JobError {
        JobError::Store {
            app: self.store.app.clone(),
            why: error.to_string(),
        }
    }
}
