//! The last hour of each service, in intervals.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::figures::Moment;
use crate::telemetry::Distribution;

/// The length of an interval.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);

/// Intervals that are kept: an hour, 12 KiB for a service.
const KEPT: usize = 360;

/// What a service has done until some time.
#[derive(Clone, Debug, Default)]
pub(super) struct Total {
    pub(super) durations: Distribution,
    pub(super) errors: u64,
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
            // A service that was swapped begins to count again.
            let since = if total.durations.count() < past.total.durations.count() {
                Total::default()
            } else {
                std::mem::take(&mut past.total)
            };
            let durations = total.durations.since(&since.durations);
            if past.moments.len() >= KEPT {
                past.moments.pop_front();
            }
            past.moments.push_back(Moment {
                at,
                calls: durations.count(),
                errors: total.errors.saturating_sub(since.errors),
                p99: durations.quantile(0.99).as_secs_f64(),
            });
            past.total = total;
        }
    }

    pub(super) fn of(&self, service: &str) -> Vec<Moment> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let past = all.get(service);
        past.map_or_else(Vec::new, |past| past.moments.iter().copied().collect())
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
        BTreeMap::from([("orders".to_owned(), Total { durations, errors })])
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
