//! Spans, metrics and log records, as a collector of OpenTelemetry gets them from `wasmbay up`.

mod guests;
mod through;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::support::DEADLINE;
use crate::support::cli::{Cli, Up};
use crate::support::components::{CALLER, GUEST, OTHER, PUBLISHES, RETURNS_ERROR};
use crate::support::http;

/// Bodies by the path that they were sent to.
type Bodies = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Takes what is exported.
pub(crate) struct Collector {
    address: SocketAddr,
    bodies: Bodies,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, bodies) = (listener.local_addr().unwrap(), Bodies::default());
        let kept = Arc::clone(&bodies);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, bodies) = (stream.unwrap(), Arc::clone(&kept));
                thread::spawn(move || take(stream, &bodies));
            }
        });
        Self { address, bodies }
    }

    /// Has a host export to it.
    pub(crate) fn exported_by(&self, command: &mut Command) {
        command
            .env(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://{}", self.address),
            )
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
            .env("OTEL_BSP_SCHEDULE_DELAY", "10")
            .env("OTEL_BLRP_SCHEDULE_DELAY", "10");
    }

    /// Everything that was sent to a path.
    fn got<T: prost::Message + Default>(&self, path: &str) -> Vec<T> {
        let bodies = self.bodies.lock().unwrap();
        let sent = bodies.iter().filter(|(to, _)| to == path);
        sent.map(|(_, body)| T::decode(&**body).unwrap()).collect()
    }

    /// All spans with their service.
    fn spans(&self) -> Vec<(String, Span)> {
        let mut got = Vec::new();
        for request in self.got::<ExportTraceServiceRequest>("/v1/traces") {
            for of_resource in request.resource_spans {
                let resource = attributes(&of_resource.resource.unwrap().attributes);
                let name = format!(
                    "{}/{}",
                    resource["service.namespace"], resource["service.name"]
                );
                for scope in of_resource.scope_spans {
                    got.extend(scope.spans.into_iter().map(|span| (name.clone(), span)));
                }
            }
        }
        got
    }

    /// The spans of a trace, by their service, once there are so many.
    pub(crate) fn trace(&self, id: &str, spans: usize) -> Vec<(String, Span)> {
        let of_trace = |(_, span): &(String, Span)| hex(&span.trace_id) == id;
        self.once(|| {
            let found: Vec<_> = self.spans().into_iter().filter(of_trace).collect();
            (found.len() >= spans).then_some(found)
        })
    }

    /// Waits for something that is sent.
    fn once<T>(&self, found: impl Fn() -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(Instant::now() < deadline, "{:#?}", self.spans());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Reads the requests of one connection.
fn take(mut stream: TcpStream, bodies: &Bodies) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            more(&mut stream, &mut read)?;
        };
        let head = String::from_utf8(read[..end].to_vec())
            .unwrap()
            .to_lowercase();
        let path = head
            .strip_prefix("post ")
            .unwrap()
            .split(' ')
            .next()
            .unwrap();
        assert!(
            head.contains("content-type: application/x-protobuf"),
            "{head}"
        );
        assert!(head.contains("\r\nx-key: secret"), "{head}");
        let length = head.split("content-length: ").nth(1).unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        while read.len() < end + length {
            more(&mut stream, &mut read)?;
        }
        let body: Vec<u8> = read.drain(..end + length).skip(end).collect();
        bodies.lock().unwrap().push((path.to_owned(), body));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
    }
}

fn more(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<()> {
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes).ok().filter(|count| *count > 0)?;
    read.extend_from_slice(&bytes[..count]);
    Some(())
}

pub(crate) fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    };
    pairs
        .iter()
        .filter_map(|pair| Some((pair.key.clone(), text(pair)?)))
        .collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const APP: &str = r#"
name = "traced"

[service.caller]
component = "caller.wat"

[service.other]
component = "other.wat"

[service.guest]
component = "guest.wat"

[service.publisher]
component = "publisher.wat"

