//! A service: a component under a name, with its limits and grants, ready to be called.
//!
//! A call, an HTTP request and a message take one path, [`Service::run`]: hops and deadline,
//! admission, an instance, the guest, statistics and the error. It knows neither NATS nor the
//! gateway; the imports of guests go through a [`Backend`].

mod command;
mod function;
mod http;
mod message;
mod tape;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::SemaphorePermit;
use wasmtime::component::ComponentExportIndex;

pub use crate::stats::{Stats, StatsReading};
use http::HttpHandler;
use tape::Tape;
pub(crate) use tape::{LeftOut, TapedCall, TapedImport};

use super::Runtime;
use super::admission::Admission;
use super::component::{Component, Uncalled};
use super::engine::Flavor;
use super::instance::{self, Blueprint, Early, HandlerIndices, Instance};
use super::state::Of;
use crate::call::{Call, CallError, Code, Kind};
use crate::interface::{FunctionId, InterfaceId};
use crate::interfaces::calls::{self, Import, Wiring};
use crate::interfaces::files::Folders;
use crate::interfaces::sockets::Sockets;
use crate::interfaces::{FilesError, Missing, recorded};
use crate::json;
use crate::manifest::{ServiceSpec, keys};
use crate::plan::{EventWire, PlanError};
use crate::poll;
use crate::shape::{InterfaceDescription, Signature, TypeId};
use crate::spans::{Description, KeyValue, REFUSAL, Span, SpanKind};
use crate::subject;
use crate::telemetry::{self, Counts, Within};
use crate::text::{one_line, shown};
use crate::value::ResultPath;

/// A service that can be called.
pub struct Service {
    /// Its specification.
    pub spec: Arc<ServiceSpec>,
    /// Its component.
    pub component: Arc<Component>,
    /// When it was linked; its counts begin then.
    pub(crate) started: SystemTime,
    /// The wires on which its imports are events.
    events: Vec<Arc<EventWire>>,
    /// What it calls and publishes, with counts.
    pub(crate) imports: Vec<Arc<Import>>,
    interfaces: BTreeMap<InterfaceId, Arc<Exported>>,
    messages: Option<Arc<Exported>>,
    command: Option<Arc<Exported>>,
    http: Option<HttpHandler>,
    blueprint: Blueprint,
    admission: Admission,
    /// What its messages are bounded by.
    pub(crate) limits: json::Limits,
    tape: Tape,
}

/// An interface that a service exports.
pub struct Exported {
    /// Its name and version.
    pub id: InterfaceId,
    /// Its functions by name.
    pub functions: HashMap<String, Function>,
    /// Whether a result of one of them has streams.
    pub(crate) gives_streams: bool,
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

/// What a service uses at one time.
pub(crate) struct Usage {
    /// Calls that run.
    pub(crate) running: usize,
    /// Calls and stored events that wait for their turn.
    pub(crate) waiting: usize,
    /// Instances that exist.
    pub(crate) instances: usize,
    /// Instances that no call uses.
    pub(crate) idle: usize,
}

/// A function that can be called.
pub struct Function {
    /// Its full name.
    pub id: FunctionId,
    /// Its type.
    pub signature: Signature,
    pub(crate) identity: TypeId,
    /// Counts since the service was started.
    pub stats: Stats,
    /// Whether its result has streams, which are written after it has returned.
    pub(crate) gives_streams: bool,
    index: ComponentExportIndex,
    path: ResultPath,
}

impl Function {
    /// Its name and counts.
    fn counted(&self) -> (&FunctionId, &Stats) {
        (&self.id, &self.stats)
    }

    /// Where it is in an instance, and how its result comes out of it.
    fn place(&self) -> (&ComponentExportIndex, ResultPath) {
        (&self.index, self.path)
    }
}

/// Why a service cannot be made of a component.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The component imports interfaces of hosts that this host does not provide.
    #[error("service \"{service}\": imports what this host does not provide\n{}", lines(.missing))]
    Missing {
        /// The service.
        service: String,
        /// All of them.
        missing: Vec<Missing>,
    },
    /// Nothing of the component can be called.
    #[error("service \"{service}\": nothing of it can be called\n{}", uncalled(.exports))]
    Uncallable {
        /// The service.
        service: String,
        /// What it exports.
        exports: Vec<Uncalled>,
    },
    /// It is a job, and cannot be run.
    #[error(transparent)]
    Plan(Box<PlanError>),
    /// A folder that it may read is not there.
    #[error("service \"{service}\": a folder of its files cannot be had")]
    Files {
        /// The service.
        service: String,
        /// Which, and why.
        source: FilesError,
    },
    /// The component imports something that neither the host nor a service can provide.
    #[error("service \"{service}\": an import cannot be satisfied")]
    Link {
        /// The service.
        service: String,
        /// The error of wasmtime, with the import.
        source: wasmtime::Error,
    },
}

