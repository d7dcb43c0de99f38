//! A host of a fleet: it watches what the fleet is to run, and runs its part of it.
//!
//! The node knows ([`View`]) and decides; a [`Driver`] for each app does it, with a [`Host`](super::Host)
//! of its own, on an engine and behind a gateway that all of them share. What runs goes on while NATS is
//! away: a node that does not see its own signs of life changes nothing.

mod admin;
mod archive;
mod driver;
mod front;
mod joining;
mod news;
mod options;
mod own;
mod reports;
mod rollouts;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_nats::jetstream::kv;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout_at};

use super::{Drained, Host, Listening, failed, hinders_jetstream, host_id, listen};
use crate::admin::metrics::MetricsExport;
use crate::events::stream;
use crate::fleet::{self, FORMAT, HISTORY, HostRecord, OWN_HISTORY, Placement, Store, Trust};
use crate::gateway::{SharedGateway, Tls};
use crate::manifest::Digest;
use crate::nats::ConnectOptions;
use crate::runtime::{Component, Engine};
use crate::spans::Spans;
use admin::{Admins, NodeAdmin};
use archive::StoredVersions;
use driver::Driver;
pub use driver::StepError;
use joining::{claim, create};
use news::{News, Tell};
pub use options::{NodeError, NodeOptions};
use own::Own;
pub use own::{Known, OwnApp, Told};
use reports::Reports;
use rollouts::Rollouts;
use view::{Target, View};

/// Time between two looks at which hosts are alive.
const LOOK: Duration = Duration::from_millis(250);

/// Time after which the buckets are watched anew, when the host does not see its own signs of life.
const WATCH_AGAIN: Duration = Duration::from_secs(5);

/// Upper bound of the part of the grace time in which services are handed over.
const HAND_OVER: u32 = 2;

/// What the parts of a node share.
struct Shared {
    name: String,
    id: String,
    nats: ConnectOptions,
    workers: NonZeroUsize,
    grace: Duration,
    /// When all has to have ended, once the node stops.
    deadline: Mutex<Option<Instant>>,
    engine: Engine,
    trust: Trust,
    spans: Spans,
    metrics: MetricsExport,
    store: Store,
    front: Option<Arc<SharedGateway>>,
    /// The one app that the host runs.
    own: Option<Own>,
    reports: Reports,
    rollouts: Rollouts,
    admins: Admins,
    components: tokio::sync::Mutex<HashMap<Digest, Weak<Component>>>,
}

impl Shared {
    /// The grace time, or what is left of it.
    fn grace_left(&self) -> Duration {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        deadline.map_or(self.grace, left)
    }
}

/// A running host of a fleet. It does nothing unless [`run`](Node::run) is polled.
pub struct Node {
    shared: Arc<Shared>,
    listening: Option<front::Listening>,
    admin: Option<SocketAddr>,
    health: Arc<watch::Sender<Health>>,
    record: watch::Sender<HostRecord>,
    view: View,
    apps: BTreeMap<String, Running>,
    news: mpsc::UnboundedReceiver<News>,
    told: mpsc::UnboundedSender<News>,
    watching: Vec<JoinHandle<()>>,
    watched_since: tokio::time::Instant,
    /// What has become of the one app that the host runs.
    telling: Option<mpsc::UnboundedReceiver<Told>>,
    /// What is known is to be acted on.
    stale: bool,
    background: Vec<JoinHandle<()>>,
}

/// How a node is, for who asks whether it is ready.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Health {
    /// It sees its own signs of life.
    fresh: bool,
    /// It is about to stop.
    leaving: bool,
    /// It is to run nothing.
    drained: bool,
}

/// An app of this node.
struct Running {
    target: watch::Sender<Option<Arc<Target>>>,
    services: watch::Receiver<BTreeSet<String>>,
    driver: JoinHandle<Drained>,
}

impl Node {
    /// Starts a host: connected, known to the fleet, its gateway listening.
    ///
    /// # Errors
    ///
    /// NATS or its JetStream cannot be used, the login lacks a permission, another host has the name, or
    /// the address is taken.
    pub async fn start(options: NodeOptions, engine: Engine) -> Result<Self, NodeError> {
        let violations = options.nats.violations.clone();
        let started = Self::start_allowed(options, engine);
        violations.guard(hinders_jetstream, started).await?
    }

