//! One test for each row: the written form, the forms that are read too, the refusals.

use super::*;

#[test]
fn bool_is_json_s_own() {
    written(&Shape::Bool, Value::Bool(true), "true");
    written(&Shape::Bool, Value::Bool(false), "false");
    read(&Shape::Bool, " \t\r\n true \n", Value::Bool(true));
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
    written(&Shape::U8, Value::U8(255), "255");
    written(&Shape::U16, Value::U16(65535), "65535");
    written(&Shape::U32, Value::U32(4294967295), "4294967295");
    written(&Shape::S8, Value::S8(-128), "-128");
    written(&Shape::S16, Value::S16(-32768), "-32768");
    written(&Shape::S32, Value::S32(-2147483648), "-2147483648");
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
            assert!(matches!(val, Value::U8(7) | Value::S8(7)), "{json}");
        }
    }
    read(&Shape::U8, "-0", Value::U8(0));
    read(&Shape::U8, "0e99999999999999999999", Value::U8(0));
    read(&Shape::S8, "-1.28E2", Value::S8(-128));
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
    written(&Shape::U64, Value::U64(0), "0");
    written(&Shape::U64, Value::U64(safe), "9007199254740991");
    written(&Shape::U64, Value::U64(next), "\"9007199254740992\"");
    written(
        &Shape::U64,
        Value::U64(u64::MAX),
        "\"18446744073709551615\"",
    );
    written(&Shape::S64, Value::S64(-(safe as i64)), "-9007199254740991");
    written(
        &Shape::S64,
        Value::S64(-(next as i64)),
        "\"-9007199254740992\"",
    );
    written(
        &Shape::S64,
        Value::S64(i64::MIN),
        "\"-9223372036854775808\"",
    );
    written(&Shape::S64, Value::S64(i64::MAX), "\"9223372036854775807\"");
    read(&Shape::U64, "18446744073709551615", Value::U64(u64::MAX));
    read(&Shape::U64, "18446744073709551615.0", Value::U64(u64::MAX));
    read(
        &Shape::U64,
        "1.8446744073709551615e19",
        Value::U64(u64::MAX),
    );
    read(&Shape::U64, "\"7\"", Value::U64(7));
    read(&Shape::U64, "\"0\"", Value::U64(0));
    read(&Shape::S64, "-9223372036854775808", Value::S64(i64::MIN));
    read(&Shape::S64, "\"-1\"", Value::S64(-1));
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
    written(&Shape::F32, Value::F32(0.1), "0.1");
    written(&Shape::F64, Value::F64(0.1), "0.1");
    written(
        &Shape::F64,
        Value::F64(0.1_f32.into()),
        "0.10000000149011612",
    );
    written(&Shape::F32, Value::F32(f32::MAX), "3.4028235e+38");
    written(&Shape::F64, Value::F64(f64::MAX), "1.7976931348623157e+308");
    written(&Shape::F64, Value::F64(5e-324), "5e-324");
    written(&Shape::F64, Value::F64(1.0), "1.0");
    written(&Shape::F64, Value::F64(-0.0), "-0.0");
    for (json, val) in [
        ("\"NaN\"", f64::NAN),
        ("\"Infinity\"", f64::INFINITY),
        ("\"-Infinity\"", f64::NEG_INFINITY),
    ] {
        written(&Shape::F64, Value::F64(val), json);
        written(&Shape::F32, Value::F32(val as f32), json);
    }
    read(&Shape::F64, "3", Value::F64(3.0));
    read(&Shape::F64, "-0", Value::F64(-0.0));
    read(&Shape::F64, "1e-400", Value::F64(0.0));
    read(
        &Shape::F32,
        "18446744073709551616",
        Value::F32(18446744073709551616.0),
    );
    // Rounded once: by way of a double this would be 1.0.
    read(&Shape::F32, "1.00000005960464477540", Value::F32(1.0000001));
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
    written(&Shape::Char, Value::Char('a'), "\"a\"");
    written(&Shape::Char, Value::Char('\u{1f980}'), "\"\u{1f980}\"");
    written(&Shape::Char, Value::Char('"'), "\"\\\"\"");
    written(&Shape::Char, Value::Char('\0'), "\"\\u0000\"");
    read(&Shape::Char, "\"\\ud83e\\udd80\"", Value::Char('\u{1f980}'));
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
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
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
