//! Values to core values and to a guest's memory: the canonical ABI's lowering.
//!
//! It does what wasmtime does for its own `Val`, in the same order, and refuses what that refuses.

use std::slice::IterMut;

use wasmtime::component::__internal::wasmtime_environ::component::{MAX_FLAT_PARAMS, VariantInfo};
use wasmtime::component::__internal::{
    CanonicalAbiInfo, ComponentTypes, InterfaceType, LowerContext,
};
use wasmtime::component::Lower as _;
use wasmtime::{Result, ValRaw, bail, format_err};

use super::{MAX_FLAGS, Value, abi, streams};

/// Core values to be written, which are zero until they are.
type Slots<'s> = IterMut<'s, ValRaw>;

/// Lowers the arguments of an export: to core values, or to memory that the guest allocates where
/// they are too many.
pub(super) fn parameters<T>(
    cx: &mut LowerContext<'_, T>,
    ty: InterfaceType,
    values: &[Value],
    slots: &mut [ValRaw],
) -> Result<()> {
    let tuple = match ty {
        InterfaceType::Tuple(tuple) => &cx.types[tuple],
        _ => bail!("parameters are no tuple"),
    };
    if tuple.abi.flat_count(MAX_FLAT_PARAMS).is_some() {
        return tuple_to_flat(cx, ty, values, slots);
    }
    let (size, align) = (tuple.abi.size32 as usize, tuple.abi.align32);
    let address = cx.realloc(0, 0, align, size)?;
    tuple_to_memory(cx, ty, values, address)?;
    *next(&mut slots.iter_mut())? = ValRaw::i64(address as i64);
    Ok(())
}

/// Lowers parameters or results to core values.
pub(super) fn tuple_to_flat<T>(
    cx: &mut LowerContext<'_, T>,
    ty: InterfaceType,
    values: &[Value],
    slots: &mut [ValRaw],
) -> Result<()> {
    let types = items(cx.types, ty, values.len())?;
    let slots = &mut slots.iter_mut();
    for (value, ty) in values.iter().zip(types) {
        to_flat(cx, *ty, value, slots)?;
    }
    Ok(())
}

/// Lowers parameters or results to memory at an address that was checked for them.
pub(super) fn tuple_to_memory<T>(
    cx: &mut LowerContext<'_, T>,
    ty: InterfaceType,
    values: &[Value],
    mut offset: usize,
) -> Result<()> {
    for (value, ty) in values.iter().zip(items(cx.types, ty, values.len())?) {
        let at = place(&mut offset, cx.types.canonical_abi(ty));
        to_memory(cx, *ty, value, at)?;
    }
    Ok(())
}

fn items(types: &ComponentTypes, ty: InterfaceType, count: usize) -> Result<&[InterfaceType]> {
    let InterfaceType::Tuple(tuple) = ty else {
        bail!("parameters or results are no tuple");
    };
    let types = &types[tuple].types;
    if types.len() != count {
        bail!("expected {} values, found {count}", types.len());
    }
    Ok(types)
}

/// The place of the next field, of which this is the layout.
pub(super) fn place(offset: &mut usize, abi: &CanonicalAbiInfo) -> usize {
    let at = offset.next_multiple_of(abi.align32 as usize);
    *offset = at + abi.size32 as usize;
    at
}

