//! Spans, as a collector of OpenTelemetry gets them from `wasmbay up`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use crate::support::DEADLINE;
use crate::support::cli::{Cli, Up};
use crate::support::components::{CALLER, GUEST, OTHER, PUBLISHES, RETURNS_ERROR};
use crate::support::http;

/// What a collector has got.
#[derive(Clone, Default)]
struct Got(Arc<Mutex<Vec<(String, Span)>>>);

/// Takes what is exported to `/v1/traces`.
struct Collector {
    address: SocketAddr,
    got: Got,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, got) = (listener.local_addr().unwrap(), Got::default());
        let kept = got.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, got) = (stream.unwrap(), kept.clone());
                thread::spawn(move || take(stream, &got));
            }
        });
        Self { address, got }
    }

    /// The spans of a trace, by their service, once there are so many.
    fn trace(&self, id: &str, spans: usize) -> Vec<(String, Span)> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let got = self.got.0.lock().unwrap().clone();
            let of_trace = |(_, span): &(String, Span)| hex(&span.trace_id) == id;
            let found: Vec<_> = got.iter().filter(|one| of_trace(one)).cloned().collect();
            if found.len() >= spans {
                return found;
            }
            assert!(Instant::now() < deadline, "{spans} of {id}: {got:#?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Reads the requests of one connection.
fn take(mut stream: TcpStream, got: &Got) -> Option<()> {
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
        assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
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
        let request = ExportTraceServiceRequest::decode(&*body).unwrap();
        for of_resource in request.resource_spans {
            let resource = attributes(&of_resource.resource.unwrap().attributes);
            let name = format!(
                "{}/{}",
                resource["service.namespace"], resource["service.name"]
            );
            for scope in of_resource.scope_spans {
                let spans = scope.spans.into_iter().map(|span| (name.clone(), span));
                got.0.lock().unwrap().extend(spans);
            }
        }
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

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
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

fn hex(bytes: &[u8]) -> String {
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
    let cli = project();
    let mut command = cli.command(&["up", "--listen", "127.0.0.1:0", "--no-watch"]);
    command
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", collector.address),
        )
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
        .env("OTEL_BSP_SCHEDULE_DELAY", "10")
        .envs(more.iter().copied());
    let up = Up::start(command);
    up.until("ready");
    let announced = std::fs::read(cli.path(".wasmbay/host.json")).unwrap();
    let announced: serde_json::Value = serde_json::from_slice(&announced).unwrap();
    let gateway = announced["gateway"].as_str().unwrap();
    let address = gateway.trim_start_matches("http://").to_owned();
    (cli, up, address)
}

/// The trace id of the answer.
fn ask(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let answer = http::send(address, method, path, headers, "").unwrap();
    let parent = answer.head.split("traceparent: ").nth(1).unwrap();
    (answer.status, parent[3..35].to_owned())
}

fn span<'s>(spans: &'s [(String, Span)], service: &str, kind: SpanKind) -> &'s Span {
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
    let got = collector.got.0.lock().unwrap();
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
    let got = collector.got.0.lock().unwrap();
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
