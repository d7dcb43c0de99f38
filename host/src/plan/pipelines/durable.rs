//! Durable functions, checked by their types: each is a pipeline without steps of its own. Its steps are the
//! calls that the function makes.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::filled::find;
use super::problem::Problem;
use super::provided;
use super::roots::{Known, KnownStep, Scope};
use super::{
    Check, Filled, Pipeline, PipelineProblem, Root, Secret, Secrets, StepCall, millis, sides,
};
use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::{
    ActSpec, CallSpec, DurableFunction, DurableSpec, OnError, PipelineSpec, Place, ServiceSpec,
    StepSpec, Template,
};
use crate::plan::{Described, PlanError, Publication, Wiring, events};
use crate::shape::{InterfaceDescription, Shape, Signature};
use crate::subject;
use crate::text::did_you_mean;

/// The roots of paths in an undo: the arguments of the call and its result.
const ROOTS: [&str; 2] = ["args", "result"];

/// The root of a call's arguments, before the call is made; see [`Filled::of_call`].
const ARGUMENTS: usize = 0;

/// A function whose calls of others are steps of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Durable {
    /// The service that exports it.
    pub service: String,
    /// What it may call. A run keeps of these what it has called.
    #[serde(skip)]
    pub imports: Vec<Import>,
}

/// A function that durable ones may call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Import {
    /// The subject of its calls, or the first part of those of its events.
    pub subject: String,
    /// How it is called; without arguments.
    pub call: StepCall,
    /// What undoes it, with paths into the call's arguments and result.
    pub undo: Option<StepCall>,
    /// What is not shown of its calls.
    pub secrets: Secrets,
}

/// Why a function cannot be durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurableProblem {
    /// The service does not export it.
    #[error("`durable`: it does not export {function}{suggestion}")]
    NotExported {
        /// The function.
        function: Box<FunctionId>,
        /// The nearest of its functions, as the end of a sentence.
        suggestion: String,
    },
    /// Its component may do several things at once.
    #[error(
        "`durable`: {0} is of an asynchronous component, which would not take the same way when it is run again; build it for WASI 0.2, with plain functions"
    )]
    Concurrent(Box<FunctionId>),
    /// Another service answers it.
    #[error("`durable`: a wire has {0} answered elsewhere; leave one of the two out")]
    NotServed(Box<FunctionId>),
    /// It is an event.
    #[error(
        "`durable`: {0} is wired as events, which are tried again by their stream; accepted: a function that is called"
    )]
    Event(Box<InterfaceId>),
    /// Some importer calls it past its runs.
    #[error(
        "`durable`: a service has chosen this one for {0} in its `wire`, and would call it past its runs; remove that wire"
    )]
    Chosen(Box<InterfaceId>),
    /// Something else has runs of the same name.
    #[error(
        "`durable`: the runs of {function} would have the name \"{name}\", as those of another have; rename one"
    )]
    Name {
        /// The function.
        function: Box<FunctionId>,
        /// The name.
        name: String,
    },
    /// An undo of what is not called.
    #[error("`undo`: it does not import {function}{suggestion}")]
    NotImported {
        /// The function.
        function: Box<FunctionId>,
        /// The nearest imported function, as the end of a sentence.
        suggestion: String,
    },
    /// A secret value of what is neither exported nor called.
    #[error("`secret`: it neither exports nor imports {function}{suggestion}")]
    NoSecret {
        /// The function.
        function: Box<FunctionId>,
        /// The nearest function, as the end of a sentence.
        suggestion: String,
    },
    /// A secret value that is not there.
    #[error("`secret` of {function}: {problem}")]
    Secret {
        /// The function.
        function: Box<FunctionId>,
        /// Why.
        problem: Box<Problem>,
    },
    /// An undo that does not fit.
    #[error("`undo` of {function}: {problem}")]
    Undo {
        /// The function.
        function: Box<FunctionId>,
        /// Why.
        problem: Box<PipelineProblem>,
    },
}