fn to_flat<T>(
    cx: &mut LowerContext<'_, T>,
    ty: InterfaceType,
    value: &Value,
    slots: &mut Slots<'_>,
) -> Result<()> {
    let types = cx.types;
    match (ty, value) {
        (InterfaceType::Bool, Value::Bool(v)) => *next(slots)? = ValRaw::i32((*v).into()),
        (InterfaceType::U8, Value::U8(v)) => *next(slots)? = ValRaw::u32((*v).into()),
        (InterfaceType::U16, Value::U16(v)) => *next(slots)? = ValRaw::u32((*v).into()),
        (InterfaceType::U32, Value::U32(v)) => *next(slots)? = ValRaw::u32(*v),
        (InterfaceType::U64, Value::U64(v)) => *next(slots)? = ValRaw::u64(*v),
        (InterfaceType::S8, Value::S8(v)) => *next(slots)? = ValRaw::i32((*v).into()),
        (InterfaceType::S16, Value::S16(v)) => *next(slots)? = ValRaw::i32((*v).into()),
        (InterfaceType::S32, Value::S32(v)) => *next(slots)? = ValRaw::i32(*v),
        (InterfaceType::S64, Value::S64(v)) => *next(slots)? = ValRaw::i64(*v),
        (InterfaceType::Float32, Value::F32(v)) => *next(slots)? = ValRaw::f32(v.to_bits()),
        (InterfaceType::Float64, Value::F64(v)) => *next(slots)? = ValRaw::f64(v.to_bits()),
        (InterfaceType::Char, Value::Char(v)) => *next(slots)? = ValRaw::u32((*v).into()),
        (InterfaceType::String, Value::String(text)) => {
            for part in abi::string_to_flat(cx, text)? {
                *next(slots)? = part;
            }
        }
        (InterfaceType::Stream(_) | InterfaceType::Future(_), _) => {
            *next(slots)? = ValRaw::u32(stream(cx, ty, value)?);
        }
        (InterfaceType::List(list), _) => {
            let (address, length) = list_to_memory(cx, types[list].element, value)?;
            *next(slots)? = ValRaw::i64(address as i64);
            *next(slots)? = ValRaw::i64(length as i64);
        }
        (InterfaceType::Record(record), Value::Record(values)) => {
            let fields = &types[record].fields;
            same(fields.len(), values)?;
            for (field, value) in fields.iter().zip(values) {
                to_flat(cx, field.ty, value, slots)?;
            }
        }
        (InterfaceType::Tuple(tuple), Value::Tuple(values)) => {
            let items = &types[tuple].types;
            same(items.len(), values)?;
            for (ty, value) in items.iter().zip(values) {
                to_flat(cx, *ty, value, slots)?;
            }
        }
        (InterfaceType::FixedLengthList(list), Value::FixedList(values)) => {
            let list = &types[list];
            same(list.size as usize, values)?;
            for value in values {
                to_flat(cx, list.element, value, slots)?;
            }
        }
        (InterfaceType::Flags(flags), Value::Flags(bits)) => {
            let names = types[flags].names.len();
            let bits = known_flags(*bits, names)?;
            if names > 0 {
                *next(slots)? = ValRaw::u32(bits);
            }
        }
        _ => {
            let case = Case::of(types, ty, value)?;
            *next(slots)? = ValRaw::u32(case.number);
            let written = match case.payload {
                Some((ty, value)) => {
                    to_flat(cx, ty, value, slots)?;
                    flat_count(types.canonical_abi(&ty))?
                }
                None => 0,
            };
            // What the payload leaves of the longest one's core values stays zero.
            for _ in 1 + written..flat_count(types.canonical_abi(&ty))? {
                next(slots)?;
            }
        }
    }
    Ok(())
}

