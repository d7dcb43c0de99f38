//! Hostile bodies: deep, huge, many values, cut off.

use super::*;

/// A type of this depth: `list<list<…u8>>`.
fn nested(levels: usize) -> Shape {
    (0..levels).fold(Shape::Bool, |shape, _| list(shape))
}

fn limits(depth: u32, bytes: usize, nodes: usize) -> Limits {
    Limits {
        depth,
        bytes,
        nodes,
        ..Limits::default()
    }
}

#[test]
fn depth_is_bounded_in_both_directions() {
    let deep = |levels: usize| format!("{}true{}", "[".repeat(levels), "]".repeat(levels));
    let max = DEFAULT_DEPTH as usize;
    let val = decode(deep(max), &nested(max)).unwrap();
    assert_eq!(encode(&val, &nested(max)).unwrap(), deep(max));
    let error = decode(deep(max + 1), &nested(max + 1)).unwrap_err();
    assert_eq!(error.path, format!("${}", "[0]".repeat(max)));
    assert_eq!(
        error.expected,
        "at most 64 nested arrays and objects (the depth limit)"
    );
    assert!(!error.is_too_large());
    let val = Value::List(vec![val]);
    assert_eq!(encode(&val, &nested(max + 1)).unwrap_err(), error);

    // The type, not the text, says how deep the reader goes.
    for bracket in ["[", "{", "{\"a\":", "[{\"tag\":"] {
        let text = bracket.repeat(100_000);
        for shape in [
            Shape::Bool,
            Shape::Bytes,
            list(Shape::Bool),
            option(Shape::String),
        ] {
            assert!(decode(&text, &shape).is_err());
        }
    }
    // Where a payload is skipped, brackets are only counted.
    let shape = variant(&[("a", Some(Shape::Bool))]);
    let text = format!("{{\"val\":{},\"tag\":\"a\"}}", deep(100_000));
    let error = decode(text, &shape).unwrap_err();
    assert_eq!(
        error.to_string(),
        "$.val: expected bool (true or false), found an array"
    );
}

#[test]
fn size_is_bounded_in_both_directions() {
    let limits = limits(64, 10, 100);
    let string = |len: usize| text(&"x".repeat(len));
    assert_eq!(
        decode_value(b"\"12345678\"", &Shape::String, &limits).unwrap(),
        text("12345678")
    );
    let error = decode_value(b"\"123456789\"", &Shape::String, &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "$: expected at most 10 bytes of JSON (the size limit), found 11"
    );
    assert!(error.is_too_large());
    assert!(encode_value(&string(8), &Shape::String, &limits).is_ok());
    for len in [9, 10, 11, 1_000_000] {
        let error = encode_value(&string(len), &Shape::String, &limits).unwrap_err();
        assert!(error.is_too_large(), "{len}");
        assert_eq!(
            error.to_string(),
            "$: expected at most 10 bytes of JSON (the size limit), found more"
        );
    }
    let bytes = |len| Value::Bytes(vec![0; len]);
    assert!(encode_value(&bytes(6), &Shape::Bytes, &limits).is_ok());
    assert!(
        encode_value(&bytes(7), &Shape::Bytes, &limits)
            .unwrap_err()
            .is_too_large()
    );
    let bools = Value::List(vec![Value::Bool(true); 3]);
    let error = encode_value(&bools, &list(Shape::Bool), &limits).unwrap_err();
    assert!(error.is_too_large());
    let signature = Signature {
        params: fields(&[("a", Shape::String)]),
        result: None,
    };
    let error = encode_arguments(&[string(8)], &signature, &limits).unwrap_err();
    assert!(error.is_too_large());
}

#[test]
fn values_are_bounded_in_both_directions() {
    let limits = limits(64, DEFAULT_BYTES, 5);
    let bools = list(Shape::Bool);
    let decode = |json: &str, shape: &Shape| decode_value(json.as_bytes(), shape, &limits);
    let val = decode("[true,true,true,true]", &bools).unwrap();
    assert!(encode_value(&val, &bools, &limits).is_ok());
    let error = decode("[true,true,true,true,true]", &bools).unwrap_err();
    assert_eq!(
        error.to_string(),
        "$[4]: expected at most 5 values (the node limit), found another"
    );
    assert!(error.is_too_large());
    let val = Value::List(vec![Value::Bool(true); 5]);
    assert_eq!(encode_value(&val, &bools, &limits).unwrap_err(), error);
    // Missing fields are values too: a few bytes cannot become many of them.
    let three = record(&[
        ("a", option(Shape::U8)),
        ("b", option(Shape::U8)),
        ("c", option(Shape::U8)),
    ]);
    assert!(decode("{}", &three).is_ok());
    assert!(decode("[{}]", &list(three.clone())).is_ok());
    let error = decode("[{},{}]", &list(three)).unwrap_err();
    assert_eq!(error.path, "$[1]");
    // A list of bytes is one value, whichever way it is written.
    assert!(decode("[1,2,3,4,5,6,7]", &Shape::Bytes).is_ok());
    assert!(decode("\"AAAAAAAAAAAA\"", &Shape::Bytes).is_ok());
}

