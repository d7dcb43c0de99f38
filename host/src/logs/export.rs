//! Log records to a collector of OpenTelemetry, on a thread of its own: encoding takes time that calls can
//! use. A full queue loses records and counts them.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::Record;
use crate::otlp::{Environment, Exporter, OtlpError, Signal, attribute, bytes, resource, text};

/// Time for the last records of a host that stops.
const LAST: Duration = Duration::from_secs(2);

/// How records are put together.
struct Batches {
    /// Records of one export.
    most: usize,
    /// Time for which a record waits for others.
    delay: Duration,
}

/// Records that are being exported.
pub struct Export {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Export {
    /// Starts the exporter that the environment asks for, with the way to it.
    pub(super) fn start(
        environment: &Environment<'_>,
    ) -> Result<Option<(Self, mpsc::Sender<Record>)>, OtlpError> {
        let Some(exporter) = Exporter::new(Signal::Logs, environment)? else {
            return Ok(None);
        };
        let queue = environment.number("OTEL_BLRP_MAX_QUEUE_SIZE", 2_048)?;
        let most = environment.number("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", 512)?;
        let delay = environment.number("OTEL_BLRP_SCHEDULE_DELAY", 1_000)?;
        let batches = Batches {
            most: most as usize,
            delay: Duration::from_millis(delay.into()),
        };
        let (sender, receiver) = mpsc::channel(queue as usize);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("wasmbay-logs".to_owned());
        let spawned = thread.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => runtime.block_on(run(receiver, &exporter, &batches, stopped)),
                Err(error) => tracing::error!(%error, "log records cannot be exported"),
            }
        });
        match spawned {
            Ok(thread) => Ok(Some((Self { stop, thread }, sender))),
            Err(error) => {
                tracing::error!(%error, "log records cannot be exported");
                Ok(None)
            }
        }
    }

    /// Exports what is left, which blocks for as long as one export may take.
    pub fn finish(self) {
        let Self { stop, thread } = self;
        // An error means that it has ended.
        let _ = stop.send(());
        let _ = thread.join();
    }
}

async fn run(
    mut queue: mpsc::Receiver<Record>,
    exporter: &Exporter,
    batches: &Batches,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut batch = Vec::new();
    let mut due = Instant::now();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            record = queue.recv() => match record {
                Some(record) => {
                    if batch.is_empty() {
                        due = Instant::now() + batches.delay;
                    }
                    batch.push(record);
                    if batch.len() >= batches.most {
                        exporter.send(&request(std::mem::take(&mut batch))).await;
                    }
                }
                None => break,
            },
            () = sleep_until(due), if !batch.is_empty() => {
                exporter.send(&request(std::mem::take(&mut batch))).await;
            }
        }
    }
    while let Ok(record) = queue.try_recv() {
        batch.push(record);
    }
    let rest = async {
        while !batch.is_empty() {
            let next = batch.split_off(batch.len().min(batches.most));
            exporter
                .send(&request(std::mem::replace(&mut batch, next)))
                .await;
        }
    };
    if tokio::time::timeout(LAST, rest).await.is_err() {
        tracing::debug!("the last log records were not exported");
    }
}

/// Records by whose they are, as spans are: `service.namespace` is the app and `service.name` the service.
/// What is no service's is the host's own.
fn request(records: Vec<Record>) -> ExportLogsServiceRequest {
    type Origin = (String, Option<String>, Option<String>);
    let mut origins: BTreeMap<Origin, BTreeMap<String, Vec<LogRecord>>> = BTreeMap::new();
    for record in records {
        let origin = (
            record.host.clone(),
            record.app.clone(),
            record.service.clone(),
        );
        let targets = origins.entry(origin).or_default();
        targets
            .entry(record.target.clone())
            .or_default()
            .push(exported(record));
    }
    let of_origin =
        |((host, app, service), targets): (Origin, BTreeMap<String, Vec<LogRecord>>)| {
            let mut more = vec![("service.instance.id", &*host)];
            more.extend(app.as_deref().map(|app| ("service.namespace", app)));
            let scopes = targets.into_iter().map(|(name, log_records)| ScopeLogs {
                scope: Some(InstrumentationScope {
                    name,
                    ..InstrumentationScope::default()
                }),
                log_records,
                ..ScopeLogs::default()
            });
            ResourceLogs {
                resource: Some(resource(service.as_deref().unwrap_or("wasmbay"), &more)),
                scope_logs: scopes.collect(),
                ..ResourceLogs::default()
            }
        };
    ExportLogsServiceRequest {
        resource_logs: origins.into_iter().map(of_origin).collect(),
    }
}

fn exported(record: Record) -> LogRecord {
    let time = OffsetDateTime::parse(&record.timestamp, &Rfc3339).ok();
    let time = time.and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok());
    let severity = match &*record.level {
        "ERROR" => SeverityNumber::Error,
        "WARN" => SeverityNumber::Warn,
        "INFO" => SeverityNumber::Info,
        "DEBUG" => SeverityNumber::Debug,
        _ => SeverityNumber::Trace,
    };
    let attributes = record.fields.iter().map(|(name, value)| match value {
        Value::String(text) => attribute(name, text.clone()),
        other => attribute(name, other.to_string()),
    });
    LogRecord {
        time_unix_nano: time.unwrap_or_default(),
        observed_time_unix_nano: time.unwrap_or_default(),
        severity_number: severity.into(),
        severity_text: record.level,
        attributes: attributes.collect(),
        trace_id: bytes(record.trace_id.as_deref()),
        span_id: bytes(record.span_id.as_deref()),
        body: Some(text(record.message)),
        ..LogRecord::default()
    }
}
