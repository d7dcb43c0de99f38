//! Values to wasmtime's own and back.

use super::*;

/// `None` if the value is of another type.
pub(super) fn to_val(value: &Value, shape: &Shape) -> Option<Val> {
    let all = |values: &[Value], shape: &Shape| -> Option<Vec<Val>> {
        values.iter().map(|value| to_val(value, shape)).collect()
    };
    Some(match (shape, value) {
        (Shape::Bool, Value::Bool(v)) => Val::Bool(*v),
        (Shape::U8, Value::U8(v)) => Val::U8(*v),
        (Shape::U16, Value::U16(v)) => Val::U16(*v),
        (Shape::U32, Value::U32(v)) => Val::U32(*v),
        (Shape::U64, Value::U64(v)) => Val::U64(*v),
        (Shape::S8, Value::S8(v)) => Val::S8(*v),
        (Shape::S16, Value::S16(v)) => Val::S16(*v),
        (Shape::S32, Value::S32(v)) => Val::S32(*v),
        (Shape::S64, Value::S64(v)) => Val::S64(*v),
        (Shape::F32, Value::F32(v)) => Val::Float32(*v),
        (Shape::F64, Value::F64(v)) => Val::Float64(*v),
        (Shape::Char, Value::Char(v)) => Val::Char(*v),
        (Shape::String, Value::String(v)) => Val::String(v.clone()),
        (Shape::Bytes, Value::Bytes(v)) => Val::List(v.iter().map(|b| Val::U8(*b)).collect()),
        (Shape::List(item), Value::List(v)) => Val::List(all(v, item)?),
        (Shape::FixedList(item, len), Value::FixedList(v)) if v.len() == *len as usize => {
            Val::FixedLengthList(all(v, item)?)
        }
        (Shape::Tuple(shapes), Value::Tuple(v)) if v.len() == shapes.len() => {
            let items = v.iter().zip(shapes);
            Val::Tuple(
                items
                    .map(|(v, shape)| to_val(v, shape))
                    .collect::<Option<_>>()?,
            )
        }
        (Shape::Record(fields), Value::Record(v)) if v.len() == fields.len() => {
            let fields = v.iter().zip(fields);
            let fields = fields.map(|(v, f)| Some((f.name.to_string(), to_val(v, &f.shape)?)));
            Val::Record(fields.collect::<Option<_>>()?)
        }
        (Shape::Variant(cases), Value::Variant(number, v)) => {
            let case = cases.get(*number as usize)?;
            let payload = payload_to_val(v.as_deref(), case.payload.as_ref())?;
            Val::Variant(case.name.to_string(), payload)
        }
        (Shape::Enum(names), Value::Enum(number)) => {
            Val::Enum(names.get(*number as usize)?.to_string())
        }
        (Shape::Option(some), Value::Option(v)) => {
            let some = v.is_some().then_some(&**some);
            Val::Option(payload_to_val(v.as_deref(), some)?)
        }
        (Shape::Result { ok, .. }, Value::Result(Ok(v))) => {
            Val::Result(Ok(payload_to_val(v.as_deref(), ok.as_deref())?))
        }
        (Shape::Result { err, .. }, Value::Result(Err(v))) => {
            Val::Result(Err(payload_to_val(v.as_deref(), err.as_deref())?))
        }
        (Shape::Flags(names), Value::Flags(bits)) => {
            if u64::from(*bits) >> names.len() != 0 {
                return None;
            }
            let set = names.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
            Val::Flags(set.map(|(_, name)| name.to_string()).collect())
        }
        _ => return None,
    })
}

fn payload_to_val(value: Option<&Value>, shape: Option<&Shape>) -> Option<Option<Box<Val>>> {
    match (value, shape) {
        (None, None) => Some(None),
        (Some(value), Some(shape)) => Some(Some(Box::new(to_val(value, shape)?))),
        _ => None,
    }
}

/// A value that wasmtime has lifted as this type.
pub(super) fn from_val(val: &Val, shape: &Shape) -> Value {
    let all = |vals: &[Val], shape: &Shape| vals.iter().map(|v| from_val(v, shape)).collect();
    let payload = |val: &Option<Box<Val>>, shape: Option<&Shape>| {
        let val = val.as_deref();
        val.map(|val| Box::new(from_val(val, shape.unwrap())))
    };
    match (shape, val) {
        (Shape::Bool, Val::Bool(v)) => Value::Bool(*v),
        (Shape::U8, Val::U8(v)) => Value::U8(*v),
        (Shape::U16, Val::U16(v)) => Value::U16(*v),
        (Shape::U32, Val::U32(v)) => Value::U32(*v),
        (Shape::U64, Val::U64(v)) => Value::U64(*v),
        (Shape::S8, Val::S8(v)) => Value::S8(*v),
        (Shape::S16, Val::S16(v)) => Value::S16(*v),
        (Shape::S32, Val::S32(v)) => Value::S32(*v),
        (Shape::S64, Val::S64(v)) => Value::S64(*v),
        (Shape::F32, Val::Float32(v)) => Value::F32(*v),
        (Shape::F64, Val::Float64(v)) => Value::F64(*v),
        (Shape::Char, Val::Char(v)) => Value::Char(*v),
        (Shape::String, Val::String(v)) => Value::String(v.clone()),
        (Shape::Bytes, Val::List(v)) => {
            let byte = |val: &Val| match val {
                Val::U8(byte) => *byte,
                other => panic!("{other:?} is no byte"),
            };
            Value::Bytes(v.iter().map(byte).collect())
        }
        (Shape::List(item), Val::List(v)) => Value::List(all(v, item)),
        (Shape::FixedList(item, _), Val::FixedLengthList(v)) => Value::FixedList(all(v, item)),
        (Shape::Tuple(shapes), Val::Tuple(v)) => {
            let items = v.iter().zip(shapes);
            Value::Tuple(items.map(|(v, shape)| from_val(v, shape)).collect())
        }
        (Shape::Record(fields), Val::Record(v)) => {
            let fields = v.iter().zip(fields);
            Value::Record(fields.map(|((_, v), f)| from_val(v, &f.shape)).collect())
        }
        (Shape::Variant(cases), Val::Variant(name, v)) => {
            let number = number(cases.iter().map(|case| &*case.name), name);
            let shape = cases[number as usize].payload.as_ref();
            Value::Variant(number, payload(v, shape))
        }
        (Shape::Enum(names), Val::Enum(name)) => {
            Value::Enum(number(names.iter().map(|name| &**name), name))
        }
        (Shape::Option(some), Val::Option(v)) => Value::Option(payload(v, Some(some))),
        (Shape::Result { ok, .. }, Val::Result(Ok(v))) => {
            Value::Result(Ok(payload(v, ok.as_deref())))
        }
        (Shape::Result { err, .. }, Val::Result(Err(v))) => {
            Value::Result(Err(payload(v, err.as_deref())))
        }
        (Shape::Flags(names), Val::Flags(set)) => {
            let bit = |name: &String| 1 << number(names.iter().map(|name| &**name), name);
            Value::Flags(set.iter().map(bit).sum())
        }
        (shape, val) => panic!("{val:?} is no {shape}"),
    }
}

fn number<'n>(mut names: impl Iterator<Item = &'n str>, name: &str) -> u32 {
    names.position(|known| known == name).unwrap() as u32
}
