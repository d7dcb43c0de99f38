//! From shapes to messages and enums with names and numbers.
//!
//! A [`Message`] is a tree as its shape is, so the codec is driven by it without looking anything up. Types that
//! WIT names are messages of their package; what has no name there (tuples, results, lists in lists) is nested
//! in the message that has the field, named after it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::names::{Scope, shouting, snake, upper_camel};
use crate::manifest::{Numbers, ProtoLock};
use crate::shape::{Case, Field, Shape};

/// The kind of one value on the wire.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
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
    Bytes,
    Enum(Arc<Enum>),
    Message(Arc<Message>),
}

/// An enum, whose 0 is no case.
#[derive(Debug)]
pub(crate) struct Enum {
    /// The name in its scope.
    pub(crate) name: String,
    /// With its package and the messages around it.
    pub(crate) path: String,
    /// The name of 0.
    pub(crate) zero: String,
    /// The cases in their order.
    pub(crate) cases: Vec<(String, u32)>,
    pub(crate) reserved: Vec<u32>,
}

/// A message.
#[derive(Debug)]
pub(crate) struct Message {
    /// The name in its scope.
    pub(crate) name: String,
    /// With its package and the messages around it.
    pub(crate) path: String,
    pub(crate) body: Body,
    /// The position of each field by its number.
    pub(crate) positions: HashMap<u32, usize>,
    /// What is declared within it.
    pub(crate) nested: Vec<Declared>,
    pub(crate) reserved: Vec<u32>,
}

/// Something with a name.
#[derive(Clone, Debug)]
pub(crate) enum Declared {
    Message(Arc<Message>),
    Enum(Arc<Enum>),
}

/// The fields of a message, by what the value is.
#[derive(Debug)]
pub(crate) enum Body {
    Record(Vec<Slot>),
    Tuple(Vec<Slot>),
    /// One option or list, where another one or a case would have to hold it.
    Wrapper(Box<Slot>),
    Flags(Vec<Flag>),
    Variant(OneOf),
    /// `ok`, then `err`.
    Result(OneOf),
}

/// A field of a record or tuple.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) form: Form,
}

/// How often a field's kind is there.
#[derive(Debug)]
pub(crate) enum Form {
    /// Once, where a scalar that is left out is zero.
    Plain(Kind),
    Optional(Kind),
    Repeated(Kind),
    /// So many times.
    Fixed(Kind, u32),
}

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: String,
    pub(crate) number: u32,
}

/// One of several fields.
#[derive(Debug)]
pub(crate) struct OneOf {
    pub(crate) name: String,
    pub(crate) arms: Vec<Arm>,
}

/// A case and its payload.
#[derive(Debug)]
pub(crate) struct Arm {
    pub(crate) name: String,
    pub(crate) number: u32,
    /// Nothing is `google.protobuf.Empty`.
    pub(crate) kind: Option<Kind>,
}

impl Form {
    pub(crate) fn kind(&self) -> &Kind {
        match self {
            Self::Plain(kind)
            | Self::Optional(kind)
            | Self::Repeated(kind)
            | Self::Fixed(kind, _) => kind,
        }
    }
}

impl Message {
    /// Its fields with their numbers.
    pub(crate) fn numbers(&self) -> Vec<(&str, u32)> {
        match &self.body {
            Body::Record(slots) | Body::Tuple(slots) => {
                slots.iter().map(|s| (&*s.name, s.number)).collect()
            }
            Body::Wrapper(slot) => vec![(&slot.name, slot.number)],
            Body::Flags(flags) => flags.iter().map(|f| (&*f.name, f.number)).collect(),
            Body::Variant(one) | Body::Result(one) => {
                one.arms.iter().map(|a| (&*a.name, a.number)).collect()
            }
        }
    }
}

/// Makes the messages of one package.
pub(super) struct Builder<'a> {
    package: String,
    lock: &'a ProtoLock,
    /// The names of types by their shapes' texts.
    names: BTreeMap<String, String>,
    /// What was made of those.
    made: HashMap<String, Kind>,
    pub(super) declared: Vec<Declared>,
}

/// A message under construction.
struct Parent {
    path: String,
    scope: Scope,
    nested: Vec<Declared>,
}

impl<'a> Builder<'a> {
    /// For a package in which the types of these shapes (by their texts) have these names.
    pub(super) fn new(
        package: String,
        lock: &'a ProtoLock,
        names: BTreeMap<String, String>,
    ) -> Self {
        Self {
            package,
            lock,
            names,
            made: HashMap::new(),
            declared: Vec::new(),
        }
    }

