//! Streams and futures: the readable end of one as a value.
//!
//! A guest gives one as an index of its store. [`attach`] has what it writes go through a bounded channel to
//! [`Items`], from where another guest, a message or a client gets it: in chunks, each a list. A future is a
//! stream of one item. A channel that closes is the end of a stream only if its writer's call did not fail,
//! which both sides learn from their [`Account`]: no reader takes a part for the whole.

use std::any::{Any, TypeId};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use futures_util::future::try_join_all;
use futures_util::task::AtomicWaker;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use wasmtime::component::{
    Destination, FutureConsumer, FutureReader, Lift, Lower, ReadBuffer, Source, StreamConsumer,
    StreamProducer, StreamReader, StreamResult, VecBuffer, WriteBuffer,
};
use wasmtime::{AsContextMut, Result, StoreContextMut, format_err};

use super::Value;
use super::abi::{Item, lift_items};
use crate::shape::Shape;

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

/// The readable end in a guest's store.
pub(super) enum Reader {
    Bytes(StreamReader<u8>),
    Items(StreamReader<Item>),
    Future(FutureReader<Item>),
}

/// The writer of a stream did not write all of it, for this reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Broken(pub(crate) Box<str>);

/// Why not all that a stream gives can be had in one piece.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotWhole {
    #[error(transparent)]
    Broken(#[from] Broken),
    /// It is more than a message has room for.
    #[error(
        "a stream gives more than {limit} {unit}, as many as a message may have; read it as it comes"
    )]
    TooLarge { limit: usize, unit: &'static str },
}

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
            End::Guest(Reader::Bytes(reader)) => attach(reader, &mut store, account)?,
            End::Guest(Reader::Items(reader)) => attach(reader, &mut store, account)?,
            End::Guest(Reader::Future(reader)) => {
                let (sink, items) = channel(Arc::clone(account), Kind::Future);
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

/// Has what a guest writes to the streams in these values go to items that can be read outside of its store,
/// as long as that runs. Returns whether there are any.
///
/// # Errors
///
/// The store has no room for it.
pub(crate) fn attach_all<'v>(
    values: impl IntoIterator<Item = &'v Value>,
    mut store: impl AsContextMut,
    account: &Arc<Account>,
) -> Result<bool> {
    let mut attached = Ok(false);
    for value in values {
        visit(value, &mut |stream| {
            if attached.is_ok() {
                attached = stream.attach(&mut store, account).map(|()| true);
            }
        });
    }
    attached
}

/// Shows the streams in a value.
pub(crate) fn visit(value: &Value, seen: &mut impl FnMut(&Stream)) {
    match value {
        Value::Stream(stream) => seen(stream),
        Value::List(values)
        | Value::FixedList(values)
        | Value::Tuple(values)
        | Value::Record(values) => {
            for value in values {
                visit(value, seen);
            }
        }
        Value::Variant(_, Some(value))
        | Value::Option(Some(value))
        | Value::Result(Ok(Some(value)) | Err(Some(value))) => visit(value, seen),
        _ => {}
    }
}

/// A value with all that its streams give in their places, which are read at the same time.
///
/// # Errors
///
/// One is broken, or all that it gives is beyond the limits.
pub(crate) async fn whole(value: Value, bytes: usize, items: usize) -> Result<Value, NotWhole> {
    let mut streams = Vec::new();
    visit(&value, &mut |stream| streams.push(stream.clone()));
    let read = streams.iter().map(|stream| read_all(stream, bytes, items));
    let read = try_join_all(read).await?;
    let mut read = read.into_iter();
    Ok(replace(value, &mut read))
}

async fn read_all(stream: &Stream, bytes: usize, items: usize) -> Result<Value, NotWhole> {
    let mut all = match stream.gives() {
        Gives::Bytes => Value::Bytes(Vec::new()),
        Gives::Items | Gives::Value => Value::List(Vec::new()),
    };
    let mut left = stream.take();
    while let Some(left) = &mut left
        && let Some(chunk) = left.next().await
    {
        let (length, limit, unit) = match (&mut all, chunk?) {
            (Value::Bytes(all), Value::Bytes(mut chunk)) => {
                all.append(&mut chunk);
                (all.len(), bytes, "bytes")
            }
            (Value::List(all), Value::List(mut chunk)) => {
                all.append(&mut chunk);
                (all.len(), items, "items")
            }
            _ => continue,
        };
        if length > limit {
            return Err(NotWhole::TooLarge { limit, unit });
        }
    }
    match (stream.gives(), all) {
        (Gives::Value, Value::List(mut values)) => values
            .pop()
            .ok_or_else(|| Broken("a future ended without a value".into()).into()),
        (_, all) => Ok(all),
    }
}

