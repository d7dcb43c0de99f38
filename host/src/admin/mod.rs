//! The admin address: dead letters, runs, jobs, readiness and metrics for operators, over HTTP.
//!
//! Who reaches a loopback address may ask; any other address asks for a token. A browser on that machine
//! runs pages of any origin, and those must not reach it: `guard` refuses requests of pages of other
//! origins, and requests to a host name that could have been made to point here. A browser gets a page
//! (`page`), which reads the same routes.

mod consumers;
mod dead_letters;
mod figures;
pub(crate) mod guard;
mod jobs;
mod logs;
pub(crate) mod metrics;
mod page;
pub(crate) mod query;
pub(crate) mod routes;
mod runs;

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::jetstream;
use http::header::{CACHE_CONTROL, CONNECTION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::call::Blame;
use crate::events::dead_letters::DeadLetters;
use crate::gateway::accept;
use crate::gateway::answer::{Answer, Refusal, json, to_json};
use crate::gateway::connection::{self, Activity, Answers, CLOSE, Received, Running, Tasks};
use crate::gateway::health::{healthz, readyz};
use crate::gateway::places::Places;
use crate::gateway::request::without_body;
use crate::insight::Insight;
use crate::jobs::Jobs;
use crate::manifest::keys;
use crate::nats::Link;
use crate::pipelines::Runs;
use crate::telemetry;
use crate::text::shown;
use guard::Guard;
use metrics::Process;
pub(crate) use page::OPENAPI;
use query::Query;
use routes::AdminRequest;

/// Connections open at the same time; the longest idle makes room for the next.
pub(crate) const CONNECTIONS: usize = 32;

/// Time from a request's first byte to the last of its answer.
pub(crate) const TIMEOUT: Duration = keys::gateway::TIMEOUT.values.default;

/// A request at an admin address, of an app or of a node.
pub(crate) struct Asked {
    started: Instant,
    /// Counted until its answer has ended.
    running: Running,
    method: Method,
    path: String,
}

impl Asked {
    pub(crate) fn new(request: &Received, activity: &Arc<Activity>) -> Self {
        let started = Instant::now();
        Self {
            started,
            running: activity.begin(started),
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
        }
    }

    /// When the request was read.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Waits for the answer as long as one may take, adds what every answer has, and logs it.
    pub(crate) async fn answer(
        self,
        answered: impl Future<Output = Result<Answer, Refusal>>,
        closing: &watch::Sender<bool>,
        tasks: &Weak<Tasks>,
    ) -> Answer {
        self.answer_within(TIMEOUT, answered, closing, tasks).await
    }

    /// As [`answer`](Self::answer), for one that may take longer.
    pub(crate) async fn answer_within(
        self,
        timeout: Duration,
        answered: impl Future<Output = Result<Answer, Refusal>>,
        closing: &watch::Sender<bool>,
        tasks: &Weak<Tasks>,
    ) -> Answer {
        let answered = timeout_at(self.started + timeout, answered).await;
        let answered = answered.unwrap_or_else(|_| {
            let why = format!("no answer within {timeout:?}");
            Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, Blame::Host, why))
        });
        let mut answer = answered.unwrap_or_else(Refusal::answer);
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, NO_STORE);
        headers.insert(X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
        if *closing.borrow() {
            headers.insert(CONNECTION, CLOSE);
        }
        if self.method == Method::HEAD {
            answer = without_body(answer, tasks);
        }
        answer.body_mut().hold(self.running);
        tracing::info!(
            target: telemetry::ADMIN,
            method = %self.method,
            path = %shown(&self.path),
            status = answer.status().as_u16(),
            duration = ?self.started.elapsed(),
            "request"
        );
        answer
    }
}

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// What is asked of an app at an admin address, its own or that of a node which runs it.
pub(crate) struct Admin {
    /// The app as it runs here.
    insight: Arc<Insight>,
    process: Process,
    link: Link,
    context: jetstream::Context,
    consumers: consumers::Last,
    dead_letters: DeadLetters,
    runs: Runs,
    jobs: Jobs,
    closing: watch::Sender<bool>,
    places: Arc<Places>,
}

/// An app's own admin address.
struct AdminServer {
    admin: Arc<Admin>,
    guard: Guard,
    tasks: Weak<Tasks>,
}

impl Admin {
    /// Answers for an app, over this connection. Listens nowhere yet.
    pub(crate) fn new(
        insight: Arc<Insight>,
        process: Process,
        link: Link,
        context: jetstream::Context,
    ) -> Self {
        let app = &*insight.app;
        Self {
            process,
            dead_letters: DeadLetters::new(context.clone(), link.clone(), app),
            runs: Runs::new(context.clone(), app),
            jobs: Jobs::new(context.clone(), app),
            insight,
            link,
            context,
            consumers: consumers::Last::default(),
            closing: watch::Sender::new(false),
            places: Arc::new(Places::new(CONNECTIONS, CONNECTIONS)),
        }
    }

    /// Stops taking connections; see [`Gateway::close`].
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Accepts and serves connections until it is closed and all of them have ended. `listener` is
    /// nonblocking.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops its connections and all that runs for them.
    pub(crate) async fn serve(self: Arc<Self>, listener: std::net::TcpListener, guard: Guard) {
        let (closing, places) = (self.closing.subscribe(), Arc::clone(&self.places));
        let header = keys::gateway::HEADER.values.default;
        let begin = |tasks: Weak<Tasks>| {
            // One request at a time on each connection: the bound of connections bounds the bodies.
            let builder = connection::builder(header, Weak::clone(&tasks)).http1_only();
            let server = AdminServer {
                admin: self,
                guard,
                tasks,
            };
            (server, builder)
        };
        accept::serve("the admin address", listener, closing, places, None, begin).await;
    }

    /// Answers a request that was let in, for the route of this path.
    pub(crate) async fn answer(
        &self,
        request: &mut Received,
        path: &str,
        started: Instant,
    ) -> Result<Answer, Refusal> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let (route, id) = routes::find(&method, path)?;
        let asked = AdminRequest {
            request,
            query: &Query::new(uri.query()),
            id,
            started,
        };
        (route.handler)(self, asked).await
    }

    async fn healthz(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        Ok(healthz())
    }

    async fn readyz(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        let gateway = &self.insight.gateway;
        Ok(readyz(gateway, gateway.table().as_deref(), &self.link).await)
    }

    async fn index(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        let routes = routes::all().map(|(method, path)| format!("{method} {path}"));
        let index = json!({
            "app": self.insight.app,
            "wasmbay": env!("CARGO_PKG_VERSION"),
            "routes": routes.collect::<Vec<_>>(),
        });
        Ok(json(StatusCode::OK, to_json(&index)))
    }
}

impl Answers for AdminServer {
    fn timeout(&self) -> Duration {
        TIMEOUT
    }

    fn tasks(&self) -> &Weak<Tasks> {
        &self.tasks
    }

    async fn answer(&self, request: &mut Received, activity: &Arc<Activity>) -> Answer {
        let asked = Asked::new(request, activity);
        let (started, path) = (asked.started(), request.uri().path().to_owned());
        let answered = async {
            if let Some(file) = self.guard.admit(request)? {
                return Ok(file);
            }
            self.admin.answer(request, &path, started).await
        };
        asked
            .answer(answered, &self.admin.closing, &self.tasks)
            .await
    }
}
