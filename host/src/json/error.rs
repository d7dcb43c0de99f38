//! The errors of mismatches between JSON and a type, and their words.

use std::fmt::Write as _;

use crate::shape::{Field, Shape};
use crate::text::shown;

/// Upper bound of the names that an error lists; further ones are counted.
const LISTED_NAMES: usize = 16;

/// A mismatch between JSON and a type.
///
/// `expected` and `found` are one line each, bounded, and free of control characters, so they can
/// be logged and sent back as they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: expected {expected}, found {found}")]
pub struct JsonError {
    /// The path, such as `$.lines[2].sku`; `$` is the whole body.
    pub path: String,
    /// The expectation of the type, or a limit.
    pub expected: String,
    /// The value that was found.
    pub found: String,
    too_large: bool,
}

/// The error on its way up: boxed, so that a result is no larger than a value, and with the path
/// growing at its front, so that a success never pays for it.
pub(super) type Fault = Box<JsonError>;

impl JsonError {
    /// Whether the body has more bytes or more values than its limits (and not another fault, such
    /// as being too deep).
    #[must_use]
    pub const fn is_too_large(&self) -> bool {
        self.too_large
    }

    pub(super) fn at_key(mut self: Box<Self>, key: &str) -> Box<Self> {
        let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let step = if plain {
            format!(".{key}")
        } else {
            format!("[\"{key}\"]")
        };
        self.path.insert_str(0, &step);
        self
    }

    pub(super) fn at_index(mut self: Box<Self>, index: usize) -> Box<Self> {
        self.path.insert_str(0, &format!("[{index}]"));
        self
    }

    #[expect(clippy::boxed_local, reason = "faults travel in a box")]
    pub(super) fn at_root(self: Box<Self>) -> Self {
        Self {
            path: format!("${}", self.path),
            ..*self
        }
    }
}

#[cold]
pub(super) fn mismatch(expected: impl Into<String>, found: impl Into<String>) -> Fault {
    Box::new(JsonError {
        path: String::new(),
        expected: expected.into(),
        found: found.into(),
        too_large: false,
    })
}

#[cold]
pub(super) fn too_large(limit: usize, found: impl Into<String>) -> Fault {
    let mut fault = mismatch(
        format!("at most {limit} bytes of JSON (the size limit)"),
        found,
    );
    fault.too_large = true;
    fault
}

#[cold]
pub(super) fn too_deep(limit: u32) -> Fault {
    mismatch(
        format!("at most {limit} nested arrays and objects (the depth limit)"),
        "another",
    )
}

#[cold]
pub(super) fn too_many(limit: usize) -> Fault {
    let mut fault = mismatch(
        format!("at most {limit} values (the node limit)"),
        "another",
    );
    fault.too_large = true;
    fault
}

/// A foreign text in quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

/// The JSON of a type, for an error.
#[cold]
pub(super) fn expected(shape: &Shape) -> String {
    let float = |name: &str, max: &str| {
        format!("{name} (a number within ±{max}, \"NaN\", \"Infinity\" or \"-Infinity\")")
    };
    match shape {
        Shape::Bool => "bool (true or false)".into(),
        Shape::U8 => format!("u8 (0 to {})", u8::MAX),
        Shape::U16 => format!("u16 (0 to {})", u16::MAX),
        Shape::U32 => format!("u32 (0 to {})", u32::MAX),
        Shape::U64 => format!("u64 (0 to {})", u64::MAX),
        Shape::S8 => format!("s8 ({} to {})", i8::MIN, i8::MAX),
        Shape::S16 => format!("s16 ({} to {})", i16::MIN, i16::MAX),
        Shape::S32 => format!("s32 ({} to {})", i32::MIN, i32::MAX),
        Shape::S64 => format!("s64 ({} to {})", i64::MIN, i64::MAX),
        Shape::F32 => float("f32", "3.4028235e38"),
        Shape::F64 => float("f64", "1.7976931348623157e308"),
        Shape::Char => "char (a string of one character)".into(),
        Shape::String => "string".into(),
        Shape::Stream(item) if **item == Shape::U8 => expected(&Shape::Bytes),
        Shape::Bytes => "list<u8> (base64, or an array of 0 to 255)".into(),
        Shape::List(_) | Shape::Stream(_) => "list (an array)".into(),
        Shape::Future(value) => expected(value),
        Shape::FixedList(_, len) => format!("list (an array of {len})"),
        Shape::Tuple(items) => format!("tuple (an array of {})", items.len()),
        Shape::Record(_) => "record (an object)".into(),
        Shape::Variant(cases) => {
            let tags = one_of("tag", cases.iter().map(|case| &*case.name));
            format!("variant (an object with \"tag\", {tags})")
        }
        Shape::Enum(names) => {
            format!(
                "enum (a string, {})",
                one_of("case", names.iter().map(|name| &**name))
            )
        }
        Shape::Option(some) => match **some {
            Shape::Option(_) => {
                "option of an option (null, {\"tag\":\"none\"} or {\"tag\":\"some\",\"val\":…})"
                    .into()
            }
            _ => format!("{} or null", expected(some)),
        },
        Shape::Result { .. } => "result (an object with one key, \"ok\" or \"err\")".into(),
        Shape::Flags(names) => {
            let flags = one_of("flag", names.iter().map(|name| &**name));
            format!("flags (an array of strings, each {flags})")
        }
    }
}

/// The keys of a record or of the arguments.
#[cold]
pub(super) fn keys(fields: &[Field]) -> String {
    if fields.is_empty() {
        return "no key".into();
    }
    one_of("key", fields.iter().map(|field| &*field.key))
}

/// `one of the cases a, b, c`.
pub(super) fn one_of<'a>(noun: &str, names: impl ExactSizeIterator<Item = &'a str>) -> String {
    match names.len() {
        1 => format!("the {noun} {}", listed(names)),
        _ => format!("one of the {noun}s {}", listed(names)),
    }
}

/// `a, b, c`.
pub(super) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = names.len();
    let mut out = String::new();
    for (i, name) in names.take(LISTED_NAMES).enumerate() {
        out.push_str(if i > 0 { ", " } else { "" });
        out.push_str(&shown(name));
    }
    if count > LISTED_NAMES {
        // Writing to a string cannot fail.
        let _ = write!(out, ", … ({count} in all)");
    }
    out
}
