//! Health checks: the state of a service or of all of them, once (`Check`) or at each change (`Watch`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::answers::{MESSAGE, refuse, response, succeeded, trailers};
use super::frame::framed;
use crate::call::Blame;
use crate::gateway::Gateway;
use crate::gateway::answer::{Answer, Payload, Refusal};
use crate::gateway::connection::Activity;
use crate::gateway::followers::{Followers, Follows};
use crate::gateway::health::is_ready;
use crate::grpc::status::Code;
use crate::grpc::{self, HEALTH, Serving};
use crate::nats::Link;

/// How often the state is looked at for those who watch it. Nothing says when it changes: what it is made of are
/// connections, streams, and services outside that are asked.
const LOOK: Duration = Duration::from_secs(1);

/// What health checks are about.
pub(in crate::gateway) struct Health {
    /// The apps, as they are when it is called.
    pub(in crate::gateway) apps: Box<dyn Fn() -> Apps + Send + Sync>,
    /// The gateway takes no more requests.
    pub(in crate::gateway) closing: watch::Receiver<bool>,
    /// Room for clients that watch.
    pub(in crate::gateway) watchers: Arc<Followers>,
}

/// The apps of one moment.
pub(in crate::gateway) struct Apps {
    /// Whether requests should be sent here at all, whatever the apps say.
    pub(in crate::gateway) open: bool,
    pub(in crate::gateway) all: Vec<(Arc<Gateway>, Link)>,
}

impl Health {
    /// The state of a service, or of all of them for the empty name.
    async fn of(&self, service: &str) -> Serving {
        let Apps { open, all } = (self.apps)();
        let is_own = service == HEALTH || grpc::REFLECTION.contains(&service);
        let mut is_known = service.is_empty() || is_own;
        let mut is_serving = open && !*self.closing.borrow();
        for (gateway, link) in all {
            let table = gateway.table();
            let has = |table| gateway.api(table).has_service(service);
            let has = table.as_deref().is_some_and(has);
            is_known |= has;
            if is_serving && (has || service.is_empty()) {
                is_serving = is_ready(&gateway, table.as_deref(), &link).await;
            }
        }
        match (is_known, is_serving) {
            (false, _) => Serving::ServiceUnknown,
            (true, false) => Serving::NotServing,
            (true, true) => Serving::Serving,
        }
    }

    /// The answer to `Check`.
    pub(super) async fn check(&self, service: &str) -> Answer {
        let serving = self.of(service).await;
        if serving != Serving::ServiceUnknown {
            return succeeded(grpc::health(serving), false).await;
        }
        let mut answer = response(Payload::whole(Bytes::new()), StatusCode::NOT_FOUND);
        let headers = answer.headers_mut();
        headers.extend(trailers(Code::NotFound));
        headers.insert(
            &MESSAGE,
            HeaderValue::from_static("there is no such service"),
        );
        answer
    }

    /// The answer to `Watch`, which goes on until the gateway closes, or as long as the client says.
    pub(super) fn watch(
        self,
        service: String,
        ends: Option<Instant>,
        activity: &Arc<Activity>,
    ) -> Result<Answer, Refusal> {
        let watcher = Watcher {
            _place: self.watchers.enter(activity.peer)?,
            health: self,
            service,
            ends,
            activity: Arc::clone(activity),
            told: None,
            has_ended: false,
        };
        let frames = stream::unfold(watcher, |mut watcher| async {
            let frame = watcher.next().await?;
            Some((Ok(frame), watcher))
        });
        let body = StreamBody::new(frames).boxed_unsync();
        Ok(response(Payload::stream(body), StatusCode::OK))
    }
}

/// A client that watches a service. It is asked for the next frame when the client has room for it, so one that reads
/// slowly gets the state of then, and one that reads nothing does not keep its connection from being taken for stuck.
struct Watcher {
    health: Health,
    service: String,
    ends: Option<Instant>,
    /// Its connection, which is not idle while this goes on.
    activity: Arc<Activity>,
    /// What the client knows.
    told: Option<Serving>,
    has_ended: bool,
    _place: Follows,
}

impl Watcher {
    /// The next change, or the end.
    async fn next(&mut self) -> Option<Frame<Bytes>> {
        while !self.has_ended {
            let now = Instant::now();
            self.activity.touch(now);
            let serving = self.health.of(&self.service).await;
            if self.told.replace(serving) != Some(serving) {
                return Some(Frame::data(framed(0, &grpc::health(serving))));
            }
            let refusal = if *self.health.closing.borrow() {
                let why = "the host is shutting down";
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Blame::Host, why)
            } else if self.ends.is_some_and(|ends| ends <= now) {
                let why = "the time that the client gave is over";
                Refusal::new(StatusCode::GATEWAY_TIMEOUT, Blame::Caller, why)
            } else {
                let look = now + LOOK;
                let look = self.ends.map_or(look, |ends| look.min(ends));
                tokio::select! {
                    // Its sender is there as long as the gateway is, which `apps` has.
                    _ = self.health.closing.wait_for(|closing| *closing) => {}
                    () = sleep_until(look) => {}
                }
                continue;
            };
            self.has_ended = true;
            let mut trailers = HeaderMap::new();
            refuse(&mut trailers, &refusal, "");
            return Some(Frame::trailers(trailers));
        }
        None
    }
}
