//! The idle instances of all services.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::instance::Instance;
use crate::per_core::PerCore;

/// Time after which an idle instance is dropped.
pub const IDLE: Duration = Duration::from_secs(30);

/// Keeps instances between calls. A thread takes those that it has used itself, the last one first,
/// since its core still has their memory in its caches.
#[derive(Default)]
pub(super) struct Pool {
    /// For each core, the idle instances by the number of their service.
    idle: PerCore<Mutex<Vec<Vec<Idle>>>>,
    numbers: Mutex<Numbers>,
}

struct Idle {
    since: Instant,
    instance: Instance,
}

/// The numbers of services: small, and reused.
#[derive(Default)]
struct Numbers {
    free: Vec<usize>,
    next: usize,
}

/// One service's share of the pool. Dropping it drops its idle instances.
pub(super) struct Share {
    pool: Arc<Pool>,
    number: usize,
}

impl Pool {
    /// The share of a new service.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        let mut numbers = lock(&self.numbers);
        let number = numbers.free.pop().unwrap_or_else(|| {
            numbers.next += 1;
            numbers.next - 1
        });
        Share {
            pool: Arc::clone(self),
            number,
        }
    }

    /// Drops every idle instance of every service.
    pub(super) fn evict(&self) {
        self.drop_if(|_, _| true);
    }

    /// Drops the instances that have been idle for longer than [`IDLE`].
    pub(super) fn drop_idle(&self, now: Instant) {
        self.drop_if(|_, since| now.saturating_duration_since(since) > IDLE);
    }

    /// Unmapping memory takes a while; no lock is held meanwhile.
    fn drop_if(&self, goes: impl Fn(usize, Instant) -> bool) {
        for services in self.idle.all() {
            let mut gone = Vec::new();
            for (number, idle) in lock(services).iter_mut().enumerate() {
                gone.extend(idle.extract_if(.., |idle| goes(number, idle.since)));
            }
            drop(gone);
        }
    }
}

impl Share {
    /// An idle instance of the service: the one that this thread used last, else any.
    pub(super) fn take(&self) -> Option<Instance> {
        let taken = |services: &Mutex<Vec<Vec<Idle>>>| {
            let idle = lock(services).get_mut(self.number)?.pop()?;
            Some(idle.instance)
        };
        let pool = &self.pool.idle;
        taken(pool.own()).or_else(|| pool.all().find_map(taken))
    }

    /// Keeps an instance for the service's next call.
    pub(super) fn put(&self, instance: Instance, since: Instant) {
        let mut services = lock(self.pool.idle.own());
        if services.len() <= self.number {
            services.resize_with(self.number + 1, Vec::new);
        }
        if let Some(idle) = services.get_mut(self.number) {
            idle.push(Idle { since, instance });
        }
    }

    /// Drops the idle instances of all services, to make room for one more.
    pub(super) fn evict(&self) {
        self.pool.evict();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.drop_if(|number, _| number == self.number);
        lock(&self.pool.numbers).free.push(self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
