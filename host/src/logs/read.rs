//! Records of all hosts, from the stream that keeps them.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::{Context, context};
use futures_util::StreamExt as _;
use time::OffsetDateTime;
use tokio::time::sleep;

use super::Record;
use crate::subject;

/// Records that are fetched together.
const BATCH: usize = 500;

/// Time after which the server forgets a reader that is gone.
const GONE: Duration = Duration::from_secs(30);

/// Time between two signs of the server that there is nothing new.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Pause before a reader that was cut off begins again where it was.
const AGAIN: Duration = Duration::from_secs(1);

/// Which records are read.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those of this app; otherwise of all apps, and of hosts.
    pub app: Option<String>,
    /// Those of this service of the app.
    pub service: Option<String>,
    /// Those of this host.
    pub host: Option<String>,
    /// Those that are no older.
    pub since: Duration,
    /// Whether to go on with those that come.
    pub follow: bool,
}

/// Why records cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// There is no stream of them.
    #[error("no host has kept a log record on this NATS system")]
    None,
    /// JetStream does not answer, or refuses.
    #[error("log records cannot be read")]
    JetStream(#[source] async_nats::Error),
}

/// Reads records in the order in which they were kept; `each` returns whether to go on.
///
/// # Errors
///
/// There is no stream of records, or JetStream cannot be reached. While records are followed, it is waited
/// for instead.
pub async fn read(
    context: &Context,
    wanted: &Wanted,
    mut each: impl FnMut(Record) -> bool,
) -> Result<(), LogsError> {
    let since = time::Duration::try_from(wanted.since).ok();
    let from = since.and_then(|since| OffsetDateTime::now_utc().checked_sub(since));
    // What is older than time itself is everything.
    let mut start = from.map_or(DeliverPolicy::All, |start_time| {
        DeliverPolicy::ByStartTime { start_time }
    });
    loop {
        let consumer = match consumer(context, wanted, start).await {
            Ok(consumer) => consumer,
            Err(LogsError::JetStream(error)) if wanted.follow && last_of(start).is_some() => {
                tracing::debug!(%error, "log records cannot be followed, trying again");
                sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if !wanted.follow && consumer.cached_info().num_pending == 0 {
            return Ok(());
        }
        let messages = consumer.stream().max_messages_per_batch(BATCH);
        let messages = messages.heartbeat(HEARTBEAT).messages().await;
        let mut messages = messages.map_err(failed)?;
        while let Some(Ok(message)) = messages.next().await {
            let Ok(info) = message.info() else {
                continue;
            };
            let (sequence, pending) = (info.stream_sequence, info.pending);
            start = DeliverPolicy::ByStartSequence {
                start_sequence: sequence + 1,
            };
            // What is no record was published by somebody else.
            let record = serde_json::from_slice::<Record>(&message.payload).ok();
            let record = record.filter(|record| {
                let host = wanted.host.as_ref();
                host.is_none_or(|host| *host == record.host)
            });
            if record.is_some_and(|record| !each(record)) || !wanted.follow && pending == 0 {
                return Ok(());
            }
        }
        sleep(AGAIN).await;
    }
}

/// The sequence from which a reader goes on, once it has read something.
fn last_of(start: DeliverPolicy) -> Option<u64> {
    match start {
        DeliverPolicy::ByStartSequence { start_sequence } => Some(start_sequence),
        _ => None,
    }
}

async fn consumer(
    context: &Context,
    wanted: &Wanted,
    start: DeliverPolicy,
) -> Result<PullConsumer, LogsError> {
    let config = pull::Config {
        filter_subject: subject::logs(wanted.app.as_deref(), wanted.service.as_deref()),
        deliver_policy: start,
        ack_policy: AckPolicy::None,
        inactive_threshold: GONE,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let stream = context.get_stream(subject::LOG_STREAM).await;
    let stream = stream.map_err(|error| match error.kind() {
        context::GetStreamErrorKind::JetStream(ref refused)
            if refused.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND =>
        {
            LogsError::None
        }
        _ => failed(error),
    })?;
    stream.create_consumer(config).await.map_err(failed)
}

fn failed(error: impl Into<async_nats::Error>) -> LogsError {
    LogsError::JetStream(error.into())
}
