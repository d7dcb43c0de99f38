//! The plan of an app: the wiring of its services, checked by their components' types.
//!
//! It takes a checked manifest and a description of each component and returns a [`Plan`]: the
//! interfaces that each service serves, the events and their subscribers, and the bindings of each
//! route. Pure: it neither compiles nor connects, so `check` and `up` come to the same verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::{App, EventSpec, Provider, RpcPaths, Target, Wire};
use crate::shape::{Docs, InterfaceDescription, Signature};
use crate::text::{did_you_mean, nearest};

mod bind;
mod breakers;
mod choices;
mod error;
mod events;
pub(crate) mod exposed;
mod grpc;
mod nest;
mod pipelines;
mod publication;
mod routes;
mod unreached;

pub use bind::{Bindings, Body, spells};
pub use breakers::{Breaker, BreakerProblem, Instead};
pub use error::{ChoiceProblem, EventProblem, PlanError, RouteProblem};
use error::{list, suggestion};
pub use events::{EventFunction, EventWire, KeyPath};
pub use grpc::{GrpcCalled, GrpcCalls, GrpcProblem};
pub use nest::{NestCalled, NestProblem, NestServed, NestTold, NestWires};
pub use pipelines::{
    Act, Condition, Durable, DurableProblem, Each, Filled, Import, JsonText, Pipeline,
    PipelineProblem, Root, Secret, Secrets, Sources, Step, StepCall, Token, WaitFor,
};
pub(crate) use pipelines::{mask, provided, secrets_of};
pub use publication::{Event, PARTITIONS, Publication};
pub use routes::{PlannedEvents, PlannedHttp, PlannedRoute, UNMAPPED_ERROR};
pub use unreached::{Unreached, unreached};

/// The signatures of a component, by which a host plans without compiling it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The interfaces it exports.
    pub exports: Vec<InterfaceDescription>,
    /// The interfaces it imports, without those that the host itself provides (`wasi:*`).
    pub imports: Vec<InterfaceDescription>,
    /// Whether it exports `wasi:http/incoming-handler`, or `wasi:http/handler` of WASI 0.3.
    pub http: bool,
    /// The exported interface of message handlers, if there is one.
    pub messages: Option<InterfaceId>,
    /// Whether it exports `wasi:cli/run`, by which a job runs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub command: bool,
    /// Whether it is asynchronous: it may do several things at once, and in another order each time.
    #[serde(default)]
    pub concurrent: bool,
    /// The documentation comments of these interfaces, where the deployer had their WIT. They change nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub docs: BTreeMap<InterfaceId, Docs>,
}

/// Upper bound of the documentation comments of a component, in bytes of JSON: every host of a fleet has those of all
/// components of its apps in memory. WIT of a hundred functions has a tenth of it.
pub const MAX_DOCS: usize = 256 << 10;

impl Description {
    /// What the component itself says.
    #[must_use]
    pub fn without_docs(&self) -> Self {
        Self {
            docs: BTreeMap::new(),
            ..self.clone()
        }
    }
}

/// Whether these are documentation comments within [`MAX_DOCS`].
#[must_use]
pub fn docs_fit(docs: &BTreeMap<InterfaceId, Docs>) -> bool {
    serde_json::to_vec(docs).is_ok_and(|json| json.len() <= MAX_DOCS)
}

/// The documentation comments that a function and its types have.
pub(crate) fn docs_of<'a>(
    components: &'a BTreeMap<String, Description>,
    function: &FunctionId,
    signature: &Signature,
) -> Option<&'a Docs> {
    let side = |of: fn(&Description) -> &Vec<InterfaceDescription>| {
        components.values().find_map(|component| {
            let mut interfaces = of(component).iter();
            let interface = interfaces.find(|one| one.id == function.interface)?;
            // Another version of it may have had the function with another type.
            let same = interface.functions.get(&function.name) == Some(signature);
            component.docs.get(&interface.id).filter(|_| same)
        })
    };
    side(|component| &component.exports).or_else(|| side(|component| &component.imports))
}

/// A service and its component.
#[derive(Clone, Copy)]
struct Described<'a> {
    name: &'a str,
    exports: &'a [InterfaceDescription],
    imports: &'a [InterfaceDescription],
    http: bool,
    concurrent: bool,
}

