//! The circuit breakers of wires: the calls that each counts, and what answers instead of them.

use std::collections::{BTreeMap, BTreeSet};

use super::pipelines::literal;
use super::{Plan, PlanError, Wiring, check_functions, list, owned_nearest, suggestion};
use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::{BreakerPolicy, Fallback, Place, Provider, Template, Wire};
use crate::shape::{InterfaceDescription, Signature};

/// A circuit breaker: the calls of one wire that a host sends.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    /// The interface as the manifest has it.
    pub wire: InterfaceId,
    /// When it opens.
    pub policy: BreakerPolicy,
    /// The functions that are called over the wire, with what answers while it is open.
    pub functions: BTreeMap<FunctionId, Option<Instead>>,
}

/// What answers a function while a breaker is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instead {
    /// The same function of this service.
    Service(String),
    /// This result, as JSON.
    Json(String),
}

/// The problem of a breaker's fallback.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BreakerProblem {
    /// The service does not export the interface.
    #[error("`fallback`: service \"{service}\" does not export it (it exports: {})", list(.exports))]
    NotExported {
        /// The service.
        service: String,
        /// What it exports.
        exports: Vec<String>,
    },
    /// The service is the one whose calls fail.
    #[error(
        "`fallback`: service \"{service}\" is the one that answers the wire; name another that exports it"
    )]
    Same {
        /// The service.
        service: String,
    },
    /// The service calls the interface, and would come back to itself.
    #[error(
        "`fallback`: service \"{service}\" imports it, and would call itself while the breaker is open; choose \
         who answers it: `[service.{service}.wire]`"
    )]
    CallsItself {
        /// The service.
        service: String,
    },
    /// A value for a function that is not called over the wire.
    #[error("`fallback`: there is no function `{name}`{} (called are: {})", suggestion(.nearest), list(.functions))]
    NoFunction {
        /// The function.
        name: String,
        /// The nearest of those that are called.
        nearest: Option<String>,
        /// All of them.
        functions: Vec<String>,
    },
    /// A value for a function that returns none.
    #[error(
        "`fallback`: `{name}` returns nothing, so there is no value to return instead; remove it"
    )]
    NoResult {
        /// The function.
        name: String,
    },
    /// A value of another type.
    #[error("`fallback`: `{name}`: {why}")]
    Value {
        /// The function.
        name: String,
        /// What does not fit.
        why: String,
    },
}

type Functions = BTreeMap<FunctionId, Option<Instead>>;

fn fail(wire: &Wire, problem: BreakerProblem) -> PlanError {
    placed(wire, &Place::default(), problem)
}

fn placed(wire: &Wire, place: &Place, problem: BreakerProblem) -> PlanError {
    PlanError::Breaker {
        place: place.clone(),
        interface: wire.interface.clone(),
        problem,
    }
}

/// Has the functions that a service exports answered by it while the breaker is open.
fn answer_by(service: &str, export: &InterfaceDescription, functions: &mut Functions) {
    for (function, instead) in functions {
        let is_own = export.id.compatible(&function.interface)
            && export.functions.contains_key(&function.name);
        if is_own {
            *instead = Some(Instead::Service(service.to_owned()));
        }
    }
}

impl<'a> Wiring<'a> {
    /// The service that answers while the breaker of this interface is open, and not before.
    pub(super) fn fallback_of(wire: &Wire) -> Option<&str> {
        match wire.breaker.as_ref()?.fallback.as_ref()? {
            Fallback::Service(name) => Some(name),
            Fallback::Values(_) => None,
        }
    }

    /// Plans the breakers, after everything that is called over wires. What fallback services answer is
    /// added to what was chosen.
    pub(super) fn plan_breakers(&self, plan: &mut Plan, errors: &mut Vec<PlanError>) {
        for wire in &self.app.wires {
            let Some(breaker) = &wire.breaker else {
                continue;
            };
            let called = called(plan, &wire.interface).into_iter();
            let mut functions: Functions = called.map(|function| (function, None)).collect();
            match &breaker.fallback {
                None => {}
                Some(Fallback::Values(values)) => {
                    for (name, template) in values {
                        errors.extend(self.plan_value(wire, name, template, &mut functions));
                    }
                }
                Some(Fallback::Service(service)) => {
                    let exports = self.fallback_exports(wire, service);
                    let exports = exports.map_err(|problem| fail(wire, problem));
                    match exports {
                        Err(error) => errors.push(error),
                        Ok(exports) => {
                            let chosen = plan.chosen.entry(service.clone()).or_default();
                            for export in exports {
                                errors.extend(self.check_fallback(service, export));
                                answer_by(service, export, &mut functions);
                                let names = export.functions.keys().cloned().collect();
                                chosen.insert(export.id.clone(), names);
                            }
                        }
                    }
                }
            }
            plan.breakers.push(Breaker {
                wire: wire.interface.clone(),
                policy: breaker.policy.clone(),
                functions,
            });
        }
    }

