//! From a request to a function's arguments, as the JSON object that travels to the callee.
//!
//! A body is not decoded here: it is checked to be exactly one JSON value before it becomes part of
//! the object, and the callee decodes it by its type. So a body cannot set the parameters of path
//! or query.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::StatusCode;
use matchit::Params;
use percent_encoding::percent_decode_str;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};

use super::answer::Refusal;
use crate::json::{self, JsonError, Limits};
use crate::plan::{Bindings, Body, spells};
use crate::shape::{Field, Shape, Signature};
use crate::text::camel_case;

/// The sources of the arguments of one function, with names and shapes looked up.
pub(crate) struct ArgumentPlan {
    /// The name in the route's pattern, and the parameter.
    path: Vec<(String, Field)>,
    query: Vec<QueryParam>,
    body: BodyPlan,
}

struct QueryParam {
    field: Field,
    spellings: Vec<String>,
}

enum BodyPlan {
    /// No parameter: a body is not read.
    None,
    /// The body is this parameter's value.
    Whole(Field),
    /// The body is an object of these parameters and of no others.
    Object(Vec<Field>),
}

impl ArgumentPlan {
    pub(super) fn new(signature: &Signature, bindings: &Bindings) -> Self {
        let field = |index: &usize| signature.params.get(*index).cloned();
        let path = bindings.path.iter();
        let query = bindings.query.iter().filter_map(|(_, index)| field(index));
        Self {
            path: path
                .filter_map(|(name, index)| Some((name.clone(), field(index)?)))
                .collect(),
            query: query
                .map(|field| QueryParam {
                    spellings: spellings(&field.name),
                    field,
                })
                .collect(),
            body: match &bindings.body {
                Body::None => BodyPlan::None,
                Body::Whole(index) => field(index).map_or(BodyPlan::None, BodyPlan::Whole),
                Body::Object(indices) => {
                    BodyPlan::Object(indices.iter().filter_map(field).collect())
                }
            },
        }
    }

    /// Whether a body is part of the arguments.
    pub(super) fn takes_body(&self) -> bool {
        !matches!(self.body, BodyPlan::None)
    }

    /// The arguments of one request.
    pub(super) fn arguments(
        &self,
        path: &Params<'_, '_>,
        query: Option<&str>,
        body: Bytes,
    ) -> Result<Bytes, Refusal> {
        if let (BodyPlan::Object(_), true, true) =
            (&self.body, self.path.is_empty(), self.query.is_empty())
        {
            return Ok(body);
        }
        let mut object = Object::new(body.len());
        for (name, field) in &self.path {
            let given = path.get(name).unwrap_or_default();
            let bad = |why: &dyn fmt::Display| refuse("path", &field.name, why);
            let text = percent_decode_str(given)
                .decode_utf8()
                .map_err(|_| bad(&NOT_UTF8))?;
            object.key(&field.key);
            write_text(&mut object.text, &text, &field.shape).map_err(|e| bad(&wanted(&e)))?;
        }
        if !self.query.is_empty() {
            let given: Vec<_> = pairs(query.unwrap_or_default()).collect();
            for param in &self.query {
                param.write(&mut object, &given)?;
            }
        }
        if self.takes_body() {
            check_utf8(&body)?;
        }
        match &self.body {
            BodyPlan::None => {}
            BodyPlan::Whole(field) => whole(&mut object, field, &body)?,
            BodyPlan::Object(fields) => merged(&mut object, fields, &body)?,
        }
        Ok(object.finish())
    }
}

const NOT_UTF8: &str = "its percent-encoding is not UTF-8";

/// The names of a query string, and their values as they were sent. A name that is no text is no
/// parameter's.
fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((from_form(name)?, value))
    })
}

/// Decodes a name or value as forms have them; `None` if it is not UTF-8.
fn from_form(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8().ok();
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(Cow::Owned(decoded.into_owned()))
}

/// Every accepted spelling of a parameter's name, as [`spells`] has them.
fn spellings(name: &str) -> Vec<String> {
    let mut spellings = vec![name.to_owned(), name.replace('-', "_"), camel_case(name)];
    spellings.dedup();
    spellings
}