    /// A function's parameters.
    pub(super) fn request(&mut self, name: String, params: &[Field]) -> Arc<Message> {
        let path = format!("{}.{name}", self.package);
        self.top(name, path, |builder, parent| builder.record(params, parent))
    }

    /// A function's result: the sides of a `result`, any other value as the one field.
    pub(super) fn response(&mut self, name: String, result: Option<&Shape>) -> Arc<Message> {
        let path = format!("{}.{name}", self.package);
        self.top(name, path, |builder, parent| match result {
            None => Body::Record(Vec::new()),
            Some(result @ Shape::Result { .. }) => builder.body(result, parent),
            Some(shape) => Body::Record(builder.slots(&[("value".to_owned(), shape)], parent)),
        })
    }

    fn top(
        &mut self,
        name: String,
        path: String,
        body: impl FnOnce(&mut Self, &mut Parent) -> Body,
    ) -> Arc<Message> {
        let message = Arc::new(self.message(name, path, body));
        self.declared.push(Declared::Message(Arc::clone(&message)));
        message
    }

    fn message(
        &mut self,
        name: String,
        path: String,
        body: impl FnOnce(&mut Self, &mut Parent) -> Body,
    ) -> Message {
        let mut parent = Parent {
            path,
            scope: Scope::default(),
            nested: Vec::new(),
        };
        let body = body(self, &mut parent);
        let mut message = Message {
            name,
            body,
            positions: HashMap::new(),
            nested: parent.nested,
            reserved: self.reserved(&parent.path),
            path: parent.path,
        };
        let numbers = message.numbers().into_iter().enumerate();
        let positions = numbers.map(|(at, (_, number))| (number, at)).collect();
        message.positions = positions;
        message
    }

    fn reserved(&self, path: &str) -> Vec<u32> {
        let numbers = self.lock.of(path).into_iter();
        numbers
            .flat_map(|numbers| numbers.reserved.iter().copied())
            .collect()
    }

    /// The numbers of the fields or cases of a type.
    fn numbers(&self, path: &str, names: &[String]) -> Vec<u32> {
        let none = Numbers::default();
        let numbers = self.lock.of(path).unwrap_or(&none);
        numbers.assign(names.iter().map(String::as_str))
    }

    fn record(&mut self, fields: &[Field], parent: &mut Parent) -> Body {
        let fields: Vec<_> = fields
            .iter()
            .map(|field| (field.name.to_string(), &field.shape))
            .collect();
        Body::Record(self.slots(&fields, parent))
    }

    fn slots(&mut self, fields: &[(String, &Shape)], parent: &mut Parent) -> Vec<Slot> {
        let mut scope = Scope::default();
        let names: Vec<_> = fields
            .iter()
            .map(|(name, _)| scope.take(snake(name)))
            .collect();
        let numbers = self.numbers(&parent.path, &names);
        let named = names.into_iter().zip(numbers).zip(fields);
        named
            .map(|((name, number), (of, shape))| Slot {
                name,
                number,
                form: self.form(shape, of, parent),
            })
            .collect()
    }

    fn form(&mut self, shape: &Shape, field: &str, parent: &mut Parent) -> Form {
        match shape {
            Shape::Option(some) => Form::Optional(self.kind(some, field, parent)),
            Shape::List(item) => Form::Repeated(self.kind(item, field, parent)),
            Shape::Stream(_) | Shape::Future(_) => self.form(&shape.whole(), field, parent),
            Shape::FixedList(item, length) => Form::Fixed(self.kind(item, field, parent), *length),
            shape => Form::Plain(self.kind(shape, field, parent)),
        }
    }

    /// The kind of a value that is there once: options and lists are in a message of their own.
    fn kind(&mut self, shape: &Shape, field: &str, parent: &mut Parent) -> Kind {
        match shape {
            Shape::Bool => Kind::Bool,
            Shape::U8 => Kind::U8,
            Shape::U16 => Kind::U16,
            Shape::U32 => Kind::U32,
            Shape::U64 => Kind::U64,
            Shape::S8 => Kind::S8,
            Shape::S16 => Kind::S16,
            Shape::S32 => Kind::S32,
            Shape::S64 => Kind::S64,
            Shape::F32 => Kind::F32,
            Shape::F64 => Kind::F64,
            Shape::Char => Kind::Char,
            Shape::String => Kind::String,
            Shape::Bytes => Kind::Bytes,
            Shape::Stream(_) | Shape::Future(_) => self.kind(&shape.whole(), field, parent),
            composite => self.composite(composite, field, parent),
        }
    }

