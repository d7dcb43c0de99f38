//! Metrics of a host as Prometheus reads them: what services and the gateway count anyway, written
//! out when it is asked for.
//!
//! Labels are names of the manifest and of components, and codes, so their number is bounded by what
//! is deployed. The durations are those of OpenTelemetry's conventions for RPC and HTTP servers.

mod family;
mod otlp;
mod text;

use std::time::Duration;

use async_nats::jetstream;
use futures_util::future::{join, join_all};
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::consumers::{self, ASK, Consumer};
use super::routes::AdminRequest;
use super::{Admin, Answer, Refusal};
use crate::call::Code;
use crate::deployment::Deployment;
use crate::gateway::Gateway;
use crate::gateway::answer::Payload;
use crate::jobs::JobCount;
use crate::nats::Reconnects;
use crate::pipelines::Serving;
use crate::runtime::{Engine, Service, Stats};
use crate::spans::Spans;
use crate::subject;
use crate::transport::Source;
use crate::transport::breaker::{Breakers, State};
use family::{Families, Family, Labels};
pub use otlp::MetricsExport;

/// What a process counts for all of its apps together.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) engine: Engine,
    pub(crate) spans: Spans,
    pub(crate) reconnects: Reconnects,
}

/// The figures of a host that runs these apps.
pub(crate) async fn page(process: &Process, apps: &[&Admin]) -> Answer {
    let page = text::write(&gather(process, apps).await);
    let mut answer = Answer::new(Payload::whole(page.into()));
    let format = HeaderValue::from_static(text::FORMAT);
    answer.headers_mut().insert(CONTENT_TYPE, format);
    answer
}

async fn gather(process: &Process, apps: &[&Admin]) -> Families {
    let stored = apps.iter().map(|admin| {
        let deployment = admin.insight.current.get();
        async move { of_store(&admin.context, &deployment, &admin.insight.app).await }
    });
    let stored = join_all(stored).await;
    let mut families = Families::default();
    for family in of_process(process) {
        families.add(family);
    }
    for (admin, stored) in apps.iter().zip(stored) {
        let deployment = admin.insight.current.get();
        let unstored = admin.insight.current.store().reason();
        families.add_of(&admin.insight.app, of_app(&admin.insight.gateway, unstored));
        let breakers = of_breakers(admin.insight.current.breakers());
        families.add_of(&admin.insight.app, breakers);
        let calls = of_functions(&deployment, admin.insight.pipelines.as_deref());
        families.add_of(&admin.insight.app, calls);
        families.add_of(&admin.insight.app, of_services(&deployment));
        if let Some(jobs) = &admin.insight.jobs {
            families.add_of(&admin.insight.app, of_jobs(&jobs.counts()));
        }
        families.add_of(&admin.insight.app, stored);
    }
    families
}

impl Admin {
    pub(super) async fn metrics(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        Ok(page(&self.process, &[self]).await)
    }
}

