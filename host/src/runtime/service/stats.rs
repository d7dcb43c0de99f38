//! Counts of calls, as ADR-32 has them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::call::CallError;
use crate::per_core::PerCore;

/// Counts of one function.
#[derive(Default)]
pub struct Stats {
    counts: PerCore<Counts>,
    last_error: Mutex<String>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    errors: AtomicU64,
    nanoseconds: AtomicU64,
}

/// A reading of [`Stats`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsReading {
    /// Calls that were answered, with a result or an error.
    pub requests: u64,
    /// Calls that were answered with an error.
    pub errors: u64,
    /// Time of all of them.
    pub time: Duration,
    /// The last error's code and message, empty before the first.
    pub last_error: String,
}

impl Stats {
    pub(super) fn record(&self, time: Duration, error: Option<&CallError>) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let counts = self.counts.own();
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        if let Some(error) = error {
            counts.errors.fetch_add(1, Ordering::Relaxed);
            let last = format!("{}:{}", error.code.status(), error.message);
            *self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = last;
        }
    }

    /// The counts until now.
    #[must_use]
    pub fn read(&self) -> StatsReading {
        let sum = |count: fn(&Counts) -> &AtomicU64| {
            let counts = self.counts.all().map(count);
            counts.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        StatsReading {
            requests: sum(|counts| &counts.requests),
            errors: sum(|counts| &counts.errors),
            time: Duration::from_nanos(sum(|counts| &counts.nanoseconds)),
            last_error: self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}