fn to_memory<T>(
    cx: &mut LowerContext<'_, T>,
    ty: InterfaceType,
    value: &Value,
    offset: usize,
) -> Result<()> {
    let types = cx.types;
    match (ty, value) {
        (InterfaceType::Bool, Value::Bool(v)) => *cx.get(offset) = [u8::from(*v)],
        (InterfaceType::U8, Value::U8(v)) => *cx.get(offset) = [*v],
        (InterfaceType::U16, Value::U16(v)) => *cx.get(offset) = v.to_le_bytes(),
        (InterfaceType::U32, Value::U32(v)) => *cx.get(offset) = v.to_le_bytes(),
        (InterfaceType::U64, Value::U64(v)) => *cx.get(offset) = v.to_le_bytes(),
        (InterfaceType::S8, Value::S8(v)) => *cx.get(offset) = v.to_le_bytes(),
        (InterfaceType::S16, Value::S16(v)) => *cx.get(offset) = v.to_le_bytes(),
        (InterfaceType::S32, Value::S32(v)) => *cx.get(offset) = v.to_le_bytes(),
        (InterfaceType::S64, Value::S64(v)) => *cx.get(offset) = v.to_le_bytes(),
        (InterfaceType::Float32, Value::F32(v)) => *cx.get(offset) = v.to_le_bytes(),
        (InterfaceType::Float64, Value::F64(v)) => *cx.get(offset) = v.to_le_bytes(),
        (InterfaceType::Char, Value::Char(v)) => *cx.get(offset) = u32::from(*v).to_le_bytes(),
        (InterfaceType::String, Value::String(text)) => {
            text.as_str().linear_lower_to_memory(cx, ty, offset)?;
        }
        (InterfaceType::Stream(_) | InterfaceType::Future(_), _) => {
            *cx.get(offset) = stream(cx, ty, value)?.to_le_bytes();
        }
        (InterfaceType::List(list), _) => {
            let (address, length) = list_to_memory(cx, types[list].element, value)?;
            *cx.get(offset) = u32::try_from(address)?.to_le_bytes();
            *cx.get(offset + 4) = u32::try_from(length)?.to_le_bytes();
        }
        (InterfaceType::Record(record), Value::Record(values)) => {
            let fields = &types[record].fields;
            same(fields.len(), values)?;
            let mut offset = offset;
            for (field, value) in fields.iter().zip(values) {
                let at = place(&mut offset, types.canonical_abi(&field.ty));
                to_memory(cx, field.ty, value, at)?;
            }
        }
        (InterfaceType::Tuple(tuple), Value::Tuple(values)) => {
            let items = &types[tuple].types;
            same(items.len(), values)?;
            let mut offset = offset;
            for (ty, value) in items.iter().zip(values) {
                let at = place(&mut offset, types.canonical_abi(ty));
                to_memory(cx, *ty, value, at)?;
            }
        }
        (InterfaceType::FixedLengthList(list), Value::FixedList(values)) => {
            let list = &types[list];
            same(list.size as usize, values)?;
            let mut offset = offset;
            for value in values {
                let at = place(&mut offset, types.canonical_abi(&list.element));
                to_memory(cx, list.element, value, at)?;
            }
        }
        (InterfaceType::Flags(flags), Value::Flags(bits)) => {
            let bits = known_flags(*bits, types[flags].names.len())?;
            match types[flags].abi.size32 {
                0 => {}
                size => number_to_memory(cx, bits, size, offset),
            }
        }
        _ => {
            let case = Case::of(types, ty, value)?;
            number_to_memory(cx, case.number, case.info.size.byte_size(), offset);
            if let Some((ty, value)) = case.payload {
                let at = offset + case.info.payload_offset32 as usize;
                to_memory(cx, ty, value, at)?;
            }
        }
    }
    Ok(())
}

/// Puts a stream or a future into the guest's table, and returns its index.
fn stream<T>(cx: &mut LowerContext<'_, T>, ty: InterfaceType, value: &Value) -> Result<u32> {
    let types = cx.types;
    match ty {
        InterfaceType::Future(_) => {
            let reader = streams::future(&mut cx.store, value)?;
            abi::handle(cx, ty, &reader)
        }
        InterfaceType::Stream(stream)
            if types[types[stream].ty].payload == Some(InterfaceType::U8) =>
        {
            let reader = streams::reader::<u8>(&mut cx.store, value)?;
            abi::handle(cx, ty, &reader)
        }
        _ => {
            let reader = streams::reader::<abi::Item>(&mut cx.store, value)?;
            abi::handle(cx, ty, &reader)
        }
    }
}

/// Lowers items of a stream to memory at this address, which the guest has for them.
pub(super) fn items_to_memory<'v, T>(
    cx: &mut LowerContext<'_, T>,
    ty: InterfaceType,
    address: usize,
    values: impl ExactSizeIterator<Item = &'v Value>,
) -> Result<()> {
    let abi = cx.types.canonical_abi(&ty);
    let (size, align) = (abi.size32 as usize, abi.align32 as usize);
    let end = values
        .len()
        .checked_mul(size)
        .and_then(|total| address.checked_add(total));
    if end.is_none_or(|end| end > cx.as_slice_mut().len()) {
        bail!("items of a stream out of bounds of memory");
    }
    if !address.is_multiple_of(align) {
        bail!("items of a stream are not aligned");
    }
    for (index, value) in values.enumerate() {
        to_memory(cx, ty, value, address + index * size)?;
    }
    Ok(())
}

/// Lowers a list to memory that the guest allocates: its address and its length.
fn list_to_memory<T>(
    cx: &mut LowerContext<'_, T>,
    element: InterfaceType,
    value: &Value,
) -> Result<(usize, usize)> {
    match (element, value) {
        (InterfaceType::U8, Value::Bytes(bytes)) => {
            let address = cx.realloc(0, 0, 1, bytes.len())?;
            let memory = cx.as_slice_mut().get_mut(address..);
            let room = memory.and_then(|memory| memory.get_mut(..bytes.len()));
            room.ok_or_else(|| format_err!("a list beyond the end of memory"))?
                .copy_from_slice(bytes);
            Ok((address, bytes.len()))
        }
        (InterfaceType::U8, _) => unlike(value, "a list<u8>"),
        (_, Value::List(values)) => {
            let abi = cx.types.canonical_abi(&element);
            let size = values.len().checked_mul(abi.size32 as usize);
            let size = size.ok_or_else(|| format_err!("size overflow copying a list"))?;
            let address = cx.realloc(0, 0, abi.align32, size)?;
            for (index, value) in values.iter().enumerate() {
                to_memory(cx, element, value, address + index * abi.size32 as usize)?;
            }
            Ok((address, values.len()))
        }
        _ => unlike(value, "a list"),
    }
}

