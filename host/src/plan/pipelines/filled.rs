//! Values with paths, checked by their types, and how they become JSON.
//!
//! JSON is taken apart and put together as text: what passes from one step to another is not read as a
//! number in between, so no digit of it changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::json::{self, Limits};
use crate::manifest::{ERROR, Place, Segment, Template, TemplateKind, ValuePath};
use crate::plan::spells;
use crate::shape::Shape;
use crate::text::did_you_mean;

/// A value as JSON text.
pub type JsonText = Box<RawValue>;

/// A value that is complete but for what its paths lead to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Filled {
    /// A value.
    Json(Constant),
    /// What stands there in the arguments, a result or an error.
    Path {
        /// The root.
        of: Root,
        /// The keys and indices from there on.
        path: Vec<Token>,
        /// The step may have no result, which is null.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        optional: bool,
        /// What may be absent is an option itself, so that the one around it is written in full.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        some: bool,
    },
    /// An object.
    Object(Vec<(String, Filled)>),
    /// An array.
    Array(Vec<Filled>),
}

/// The root of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Root {
    /// The pipeline's arguments.
    Input,
    /// The result of the step with this index.
    Step(usize),
    /// The error of the step that failed.
    Error,
}

/// One key or index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Token {
    /// Of an array.
    Index(u32),
    /// Of an object.
    Key(String),
}

/// A JSON text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Constant(JsonText);

impl PartialEq for Constant {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

/// What paths lead into.
pub struct Sources<'a> {
    /// The pipeline's arguments.
    pub input: &'a RawValue,
    /// The result of each step; nothing for one that has none.
    pub steps: &'a [Option<&'a RawValue>],
    /// The error of the step that failed.
    pub error: Option<&'a RawValue>,
}

impl Filled {
    /// The error of the step, as it is.
    pub(super) fn error() -> Self {
        Self::Path {
            of: Root::Error,
            path: Vec::new(),
            optional: false,
            some: false,
        }
    }

    /// The value as JSON; `None` if it needs the result of a step that has none.
    #[must_use]
    pub fn json(&self, sources: &Sources<'_>) -> Option<JsonText> {
        let mut text = String::new();
        self.write(sources, &mut text)?;
        RawValue::from_string(text).ok()
    }

    fn write(&self, sources: &Sources<'_>, out: &mut String) -> Option<()> {
        match self {
            Self::Json(constant) => out.push_str(constant.0.get()),
            Self::Path {
                of,
                path,
                optional,
                some,
            } => {
                let root = match of {
                    Root::Input => Some(sources.input),
                    Root::Step(index) => *sources.steps.get(*index)?,
                    Root::Error => Some(sources.error?),
                };
                match root {
                    Some(root) if *some => {
                        out.push_str("{\"tag\":\"some\",\"val\":");
                        out.push_str(find(root, path)?);
                        out.push('}');
                    }
                    Some(root) => out.push_str(find(root, path)?),
                    None if *optional => out.push_str("null"),
                    None => return None,
                }
            }
            Self::Object(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(&serde_json::to_string(key).ok()?);
                    out.push(':');
                    value.write(sources, out)?;
                }
                out.push('}');
            }
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(sources, out)?;
                }
                out.push(']');
            }
        }
        Some(())
    }

    /// Whether it needs the result of this step.
    #[must_use]
    pub fn needs(&self, step: usize) -> bool {
        match self {
            Self::Json(_) => false,
            Self::Path { of, .. } => *of == Root::Step(step),
            Self::Object(entries) => entries.iter().any(|(_, value)| value.needs(step)),
            Self::Array(items) => items.iter().any(|item| item.needs(step)),
        }
    }
}

/// The text at a path.
fn find<'a>(root: &'a RawValue, path: &[Token]) -> Option<&'a str> {
    let mut text = root.get();
    for token in path {
        let value: &RawValue = match token {
            Token::Key(key) => {
                let object: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
                object.get(key)?
            }
            Token::Index(index) => {
                let array: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                array.get(*index as usize)?
            }
        };
        text = value.get();
    }
    Some(text)
}