/// The wiring of an app.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The interfaces that each service answers, after wires chose, with their functions. Every service
    /// has an entry.
    pub serves: BTreeMap<String, BTreeMap<InterfaceId, Vec<String>>>,
    /// The interfaces that a service answers for the importers that chose it in their own `wire`, with
    /// their functions. Only services that were chosen have an entry.
    pub chosen: BTreeMap<String, BTreeMap<InterfaceId, Vec<String>>>,
    /// Every function that a service imports or a route calls: what must have a responder before
    /// the app is ready. Without those of services that their importer chose, which are of the app.
    pub required: BTreeSet<FunctionId>,
    /// The routes that call functions, in the manifest's order.
    pub routes: Vec<PlannedRoute>,
    /// The prefixes of HTTP components.
    pub http: Vec<PlannedHttp>,
    /// The routes that clients follow.
    pub followed: Vec<PlannedEvents>,
    /// The interfaces that are wired as events, one entry for each track of an interface.
    pub events: Vec<Arc<EventWire>>,
    /// The functions whose calls are runs: those that are made of steps, and the durable ones.
    pub pipelines: Vec<Pipeline>,
    /// The interface of message handlers of each service that exports one.
    pub messages: BTreeMap<String, InterfaceId>,
    /// The circuit breakers of wires.
    pub breakers: Vec<Breaker>,
    /// The patterns of clients of NestJS that are answered.
    pub nest: Vec<NestServed>,
    /// What handlers of NestJS answer and get.
    pub nest_wires: NestWires,
    /// The functions that gRPC services outside answer.
    pub grpc_calls: GrpcCalls,
}

impl Plan {
    /// The wire of this interface, if its functions are events.
    #[must_use]
    pub fn event_wire(&self, interface: &InterfaceId) -> Option<&Arc<EventWire>> {
        self.events
            .iter()
            .find(|wire| wire.interface.compatible(interface))
    }

    /// The pipeline that is this function.
    #[must_use]
    pub fn pipeline_of(&self, function: &FunctionId) -> Option<&Pipeline> {
        self.pipelines.iter().find(|pipeline| {
            pipeline.function.name == function.name
                && pipeline.function.interface.compatible(&function.interface)
        })
    }
}

/// Plans the wiring of the services of `app`.
///
/// A service of the manifest that is not among `components` counts as one that exports and imports
/// nothing.
///
/// # Errors
///
/// Everything that does not fit, in the order: wires, interfaces, imports, routes.
pub fn plan(app: &App, components: &BTreeMap<String, Description>) -> Result<Plan, Vec<PlanError>> {
    // Nothing of a job is called, whatever its component exports.
    let is_job = |name: &String| {
        app.services
            .get(name)
            .is_some_and(|spec| spec.job.is_some())
    };
    let services: Vec<_> = components
        .iter()
        .map(|(name, component)| Described {
            name,
            exports: match is_job(name) {
                true => &[],
                false => &component.exports,
            },
            imports: &component.imports,
            http: component.http && !is_job(name),
            concurrent: component.concurrent,
        })
        .collect();
    let wiring = Wiring::of(app, &services);
    let mut errors = Vec::new();
    for (name, component) in components {
        if is_job(name) && !component.command {
            let job = name.clone();
            errors.push(PlanError::NoCommand { job });
        }
    }
    for wire in &app.wires {
        errors.extend(wiring.check_wire(wire).err());
    }
    errors.extend(wiring.check_exporters());
    errors.extend(wiring.check_choices());
    let mut plan = Plan {
        events: wiring.plan_events(&mut errors),
        messages: components
            .iter()
            .filter(|(name, _)| !is_job(name))
            .filter_map(|(name, component)| Some((name.clone(), component.messages.clone()?)))
            .collect(),
        ..Plan::default()
    };
    for service in app.services.keys() {
        plan.serves
            .insert(service.clone(), wiring.served_by(service));
    }
    plan.chosen = wiring.plan_choices();
    plan.pipelines = wiring.plan_pipelines(&mut errors);
    plan.pipelines.extend(wiring.plan_durable(&mut errors));
    let steps = plan.pipelines.iter().flat_map(|pipeline| &pipeline.steps);
    let calls = steps.flat_map(|step| step.call().into_iter().chain(&step.undo));
    let durable = plan
        .pipelines
        .iter()
        .filter_map(|pipeline| pipeline.durable.as_ref());
    let undos = durable.flat_map(|durable| &durable.imports);
    let calls = calls.chain(undos.filter_map(|import| import.undo.as_ref()));
    let calls = calls.filter(|call| call.event.is_none());
    plan.required
        .extend(calls.map(|call| call.function.clone()));
    for service in &services {
        for import in service.imports {
            errors.extend(wiring.check_import(service.name, import));
            let chosen = wiring.choice(service.name, &import.id).is_some();
            if chosen || plan.event_wire(&import.id).is_some() {
                continue;
            }
            plan.required
                .extend(import.functions.keys().map(|name| import.id.function(name)));
        }
    }
    errors.extend(wiring.check_rpc());
    wiring.plan_routes(&mut plan, &mut errors);
    wiring.plan_nest(&mut plan, &mut errors);
    wiring.plan_grpc(&mut plan, &mut errors);
    wiring.plan_breakers(&mut plan, &mut errors);
    if errors.is_empty() {
        Ok(plan)
    } else {
        Err(errors)
    }
}