    /// Has functions of this name return a value while the breaker is open.
    fn plan_value(
        &self,
        wire: &Wire,
        name: &str,
        template: &Template,
        functions: &mut Functions,
    ) -> Vec<PlanError> {
        let names: BTreeSet<_> = functions.keys().map(|f| f.name.clone()).collect();
        if !names.contains(name) {
            let functions: Vec<_> = names.into_iter().collect();
            let problem = BreakerProblem::NoFunction {
                name: name.to_owned(),
                nearest: owned_nearest(name, &functions),
                functions,
            };
            return vec![placed(wire, &template.place, problem)];
        }
        let mut errors = Vec::new();
        let own = functions.iter_mut().filter(|(f, _)| f.name == name);
        for (function, instead) in own {
            let name = || name.to_owned();
            let result = self.signature(function).and_then(|s| s.result.as_ref());
            let Some(result) = result else {
                let problem = BreakerProblem::NoResult { name: name() };
                errors.push(placed(wire, &template.place, problem));
                continue;
            };
            match literal(template, result) {
                Ok(text) => *instead = Some(Instead::Json(text.get().to_owned())),
                Err((place, why)) => {
                    let problem = BreakerProblem::Value { name: name(), why };
                    errors.push(placed(wire, &place, problem));
                }
            }
        }
        errors
    }

    /// The exports of a fallback service that answer to its wire.
    fn fallback_exports(
        &self,
        wire: &Wire,
        service: &str,
    ) -> Result<Vec<&'a InterfaceDescription>, BreakerProblem> {
        let service = service.to_owned();
        if matches!(&wire.provider, Provider::Service(name) if *name == service) {
            return Err(BreakerProblem::Same { service });
        }
        let mut described = self.services.iter();
        let described = described.find(|described| described.name == service);
        let (exports, imports) = described.map_or((&[][..], &[][..]), |d| (d.exports, d.imports));
        let answering = exports.iter().filter(|e| e.id.answers_to(&wire.interface));
        let answering: Vec<_> = answering.collect();
        if answering.is_empty() {
            let exports = exports.iter().map(|export| export.id.to_string()).collect();
            return Err(BreakerProblem::NotExported { service, exports });
        }
        let mut imports = imports.iter().map(|import| &import.id);
        if imports.any(|id| id.answers_to(&wire.interface) && self.choice(&service, id).is_none()) {
            return Err(BreakerProblem::CallsItself { service });
        }
        Ok(answering)
    }

    /// Checks what services import against the service that answers while the breaker is open.
    fn check_fallback(&self, fallback: &str, export: &InterfaceDescription) -> Vec<PlanError> {
        let mut errors = Vec::new();
        for service in self.services {
            for import in service.imports {
                if import.id.compatible(&export.id)
                    && self.choice(service.name, &import.id).is_none()
                {
                    errors.extend(check_functions(service.name, import, fallback, export));
                }
            }
        }
        errors
    }

    /// The type of a function that somebody exports or imports.
    pub(super) fn signature(&self, function: &FunctionId) -> Option<&'a Signature> {
        let exports = self.exporters.iter().map(|(_, export)| *export);
        let mut known = exports.chain(self.imports());
        known.find_map(|interface| {
            let is_same = interface.id.compatible(&function.interface);
            interface.functions.get(&function.name).filter(|_| is_same)
        })
    }
}

/// The functions that are called over a wire: what services import, routes and steps call, and what
/// exporters answer, which the gateway's RPC paths call.
fn called(plan: &Plan, wire: &InterfaceId) -> BTreeSet<FunctionId> {
    let answered = plan.serves.values().flatten();
    let answered = answered
        .flat_map(|(interface, functions)| functions.iter().map(|name| interface.function(name)));
    let mut functions = BTreeSet::new();
    for function in plan.required.iter().cloned().chain(answered) {
        if function.interface.answers_to(wire) {
            functions.insert(function);
        }
    }
    functions
}
