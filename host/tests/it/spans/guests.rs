//! What a guest records of its work itself, by `wasi:otel`.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::{Collector, ask, attributes, hex, span, up_of};
use crate::examples::guest;
use crate::support::cli::{Cli, Up};

const APP: &str = r#"
name = "traced"

[service.instrumented]
component = "instrumented.wasm"
reuse = 100

[service.hello]
component = "hello.wasm"

[[route]]
method = "POST"
path = "/run/{name}"
call = "bay:instrumented/work.run"

[[route]]
method = "POST"
path = "/flood/{spans}/{attributes}"
call = "bay:instrumented/work.flood"

[[route]]
method = "POST"
path = "/confuse/{spans}"
call = "bay:instrumented/work.confuse"
"#;

fn up(collector: &Collector, more: &[(&str, &str)]) -> (Cli, Up, String) {
    let cli = Cli::new().with(&[("wasmbay.toml", APP)]);
    cli.write("instrumented.wasm", guest("guests/rust/instrumented"));
    cli.write("hello.wasm", guest("guests/rust/hello"));
    up_of(cli, collector, more)
}

#[test]
fn a_span_of_a_guest_is_within_its_call_and_around_what_it_calls() {
    let collector = Collector::start();
    let (_cli, up, address) = up(&collector, &[("RUST_LOG", "info")]);
    let (status, trace) = ask(&address, "POST", "/run/Ada", &[]);
    assert_eq!(status, 200);
    let spans = collector.trace(&trace, 5);
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let called = span(&spans, "traced/instrumented", SpanKind::Server);
    let own = span(&spans, "traced/instrumented", SpanKind::Internal);
    let import = span(&spans, "traced/instrumented", SpanKind::Client);
    assert_eq!(own.parent_span_id, called.span_id);
    assert_eq!(import.parent_span_id, own.span_id);
    assert_eq!(hex(&own.span_id), "00f067aa0ba902b7");
    assert_eq!(own.name, "greet somebody");
    assert_eq!(own.start_time_unix_nano, 1_700_000_000_000_000_005);
    assert_eq!(own.end_time_unix_nano, 1_700_000_002_000_000_005);
    assert_eq!(own.status.as_ref().unwrap().message, "as an example");
    let of_own = attributes(&own.attributes);
    assert_eq!(of_own["greeted"], "a name");
    assert_eq!(of_own["times"], "3");
    assert_eq!(of_own["odd"], r#"{"a":[1]}"#);
    assert_eq!(of_own["no-json"], "plain");
    let weights = own.attributes.iter().find(|pair| pair.key == "weights");
    let weights = weights.unwrap().value.as_ref().unwrap().value.as_ref();
    let Some(Value::ArrayValue(weights)) = weights else {
        panic!("{weights:?}");
    };
    assert_eq!(weights.values[0].value, Some(Value::DoubleValue(1.5)));
    assert_eq!(own.events[0].name, "asked");
    assert_eq!(attributes(&own.events[0].attributes)["of"], "greeter");
    assert_eq!(own.links.len(), 1);

    // The log record is of that span.
    let record = collector.once(|| {
        let requests = collector.got::<ExportLogsServiceRequest>("/v1/logs");
        let of_resources = requests.into_iter().flat_map(|one| one.resource_logs);
        let scopes = of_resources.flat_map(|logs| logs.scope_logs);
        let mut records = scopes.flat_map(|scope| scope.log_records);
        records.find(|record| record.span_id == own.span_id)
    });
    assert_eq!(hex(&record.trace_id), trace);
    assert_eq!(record.severity_text, "WARN");
    let body = record.body.unwrap().value.unwrap();
    assert_eq!(body, Value::StringValue("Hello, Ada!".to_owned()));
    let of_record = attributes(&record.attributes);
    assert_eq!(of_record["context"], "greetings");
    assert_eq!(
        of_record["attributes"],
        r#"{"event.name":"greeted","greeting":"long"}"#
    );
    up.stop();
}

#[test]
fn metrics_of_a_guest_are_its_services_whatever_it_says() {
    let collector = Collector::start();
    let (_cli, up, address) = up(&collector, &[]);
    assert_eq!(ask(&address, "POST", "/run/Ada", &[]).0, 200);
    let (resource, metrics) = collector.once(|| {
        let requests = collector.got::<ExportMetricsServiceRequest>("/v1/metrics");
        let mut resources = requests.into_iter().flat_map(|one| one.resource_metrics);
        let own = resources.find(|metrics| {
            let resource = attributes(&metrics.resource.as_ref().unwrap().attributes);
            resource["service.name"] == "instrumented"
        });
        let own = own?;
        let metrics: Vec<_> = own
            .scope_metrics
            .into_iter()
            .flat_map(|scope| {
                assert_eq!(scope.scope.unwrap().name, "greetings");
                scope.metrics
            })
            .collect();
        Some((attributes(&own.resource.unwrap().attributes), metrics))
    });
    assert_eq!(resource["service.namespace"], "traced");
    assert_eq!(resource["service.instance.id"].len(), 16);
    let metrics: BTreeMap<_, Metric> = metrics
        .into_iter()
        .map(|metric| (metric.name.clone(), metric))
        .collect();
    let Some(Data::Sum(sum)) = &metrics["greetings"].data else {
        panic!("{metrics:#?}");
    };
    let delta: i32 = AggregationTemporality::Delta.into();
    assert_eq!(
        (sum.is_monotonic, sum.aggregation_temporality),
        (true, delta)
    );
    let point = &sum.data_points[0];
    assert_eq!(point.value, Some(Number::AsInt(7)));
    assert_eq!(attributes(&point.attributes)["language"], "en");
    assert_eq!(point.exemplars[0].span_id.len(), 8);
    let Some(Data::Gauge(gauge)) = &metrics["mood"].data else {
        panic!("{metrics:#?}");
    };
    assert_eq!(gauge.data_points[0].value, Some(Number::AsDouble(0.5)));
    let Some(Data::Histogram(histogram)) = &metrics["lengths"].data else {
        panic!("{metrics:#?}");
    };
    let point = &histogram.data_points[0];
    assert_eq!(
        (point.count, point.sum, point.min),
        (3, Some(9.0), Some(-1.0))
    );
    assert_eq!(
        (&*point.bucket_counts, &*point.explicit_bounds),
        (&[1, 2, 0][..], &[1.0, 10.0][..])
    );
    up.stop();
}

#[test]
fn spans_of_a_guest_are_bounded() {
    let collector = Collector::start();
    let (_cli, up, address) = up(&collector, &[]);
    // Attributes beyond 128 are dropped, and of values what is beyond 4 KiB.
    let (status, trace) = ask(&address, "POST", "/flood/1/130", &[]);
    assert_eq!(status, 204);
    let spans = collector.trace(&trace, 3);
    let own = span(&spans, "traced/instrumented", SpanKind::Internal);
    assert_eq!(
        (own.attributes.len(), own.dropped_attributes_count),
        (128, 2)
    );
    assert!(
        attributes(&own.attributes)
            .values()
            .all(|value| value.len() == 4 << 10)
    );
    // Spans beyond what a service may write in a second are dropped, and that is said.
    let (status, trace) = ask(&address, "POST", "/flood/1500/0", &[]);
    assert_eq!(status, 204);
    up.until("output was dropped");
    up.stop();
    let spans = collector.trace(&trace, 2).into_iter();
    let own = spans.filter(|(_, span)| span.kind == SpanKind::Internal as i32);
    let own = own.count();
    assert!((1..1_500).contains(&own), "{own}");
}

#[test]
fn spans_that_do_not_fit_the_call_change_nothing() {
    let collector = Collector::start();
    let (_cli, up, address) = up(&collector, &[]);
    let (status, trace) = ask(&address, "POST", "/confuse/2", &[]);
    assert_eq!(status, 204);
    let spans = collector.trace(&trace, 5);
    // One has ended, and what was begun within it goes on.
    assert_eq!(spans.len(), 5, "{spans:#?}");
    let import = span(&spans, "traced/instrumented", SpanKind::Client);
    assert_eq!(hex(&import.parent_span_id), format!("{:016x}", 2));
    // Beyond 64 that are open, more are not begun.
    let (status, trace) = ask(&address, "POST", "/confuse/100", &[]);
    assert_eq!(status, 204);
    let spans = collector.trace(&trace, 5);
    let import = span(&spans, "traced/instrumented", SpanKind::Client);
    assert_eq!(hex(&import.parent_span_id), format!("{:016x}", 64));
    // The next call of the instance begins where it should.
    let (_, trace) = ask(&address, "POST", "/confuse/0", &[]);
    let spans = collector.trace(&trace, 5);
    let called = span(&spans, "traced/instrumented", SpanKind::Server);
    let import = span(&spans, "traced/instrumented", SpanKind::Client);
    assert_eq!(import.parent_span_id, called.span_id);
    up.stop();
    let foreign = collector.spans();
    assert!(
        foreign
            .iter()
            .all(|(_, span)| hex(&span.trace_id) != "0af7651916cd43dd8448eb211c80319c")
    );
}

#[test]
fn a_guests_spans_of_a_trace_that_is_not_sampled_are_not_recorded() {
    let collector = Collector::start();
    let off = ("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    let (_cli, up, address) = up(&collector, &[off]);
    assert_eq!(ask(&address, "POST", "/run/Ada", &[]).0, 200);
    up.stop();
    assert!(collector.spans().is_empty(), "{:#?}", collector.spans());
}
