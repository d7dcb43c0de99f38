//! The gateway: HTTP requests become calls, and results become responses.
//!
//! Every worker accepts connections from one listening socket and serves them on its own thread.
//! A request goes through these modules from top to bottom: `places` has room for its connection,
//! `connection` speaks HTTP, `request` reads it, `sender` is where it comes from, `route` finds its target, `origin` refuses what a
//! browser sends for another site, `auth` finds out who asks, `arguments` makes a call of it or `component` hands it to an HTTP
//! component, `answer` makes the response, and `unread` reads or discards the rest of its body. It
//! decodes no values, and knows NATS only through a [`Backend`].
//!
//! The admin address uses `accept`, `places`, `connection` and `unread` too.

pub(crate) mod accept;
pub(crate) mod answer;
mod arguments;
pub(crate) mod auth;
mod client;
mod component;
mod compress;
pub(crate) mod connection;
mod cors;
pub(crate) mod counts;
mod events;
mod explorer;
mod followers;
mod grpc;
pub(crate) mod health;
mod origin;
pub(crate) mod places;
mod rate;
pub(crate) mod request;
pub(crate) mod route;
mod sender;
mod shared;
mod streams;
#[cfg(test)]
mod tests;
mod tls;
mod trace;
mod unread;
mod watched;
mod websocket;

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use tokio::sync::watch;

pub use connection::{IDLE, LINGER, MAX_HEADERS, MAX_STREAMS};
pub use followers::MAX_FOLLOWERS;
pub use places::RESERVE;
pub(crate) use shared::{Mount, SharedGateway};
pub use tls::{HANDSHAKE, Tls, TlsError};

use crate::deployment::Current;
use crate::grpc::Api;
use crate::interfaces::Backend;
use crate::manifest::{GatewaySpec, RpcPaths};
use crate::nats::Link;
use crate::openapi;
use crate::spans::{Spans, Tracer};
use answer::Answer;
use auth::Authenticator;
use connection::Tasks;
use cors::Cors;
use counts::Counts;
use followers::Followers;
use health::Responders;
use places::Places;
use rate::Limiters;
use route::Table;

/// The name under which its spans are recorded.
const SERVICE: &str = "gateway";

/// An app's HTTP front.
pub struct Gateway {
    app: String,
    spec: GatewaySpec,
    current: Arc<Current>,
    /// The table of the last deployment that was asked for, and its revision.
    table: RwLock<Option<(u64, Arc<Table>)>>,
    closing: watch::Sender<bool>,
    places: Arc<Places>,
    responders: tokio::sync::Mutex<Responders>,
    /// Knows clients.
    pub(crate) authenticator: Arc<Authenticator>,
    tls: Option<Arc<Tls>>,
    cors: Option<Cors>,
    limiters: Arc<Limiters>,
    /// Room for clients that follow events.
    followers: Arc<Followers>,
    /// Room for clients that follow health.
    watchers: Arc<Followers>,
    /// The requests that were answered.
    pub(crate) counts: Arc<Counts>,
    tracer: Arc<Tracer>,
}

/// The gateway on one worker.
struct Front {
    gateway: Arc<Gateway>,
    backend: Arc<dyn Backend>,
    link: Link,
    tasks: Weak<Tasks>,
    /// Room for clients that follow events, of all apps that share its connections.
    followers: Arc<Followers>,
}

impl Gateway {
    /// A gateway for the routes of the current deployment. Before the first one it is alive and not
    /// ready.
    #[must_use]
    pub fn new(app: &str, spec: GatewaySpec, current: Arc<Current>) -> Self {
        Self {
            app: app.to_owned(),
            current,
            places: Arc::new(Places::new(
                spec.connections as usize,
                spec.peer_connections as usize,
            )),
            authenticator: Arc::new(Authenticator::new(app, spec.auth.as_ref())),
            tls: None,
            cors: spec.cors.as_ref().map(Cors::new),
            limiters: Arc::default(),
            followers: Arc::new(Followers::new("events", &spec)),
            watchers: Arc::new(Followers::new("health", &spec)),
            spec,
            table: RwLock::default(),
            closing: watch::Sender::new(false),
            responders: tokio::sync::Mutex::default(),
            counts: Arc::default(),
            tracer: Arc::new(Spans::default().tracer(app, SERVICE)),
        }
    }

