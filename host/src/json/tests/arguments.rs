//! Arguments of calls, text bodies, and what errors show.

use super::*;

fn signature(params: &[(&str, Shape)], result: Option<Shape>) -> Signature {
    Signature {
        params: fields(params),
        result,
    }
}

#[test]
fn arguments_come_by_name_or_by_position_or_not_at_all() {
    let limits = Limits::default();
    let decode = |json: &str, signature: &Signature| {
        decode_arguments(json.as_bytes(), signature, &limits).map_err(|error| error.to_string())
    };
    let reserve = signature(
        &[("order-id", Shape::U32), ("note", option(Shape::String))],
        None,
    );
    let full = vec![Value::U32(7), some(text("x"))];
    let json = encode_arguments(&full, &reserve, &limits).unwrap();
    assert_eq!(json, br#"{"orderId":7,"note":"x"}"#);
    for json in [
        r#"{"orderId":7,"note":"x"}"#,
        r#"{"note":"x","order-id":7}"#,
        r#"{"order_id":7,"note":"x"}"#,
        r#"[7,"x"]"#,
    ] {
        assert_eq!(decode(json, &reserve).unwrap(), full, "{json}");
    }
    assert_eq!(
        decode(r#"{"orderId":7}"#, &reserve).unwrap(),
        [Value::U32(7), none()]
    );
    for (json, message) in [
        (
            "",
            "$.orderId: expected u32 (0 to 4294967295), found nothing",
        ),
        (
            "{}",
            "$.orderId: expected u32 (0 to 4294967295), found nothing",
        ),
        (
            "[7]",
            "$: expected an array of the 2 arguments, found an array of 1",
        ),
        (
            r#"[7,"x",1]"#,
            "$: expected an array of the 2 arguments, found a longer array",
        ),
        (r#"[7,8]"#, "$[1]: expected string, found 8"),
        (
            r#"{"id":7}"#,
            "$: expected one of the keys orderId, note, found \"id\"",
        ),
        (
            r#"{"orderId":7,"order_id":7}"#,
            "$.orderId: expected one value, found another as \"order_id\"",
        ),
        (
            "null",
            "$: expected the arguments (an object by parameter name, or an array), found null",
        ),
        (
            "7",
            "$: expected the arguments (an object by parameter name, or an array), found 7",
        ),
        ("[7,null] x", "$: expected nothing more, found x"),
    ] {
        assert_eq!(decode(json, &reserve).unwrap_err(), message, "{json}");
    }

    let optional = signature(&[("note", option(Shape::String))], None);
    for json in ["", " \n", "{}"] {
        assert_eq!(decode(json, &optional).unwrap(), [none()], "{json}");
    }

    let nullary = signature(&[], None);
    assert_eq!(encode_arguments(&[], &nullary, &limits).unwrap(), b"");
    for json in ["", " \n", "{}", "[]", "null", " [ ] "] {
        assert_eq!(decode(json, &nullary).unwrap(), [], "{json}");
    }
    for (json, message) in [
        (r#"{"a":1}"#, "$: expected no key, found \"a\""),
        (
            "[1]",
            "$: expected an array of the 0 arguments, found a longer array",
        ),
        (
            "1",
            "$: expected the arguments (an object by parameter name, or an array), found 1",
        ),
    ] {
        assert_eq!(decode(json, &nullary).unwrap_err(), message, "{json}");
    }
}

#[test]
fn a_function_without_result_returns_nothing() {
    let limits = Limits::default();
    let unit = signature(&[], None);
    assert_eq!(encode_result(None, &unit, &limits).unwrap(), b"");
    for json in ["", " ", "null"] {
        assert_eq!(
            decode_result(json.as_bytes(), &unit, &limits).unwrap(),
            None
        );
    }
    let error = decode_result(b"{}", &unit, &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "$: expected nothing or null, found an object"
    );
    let error = encode_result(Some(&Value::U8(1)), &unit, &limits).unwrap_err();
    assert_eq!(error.to_string(), "$: expected no result, found a u8");

    let one = signature(&[], Some(Shape::U8));
    assert_eq!(
        encode_result(Some(&Value::U8(1)), &one, &limits).unwrap(),
        b"1"
    );
    assert_eq!(
        decode_result(b"1", &one, &limits).unwrap(),
        Some(Value::U8(1))
    );
    let error = decode_result(b"", &one, &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "$: expected u8 (0 to 255), found an empty body"
    );
    let error = encode_result(None, &one, &limits).unwrap_err();
    assert_eq!(
        error.to_string(),
        "$: expected u8 (0 to 255), found nothing"
    );
}

#[test]
fn text_stands_for_itself_where_json_would_need_quotes() {
    let case = |text: &str, shape: Shape, val: Value| {
        assert_eq!(value_from_text(text, &shape).unwrap(), val, "{text}");
    };
    case("", Shape::String, text(""));
    case("\"a\" b", Shape::String, text("\"a\" b"));
    case("5", Shape::String, text("5"));
    case("5", Shape::Char, Value::Char('5'));
    case("5", Shape::U8, Value::U8(5));
    case("-5", Shape::S64, Value::S64(-5));
    case("18446744073709551615", Shape::U64, Value::U64(u64::MAX));
    case("1.5", Shape::F32, Value::F32(1.5));
    case("-Infinity", Shape::F32, Value::F32(f32::NEG_INFINITY));
    case("NaN", Shape::F64, Value::F64(f64::NAN));
    case("true", Shape::Bool, Value::Bool(true));
    case("5", option(Shape::U8), some(Value::U8(5)));
    case("null", option(Shape::String), some(text("null")));
    case("5", option(option(Shape::U8)), some(some(Value::U8(5))));
    case(
        "deep-blue",
        Shape::Enum(names(&["deep-blue"])),
        Value::Enum(0),
    );
    case(
        "[1,2]",
        list(Shape::U16),
        Value::List(vec![Value::U16(1), Value::U16(2)]),
    );
    case("YQ", Shape::Bytes, Value::Bytes(vec![97]));
    case("\"YQ\"", Shape::Bytes, Value::Bytes(vec![97]));
    case("[97]", Shape::Bytes, Value::Bytes(vec![97]));
    let shape = variant(&[("open", None), ("until", Some(Shape::U8))]);
    case("open", shape.clone(), Value::Variant(0, None));
    case("\"open\"", shape.clone(), Value::Variant(0, None));
    let until = Value::Variant(1, Some(Box::new(Value::U8(1))));
    case(r#"{"tag":"until","val":1}"#, shape, until);

    let refused = |text: &str, shape: Shape, message: &str| {
        assert_eq!(
            value_from_text(text, &shape).unwrap_err().to_string(),
            message,
            "{text}"
        );
    };
    refused("abc", Shape::U8, "$: expected u8 (0 to 255), found abc");
    refused(
        "",
        Shape::U8,
        "$: expected u8 (0 to 255), found an empty body",
    );
    refused("5 6", Shape::U8, "$: expected nothing more, found 6");
    refused(
        "ab",
        Shape::Char,
        "$: expected char (a string of one character), found \"ab\"",
    );
    refused(
        "red\n",
        Shape::Enum(names(&["red"])),
        "$: expected enum (a string, the case red), found \"red\\n\"",
    );
    let huge = "a".repeat(DEFAULT_BYTES + 1);
    assert!(
        value_from_text(&huge, &Shape::String)
            .unwrap_err()
            .is_too_large()
    );
}

#[test]
fn an_error_names_the_whole_path() {
    let line = record(&[("sku", Shape::String), ("quantity", Shape::U32)]);
    let order = signature(
        &[
            ("id", Shape::U8),
            ("lines", list(line)),
            ("paid", option(result(None, Some(list(Shape::Char))))),
        ],
        None,
    );
    let error =
        |json: &str| decode_arguments(json.as_bytes(), &order, &Limits::default()).unwrap_err();
    let lines = r#"{"id":1,"lines":[{"sku":"a","quantity":1},{"sku":"b","quantity":1},"#;
    let found = error(&format!(r#"{lines}{{"sku":"c","quantity":-1}}]}}"#));
    assert_eq!(
        found.to_string(),
        "$.lines[2].quantity: expected u32 (0 to 4294967295), found -1"
    );
    assert_eq!(found.path, "$.lines[2].quantity");
    assert_eq!(found.expected, "u32 (0 to 4294967295)");
    assert_eq!(found.found, "-1");
    assert!(!found.is_too_large());
    let found = error(r#"{"id":1,"lines":[],"paid":{"err":["a","bc"]}}"#);
    assert_eq!(found.path, "$.paid.err[1]");
    let found = error(&format!(r#"{lines}{{"quantity":1}}]}}"#));
    assert_eq!(
        found.to_string(),
        "$.lines[2].sku: expected string, found nothing"
    );
}

#[test]
fn an_error_shows_little_of_the_text_and_none_of_its_control_characters() {
    let long = "x".repeat(1000);
    let error = decode(&long, &Shape::U8).unwrap_err();
    assert_eq!(error.found, format!("{}…", "x".repeat(60)));
    let error = decode(format!("\"{long}\""), &Shape::U8).unwrap_err();
    assert_eq!(error.found, format!("\"{}…", "x".repeat(59)));
    let error = decode(
        "\"\\u001b[31m\\n\\u202e\u{202e}\"",
        &Shape::Enum(names(&["a"])),
    )
    .unwrap_err();
    assert_eq!(error.found, "\"\\u{1b}[31m\\n\\u{202e}\\u{202e}\"");
    let error = decode("\u{7f}\u{9b}\u{0}", &Shape::U8).unwrap_err();
    assert_eq!(error.found, "\\u{7f}\\u{9b}\\u{0}");
    let error = decode("\"a\\\"b\" x", &Shape::U8).unwrap_err();
    assert_eq!(error.found, "\"a\\\"b\"");
    // A type with many names lists some.
    let many: Vec<String> = (0..40).map(|i| format!("n{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = decode("1", &Shape::Enum(names(&many))).unwrap_err();
    assert!(
        error.expected.ends_with("n14, n15, … (40 in all))"),
        "{error}"
    );
}

#[test]
fn a_value_of_another_type_is_not_written() {
    let tuple = Shape::Tuple(Box::new([Shape::U8]));
    let fixed = Shape::FixedList(Box::new(Shape::U8), 1);
    let rec = record(&[("a", Shape::U8), ("b", Shape::U8)]);
    let var = variant(&[("a", Some(Shape::U8)), ("b", None)]);
    let flags = Shape::Flags(names(&["a", "b"]));
    let u8s = |n: u8| (0..n).map(Value::U8).collect::<Vec<_>>();
    for (shape, val, message) in [
        (
            &Shape::U8,
            Value::U16(1),
            "$: expected u8 (0 to 255), found a u16",
        ),
        (
            &Shape::String,
            Value::Char('a'),
            "$: expected string, found a char",
        ),
        (
            &tuple,
            Value::Tuple(u8s(2)),
            "$: expected tuple (an array of 1), found a tuple of 2",
        ),
        (
            &tuple,
            Value::List(u8s(1)),
            "$: expected tuple (an array of 1), found a list",
        ),
        (
            &fixed,
            Value::FixedList(u8s(2)),
            "$: expected list (an array of 1), found a list of the fixed length 2",
        ),
        (
            &Shape::Bytes,
            Value::List(u8s(1)),
            "$: expected list<u8> (base64, or an array of 0 to 255), found a list",
        ),
        (
            &rec,
            Value::Record(u8s(1)),
            "$: expected record (an object), found a record of 1",
        ),
        (
            &rec,
            Value::Tuple(u8s(2)),
            "$: expected record (an object), found a tuple of 2",
        ),
        (
            &rec,
            Value::Record(vec![Value::U8(1), none()]),
            "$.b: expected u8 (0 to 255), found an option",
        ),
        (
            &var,
            Value::Variant(0, None),
            "$: expected variant (an object with \"tag\", one of the tags a, b), found case 0 of a variant",
        ),
        (
            &var,
            Value::Variant(1, Some(Box::new(none()))),
            "$: expected variant (an object with \"tag\", one of the tags a, b), found case 1 of a variant with a payload",
        ),
        (
            &var,
            Value::Variant(2, None),
            "$: expected variant (an object with \"tag\", one of the tags a, b), found case 2 of a variant",
        ),
        (
            &Shape::Enum(names(&["a"])),
            Value::Enum(1),
            "$: expected enum (a string, the case a), found case 1 of an enum",
        ),
        (
            &flags,
            Value::Flags(0b101),
            "$: expected flags (an array of strings, each one of the flags a, b), found the flags 0b101",
        ),
        (
            &result(None, Some(Shape::U8)),
            Value::Result(Ok(Some(Box::new(none())))),
            "$.ok: expected no payload, found an option",
        ),
        (
            &result(None, Some(Shape::U8)),
            Value::Result(Err(None)),
            "$.err: expected u8 (0 to 255), found nothing",
        ),
        (
            &list(Shape::U8),
            Value::List(vec![none()]),
            "$[0]: expected u8 (0 to 255), found an option",
        ),
        (
            &option(Shape::U8),
            some(none()),
            "$: expected u8 (0 to 255), found an option",
        ),
        (
            &option(Shape::U8),
            Value::U8(1),
            "$: expected u8 (0 to 255) or null, found a u8",
        ),
    ] {
        assert_eq!(encode(&val, shape).unwrap_err().to_string(), message);
    }
    let two = signature(&[("a", Shape::U8), ("b", Shape::U8)], None);
    let error = encode_arguments(&u8s(1), &two, &Limits::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "$: expected 2 arguments, found 1 of them"
    );
}
