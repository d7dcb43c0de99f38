//! Counts of calls: as ADR-32 has them, and as histograms.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::call::{Blame, CallError, Code};
use crate::telemetry::{Distribution, Histogram};

/// Counts of one function.
#[derive(Default)]
pub struct Stats {
    durations: Histogram,
    errors: Mutex<Errors>,
}

#[derive(Default)]
struct Errors {
    counts: BTreeMap<(Code, Blame), u64>,
    last: String,
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

/// Calls of a service, all functions together, by which two versions of it are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tally {
    /// The durations of all of them.
    pub(crate) durations: Distribution,
    /// Those that ended with an error which was not their caller's.
    pub(crate) errors: u64,
}

impl Tally {
    /// The tally of these functions.
    pub(crate) fn of<'s>(functions: impl IntoIterator<Item = &'s Stats>) -> Self {
        let mut tally = Self::default();
        for stats in functions {
            tally.durations.add(&stats.durations());
            let errors = stats.error_counts().into_iter();
            let errors = errors.filter(|((_, blame), _)| *blame != Blame::Caller);
            tally.errors += errors.map(|(_, count)| count).sum::<u64>();
        }
        tally
    }

    /// The number of calls.
    pub(crate) fn calls(&self) -> u64 {
        self.durations.count()
    }

    /// Adds what another one has counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.durations.add(&other.durations);
        self.errors += other.errors;
    }

    /// What was counted since an earlier one.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            durations: self.durations.since(&earlier.durations),
            errors: self.errors.saturating_sub(earlier.errors),
        }
    }
}

impl Stats {
    pub(crate) fn record(&self, time: Duration, error: Option<&CallError>) {
        self.durations.record(time);
        if let Some(error) = error {
            let last = format!("{}:{}", error.code.status(), error.message);
            let mut errors = self.errors();
            *errors.counts.entry((error.code, error.blame)).or_default() += 1;
            errors.last = last;
        }
    }

    /// The counts until now.
    #[must_use]
    pub fn read(&self) -> StatsReading {
        let durations = self.durations.read();
        let errors = self.errors();
        StatsReading {
            requests: durations.count(),
            errors: errors.counts.values().sum(),
            time: durations.sum,
            last_error: errors.last.clone(),
        }
    }

    /// The durations of all calls.
    pub(crate) fn durations(&self) -> Distribution {
        self.durations.read()
    }

    /// The number of errors of each kind.
    pub(crate) fn error_counts(&self) -> BTreeMap<(Code, Blame), u64> {
        self.errors().counts.clone()
    }

    fn errors(&self) -> MutexGuard<'_, Errors> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