    /// The same, which records spans.
    #[must_use]
    pub fn with_spans(mut self, spans: &Spans) -> Self {
        self.tracer = Arc::new(spans.tracer(&self.app, SERVICE));
        self
    }

    /// The same, whose connections begin with a handshake.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls.map(Arc::new);
        self
    }

    /// The scheme of its addresses.
    pub(crate) fn scheme(&self) -> &'static str {
        tls::scheme(self.tls.as_deref())
    }

    /// Another one of the app, with this specification, which goes on with the counts of this one, with who
    /// follows its events, and with the keys of clients that it has.
    pub(crate) fn respecified(&self, spec: GatewaySpec) -> Self {
        let same_clients = self.spec.auth == spec.auth;
        let new = Self::new(&self.app, spec, Arc::clone(&self.current));
        Self {
            authenticator: match same_clients {
                true => Arc::clone(&self.authenticator),
                false => new.authenticator,
            },
            counts: Arc::clone(&self.counts),
            tracer: Arc::clone(&self.tracer),
            limiters: Arc::clone(&self.limiters),
            followers: Arc::clone(&self.followers),
            watchers: Arc::clone(&self.watchers),
            closing: self.closing.clone(),
            ..new
        }
    }

    /// The OpenAPI document of what a table serves, to clients of this machine or to others.
    pub(crate) fn openapi(&self, table: &Table, local: bool) -> Answer {
        let has_rpc = local || self.spec.rpc != RpcPaths::Loopback;
        let [with, without] = &table.documents;
        let document = if has_rpc { with } else { without };
        let document = document.get_or_init(|| {
            let deployment = self.current.get();
            let mut app = deployment.app.as_deref().cloned();
            if let Some(app) = app.as_mut().filter(|_| !has_rpc) {
                app.gateway.rpc = RpcPaths::None;
            }
            let document =
                app.map(|app| openapi::document(&app, &deployment.plan, &deployment.described));
            answer::to_json(&document)
        });
        answer::json(http::StatusCode::OK, document.clone())
    }

    /// What a table serves by gRPC.
    pub(crate) fn api(&self, table: &Table) -> Arc<Api> {
        let api = table.api.get_or_init(|| {
            let deployment = self.current.get();
            let app = deployment.app.as_deref();
            let api = app.map(|app| Api::new(app, &deployment.plan, &deployment.described));
            Arc::new(api.unwrap_or_default())
        });
        Arc::clone(api)
    }

    /// The table of the current deployment; `None` before the first. A request that has begun ends
    /// with the table that it began with.
    pub(crate) fn table(&self) -> Option<Arc<Table>> {
        let deployment = self.current.get();
        let revision = deployment.revision;
        let kept = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = kept.as_ref().filter(|(of, _)| *of == revision) {
            return Some(Arc::clone(table));
        }
        drop(kept);
        if revision == 0 {
            return None;
        }
        let table = Arc::new(Table::new(
            &self.app,
            &self.spec,
            &deployment,
            &self.limiters,
        ));
        let mut kept = self.table.write().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((revision, Arc::clone(&table)));
        self.limiters.forget_unused();
        Some(table)
    }

    /// Stops taking connections and has those that are open end with the request they are serving,
    /// or the one that arrives within [`LINGER`]. `/readyz` says so meanwhile.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Accepts and serves connections on this worker until the gateway is closed and all of them
    /// have ended. `listener` is nonblocking, and a clone of it may serve on every worker.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops its connections and all that runs for them.
    pub fn serve(
        self: Arc<Self>,
        listener: std::net::TcpListener,
        backend: Arc<dyn Backend>,
        link: Link,
    ) -> impl Future<Output = ()> + Send + 'static {
        let closing = self.closing.subscribe();
        let (header, places) = (self.spec.header, Arc::clone(&self.places));
        let (tls, keeper) = (self.tls.clone(), self.authenticator.keeper());
        let begin = move |tasks: Weak<Tasks>| {
            let builder = connection::builder(header, Weak::clone(&tasks));
            let front = Front {
                followers: Arc::clone(&self.followers),
                gateway: self,
                backend,
                link,
                tasks,
            };
            (front, builder)
        };
        let certificates = tls.as_ref().and_then(Tls::keeper);
        let serving = accept::serve("the gateway", listener, closing, places, tls, begin);
        async move {
            tokio::select! {
                () = serving => {}
                // They end with the gateway only.
                () = auth::kept(keeper) => {}
                () = auth::kept(certificates) => {}
            }
        }
    }
}
