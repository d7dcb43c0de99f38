//! A service: a component under a name, with its limits and grants, ready to be called.
//!
//! [`Service::call`] is the life of a call from its JSON arguments to its JSON result, top to
//! bottom. It knows neither NATS nor HTTP; what a guest imports is reached through [`Outbound`].

use std::collections::{BTreeMap, HashMap};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::{ComponentExportIndex, Val};
use wasmtime_wasi_http::p2::bindings::ProxyIndices;

use crate::admission::Admission;
use crate::app::EventWire;
use crate::call::{Blame, Call, CallError, Code};
use crate::component::Component;
use crate::engine::{Engine, Evict};
use crate::instance::{Blueprint, Current, Instance};
use crate::interface::{FunctionId, InterfaceId};
use crate::json;
use crate::manifest::ServiceSpec;
use crate::outbound::{self, Outbound};
use crate::per_thread::PerThread;
use crate::shape::{InterfaceDescription, Signature};
use crate::subject;

mod handler;
mod message;

/// How long an instance waits for its next call before its memory is given back.
pub const IDLE: Duration = Duration::from_secs(30);

/// A service that can be called.
pub struct Service {
    /// What the manifest says of it.
    pub spec: Arc<ServiceSpec>,
    /// Its component.
    pub component: Arc<Component>,
    /// The wires on which its imports are events.
    events: Vec<Arc<EventWire>>,
    interfaces: BTreeMap<InterfaceId, Arc<Exported>>,
    messages: Option<Arc<Exported>>,
    blueprint: Blueprint,
    /// Where HTTP requests go in, when the component takes them.
    handler: Option<ProxyIndices>,
    admission: Admission,
    limits: json::Limits,
    idle: Arc<Idle>,
}

/// An interface that a service answers for.
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
            let (id, name) = (&self.id, name.escape_debug());
            CallError::new(
                Code::NotFound,
                Blame::Caller,
                format!("{id} has no function \"{name}\""),
            )
        })
    }
}

/// A function that can be called.
pub struct Function {
    /// Its full name.
    pub id: FunctionId,
    /// What it takes and gives.
    pub signature: Signature,
    /// What has been counted since the host started.
    pub stats: Stats,
    index: ComponentExportIndex,
}

/// Counts of one function, as ADR-32 has them.
#[derive(Default)]
pub struct Stats {
    counts: PerThread<Counts>,
    last_error: Mutex<String>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    errors: AtomicU64,
    nanoseconds: AtomicU64,
}

/// Why a service cannot be made of a component.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The component imports something that neither the host nor messages can provide.
    #[error("service \"{service}\": an import cannot be satisfied")]
    Link {
        /// The service.
        service: String,
        /// Which import, in wasmtime's words.
        source: wasmtime::Error,
    },
}

/// Instances that wait for their next call. A thread takes back those that it has used, the last
/// one first, since its core still has their memory at hand.
#[derive(Default)]
struct Idle(PerThread<Mutex<Vec<(Instant, Instance)>>>);

impl Idle {
    fn take(&self) -> Option<Instance> {
        let taken = |instances: &Mutex<Vec<_>>| lock(instances).pop().map(|(_, instance)| instance);
        taken(self.0.own()).or_else(|| self.0.all().find_map(taken))
    }

    fn keep(&self, instance: Instance, used: Instant) {
        lock(self.0.own()).push((used, instance));
    }

    /// Unmapping memory takes a while; nobody waits for a lock meanwhile.
    fn drop_if(&self, goes: impl Fn(Instant) -> bool) {
        for instances in self.0.all() {
            let gone: Vec<_> = lock(instances)
                .extract_if(.., |(used, _)| goes(*used))
                .collect();
            drop(gone);
        }
    }
}

