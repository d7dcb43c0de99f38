//! Per-core, cache-line-padded storage that avoids false sharing.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{iter, thread};

/// One `T` for each core. Threads beyond the number of cores share.
pub(crate) struct PerCore<T> {
    first: Line<T>,
    others: Box<[Line<T>]>,
}

/// Alone on its cache lines; some processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

impl<T: Default> Default for PerCore<T> {
    fn default() -> Self {
        let others = iter::repeat_with(Line::default).take(cores() - 1);
        Self {
            first: Line::default(),
            others: others.collect(),
        }
    }
}

impl<T> PerCore<T> {
    /// The `T` of this thread.
    pub(crate) fn own(&self) -> &T {
        let line = thread_number() % (self.others.len() + 1);
        let line = line.checked_sub(1).and_then(|at| self.others.get(at));
        &line.unwrap_or(&self.first).0
    }

    /// The `T`s of all threads.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        iter::once(&self.first)
            .chain(&self.others)
            .map(|line| &line.0)
    }
}

/// Asked once: the answer is read from files.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, NonZeroUsize::get))
}

/// The number of this thread. Threads are numbered in the order of their first use, so the workers of
/// a host have numbers side by side.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_finds_its_own_again_and_all_are_counted() {
        let counts = PerCore::<AtomicUsize>::default();
        thread::scope(|scope| {
            for _ in 0..3 * cores() {
                scope.spawn(|| {
                    let own = counts.own();
                    own.fetch_add(1, Ordering::Relaxed);
                    assert!(std::ptr::eq(own, counts.own()));
                });
            }
        });
        let all = counts.all().map(|count| count.load(Ordering::Relaxed));
        assert_eq!(all.sum::<usize>(), 3 * cores());
    }
}
