//! One test for each row: the written form, the forms that are read too, the refusals.

use super::*;

#[test]
fn bool_is_json_s_own() {
    written(&Shape::Bool, Val::Bool(true), "true");
    written(&Shape::Bool, Val::Bool(false), "false");
    read(&Shape::Bool, " \t\r\n true \n", Val::Bool(true));
    for (json, found) in [
        ("1", "1"),
        ("\"true\"", "\"true\""),
        ("null", "null"),
        ("True", "True"),
        ("truer", "truer"),
        ("", "an empty body"),
        ("  ", "an empty body"),
        ("{}", "an object"),
        ("[true]", "an array"),
    ] {
        let message = format!("$: expected bool (true or false), found {found}");
        refused(&Shape::Bool, json, &message);
    }
    refused(
        &Shape::Bool,
        "true false",
        "$: expected nothing more, found false",
    );
    refused(&Shape::Bool, "true]", "$: expected nothing more, found ]");
}

#[test]
fn small_integers_are_numbers_within_their_range() {
    written(&Shape::U8, Val::U8(255), "255");
    written(&Shape::U16, Val::U16(65535), "65535");
    written(&Shape::U32, Val::U32(4294967295), "4294967295");
    written(&Shape::S8, Val::S8(-128), "-128");
    written(&Shape::S16, Val::S16(-32768), "-32768");
    written(&Shape::S32, Val::S32(-2147483648), "-2147483648");
    for shape in [Shape::U8, Shape::S8] {
        for json in [
            "7",
            "7.0",
            "70e-1",
            "0.7e1",
            "0.07E+2",
            "7.000000000000000000000000000",
        ] {
            let val = decode(json, &shape).unwrap();
            assert!(matches!(val, Val::U8(7) | Val::S8(7)), "{json}");
        }
    }
    read(&Shape::U8, "-0", Val::U8(0));
    read(&Shape::U8, "0e99999999999999999999", Val::U8(0));
    read(&Shape::S8, "-1.28E2", Val::S8(-128));
    for (shape, range) in [
        (Shape::U8, "u8 (0 to 255)"),
        (Shape::U16, "u16 (0 to 65535)"),
        (Shape::U32, "u32 (0 to 4294967295)"),
        (Shape::S8, "s8 (-128 to 127)"),
        (Shape::S16, "s16 (-32768 to 32767)"),
        (Shape::S32, "s32 (-2147483648 to 2147483647)"),
    ] {
        for json in [
            "1.5",
            "1e-1",
            "4294967296",
            "-2147483649",
            "1e400",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "\"1\"",
            "null",
            "01",
            "-",
            "+1",
            "1.",
            ".5",
            "1e",
            "0x10",
            "1_000",
            "--1",
            "NaN",
            "1.0.0",
            "1e1e1",
            "100000000000000000000000000000000000000000000000000",
        ] {
            refused(&shape, json, &format!("$: expected {range}, found {json}"));
        }
    }
    refused(&Shape::U8, "256", "$: expected u8 (0 to 255), found 256");
    refused(&Shape::U8, "-1", "$: expected u8 (0 to 255), found -1");
    refused(&Shape::S8, "128", "$: expected s8 (-128 to 127), found 128");
}

#[test]
fn wide_integers_are_strings_beyond_what_a_double_holds() {
    let (safe, next) = (9007199254740991, 9007199254740992);
    written(&Shape::U64, Val::U64(0), "0");
    written(&Shape::U64, Val::U64(safe), "9007199254740991");
    written(&Shape::U64, Val::U64(next), "\"9007199254740992\"");
    written(&Shape::U64, Val::U64(u64::MAX), "\"18446744073709551615\"");
    written(&Shape::S64, Val::S64(-(safe as i64)), "-9007199254740991");
    written(
        &Shape::S64,
        Val::S64(-(next as i64)),
        "\"-9007199254740992\"",
    );
    written(&Shape::S64, Val::S64(i64::MIN), "\"-9223372036854775808\"");
    written(&Shape::S64, Val::S64(i64::MAX), "\"9223372036854775807\"");
    read(&Shape::U64, "18446744073709551615", Val::U64(u64::MAX));
    read(&Shape::U64, "18446744073709551615.0", Val::U64(u64::MAX));
    read(&Shape::U64, "1.8446744073709551615e19", Val::U64(u64::MAX));
    read(&Shape::U64, "\"7\"", Val::U64(7));
    read(&Shape::U64, "\"0\"", Val::U64(0));
    read(&Shape::S64, "-9223372036854775808", Val::S64(i64::MIN));
    read(&Shape::S64, "\"-1\"", Val::S64(-1));
    for json in [
        "18446744073709551616",
        "-1",
        "\"18446744073709551616\"",
        "\"-1\"",
        "\"\"",
        "\"-\"",
        "\"+1\"",
        "\" 1\"",
        "\"1 \"",
        "\"1.0\"",
        "\"1e3\"",
        "\"007\"",
        "\"0x1\"",
        "0.5",
        "true",
        "\"99999999999999999999999999999999999999999\"",
    ] {
        let message = format!("$: expected u64 (0 to 18446744073709551615), found {json}");
        refused(&Shape::U64, json, &message);
    }
    refused(
        &Shape::S64,
        "9223372036854775808",
        "$: expected s64 (-9223372036854775808 to 9223372036854775807), found 9223372036854775808",
    );
}

