//! How many calls a service runs at a time, and how long others wait for their turn.
//!
//! Both the number that waits and the time they wait are bounded, so a flood costs its senders an
//! answer of 429 and the host no memory.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::call::{Blame, CallError, Code};

/// The door to one service.
pub(crate) struct Admission {
    running: Semaphore,
    concurrency: u32,
    wait: Duration,
    waiting: AtomicU32,
    queue: u32,
}

impl Admission {
    pub(crate) fn new(concurrency: u32, wait: Duration, queue: u32) -> Self {
        Self {
            running: Semaphore::new(concurrency as usize),
            concurrency,
            wait,
            waiting: AtomicU32::new(0),
            queue,
        }
    }

    /// A place among the running calls; it is given back when the permit is dropped.
    ///
    /// # Errors
    ///
    /// [`Code::Overloaded`] when the queue is full or the wait is over, [`Code::Deadline`] when
    /// the caller's deadline comes first.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has taken no place.
    pub(crate) async fn enter(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, CallError> {
        if let Ok(permit) = self.running.try_acquire() {
            return Ok(permit);
        }
        let _queued = self.join_queue()?;
        let now = Instant::now();
        let patience = (now + self.wait).min(deadline);
        match tokio::time::timeout_at(patience.into(), self.running.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed.
            Ok(Err(_)) => Err(CallError::new(
                Code::Unavailable,
                Blame::Host,
                "the service is stopping",
            )),
            Err(_) if patience == deadline => Err(CallError::new(
                Code::Deadline,
                Blame::Guest,
                "the deadline passed while the call waited for its turn",
            )),
            Err(_) => Err(self.overloaded(format_args!("none finished within {:?}", self.wait))),
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
        CallError::new(
            Code::Overloaded,
            Blame::Host,
            format!("{} calls are running and {why}", self.concurrency),
        )
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
    use std::future::Future;
    use std::task::{Context, Waker};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn one_too_many_waits_and_is_then_shed() {
        let admission = Admission::new(1, Duration::from_millis(200), 8);
        let first = admission.enter(soon()).await.unwrap();
        let error = admission.enter(soon()).await.unwrap_err();
        assert_eq!(error.code, Code::Overloaded);
        drop(first);
        assert!(admission.enter(soon()).await.is_ok());
    }

    #[tokio::test]
    async fn a_full_queue_sheds_at_once() {
        let admission = Admission::new(1, Duration::from_secs(10), 1);
        let _running = admission.enter(soon()).await.unwrap();
        let waiting = admission.enter(soon());
        let mut waiting = std::pin::pin!(waiting);
        assert!(
            waiting
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        let error = admission.enter(soon()).await.unwrap_err();
        assert_eq!(error.message, "1 calls are running and 1 are waiting");
    }

    #[tokio::test]
    async fn a_place_in_the_queue_is_given_back() {
        let admission = Admission::new(1, Duration::from_millis(10), 1);
        let _running = admission.enter(soon()).await.unwrap();
        for _ in 0..3 {
            let error = admission.enter(soon()).await.unwrap_err();
            assert_eq!(
                error.message,
                "1 calls are running and none finished within 10ms"
            );
        }
    }
}
