//! From bytes to values.

use std::borrow::Cow;

use bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::{DEPTH, Fault, NODES, fault, too_large, wire_type_name};
use crate::grpc::types::{Arm, Body, Enum, Form, Kind, Message, OneOf, Slot};
use crate::text::shown;
use crate::value::Value;

pub(super) struct Decoder {
    /// Values that may still be made.
    pub(super) left: usize,
}

/// What was found of a field.
enum Found<'b> {
    Nothing,
    Value(Value),
    /// A message, whose parts are one after the other.
    Message(Cow<'b, [u8]>),
    Items(Vec<Value>),
}

fn cut() -> Fault {
    fault("more bytes", "the end")
}

fn key(rest: &mut &[u8]) -> Result<(u32, WireType), Fault> {
    decode_key(rest).map_err(|_| fault("a field", "bytes that begin none"))
}

fn varint(rest: &mut &[u8]) -> Result<u64, Fault> {
    decode_varint(rest).map_err(|_| fault("a varint", "bytes that are none"))
}

/// The bytes of something with its length before it.
fn length_delimited<'b>(rest: &mut &'b [u8]) -> Result<&'b [u8], Fault> {
    let length = usize::try_from(varint(rest)?).map_err(|_| cut())?;
    let (bytes, after) = rest.split_at_checked(length).ok_or_else(cut)?;
    *rest = after;
    Ok(bytes)
}

fn skip(wire_type: WireType, number: u32, rest: &mut &[u8]) -> Result<(), Fault> {
    let skipped = skip_field(wire_type, number, rest, DecodeContext::default());
    skipped.map_err(|_| fault("a field", "bytes that end too soon").at(&format!("#{number}")))
}

