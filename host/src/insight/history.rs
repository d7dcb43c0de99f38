//! The last hour of each service, in intervals.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::figures::Moment;
use crate::telemetry::Distribution;

/// The length of an interval.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// Intervals that are kept: an hour, some 20 KiB for a service.
const KEPT: usize = 360;

/// Intervals that are a minute with the one that has not ended.
const MINUTE: usize = 5;

/// What a service has done until some time.
#[derive(Clone, Debug, Default)]
pub(super) struct Total {
    pub(super) durations: Distribution,
    pub(super) errors: u64,
    /// Those among them that found no room in the backlog, and were not counted as calls.
    pub(super) shed: u64,
    /// Failures that are no fault of callers, by code and blame.
    pub(super) faults: BTreeMap<String, u64>,
}

/// What each instance of a service has done, by when it was started: the one that serves, and a new version that
/// has a share of its calls.
pub(super) type Totals = BTreeMap<u64, Total>;

impl Total {
    /// What was done since an earlier total of the same instance.
    fn since(&self, earlier: &Self) -> Self {
        let faults = self.faults.iter().filter_map(|(kind, count)| {
            let before = earlier.faults.get(kind).copied().unwrap_or_default();
            let since = count.saturating_sub(before);
            (since > 0).then(|| (kind.clone(), since))
        });
        Self {
            durations: self.durations.since(&earlier.durations),
            errors: self.errors.saturating_sub(earlier.errors),
            shed: self.shed.saturating_sub(earlier.shed),
            faults: faults.collect(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.durations.add(&other.durations);
        self.errors += other.errors;
        self.shed += other.shed;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
    }

    /// Calls, those that found no room included.
    fn calls(&self) -> u64 {
        self.durations.count() + self.shed
    }
}

/// What all instances have done since earlier totals. One that was not there then has done it all since.
fn since(now: &Totals, earlier: &Totals) -> Total {
    let mut sum = Total::default();
    for (started, total) in now {
        match earlier.get(started) {
            Some(before) => sum.add(&total.since(before)),
            None => sum.add(total),
        }
    }
    sum
}

/// The intervals of all services.
#[derive(Default)]
pub(super) struct History(Mutex<BTreeMap<String, Past>>);

#[derive(Default)]
struct Past {
    /// At the end of the last interval.
    totals: Totals,
    moments: VecDeque<Moment>,
}

impl History {
    /// Ends an interval at this time, in seconds since 1970. Services that are gone are forgotten.
    pub(super) fn end_interval(&self, at: u64, totals: BTreeMap<String, Totals>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|service, _| totals.contains_key(service));
        for (service, total) in totals {
            let past = all.entry(service).or_default();
            let since = since(&total, &past.totals);
            if past.moments.len() >= KEPT {
                past.moments.pop_front();
            }
            past.moments.push_back(Moment {
                at,
                calls: since.calls(),
                errors: since.errors,
                faults: since.faults,
                p99: since.durations.quantile(0.99).as_secs_f64(),
            });
            past.totals = total;
        }
    }

    /// The calls of the last minute and its faults, of a service whose total is this now.
    pub(super) fn recent(&self, service: &str, now: &Totals) -> (u64, BTreeMap<String, u64>) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(past) = all.get(service) else {
            let all = since(now, &Totals::new());
            return (all.calls(), all.faults);
        };
        let since = since(now, &past.totals);
        let (mut calls, mut faults) = (since.calls(), since.faults);
        for moment in past.moments.iter().rev().take(MINUTE) {
            calls += moment.calls;
            for (kind, count) in &moment.faults {
                *faults.entry(kind.clone()).or_default() += count;
            }
        }
        (calls, faults)
    }

    pub(super) fn of(&self, service: &str) -> Vec<Moment> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let past = all.get(service);
        past.map_or_else(Vec::new, |past| past.moments.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(calls: u64, errors: u64) -> BTreeMap<String, Totals> {
        started(1, calls, errors)
    }

    fn started(at: u64, calls: u64, errors: u64) -> BTreeMap<String, Totals> {
        let mut durations = Distribution::default();
        for _ in 0..calls {
            durations.record(Duration::from_millis(2));
        }
        let faults = BTreeMap::from([("500 guest".to_owned(), errors)]);
        let total = Total {
            durations,
            errors,
            faults,
            shed: 0,
        };
        BTreeMap::from([("orders".to_owned(), Totals::from([(at, total)]))])
    }

    #[test]
    fn the_last_minute_is_what_has_ended_in_it_and_since() {
        let history = History::default();
        let recent = |calls, errors| {
            let (calls, faults) = history.recent("orders", &total(calls, errors)["orders"]);
            (calls, faults.values().sum::<u64>())
        };
        assert_eq!(recent(3, 1), (3, 1));
        for at in 1..=10 {
            history.end_interval(at * 10, total(at * 10, at));
        }
        assert_eq!(recent(100, 10), (50, 5));
        assert_eq!(recent(107, 12), (57, 7));
        // Swapped, for one that has done more since then.
        let swapped = &started(9, 300, 2)["orders"];
        let (calls, faults) = history.recent("orders", swapped);
        assert_eq!((calls, faults["500 guest"]), (350, 7));
        // A new version is gone: what the old one has done since is all.
        let mut both = total(100, 10)["orders"].clone();
        both.extend(started(2, 900, 0)["orders"].clone());
        history.end_interval(110, BTreeMap::from([("orders".to_owned(), both)]));
        assert_eq!(recent(103, 10), (40 + 900 + 3, 4));
    }

    #[test]
    fn an_interval_has_what_happened_in_it_and_an_hour_is_kept() {
        let history = History::default();
        history.end_interval(10, total(5, 1));
        history.end_interval(20, total(8, 3));
        // Swapped: another counts from zero.
        history.end_interval(30, started(2, 2, 0));
        history.end_interval(40, started(2, 2, 0));
        let found: Vec<_> = history
            .of("orders")
            .iter()
            .map(|m| (m.at, m.calls, m.errors))
            .collect();
        assert_eq!(found, [(10, 5, 1), (20, 3, 2), (30, 2, 0), (40, 0, 0)]);
        let moments = history.of("orders");
        assert!(moments[0].p99 > 0.001 && moments[0].p99 <= 0.002_5);
        assert!(moments[3].p99 == 0.0);
        for at in 0..400 {
            history.end_interval(at, total(2, 0));
        }
        assert_eq!(history.of("orders").len(), 360);
        history.end_interval(500, BTreeMap::new());
        assert!(history.of("orders").is_empty());
    }
}