/// The value of a step, as far as it is known before it runs.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// `None` fits anything: the step itself was refused.
    shape: Option<Shape>,
    may_be_absent: bool,
}

impl Known {
    pub(super) fn new(shape: Shape, may_be_absent: bool) -> Self {
        Self {
            shape: Some(shape),
            may_be_absent,
        }
    }

    pub(super) fn anything() -> Self {
        Self {
            shape: None,
            may_be_absent: false,
        }
    }
}

/// What paths can begin with.
pub(super) struct Roots<'a> {
    pub(super) input: &'a Shape,
    pub(super) steps: &'a [(String, Option<Known>)],
    pub(super) error: Option<&'a Shape>,
}

/// Where a path leads.
struct Found<'a> {
    of: Root,
    path: Vec<Token>,
    /// `None` fits anything.
    shape: Option<&'a Shape>,
    may_be_absent: bool,
}

impl Found<'_> {
    /// Its type, with the option around what may be absent.
    fn shape(&self) -> Option<Shape> {
        let shape = self.shape?.clone();
        Some(if self.may_be_absent {
            Shape::Option(Box::new(shape))
        } else {
            shape
        })
    }

    fn filled(self) -> Filled {
        let nested = matches!(self.shape, Some(Shape::Option(_)));
        Filled::Path {
            optional: self.may_be_absent,
            some: self.may_be_absent && nested,
            of: self.of,
            path: self.path,
        }
    }
}

type Refused = (Place, Problem);

