//! From the queue of records to the stream that keeps them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use serde_json::Map;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::oneshot;
use tokio::time::{interval, sleep, timeout};

use super::{Record, Records};
use crate::nats::{ConnectError, ConnectOptions};
use crate::subject;

/// Records that wait to be kept; more are lost.
pub const QUEUE: usize = 4_096;

/// Bytes that the stream has unless it was created otherwise; the oldest records go first.
pub const MAX_BYTES: i64 = 64 << 20;

/// Age at which records go unless the stream was created otherwise.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Time between two tries to find or create the stream, and between two looks at whether it is still there.
const LOOK: Duration = Duration::from_secs(30);

/// Time for the last records when the host stops.
const LAST: Duration = Duration::from_secs(1);

impl Records {
    /// Keeps records until `stopped`, and then those that are there. The stream is created where there is
    /// none, and otherwise left as it is. Where it cannot be had that is tried again, and meanwhile records
    /// wait in the queue or are lost.
    pub async fn keep(mut self, nats: ConnectOptions, mut stopped: oneshot::Receiver<()>) {
        let client = tokio::select! {
            client = open(&nats) => client,
            _ = &mut stopped => return,
        };
        let mut look = interval(LOOK);
        look.reset();
        loop {
            tokio::select! {
                record = self.queue.recv() => match record {
                    Some(record) => {
                        self.publish(&client, &record).await;
                        if let Some(refused) = nats.violations.of(&subject::log_prefix()) {
                            return not_kept(&refused);
                        }
                    }
                    None => break,
                },
                _ = look.tick() => if let Err(error) = create(&nats, &client).await {
                    tracing::debug!(%error, "the stream of log records cannot be looked at");
                },
                _ = &mut stopped => break,
            }
        }
        let last = async {
            while let Ok(record) = self.queue.try_recv() {
                self.publish(&client, &record).await;
            }
            client.flush().await
        };
        if !matches!(timeout(LAST, last).await, Ok(Ok(()))) {
            tracing::debug!("the last log records could not be kept");
        }
    }

    async fn publish(&self, client: &Client, record: &Record) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            send(client, &gap(&self.host, lost)).await;
        }
        send(client, record).await;
    }
}

/// Connects, and finds or creates the stream; tried until it is done.
async fn open(nats: &ConnectOptions) -> Client {
    let nats = nats.clone().named("wasmbay logs");
    let mut told = false;
    loop {
        let opened = async {
            let client = nats.connect().await?;
            create(&nats, &client).await?;
            Ok::<_, Failure>(client)
        };
        match opened.await {
            Ok(client) => return client,
            Err(Failure::Without(error)) => tracing::debug!(%error, "no log records are kept"),
            Err(_) if told => {}
            Err(error) => {
                let refused = REQUESTS.iter().find_map(|subject| {
                    let subject = format!("{}.{subject}", nats.jetstream_prefix());
                    nats.violations.of(&subject)
                });
                match refused {
                    Some(refused) => not_kept(&refused),
                    None => not_kept(&error),
                }
                told = true;
            }
        }
        sleep(LOOK).await;
    }
}

fn not_kept(why: &dyn std::fmt::Display) {
    tracing::info!(
        %why,
        "log records are not kept, so `wasmbay logs` shows none of this host"
    );
}

/// What is asked of JetStream here, below its API's prefix.
const REQUESTS: [&str; 2] = ["STREAM.INFO.bay-logs", "STREAM.CREATE.bay-logs"];

/// Why records cannot be kept.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There is no JetStream, or not now: whoever needs it says so.
    #[error(transparent)]
    Without(CreateStreamError),
    #[error(transparent)]
    Refused(CreateStreamError),
}

impl From<CreateStreamError> for Failure {
    fn from(error: CreateStreamError) -> Self {
        let without = [
            ErrorCode::JETSTREAM_NOT_ENABLED,
            ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
        ];
        match error.kind() {
            CreateStreamErrorKind::JetStream(ref answer)
                if without.contains(&answer.error_code()) =>
            {
                Self::Without(error)
            }
            CreateStreamErrorKind::JetStreamUnavailable => Self::Without(error),
            _ => Self::Refused(error),
        }
    }
}

async fn create(nats: &ConnectOptions, client: &Client) -> Result<(), Failure> {
    let config = Config {
        name: subject::LOG_STREAM.to_owned(),
        description: Some("log records of hosts and their guests".to_owned()),
        subjects: vec![subject::logs(None, None)],
        discard: DiscardPolicy::Old,
        max_bytes: MAX_BYTES,
        max_age: MAX_AGE,
        ..Config::default()
    };
    let context = nats.jetstream(client.clone());
    context.get_or_create_stream(config).await?;
    Ok(())
}

/// A record that is lost is a gap in the log, which is not worth a call's time.
async fn send(client: &Client, record: &Record) {
    let subject = subject::log(record.app.as_deref(), record.service.as_deref());
    if let Err(error) = client.publish(subject, record.to_json().into()).await {
        tracing::debug!(%error, "a log record could not be kept");
    }
}

/// The record that stands where others are missing.
fn gap(host: &str, lost: u64) -> Record {
    Record {
        timestamp: OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default(),
        level: tracing::Level::WARN.to_string(),
        host: host.to_owned(),
        target: module_path!().to_owned(),
        app: None,
        service: None,
        trace_id: None,
        span_id: None,
        message: format!(
            "{lost} log records of this host were lost here: more came than could be kept"
        ),
        fields: Map::new(),
    }
}
