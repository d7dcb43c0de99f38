//! Core values and a guest's memory to values: the canonical ABI's lifting.
//!
//! It does what wasmtime does for its own `Val`, and refuses what that refuses. Before anything of a
//! guest's choice takes the host's memory it consumes fuel: a byte of text or of a `list<u8>` one,
//! and every [`Value`] within another its size.

use std::slice::Iter;

use wasmtime::component::__internal::wasmtime_environ::component::{MAX_FLAT_RESULTS, VariantInfo};
use wasmtime::component::__internal::{InterfaceType, LiftContext};
use wasmtime::component::{FutureReader, Lift as _, StreamReader};
use wasmtime::{Result, ValRaw, bail, format_err};

use super::lower::{all_flags, flat_count, place};
use super::streams::Reader;
use super::{Stream, Value};

/// What one value within another takes of the host's memory.
const VALUE: usize = size_of::<Value>();

type Slots<'s> = Iter<'s, ValRaw>;

/// Lifts the result of an export, if it has one: from core values, or from the memory to which the one
/// that there is has the address.
pub(super) fn results(
    cx: &mut LiftContext<'_>,
    ty: InterfaceType,
    slots: &[ValRaw],
) -> Result<Option<Value>> {
    let tuple = match ty {
        InterfaceType::Tuple(tuple) => &cx.types[tuple],
        _ => bail!("results are no tuple"),
    };
    let most = slots.len().max(MAX_FLAT_RESULTS);
    if tuple.abi.flat_count(most).is_none() {
        let address = next(&mut slots.iter())?.get_u32() as usize;
        return results_at(cx, ty, address);
    }
    let values = tuple_from_flat(cx, ty, slots)?;
    Ok(values.into_iter().next())
}

/// Lifts the result of an export from memory at this address.
pub(super) fn results_at(
    cx: &mut LiftContext<'_>,
    ty: InterfaceType,
    address: usize,
) -> Result<Option<Value>> {
    let align = match ty {
        InterfaceType::Tuple(tuple) => cx.types[tuple].abi.align32,
        _ => bail!("results are no tuple"),
    };
    if !address.is_multiple_of(align as usize) {
        bail!("return pointer not aligned");
    }
    let values = tuple_from_memory(cx, ty, address)?;
    Ok(values.into_iter().next())
}

/// Lifts parameters or results from core values.
pub(super) fn tuple_from_flat(
    cx: &mut LiftContext<'_>,
    ty: InterfaceType,
    slots: &[ValRaw],
) -> Result<Vec<Value>> {
    let types = cx.types;
    let InterfaceType::Tuple(tuple) = ty else {
        bail!("parameters or results are no tuple");
    };
    fields_from_flat(cx, types[tuple].types.iter().copied(), &mut slots.iter())
}

/// Lifts parameters or results from memory at this address.
pub(super) fn tuple_from_memory(
    cx: &mut LiftContext<'_>,
    ty: InterfaceType,
    address: usize,
) -> Result<Vec<Value>> {
    let types = cx.types;
    let InterfaceType::Tuple(tuple) = ty else {
        bail!("parameters or results are no tuple");
    };
    let size = types[tuple].abi.size32 as usize;
    let bytes = cx.memory().get(address..).and_then(|m| m.get(..size));
    let bytes = bytes.ok_or_else(|| format_err!("pointer out of bounds of memory"))?;
    fields_from_memory(cx, types[tuple].types.iter().copied(), bytes)
}

