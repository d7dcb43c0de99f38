//! What paths lead to, by the types of what they begin with.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::condition::Condition;
use super::filled::{Constant, Filled, JsonText, Root, Token};
use super::problem::Problem;
use crate::json::{self, Limits};
use crate::manifest::{Case, ERROR, ITEM, Place, Segment, Template, TemplateKind, ValuePath};
use crate::plan::spells;
use crate::shape::Shape;
use crate::text::{did_you_mean, shown};

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

/// A step that paths can begin with.
pub(super) struct KnownStep {
    pub(super) name: String,
    pub(super) group: Option<String>,
    /// `None` has no value.
    pub(super) value: Option<Known>,
}

/// What is known within one step and not beyond it.
#[derive(Default)]
pub(super) struct Scope {
    /// The group of the step.
    pub(super) group: Option<String>,
    /// Whether the last of the known steps is this one itself.
    pub(super) undoes: bool,
    pub(super) item: Option<Known>,
    pub(super) narrowed: Option<Narrowed>,
}

/// What a condition says of a value.
#[derive(Clone, Debug)]
pub(super) struct Narrowed {
    of: Root,
    path: Vec<Token>,
    /// The case that it is; without one it is present.
    case: Option<String>,
}

/// What paths can begin with.
pub(super) struct Roots<'a> {
    pub(super) input: &'a Shape,
    pub(super) steps: &'a [KnownStep],
    pub(super) error: Option<&'a Shape>,
    pub(super) scope: &'a Scope,
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

    /// A path to something that decides, and what is known where it holds.
    pub(super) fn condition(
        &self,
        path: &ValuePath,
        is: Option<&Case>,
    ) -> Result<(Condition, Option<Narrowed>), Problem> {
        let found = self.find(path)?;
        let shape = found.shape();
        let narrowed = |case| {
            Some(Narrowed {
                of: found.of,
                path: found.path.clone(),
                case,
            })
        };
        let (case, not, narrowed) = match (&shape, is) {
            (None, _) | (Some(Shape::Bool), None | Some(Case::Boolean(true))) => {
                (None, false, None)
            }
            (Some(Shape::Option(_)), None) => (None, false, narrowed(None)),
            (Some(Shape::Option(_)), Some(Case::Named(is))) if is == "some" => {
                (None, false, narrowed(None))
            }
            (Some(Shape::Option(_)), Some(Case::Named(is))) if is == "none" => (None, true, None),
            (Some(Shape::Bool), Some(Case::Boolean(false))) => (None, true, None),
            (Some(Shape::Variant(cases)), Some(Case::Named(is)))
                if cases.iter().any(|case| *case.name == **is) =>
            {
                (Some(is.clone()), false, narrowed(Some(is.clone())))
            }
            (Some(Shape::Enum(cases)), Some(Case::Named(is)))
                if cases.iter().any(|case| **case == **is) =>
            {
                (Some(is.clone()), false, None)
            }
            (Some(shape), Some(is)) => return Err(no_case(path, shape, is)),
            (Some(shape), None) => {
                return Err(Problem::Condition {
                    path: path.to_string(),
                    found: shape.to_string(),
                });
            }
        };
        let value = found.filled();
        Ok((Condition { value, case, not }, narrowed))
    }

    /// A path to a list, and what its items are.
    pub(super) fn list(&self, path: &ValuePath) -> Result<(Filled, Known), Problem> {
        let found = self.find(path)?;
        let item = match found.shape() {
            None => Known::anything(),
            Some(Shape::List(item) | Shape::FixedList(item, _) | Shape::Stream(item)) => {
                Known::new(*item, false)
            }
            Some(shape) => {
                return Err(Problem::NoList {
                    path: path.to_string(),
                    found: shape.to_string(),
                });
            }
        };
        Ok((found.filled(), item))
    }

    /// Where a path leads.
    pub(super) fn place_of(&self, path: &ValuePath) -> Result<(Root, Vec<Token>), Problem> {
        let found = self.find(path)?;
        Ok((found.of, found.path))
    }

    /// A path to a value of a type that fits, and that type.
    pub(super) fn member(
        &self,
        path: &ValuePath,
        fits: fn(&Shape) -> bool,
    ) -> Result<(Vec<Token>, Shape), Problem> {
        let found = self.find(path)?;
        match found.shape() {
            Some(shape) if fits(&shape) => Ok((found.path, shape)),
            shape => Err(Problem::NoKey {
                path: path.to_string(),
                found: shape.map(|shape| shape.to_string()).unwrap_or_default(),
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
            Some(ITEM) => {
                let item = self.scope.item.as_ref().ok_or_else(|| Problem::NoItem {
                    path: path.to_string(),
                })?;
                Found {
                    of: Root::Item,
                    path: Vec::new(),
                    shape: item.shape.as_ref(),
                    may_be_absent: false,
                }
            }
            Some(root) => self.step(path, root)?,
        };
        let mut case = self.narrow(&mut found);
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
            let (token, shape) = member(shape, segment, case).map_err(stop)?;
            found.path.push(token);
            found.shape = Some(shape);
            before.segments.push(segment.clone());
            case = self.narrow(&mut found);
        }
        Ok(found)
    }

    /// Takes into account what the condition of the step says of a value; returns the case that it is.
    fn narrow(&self, found: &mut Found<'_>) -> Option<&str> {
        let narrowed = self.scope.narrowed.as_ref()?;
        if narrowed.of != found.of || narrowed.path != found.path {
            return None;
        }
        if narrowed.case.is_none() {
            match found.shape {
                _ if found.may_be_absent => found.may_be_absent = false,
                // A nested option is written in another way.
                Some(Shape::Option(some)) if !matches!(**some, Shape::Option(_)) => {
                    found.shape = Some(some);
                }
                _ => {}
            }
        }
        narrowed.case.as_deref()
    }

    fn step(&self, path: &ValuePath, root: &str) -> Result<Found<'_>, Problem> {
        let last = self.steps.len().saturating_sub(1);
        let is_beside = |index: usize, step: &KnownStep| {
            let is_own = self.scope.undoes && index == last;
            step.group.is_some() && step.group == self.scope.group && !is_own
        };
        let mut steps = self.steps.iter().enumerate();
        let Some((index, step)) = steps.find(|(_, step)| step.name == root) else {
            let steps = self.steps.iter().enumerate();
            let before = steps.filter(|(index, step)| !is_beside(*index, step));
            let names: Vec<_> = before.map(|(_, step)| &*step.name).collect();
            return Err(Problem::NoStep {
                path: path.to_string(),
                root: root.to_owned(),
                suggestion: did_you_mean(root, names.iter().copied()),
                steps: names.iter().map(|name| format!(", `${name}`")).collect(),
            });
        };
        let (path, root) = (path.to_string(), root.to_owned());
        if is_beside(index, step) {
            return Err(Problem::SameTime { path, root });
        }
        let Some(known) = &step.value else {
            return Err(Problem::NoValue { path, root });
        };
        Ok(Found {
            of: Root::Step(index),
            path: Vec::new(),
            shape: known.shape.as_ref(),
            may_be_absent: known.may_be_absent,
        })
    }
}

