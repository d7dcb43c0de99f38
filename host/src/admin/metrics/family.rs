//! The metrics of one name, as they are gathered.

use std::time::Duration;

use crate::telemetry::Distribution;

/// The metrics of one name.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) metrics: Vec<Metric>,
}

/// What the numbers of a family are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They only grow.
    Counter,
    Gauge,
    /// Durations.
    Histogram,
}

pub(super) struct Metric {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value,
}

pub(super) enum Value {
    Number(f64),
    Durations(Distribution),
}

/// The labels of a metric.
pub(super) type Labels<'a> = [(&'static str, &'a str)];

impl Family {
    fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            kind,
            metrics: Vec::new(),
        }
    }

    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    pub(super) fn histogram(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Histogram)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has no other numbers; above 2^53 they are off by parts in 10^16"
    )]
    pub(super) fn add(&mut self, labels: &Labels<'_>, value: u64) {
        self.push(labels, Value::Number(value as f64));
    }

    pub(super) fn add_seconds(&mut self, labels: &Labels<'_>, time: Duration) {
        self.push(labels, Value::Number(time.as_secs_f64()));
    }

    pub(super) fn add_durations(&mut self, labels: &Labels<'_>, durations: Distribution) {
        self.push(labels, Value::Durations(durations));
    }

    fn push(&mut self, labels: &Labels<'_>, value: Value) {
        let labels = labels.iter();
        self.metrics.push(Metric {
            labels: labels
                .map(|(name, text)| (*name, (*text).to_owned()))
                .collect(),
            value,
        });
    }

    /// Says of each metric whose it is.
    fn of(mut self, app: &str) -> Self {
        for metric in &mut self.metrics {
            metric.labels.insert(0, ("app", app.to_owned()));
        }
        self
    }
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

    /// Those that have metrics.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Family> {
        self.0.iter().filter(|family| !family.metrics.is_empty())
    }
}
