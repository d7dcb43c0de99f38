//! Poll-once helpers: most futures of calls end with their first poll, and then cost neither a task
//! nor a timer. Futures that have to wait are parked as tasks.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use tokio::task::coop::unconstrained;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::error::Elapsed;

/// The poll budget: time for which a loop works on messages before the connection reads and writes.
/// A guest that computes has [`EPOCH_TICK`](crate::runtime::EPOCH_TICK) at a time, so this is also
/// the share of the thread for others.
pub(crate) const POLL_BUDGET: Duration = Duration::from_micros(500);

/// The waker of the task that runs.
pub(crate) async fn waker() -> Waker {
    poll_fn(|context| Poll::Ready(context.waker().clone())).await
}

/// The outcome of a future's first poll.
pub(crate) async fn once<F: Future>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// The output of a future that ends before the deadline. A timer is armed only if the first poll
/// does not end it.
///
/// # Errors
///
/// The deadline passed.
pub(crate) async fn within<F: Future>(
    deadline: tokio::time::Instant,
    mut future: Pin<&mut F>,
) -> Result<F::Output, Elapsed> {
    match once(&mut future).await {
        Poll::Ready(output) => Ok(output),
        // Boxed: else futures that need no timer would have room for one.
        Poll::Pending => Box::pin(tokio::time::timeout_at(deadline, future)).await,
    }
}

/// The ready item of a stream. Polling does not use up the task's budget.
pub(crate) fn ready<S: Stream + Unpin>(stream: &mut S) -> Poll<Option<S::Item>> {
    let mut context = Context::from_waker(Waker::noop());
    pin!(unconstrained(stream.next())).poll(&mut context)
}

/// A reusable allocation for futures of one type; a parked future takes it with it.
pub(crate) struct TaskSlot<F>(Option<Pin<Box<F>>>);

enum First<F> {
    Done,
    Pending(Pin<Box<F>>),
    Panicked,
}

impl<F: Future<Output = ()>> TaskSlot<F> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    fn poll(&mut self, waker: &Waker, future: impl FnOnce() -> F) -> First<F> {
        let mut future = match self.0.take() {
            Some(mut slot) => {
                Pin::set(&mut slot, future());
                slot
            }
            None => Box::pin(future()),
        };
        let mut context = Context::from_waker(waker);
        let polled = AssertUnwindSafe(|| future.as_mut().poll(&mut context));
        match catch_unwind(polled) {
            Ok(Poll::Ready(())) => {
                self.0 = Some(future);
                First::Done
            }
            Ok(Poll::Pending) => First::Pending(future),
            Err(_) => First::Panicked,
        }
    }
}

/// The futures in flight of one loop, each with a key: the subject of its reply.
///
/// A future is polled once at its start; one that has to wait is parked as a task beside the loop.
/// Dropping this aborts the parked ones.
pub(crate) struct InFlight<K> {
    parked: JoinSet<()>,
    keys: HashMap<task::Id, K>,
}

/// The end of a future that was in flight.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended<K> {
    /// It ran to its end.
    Done,
    /// It panicked: a defect of the host, which must not end the others.
    Panicked(Option<K>),
}

impl<K> InFlight<K> {
    pub(crate) fn new() -> Self {
        Self {
            parked: JoinSet::new(),
            keys: HashMap::new(),
        }
    }

