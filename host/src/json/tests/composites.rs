//! One test for each row of what has parts: lists, records, variants, options, results, flags.

use super::*;

#[test]
fn lists_and_tuples_are_arrays() {
    let shape = list(Shape::U8);
    written(&shape, Value::List(vec![]), "[]");
    written(
        &shape,
        Value::List(vec![Value::U8(1), Value::U8(2)]),
        "[1,2]",
    );
    refused(&shape, "{}", "$: expected list (an array), found an object");
    refused(&shape, "[1,]", "$[1]: expected u8 (0 to 255), found ]");
    refused(&shape, "[,1]", "$[0]: expected u8 (0 to 255), found ,");
    refused(
        &shape,
        "[1",
        "$: expected `,` or `]`, found the end of the text",
    );
    refused(&shape, "[1}", "$: expected `,` or `]`, found }");

    let pair = Shape::Tuple(Box::new([Shape::String, Shape::Bool]));
    written(
        &pair,
        Value::Tuple(vec![text("a"), Value::Bool(true)]),
        "[\"a\",true]",
    );
    let expected = "$: expected tuple (an array of 2), found";
    refused(&pair, "[]", &format!("{expected} an array of 0"));
    refused(&pair, "[\"a\"]", &format!("{expected} an array of 1"));
    refused(
        &pair,
        "[\"a\",true,1]",
        &format!("{expected} a longer array"),
    );
    refused(&pair, "[1,true]", "$[0]: expected string, found 1");

    let fixed = Shape::FixedList(Box::new(Shape::U8), 2);
    written(
        &fixed,
        Value::FixedList(vec![Value::U8(1), Value::U8(2)]),
        "[1,2]",
    );
    refused(
        &fixed,
        "[1]",
        "$: expected list (an array of 2), found an array of 1",
    );
    refused(
        &fixed,
        "[1,2,3]",
        "$: expected list (an array of 2), found a longer array",
    );
    refused(
        &fixed,
        "\"AQI=\"",
        "$: expected list (an array of 2), found \"AQI=\"",
    );
    let huge = Shape::FixedList(Box::new(Shape::U8), u32::MAX);
    refused(
        &huge,
        "[1]",
        "$: expected list (an array of 4294967295), found an array of 1",
    );
}