#[test]
fn floats_are_written_in_the_fewest_digits_of_their_width() {
    written(&Shape::F32, Val::Float32(0.1), "0.1");
    written(&Shape::F64, Val::Float64(0.1), "0.1");
    written(
        &Shape::F64,
        Val::Float64(0.1_f32.into()),
        "0.10000000149011612",
    );
    written(&Shape::F32, Val::Float32(f32::MAX), "3.4028235e+38");
    written(
        &Shape::F64,
        Val::Float64(f64::MAX),
        "1.7976931348623157e+308",
    );
    written(&Shape::F64, Val::Float64(5e-324), "5e-324");
    written(&Shape::F64, Val::Float64(1.0), "1.0");
    written(&Shape::F64, Val::Float64(-0.0), "-0.0");
    for (json, val) in [
        ("\"NaN\"", f64::NAN),
        ("\"Infinity\"", f64::INFINITY),
        ("\"-Infinity\"", f64::NEG_INFINITY),
    ] {
        written(&Shape::F64, Val::Float64(val), json);
        written(&Shape::F32, Val::Float32(val as f32), json);
    }
    read(&Shape::F64, "3", Val::Float64(3.0));
    read(&Shape::F64, "-0", Val::Float64(-0.0));
    read(&Shape::F64, "1e-400", Val::Float64(0.0));
    read(
        &Shape::F32,
        "18446744073709551616",
        Val::Float32(18446744073709551616.0),
    );
    // Rounded once: by way of a double this would be 1.0.
    read(
        &Shape::F32,
        "1.00000005960464477540",
        Val::Float32(1.0000001),
    );
    for json in [
        "1e39",
        "-3.5e38",
        "\"nan\"",
        "\"1.5\"",
        "\"+Infinity\"",
        "NaN",
        "null",
        "1.",
        "\"\"",
    ] {
        let message = format!(
            "$: expected f32 (a number within ±3.4028235e38, \"NaN\", \"Infinity\" or \
             \"-Infinity\"), found {json}"
        );
        refused(&Shape::F32, json, &message);
    }
    refused(
        &Shape::F64,
        "1e400",
        "$: expected f64 (a number within ±1.7976931348623157e308, \"NaN\", \"Infinity\" or \
         \"-Infinity\"), found 1e400",
    );
}

#[test]
fn char_is_a_string_of_one_scalar_value() {
    written(&Shape::Char, Val::Char('a'), "\"a\"");
    written(&Shape::Char, Val::Char('\u{1f980}'), "\"\u{1f980}\"");
    written(&Shape::Char, Val::Char('"'), "\"\\\"\"");
    written(&Shape::Char, Val::Char('\0'), "\"\\u0000\"");
    read(&Shape::Char, "\"\\ud83e\\udd80\"", Val::Char('\u{1f980}'));
    for json in ["\"\"", "\"ab\"", "\"e\u{301}\"", "97", "null"] {
        let message = format!("$: expected char (a string of one character), found {json}");
        refused(&Shape::Char, json, &message);
    }
}

