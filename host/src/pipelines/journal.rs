//! The journals of runs: read, and written by who has seen the last state.

use std::collections::BTreeMap;
use std::future::IntoFuture as _;
use std::time::Duration;

use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use bytes::Bytes;
use serde::de::IgnoredAny;

use super::run::{FORMAT, Phase, Run, Version};
use crate::subject;

/// Bytes of a message beside a journal: subject and headers.
pub(super) const HEADROOM: usize = 4 << 10;

/// Upper bound of the time for one operation on a journal.
const OPERATION: Duration = Duration::from_secs(5);

/// The journals of an app's runs.
#[derive(Clone)]
pub(crate) struct Journals {
    pub(super) context: Context,
    pub(super) app: String,
}

/// A run as it is stored.
pub(super) struct Stored {
    pub(super) run: Run,
    /// The sequence in the stream.
    pub(super) sequence: u64,
}

/// Why a journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// It is not as the writer had seen it.
    #[error("somebody else wrote the journal of the run")]
    Changed,
    /// The stream has no room.
    #[error("the stream of runs is full; `size` of the pipeline makes it larger, `keep` shorter")]
    Full,
    /// There is something else in its place.
    #[error("the journal of the run cannot be read: {0}")]
    Unreadable(String),
    /// JetStream did not do it.
    #[error("the journal of the run cannot be reached: {0}")]
    Unreachable(String),
}

impl Journals {
    pub(crate) fn new(context: Context, app: &str) -> Self {
        Self {
            context,
            app: app.to_owned(),
        }
    }

    /// The stream, without asking for it.
    pub(super) async fn stream(&self) -> Result<Stream<()>, JournalError> {
        let name = subject::run_stream(&self.app);
        let stream = self.context.get_stream_no_info(name).await;
        stream.map_err(|error| JournalError::Unreachable(error.to_string()))
    }

