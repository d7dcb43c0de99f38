//! The streams within values: found, read as a whole, shown with what each gives.

use std::sync::Arc;

use futures_util::future::try_join_all;
use wasmtime::{AsContextMut, Result};

use super::{Account, Broken, Gives, Stream};
use crate::shape::Shape;
use crate::value::Value;

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
fn visit(value: &Value, seen: &mut impl FnMut(&Stream)) {
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