impl Decoder {
    fn count(&mut self) -> Result<(), Fault> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(too_large(
                format!("at most {NODES} values (the node limit)"),
                "another",
            )),
        }
    }

    pub(super) fn message(
        &mut self,
        bytes: &[u8],
        message: &Message,
        depth: u32,
    ) -> Result<Value, Fault> {
        let Some(depth) = depth.checked_sub(1) else {
            let limit = format!("at most {DEPTH} nested messages (the depth limit)");
            return Err(fault(limit, "another"));
        };
        self.count()?;
        match &message.body {
            Body::Record(slots) => {
                let values = self.slots(bytes, slots, message, depth)?;
                Ok(Value::Record(values))
            }
            Body::Tuple(slots) => {
                let values = self.slots(bytes, slots, message, depth)?;
                Ok(Value::Tuple(values))
            }
            Body::Wrapper(slot) => {
                let mut values =
                    self.slots(bytes, std::slice::from_ref(&**slot), message, depth)?;
                values.pop().ok_or_else(cut)
            }
            Body::Flags(flags) => {
                let mut bits = 0;
                let mut rest = bytes;
                while !rest.is_empty() {
                    let (number, wire_type) = key(&mut rest)?;
                    let Some(at) = message.positions.get(&number) else {
                        skip(wire_type, number, &mut rest)?;
                        continue;
                    };
                    let set = self.scalar(&Kind::Bool, wire_type, &mut rest);
                    let name = flags.get(*at).map_or("", |flag| &flag.name);
                    let bit = 1_u32.checked_shl(*at as u32).unwrap_or(0);
                    match set.map_err(|f| f.at(name))? {
                        Value::Bool(true) => bits |= bit,
                        _ => bits &= !bit,
                    }
                }
                Ok(Value::Flags(bits))
            }
            Body::Variant(one) => {
                let (case, payload) = self.one_of(bytes, one, message, depth)?;
                let number = u32::try_from(case).unwrap_or(u32::MAX);
                Ok(Value::Variant(number, payload))
            }
            Body::Result(one) => Ok(match self.one_of(bytes, one, message, depth)? {
                (0, payload) => Value::Result(Ok(payload)),
                (_, payload) => Value::Result(Err(payload)),
            }),
        }
    }

    fn slots(
        &mut self,
        bytes: &[u8],
        slots: &[Slot],
        message: &Message,
        depth: u32,
    ) -> Result<Vec<Value>, Fault> {
        let mut all: Vec<_> = slots.iter().map(|_| Found::Nothing).collect();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, wire_type) = key(&mut rest)?;
            let at = message.positions.get(&number).copied();
            let field = at.and_then(|at| Some((slots.get(at)?, all.get_mut(at)?)));
            let Some((slot, found)) = field else {
                skip(wire_type, number, &mut rest)?;
                continue;
            };
            self.field(slot, found, wire_type, &mut rest, depth)
                .map_err(|f| f.at(&slot.name))?;
        }
        let mut values = Vec::with_capacity(slots.len());
        for (slot, found) in slots.iter().zip(all) {
            let value = self.ended(slot, found, depth);
            values.push(value.map_err(|f| f.at(&slot.name))?);
        }
        Ok(values)
    }

    fn field<'b>(
        &mut self,
        slot: &Slot,
        found: &mut Found<'b>,
        wire_type: WireType,
        rest: &mut &'b [u8],
        depth: u32,
    ) -> Result<(), Fault> {
        match &slot.form {
            Form::Plain(Kind::Message(message)) | Form::Optional(Kind::Message(message)) => {
                expect(message_kind(message), WireType::LengthDelimited, wire_type)?;
                let part = length_delimited(rest)?;
                match found {
                    Found::Message(known) => known.to_mut().extend_from_slice(part),
                    found => *found = Found::Message(Cow::Borrowed(part)),
                }
            }
            Form::Plain(kind) | Form::Optional(kind) => {
                *found = Found::Value(self.scalar(kind, wire_type, rest)?);
            }
            Form::Repeated(kind) | Form::Fixed(kind, _) => {
                if !matches!(found, Found::Items(_)) {
                    *found = Found::Items(Vec::new());
                }
                if let Found::Items(items) = found {
                    self.items(kind, items, wire_type, rest, depth)?;
                }
            }
        }
        Ok(())
    }

    fn items(
        &mut self,
        kind: &Kind,
        items: &mut Vec<Value>,
        wire_type: WireType,
        rest: &mut &[u8],
        depth: u32,
    ) -> Result<(), Fault> {
        if kind.is_packed() && wire_type == WireType::LengthDelimited {
            let mut packed = length_delimited(rest)?;
            while !packed.is_empty() {
                let item = self.counted(kind, kind.wire_type(), &mut packed);
                items.push(item.map_err(|f| f.at_index(items.len()))?);
            }
            return Ok(());
        }
        let item = match kind {
            Kind::Message(message) => {
                expect(message_kind(message), WireType::LengthDelimited, wire_type)
                    .and_then(|()| length_delimited(rest))
                    .and_then(|bytes| self.message(bytes, message, depth))
            }
            kind => self.counted(kind, wire_type, rest),
        };
        items.push(item.map_err(|f| f.at_index(items.len()))?);
        Ok(())
    }

    fn counted(
        &mut self,
        kind: &Kind,
        wire_type: WireType,
        rest: &mut &[u8],
    ) -> Result<Value, Fault> {
        self.count()?;
        self.scalar(kind, wire_type, rest)
    }

    /// The value of a field after the last byte of its message.
    fn ended(&mut self, slot: &Slot, found: Found<'_>, depth: u32) -> Result<Value, Fault> {
        self.count()?;
        let missing = |kind: &Kind| fault(kind.name(), "nothing");
        Ok(match (&slot.form, found) {
            (Form::Plain(Kind::Message(message)), Found::Message(bytes)) => {
                self.message(&bytes, message, depth)?
            }
            (Form::Plain(_), Found::Value(value)) => value,
            (Form::Plain(kind), _) => default(kind).ok_or_else(|| missing(kind))?,
            (Form::Optional(Kind::Message(message)), Found::Message(bytes)) => {
                let some = self.message(&bytes, message, depth)?;
                Value::Option(Some(Box::new(some)))
            }
            (Form::Optional(_), Found::Value(value)) => Value::Option(Some(Box::new(value))),
            (Form::Optional(_), _) => Value::Option(None),
            (Form::Repeated(_), Found::Items(items)) => Value::List(items),
            (Form::Repeated(_), _) => Value::List(Vec::new()),
            (Form::Fixed(_, length), found) => {
                let items = match found {
                    Found::Items(items) => items,
                    _ => Vec::new(),
                };
                if items.len() != *length as usize {
                    return Err(fault(format!("{length} items"), items.len().to_string()));
                }
                Value::FixedList(items)
            }
        })
    }

    fn one_of(
        &mut self,
        bytes: &[u8],
        one: &OneOf,
        message: &Message,
        depth: u32,
    ) -> Result<(usize, Option<Box<Value>>), Fault> {
        let mut chosen: Option<(usize, &Arm, Found<'_>)> = None;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (number, wire_type) = key(&mut rest)?;
            let at = message.positions.get(&number).copied();
            let Some((at, arm)) = at.and_then(|at| Some((at, one.arms.get(at)?))) else {
                skip(wire_type, number, &mut rest)?;
                continue;
            };
            let read = |decoder: &mut Self, rest: &mut &'_ [u8]| match &arm.kind {
                Some(Kind::Message(_)) | None => Ok(None),
                Some(kind) => decoder.scalar(kind, wire_type, rest).map(Some),
            };
            let value = read(self, &mut rest).map_err(|f| f.at(&arm.name))?;
            let found = match value {
                Some(value) => Found::Value(value),
                None => {
                    let part = expect("a message", WireType::LengthDelimited, wire_type)
                        .and_then(|()| length_delimited(&mut rest));
                    let part = part.map_err(|f| f.at(&arm.name))?;
                    match chosen.take() {
                        // A message that comes in parts, unless another case came between.
                        Some((before, _, Found::Message(mut known))) if before == at => {
                            known.to_mut().extend_from_slice(part);
                            Found::Message(known)
                        }
                        _ => Found::Message(Cow::Borrowed(part)),
                    }
                }
            };
            chosen = Some((at, arm, found));
        }
        let Some((at, arm, found)) = chosen else {
            let names: Vec<_> = one.arms.iter().map(|arm| &*arm.name).collect();
            return Err(fault(format!("one of {}", names.join(", ")), "none"));
        };
        let payload = match (&arm.kind, found) {
            (Some(Kind::Message(message)), Found::Message(bytes)) => {
                let payload = self.message(&bytes, message, depth);
                Some(payload.map_err(|f| f.at(&arm.name))?)
            }
            (Some(_), Found::Value(value)) => {
                self.count()?;
                Some(value)
            }
            _ => None,
        };
        Ok((at, payload.map(Box::new)))
    }

    /// Reads a value that is no message.
    fn scalar(
        &mut self,
        kind: &Kind,
        wire_type: WireType,
        rest: &mut &[u8],
    ) -> Result<Value, Fault> {
        if wire_type != kind.wire_type() {
            return Err(fault(kind.name(), wire_type_name(wire_type)));
        }
        fn number<T: TryFrom<u64>>(kind: &Kind, rest: &mut &[u8]) -> Result<T, Fault> {
            let value = varint(rest)?;
            T::try_from(value).map_err(|_| fault(kind.name(), value.to_string()))
        }
        fn signed<T: TryFrom<i64>>(kind: &Kind, rest: &mut &[u8]) -> Result<T, Fault> {
            let value = varint(rest)?;
            let value = (value >> 1) as i64 ^ -((value & 1) as i64);
            T::try_from(value).map_err(|_| fault(kind.name(), value.to_string()))
        }
        Ok(match kind {
            Kind::Bool => Value::Bool(varint(rest)? != 0),
            Kind::U8 => Value::U8(number(kind, rest)?),
            Kind::U16 => Value::U16(number(kind, rest)?),
            Kind::U32 => Value::U32(number(kind, rest)?),
            Kind::U64 => Value::U64(varint(rest)?),
            Kind::S8 => Value::S8(signed(kind, rest)?),
            Kind::S16 => Value::S16(signed(kind, rest)?),
            Kind::S32 => Value::S32(signed(kind, rest)?),
            Kind::S64 => Value::S64(signed(kind, rest)?),
            Kind::F32 => Value::F32(rest.try_get_f32_le().map_err(|_| cut())?),
            Kind::F64 => Value::F64(rest.try_get_f64_le().map_err(|_| cut())?),
            Kind::Char => {
                let text = utf8(length_delimited(rest)?)?;
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(only), None) => Value::Char(only),
                    _ => return Err(fault(kind.name(), format!("\"{}\"", shown(text)))),
                }
            }
            Kind::String => Value::String(utf8(length_delimited(rest)?)?.to_owned()),
            Kind::Bytes => Value::Bytes(length_delimited(rest)?.to_vec()),
            Kind::Enum(one) => case(one, varint(rest)?)?,
            Kind::Message(_) => return Err(fault(kind.name(), "a scalar")),
        })
    }
}

