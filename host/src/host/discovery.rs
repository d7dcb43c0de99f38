//! Services as NATS micro services (ADR-32): answers to PING, INFO and STATS for `nats micro` and
//! other tools of that kind.
//!
//! One subscription answers for all services of a host, whatever their number.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::call::CallError;
use crate::deployment::{Current, Deployment};
use crate::events::stream;
use crate::headers::Headers;
use crate::interface::InterfaceId;
use crate::micro::{self, Answer, Endpoint, EndpointStats, ROOT, Verb, parse};
use crate::nats::{Link, Message, PublishError, SubscribeError};
use crate::pipelines::Serving;
use crate::plan::Pipeline;
use crate::runtime::{Service, Stats};
use crate::{subject, wire};

/// The interfaces that services answer, as a plan has them.
type Answers = BTreeMap<String, BTreeMap<InterfaceId, Vec<String>>>;

/// Answers for the services of a host.
pub(crate) struct Directory {
    app: String,
    host: String,
    current: Arc<Current>,
    pipelines: Option<Arc<Serving>>,
}

impl Directory {
    /// The directory of the host with this id.
    pub(crate) fn new(
        app: &str,
        host: &str,
        current: Arc<Current>,
        pipelines: Option<Arc<Serving>>,
    ) -> Self {
        Self {
            app: app.to_owned(),
            host: host.to_owned(),
            current,
            pipelines,
        }
    }

    /// Answers until the connection closes or the future is dropped.
    ///
    /// # Errors
    ///
    /// The subscription is refused.
    pub(crate) async fn serve(&self, link: Link) -> Result<(), SubscribeError> {
        let mut questions = link.subscribe(&format!("{ROOT}.>"), None)?;
        while let Some(question) = questions.next().await {
            self.answer(&link, question).await;
        }
        Ok(())
    }

    async fn answer(&self, link: &Link, question: Message) {
        let Some(to) = question.reply.filter(|to| !subject::is_reserved(to)) else {
            return;
        };
        if let Some(why) = question.malformed {
            let (headers, body) = wire::write_error(&CallError::bad_arguments(why));
            return sent(link.publish(&to, None, &headers, &body).await);
        }
        let Some((verb, name, id)) = parse(&question.subject) else {
            return;
        };
        let deployment = self.current.get();
        let services = deployment.services.values();
        let services = services.map(|service| (service, self.id(&service.spec.name)));
        let candidates = deployment.candidates.values().map(|candidate| {
            let service = &candidate.service;
            (service, format!("{}-canary", self.id(&service.spec.name)))
        });
        for (service, own) in services.chain(candidates) {
            if name.is_some_and(|name| name != &*service.spec.name)
                || id.is_some_and(|id| id != own)
            {
                continue;
            }
            let answer = self.describe(&deployment, service, own, verb);
            let answer = serde_json::to_vec(&answer).unwrap_or_default();
            sent(link.publish(&to, None, &Headers::new(), &answer).await);
        }
        let pipelines = deployment.plan.pipelines.iter();
        for pipeline in pipelines.filter(|pipeline| pipeline.durable.is_none()) {
            let own = &*pipeline.name;
            if name.is_none_or(|name| name == own) && id.is_none_or(|id| id == self.id(own)) {
                let answer = serde_json::to_vec(&self.describe_pipeline(pipeline, verb));
                let answer = answer.unwrap_or_default();
                sent(link.publish(&to, None, &Headers::new(), &answer).await);
            }
        }
    }

    /// The answer of a pipeline: it has one function.
    fn describe_pipeline(&self, pipeline: &Pipeline, verb: Verb) -> Answer {
        let Pipeline {
            name,
            function,
            signature,
            ..
        } = pipeline;
        let metadata = BTreeMap::from([
            ("interface".to_owned(), function.interface.to_string()),
            ("function".to_owned(), function.name.clone()),
            ("signature".to_owned(), signature.to_string()),
            ("pipeline".to_owned(), name.clone()),
        ]);
        let counts = self
            .pipelines
            .as_ref()
            .and_then(|serving| serving.stats(name));
        let endpoint = Endpoint {
            name: format!("{}-{}", function.interface.name, function.name),
            subject: subject::of_function(&self.app, function),
            queue_group: subject::QUEUE_GROUP.to_owned(),
            metadata: match verb {
                Verb::Info => metadata,
                _ => BTreeMap::new(),
            },
            stats: counts.and_then(|counts| stats(&counts, verb)),
        };
        Answer {
            kind: kind(verb),
            id: self.id(name),
            version: "0.0.0".to_owned(),
            metadata: BTreeMap::from([
                (micro::APP.to_owned(), self.app.clone()),
                (micro::HOST.to_owned(), self.host.clone()),
            ]),
            description: (verb == Verb::Info).then(|| format!("pipeline {name} of {}", self.app)),
            started: None,
            endpoints: (verb != Verb::Ping).then(|| vec![endpoint]),
            name: name.clone(),
        }
    }

    fn id(&self, service: &str) -> String {
        format!("{}-{service}", self.host)
    }