fn replace(value: Value, read: &mut impl Iterator<Item = Value>) -> Value {
    let mut each = |values: Vec<Value>| {
        let replaced = values.into_iter().map(|value| replace(value, read));
        replaced.collect::<Vec<_>>()
    };
    match value {
        Value::Stream(stream) => read.next().unwrap_or(Value::Stream(stream)),
        Value::List(values) => Value::List(each(values)),
        Value::FixedList(values) => Value::FixedList(each(values)),
        Value::Tuple(values) => Value::Tuple(each(values)),
        Value::Record(values) => Value::Record(each(values)),
        Value::Variant(case, Some(value)) => {
            Value::Variant(case, Some(Box::new(replace(*value, read))))
        }
        Value::Option(Some(value)) => Value::Option(Some(Box::new(replace(*value, read)))),
        Value::Result(Ok(Some(value))) => Value::Result(Ok(Some(Box::new(replace(*value, read))))),
        Value::Result(Err(Some(value))) => {
            Value::Result(Err(Some(Box::new(replace(*value, read)))))
        }
        value => value,
    }
}

/// Shows the streams of values, with what each gives.
pub(crate) fn visit_shaped(value: &Value, shape: &Shape, seen: &mut impl FnMut(&Stream, &Shape)) {
    let mut side = |value: &Option<Box<Value>>, shape: &Option<Box<Shape>>| {
        if let (Some(value), Some(shape)) = (value, shape) {
            visit_shaped(value, shape, seen);
        }
    };
    match (value, shape) {
        (Value::Stream(stream), Shape::Stream(item) | Shape::Future(item)) => seen(stream, item),
        (Value::List(values), Shape::List(item))
        | (Value::FixedList(values), Shape::FixedList(item, _)) => {
            for value in values {
                visit_shaped(value, item, seen);
            }
        }
        (Value::Tuple(values), Shape::Tuple(shapes)) => {
            for (value, shape) in values.iter().zip(shapes) {
                visit_shaped(value, shape, seen);
            }
        }
        (Value::Record(values), Shape::Record(fields)) => {
            for (value, field) in values.iter().zip(fields) {
                visit_shaped(value, &field.shape, seen);
            }
        }
        (Value::Variant(case, Some(value)), Shape::Variant(cases)) => {
            let case = cases.get(*case as usize);
            if let Some(shape) = case.and_then(|case| case.payload.as_ref()) {
                visit_shaped(value, shape, seen);
            }
        }
        (Value::Option(Some(value)), Shape::Option(shape)) => visit_shaped(value, shape, seen),
        (Value::Result(Ok(value)), Shape::Result { ok, .. }) => side(value, ok),
        (Value::Result(Err(value)), Shape::Result { err, .. }) => side(value, err),
        _ => {}
    }
}

