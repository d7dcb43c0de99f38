//! The admin address of a node: its health, what the fleet runs, as JSON, and metrics. Below `/apps/{app}/`
//! it serves what the admin address of an app does (`crate::admin`), by that app's own table.

mod described;
mod drains;
mod orders;
mod parts;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use orders::{Order, Orders};

use super::{Health, NodeError, Shared};
use crate::admin::guard::Guard;
use crate::admin::metrics::Process;
use crate::admin::query::Query;
use crate::admin::routes::{self, NOTHING};
use crate::admin::{Admin, Asked, CONNECTIONS, TIMEOUT, metrics};
use crate::call::Blame;
use crate::fleet::{self, StoreError, placement_of, progress, show_app, show_history, show_hosts};
use crate::gateway::accept;
use crate::gateway::answer::{Answer, Refusal, json as answer_json, to_json};
use crate::gateway::connection::{self, Activity, Answers, Received, Tasks};
use crate::gateway::health::healthz;
use crate::gateway::places::Places;
use crate::gateway::route::not_allowed;
use crate::manifest::keys;
use crate::nats::Link;

/// Time for a deploy: its components are compiled, for what they are.
const DEPLOY: Duration = Duration::from_secs(300);

/// The apps of this node, which answer for themselves.
#[derive(Default)]
pub(super) struct Admins(Mutex<BTreeMap<String, Arc<Admin>>>);

impl Admins {
    pub(super) fn insert(&self, app: &str, admin: Option<&Arc<Admin>>) {
        if let Some(admin) = admin {
            self.apps().insert(app.to_owned(), Arc::clone(admin));
        }
    }

    pub(super) fn remove(&self, app: &str) {
        self.apps().remove(app);
    }

    fn of(&self, app: &str) -> Option<Arc<Admin>> {
        self.apps().get(app).cloned()
    }

    fn all(&self) -> Vec<Arc<Admin>> {
        self.apps().values().cloned().collect()
    }

    fn apps(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Admin>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The admin address of a node.
pub(super) struct NodeAdmin {
    pub(super) shared: Arc<Shared>,
    pub(super) health: Arc<watch::Sender<Health>>,
    pub(super) link: Link,
    pub(super) closing: watch::Sender<bool>,
    /// Deploys under way, whose connections may take longer.
    deploys: AtomicUsize,
}

/// A deploy that is under way.
struct Deploying<'a>(&'a AtomicUsize);

impl Drop for Deploying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The same, with what serves it.
struct Server {
    admin: Arc<NodeAdmin>,
    guard: Guard,
    tasks: Weak<Tasks>,
}

impl Shared {
    fn process(&self) -> Process {
        Process {
            engine: self.engine.clone(),
            spans: self.spans.clone(),
            reconnects: self.nats.reconnects.clone(),
        }
    }

    /// Exports the metrics of all apps, until dropped.
    pub(super) async fn export_metrics(self: Arc<Self>) {
        let (process, metrics) = (self.process(), self.metrics.clone());
        metrics.run(process, move || self.admins.all()).await;
    }

    /// Exports them once more, before the apps end.
    pub(super) async fn export_last_metrics(&self) {
        let apps = self.admins.all();
        self.metrics.finish(&self.process(), &apps).await;
    }
}

impl NodeAdmin {
    /// Begins to serve at this listener; returns its address and the task that serves.
    pub(super) async fn open(
        shared: Arc<Shared>,
        health: Arc<watch::Sender<Health>>,
        listener: TcpListener,
        guard: Guard,
    ) -> Result<(SocketAddr, JoinHandle<()>), NodeError> {
        let address = listener.local_addr();
        let address = address.map_err(NodeError::AdminAddress)?;
        let name = format!("wasmbay host {} admin", shared.name);
        let admin = Arc::new(Self {
            link: shared.nats.clone().named(name).link().await?,
            shared,
            health,
            closing: watch::Sender::new(false),
            deploys: AtomicUsize::new(0),
        });
        Ok((address, tokio::spawn(admin.serve(listener, guard))))
    }

    fn begin_deploy(&self) -> Deploying<'_> {
        self.deploys.fetch_add(1, Ordering::Relaxed);
        Deploying(&self.deploys)
    }