fn lines(missing: &[Missing]) -> String {
    let lines: Vec<_> = missing.iter().map(|m| format!("  {m}")).collect();
    lines.join("\n")
}

fn uncalled(exports: &[Uncalled]) -> String {
    if exports.is_empty() {
        return "  it has no exports; export an interface with functions, wasi:http/incoming-handler, or a handler of messages".to_owned();
    }
    let lines: Vec<_> = exports.iter().map(|one| format!("  {one}")).collect();
    lines.join("\n")
}

/// The bounds of one run.
#[derive(Clone, Copy)]
struct Term {
    started: Instant,
    /// The service's own limit or the caller's deadline, whichever comes first.
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
    span: Span<'s>,
    within: Option<Within>,
    kind: Kind,
}

impl Service {
    /// Links a component under the name and limits of `spec`, for the app called `app`.
    ///
    /// # Errors
    ///
    /// The component imports an interface that cannot be provided.
    pub fn new(
        runtime: &Runtime,
        app: &str,
        component: Arc<Component>,
        spec: Arc<ServiceSpec>,
    ) -> Result<Self, ServiceError> {
        Self::with_events(runtime, app, component, spec, Vec::new())
    }

    /// As [`Service::new`], with the wires of imports that are events.
    ///
    /// # Errors
    ///
    /// The component imports an interface that cannot be provided.
    pub fn with_events(
        runtime: &Runtime,
        app: &str,
        component: Arc<Component>,
        spec: Arc<ServiceSpec>,
        events: Vec<Arc<EventWire>>,
    ) -> Result<Self, ServiceError> {
        let recorded = spec.durable.is_some();
        Self::link(runtime, app, component, spec, events, recorded)
    }

    /// As [`Service::new`], for calls whose time and random are given, whatever is durable.
    pub(crate) fn for_cases(
        runtime: &Runtime,
        app: &str,
        component: Arc<Component>,
        spec: Arc<ServiceSpec>,
    ) -> Result<Self, ServiceError> {
        Self::link(runtime, app, component, spec, Vec::new(), true)
    }

    fn link(
        runtime: &Runtime,
        app: &str,
        component: Arc<Component>,
        spec: Arc<ServiceSpec>,
        events: Vec<Arc<EventWire>>,
        recorded: bool,
    ) -> Result<Self, ServiceError> {
        if !component.missing.is_empty() {
            return Err(ServiceError::Missing {
                service: spec.name.clone(),
                missing: component.missing.clone(),
            });
        }
        if spec.job.is_some() && component.command.is_none() {
            let job = spec.name.clone();
            return Err(ServiceError::Plan(Box::new(PlanError::NoCommand { job })));
        }
        if spec.job.is_none() && !component.is_callable() {
            return Err(ServiceError::Uncallable {
                service: spec.name.clone(),
                exports: component.uncalled.clone(),
            });
        }
        let folders = Folders::of(&spec, runtime.files.as_deref());
        let folders = folders.map_err(|source| ServiceError::Files {
            service: spec.name.clone(),
            source,
        })?;
        let link = |source| ServiceError::Link {
            service: spec.name.clone(),
            source,
        };
        let limits = json::Limits {
            bytes: spec.limits.message,
            ..json::Limits::default()
        };
        let tracer = Arc::new(runtime.spans.tracer(app, &spec.name));
        let mut linker = runtime.linker(component.flavor).map_err(link)?.clone();
        let mut imports = Vec::new();
        for interface in &component.imports {
            let wire = events
                .iter()
                .find(|wire| wire.interface.compatible(&interface.id));
            let wiring = Wiring {
                app,
                events: wire.map(|wire| &**wire),
                exporter: spec.exporter_of(&interface.id),
                async_functions: &component.async_imports,
                limits,
                tracer: &tracer,
            };
            let linked = calls::link(&mut linker, interface, &wiring);
            imports.extend(linked.map_err(link)?);
        }
        if recorded {
            recorded::add_to_linker(&mut linker).map_err(link)?;
        }
        let pre = linker.instantiate_pre(&component.compiled).map_err(link)?;
        let http = match component.http.as_deref().map(str::parse::<InterfaceId>) {
            Some(Ok(id)) => {
                let indices = HandlerIndices::new(&pre, &id).map_err(link)?;
                Some(HttpHandler::new(indices, id.function("handle")))
            }
            _ => None,
        };

        let export = |interface: &InterfaceDescription| {
            let functions: HashMap<_, _> = interface
                .functions
                .iter()
                .filter_map(|(name, signature)| {
                    let function = Function {
                        id: interface.id.function(name),
                        signature: signature.clone(),
                        identity: signature.identity(),
                        gives_streams: signature.result_has_stream(),
                        path: match component.flavor {
                            Flavor::Plain => ResultPath::PLAIN,
                            Flavor::Concurrent => ResultPath::concurrent(signature),
                        },
                        stats: Stats::default(),
                        index: component.export_index(&interface.id, name)?,
                    };
                    Some((name.clone(), function))
                })
                .collect();
            Arc::new(Exported {
                id: interface.id.clone(),
                gives_streams: functions.values().any(|function| function.gives_streams),
                functions,
            })
        };
        let interfaces = component
            .exports
            .iter()
            .map(|interface| (interface.id.clone(), export(interface)))
            .collect();
        let messages = component.messages.as_ref().map(|m| export(&m.interface));
        let command = component.command.as_ref().filter(|_| spec.job.is_some());
        let command = command.map(export);
        let (output, connections) = runtime.tended(app, &spec);
        let sockets = Sockets::new(Arc::clone(&spec), Arc::clone(&output));
        Ok(Self {
            admission: Admission::new(spec.limits.concurrency, spec.limits.wait, spec.limits.queue),
            blueprint: Blueprint {
                pre,
                flavor: component.flavor,
                spec: Arc::clone(&spec),
                output,
                connections,
                sockets: Arc::new(sockets),
                folders,
                tracer,
                counts: Arc::default(),
                fuel: instance::fuel(spec.limits.message),
                bucket: subject::data_bucket(app, &spec.name).into(),
                objects: subject::objects_bucket(app, &spec.name).into(),
                runtime: runtime.clone(),
                share: runtime.pool.share(),
            },
            http,
            started: SystemTime::now(),
            spec,
            component,
            events,
            imports,
            interfaces,
            messages,
            command,
            limits,
            tape: Tape::default(),
        })
    }