[service.sink]
component = "sink.wat"

[wire."test:events/sink"]
mode = "event"

[[route]]
method = "GET"
path = "/ask/{n}"
call = "test:caller/api.ask"

[[route]]
method = "POST"
path = "/trap"
call = "test:guest/api.trap"

[[route]]
method = "POST"
path = "/publish/{key}/{n}"
call = "test:publisher/api.publish"
"#;

fn project() -> Cli {
    Cli::new().with(&[
        ("wasmbay.toml", APP),
        ("caller.wat", CALLER),
        ("other.wat", OTHER),
        ("guest.wat", GUEST),
        ("publisher.wat", PUBLISHES),
        ("sink.wat", RETURNS_ERROR),
    ])
}

fn up(collector: &Collector, more: &[(&str, &str)]) -> (Cli, Up, String) {
    up_of(project(), collector, more)
}

/// The host of a folder, which exports to the collector, and the address of its gateway.
fn up_of(cli: Cli, collector: &Collector, more: &[(&str, &str)]) -> (Cli, Up, String) {
    let mut command = cli.command(&["up", "--listen", "127.0.0.1:0", "--no-watch"]);
    collector.exported_by(&mut command);
    command.envs(more.iter().copied());
    let up = Up::start(command);
    up.until("ready");
    let announced = std::fs::read(cli.path(".wasmbay/host.json")).unwrap();
    let announced: serde_json::Value = serde_json::from_slice(&announced).unwrap();
    let gateway = announced["gateway"].as_str().unwrap();
    let address = gateway.trim_start_matches("http://").to_owned();
    (cli, up, address)
}

/// The trace id of the answer.
pub(crate) fn ask(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, String) {
    let answer = http::send(address, method, path, headers, "").unwrap();
    let parent = answer.head.split("traceparent: ").nth(1).unwrap();
    (answer.status, parent[3..35].to_owned())
}

pub(crate) fn span<'s>(spans: &'s [(String, Span)], service: &str, kind: SpanKind) -> &'s Span {
    let mut found = spans
        .iter()
        .filter(|(name, span)| name == service && span.kind == kind as i32);
    let (Some((_, span)), None) = (found.next(), found.next()) else {
        panic!("not one {kind:?} of {service}: {spans:#?}");
    };
    span
}

#[test]
fn a_request_is_one_trace_through_all_services() {
    let collector = Collector::start();
    let (_cli, up, address) = up(&collector, &[]);
    let (status, trace) = ask(&address, "GET", "/ask/7", &[]);
    assert_eq!(status, 200);
    let spans = collector.trace(&trace, 4);
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let gateway = span(&spans, "traced/gateway", SpanKind::Server);
    let called = span(&spans, "traced/caller", SpanKind::Server);
    let import = span(&spans, "traced/caller", SpanKind::Client);
    let other = span(&spans, "traced/other", SpanKind::Server);
    assert!(gateway.parent_span_id.is_empty());
    assert_eq!(called.parent_span_id, gateway.span_id);
    assert_eq!(import.parent_span_id, called.span_id);
    assert_eq!(other.parent_span_id, import.span_id);
    assert_eq!(gateway.name, "GET /ask/{n}");
    let of_gateway = attributes(&gateway.attributes);
    assert_eq!(of_gateway["http.route"], "/ask/{n}");
    assert_eq!(of_gateway["http.response.status_code"], "200");
    assert_eq!(of_gateway["url.path"], "/ask/7");
    assert_eq!(other.name, "test:other/api.ask@1.0.0");
    let of_other = attributes(&other.attributes);
    assert_eq!(of_other["rpc.method"], "test:other/api.ask@1.0.0");
    for span in [gateway, called, import] {
        assert!(span.start_time_unix_nano <= other.start_time_unix_nano);
        assert!(span.end_time_unix_nano >= other.end_time_unix_nano);
    }

    // A trace that began elsewhere goes on, and the event at its end belongs to it.
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (_, trace) = ask(&address, "POST", "/publish/1/2", &[("traceparent", parent)]);
    assert_eq!(trace, parent[3..35]);
    let spans = collector.trace(&trace, 4);
    let gateway = span(&spans, "traced/gateway", SpanKind::Server);
    assert_eq!(hex(&gateway.parent_span_id), parent[36..52]);
    let published = span(&spans, "traced/publisher", SpanKind::Producer);
    let handled = span(&spans, "traced/sink", SpanKind::Consumer);
    assert_eq!(handled.parent_span_id, published.span_id);
    let of_handled = attributes(&handled.attributes);
    assert_eq!(of_handled["messaging.operation.type"], "process");
    up.stop();
}

