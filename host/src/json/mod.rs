//! JSON to and from component values, driven by the type.
//!
//! This stage takes bytes and a [`Shape`] and returns a [`Value`], or the other way round.
//! It knows nothing of NATS, HTTP or components, and builds no tree in between: one pass over the
//! text makes the value, one pass over the value makes the text.
//!
//! | WIT | written | also read |
//! |---|---|---|
//! | `bool` | `true`, `false` | |
//! | `u8` … `u32`, `s8` … `s32` | `7` | a number whose value is whole: `7.0`, `70e-1` |
//! | `u64`, `s64` | a number up to ±(2⁵³−1), beyond that a decimal string | number or string over the whole range, whole numbers as above |
//! | `f32`, `f64` | the fewest digits that give the same value back at that width (`0.1`, `1.0`, `1e+40`); `"NaN"`, `"Infinity"`, `"-Infinity"` | any number that does not overflow the width |
//! | `char` | a string of one Unicode scalar value | |
//! | `string` | a string | |
//! | `list<u8>` | padded base64 in the standard alphabet | the URL alphabet, no padding, an array of 0 to 255 |
//! | `list<T>`, `list<T, N>`, `tuple<…>` | an array; of the exact length for the last two | |
//! | `record` | an object, camelCase keys in the order of declaration, every field | any order; kebab-case and snake_case keys; a missing key for an `option` that is none |
//! | `variant` | `{"tag":"case","val":…}`, without `val` when there is no payload | `val` before `tag`; a bare `"case"` without payload |
//! | `enum` | `"case"` | |
//! | `option<T>` | `null`, or T | |
//! | `option<option<T>>` | `{"tag":"none"}`, `{"tag":"some","val":…}` for the outer level | `null` for the outer none |
//! | `result<T, E>` | `{"ok":…}`, `{"err":…}`; `null` for an absent payload | |
//! | `stream<T>` | as `list<T>`; between services the name by which it is read | |
//! | `future<T>` | as T; between services the name by which it is read | |
//! | `flags` | an array of the names that are set, in the order of declaration | any order; an object of booleans, where what is missing is off |
//!
//! Everything else is an error: a key that the type has not, a key or flag given twice (also in two
//! spellings), text after the value, a number that would lose its value, half of a surrogate pair.
//! Names of cases and flags are kebab-case in every position.
//!
//! The reader is not built on `serde_json`, whose numbers pass through an `f64` that is rounded
//! twice for an `f32` and may be one bit off for an `f64`, and whose errors have a line instead of
//! a path and the value found there. Strings and numbers are written by `serde_json`.
//!
//! # Examples
//!
//! ```
//! use wasmbay::json::{self, Limits};
//! use wasmbay::shape::{Field, Shape};
//!
//! let line = Shape::Record(Box::new([
//!     Field { name: "sku".into(), key: "sku".into(), shape: Shape::String },
//!     Field { name: "on-hand".into(), key: "onHand".into(), shape: Shape::U32 },
//! ]));
//! let limits = Limits::default();
//! let val = json::decode_value(br#"{"on_hand": 3, "sku": "tea"}"#, &line, &limits)?;
//! assert_eq!(json::encode_value(&val, &line, &limits)?, br#"{"sku":"tea","onHand":3}"#);
//!
//! let error = json::decode_value(br#"{"sku":"tea","onHand":-1}"#, &line, &limits).unwrap_err();
//! assert_eq!(error.to_string(), "$.onHand: expected u32 (0 to 4294967295), found -1");
//! # Ok::<(), json::JsonError>(())
//! ```

mod decode;
mod encode;
mod error;
mod measure;
mod scalar;
mod scan;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::call::{Reply, Returned};
use crate::shape::{Shape, Signature};
use crate::value::Value;
use decode::Decoder;
use encode::Encoder;
pub use error::JsonError;
pub(crate) use measure::Measure;
pub(crate) use scan::BYTE_ORDER_MARK;

/// Default upper bound of the nesting of arrays and objects.
///
/// Far above what interfaces declare, and far below what a thread's stack can recurse: one level
/// takes less than a kilobyte of it.
pub const DEFAULT_DEPTH: u32 = 64;

/// Default upper bound of the bytes of a body: a NATS server's default for one message.
pub const DEFAULT_BYTES: usize = 1 << 20;

/// Default upper bound of the values in a body.
///
/// A [`Value`] is 32 bytes, and a list has room for up to twice its items while it is read. So the
/// values of one call stay below 7 MB whatever the body says, besides the texts and bytes in them.
pub const DEFAULT_NODES: usize = 100_000;

/// What becomes of a record's keys that its type does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownKeys {
    /// They are an error that names the key: what a person sends has a typing error.
    #[default]
    Refuse,
    /// They are left out: what a service sends was built against a later version of the type.
    Ignore,
}

/// What stands for a stream or a future in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// All that it gives: a list of its items, or the future's value.
    #[default]
    Whole,
    /// The name by which it can be read.
    Named,
}

