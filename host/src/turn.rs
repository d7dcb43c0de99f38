//! How a loop that shares its thread takes its turn: what has arrived is worked on at once, where
//! it arrived, for a bounded time; what has to wait for something leaves the loop.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::task::coop::unconstrained;

/// How long messages are worked on before the connection gets a turn to read and write. A guest
/// that computes has [`EPOCH_TICK`](crate::engine::EPOCH_TICK) at a time, so this is also the share
/// that its neighbours on the thread keep.
pub(crate) const TURN: Duration = Duration::from_micros(500);

/// One allocation for future after future: only one that has to wait takes it along.
pub(crate) struct Place<F>(Option<Pin<Box<F>>>);

/// What came of a future's first poll.
pub(crate) enum First<F> {
    /// It has ended.
    Done,
    /// It waits for something.
    Waits(Pin<Box<F>>),
    /// It panicked: a defect of the host, which must not cost the others theirs.
    Panicked,
}

impl<F: Future<Output = ()>> Place<F> {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Polls a future once.
    pub(crate) async fn first(&mut self, future: F) -> First<F> {
        let mut future = match self.0.take() {
            Some(mut place) => {
                Pin::set(&mut place, future);
                place
            }
            None => Box::pin(future),
        };
        let polled = poll_fn(|context| {
            let poll = AssertUnwindSafe(|| future.as_mut().poll(context));
            Poll::Ready(catch_unwind(poll))
        });
        match polled.await {
            Ok(Poll::Ready(())) => {
                self.0 = Some(future);
                First::Done
            }
            Ok(Poll::Pending) => First::Waits(future),
            Err(_) => First::Panicked,
        }
    }
}

/// What a stream has there already. Looking does not use up the task's turn.
pub(crate) fn waiting<S: Stream + Unpin>(stream: &mut S) -> Poll<Option<S::Item>> {
    let mut context = Context::from_waker(Waker::noop());
    pin!(unconstrained(stream.next())).poll(&mut context)
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
            Does::Wait => tokio::task::yield_now().await,
            Does::Panic => panic!("a defect"),
        }
    }

    #[tokio::test]
    async fn a_place_serves_on_whatever_became_of_the_last() {
        let mut place = Place::new();
        for does in [Does::End, Does::Wait, Does::End, Does::Panic, Does::End] {
            match (does, place.first(future(does)).await) {
                (Does::End, First::Done) | (Does::Panic, First::Panicked) => {}
                (Does::Wait, First::Waits(rest)) => rest.await,
                _ => panic!("something else came of it"),
            }
        }
    }

    #[test]
    fn only_what_is_there_is_taken() {
        let mut some = futures_util::stream::iter([1]);
        assert_eq!(waiting(&mut some), Poll::Ready(Some(1)));
        assert_eq!(waiting(&mut some), Poll::Ready(None));
        assert_eq!(
            waiting(&mut futures_util::stream::pending::<u8>()),
            Poll::Pending
        );
    }
}
