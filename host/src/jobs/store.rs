//! What JetStream has of an app's jobs: read, and written by who has seen the last state.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::header::{NATS_SCHEDULE, NATS_SCHEDULE_TARGET};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::run::Run;
use crate::manifest::{JobSpec, When};
use crate::subject;

/// Upper bound of the time for one operation.
const OPERATION: Duration = Duration::from_secs(5);

/// Where an open run is that is not one of many.
pub(super) const SLOT: &str = "0";

/// The jobs of an app, as JetStream has them.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) context: Context,
    pub(super) app: String,
}

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// It is not as the writer had seen it.
    #[error("somebody else wrote it")]
    Changed,
    /// There is something else in its place.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The app has no jobs.
    #[error("there is no stream of jobs")]
    Missing,
    /// JetStream did not do it.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
}

/// Something that is stored, with its sequence.
pub(super) struct Stored<T> {
    pub(super) value: T,
    pub(super) sequence: u64,
}

/// What a job is, for who does not have the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Definition {
    /// The key of the manifest that says when it runs.
    pub(super) key: String,
    /// Its value.
    pub(super) when: String,
    /// Runs that are kept.
    pub(super) keep: u32,
    /// Seconds for which they are kept.
    pub(super) age: u64,
    /// What was run last of a job that runs when it is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deployed: Option<String>,
}

impl Definition {
    pub(super) fn of(spec: &JobSpec) -> Self {
        let (key, when) = spec.when.written();
        Self {
            key: key.to_owned(),
            when,
            keep: spec.keep.runs,
            age: spec.keep.age.as_secs(),
            deployed: None,
        }
    }
}

/// When a job is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Due {
    pub(super) when: String,
    /// In seconds since 1970.
    pub(super) at: u64,
}

impl Due {
    pub(super) fn new(when: &When, at: u64) -> Self {
        let (_, when) = when.written();
        Self { when, at }
    }
}

/// What the server says of the stream.
#[derive(Deserialize)]
struct Asked {
    /// Its time.
    ts: String,
    state: State,
}

#[derive(Deserialize)]
struct State {
    /// The subjects that were asked for, with how many messages each has.
    #[serde(default)]
    subjects: BTreeMap<String, u64>,
}

impl Store {
    pub(super) fn new(context: Context, app: &str) -> Self {
        Self {
            context,
            app: app.to_owned(),
        }
    }

    /// The stream, without asking for it.
    async fn stream(&self) -> Result<Stream<()>, Failed> {
        let name = subject::job_stream(&self.app);
        let stream = self.context.get_stream_no_info(name).await;
        stream.map_err(|error| Failed::Unreachable(error.to_string()))
    }

