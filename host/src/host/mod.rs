//! A host: it starts services, replaces them while calls flow, and stops without losing one.

pub(crate) mod discovery;
mod drain;
mod error;
mod load;
mod neighbours;
mod node;
mod peers;
mod prepare;
mod reconcile;
mod upkeep;
mod worker;

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::admin::guard::Guard;
pub use crate::admin::guard::{AdminToken, NoToken};
pub use crate::admin::metrics::MetricsExport;
use crate::admin::metrics::Process;
use crate::deployment::{Current, drain_order};
use crate::gateway::{Gateway, Mount, Tls};
use crate::insight::Insight;
use crate::jobs;
use crate::manifest::App;
use crate::nats::{Action, ConnectOptions, Refusal};
use crate::pipelines::{Archive, Serving};
use crate::runtime::{Engine, EngineOptions, Runtime};
use crate::spans::Spans;
use crate::subject;
pub use crate::transport::Drained;
use crate::transport::local::Local;
use discovery::Directory;
use drain::Drains;
pub use error::HostError;
pub use load::{check, load, specify};
use neighbours::Neighbours;
pub use node::{Known, Node, NodeError, NodeOptions, OwnApp, StepError, Told};
pub use reconcile::Applied;
use reconcile::Served;
use upkeep::Upkeep;
use worker::Worker;

/// Default time for which a host that stops waits for the calls that are under way.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(10);

/// Time after the grace time in which calls are answered with 503, the gateway answers its clients, and
/// NATS takes the last replies.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Default time for which a host that starts waits for JetStream, where its app needs it.
pub const DEFAULT_JETSTREAM_WAIT: Duration = Duration::from_secs(30);

/// Interval of dropping instances that have been idle for too long.
const SWEEP: Duration = Duration::from_secs(5);

/// The options of a host.
#[derive(Clone)]
pub struct HostOptions {
    /// Where NATS is.
    pub nats: ConnectOptions,
    /// Threads that serve calls; one for each core by default.
    pub workers: NonZeroUsize,
    /// The address of the gateway; `None` runs without one.
    pub gateway: Option<SocketAddr>,
    /// The admin address; `None` runs without one. Any client that can reach it sees what runs, and works
    /// with dead letters and runs.
    pub admin: Option<SocketAddr>,
    /// The token that the admin address asks for. Without one it has to be a loopback address.
    pub admin_token: Option<AdminToken>,
    /// The options of the engine.
    pub engine: EngineOptions,
    /// Upper bound of the time for which calls of a replaced or removed service go on.
    pub grace: Duration,
    /// Upper bound of the time for which the first [`Host::apply`] waits for JetStream, where the app needs
    /// it: a cluster may have no leader yet.
    pub jetstream_wait: Duration,
    /// Distinguishes the host from others of the app; a random text unless given. It is one token of
    /// subjects.
    pub id: Option<String>,
    /// The folder of the app, in which the folders of files are that services are granted; `None` has none.
    pub files: Option<PathBuf>,
    /// Records what services and the gateway do; nothing by default.
    pub spans: Spans,
    /// Exports the app's metrics; nothing by default.
    pub metrics: MetricsExport,
    /// Whether a [`Node`] takes the host over, whose fleet keeps the versions that services had; not by default.
    /// Runs of durable functions are then ended by the version that began them.
    pub in_fleet: bool,
}

impl HostOptions {
    /// The defaults, with these options of NATS, no gateway and no admin address.
    #[must_use]
    pub fn new(nats: ConnectOptions) -> Self {
        Self {
            nats,
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            gateway: None,
            admin: None,
            admin_token: None,
            engine: EngineOptions::default(),
            grace: DEFAULT_GRACE,
            jetstream_wait: DEFAULT_JETSTREAM_WAIT,
            id: None,
            files: None,
            spans: Spans::default(),
            metrics: MetricsExport::default(),
            in_fleet: false,
        }
    }
}

/// A part of a host that listens on an address.
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