    /// As [`start`](Self::start), where the login lacks no permission.
    async fn start_allowed(options: NodeOptions, engine: Engine) -> Result<Self, NodeError> {
        let NodeOptions {
            nats,
            name,
            labels,
            gateway,
            tls,
            capacity,
            admin,
            admin_token,
            workers,
            grace,
            copies,
            trust,
            spans,
            metrics,
            app,
        } = options;
        if !fleet::is_host_name(&name) {
            return Err(NodeError::Name(crate::text::shown(&name).into_owned()));
        }
        let listener = listen(Listening::Gateway, gateway)?;
        let admin_listener = super::listen_for_operators(admin, admin_token)?;
        let listening = match (&listener, gateway) {
            (Some(listener), Some(address)) => {
                let tls = tls.as_ref().map(Tls::load).transpose();
                let tls = tls.map_err(super::HostError::from)?;
                let started = front::Listening::start(listener, workers, tls);
                Some(started.map_err(failed(Listening::Gateway, address))?)
            }
            _ => None,
        };
        let client = nats.clone().named(format!("wasmbay host {name}"));
        let context = nats.jetstream(client.connect().await?);
        let until = tokio::time::Instant::now() + super::DEFAULT_JETSTREAM_WAIT;
        stream::available(&context, until).await?;
        let history = app.as_ref().map_or(HISTORY, |_| OWN_HISTORY);
        let store = create(context, copies, history).await?;
        let record = HostRecord {
            format: FORMAT,
            name: name.clone(),
            id: host_id(),
            labels,
            gateway: listening
                .as_ref()
                .map(|front| front.address)
                .or(app.as_ref().and_then(|app| app.options.gateway))
                .map(|address| address.to_string()),
            capacity,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: driver::now(),
            leaving: false,
            drained: store.is_drained(&name).await?,
            app: app.as_ref().map(|app| app.name.clone()),
        };
        claim(&store, &name).await?;
        store.try_out(&record).await?;
        let mut view = View::new(&name);
        let now = tokio::time::Instant::now();
        // So that the first look does not take this host for the only one.
        for record in store.hosts().await? {
            view.see(record, now);
        }
        // So that nothing begins again that was rolled back.
        for outcome in store.outcomes().await? {
            view.end(outcome);
        }
        let (told, news) = mpsc::unbounded_channel();
        let (own, telling) = app.map(Own::new).unzip();
        let mut node = Self {
            shared: Arc::new(Shared {
                name,
                id: record.id.clone(),
                nats,
                workers,
                grace,
                deadline: Mutex::default(),
                engine,
                trust,
                spans,
                metrics,
                store,
                front: listening.as_ref().map(|front| Arc::clone(&front.gateway)),
                own,
                reports: Reports::default(),
                rollouts: Rollouts::default(),
                admins: Admins::default(),
                components: tokio::sync::Mutex::default(),
            }),
            listening,
            admin: None,
            health: Arc::default(),
            record: watch::Sender::new(record),
            view,
            apps: BTreeMap::new(),
            news,
            told,
            watching: Vec::new(),
            watched_since: now,
            telling,
            stale: true,
            background: Vec::new(),
        };
        let drained = node.record.borrow().drained;
        node.drain(drained);
        node.begin(copies, history);
        if let Some((listener, guard)) = admin_listener {
            let (shared, health) = (Arc::clone(&node.shared), Arc::clone(&node.health));
            let opened = NodeAdmin::open(shared, health, listener, guard).await?;
            node.admin = Some(opened.0);
            node.background.push(opened.1);
        }
        Ok(node)
    }

    fn begin(&mut self, copies: Option<u8>, history: u8) {
        let store = self.shared.store.clone();
        let beats = reports::beat(store.clone(), (copies, history), self.record.subscribe());
        self.background.push(tokio::spawn(beats));
        let (shared, name) = (Arc::clone(&self.shared), self.shared.name.clone());
        self.background.push(tokio::spawn(async move {
            shared.reports.keep(store, name).await;
        }));
        let shared = Arc::clone(&self.shared);
        self.background
            .push(tokio::spawn(async move { shared.roll_out().await }));
        let exporting = Arc::clone(&self.shared).export_metrics();
        self.background.push(tokio::spawn(exporting));
        self.watch();
    }

