//! What a host can say about an app that runs on it: figures of its services and the last traces.
//!
//! The admin address asks its own host in the process and the other hosts of the app over NATS, where each
//! answers on `bay-ops.<app>.>`; the command line asks all of them over NATS. So whoever looks sees all hosts,
//! wherever he looks, and one host answers from what it counts anyway.

mod figures;
mod health;
mod history;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

use crate::call::{Blame, Code};
use crate::cases::Recorded;
use crate::deployment::{Current, Deployment};
use crate::gateway::Gateway;
use crate::headers::Headers;
use crate::jobs;
use crate::nats::{Asking, Link, Message, PublishError, SubscribeError};
use crate::pipelines::Serving;
use crate::runtime::Service;
use crate::spans::{SpanRecord, Spans, micros, now_us, summarise};
use crate::subject::{self, Question};
use crate::telemetry::Distribution;
use crate::transport::breaker::State;

pub use crate::spans::TraceSummary;
pub use figures::{
    BreakerFigures, ConsumerFigures, Counts, HostFigures, ImportFigures, Moment, PipelineFigures,
    RouteFigures, ServiceDetail, ServiceFigures, Usage, Used,
};
pub use health::{Health, HealthState};
use health::{Recent, judge};
use history::{History, INTERVAL, Total, Totals};

/// Time without an answer after which no further one is waited for.
const QUIET: Duration = Duration::from_millis(150);

/// Upper bound of the time for answers.
const ANSWERS: Duration = Duration::from_secs(1);

/// Traces that a host lists of those in which all went well, and of the others.
const TRACES: usize = 200;

/// Bytes of an answer with recorded calls that are none of those.
const RECORD_HEADROOM: usize = 4 << 10;

/// Spans of one trace that a host shows.
const SPANS: usize = 1_000;

/// The spans of a trace on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TracePart {
    /// The id of the host.
    pub host: String,
    /// The spans, in the order in which they began.
    pub spans: Vec<SpanRecord>,
    /// Whether it has more of them than fit into an answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// The last traces of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Traces {
    host: String,
    traces: Vec<TraceSummary>,
}

/// An app on a host, to be looked at.
pub(crate) struct Insight {
    pub(crate) app: String,
    pub(crate) host: String,
    pub(crate) current: Arc<Current>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) pipelines: Option<Arc<Serving>>,
    pub(crate) jobs: Option<Arc<jobs::Serving>>,
    pub(crate) spans: Spans,
    /// Instances that may exist on the host, of all its apps together.
    instances: u32,
    history: History,
}

impl Insight {
    pub(crate) fn new(
        (app, host): (&str, &str),
        current: Arc<Current>,
        gateway: Arc<Gateway>,
        pipelines: Option<Arc<Serving>>,
        jobs: Option<Arc<jobs::Serving>>,
        spans: Spans,
        instances: u32,
    ) -> Self {
        Self {
            app: app.to_owned(),
            host: host.to_owned(),
            current,
            gateway,
            pipelines,
            jobs,
            spans,
            instances,
            history: History::default(),
        }
    }