    /// Accepts and serves connections until it is closed and all of them have ended.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, guard: Guard) {
        let closing = self.closing.subscribe();
        let places = Arc::new(Places::new(CONNECTIONS, CONNECTIONS));
        let header = keys::gateway::HEADER.values.default;
        let begin = |tasks: Weak<Tasks>| {
            let builder = connection::builder(header, Weak::clone(&tasks)).http1_only();
            let admin = self;
            (
                Server {
                    admin,
                    guard,
                    tasks,
                },
                builder,
            )
        };
        accept::serve("the admin address", listener, closing, places, None, begin).await;
    }
}

impl Answers for Server {
    fn timeout(&self) -> Duration {
        if self.admin.deploys.load(Ordering::Relaxed) > 0 {
            DEPLOY
        } else {
            TIMEOUT
        }
    }

    fn tasks(&self) -> &Weak<Tasks> {
        &self.tasks
    }

    async fn answer(&self, request: &mut Received, activity: &Arc<Activity>) -> Answer {
        let asked = Asked::new(request, activity);
        let (started, path) = (asked.started(), request.uri().path().to_owned());
        let order = Order::find(&path);
        let timeout = match order {
            Some(order) if order.is_long() => DEPLOY,
            _ => TIMEOUT,
        };
        let _long = order
            .filter(|order| order.is_long())
            .map(|_| self.admin.begin_deploy());
        let answered = async {
            if path == "/openapi.json" && [Method::GET, Method::HEAD].contains(request.method()) {
                return Ok(answer_json(StatusCode::OK, described::DOCUMENT.clone()));
            }
            if let Some(file) = self.guard.admit(request)? {
                return Ok(file);
            }
            if let Some(order) = order {
                let shared = &self.admin.shared;
                return Orders { shared }.take(order, request).await;
            }
            match of_app(&path) {
                Some((app, path)) => match self.admin.shared.admins.of(app) {
                    Some(admin) => admin.answer(request, path, started).await,
                    None => Err(not_here()),
                },
                None => {
                    let query = Query::new(request.uri().query());
                    self.dispatch(request.method(), &path, &query).await
                }
            }
        };
        asked
            .answer_within(timeout, answered, &self.admin.closing, &self.tasks)
            .await
    }
}

impl Server {
    /// Answers what is asked of the node itself.
    async fn dispatch(
        &self,
        method: &Method,
        path: &str,
        query: &Query<'_>,
    ) -> Result<Answer, Refusal> {
        let store = &self.admin.shared.store;
        let segments: Vec<_> = path.split('/').skip(1).collect();
        let known = matches!(
            *segments,
            ["" | "healthz" | "readyz" | "metrics" | "hosts" | "apps"]
                | ["apps", _]
                | ["apps", _, "history"]
        );
        if !known {
            return Err(Refusal::caller(StatusCode::NOT_FOUND, NOTHING));
        }
        if ![Method::GET, Method::HEAD].contains(method) {
            return Err(not_allowed("GET, HEAD"));
        }
        query.only(&[])?;
        let body = match *segments {
            [""] => self.index(),
            ["healthz"] => return Ok(healthz()),
            ["readyz"] => return Ok(self.readyz()),
            ["metrics"] => {
                let apps = self.admin.shared.admins.all();
                let apps: Vec<_> = apps.iter().map(|admin| &**admin).collect();
                return Ok(metrics::page(&self.admin.shared.process(), &apps).await);
            }
            ["hosts"] => {
                let hosts = store.hosts().await.map_err(refused)?;
                let apps = store.specified(None).await.map_err(refused)?;
                let placement = placement_of(&apps, &hosts);
                show_hosts(&hosts, &placement, &store.reports().await.map_err(refused)?)
            }
            ["apps"] => json!({ "apps": self.apps(None).await? }),
            ["apps", app] => match self.apps(Some(app)).await?.pop() {
                Some(found) => found,
                None => return Err(no_app()),
            },
            ["apps", app, _] if is_name(app) => {
                let history = store.history(app).await.map_err(refused)?;
                if history.is_empty() {
                    return Err(no_app());
                }
                show_history(app, &history)
            }
            _ => return Err(no_app()),
        };
        Ok(answer_json(StatusCode::OK, to_json(&body)))
    }