    /// Watches the fleet's buckets, from the beginning.
    fn watch(&mut self) {
        for task in self.watching.drain(..) {
            task.abort();
        }
        self.watched_since = tokio::time::Instant::now();
        let store = &self.shared.store;
        let buckets: [(&kv::Store, Tell); 5] = [
            (store.hosts_bucket(), News::Host),
            (store.apps_bucket(), News::App),
            (store.reports_bucket(), News::Report),
            (store.drains_bucket(), News::Drain),
            (store.rollouts_bucket(), News::Rollout),
        ];
        for (bucket, news) in buckets {
            let told = self.told.clone();
            let tell = move |watched| told.send(news(watched)).is_ok();
            self.watching
                .push(tokio::spawn(fleet::watch(bucket.clone(), tell)));
        }
    }

    /// The address of the gateway as clients have it.
    #[must_use]
    pub fn gateway_url(&self) -> Option<String> {
        let front = self.listening.as_ref()?;
        Some(format!("{}://{}", front.gateway.scheme(), front.address))
    }

    /// Takes over the one app of this host, which runs already. From the next [`run`](Self::run) on it runs as
    /// its last revision says.
    pub fn adopt(&self, host: Host) {
        if let Some(own) = &self.shared.own {
            host.open_archive(Arc::new(StoredVersions::new(&self.shared, &own.app)));
            own.adopt(host);
        }
    }

    /// What becomes of the one app of this host; it can be asked once.
    #[must_use]
    pub fn telling(&mut self) -> Option<mpsc::UnboundedReceiver<Told>> {
        self.telling.take()
    }

    /// The components that it need not fetch.
    #[must_use]
    pub fn known(&self) -> Known {
        Known(Arc::clone(&self.shared))
    }

    /// The store of the fleet.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// The address of the gateway.
    #[must_use]
    pub fn gateway(&self) -> Option<SocketAddr> {
        self.listening.as_ref().map(|listening| listening.address)
    }

