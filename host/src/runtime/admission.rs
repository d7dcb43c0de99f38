//! Admission: the number of calls that a service runs at a time, and the wait of others.
//!
//! The number of waiting calls and their wait are bounded, so a flood costs its senders an answer
//! of 429 and the host no memory.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::call::CallError;

/// Lower bound of the wait of every call: a loop takes this long to get to a message that has just
/// arrived, and that is no queue.
const LEAST_WAIT: Duration = Duration::from_millis(10);

/// Bounds the calls of one service that run and those that wait.
pub(super) struct Admission {
    running: Semaphore,
    concurrency: u32,
    wait: Duration,
    waiting: AtomicU32,
    queue: u32,
    /// Stored events that wait: those are in no queue of callers, so they take no place in it.
    patient: AtomicU32,
}

impl Admission {
    pub(super) fn new(concurrency: u32, wait: Duration, queue: u32) -> Self {
        Self {
            running: Semaphore::new(concurrency as usize),
            concurrency,
            wait,
            waiting: AtomicU32::new(0),
            queue,
            patient: AtomicU32::new(0),
        }
    }

    /// Admits a call that arrived some time ago: it may run until the permit is dropped.
    ///
    /// # Errors
    ///
    /// [`Code::Overloaded`](crate::call::Code::Overloaded) when the queue is full or the wait is over,
    /// [`Code::Deadline`](crate::call::Code::Deadline) when the caller's deadline comes first.
    ///
    /// # Cancel safety
    ///
    /// A dropped future holds no permit.
    pub(super) async fn enter(
        &self,
        arrived: Instant,
        deadline: Instant,
    ) -> Result<SemaphorePermit<'_>, CallError> {
        // A call that has waited too long elsewhere is shed even if it could run at once: the wait is
        // bounded for its sender, and under a flood the calls that run are fresh.
        let waited = arrived.elapsed();
        if waited > self.longest_wait() {
            let why = format!(
                "waited {waited:?} before admission, {:?} are allowed",
                self.wait
            );
            return Err(CallError::overloaded(why));
        }
        if let Ok(permit) = self.running.try_acquire() {
            return Ok(permit);
        }
        let _queued = self.join_queue()?;
        let last = (arrived + self.wait).min(deadline);
        match tokio::time::timeout_at(last.into(), self.running.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed.
            Ok(Err(_)) => Err(CallError::stopped()),
            Err(_) if last == deadline => Err(CallError::deadline_in_queue()),
            Err(_) => Err(self.overloaded(format_args!("none finished within {:?}", self.wait))),
        }
    }

    /// Upper bound of the time for which a call may wait before it is admitted.
    pub(super) fn longest_wait(&self) -> Duration {
        self.wait.max(LEAST_WAIT)
    }

    /// Admits a stored event. No caller waits for its reply, so it waits without a bound, in one line
    /// with the calls. `None` never happens: the semaphore is never closed.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has been admitted to nothing.
    pub(super) async fn enter_patiently(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.running.try_acquire() {
            return Some(permit);
        }
        self.patient.fetch_add(1, Ordering::Relaxed);
        let _waiting = Queued(&self.patient);
        self.running.acquire().await.ok()
    }

    /// The number of calls that could run at once.
    pub(super) fn free(&self) -> usize {
        self.running.available_permits()
    }

    /// The number of calls that run, and of those that wait.
    pub(super) fn load(&self) -> (usize, usize) {
        let running = (self.concurrency as usize).saturating_sub(self.free());
        let waiting = self.waiting.load(Ordering::Relaxed) + self.patient.load(Ordering::Relaxed);
        (running, waiting as usize)
    }

    /// Waits until no call runs or waits. It looks from time to time instead of taking permits, which
    /// a call that comes after all would have to wait for.
    pub(super) async fn drained(&self) {
        const LOOK: Duration = Duration::from_millis(5);
        while self.running.available_permits() < self.concurrency as usize
            || self.waiting.load(Ordering::Relaxed) > 0
            || self.patient.load(Ordering::Relaxed) > 0
        {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn join_queue(&self) -> Result<Queued<'_>, CallError> {
        let ahead = self.waiting.fetch_add(1, Ordering::Relaxed);
        let queued = Queued(&self.waiting);
        if ahead >= self.queue {
            return Err(self.overloaded(format_args!("{ahead} are waiting")));
        }
        Ok(queued)
    }

    fn overloaded(&self, why: std::fmt::Arguments<'_>) -> CallError {
        CallError::overloaded(format_args!(
            "{} calls are running and {why}",
            self.concurrency
        ))
    }
}