impl Wiring<'_> {
    /// Plans the durable functions of the app; reports what is wrong with them.
    pub(in crate::plan) fn plan_durable(&self, errors: &mut Vec<PlanError>) -> Vec<Pipeline> {
        let mut planned = Vec::new();
        for spec in self.app.services.values() {
            let service = self
                .services
                .iter()
                .find(|service| service.name == spec.name);
            let Some(service) = service else {
                continue;
            };
            let mut unknown = check_secrets(spec, service);
            let Some(durable) = &spec.durable else {
                errors.extend(unknown);
                continue;
            };
            unknown.extend(self.check_undos(spec, service));
            if !unknown.is_empty() {
                errors.extend(unknown);
                continue;
            }
            for function in &durable.functions {
                match self.plan_function(spec, durable, function, service) {
                    Ok(pipeline) => planned.push(pipeline),
                    Err(found) => errors.extend(found),
                }
            }
        }
        planned
    }

    /// Reports undos of what the service does not import.
    fn check_undos(&self, spec: &ServiceSpec, service: &Described<'_>) -> Vec<PlanError> {
        let imported = || functions(service.imports);
        let unknown = spec
            .undo
            .iter()
            .filter(|(wanted, _)| !imported().any(|(function, _)| is(&function, wanted)));
        let problem = |(wanted, call): (&FunctionId, &CallSpec)| {
            let names: Vec<_> = imported()
                .map(|(function, _)| function.to_string())
                .collect();
            let suggestion = did_you_mean(&wanted.to_string(), names.iter().map(String::as_str));
            let function = Box::new(wanted.clone());
            let problem = DurableProblem::NotImported {
                function,
                suggestion,
            };
            error(spec, &call.place, problem)
        };
        unknown.map(problem).collect()
    }

    fn plan_function(
        &self,
        spec: &ServiceSpec,
        durable: &DurableSpec,
        wanted: &DurableFunction,
        service: &Described<'_>,
    ) -> Result<Pipeline, Vec<PlanError>> {
        let refuse = |problem| vec![error(spec, &wanted.place, problem)];
        let (function, signature) = self.exported(wanted, service).map_err(refuse)?;
        let name = wanted.runs(&spec.name);
        if self.app.runs().filter(|(other, _)| *other == name).count() > 1 {
            let function = Box::new(function);
            return Err(refuse(DurableProblem::Name { function, name }));
        }
        let stand_in = PipelineSpec {
            name: name.clone(),
            place: wanted.place.clone(),
            implements: function.clone(),
            signature: None,
            steps: Vec::new(),
            result: None,
            secret: Vec::new(),
            bounds: durable.bounds.clone(),
        };
        let mut imports = Vec::new();
        let mut errors = Vec::new();
        for (imported, imported_type) in functions(service.imports) {
            let undo = spec.undo.iter().find(|(undone, _)| is(&imported, undone));
            let undo = match undo {
                None => None,
                Some((_, call)) => {
                    let types = (signature, imported_type);
                    match self.plan_undo(&stand_in, spec, &imported, types, call) {
                        Ok(undo) => Some(undo),
                        Err(found) => {
                            errors.extend(found);
                            continue;
                        }
                    }
                }
            };
            match secrets_of(spec, &imported, imported_type) {
                Ok(secrets) => {
                    let call = (imported, imported_type);
                    imports.push(self.import(spec, durable, call, undo, secrets));
                }
                Err(found) => errors.push(found),
            }
        }
        imports.extend(provided::imports(
            &StepCall {
                function: function.clone(),
                signature: signature.clone(),
                with: Filled::Object(Vec::new()),
                shown: None,
                timeout: millis(durable.timeout),
                attempts: durable.retry.attempts,
                backoff: durable.retry.backoff.iter().copied().map(millis).collect(),
                event: None,
            },
            !spec.secret.is_empty(),
        ));
        let own = secrets_of(spec, &function, signature);
        let own = own.unwrap_or_else(|found| {
            errors.push(found);
            Secrets::default()
        });
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Pipeline {
            name,
            function,
            signature: signature.clone(),
            steps: Vec::new(),
            result: None,
            secret: own.arguments.into_iter().map(Secret::of_input).collect(),
            secret_result: own.result,
            deadline: millis(durable.bounds.deadline),
            keep: durable.bounds.keep.as_secs(),
            journal: durable.bounds.journal,
            durable: Some(Durable {
                service: spec.name.clone(),
                imports,
            }),
        })
    }

    /// The exported function that is meant, if calls of it can be runs.
    fn exported<'s>(
        &self,
        wanted: &DurableFunction,
        service: &Described<'s>,
    ) -> Result<(FunctionId, &'s Signature), DurableProblem> {
        let exported = || functions(service.exports);
        let found = exported().find(|(function, _)| is(function, &wanted.function));
        let Some((function, signature)) = found else {
            let names: Vec<_> = exported()
                .map(|(function, _)| function.to_string())
                .collect();
            let function = Box::new(wanted.function.clone());
            let wanted = wanted.function.to_string();
            let suggestion = did_you_mean(&wanted, names.iter().map(String::as_str));
            return Err(DurableProblem::NotExported {
                function,
                suggestion,
            });
        };
        if service.concurrent {
            return Err(DurableProblem::Concurrent(Box::new(function)));
        }
        let interface = &function.interface;
        if events(self.app, interface).is_some() {
            return Err(DurableProblem::Event(Box::new(interface.clone())));
        }
        let mut exporters = self.exporters.iter();
        if !exporters.any(|(name, export)| *name == service.name && export.id == *interface) {
            return Err(DurableProblem::NotServed(Box::new(function)));
        }
        let mut choices = self.app.services.values().flat_map(|spec| &spec.wires);
        if choices.any(|(wired, chosen)| chosen == service.name && interface.answers_to(wired)) {
            return Err(DurableProblem::Chosen(Box::new(interface.clone())));
        }
        Ok((function, signature))
    }

    fn import(
        &self,
        spec: &ServiceSpec,
        durable: &DurableSpec,
        (function, signature): (FunctionId, &Signature),
        undo: Option<StepCall>,
        secrets: Secrets,
    ) -> Import {
        let app = &self.app.name;
        let subject = match spec.exporter_of(&function.interface) {
            Some(exporter) => subject::of_service_function(app, exporter, &function),
            None => subject::of_function(app, &function),
        };
        let wire = events(self.app, &function.interface);
        Import {
            subject,
            call: StepCall {
                event: wire.map(|wire| Publication::of(app, wire, &function, signature)),
                function,
                signature: signature.clone(),
                with: Filled::Object(Vec::new()),
                shown: None,
                timeout: millis(durable.timeout),
                attempts: durable.retry.attempts,
                backoff: durable.retry.backoff.iter().copied().map(millis).collect(),
            },
            undo,
            secrets,
        }
    }

    /// Checks what undoes the calls of an imported function, which has the second of the two types.
    fn plan_undo(
        &self,
        stand_in: &PipelineSpec,
        spec: &ServiceSpec,
        imported: &FunctionId,
        (own, signature): (&Signature, &Signature),
        call: &CallSpec,
    ) -> Result<StepCall, Vec<PlanError>> {
        let (value, _) = sides(signature);
        let arguments = Known::new(Shape::Record(signature.params.clone()), false);
        let result = value.map(|shape| Known::new(shape.clone(), false));
        let known = [Some(arguments), result];
        let step = |(name, value): (&str, _)| KnownStep {
            name: name.to_owned(),
            group: None,
            value,
        };
        let mut check = Check {
            wiring: self,
            spec: stand_in,
            input: Shape::Record(own.params.clone()),
            steps: ROOTS.into_iter().zip(known).map(step).collect(),
            scope: Scope::default(),
            errors: Vec::new(),
        };
        let step = StepSpec {
            name: imported.to_string(),
            place: call.place.clone(),
            act: ActSpec::Call(call.clone()),
            when: None,
            group: None,
            each: None,
            on_error: OnError::Fail,
            error: None,
            undo: None,
        };
        let planned = check.call(&step, call, "");
        let explain = |found| match found {
            PlanError::Pipeline { place, problem, .. } => {
                let function = Box::new(imported.clone());
                error(spec, &place, DurableProblem::Undo { function, problem })
            }
            other => other,
        };
        planned.ok_or_else(|| check.errors.into_iter().map(explain).collect())
    }
}

