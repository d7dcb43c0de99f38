//! A service: a component under a name, with its limits and grants, ready to be called.
//!
//! Whatever is handed to it (a call, an HTTP request, a message) takes one path, [`Service::run`]:
//! hops and deadline, admission, an instance, the guest, statistics and the error. It knows neither
//! NATS nor the gateway; what a guest imports is reached through a [`Backend`].

mod http;
mod message;
mod stats;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::SemaphorePermit;
use wasmtime::component::{ComponentExportIndex, Val};
use wasmtime_wasi_http::p2::bindings::ProxyIndices;

pub use stats::{Stats, StatsReading};

use super::Runtime;
use super::admission::Admission;
use super::component::Component;
use super::instance::{Blueprint, Instance};
use crate::call::{Call, CallError, Code, Reply};
use crate::interface::{FunctionId, InterfaceId};
use crate::interfaces::{Backend, CurrentCall, calls, config};
use crate::json;
use crate::manifest::ServiceSpec;
use crate::plan::EventWire;
use crate::poll;
use crate::shape::{InterfaceDescription, Signature};
use crate::subject;
use crate::text::shown;

/// A service that can be called.
pub struct Service {
    /// Its part of the specification.
    pub spec: Arc<ServiceSpec>,
    /// Its component.
    pub component: Arc<Component>,
    /// The wires on which its imports are events.
    events: Vec<Arc<EventWire>>,
    interfaces: BTreeMap<InterfaceId, Arc<Exported>>,
    messages: Option<Arc<Exported>>,
    http: Option<HttpHandler>,
    blueprint: Blueprint,
    admission: Admission,
    limits: json::Limits,
}

/// An interface that a service exports.
pub struct Exported {
    /// Its name and version.
    pub id: InterfaceId,
    /// Its functions by name.
    pub functions: HashMap<String, Function>,
}

impl Exported {
    /// The function of this name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn function(&self, name: &str) -> Result<&Function, CallError> {
        self.functions.get(name).ok_or_else(|| {
            let (id, name) = (&self.id, shown(name));
            CallError::not_found(format_args!("{id} has no function \"{name}\""))
        })
    }
}

/// A function that can be called.
pub struct Function {
    /// Its full name.
    pub id: FunctionId,
    /// Its type.
    pub signature: Signature,
    /// Counts since the service was started.
    pub stats: Stats,
    index: ComponentExportIndex,
}

/// The function that takes HTTP requests.
struct HttpHandler {
    indices: ProxyIndices,
    id: FunctionId,
    stats: Stats,
}

/// Why a service cannot be made of a component.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The component imports something that neither the host nor a service can provide.
    #[error("service \"{service}\": an import cannot be satisfied")]
    Link {
        /// The service.
        service: String,
        /// Which import, in wasmtime's words.
        source: wasmtime::Error,
    },
}

/// The bounds of one run.
#[derive(Clone, Copy)]
struct Term {
    started: Instant,
    /// The service's own limit or the caller's, whichever comes first.
    deadline: Instant,
    arrived: Instant,
    hops: u8,
}

/// A turn among a service's calls that was taken before the run; without one the run takes its own.
pub(crate) struct Admitted<'s>(Option<SemaphorePermit<'s>>);

/// What a run is counted and named by.
struct Account<'s> {
    function: &'s FunctionId,
    stats: &'s Stats,
}

impl<'s> From<&'s Function> for Account<'s> {
    fn from(function: &'s Function) -> Self {
        Self {
            function: &function.id,
            stats: &function.stats,
        }
    }
}

impl Service {
    /// Links a component under the name and limits of `spec`, for the app called `app`.
    ///
    /// # Errors
    ///
    /// The component imports what cannot be provided.
    pub fn new(
        runtime: &Runtime,
        app: &str,
        component: Arc<Component>,
        spec: Arc<ServiceSpec>,
    ) -> Result<Self, ServiceError> {
        Self::with_events(runtime, app, component, spec, Vec::new())
    }