impl Evict for Idle {
    fn evict(&self) {
        self.drop_if(|_| true);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Links a component under the name and limits of `spec`, for the app called `app`.
    ///
    /// # Errors
    ///
    /// The component imports what cannot be provided.
    pub fn new(
        engine: &Engine,
        app: &str,
        component: Arc<Component>,
        spec: Arc<ServiceSpec>,
    ) -> Result<Self, ServiceError> {
        Self::with_events(engine, app, component, spec, Vec::new())
    }

    /// As [`Service::new`], with the wires on which imports of the component are events.
    ///
    /// # Errors
    ///
    /// The component imports what cannot be provided.
    pub fn with_events(
        engine: &Engine,
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
        let mut linker = engine.linker().clone();
        for interface in &component.imports {
            let wire = events
                .iter()
                .find(|wire| wire.interface.compatible(&interface.id));
            outbound::link(&mut linker, app, interface, wire.map(|w| &**w), &limits)
                .map_err(link)?;
        }
        let pre = linker.instantiate_pre(&component.compiled).map_err(link)?;
        let handler = match &component.http {
            Some(_) => Some(ProxyIndices::new(&pre).map_err(link)?),
            None => None,
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

        let idle = Arc::new(Idle::default());
        let holder: Arc<dyn Evict> = idle.clone();
        engine.register_idle(Arc::downgrade(&holder));
        let config = spec
            .config
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        Ok(Self {
            admission: Admission::new(spec.limits.concurrency, spec.limits.wait, spec.limits.queue),
            blueprint: Blueprint {
                pre,
                spec: Arc::clone(&spec),
                bucket: subject::data_bucket(app, &spec.name).into(),
                config: Arc::new(config),
                engine: engine.clone(),
            },
            handler,
            spec,
            component,
            events,
            interfaces,
            messages,
            limits,
            idle,
        })
    }

    /// Makes the first instance before the first call needs it, and so finds out whether the
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
                let why = format!("an instance did not start within {timeout:?}");
                CallError::new(Code::Deadline, Blame::Guest, why)
            })??;
        self.keep_idle(instance, Instant::now());
        Ok(())
    }

    /// Whether its imports would be linked the same with these wires.
    pub(crate) fn publishes_alike(&self, events: &[Arc<EventWire>]) -> bool {
        let mut pairs = self.events.iter().zip(events);
        self.events.len() == events.len() && pairs.all(|(own, other)| own.publishes_alike(other))
    }

    /// Whether the component calls this interface.
    #[must_use]
    pub fn imports(&self, id: &InterfaceId) -> bool {
        self.component
            .imports
            .iter()
            .any(|import| import.id.compatible(id))
    }

    /// The interfaces that the service answers for.
    pub fn interfaces(&self) -> impl Iterator<Item = &Arc<Exported>> {
        self.interfaces.values()
    }

    /// One of the interfaces that the service answers for.
    #[must_use]
    pub fn interface(&self, id: &InterfaceId) -> Option<&Arc<Exported>> {
        self.interfaces.get(id)
    }

    /// The interface by which the component handles raw messages, when it does.
    #[must_use]
    pub fn messages(&self) -> Option<&Arc<Exported>> {
        self.messages.as_ref()
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
    pub async fn call(
        &self,
        function: &Function,
        call: Call,
        outbound: &Arc<dyn Outbound>,
    ) -> Result<Bytes, CallError> {
        let started = Instant::now();
        let deadline = call.deadline.min(started + self.spec.limits.timeout);
        let running = pin!(self.run(function, &call, started, deadline, outbound));
        self.within(function, started, deadline, running).await
    }

    /// Bounds, counts and logs what runs for a function.
    async fn within<T>(
        &self,
        function: &Function,
        started: Instant,
        deadline: Instant,
        mut running: Pin<&mut impl Future<Output = Result<T, CallError>>>,
    ) -> Result<T, CallError> {
        let own = started + self.spec.limits.timeout;
        // Most calls have ended after their first turn and never need a timer.
        let first = poll_fn(|context| Poll::Ready(running.as_mut().poll(context))).await;
        let ended = match first {
            Poll::Ready(result) => Ok(result),
            Poll::Pending => tokio::time::timeout_at(deadline.into(), running).await,
        };
        let result = match ended {
            Ok(result) => result,
            Err(_) if deadline == own => Err(CallError::new(
                Code::Deadline,
                Blame::Guest,
                format!("no result within {:?}", self.spec.limits.timeout),
            )),
            Err(_) => Err(CallError::new(
                Code::Deadline,
                Blame::Guest,
                format!(
                    "no result within the {:?} that the caller had left",
                    deadline.saturating_duration_since(started)
                ),
            )),
        }
        .map_err(|error| self.named(function, error));
        function
            .stats
            .record(started.elapsed(), result.as_ref().err());
        if let Err(error) = &result {
            log(error);
        }
        result
    }

    async fn run(
        &self,
        function: &Function,
        call: &Call,
        started: Instant,
        deadline: Instant,
        outbound: &Arc<dyn Outbound>,
    ) -> Result<Bytes, CallError> {
        self.check_begin(call, started, deadline)?;
        let _permit = self.admission.enter(deadline).await?;
        let arguments = json::decode_arguments(&call.body, &function.signature, &self.limits)
            .map_err(|error| refuse(&error, Code::BadArguments, Blame::Caller, "arguments"))?;
        let instance = match self.idle.take() {
            Some(instance) => instance,
            // Boxed, so that the many calls that need none do not carry its state about.
            None => Box::pin(Instance::new(&self.blueprint)).await?,
        };
        let mut results = [const { Val::Bool(false) }; 1];
        let results = match function.signature.result {
            Some(_) => results.as_mut_slice(),
            None => &mut [],
        };
        let current = Current {
            deadline,
            hops: call.hops,
            trace: call.trace.clone(),
            outbound: Arc::clone(outbound),
            failed_import: None,
            ended: None,
            reply_to: None,
        };
        let instance = instance
            .invoke(&function.index, &arguments, results, current)
            .await?;
        self.keep_idle(instance, started);
        json::encode_result(results.first(), &function.signature, &self.limits)
            .map(Bytes::from)
            .map_err(|error| refuse(&error, Code::Trap, Blame::Guest, "result"))
    }

    fn check_begin(
        &self,
        call: &Call,
        started: Instant,
        deadline: Instant,
    ) -> Result<(), CallError> {
        self.check_hops(call.hops)?;
        if deadline <= started {
            let why = "the caller's deadline had passed before the call could begin";
            return Err(CallError::new(Code::Deadline, Blame::Network, why));
        }
        Ok(())
    }

    fn check_hops(&self, hops: u8) -> Result<(), CallError> {
        let limit = self.spec.limits.hops;
        if hops <= limit {
            return Ok(());
        }
        Err(CallError::new(
            Code::TooManyHops,
            Blame::Caller,
            format!(
                "the call passed through {hops} services, {limit} are allowed; do two of them call each other?"
            ),
        ))
    }

    fn keep_idle(&self, instance: Instance, used: Instant) {
        if instance.calls < self.spec.reuse {
            self.idle.keep(instance, used);
        }
    }

    /// Drops instances that have waited longer than [`IDLE`].
    pub fn drop_idle(&self, now: Instant) {
        self.idle.drop_if(|used| now.duration_since(used) > IDLE);
    }

    fn named(&self, function: &Function, error: CallError) -> CallError {
        let CallError {
            code,
            blame,
            message,
        } = error;
        let (service, function) = (&self.spec.name, &function.id);
        CallError::new(
            code,
            blame,
            format!("service \"{service}\": {function}: {message}"),
        )
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

fn refuse(error: &json::JsonError, code: Code, blame: Blame, what: &str) -> CallError {
    let code = if error.is_too_large() {
        Code::TooLarge
    } else {
        code
    };
    CallError::new(code, blame, format!("{what}: {error}"))
}

/// A reading of [`Stats`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatsReading {
    /// Calls that were answered, with a result or an error.
    pub requests: u64,
    /// Calls that were answered with an error.
    pub errors: u64,
    /// The time all of them took.
    pub time: Duration,
    /// The last error's code and message, empty before the first.
    pub last_error: String,
}

impl Stats {
    fn record(&self, time: Duration, error: Option<&CallError>) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let counts = self.counts.own();
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        if let Some(error) = error {
            counts.errors.fetch_add(1, Ordering::Relaxed);
            let last = format!("{}:{}", error.code.status(), error.message);
            *lock(&self.last_error) = last;
        }
    }

    /// What has been counted until now.
    #[must_use]
    pub fn read(&self) -> StatsReading {
        let sum = |count: fn(&Counts) -> &AtomicU64| {
            let counts = self.counts.all().map(count);
            counts.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        StatsReading {
            requests: sum(|counts| &counts.requests),
            errors: sum(|counts| &counts.errors),
            time: Duration::from_nanos(sum(|counts| &counts.nanoseconds)),
            last_error: lock(&self.last_error).clone(),
        }
    }
}
