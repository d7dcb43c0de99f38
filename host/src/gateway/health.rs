//! `/healthz` and `/readyz`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::answer::{Answer, json, to_json};
use super::route::{HEALTHZ, READYZ};
use super::{Gateway, Table};
use crate::micro::Verb;
use crate::nats::{Asking, Link, PublishError};

/// Time for services outside of this app to answer INFO.
const LOOKUP: Duration = Duration::from_millis(300);

/// Time for which their answers are used.
const FRESH: Duration = Duration::from_secs(2);

/// The answers to INFO of services outside of this app.
#[derive(Default)]
pub(crate) struct Responders {
    asked: Option<Instant>,
    /// Subjects that a service answers by its INFO.
    answering: HashSet<String>,
    /// Subjects that a service has ever answered.
    ever: HashSet<String>,
}

/// The part of ADR-32's INFO that is needed, of any kind of service.
#[derive(Deserialize)]
struct Info {
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Deserialize)]
struct Endpoint {
    subject: String,
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    nats: bool,
    /// Why not, when it is neither NATS nor a missing responder: what JetStream keeps is not there, for
    /// example.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Cow<'static, str>>,
    /// Required functions that had a responder and have none now.
    missing: Vec<String>,
    /// Required functions outside of this app that no INFO has ever named.
    unknown: Vec<String>,
}

/// Whether a request of this path is a health check.
pub(crate) fn is_health(path: &str) -> bool {
    matches!(path, HEALTHZ | READYZ)
}

pub(crate) fn healthz() -> Answer {
    json(StatusCode::OK, Bytes::from_static(br#"{"status":"ok"}"#))
}

/// Ready means that NATS is up and refuses no subscription, every required function has a responder, and
/// what JetStream keeps for events is there and takes them.
///
/// Functions of the app's own services have one as soon as there are routes. For the others the only
/// request without an effect is ADR-32's INFO, which plain NATS programs need not answer: a responder
/// that never did is unknown, and does not block; one that did and stopped is missing.
pub(crate) async fn readyz(gateway: &Gateway, table: Option<&Table>, link: &Link) -> Answer {
    let readiness = readiness(gateway, table, link).await;
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(status, to_json(&readiness))
}

/// What [`readyz`] says, without words.
pub(super) async fn is_ready(gateway: &Gateway, table: Option<&Table>, link: &Link) -> bool {
    readiness(gateway, table, link).await.ready
}

async fn readiness(gateway: &Gateway, table: Option<&Table>, link: &Link) -> Readiness {
    let mut readiness = Readiness {
        ready: false,
        nats: link.is_connected(),
        reason: None,
        missing: Vec::new(),
        unknown: Vec::new(),
    };
    match table {
        _ if gateway.is_closing() => readiness.reason = Some("shutting down".into()),
        None => readiness.reason = Some("nothing is served yet".into()),
        Some(table) if readiness.nats => {
            let mut known = gateway.responders.lock().await;
            if !table.external.is_empty() {
                known.refresh(table, link).await;
            }
            for (function, subject) in &table.external {
                if known.answering.contains(subject) {
                    continue;
                }
                let list = if known.ever.contains(subject) {
                    &mut readiness.missing
                } else {
                    &mut readiness.unknown
                };
                list.push(function.to_string());
            }
            let refused = || {
                let words = link.refused()?;
                Some(format!("NATS refuses a subscription: {words}"))
            };
            let reason = gateway.current.store().reason().or_else(refused);
            readiness.reason = reason.map(Cow::Owned);
            readiness.ready = readiness.missing.is_empty() && readiness.reason.is_none();
        }
        Some(_) => {}
    }
    readiness
}

impl Responders {
    async fn refresh(&mut self, table: &Table, link: &Link) {
        if self.asked.is_some_and(|asked| asked.elapsed() < FRESH) {
            return;
        }
        self.asked = Some(Instant::now());
        self.answering.clear();
        if let Err(error) = self.ask(table, link).await {
            tracing::debug!(%error, "services could not be asked for");
        }
        self.ever.extend(self.answering.iter().cloned());
    }

    /// Collects answers until every required function has a responder, or none come any more.
    async fn ask(&mut self, table: &Table, link: &Link) -> Result<(), PublishError> {
        let subject = Verb::Info.subject();
        let mut asking = Asking::new(link, subject.as_ref(), Bytes::new(), LOOKUP).await?;
        let found = |answering: &HashSet<String>| {
            table
                .external
                .iter()
                .all(|(_, subject)| answering.contains(subject))
        };
        while !found(&self.answering) {
            let Some(answer) = asking.next().await else {
                break;
            };
            // An answer of another form is of no service of ADR-32.
            if let Ok(info) = serde_json::from_slice::<Info>(&answer.payload) {
                let endpoints = info.endpoints.unwrap_or_default().into_iter();
                let wanted = endpoints
                    .map(|endpoint| endpoint.subject)
                    .filter(|subject| table.external.iter().any(|(_, wanted)| wanted == subject));
                self.answering.extend(wanted);
            }
        }
        Ok(())
    }
}
