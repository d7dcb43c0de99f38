//! Interfaces wired as events: which functions may be events, their subscribers, and their keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{EventProblem, PlanError, Wiring, events, owned_nearest};
use crate::interface::InterfaceId;
use crate::manifest::EventSpec;
use crate::shape::{Field, InterfaceDescription, Shape, Signature};
use crate::text::did_you_mean;
use crate::value::Value;

/// An interface that is wired as events, in one of its tracks.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EventWire {
    /// The interface, in the version of one of its users; only the track counts.
    pub interface: InterfaceId,
    /// The specification in the manifest.
    pub spec: EventSpec,
    /// Its functions by name.
    pub functions: BTreeMap<String, EventFunction>,
    /// The subscribers, each with the version that it exports.
    pub subscribers: BTreeMap<String, InterfaceId>,
}

/// A kind of event.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EventFunction {
    /// Its type.
    pub signature: Signature,
    /// The path to the key, if a key orders the events.
    pub key: Option<KeyPath>,
}

/// The path to the key in a function's arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPath {
    /// The parameter's index, then indices of record fields.
    indices: Vec<usize>,
    /// The names of the cases, if the key is an enum.
    cases: Box<[Box<str>]>,
}

impl KeyPath {
    /// The text of the key in arguments of the type that the path was resolved against.
    #[must_use]
    pub fn text<'v>(&'v self, arguments: &'v [Value]) -> Option<Cow<'v, str>> {
        let (first, fields) = self.indices.split_first()?;
        let key = fields
            .iter()
            .try_fold(arguments.get(*first)?, |value, field| match value {
                Value::Record(fields) => fields.get(*field),
                _ => None,
            })?;
        Some(match key {
            Value::String(text) => text.into(),
            Value::Enum(case) => self.cases.get(*case as usize)?.as_ref().into(),
            Value::Bool(value) => value.to_string().into(),
            Value::U8(value) => value.to_string().into(),
            Value::U16(value) => value.to_string().into(),
            Value::U32(value) => value.to_string().into(),
            Value::U64(value) => value.to_string().into(),
            Value::S8(value) => value.to_string().into(),
            Value::S16(value) => value.to_string().into(),
            Value::S32(value) => value.to_string().into(),
            Value::S64(value) => value.to_string().into(),
            Value::Char(value) => value.to_string().into(),
            // No key is of any other type.
            _ => return None,
        })
    }

    /// Resolves a path of kebab-case names.
    pub(crate) fn resolve(
        name: &str,
        signature: &Signature,
        path: &[String],
    ) -> Result<Self, EventProblem> {
        let refuse = |depth: usize| EventProblem::Key {
            function: name.to_owned(),
            path: path.get(..depth).unwrap_or(path).join("."),
        };
        let mut indices = Vec::new();
        let mut fields: &[Field] = &signature.params;
        let mut shape: Option<&Shape> = None;
        for (depth, step) in path.iter().enumerate() {
            if let Some(shape) = shape {
                let Shape::Record(below) = shape else {
                    return Err(refuse(depth));
                };
                fields = below;
            }
            let found = fields.iter().enumerate().find(|(_, f)| *f.name == **step);
            let (index, field) = found.ok_or_else(|| {
                let known: Vec<_> = fields.iter().map(|f| f.name.to_string()).collect();
                EventProblem::NoKey {
                    function: name.to_owned(),
                    what: if depth == 0 { "parameter" } else { "field" },
                    name: step.clone(),
                    suggestion: did_you_mean(step, known.iter().map(String::as_str)),
                    known,
                }
            })?;
            indices.push(index);
            shape = Some(&field.shape);
        }
        let cases = match shape {
            Some(Shape::Enum(cases)) => cases.clone(),
            Some(shape) if shape.is_key() => Box::default(),
            _ => return Err(refuse(path.len())),
        };
        Ok(Self { indices, cases })
    }
}

/// Whether a function can be an event: its result has no value but the outcome, and all that it takes is in the
/// message.
fn can_be_event(signature: &Signature) -> bool {
    let has_value = !matches!(
        signature.result,
        None | Some(Shape::Result { ok: None, .. })
    );
    !has_value && signature.stream().is_none()
}