impl Filled {
    /// The same for one call of a run: of the two roots that it was checked with, the first is the call's
    /// arguments, which are known, and the second its result, which is that of the step `index`.
    pub(crate) fn of_call(&self, arguments: &RawValue, index: usize) -> Option<Self> {
        Some(match self {
            Self::Path {
                of: Root::Step(ARGUMENTS),
                path,
                ..
            } => Self::constant(RawValue::from_string(find(arguments, path)?.to_owned()).ok()?),
            Self::Path {
                of: Root::Step(_),
                path,
                optional,
                some,
            } => Self::Path {
                of: Root::Step(index),
                path: path.clone(),
                optional: *optional,
                some: *some,
            },
            Self::Object(entries) => {
                let entries = entries.iter();
                let entries = entries
                    .map(|(key, value)| Some((key.clone(), value.of_call(arguments, index)?)));
                Self::Object(entries.collect::<Option<_>>()?)
            }
            Self::Array(items) => {
                let items = items.iter().map(|item| item.of_call(arguments, index));
                Self::Array(items.collect::<Option<_>>()?)
            }
            other => other.clone(),
        })
    }
}

fn error(spec: &ServiceSpec, place: &Place, problem: DurableProblem) -> PlanError {
    PlanError::Durable {
        place: place.clone(),
        service: spec.name.clone(),
        problem: Box::new(problem),
    }
}