    /// The admin address.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Runs its part of the fleet, for as long as it is polled.
    ///
    /// # Cancel safety
    ///
    /// Safe: it goes on where it was when it is called again.
    pub async fn run(&mut self) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                news = self.news.recv() => {
                    if let Some(news) = news {
                        self.take(news);
                    }
                    while let Ok(news) = self.news.try_recv() {
                        self.take(news);
                    }
                }
                _ = look.tick() => {}
            }
            self.act();
        }
    }

    /// Says to the fleet that this host is drained, or takes services again. It acts on that as all others
    /// do, when it comes back from the store.
    fn drain(&self, drained: bool) {
        self.record.send_if_modified(|record| {
            let changed = record.drained != drained;
            record.drained = drained;
            changed
        });
        if let Some(listening) = &self.listening {
            listening.gateway.set_drained(drained);
        }
    }

    /// Has every app take over what follows from what is known.
    fn act(&mut self) {
        let now = tokio::time::Instant::now();
        let fresh = self.view.is_fresh(now);
        let record = self.record.borrow();
        let health = Health {
            fresh,
            leaving: record.leaving,
            drained: record.drained,
        };
        drop(record);
        self.health.send_if_modified(|known| {
            let changed = *known != health;
            *known = health;
            changed
        });
        self.shared.rollouts.set_current(fresh);
        if !fresh {
            if now.saturating_duration_since(self.watched_since) > WATCH_AGAIN {
                self.watch();
            }
            return;
        }
        let changed = self.view.look(now);
        if !changed && !self.stale {
            return;
        }
        self.stale = false;
        self.apps.retain(|_, app| !app.driver.is_finished());
        let known = self.view.apps.keys().chain(self.apps.keys());
        let names: BTreeSet<String> = known.cloned().collect();
        let placement = self.view.placement();
        self.shared.rollouts.follow(self.view.under_way(&placement));
        for app in names {
            self.aim(&app, &placement);
        }
        // One that ends may have to begin again when it has.
        let ends = |running: &Running| running.target.borrow().is_none();
        self.stale = self.apps.values().any(ends);
    }

    fn aim(&mut self, app: &str, placement: &Placement) {
        let running = self.apps.get(app);
        let services = running.map(|running| running.services.borrow().clone());
        let own = self.shared.own.iter();
        let mut own = own.filter_map(|own| own.options.gateway);
        let has_gateway = self.listening.is_some() || own.next().is_some();
        let services = services.unwrap_or_default();
        let target = self.view.target(app, placement, &services, has_gateway);
        let target = target.map(Arc::new);
        match (running, target) {
            (Some(running), target) => {
                let ends = running.target.borrow().is_none();
                // Once it ends it ends, and another one begins when it has.
                if !ends && *running.target.borrow() != target {
                    running.target.send_replace(target);
                }
            }
            (None, Some(target)) => {
                let running = self.drive(app, target);
                self.apps.insert(app.to_owned(), running);
            }
            (None, None) => {}
        }
    }

    fn drive(&self, app: &str, target: Arc<Target>) -> Running {
        let (target, targets) = watch::channel(Some(target));
        let (ran, services) = watch::channel(BTreeSet::new());
        let driver = Driver::new(Arc::clone(&self.shared), app, targets, ran);
        let told = self.told.clone();
        let mut changes = services.clone();
        let driver = tokio::spawn(async move {
            let tell = async {
                while changes.changed().await.is_ok() {
                    let _ = told.send(News::Ran);
                }
                std::future::pending().await
            };
            tokio::select! {
                drained = driver.run() => drained,
                drained = tell => drained,
            }
        });
        Running {
            target,
            services,
            driver,
        }
    }

    /// Leaves the fleet: hands over what it runs, then takes nothing new, answers everything that has
    /// arrived, and ends. Calls that have not ended within `grace` are answered with 503.
    ///
    /// # Limits
    ///
    /// Ends at most a moment after `grace`, also without NATS or another host.
    pub async fn stop(mut self, grace: Duration) -> Drained {
        let started = Instant::now();
        let deadline = started + grace;
        *self
            .shared
            .deadline
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(deadline);
        self.record.send_modify(|record| record.leaving = true);
        let until = tokio::time::Instant::from_std(started + grace / HAND_OVER);
        // No other host runs the one app of this one, whose gateway stops before its services do.
        if self.shared.own.is_none() && timeout_at(until, self.hand_over()).await.is_err() {
            tracing::warn!("no other host has taken over everything in time");
        }
        for task in self.watching.drain(..) {
            task.abort();
        }
        if let Some(listening) = self.listening.take() {
            // Requests need the services; but a slow client must not use up the time of the calls.
            let left = deadline.saturating_duration_since(Instant::now());
            listening.close(Instant::now() + left / 2).await;
        }
        self.shared.export_last_metrics().await;
        let mut drained = Drained::NOTHING;
        for running in self.apps.values() {
            running.target.send_replace(None);
        }
        for (app, running) in std::mem::take(&mut self.apps) {
            match running.driver.await {
                Ok(one) => drained = drained.and(one),
                Err(error) => tracing::error!(app, %error, "an app ended badly"),
            }
        }
        if let Some(host) = self.shared.own.as_ref().and_then(Own::take_host) {
            drained = drained.and(host.stop(self.shared.grace_left()).await);
        }
        for task in self.background.drain(..) {
            task.abort();
        }
        // Others notice by themselves if this does not arrive.
        let store = &self.shared.store;
        let last = tokio::time::Instant::from_std(Instant::now() + super::CLOSE_TIMEOUT);
        let goodbye = async {
            self.shared.reports.keep_all(store, &self.shared.name).await;
            store.forget_host(&self.shared.name).await
        };
        if !matches!(timeout_at(last, goodbye).await, Ok(Ok(()))) {
            tracing::debug!("the fleet was not told that this host is gone");
        }
        drained
    }

    /// Waits until nothing runs here that another host is to run.
    async fn hand_over(&mut self) {
        while !self.has_left() {
            tokio::select! {
                () = self.run() => {}
                () = sleep(LOOK / 5) => {}
            }
        }
    }

    /// Whether the fleet has seen that this host leaves, and nothing is held for others.
    fn has_left(&self) -> bool {
        let held = |running: &Running| {
            let target = running.target.borrow();
            target.as_ref().is_some_and(|target| {
                let services = running.services.borrow();
                let wanted = target.here.iter().chain(&target.held);
                wanted.into_iter().any(|service| services.contains(service))
            })
        };
        self.view.is_leaving() && !self.stale && !self.apps.values().any(held)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let apps = self.apps.values().map(|running| &running.driver);
        for task in apps.map(JoinHandle::abort_handle) {
            task.abort();
        }
        for task in self.watching.iter().chain(&self.background) {
            task.abort();
        }
    }
}