    /// Writes the history, until dropped.
    pub(crate) async fn write_history(&self) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let deployment = self.current.get();
            let services = deployment.services.iter();
            let totals =
                services.map(|(name, service)| (name.clone(), totals(&deployment, service)));
            self.history
                .end_interval(now_us() / 1_000_000, totals.collect());
        }
    }

    /// Answers other hosts and the command line until the connection closes or the future is dropped.
    ///
    /// # Errors
    ///
    /// The subscription is refused.
    pub(crate) async fn answer(&self, link: &Link) -> Result<(), SubscribeError> {
        let mut questions = link.subscribe(&subject::questions(&self.app), None)?;
        while let Some(Message { subject, reply, .. }) = questions.next().await {
            let question = Question::parse(&self.app, &subject);
            let reply = reply.filter(|to| !subject::is_reserved(to));
            let (Some(question), Some(reply)) = (question, reply) else {
                continue;
            };
            let answer = self.answer_to(&question, link.max_payload());
            let sent = link.publish(&reply, None, &Headers::new(), &answer).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "an answer to an operator could not be sent");
            }
        }
        Ok(())
    }

    fn answer_to(&self, question: &Question<'_>, most: usize) -> Vec<u8> {
        match question {
            Question::Services => to_json(&self.figures()),
            Question::Service(name) => match self.service(name) {
                Some(detail) => to_json(&detail),
                None => to_json(&json!({ "host": self.host })),
            },
            Question::Traces => to_json(&self.traces()),
            Question::Record(name) => match self.recorded(name, most) {
                Some(recorded) => to_json(&recorded),
                None => to_json(&json!({ "host": self.host })),
            },
            Question::Trace(id) => {
                let mut part = self.trace(id);
                let mut answer = to_json(&part);
                while answer.len() >= most && !part.spans.is_empty() {
                    part.spans.truncate(part.spans.len() / 2);
                    part.truncated = true;
                    answer = to_json(&part);
                }
                answer
            }
        }
    }

    fn figures(&self) -> HostFigures {
        let deployment = self.current.get();
        let services = deployment
            .services
            .iter()
            .map(|(name, service)| (name.clone(), self.of_service(&deployment, service)));
        HostFigures {
            host: self.host.clone(),
            at_us: now_us(),
            services: services.collect(),
            pipelines: figures::of_pipelines(&deployment, self.pipelines.as_deref()),
            routes: figures::of_routes(&deployment, &self.gateway),
            breakers: figures::of_breakers(self.current.breakers()),
        }
    }

    fn of_service(&self, deployment: &Deployment, service: &Service) -> ServiceFigures {
        let (calls, faults) = self
            .history
            .recent(&service.spec.name, &totals(deployment, service));
        let breakers = self.current.breakers().all().into_iter();
        let open = breakers.filter(|breaker| {
            let mut imports = service.imports.iter();
            let is_closed = breaker.counts().state == State::Closed;
            !is_closed && imports.any(|import| import.id.interface.answers_to(&breaker.wire))
        });
        let open = open.map(|breaker| breaker.wire.to_string()).collect();
        let stores = service.imports.iter().any(|import| import.is_event());
        let unstored = self.current.store().reason().filter(|_| stores);
        let recent = Recent {
            calls,
            faults,
            open,
            unstored,
        };
        figures::of_service(deployment, service, judge(&recent))
    }

    fn service(&self, name: &str) -> Option<ServiceDetail> {
        let deployment: Arc<Deployment> = self.current.get();
        let service = deployment.services.get(name)?;
        let functions = service
            .counted()
            .map(|(function, stats)| (function.to_string(), Counts::of_stats(stats)));
        Some(ServiceDetail {
            host: self.host.clone(),
            service: self.of_service(&deployment, service),
            usage: Some(figures::usage(&deployment, service, self.instances)),
            functions: functions.collect(),
            manifest: figures::manifest(&service.spec),
            history: self.history.of(name),
        })
    }

    /// The calls of a service that were kept since this was asked for the last time.
    fn recorded(&self, name: &str, most: usize) -> Option<Recorded> {
        let deployment = self.current.get();
        let service = deployment.services.get(name)?;
        // Beside the cases there are the host's name and few numbers.
        let most = most.saturating_sub(RECORD_HEADROOM);
        Some(Recorded::new(
            &self.host,
            &service.spec,
            service.taped(),
            most,
        ))
    }

    fn traces(&self) -> Traces {
        let mut traces = summarise(&self.spans.last(|span| span.app == self.app));
        // What was refused or failed is not crowded out by what was fine.
        let mut listed = [0; 2];
        traces.retain(|trace| {
            let [fine, other] = &mut listed;
            let is_fine = trace.error.is_none() && trace.refusal.is_none();
            let same = if is_fine { fine } else { other };
            *same += 1;
            *same <= TRACES
        });
        Traces {
            host: self.host.clone(),
            traces,
        }
    }

    fn trace(&self, id: &str) -> TracePart {
        let mut spans = self
            .spans
            .last(|span| span.trace == id && span.app == self.app);
        spans.sort_by_key(|span| (span.start_us, std::cmp::Reverse(span.duration_us)));
        let truncated = spans.len() > SPANS;
        spans.truncate(SPANS);
        TracePart {
            host: self.host.clone(),
            spans,
            truncated,
        }
    }

    /// The figures of all hosts that run the app.
    pub(crate) async fn all_figures(&self, link: &Link) -> Vec<HostFigures> {
        let mut hosts = vec![self.figures()];
        hosts.extend(
            self.others(link, &Question::Services, |h: &HostFigures| &h.host)
                .await,
        );
        hosts
    }

    /// A service on all hosts that run it.
    pub(crate) async fn all_of_service(&self, link: &Link, name: &str) -> Vec<ServiceDetail> {
        let mut hosts: Vec<_> = self.service(name).into_iter().collect();
        let question = Question::Service(name);
        hosts.extend(
            self.others(link, &question, |h: &ServiceDetail| &h.host)
                .await,
        );
        hosts
    }

    /// The last traces of all hosts, the last begun first.
    pub(crate) async fn all_traces(&self, link: &Link) -> Vec<TraceSummary> {
        let mut hosts = vec![self.traces()];
        hosts.extend(
            self.others(link, &Question::Traces, |h: &Traces| &h.host)
                .await,
        );
        TraceSummary::merge(hosts.into_iter().flat_map(|host| host.traces))
    }

    /// A trace on all hosts.
    pub(crate) async fn all_of_trace(&self, link: &Link, id: &str) -> Vec<TracePart> {
        let mut parts = vec![self.trace(id)];
        let question = Question::Trace(id);
        parts.extend(self.others(link, &question, |h: &TracePart| &h.host).await);
        parts.retain(|part| !part.spans.is_empty());
        parts
    }

    /// The answers of other hosts. Without NATS there are none.
    async fn others<T: for<'d> Deserialize<'d>>(
        &self,
        link: &Link,
        question: &Question<'_>,
        host: impl Fn(&T) -> &str,
    ) -> Vec<T> {
        if !link.is_connected() {
            return Vec::new();
        }
        let mut answers = ask(link, &self.app, question).await.unwrap_or_default();
        answers.retain(|answer| host(answer) != self.host);
        answers
    }
}