/// The exporters of an app, by the wires of its manifest.
struct Wiring<'a> {
    app: &'a App,
    services: &'a [Described<'a>],
    /// Service and interface of every export, without those that a wire leaves out.
    exporters: Vec<(&'a str, &'a InterfaceDescription)>,
}

impl<'a> Wiring<'a> {
    fn of(app: &'a App, services: &'a [Described<'a>]) -> Self {
        // A wire to a service that does not export the interface is reported by itself. Until it is
        // fixed it chooses nothing, else every importer would be reported as well.
        let exports = |name: &str, wired: &InterfaceId| {
            let mut own = services
                .iter()
                .filter(|service| service.name == name)
                .flat_map(|s| s.exports);
            own.any(|export| export.id.answers_to(wired))
        };
        let mut exporters = Vec::new();
        for service in services {
            let chosen = |export: &&InterfaceDescription| match app.wire(&export.id) {
                Some(Wire {
                    provider: Provider::Service(name),
                    interface,
                    ..
                }) => name == service.name || !exports(name, interface),
                Some(Wire {
                    provider: Provider::External | Provider::Nest(_) | Provider::Grpc(_),
                    ..
                }) => false,
                Some(wire) => Self::fallback_of(wire) != Some(service.name),
                None => true,
            };
            exporters.extend(
                service
                    .exports
                    .iter()
                    .filter(chosen)
                    .map(|export| (service.name, export)),
            );
        }
        Self {
            app,
            services,
            exporters,
        }
    }

    fn imports(&self) -> impl Iterator<Item = &'a InterfaceDescription> {
        self.services.iter().flat_map(|service| service.imports)
    }

    fn served_by(&self, service: &str) -> BTreeMap<InterfaceId, Vec<String>> {
        let own = self.exporters.iter().filter(|(name, _)| *name == service);
        own.map(|(_, export)| {
            (
                export.id.clone(),
                export.functions.keys().cloned().collect(),
            )
        })
        .collect()
    }

    fn check_wire(&self, wire: &Wire) -> Result<(), PlanError> {
        let interface = wire.interface.clone();
        let nearest = |names: &[String]| owned_nearest(&interface.to_string(), names);
        match &wire.provider {
            Provider::Service(name) => {
                if self
                    .exporters
                    .iter()
                    .any(|(n, export)| n == name && export.id.answers_to(&interface))
                {
                    return Ok(());
                }
                let exports = self.services.iter().filter(|service| service.name == name);
                let exports: Vec<_> = exports
                    .flat_map(|s| s.exports)
                    .map(|e| e.id.to_string())
                    .collect();
                Err(PlanError::NotExported {
                    nearest: nearest(&exports),
                    interface,
                    service: name.clone(),
                    exports,
                })
            }
            Provider::Exporter => {
                let exports = self.exporters.iter().map(|(_, export)| &export.id);
                let exports: Vec<_> = exports.collect();
                if exports.iter().any(|id| id.answers_to(&interface)) {
                    return Ok(());
                }
                let names: Vec<_> = exports.iter().map(ToString::to_string).collect();
                Err(PlanError::NothingToCall {
                    nearest: nearest(&names),
                    interface,
                })
            }
            Provider::External | Provider::Nest(_) | Provider::Grpc(_) => {
                if self.is_called(&interface)
                    || self
                        .imports()
                        .any(|import| import.id.answers_to(&interface))
                {
                    return Ok(());
                }
                let imports: Vec<_> = self.imports().map(|import| import.id.to_string()).collect();
                Err(PlanError::Unused {
                    nearest: nearest(&imports),
                    interface,
                })
            }
            Provider::Events(spec) => self.check_event_wire(&interface, spec),
        }
    }