#[test]
fn each_attempt_at_an_event_and_its_dead_letter_are_spans_of_its_trace() {
    let collector = Collector::start();
    let cli = project();
    let durable =
        "mode = \"event\"\ndurable = true\nretry = { attempts = 2, backoff = [\"10ms\"] }";
    cli.write("wasmbay.toml", APP.replace("mode = \"event\"", durable));
    let (_cli, up, address) = up_of(cli, &collector, &[]);
    let (_, trace) = ask(&address, "POST", "/publish/1/13", &[]);
    let spans = collector.trace(&trace, 6);
    let published = span(&spans, "traced/publisher", SpanKind::Producer);
    let attempts = spans.iter().map(|(_, span)| span);
    let attempts: Vec<_> = attempts
        .filter(|span| span.kind == SpanKind::Consumer as i32)
        .collect();
    assert_eq!(attempts.len(), 2, "{spans:#?}");
    for attempt in attempts {
        assert_eq!(attempt.parent_span_id, published.span_id);
    }
    let dead = span(&spans, "traced/sink", SpanKind::Producer);
    assert_eq!(dead.name, "dead-letter test:events/sink.happened@1.0.0");
    assert_eq!(dead.parent_span_id, published.span_id);
    assert_eq!(
        attributes(&dead.attributes)["wasmbay.dead_letter"].len(),
        16
    );
    up.stop();
}

/// A run of two steps, of which the second fails at each attempt.
const STEPS: &str = r#"
[pipeline.steps]
implements = "test:steps/api.go"
type = "func(text: string) -> string"
result = "$first"

[[pipeline.steps.step]]
name = "first"
call = "test:guest/api.echo"
with = { text = "$.text" }
undo = { call = "test:guest/api.echo", with = { text = "undone" } }

[[pipeline.steps.step]]
name = "second"
call = "test:guest/api.trap"
retry = { attempts = 2, backoff = ["10ms"] }

[[route]]
method = "POST"
path = "/steps"
call = "test:steps/api.go"
"#;

#[test]
fn each_attempt_at_a_step_is_a_span_of_its_trace_with_the_id_of_the_step() {
    let collector = Collector::start();
    let cli = project();
    cli.write("wasmbay.toml", format!("{APP}{STEPS}"));
    let (_cli, up, address) = up_of(cli, &collector, &[]);
    let answer = http::send(&address, "POST", "/steps", &[], "\"hi\"").unwrap();
    assert_eq!(answer.status, 502, "{answer:?}");
    let run = answer.json()["error"]["run"].as_str().unwrap().to_owned();
    let parent = answer.head.split("traceparent: ").nth(1).unwrap();
    let trace = &parent[3..35];
    let is_step = |(name, span): &(String, Span)| {
        name == "traced/steps"
            && hex(&span.trace_id) == trace
            && span.kind == SpanKind::Client as i32
    };
    let mut steps = collector.once(|| {
        let spans: Vec<_> = collector.spans().into_iter().filter(is_step).collect();
        (spans.len() >= 4).then_some(spans)
    });
    steps.sort_by_key(|(_, span)| span.start_time_unix_nano);
    let shown: Vec<_> = steps
        .iter()
        .map(|(_, span)| {
            let id = attributes(&span.attributes)["wasmbay.step"].clone();
            (span.name.as_str(), id)
        })
        .collect();
    let (echo, trap) = (
        "step test:guest/api.echo@1.0.0",
        "step test:guest/api.trap@1.0.0",
    );
    let id = |step: &str| format!("{run}.{step}");
    let expected = [
        (echo, id("first")),
        (trap, id("second")),
        (trap, id("second")),
        (echo, id("first.undo")),
    ];
    assert_eq!(shown, expected);
    // What a step calls is below it.
    let (_, first) = &steps[0];
    let served = collector.once(|| {
        let spans = collector.spans().into_iter();
        let mut below = spans.filter(|(_, span)| span.parent_span_id == first.span_id);
        below.next()
    });
    assert_eq!(served.0, "traced/guest");
    up.stop();
}

