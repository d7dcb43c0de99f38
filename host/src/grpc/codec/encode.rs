//! From values to bytes.

use prost::encoding::{WireType, encode_key, encode_varint};

use super::{Fault, fault, too_large};
use crate::grpc::types::{Body, Form, Kind, Message, OneOf, Slot};
use crate::value::Value;

pub(super) struct Encoder {
    pub(super) limit: usize,
}

/// Writes something with its length before it.
fn delimited(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let start = out.len();
    write(out)?;
    let mut length = Vec::with_capacity(5);
    encode_varint((out.len() - start) as u64, &mut length);
    out.splice(start..start, length);
    Ok(())
}

fn mismatch(expected: &Message, found: &Value) -> Fault {
    fault(format!("a {}", expected.path), found.kind())
}

impl Encoder {
    pub(super) fn message(
        &self,
        value: &Value,
        message: &Message,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match (&message.body, value) {
            (Body::Record(slots), Value::Record(values))
            | (Body::Tuple(slots), Value::Tuple(values))
                if slots.len() == values.len() =>
            {
                for (slot, value) in slots.iter().zip(values) {
                    self.slot(value, slot, out).map_err(|f| f.at(&slot.name))?;
                }
            }
            (Body::Wrapper(slot), value) => self.slot(value, slot, out)?,
            (Body::Flags(flags), Value::Flags(bits)) => {
                for (flag, bit) in flags.iter().zip(0..u32::BITS) {
                    if bits >> bit & 1 == 1 {
                        encode_key(flag.number, WireType::Varint, out);
                        encode_varint(1, out);
                    }
                }
            }
            (Body::Variant(one), Value::Variant(case, payload)) => {
                self.arm(one, *case as usize, payload.as_deref(), message, out)?;
            }
            (Body::Result(one), Value::Result(Ok(payload))) => {
                self.arm(one, 0, payload.as_deref(), message, out)?;
            }
            (Body::Result(one), Value::Result(Err(payload))) => {
                self.arm(one, 1, payload.as_deref(), message, out)?;
            }
            (_, value) => return Err(mismatch(message, value)),
        }
        if out.len() > self.limit {
            let limit = format!("at most {} bytes (the size limit)", self.limit);
            return Err(too_large(limit, "more"));
        }
        Ok(())
    }

    fn arm(
        &self,
        one: &OneOf,
        case: usize,
        payload: Option<&Value>,
        message: &Message,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let unknown = || {
            fault(
                format!("a case of {}", message.path),
                format!("case {case}"),
            )
        };
        let arm = one.arms.get(case).ok_or_else(unknown)?;
        match (&arm.kind, payload) {
            (None, None) => {
                encode_key(arm.number, WireType::LengthDelimited, out);
                encode_varint(0, out);
                Ok(())
            }
            (Some(kind), Some(value)) => self.field(value, kind, arm.number, out),
            (_, _) => Err(unknown()),
        }
        .map_err(|f| f.at(&arm.name))
    }

    fn slot(&self, value: &Value, slot: &Slot, out: &mut Vec<u8>) -> Result<(), Fault> {
        match (&slot.form, value) {
            (Form::Plain(kind), value) => {
                if is_default(value) {
                    return Ok(());
                }
                self.field(value, kind, slot.number, out)
            }
            (Form::Optional(_), Value::Option(None)) => Ok(()),
            (Form::Optional(kind), Value::Option(Some(value))) => {
                self.field(value, kind, slot.number, out)
            }
            (Form::Repeated(kind), Value::List(items)) => self.items(items, kind, slot, out),
            (Form::Fixed(kind, length), Value::FixedList(items))
                if items.len() == *length as usize =>
            {
                self.items(items, kind, slot, out)
            }
            (_, value) => Err(fault("a value of the field's type", value.kind())),
        }
    }

    fn items(
        &self,
        items: &[Value],
        kind: &Kind,
        slot: &Slot,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if items.is_empty() {
            return Ok(());
        }
        if kind.is_packed() {
            encode_key(slot.number, WireType::LengthDelimited, out);
            return delimited(out, |out| {
                for (index, item) in items.iter().enumerate() {
                    scalar(item, kind, out).map_err(|f| f.at_index(index))?;
                }
                Ok(())
            });
        }
        for (index, item) in items.iter().enumerate() {
            let written = self.field(item, kind, slot.number, out);
            written.map_err(|f| f.at_index(index))?;
        }
        Ok(())
    }

    fn field(
        &self,
        value: &Value,
        kind: &Kind,
        number: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        encode_key(number, kind.wire_type(), out);
        match kind {
            Kind::Message(message) => delimited(out, |out| self.message(value, message, out)),
            kind => scalar(value, kind, out),
        }
    }
}

/// Whether a value is what a scalar without presence is when it is left out.
fn is_default(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::U8(value) => *value == 0,
        Value::U16(value) => *value == 0,
        Value::U32(value) => *value == 0,
        Value::U64(value) => *value == 0,
        Value::S8(value) => *value == 0,
        Value::S16(value) => *value == 0,
        Value::S32(value) => *value == 0,
        Value::S64(value) => *value == 0,
        // By its bits: minus zero is another number.
        Value::F32(value) => value.to_bits() == 0,
        Value::F64(value) => value.to_bits() == 0,
        Value::String(value) => value.is_empty(),
        Value::Bytes(value) => value.is_empty(),
        _ => false,
    }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Writes a value that is no message, without its key.
fn scalar(value: &Value, kind: &Kind, out: &mut Vec<u8>) -> Result<(), Fault> {
    let text = |text: &[u8], out: &mut Vec<u8>| {
        encode_varint(text.len() as u64, out);
        out.extend_from_slice(text);
    };
    match (kind, value) {
        (Kind::Bool, Value::Bool(value)) => encode_varint(u64::from(*value), out),
        (Kind::U8, Value::U8(value)) => encode_varint(u64::from(*value), out),
        (Kind::U16, Value::U16(value)) => encode_varint(u64::from(*value), out),
        (Kind::U32, Value::U32(value)) => encode_varint(u64::from(*value), out),
        (Kind::U64, Value::U64(value)) => encode_varint(*value, out),
        (Kind::S8, Value::S8(value)) => encode_varint(zigzag(i64::from(*value)), out),
        (Kind::S16, Value::S16(value)) => encode_varint(zigzag(i64::from(*value)), out),
        (Kind::S32, Value::S32(value)) => encode_varint(zigzag(i64::from(*value)), out),
        (Kind::S64, Value::S64(value)) => encode_varint(zigzag(*value), out),
        (Kind::F32, Value::F32(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (Kind::F64, Value::F64(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (Kind::Char, Value::Char(value)) => text(value.encode_utf8(&mut [0; 4]).as_bytes(), out),
        (Kind::String, Value::String(value)) => text(value.as_bytes(), out),
        (Kind::Bytes, Value::Bytes(value)) => text(value, out),
        (Kind::Enum(one), Value::Enum(case)) => match one.cases.get(*case as usize) {
            Some((_, number)) => encode_varint(u64::from(*number), out),
            None => return Err(fault(kind.name(), value.kind())),
        },
        (kind, value) => return Err(fault(kind.name(), value.kind())),
    }
    Ok(())
}
