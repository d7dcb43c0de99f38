//! A host: it starts an app's services, replaces them while calls flow, and stops without losing
//! one.
//!
//! Everything that changes goes through [`Host::apply`]: it compares what should run with what
//! does, prepares all of it, and only then touches what serves. An app that cannot run as a whole
//! changes nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::app::{self, Described, Plan, PlanError};
use crate::call::CallError;
use crate::component::{Component, ComponentError};
use crate::discovery::Directory;
use crate::engine::{Engine, EngineError, EngineOptions};
use crate::events::consume::Ledger;
use crate::events::stream::StoreError;
use crate::events::{self, Subscription};
use crate::inbound::http::{Admin, Gateway};
use crate::inbound::nats::{Occupant, Slot};
use crate::interface::InterfaceId;
use crate::manifest::App;
use crate::nats::{ConnectOptions, SETTLE_DEADLINE};
use crate::service::{Service, ServiceError};
use crate::subject;
use crate::worker::{Source, Worker, WorkerError};

/// How long a host that stops waits for the calls that are under way.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// What the gateway gets, after the last call has been given up, to tell its clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How often idle instances are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// What the host's operator chooses.
#[derive(Clone)]
pub struct HostOptions {
    /// Where NATS is.
    pub nats: ConnectOptions,
    /// Threads that serve calls; one for each core unless told otherwise.
    pub workers: NonZeroUsize,
    /// Where the gateway listens; `None` runs without one.
    pub gateway: Option<SocketAddr>,
    /// Where dead letters are served over HTTP, to whoever can reach it; `None` serves them nowhere.
    pub admin: Option<SocketAddr>,
    /// The engine's part.
    pub engine: EngineOptions,
}

impl HostOptions {
    /// The defaults, with NATS at this place, no gateway and no admin address.
    #[must_use]
    pub fn new(nats: ConnectOptions) -> Self {
        Self {
            nats,
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            gateway: None,
            admin: None,
            engine: EngineOptions::default(),
        }
    }
}

/// What of a host listens on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// The gateway.
    Gateway,
    /// The admin address.
    Admin,
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "the gateway",
            Self::Admin => "the admin address",
        })
    }
}

/// Why a host could not start or an app could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The engine could not be set up.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A worker could not start or was refused a subscription.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// An address cannot be listened on.
    #[error("{what} cannot listen on {address}")]
    Listen {
        /// What was to listen there.
        what: Listening,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no component that can be run.
    #[error("service \"{service}\": {}", path.display())]
    Component {
        /// The service.
        service: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: ComponentError,
    },
    /// A component cannot be linked.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// What is to be stored cannot be.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The services do not fit together.
    #[error("{}", join(.0))]
    Plan(Vec<PlanError>),
    /// A component does not start.
    #[error("service \"{service}\" does not start")]
    Warm {
        /// The service.
        service: String,
        /// Why.
        source: CallError,
    },
    /// The app of a running host keeps its name: it is part of every subject.
    #[error("the app is called \"{running}\" and cannot be renamed to \"{wanted}\" while it runs")]
    Renamed {
        /// The name it has.
        running: String,
        /// The name it was to get.
        wanted: String,
    },
}