#[test]
fn records_are_objects() {
    let shape = record(&[
        ("sku", Shape::String),
        ("on-hand-now", Shape::U32),
        ("note", option(Shape::String)),
        ("nested", option(option(Shape::Bool))),
    ]);
    let val = |note: Value| Value::Record(vec![text("tea"), Value::U32(3), note, none()]);
    written(
        &shape,
        val(none()),
        r#"{"sku":"tea","onHandNow":3,"note":null,"nested":{"tag":"none"}}"#,
    );
    written(
        &shape,
        val(some(text("x"))),
        r#"{"sku":"tea","onHandNow":3,"note":"x","nested":{"tag":"none"}}"#,
    );
    for json in [
        r#"{"sku":"tea","onHandNow":3}"#,
        r#"{"onHandNow":3,"sku":"tea"}"#,
        r#"{"sku":"tea","on-hand-now":3}"#,
        r#"{"sku":"tea","on_hand_now":3}"#,
        r#"{"\u0073ku":"tea","onHandNow":3,"nested":null}"#,
        " { \"sku\" : \"tea\" , \"onHandNow\" : 3 } ",
    ] {
        read(&shape, json, val(none()));
    }
    let keys = "one of the keys sku, onHandNow, note, nested";
    for key in ["SKU", "OnHandNow", "on-hand_now", "onhandnow", "", "sku "] {
        let json = format!(r#"{{"sku":"tea","{key}":3}}"#);
        refused(
            &shape,
            &json,
            &format!("$: expected {keys}, found \"{key}\""),
        );
    }
    refused(
        &shape,
        r#"{"onHandNow":3}"#,
        "$.sku: expected string, found nothing",
    );
    refused(&shape, "{}", "$.sku: expected string, found nothing");
    refused(
        &shape,
        r#"{"sku":"tea"}"#,
        "$.onHandNow: expected u32 (0 to 4294967295), found nothing",
    );
    refused(
        &shape,
        r#"{"sku":"a","onHandNow":1,"on_hand_now":1}"#,
        "$.onHandNow: expected one value, found another as \"on_hand_now\"",
    );
    refused(
        &shape,
        r#"{"note":null,"note":null}"#,
        "$.note: expected one value, found another as \"note\"",
    );
    refused(
        &shape,
        "[]",
        "$: expected record (an object), found an array",
    );
    refused(
        &shape,
        "{",
        "$: expected a key (a string), found the end of the text",
    );
    refused(&shape, "{sku:1}", "$: expected a key (a string), found sku");
    refused(
        &shape,
        r#"{"sku" "tea"}"#,
        "$: expected `:` after the key, found \"tea\"",
    );
    refused(
        &shape,
        r#"{"sku":"tea";}"#,
        "$: expected `,` or `}`, found ;",
    );
    refused(
        &shape,
        r#"{"sku":"tea",}"#,
        "$: expected a key (a string), found }",
    );
    refused(&shape, r#"{"sku":}"#, "$.sku: expected string, found }");
}

#[test]
fn keys_of_a_record_in_kebab_case_are_paths_in_brackets() {
    let shape = Shape::Record(Box::new([Field {
        name: "x-y".into(),
        key: "x-y".into(),
        shape: list(Shape::Bool),
    }]));
    let val = Value::Record(vec![Value::List(vec![Value::Bool(true)])]);
    written(&shape, val, r#"{"x-y":[true]}"#);
    refused(
        &shape,
        r#"{"x-y":[true,1]}"#,
        "$[\"x-y\"][1]: expected bool (true or false), found 1",
    );
    refused(
        &shape,
        r#"{"xY":[]}"#,
        "$: expected the key x-y, found \"xY\"",
    );
}

#[test]
fn variants_are_objects_with_a_tag() {
    let shape = variant(&[
        ("in-stock", Some(Shape::U8)),
        ("sold-out", None),
        ("maybe", Some(option(Shape::U8))),
    ]);
    let stock = |n| Value::Variant(0, Some(Box::new(Value::U8(n))));
    let sold_out = || Value::Variant(1, None);
    written(&shape, stock(3), r#"{"tag":"in-stock","val":3}"#);
    written(&shape, sold_out(), r#"{"tag":"sold-out"}"#);
    let maybe = Value::Variant(2, Some(Box::new(none())));
    written(&shape, maybe, r#"{"tag":"maybe","val":null}"#);
    read(&shape, r#""sold-out""#, sold_out());
    read(&shape, r#"{"val":3,"tag":"in-stock"}"#, stock(3));
    read(&shape, r#" { "val" : 3 , "tag" : "in-stock" } "#, stock(3));
    let tags = "one of the tags in-stock, sold-out, maybe";
    refused(
        &shape,
        r#"{"tag":"x"}"#,
        &format!("$.tag: expected {tags}, found \"x\""),
    );
    refused(
        &shape,
        r#"{"tag":"soldOut"}"#,
        &format!("$.tag: expected {tags}, found \"soldOut\""),
    );
    refused(
        &shape,
        r#"{"tag":1}"#,
        &format!("$.tag: expected {tags}, found 1"),
    );
    refused(
        &shape,
        r#"{"val":1}"#,
        &format!("$.tag: expected {tags}, found nothing"),
    );
    refused(
        &shape,
        "{}",
        &format!("$.tag: expected {tags}, found nothing"),
    );
    let whole = format!("$: expected variant (an object with \"tag\", {tags}), found");
    refused(&shape, r#""gone""#, &format!("{whole} \"gone\""));
    refused(&shape, "null", &format!("{whole} null"));
    for json in [r#"{"tag":"in-stock"}"#, r#""in-stock""#] {
        refused(&shape, json, "$.val: expected u8 (0 to 255), found nothing");
    }
    for json in [
        r#"{"tag":"sold-out","val":null}"#,
        r#"{"val":null,"tag":"sold-out"}"#,
    ] {
        refused(
            &shape,
            json,
            "$.val: expected no \"val\" with the case sold-out, found one",
        );
    }
    for json in [
        r#"{"tag":"in-stock","val":-1}"#,
        r#"{"val":-1,"tag":"in-stock"}"#,
    ] {
        refused(&shape, json, "$.val: expected u8 (0 to 255), found -1");
    }
    refused(
        &shape,
        r#"{"tag":"sold-out","tag":"sold-out"}"#,
        "$.tag: expected one tag, found another",
    );
    for json in [
        r#"{"tag":"in-stock","val":1,"val":1}"#,
        r#"{"val":1,"val":1,"tag":"in-stock"}"#,
        r#"{"val":1,"tag":"in-stock","val":1}"#,
    ] {
        refused(&shape, json, "$.val: expected one value, found another");
    }
    refused(
        &shape,
        r#"{"tag":"sold-out","x":1}"#,
        "$: expected the keys \"tag\" and \"val\", found \"x\"",
    );
}

#[test]
fn a_payload_before_its_tag_is_read_as_strictly_as_behind_it() {
    let pair = Shape::Tuple(Box::new([Shape::String, Shape::U8]));
    let shape = variant(&[("pair", Some(list(pair)))]);
    let json = |val: &str| format!(r#"{{"val":{val},"tag":"pair"}}"#);
    assert!(decode(json(r#" [["}]\"\\", 1], [",", 2]] "#), &shape).is_ok());
    refused(
        &shape,
        &json("[] 1"),
        "$.val: expected nothing more, found 1",
    );
    refused(
        &shape,
        &json("[[\"a\",1}]"),
        "$.val[0]: expected `,` or `]`, found }",
    );
    refused(
        &shape,
        &json(""),
        "$.val: expected list (an array), found the end of the text",
    );
    for val in [
        "[", "[[", "]", "\"", "\"\\x\"", "[}", "{]", "é", "[é]", "[] []", ":",
    ] {
        assert!(decode(json(val), &shape).is_err(), "{val}");
    }
    // The second reading is as deep as the first.
    let limits = |depth| Limits {
        depth,
        ..Limits::default()
    };
    let json = json(r#"[["a",1]]"#);
    assert!(decode_value(json.as_bytes(), &shape, &limits(3)).is_ok());
    assert!(decode_value(json.as_bytes(), &shape, &limits(2)).is_err());
}

#[test]
fn enums_are_their_cases() {
    let shape = Shape::Enum(names(&["red", "deep-blue"]));
    written(&shape, Value::Enum(0), "\"red\"");
    written(&shape, Value::Enum(1), "\"deep-blue\"");
    for json in ["\"deepBlue\"", "\"Red\"", "\"\"", "0", "null"] {
        let message =
            format!("$: expected enum (a string, one of the cases red, deep-blue), found {json}");
        refused(&shape, json, &message);
    }
    refused(
        &shape,
        "{\"tag\":\"red\"}",
        "$: expected enum (a string, one of the cases red, deep-blue), found an object",
    );
}

#[test]
fn options_are_null_or_the_value() {
    let shape = option(Shape::U8);
    written(&shape, none(), "null");
    written(&shape, some(Value::U8(1)), "1");
    refused(&shape, "nul", "$: expected u8 (0 to 255), found nul");
    refused(&shape, "nullx", "$: expected u8 (0 to 255), found nullx");
    // Nothing else is written as null, so any other payload needs no tag.
    let unit = result(None, None);
    written(
        &option(unit),
        some(Value::Result(Ok(None))),
        "{\"ok\":null}",
    );
}

#[test]
fn the_outer_levels_of_a_nested_option_are_tagged() {
    let two = option(option(Shape::U8));
    written(&two, none(), r#"{"tag":"none"}"#);
    written(&two, some(none()), r#"{"tag":"some","val":null}"#);
    written(&two, some(some(Value::U8(1))), r#"{"tag":"some","val":1}"#);
    read(&two, "null", none());
    read(&two, r#"{"val":1,"tag":"some"}"#, some(some(Value::U8(1))));
    let three = option(two.clone());
    written(
        &three,
        some(none()),
        r#"{"tag":"some","val":{"tag":"none"}}"#,
    );
    written(
        &three,
        some(some(none())),
        r#"{"tag":"some","val":{"tag":"some","val":null}}"#,
    );
    read(&three, r#"{"tag":"some","val":null}"#, some(none()));
    let expected = "option of an option (null, {\"tag\":\"none\"} or {\"tag\":\"some\",\"val\":…})";
    refused(&two, "1", &format!("$: expected {expected}, found 1"));
    refused(
        &two,
        "\"none\"",
        &format!("$: expected {expected}, found \"none\""),
    );
    refused(
        &two,
        r#"{"tag":"some"}"#,
        "$.val: expected u8 (0 to 255) or null, found nothing",
    );
    refused(
        &two,
        r#"{"tag":"none","val":null}"#,
        "$.val: expected no \"val\" with the case none, found one",
    );
    refused(
        &two,
        r#"{"tag":"any"}"#,
        "$.tag: expected one of the tags none, some, found \"any\"",
    );
}

#[test]
fn results_are_objects_of_one_key() {
    let shape = result(Some(Shape::U8), Some(Shape::String));
    let ok = |val: Option<Value>| Value::Result(Ok(val.map(Box::new)));
    let err = |val: Option<Value>| Value::Result(Err(val.map(Box::new)));
    written(&shape, ok(Some(Value::U8(1))), r#"{"ok":1}"#);
    written(&shape, err(Some(text("no"))), r#"{"err":"no"}"#);
    let bare = result(None, None);
    written(&bare, ok(None), r#"{"ok":null}"#);
    written(&bare, err(None), r#"{"err":null}"#);
    written(
        &result(Some(option(Shape::U8)), None),
        ok(Some(none())),
        r#"{"ok":null}"#,
    );
    let expected = "$: expected result (an object with one key, \"ok\" or \"err\"), found";
    refused(&shape, "{}", &format!("{expected} an empty object"));
    refused(&shape, r#"{"Ok":1}"#, &format!("{expected} the key \"Ok\""));
    refused(
        &shape,
        r#"{"ok":1,"err":"x"}"#,
        &format!("{expected} a second key \"err\""),
    );
    refused(
        &shape,
        r#"{"ok":1,"ok":1}"#,
        &format!("{expected} a second key \"ok\""),
    );
    refused(&shape, "\"ok\"", &format!("{expected} \"ok\""));
    refused(&shape, "null", &format!("{expected} null"));
    refused(
        &shape,
        r#"{"ok":null}"#,
        "$.ok: expected u8 (0 to 255), found null",
    );
    refused(
        &bare,
        r#"{"err":1}"#,
        "$.err: expected null (there is no payload), found 1",
    );
}

#[test]
fn flags_are_arrays_of_names() {
    let shape = Shape::Flags(names(&["read", "write", "may-run"]));
    let (none, read_and_run) = (Value::Flags(0), Value::Flags(0b101));
    written(&shape, none.clone(), "[]");
    written(&shape, read_and_run.clone(), r#"["read","may-run"]"#);
    read(&shape, r#"["may-run","read"]"#, read_and_run.clone());
    read(&shape, "{}", none);
    read(
        &shape,
        r#"{"may-run":true,"read":true,"write":false}"#,
        read_and_run,
    );
    let expected = "flags (an array of strings, each one of the flags read, write, may-run)";
    refused(
        &shape,
        r#"["read","x"]"#,
        &format!("$[1]: expected {expected}, found \"x\""),
    );
    refused(
        &shape,
        "[1]",
        &format!("$[0]: expected {expected}, found 1"),
    );
    refused(
        &shape,
        "null",
        &format!("$: expected {expected}, found null"),
    );
    refused(
        &shape,
        "\"read\"",
        &format!("$: expected {expected}, found \"read\""),
    );
    refused(
        &shape,
        r#"{"x":true}"#,
        &format!("$: expected {expected}, found \"x\""),
    );
    refused(
        &shape,
        r#"["read","read"]"#,
        "$[1]: expected each flag once, found \"read\" again",
    );
    refused(
        &shape,
        r#"{"read":false,"read":false}"#,
        "$: expected each flag once, found \"read\" again",
    );
    refused(
        &shape,
        r#"{"read":1}"#,
        "$.read: expected bool (true or false), found 1",
    );
}

#[test]
fn a_type_has_32_flags_at_most() {
    let many: Vec<String> = (0..33).map(|i| format!("f{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let all = Shape::Flags(names(&many[..32]));
    let json = format!("[\"{}\"]", many[..32].join("\",\""));
    written(&all, Value::Flags(u32::MAX), &json);
    written(&all, Value::Flags(1 << 31), "[\"f31\"]");
    let beyond = Shape::Flags(names(&many));
    refused(
        &beyond,
        "[]",
        "$: expected at most 32 flags, found a type of 33",
    );
    encode(&Value::Flags(0), &beyond).unwrap_err();
}
