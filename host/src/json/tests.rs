//! Every cell of the table, hostile bytes, and round trips in both directions.

mod arguments;
mod component;
mod composites;
mod hostile;
mod round_trip;
mod table;

use wasmtime::component::Val;

use super::*;
use crate::shape::{Case, Field};

/// A record's fields from their names, with the keys that the loader gives them.
fn fields(named: &[(&str, Shape)]) -> Box<[Field]> {
    let field = |(name, shape): &(&str, Shape)| Field {
        name: (*name).into(),
        key: camel_case(name).into(),
        shape: shape.clone(),
    };
    named.iter().map(field).collect()
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('-');
    let first = words.next().unwrap().to_owned();
    words.fold(first, |key, word| {
        key + &word[..1].to_uppercase() + &word[1..]
    })
}

fn record(named: &[(&str, Shape)]) -> Shape {
    Shape::Record(fields(named))
}

fn variant(cases: &[(&str, Option<Shape>)]) -> Shape {
    let case = |(name, payload): &(&str, Option<Shape>)| Case {
        name: (*name).into(),
        payload: payload.clone(),
    };
    Shape::Variant(cases.iter().map(case).collect())
}

fn names(names: &[&str]) -> Box<[Box<str>]> {
    names.iter().map(|name| (*name).into()).collect()
}

fn list(item: Shape) -> Shape {
    Shape::List(Box::new(item))
}

fn option(some: Shape) -> Shape {
    Shape::Option(Box::new(some))
}

fn result(ok: Option<Shape>, err: Option<Shape>) -> Shape {
    Shape::Result {
        ok: ok.map(Box::new),
        err: err.map(Box::new),
    }
}

fn some(val: Val) -> Val {
    Val::Option(Some(Box::new(val)))
}

fn none() -> Val {
    Val::Option(None)
}

fn text(val: &str) -> Val {
    Val::String(val.into())
}

fn decode(json: impl AsRef<[u8]>, shape: &Shape) -> Result<Val, JsonError> {
    decode_value(json.as_ref(), shape, &Limits::default())
}

fn encode(val: &Val, shape: &Shape) -> Result<String, JsonError> {
    let json = encode_value(val, shape, &Limits::default())?;
    Ok(String::from_utf8(json).unwrap())
}

/// The value is written so, and is read back from that.
#[track_caller]
fn written(shape: &Shape, val: Val, json: &str) {
    assert_eq!(encode(&val, shape).unwrap(), json);
    assert_eq!(decode(json, shape).unwrap(), val);
}

/// The text is read as the value.
#[track_caller]
fn read(shape: &Shape, json: &str, val: Val) {
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