#[test]
fn a_full_body_is_read_within_the_limits() {
    let bytes = Value::Bytes(vec![7; (DEFAULT_BYTES - 2) / 4 * 3]);
    let json = encode(&bytes, &Shape::Bytes).unwrap();
    assert!(json.len() > DEFAULT_BYTES - 8);
    assert_eq!(decode(json, &Shape::Bytes).unwrap(), bytes);
    let string = text(&"é\n".repeat(DEFAULT_BYTES / 4 - 1));
    assert_eq!(
        decode(encode(&string, &Shape::String).unwrap(), &Shape::String).unwrap(),
        string
    );
    let huge = format!("[{}0]", "0,".repeat(DEFAULT_BYTES / 2 - 2));
    let error = decode(&huge, &list(Shape::U8)).unwrap_err();
    assert_eq!(error.path, format!("$[{}]", DEFAULT_NODES - 1));
    assert!(decode(&huge, &Shape::Bytes).is_ok());
    let number = "1".repeat(DEFAULT_BYTES);
    assert!(decode(&number, &Shape::U64).is_err());
    assert!(decode(&number, &Shape::F64).is_err());
    let zeros = format!("0.{}1", "0".repeat(DEFAULT_BYTES - 3));
    assert_eq!(decode(&zeros, &Shape::F64).unwrap(), Value::F64(0.0));
    assert!(decode(&zeros, &Shape::U64).is_err());
}

/// One type with every kind in it, and a value of it.
fn everything() -> (Shape, &'static str) {
    let shape = record(&[
        ("flag", Shape::Bool),
        ("big-one", Shape::U64),
        ("ratio", Shape::F64),
        ("letter", Shape::Char),
        ("name", Shape::String),
        ("blob", Shape::Bytes),
        (
            "pair",
            Shape::Tuple(Box::new([Shape::S8, option(Shape::U16)])),
        ),
        (
            "state",
            variant(&[("open", None), ("shut", Some(list(Shape::F32)))]),
        ),
        ("colour", Shape::Enum(names(&["red", "deep-blue"]))),
        ("deep", option(option(Shape::String))),
        (
            "outcome",
            result(Some(Shape::FixedList(Box::new(Shape::S16), 2)), None),
        ),
        ("rights", Shape::Flags(names(&["read", "write"]))),
    ]);
    let json = concat!(
        r#"{"flag":true,"bigOne":"18446744073709551615","ratio":-1.5e-9,"letter":"é","#,
        r#""name":"a\"\\\u0001\n🦀","blob":"YWI=","pair":[-1,7],"#,
        r#""state":{"tag":"shut","val":[0.1,"NaN"]},"colour":"deep-blue","#,
        r#""deep":{"tag":"some","val":"x"},"outcome":{"ok":[1,-2]},"rights":["read","write"]}"#
    );
    (shape, json)
}

#[test]
fn every_cut_is_an_error() {
    let (shape, json) = everything();
    let val = decode(json, &shape).unwrap();
    assert_eq!(encode(&val, &shape).unwrap(), json);
    for end in 0..json.len() {
        let error = decode(&json.as_bytes()[..end], &shape).unwrap_err();
        assert!(error.path.starts_with('$'), "{error}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped_once() {
    let mark = "\u{feff}";
    let read = |text: String| decode(text.as_bytes(), &Shape::U32);
    assert_eq!(read(format!("{mark} 5")).unwrap(), Value::U32(5));
    for text in [
        format!("{mark}{mark}5"),
        format!(" {mark}5"),
        format!("5{mark}"),
        mark.to_owned(),
    ] {
        read(text.clone()).unwrap_err();
    }
    // Half of one is none.
    decode(b"\xef\xbb5", &Shape::U32).unwrap_err();
}

#[test]
fn no_change_of_one_byte_panics_or_passes_for_other_json() {
    let (shape, json) = everything();
    for at in 0..json.len() {
        for byte in 0..=255 {
            let mut body = json.as_bytes().to_vec();
            body[at] = byte;
            check_against_serde_json(&body, &shape);
        }
    }
}

/// What is read here is JSON for `serde_json` too, and comes back as itself.
pub(super) fn check_against_serde_json(body: &[u8], shape: &Shape) {
    let Ok(val) = decode(body, shape) else { return };
    if let Err(error) = serde_json::from_slice::<Box<serde_json::value::RawValue>>(body) {
        panic!("{error}: {}", String::from_utf8_lossy(body));
    }
    let again = encode(&val, shape).unwrap();
    assert_eq!(decode(&again, shape).unwrap(), val, "{again}");
}

#[test]
fn unknown_keys_are_left_out_where_the_sender_may_know_more() {
    let signature = "func(order: record { id: string, lines: list<record { sku: string }> })";
    let signature: Signature = signature.parse().unwrap();
    let plain = br#"{"order":{"id":"7","lines":[{"sku":"a"}]}}"#;
    let more = br#"{"order":{"new":[1,{"x":"}"}],"id":"7","lines":[{"sku":"a","n":null}]},"extra":{"id":1}}"#;
    let limits = |unknown_keys| Limits {
        unknown_keys,
        ..Limits::default()
    };
    let ignore = limits(UnknownKeys::Ignore);
    let read = |body: &[u8], limits: &Limits| decode_arguments(body, &signature, limits);
    assert_eq!(read(more, &ignore).unwrap(), read(plain, &ignore).unwrap());
    let error = read(more, &limits(UnknownKeys::Refuse)).unwrap_err();
    assert_eq!(error.path, "$.order");
    // What is left out is still JSON, and known keys are still checked.
    for broken in [
        &br#"{"order":{"new":[1,,],"id":"7","lines":[]}}"#[..],
        br#"{"order":{"new":1,"id":7,"lines":[]}}"#,
        br#"{"order":{"new":1,"lines":[]}}"#,
    ] {
        read(broken, &ignore).unwrap_err();
    }
}
