//! The admin address: what those who look after an app need, as JSON over HTTP. Dead letters, and
//! whether the app is ready.
//!
//! Nobody is asked who they are here, so it is meant for a loopback address. A browser there runs
//! pages of anybody, and those must not reach it: `guard` refuses what a page of another origin
//! sends, and whatever came by a name that somebody else may have pointed here.

mod dead_letters;
mod guard;
mod query;

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::{Client, jetstream};
use http::header::{CACHE_CONTROL, CONNECTION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::call::Blame;
use crate::deployment::Current;
use crate::events::dead_letters::DeadLetters;
use crate::gateway::answer::{Answer, Refusal, json, to_json};
use crate::gateway::connection::{self, Activity, Answers, Tasks};
use crate::gateway::health::{healthz, readyz};
use crate::gateway::request::without_body;
use crate::gateway::route::not_allowed;
use crate::gateway::{Gateway, accept};
use crate::manifest::keys;
use crate::telemetry;
use crate::text::shown;
use query::Query;

/// Connections open at the same time; further ones wait.
const CONNECTIONS: usize = 32;

/// Time from a request's first byte to the last of its answer.
const TIMEOUT: Duration = keys::gateway::TIMEOUT.values.default;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// What the admin address serves.
const ROUTES: [&str; 10] = [
    "GET /dead-letters",
    "DELETE /dead-letters",
    "POST /dead-letters/replay",
    "GET /dead-letters/{id}",
    "PUT /dead-letters/{id}",
    "DELETE /dead-letters/{id}",
    "POST /dead-letters/{id}/replay",
    "GET /healthz",
    "GET /readyz",
    "GET /",
];

/// An app's admin address.
pub struct Admin {
    app: String,
    /// The host's gateway, which knows whether the app is ready.
    gateway: Arc<Gateway>,
    /// What is deployed, for the types of events that no stream tells.
    current: Arc<Current>,
    closing: watch::Sender<bool>,
    places: Arc<Semaphore>,
}

/// The admin address as its worker serves it.
struct Desk {
    admin: Arc<Admin>,
    /// Where it listens.
    bound: SocketAddr,
    client: Client,
    letters: DeadLetters,
    tasks: Weak<Tasks>,
}

impl Admin {
    /// The admin address of the app whose gateway this is. Listens nowhere yet.
    pub(crate) fn new(app: &str, gateway: Arc<Gateway>, current: Arc<Current>) -> Self {
        Self {
            app: app.to_owned(),
            gateway,
            current,
            closing: watch::Sender::new(false),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// Stops taking connections; see [`Gateway::close`].
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Accepts and serves connections until it is closed and all of them have ended. `listener` is
    /// nonblocking.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops its connections and all that runs for them.
    pub async fn serve(self: Arc<Self>, listener: std::net::TcpListener, client: Client) {
        let bound = match listener.local_addr() {
            Ok(bound) => bound,
            Err(error) => {
                tracing::error!(%error, "the admin address cannot be served");
                return;
            }
        };
        let (closing, places) = (self.closing.subscribe(), Arc::clone(&self.places));
        let header = keys::gateway::HEADER.values.default;
        let begin = |tasks: Weak<Tasks>| {
            // With one request at a time on each connection, bounding those bounds the bodies.
            let builder = connection::builder(header, Weak::clone(&tasks)).http1_only();
            let desk = Desk {
                letters: DeadLetters::new(jetstream::new(client.clone()), &self.app),
                admin: self,
                bound,
                client,
                tasks,
            };
            (desk, builder)
        };
        accept::serve("the admin address", listener, closing, places, begin).await;
    }
}

impl Answers for Desk {
    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    async fn answer(&self, request: Request<Incoming>, activity: &Arc<Activity>) -> Answer {
        let started = Instant::now();
        let running = activity.begin(started);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let answered = timeout_at(started + TIMEOUT, self.dispatch(request, started)).await;
        let answered = answered.unwrap_or_else(|_| {
            let why = format!("no answer within {TIMEOUT:?}");
            Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, Blame::Host, why))
        });
        let mut answer = answered.unwrap_or_else(Refusal::answer);
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, NO_STORE);
        headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
        if *self.admin.closing.borrow() {
            headers.insert(CONNECTION, CLOSE);
        }
        if method == Method::HEAD {
            answer = without_body(answer, &self.tasks);
        }
        answer.body_mut().hold(running);
        let path = shown(uri.path());
        tracing::info!(
            target: telemetry::ADMIN,
            %method,
            %path,
            status = answer.status().as_u16(),
            duration = ?started.elapsed(),
            "request"
        );
        answer
    }
}

impl Desk {
    async fn dispatch(
        &self,
        request: Request<Incoming>,
        started: Instant,
    ) -> Result<Answer, Refusal> {
        guard::check(&request, self.bound.ip())?;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let query = Query::new(uri.query());
        // A GET answers HEAD as well.
        let verb = match method.as_str() {
            "HEAD" => "GET",
            method => method,
        };
        let path: Vec<_> = uri.path().split('/').skip(1).collect();
        match (verb, &*path) {
            ("GET", [""]) => query.only(&[]).map(|_| self.index()),
            ("GET", ["healthz"]) => query.only(&[]).map(|_| healthz()),
            ("GET", ["readyz"]) => {
                query.only(&[])?;
                let gateway = &self.admin.gateway;
                Ok(readyz(gateway, gateway.table().as_deref(), &self.client).await)
            }
            ("GET", ["dead-letters"]) => self.list(&query).await,
            ("DELETE", ["dead-letters"]) => self.purge_many(&query, request).await,
            ("POST", ["dead-letters", "replay"]) => {
                self.replay_many(&query, request, started).await
            }
            ("GET", ["dead-letters", id]) if *id != "replay" => self.show(id, &query).await,
            ("PUT", ["dead-letters", id]) if *id != "replay" => {
                self.edit(id, &query, request).await
            }
            ("DELETE", ["dead-letters", id]) if *id != "replay" => {
                self.purge(id, &query, request).await
            }
            ("POST", ["dead-letters", id, "replay"]) => self.replay(id, &query, request).await,
            (_, [""] | ["healthz"] | ["readyz"]) => Err(not_allowed("GET, HEAD")),
            (_, ["dead-letters"]) => Err(not_allowed("GET, HEAD, DELETE")),
            (_, ["dead-letters", "replay"] | ["dead-letters", _, "replay"]) => {
                Err(not_allowed("POST"))
            }
            (_, ["dead-letters", _]) => Err(not_allowed("GET, HEAD, PUT, DELETE")),
            _ => Err(Refusal::caller(
                StatusCode::NOT_FOUND,
                "there is nothing at this path; `/` tells what there is",
            )),
        }
    }

    fn index(&self) -> Answer {
        let index = json!({
            "app": self.admin.app,
            "wasmbay": env!("CARGO_PKG_VERSION"),
            "routes": ROUTES,
        });
        json(StatusCode::OK, to_json(&index))
    }
}
