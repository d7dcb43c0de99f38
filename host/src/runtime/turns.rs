//! The turns of guests that compute: fresh calls first, and of those that have computed for long one
//! at a time.
//!
//! A thread runs its guests one after the other, a tick each. Were they all equal, a call would wait
//! for a tick of every guest that computes, and 64 that spin would make that a third of a second. So
//! what has used up a tick goes behind what has not: of the guests of a thread that have used up a
//! few, one at a time may go on, and of those that have used up more, one at a time too. Between two
//! such ticks the thread serves whatever else is ready, and its timers and sockets.
//!
//! Here it is counted, too, for how long guests compute: by a clock that moves once a tick, so most turns
//! read it twice and count nothing, and what a service has computed is right on average. Two looks at an
//! exact clock would cost a tenth of a small call.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::per_core::PerCore;
use crate::telemetry::{self, Counts, Within};

/// Ticks after which a guest waits with those that compute for long. Most calls of interpreted
/// languages end before.
const FEW: u32 = 3;

/// The turns of all threads.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<PerCore<Thread>>);

/// The turns of the guests of one thread.
struct Thread {
    few: Arc<Semaphore>,
    many: Arc<Semaphore>,
}

impl Default for Thread {
    fn default() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self {
            few: one(),
            many: one(),
        }
    }
}

thread_local! {
    /// The turn of the guest that runs now, if it had to wait for one.
    static TAKEN: Cell<Option<OwnedSemaphorePermit>> = const { Cell::new(None) };
}

/// Nanoseconds until the last tick of the process.
static CLOCK: AtomicU64 = AtomicU64::new(0);

/// The guest that runs on this thread: when it began or went on, and how long it had computed before,
/// in this turn.
#[derive(Clone, Copy)]
struct Running {
    since: u64,
    before: u64,
}

thread_local! {
    static RUNNING: Cell<Running> = const { Cell::new(Running { since: 0, before: 0 }) };
}

/// Moves the clock that guests are measured by.
pub(super) fn tick() {
    static START: OnceLock<Instant> = OnceLock::new();
    let now = START.get_or_init(Instant::now).elapsed().as_nanos();
    CLOCK.fetch_max(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
}

impl Running {
    /// How long it has computed in this turn.
    fn computed(self, now: u64) -> u64 {
        self.before + now.saturating_sub(self.since)
    }
}

impl Turns {
    /// The turn of a guest that has used up so many ticks.
    pub(super) fn next(&self, ticks: u32) -> impl Future<Output = ()> + Send + 'static {
        let thread = self.0.own();
        let turns = if ticks <= FEW {
            &thread.few
        } else {
            &thread.many
        };
        let turns = Arc::clone(turns);
        async move {
            // The semaphore is never closed, and its queue is in order.
            let turn = turns.acquire_owned().await.ok();
            // wasmtime's own yield, and the semaphore too, put the task back at once, and a runtime
            // with one thread then looks at its timers and sockets only every 61st time. tokio's
            // yield lets it look first.
            tokio::task::yield_now().await;
            TAKEN.set(turn);
        }
    }
}

/// Polls a guest of the service that counts here. Whether it ends, waits or has used up its tick, its turn
/// is over. Within its turn may be that of a guest that it calls, whose time is not its own.
pub(super) fn poll<F: Future>(
    guest: Pin<&mut F>,
    context: &mut Context<'_>,
    counts: &Counts,
    within: Option<Within>,
) -> Poll<F::Output> {
    let outside = telemetry::set_current_trace(within);
    let since = CLOCK.load(Ordering::Relaxed);
    let caller = RUNNING.replace(Running { since, before: 0 });
    let polled = guest.poll(context);
    TAKEN.set(None);
    telemetry::set_current_trace(outside);
    let now = CLOCK.load(Ordering::Relaxed);
    let computed = RUNNING.get().computed(now);
    if computed > 0 {
        counts.computed.add(computed);
    }
    RUNNING.set(Running {
        since: now,
        before: caller.computed(since),
    });
    polled
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::Mutex;

    use super::*;

    /// Notes its name at each of its turns.
    async fn compute(
        turns: Turns,
        name: &'static str,
        ticks: u32,
        log: Arc<Mutex<Vec<&'static str>>>,
    ) {
        let mut guest = pin!(async {
            for tick in 1..=ticks {
                turns.next(tick).await;
                log.lock().unwrap().push(name);
            }
        });
        poll_fn(|context| super::poll(guest.as_mut(), context, &Counts::default(), None)).await;
    }

    #[tokio::test]
    async fn those_that_compute_for_long_let_everybody_else_go_between() {
        let (turns, log) = (Turns::default(), Arc::default());
        let long: Vec<_> = (0..10)
            .map(|_| tokio::spawn(compute(turns.clone(), "long", 30, Arc::clone(&log))))
            .collect();
        // Until all of them are long.
        while log.lock().unwrap().len() < 100 {
            tokio::task::yield_now().await;
        }
        let before = log.lock().unwrap().len();
        compute(turns, "fresh", 2, Arc::clone(&log)).await;
        let between = log.lock().unwrap().len() - before - 2;
        // One of them for each of its two turns, and not ten.
        assert!(between <= 4, "{between}");
        for long in long {
            long.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_turn_is_over_when_its_guest_waits_or_is_dropped() {
        let turns = Turns::default();
        let mut waits = Box::pin(async {
            turns.next(9).await;
            std::future::pending::<()>().await;
        });
        for _ in 0..3 {
            let polled = poll_fn(|context| {
                let polled = super::poll(waits.as_mut(), context, &Counts::default(), None);
                Poll::Ready(polled.is_pending())
            });
            assert!(polled.await);
            tokio::task::yield_now().await;
        }
        let mut dropped = Box::pin(turns.next(9));
        let polled = poll_fn(|context| Poll::Ready(dropped.as_mut().poll(context)));
        assert!(polled.await.is_pending());
        drop(dropped);
        turns.next(9).await;
        TAKEN.set(None);
    }

    #[tokio::test]
    async fn what_a_guest_computes_is_its_own_and_not_its_callers() {
        let compute = |ms: u64| {
            tick();
            let until = CLOCK.load(Ordering::Relaxed) + ms * 1_000_000;
            while CLOCK.load(Ordering::Relaxed) < until {
                tick();
            }
        };
        let (caller, callee) = (Counts::default(), Counts::default());
        tick();
        let began = CLOCK.load(Ordering::Relaxed);
        let mut outer = pin!(async {
            compute(2);
            let mut inner = pin!(async { compute(5) });
            poll_fn(|context| super::poll(inner.as_mut(), context, &callee, None)).await;
            compute(3);
        });
        poll_fn(|context| super::poll(outer.as_mut(), context, &caller, None)).await;
        let all = CLOCK.load(Ordering::Relaxed) - began;
        let (caller, callee) = (caller.computed.read(), callee.computed.read());
        assert!(
            caller >= 5_000_000 && callee >= 5_000_000,
            "{caller} {callee}"
        );
        assert!(caller + callee <= all, "{caller} {callee} {all}");
    }
}
