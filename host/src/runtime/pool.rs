//! The idle instances of all services.

use std::sync::atomic::{AtomicU32, Ordering};
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
    /// Instances that exist.
    live: AtomicU32,
    /// When idle instances last had to make room for a service that has its part already.
    evicted: Mutex<Option<Instant>>,
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

impl Numbers {
    fn services(&self) -> usize {
        self.next - self.free.len()
    }
}

/// One service's share of the pool. Its idle instances go with it.
pub(super) struct Share {
    pool: Arc<Pool>,
    number: usize,
    /// Instances of the service that exist.
    live: Arc<AtomicU32>,
}

/// The right to one instance, counted until it is dropped.
pub(super) struct Lease {
    pool: Arc<Pool>,
    live: Arc<AtomicU32>,
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
            live: Arc::default(),
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

    /// The number of the service's instances that exist, and of those that are idle.
    pub(super) fn count(&self) -> (usize, usize) {
        let idle = |services: &Mutex<Vec<Vec<Idle>>>| {
            let services = lock(services);
            services.get(self.number).map_or(0, Vec::len)
        };
        let live = self.live.load(Ordering::Relaxed) as usize;
        (live, self.pool.idle.all().map(idle).sum())
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

    /// The same for a service that has its part of all instances, and not too often: under a flood
    /// of its calls the others' instances would never be used twice.
    pub(super) fn evict_soon(&self) {
        const PAUSE: Duration = Duration::from_millis(100);
        let now = Instant::now();
        let mut evicted = lock(&self.pool.evicted);
        if evicted.is_none_or(|last| now.saturating_duration_since(last) > PAUSE) {
            *evicted = Some(now);
            drop(evicted);
            self.pool.evict();
        }
    }

    /// Counts an instance that is about to be created.
    pub(super) fn lease(&self) -> Lease {
        self.pool.live.fetch_add(1, Ordering::Relaxed);
        self.live.fetch_add(1, Ordering::Relaxed);
        Lease {
            pool: Arc::clone(&self.pool),
            live: Arc::clone(&self.live),
        }
    }
}

impl Lease {
    /// Whether the instance may be created in a host of so many: the last eighth is for services
    /// that have less than their part of all.
    pub(super) fn is_granted(&self, instances: u32) -> bool {
        let services = lock(&self.pool.numbers).services();
        let services = u32::try_from(services).unwrap_or(u32::MAX);
        may_have(
            instances,
            services,
            self.pool.live.load(Ordering::Relaxed),
            self.live.load(Ordering::Relaxed),
        )
    }

    /// Instances that the service has besides.
    pub(super) fn others_of_service(&self) -> u32 {
        self.live.load(Ordering::Relaxed).saturating_sub(1)
    }
}

/// Whether one of the services that share the instances may be the `own`th of its own when it is
/// the `live`th of all.
fn may_have(instances: u32, services: u32, live: u32, own: u32) -> bool {
    let part = (instances / services.max(1)).max(1);
    let reserve = (instances / 8).max(1);
    services <= 1 || own <= part || live <= instances.saturating_sub(reserve)
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.live.fetch_sub(1, Ordering::Relaxed);
        self.live.fetch_sub(1, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_instances_are_for_those_that_have_less_than_their_part() {
        // Of 64 instances 8 are kept back.
        assert!(may_have(64, 4, 56, 56));
        assert!(!may_have(64, 4, 57, 57));
        assert!(may_have(64, 4, 57, 1));
        assert!(may_have(64, 4, 64, 16));
        assert!(!may_have(64, 4, 64, 17));
    }

    #[test]
    fn a_service_alone_has_all() {
        assert!(may_have(64, 1, 64, 64));
        assert!(
            may_have(64, 1, 65, 65),
            "the engine refuses it, by its own words"
        );
    }

    #[test]
    fn small_hosts_keep_one_back() {
        assert!(may_have(3, 2, 2, 2));
        assert!(!may_have(3, 2, 3, 3));
        assert!(may_have(3, 2, 3, 1));
        // More services than instances: each may have one, while there is one.
        assert!(may_have(2, 5, 2, 1));
    }

    #[test]
    fn leases_are_counted_while_they_last() {
        let pool = Arc::<Pool>::default();
        let (one, other) = (pool.share(), pool.share());
        let leases: Vec<_> = (0..7).map(|_| one.lease()).collect();
        assert!(leases[6].is_granted(8));
        let eighth = one.lease();
        assert!(!eighth.is_granted(8));
        assert_eq!(eighth.others_of_service(), 7);
        drop(eighth);
        assert!(other.lease().is_granted(8));
        drop(leases);
        assert!(one.lease().is_granted(8));
        assert_eq!(pool.live.load(Ordering::Relaxed), 0);
    }
}
