//! Arbitrary types and values of them, for the tests of what takes values.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::strategy::Union;

use super::Value;
use crate::shape::{Case, Field, Shape};

/// A record's fields from their names, with the keys that the loader gives them.
pub(crate) fn fields(named: &[(&str, Shape)]) -> Box<[Field]> {
    let field = |(name, shape): &(&str, Shape)| Field {
        name: (*name).into(),
        key: camel_case(name).into(),
        shape: shape.clone(),
    };
    named.iter().map(field).collect()
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('-');
    let first = words.next().unwrap().to_owned();
    words.fold(first, |key, word| {
        key + &word[..1].to_uppercase() + &word[1..]
    })
}

pub(crate) fn record(named: &[(&str, Shape)]) -> Shape {
    Shape::Record(fields(named))
}

pub(crate) fn variant(cases: &[(&str, Option<Shape>)]) -> Shape {
    let case = |(name, payload): &(&str, Option<Shape>)| Case {
        name: (*name).into(),
        payload: payload.clone(),
    };
    Shape::Variant(cases.iter().map(case).collect())
}

pub(crate) fn names(names: &[&str]) -> Box<[Box<str>]> {
    names.iter().map(|name| (*name).into()).collect()
}

pub(crate) fn list(item: Shape) -> Shape {
    Shape::List(Box::new(item))
}

pub(crate) fn option(some: Shape) -> Shape {
    Shape::Option(Box::new(some))
}

pub(crate) fn result(ok: Option<Shape>, err: Option<Shape>) -> Shape {
    Shape::Result {
        ok: ok.map(Box::new),
        err: err.map(Box::new),
    }
}

fn numbered(count: usize) -> Box<[Box<str>]> {
    (0..count).map(|i| format!("n{i}").into()).collect()
}

/// Distinct names whose keys and snake-case forms are distinct too.
pub(crate) const NAMES: [&str; 8] = [
    "a", "on-hand", "x1-y2-z3", "tag", "val", "ok", "none", "URL-of",
];

pub(crate) fn arbitrary_shape() -> impl Strategy<Value = Shape> {
    let leaf = select(vec![
        Shape::Bool,
        Shape::U8,
        Shape::U16,
        Shape::U32,
        Shape::U64,
        Shape::S8,
        Shape::S16,
        Shape::S32,
        Shape::S64,
        Shape::F32,
        Shape::F64,
        Shape::Char,
        Shape::String,
        Shape::Bytes,
        Shape::Enum(names(&NAMES[..3])),
        Shape::Flags(names(&NAMES)),
        Shape::Flags(numbered(9)),
        Shape::Flags(numbered(32)),
        // More than a byte has numbers for.
        Shape::Enum(numbered(257)),
        result(None, None),
    ]);
    leaf.prop_recursive(5, 24, 4, |inner| {
        let payload = || proptest::option::of(inner.clone());
        let named = |of: BoxedStrategy<Option<Shape>>| {
            (subsequence(&NAMES[..], 1..=4), vec(of, 4))
                .prop_map(|(names, shapes)| names.into_iter().zip(shapes).collect::<Vec<_>>())
        };
        prop_oneof![
            // A list of `u8` has a shape of its own.
            inner.clone().prop_map(|item| match item {
                Shape::U8 => Shape::Bytes,
                item => list(item),
            }),
            (inner.clone(), 1..4_u32).prop_map(|(item, len)| Shape::FixedList(item.into(), len)),
            vec(inner.clone(), 1..4).prop_map(|items| Shape::Tuple(items.into())),
            named(inner.clone().prop_map(Some).boxed()).prop_map(|named| {
                let named: Vec<_> = named.into_iter().map(|(n, s)| (n, s.unwrap())).collect();
                record(&named)
            }),
            named(payload().boxed()).prop_map(|cases| variant(&cases)),
            inner.clone().prop_map(option),
            inner.clone().prop_map(|some| option(option(some))),
            (payload(), payload()).prop_map(|(ok, err)| result(ok, err)),
        ]
    })
}