impl Roots<'_> {
    /// The value of a template, which has to be of this shape.
    pub(super) fn fill(&self, template: &Template, shape: &Shape) -> Result<Filled, Refused> {
        let refuse = |problem| (template.place.clone(), problem);
        match &template.kind {
            TemplateKind::Path(path) => self.path(path, shape).map_err(refuse),
            _ if !has_path(template) => constant(template, shape).map_err(refuse),
            TemplateKind::Table(entries) => self.table(template, entries, shape),
            TemplateKind::List(items) => {
                let shapes: Vec<&Shape> = match inner(shape) {
                    Shape::List(item) => items.iter().map(|_| &**item).collect(),
                    Shape::FixedList(item, length) if items.len() == *length as usize => {
                        items.iter().map(|_| &**item).collect()
                    }
                    Shape::Tuple(shapes) if items.len() == shapes.len() => shapes.iter().collect(),
                    _ => return Err(refuse(mixed(shape, "an array"))),
                };
                let items = items.iter().zip(shapes);
                let filled = items.map(|(item, shape)| self.fill(item, shape));
                Ok(Filled::Array(filled.collect::<Result<_, _>>()?))
            }
            _ => Err(refuse(mixed(shape, "a value"))),
        }
    }

    fn table(
        &self,
        template: &Template,
        entries: &BTreeMap<String, Template>,
        shape: &Shape,
    ) -> Result<Filled, Refused> {
        let refuse = |problem| (template.place.clone(), problem);
        let Shape::Record(fields) = inner(shape) else {
            return self.variant(template, entries, shape);
        };
        let mut object = Vec::new();
        for field in fields {
            match entries.iter().find(|(key, _)| spells(key, &field.name)) {
                Some((_, value)) => {
                    object.push((field.key.to_string(), self.fill(value, &field.shape)?));
                }
                None if matches!(field.shape, Shape::Option(_)) => {}
                None => {
                    return Err(refuse(Problem::FieldMissing {
                        field: field.name.to_string(),
                        expected: shape.to_string(),
                    }));
                }
            }
        }
        for (key, value) in entries {
            if !fields.iter().any(|field| spells(key, &field.name)) {
                let names = fields.iter().map(|field| &*field.name);
                let problem = Problem::NoField {
                    suggestion: did_you_mean(key, names),
                    key: key.clone(),
                    expected: shape.to_string(),
                };
                return Err((value.place.clone(), problem));
            }
        }
        Ok(Filled::Object(object))
    }

    /// `{ tag = "case", val = … }`, with paths in the payload.
    fn variant(
        &self,
        template: &Template,
        entries: &BTreeMap<String, Template>,
        shape: &Shape,
    ) -> Result<Filled, Refused> {
        let refuse = || (template.place.clone(), mixed(shape, "a table"));
        let (Shape::Variant(cases), Some(tag), Some(value), 2) = (
            inner(shape),
            entries.get("tag"),
            entries.get("val"),
            entries.len(),
        ) else {
            return Err(refuse());
        };
        let TemplateKind::Text(name) = &tag.kind else {
            return Err(refuse());
        };
        let case = cases.iter().find(|case| *case.name == **name);
        let Some(payload) = case.and_then(|case| case.payload.as_ref()) else {
            return Err(refuse());
        };
        let tag = constant(tag, &Shape::String).map_err(|problem| (tag.place.clone(), problem))?;
        let value = self.fill(value, payload)?;
        let entries = [("tag".to_owned(), tag), ("val".to_owned(), value)];
        Ok(Filled::Object(entries.into()))
    }

    fn path(&self, path: &ValuePath, expected: &Shape) -> Result<Filled, Problem> {
        let found = self.find(path)?;
        match found.shape() {
            Some(shape) if !fits(&shape, expected) => Err(Problem::Type {
                path: path.to_string(),
                found: shape.to_string(),
                expected: expected.to_string(),
            }),
            _ => Ok(found.filled()),
        }
    }

    /// A path to something that decides: a boolean, or an option.
    pub(super) fn condition(&self, path: &ValuePath) -> Result<Filled, Problem> {
        let found = self.find(path)?;
        match found.shape() {
            Some(Shape::Bool | Shape::Option(_)) | None => Ok(found.filled()),
            Some(shape) => Err(Problem::Condition {
                path: path.to_string(),
                found: shape.to_string(),
            }),
        }
    }

    fn find(&self, path: &ValuePath) -> Result<Found<'_>, Problem> {
        let mut found = match path.root.as_deref() {
            None => Found {
                of: Root::Input,
                path: Vec::new(),
                shape: Some(self.input),
                may_be_absent: false,
            },
            Some(ERROR) => Found {
                of: Root::Error,
                path: Vec::new(),
                shape: Some(self.error.ok_or_else(|| Problem::NoError {
                    path: path.to_string(),
                })?),
                may_be_absent: false,
            },
            Some(root) => self.step(path, root)?,
        };
        let mut before = ValuePath {
            root: path.root.clone(),
            segments: Vec::new(),
        };
        for segment in &path.segments {
            let Some(shape) = found.shape else {
                return Ok(found);
            };
            let stop = |why: String| Problem::NoMember {
                path: path.to_string(),
                before: before.to_string(),
                shape: found
                    .shape()
                    .map(|shape| shape.to_string())
                    .unwrap_or_default(),
                why,
            };
            if found.may_be_absent {
                return Err(stop(
                    "which may be none: the step may have no result".to_owned(),
                ));
            }
            let (token, shape) = member(shape, segment).map_err(stop)?;
            found.path.push(token);
            found.shape = Some(shape);
            before.segments.push(segment.clone());
        }
        Ok(found)
    }

    fn step(&self, path: &ValuePath, root: &str) -> Result<Found<'_>, Problem> {
        let mut steps = self.steps.iter().enumerate();
        let Some((index, (_, known))) = steps.find(|(_, (name, _))| name == root) else {
            let names = || self.steps.iter().map(|(name, _)| name.as_str());
            return Err(Problem::NoStep {
                path: path.to_string(),
                root: root.to_owned(),
                suggestion: did_you_mean(root, names()),
                steps: names().map(|name| format!(", `${name}`")).collect(),
            });
        };
        let Some(known) = known else {
            return Err(Problem::NoValue {
                path: path.to_string(),
                root: root.to_owned(),
            });
        };
        Ok(Found {
            of: Root::Step(index),
            path: Vec::new(),
            shape: known.shape.as_ref(),
            may_be_absent: known.may_be_absent,
        })
    }
}

