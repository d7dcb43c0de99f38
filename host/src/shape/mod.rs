//! The shape of values: a component's types, resolved once when it is loaded.
//!
//! A [`Shape`] is structural, as the component model's own type equality is. It has the keys and
//! cases of the JSON mapping, so that no call looks a type up again, and importers and exporters
//! are compared by their shapes. Types that no message can carry (a resource, or a stream within a
//! stream) are refused here, by their path.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasmtime::component::types::{ComponentFunc, Type};

use crate::interface::InterfaceId;
use crate::text::camel_case;

mod compatibility;
mod docs;
mod signature;

pub use compatibility::Unreadable;
pub use docs::{Docs, TypeDocs, summary};
pub use signature::ParseError;

/// The shape of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the plain cases are WIT's own names")]
pub enum Shape {
    Bool,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F32,
    F64,
    Char,
    String,
    /// `list<u8>`, which is base64 in JSON.
    Bytes,
    List(Box<Shape>),
    /// `list<T, N>`.
    FixedList(Box<Shape>, u32),
    Tuple(Box<[Shape]>),
    Record(Box<[Field]>),
    Variant(Box<[Case]>),
    Enum(Box<[Box<str>]>),
    Option(Box<Shape>),
    Result {
        ok: Option<Box<Shape>>,
        err: Option<Box<Shape>>,
    },
    Flags(Box<[Box<str>]>),
    /// `stream<T>`: its items come one after the other, or all of them as a list.
    Stream(Box<Shape>),
    /// `future<T>`: its value comes later, or with the rest.
    Future(Box<Shape>),
}

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name in WIT, in kebab-case.
    pub name: Box<str>,
    /// The key in JSON: lowerCamelCase, or kebab-case throughout a record in which two names would
    /// give the same key.
    pub key: Box<str>,
    /// The field's own shape.
    pub shape: Shape,
}

/// One case of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The name in WIT, which is also the tag in JSON.
    pub name: Box<str>,
    /// The payload, if the case has one.
    pub payload: Option<Shape>,
}

/// The parameters and the result of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The parameters in order; their keys follow the rule of record fields.
    pub params: Box<[Field]>,
    /// The result, if there is one.
    pub result: Option<Shape>,
}

/// An exported or imported interface of a component.
///
/// # Equality
///
/// By name and functions. The names of types are for readers: components with the same functions fit
/// together however they name what these pass, and stored descriptions may have no names.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InterfaceDescription {
    /// Its name and version.
    pub id: InterfaceId,
    /// Its functions by name.
    pub functions: BTreeMap<String, Signature>,
    /// Its records, variants, enums and flags by name, those included that it uses of other interfaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, Shape>,
}

impl PartialEq for InterfaceDescription {
    fn eq(&self, other: &Self) -> bool {
        let Self { id, functions, .. } = self;
        *id == other.id && *functions == other.functions
    }
}

impl Eq for InterfaceDescription {}

/// A type cannot be carried by a message.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{path}: {kind} cannot leave its component; pass a value instead (a record, an id, a list<u8>)"
)]
pub struct ShapeError {
    /// The path of the type, such as `parameter "card": field "issuer"`.
    pub path: String,
    /// The kind of type.
    pub kind: &'static str,
}

impl Signature {
    /// Resolves a function's type.
    ///
    /// # Errors
    ///
    /// A parameter or the result has a type that no message can carry.
    pub fn of(func: &ComponentFunc) -> Result<Self, ShapeError> {
        let mut params = Vec::new();
        for (name, ty) in func.params() {
            let path = Path {
                parent: None,
                step: Step::Parameter(name),
            };
            params.push((name.into(), Shape::resolve(&ty, &path)?));
        }
        let path = Path {
            parent: None,
            step: Step::Result,
        };
        let result = func
            .results()
            .next()
            .map(|ty| Shape::resolve(&ty, &path))
            .transpose()?;
        Ok(Self {
            params: fields(params),
            result,
        })
    }
}

impl Shape {
    /// Whether two values are the same if their texts in JSON are, so that one can be a key.
    pub(crate) const fn is_key(&self) -> bool {
        matches!(
            self,
            Self::Bool
                | Self::U8
                | Self::U16
                | Self::U32
                | Self::U64
                | Self::S8
                | Self::S16
                | Self::S32
                | Self::S64
                | Self::Char
                | Self::String
                | Self::Enum(_)
        )
    }

