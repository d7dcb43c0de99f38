//! The metrics of one name, as they are gathered and written.

use http::StatusCode;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder as _, TextEncoder};

use crate::admin::Refusal;
use crate::call::Blame;
use crate::telemetry::{BOUNDS, Distribution};

/// The metrics of one name.
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    metrics: Vec<Metric>,
}

/// The labels of a metric.
type Labels<'a> = [(&'static str, &'a str)];

impl Family {
    fn new(name: &'static str, help: &'static str, kind: MetricType) -> Self {
        Self {
            name,
            help,
            kind,
            metrics: Vec::new(),
        }
    }

    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::COUNTER)
    }

    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::GAUGE)
    }

    pub(super) fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, MetricType::HISTOGRAM)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has no other numbers; above 2^53 they are off by parts in 10^16"
    )]
    pub(super) fn add(&mut self, labels: &Labels<'_>, value: u64) {
        let mut metric = labelled(labels);
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value as f64);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value as f64);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    pub(super) fn add_durations(&mut self, labels: &Labels<'_>, durations: &Distribution) {
        let mut count = 0;
        let buckets = BOUNDS.iter().zip(durations.buckets).map(|(bound, own)| {
            count += own;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(durations.count());
        histogram.set_sample_sum(durations.sum.as_secs_f64());
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// Says of each metric whose it is.
    fn of(mut self, app: &str) -> Self {
        for metric in &mut self.metrics {
            let mut labels = metric.take_label();
            labels.insert(0, label("app", app));
            metric.set_label(labels);
        }
        self
    }

    fn finish(self) -> Option<MetricFamily> {
        // A name without metrics is an error to the encoder.
        if self.metrics.is_empty() {
            return None;
        }
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(self.metrics);
        Some(family)
    }
}

fn labelled(labels: &Labels<'_>) -> Metric {
    let labels = labels.iter().map(|(name, value)| label(name, value));
    Metric::from_label(labels.collect())
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// Families, each name once.
#[derive(Default)]
pub(super) struct Families(Vec<Family>);

impl Families {
    /// Adds those of the host itself.
    pub(super) fn add(&mut self, family: Family) {
        let known = self.0.iter_mut().find(|known| known.name == family.name);
        match known {
            Some(known) => known.metrics.extend(family.metrics),
            None => self.0.push(family),
        }
    }

    /// Adds those of an app, with its name as a label.
    pub(super) fn add_of(&mut self, app: &str, families: impl IntoIterator<Item = Family>) {
        for family in families {
            self.add(family.of(app));
        }
    }

    /// The text that Prometheus reads.
    pub(super) fn write(self) -> Result<Vec<u8>, Refusal> {
        let families: Vec<_> = self.0.into_iter().filter_map(Family::finish).collect();
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&families, &mut text)
            .map_err(|error| {
                let why = format!("metrics cannot be written: {error}");
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Blame::Host, why)
            })?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_several_apps_stand_below_one_name() {
        let mut families = Families::default();
        let mut gauge = Family::gauge("wasmbay_x", "X.");
        gauge.add(&[("service", "a")], 1);
        families.add_of("shop", [gauge, Family::counter("wasmbay_y_total", "Y.")]);
        let mut gauge = Family::gauge("wasmbay_x", "X.");
        gauge.add(&[("service", "a")], 2);
        families.add_of("bank", [gauge]);
        let text = String::from_utf8(families.write().unwrap()).unwrap();
        assert_eq!(
            text,
            "# HELP wasmbay_x X.\n# TYPE wasmbay_x gauge\n\
             wasmbay_x{app=\"shop\",service=\"a\"} 1\nwasmbay_x{app=\"bank\",service=\"a\"} 2\n"
        );
    }
}
