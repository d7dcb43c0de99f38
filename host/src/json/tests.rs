//! Every cell of the table, hostile bytes, and round trips in both directions.

mod arguments;
mod component;
mod composites;
mod hostile;
mod round_trip;
mod table;

use super::*;
use crate::shape::Field;
use crate::value::arbitrary::{fields, list, names, option, record, result, variant};

fn some(val: Value) -> Value {
    Value::Option(Some(Box::new(val)))
}

fn none() -> Value {
    Value::Option(None)
}

fn text(val: &str) -> Value {
    Value::String(val.into())
}

fn decode(json: impl AsRef<[u8]>, shape: &Shape) -> Result<Value, JsonError> {
    decode_value(json.as_ref(), shape, &Limits::default())
}

fn encode(val: &Value, shape: &Shape) -> Result<String, JsonError> {
    let json = encode_value(val, shape, &Limits::default())?;
    Ok(String::from_utf8(json).unwrap())
}

/// The value is written so, and is read back from that.
#[track_caller]
fn written(shape: &Shape, val: Value, json: &str) {
    assert_eq!(encode(&val, shape).unwrap(), json);
    assert_eq!(decode(json, shape).unwrap(), val);
}

/// The text is read as the value.
#[track_caller]
fn read(shape: &Shape, json: &str, val: Value) {
    assert_eq!(decode(json, shape).unwrap(), val, "{json}");
}

/// The text is refused, with these words.
#[track_caller]
fn refused(shape: &Shape, json: &str, message: &str) {
    assert_eq!(
        decode(json, shape).unwrap_err().to_string(),
        message,
        "{json}"
    );
}
