//! A subscription: the queue of its messages, and its end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;

use super::protocol::Message;
use super::{Arc, Link, SUBSCRIPTION_BYTES};
use crate::nats::connect::{SUBSCRIPTION_CAPACITY, SettleError};

/// Waiting messages at which the connection is read no further for a while. What was read together with
/// the last of them still has room.
const HIGH: usize = SUBSCRIPTION_CAPACITY / 2;

/// Waiting messages at which it is read again.
const LOW: usize = SUBSCRIPTION_CAPACITY / 4;

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
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
    reader: Option<Waker>,
    /// Waits for [`LOW`].
    writer: Option<Waker>,
    closed: bool,
    /// Nobody waits for room any more, until there is.
    overrun: bool,
    /// Messages that were dropped.
    lost: u64,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    /// It is queued, and enough are.
    High,
    /// It was dropped, with so many others so far.
    Lost(u64),
}

impl Queue {
    /// Adds a message and wakes the reader; or drops it if too many wait.
    pub(super) fn push(&self, message: Message) -> Pushed {
        let mut waiting = self.lock();
        if waiting.messages.len() >= SUBSCRIPTION_CAPACITY || waiting.bytes >= SUBSCRIPTION_BYTES {
            waiting.lost += 1;
            return Pushed::Lost(waiting.lost);
        }
        waiting.bytes += message.length;
        waiting.messages.push_back(message);
        let pushed = match waiting.is_above(HIGH) && !waiting.overrun {
            true => Pushed::High,
            false => Pushed::Queued,
        };
        let reader = waiting.reader.take();
        drop(waiting);
        if let Some(reader) = reader {
            reader.wake();
        }
        pushed
    }

    /// Ready when few messages wait again, or none comes any more.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.lock();
        if waiting.closed || !waiting.is_above(LOW) {
            return Poll::Ready(());
        }
        waiting.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes messages until there is no room, and then drops them, until few wait again.
    pub(super) fn overrun(&self) {
        self.lock().overrun = true;
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let woken = [waiting.reader.take(), waiting.writer.take()];
        drop(waiting);
        woken.into_iter().flatten().for_each(Waker::wake);
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let mut waiting = self.lock();
        if let Some(message) = waiting.messages.pop_front() {
            waiting.bytes -= message.length;
            if !waiting.is_above(LOW) {
                waiting.overrun = false;
                if let Some(writer) = waiting.writer.take() {
                    writer.wake();
                }
            }
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whether more wait than so many, or than that share of the bytes.
    fn is_above(&self, messages: usize) -> bool {
        let bytes = SUBSCRIPTION_BYTES / SUBSCRIPTION_CAPACITY * messages;
        self.messages.len() > messages || self.bytes > bytes
    }
}

/// Room for messages that an empty queue keeps; that of a burst is freed.
const KEPT: usize = 1_024;