    fn index(&self) -> Value {
        let of_apps = routes::all().map(|(method, path)| format!("{method} /apps/{{app}}{path}"));
        let own = described::ROUTES.iter();
        let own = own.map(|route| format!("{} {}", route.method, route.path));
        json!({
            "host": self.admin.shared.name,
            "wasmbay": env!("CARGO_PKG_VERSION"),
            "routes": own.chain(of_apps).collect::<Vec<_>>(),
        })
    }

    /// Ready means that the fleet sees this host, and that it has brought up, or tried to, what it is to
    /// run: a service that cannot run is no reason to send the others' requests elsewhere.
    fn readyz(&self) -> Answer {
        let Health {
            fresh,
            leaving,
            drained,
        } = *self.admin.health.borrow();
        let coming = self.admin.shared.reports.coming();
        let ready = fresh && !leaving && !drained && coming.is_empty();
        let body = json!({
            "ready": ready,
            "seen": fresh,
            "leaving": leaving,
            "drained": drained,
            "coming": coming,
        });
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        answer_json(status, to_json(&body))
    }

    /// All apps that are deployed or still run, or one.
    async fn apps(&self, only: Option<&str>) -> Result<Vec<Value>, Refusal> {
        let store = &self.admin.shared.store;
        let hosts = store.hosts().await.map_err(refused)?;
        let reports = store.reports().await.map_err(refused)?;
        let mut figures = fleet::figures(&self.admin.link).await.unwrap_or_default();
        fleet::add_health(&self.admin.link, &mut figures).await;
        let mut apps = BTreeMap::new();
        // What cannot be read is of another version of wasmbay, and leaves the others alone.
        for (app, kept) in store.each_app().await.map_err(refused)? {
            match kept {
                Ok(kept) => drop(apps.insert(app, kept)),
                Err(error) if only.is_some_and(|only| only == app) => return Err(refused(error)),
                Err(_) => {}
            }
        }
        let specified = apps.values();
        let specified = specified.filter_map(|kept| kept.revision.specification.as_ref());
        let placement = placement_of(specified.map(|s| &s.app), &hosts);
        apps.retain(|app, _| only.is_none_or(|only| only == app));
        let mut shown = Vec::new();
        for (app, kept) in apps {
            let revision = &kept.revision;
            let progress = progress(revision, &app, &placement, &hosts, &reports);
            if revision.specification.is_none() && progress.leaving.is_empty() {
                continue;
            }
            let rolling = if revision.rollouts().is_empty() {
                None
            } else {
                store.rolling(&app).await.map_err(refused)?
            };
            let rolling = rolling.as_ref();
            shown.push(show_app(&app, revision, &progress, &figures, rolling));
        }
        Ok(shown)
    }
}

/// The app that a path below `/apps/{app}/` is for, and the path within it; the node's own are none.
fn of_app(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/apps/")?;
    let (app, path) = rest.split_at(rest.find('/')?);
    (path != "/history").then_some((app, path))
}

/// Whether a segment can be the name of an app; others are no keys.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(plain)
}

fn no_app() -> Refusal {
    Refusal::caller(StatusCode::NOT_FOUND, "the fleet has no such app")
}

fn not_here() -> Refusal {
    let why = "no app of this name runs on this host; `/hosts` and `/apps` say what runs where";
    Refusal::caller(StatusCode::NOT_FOUND, why)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is handed over by map_err"
)]
fn refused(error: StoreError) -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        Blame::Network,
        error.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_an_app_is_the_apps_but_for_its_history() {
        for (path, expected) in [
            (
                "/apps/shop/dead-letters/1",
                Some(("shop", "/dead-letters/1")),
            ),
            ("/apps/shop/", Some(("shop", "/"))),
            ("/apps/shop/history/", Some(("shop", "/history/"))),
            ("/apps/shop/history", None),
            ("/apps/shop", None),
            ("/apps", None),
            ("/metrics", None),
            ("/apps//", Some(("", "/"))),
        ] {
            assert_eq!(of_app(path), expected, "{path}");
        }
    }
}