/// Whether JetStream, or what it answers, was refused to a login; but for the list of streams, and for
/// keeping log records.
fn hinders_jetstream(refusal: &Refusal) -> bool {
    let Refusal { action, subject } = refusal;
    match action {
        Action::Publish => {
            let of_jetstream = ["$JS.", "$KV.", "$O."];
            let is_needed = !refusal.is_of_stream_list() && !refusal.is_of_logs();
            of_jetstream.iter().any(|at| subject.starts_with(at)) && is_needed
        }
        // What is left are inboxes.
        Action::Subscribe => !subject::is_reserved(subject),
    }
}

/// A running host.
pub struct Host {
    runtime: Runtime,
    /// Distinguishes the hosts of a fleet.
    id: String,
    /// Hosts that ran the app when this one started.
    neighbours: Neighbours,
    app: String,
    grace: Duration,
    jetstream_wait: Duration,
    workers: Arc<Vec<Worker>>,
    /// The functions that are called in the process.
    local: Arc<Local>,
    pipelines: Option<Arc<Serving>>,
    jobs: Option<Arc<jobs::Serving>>,
    /// What it tells operators of the app.
    insight: Arc<Insight>,
    gateway: Arc<Gateway>,
    address: Option<SocketAddr>,
    admin: Option<Arc<Admin>>,
    process: Process,
    metrics: MetricsExport,
    admin_address: Option<SocketAddr>,
    serving: Vec<JoinHandle<()>>,
    current: Arc<Current>,
    /// The sources that the workers were ordered to serve.
    served: Mutex<Served>,
    /// One step of reconciliation at a time.
    reconciling: Arc<tokio::sync::Mutex<()>>,
    drains: Drains,
    background: Vec<JoinHandle<()>>,
    /// The comparison with other hosts that the last step began.
    comparison: Mutex<Option<JoinHandle<()>>>,
}

impl Host {
    /// Starts a host without services: connected, its gateway listening and not ready.
    ///
    /// # Errors
    ///
    /// The engine cannot be set up, NATS cannot be reached, or the address is taken.
    pub async fn start(app: &App, engine: Engine, options: HostOptions) -> Result<Self, HostError> {
        let listener = listen(Listening::Gateway, options.gateway)?;
        let tls = app.gateway.tls.as_ref().filter(|_| listener.is_some());
        let tls = tls.map(Tls::load).transpose()?;
        let admin_listener = listen_for_operators(options.admin, options.admin_token)?;
        let current = Arc::new(Current::default());
        let local = Arc::new(Local::default());
        let mut workers = Vec::new();
        for index in 0..options.workers.get() {
            let name = format!("wasmbay {} {index}", app.name);
            let nats = options.nats.clone().named(name);
            let count = options.workers.get();
            workers.push(Worker::start(index, count, nats, &app.name, &current, &local).await?);
        }
        let neighbours = match workers.first() {
            Some(worker) => Neighbours::ask(&worker.link, &app.name).await,
            None => Neighbours::default(),
        };
        let (spec, deployment) = (app.gateway.clone(), Arc::clone(&current));
        let gateway = Gateway::new(&app.name, spec, deployment).with_spans(&options.spans);
        let gateway = Arc::new(gateway.with_tls(tls));
        let first = workers.first();
        let runtime = Runtime::new(engine.clone())?
            .with_spans(options.spans.clone())
            .with_files(options.files.as_deref());
        let pipelines = first.map(|worker| {
            let (spans, in_fleet) = (&options.spans, options.in_fleet);
            Arc::new(worker.pipelines(&app.name, spans, &runtime, in_fleet))
        });
        let bound = |listener: &Option<TcpListener>| listener.as_ref()?.local_addr().ok();
        let id = options.id.unwrap_or_else(host_id);
        let places = workers.iter();
        let places = places.map(|worker| (worker.runtime.clone(), Arc::clone(&worker.backend)));
        let places: Vec<_> = places.collect();
        let jobs = first.map(|worker| {
            let context = worker.context.clone();
            Arc::new(jobs::Serving::new(&app.name, &id, context, places))
        });
        let insight = Arc::new(Insight::new(
            (&app.name, &id),
            Arc::clone(&current),
            Arc::clone(&gateway),
            pipelines.clone(),
            jobs.clone(),
            options.spans.clone(),
            engine.instances(),
        ));
        let process = Process {
            engine: engine.clone(),
            spans: options.spans.clone(),
            reconnects: options.nats.reconnects.clone(),
        };
        let admin = first.map(|worker| {
            let (link, context) = (worker.link.clone(), worker.context.clone());
            let process = process.clone();
            Arc::new(Admin::new(Arc::clone(&insight), process, link, context))
        });
        let mut host = Self {
            runtime,
            id,
            neighbours,
            app: app.name.clone(),
            grace: options.grace,
            jetstream_wait: options.jetstream_wait,
            admin,
            process,
            metrics: options.metrics,
            insight,
            gateway,
            address: bound(&listener),
            admin_address: admin_listener
                .as_ref()
                .and_then(|(listener, _)| listener.local_addr().ok()),
            workers: Arc::new(workers),
            local,
            pipelines,
            jobs,
            serving: Vec::new(),
            current,
            served: Mutex::default(),
            reconciling: Arc::default(),
            drains: Drains::default(),
            background: Vec::new(),
            comparison: Mutex::default(),
        };
        host.open_gateway(listener)?;
        host.open_admin(admin_listener);
        host.start_background();
        Ok(host)
    }

