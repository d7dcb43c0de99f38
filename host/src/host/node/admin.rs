//! The admin address of a node: its health, and what the fleet runs, as JSON. It changes nothing.
//!
//! It is not that of an app (`crate::admin`), whose answers and guard against pages of other origins it shares.

use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Health, Shared};
use crate::admin::{Asked, CONNECTIONS, TIMEOUT, guard};
use crate::call::Blame;
use crate::fleet::{self, StoreError, progress, show_app, show_history, show_hosts};
use crate::gateway::accept;
use crate::gateway::answer::{Answer, Refusal, json as answer_json, to_json};
use crate::gateway::connection::{self, Activity, Answers, Received, Tasks};
use crate::gateway::health::healthz;
use crate::gateway::places::Places;
use crate::gateway::route::not_allowed;
use crate::manifest::keys;
use crate::nats::Link;

/// What is served, as `/` lists it.
const ROUTES: [&str; 7] = [
    "GET /",
    "GET /healthz",
    "GET /readyz",
    "GET /hosts",
    "GET /apps",
    "GET /apps/{app}",
    "GET /apps/{app}/history",
];

/// The admin address of a node.
pub(super) struct NodeAdmin {
    pub(super) shared: Arc<Shared>,
    pub(super) health: Arc<watch::Sender<Health>>,
    pub(super) link: Link,
    pub(super) closing: watch::Sender<bool>,
}

/// The same, with what serves it.
struct Server {
    admin: Arc<NodeAdmin>,
    bound: IpAddr,
    tasks: Weak<Tasks>,
}

impl NodeAdmin {
    /// Accepts and serves connections until it is closed and all of them have ended.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, bound: IpAddr) {
        let closing = self.closing.subscribe();
        let places = Arc::new(Places::new(CONNECTIONS, CONNECTIONS));
        let header = keys::gateway::HEADER.values.default;
        let begin = |tasks: Weak<Tasks>| {
            let builder = connection::builder(header, Weak::clone(&tasks)).http1_only();
            let admin = self;
            (
                Server {
                    admin,
                    bound,
                    tasks,
                },
                builder,
            )
        };
        accept::serve("the admin address", listener, closing, places, begin).await;
    }
}

impl Answers for Server {
    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    fn tasks(&self) -> &Weak<Tasks> {
        &self.tasks
    }

    async fn answer(&self, request: &mut Received, activity: &Arc<Activity>) -> Answer {
        let asked = Asked::new(request, activity);
        let answered = async {
            guard::check(request, self.bound)?;
            self.dispatch(request.method(), request.uri().path()).await
        };
        asked
            .answer(answered, &self.admin.closing, &self.tasks)
            .await
    }
}

impl Server {
    async fn dispatch(&self, method: &Method, path: &str) -> Result<Answer, Refusal> {
        let store = &self.admin.shared.store;
        let segments: Vec<_> = path.split('/').skip(1).collect();
        let known = matches!(
            *segments,
            ["" | "healthz" | "readyz" | "hosts" | "apps"] | ["apps", _] | ["apps", _, "history"]
        );
        if known && ![Method::GET, Method::HEAD].contains(method) {
            return Err(not_allowed("GET, HEAD"));
        }
        let body = match *segments {
            [""] => json!({
                "host": self.admin.shared.name,
                "wasmbay": env!("CARGO_PKG_VERSION"),
                "routes": ROUTES,
            }),
            ["healthz"] => return Ok(healthz()),
            ["readyz"] => return Ok(self.readyz()),
            ["hosts"] => {
                let hosts = store.hosts().await.map_err(refused)?;
                show_hosts(&hosts, &store.reports().await.map_err(refused)?)
            }
            ["apps"] => json!({ "apps": self.apps(None).await? }),
            ["apps", app] => match self.apps(Some(app)).await?.pop() {
                Some(found) => found,
                None => return Err(no_app()),
            },
            ["apps", app, "history"] if is_name(app) => {
                let history = store.history(app).await.map_err(refused)?;
                if history.is_empty() {
                    return Err(no_app());
                }
                show_history(app, &history)
            }
            _ if known => return Err(no_app()),
            _ => {
                let why = "there is nothing at this path; `/` lists the routes";
                return Err(Refusal::caller(StatusCode::NOT_FOUND, why));
            }
        };
        Ok(answer_json(StatusCode::OK, to_json(&body)))
    }

    /// Ready means that the fleet sees this host, and that it has brought up, or tried to, what it is to
    /// run: a service that cannot run is no reason to send the others' requests elsewhere.
    fn readyz(&self) -> Answer {
        let Health { fresh, leaving } = *self.admin.health.borrow();
        let coming = self.admin.shared.reports.coming();
        let ready = fresh && !leaving && coming.is_empty();
        let body = json!({ "ready": ready, "seen": fresh, "leaving": leaving, "coming": coming });
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
        let figures = fleet::figures(&self.admin.link).await.unwrap_or_default();
        let mut apps = store.apps().await.map_err(refused)?;
        apps.retain(|app, _| only.is_none_or(|only| only == app));
        let shown = apps.into_iter().filter_map(|(app, kept)| {
            let progress = progress(&kept.revision, &app, &hosts, &reports);
            let runs = kept.revision.specification.is_some() || !progress.leaving.is_empty();
            runs.then(|| show_app(&app, &kept.revision, &progress, &figures))
        });
        Ok(shown.collect())
    }
}

/// Whether a segment can be the name of an app; others are no keys.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(plain)
}

fn no_app() -> Refusal {
    Refusal::caller(StatusCode::NOT_FOUND, "the fleet has no such app")
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