fn message_kind(message: &Message) -> &str {
    &message.path
}

fn expect(what: &str, wanted: WireType, found: WireType) -> Result<(), Fault> {
    if wanted == found {
        Ok(())
    } else {
        Err(fault(what, wire_type_name(found)))
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| fault("a string", "bytes that are no UTF-8"))
}

fn case(one: &Enum, number: u64) -> Result<Value, Fault> {
    let position = one
        .cases
        .iter()
        .position(|(_, of)| u64::from(*of) == number);
    let position = position.and_then(|at| u32::try_from(at).ok());
    position.map(Value::Enum).ok_or_else(|| {
        let found = match number {
            0 => one.zero.clone(),
            other => other.to_string(),
        };
        fault(format!("a value of {}", one.path), found)
    })
}

/// What a scalar is that was left out; nothing where that is no value of the type.
fn default(kind: &Kind) -> Option<Value> {
    Some(match kind {
        Kind::Bool => Value::Bool(false),
        Kind::U8 => Value::U8(0),
        Kind::U16 => Value::U16(0),
        Kind::U32 => Value::U32(0),
        Kind::U64 => Value::U64(0),
        Kind::S8 => Value::S8(0),
        Kind::S16 => Value::S16(0),
        Kind::S32 => Value::S32(0),
        Kind::S64 => Value::S64(0),
        Kind::F32 => Value::F32(0.0),
        Kind::F64 => Value::F64(0.0),
        Kind::String => Value::String(String::new()),
        Kind::Bytes => Value::Bytes(Vec::new()),
        Kind::Char | Kind::Enum(_) | Kind::Message(_) => return None,
    })
}
