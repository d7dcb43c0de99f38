//! How large values are as JSON, without writing it.

use crate::shape::{Shape, Signature};
use crate::value::Value;

use super::Limits;

/// An upper bound of what values take as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measure {
    /// Bytes.
    pub(crate) bytes: usize,
    /// Values, as [`Limits::nodes`] counts them.
    pub(crate) nodes: usize,
    /// Nesting of arrays and objects.
    pub(crate) depth: u32,
}

impl Measure {
    /// Of the arguments of a function.
    pub(crate) fn of_arguments(arguments: &[Value], signature: &Signature) -> Self {
        let mut measure = Self {
            bytes: 2,
            nodes: 1,
            depth: 1,
        };
        for (argument, param) in arguments.iter().zip(&signature.params) {
            measure.bytes += key(&param.key);
            measure.add(argument, &param.shape, 1);
        }
        measure
    }

    /// Of a function's result.
    pub(crate) fn of_result(result: Option<&Value>, signature: &Signature) -> Self {
        let mut measure = Self::default();
        if let (Some(result), Some(shape)) = (result, &signature.result) {
            measure.add(result, shape, 0);
        }
        measure
    }

    /// Whether everything that is so large is within these limits.
    pub(crate) fn is_within(self, limits: &Limits) -> bool {
        self.bytes <= limits.bytes && self.nodes <= limits.nodes && self.depth <= limits.depth
    }

    fn add(&mut self, value: &Value, shape: &Shape, depth: u32) {
        self.nodes += 1;
        match (value, shape) {
            (Value::String(text), _) => self.bytes += string(text),
            (Value::Bytes(bytes), _) => self.bytes += bytes.len().div_ceil(3) * 4 + 2,
            (Value::List(items), Shape::List(item) | Shape::Stream(item))
            | (Value::FixedList(items), Shape::FixedList(item, _)) => {
                self.open(depth, items.len());
                for value in items {
                    self.add(value, item, depth + 1);
                }
            }
            (Value::Stream(_), _) => self.bytes += STREAM,
            (value, Shape::Future(shape)) => self.add(value, shape, depth),
            (Value::Tuple(items), Shape::Tuple(shapes)) => {
                self.open(depth, items.len());
                for (value, shape) in items.iter().zip(shapes) {
                    self.add(value, shape, depth + 1);
                }
            }
            (Value::Record(values), Shape::Record(fields)) => {
                self.open(depth, 0);
                for (value, field) in values.iter().zip(fields) {
                    self.bytes += key(&field.key);
                    self.add(value, &field.shape, depth + 1);
                }
            }
            (Value::Variant(case, payload), Shape::Variant(cases)) => {
                self.open(depth, 0);
                if let Some(case) = cases.get(*case as usize) {
                    // `"tag":"…","val":`
                    self.bytes += case.name.len() + 16;
                    if let (Some(value), Some(shape)) = (payload, &case.payload) {
                        self.add(value, shape, depth + 1);
                    }
                }
            }
            (Value::Enum(case), Shape::Enum(cases)) => {
                self.bytes += cases.get(*case as usize).map_or(0, |name| name.len() + 2);
            }
            (Value::Option(value), Shape::Option(shape)) => {
                // The outer level of a nested one is `{"tag":"some","val":…}`.
                self.open(depth, 0);
                self.bytes += 20;
                if let Some(value) = value {
                    self.add(value, shape, depth + 1);
                }
            }
            (Value::Result(side), Shape::Result { ok, err }) => {
                self.open(depth, 0);
                // `"err":null`
                self.bytes += 10;
                let (value, shape) = match side {
                    Ok(value) => (value, ok),
                    Err(value) => (value, err),
                };
                if let (Some(value), Some(shape)) = (value, shape) {
                    self.add(value, shape, depth + 1);
                }
            }
            (Value::Flags(_), Shape::Flags(names)) => {
                self.open(depth, names.len());
                self.nodes += names.len();
                self.bytes += names.iter().map(|name| name.len() + 2).sum::<usize>();
            }
            // The longest number is that of an f64, and no other scalar is longer.
            _ => self.bytes += 32,
        }
    }

    /// An array or object with so many separators.
    fn open(&mut self, depth: u32, separators: usize) {
        self.depth = self.depth.max(depth + 1);
        self.bytes += 2 + separators;
    }
}

/// The name of a stream, in quotes.
const STREAM: usize = 64;

/// A key with quotes, colon and comma. Keys are labels, so nothing in them is escaped.
fn key(key: &str) -> usize {
    key.len() + 4
}

fn string(text: &str) -> usize {
    let escaped = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    // The longest escape is `\u001f`.
    text.len() + 2 + 5 * text.as_bytes().iter().filter(|byte| escaped(byte)).count()
}
