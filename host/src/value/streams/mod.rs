//! Streams and futures: the readable end of one as a value.
//!
//! A guest gives one as an index of its store. [`attach`] has what it writes go through a bounded channel to
//! [`Items`], from where another guest, a message or a client gets it: in chunks, each a list. A future is a
//! stream of one item. A channel that closes is the end of a stream only if its writer's call did not fail,
//! which both sides learn from their [`Account`]: no reader takes a part for the whole.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::sync::mpsc;
use wasmtime::{AsContextMut, Result};

use super::Value;
use guest::Kind;

mod guest;
mod within;

pub(super) use guest::{Reader, future, reader};
pub(crate) use within::{NotWhole, attach_all, visit_shaped, whole};

/// Chunks that have been written and not read. Then the writer waits.
const CHUNKS: usize = 4;

/// A stream or a future, which can be read once. Copies are the same one.
#[derive(Clone)]
pub struct Stream(Arc<Shared>);

struct Shared {
    gives: Gives,
    end: Mutex<End>,
}

/// What a stream or a future gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gives {
    Bytes,
    Items,
    /// One value.
    Value,
}

enum End {
    /// In the store of the guest that writes it.
    Guest(Reader),
    Items(Items),
    /// It is read by this name.
    Named(Box<str>),
    /// Somebody reads it.
    Taken,
}

/// The writer of a stream did not write all of it, for this reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(pub(crate) Box<str>);

/// What is known of the streams that one call, or one peer, writes.
#[derive(Default)]
pub(crate) struct Account {
    streams: AtomicUsize,
    futures: AtomicUsize,
    future_closed: AtomicWaker,
    broken: OnceLock<Broken>,
}

impl Account {
    /// Has all of them that are not read to their end be broken, for this reason.
    pub(crate) fn fail(&self, why: impl Into<Box<str>>) {
        // The first reason is the one.
        let _ = self.broken.set(Broken(why.into()));
    }

    /// Whether its writer has streams or futures that it did not close.
    pub(crate) fn has_open(&self) -> bool {
        self.streams.load(Ordering::SeqCst) + self.futures.load(Ordering::SeqCst) > 0
    }

    /// Waits until all futures have their value.
    pub(crate) async fn futures_closed(&self) {
        poll_fn(|context| {
            self.future_closed.register(context.waker());
            match self.futures.load(Ordering::SeqCst) {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }
}

impl Stream {
    pub(super) fn of_guest(reader: Reader) -> Self {
        let gives = match reader {
            Reader::Bytes(_) => Gives::Bytes,
            Reader::Items(_) => Gives::Items,
            Reader::Future(_) => Gives::Value,
        };
        Self::new(gives, End::Guest(reader))
    }

    /// One that is read by this name.
    pub(crate) fn named(name: impl Into<Box<str>>, gives: Gives) -> Self {
        Self::new(gives, End::Named(name.into()))
    }

    /// What it gives.
    pub(crate) fn gives(&self) -> Gives {
        self.0.gives
    }

    /// Has it be read by a name.
    pub(crate) fn set_name(&self, name: impl Into<Box<str>>) {
        *self.lock() = End::Named(name.into());
    }

    /// Has these items be what it gives.
    pub(crate) fn set_items(&self, items: Items) {
        *self.lock() = End::Items(items);
    }

    /// The name by which it is read, if it has one.
    pub(crate) fn name(&self) -> Option<Box<str>> {
        match &*self.lock() {
            End::Named(name) => Some(name.clone()),
            _ => None,
        }
    }

    /// Its items, for the one who reads them.
    pub(crate) fn take(&self) -> Option<Items> {
        let mut end = self.lock();
        match std::mem::replace(&mut *end, End::Taken) {
            End::Items(items) => Some(items),
            other => {
                *end = other;
                None
            }
        }
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn new(gives: Gives, end: End) -> Self {
        let end = Mutex::new(end);
        Self(Arc::new(Shared { gives, end }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, End> {
        self.0.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what the guest writes go to items that can be read anywhere.
    fn attach(&self, mut store: impl AsContextMut, account: &Arc<Account>) -> Result<()> {
        let mut end = self.lock();
        *end = match std::mem::replace(&mut *end, End::Taken) {
            End::Guest(Reader::Bytes(reader)) => guest::attach(reader, &mut store, account)?,
            End::Guest(Reader::Items(reader)) => guest::attach(reader, &mut store, account)?,
            End::Guest(Reader::Future(reader)) => {
                let (sink, items) = guest::channel(Arc::clone(account), Kind::Future);
                reader.pipe(&mut store, sink)?;
                End::Items(items)
            }
            other => other,
        };
        Ok(())
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

/// What a stream gives, for its one reader.
pub(crate) struct Items {
    /// What was received and not read.
    rest: VecDeque<Value>,
    chunks: mpsc::Receiver<Value>,
    account: Arc<Account>,
}

impl Items {
    /// All that a stream gives, as a list of items or bytes; of a future, its value as the only item.
    pub(crate) fn all(chunk: Value) -> Self {
        let (_, chunks) = mpsc::channel(1);
        Self {
            rest: [chunk].into(),
            chunks,
            account: Arc::default(),
        }
    }

    /// Items that are sent from elsewhere, and how that is told that they are not all.
    pub(crate) fn channel() -> (mpsc::Sender<Value>, Self, Arc<Account>) {
        let account = Arc::<Account>::default();
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let items = Self {
            rest: VecDeque::new(),
            chunks,
            account: Arc::clone(&account),
        };
        (sender, items, account)
    }

    /// The next chunk, which is a list of items or bytes and not empty; `None` at the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<Result<Value, Broken>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Puts a chunk back, to be read first.
    pub(crate) fn put_back(&mut self, chunk: Value) {
        self.rest.push_front(chunk);
    }

    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Value, Broken>>> {
        loop {
            let chunk = match self.rest.pop_front() {
                Some(chunk) => chunk,
                None => match ready!(self.chunks.poll_recv(context)) {
                    Some(chunk) => chunk,
                    None => return Poll::Ready(self.account.broken.get().cloned().map(Err)),
                },
            };
            if length(&chunk) > 0 {
                return Poll::Ready(Some(Ok(chunk)));
            }
        }
    }

    /// As [`Self::poll_next`] with at most so many items.
    fn poll_up_to(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
    ) -> Poll<Option<Result<Value, Broken>>> {
        let next = ready!(self.poll_next(context));
        Poll::Ready(next.map(|chunk| {
            let (chunk, rest) = split(chunk?, most);
            if length(&rest) > 0 {
                self.put_back(rest);
            }
            Ok(chunk)
        }))
    }
}

/// The number of items of a chunk.
fn length(chunk: &Value) -> usize {
    match chunk {
        Value::Bytes(bytes) => bytes.len(),
        Value::List(items) => items.len(),
        _ => 0,
    }
}

/// The first items of a chunk, and the others.
pub(crate) fn split(chunk: Value, at: usize) -> (Value, Value) {
    match chunk {
        Value::Bytes(mut bytes) => {
            let rest = bytes.split_off(at.min(bytes.len()));
            (Value::Bytes(bytes), Value::Bytes(rest))
        }
        Value::List(mut items) => {
            let rest = items.split_off(at.min(items.len()));
            (Value::List(items), Value::List(rest))
        }
        other => (other, Value::List(Vec::new())),
    }
}