fn of_process(process: &Process) -> [Family; 4] {
    let mut build = Family::gauge("wasmbay_build_info", "The version of wasmbay, always 1.");
    build.add(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let mut reconnects = Family::counter(
        "wasmbay_nats_reconnects_total",
        "Connections to NATS that were lost and made again.",
    );
    reconnects.add(&[], process.reconnects.count());
    let mut components = Family::counter(
        "wasmbay_components_total",
        "Components that were loaded: found compiled in the cache, or compiled.",
    );
    let (found, compiled) = process.engine.compiled();
    components.add(&[("from", "cache")], found);
    components.add(&[("from", "compiler")], compiled);
    let mut lost = Family::counter(
        "wasmbay_spans_lost_total",
        "Spans that were lost because more came than could be exported.",
    );
    lost.add(&[], process.spans.lost());
    [build, reconnects, components, lost]
}

fn of_app(gateway: &Gateway, unstored: Option<String>) -> [Family; 2] {
    let mut stores = Family::gauge(
        "wasmbay_store_healthy",
        "Whether the app's streams, consumers and buckets are there and store what is written: 1 or 0.",
    );
    stores.add(&[], u64::from(unstored.is_none()));
    let mut requests = Family::histogram(
        "http_server_request_duration_seconds",
        "Requests at the gateway, from their first byte to the head of their answer.",
    );
    for ((route, kind), durations) in gateway.counts.read() {
        let labels = [
            ("http_route", &*route),
            ("http_request_method", kind.method),
            ("http_response_status_code", &kind.status.to_string()),
        ];
        requests.add_durations(&labels, durations);
    }
    [stores, requests]
}

fn of_breakers(breakers: &Breakers) -> [Family; 4] {
    let mut open = Family::gauge(
        "wasmbay_breaker_open",
        "Whether calls of a wire are not sent because too many have failed: 1 or 0.",
    );
    let mut opened = Family::counter(
        "wasmbay_breaker_opened_total",
        "Times that the breaker of a wire has opened.",
    );
    let mut refused = Family::counter(
        "wasmbay_breaker_refused_total",
        "Calls that were not sent because the breaker of their wire was open.",
    );
    let mut fallbacks = Family::counter(
        "wasmbay_breaker_fallbacks_total",
        "Those of them that a fallback answered.",
    );
    for breaker in breakers.all() {
        let (wire, counts) = (breaker.wire.to_string(), breaker.counts());
        let labels = [("wire", &*wire)];
        open.add(&labels, u64::from(counts.state != State::Closed));
        opened.add(&labels, counts.opened);
        refused.add(&labels, counts.refused);
        fallbacks.add(&labels, counts.fallbacks);
    }
    [open, opened, refused, fallbacks]
}

/// The calls of functions that have been called.
fn of_functions(deployment: &Deployment, pipelines: Option<&Serving>) -> [Family; 2] {
    let mut calls = Family::histogram(
        "rpc_server_call_duration_seconds",
        "Calls, events, messages and HTTP requests that a service has handled, waiting included.",
    );
    let mut errors = Family::counter(
        "wasmbay_errors_total",
        "Those of them that ended with an error, by its code and whose fault it was.",
    );
    let mut add = |name: &Labels<'_>, method: &str, stats: &Stats| {
        let durations = stats.durations();
        // A thousand services would be ten thousand histograms of nothing.
        if durations.count() == 0 {
            return;
        }
        let labels = [name, &[("rpc_method", method)][..]].concat();
        calls.add_durations(&labels, durations);
        for ((code, blame), count) in stats.error_counts() {
            let code = code.status().to_string();
            let of_errors = [("code", code.as_str()), ("blame", blame.as_str())];
            errors.add(&[&labels[..], &of_errors].concat(), count);
        }
    };
    for pipeline in &deployment.plan.pipelines {
        if let Some(stats) = pipelines.and_then(|serving| serving.stats(&pipeline.name)) {
            let name = [("service", pipeline.name.as_str())];
            add(&name, &pipeline.function.to_string(), &stats);
        }
    }
    for (name, service) in versions(deployment) {
        for (function, stats) in service.counted() {
            add(&name, &function.to_string(), stats);
        }
    }
    [calls, errors]
}

