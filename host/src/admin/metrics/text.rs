//! Metrics in Prometheus' text format. The labels of a metric are written once, and copied to each of the
//! lines of a histogram.

use std::fmt::Write as _;

use super::family::{Families, Family, Kind, Metric, Value};
use crate::telemetry::{BOUNDS, Distribution};

/// The content type of what [`write`] makes.
pub(super) const FORMAT: &str = "text/plain; version=0.0.4";

pub(super) fn write(families: &Families) -> String {
    let mut page = String::new();
    for family in families.iter() {
        write_family(&mut page, family);
    }
    page
}

fn write_family(page: &mut String, family: &Family) {
    let (name, help) = (family.name, family.help);
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // Writing to a string does not fail.
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
    let mut labels = String::new();
    for metric in &family.metrics {
        labels.clear();
        write_labels(&mut labels, metric);
        match &metric.value {
            Value::Number(number) if labels.is_empty() => {
                let _ = writeln!(page, "{name} {number}");
            }
            Value::Number(number) => {
                let _ = writeln!(page, "{name}{{{labels}}} {number}");
            }
            Value::Durations(durations) => write_durations(page, name, &labels, durations),
        }
    }
}

fn write_durations(page: &mut String, name: &str, labels: &str, durations: &Distribution) {
    let mut count = 0;
    let comma = if labels.is_empty() { "" } else { "," };
    for (bound, own) in BOUNDS.iter().zip(durations.buckets) {
        count += own;
        let _ = writeln!(
            page,
            "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
        );
    }
    let (sum, count) = (durations.sum.as_secs_f64(), durations.count());
    let _ = writeln!(
        page,
        "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}\n\
         {name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}"
    );
}

fn write_labels(labels: &mut String, metric: &Metric) {
    for (name, value) in &metric.labels {
        if !labels.is_empty() {
            labels.push(',');
        }
        let _ = write!(labels, "{name}=\"");
        for c in value.chars() {
            match c {
                '\\' => labels.push_str("\\\\"),
                '"' => labels.push_str("\\\""),
                '\n' => labels.push_str("\\n"),
                c => labels.push(c),
            }
        }
        labels.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn metrics_of_several_apps_stand_below_one_name() {
        let mut families = Families::default();
        let mut gauge = Family::gauge("wasmbay_x", "X.");
        gauge.add(&[("service", "a")], 1);
        families.add_of("shop", [gauge, Family::counter("wasmbay_y_total", "Y.")]);
        let mut gauge = Family::gauge("wasmbay_x", "X.");
        gauge.add(&[("service", "a")], 2);
        families.add_of("bank", [gauge]);
        let mut counter = Family::counter("wasmbay_z_total", "Z.");
        counter.add(&[], 3);
        families.add(counter);
        assert_eq!(
            write(&families),
            "# HELP wasmbay_x X.\n# TYPE wasmbay_x gauge\n\
             wasmbay_x{app=\"shop\",service=\"a\"} 1\nwasmbay_x{app=\"bank\",service=\"a\"} 2\n\
             # HELP wasmbay_z_total Z.\n# TYPE wasmbay_z_total counter\nwasmbay_z_total 3\n"
        );
    }

    #[test]
    fn labels_are_escaped_and_buckets_cumulative() {
        let mut family = Family::histogram("x_seconds", "X.");
        let mut durations = Distribution::default();
        durations.record(Duration::from_micros(40));
        durations.record(Duration::from_micros(60));
        durations.record(Duration::from_secs(20));
        family.add_durations(&[("a", "b\\c\"d\ne")], durations);
        let mut families = Families::default();
        families.add(family);
        let page = write(&families);
        let labels = "a=\"b\\\\c\\\"d\\ne\"";
        for line in [
            format!("x_seconds_bucket{{{labels},le=\"0.00005\"}} 1"),
            format!("x_seconds_bucket{{{labels},le=\"0.0001\"}} 2"),
            format!("x_seconds_bucket{{{labels},le=\"10\"}} 2"),
            format!("x_seconds_bucket{{{labels},le=\"+Inf\"}} 3"),
            format!("x_seconds_sum{{{labels}}} 20.0001"),
            format!("x_seconds_count{{{labels}}} 3"),
        ] {
            assert!(page.lines().any(|one| one == line), "{line}: {page}");
        }
    }
}
