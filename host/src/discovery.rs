//! Services as NATS micro services (ADR-32): they answer PING, INFO and STATS, so that
//! `nats micro ls` and every other tool of that kind sees them.
//!
//! One subscription answers for all services of a host, whatever their number.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_nats::{Client, Message};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::app::EventWire;
use crate::service::{Function, Service};
use crate::subject;

/// The root of ADR-32's subjects.
const ROOT: &str = "$SRV";

/// What can be asked of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Is it there?
    Ping,
    /// What does it offer?
    Info,
    /// How is it used?
    Stats,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "PING",
            Self::Info => "INFO",
            Self::Stats => "STATS",
        }
    }

    /// The subject on which every service answers.
    #[must_use]
    pub fn subject(self) -> String {
        format!("{ROOT}.{}", self.as_str())
    }
}

/// One service's answer to any of the verbs; what a verb does not tell is absent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// `io.nats.micro.v1.ping_response` and the like.
    #[serde(rename = "type")]
    pub kind: String,
    /// The service's name.
    pub name: String,
    /// Distinguishes the hosts that run it.
    pub id: String,
    /// A semantic version; the digest is its build metadata.
    pub version: String,
    /// App, digest and host.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// For INFO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// For STATS: when the host began to run it, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// For INFO and STATS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<Endpoint>>,
}

/// One function in an [`Answer`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// `<interface>-<function>`.
    pub name: String,
    /// Where it is called.
    pub subject: String,
    /// The queue group that shares its calls.
    #[serde(default)]
    pub queue_group: String,
    /// For INFO: interface, function and signature; for an event whether it is `durable` or `core`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// For STATS.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub stats: Option<EndpointStats>,
}

/// What has been counted for one function. Times are in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndpointStats {
    /// Calls that were answered.
    pub num_requests: u64,
    /// Those answered with an error.
    pub num_errors: u64,
    /// `code:message` of the last of those.
    pub last_error: String,
    /// The time of all calls.
    pub processing_time: u64,
    /// The time of one call.
    pub average_processing_time: u64,
}

/// The services that a host answers for.
pub struct Directory {
    app: String,
    host: String,
    started: String,
    services: RwLock<Vec<Arc<Service>>>,
    events: RwLock<Vec<Arc<EventWire>>>,
}

impl Directory {
    /// An empty directory for the host with this id.
    #[must_use]
    pub fn new(app: &str, host: &str) -> Self {
        Self {
            app: app.to_owned(),
            host: host.to_owned(),
            // Formatting fails for years beyond 9999 only.
            started: OffsetDateTime::now_utc()
                .format(&Rfc3339)
                .unwrap_or_default(),
            services: RwLock::default(),
            events: RwLock::default(),
        }
    }

    /// Answers for these services from now on, of which these interfaces are wired as events.
    pub fn set(&self, services: Vec<Arc<Service>>, events: Vec<Arc<EventWire>>) {
        *self.events.write().unwrap_or_else(PoisonError::into_inner) = events;
        *self
            .services
            .write()
            .unwrap_or_else(PoisonError::into_inner) = services;
    }

    /// Answers until the connection closes or the future is dropped.
    ///
    /// # Errors
    ///
    /// The subscription is refused.
    pub async fn serve(&self, client: Client) -> Result<(), async_nats::SubscribeError> {
        let mut questions = client.subscribe(format!("{ROOT}.>")).await?;
        while let Some(question) = questions.next().await {
            self.answer(&client, question).await;
        }
        Ok(())
    }

    async fn answer(&self, client: &Client, question: Message) {
        let Some(to) = question.reply else {
            return;
        };
        let Some((verb, name, id)) = parse(&question.subject) else {
            return;
        };
        let services = self
            .services
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        for service in services {
            let spec_name = &*service.spec.name;
            if name.is_some_and(|name| name != spec_name)
                || id.is_some_and(|id| id != self.id(spec_name))
            {
                continue;
            }
            let answer = serde_json::to_vec(&self.describe(&service, verb)).unwrap_or_default();
            if let Err(error) = client.publish(to.clone(), answer.into()).await {
                tracing::debug!(%error, "an answer to discovery could not be sent");
            }
        }
    }

    fn id(&self, service: &str) -> String {
        format!("{}-{service}", self.host)
    }