    /// Reports interfaces of `[gateway] rpc` that the app has nothing to do with.
    fn check_rpc(&self) -> Vec<PlanError> {
        let RpcPaths::Of(listed) = &self.app.gateway.rpc else {
            return Vec::new();
        };
        let exports = self.services.iter().flat_map(|service| service.exports);
        let known: Vec<_> = exports.chain(self.imports()).map(|i| &i.id).collect();
        let unknown = listed.iter().filter(|listed| {
            !known.iter().any(|id| id.answers_to(listed)) && !self.is_called(listed)
        });
        let names: Vec<_> = known.iter().map(ToString::to_string).collect();
        unknown
            .map(|interface| PlanError::NoRpc {
                nearest: owned_nearest(&interface.to_string(), &names),
                interface: interface.clone(),
            })
            .collect()
    }

    /// Whether a route or a pipeline calls a function of the interface, or a pipeline is one.
    fn is_called(&self, interface: &InterfaceId) -> bool {
        let steps = self.app.pipelines.iter().flat_map(|spec| &spec.steps);
        let called = steps.flat_map(crate::manifest::StepSpec::functions);
        let called = called.map(|function| &function.interface);
        let implemented = self
            .app
            .pipelines
            .iter()
            .map(|spec| &spec.implements.interface);
        let mut both = called.chain(implemented);
        if both.any(|id| id.answers_to(interface) || interface.answers_to(id)) {
            return true;
        }
        self.app.routes.iter().any(|route| match &route.target {
            Target::Function {
                function: FunctionId {
                    interface: called, ..
                },
                ..
            }
            | Target::Events {
                function: FunctionId {
                    interface: called, ..
                },
                ..
            } => called.answers_to(interface) || interface.answers_to(called),
            Target::Http { .. } => false,
        })
    }

    /// Reports interfaces with several exporters, each once.
    fn check_exporters(&self) -> Vec<PlanError> {
        let mut errors = Vec::new();
        for (i, (service, export)) in self.exporters.iter().enumerate() {
            let same = |other: &&(&str, &InterfaceDescription)| other.1.id.compatible(&export.id);
            if self.exporters.iter().take(i).any(|other| same(&other)) {
                continue;
            }
            let mut names = BTreeSet::from([*service]);
            for (other, also) in self.exporters.iter().skip(i + 1).filter(same) {
                if !names.insert(other) {
                    let (one, two) = (export.id.clone(), also.id.clone());
                    errors.push(PlanError::Twice {
                        service: (*other).to_owned(),
                        one,
                        two,
                    });
                }
            }
            if names.len() > 1 && events(self.app, &export.id).is_none() {
                let services = names.into_iter().map(str::to_owned).collect();
                errors.push(PlanError::Ambiguous {
                    interface: export.id.clone(),
                    services,
                });
            }
        }
        errors
    }

    fn check_import(&self, service: &str, import: &InterfaceDescription) -> Vec<PlanError> {
        if let Some(exporter) = self.choice(service, &import.id) {
            return self.check_chosen(service, import, exporter);
        }
        if is_external(self.app, &import.id) {
            return Vec::new();
        }
        let mut exporters = self
            .exporters
            .iter()
            .filter(|(_, e)| e.id.compatible(&import.id));
        if events(self.app, &import.id).is_some() {
            return exporters
                .flat_map(|(exporter, export)| check_functions(service, import, exporter, export))
                .collect();
        }
        if exporters.clone().any(|(exporter, _)| *exporter == service) {
            return vec![self.calls_itself(service, &import.id)];
        }
        let Some((exporter, export)) = exporters.next() else {
            let mut functions = import.functions.keys().peekable();
            let is_pipeline = |name: &String| self.pipeline(&import.id, name).is_some();
            // An interface of which some functions are pipelines is not exported, so all have to be.
            if functions.peek().is_some() && functions.all(is_pipeline) {
                return Vec::new();
            }
            let service = service.to_owned();
            let name = InterfaceId {
                version: None,
                ..import.id.clone()
            };
            let other = self
                .exporters
                .iter()
                .find(|(_, export)| export.id.answers_to(&name));
            return vec![match other {
                Some((exporter, found)) => PlanError::OtherVersion {
                    service,
                    import: import.id.clone(),
                    exporter: (*exporter).to_owned(),
                    found: found.id.clone(),
                },
                None => {
                    let exports: Vec<_> = self
                        .exporters
                        .iter()
                        .map(|(_, e)| e.id.to_string())
                        .collect();
                    let nearest = owned_nearest(&import.id.to_string(), &exports);
                    PlanError::NoExporter {
                        service,
                        import: import.id.clone(),
                        nearest,
                    }
                }
            }];
        };
        check_functions(service, import, exporter, export)
    }