    /// Creates the first instance before the first call needs it, which also shows whether the
    /// component starts.
    ///
    /// # Errors
    ///
    /// The component cannot be instantiated within the service's limits.
    pub async fn warm(&self) -> Result<(), CallError> {
        let timeout = match self.spec.job {
            // What a whole run may take is too long for its beginning.
            Some(_) => keys::limits::TIMEOUT.values.default,
            None => self.spec.limits.timeout,
        };
        let instance = tokio::time::timeout(timeout, Instance::new(&self.blueprint))
            .await
            .map_err(|_| {
                CallError::deadline_of_service(timeout).within("an instance did not start")
            })??;
        // A command is run in an instance of its own.
        if self.spec.job.is_none() {
            self.put_back(instance, Instant::now());
        }
        Ok(())
    }

    /// Whether its imports are linked alike with these wires.
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

    /// Whether its component is asynchronous: its calls are then run by wasmtime's own loop, and not within that
    /// of another one.
    pub(crate) fn is_concurrent(&self) -> bool {
        self.blueprint.flavor == Flavor::Concurrent
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
        self.http.as_ref().map(HttpHandler::counted)
    }

    /// What the service uses now.
    pub(crate) fn usage(&self) -> Usage {
        let (running, waiting) = self.admission.load();
        let (instances, idle) = self.blueprint.share.count();
        Usage {
            running,
            waiting,
            instances,
            idle,
        }
    }

    /// The calls that were kept since this was asked for the last time; see [`Tape`].
    pub(crate) fn taped(&self) -> (Vec<TapedCall>, LeftOut) {
        self.tape.take()
    }

    /// Whether a call can do what its backend does not see: with a grant of its own, or by who it is made for.
    fn acts_unseen(&self, call: &Call) -> bool {
        let grants = &self.spec.grants;
        let is_granted =
            !(grants.http.is_empty() && grants.tcp.is_empty() && grants.udp.is_empty());
        is_granted || call.claims.is_some()
    }

    /// What the service has done beside its calls.
    pub(crate) fn counts(&self) -> &Counts {
        &self.blueprint.counts
    }