/// What a service has done since it was started, and a new version that has a share of its calls.
fn totals(deployment: &Deployment, service: &Service) -> Totals {
    let each = figures::both(deployment, service).map(|service| {
        let started = service.started.duration_since(UNIX_EPOCH);
        (started.map_or(0, micros), total(service))
    });
    each.collect()
}

fn total(service: &Service) -> Total {
    let mut total = Total::default();
    let mut add = |kind: (Code, Blame), count: u64| {
        total.errors += count;
        if kind.1 != Blame::Caller && count > 0 {
            *total.faults.entry(figures::kind(kind)).or_default() += count;
        }
    };
    for (_, stats) in service.counted() {
        for (kind, count) in stats.error_counts() {
            add(kind, count);
        }
    }
    // What found no room in the backlog was not counted as a call.
    let shed = service.counts().shed.read();
    add((Code::Overloaded, Blame::Host), shed);
    total.shed = shed;
    for (_, stats) in service.counted() {
        total.durations.add(&stats.durations());
    }
    total
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    // Texts as keys and numbers that are finite: nothing of it cannot be written.
    serde_json::to_vec(value).unwrap_or_default()
}

/// What the hosts of an app answer.
async fn ask<T: for<'d> Deserialize<'d>>(
    link: &Link,
    app: &str,
    question: &Question<'_>,
) -> Result<Vec<T>, PublishError> {
    let subject = question.subject(app);
    let mut asking = Asking::new(link, &subject, Bytes::new(), ANSWERS).await?;
    let mut answers = Vec::new();
    while let Ok(Some(reply)) = timeout(QUIET, asking.next()).await {
        // A host of another version may answer in another way, and one without the service has no more
        // than its name.
        answers.extend(serde_json::from_slice::<T>(&reply.payload).ok());
    }
    Ok(answers)
}

/// The calls of a service that have ended since this was asked for the last time, from all hosts that run it, which
/// keep them for some seconds from now on.
///
/// # Errors
///
/// The connection is closed.
pub async fn record(link: &Link, app: &str, service: &str) -> Result<Vec<Recorded>, PublishError> {
    ask(link, app, &Question::Record(service)).await
}

/// The figures of an app from all of its hosts.
///
/// # Errors
///
/// The connection is closed.
pub async fn figures(link: &Link, app: &str) -> Result<Vec<HostFigures>, PublishError> {
    ask(link, app, &Question::Services).await
}

/// The last traces of an app from all of its hosts, the last begun first.
///
/// # Errors
///
/// The connection is closed.
pub async fn traces(link: &Link, app: &str) -> Result<Vec<TraceSummary>, PublishError> {
    let hosts: Vec<Traces> = ask(link, app, &Question::Traces).await?;
    Ok(TraceSummary::merge(
        hosts.into_iter().flat_map(|host| host.traces),
    ))
}

/// A trace from all hosts of an app. `id` is 32 hexadecimal digits; of another one there is nothing.
///
/// # Errors
///
/// The connection is closed.
pub async fn trace(link: &Link, app: &str, id: &str) -> Result<Vec<TracePart>, PublishError> {
    let parts: Vec<TracePart> = ask(link, app, &Question::Trace(id)).await?;
    Ok(parts
        .into_iter()
        .filter(|part| !part.spans.is_empty())
        .collect())
}

/// The duration that this part of the counted calls did not exceed, as far as the bounds say.
#[must_use]
pub fn quantile(counts: &Counts, part: f64) -> Duration {
    let mut distribution = Distribution::default();
    for (bucket, count) in distribution.buckets.iter_mut().zip(&counts.durations) {
        *bucket = *count;
    }
    distribution.quantile(part)
}
