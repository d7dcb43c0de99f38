//! NestJS microservices beside the app: the functions that their clients call, and the handlers that answer
//! interfaces.

use std::collections::BTreeMap;

use super::{Plan, PlanError, Wiring, list, owned_nearest, suggestion};
use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::{NestHandler, NestSpec, Place, Provider, Wire};
use crate::nest::Pattern;
use crate::shape::{Shape, Signature};

/// A pattern whose requests and events become calls.
#[derive(Clone, Debug, PartialEq)]
pub struct NestServed {
    /// The pattern.
    pub pattern: Pattern,
    /// The queue group.
    pub queue: String,
    /// Whether a list is answered element by element.
    pub stream: bool,
    /// The function, in the version of its exporter.
    pub function: FunctionId,
    /// Its type.
    pub signature: Signature,
    /// The service on whose hosts the pattern is subscribed.
    pub service: String,
}

/// A function that a handler of NestJS answers.
#[derive(Clone, Debug, PartialEq)]
pub struct NestCalled {
    /// The handler's pattern.
    pub pattern: Pattern,
    /// The function's type.
    pub signature: Signature,
    /// Whether its list is gathered from a stream.
    pub stream: bool,
}

/// A function whose events handlers of NestJS get.
#[derive(Clone, Debug, PartialEq)]
pub struct NestTold {
    /// The pattern of their handlers.
    pub pattern: Pattern,
    /// The function's type.
    pub signature: Signature,
}

/// What of the app's wires is for NestJS.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NestWires {
    /// The functions that its handlers answer.
    pub calls: BTreeMap<FunctionId, NestCalled>,
    /// Those whose events its handlers get.
    pub events: BTreeMap<FunctionId, NestTold>,
}

/// What does not fit between the app and NestJS services.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NestProblem {
    /// A function that is not there.
    #[error("no service exports `{call}`{}", suggestion(.nearest))]
    NoFunction {
        /// The function.
        call: String,
        /// The nearest of those that are exported.
        nearest: Option<String>,
    },
    /// A function that is a pipeline.
    #[error(
        "`{call}` is a pipeline, and no service has it; call a function that a service exports"
    )]
    Pipeline {
        /// The function.
        call: String,
    },
    /// A stream of what is no list.
    #[error("`{function}` is streamed, and returns no list: it is `{signature}`")]
    NoList {
        /// The function.
        function: String,
        /// Its type.
        signature: Box<Signature>,
    },
    /// A function that is called and has no pattern.
    #[error("`patterns`: `{function}` is called, and has none; add `{function} = \"…\"`")]
    NoPattern {
        /// The function.
        function: String,
    },
    /// A pattern for a function that the wire has not.
    #[error("`nest`: the wire has no event `{function}`{} (it has: {})", suggestion(.nearest), list(.known))]
    NoEvent {
        /// The function.
        function: String,
        /// The nearest of those that it has.
        nearest: Option<String>,
        /// All of them.
        known: Vec<String>,
    },
    /// A pattern of a function that nothing calls.
    #[error("`patterns`: nothing calls `{function}`{} (called are: {})", suggestion(.nearest), list(.called))]
    NotCalled {
        /// The function.
        function: String,
        /// The nearest of those that are called.
        nearest: Option<String>,
        /// All of them.
        called: Vec<String>,
    },
}

/// Whether the elements of its result can be sent one by one.
fn returns_list(signature: &Signature) -> bool {
    let is_list = |shape: &Shape| matches!(shape, Shape::List(_));
    match &signature.result {
        Some(Shape::Result { ok, .. }) => ok.as_deref().is_some_and(is_list),
        Some(shape) => is_list(shape),
        None => false,
    }
}

fn served_error(handler: &NestHandler, problem: NestProblem) -> PlanError {
    PlanError::Nest {
        place: handler.place.clone(),
        of: format!("nest \"{}\"", handler.pattern),
        problem,
    }
}