fn no_case(path: &ValuePath, shape: &Shape, is: &Case) -> Problem {
    let cases: Vec<&str> = match shape {
        Shape::Variant(cases) => cases.iter().map(|case| &*case.name).collect(),
        Shape::Enum(cases) => cases.iter().map(|case| &**case).collect(),
        Shape::Option(_) => vec!["some", "none"],
        Shape::Bool => vec!["true", "false"],
        _ => {
            return Problem::Condition {
                path: path.to_string(),
                found: shape.to_string(),
            };
        }
    };
    let is = match is {
        Case::Boolean(is) => is.to_string(),
        Case::Named(is) => is.clone(),
    };
    Problem::NoCase {
        path: path.to_string(),
        found: shape.to_string(),
        suggestion: did_you_mean(&is, cases.iter().copied()),
        is: format!("`{}`", shown(&is)),
        accepted: cases.join(", "),
    }
}

/// What a segment leads to, in a value that is certainly of this case if one is named.
fn member<'s>(
    shape: &'s Shape,
    segment: &Segment,
    case: Option<&str>,
) -> Result<(Token, &'s Shape), String> {
    match (shape, segment) {
        (Shape::Variant(cases), Segment::Name(name)) if case == Some(name) => {
            let case = cases.iter().find(|case| *case.name == **name);
            let payload = case.and_then(|case| case.payload.as_ref());
            let payload = payload.ok_or_else(|| format!("whose case `{name}` has no value"))?;
            Ok((Token::Key("val".to_owned()), payload))
        }
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
        (Shape::Future(value), _) => member(value, segment, case),
        (Shape::List(_) | Shape::Stream(_), Segment::Index(_)) => {
            Err("which may be shorter".to_owned())
        }
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
        (Shape::Stream(_) | Shape::Future(_), _) | (_, Shape::Stream(_) | Shape::Future(_)) => {
            fits(&found.whole(), &expected.whole())
        }
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

/// A value without paths, which has to be of this shape, as this host writes it.
///
/// # Errors
///
/// Where it was typed, and why it does not fit.
pub(in crate::plan) fn literal(
    template: &Template,
    shape: &Shape,
) -> Result<JsonText, (Place, String)> {
    let refuse = |problem: Problem| (template.place.clone(), problem.to_string());
    match constant(template, shape) {
        Ok(Filled::Json(Constant(text))) => Ok(text),
        Ok(_) => Err(refuse(mixed(shape, "a value"))),
        Err(problem) => Err(refuse(problem)),
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
