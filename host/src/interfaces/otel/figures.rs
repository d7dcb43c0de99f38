//! Metrics of a guest's SDK as OTLP has them.

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as ExemplarValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
    Histogram, HistogramDataPoint, Metric, NumberDataPoint, ScopeMetrics, Sum,
};
use prost::Message as _;

use super::metrics::{self, MetricData, MetricNumber, Temporality};
use super::types;
use super::values::{MAX_VALUE, cut, text_of, time};
use crate::otlp::{attribute, bytes, nanoseconds};

/// Metrics by their scopes, and the bytes that they take. Whose they are is the host's to say, so the
/// guest's resource is left out.
pub(super) fn exported(metrics: metrics::ResourceMetrics) -> (Vec<ScopeMetrics>, usize) {
    let scopes: Vec<_> = metrics.scope_metrics.into_iter().map(of_scope).collect();
    let size = scopes.iter().map(ScopeMetrics::encoded_len).sum();
    (scopes, size)
}

fn of_scope(of: metrics::ScopeMetrics) -> ScopeMetrics {
    let scope = of.scope;
    ScopeMetrics {
        schema_url: scope.schema_url.unwrap_or_default(),
        scope: Some(InstrumentationScope {
            name: cut(scope.name, MAX_VALUE),
            version: scope.version.unwrap_or_default(),
            attributes: attributes(scope.attributes),
            ..InstrumentationScope::default()
        }),
        metrics: of.metrics.into_iter().map(of_metric).collect(),
    }
}

fn of_metric(metric: metrics::Metric) -> Metric {
    let data = match metric.data {
        MetricData::F64Gauge(gauge) | MetricData::U64Gauge(gauge) | MetricData::S64Gauge(gauge) => {
            Data::Gauge(of_gauge(gauge))
        }
        MetricData::F64Sum(sum) | MetricData::U64Sum(sum) | MetricData::S64Sum(sum) => {
            Data::Sum(of_sum(sum))
        }
        MetricData::F64Histogram(histogram)
        | MetricData::U64Histogram(histogram)
        | MetricData::S64Histogram(histogram) => Data::Histogram(of_histogram(histogram)),
        MetricData::F64ExponentialHistogram(histogram)
        | MetricData::U64ExponentialHistogram(histogram)
        | MetricData::S64ExponentialHistogram(histogram) => {
            Data::ExponentialHistogram(of_exponential(histogram))
        }
    };
    Metric {
        name: cut(metric.name, MAX_VALUE),
        description: cut(metric.description, MAX_VALUE),
        unit: cut(metric.unit, MAX_VALUE),
        data: Some(data),
        ..Metric::default()
    }
}

fn of_gauge(gauge: metrics::Gauge) -> Gauge {
    let start = gauge
        .start_time
        .map_or(0, |start| nanoseconds(time(&start)));
    let now = nanoseconds(time(&gauge.time));
    let points = gauge.data_points.into_iter();
    Gauge {
        data_points: points
            .map(|point| {
                number(
                    point.attributes,
                    &point.value,
                    point.exemplars,
                    (start, now),
                )
            })
            .collect(),
    }
}

fn of_sum(sum: metrics::Sum) -> Sum {
    let times = (
        nanoseconds(time(&sum.start_time)),
        nanoseconds(time(&sum.time)),
    );
    let points = sum.data_points.into_iter();
    Sum {
        data_points: points
            .map(|point| number(point.attributes, &point.value, point.exemplars, times))
            .collect(),
        aggregation_temporality: temporality(sum.temporality, sum.is_monotonic),
        is_monotonic: sum.is_monotonic,
    }
}

fn number(
    attributes: Vec<types::KeyValue>,
    value: &MetricNumber,
    exemplars: Vec<metrics::Exemplar>,
    (start, now): (u64, u64),
) -> NumberDataPoint {
    NumberDataPoint {
        attributes: self::attributes(attributes),
        start_time_unix_nano: start,
        time_unix_nano: now,
        exemplars: exemplars.into_iter().map(exemplar).collect(),
        flags: 0,
        value: Some(match integer(value) {
            Some(integer) => Number::AsInt(integer),
            None => Number::AsDouble(double(value)),
        }),
    }
}