#[test]
fn string_is_a_string() {
    written(&Shape::String, text(""), "\"\"");
    written(
        &Shape::String,
        text("häuser \u{2028}"),
        "\"häuser \u{2028}\"",
    );
    written(
        &Shape::String,
        text("a\"b\\c/\n\u{1}\u{7f}"),
        "\"a\\\"b\\\\c/\\n\\u0001\u{7f}\"",
    );
    read(
        &Shape::String,
        r#""\/\b\f\n\r\t\u00e9\u00E9""#,
        text("/\u{8}\u{c}\n\r\téé"),
    );
    refused(&Shape::String, "7", "$: expected string, found 7");
    refused(&Shape::String, "'a'", "$: expected string, found 'a'");
    let escapes = "an escape such as \\n or \\u00e9, surrogates in pairs";
    for (json, found) in [
        (r#""\x""#, r"\x"),
        (r#""\ud83e""#, r"\ud83e"),
        (r#""\udd80""#, r"\udd80"),
        (r#""\ud83e\n""#, r"\ud83e"),
        (r#""\ud83e\ud83e""#, r"\ud83e"),
        (r#""\u12""#, r"\u12"),
        (r#""\u+123""#, r"\u+123"),
        (r#""\uéé""#, r"\uéé"),
        (r#""\"#, r"\"),
    ] {
        refused(
            &Shape::String,
            json,
            &format!("$: expected {escapes}, found {found}"),
        );
    }
    refused(
        &Shape::String,
        "\"a\nb\"",
        "$: expected control characters in a string escaped, found the bare character U+000A",
    );
    refused(
        &Shape::String,
        "\"abc",
        "$: expected the end of the string, found the end of the text",
    );
    let error = decode(b"\"ab\xff\"", &Shape::String).unwrap_err();
    assert_eq!(
        error.to_string(),
        "$: expected UTF-8, found the byte 0xff at offset 3"
    );
    // The same for what only a loose reader of UTF-8 lets through: a surrogate, an overlong slash.
    assert!(decode(b"\"\xed\xa0\x80\"", &Shape::String).is_err());
    assert!(decode(b"\"\xc0\xaf\"", &Shape::String).is_err());
    refused(
        &Shape::String,
        "\u{feff}\u{feff}\"a\"",
        "$: expected string, found \\u{feff}",
    );
}

#[test]
fn bytes_are_base64() {
    let bytes = |bytes: &[u8]| Val::List(bytes.iter().map(|b| Val::U8(*b)).collect());
    written(&Shape::Bytes, bytes(b""), "\"\"");
    written(&Shape::Bytes, bytes(b"a"), "\"YQ==\"");
    written(&Shape::Bytes, bytes(b"ab"), "\"YWI=\"");
    written(&Shape::Bytes, bytes(b"abc"), "\"YWJj\"");
    written(&Shape::Bytes, bytes(&[0xfb, 0xff, 0xfe]), "\"+//+\"");
    for len in [767, 768, 769, 1535, 1536, 1537, 5000] {
        let val = bytes(&(0..len).map(|i| (i * 7) as u8).collect::<Vec<_>>());
        assert_eq!(
            decode(encode(&val, &Shape::Bytes).unwrap(), &Shape::Bytes).unwrap(),
            val
        );
    }
    for json in [
        "\"-__-\"",
        "\"+\\/\\/+\"",
        "[251,255,254]",
        " [ 251 , 255.0 , 2.54e2 ] ",
    ] {
        read(&Shape::Bytes, json, bytes(&[0xfb, 0xff, 0xfe]));
    }
    read(&Shape::Bytes, "\"YQ\"", bytes(b"a"));
    read(&Shape::Bytes, "\"YWI\"", bytes(b"ab"));
    read(&Shape::Bytes, "[]", bytes(b""));
    for json in [
        "\"Y\"",
        "\"YQ=\"",
        "\"YQ===\"",
        "\"====\"",
        "\"=\"",
        "\"YR==\"",
        "\"YW J\"",
        "\"+/-_\"",
        "\"YQ==YQ==\"",
        "\"YWJjY\"",
        "\"YWJjYQ=\"",
        "\"é\"",
        "7",
        "null",
    ] {
        let message =
            format!("$: expected list<u8> (base64, or an array of 0 to 255), found {json}");
        refused(&Shape::Bytes, json, &message);
    }
    refused(
        &Shape::Bytes,
        "[1,256]",
        "$[1]: expected u8 (0 to 255), found 256",
    );
    refused(&Shape::Bytes, "[1 2]", "$: expected `,` or `]`, found 2");
}

#[test]
fn lists_and_tuples_are_arrays() {
    let shape = list(Shape::U8);
    written(&shape, Val::List(vec![]), "[]");
    written(&shape, Val::List(vec![Val::U8(1), Val::U8(2)]), "[1,2]");
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
        Val::Tuple(vec![text("a"), Val::Bool(true)]),
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
        Val::FixedLengthList(vec![Val::U8(1), Val::U8(2)]),
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
    let val = |note: Val| {
        Val::Record(vec![
            ("sku".into(), text("tea")),
            ("on-hand-now".into(), Val::U32(3)),
            ("note".into(), note),
            ("nested".into(), none()),
        ])
    };
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
    let val = Val::Record(vec![("x-y".into(), Val::List(vec![Val::Bool(true)]))]);
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
    let stock = |n| Val::Variant("in-stock".into(), Some(Box::new(Val::U8(n))));
    let sold_out = || Val::Variant("sold-out".into(), None);
    written(&shape, stock(3), r#"{"tag":"in-stock","val":3}"#);
    written(&shape, sold_out(), r#"{"tag":"sold-out"}"#);
    let maybe = Val::Variant("maybe".into(), Some(Box::new(none())));
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
    written(&shape, Val::Enum("red".into()), "\"red\"");
    written(&shape, Val::Enum("deep-blue".into()), "\"deep-blue\"");
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
    written(&shape, some(Val::U8(1)), "1");
    refused(&shape, "nul", "$: expected u8 (0 to 255), found nul");
    refused(&shape, "nullx", "$: expected u8 (0 to 255), found nullx");
    // Nothing else is written as null, so any other payload needs no tag.
    let unit = result(None, None);
    written(&option(unit), some(Val::Result(Ok(None))), "{\"ok\":null}");
}

#[test]
fn the_outer_levels_of_a_nested_option_are_tagged() {
    let two = option(option(Shape::U8));
    written(&two, none(), r#"{"tag":"none"}"#);
    written(&two, some(none()), r#"{"tag":"some","val":null}"#);
    written(&two, some(some(Val::U8(1))), r#"{"tag":"some","val":1}"#);
    read(&two, "null", none());
    read(&two, r#"{"val":1,"tag":"some"}"#, some(some(Val::U8(1))));
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
    let ok = |val: Option<Val>| Val::Result(Ok(val.map(Box::new)));
    let err = |val: Option<Val>| Val::Result(Err(val.map(Box::new)));
    written(&shape, ok(Some(Val::U8(1))), r#"{"ok":1}"#);
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
    let flags = |names: &[&str]| Val::Flags(names.iter().map(|n| (*n).into()).collect());
    written(&shape, flags(&[]), "[]");
    written(&shape, flags(&["read", "may-run"]), r#"["read","may-run"]"#);
    read(&shape, r#"["may-run","read"]"#, flags(&["read", "may-run"]));
    read(&shape, "{}", flags(&[]));
    read(
        &shape,
        r#"{"may-run":true,"read":true,"write":false}"#,
        flags(&["read", "may-run"]),
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
    let full = vec![Val::U32(7), some(text("x"))];
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
        [Val::U32(7), none()]
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
    let error = encode_result(Some(&Val::U8(1)), &unit, &limits).unwrap_err();
    assert_eq!(error.to_string(), "$: expected no result, found a u8");

    let one = signature(&[], Some(Shape::U8));
    assert_eq!(
        encode_result(Some(&Val::U8(1)), &one, &limits).unwrap(),
        b"1"
    );
    assert_eq!(
        decode_result(b"1", &one, &limits).unwrap(),
        Some(Val::U8(1))
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
    let case = |text: &str, shape: Shape, val: Val| {
        assert_eq!(value_from_text(text, &shape).unwrap(), val, "{text}");
    };
    case("", Shape::String, text(""));
    case("\"a\" b", Shape::String, text("\"a\" b"));
    case("5", Shape::String, text("5"));
    case("5", Shape::Char, Val::Char('5'));
    case("5", Shape::U8, Val::U8(5));
    case("-5", Shape::S64, Val::S64(-5));
    case("18446744073709551615", Shape::U64, Val::U64(u64::MAX));
    case("1.5", Shape::F32, Val::Float32(1.5));
    case("-Infinity", Shape::F32, Val::Float32(f32::NEG_INFINITY));
    case("NaN", Shape::F64, Val::Float64(f64::NAN));
    case("true", Shape::Bool, Val::Bool(true));
    case("5", option(Shape::U8), some(Val::U8(5)));
    case("null", option(Shape::String), some(text("null")));
    case("5", option(option(Shape::U8)), some(some(Val::U8(5))));
    case(
        "deep-blue",
        Shape::Enum(names(&["deep-blue"])),
        Val::Enum("deep-blue".into()),
    );
    case(
        "[1,2]",
        list(Shape::U16),
        Val::List(vec![Val::U16(1), Val::U16(2)]),
    );
    case("YQ", Shape::Bytes, Val::List(vec![Val::U8(97)]));
    case("\"YQ\"", Shape::Bytes, Val::List(vec![Val::U8(97)]));
    case("[97]", Shape::Bytes, Val::List(vec![Val::U8(97)]));
    let shape = variant(&[("open", None), ("until", Some(Shape::U8))]);
    case("open", shape.clone(), Val::Variant("open".into(), None));
    case("\"open\"", shape.clone(), Val::Variant("open".into(), None));
    let until = Val::Variant("until".into(), Some(Box::new(Val::U8(1))));
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
    let u8s = |n: u8| (0..n).map(Val::U8).collect::<Vec<_>>();
    let field = |name: &str, n| (name.to_owned(), Val::U8(n));
    for (shape, val, message) in [
        (
            &Shape::U8,
            Val::U16(1),
            "$: expected u8 (0 to 255), found a u16",
        ),
        (
            &Shape::String,
            Val::Char('a'),
            "$: expected string, found a char",
        ),
        (
            &tuple,
            Val::Tuple(u8s(2)),
            "$: expected tuple (an array of 1), found a tuple of 2",
        ),
        (
            &tuple,
            Val::List(u8s(1)),
            "$: expected tuple (an array of 1), found a list",
        ),
        (
            &fixed,
            Val::FixedLengthList(u8s(2)),
            "$: expected list (an array of 1), found a list of the fixed length 2",
        ),
        (
            &Shape::Bytes,
            Val::List(vec![Val::U8(1), Val::Bool(true)]),
            "$: expected list<u8> (base64, or an array of 0 to 255), found a list of a bool",
        ),
        (
            &rec,
            Val::Record(vec![field("a", 1)]),
            "$: expected record (an object), found a record of a",
        ),
        (
            &rec,
            Val::Record(vec![field("b", 1), field("a", 1)]),
            "$: expected record (an object), found a record of b, a",
        ),
        (
            &rec,
            Val::Record(vec![field("a", 1), ("b".into(), none())]),
            "$.b: expected u8 (0 to 255), found an option",
        ),
        (
            &var,
            Val::Variant("a".into(), None),
            "$: expected variant (an object with \"tag\", one of the tags a, b), found the variant case \"a\"",
        ),
        (
            &var,
            Val::Variant("b".into(), Some(Box::new(none()))),
            "$: expected variant (an object with \"tag\", one of the tags a, b), found the variant case \"b\" with a payload",
        ),
        (
            &Shape::Enum(names(&["a"])),
            Val::Enum("z\n".into()),
            "$: expected enum (a string, the case a), found the enum case \"z\\n\"",
        ),
        (
            &flags,
            Val::Flags(vec!["a".into(), "a".into()]),
            "$: expected flags (an array of strings, each one of the flags a, b), found an unknown or doubled one among a, a",
        ),
        (
            &flags,
            Val::Flags(vec!["z".into()]),
            "$: expected flags (an array of strings, each one of the flags a, b), found an unknown or doubled one among z",
        ),
        (
            &result(None, Some(Shape::U8)),
            Val::Result(Ok(Some(Box::new(none())))),
            "$.ok: expected no payload, found an option",
        ),
        (
            &result(None, Some(Shape::U8)),
            Val::Result(Err(None)),
            "$.err: expected u8 (0 to 255), found nothing",
        ),
        (
            &list(Shape::U8),
            Val::List(vec![none()]),
            "$[0]: expected u8 (0 to 255), found an option",
        ),
        (
            &option(Shape::U8),
            some(none()),
            "$: expected u8 (0 to 255), found an option",
        ),
        (
            &option(Shape::U8),
            Val::U8(1),
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