fn from_flat(cx: &mut LiftContext<'_>, ty: InterfaceType, slots: &mut Slots<'_>) -> Result<Value> {
    let types = cx.types;
    Ok(match ty {
        InterfaceType::Bool => Value::Bool(next(slots)?.get_i32() != 0),
        // Only the bits of the type count.
        InterfaceType::U8 => Value::U8(next(slots)?.get_u32() as u8),
        InterfaceType::U16 => Value::U16(next(slots)?.get_u32() as u16),
        InterfaceType::U32 => Value::U32(next(slots)?.get_u32()),
        InterfaceType::U64 => Value::U64(next(slots)?.get_u64()),
        InterfaceType::S8 => Value::S8(next(slots)?.get_i32() as i8),
        InterfaceType::S16 => Value::S16(next(slots)?.get_i32() as i16),
        InterfaceType::S32 => Value::S32(next(slots)?.get_i32()),
        InterfaceType::S64 => Value::S64(next(slots)?.get_i64()),
        InterfaceType::Float32 => Value::F32(f32::from_bits(next(slots)?.get_f32())),
        InterfaceType::Float64 => Value::F64(f64::from_bits(next(slots)?.get_f64())),
        InterfaceType::Char => Value::Char(char::try_from(next(slots)?.get_u32())?),
        InterfaceType::String => {
            let pair = [*next(slots)?, *next(slots)?];
            Value::String(String::linear_lift_from_flat(cx, ty, &pair)?)
        }
        InterfaceType::List(list) => {
            let address = next(slots)?.get_u32();
            let length = next(slots)?.get_u32();
            list_from_memory(cx, types[list].element, address, length)?
        }
        InterfaceType::Record(record) => {
            let fields = &types[record].fields;
            cx.consume_fuel_array(fields.len(), VALUE)?;
            let types = fields.iter().map(|field| field.ty);
            Value::Record(fields_from_flat(cx, types, slots)?)
        }
        InterfaceType::Tuple(tuple) => {
            let items = &types[tuple].types;
            cx.consume_fuel_array(items.len(), VALUE)?;
            Value::Tuple(fields_from_flat(cx, items.iter().copied(), slots)?)
        }
        InterfaceType::FixedLengthList(list) => {
            let (length, element) = (types[list].size as usize, types[list].element);
            cx.consume_fuel_array(length, VALUE)?;
            let items = std::iter::repeat_n(element, length);
            Value::FixedList(fields_from_flat(cx, items, slots)?)
        }
        InterfaceType::Stream(_) | InterfaceType::Future(_) => stream(cx, ty, next(slots)?)?,
        InterfaceType::Flags(flags) => {
            let names = types[flags].names.len();
            let mut bits = 0;
            for index in 0..flat_count(&types[flags].abi)? {
                let word = next(slots)?.get_u32();
                bits = if index == 0 { word } else { bits };
            }
            Value::Flags(bits & all_flags(names))
        }
        _ => {
            let number = next(slots)?.get_u32();
            let case = case(cx, ty, number)?;
            let (payload, read) = match case {
                Some(payload) => {
                    let value = boxed(cx, |cx| from_flat(cx, payload, slots))?;
                    (Some(value), flat_count(types.canonical_abi(&payload))?)
                }
                None => (None, 0),
            };
            for _ in 1 + read..flat_count(types.canonical_abi(&ty))? {
                next(slots)?;
            }
            of_case(ty, number, payload)?
        }
    })
}

/// Lifts a value from the bytes of its type.
fn from_memory(cx: &mut LiftContext<'_>, ty: InterfaceType, bytes: &[u8]) -> Result<Value> {
    let types = cx.types;
    Ok(match ty {
        InterfaceType::Bool => Value::Bool(fixed::<1>(bytes)? != [0]),
        InterfaceType::U8 => Value::U8(u8::from_le_bytes(fixed(bytes)?)),
        InterfaceType::U16 => Value::U16(u16::from_le_bytes(fixed(bytes)?)),
        InterfaceType::U32 => Value::U32(u32::from_le_bytes(fixed(bytes)?)),
        InterfaceType::U64 => Value::U64(u64::from_le_bytes(fixed(bytes)?)),
        InterfaceType::S8 => Value::S8(i8::from_le_bytes(fixed(bytes)?)),
        InterfaceType::S16 => Value::S16(i16::from_le_bytes(fixed(bytes)?)),
        InterfaceType::S32 => Value::S32(i32::from_le_bytes(fixed(bytes)?)),
        InterfaceType::S64 => Value::S64(i64::from_le_bytes(fixed(bytes)?)),
        InterfaceType::Float32 => Value::F32(f32::from_le_bytes(fixed(bytes)?)),
        InterfaceType::Float64 => Value::F64(f64::from_le_bytes(fixed(bytes)?)),
        InterfaceType::Char => Value::Char(char::try_from(u32::from_le_bytes(fixed(bytes)?))?),
        InterfaceType::String => {
            Value::String(String::linear_lift_from_memory(cx, ty, part(bytes, 0, 8)?)?)
        }
        InterfaceType::List(list) => {
            let address = u32::from_le_bytes(fixed(bytes)?);
            let length = u32::from_le_bytes(fixed(part(bytes, 4, 4)?)?);
            list_from_memory(cx, types[list].element, address, length)?
        }
        InterfaceType::Record(record) => {
            let fields = &types[record].fields;
            cx.consume_fuel_array(fields.len(), VALUE)?;
            let types = fields.iter().map(|field| field.ty);
            Value::Record(fields_from_memory(cx, types, bytes)?)
        }
        InterfaceType::Tuple(tuple) => {
            let items = &types[tuple].types;
            cx.consume_fuel_array(items.len(), VALUE)?;
            Value::Tuple(fields_from_memory(cx, items.iter().copied(), bytes)?)
        }
        InterfaceType::FixedLengthList(list) => {
            let (length, element) = (types[list].size as usize, types[list].element);
            cx.consume_fuel_array(length, VALUE)?;
            let items = std::iter::repeat_n(element, length);
            Value::FixedList(fields_from_memory(cx, items, bytes)?)
        }
        InterfaceType::Stream(_) | InterfaceType::Future(_) => {
            stream(cx, ty, &ValRaw::u32(u32::from_le_bytes(fixed(bytes)?)))?
        }
        InterfaceType::Flags(flags) => {
            let flags = &types[flags];
            let bits = number_from_memory(flags.abi.size32.min(4), bytes)?;
            Value::Flags(bits & all_flags(flags.names.len()))
        }
        _ => {
            let info = info(cx, ty)?;
            let (size, at) = (info.size.byte_size(), info.payload_offset32 as usize);
            let number = number_from_memory(size, bytes)?;
            let payload = match case(cx, ty, number)? {
                Some(payload) => {
                    let size = types.canonical_abi(&payload).size32 as usize;
                    let bytes = part(bytes, at, size)?;
                    Some(boxed(cx, |cx| from_memory(cx, payload, bytes))?)
                }
                None => None,
            };
            of_case(ty, number, payload)?
        }
    })
}