    /// The shape of all that a stream or a future gives, for those who take that in one piece. Others are
    /// as they are.
    pub(crate) fn whole(&self) -> Cow<'_, Self> {
        match self {
            Self::Stream(item) if **item == Self::U8 => Cow::Owned(Self::Bytes),
            Self::Stream(item) => Cow::Owned(Self::List(item.clone())),
            Self::Future(value) => value.whole(),
            shape => Cow::Borrowed(shape),
        }
    }

    /// Whether it is a stream or a future, or has one in it.
    pub(crate) fn has_stream(&self) -> bool {
        let of = |side: &Option<Box<Self>>| side.as_ref().is_some_and(|side| side.has_stream());
        match self {
            Self::Stream(_) | Self::Future(_) => true,
            Self::List(item) | Self::FixedList(item, _) | Self::Option(item) => item.has_stream(),
            Self::Tuple(items) => items.iter().any(Self::has_stream),
            Self::Record(fields) => fields.iter().any(|field| field.shape.has_stream()),
            Self::Variant(cases) => {
                let mut payloads = cases.iter().filter_map(|case| case.payload.as_ref());
                payloads.any(Self::has_stream)
            }
            Self::Result { ok, err } => of(ok) || of(err),
            _ => false,
        }
    }

    /// Whether a type of this shape always has a name in WIT.
    pub(crate) const fn is_nominal(&self) -> bool {
        matches!(
            self,
            Self::Record(_) | Self::Variant(_) | Self::Enum(_) | Self::Flags(_)
        )
    }

    /// Resolves a type.
    ///
    /// # Errors
    ///
    /// The type, or a part of it, cannot be carried by a message.
    pub fn of(ty: &Type) -> Result<Self, ShapeError> {
        Self::resolve(
            ty,
            &Path {
                parent: None,
                step: Step::Value,
            },
        )
    }

    fn resolve(ty: &Type, path: &Path<'_>) -> Result<Self, ShapeError> {
        let at = |ty: &Type, step: Step<'_>| {
            Self::resolve(
                ty,
                &Path {
                    parent: Some(path),
                    step,
                },
            )
        };
        let refuse = |kind| {
            Err(ShapeError {
                path: path.to_string(),
                kind,
            })
        };
        Ok(match ty {
            Type::Bool => Self::Bool,
            Type::U8 => Self::U8,
            Type::U16 => Self::U16,
            Type::U32 => Self::U32,
            Type::U64 => Self::U64,
            Type::S8 => Self::S8,
            Type::S16 => Self::S16,
            Type::S32 => Self::S32,
            Type::S64 => Self::S64,
            Type::Float32 => Self::F32,
            Type::Float64 => Self::F64,
            Type::Char => Self::Char,
            Type::String => Self::String,
            Type::List(list) => match list.ty() {
                Type::U8 => Self::Bytes,
                item => Self::List(Box::new(at(&item, Step::Item)?)),
            },
            Type::FixedLengthList(list) => {
                Self::FixedList(Box::new(at(&list.ty(), Step::Item)?), list.len())
            }
            Type::Tuple(tuple) => Self::Tuple(
                tuple
                    .types()
                    .enumerate()
                    .map(|(i, ty)| at(&ty, Step::Element(i)))
                    .collect::<Result<_, _>>()?,
            ),
            Type::Record(record) => Self::Record(fields(
                record
                    .fields()
                    .map(|f| Ok((f.name.into(), at(&f.ty, Step::Field(f.name))?)))
                    .collect::<Result<_, _>>()?,
            )),
            Type::Variant(variant) => Self::Variant(
                variant
                    .cases()
                    .map(|case| {
                        let payload = case.ty.as_ref().map(|ty| at(ty, Step::Case(case.name)));
                        Ok(Case {
                            name: case.name.into(),
                            payload: payload.transpose()?,
                        })
                    })
                    .collect::<Result<_, _>>()?,
            ),
            Type::Enum(names) => Self::Enum(names.names().map(Into::into).collect()),
            Type::Option(option) => Self::Option(Box::new(at(&option.ty(), Step::Case("some"))?)),
            Type::Result(result) => {
                let side = |ty: Option<Type>, name| {
                    ty.map(|ty| at(&ty, Step::Case(name)).map(Box::new))
                        .transpose()
                };
                Self::Result {
                    ok: side(result.ok(), "ok")?,
                    err: side(result.err(), "err")?,
                }
            }
            Type::Flags(flags) => Self::Flags(flags.names().map(Into::into).collect()),
            Type::Own(_) | Type::Borrow(_) => return refuse("a resource"),
            Type::Stream(stream) => match stream.ty() {
                Some(_) if path.is_within_stream() => return refuse("a stream within a stream"),
                Some(item) => Self::Stream(Box::new(at(&item, Step::StreamItem)?)),
                None => return refuse("a stream without a type of items"),
            },
            Type::Future(future) => match future.ty() {
                Some(_) if path.is_within_stream() => return refuse("a future within a stream"),
                Some(value) => Self::Future(Box::new(at(&value, Step::StreamItem)?)),
                None => return refuse("a future without a type of its value"),
            },
            Type::ErrorContext => return refuse("an error-context"),
            Type::Map(_) => return refuse("a map"),
        })
    }
}

