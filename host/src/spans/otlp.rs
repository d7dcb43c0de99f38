//! Exports finished spans by OTLP over HTTP, on a thread of its own: the exporter waits between
//! attempts by sleeping, and encoding takes time that calls can use.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::sampler::{ARGUMENT, SAMPLER, Sampler};
use super::{Command, Finished, Origin, Recorder, Spans};
use crate::otlp::{Client, Environment, Exporter, OtlpError, Signal};

/// How spans are put together.
struct Batches {
    /// Spans that wait; more are lost.
    queue: usize,
    /// Spans of one export.
    most: usize,
    /// Time for which a span waits for others.
    delay: Duration,
}

/// Starts the exporter that the environment asks for.
pub(super) fn start(environment: &Environment<'_>) -> Result<Spans, OtlpError> {
    let traces = environment.endpoint(Signal::Traces)?;
    let metrics = Exporter::new(Signal::Metrics, environment)?;
    if traces.is_none() && metrics.is_none() {
        return Ok(Spans::default());
    }
    let get = |name: &str| environment.get(name);
    let sampler = Sampler::parse(get(SAMPLER).as_deref(), get(ARGUMENT).as_deref())?;
    let batches = Batches {
        queue: environment.number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048)? as usize,
        most: environment.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)? as usize,
        delay: Duration::from_millis(environment.number("OTEL_BSP_SCHEDULE_DELAY", 5_000)?.into()),
    };
    let takes_metrics = metrics.is_some();
    let exporters = Exporters::new(metrics);
    // The exporter reads its own variables; a wrong one is named now.
    if let Some((name, value)) = &traces {
        exporters.open(&Origin::default()).map_err(|error| {
            OtlpError::new(
                name,
                value,
                &format!("{error}; a URL such as http://localhost:4318"),
            )
        })?;
    }
    let (sender, receiver) = mpsc::channel(batches.queue);
    let thread = std::thread::Builder::new().name("wasmbay-spans".to_owned());
    let spawned = thread.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(run(receiver, exporters, &batches)),
            Err(error) => tracing::error!(%error, "spans cannot be exported"),
        }
    });
    match spawned {
        Ok(_) => {
            let recorder = traces.map(|_| Recorder::new(sampler, Some(sender.clone())));
            Ok(Spans::new(recorder, takes_metrics.then_some(sender)))
        }
        Err(error) => {
            tracing::error!(%error, "spans cannot be exported");
            Ok(Spans::default())
        }
    }
}

/// Puts spans into batches until no more can come.
async fn run(mut queue: mpsc::Receiver<Command>, mut exporters: Exporters, batches: &Batches) {
    let mut batch = Batch::default();
    let mut due = Instant::now();
    loop {
        let command = tokio::select! {
            command = queue.recv() => command,
            () = sleep_until(due), if batch.len() > 0 => {
                exporters.export(&mut batch).await;
                continue;
            }
        };
        if batch.len() == 0 {
            due = Instant::now() + batches.delay;
        }
        match command {
            Some(Command::Export(finished)) => batch.spans.push(Arc::unwrap_or_clone(finished)),
            Some(Command::Metrics(metrics)) => batch.metrics.push(*metrics),
            Some(Command::Flush(done)) => {
                exporters.export(&mut batch).await;
                flushed(done);
            }
            None => return exporters.export(&mut batch).await,
        }
        if batch.len() >= batches.most {
            exporters.export(&mut batch).await;
        }
    }
}

/// What is exported together.
#[derive(Default)]
struct Batch {
    spans: Vec<Finished>,
    metrics: Vec<ResourceMetrics>,
}

impl Batch {
    fn len(&self) -> usize {
        self.spans.len() + self.metrics.len()
    }
}

fn flushed(done: oneshot::Sender<()>) {
    // It may not be waited for any more.
    let _ = done.send(());
}

/// An exporter for each service: the resource is part of it. All use one connection.
struct Exporters {
    client: Arc<Client>,
    open: BTreeMap<Arc<Origin>, SpanExporter>,
    /// For the metrics of guests.
    metrics: Option<Exporter>,
    /// Spans that were lost since an export last succeeded.
    failed: usize,
}

impl Exporters {
    fn new(metrics: Option<Exporter>) -> Self {
        Self {
            client: Arc::new(Client::default()),
            open: BTreeMap::new(),
            metrics,
            failed: 0,
        }
    }

    fn open(&self, origin: &Origin) -> Result<SpanExporter, impl Display + use<>> {
        let client = Arc::clone(&self.client);
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_shared_http_client(client)
            .build();
        exporter.map(|mut exporter| {
            // With the attributes of OTEL_RESOURCE_ATTRIBUTES.
            let resource = Resource::builder()
                .with_service_name(origin.service.clone())
                .with_attribute(KeyValue::new("service.namespace", origin.app.clone()))
                .build();
            exporter.set_resource(&resource);
            exporter
        })
    }

    async fn export(&mut self, batch: &mut Batch) {
        let Batch { spans, metrics } = std::mem::take(batch);
        if let Some(exporter) = self.metrics.as_ref().filter(|_| !metrics.is_empty()) {
            let request = ExportMetricsServiceRequest {
                resource_metrics: metrics,
            };
            exporter.send(&request).await;
        }
        let mut by_origin: BTreeMap<Arc<Origin>, Vec<SpanData>> = BTreeMap::new();
        for Finished { origin, span } in spans {
            by_origin.entry(origin).or_default().push(span);
        }
        for (origin, spans) in by_origin {
            let count = spans.len();
            match self.export_all(origin, spans).await {
                Ok(()) if self.failed > 0 => {
                    tracing::info!(lost = self.failed, "spans are exported again");
                    self.failed = 0;
                }
                Ok(()) => {}
                Err(error) => {
                    let error = self.client.take_failure().unwrap_or(error);
                    // Once, until it is well again.
                    if self.failed == 0 {
                        tracing::warn!(%error, "spans cannot be exported, they are lost");
                    }
                    self.failed += count;
                }
            }
        }
    }

    async fn export_all(
        &mut self,
        origin: Arc<Origin>,
        spans: Vec<SpanData>,
    ) -> Result<(), String> {
        if !self.open.contains_key(&origin) {
            let exporter = self.open(&origin).map_err(|error| error.to_string())?;
            self.open.insert(Arc::clone(&origin), exporter);
        }
        match self.open.get(&origin) {
            Some(exporter) => exporter
                .export(spans)
                .await
                .map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start_with(variables: &[(&str, &str)]) -> Result<bool, String> {
        let environment = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        start(&Environment(&environment))
            .map(|spans| spans.is_on())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn spans_are_recorded_where_there_is_an_endpoint() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        assert_eq!(start_with(&[]), Ok(false));

        assert_eq!(start_with(&[endpoint]), Ok(true));
        assert_eq!(
            start_with(&[endpoint, ("OTEL_SDK_DISABLED", "true")]),
            Ok(false)
        );
        assert_eq!(
            start_with(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]),
            Ok(false)
        );
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        for (name, value, accepted) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
            ("OTEL_TRACES_EXPORTER", "zipkin", "otlp or none"),
            ("OTEL_TRACES_SAMPLER_ARG", "7", "a number from 0 to 1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "a number from 1 to 1000000"),
        ] {
            let sampler = ("OTEL_TRACES_SAMPLER", "traceidratio");
            let error = start_with(&[endpoint, sampler, (name, value)]).unwrap_err();
            assert_eq!(error, format!("{name}={value}: {accepted} is accepted"));
        }
    }
}