    /// The bytes that the stream has and those that it may have.
    pub(super) async fn bytes(&self) -> Result<(u64, u64), JournalError> {
        let name = subject::run_stream(&self.app);
        let stream = tokio::time::timeout(OPERATION, self.context.get_stream(name)).await;
        let stream = stream.map_err(|_| late())?;
        let stream = stream.map_err(|error| JournalError::Unreachable(error.to_string()))?;
        let info = stream.cached_info();
        // A bound of -1 is none.
        let most = u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX);
        Ok((info.state.bytes, most))
    }

    /// The journal of a run, of any pipeline if none is named.
    pub(super) async fn read(
        &self,
        pipeline: Option<&str>,
        id: &str,
    ) -> Result<Option<Stored>, JournalError> {
        let subject = subject::run(&self.app, pipeline.unwrap_or("*"), id);
        let last = self.last(&subject).await?;
        last.map(|message| {
            Ok(Stored {
                run: parse(&message.payload)?,
                sequence: message.sequence,
            })
        })
        .transpose()
    }

    /// The sequence of the message by which a run is open; 0 for one that is not.
    pub(super) async fn read_open(&self, pipeline: &str, id: &str) -> Result<u64, JournalError> {
        let subject = subject::open_run(&self.app, pipeline, id);
        let last = self.last(&subject).await?;
        Ok(last.map_or(0, |message| message.sequence))
    }

    /// The last message of a subject, as the stream's leader has it: a replica may lag behind.
    pub(super) async fn last(&self, subject: &str) -> Result<Option<StreamMessage>, JournalError> {
        let stream = self.stream().await?;
        let read = stream.get_last_raw_message_by_subject(subject);
        let read = tokio::time::timeout(OPERATION, read).await;
        match read.map_err(|_| late())? {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(JournalError::Unreachable(error.to_string())),
        }
    }

    /// The first message of a subject from this sequence on.
    pub(super) async fn first(
        &self,
        subject: &str,
        from: u64,
    ) -> Result<Option<StreamMessage>, JournalError> {
        let stream = self.stream().await?;
        let read = stream.get_first_raw_message_by_subject(subject, from);
        let read = tokio::time::timeout(OPERATION, read).await;
        match read.map_err(|_| late())? {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            // An app without pipelines has no stream of runs.
            Err(error) if is_missing(&error.kind()) => Ok(None),
            Err(error) => Err(JournalError::Unreachable(error.to_string())),
        }
    }

    /// Begins a run: its journal, which has room from then on whatever else is stored, and that it is open.
    ///
    /// # Errors
    ///
    /// [`JournalError::Changed`]: there is a run with this id.
    pub(super) async fn begin(&self, run: &Run, text: Bytes) -> Result<(), JournalError> {
        let subject = subject::run(&self.app, &run.pipeline.name, &run.id);
        // One connection, one stream: the second is stored after the first, and need not wait for it.
        let journal = self
            .send(subject, PublishMessage::build().payload(text), 0)
            .await?;
        let opened = self.open(&run.pipeline.name, &run.id, 0);
        let (journal, opened) = tokio::join!(acknowledged(journal), opened);
        match (journal, opened) {
            (Ok(_), Ok(_) | Err(JournalError::Changed)) => Ok(()),
            (Ok(sequence), Err(error)) => {
                if matches!(error, JournalError::Full) {
                    self.delete(sequence).await?;
                }
                Err(error)
            }
            (Err(JournalError::Full), Ok(sequence)) => {
                self.delete(sequence).await?;
                Err(JournalError::Full)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Writes a journal whose last state has this sequence; 0 for none. Returns the new one.
    pub(super) async fn write(
        &self,
        run: &Run,
        text: Bytes,
        last: u64,
    ) -> Result<u64, JournalError> {
        let subject = subject::run(&self.app, &run.pipeline.name, &run.id);
        let mut message = PublishMessage::build().payload(text);
        if matches!(run.phase, Phase::Completed | Phase::RolledBack) {
            message = message.ttl(Duration::from_secs(run.pipeline.keep));
        }
        self.publish(subject, message, last).await
    }

    /// Opens a run: some host works on it. `last` is what [`read_open`](Self::read_open) returns.
    pub(super) async fn open(
        &self,
        pipeline: &str,
        id: &str,
        last: u64,
    ) -> Result<u64, JournalError> {
        let subject = subject::open_run(&self.app, pipeline, id);
        self.publish(subject, PublishMessage::build(), last).await
    }

    /// Hands a run out again that is open by the message of this sequence, with what woke it. Returns whether
    /// it was, and not by somebody else.
    pub(super) async fn wake(
        &self,
        pipeline: &str,
        id: &str,
        open: u64,
        why: Bytes,
    ) -> Result<bool, JournalError> {
        let subject = subject::open_run(&self.app, pipeline, id);
        let message = PublishMessage::build().payload(why);
        match self.publish(subject, message, open).await {
            Ok(_) => Ok(true),
            Err(JournalError::Changed) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores this in the place of what was stored on its subject before.
    pub(super) async fn put(&self, subject: String, text: Bytes) -> Result<(), JournalError> {
        let sent = self.context.publish(subject, text);
        let sent = tokio::time::timeout(OPERATION, sent).await;
        let sent = sent.map_err(|_| late())?.map_err(|error| refused(&error))?;
        acknowledged(sent).await.map(drop)
    }

    /// Deletes what is stored on a subject.
    pub(super) async fn clear(&self, subject: &str) -> Result<(), JournalError> {
        match self.last(subject).await? {
            Some(message) => self.delete(message.sequence).await,
            None => Ok(()),
        }
    }

    async fn publish(
        &self,
        subject: String,
        message: PublishMessage,
        last: u64,
    ) -> Result<u64, JournalError> {
        acknowledged(self.send(subject, message, last).await?).await
    }

    async fn send(
        &self,
        subject: String,
        message: PublishMessage,
        last: u64,
    ) -> Result<PublishAckFuture, JournalError> {
        let message = message.expected_last_subject_sequence(last);
        let sent = self.context.send_publish(subject, message);
        let sent = tokio::time::timeout(OPERATION, sent).await;
        sent.map_err(|_| late())?.map_err(|error| refused(&error))
    }

    /// Deletes the message with this sequence: of an open run on which no host works any more, or of one that was
    /// refused. By its sequence, since a purge makes the server forget what it was about to hand out again.
    ///
    /// # Cost
    ///
    /// The server forgets where it is. The library's own `delete_message` has it overwrite the message as well, for
    /// which it writes the whole file again in which that is, several MiB: most of what a run cost. (By 2.15.)
    pub(super) async fn delete(&self, sequence: u64) -> Result<(), JournalError> {
        let subject = format!("STREAM.MSG.DELETE.{}", subject::run_stream(&self.app));
        let which = serde_json::json!({ "seq": sequence, "no_erase": true });
        let deleted = self.context.request(subject, &which);
        let deleted = tokio::time::timeout(OPERATION, deleted).await;
        let deleted = deleted.map_err(|_| late())?;
        match deleted.map_err(|error| JournalError::Unreachable(error.to_string()))? {
            // Refused is one that is not there any more.
            Response::<IgnoredAny>::Ok(_) | Response::Err { .. } => Ok(()),
        }
    }
}

/// The versions by which the open runs of durable functions began, each with its service. `durable` are the functions by
/// the names of their pipelines, with their services.
///
/// # Errors
///
/// JetStream cannot be asked.
pub(crate) async fn open_versions(
    context: &Context,
    app: &str,
    durable: &BTreeMap<String, String>,
) -> Result<Vec<(String, Version)>, JournalError> {
    let journals = Journals::new(context.clone(), app);
    let mut versions = Vec::new();
    for (pipeline, service) in durable {
        let (open, mut from) = (subject::open_run(app, pipeline, "*"), 1);
        while let Some(message) = journals.first(&open, from).await? {
            from = message.sequence + 1;
            let Some((_, id)) = subject::of_open_run(&message.subject) else {
                continue;
            };
            let run = match journals.read(Some(pipeline), id).await {
                Ok(stored) => stored.map(|stored| stored.run),
                // Of a newer wasmbay.
                Err(JournalError::Unreadable(_)) => None,
                Err(error) => return Err(error),
            };
            let version = run.and_then(|run| run.coded?.version);
            let version = version.map(|version| (service.clone(), version));
            versions.extend(version.filter(|one| !versions.contains(one)));
        }
    }
    Ok(versions)
}

async fn acknowledged(sent: PublishAckFuture) -> Result<u64, JournalError> {
    let acknowledged = tokio::time::timeout(OPERATION, sent.into_future()).await;
    let acknowledged = acknowledged.map_err(|_| late())?;
    let acknowledged = acknowledged.map_err(|error| refused(&error))?;
    Ok(acknowledged.sequence)
}

fn late() -> JournalError {
    JournalError::Unreachable("no answer in time".to_owned())
}

fn refused(error: &PublishError) -> JournalError {
    use std::error::Error as _;
    if error.kind() == PublishErrorKind::WrongLastSequence {
        return JournalError::Changed;
    }
    let source = error.source();
    let refusal = source.and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
    let why = source.map_or_else(|| error.to_string(), ToString::to_string);
    let full = [
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ];
    let is_full = refusal.is_some_and(|refusal| full.contains(&refusal.error_code()));
    if is_full || why.contains("maximum bytes exceeded") {
        return JournalError::Full;
    }
    JournalError::Unreachable(why)
}

/// Reads a run.
pub(super) fn parse(text: &[u8]) -> Result<Run, JournalError> {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(default)]
        format: u32,
    }
    let unreadable = |error: serde_json::Error| JournalError::Unreadable(error.to_string());
    let Head { format } = serde_json::from_slice(text).map_err(unreadable)?;
    if format > FORMAT {
        // It is handed out again, and a host with that version gets it then.
        let why = format!(
            "it is of format {format}, which a newer wasmbay writes; this one reads {FORMAT}"
        );
        return Err(JournalError::Unreadable(why));
    }
    let run: Run = serde_json::from_slice(text).map_err(unreadable)?;
    if run.steps.len() != run.pipeline.steps.len() {
        let why = "it has not as many steps as its pipeline".to_owned();
        return Err(JournalError::Unreadable(why));
    }
    Ok(run)
}

/// Writes a run.
pub(super) fn text(run: &Run) -> Result<Bytes, JournalError> {
    let text = serde_json::to_vec(run);
    text.map(Bytes::from)
        .map_err(|error| JournalError::Unreadable(error.to_string()))
}

fn is_missing(kind: &RawMessageErrorKind) -> bool {
    let RawMessageErrorKind::JetStream(error) = kind else {
        return false;
    };
    error.error_code() == ErrorCode::STREAM_NOT_FOUND
}