/// Writes the number of a case, or flags, which take 1, 2 or 4 bytes.
fn number_to_memory<T>(cx: &mut LowerContext<'_, T>, number: u32, size: u32, offset: usize) {
    // Truncated to what its type has room for: a number of a case and flags are checked to be within.
    match size {
        1 => *cx.get(offset) = [number as u8],
        2 => *cx.get(offset) = (number as u16).to_le_bytes(),
        _ => *cx.get(offset) = number.to_le_bytes(),
    }
}

/// A value of a type of which a value is one of some cases.
struct Case<'v> {
    number: u32,
    payload: Option<(InterfaceType, &'v Value)>,
    info: &'v VariantInfo,
}

impl<'v> Case<'v> {
    fn of(types: &'v ComponentTypes, ty: InterfaceType, value: &'v Value) -> Result<Self> {
        let (number, payload, value, info) = match (ty, value) {
            (InterfaceType::Variant(variant), Value::Variant(number, value)) => {
                let variant = &types[variant];
                let case = variant.cases.get_index(*number as usize);
                let (_, payload) = case.ok_or_else(|| {
                    format_err!("a variant of {} cases has no {number}", variant.cases.len())
                })?;
                (*number, *payload, value, &variant.info)
            }
            (InterfaceType::Enum(variant), Value::Enum(number)) => {
                let variant = &types[variant];
                if *number as usize >= variant.names.len() {
                    bail!("an enum of {} cases has no {number}", variant.names.len());
                }
                (*number, None, &None, &variant.info)
            }
            (InterfaceType::Option(option), Value::Option(value)) => {
                let option = &types[option];
                let payload = value.is_some().then_some(option.ty);
                (value.is_some().into(), payload, value, &option.info)
            }
            (InterfaceType::Result(result), Value::Result(Ok(value))) => {
                (0, types[result].ok, value, &types[result].info)
            }
            (InterfaceType::Result(result), Value::Result(Err(value))) => {
                (1, types[result].err, value, &types[result].info)
            }
            _ => return unlike(value, "another type"),
        };
        let payload = match (payload, value) {
            (Some(ty), Some(value)) => Some((ty, &**value)),
            (None, None) => None,
            (Some(_), None) => bail!("case {number} has a payload, and the value has none"),
            (None, Some(_)) => bail!("case {number} has no payload, and the value has one"),
        };
        Ok(Self {
            number,
            payload,
            info,
        })
    }
}

fn known_flags(bits: u32, names: usize) -> Result<u32> {
    if names > MAX_FLAGS || bits & !all_flags(names) != 0 {
        bail!("{names} flags cannot be {bits:#b}");
    }
    Ok(bits)
}

/// The bits of so many flags.
pub(super) fn all_flags(names: usize) -> u32 {
    // Without any flag the shift is by all bits, which leaves none.
    let unused = MAX_FLAGS.saturating_sub(names) as u32;
    u32::MAX.checked_shr(unused).unwrap_or(0)
}

/// The number of core values of a type of which some were counted already.
pub(super) fn flat_count(abi: &CanonicalAbiInfo) -> Result<usize> {
    abi.flat_count(usize::MAX)
        .ok_or_else(|| format_err!("a type has too many core values"))
}

fn next<'s>(slots: &mut Slots<'s>) -> Result<&'s mut ValRaw> {
    slots
        .next()
        .ok_or_else(|| format_err!("values have more core values than their function"))
}

fn same(expected: usize, values: &[Value]) -> Result<()> {
    if values.len() != expected {
        bail!("expected {expected} values, found {}", values.len());
    }
    Ok(())
}

#[cold]
fn unlike<T>(value: &Value, expected: &str) -> Result<T> {
    bail!("expected {expected}, found {}", value.kind())
}
