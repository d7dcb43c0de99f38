//! The routes of a plan: one entry for each route of the manifest.

use std::collections::BTreeMap;

use crate::interface::FunctionId;
use crate::manifest::{Route, Target};
use crate::shape::{Shape, Signature};
use crate::text::did_you_mean;

use super::{Bindings, KeyPath, Plan, PlanError, RouteProblem, Wiring};

/// The status of an error case that its route does not map: the request was understood, and the
/// service, working as it should, declines. To monitors and retrying clients, 500 would mean that
/// the service is broken, 400 that the request is malformed.
pub const UNMAPPED_ERROR: u16 = 422;

/// A route that calls a function.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlannedRoute {
    /// The route of the manifest.
    pub route: Route,
    /// The function, in the version of its exporter.
    pub function: FunctionId,
    /// Its type.
    pub signature: Signature,
    /// The bindings of its parameters.
    pub bindings: Bindings,
    /// The status of a result: the route's, or 200, or 204 when there is no value.
    pub status: u16,
    /// The status of each error case, as the route has them.
    pub errors: BTreeMap<String, u16>,
}

/// A route that clients follow.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlannedEvents {
    /// The route of the manifest.
    pub route: Route,
    /// The kind of event.
    pub function: FunctionId,
    /// Its type.
    pub signature: Signature,
    /// Whether a stream stores the events.
    pub durable: bool,
    /// Whether they have partitions.
    pub partitions: bool,
    /// What has to be equal to each parameter of the path.
    pub filter: Vec<(String, KeyPath)>,
}

/// A prefix of an HTTP component.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedHttp {
    /// The route of the manifest.
    pub route: Route,
    /// The service.
    pub service: String,
}

impl PlannedRoute {
    pub(super) fn new(
        route: &Route,
        function: FunctionId,
        signature: &Signature,
        query: &[String],
        status: Option<u16>,
        errors: &BTreeMap<String, u16>,
    ) -> Result<Self, RouteProblem> {
        check_errors(signature, errors)?;
        let usual = match &signature.result {
            None | Some(Shape::Result { ok: None, .. }) => 204,
            Some(_) => 200,
        };
        Ok(Self {
            route: route.clone(),
            function,
            bindings: Bindings::new(route, signature, query)?,
            signature: signature.clone(),
            status: status.unwrap_or(usual),
            errors: errors.clone(),
        })
    }

    /// The status of an error of the function, by the name of its case if it has one.
    #[must_use]
    pub fn error_status(&self, case: Option<&str>) -> u16 {
        let own = case.and_then(|case| self.errors.get(case));
        own.or_else(|| self.errors.get("*"))
            .copied()
            .unwrap_or(UNMAPPED_ERROR)
    }
}

fn plan_events(
    plan: &Plan,
    route: &Route,
    function: &FunctionId,
    filter: &BTreeMap<String, String>,
) -> Result<PlannedEvents, RouteProblem> {
    let mut wires = plan.events.iter();
    let wire = wires.find(|wire| wire.interface.answers_to(&function.interface));
    let wire = wire.ok_or_else(|| RouteProblem::NoEvents {
        interface: function.interface.clone(),
    })?;
    let event = wire.functions.get(&function.name).ok_or_else(|| {
        let functions: Vec<_> = wire.functions.keys().cloned().collect();
        RouteProblem::NoFunction {
            interface: wire.interface.clone(),
            name: function.name.clone(),
            suggestion: did_you_mean(&function.name, functions.iter().map(String::as_str)),
            functions,
        }
    })?;
    let params = route.path_params();
    if let Some(unused) = params.iter().find(|name| !filter.contains_key(**name)) {
        return Err(RouteProblem::Unfiltered {
            name: (*unused).to_owned(),
        });
    }
    let resolve = |(name, path): (&String, &String)| {
        if !params.contains(&name.as_str()) {
            let params: Vec<_> = params.iter().map(|name| (*name).to_owned()).collect();
            return Err(RouteProblem::FilterParam {
                name: name.clone(),
                params,
            });
        }
        let steps: Vec<_> = path.split('.').map(str::to_owned).collect();
        let key = KeyPath::resolve(&function.name, &event.signature, &steps);
        let key = key.map_err(|problem| RouteProblem::Filter {
            name: name.clone(),
            path: path.clone(),
            problem: Box::new(problem),
        })?;
        Ok((name.clone(), key))
    };
    Ok(PlannedEvents {
        route: route.clone(),
        function: wire.interface.function(&function.name),
        signature: event.signature.clone(),
        durable: wire.spec.durable.is_some(),
        partitions: event.key.is_some(),
        filter: filter.iter().map(resolve).collect::<Result<_, _>>()?,
    })
}