/// Names the fields' keys: camelCase, unless that makes two of them equal.
pub(crate) fn fields(named: Vec<(Box<str>, Shape)>) -> Box<[Field]> {
    let mut seen = HashSet::new();
    let distinct = named.iter().all(|(name, _)| seen.insert(camel_case(name)));
    named
        .into_iter()
        .map(|(name, shape)| {
            let key = if distinct {
                camel_case(&name).into()
            } else {
                name.clone()
            };
            Field { name, key, shape }
        })
        .collect()
}

/// The path from a function's signature down to one type, built only as deep as the recursion is.
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

enum Step<'a> {
    Value,
    Parameter(&'a str),
    Result,
    Field(&'a str),
    Case(&'a str),
    Element(usize),
    Item,
    /// What a stream or a future gives.
    StreamItem,
}

impl Path<'_> {
    fn is_within_stream(&self) -> bool {
        matches!(self.step, Step::StreamItem) || self.parent.is_some_and(Path::is_within_stream)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}: ")?;
        }
        self.step.fmt(f)
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Value => write!(f, "value"),
            Step::Parameter(name) => write!(f, "parameter \"{name}\""),
            Step::Result => write!(f, "result"),
            Step::Field(name) => write!(f, "field \"{name}\""),
            Step::Case(name) => write!(f, "case \"{name}\""),
            Step::Element(index) => write!(f, "element {index}"),
            Step::Item => write!(f, "list item"),
            Step::StreamItem => write!(f, "what it gives"),
        }
    }
}

/// Writes the shape in the notation of WIT with every name resolved, on one line.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |f: &mut fmt::Formatter<'_>, kind: &str, names: &[Box<str>]| {
            write!(f, "{kind} {{ {} }}", names.join(", "))
        };
        match self {
            Self::Bool => f.write_str("bool"),
            Self::U8 => f.write_str("u8"),
            Self::U16 => f.write_str("u16"),
            Self::U32 => f.write_str("u32"),
            Self::U64 => f.write_str("u64"),
            Self::S8 => f.write_str("s8"),
            Self::S16 => f.write_str("s16"),
            Self::S32 => f.write_str("s32"),
            Self::S64 => f.write_str("s64"),
            Self::F32 => f.write_str("f32"),
            Self::F64 => f.write_str("f64"),
            Self::Char => f.write_str("char"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("list<u8>"),
            Self::List(item) => write!(f, "list<{item}>"),
            Self::FixedList(item, len) => write!(f, "list<{item}, {len}>"),
            Self::Tuple(items) => {
                f.write_str("tuple<")?;
                separated(f, items, |f, item| write!(f, "{item}"))?;
                f.write_str(">")
            }
            Self::Record(fields) => {
                f.write_str("record { ")?;
                separated(f, fields, |f, field| {
                    write!(f, "{}: {}", field.name, field.shape)
                })?;
                f.write_str(" }")
            }
            Self::Variant(cases) => {
                f.write_str("variant { ")?;
                separated(f, cases, |f, case| match &case.payload {
                    Some(payload) => write!(f, "{}({payload})", case.name),
                    None => f.write_str(&case.name),
                })?;
                f.write_str(" }")
            }
            Self::Enum(cases) => names(f, "enum", cases),
            Self::Option(some) => write!(f, "option<{some}>"),
            Self::Result {
                ok: None,
                err: None,
            } => f.write_str("result"),
            Self::Result {
                ok: Some(ok),
                err: None,
            } => write!(f, "result<{ok}>"),
            Self::Result {
                ok: None,
                err: Some(err),
            } => write!(f, "result<_, {err}>"),
            Self::Result {
                ok: Some(ok),
                err: Some(err),
            } => write!(f, "result<{ok}, {err}>"),
            Self::Flags(flags) => names(f, "flags", flags),
            Self::Stream(item) => write!(f, "stream<{item}>"),
            Self::Future(value) => write!(f, "future<{value}>"),
        }
    }
}

impl Signature {
    /// The path of a stream or a future among parameters and result, such as `parameter "rows"`.
    #[must_use]
    pub fn stream(&self) -> Option<String> {
        let has_one = |param: &&Field| param.shape.has_stream();
        let param = self.params.iter().find(has_one);
        match param {
            Some(param) => Some(Step::Parameter(&param.name).to_string()),
            None => self.result_has_stream().then(|| Step::Result.to_string()),
        }
    }

