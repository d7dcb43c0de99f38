//! A subscription: the queue of its messages, and its end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;

use super::protocol::Message;
use super::{Arc, Bound, Link};
use crate::nats::connect::SettleError;

/// The messages of one subject, in the order in which they came. It ends when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    link: Link,
    sid: u64,
    queue: Arc<Queue>,
}

impl Subscription {
    pub(super) fn new(link: Link, sid: u64, queue: Arc<Queue>) -> Self {
        Self { link, sid, queue }
    }

    /// Messages that were dropped since too many waited to be read.
    pub(crate) fn lost(&self) -> u64 {
        self.queue.lock().lost
    }

    /// Ends the flow of messages. What the server had handed out before it knew has arrived when this
    /// returns, and can still be read.
    ///
    /// # Errors
    /// The connection is closed.
    ///
    /// # Cancel safety
    /// The flow ends also if the future is dropped; it is only not known when.
    pub async fn unsubscribe(&mut self) -> Result<(), SettleError> {
        let confirmed = self.link.0.shared.unsubscribe(self.sid);
        confirmed.await.map_err(|_| SettleError::Closed)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.link.0.shared.forget(self.sid);
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.queue.poll(context)
    }
}

/// Messages that have come and were not read yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bound: Bound,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
    reader: Option<Waker>,
    closed: bool,
    /// Messages that were dropped.
    lost: u64,
}

impl Queue {
    pub(super) fn new(bound: Bound) -> Self {
        Self {
            bound,
            waiting: Mutex::default(),
        }
    }

    /// Adds a message and wakes the reader; or drops it, and returns how many were, if too many wait.
    pub(super) fn push(&self, message: Message) -> Option<u64> {
        let mut waiting = self.lock();
        if waiting.messages.len() >= self.bound.messages || waiting.bytes >= self.bound.bytes {
            waiting.lost += 1;
            return Some(waiting.lost);
        }
        waiting.bytes += message.length;
        waiting.messages.push_back(message);
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
        None
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let mut waiting = self.lock();
        if let Some(message) = waiting.messages.pop_front() {
            waiting.bytes -= message.length;
            if waiting.messages.is_empty() && waiting.messages.capacity() > KEPT {
                waiting.messages = VecDeque::new();
            }
            return Poll::Ready(Some(message));
        }
        if waiting.closed {
            return Poll::Ready(None);
        }
        match &mut waiting.reader {
            Some(reader) => reader.clone_from(context.waker()),
            None => waiting.reader = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// No code under the lock can panic, so the data of a poisoned one is valid.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for messages that an empty queue keeps; that of a burst is freed.
const KEPT: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Message {
        Message {
            subject: "a".into(),
            reply: None,
            headers: None,
            payload: bytes::Bytes::new(),
            status: None,
            malformed: None,
            length,
        }
    }

    #[test]
    fn no_more_waits_than_the_bound_says() {
        let bound = Bound {
            messages: 3,
            bytes: 100,
        };
        let lost = |lengths: &[usize]| {
            let queue = Queue::new(bound);
            let pushed = lengths.iter().map(|length| queue.push(message(*length)));
            pushed.last().flatten()
        };
        assert_eq!(lost(&[1, 1, 1]), None);
        assert_eq!(lost(&[1, 1, 1, 1]), Some(1));
        assert_eq!(lost(&[1, 1, 1, 1, 1]), Some(2));
        assert_eq!(lost(&[99, 50]), None);
        assert_eq!(lost(&[100, 1]), Some(1));
    }
}