    /// What the service answers.
    #[must_use]
    pub fn describe(&self, service: &Service, verb: Verb) -> Answer {
        let digest = &service.component.digest;
        let name = service.spec.name.to_string();
        let endpoints = (verb != Verb::Ping).then(|| self.endpoints(service, verb));
        Answer {
            kind: format!("io.nats.micro.v1.{}_response", verb.as_str().to_lowercase()),
            id: self.id(&name),
            version: format!("0.0.0+{}", digest.get(..12).unwrap_or(digest)),
            metadata: BTreeMap::from([
                ("app".to_owned(), self.app.clone()),
                ("digest".to_owned(), digest.clone()),
                ("host".to_owned(), self.host.clone()),
            ]),
            description: (verb == Verb::Info).then(|| format!("{name} of {}", self.app)),
            started: (verb == Verb::Stats).then(|| self.started.clone()),
            endpoints,
            name,
        }
    }

    fn endpoints(&self, service: &Service, verb: Verb) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        let events = self.events.read().unwrap_or_else(PoisonError::into_inner);
        for exported in service.interfaces() {
            let event = events
                .iter()
                .find(|wire| wire.interface.compatible(&exported.id));
            let queue_group = match event {
                Some(_) => subject::queue_group_of(&service.spec.name),
                None => subject::QUEUE_GROUP.to_owned(),
            };
            let mut functions: Vec<_> = exported.functions.iter().collect();
            functions.sort_by_key(|(name, _)| *name);
            for (name, function) in functions {
                let mut metadata = BTreeMap::from([
                    ("interface".to_owned(), exported.id.to_string()),
                    ("function".to_owned(), name.clone()),
                    ("signature".to_owned(), function.signature.to_string()),
                ]);
                if let Some(wire) = event {
                    let kind = match wire.spec.durable {
                        Some(_) => "durable",
                        None => "core",
                    };
                    metadata.insert("event".to_owned(), kind.to_owned());
                }
                endpoints.push(Endpoint {
                    name: format!("{}-{name}", exported.id.name),
                    subject: subject::of_function(&self.app, &function.id),
                    queue_group: queue_group.clone(),
                    metadata: if verb == Verb::Info {
                        metadata
                    } else {
                        BTreeMap::new()
                    },
                    stats: stats(function, verb),
                });
            }
        }
        // Raw messages are no calls, so these have no signature for callers to go by.
        let handlers = service.messages().map(|handler| &handler.functions);
        for (name, function) in handlers.into_iter().flatten() {
            let group = subject::queue_group_of_messages(&self.app, &service.spec.name);
            let granted = service.spec.grants.subscribe.iter();
            endpoints.extend(granted.map(|pattern| Endpoint {
                name: format!("{}-{name}", function.id.interface.name),
                subject: pattern.to_string(),
                queue_group: group.clone(),
                metadata: BTreeMap::new(),
                stats: stats(function, verb),
            }));
        }
        endpoints
    }
}

fn stats(function: &Function, verb: Verb) -> Option<EndpointStats> {
    (verb == Verb::Stats).then(|| {
        let stats = function.stats.read();
        let nanoseconds = u64::try_from(stats.time.as_nanos()).unwrap_or(u64::MAX);
        EndpointStats {
            num_requests: stats.requests,
            num_errors: stats.errors,
            last_error: stats.last_error,
            processing_time: nanoseconds,
            average_processing_time: nanoseconds / stats.requests.max(1),
        }
    })
}

/// `$SRV.<verb>[.<name>[.<id>]]`.
fn parse(subject: &str) -> Option<(Verb, Option<&str>, Option<&str>)> {
    let mut tokens = subject.split('.').skip(1);
    let verb = tokens.next()?;
    let verb = [Verb::Ping, Verb::Info, Verb::Stats]
        .into_iter()
        .find(|v| v.as_str() == verb)?;
    let (name, id) = (tokens.next(), tokens.next());
    tokens.next().is_none().then_some((verb, name, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_understood_or_left_to_others() {
        assert_eq!(parse("$SRV.PING"), Some((Verb::Ping, None, None)));
        assert_eq!(
            parse("$SRV.INFO.orders"),
            Some((Verb::Info, Some("orders"), None))
        );
        assert_eq!(
            parse("$SRV.STATS.a.b"),
            Some((Verb::Stats, Some("a"), Some("b")))
        );
        assert_eq!(parse("$SRV.STATS.a.b.c"), None);
        assert_eq!(parse("$SRV.SCHEMA"), None);
    }
}