    /// What is stored on a subject.
    pub(super) async fn last<T: DeserializeOwned>(
        &self,
        subject: &str,
    ) -> Result<Option<Stored<T>>, Failed> {
        let stream = self.stream().await?;
        let read = stream.get_last_raw_message_by_subject(subject);
        match within(read).await? {
            Ok(message) => parse(&message).map(Some),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(error) => Err(refused(&error)),
                _ => Err(Failed::Unreachable(error.to_string())),
            },
        }
    }

    /// What is stored on these subjects: subject and value, in the order in which it was.
    pub(super) async fn all<T: DeserializeOwned>(
        &self,
        subjects: &str,
    ) -> Result<Vec<(String, Stored<T>)>, Failed> {
        let (mut from, mut all) = (1, Vec::new());
        while let Some(one) = self.first(subjects, from).await? {
            from = one.1.sequence + 1;
            all.push(one);
        }
        Ok(all)
    }

    /// The first that is stored on these subjects from this sequence on.
    async fn first<T: DeserializeOwned>(
        &self,
        subjects: &str,
        from: u64,
    ) -> Result<Option<(String, Stored<T>)>, Failed> {
        let stream = self.stream().await?;
        let read = stream.get_first_raw_message_by_subject(subjects, from);
        match within(read).await? {
            Ok(message) => Ok(Some((message.subject.to_string(), parse(&message)?))),
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(None),
                RawMessageErrorKind::JetStream(error) => Err(refused(&error)),
                _ => Err(Failed::Unreachable(error.to_string())),
            },
        }
    }

    /// Whether the message with this sequence is there.
    pub(super) async fn has(&self, sequence: u64) -> Result<bool, Failed> {
        let stream = self.stream().await?;
        match within(stream.get_raw_message(sequence)).await? {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(false),
                RawMessageErrorKind::JetStream(error) => Err(refused(&error)),
                _ => Err(Failed::Unreachable(error.to_string())),
            },
        }
    }

    /// Writes a value where the last one has this sequence; 0 for none. Returns the new one.
    pub(super) async fn write(
        &self,
        subject: String,
        value: &impl Serialize,
        last: u64,
    ) -> Result<u64, Failed> {
        let message = PublishMessage::build().payload(text(value)?);
        self.publish(subject, message, last).await
    }

    /// Writes a run, which is kept for so long if it has ended.
    pub(super) async fn write_run(
        &self,
        run: &Run,
        age: Duration,
        last: u64,
    ) -> Result<u64, Failed> {
        let subject = subject::job_run(&self.app, &run.job, &run.id);
        let mut message = PublishMessage::build().payload(text(run)?);
        if run.ended.is_some() {
            message = message.ttl(age);
        }
        self.publish(subject, message, last).await
    }

    pub(super) async fn read_run(
        &self,
        job: &str,
        id: &str,
    ) -> Result<Option<Stored<Run>>, Failed> {
        self.last(&subject::job_run(&self.app, job, id)).await
    }

    /// Has the server say when a job is due, unless the last such message has another sequence than this.
    pub(super) async fn schedule(&self, job: &str, due: &Due, last: u64) -> Result<u64, Failed> {
        let at = i64::try_from(due.at).ok();
        let at = at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        let at = at.and_then(|at| at.format(&Rfc3339).ok());
        let at = at.ok_or_else(|| Failed::Unreadable(format!("{} is no time", due.at)))?;
        let message = PublishMessage::build()
            .payload(text(due)?)
            .header(NATS_SCHEDULE, format!("@at {at}"))
            .header(NATS_SCHEDULE_TARGET, subject::job_due(&self.app, job));
        let subject = subject::job_schedule(&self.app, job);
        self.publish(subject, message, last).await
    }

    async fn publish(
        &self,
        subject: String,
        message: PublishMessage,
        last: u64,
    ) -> Result<u64, Failed> {
        let message = message.expected_last_subject_sequence(last);
        let sent = within(self.context.send_publish(subject, message)).await?;
        let sent = sent.map_err(|error| unpublished(&error))?;
        let stored = within(std::future::IntoFuture::into_future(sent)).await?;
        Ok(stored.map_err(|error| unpublished(&error))?.sequence)
    }

    /// Deletes the message with this sequence.
    pub(super) async fn delete(&self, sequence: u64) -> Result<(), Failed> {
        let subject = format!("STREAM.MSG.DELETE.{}", subject::job_stream(&self.app));
        // The library's own has the server overwrite it as well, for which that writes the whole file again.
        let which = serde_json::json!({ "seq": sequence, "no_erase": true });
        let deleted = within(self.context.request(subject, &which)).await?;
        match deleted.map_err(|error| Failed::Unreachable(error.to_string()))? {
            // Refused is one that is not there any more.
            Response::<IgnoredAny>::Ok(_) | Response::Err { .. } => Ok(()),
        }
    }

    /// Deletes what is stored on these subjects.
    pub(super) async fn purge(&self, subjects: &str) -> Result<(), Failed> {
        let stream = self.stream().await?;
        let purged = within(stream.purge().filter(subjects).into_future()).await?;
        let purged = purged.map(drop);
        purged.map_err(|error| Failed::Unreachable(error.to_string()))
    }

    /// Deletes the runs of a job that ended first, but for so many.
    pub(super) async fn trim(&self, job: &str, keep: u32) -> Result<(), Failed> {
        let subjects = subject::job_run(&self.app, job, "*");
        let Asked { state, .. } = self.ask(Some(&subjects)).await?;
        let kept = usize::try_from(keep).unwrap_or(usize::MAX);
        let mut surplus = state.subjects.len().saturating_sub(kept);
        let mut from = 1;
        while surplus > 0 {
            let Some((_, run)) = self.first::<Run>(&subjects, from).await? else {
                return Ok(());
            };
            from = run.sequence + 1;
            // Who owns one that has not ended writes it again.
            if run.value.ended.is_some() {
                self.delete(run.sequence).await?;
                surplus -= 1;
            }
        }
        Ok(())
    }

    /// The time by the clock of the server, in seconds since 1970: by that it says when a job is due.
    pub(super) async fn time(&self) -> Result<u64, Failed> {
        let Asked { ts, .. } = self.ask(None).await?;
        let time = OffsetDateTime::parse(&ts, &Rfc3339);
        let time = time.map_err(|error| Failed::Unreadable(error.to_string()))?;
        Ok(u64::try_from(time.unix_timestamp()).unwrap_or_default())
    }

    async fn ask(&self, subjects: Option<&str>) -> Result<Asked, Failed> {
        let subject = format!("STREAM.INFO.{}", subject::job_stream(&self.app));
        let filter = serde_json::json!({ "subjects_filter": subjects });
        let asked = within(self.context.request(subject, &filter)).await?;
        match asked.map_err(|error| Failed::Unreachable(error.to_string()))? {
            Response::Ok(asked) => Ok(asked),
            Response::Err { error } => Err(refused(&error)),
        }
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, Failed> {
    let done = tokio::time::timeout(OPERATION, work).await;
    done.map_err(|_| Failed::Unreachable("no answer in time".to_owned()))
}

fn text(value: &impl Serialize) -> Result<bytes::Bytes, Failed> {
    let text = serde_json::to_vec(value);
    text.map(Into::into)
        .map_err(|error| Failed::Unreadable(error.to_string()))
}

fn parse<T: DeserializeOwned>(message: &StreamMessage) -> Result<Stored<T>, Failed> {
    let value = serde_json::from_slice(&message.payload);
    Ok(Stored {
        value: value.map_err(|error| Failed::Unreadable(error.to_string()))?,
        sequence: message.sequence,
    })
}

fn refused(error: &async_nats::jetstream::Error) -> Failed {
    match error.error_code() {
        ErrorCode::STREAM_NOT_FOUND => Failed::Missing,
        _ => Failed::Unreachable(error.to_string()),
    }
}

fn unpublished(error: &PublishError) -> Failed {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => Failed::Changed,
        PublishErrorKind::StreamNotFound => Failed::Missing,
        _ => {
            let source = std::error::Error::source(error);
            let why = source.map_or_else(|| error.to_string(), ToString::to_string);
            Failed::Unreachable(why)
        }
    }
}