/// The services with their labels. A new version that has a share of the calls has one more.
fn versions(
    deployment: &Deployment,
) -> impl Iterator<Item = (Vec<(&'static str, &str)>, &Service)> {
    let services = deployment.services.iter();
    let services = services.map(|(name, service)| (vec![("service", name.as_str())], &**service));
    let candidates = deployment.candidates.iter().map(|(name, candidate)| {
        let labels = vec![("service", name.as_str()), ("version", "canary")];
        (labels, &*candidate.service)
    });
    services.chain(candidates)
}

/// Calls of a service that were refused with 429.
fn shed(service: &Service) -> u64 {
    let of_function = |stats: &Stats| -> u64 {
        let counts = stats.error_counts().into_iter();
        let shed = counts.filter(|((code, _), _)| *code == Code::Overloaded);
        shed.map(|(_, count)| count).sum()
    };
    let admitted: u64 = service.counted().map(|(_, stats)| of_function(stats)).sum();
    service.counts().shed.read() + admitted
}

fn of_services(deployment: &Deployment) -> Vec<Family> {
    type Figure = fn(&Service) -> u64;
    let gauges: [(&str, &str, Figure); 7] = [
        ("wasmbay_calls_running", "Calls under way.", |service| {
            service.usage().running as u64
        }),
        (
            "wasmbay_calls_waiting",
            "Calls and stored events that wait until one of those under way ends.",
            |service| service.usage().waiting as u64,
        ),
        (
            "wasmbay_calls_limit",
            "Calls that may be under way at the same time.",
            |service| u64::from(service.spec.limits.concurrency),
        ),
        ("wasmbay_instances", "Instances that exist.", |service| {
            service.usage().instances as u64
        }),
        (
            "wasmbay_instances_idle",
            "Instances that no call uses.",
            |service| service.usage().idle as u64,
        ),
        (
            "wasmbay_memory_bytes",
            "What counts against the memory limits of the instances that exist, above all their linear memories.",
            |service| service.counts().memory.read(),
        ),
        (
            "wasmbay_memory_limit_bytes",
            "The memory limit of one instance.",
            |service| service.spec.limits.memory,
        ),
    ];
    let counters: [(&str, &str, Figure); 4] = [
        (
            "wasmbay_shed_total",
            "Calls that were refused with 429 because too many were waiting or they waited for too long.",
            shed,
        ),
        (
            "wasmbay_events_published_total",
            "Events and messages that the service has published.",
            |service| service.counts().published.read(),
        ),
        (
            "wasmbay_events_retried_total",
            "Stored events and messages that failed here and were to be handed out again.",
            |service| service.counts().retried.read(),
        ),
        (
            "wasmbay_events_dead_lettered_total",
            "Stored events and messages that became dead letters here.",
            |service| service.counts().dead_lettered.read(),
        ),
    ];
    let gauges = gauges.map(|(name, help, figure)| (Family::gauge(name, help), figure));
    let counters = counters.map(|(name, help, figure)| (Family::counter(name, help), figure));
    let mut families = Vec::new();
    for (mut family, figure) in gauges.into_iter().chain(counters) {
        for (name, service) in versions(deployment) {
            family.add(&name, figure(service));
        }
        families.push(family);
    }
    let mut computed = Family::counter(
        "wasmbay_cpu_seconds_total",
        "Time for which the service's guests have computed, by samples of 5 ms.",
    );
    for (name, service) in versions(deployment) {
        let time = Duration::from_nanos(service.counts().computed.read());
        computed.add_seconds(&name, time);
    }
    families.push(computed);
    families
}

/// What this host has run of jobs.
fn of_jobs(jobs: &[(String, JobCount)]) -> [Family; 3] {
    let mut running = Family::gauge(
        "wasmbay_job_running",
        "Whether the job runs at this host: 1 or 0.",
    );
    let mut attempts = Family::counter(
        "wasmbay_job_attempts_total",
        "Attempts of runs of the job that ended at this host, by how they ended, and runs that it skipped.",
    );
    let mut succeeded = Family::gauge(
        "wasmbay_job_last_success_timestamp_seconds",
        "When a run of the job last succeeded at this host, in seconds since 1970.",
    );
    for (job, count) in jobs {
        let name = [("job", job.as_str())];
        running.add(&name, u64::from(count.running));
        for (outcome, times) in &count.ended {
            let labels = [("job", job.as_str()), ("outcome", outcome.as_str())];
            attempts.add(&labels, *times);
        }
        if let Some(at) = count.succeeded {
            succeeded.add(&name, at / 1_000);
        }
    }
    [running, attempts, succeeded]
}

/// Dead letters, and the consumers of durable events, messages and open runs, which JetStream is asked about.
async fn of_store(context: &jetstream::Context, deployment: &Deployment, app: &str) -> Vec<Family> {
    let mut waiting = Family::gauge(
        "wasmbay_consumer_waiting",
        "Events that no host has been given yet.",
    );
    let mut unacknowledged = Family::gauge(
        "wasmbay_consumer_unacknowledged",
        "Events that were handed out and are not handled yet, those that wait for their next attempt included.",
    );
    let mut redelivered = Family::gauge(
        "wasmbay_consumer_redelivered",
        "Unacknowledged events that were handed out more than once.",
    );
    let here = deployment.bindings.iter().filter_map(|(source, bound)| {
        let Source::Consumer { stream, name } = source else {
            return None;
        };
        Some(Consumer::new(&bound.service, stream, name))
    });
    let here = here.chain(consumers::of_runs(app, deployment)).collect();
    let dead_letters = async {
        let stream = subject::dead_letter_stream(app);
        let info = context.get_stream(&stream).await.ok()?;
        Some(info.cached_info().state.messages)
    };
    let dead_letters = tokio::time::timeout(ASK, dead_letters);
    let (consumers, dead_letters) = join(consumers::ask(context, here), dead_letters).await;
    let dead_letters = dead_letters.ok().flatten();
    let mut dead = Family::gauge("wasmbay_dead_letters", "Dead letters of the app.");
    dead.add(&[], dead_letters.unwrap_or_default());
    for found in consumers {
        let labels = [
            ("stream", &*found.stream),
            ("service", &*found.service),
            ("consumer", &*found.consumer),
        ];
        waiting.add(&labels, found.pending);
        unacknowledged.add(&labels, found.in_flight);
        redelivered.add(&labels, found.redelivered);
    }
    vec![dead, waiting, unacknowledged, redelivered]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The names of metrics in a text, those of a histogram's parts as that of the histogram.
    fn names(text: &str) -> BTreeSet<&str> {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let words = text.split(|c: char| !is_name(c));
        let names = words.filter(|word| {
            let families = ["wasmbay_", "rpc_server_", "http_server_"];
            families.iter().any(|start| word.starts_with(start))
        });
        let whole = |name: &'_ str| {
            let part = ["_seconds_bucket", "_seconds_sum", "_seconds_count"];
            let part = part.iter().find(|part| name.ends_with(**part));
            part.map_or(name.len(), |part| {
                name.len() - part.len() + "_seconds".len()
            })
        };
        names.map(|name| &name[..whole(name)]).collect()
    }

    #[test]
    fn what_is_documented_and_what_the_dashboard_shows_exists() {
        let code = include_str!("mod.rs").split("#[cfg(test)]").next().unwrap();
        let (code, docs) = (names(code), include_str!("../../../../docs/metrics.md"));
        let dashboard = include_str!("../../../../docs/grafana.json");
        for name in names(dashboard).union(&names(docs)) {
            assert!(code.contains(name), "{name} does not exist");
        }
        for name in code {
            assert!(docs.contains(name), "{name} is not documented");
        }
    }
}