struct Queued<'a>(&'a AtomicU32);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Code;
    use std::future::Future;
    use std::task::{Context, Waker};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn one_too_many_waits_and_is_then_shed() {
        let admission = Admission::new(1, Duration::from_millis(200), 8);
        let first = admission.enter(Instant::now(), soon()).await.unwrap();
        let error = admission.enter(Instant::now(), soon()).await.unwrap_err();
        assert_eq!(error.code, Code::Overloaded);
        drop(first);
        assert!(admission.enter(Instant::now(), soon()).await.is_ok());
    }

    #[tokio::test]
    async fn a_wait_before_admission_counts() {
        let admission = Admission::new(1, Duration::from_millis(200), 8);
        let long_ago = Instant::now() - Duration::from_millis(201);
        let error = admission.enter(long_ago, soon()).await.unwrap_err();
        assert_eq!(error.code, Code::Overloaded);
    }

    #[tokio::test]
    async fn without_a_wait_a_free_service_still_takes_calls() {
        let admission = Admission::new(1, Duration::ZERO, 0);
        let permit = admission.enter(Instant::now(), soon()).await.unwrap();
        let error = admission.enter(Instant::now(), soon()).await.unwrap_err();
        assert_eq!(error.code, Code::Overloaded);
        drop(permit);
        let just_now = Instant::now() - Duration::from_millis(1);
        assert!(admission.enter(just_now, soon()).await.is_ok());
    }

    #[tokio::test]
    async fn draining_waits_for_every_call() {
        let admission = Admission::new(2, Duration::from_secs(1), 8);
        let permit = admission.enter(Instant::now(), soon()).await.unwrap();
        let mut drained = std::pin::pin!(admission.drained());
        let mut context = Context::from_waker(Waker::noop());
        assert!(drained.as_mut().poll(&mut context).is_pending());
        drop(permit);
        drained.await;
    }

    #[tokio::test]
    async fn a_full_queue_sheds_at_once() {
        let admission = Admission::new(1, Duration::from_secs(10), 1);
        let _running = admission.enter(Instant::now(), soon()).await.unwrap();
        let waiting = admission.enter(Instant::now(), soon());
        let mut waiting = std::pin::pin!(waiting);
        assert!(
            waiting
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        let error = admission.enter(Instant::now(), soon()).await.unwrap_err();
        assert_eq!(error.message, "1 calls are running and 1 are waiting");
    }

    #[tokio::test]
    async fn what_is_patient_is_never_shed_and_takes_its_turn_among_calls() {
        let admission = Admission::new(1, Duration::from_millis(10), 1);
        let running = admission.enter(Instant::now(), soon()).await.unwrap();
        let mut patient = std::pin::pin!(admission.enter_patiently());
        let mut context = Context::from_waker(Waker::noop());
        assert!(patient.as_mut().poll(&mut context).is_pending());
        // It has no place in the queue, and later calls come after it.
        let error = admission.enter(Instant::now(), soon()).await.unwrap_err();
        assert!(error.message.contains("none finished"), "{error}");
        let mut drained = std::pin::pin!(admission.drained());
        assert!(drained.as_mut().poll(&mut context).is_pending());
        drop(running);
        let permit = patient.await;
        assert!(permit.is_some());
        assert_eq!(admission.free(), 0);
        drop(permit);
        drained.await;
    }

    #[tokio::test]
    async fn a_wait_that_is_over_leaves_the_queue() {
        let admission = Admission::new(1, Duration::from_millis(10), 1);
        let _running = admission.enter(Instant::now(), soon()).await.unwrap();
        for _ in 0..3 {
            let error = admission.enter(Instant::now(), soon()).await.unwrap_err();
            assert_eq!(
                error.message,
                "1 calls are running and none finished within 10ms"
            );
        }
    }
}