fn attach<E: Element>(
    reader: StreamReader<E>,
    mut store: impl AsContextMut,
    account: &Arc<Account>,
) -> Result<End> {
    // One that the guest got from us and passes on does not go through it.
    let reader = match reader.try_into::<Items>(&mut store) {
        Ok(items) => return Ok(End::Items(items)),
        Err(reader) => reader,
    };
    let (sink, items) = channel(Arc::clone(account), Kind::Stream);
    reader.pipe(&mut store, Consumer::<E>(sink, PhantomData))?;
    Ok(End::Items(items))
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

#[derive(Clone, Copy)]
enum Kind {
    Stream,
    Future,
}

/// Where what a guest writes goes.
struct Sink {
    chunks: PollSender<Value>,
    account: Arc<Account>,
    kind: Kind,
}

fn channel(account: Arc<Account>, kind: Kind) -> (Sink, Items) {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let items = Items {
        rest: VecDeque::new(),
        chunks,
        account: Arc::clone(&account),
    };
    let open = match kind {
        Kind::Stream => &account.streams,
        Kind::Future => &account.futures,
    };
    open.fetch_add(1, Ordering::SeqCst);
    let chunks = PollSender::new(sender);
    let sink = Sink {
        chunks,
        account,
        kind,
    };
    (sink, items)
}

impl Drop for Sink {
    fn drop(&mut self) {
        match self.kind {
            Kind::Stream => {
                self.account.streams.fetch_sub(1, Ordering::SeqCst);
            }
            Kind::Future => {
                self.account.futures.fetch_sub(1, Ordering::SeqCst);
                self.account.future_closed.wake();
            }
        }
    }
}

impl Sink {
    /// Takes what is there, if there is room for it.
    fn poll_take<E: Element, D>(
        &mut self,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'_, D>,
        mut source: Source<'_, E>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        match self.chunks.poll_reserve(context) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Ready(Ok(())) => {}
        }
        // All of it at once: where the second item of several stands in memory, wasmtime does not know.
        let mut taken = Taken(Vec::new());
        lift_items(|| source.read(&mut store, &mut taken))?;
        if !taken.0.is_empty() && self.chunks.send_item(E::chunk(taken.0)).is_err() {
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// The reader of a guest's stream.
struct Consumer<E>(Sink, PhantomData<fn() -> E>);

impl<D, E: Element> StreamConsumer<D> for Consumer<E> {
    type Item = E;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        source: Source<'_, E>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        self.0.poll_take(context, store, source, finish)
    }
}

impl<D> FutureConsumer<D> for Sink {
    type Item = Item;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        source: Source<'_, Item>,
        finish: bool,
    ) -> Poll<Result<()>> {
        self.poll_take(context, store, source, finish)
            .map_ok(|_| ())
    }
}

/// What a guest has written, which is as much as its fuel allows.
struct Taken<E>(Vec<E>);

impl<E: Element> ReadBuffer<E> for Taken<E> {
    fn extend<I: IntoIterator<Item = E>>(&mut self, items: I) {
        Extend::extend(&mut self.0, items);
    }

    fn remaining_capacity(&self) -> usize {
        usize::MAX - self.0.len()
    }

    fn move_from(&mut self, input: &mut dyn WriteBuffer<E>, count: usize) {
        self.0.reserve(count);
        self.0.move_from(input, count);
    }
}

/// The writer of a stream that a guest reads.
struct Producer<E>(Items, PhantomData<fn() -> E>);

impl<D, E: Element> StreamProducer<D> for Producer<E> {
    type Item = E;
    type Buffer = VecBuffer<E>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, E, VecBuffer<E>>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        let most = match destination.remaining(&mut store) {
            // A read of nothing asks whether there is something.
            Some(0) => return Poll::Ready(Ok(StreamResult::Completed)),
            // What is left over stays here, where the next reader finds it.
            Some(most) => most,
            None => usize::MAX,
        };
        Poll::Ready(match self.0.poll_up_to(context, most) {
            Poll::Pending if finish => Ok(StreamResult::Cancelled),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => Ok(StreamResult::Dropped),
            Poll::Ready(Some(Err(broken))) => Err(broken.into()),
            Poll::Ready(Some(Ok(chunk))) => {
                destination.set_buffer(E::items(chunk)?.into());
                Ok(StreamResult::Completed)
            }
        })
    }

    fn try_into(me: Pin<Box<Self>>, wanted: TypeId) -> Result<Box<dyn Any>, Pin<Box<Self>>> {
        if wanted == TypeId::of::<Items>() {
            return Ok(Box::new(Pin::into_inner(me).0));
        }
        Err(me)
    }
}

/// What a stream in a store is of.
pub(super) trait Element: Lift + Lower + Send + Sync + Sized + 'static {
    fn chunk(items: Vec<Self>) -> Value;
    fn items(chunk: Value) -> Result<Vec<Self>>;
}

impl Element for u8 {
    fn chunk(items: Vec<Self>) -> Value {
        Value::Bytes(items)
    }

    fn items(chunk: Value) -> Result<Vec<Self>> {
        match chunk {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(unlike(&other)),
        }
    }
}

impl Element for Item {
    fn chunk(items: Vec<Self>) -> Value {
        Value::List(items.into_iter().map(|Item(value)| value).collect())
    }

    fn items(chunk: Value) -> Result<Vec<Self>> {
        match chunk {
            Value::List(items) => Ok(items.into_iter().map(Item).collect()),
            other => Err(unlike(&other)),
        }
    }
}

#[cold]
fn unlike(chunk: &Value) -> wasmtime::Error {
    format_err!("expected items of a stream, found {}", chunk.kind())
}

/// A stream of a guest's own store that gives what a value is: a stream, or all of its items.
pub(super) fn reader<E: Element>(
    store: impl AsContextMut,
    value: &Value,
) -> Result<StreamReader<E>> {
    let items = match value {
        Value::Stream(stream) => stream.take().ok_or_else(read_already)?,
        all => Items::all(all.clone()),
    };
    StreamReader::new(store, Producer(items, PhantomData))
}

/// The same of a future.
pub(super) fn future(store: impl AsContextMut, value: &Value) -> Result<FutureReader<Item>> {
    let mut items = match value {
        Value::Stream(stream) => stream.take().ok_or_else(read_already)?,
        value => Items::all(Value::List(vec![value.clone()])),
    };
    FutureReader::new(store, async move {
        let chunk = match items.next().await {
            Some(chunk) => chunk?,
            None => wasmtime::bail!("a future ended without a value"),
        };
        let mut values = Item::items(chunk)?.into_iter();
        values
            .next()
            .ok_or_else(|| format_err!("a future has no value"))
    })
}

#[cold]
fn read_already() -> wasmtime::Error {
    format_err!("a stream or a future that was read already")
}
