//! Exports finished spans by OTLP over HTTP, on a thread of its own: the exporter waits between
//! attempts by sleeping, and encoding takes time that calls can use.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::client::Client;
use super::sampler::{ARGUMENT, SAMPLER, Sampler};
use super::{Command, Finished, Origin, Spans};

const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const PROTOCOLS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];

/// A variable of the environment has a value that is not supported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}={value}: {accepted} is accepted")]
pub struct SpansError {
    variable: String,
    value: String,
    accepted: String,
}

impl SpansError {
    pub(super) fn new(variable: &str, value: &str, accepted: &str) -> Self {
        Self {
            variable: variable.to_owned(),
            value: value.to_owned(),
            accepted: accepted.to_owned(),
        }
    }
}

/// How spans are put together.
struct Batches {
    /// Spans that wait; more are lost.
    queue: usize,
    /// Spans of one export.
    most: usize,
    /// Time for which a span waits for others.
    delay: Duration,
}

type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Starts the exporter that the environment asks for.
pub(super) fn start(environment: &Environment<'_>) -> Result<Spans, SpansError> {
    // Set and empty is not set, by the specification.
    let get = |name: &str| environment(name).filter(|value| !value.is_empty());
    let disabled = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if disabled || !ENDPOINTS.iter().any(|name| get(name).is_some()) {
        return Ok(Spans::default());
    }
    match get("OTEL_TRACES_EXPORTER").as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(Spans::default()),
        Some(other) => {
            let accepted = "otlp or none";
            return Err(SpansError::new("OTEL_TRACES_EXPORTER", other, accepted));
        }
    }
    for name in PROTOCOLS {
        if let Some(other) = get(name).filter(|value| value != "http/protobuf") {
            return Err(SpansError::new(name, &other, "http/protobuf"));
        }
    }
    let sampler = Sampler::parse(get(SAMPLER).as_deref(), get(ARGUMENT).as_deref())?;
    let batches = Batches {
        queue: number(&get, "OTEL_BSP_MAX_QUEUE_SIZE", 2_048)?,
        most: number(&get, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?,
        delay: Duration::from_millis(number(&get, "OTEL_BSP_SCHEDULE_DELAY", 5_000)? as u64),
    };
    let exporters = Exporters::new();
    // The exporter reads its own variables; a wrong one is named now.
    let endpoint = ENDPOINTS.iter().find_map(|name| Some((*name, get(name)?)));
    exporters.open(&Origin::default()).map_err(|error| {
        let (name, value) = endpoint.unwrap_or_default();
        SpansError::new(
            name,
            &value,
            &format!("{error}; a URL such as http://localhost:4318"),
        )
    })?;
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
        Ok(_) => Ok(Spans::new(sampler, sender)),
        Err(error) => {
            tracing::error!(%error, "spans cannot be exported");
            Ok(Spans::default())
        }
    }
}

fn number(
    get: &impl Fn(&str) -> Option<String>,
    name: &str,
    default: usize,
) -> Result<usize, SpansError> {
    let Some(text) = get(name) else {
        return Ok(default);
    };
    match text.parse() {
        Ok(number) if (1..=1_000_000).contains(&number) => Ok(number),
        _ => Err(SpansError::new(name, &text, "a number from 1 to 1000000")),
    }
}

/// Puts spans into batches until no more can come.
async fn run(mut queue: mpsc::Receiver<Command>, mut exporters: Exporters, batches: &Batches) {
    let mut batch = Vec::new();
    let mut due = Instant::now();
    loop {
        let command = tokio::select! {
            command = queue.recv() => command,
            () = sleep_until(due), if !batch.is_empty() => {
                exporters.export(std::mem::take(&mut batch)).await;
                continue;
            }
        };
        match command {
            Some(Command::Export(finished)) => {
                if batch.is_empty() {
                    due = Instant::now() + batches.delay;
                }
                batch.push(Arc::unwrap_or_clone(finished));
                if batch.len() >= batches.most {
                    exporters.export(std::mem::take(&mut batch)).await;
                }
            }
            Some(Command::Flush(done)) => {
                exporters.export(std::mem::take(&mut batch)).await;
                flushed(done);
            }
            None => return exporters.export(batch).await,
        }
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
    /// Spans that were lost since an export last succeeded.
    failed: usize,
}

impl Exporters {
    fn new() -> Self {
        Self {
            client: Arc::new(Client::default()),
            open: BTreeMap::new(),
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

    async fn export(&mut self, batch: Vec<Finished>) {
        let mut by_origin: BTreeMap<Arc<Origin>, Vec<SpanData>> = BTreeMap::new();
        for Finished { origin, span } in batch {
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
        start(&environment)
            .map(|spans| spans.is_on())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn spans_are_recorded_where_there_is_an_endpoint() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        assert_eq!(start_with(&[]), Ok(false));
        assert_eq!(start_with(&[(ENDPOINTS[1], "")]), Ok(false));
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