    fn composite(&mut self, shape: &Shape, field: &str, parent: &mut Parent) -> Kind {
        let text = shape.to_string();
        if let Some(made) = self.made.get(&text) {
            return made.clone();
        }
        if let Some(name) = self.names.get(&text).cloned() {
            let path = format!("{}.{name}", self.package);
            let kind = self.declare(shape, name, path);
            self.declared.extend(kind.declared());
            self.made.insert(text, kind.clone());
            return kind;
        }
        let name = parent.scope.take(upper_camel(field));
        let path = format!("{}.{name}", parent.path);
        let kind = self.declare(shape, name, path);
        parent.nested.extend(kind.declared());
        kind
    }

    fn declare(&mut self, shape: &Shape, name: String, path: String) -> Kind {
        if let Shape::Enum(cases) = shape {
            return Kind::Enum(Arc::new(self.cases(cases, name, path)));
        }
        let message = self.message(name, path, |builder, parent| builder.body(shape, parent));
        Kind::Message(Arc::new(message))
    }

    fn cases(&self, cases: &[Box<str>], name: String, path: String) -> Enum {
        let mut prefix = String::new();
        for (index, c) in name.char_indices() {
            // A capital after a small letter or a digit begins a word.
            let before = name.get(..index).and_then(|head| head.chars().last());
            let begins = c.is_ascii_uppercase() && before.is_some_and(|b| !b.is_ascii_uppercase());
            prefix.extend(begins.then_some('_'));
            prefix.push(c.to_ascii_uppercase());
        }
        let mut scope = Scope::default();
        let zero = scope.take(format!("{prefix}_UNSPECIFIED"));
        let names: Vec<_> = cases
            .iter()
            .map(|case| scope.take(format!("{prefix}_{}", shouting(case))))
            .collect();
        let numbers = self.numbers(&path, &names);
        Enum {
            name,
            zero,
            cases: names.into_iter().zip(numbers).collect(),
            reserved: self.reserved(&path),
            path,
        }
    }

    fn body(&mut self, shape: &Shape, parent: &mut Parent) -> Body {
        match shape {
            Shape::Record(fields) => self.record(fields, parent),
            Shape::Tuple(items) => {
                let items = items.iter().enumerate();
                let items: Vec<_> = items.map(|(at, item)| (format!("f{at}"), item)).collect();
                Body::Tuple(self.slots(&items, parent))
            }
            Shape::Flags(names) => {
                let mut scope = Scope::default();
                let names: Vec<_> = names.iter().map(|name| scope.take(snake(name))).collect();
                let numbers = self.numbers(&parent.path, &names);
                let flags = names.into_iter().zip(numbers);
                Body::Flags(flags.map(|(name, number)| Flag { name, number }).collect())
            }
            Shape::Variant(cases) => Body::Variant(self.one_of("case", cases, parent)),
            Shape::Result { ok, err } => {
                let side = |name: &str, payload: &Option<Box<Shape>>| Case {
                    name: name.into(),
                    payload: payload.as_deref().cloned(),
                };
                let sides = [side("ok", ok), side("err", err)];
                Body::Result(self.one_of("result", &sides, parent))
            }
            wrapped => {
                let name = match wrapped {
                    Shape::Option(_) => "value",
                    _ => "values",
                };
                let mut slots = self.slots(&[(name.to_owned(), wrapped)], parent);
                match slots.pop() {
                    Some(slot) => Body::Wrapper(Box::new(slot)),
                    None => Body::Record(slots),
                }
            }
        }
    }

    fn one_of(&mut self, name: &str, cases: &[Case], parent: &mut Parent) -> OneOf {
        let mut scope = Scope::default();
        let names: Vec<_> = cases
            .iter()
            .map(|case| scope.take(snake(&case.name)))
            .collect();
        let numbers = self.numbers(&parent.path, &names);
        let named = names.into_iter().zip(numbers).zip(cases);
        let arms = named.map(|((name, number), case)| Arm {
            name,
            number,
            kind: case
                .payload
                .as_ref()
                .map(|payload| self.kind(payload, &case.name, parent)),
        });
        OneOf {
            arms: arms.collect(),
            name: scope.take(name.to_owned()),
        }
    }
}

impl Kind {
    fn declared(&self) -> Option<Declared> {
        match self {
            Self::Enum(one) => Some(Declared::Enum(Arc::clone(one))),
            Self::Message(message) => Some(Declared::Message(Arc::clone(message))),
            _ => None,
        }
    }
}