    /// All functions that are counted: those of its interfaces, of messages, of HTTP, and the start of a job.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (&FunctionId, &Stats)> {
        let exported = self.interfaces.values().chain(&self.messages);
        let exported = exported.chain(&self.command);
        let functions = exported.flat_map(|exported| exported.functions.values());
        let functions = functions.map(Function::counted);
        functions.chain(self.http_handler())
    }

    /// Upper bound of the time for which a call may wait before it is admitted.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.admission.longest_wait()
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

    /// How a run is counted that begins now, whose span is the parent of what it does.
    fn account<'s>(
        &'s self,
        (function, stats): (&'s FunctionId, &'s Stats),
        call: &mut Call,
        term: Term,
    ) -> Account<'s> {
        let tracer = &self.blueprint.tracer;
        let span = tracer.begin(&mut call.trace, term.arrived.min(term.started));
        Account {
            function,
            stats,
            span,
            within: call.trace.ids(),
            kind: call.kind,
        }
    }

    /// The bounds of a run that begins now.
    fn term(&self, call: &Call) -> Term {
        let started = Instant::now();
        Term {
            started,
            deadline: call.deadline.min(started + self.spec.limits.timeout),
            arrived: call.arrived,
            hops: call.hops,
        }
    }

    /// When such a call ends at the latest.
    pub(crate) fn last(&self, call: &Call) -> Instant {
        self.term(call).deadline
    }

    /// The one path of every run: checks hops and deadline, admits, works, and bounds, counts,
    /// names and logs the outcome.
    ///
    /// The work is a future that is made where it is awaited: passed on, it would be copied and its
    /// space taken again at each level. `refusal` is the `err` value of a result, for a span that is recorded.
    async fn run<T, W: Future<Output = Result<T, CallError>>>(
        &self,
        account: Account<'_>,
        term: Term,
        admitted: Admitted<'_>,
        work: impl FnOnce() -> W,
        refusal: impl FnOnce(&T) -> Option<String>,
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
            work().await
        });
        let ended = poll::within(deadline.into(), running).await;
        let result = ended.unwrap_or_else(|_| {
            let timeout = self.spec.limits.timeout;
            Err(if deadline == started + timeout {
                CallError::deadline_of_service(timeout)
            } else {
                CallError::deadline_of_caller(deadline.saturating_duration_since(started))
            })
        });
        let limit = self.spec.limits.hops;
        let result = result.map_err(|error| {
            // The last service of a long way has said where that was.
            if error.code == Code::TooManyHops && term.hops <= limit {
                return error;
            }
            let (service, function) = (&self.spec.name, account.function);
            error.within(format_args!("service \"{service}\": {function}"))
        });
        let error = result.as_ref().err();
        let Account {
            function,
            stats,
            span,
            within,
            kind,
        } = account;
        stats.record(started.elapsed(), error);
        let refusal = match &result {
            Ok(result) if span.is_sampled() => refusal(result),
            _ => None,
        };
        span.end(error, || describe(function, kind, refusal));
        if let Err(error) = &result {
            let outside = telemetry::set_current_trace(within);
            self.log(error);
            telemetry::set_current_trace(outside);
        }
        result
    }

    /// An idle instance, or a fresh one.
    async fn instance(&self) -> Result<Instance, CallError> {
        match self.blueprint.share.take() {
            Some(instance) => Ok(instance),
            // Boxed: else the many calls that need none would have room for its state.
            None => Box::pin(Instance::new(&self.blueprint)).await,
        }
    }

    /// Keeps an instance for another call, unless it has had as many as it may.
    fn put_back(&self, mut instance: Instance, used: Instant) {
        if instance.calls < self.spec.reuse && instance.is_reusable() {
            self.blueprint.share.put(instance, used);
        }
    }

    /// Failures of a service's own code are warnings for its operator; those of callers and load are
    /// not, and could be a flood.
    fn log(&self, error: &CallError) {
        let (code, blame) = (error.code.status(), error.blame.as_str());
        let (app, service) = (self.blueprint.output.app(), &*self.spec.name);
        match error.code {
            Code::Trap | Code::Dependency => {
                tracing::warn!(app, service, code, blame, "{error}");
                if let Some(backtrace) = &error.backtrace {
                    tracing::debug!(app, service, %backtrace, "where it was");
                }
            }
            _ => tracing::debug!(app, service, code, blame, "{error}"),
        }
    }
}

/// Upper bound of the bytes of an `err` value in a span.
const MAX_REFUSAL: usize = 256;

/// What the span of a run is of, by OpenTelemetry's conventions for RPC and for messaging. An `err` value
/// is no error there, but often what is looked for.
fn describe(function: &FunctionId, kind: Kind, refusal: Option<String>) -> Description {
    let function = function.to_string();
    let mut description = match kind {
        Kind::Request | Kind::Streaming => Description {
            kind: SpanKind::Server,
            attributes: vec![
                KeyValue::new("rpc.system.name", "wasmbay"),
                KeyValue::new("rpc.method", function.clone()),
            ],
            name: function.into(),
        },
        Kind::Job => Description {
            kind: SpanKind::Internal,
            name: format!("run {function}").into(),
            attributes: Vec::new(),
        },
        Kind::Event => Description {
            kind: SpanKind::Consumer,
            name: format!("process {function}").into(),
            attributes: vec![
                KeyValue::new("messaging.system", "nats"),
                KeyValue::new("messaging.operation.name", "process"),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.destination.name", function),
            ],
        },
    };
    if let Some(refusal) = refusal {
        let refusal = one_line(&refusal, MAX_REFUSAL).into_owned();
        description.attributes.push(KeyValue::new(REFUSAL, refusal));
    }
    description
}
