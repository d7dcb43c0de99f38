//! The same metrics by OTLP, under OpenTelemetry's names: with dots, and the unit beside the name.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric as Exported,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};

use super::family::{Families, Family, Kind, Metric, Value};
use super::{Process, gather};
use crate::admin::Admin;
use crate::otlp::{Environment, Exporter, OtlpError, Signal, attribute, nanoseconds, resource};
use crate::telemetry::BOUNDS;

/// Time for the last export of a host that stops.
const LAST: Duration = Duration::from_secs(2);

/// Exports the metrics of a host. Without a collector it does nothing.
#[derive(Clone, Default)]
pub struct MetricsExport(Option<Arc<Exporting>>);

struct Exporting {
    exporter: Exporter,
    every: Duration,
    host: String,
    started: u64,
}

impl MetricsExport {
    /// As the variables `OTEL_…` of the environment want it, for the host of this name: nothing without
    /// an endpoint, every minute without `OTEL_METRIC_EXPORT_INTERVAL`.
    ///
    /// # Errors
    ///
    /// A variable has a value that is not supported; the error names both.
    pub fn from_environment(host: &str) -> Result<Self, OtlpError> {
        let get = |name: &str| std::env::var(name).ok();
        let environment = Environment(&get);
        let Some(exporter) = Exporter::new(Signal::Metrics, &environment)? else {
            return Ok(Self(None));
        };
        let every = environment.number("OTEL_METRIC_EXPORT_INTERVAL", 60_000)?;
        Ok(Self(Some(Arc::new(Exporting {
            exporter,
            every: Duration::from_millis(every.into()),
            host: host.to_owned(),
            started: nanoseconds(SystemTime::now()),
        }))))
    }

    /// Exports until dropped.
    pub(crate) async fn run(self, process: Process, apps: impl Fn() -> Vec<Arc<Admin>>) {
        let Some(exporting) = &self.0 else {
            return;
        };
        let mut next = tokio::time::interval(exporting.every);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        next.reset();
        loop {
            next.tick().await;
            exporting.export(&process, &apps()).await;
        }
    }

    /// Exports once more, before a host ends.
    pub(crate) async fn finish(&self, process: &Process, apps: &[Arc<Admin>]) {
        let Some(exporting) = &self.0 else {
            return;
        };
        if tokio::time::timeout(LAST, exporting.export(process, apps))
            .await
            .is_err()
        {
            tracing::debug!("the last metrics were not exported");
        }
    }
}

impl Exporting {
    async fn export(&self, process: &Process, apps: &[Arc<Admin>]) {
        let apps: Vec<_> = apps.iter().map(|admin| &**admin).collect();
        let families = gather(process, &apps).await;
        self.exporter.send(&self.request(&families)).await;
    }

    fn request(&self, families: &Families) -> ExportMetricsServiceRequest {
        let times = (self.started, nanoseconds(SystemTime::now()));
        let scope = ScopeMetrics {
            scope: Some(InstrumentationScope {
                name: "wasmbay".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..InstrumentationScope::default()
            }),
            metrics: families
                .iter()
                .map(|family| exported(family, times))
                .collect(),
            ..ScopeMetrics::default()
        };
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(resource("wasmbay", &[("service.instance.id", &self.host)])),
                scope_metrics: vec![scope],
                ..ResourceMetrics::default()
            }],
        }
    }
}

/// The name and unit of a metric that Prometheus calls so.
fn named(name: &str) -> (String, &'static str) {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let (name, unit) = match name.strip_suffix("_seconds") {
        Some(name) => (name, "s"),
        None => match name.strip_suffix("_bytes") {
            Some(name) => (name, "By"),
            None => (name, ""),
        },
    };
    let name = match name.strip_prefix("wasmbay_") {
        Some(rest) => format!("wasmbay.{rest}"),
        None => dotted(name),
    };
    (name, unit)
}

/// A name of OpenTelemetry's conventions, none of whose words here has a `_`, or of an own label.
fn dotted(name: &str) -> String {
    let conventions = ["rpc_", "http_"];
    if !conventions.iter().any(|start| name.starts_with(start)) {
        return name.to_owned();
    }
    name.replace('_', ".").replace("status.code", "status_code")
}

fn exported(family: &Family, times: (u64, u64)) -> Exported {
    let (name, unit) = named(family.name);
    let cumulative = AggregationTemporality::Cumulative.into();
    let numbers = || {
        let numbers = family.metrics.iter();
        numbers.filter_map(|metric| number(metric, times)).collect()
    };
    let data = match family.kind {
        Kind::Gauge => Data::Gauge(Gauge {
            data_points: numbers(),
        }),
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        Kind::Histogram => Data::Histogram(Histogram {
            data_points: family
                .metrics
                .iter()
                .filter_map(|metric| durations(metric, times))
                .collect(),
            aggregation_temporality: cumulative,
        }),
    };
    Exported {
        name,
        description: family.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Exported::default()
    }
}

fn number(metric: &Metric, (start, now): (u64, u64)) -> Option<NumberDataPoint> {
    let Value::Number(number) = metric.value else {
        return None;
    };
    Some(NumberDataPoint {
        attributes: labels(metric),
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(Number::AsDouble(number)),
        ..NumberDataPoint::default()
    })
}

fn durations(metric: &Metric, (start, now): (u64, u64)) -> Option<HistogramDataPoint> {
    let Value::Durations(durations) = &metric.value else {
        return None;
    };
    Some(HistogramDataPoint {
        attributes: labels(metric),
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: durations.count(),
        sum: Some(durations.sum.as_secs_f64()),
        bucket_counts: durations.buckets.to_vec(),
        explicit_bounds: BOUNDS.to_vec(),
        ..HistogramDataPoint::default()
    })
}

fn labels(metric: &Metric) -> Vec<opentelemetry_proto::tonic::common::v1::KeyValue> {
    let labels = metric.labels.iter();
    labels
        .map(|(name, value)| attribute(&dotted(name), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Distribution;

    #[test]
    fn names_are_those_of_the_conventions() {
        for (name, expected, unit) in [
            (
                "rpc_server_call_duration_seconds",
                "rpc.server.call.duration",
                "s",
            ),
            (
                "http_server_request_duration_seconds",
                "http.server.request.duration",
                "s",
            ),
            ("wasmbay_memory_bytes", "wasmbay.memory", "By"),
            ("wasmbay_cpu_seconds_total", "wasmbay.cpu", "s"),
            (
                "wasmbay_events_published_total",
                "wasmbay.events_published",
                "",
            ),
        ] {
            assert_eq!(named(name), (expected.to_owned(), unit));
        }
        for (label, expected) in [
            ("http_response_status_code", "http.response.status_code"),
            ("rpc_method", "rpc.method"),
            ("service", "service"),
        ] {
            assert_eq!(dotted(label), expected);
        }
    }

    #[test]
    fn a_histogram_has_a_count_for_each_bound_and_one_more() {
        let mut durations = Distribution::default();
        durations.record(Duration::from_millis(3));
        durations.record(Duration::from_secs(100));
        let mut family = Family::histogram("rpc_server_call_duration_seconds", "Calls.");
        family.add_durations(&[("service", "a")], durations);
        let Some(Data::Histogram(histogram)) = exported(&family, (1, 2)).data else {
            panic!("no histogram");
        };
        let point = &histogram.data_points[0];
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!((point.count, point.bucket_counts.last()), (2, Some(&1)));
    }
}