    /// Whether a part of the result comes after the rest of it.
    pub(crate) fn result_has_stream(&self) -> bool {
        self.result.as_ref().is_some_and(Shape::has_stream)
    }

    /// The parameters in the notation of WIT: `(order: record { id: string })`.
    #[must_use]
    pub fn parameters(&self) -> String {
        let params = Self {
            result: None,
            ..self.clone()
        };
        params.to_string().trim_start_matches("func").to_owned()
    }
}

crate::text::serde_as_text!(Shape, Signature);

/// The identity of a function's type: signatures with the same one are the same, names included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TypeId([u8; 32]);

impl Signature {
    /// The identity of this type: the SHA-256 of its text, which has everything that it consists of.
    pub(crate) fn identity(&self) -> TypeId {
        TypeId(Sha256::digest(self.to_string()).into())
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("func(")?;
        separated(f, &self.params, |f, p| write!(f, "{}: {}", p.name, p.shape))?;
        f.write_str(")")?;
        match &self.result {
            Some(result) => write!(f, " -> {result}"),
            None => Ok(()),
        }
    }
}

fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    write: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        write(f, item)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime::component::Component;
    use wasmtime::component::types::ComponentItem;

    /// The signature of the one function that a component in text format imports as `f`.
    fn signature(types: &str, func: &str) -> Result<Signature, ShapeError> {
        let engine = wasmtime::Engine::default();
        let text = format!(
            r#"(component (import "a:b/c" (instance {types} (export "f" (func {func})))))"#
        );
        let component = Component::new(&engine, text).unwrap();
        let ty = component.component_type();
        let Some(ComponentItem::ComponentInstance(instance)) =
            ty.imports(&engine).next().map(|(_, item)| item.ty)
        else {
            panic!("no instance");
        };
        let found = instance
            .exports(&engine)
            .find_map(|(_, item)| match item.ty {
                ComponentItem::ComponentFunc(func) => Some(Signature::of(&func)),
                _ => None,
            });
        found.unwrap()
    }

    #[test]
    fn a_signature_reads_like_wit() {
        let types = r#"
            (type $r' (record (field "on-hand" u32) (field "sku" string)))
            (export "r" (type $r (eq $r')))"#;
        let func = r#"(param "want" (list u8)) (param "lines" (list $r)) (result (result (option char) (error (tuple s8 f64))))"#;
        assert_eq!(
            signature(types, func).unwrap().to_string(),
            "func(want: list<u8>, lines: list<record { on-hand: u32, sku: string }>) \
             -> result<option<char>, tuple<s8, f64>>"
        );
    }

    #[test]
    fn keys_fall_back_to_kebab_case_when_two_would_be_equal() {
        let keys = |names: &[&str]| {
            let named = names.iter().map(|n| ((*n).into(), Shape::Bool)).collect();
            fields(named)
                .iter()
                .map(|f| f.key.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(&["order-id", "x"]), ["orderId", "x"]);
        // `a-B` and `aB` cannot stand in one record by WIT's rules on case, but `a1-b2` style
        // neighbours of an acronym can.
        assert_eq!(
            keys(&["get-u-rl", "get-URl", "x-y"]),
            ["get-u-rl", "get-URl", "x-y"]
        );
    }

    #[test]
    fn a_resource_is_refused_by_its_path() {
        let types = r#"
            (export "conn" (type $conn (sub resource)))
            (type $r' (record (field "id" u32) (field "link" (own $conn))))
            (export "r" (type $r (eq $r')))"#;
        let error = signature(types, r#"(param "all" (list $r))"#).unwrap_err();
        assert_eq!(error.path, "parameter \"all\": list item: field \"link\"");
        assert_eq!(error.kind, "a resource");
    }

    #[test]
    fn a_stream_is_carried_unless_it_is_within_another() {
        let types = "(type $s (stream u8))";
        let all = r#"(param "rows" (stream (tuple u8 string))) (result (result $s (error (future char))))"#;
        let found = signature(types, all).unwrap();
        assert_eq!(
            found.to_string(),
            "func(rows: stream<tuple<u8, string>>) -> result<stream<u8>, future<char>>"
        );
        assert_eq!(found.stream().as_deref(), Some("parameter \"rows\""));
        assert!(found.result_has_stream());
        for (func, kind) in [
            (r#"(param "all" (stream $s))"#, "a stream within a stream"),
            (
                r#"(param "all" (stream (list (future u8))))"#,
                "a future within a stream",
            ),
            (
                r#"(param "all" (stream))"#,
                "a stream without a type of items",
            ),
        ] {
            let error = signature(types, func).unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
        }
    }
}