/// Takes a stream or a future out of the guest's table, of which a core value is the index.
fn stream(cx: &mut LiftContext<'_>, ty: InterfaceType, index: &ValRaw) -> Result<Value> {
    let types = cx.types;
    let reader = match ty {
        InterfaceType::Future(_) => {
            Reader::Future(FutureReader::linear_lift_from_flat(cx, ty, index)?)
        }
        InterfaceType::Stream(stream)
            if types[types[stream].ty].payload == Some(InterfaceType::U8) =>
        {
            Reader::Bytes(StreamReader::linear_lift_from_flat(cx, ty, index)?)
        }
        _ => Reader::Items(StreamReader::linear_lift_from_flat(cx, ty, index)?),
    };
    Ok(Value::Stream(Stream::of_guest(reader)))
}

/// Lifts an item of a stream, of which the first one stands in memory at this address.
pub(super) fn item_from_memory(
    cx: &mut LiftContext<'_>,
    ty: InterfaceType,
    first: usize,
    position: usize,
) -> Result<Value> {
    let abi = cx.types.canonical_abi(&ty);
    if !first.is_multiple_of(abi.align32 as usize) {
        bail!("items of a stream are not aligned");
    }
    let size = abi.size32 as usize;
    let offset = position.checked_mul(size);
    let address = offset.and_then(|offset| first.checked_add(offset));
    let bytes = address.and_then(|address| cx.memory().get(address..)?.get(..size));
    let bytes = bytes.ok_or_else(|| format_err!("items of a stream out of bounds of memory"))?;
    from_memory(cx, ty, bytes)
}

fn fields_from_flat(
    cx: &mut LiftContext<'_>,
    fields: impl ExactSizeIterator<Item = InterfaceType>,
    slots: &mut Slots<'_>,
) -> Result<Vec<Value>> {
    let mut values = Vec::with_capacity(fields.len());
    for ty in fields {
        values.push(from_flat(cx, ty, slots)?);
    }
    Ok(values)
}

fn fields_from_memory(
    cx: &mut LiftContext<'_>,
    fields: impl ExactSizeIterator<Item = InterfaceType>,
    bytes: &[u8],
) -> Result<Vec<Value>> {
    let mut values = Vec::with_capacity(fields.len());
    let mut offset = 0;
    for ty in fields {
        let abi = cx.types.canonical_abi(&ty);
        let at = place(&mut offset, abi);
        let bytes = part(bytes, at, abi.size32 as usize)?;
        values.push(from_memory(cx, ty, bytes)?);
    }
    Ok(values)
}

