//! From values to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use wasmtime::component::Val;

use super::Limits;
use super::error::{Fault, expected, listed, mismatch, quoted, too_deep, too_large, too_many};
use crate::shape::{Field, Shape};

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

    pub(super) fn arguments(&mut self, args: &[Val], params: &[Field]) -> Result<(), Fault> {
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

    pub(super) fn value(&mut self, val: &Val, shape: &Shape) -> Result<(), Fault> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(too_many(self.limits.nodes));
        }
        // Every step below writes a bounded amount, or asks for room itself.
        self.room_for(0)?;
        match (shape, val) {
            (Shape::Bool, Val::Bool(v)) => self.json(v),
            (Shape::U8, Val::U8(v)) => self.json(v),
            (Shape::U16, Val::U16(v)) => self.json(v),
            (Shape::U32, Val::U32(v)) => self.json(v),
            (Shape::U64, Val::U64(v)) => self.wide(v, *v),
            (Shape::S8, Val::S8(v)) => self.json(v),
            (Shape::S16, Val::S16(v)) => self.json(v),
            (Shape::S32, Val::S32(v)) => self.json(v),
            (Shape::S64, Val::S64(v)) => self.wide(v, v.unsigned_abs()),
            (Shape::F32, Val::Float32(v)) if v.is_finite() => self.json(v),
            (Shape::F32, Val::Float32(v)) => self.json(special((*v).into())),
            (Shape::F64, Val::Float64(v)) if v.is_finite() => self.json(v),
            (Shape::F64, Val::Float64(v)) => self.json(special(*v)),
            (Shape::Char, Val::Char(v)) => self.json(v),
            (Shape::String, Val::String(v)) => {
                self.room_for(v.len())?;
                self.json(v)
            }
            (Shape::Bytes, Val::List(items)) => self.base64(items),
            (Shape::List(item), Val::List(items)) => {
                self.array(items.iter().map(|val| (val, &**item)))
            }
            (Shape::FixedList(item, len), Val::FixedLengthList(items))
                if items.len() == *len as usize =>
            {
                self.array(items.iter().map(|val| (val, &**item)))
            }
            (Shape::Tuple(shapes), Val::Tuple(items)) if items.len() == shapes.len() => {
                self.array(items.iter().zip(shapes))
            }
            (Shape::Record(fields), Val::Record(items))
                if items.len() == fields.len()
                    && items
                        .iter()
                        .zip(fields)
                        .all(|(item, field)| *item.0 == *field.name) =>
            {
                self.fields(fields.iter().zip(items.iter().map(|(_, val)| val)))
            }
            (Shape::Variant(cases), Val::Variant(tag, payload)) => {
                let case = cases.iter().find(|case| *case.name == **tag);
                match (case.map(|case| &case.payload), payload) {
                    (Some(None), None) => self.tagged(tag, None),
                    (Some(Some(shape)), Some(val)) => self.tagged(tag, Some((val, shape))),
                    _ => Err(unlike(kind(val), shape)),
                }
            }
            (Shape::Enum(names), Val::Enum(name)) if names.iter().any(|n| **n == **name) => {
                self.json(name)
            }
            (Shape::Option(some), Val::Option(val)) => self.option(val.as_deref(), some),
            (Shape::Result { ok, .. }, Val::Result(Ok(val))) => {
                self.side("ok", val.as_deref(), ok.as_deref())
            }
            (Shape::Result { err, .. }, Val::Result(Err(val))) => {
                self.side("err", val.as_deref(), err.as_deref())
            }
            (Shape::Flags(names), Val::Flags(set)) => self.flags(names, set, shape),
            (shape, val) => Err(unlike(kind(val), shape)),
        }
    }

    fn option(&mut self, val: Option<&Val>, some: &Shape) -> Result<(), Fault> {
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

    fn base64(&mut self, items: &[Val]) -> Result<(), Fault> {
        const CHUNK: usize = 768;
        let encoded = items.len().div_ceil(3).saturating_mul(4);
        self.room_for(encoded)?;
        self.out.reserve(encoded + 2);
        self.out.push(b'"');
        let (mut bytes, mut text) = ([0; CHUNK], [0; CHUNK / 3 * 4]);
        for chunk in items.chunks(CHUNK) {
            for (byte, item) in bytes.iter_mut().zip(chunk) {
                let Val::U8(value) = item else {
                    return Err(unlike(format!("a list of {}", kind(item)), &Shape::Bytes));
                };
                *byte = *value;
            }
            // Only the last chunk is not a multiple of three, so only it is padded.
            let bytes = bytes.get(..chunk.len()).unwrap_or_default();
            let written = STANDARD
                .encode_slice(bytes, &mut text)
                .map_err(|error| mismatch("room for base64", error.to_string()))?;
            self.out
                .extend_from_slice(text.get(..written).unwrap_or_default());
        }
        self.out.push(b'"');
        Ok(())
    }

    fn array<'v>(
        &mut self,
        items: impl Iterator<Item = (&'v Val, &'v Shape)>,
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
        fields: impl Iterator<Item = (&'v Field, &'v Val)>,
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

    fn tagged(&mut self, tag: &str, val: Option<(&Val, &Shape)>) -> Result<(), Fault> {
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

    fn side(&mut self, key: &str, val: Option<&Val>, shape: Option<&Shape>) -> Result<(), Fault> {
        self.open(b'{')?;
        self.json(key)?;
        self.out.push(b':');
        match (val, shape) {
            (None, None) => self.json(&()),
            (Some(val), Some(shape)) => self.value(val, shape),
            (Some(val), None) => Err(mismatch("no payload", kind(val))),
            (None, Some(shape)) => Err(unlike("nothing", shape)),
        }
        .map_err(|fault| fault.at_key(key))?;
        self.close(b'}');
        Ok(())
    }

    fn flags(&mut self, names: &[Box<str>], set: &[String], shape: &Shape) -> Result<(), Fault> {
        self.open(b'[')?;
        let mut written = 0;
        for name in names
            .iter()
            .filter(|name| set.iter().any(|s| **s == ***name))
        {
            if written > 0 {
                self.out.push(b',');
            }
            self.json(name)?;
            written += 1;
        }
        if written != set.len() {
            let names = listed(set.iter().map(String::as_str));
            return Err(unlike(
                format!("an unknown or doubled one among {names}"),
                shape,
            ));
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

/// The kind of a value, for an error.
pub(super) fn kind(val: &Val) -> String {
    match val {
        Val::Bool(_) => "a bool".into(),
        Val::S8(_) => "an s8".into(),
        Val::U8(_) => "a u8".into(),
        Val::S16(_) => "an s16".into(),
        Val::U16(_) => "a u16".into(),
        Val::S32(_) => "an s32".into(),
        Val::U32(_) => "a u32".into(),
        Val::S64(_) => "an s64".into(),
        Val::U64(_) => "a u64".into(),
        Val::Float32(_) => "an f32".into(),
        Val::Float64(_) => "an f64".into(),
        Val::Char(_) => "a char".into(),
        Val::String(_) => "a string".into(),
        Val::List(_) => "a list".into(),
        Val::Map(_) => "a map".into(),
        Val::Record(fields) => {
            let names = fields.iter().map(|(name, _)| name.as_str());
            format!("a record of {}", listed(names))
        }
        Val::Tuple(items) => format!("a tuple of {}", items.len()),
        Val::Variant(case, None) => format!("the variant case {}", quoted(case)),
        Val::Variant(case, Some(_)) => format!("the variant case {} with a payload", quoted(case)),
        Val::Enum(case) => format!("the enum case {}", quoted(case)),
        Val::Option(_) => "an option".into(),
        Val::Result(_) => "a result".into(),
        Val::Flags(names) => format!("flags {}", listed(names.iter().map(String::as_str))),
        Val::Resource(_) => "a resource".into(),
        Val::Future(_) => "a future".into(),
        Val::Stream(_) => "a stream".into(),
        Val::ErrorContext(_) => "an error-context".into(),
        Val::FixedLengthList(items) => format!("a list of the fixed length {}", items.len()),
    }
}
