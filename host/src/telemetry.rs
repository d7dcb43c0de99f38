//! What a host tells about itself: the targets of its log records, and how durations are counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::per_core::PerCore;

/// Output and log records of guests.
pub(crate) const GUEST: &str = "guest";

/// Requests at the gateway.
pub(crate) const GATEWAY: &str = "gateway";

/// Requests at the admin address.
pub(crate) const ADMIN: &str = "admin";

/// Upper bounds of the buckets of a [`Histogram`], in seconds. A call takes from tens of microseconds
/// to its timeout, a few seconds by default; one bucket more has what takes longer.
pub(crate) const BOUNDS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0,
];

/// Counts durations. Counting is lock-free and shares nothing between cores.
#[derive(Default)]
pub(crate) struct Histogram(PerCore<Counts>);

#[derive(Default)]
struct Counts {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// A reading of a [`Histogram`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    /// Durations in each bucket; the last has those above every bound.
    pub(crate) buckets: [u64; BOUNDS.len() + 1],
    /// The sum of the durations.
    pub(crate) sum: Duration,
}

/// The bucket of a duration.
fn bucket_of(duration: Duration) -> usize {
    let seconds = duration.as_secs_f64();
    BOUNDS.partition_point(|bound| *bound < seconds)
}

impl Histogram {
    /// Counts a duration.
    pub(crate) fn record(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let counts = self.0.own();
        if let Some(bucket) = counts.buckets.get(bucket_of(duration)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        counts.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub(crate) fn read(&self) -> Distribution {
        let mut read = Distribution::default();
        for counts in self.0.all() {
            for (sum, bucket) in read.buckets.iter_mut().zip(&counts.buckets) {
                *sum += bucket.load(Ordering::Relaxed);
            }
            read.sum += Duration::from_nanos(counts.nanoseconds.load(Ordering::Relaxed));
        }
        read
    }
}

impl Distribution {
    /// Counts a duration.
    pub(crate) fn record(&mut self, duration: Duration) {
        if let Some(bucket) = self.buckets.get_mut(bucket_of(duration)) {
            *bucket += 1;
        }
        self.sum += duration;
    }

    /// Adds what another one has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, bucket) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += bucket;
        }
        self.sum += other.sum;
    }

    /// The number of durations.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        for micros in [0, 50, 51, 1_000, 10_000_000, 10_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let read = histogram.read();
        let filled: Vec<_> = (0..).zip(read.buckets).filter(|(_, n)| *n > 0).collect();
        assert_eq!(filled, [(0, 2), (1, 1), (4, 1), (15, 1), (16, 1)]);
        assert_eq!(read.count(), 6);
        assert_eq!(read.sum, Duration::from_micros(20_001_102));
    }
}