    /// Polls a future once with the loop's waker, and parks it if it has to wait; `None` means parked.
    ///
    /// # Cost
    ///
    /// The future is made where it is polled: those of calls are large, and each time that one is
    /// passed on it is copied.
    pub(crate) fn start<F>(
        &mut self,
        slot: &mut TaskSlot<F>,
        waker: &Waker,
        key: Option<K>,
        future: impl FnOnce() -> F,
    ) -> Option<Ended<K>>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match slot.poll(waker, future) {
            First::Done => Some(Ended::Done),
            First::Panicked => Some(Ended::Panicked(key)),
            First::Pending(future) => {
                let parked = self.parked.spawn(future);
                self.keys.extend(key.map(|key| (parked.id(), key)));
                None
            }
        }
    }

    /// Waits for the end of a parked future; `None` without any.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has taken no end.
    pub(crate) async fn next(&mut self) -> Option<Ended<K>> {
        let ended = self.parked.join_next_with_id().await?;
        Some(self.forget(ended))
    }

    /// The end of a parked future that has ended already.
    pub(crate) fn try_next(&mut self) -> Option<Ended<K>> {
        let ended = self.parked.try_join_next_with_id()?;
        Some(self.forget(ended))
    }

    /// Aborts the parked futures, and returns the keys of those that had not ended by themselves.
    pub(crate) async fn abort(mut self) -> Vec<Option<K>> {
        self.parked.abort_all();
        let mut aborted = Vec::new();
        while let Some(ended) = self.parked.join_next_with_id().await {
            if let Err(error) = ended {
                aborted.push(self.keys.remove(&error.id()));
            }
        }
        aborted
    }

    fn forget(&mut self, ended: Result<(task::Id, ()), JoinError>) -> Ended<K> {
        match ended {
            Ok((id, ())) => {
                self.keys.remove(&id);
                Ended::Done
            }
            Err(error) => Ended::Panicked(self.keys.remove(&error.id())),
        }
    }
}

/// A time budget of a loop.
pub(crate) struct Budget {
    began: Instant,
    share: Duration,
}

impl Budget {
    /// A share that begins now.
    pub(crate) fn new(share: Duration) -> Self {
        Self {
            began: Instant::now(),
            share,
        }
    }

    /// The time, if something of the share is left.
    pub(crate) fn left(&self) -> Option<Instant> {
        let now = Instant::now();
        let used = now.saturating_duration_since(self.began);
        (used < self.share).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Does {
        End,
        Wait,
        Panic,
    }

    async fn future(does: Does) {
        match does {
            Does::End => {}
            Does::Wait => task::yield_now().await,
            Does::Panic => panic!("a defect"),
        }
    }

    #[tokio::test]
    async fn a_slot_is_reused_after_any_end() {
        let (mut slot, mut in_flight) = (TaskSlot::new(), InFlight::new());
        let waker = waker().await;
        for does in [Does::End, Does::Wait, Does::End, Does::Panic, Does::End] {
            let ended = in_flight.start(&mut slot, &waker, Some(7), || future(does));
            match does {
                Does::End => assert_eq!(ended, Some(Ended::Done)),
                Does::Panic => assert_eq!(ended, Some(Ended::Panicked(Some(7)))),
                Does::Wait => {
                    assert_eq!(ended, None);
                    assert_eq!(in_flight.next().await, Some(Ended::Done));
                }
            }
        }
        assert_eq!(in_flight.next().await, None);
    }

    #[tokio::test]
    async fn a_parked_future_that_panics_is_reported_with_its_key() {
        let (mut slot, mut in_flight) = (TaskSlot::new(), InFlight::new());
        let waker = waker().await;
        let future = || async {
            task::yield_now().await;
            panic!("a defect");
        };
        let ended = in_flight.start(&mut slot, &waker, Some("key"), future);
        assert_eq!(ended, None);
        assert_eq!(in_flight.next().await, Some(Ended::Panicked(Some("key"))));
    }

    #[tokio::test]
    async fn aborting_returns_the_keys_of_what_had_not_ended() {
        let (mut slot, mut in_flight) = (TaskSlot::new(), InFlight::new());
        let waker = waker().await;
        for key in [Some(1), None] {
            let ended = in_flight.start(&mut slot, &waker, key, std::future::pending);
            assert_eq!(ended, None);
        }
        let mut aborted = in_flight.abort().await;
        aborted.sort();
        assert_eq!(aborted, [None, Some(1)]);
    }

    #[tokio::test]
    async fn a_deadline_ends_only_futures_that_wait() {
        let now = tokio::time::Instant::now();
        assert_eq!(within(now, pin!(async { 1 })).await.ok(), Some(1));
        let waiting = pin!(std::future::pending::<()>());
        assert!(
            within(now + Duration::from_millis(5), waiting)
                .await
                .is_err()
        );
        assert!(now.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn only_ready_items_are_taken() {
        let mut some = futures_util::stream::iter([1]);
        assert_eq!(ready(&mut some), Poll::Ready(Some(1)));
        assert_eq!(ready(&mut some), Poll::Ready(None));
        let mut pending = futures_util::stream::pending::<u8>();
        assert_eq!(ready(&mut pending), Poll::Pending);
    }
}