    /// Says where the versions are kept that services had.
    pub(super) fn open_archive(&self, archive: Arc<dyn Archive>) {
        if let Some(pipelines) = &self.pipelines {
            pipelines.open_archive(archive);
        }
    }

    /// Every worker accepts from the one listening socket.
    fn open_gateway(&mut self, listener: Option<TcpListener>) -> Result<(), HostError> {
        let (Some(address), Some(listener)) = (self.address, listener) else {
            return Ok(());
        };
        for worker in self.workers.iter() {
            let listener = listener
                .try_clone()
                .map_err(failed(Listening::Gateway, address))?;
            let gateway = Arc::clone(&self.gateway);
            let (backend, link) = (Arc::clone(&worker.backend), worker.link.clone());
            let serving = gateway.serve(listener, backend, link);
            self.serving.push(worker.runtime.spawn(serving));
        }
        Ok(())
    }

    /// One thread is enough for operators.
    fn open_admin(&mut self, listener: Option<(TcpListener, Guard)>) {
        let (Some((listener, guard)), Some(worker), Some(admin)) =
            (listener, self.workers.first(), &self.admin)
        else {
            return;
        };
        let serving = Arc::clone(admin).serve(listener, guard);
        self.serving.push(worker.runtime.spawn(serving));
    }

    fn start_background(&mut self) {
        if let Some(worker) = self.workers.first() {
            let (current, pipelines) = (Arc::clone(&self.current), self.pipelines.clone());
            let directory = Directory::new(&self.app, &self.id, current, pipelines);
            let link = worker.link.clone();
            let upkeep = Upkeep {
                client: worker.client.clone(),
                link: link.clone(),
                context: worker.context.clone(),
                host: self.id.clone(),
                current: Arc::clone(&self.current),
                reconciling: Arc::clone(&self.reconciling),
            };
            self.background.push(worker.runtime.spawn(upkeep.run()));
            let (insight, own) = (Arc::clone(&self.insight), worker.link.clone());
            self.background.push(worker.runtime.spawn(async move {
                let history = insight.write_history();
                let answers = async {
                    if let Err(error) = insight.answer(&own).await {
                        tracing::error!(%error, "operators' questions cannot be answered");
                    }
                };
                tokio::join!(history, answers);
            }));
            self.background.push(worker.runtime.spawn(async move {
                if let Err(error) = directory.serve(link).await {
                    tracing::error!(%error, "services cannot be discovered");
                }
            }));
        }
        let (metrics, process) = (self.metrics.clone(), self.process.clone());
        let apps: Vec<_> = self.admin.iter().cloned().collect();
        self.background
            .push(tokio::spawn(metrics.run(process, move || apps.clone())));
        let runtime = self.runtime.clone();
        self.background.push(tokio::spawn(async move {
            let mut sweep = tokio::time::interval(SWEEP);
            loop {
                sweep.tick().await;
                runtime.drop_idle(Instant::now());
            }
        }));
    }