fn check_errors(signature: &Signature, errors: &BTreeMap<String, u16>) -> Result<(), RouteProblem> {
    if errors.is_empty() {
        return Ok(());
    }
    let Some(Shape::Result { err, .. }) = &signature.result else {
        return Err(RouteProblem::NoErrors(Box::new(signature.clone())));
    };
    let cases: Vec<String> = match err.as_deref() {
        Some(Shape::Variant(cases)) => cases.iter().map(|case| case.name.to_string()).collect(),
        Some(Shape::Enum(cases)) => cases.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    match errors
        .keys()
        .find(|case| *case != "*" && !cases.contains(case))
    {
        None => Ok(()),
        Some(case) if cases.is_empty() => Err(RouteProblem::NoCases { case: case.clone() }),
        Some(case) => {
            let suggestion = did_you_mean(case, cases.iter().map(String::as_str));
            Err(RouteProblem::NoCase {
                case: case.clone(),
                suggestion,
                cases,
            })
        }
    }
}

/// The status of a route that publishes an event: it was accepted, its outcome is not known.
const ACCEPTED: u16 = 202;

impl Wiring<'_> {
    /// Plans the app's routes.
    pub(super) fn plan_routes(&self, plan: &mut Plan, errors: &mut Vec<PlanError>) {
        for route in &self.app.routes {
            let planned = match &route.target {
                Target::Http { service } => {
                    let planned = self.plan_http(route, service);
                    planned.map(|http| plan.http.push(http))
                }
                Target::Events { function, filter } => {
                    let planned = plan_events(plan, route, function, filter);
                    planned.map(|events| plan.followed.push(events))
                }
                Target::Function {
                    function,
                    query,
                    status,
                    errors,
                } => self.plan_call(plan, route, function, (query, *status, errors)),
            };
            errors.extend(planned.err().map(|problem| PlanError::Route {
                route: route.label(),
                problem,
            }));
        }
    }

    fn plan_call(
        &self,
        plan: &mut Plan,
        route: &Route,
        function: &FunctionId,
        (query, status, errors): (&[String], Option<u16>, &BTreeMap<String, u16>),
    ) -> Result<(), RouteProblem> {
        let called = plan.pipelines.iter().find(|pipeline| {
            let own = &pipeline.function;
            own.name == function.name && own.interface.answers_to(&function.interface)
        });
        let (function, signature) = match called {
            Some(pipeline) => (pipeline.function.clone(), &pipeline.signature),
            None => self.resolve(function)?,
        };
        let mut planned = PlannedRoute::new(route, function, signature, query, status, errors)?;
        if plan.event_wire(&planned.function.interface).is_some() {
            planned.status = status.unwrap_or(ACCEPTED);
        } else {
            plan.required.insert(planned.function.clone());
        }
        plan.routes.push(planned);
        Ok(())
    }

    pub(super) fn plan_http(
        &self,
        route: &Route,
        service: &str,
    ) -> Result<PlannedHttp, RouteProblem> {
        let service = service.to_owned();
        if self
            .services
            .iter()
            .any(|described| described.name == service && described.http)
        {
            Ok(PlannedHttp {
                route: route.clone(),
                service,
            })
        } else {
            Err(RouteProblem::NoHttp { service })
        }
    }
}
