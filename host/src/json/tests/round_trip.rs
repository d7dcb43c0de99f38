//! Arbitrary types, values and bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::strategy::Union;

use super::hostile::check_against_serde_json;
use super::*;

/// Distinct names whose keys and snake-case forms are distinct too.
const NAMES: [&str; 8] = [
    "a", "on-hand", "x1-y2-z3", "tag", "val", "ok", "none", "URL-of",
];

fn arbitrary_shape() -> impl Strategy<Value = Shape> {
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

fn arbitrary_val(shape: &Shape) -> BoxedStrategy<Val> {
    let payload = |shape: &Option<Box<Shape>>| match shape {
        Some(shape) => arbitrary_val(shape)
            .prop_map(|val| Some(Box::new(val)))
            .boxed(),
        None => Just(None).boxed(),
    };
    match shape {
        Shape::Bool => any::<bool>().prop_map(Val::Bool).boxed(),
        Shape::U8 => any::<u8>().prop_map(Val::U8).boxed(),
        Shape::U16 => any::<u16>().prop_map(Val::U16).boxed(),
        Shape::U32 => any::<u32>().prop_map(Val::U32).boxed(),
        // Half of them near the border between numbers and strings.
        Shape::U64 => prop_oneof![any::<u64>(), (1 << 53) - 2..(1_u64 << 53) + 2]
            .prop_map(Val::U64)
            .boxed(),
        Shape::S8 => any::<i8>().prop_map(Val::S8).boxed(),
        Shape::S16 => any::<i16>().prop_map(Val::S16).boxed(),
        Shape::S32 => any::<i32>().prop_map(Val::S32).boxed(),
        Shape::S64 => prop_oneof![any::<i64>(), (-(1 << 53) - 2..-(1_i64 << 53) + 2)]
            .prop_map(Val::S64)
            .boxed(),
        // By their bits, so that subnormals, infinities and every NaN come up.
        Shape::F32 => any::<u32>()
            .prop_map(|bits| Val::Float32(f32::from_bits(bits)))
            .boxed(),
        Shape::F64 => any::<u64>()
            .prop_map(|bits| Val::Float64(f64::from_bits(bits)))
            .boxed(),
        Shape::Char => any::<char>().prop_map(Val::Char).boxed(),
        Shape::String => any::<String>().prop_map(Val::String).boxed(),
        Shape::Bytes => vec(any::<u8>().prop_map(Val::U8), 0..10)
            .prop_map(Val::List)
            .boxed(),
        Shape::List(item) => vec(arbitrary_val(item), 0..4).prop_map(Val::List).boxed(),
        Shape::FixedList(item, len) => vec(arbitrary_val(item), *len as usize)
            .prop_map(Val::FixedLengthList)
            .boxed(),
        Shape::Tuple(items) => items
            .iter()
            .map(arbitrary_val)
            .collect::<Vec<_>>()
            .prop_map(Val::Tuple)
            .boxed(),
        Shape::Record(fields) => {
            let names: Vec<String> = fields.iter().map(|field| field.name.to_string()).collect();
            let vals: Vec<_> = fields
                .iter()
                .map(|field| arbitrary_val(&field.shape))
                .collect();
            vals.prop_map(move |vals| Val::Record(names.iter().cloned().zip(vals).collect()))
                .boxed()
        }
        Shape::Variant(cases) => Union::new(cases.iter().map(|case| {
            let name = case.name.to_string();
            payload(&case.payload.clone().map(Box::new))
                .prop_map(move |val| Val::Variant(name.clone(), val))
        }))
        .boxed(),
        Shape::Enum(names) => select(names.to_vec())
            .prop_map(|n| Val::Enum(n.into()))
            .boxed(),
        Shape::Option(some) => proptest::option::of(arbitrary_val(some).prop_map(Box::new))
            .prop_map(Val::Option)
            .boxed(),
        Shape::Result { ok, err } => prop_oneof![
            payload(ok).prop_map(|val| Val::Result(Ok(val))),
            payload(err).prop_map(|val| Val::Result(Err(val))),
        ]
        .boxed(),
        Shape::Flags(names) => {
            let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            let len = names.len();
            subsequence(names, 0..=len).prop_map(Val::Flags).boxed()
        }
    }
}

fn arbitrary_pair() -> impl Strategy<Value = (Shape, Val)> {
    arbitrary_shape().prop_flat_map(|shape| {
        let val = arbitrary_val(&shape);
        (Just(shape), val)
    })
}

/// Text that begins like JSON more often than random bytes do.
fn arbitrary_json_like() -> impl Strategy<Value = String> {
    let token = select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\"tag\"",
        "\"val\"",
        "\"a\"",
        "\"onHand\"",
        "\"ok\"",
        "\"none\"",
        "\"some\"",
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1.5",
        "1e400",
        "\\u0000",
        "\\ud800",
        " ",
        "\n",
        "é",
        "\u{0}",
        "x",
    ]);
    vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn a_value_is_read_back_as_it_was_written((shape, val) in arbitrary_pair()) {
        let json = encode(&val, &shape).unwrap();
        // `Val` takes every NaN for the same and tells the zeros apart.
        prop_assert_eq!(&decode(&json, &shape).unwrap(), &val, "{}", json);
        // It is JSON for others, on one line.
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
        prop_assert!(!json.contains('\n'));
        // And written JSON is read and written as itself.
        prop_assert_eq!(encode(&decode(&json, &shape).unwrap(), &shape).unwrap(), json);
    }

    #[test]
    fn arguments_and_results_are_read_back_as_they_were_written(
        pairs in vec(arbitrary_pair(), 0..4),
        by_position in any::<bool>(),
    ) {
        let limits = Limits::default();
        let params: Vec<_> =
            NAMES.iter().copied().zip(pairs.iter().map(|(shape, _)| shape.clone())).collect();
        let signature = Signature {
            params: fields(&params),
            result: pairs.first().map(|(shape, _)| shape.clone()),
        };
        let args: Vec<Val> = pairs.into_iter().map(|(_, val)| val).collect();
        let json = if by_position && !args.is_empty() {
            let shape = Shape::Tuple(params.into_iter().map(|(_, shape)| shape).collect());
            encode(&Val::Tuple(args.clone()), &shape).unwrap().into_bytes()
        } else {
            encode_arguments(&args, &signature, &limits).unwrap()
        };
        prop_assert_eq!(&decode_arguments(&json, &signature, &limits).unwrap(), &args);
        let json = encode_result(args.first(), &signature, &limits).unwrap();
        let result = decode_result(&json, &signature, &limits).unwrap();
        prop_assert_eq!(result.as_ref(), args.first());
    }

    /// The order of keys, their spelling and the space between tokens do not matter.
    #[test]
    fn objects_are_read_in_any_order(
        (shape, val) in arbitrary_pair(),
        spelling in 0..3_u8,
    ) {
        let json: serde_json::Value =
            serde_json::from_str(&encode(&val, &shape).unwrap()).unwrap();
        // Floats as text pass through `serde_json`'s own, so only what it keeps can be compared.
        let canonical = decode(json.to_string(), &shape).unwrap();
        let mut text = String::new();
        respell(&json, &shape, spelling, &mut text);
        prop_assert_eq!(decode(&text, &shape).unwrap(), canonical, "{}", text);
    }

    #[test]
    fn bytes_never_panic(shape in arbitrary_shape(), body in vec(any::<u8>(), 0..60)) {
        check_against_serde_json(&body, &shape);
    }

    #[test]
    fn near_json_never_panics(shape in arbitrary_shape(), body in arbitrary_json_like()) {
        check_against_serde_json(body.as_bytes(), &shape);
        let _ = value_from_text(&body, &shape);
    }

    #[test]
    fn changed_json_never_panics(
        (shape, val) in arbitrary_pair(),
        other in arbitrary_shape(),
        changes in vec((any::<Index>(), 0..3_u8, select(&b"{}[]\",:\\0x1en-+.\x00\xff "[..])), 1..4),
    ) {
        let mut body = encode(&val, &shape).unwrap().into_bytes();
        check_against_serde_json(&body, &other);
        for (at, change, byte) in changes {
            let at = at.index(body.len() + 1);
            match change {
                0 => body.insert(at, byte),
                1 if at < body.len() => body[at] = byte,
                _ if at < body.len() => { body.remove(at); }
                _ => {}
            }
        }
        check_against_serde_json(&body, &shape);
    }

    /// A value of one type is written as another without a panic, and then read as that other.
    #[test]
    fn a_value_of_another_type_never_panics((_, val) in arbitrary_pair(), shape in arbitrary_shape()) {
        if let Ok(json) = encode(&val, &shape) {
            prop_assert_eq!(decode(&json, &shape).unwrap(), val);
        }
    }

    #[test]
    fn strings_are_read_as_serde_json_reads_them(
        inner in r#"([a-zé"\\/bfnrtu]|\\u[0-9a-f]{4}|\\ud83e\\udd80|\\["\\/bfnrt]|\PC){0,12}"#,
    ) {
        let json = format!("\"{inner}\"");
        let theirs = serde_json::from_str::<String>(&json).ok().map(Val::String);
        prop_assert_eq!(decode(&json, &Shape::String).ok(), theirs, "{}", json);
    }

    #[test]
    fn numbers_are_read_as_the_standard_library_reads_them(
        json in r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?",
    ) {
        let wide: f64 = json.parse().unwrap();
        let narrow: f32 = json.parse().unwrap();
        let finite = wide.is_finite().then_some(Val::Float64(wide));
        prop_assert_eq!(decode(&json, &Shape::F64).ok(), finite);
        let finite = narrow.is_finite().then_some(Val::Float32(narrow));
        prop_assert_eq!(decode(&json, &Shape::F32).ok(), finite);
        // An integer only when nothing is lost.
        if let Ok(Val::S32(int)) = decode(&json, &Shape::S32) {
            prop_assert_eq!(f64::from(int), wide);
        } else {
            prop_assert!(wide.fract() != 0.0 || wide.abs() >= 2147483648.0 || json.contains(['.', 'e', 'E']));
        }
    }

    #[test]
    fn whole_numbers_are_read_in_every_notation(value in any::<i64>(), shift in 0..30_usize) {
        let shifted = format!("{value}{}e-{shift}", "0".repeat(shift));
        prop_assert_eq!(decode(&shifted, &Shape::S64).unwrap(), Val::S64(value));
        let digits = value.unsigned_abs().to_string();
        let (sign, len) = (if value < 0 { "-" } else { "" }, digits.len());
        let scientific = format!("{sign}{}.{}0e{}", &digits[..1], &digits[1..], len - 1);
        prop_assert_eq!(decode(&scientific, &Shape::S64).unwrap(), Val::S64(value));
    }
}