pub(crate) fn arbitrary_value(shape: &Shape) -> BoxedStrategy<Value> {
    let payload = |shape: &Option<Box<Shape>>| match shape {
        Some(shape) => arbitrary_value(shape)
            .prop_map(|val| Some(Box::new(val)))
            .boxed(),
        None => Just(None).boxed(),
    };
    match shape {
        Shape::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Shape::U8 => any::<u8>().prop_map(Value::U8).boxed(),
        Shape::U16 => any::<u16>().prop_map(Value::U16).boxed(),
        Shape::U32 => any::<u32>().prop_map(Value::U32).boxed(),
        // Half of them near the border between numbers and strings.
        Shape::U64 => prop_oneof![any::<u64>(), (1 << 53) - 2..(1_u64 << 53) + 2]
            .prop_map(Value::U64)
            .boxed(),
        Shape::S8 => any::<i8>().prop_map(Value::S8).boxed(),
        Shape::S16 => any::<i16>().prop_map(Value::S16).boxed(),
        Shape::S32 => any::<i32>().prop_map(Value::S32).boxed(),
        Shape::S64 => prop_oneof![any::<i64>(), (-(1 << 53) - 2..-(1_i64 << 53) + 2)]
            .prop_map(Value::S64)
            .boxed(),
        // By their bits, so that subnormals, infinities and every NaN come up.
        Shape::F32 => any::<u32>()
            .prop_map(|bits| Value::F32(f32::from_bits(bits)))
            .boxed(),
        Shape::F64 => any::<u64>()
            .prop_map(|bits| Value::F64(f64::from_bits(bits)))
            .boxed(),
        Shape::Char => any::<char>().prop_map(Value::Char).boxed(),
        Shape::String => any::<String>().prop_map(Value::String).boxed(),
        Shape::Bytes => vec(any::<u8>(), 0..10).prop_map(Value::Bytes).boxed(),
        Shape::Stream(_) | Shape::Future(_) => arbitrary_value(&shape.whole()),
        Shape::List(item) => vec(arbitrary_value(item), 0..4)
            .prop_map(Value::List)
            .boxed(),
        Shape::FixedList(item, len) => vec(arbitrary_value(item), *len as usize)
            .prop_map(Value::FixedList)
            .boxed(),
        Shape::Tuple(items) => items
            .iter()
            .map(arbitrary_value)
            .collect::<Vec<_>>()
            .prop_map(Value::Tuple)
            .boxed(),
        Shape::Record(fields) => fields
            .iter()
            .map(|field| arbitrary_value(&field.shape))
            .collect::<Vec<_>>()
            .prop_map(Value::Record)
            .boxed(),
        Shape::Variant(cases) => Union::new((0..).zip(cases).map(|(number, case)| {
            payload(&case.payload.clone().map(Box::new))
                .prop_map(move |val| Value::Variant(number, val))
        }))
        .boxed(),
        Shape::Enum(names) => (0..names.len() as u32).prop_map(Value::Enum).boxed(),
        Shape::Option(some) => proptest::option::of(arbitrary_value(some).prop_map(Box::new))
            .prop_map(Value::Option)
            .boxed(),
        Shape::Result { ok, err } => prop_oneof![
            payload(ok).prop_map(|val| Value::Result(Ok(val))),
            payload(err).prop_map(|val| Value::Result(Err(val))),
        ]
        .boxed(),
        Shape::Flags(names) => {
            let unused = u32::BITS - names.len() as u32;
            any::<u32>()
                .prop_map(move |bits| Value::Flags(bits >> unused))
                .boxed()
        }
    }
}

pub(crate) fn arbitrary_pair() -> impl Strategy<Value = (Shape, Value)> {
    arbitrary_shape().prop_flat_map(|shape| {
        let value = arbitrary_value(&shape);
        (Just(shape), value)
    })
}
