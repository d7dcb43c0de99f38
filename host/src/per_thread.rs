//! What each thread has one of, so that threads that serve the same service do not take the same
//! memory from each other's caches.

use std::num::NonZeroUsize;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{iter, thread};

/// One `T` for each core. Threads beyond that number share.
pub(crate) struct PerThread<T> {
    first: Line<T>,
    others: Box<[Line<T>]>,
}

/// Alone on its cache lines; some processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

impl<T: Default> Default for PerThread<T> {
    fn default() -> Self {
        let others = iter::repeat_with(Line::default).take(cores() - 1);
        Self {
            first: Line::default(),
            others: others.collect(),
        }
    }
}

impl<T> PerThread<T> {
    /// This thread's.
    pub(crate) fn own(&self) -> &T {
        let place = place() % (self.others.len() + 1);
        let line = place.checked_sub(1).and_then(|at| self.others.get(at));
        &line.unwrap_or(&self.first).0
    }

    /// Every thread's.
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

/// Threads are numbered as they come here, so the workers of a host have places side by side.
fn place() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PLACE: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    PLACE.with(|place| *place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_finds_its_own_again_and_all_are_counted() {
        let counts = PerThread::<AtomicUsize>::default();
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