fn of_histogram(histogram: metrics::Histogram) -> Histogram {
    let (start, now) = (
        nanoseconds(time(&histogram.start_time)),
        nanoseconds(time(&histogram.time)),
    );
    let point = |point: metrics::HistogramDataPoint| HistogramDataPoint {
        attributes: attributes(point.attributes),
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: point.count,
        sum: Some(double(&point.sum)),
        bucket_counts: point.bucket_counts,
        explicit_bounds: point.bounds,
        exemplars: point.exemplars.into_iter().map(exemplar).collect(),
        flags: 0,
        min: point.min.as_ref().map(double),
        max: point.max.as_ref().map(double),
    };
    Histogram {
        data_points: histogram.data_points.into_iter().map(point).collect(),
        aggregation_temporality: temporality(histogram.temporality, true),
    }
}

fn of_exponential(histogram: metrics::ExponentialHistogram) -> ExponentialHistogram {
    let (start, now) = (
        nanoseconds(time(&histogram.start_time)),
        nanoseconds(time(&histogram.time)),
    );
    let buckets = |buckets: metrics::ExponentialBucket| Buckets {
        offset: buckets.offset,
        bucket_counts: buckets.counts,
    };
    let point = |point: metrics::ExponentialHistogramDataPoint| ExponentialHistogramDataPoint {
        attributes: attributes(point.attributes),
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: point.count,
        sum: Some(double(&point.sum)),
        scale: point.scale.into(),
        zero_count: point.zero_count,
        positive: Some(buckets(point.positive_bucket)),
        negative: Some(buckets(point.negative_bucket)),
        flags: 0,
        exemplars: point.exemplars.into_iter().map(exemplar).collect(),
        min: point.min.as_ref().map(double),
        max: point.max.as_ref().map(double),
        zero_threshold: point.zero_threshold,
    };
    ExponentialHistogram {
        data_points: histogram.data_points.into_iter().map(point).collect(),
        aggregation_temporality: temporality(histogram.temporality, true),
    }
}

fn exemplar(exemplar: metrics::Exemplar) -> Exemplar {
    Exemplar {
        filtered_attributes: attributes(exemplar.filtered_attributes),
        time_unix_nano: nanoseconds(time(&exemplar.time)),
        span_id: bytes(Some(&exemplar.span_id)),
        trace_id: bytes(Some(&exemplar.trace_id)),
        value: Some(match integer(&exemplar.value) {
            Some(integer) => ExemplarValue::AsInt(integer),
            None => ExemplarValue::AsDouble(double(&exemplar.value)),
        }),
    }
}

/// With `low-memory`, an SDK sends differences of what only grows.
fn temporality(temporality: Temporality, grows: bool) -> i32 {
    match temporality {
        Temporality::Delta => AggregationTemporality::Delta,
        Temporality::LowMemory if grows => AggregationTemporality::Delta,
        Temporality::Cumulative | Temporality::LowMemory => AggregationTemporality::Cumulative,
    }
    .into()
}

/// `None` for what OTLP has as a floating-point number.
fn integer(number: &MetricNumber) -> Option<i64> {
    match number {
        MetricNumber::F64(_) => None,
        MetricNumber::S64(number) => Some(*number),
        MetricNumber::U64(number) => i64::try_from(*number).ok(),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "OTLP has sums of histograms, and what is beyond 63 bits, as floating-point numbers"
)]
fn double(number: &MetricNumber) -> f64 {
    match number {
        MetricNumber::F64(number) => *number,
        MetricNumber::S64(number) => *number as f64,
        MetricNumber::U64(number) => *number as f64,
    }
}

fn attributes(pairs: Vec<types::KeyValue>) -> Vec<KeyValue> {
    let pairs = pairs.into_iter();
    pairs
        .map(|pair| {
            attribute(
                &cut(pair.key, MAX_VALUE),
                cut(text_of(&pair.value), MAX_VALUE),
            )
        })
        .collect()
}
