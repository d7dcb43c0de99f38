//! Arbitrary types, values and bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::hostile::check_against_serde_json;
use super::*;
use crate::value::arbitrary::{NAMES, arbitrary_pair, arbitrary_shape};

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
    fn a_measure_is_never_too_small((shape, val) in arbitrary_pair()) {
        let signature = Signature {
            params: [crate::shape::Field {
                name: "value".into(),
                key: "value".into(),
                shape: shape.clone(),
            }]
            .into(),
            result: Some(shape),
        };
        let arguments = [val];
        let measure = Measure::of_arguments(&arguments, &signature);
        let limits = Limits {
            bytes: measure.bytes,
            nodes: measure.nodes,
            depth: measure.depth,
            ..Limits::default()
        };
        let body = encode_arguments(&arguments, &signature, &limits);
        prop_assert!(body.is_ok(), "{:?} {:?}", measure, body);
        let read = decode_arguments(&body.unwrap(), &signature, &limits);
        prop_assert_eq!(read.as_deref().ok(), Some(&arguments[..]), "{:?} {:?}", measure, read);
        let measure = Measure::of_result(arguments.first(), &signature);
        let limits = Limits {
            bytes: measure.bytes,
            nodes: measure.nodes,
            depth: measure.depth,
            ..Limits::default()
        };
        let reply = encode_reply(arguments.first(), &signature, &limits);
        prop_assert!(reply.is_ok(), "{:?} {:?}", measure, reply);
        let read = decode_result(&reply.unwrap().body, &signature, &limits);
        let read = read.ok().flatten();
        prop_assert_eq!(read.as_ref(), arguments.first(), "{:?}", measure);
        // And not by so much that JSON is written where it need not be.
        prop_assert!(measure.is_within(&Limits::default()));
    }

    #[test]
    fn a_value_is_read_back_as_it_was_written((shape, val) in arbitrary_pair()) {
        let json = encode(&val, &shape).unwrap();
        // Every NaN is equal, and the zeros are not.
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
        let args: Vec<Value> = pairs.into_iter().map(|(_, val)| val).collect();
        let json = if by_position && !args.is_empty() {
            let shape = Shape::Tuple(params.into_iter().map(|(_, shape)| shape).collect());
            encode(&Value::Tuple(args.clone()), &shape).unwrap().into_bytes()
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
        let theirs = serde_json::from_str::<String>(&json).ok().map(Value::String);
        prop_assert_eq!(decode(&json, &Shape::String).ok(), theirs, "{}", json);
    }

    #[test]
    fn numbers_are_read_as_the_standard_library_reads_them(
        json in r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?",
    ) {
        let wide: f64 = json.parse().unwrap();
        let narrow: f32 = json.parse().unwrap();
        let finite = wide.is_finite().then_some(Value::F64(wide));
        prop_assert_eq!(decode(&json, &Shape::F64).ok(), finite);
        let finite = narrow.is_finite().then_some(Value::F32(narrow));
        prop_assert_eq!(decode(&json, &Shape::F32).ok(), finite);
        // An integer only when nothing is lost.
        if let Ok(Value::S32(int)) = decode(&json, &Shape::S32) {
            prop_assert_eq!(f64::from(int), wide);
        } else {
            prop_assert!(wide.fract() != 0.0 || wide.abs() >= 2147483648.0 || json.contains(['.', 'e', 'E']));
        }
    }

    #[test]
    fn whole_numbers_are_read_in_every_notation(value in any::<i64>(), shift in 0..30_usize) {
        let shifted = format!("{value}{}e-{shift}", "0".repeat(shift));
        prop_assert_eq!(decode(&shifted, &Shape::S64).unwrap(), Value::S64(value));
        let digits = value.unsigned_abs().to_string();
        let (sign, len) = (if value < 0 { "-" } else { "" }, digits.len());
        let scientific = format!("{sign}{}.{}0e{}", &digits[..1], &digits[1..], len - 1);
        prop_assert_eq!(decode(&scientific, &Shape::S64).unwrap(), Value::S64(value));
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