fn list_from_memory(
    cx: &mut LiftContext<'_>,
    element: InterfaceType,
    address: u32,
    length: u32,
) -> Result<Value> {
    let abi = cx.types.canonical_abi(&element);
    let (size, align) = (abi.size32 as usize, abi.align32 as usize);
    let (address, length) = (address as usize, length as usize);
    let beyond = || format_err!("list pointer/length out of bounds of memory");
    let total = length.checked_mul(size).ok_or_else(beyond)?;
    let memory = cx.memory().get(address..).ok_or_else(beyond)?;
    let bytes = memory.get(..total).ok_or_else(beyond)?;
    let is_bytes = matches!(element, InterfaceType::U8);
    cx.consume_fuel_array(length, if is_bytes { 1 } else { VALUE })?;
    if !address.is_multiple_of(align) {
        bail!("list pointer is not aligned");
    }
    if is_bytes {
        return Ok(Value::Bytes(bytes.to_vec()));
    }
    // The size of a type is a multiple of its alignment, so items stand as fields do.
    let items = std::iter::repeat_n(element, length);
    Ok(Value::List(fields_from_memory(cx, items, bytes)?))
}

/// The layout of a type of which a value is one of some cases.
fn info<'a>(cx: &LiftContext<'a>, ty: InterfaceType) -> Result<&'a VariantInfo> {
    let types = cx.types;
    Ok(match ty {
        InterfaceType::Variant(variant) => &types[variant].info,
        InterfaceType::Enum(variant) => &types[variant].info,
        InterfaceType::Option(option) => &types[option].info,
        InterfaceType::Result(result) => &types[result].info,
        _ => bail!("a type that no message can carry"),
    })
}

/// The payload's type of the case of this number.
fn case(cx: &LiftContext<'_>, ty: InterfaceType, number: u32) -> Result<Option<InterfaceType>> {
    let (types, index) = (cx.types, number as usize);
    let (found, count) = match ty {
        InterfaceType::Variant(variant) => {
            let cases = &types[variant].cases;
            let case = cases.get_index(index).map(|(_, payload)| *payload);
            (case, cases.len())
        }
        InterfaceType::Enum(variant) => {
            let names = &types[variant].names;
            ((index < names.len()).then_some(None), names.len())
        }
        InterfaceType::Option(option) => ([None, Some(types[option].ty)].get(index).copied(), 2),
        InterfaceType::Result(result) => {
            let result = &types[result];
            ([result.ok, result.err].get(index).copied(), 2)
        }
        _ => bail!("a type that no message can carry"),
    };
    found.ok_or_else(|| format_err!("discriminant {number} out of range [0..{count})"))
}

fn of_case(ty: InterfaceType, number: u32, payload: Option<Box<Value>>) -> Result<Value> {
    Ok(match ty {
        InterfaceType::Variant(_) => Value::Variant(number, payload),
        InterfaceType::Enum(_) => Value::Enum(number),
        InterfaceType::Option(_) => Value::Option(payload),
        InterfaceType::Result(_) if number == 0 => Value::Result(Ok(payload)),
        InterfaceType::Result(_) => Value::Result(Err(payload)),
        _ => bail!("a type that no message can carry"),
    })
}

fn boxed<'a>(
    cx: &mut LiftContext<'a>,
    lift: impl FnOnce(&mut LiftContext<'a>) -> Result<Value>,
) -> Result<Box<Value>> {
    cx.consume_fuel(VALUE)?;
    lift(cx).map(Box::new)
}

/// The number of a case, or flags, which take up to 4 bytes.
fn number_from_memory(size: u32, bytes: &[u8]) -> Result<u32> {
    Ok(match size {
        0 => 0,
        1 => u8::from_le_bytes(fixed(bytes)?).into(),
        2 => u16::from_le_bytes(fixed(bytes)?).into(),
        _ => u32::from_le_bytes(fixed(bytes)?),
    })
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.first_chunk().copied().ok_or_else(too_few)
}

fn part(bytes: &[u8], at: usize, size: usize) -> Result<&[u8]> {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.get(..size));
    bytes.ok_or_else(too_few)
}

#[cold]
fn too_few() -> wasmtime::Error {
    format_err!("a type has more bytes than its place in memory")
}

fn next<'s>(slots: &mut Slots<'s>) -> Result<&'s ValRaw> {
    slots
        .next()
        .ok_or_else(|| format_err!("values have more core values than their function"))
}
