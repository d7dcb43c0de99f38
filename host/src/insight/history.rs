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
    /// Failures that are no fault of callers, by code and blame.
    pub(super) faults: BTreeMap<String, u64>,
}

impl Total {
    /// What was done since an earlier total, or all of it: a service that was swapped begins to count again.
    fn since(&self, earlier: &Self) -> Self {
        if self.durations.count() < earlier.durations.count() {
            return self.clone();
        }
        let faults = self.faults.iter().filter_map(|(kind, count)| {
            let before = earlier.faults.get(kind).copied().unwrap_or_default();
            let since = count.saturating_sub(before);
            (since > 0).then(|| (kind.clone(), since))
        });
        Self {
            durations: self.durations.since(&earlier.durations),
            errors: self.errors.saturating_sub(earlier.errors),
            faults: faults.collect(),
        }
    }
}

/// The intervals of all services.
#[derive(Default)]
pub(super) struct History(Mutex<BTreeMap<String, Past>>);

#[derive(Default)]
struct Past {
    /// At the end of the last interval.
    total: Total,
    moments: VecDeque<Moment>,
}

impl History {
    /// Ends an interval at this time, in seconds since 1970. Services that are gone are forgotten.
    pub(super) fn end_interval(&self, at: u64, totals: BTreeMap<String, Total>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|service, _| totals.contains_key(service));
        for (service, total) in totals {
            let past = all.entry(service).or_default();
            let since = total.since(&past.total);
            if past.moments.len() >= KEPT {
                past.moments.pop_front();
            }
            past.moments.push_back(Moment {
                at,
                calls: since.durations.count(),
                errors: since.errors,
                faults: since.faults,
                p99: since.durations.quantile(0.99).as_secs_f64(),
            });
            past.total = total;
        }
    }

    /// The calls of the last minute and its faults, of a service whose total is this now.
    pub(super) fn recent(&self, service: &str, now: &Total) -> (u64, BTreeMap<String, u64>) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(past) = all.get(service) else {
            return (now.durations.count(), now.faults.clone());
        };
        let since = now.since(&past.total);
        let (mut calls, mut faults) = (since.durations.count(), since.faults);
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

    fn total(calls: u64, errors: u64) -> BTreeMap<String, Total> {
        let mut durations = Distribution::default();
        for _ in 0..calls {
            durations.record(Duration::from_millis(2));
        }
        let faults = BTreeMap::from([("500 guest".to_owned(), errors)]);
        let total = Total {
            durations,
            errors,
            faults,
        };
        BTreeMap::from([("orders".to_owned(), total)])
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
        // Swapped.
        assert_eq!(recent(2, 0), (52, 5));
    }

    #[test]
    fn an_interval_has_what_happened_in_it_and_an_hour_is_kept() {
        let history = History::default();
        history.end_interval(10, total(5, 1));
        history.end_interval(20, total(8, 3));
        // Swapped: it counts from zero.
        history.end_interval(30, total(2, 0));
        history.end_interval(40, total(2, 0));
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