/// The bounds on one body, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nesting of arrays and objects; [`DEFAULT_DEPTH`].
    pub depth: u32,
    /// Bytes of JSON; [`DEFAULT_BYTES`].
    pub bytes: usize,
    /// Values; [`DEFAULT_NODES`].
    ///
    /// Each value counts once, with the ones inside it and with the missing fields of a record. A
    /// `list<u8>` counts as one value: its bytes are bounded by `bytes`, since three of them take
    /// four bytes of base64.
    pub nodes: usize,
    /// How keys that a record does not have are read.
    pub unknown_keys: UnknownKeys,
    /// How streams and futures are read.
    pub streams: Streams,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: DEFAULT_DEPTH,
            bytes: DEFAULT_BYTES,
            nodes: DEFAULT_NODES,
            unknown_keys: UnknownKeys::default(),
            streams: Streams::default(),
        }
    }
}

/// Reads a function's arguments: an object keyed by parameter name, an array in their order, or
/// nothing at all.
///
/// Nothing (and `{}`) stands for no arguments, so it does for a function whose parameters are all
/// options. A function without parameters also takes `[]` and `null`.
///
/// # Errors
///
/// The body is not JSON, does not match the parameters or exceeds a limit.
pub fn decode_arguments(
    body: &[u8],
    signature: &Signature,
    limits: &Limits,
) -> Result<Vec<Value>, JsonError> {
    let read = || {
        let mut decoder = Decoder::new(body, limits)?;
        let args = decoder.arguments(&signature.params)?;
        decoder.end()?;
        Ok(args)
    };
    read().map_err(JsonError::at_root)
}

/// Writes a function's arguments as an object keyed by parameter name, or nothing at all for a
/// function without parameters.
///
/// # Errors
///
/// The values are not of the parameters' types or exceed a limit.
pub fn encode_arguments(
    args: &[Value],
    signature: &Signature,
    limits: &Limits,
) -> Result<Vec<u8>, JsonError> {
    let write = || {
        let mut encoder = Encoder::new(limits);
        encoder.arguments(args, &signature.params)?;
        encoder.finish()
    };
    write().map_err(JsonError::at_root)
}

/// Reads a function's result; for a function without one, an empty body or `null`.
///
/// # Errors
///
/// The body is not JSON, is not of the result's type or exceeds a limit.
pub fn decode_result(
    body: &[u8],
    signature: &Signature,
    limits: &Limits,
) -> Result<Option<Value>, JsonError> {
    let read = || {
        let mut decoder = Decoder::new(body, limits)?;
        let result = match &signature.result {
            Some(shape) => Some(decoder.value(shape)?),
            None => {
                decoder.nothing()?;
                None
            }
        };
        decoder.end()?;
        Ok(result)
    };
    read().map_err(JsonError::at_root)
}

/// Writes a function's result; an empty body for a function without one.
///
/// # Errors
///
/// The value is not of the result's type or exceeds a limit.
pub fn encode_result(
    value: Option<&Value>,
    signature: &Signature,
    limits: &Limits,
) -> Result<Vec<u8>, JsonError> {
    match (value, &signature.result) {
        (None, None) => Ok(Vec::new()),
        (Some(value), Some(shape)) => encode_value(value, shape, limits),
        (Some(value), None) => Err(error::mismatch("no result", value.kind()).at_root()),
        (None, Some(shape)) => Err(error::mismatch(error::expected(shape), "nothing").at_root()),
    }
}

/// Writes a function's result as the reply to its call.
///
/// # Errors
///
/// As [`encode_result`].
pub fn encode_reply(
    value: Option<&Value>,
    signature: &Signature,
    limits: &Limits,
) -> Result<Reply, JsonError> {
    const START: &str = "{\"err\":";
    let body = Bytes::from(encode_result(value, signature, limits)?);
    // The encoder writes no white space, so the payload stands between these and the last brace.
    let returned = match value {
        Some(Value::Result(Err(_))) => {
            let payload = START.len()..body.len().saturating_sub(1);
            Returned::Err(body.slice(payload))
        }
        _ => Returned::Ok,
    };
    Ok(Reply { body, returned })
}

/// Reads one value.
///
/// # Errors
///
/// The body is not JSON, is not of the type or exceeds a limit.
pub fn decode_value(body: &[u8], shape: &Shape, limits: &Limits) -> Result<Value, JsonError> {
    let read = || {
        let mut decoder = Decoder::new(body, limits)?;
        let value = decoder.value(shape)?;
        decoder.end()?;
        Ok(value)
    };
    read().map_err(JsonError::at_root)
}

/// Writes one value.
///
/// # Errors
///
/// The value is not of the type or exceeds a limit.
pub fn encode_value(value: &Value, shape: &Shape, limits: &Limits) -> Result<Vec<u8>, JsonError> {
    let write = || {
        let mut encoder = Encoder::new(limits);
        encoder.value(value, shape)?;
        encoder.finish()
    };
    write().map_err(JsonError::at_root)
}

/// Reads one value from plain text, as in a URL's path or query.
///
/// A `string`, a `char`, the name of an `enum`'s case or of a `variant`'s case without payload, and
/// base64 for a `list<u8>` are taken as they are, without quotes. Numbers and booleans are read as
/// JSON has them, besides `NaN`, `Infinity` and `-Infinity`. An `option<T>` is some T. Anything
/// else is JSON, and so is what begins like JSON for a `variant` or `list<u8>`.
///
/// # Errors
///
/// The text is no value of the type, or exceeds a default limit.
pub fn value_from_text(text: &str, shape: &Shape) -> Result<Value, JsonError> {
    decode::from_text(text, shape, &Limits::default()).map_err(JsonError::at_root)
}