    /// As [`Service::new`], with the wires on which imports of the component are events.
    ///
    /// # Errors
    ///
    /// The component imports what cannot be provided.
    pub fn with_events(
        runtime: &Runtime,
        app: &str,
        component: Arc<Component>,
        spec: Arc<ServiceSpec>,
        events: Vec<Arc<EventWire>>,
    ) -> Result<Self, ServiceError> {
        let link = |source| ServiceError::Link {
            service: spec.name.clone(),
            source,
        };
        let limits = json::Limits {
            bytes: spec.limits.message,
            ..json::Limits::default()
        };
        let mut linker = runtime.linker.as_ref().clone();
        for interface in &component.imports {
            let wire = events
                .iter()
                .find(|wire| wire.interface.compatible(&interface.id));
            calls::link(&mut linker, app, interface, wire.map(|w| &**w), &limits).map_err(link)?;
        }
        let pre = linker.instantiate_pre(&component.compiled).map_err(link)?;
        let http = match component.http.as_deref().map(str::parse::<InterfaceId>) {
            Some(Ok(id)) => Some(HttpHandler {
                indices: ProxyIndices::new(&pre).map_err(link)?,
                id: id.function("handle"),
                stats: Stats::default(),
            }),
            _ => None,
        };

        let export = |interface: &InterfaceDescription| {
            let functions = interface
                .functions
                .iter()
                .filter_map(|(name, signature)| {
                    let function = Function {
                        id: interface.id.function(name),
                        signature: signature.clone(),
                        stats: Stats::default(),
                        index: component.export_index(&interface.id, name)?,
                    };
                    Some((name.clone(), function))
                })
                .collect();
            Arc::new(Exported {
                id: interface.id.clone(),
                functions,
            })
        };
        let interfaces = component
            .exports
            .iter()
            .map(|interface| (interface.id.clone(), export(interface)))
            .collect();
        let messages = component.messages.as_ref().map(|m| export(&m.interface));
        Ok(Self {
            admission: Admission::new(spec.limits.concurrency, spec.limits.wait, spec.limits.queue),
            blueprint: Blueprint {
                pre,
                spec: Arc::clone(&spec),
                bucket: subject::data_bucket(app, &spec.name).into(),
                config: config::context(&spec),
                runtime: runtime.clone(),
                share: runtime.pool.share(),
            },
            http,
            spec,
            component,
            events,
            interfaces,
            messages,
            limits,
        })
    }

    /// Creates the first instance before the first call needs it, and so finds out whether the
    /// component starts at all.
    ///
    /// # Errors
    ///
    /// The component cannot be instantiated within the service's limits.
    pub async fn warm(&self) -> Result<(), CallError> {
        let timeout = self.spec.limits.timeout;
        let instance = tokio::time::timeout(timeout, Instance::new(&self.blueprint))
            .await
            .map_err(|_| {
                CallError::deadline_of_service(timeout).within("an instance did not start")
            })??;
        self.put_back(instance, Instant::now());
        Ok(())
    }

    /// Whether its imports would be linked the same with these wires.
    pub(crate) fn publishes_alike(&self, events: &[Arc<EventWire>]) -> bool {
        let mut pairs = self.events.iter().zip(events);
        self.events.len() == events.len() && pairs.all(|(own, other)| own.publishes_alike(other))
    }

    /// Whether the component imports this interface.
    #[must_use]
    pub fn imports(&self, id: &InterfaceId) -> bool {
        self.component
            .imports
            .iter()
            .any(|import| import.id.compatible(id))
    }

    /// The interfaces that the service exports.
    pub fn interfaces(&self) -> impl Iterator<Item = &Arc<Exported>> {
        self.interfaces.values()
    }

    /// One of the interfaces that the service exports.
    #[must_use]
    pub fn interface(&self, id: &InterfaceId) -> Option<&Arc<Exported>> {
        self.interfaces.get(id)
    }

    /// The interface by which the component handles messages, if it does.
    #[must_use]
    pub fn messages(&self) -> Option<&Arc<Exported>> {
        self.messages.as_ref()
    }

    /// The function by which the component takes HTTP requests, with its counts, if it does.
    #[must_use]
    pub fn http_handler(&self) -> Option<(&FunctionId, &Stats)> {
        self.http
            .as_ref()
            .map(|handler| (&handler.id, &handler.stats))
    }

    /// Waits until every call that has been handed to the service has ended.
    pub(crate) async fn drained(&self) {
        self.admission.drained().await;
    }

    /// The number of calls that could run at once.
    pub(crate) fn free(&self) -> usize {
        self.admission.free()
    }

