//! Records its own work by `wasi:otel`, as an SDK of OpenTelemetry would: tests look at what a collector
//! gets of it.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "instrumented",
    generate_all,
});

use exports::bay::instrumented::work::Guest;
use wasi::clocks::wall_clock::Datetime;
use wasi::otel::metrics::{
    Exemplar, Gauge, GaugeDataPoint, Histogram, HistogramDataPoint, Metric, MetricData,
    MetricNumber, ResourceMetrics, ScopeMetrics, Sum, SumDataPoint, Temporality,
};
use wasi::otel::tracing::{Event, Link, SpanContext, SpanData, SpanKind, Status};
use wasi::otel::types::{InstrumentationScope, KeyValue, Resource};
use wasi::otel::{logs, metrics, tracing};

struct Instrumented;

export!(Instrumented);

impl Guest for Instrumented {
    fn run(name: String) -> (String, String, String) {
        let outer = tracing::outer_span_context();
        let own = SpanContext {
            span_id: "00f067aa0ba902b7".to_owned(),
            is_remote: false,
            ..outer.clone()
        };
        tracing::on_start(&own);
        let greeting = bay::hello::greeter::greet(&name);
        log(&own, &greeting);
        count().expect("metrics are taken");
        tracing::on_end(&SpanData {
            attributes: vec![
                pair("greeted", "\"a name\""),
                pair("times", "3"),
                pair("weights", "[1.5, 2]"),
                pair("odd", "{\"a\": [1]}"),
                pair("no-json", "plain"),
            ],
            events: vec![Event {
                name: "asked".to_owned(),
                time: at(1),
                attributes: vec![pair("of", "\"greeter\"")],
            }],
            links: vec![Link {
                span_context: own.clone(),
                attributes: Vec::new(),
            }],
            status: Status::Error("as an example".to_owned()),
            ..span(&own, &outer.span_id)
        });
        (outer.trace_id, outer.span_id, own.span_id)
    }

    fn flood(spans: u32, attributes: u32) {
        let outer = tracing::outer_span_context();
        for number in 1..=spans {
            let own = SpanContext {
                span_id: format!("{number:016x}"),
                ..outer.clone()
            };
            tracing::on_start(&own);
            tracing::on_end(&SpanData {
                attributes: (0..attributes)
                    .map(|key| pair(&key.to_string(), &format!("\"{}\"", "x".repeat(8_000))))
                    .collect(),
                ..span(&own, &outer.span_id)
            });
        }
    }

    fn confuse(spans: u32) {
        let outer = tracing::outer_span_context();
        let with_id = |span_id: String| SpanContext {
            span_id,
            ..outer.clone()
        };
        let of_another = SpanContext {
            trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
            ..with_id("1".repeat(16))
        };
        for wrong in [
            of_another,
            with_id("0".repeat(16)),
            with_id("é".repeat(8)),
            with_id(String::new()),
            with_id("1".repeat(1_000)),
        ] {
            tracing::on_start(&wrong);
            tracing::on_end(&span(&wrong, "none"));
        }
        for number in 1..=spans {
            tracing::on_start(&with_id(format!("{number:016x}")));
        }
        // Of two that overlap, the outer one ends first.
        tracing::on_end(&span(&with_id(format!("{:016x}", 1)), &outer.span_id));
        let _ = bay::hello::greeter::greet("you");
    }
}

fn pair(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

fn at(seconds: u64) -> Datetime {
    Datetime {
        seconds: 1_700_000_000 + seconds,
        nanoseconds: 5,
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "greetings".to_owned(),
        version: Some("1.2".to_owned()),
        schema_url: None,
        attributes: Vec::new(),
    }
}

fn span(own: &SpanContext, parent: &str) -> SpanData {
    SpanData {
        span_context: own.clone(),
        parent_span_id: parent.to_owned(),
        span_kind: SpanKind::Internal,
        name: "greet somebody".to_owned(),
        start_time: at(0),
        end_time: at(2),
        attributes: Vec::new(),
        events: Vec::new(),
        links: Vec::new(),
        status: Status::Unset,
        instrumentation_scope: scope(),
        dropped_attributes: 0,
        dropped_events: 0,
        dropped_links: 0,
    }
}

fn log(own: &SpanContext, greeting: &str) {
    logs::on_emit(&logs::LogRecord {
        timestamp: Some(at(1)),
        observed_timestamp: None,
        severity_text: None,
        severity_number: Some(13),
        body: Some(format!("\"{greeting}\"")),
        attributes: Some(vec![pair("greeting", "\"long\"")]),
        event_name: Some("greeted".to_owned()),
        resource: None,
        instrumentation_scope: Some(scope()),
        trace_id: Some(own.trace_id.clone()),
        span_id: Some(own.span_id.clone()),
        trace_flags: None,
    });
}

fn count() -> Result<(), String> {
    let exemplars = || {
        vec![Exemplar {
            filtered_attributes: Vec::new(),
            time: at(1),
            value: MetricNumber::U64(7),
            span_id: "00f067aa0ba902b7".to_owned(),
            trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
        }]
    };
    let metric = |name: &str, data| Metric {
        name: name.to_owned(),
        description: "What it is.".to_owned(),
        unit: "1".to_owned(),
        data,
    };
    let sum = MetricData::U64Sum(Sum {
        data_points: vec![SumDataPoint {
            attributes: vec![pair("language", "\"en\"")],
            value: MetricNumber::U64(7),
            exemplars: exemplars(),
        }],
        start_time: at(0),
        time: at(1),
        temporality: Temporality::LowMemory,
        is_monotonic: true,
    });
    let gauge = MetricData::F64Gauge(Gauge {
        data_points: vec![GaugeDataPoint {
            attributes: Vec::new(),
            value: MetricNumber::F64(0.5),
            exemplars: Vec::new(),
        }],
        start_time: None,
        time: at(1),
    });
    let histogram = MetricData::S64Histogram(Histogram {
        data_points: vec![HistogramDataPoint {
            attributes: Vec::new(),
            count: 3,
            bounds: vec![1.0, 10.0],
            bucket_counts: vec![1, 2, 0],
            min: Some(MetricNumber::S64(-1)),
            max: None,
            sum: MetricNumber::S64(9),
            exemplars: Vec::new(),
        }],
        start_time: at(0),
        time: at(1),
        temporality: Temporality::Cumulative,
    });
    metrics::export(&ResourceMetrics {
        resource: Resource {
            attributes: vec![pair("service.name", "\"somebody else\"")],
            schema_url: None,
        },
        scope_metrics: vec![ScopeMetrics {
            scope: scope(),
            metrics: vec![
                metric("greetings", sum),
                metric("mood", gauge),
                metric("lengths", histogram),
            ],
        }],
    })
}