impl Wiring<'_> {
    /// Checks the wire of events in the manifest.
    pub(super) fn check_event_wire(
        &self,
        interface: &InterfaceId,
        spec: &EventSpec,
    ) -> Result<(), PlanError> {
        let fail = |problem| PlanError::Event {
            interface: interface.clone(),
            problem,
        };
        let known = || {
            self.services
                .iter()
                .flat_map(|s| s.exports.iter().chain(s.imports))
        };
        if !known().any(|known| known.id.answers_to(interface)) && !self.is_called(interface) {
            let names: Vec<_> = known().map(|known| known.id.to_string()).collect();
            let nearest = owned_nearest(&interface.to_string(), &names);
            return Err(fail(EventProblem::Unused { nearest }));
        }
        let exports = |service: &str| {
            let mut own = self.exporters.iter().filter(|(name, _)| *name == service);
            own.any(|(_, export)| export.id.answers_to(interface))
        };
        let named = spec.durable.iter().flat_map(|d| d.subscribers.keys());
        match named.into_iter().find(|service| !exports(service)) {
            None => Ok(()),
            Some(service) => Err(fail(EventProblem::NoSubscriber {
                service: service.clone(),
                subscribers: self
                    .services
                    .iter()
                    .filter(|s| exports(s.name))
                    .map(|s| s.name.to_owned())
                    .collect(),
            })),
        }
    }

    /// The wires of events, from the signatures of their subscribers and publishers.
    pub(super) fn plan_events(&self, errors: &mut Vec<PlanError>) -> Vec<Arc<EventWire>> {
        let exports = self
            .exporters
            .iter()
            .map(|(name, export)| (*name, *export, true));
        let imports = self
            .services
            .iter()
            .flat_map(|s| s.imports.iter().map(|import| (s.name, import, false)));
        let mut wires: Vec<EventWire> = Vec::new();
        for (service, description, subscribes) in exports.chain(imports) {
            let Some(spec) = events(self.app, &description.id) else {
                continue;
            };
            let known = wires
                .iter()
                .position(|wire| wire.interface.compatible(&description.id));
            let index = known.unwrap_or_else(|| {
                wires.push(EventWire {
                    interface: description.id.clone(),
                    spec: spec.clone(),
                    functions: BTreeMap::new(),
                    subscribers: BTreeMap::new(),
                });
                wires.len() - 1
            });
            let Some(wire) = wires.get_mut(index) else {
                continue;
            };
            let problems = wire.add(service, description, subscribes);
            errors.extend(problems.into_iter().map(|problem| PlanError::Event {
                interface: description.id.clone(),
                problem,
            }));
        }
        wires.into_iter().map(Arc::new).collect()
    }
}

impl EventWire {
    /// Whether events are published alike on both wires, whatever their subscribers.
    pub(crate) fn publishes_alike(&self, other: &Self) -> bool {
        self.interface.track() == other.interface.track()
            && self.functions == other.functions
            && self.spec.durable.is_some() == other.spec.durable.is_some()
    }

    /// Adds one service's side of the interface.
    fn add(
        &mut self,
        service: &str,
        description: &InterfaceDescription,
        subscribes: bool,
    ) -> Vec<EventProblem> {
        let mut problems = Vec::new();
        let order_by = self.spec.durable.as_ref().and_then(|d| d.order_by.as_ref());
        for (name, signature) in &description.functions {
            if let Some(known) = self.functions.get(name) {
                // A difference of an importer is reported with the imports.
                if subscribes && known.signature != *signature {
                    problems.push(EventProblem::Disagree {
                        one: self.subscribers.keys().next().cloned().unwrap_or_default(),
                        other: service.to_owned(),
                        function: name.clone(),
                        first: Box::new(known.signature.clone()),
                        second: Box::new(signature.clone()),
                    });
                }
                continue;
            }
            if !can_be_event(signature) {
                problems.push(EventProblem::Result {
                    service: service.to_owned(),
                    function: name.clone(),
                    signature: Box::new(signature.clone()),
                });
            }
            let key = order_by.map(|path| KeyPath::resolve(name, signature, path));
            let key = key.transpose().unwrap_or_else(|problem| {
                problems.push(problem);
                None
            });
            let signature = signature.clone();
            self.functions
                .insert(name.clone(), EventFunction { signature, key });
        }
        if subscribes {
            self.subscribers
                .insert(service.to_owned(), description.id.clone());
        }
        problems
    }
}