impl Wiring<'_> {
    /// Plans what clients of NestJS call, after pipelines and events.
    pub(super) fn plan_nest(&self, plan: &mut Plan, errors: &mut Vec<PlanError>) {
        for handler in &self.app.nest {
            match self.plan_handler(plan, handler) {
                Ok(served) => plan.nest.push(served),
                Err(problem) => errors.push(served_error(handler, problem)),
            }
        }
        for wire in &self.app.wires {
            match &wire.provider {
                Provider::Nest(spec) => self.plan_nest_wire(plan, wire, spec, errors),
                Provider::Events(spec) => plan_nest_events(plan, wire, &spec.nest, errors),
                _ => {}
            }
        }
    }

    fn plan_handler(&self, plan: &Plan, handler: &NestHandler) -> Result<NestServed, NestProblem> {
        let wanted = &handler.call;
        let mut exports = self.exporters.iter().filter_map(|(service, export)| {
            let answers = export.id.answers_to(&wanted.interface);
            let signature = export.functions.get(&wanted.name).filter(|_| answers)?;
            Some((*service, export.id.function(&wanted.name), signature))
        });
        let Some((service, function, signature)) = exports.next() else {
            let call = wanted.to_string();
            if plan.pipeline_of(wanted).is_some() {
                return Err(NestProblem::Pipeline { call });
            }
            let known = self.exporters.iter().flat_map(|(_, export)| {
                let names = export.functions.keys();
                names.map(|name| export.id.function(name).to_string())
            });
            let known: Vec<_> = known.collect();
            let nearest = owned_nearest(&call, &known);
            return Err(NestProblem::NoFunction { call, nearest });
        };
        if handler.stream && !returns_list(signature) {
            return Err(NestProblem::NoList {
                function: wanted.name.clone(),
                signature: Box::new(signature.clone()),
            });
        }
        Ok(NestServed {
            pattern: handler.pattern.clone(),
            queue: handler.queue.clone(),
            stream: handler.stream,
            signature: signature.clone(),
            service: service.to_owned(),
            function,
        })
    }

    fn plan_nest_wire(
        &self,
        plan: &mut Plan,
        wire: &Wire,
        spec: &NestSpec,
        errors: &mut Vec<PlanError>,
    ) {
        let mut fail = |problem| {
            errors.push(PlanError::Nest {
                place: Place::default(),
                of: format!("wire \"{}\"", wire.interface),
                problem,
            });
        };
        let is_own = |interface: &InterfaceId| interface.answers_to(&wire.interface);
        let called = plan
            .required
            .iter()
            .filter(|function| is_own(&function.interface));
        let called: Vec<_> = called.cloned().collect();
        for name in spec.patterns.keys() {
            if !called.iter().any(|function| function.name == *name) {
                let called: Vec<_> = called
                    .iter()
                    .map(|function| function.name.clone())
                    .collect();
                fail(NestProblem::NotCalled {
                    function: name.clone(),
                    nearest: owned_nearest(name, &called),
                    called,
                });
            }
        }
        for function in called {
            let Some(pattern) = spec.patterns.get(&function.name) else {
                fail(NestProblem::NoPattern {
                    function: function.name,
                });
                continue;
            };
            let Some(signature) = self.signature(&function) else {
                continue;
            };
            let stream = spec.streams.contains(&function.name);
            if stream && !returns_list(signature) {
                fail(NestProblem::NoList {
                    function: function.name,
                    signature: Box::new(signature.clone()),
                });
                continue;
            }
            let called = NestCalled {
                pattern: pattern.clone(),
                signature: signature.clone(),
                stream,
            };
            plan.nest_wires.calls.insert(function, called);
        }
    }
}

/// Plans which events handlers of NestJS get.
fn plan_nest_events(
    plan: &mut Plan,
    wire: &Wire,
    patterns: &BTreeMap<String, Pattern>,
    errors: &mut Vec<PlanError>,
) {
    let own = plan.events.iter();
    let own: Vec<_> = own
        .filter(|planned| planned.interface.answers_to(&wire.interface))
        .collect();
    for (name, pattern) in patterns {
        let mut is_known = false;
        for planned in &own {
            let Some(function) = planned.functions.get(name) else {
                continue;
            };
            is_known = true;
            let told = NestTold {
                pattern: pattern.clone(),
                signature: function.signature.clone(),
            };
            let id = planned.interface.function(name);
            plan.nest_wires.events.insert(id, told);
        }
        if !is_known {
            let known = own.iter().flat_map(|planned| planned.functions.keys());
            let known: Vec<_> = known.cloned().collect();
            errors.push(PlanError::Nest {
                place: Place::default(),
                of: format!("wire \"{}\"", wire.interface),
                problem: NestProblem::NoEvent {
                    function: name.clone(),
                    nearest: owned_nearest(name, &known),
                    known,
                },
            });
        }
    }
}