    /// Waits for a turn among the calls, as long as it takes: for what is stored and can wait. The time
    /// that its handling may take begins afterwards.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has taken no turn.
    pub(crate) async fn admit(&self) -> Admitted<'_> {
        Admitted(self.admission.enter_patiently().await)
    }

    /// Calls a function of one of this service's interfaces: JSON arguments to JSON result.
    ///
    /// A guest's own `err` value is a result. The call is counted in the function's [`Stats`].
    ///
    /// # Errors
    ///
    /// Every way in which a call ends without a result; see [`Code`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the guest and drops its instance.
    pub fn call(
        &self,
        function: &Function,
        call: Call,
        backend: &Arc<dyn Backend>,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send {
        self.call_admitted(Admitted(None), function, call, backend)
    }

    /// As [`Service::call`], by a turn that was taken before.
    pub(crate) async fn call_admitted(
        &self,
        admitted: Admitted<'_>,
        function: &Function,
        call: Call,
        backend: &Arc<dyn Backend>,
    ) -> Result<Reply, CallError> {
        let term = self.term(&call);
        let work = async {
            let arguments = json::decode_arguments(&call.body, &function.signature, &self.limits)
                .map_err(|error| {
                let why = format!("arguments: {error}");
                if error.is_too_large() {
                    CallError::request_too_large(why)
                } else {
                    CallError::bad_arguments(why)
                }
            })?;
            let instance = self.instance().await?;
            let mut results = [const { Val::Bool(false) }; 1];
            let results = match function.signature.result {
                Some(_) => results.as_mut_slice(),
                None => &mut [],
            };
            let current = current(&call, term, backend);
            let instance = instance
                .invoke(&function.index, &arguments, results, current)
                .await?;
            self.put_back(instance, term.started);
            json::encode_reply(results.first(), &function.signature, &self.limits).map_err(
                |error| {
                    let why = format!("result: {error}");
                    if error.is_too_large() {
                        CallError::result_too_large(why)
                    } else {
                        CallError::trap(why)
                    }
                },
            )
        };
        self.run(function.into(), term, admitted, work).await
    }

    /// The bounds of what begins now.
    fn term(&self, call: &Call) -> Term {
        let started = Instant::now();
        Term {
            started,
            deadline: call.deadline.min(started + self.spec.limits.timeout),
            arrived: call.arrived,
            hops: call.hops,
        }
    }

    /// The one path of everything that a service does: checks hops and deadline, admits, works, and
    /// bounds, counts, names and logs the outcome.
    async fn run<T>(
        &self,
        account: Account<'_>,
        term: Term,
        admitted: Admitted<'_>,
        work: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let Term {
            started, deadline, ..
        } = term;
        let running = pin!(async {
            let limit = self.spec.limits.hops;
            if term.hops > limit {
                return Err(CallError::too_many_hops(term.hops, limit));
            }
            if deadline <= started {
                return Err(CallError::deadline_before_start());
            }
            let _permit = match admitted {
                Admitted(Some(permit)) => permit,
                Admitted(None) => self.admission.enter(term.arrived, deadline).await?,
            };
            work.await
        });
        let ended = poll::within(deadline.into(), running).await;
        let result = ended.unwrap_or_else(|_| {
            let timeout = self.spec.limits.timeout;
            Err(match deadline == started + timeout {
                true => CallError::deadline_of_service(timeout),
                false => CallError::deadline_of_caller(deadline.saturating_duration_since(started)),
            })
        });
        let result = result.map_err(|error| {
            let (service, function) = (&self.spec.name, account.function);
            error.within(format_args!("service \"{service}\": {function}"))
        });
        account
            .stats
            .record(started.elapsed(), result.as_ref().err());
        if let Err(error) = &result {
            log(error);
        }
        result
    }

    /// An idle instance, or a fresh one.
    async fn instance(&self) -> Result<Instance, CallError> {
        match self.blueprint.share.take() {
            Some(instance) => Ok(instance),
            // Boxed, so that the many calls that need none do not carry its state about.
            None => Box::pin(Instance::new(&self.blueprint)).await,
        }
    }

    /// Keeps an instance for another call, unless it has had as many as it may.
    fn put_back(&self, instance: Instance, used: Instant) {
        if instance.calls < self.spec.reuse {
            self.blueprint.share.put(instance, used);
        }
    }
}

/// The call as its instance sees it.
fn current(call: &Call, term: Term, backend: &Arc<dyn Backend>) -> CurrentCall {
    CurrentCall {
        deadline: term.deadline,
        hops: call.hops,
        trace: call.trace.clone(),
        backend: Arc::clone(backend),
        failed_import: None,
        ended: None,
        reply_to: None,
    }
}

/// What a service's own code did is news to its operator; what its callers or its load did is not,
/// and could be a flood.
fn log(error: &CallError) {
    let (code, blame) = (error.code.status(), error.blame.as_str());
    match error.code {
        Code::Trap | Code::Dependency => tracing::warn!(code, blame, "{error}"),
        _ => tracing::debug!(code, blame, "{error}"),
    }
}