/// Writes JSON with its keys reversed and in another spelling, and with space wherever it may be.
fn respell(json: &serde_json::Value, shape: &Shape, spelling: u8, out: &mut String) {
    use serde_json::Value;
    match (json, shape) {
        (Value::Object(object), Shape::Record(fields)) => {
            out.push_str(" { ");
            for (i, field) in fields.iter().rev().enumerate() {
                out.push_str(if i > 0 { "\t,\n" } else { "" });
                let key = match spelling {
                    0 => field.key.to_string(),
                    1 => field.name.to_string(),
                    _ => field.name.replace('-', "_"),
                };
                out.push_str(&format!("\"{key}\" :\r "));
                respell(&object[&*field.key], &field.shape, spelling, out);
            }
            out.push_str(" } ");
        }
        (Value::Object(object), Shape::Variant(cases)) => {
            let case = cases
                .iter()
                .find(|case| object["tag"] == *case.name)
                .unwrap();
            out.push_str("{ ");
            if let Some(payload) = &case.payload {
                out.push_str("\"val\" : ");
                respell(&object["val"], payload, spelling, out);
                out.push_str(" , ");
            }
            out.push_str(&format!("\"tag\" : \"{}\" }}", case.name));
        }
        (Value::Array(items), Shape::List(_) | Shape::FixedList(..) | Shape::Tuple(_)) => {
            out.push_str("[ ");
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { " ,\t" } else { "" });
                match shape {
                    Shape::List(shape) | Shape::FixedList(shape, _) => {
                        respell(item, shape, spelling, out);
                    }
                    Shape::Tuple(shapes) => respell(item, &shapes[i], spelling, out),
                    _ => unreachable!(),
                }
            }
            out.push_str(" ]");
        }
        (json, Shape::Option(some)) if !matches!(**some, Shape::Option(_)) && !json.is_null() => {
            respell(json, some, spelling, out);
        }
        (json, _) => out.push_str(&json.to_string()),
    }
}
