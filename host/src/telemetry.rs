//! What a host tells about itself: the targets of its log records, and how durations are counted.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::per_core::PerCore;

/// Output and log records of guests.
pub(crate) const GUEST: &str = "guest";

/// Requests at the gateway.
pub(crate) const GATEWAY: &str = "gateway";

/// Requests at the admin address.
pub(crate) const ADMIN: &str = "admin";

/// A trace and the span of it within which something is done.
pub(crate) type Within = (u128, u64);

thread_local! {
    /// Those of what this thread does now.
    static TRACE: Cell<Option<Within>> = const { Cell::new(None) };
}

/// The trace and span of what this thread does now, for its log records.
pub(crate) fn current_trace() -> Option<Within> {
    TRACE.get()
}

/// Says of which trace and span is what this thread does from now on; returns those before.
pub(crate) fn set_current_trace(within: Option<Within>) -> Option<Within> {
    TRACE.replace(within)
}

/// What a service has done beside its calls, all its instances together. Counted where it happens, and
/// rarely enough for all cores to share one.
#[derive(Default)]
pub(crate) struct Counts {
    /// Calls that were refused in the backlog, before they were anybody's.
    pub(crate) shed: Count,
    /// Events and messages that its guests have published.
    pub(crate) published: Count,
    /// Stored events that failed and were handed out again.
    pub(crate) retried: Count,
    /// Stored events that became dead letters.
    pub(crate) dead_lettered: Count,
    /// Time for which its guests have computed, in nanoseconds.
    pub(crate) computed: Count,
    /// Bytes that count against the memory limits of the instances that exist.
    pub(crate) memory: Count,
    /// The most of them that one instance has had.
    pub(crate) most_memory: Count,
}

/// A number that threads add to.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// Makes it this much, unless it is more already.
    pub(crate) fn raise(&self, to: u64) {
        self.0.fetch_max(to, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets of a [`Histogram`], in seconds. A call takes from tens of microseconds
/// to its timeout, a few seconds by default; one bucket more has what takes longer.
pub(crate) const BOUNDS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 10.0,
];

/// Counts durations. Counting is lock-free and shares nothing between cores.
#[derive(Default)]
pub(crate) struct Histogram(PerCore<Buckets>);

#[derive(Default)]
struct Buckets {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// A reading of a [`Histogram`].
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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

    /// What was counted since an earlier reading.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.buckets.iter_mut().zip(earlier.buckets) {
            *count = count.saturating_sub(before);
        }
        since.sum = since.sum.saturating_sub(earlier.sum);
        since
    }

    /// The duration that this part of them did not exceed, taken as evenly spread within a bucket. What
    /// is above every bound counts as the last one.
    #[expect(
        clippy::cast_precision_loss,
        reason = "an estimate within a bucket is not hurt by the 53rd bit"
    )]
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let rank = part * self.count() as f64;
        let (mut below, mut lower) = (0.0, 0.0);
        for (bound, count) in BOUNDS.iter().zip(self.buckets) {
            let here = count as f64;
            if count > 0 && below + here >= rank {
                let within = ((rank - below) / here).clamp(0.0, 1.0);
                return Duration::from_secs_f64(lower + within * (bound - lower));
            }
            below += here;
            lower = *bound;
        }
        let last = if self.count() == 0 { 0.0 } else { lower };
        Duration::from_secs_f64(last)
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

    #[test]
    fn a_quantile_is_within_the_bucket_of_its_rank() {
        let mut read = Distribution::default();
        assert_eq!(read.quantile(0.99), Duration::ZERO);
        for _ in 0..98 {
            read.record(Duration::from_micros(80));
        }
        for _ in 0..2 {
            read.record(Duration::from_millis(30));
        }
        let half = read.quantile(0.5);
        assert!((50..=100).contains(&half.as_micros()), "{half:?}");
        let p99 = read.quantile(0.99);
        assert!((25..=50).contains(&p99.as_millis()), "{p99:?}");
        let before = read.clone();
        read.record(Duration::from_secs(60));
        assert_eq!(read.quantile(1.0), Duration::from_secs(10));
        assert_eq!(read.since(&before).count(), 1);
    }
}
