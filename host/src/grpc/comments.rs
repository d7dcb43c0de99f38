//! The documentation comments of WIT at the names that functions and types have in `.proto` files.

use std::collections::{BTreeMap, BTreeSet};

use super::Api;
use super::types::{Body, Kind, Message};
use crate::plan::{Description, docs_of};
use crate::shape::{Docs, Shape};

/// Texts by full names: `shop.orders.v1.Orders.Place`, `shop.orders.v1.Line.sku`.
pub(super) type Comments = BTreeMap<String, String>;

/// What is said of all that an API has. Where types of two interfaces are one message, what both say.
pub(super) fn comments(api: &Api, components: &BTreeMap<String, Description>) -> Comments {
    let mut all = Comments::new();
    let mut disputed = BTreeSet::new();
    for package in &api.packages {
        for service in &package.services {
            let full = format!("{}.{}", package.name, service.name);
            for method in &service.methods {
                let signature = &method.signature;
                let Some(docs) = docs_of(components, &method.function, signature) else {
                    continue;
                };
                let mut found = Found {
                    docs,
                    texts: Comments::new(),
                    seen: BTreeSet::new(),
                };
                found.add(&full, "", docs.text.as_deref());
                let text = docs.functions.get(&method.function.name);
                found.add(&full, &method.name, text.map(String::as_str));
                let params = signature.params.iter().map(|param| &param.shape).cloned();
                found.message(&Shape::Tuple(params.collect()), &method.request);
                match &signature.result {
                    Some(result @ Shape::Result { .. }) => found.message(result, &method.response),
                    Some(value) => {
                        found.message(&Shape::Tuple([value.clone()].into()), &method.response);
                    }
                    None => {}
                }
                for (name, text) in found.texts {
                    let known = all.entry(name.clone()).or_insert_with(|| text.clone());
                    if *known != text {
                        disputed.insert(name);
                    }
                }
            }
        }
    }
    all.retain(|name, _| !disputed.contains(name));
    all
}

/// What is found of one function.
struct Found<'a> {
    docs: &'a Docs,
    texts: Comments,
    /// The messages that were looked at.
    seen: BTreeSet<&'a str>,
}

impl<'a> Found<'a> {
    fn add(&mut self, path: &str, name: &str, text: Option<&str>) {
        let Some(text) = text else { return };
        let dot = if name.is_empty() { "" } else { "." };
        self.texts
            .insert(format!("{path}{dot}{name}"), text.to_owned());
    }

    /// Adds what is said of a type and its members, which have these names in their order.
    fn named<'n>(&mut self, shape: &Shape, path: &str, names: impl Iterator<Item = &'n str>) {
        let docs = self.docs;
        let Some(known) = docs.of(shape) else { return };
        self.add(path, "", known.text.as_deref());
        let members: Vec<&str> = match shape {
            Shape::Record(fields) => fields.iter().map(|field| &*field.name).collect(),
            Shape::Variant(cases) => cases.iter().map(|case| &*case.name).collect(),
            Shape::Enum(all) | Shape::Flags(all) => all.iter().map(|name| &**name).collect(),
            _ => Vec::new(),
        };
        for (member, name) in members.into_iter().zip(names) {
            self.add(path, name, known.member(member));
        }
    }

    fn message(&mut self, shape: &Shape, message: &'a Message) {
        if !self.seen.insert(&message.path) {
            return;
        }
        let numbers = message.numbers();
        self.named(shape, &message.path, numbers.iter().map(|(name, _)| *name));
        match (shape, &message.body) {
            (Shape::Record(fields), Body::Record(slots)) => {
                for (field, slot) in fields.iter().zip(slots) {
                    self.value(&field.shape, slot.form.kind());
                }
            }
            (Shape::Tuple(items), Body::Record(slots) | Body::Tuple(slots)) => {
                for (item, slot) in items.iter().zip(slots) {
                    self.value(item, slot.form.kind());
                }
            }
            (wrapped, Body::Wrapper(slot)) => self.value(wrapped, slot.form.kind()),
            (Shape::Variant(cases), Body::Variant(one)) => {
                for (case, arm) in cases.iter().zip(&one.arms) {
                    if let (Some(payload), Some(kind)) = (&case.payload, &arm.kind) {
                        self.value(payload, kind);
                    }
                }
            }
            (Shape::Result { ok, err }, Body::Result(one)) => {
                for (side, arm) in [ok, err].into_iter().zip(&one.arms) {
                    if let (Some(payload), Some(kind)) = (side, &arm.kind) {
                        self.value(payload, kind);
                    }
                }
            }
            _ => {}
        }
    }

    /// Looks at a value of a field, which is the value's own kind or that of what is in it.
    fn value(&mut self, shape: &Shape, kind: &'a Kind) {
        let shape = match shape {
            Shape::Future(value) => return self.value(value, kind),
            Shape::Option(inner)
            | Shape::List(inner)
            | Shape::FixedList(inner, _)
            | Shape::Stream(inner) => inner,
            shape => shape,
        };
        match kind {
            Kind::Message(message) => self.message(shape, message),
            Kind::Enum(one) => {
                let names = one.cases.iter().map(|(name, _)| name.as_str());
                self.named(shape, &one.path, names);
            }
            _ => {}
        }
    }
}