/// The secret values of calls of a function, by the manifest.
pub(crate) fn secrets_of(
    spec: &ServiceSpec,
    function: &FunctionId,
    signature: &Signature,
) -> Result<Secrets, PlanError> {
    let mut secret = spec.secret.iter();
    let Some((_, paths)) = secret.find(|(typed, _)| is(function, typed)) else {
        return Ok(Secrets::default());
    };
    Secrets::of(signature, paths).map_err(|(place, problem)| {
        let function = Box::new(function.clone());
        error(spec, &place, DurableProblem::Secret { function, problem })
    })
}

/// Reports secret values of functions that are neither exported nor imported, and those that are not there.
fn check_secrets(spec: &ServiceSpec, service: &Described<'_>) -> Vec<PlanError> {
    let all = || functions(service.exports).chain(functions(service.imports));
    let known: Vec<FunctionId> = all().map(|(function, _)| function).collect();
    let unknown = spec.secret.iter().filter(|(typed, _)| {
        let mut known = known.iter();
        !known.any(|function| is(function, typed))
    });
    let problem = |(typed, paths): (&FunctionId, &Vec<Template>)| {
        let names: Vec<_> = known.iter().map(ToString::to_string).collect();
        let suggestion = did_you_mean(&typed.to_string(), names.iter().map(String::as_str));
        let function = Box::new(typed.clone());
        let place = paths.first().map(|path| path.place.clone());
        let problem = DurableProblem::NoSecret {
            function,
            suggestion,
        };
        error(spec, &place.unwrap_or_default(), problem)
    };
    let mut errors: Vec<_> = unknown.map(problem).collect();
    // Those of a service with durable functions are reported with these.
    if spec.durable.is_none() {
        let wrong = |(function, signature): (FunctionId, &Signature)| {
            secrets_of(spec, &function, signature).err()
        };
        errors.extend(all().filter_map(wrong));
    }
    errors
}

fn functions(
    interfaces: &[InterfaceDescription],
) -> impl Iterator<Item = (FunctionId, &Signature)> {
    interfaces.iter().flat_map(|interface| {
        let functions = interface.functions.iter();
        functions.map(|(name, signature)| (interface.id.function(name), signature))
    })
}

/// Whether a function is the one that was typed, perhaps without a version.
fn is(function: &FunctionId, typed: &FunctionId) -> bool {
    function.name == typed.name && function.interface.answers_to(&typed.interface)
}

#[cfg(test)]
mod tests;