#[test]
fn what_fails_is_recorded_although_nothing_is_sampled() {
    let collector = Collector::start();
    let (_cli, up, address) = up(
        &collector,
        &[("OTEL_TRACES_SAMPLER", "parentbased_always_off")],
    );
    let (status, fine) = ask(&address, "GET", "/ask/7", &[]);
    assert_eq!(status, 200);
    let (status, trace) = ask(&address, "POST", "/trap", &[]);
    assert_eq!(status, 500);
    let spans = collector.trace(&trace, 2);
    let trapped = span(&spans, "traced/guest", SpanKind::Server);
    let status = trapped.status.as_ref().unwrap();
    assert!(status.message.contains("unreachable"), "{status:?}");
    let of_trapped = attributes(&trapped.attributes);
    assert_eq!(of_trapped["error.type"], "500");
    assert_eq!(of_trapped["wasmbay.blame"], "guest");
    let gateway = span(&spans, "traced/gateway", SpanKind::Server);
    assert_eq!(attributes(&gateway.attributes)["error.type"], "500");
    up.stop();
    let got = collector.spans();
    assert!(got.iter().all(|(_, span)| hex(&span.trace_id) != fine));
}

#[test]
fn a_host_that_stops_exports_what_it_has() {
    let collector = Collector::start();
    let minute = ("OTEL_BSP_SCHEDULE_DELAY", "60000");
    let (_cli, up, address) = up(&collector, &[minute]);
    let traces: BTreeSet<_> = (0..3)
        .map(|_| ask(&address, "GET", "/ask/7", &[]).1)
        .collect();
    up.stop();
    let got = collector.spans();
    let exported: BTreeSet<_> = got.iter().map(|(_, span)| hex(&span.trace_id)).collect();
    assert_eq!(exported, traces);
}

#[test]
fn without_a_collector_calls_are_answered_and_it_is_said_once() {
    let collector = Collector::start();
    let nowhere = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let (_cli, up, address) = up(&collector, &[nowhere]);
    for _ in 0..3 {
        assert_eq!(ask(&address, "GET", "/ask/7", &[]).0, 200);
        up.until("spans cannot be exported, they are lost");
    }
    let stderr = up.stderr();
    let why = "http://127.0.0.1:1/v1/traces: Connection refused";
    assert!(stderr.contains(why), "{stderr}");
    assert_eq!(
        stderr.matches("spans cannot be exported").count(),
        1,
        "{stderr}"
    );
    up.stop();
}

/// A metric's value for a service, or of an app or host as a whole; of a histogram, its count.
fn value(
    request: &ExportMetricsServiceRequest,
    metric: &str,
    service: Option<&str>,
) -> Option<f64> {
    let scopes = request
        .resource_metrics
        .iter()
        .flat_map(|one| &one.scope_metrics);
    let mut metrics = scopes.flat_map(|scope| &scope.metrics);
    let found = metrics.find(|found| found.name == metric)?;
    let is_of =
        |pairs: &[KeyValue]| attributes(pairs).get("service").map(String::as_str) == service;
    match found.data.as_ref()? {
        Data::Gauge(gauge) => numbers(&gauge.data_points, is_of),
        Data::Sum(sum) => {
            assert!(sum.is_monotonic);
            numbers(&sum.data_points, is_of)
        }
        Data::Histogram(histogram) => {
            assert_eq!(found.unit, "s");
            let mut points = histogram.data_points.iter();
            let point = points.find(|point| is_of(&point.attributes))?;
            assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
            Some(f64::from(u32::try_from(point.count).unwrap()))
        }
        other => panic!("{other:?}"),
    }
}