    /// The answer of one service, or of its new version that has a share of the calls.
    fn describe(
        &self,
        deployment: &Deployment,
        service: &Service,
        id: String,
        verb: Verb,
    ) -> Answer {
        let digest = &service.component.digest;
        let name = service.spec.name.to_string();
        let endpoints = (verb != Verb::Ping).then(|| self.endpoints(deployment, service, verb));
        Answer {
            kind: kind(verb),
            id,
            version: format!("0.0.0+{}", digest.short()),
            metadata: self.metadata(deployment, digest.as_str()),
            description: (verb == Verb::Info).then(|| format!("{name} of {}", self.app)),
            started: (verb == Verb::Stats).then(|| {
                let started = OffsetDateTime::from(service.started);
                // Formatting fails for years beyond 9999 only.
                started.format(&Rfc3339).unwrap_or_default()
            }),
            endpoints,
            name,
        }
    }

    fn metadata(&self, deployment: &Deployment, digest: &str) -> BTreeMap<String, String> {
        let mut metadata = BTreeMap::from([
            (micro::APP.to_owned(), self.app.clone()),
            ("digest".to_owned(), digest.to_owned()),
            (micro::HOST.to_owned(), self.host.clone()),
        ]);
        let app = deployment.app.as_ref();
        let streams = app.map(|app| stream::names(app, &deployment.plan));
        if let Some(streams) = streams.filter(|streams| !streams.is_empty()) {
            let streams: Vec<_> = streams.into_iter().collect();
            metadata.insert(micro::STREAMS.to_owned(), streams.join(" "));
        }
        metadata
    }

    fn endpoints(&self, deployment: &Deployment, service: &Service, verb: Verb) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        let name = &*service.spec.name;
        let answers = |by: &Answers, id: &InterfaceId| {
            let interfaces = by.get(name);
            interfaces.is_some_and(|interfaces| interfaces.contains_key(id))
        };
        let plan = &deployment.plan;
        for exported in service.interfaces() {
            let by_name = !answers(&plan.serves, &exported.id);
            if by_name && !answers(&plan.chosen, &exported.id) {
                // A wire leaves it out.
                continue;
            }
            let event = deployment.plan.event_wire(&exported.id);
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
                    subject: if by_name {
                        let service = &service.spec.name;
                        subject::of_service_function(&self.app, service, &function.id)
                    } else {
                        subject::of_function(&self.app, &function.id)
                    },
                    queue_group: queue_group.clone(),
                    metadata: if verb == Verb::Info {
                        metadata
                    } else {
                        BTreeMap::new()
                    },
                    stats: stats(&function.stats, verb),
                });
            }
        }
        // Messages are no calls, so these endpoints have no signature.
        let handlers = service.messages().map(|handler| &handler.functions);
        for (name, function) in handlers.into_iter().flatten() {
            let group = subject::queue_group_of_messages(&self.app, &service.spec.name);
            let granted = service.spec.grants.subscribe.iter();
            endpoints.extend(granted.map(|pattern| Endpoint {
                name: format!("{}-{name}", function.id.interface.name),
                subject: pattern.to_string(),
                queue_group: group.clone(),
                metadata: BTreeMap::new(),
                stats: stats(&function.stats, verb),
            }));
        }
        // Each pattern of NestJS is a second way to a function, whose statistics have both.
        for served in plan.nest.iter().filter(|served| served.service == name) {
            let id = &served.function;
            let Some(function) = service
                .interfaces()
                .filter(|exported| exported.id.compatible(&id.interface))
                .find_map(|exported| exported.functions.get(&id.name))
            else {
                continue;
            };
            let metadata = || {
                BTreeMap::from([
                    ("interface".to_owned(), id.interface.to_string()),
                    ("function".to_owned(), id.name.clone()),
                    ("signature".to_owned(), served.signature.to_string()),
                    ("nest".to_owned(), served.pattern.to_string()),
                ])
            };
            endpoints.push(Endpoint {
                name: format!("nest-{}-{}", id.interface.name, id.name),
                subject: served.pattern.subject(),
                queue_group: served.queue.clone(),
                metadata: match verb {
                    Verb::Info => metadata(),
                    _ => BTreeMap::new(),
                },
                stats: stats(&function.stats, verb),
            });
        }
        // HTTP requests come through the gateway, so there is no subject.
        if let Some((id, counts)) = service.http_handler() {
            endpoints.push(Endpoint {
                name: format!("{}-{}", id.interface.name, id.name),
                subject: String::new(),
                queue_group: String::new(),
                metadata: BTreeMap::new(),
                stats: stats(counts, verb),
            });
        }
        endpoints
    }
}

fn kind(verb: Verb) -> String {
    format!("io.nats.micro.v1.{}_response", verb.as_str().to_lowercase())
}

fn stats(stats: &Stats, verb: Verb) -> Option<EndpointStats> {
    (verb == Verb::Stats).then(|| {
        let stats = stats.read();
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

fn sent(sent: Result<(), PublishError>) {
    if let Err(error) = sent {
        tracing::debug!(%error, "an answer to discovery could not be sent");
    }
}