/// What a segment leads to.
fn member<'s>(shape: &'s Shape, segment: &Segment) -> Result<(Token, &'s Shape), String> {
    match (shape, segment) {
        (Shape::Record(fields), Segment::Name(name)) => {
            let field = fields.iter().find(|field| spells(name, &field.name));
            let field = field.ok_or_else(|| {
                let names = fields.iter().map(|field| &*field.name);
                format!("which has no `{name}`{}", did_you_mean(name, names))
            })?;
            Ok((Token::Key(field.key.to_string()), &field.shape))
        }
        (Shape::Tuple(shapes), Segment::Index(index)) => {
            let shape = shapes.get(*index as usize);
            let shape = shape.ok_or_else(|| format!("which has no element {index}"))?;
            Ok((Token::Index(*index), shape))
        }
        (Shape::FixedList(item, length), Segment::Index(index)) if index < length => {
            Ok((Token::Index(*index), item))
        }
        (Shape::List(_), Segment::Index(_)) => Err("which may be shorter".to_owned()),
        (Shape::Option(_), _) => Err("which may be none".to_owned()),
        (Shape::Variant(_) | Shape::Result { .. }, _) => {
            Err("which may be another case".to_owned())
        }
        (_, Segment::Name(name)) => Err(format!("which has no `{name}`")),
        (_, Segment::Index(index)) => Err(format!("which has no element {index}")),
    }
}

/// Whether every value of one shape, as this host writes it in JSON, is one of the other: the same
/// shape, a wider integer, or an option of it.
pub(super) fn fits(found: &Shape, expected: &Shape) -> bool {
    use Shape::{Option, S8, S16, S32, S64, U8, U16, U32, U64};
    match (found, expected) {
        (found, expected) if found == expected => true,
        // A nested option is written in another way.
        (found, Option(some)) if !matches!((found, &**some), (Option(_), _) | (_, Option(_))) => {
            fits(found, some)
        }
        (U8, U16 | U32 | U64 | S16 | S32 | S64)
        | (U16, U32 | U64 | S32 | S64)
        | (U32, U64 | S64)
        | (S8, S16 | S32 | S64)
        | (S16, S32 | S64)
        | (S32, S64) => true,
        _ => false,
    }
}

fn inner(shape: &Shape) -> &Shape {
    match shape {
        Shape::Option(some) if !matches!(**some, Shape::Option(_)) => some,
        shape => shape,
    }
}

fn mixed(shape: &Shape, found: &'static str) -> Problem {
    Problem::Mixed {
        expected: shape.to_string(),
        found,
    }
}

fn has_path(template: &Template) -> bool {
    match &template.kind {
        TemplateKind::Path(_) => true,
        TemplateKind::List(items) => items.iter().any(has_path),
        TemplateKind::Table(entries) => entries.values().any(has_path),
        _ => false,
    }
}

/// A value without paths, as this host writes it.
fn constant(template: &Template, shape: &Shape) -> Result<Filled, Problem> {
    let refuse = |why: String| Problem::Constant {
        expected: shape.to_string(),
        why,
    };
    let limits = Limits::default();
    let text = plain(template).ok_or_else(|| refuse("the value has a path in it".to_owned()))?;
    let value =
        json::decode_value(&text, shape, &limits).map_err(|error| refuse(error.to_string()))?;
    let text =
        json::encode_value(&value, shape, &limits).map_err(|error| refuse(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|error| refuse(error.to_string()))?;
    let value = RawValue::from_string(text).map_err(|error| refuse(error.to_string()))?;
    Ok(Filled::Json(Constant(value)))
}

/// A template without paths as JSON.
fn plain(template: &Template) -> Option<Vec<u8>> {
    fn value(template: &Template) -> Option<serde_json::Value> {
        Some(match &template.kind {
            TemplateKind::Path(_) => return None,
            TemplateKind::Text(text) => text.clone().into(),
            TemplateKind::Integer(number) => (*number).into(),
            TemplateKind::Float(number) => (*number).into(),
            TemplateKind::Boolean(yes) => (*yes).into(),
            TemplateKind::List(items) => {
                items.iter().map(value).collect::<Option<Vec<_>>>()?.into()
            }
            TemplateKind::Table(entries) => {
                let entries = entries.iter();
                let entries = entries.map(|(key, item)| Some((key.clone(), value(item)?)));
                serde_json::Value::Object(entries.collect::<Option<_>>()?)
            }
        })
    }
    serde_json::to_vec(&value(template)?).ok()
}