fn numbers(points: &[NumberDataPoint], is_of: impl Fn(&[KeyValue]) -> bool) -> Option<f64> {
    let mut points = points.iter();
    match points.find(|point| is_of(&point.attributes))?.value? {
        Number::AsDouble(number) => Some(number),
        Number::AsInt(_) => None,
    }
}

#[test]
fn metrics_are_exported_and_once_more_at_the_end() {
    let collector = Collector::start();
    let (_cli, up, address) = up(&collector, &[("OTEL_METRIC_EXPORT_INTERVAL", "100")]);
    for _ in 0..3 {
        assert_eq!(ask(&address, "GET", "/ask/7", &[]).0, 200);
    }
    let path = "/v1/metrics";
    let calls = "rpc.server.call.duration";
    let request = collector.once(|| {
        let requests = collector.got::<ExportMetricsServiceRequest>(path);
        let mut requests = requests.into_iter();
        requests.find(|request| value(request, calls, Some("caller")) == Some(3.0))
    });
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    let resource = attributes(&resource.attributes);
    assert_eq!(resource["service.name"], "wasmbay");
    assert!(!resource["service.instance.id"].is_empty());
    assert!(value(&request, "wasmbay.memory", Some("caller")).unwrap() > 0.0);
    assert_eq!(value(&request, "wasmbay.store_healthy", None), Some(1.0));
    // What is counted between the last export and the end is not lost.
    assert_eq!(ask(&address, "POST", "/trap", &[]).0, 500);
    up.stop();
    let last = collector
        .got::<ExportMetricsServiceRequest>(path)
        .pop()
        .unwrap();
    assert_eq!(value(&last, "wasmbay.errors", Some("guest")), Some(1.0));
}

#[test]
fn log_records_are_exported_with_whose_they_are_and_their_trace() {
    let collector = Collector::start();
    let (_cli, up, address) = up(&collector, &[("RUST_LOG", "info")]);
    let (_, trace) = ask(&address, "POST", "/trap", &[]);
    let records = |of: &str| {
        let requests = collector.got::<ExportLogsServiceRequest>("/v1/logs");
        let of_resources = requests
            .into_iter()
            .flat_map(|request| request.resource_logs);
        let own = of_resources.filter(|logs| {
            let resource = attributes(&logs.resource.as_ref().unwrap().attributes);
            assert!(!resource["service.instance.id"].is_empty());
            resource["service.name"] == of
        });
        let scopes = own.flat_map(|logs| logs.scope_logs);
        scopes
            .flat_map(|scope| scope.log_records)
            .collect::<Vec<_>>()
    };
    let body = |record: &LogRecord| format!("{:?}", record.body);
    let trapped = collector.once(|| {
        let records = records("guest").into_iter();
        let mut own = records.filter(|record| hex(&record.trace_id) == trace);
        own.find(|record| body(record).contains("failed") || !record.attributes.is_empty())
    });
    assert!(
        trapped.time_unix_nano > 1_700_000_000_000_000_000,
        "{trapped:?}"
    );
    assert!(!trapped.severity_text.is_empty() && trapped.severity_number > 0);
    up.stop();
    // The host's own, up to its last.
    assert!(!records("wasmbay").is_empty());
}

#[test]
fn a_variable_that_is_not_supported_is_named() {
    let cli = project();
    let mut command = cli.command(&["up"]);
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let up = Up::start(command);
    up.until("error: OTEL_EXPORTER_OTLP_PROTOCOL=grpc: http/protobuf is accepted");
    assert!(up.end().contains("exit 78"));
}
