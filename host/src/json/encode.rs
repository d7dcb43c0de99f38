//! From values to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::Limits;
use super::error::{Fault, expected, mismatch, too_deep, too_large, too_many};
use crate::shape::{Case, Field, Shape};
use crate::value::{MAX_FLAGS, Value};

/// The largest integer that every reader of JSON reads exactly: readers with numbers as `f64` are
/// exact up to here.
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Capacity for a small reply without growing.
const INITIAL_CAPACITY: usize = 128;

/// The encoder of one body.
pub(super) struct Encoder<'l> {
    out: Vec<u8>,
    depth: u32,
    nodes: usize,
    limits: &'l Limits,
}

impl<'l> Encoder<'l> {
    pub(super) fn new(limits: &'l Limits) -> Self {
        Self {
            out: Vec::new(),
            depth: 0,
            nodes: 0,
            limits,
        }
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, Fault> {
        self.room_for(0)?;
        Ok(self.out)
    }

    pub(super) fn arguments(&mut self, args: &[Value], params: &[Field]) -> Result<(), Fault> {
        if args.len() != params.len() {
            return Err(mismatch(
                format!("{} arguments", params.len()),
                format!("{} of them", args.len()),
            ));
        }
        if params.is_empty() {
            return Ok(());
        }
        self.fields(params.iter().zip(args))
    }

    pub(super) fn value(&mut self, val: &Value, shape: &Shape) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(too_many(self.limits.nodes));
        }
        // Every step below writes a bounded amount, or asks for room itself.
        self.room_for(0)?;
        match (shape, val) {
            (Shape::Bool, Value::Bool(v)) => self.json(v),
            (Shape::U8, Value::U8(v)) => self.json(v),
            (Shape::U16, Value::U16(v)) => self.json(v),
            (Shape::U32, Value::U32(v)) => self.json(v),
            (Shape::U64, Value::U64(v)) => self.wide(v, *v),
            (Shape::S8, Value::S8(v)) => self.json(v),
            (Shape::S16, Value::S16(v)) => self.json(v),
            (Shape::S32, Value::S32(v)) => self.json(v),
            (Shape::S64, Value::S64(v)) => self.wide(v, v.unsigned_abs()),
            (Shape::F32, Value::F32(v)) if v.is_finite() => self.json(v),
            (Shape::F32, Value::F32(v)) => self.json(special((*v).into())),
            (Shape::F64, Value::F64(v)) if v.is_finite() => self.json(v),
            (Shape::F64, Value::F64(v)) => self.json(special(*v)),
            (Shape::Char, Value::Char(v)) => self.json(v),
            (Shape::String, Value::String(v)) => {
                self.room_for(v.len())?;
                self.json(v)
            }
            (Shape::Bytes, Value::Bytes(bytes)) => self.base64(bytes),
            (Shape::List(item), Value::List(items)) => {
                self.array(items.iter().map(|val| (val, &**item)))
            }
            (Shape::FixedList(item, len), Value::FixedList(items))
                if items.len() == *len as usize =>
            {
                self.array(items.iter().map(|val| (val, &**item)))
            }
            (Shape::Tuple(shapes), Value::Tuple(items)) if items.len() == shapes.len() => {
                self.array(items.iter().zip(shapes))
            }
            (Shape::Record(fields), Value::Record(items)) if items.len() == fields.len() => {
                self.fields(fields.iter().zip(items))
            }
            (Shape::Variant(cases), Value::Variant(number, payload)) => {
                match (cases.get(*number as usize), payload) {
                    (
                        Some(Case {
                            name,
                            payload: None,
                        }),
                        None,
                    ) => self.tagged(name, None),
                    (
                        Some(Case {
                            name,
                            payload: Some(shape),
                        }),
                        Some(val),
                    ) => self.tagged(name, Some((val, shape))),
                    _ => Err(unlike(val.kind(), shape)),
                }
            }
            (Shape::Enum(names), Value::Enum(number)) => match names.get(*number as usize) {
                Some(name) => self.json(name),
                None => Err(unlike(val.kind(), shape)),
            },
            (Shape::Option(some), Value::Option(val)) => self.option(val.as_deref(), some),
            (Shape::Result { ok, .. }, Value::Result(Ok(val))) => {
                self.side("ok", val.as_deref(), ok.as_deref())
            }
            (Shape::Result { err, .. }, Value::Result(Err(val))) => {
                self.side("err", val.as_deref(), err.as_deref())
            }
            (Shape::Flags(names), Value::Flags(set)) => self.flags(names, *set, shape),
            // What stands for a stream is its name, where its items come apart, or all of them.
            (Shape::Stream(_) | Shape::Future(_), Value::Stream(stream)) => match stream.name() {
                Some(name) => self.json(&name),
                None => Err(unlike(val.kind(), shape)),
            },
            (Shape::Stream(_), Value::Bytes(bytes)) => self.base64(bytes),
            (Shape::Stream(item), Value::List(items)) => {
                self.array(items.iter().map(|val| (val, &**item)))
            }
            (Shape::Future(value), val) => self.value(val, value),
            (shape, val) => Err(unlike(val.kind(), shape)),
        }
    }

    fn option(&mut self, val: Option<&Value>, some: &Shape) -> Result<(), Fault> {
        match (val, some) {
            (None, Shape::Option(_)) => self.tagged("none", None),
            (Some(val), Shape::Option(_)) => self.tagged("some", Some((val, some))),
            (None, _) => self.json(&()),
            (Some(val), _) => self.value(val, some),
        }
    }

    /// A 64-bit integer: a number, or a string where a reader could round it.
    fn wide(&mut self, value: &impl Serialize, magnitude: u64) -> Result<(), Fault> {
        if magnitude <= MAX_SAFE_INTEGER {
            return self.json(value);
        }
        self.out.push(b'"');
        self.json(value)?;
        self.out.push(b'"');
        Ok(())
    }

    fn base64(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let encoded = bytes.len().div_ceil(3).saturating_mul(4);
        self.room_for(encoded)?;
        self.out.reserve(encoded + 2);
        self.out.push(b'"');
        let start = self.out.len();
        self.out.resize(start + encoded, 0);
        let text = self.out.get_mut(start..).unwrap_or_default();
        STANDARD
            .encode_slice(bytes, text)
            .map_err(|error| mismatch("room for base64", error.to_string()))?;
        self.out.push(b'"');
        Ok(())
    }

    fn array<'v>(
        &mut self,
        items: impl Iterator<Item = (&'v Value, &'v Shape)>,
    ) -> Result<(), Fault> {
        self.open(b'[')?;
        for (i, (val, shape)) in items.enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            self.value(val, shape).map_err(|fault| fault.at_index(i))?;
        }
        self.close(b']');
        Ok(())
    }

    fn fields<'v>(
        &mut self,
        fields: impl Iterator<Item = (&'v Field, &'v Value)>,
    ) -> Result<(), Fault> {
        self.open(b'{')?;
        for (i, (field, val)) in fields.enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            self.json(&field.key)?;
            self.out.push(b':');
            self.value(val, &field.shape)
                .map_err(|fault| fault.at_key(&field.key))?;
        }
        self.close(b'}');
        Ok(())
    }

    fn tagged(&mut self, tag: &str, val: Option<(&Value, &Shape)>) -> Result<(), Fault> {
        self.open(b'{')?;
        self.out.extend_from_slice(b"\"tag\":");
        self.json(tag)?;
        if let Some((val, shape)) = val {
            self.out.extend_from_slice(b",\"val\":");
            self.value(val, shape)
                .map_err(|fault| fault.at_key("val"))?;
        }
        self.close(b'}');
        Ok(())
    }

    fn side(&mut self, key: &str, val: Option<&Value>, shape: Option<&Shape>) -> Result<(), Fault> {
        self.open(b'{')?;
        self.json(key)?;
        self.out.push(b':');
        match (val, shape) {
            (None, None) => self.json(&()),
            (Some(val), Some(shape)) => self.value(val, shape),
            (Some(val), None) => Err(mismatch("no payload", val.kind())),
            (None, Some(shape)) => Err(unlike("nothing", shape)),
        }
        .map_err(|fault| fault.at_key(key))?;
        self.close(b'}');
        Ok(())
    }

    fn flags(&mut self, names: &[Box<str>], set: u32, shape: &Shape) -> Result<(), Fault> {
        let places = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let unknown = set.checked_shr(places).unwrap_or(0);
        if unknown != 0 || names.len() > MAX_FLAGS {
            return Err(unlike(Value::Flags(set).kind(), shape));
        }
        self.open(b'[')?;
        let mut first = true;
        for (place, name) in names.iter().enumerate() {
            if set >> place & 1 == 0 {
                continue;
            }
            if !first {
                self.out.push(b',');
            }
            first = false;
            self.json(name)?;
        }
        self.close(b']');
        Ok(())
    }

    fn open(&mut self, bracket: u8) -> Result<(), Fault> {
        if self.depth == self.limits.depth {
            return Err(too_deep(self.limits.depth));
        }
        if self.depth == 0 {
            self.out.reserve(INITIAL_CAPACITY);
        }
        self.depth += 1;
        self.out.push(bracket);
        Ok(())
    }

    fn close(&mut self, bracket: u8) {
        self.depth -= 1;
        self.out.push(bracket);
    }

    /// Writes by `serde_json`: numbers in their shortest form, strings with no more escapes than
    /// needed.
    fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        serde_json::to_writer(&mut self.out, value)
            .map_err(|error| mismatch("what JSON can hold", error.to_string()))
    }

    fn room_for(&self, more: usize) -> Result<(), Fault> {
        let limit = self.limits.bytes;
        if self.out.len().saturating_add(more) > limit {
            return Err(too_large(limit, "more"));
        }
        Ok(())
    }
}

fn special(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

fn unlike(found: impl Into<String>, shape: &Shape) -> Fault {
    mismatch(expected(shape), found)
}
