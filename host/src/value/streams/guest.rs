//! The ends of streams in a guest's store: what reads what the guest writes, and writes what it reads.

use std::any::{Any, TypeId};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use wasmtime::component::{
    Destination, FutureConsumer, FutureReader, Lift, Lower, ReadBuffer, Source, StreamConsumer,
    StreamProducer, StreamReader, StreamResult, VecBuffer, WriteBuffer,
};
use wasmtime::{AsContextMut, Result, StoreContextMut, format_err};

use super::{Account, CHUNKS, End, Items};
use crate::value::Value;
use crate::value::abi::{Item, lift_items};

/// The readable end in a guest's store.
pub(in crate::value) enum Reader {
    Bytes(StreamReader<u8>),
    Items(StreamReader<Item>),
    Future(FutureReader<Item>),
}

pub(super) fn attach<E: Element>(
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

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Stream,
    Future,
}

/// Where what a guest writes goes.
pub(super) struct Sink {
    chunks: PollSender<Value>,
    account: Arc<Account>,
    kind: Kind,
}

pub(super) fn channel(account: Arc<Account>, kind: Kind) -> (Sink, Items) {
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
pub(in crate::value) trait Element:
    Lift + Lower + Send + Sync + Sized + 'static
{
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
pub(in crate::value) fn reader<E: Element>(
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
pub(in crate::value) fn future(
    store: impl AsContextMut,
    value: &Value,
) -> Result<FutureReader<Item>> {
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