fn join(errors: &[PlanError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What is served and by whom.
#[derive(Default)]
struct Running {
    services: BTreeMap<String, Arc<Service>>,
    slots: BTreeMap<Source, Arc<Slot>>,
}

/// A running host.
pub struct Host {
    engine: Engine,
    app: String,
    workers: Vec<Worker>,
    gateway: Arc<Gateway>,
    address: Option<SocketAddr>,
    admin: Arc<Admin>,
    admin_address: Option<SocketAddr>,
    serving: Vec<JoinHandle<()>>,
    directory: Arc<Directory>,
    chores: Vec<JoinHandle<()>>,
    running: Arc<tokio::sync::Mutex<Running>>,
}

/// What [`Host::apply`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Services that were not there before.
    pub started: Vec<String>,
    /// Services whose component or specification is another now.
    pub replaced: Vec<String>,
    /// Services that are gone.
    pub stopped: Vec<String>,
}

/// Reads and compiles the file of each service.
///
/// # Errors
///
/// The first that is no component that can be run.
///
/// # Cost
///
/// Blocks for as long as compiling takes; see [`Component::new`].
pub fn load(
    engine: &Engine,
    files: &BTreeMap<String, PathBuf>,
) -> Result<BTreeMap<String, Arc<Component>>, HostError> {
    files
        .iter()
        .map(|(service, path)| {
            let component =
                Component::load(engine, path).map_err(|source| HostError::Component {
                    service: service.clone(),
                    path: path.clone(),
                    source,
                })?;
            Ok((service.clone(), Arc::new(component)))
        })
        .collect()
}

/// Checks that the components fit together as the app says.
///
/// # Errors
///
/// Everything that does not fit.
pub fn check(app: &App, components: &BTreeMap<String, Arc<Component>>) -> Result<Plan, HostError> {
    let described: Vec<_> = components
        .iter()
        .map(|(name, component)| Described {
            name,
            exports: &component.exports,
            imports: &component.imports,
            http: component.http.is_some(),
        })
        .collect();
    app::plan(app, &described).map_err(HostError::Plan)
}

impl Host {
    /// Starts a host without services: connected, its gateway listening and not ready.
    ///
    /// # Errors
    ///
    /// The engine cannot be set up, NATS cannot be reached, or the address is taken.
    pub async fn start(app: &App, engine: Engine, options: HostOptions) -> Result<Self, HostError> {
        let listener = listen(Listening::Gateway, options.gateway)?;
        let admin_listener = listen(Listening::Admin, options.admin)?;
        let mut workers = Vec::new();
        for index in 0..options.workers.get() {
            let nats = options
                .nats
                .clone()
                .named(format!("wasmbay {} {index}", app.name));
            workers.push(Worker::start(index, nats).await?);
        }
        let gateway = Arc::new(Gateway::new(&app.name, app.gateway.clone()));
        let bound = |listener: &Option<TcpListener>| listener.as_ref()?.local_addr().ok();
        let mut host = Self {
            engine,
            app: app.name.clone(),
            admin: Arc::new(Admin::new(&app.name, Arc::clone(&gateway))),
            gateway,
            address: bound(&listener),
            admin_address: bound(&admin_listener),
            workers,
            serving: Vec::new(),
            directory: Arc::new(Directory::new(&app.name, &nuid())),
            chores: Vec::new(),
            running: Arc::default(),
        };
        host.open_gateway(listener)?;
        host.open_admin(admin_listener);
        host.start_chores();
        Ok(host)
    }

    /// Every worker accepts from the one listening socket.
    fn open_gateway(&mut self, listener: Option<TcpListener>) -> Result<(), HostError> {
        let (Some(address), Some(listener)) = (self.address, listener) else {
            return Ok(());
        };
        for worker in &self.workers {
            let listener = listener
                .try_clone()
                .map_err(failed(Listening::Gateway, address))?;
            let gateway = Arc::clone(&self.gateway);
            let (outbound, client) = (Arc::clone(&worker.outbound), worker.client.clone());
            let serving = gateway.serve(listener, outbound, client);
            self.serving.push(worker.runtime.spawn(serving));
        }
        Ok(())
    }

    /// Operators do not need more than one thread.
    fn open_admin(&mut self, listener: Option<TcpListener>) {
        let (Some(listener), Some(worker)) = (listener, self.workers.first()) else {
            return;
        };
        if let Some(address) = self.admin_address.filter(|a| !a.ip().is_loopback()) {
            tracing::warn!(
                %address,
                "whoever reaches the admin address can read, change and drop dead letters"
            );
        }
        let serving = Arc::clone(&self.admin).serve(listener, worker.client.clone());
        self.serving.push(worker.runtime.spawn(serving));
    }

    fn start_chores(&mut self) {
        if let Some(worker) = self.workers.first() {
            let (directory, client) = (Arc::clone(&self.directory), worker.client.clone());
            self.chores.push(worker.runtime.spawn(async move {
                if let Err(error) = directory.serve(client).await {
                    tracing::error!(%error, "services cannot be discovered");
                }
            }));
        }
        let running = Arc::clone(&self.running);
        self.chores.push(tokio::spawn(async move {
            let mut sweep = tokio::time::interval(SWEEP);
            loop {
                sweep.tick().await;
                for service in running.lock().await.services.values() {
                    service.drop_idle(Instant::now());
                }
            }
        }));
    }

    /// Where the gateway listens.
    #[must_use]
    pub fn gateway(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Where dead letters are served over HTTP.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The engine, for loading components.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Makes the host run this app: starts what is new, replaces what has changed, stops what is
    /// gone, and leaves alone what is the same. No call is lost.
    ///
    /// # Errors
    ///
    /// Something does not link, fit or start; then everything runs on as before.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may leave subjects served that the host does not count as its own.
    pub async fn apply(
        &self,
        app: &App,
        components: &BTreeMap<String, Arc<Component>>,
    ) -> Result<Applied, HostError> {
        if app.name != self.app {
            let (running, wanted) = (self.app.clone(), app.name.clone());
            return Err(HostError::Renamed { running, wanted });
        }
        let plan = check(app, components)?;
        let mut running = self.running.lock().await;
        let (services, applied) = self
            .prepare(app, &plan, components, &running.services)
            .await?;

        let ledger = self.store_events(app, &plan).await?;

        let mut leaving = running.slots.clone();
        let (mut wanted, mut staying, mut arriving) = (Vec::new(), Vec::new(), Vec::new());
        for (name, interfaces) in &plan.serves {
            let Some(service) = services.get(name) else {
                continue;
            };
            for exported in interfaces.iter().filter_map(|id| service.interface(id)) {
                let (sources, subscription) = self.sources(&plan, service, &exported.id, &ledger);
                for source in sources {
                    let occupant = Occupant {
                        service: Arc::clone(service),
                        exported: Arc::clone(exported),
                        subscription: subscription.clone(),
                        raw: false,
                    };
                    wanted.push((source, occupant));
                }
            }
        }
        wanted.extend(
            services
                .values()
                .flat_map(|service| self.raw_sources(app, service, &ledger)),
        );
        for (source, occupant) in wanted {
            match leaving.remove(&source) {
                Some(slot) => staying.push((slot, occupant)),
                None => arriving.push((source, Arc::new(Slot::new(occupant)))),
            }
        }
        // The only step that can fail comes first, and is taken back if it does.
        self.serve(&arriving).await?;
        for (slot, occupant) in staying {
            slot.replace(occupant);
        }
        self.gateway.set_routes(&plan, &services);
        self.admin.set_events(plan.events.clone());
        let leaving: Vec<Source> = leaving.into_keys().collect();
        self.drain(Some(&leaving), Instant::now() + DEFAULT_GRACE)
            .await;
        running.slots.retain(|source, _| !leaving.contains(source));
        running.slots.extend(arriving);
        self.directory
            .set(services.values().cloned().collect(), plan.events.clone());
        running.services = services;
        Ok(applied)
    }

    /// Sees to it that JetStream keeps what is wired to be kept. Gives where failures are written
    /// down.
    async fn store_events(&self, app: &App, plan: &Plan) -> Result<Option<Arc<Ledger>>, HostError> {
        let Some(worker) = self.workers.first() else {
            return Ok(None);
        };
        let context = jetstream::new(worker.client.clone());
        events::stream::provision(&context, app, plan).await?;
        Ok(Some(Arc::new(Ledger::new(context, &self.app))))
    }

    /// Where the messages for an interface of a service come from, and what it needs to handle
    /// those that are stored.
    fn sources(
        &self,
        plan: &Plan,
        service: &Service,
        interface: &InterfaceId,
        ledger: &Option<Arc<Ledger>>,
    ) -> (Vec<Source>, Option<Arc<Subscription>>) {
        let Service { spec, .. } = service;
        let wire = plan.event_wire(interface);
        let durable = wire.and_then(|wire| wire.spec.durable.as_ref());
        if let (Some(durable), Some(ledger)) = (durable, ledger) {
            let delivery = durable.delivery(&spec.name).clone();
            let stream = subject::stream(&self.app, interface);
            let sources = events::stream::consumers(durable, &spec.name)
                .into_iter()
                .map(|consumer| Source::Consumer {
                    stream: stream.clone(),
                    name: consumer.name,
                });
            let concurrency = spec.limits.concurrency;
            let subscription = Subscription::new(delivery, concurrency, Arc::clone(ledger));
            return (sources.collect(), Some(Arc::new(subscription)));
        }
        let group = match wire {
            Some(_) => subject::queue_group_of(&spec.name),
            None => subject::QUEUE_GROUP.to_owned(),
        };
        let subject = subject::all_functions(&self.app, interface);
        (vec![Source::Subject { subject, group }], None)
    }

    /// Where the raw messages that a service handles come from: from the one consumer that it has
    /// on a stream, and from subjects that none stores.
    fn raw_sources(
        &self,
        app: &App,
        service: &Arc<Service>,
        ledger: &Option<Arc<Ledger>>,
    ) -> BTreeMap<Source, Occupant> {
        let Some(exported) = service.messages() else {
            return BTreeMap::new();
        };
        let Service { spec, .. } = &**service;
        let mut sources = BTreeMap::new();
        for pattern in &spec.grants.subscribe {
            let behind = spec.grants.stream_behind(pattern);
            let stored = app.streams.iter().find(|s| Some(&*s.stream) == behind);
            let (source, subscription) = match stored.zip(ledger.as_ref()) {
                Some((stored, ledger)) => {
                    let source = Source::Consumer {
                        stream: stored.stream.clone(),
                        name: spec.name.clone(),
                    };
                    let delivery = stored.durable.delivery(&spec.name).clone();
                    let concurrency = spec.limits.concurrency;
                    let ledger = Arc::clone(ledger);
                    (
                        source,
                        Some(Subscription::new(delivery, concurrency, ledger)),
                    )
                }
                None => {
                    let source = Source::Subject {
                        subject: pattern.to_string(),
                        group: subject::queue_group_of_messages(&self.app, &spec.name),
                    };
                    (source, None)
                }
            };
            let occupant = Occupant {
                service: Arc::clone(service),
                exported: Arc::clone(exported),
                subscription: subscription.map(Arc::new),
                raw: true,
            };
            sources.insert(source, occupant);
        }
        sources
    }

    /// Has every worker serve these sources, or none.
    async fn serve(&self, slots: &[(Source, Arc<Slot>)]) -> Result<(), WorkerError> {
        if slots.is_empty() {
            return Ok(());
        }
        for worker in &self.workers {
            if let Err(error) = worker.serve(slots.to_vec()).await {
                let sources: Vec<Source> = slots.iter().map(|(s, _)| s.clone()).collect();
                self.drain(Some(&sources), Instant::now()).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Has every worker stop serving these sources, or all. Gives the number of calls that had
    /// not ended at the deadline.
    async fn drain(&self, sources: Option<&[Source]>, deadline: Instant) -> usize {
        if sources.is_some_and(<[Source]>::is_empty) {
            return 0;
        }
        let sources = sources.map(<[Source]>::to_vec);
        let drains = self
            .workers
            .iter()
            .map(|worker| worker.drain(sources.clone(), deadline));
        // Without a server nothing confirms that calls have stopped coming.
        let patience = deadline.max(Instant::now()) + SETTLE_DEADLINE + LAST_WORDS;
        match tokio::time::timeout_at(patience.into(), join_all(drains)).await {
            Ok(given_up) => given_up.into_iter().sum(),
            Err(_) => {
                tracing::warn!("NATS could not be told that calls are no longer taken");
                1
            }
        }
    }

    /// The services that should run: those that run already where nothing about them changed, and
    /// new ones, linked and with a first instance, where something did.
    async fn prepare(
        &self,
        app: &App,
        plan: &Plan,
        components: &BTreeMap<String, Arc<Component>>,
        running: &BTreeMap<String, Arc<Service>>,
    ) -> Result<(BTreeMap<String, Arc<Service>>, Applied), HostError> {
        let mut services = BTreeMap::new();
        let mut applied = Applied::default();
        for (name, spec) in &app.services {
            let Some(component) = components.get(name) else {
                continue;
            };
            let old = running.get(name);
            let imports = component.imports.iter();
            let events: Vec<_> = imports
                .filter_map(|import| plan.event_wire(&import.id).cloned())
                .collect();
            let same = |old: &&Arc<Service>| {
                *old.spec == *spec
                    && old.component.digest == component.digest
                    && old.publishes_alike(&events)
            };
            if let Some(old) = old.filter(same) {
                services.insert(name.clone(), Arc::clone(old));
                continue;
            }
            let spec = Arc::new(spec.clone());
            let service =
                Service::with_events(&self.engine, &self.app, Arc::clone(component), spec, events)?;
            warn_of_grants(&service);
            service.warm().await.map_err(|source| HostError::Warm {
                service: name.clone(),
                source,
            })?;
            services.insert(name.clone(), Arc::new(service));
            match old {
                Some(_) => applied.replaced.push(name.clone()),
                None => applied.started.push(name.clone()),
            }
        }
        applied.stopped = running
            .keys()
            .filter(|n| !services.contains_key(*n))
            .cloned()
            .collect();
        Ok((services, applied))
    }

    /// Stops: takes nothing new, answers everything that has arrived, closes. Calls that have not
    /// ended within `grace` are answered with 503; gives their number.
    pub async fn stop(mut self, grace: Duration) -> usize {
        let deadline = Instant::now() + grace;
        // Requests at the gateway need the services, so the gateway comes first; but a client that
        // takes its time must not use up that of the calls.
        self.gateway.close();
        self.admin.close();
        let mut gateway = join_all(std::mem::take(&mut self.serving));
        let half = (Instant::now() + grace / 2).into();
        let closed = tokio::time::timeout_at(half, &mut gateway).await.is_ok();
        self.directory.set(Vec::new(), Vec::new());
        let mut given_up = 0;
        for layer in self.layers().await {
            given_up += self.drain(Some(&layer), deadline).await;
        }
        given_up += self.drain(None, deadline).await;
        if !closed && tokio::time::timeout(LAST_WORDS, gateway).await.is_err() {
            tracing::warn!("connections of the gateway were cut");
        }
        for worker in std::mem::take(&mut self.workers) {
            worker.stop().await;
        }
        given_up
    }

    /// What is served, in the order in which it can stop: first what no other service calls. A
    /// call under way still finds those that it needs.
    async fn layers(&self) -> Vec<Vec<Source>> {
        let running = self.running.lock().await;
        let mut left: Vec<_> = running
            .slots
            .iter()
            .map(|(source, slot)| (source.clone(), slot.occupant()))
            .collect();
        let mut layers = Vec::new();
        while !left.is_empty() {
            let needed: Vec<bool> = left
                .iter()
                .map(|(_, callee)| {
                    left.iter().any(|(_, caller)| {
                        !Arc::ptr_eq(&caller.service, &callee.service)
                            && caller.service.imports(&callee.exported.id)
                    })
                })
                .collect();
            // Services that call each other in a circle stop together.
            let circle = needed.iter().all(|needed| *needed);
            let mut needed = needed.into_iter();
            let free = |_: &mut (Source, Arc<Occupant>)| !needed.next().unwrap_or(false) || circle;
            layers.push(
                left.extract_if(.., free)
                    .map(|(source, _)| source)
                    .collect(),
            );
        }
        layers
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for task in self.chores.iter().chain(&self.serving) {
            task.abort();
        }
    }
}

/// Says what a component and its grants disagree about: neither is wrong, but a message that was
/// expected would never come.
fn warn_of_grants(service: &Service) {
    let name = &service.spec.name;
    match (service.messages(), service.spec.grants.subscribe.is_empty()) {
        (Some(handler), true) => tracing::warn!(
            service = name,
            "it exports {}, but is granted no subject: `grants = {{ subscribe = [\"…\"] }}`",
            handler.id
        ),
        (None, false) => tracing::warn!(
            service = name,
            "it is granted subjects to hear, but exports neither wasmcloud:messaging/handler@0.2.0 nor \
             wasi:messaging/incoming-handler@0.2.0-draft"
        ),
        _ => {}
    }
}

fn listen(what: Listening, address: Option<SocketAddr>) -> Result<Option<TcpListener>, HostError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).map_err(failed(what, address))?;
    listener
        .set_nonblocking(true)
        .map_err(failed(what, address))?;
    Ok(Some(listener))
}

fn failed(what: Listening, address: SocketAddr) -> impl FnOnce(std::io::Error) -> HostError {
    move |source| HostError::Listen {
        what,
        address,
        source,
    }
}

/// An id for this host, unique enough to tell the hosts of a fleet apart.
fn nuid() -> String {
    format!("{:016x}", rand::random::<u64>())
}