    /// The address of the gateway.
    #[must_use]
    pub fn gateway(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The address of the gateway as clients have it.
    #[must_use]
    pub fn gateway_url(&self) -> Option<String> {
        let scheme = self.gateway.scheme();
        self.address.map(|address| format!("{scheme}://{address}"))
    }

    /// The admin address.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The app behind a gateway that several apps share.
    fn mount(&self, app: &App) -> Mount {
        let gateway = self.gateway.respecified(app.gateway.clone());
        let ways = self.workers.iter();
        let ways = ways.map(|worker| (Arc::clone(&worker.backend), worker.link.clone()));
        Mount::new(app, gateway, ways.collect())
    }

    /// The engine, for loading components.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        self.runtime.engine()
    }

    /// Stops: takes nothing new, answers everything that has arrived, closes. Calls that have not
    /// ended within `grace` are answered with 503.
    ///
    /// # Limits
    ///
    /// Ends at most [`CLOSE_TIMEOUT`] after `grace`, also without NATS; where spans are recorded, twice that.
    pub async fn stop(mut self, grace: Duration) -> Drained {
        let deadline = Instant::now() + grace;
        // Requests at the gateway need the services, so the gateway stops first; but a slow client
        // must not use up the time of the calls.
        self.gateway.close();
        if let Some(admin) = &self.admin {
            admin.close();
        }
        let mut gateway = join_all(std::mem::take(&mut self.serving));
        let half = (Instant::now() + grace / 2).into();
        let closed = tokio::time::timeout_at(half, &mut gateway).await.is_ok();
        let deployment = self.current.get();
        let order = drain_order(&deployment.bindings, |service, callee| {
            deployment.calls(service, callee)
        });
        // Discovery does not announce what goes away.
        for task in std::mem::take(&mut self.background) {
            task.abort();
        }
        let mut drained = Drained {
            given_up: self.drains.finish(deadline).await,
            confirmed: true,
        };
        // They call services, so they stop before those do.
        if let Some(jobs) = &self.jobs {
            drained.given_up += jobs.stop(deadline).await;
        }
        if let Some(pipelines) = &self.pipelines {
            drained.given_up += pipelines.stop(deadline).await;
        }
        for layer in order {
            let layer = self.retire(&layer);
            drained = drained.and(drain::drain(&self.workers, &layer, deadline).await);
        }
        // Sources of a step that did not get as far as a deployment.
        let local = self.local.slots();
        let local = join_all(local.iter().map(|slot| slot.drain_local(deadline)));
        let remote = drain::drain_workers(&self.workers, None, deadline);
        let (local, remote) = tokio::join!(local, remote);
        drained = drained.and(remote);
        drained.given_up += local.into_iter().sum::<usize>();
        let apps: Vec<_> = self.admin.iter().cloned().collect();
        self.metrics.finish(&self.process, &apps).await;
        let last = deadline + CLOSE_TIMEOUT;
        if !closed && tokio::time::timeout_at(last.into(), gateway).await.is_err() {
            tracing::warn!("connections of the gateway were cut");
        }
        if let Some(workers) = Arc::get_mut(&mut self.workers) {
            let stops = std::mem::take(workers).into_iter().map(|w| w.stop(last));
            drained.confirmed &= join_all(stops).await.into_iter().all(|taken| taken);
        }
        self.runtime.spans().flush(CLOSE_TIMEOUT).await;
        drained
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let comparison = self.comparison.get_mut();
        let comparison = comparison.unwrap_or_else(PoisonError::into_inner).take();
        for task in self
            .background
            .iter()
            .chain(&self.serving)
            .chain(&comparison)
        {
            task.abort();
        }
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

/// An admin address, and who may ask there. Nobody opens it to others by accident.
fn listen_for_operators(
    address: Option<SocketAddr>,
    token: Option<AdminToken>,
) -> Result<Option<(TcpListener, Guard)>, HostError> {
    if let Some(address) = address.filter(|address| !address.ip().is_loopback())
        && token.is_none()
    {
        return Err(HostError::Unguarded { address });
    }
    let listener = listen(Listening::Admin, address)?;
    Ok(listener.zip(address).map(|(listener, address)| {
        let bound = address.ip();
        (listener, Guard { bound, token })
    }))
}

fn failed(what: Listening, address: SocketAddr) -> impl FnOnce(std::io::Error) -> HostError {
    move |source| HostError::Listen {
        what,
        address,
        source,
    }
}

/// A random id of this host, by which the hosts of a fleet differ.
fn host_id() -> String {
    format!("{:016x}", rand::random::<u64>())
}