    /// The function that a route names: of its exporter or, for an external interface, of an
    /// importer, which has the same types.
    fn resolve(&self, wanted: &FunctionId) -> Result<(FunctionId, &'a Signature), RouteProblem> {
        let external = |id: &InterfaceId| is_external(self.app, id);
        let exports = self.exporters.iter().map(|(_, export)| *export);
        let known: Vec<_> =
            exports
                .chain(self.imports().filter(|import| {
                    external(&import.id) || events(self.app, &import.id).is_some()
                }))
                .collect();
        let mut found = known
            .iter()
            .copied()
            .filter(|known| known.id.answers_to(&wanted.interface));
        let Some(first) = found.next() else {
            let interface = wanted.interface.clone();
            if external(&interface) {
                return Err(RouteProblem::UnknownTypes { interface });
            }
            let bare = |id: &InterfaceId| match interface.version {
                Some(_) => id.to_string(),
                None => InterfaceId {
                    version: None,
                    ..id.clone()
                }
                .to_string(),
            };
            let names: Vec<_> = known.iter().map(|known| bare(&known.id)).collect();
            let nearest = owned_nearest(&interface.to_string(), &names);
            return Err(RouteProblem::NoInterface { interface, nearest });
        };
        // Several importers of an external interface may each use other functions of it.
        let same_track: Vec<_> = match found.clone().find(|other| !other.id.compatible(&first.id)) {
            Some(other) => {
                let (one, two) = (first.id.clone(), other.id.clone());
                return Err(RouteProblem::Versions { one, two });
            }
            None => std::iter::once(first).chain(found).collect(),
        };
        let with = |known: &&'a InterfaceDescription| {
            let signature = known.functions.get(&wanted.name)?;
            Some((known.id.function(&wanted.name), signature))
        };
        same_track.iter().find_map(with).ok_or_else(|| {
            let functions: BTreeSet<_> = same_track
                .iter()
                .flat_map(|known| known.functions.keys().cloned())
                .collect();
            let suggestion = did_you_mean(&wanted.name, functions.iter().map(String::as_str));
            let functions = functions.into_iter().collect();
            RouteProblem::NoFunction {
                interface: first.id.clone(),
                name: wanted.name.clone(),
                suggestion,
                functions,
            }
        })
    }
}

/// Reports imported functions that the exporter has not, or has with another type.
fn check_functions(
    service: &str,
    import: &InterfaceDescription,
    exporter: &str,
    export: &InterfaceDescription,
) -> Vec<PlanError> {
    let (service, exporter) = (service.to_owned(), exporter.to_owned());
    let check = |(name, wanted): (&String, &Signature)| {
        let (service, exporter, function) =
            (service.clone(), exporter.clone(), import.id.function(name));
        match export.functions.get(name) {
            None => {
                let nearest =
                    nearest(name, export.functions.keys().map(String::as_str)).map(str::to_owned);
                Some(PlanError::NoFunction {
                    service,
                    function,
                    exporter,
                    nearest,
                })
            }
            Some(found) if found != wanted => {
                let (wanted, found) = (Box::new(wanted.clone()), Box::new(found.clone()));
                Some(PlanError::Mismatch {
                    service,
                    function,
                    wanted,
                    exporter,
                    found,
                })
            }
            Some(_) => None,
        }
    };
    import.functions.iter().filter_map(check).collect()
}

fn is_external(app: &App, id: &InterfaceId) -> bool {
    app.wire(id).is_some_and(|wire| wire.provider.is_external())
}

/// The specification of the interface's wire, if its functions are events.
fn events<'a>(app: &'a App, id: &InterfaceId) -> Option<&'a EventSpec> {
    match &app.wire(id)?.provider {
        Provider::Events(spec) => Some(spec),
        _ => None,
    }
}

fn owned_nearest(given: &str, names: &[String]) -> Option<String> {
    nearest(given, names.iter().map(String::as_str)).map(str::to_owned)
}

#[cfg(test)]
mod tests;