impl QueryParam {
    fn write(&self, object: &mut Object, given: &[(Cow<'_, str>, &str)]) -> Result<(), Refusal> {
        let Field { name, key, shape } = &self.field;
        let own = |(key, _): &&(Cow<'_, str>, &str)| self.spellings.iter().any(|s| s == key);
        let mut values = given.iter().filter(own).map(|(_, value)| *value);
        let bad = |why: &dyn fmt::Display| refuse("query", name, why);
        let write = |object: &mut Object, value: &str, shape: &Shape| {
            let text = from_form(value).ok_or_else(|| bad(&NOT_UTF8))?;
            write_text(&mut object.text, &text, shape).map_err(|e| bad(&wanted(&e)))
        };
        if let Shape::List(item) = shape {
            object.key(key);
            object.text.push(b'[');
            for (i, value) in values.enumerate() {
                if i > 0 {
                    object.text.push(b',');
                }
                write(object, value, item)?;
            }
            object.text.push(b']');
            return Ok(());
        }
        match (values.next(), values.count()) {
            (None, _) if matches!(shape, Shape::Option(_)) => Ok(()),
            (None, _) => Err(bad(&format_args!("it is missing ({shape})"))),
            (Some(value), 0) => {
                object.key(key);
                write(object, value, shape)
            }
            (Some(_), more) => Err(bad(&format_args!("it is given {} times", more + 1))),
        }
    }
}

/// An object of arguments being written.
struct Object {
    text: Vec<u8>,
    empty: bool,
}

impl Object {
    fn new(body: usize) -> Self {
        let mut text = Vec::with_capacity(body + 64);
        text.push(b'{');
        Self { text, empty: true }
    }

    /// A parameter's key: letters, digits and hyphens, which need no escape.
    fn key(&mut self, key: &str) {
        self.separate();
        self.text.push(b'"');
        self.text.extend_from_slice(key.as_bytes());
        self.text.extend_from_slice(b"\":");
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.empty) {
            self.text.push(b',');
        }
    }

    fn finish(mut self) -> Bytes {
        self.text.push(b'}');
        self.text.into()
    }
}

/// Writes text from a URL as the JSON of a scalar.
fn write_text(out: &mut Vec<u8>, text: &str, shape: &Shape) -> Result<(), JsonError> {
    let shape = match shape {
        Shape::Option(some) => some,
        shape => shape,
    };
    if let Shape::String = shape {
        // Writing text to memory cannot fail.
        let _ = serde_json::to_writer(out, text);
        return Ok(());
    }
    let value = json::value_from_text(text, shape)?;
    out.extend(json::encode_value(&value, shape, &Limits::default())?);
    Ok(())
}

fn wanted(error: &JsonError) -> String {
    format!("expected {}, found {}", error.expected, error.found)
}

fn refuse(place: &str, name: &str, why: &dyn fmt::Display) -> Refusal {
    Refusal::caller(
        StatusCode::BAD_REQUEST,
        format!("{place} parameter \"{name}\": {why}"),
    )
}

/// Checks here what the callee would find by an offset in all of the arguments.
fn check_utf8(body: &[u8]) -> Result<(), Refusal> {
    let Err(error) = std::str::from_utf8(body) else {
        return Ok(());
    };
    let at = error.valid_up_to();
    let byte = body.get(at).copied().unwrap_or_default();
    let why = format_args!("expected UTF-8, found the byte 0x{byte:02x} at offset {at}");
    Err(bad_body(&why))
}

/// The body as the value of one parameter.
fn whole(object: &mut Object, field: &Field, body: &[u8]) -> Result<(), Refusal> {
    if body.trim_ascii().is_empty() && matches!(field.shape, Shape::Option(_)) {
        return Ok(());
    }
    serde_json::from_slice::<IgnoredAny>(body).map_err(|error| {
        // Decoding by the type reports path and expected value; plain syntax only a column.
        let limits = Limits {
            bytes: body.len(),
            ..Limits::default()
        };
        match json::decode_value(body, &field.shape, &limits) {
            Err(error) => bad_body(&error),
            Ok(_) => bad_body(&error),
        }
    })?;
    object.key(&field.key);
    object.text.extend_from_slice(body);
    Ok(())
}

/// Adds the members of the body to the object.
///
/// Its keys are checked here, so that a body cannot set parameters of the path or the query string,
/// however the callee treats a doubled key.
fn merged(object: &mut Object, fields: &[Field], body: &[u8]) -> Result<(), Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    // With the space around it, so that lines and columns in errors are those of what was sent.
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = reader
        .deserialize_map(Members(fields))
        .and_then(|()| reader.end());
    read.map_err(|error| bad_body(&error))?;
    let members = body
        .trim_ascii()
        .strip_prefix(b"{")
        .and_then(|body| body.strip_suffix(b"}"));
    let members = members.unwrap_or_default().trim_ascii();
    if !members.is_empty() {
        object.separate();
        object.text.extend_from_slice(members);
    }
    Ok(())
}

/// Reads an object whose keys are these parameters, each at most once.
struct Members<'a>(&'a [Field]);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object keyed by parameter (")?;
        for (i, field) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{}", field.key)?;
        }
        f.write_str(")")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = vec![false; self.0.len()];
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let params = self.0.iter().zip(&mut seen);
            match params
                .into_iter()
                .find(|(field, _)| spells(&key, &field.name))
            {
                Some((_, seen)) if !*seen => *seen = true,
                Some(_) => return Err(A::Error::custom(format_args!("{key} is there twice"))),
                None => {
                    return Err(A::Error::invalid_value(
                        serde::de::Unexpected::Str(&key),
                        &self,
                    ));
                }
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

fn bad_body(why: &dyn fmt::Display) -> Refusal {
    Refusal::caller(StatusCode::BAD_REQUEST, format!("body: {why}"))
}
