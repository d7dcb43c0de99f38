//! Metrics of a host as Prometheus reads them: what services and the gateway count anyway, written
//! out when it is asked for.
//!
//! Labels are names of the manifest and of components, and codes, so their number is bounded by what
//! is deployed. The durations are those of OpenTelemetry's conventions for RPC and HTTP servers.

mod family;

use std::time::Duration;

use async_nats::jetstream;
use futures_util::future::join_all;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use prometheus::TEXT_FORMAT;

use super::routes::AdminRequest;
use super::{Admin, Answer, Refusal};
use crate::deployment::Deployment;
use crate::gateway::Gateway;
use crate::gateway::answer::Payload;
use crate::pipelines::Serving;
use crate::runtime::Stats;
use crate::subject;
use crate::transport::Source;
use family::{Families, Family};

/// Upper bound of the time for which JetStream is asked about consumers. Without an answer their
/// metrics are left out.
const ASK: Duration = Duration::from_secs(2);

/// The figures of a host that runs these apps.
pub(crate) async fn page(apps: &[&Admin]) -> Result<Answer, Refusal> {
    let consumers = apps.iter().map(|admin| {
        let deployment = admin.insight.current.get();
        async move { of_consumers(&admin.context, &deployment, &admin.insight.app).await }
    });
    let consumers = join_all(consumers).await;
    let mut families = Families::default();
    let mut build = Family::gauge("wasmbay_build_info", "The version of wasmbay, always 1.");
    build.add(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    families.add(build);
    for (admin, consumers) in apps.iter().zip(consumers) {
        let deployment = admin.insight.current.get();
        let unstored = admin.insight.current.store().reason();
        families.add_of(&admin.insight.app, of_app(&admin.insight.gateway, unstored));
        let of_services = of_services(&deployment, admin.insight.pipelines.as_deref());
        families.add_of(&admin.insight.app, of_services);
        families.add_of(&admin.insight.app, consumers);
    }
    let mut answer = Answer::new(Payload::whole(families.write()?.into()));
    let format = HeaderValue::from_static(TEXT_FORMAT);
    answer.headers_mut().insert(CONTENT_TYPE, format);
    Ok(answer)
}

impl Admin {
    pub(super) async fn metrics(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        page(&[self]).await
    }
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
        requests.add_durations(&labels, &durations);
    }
    [stores, requests]
}

fn of_services(deployment: &Deployment, pipelines: Option<&Serving>) -> Vec<Family> {
    let mut calls = Family::histogram(
        "rpc_server_call_duration_seconds",
        "Calls, events, messages and HTTP requests that a service has handled, waiting included.",
    );
    let mut errors = Family::counter(
        "wasmbay_errors_total",
        "Those of them that ended with an error, by its code and whose fault it was.",
    );
    let mut running = Family::gauge("wasmbay_calls_running", "Calls under way.");
    let mut waiting = Family::gauge(
        "wasmbay_calls_waiting",
        "Calls and stored events that wait until one of those under way ends.",
    );
    let mut concurrency = Family::gauge(
        "wasmbay_calls_limit",
        "Calls that may be under way at the same time.",
    );
    let mut instances = Family::gauge("wasmbay_instances", "Instances that exist.");
    let mut idle = Family::gauge("wasmbay_instances_idle", "Instances that no call uses.");
    let mut add = |name: &str, method: &str, stats: &Stats| {
        let labels = [("service", name), ("rpc_method", method)];
        calls.add_durations(&labels, &stats.durations());
        for ((code, blame), count) in stats.error_counts() {
            let labels = [
                ("service", name),
                ("rpc_method", method),
                ("code", &code.status().to_string()),
                ("blame", blame.as_str()),
            ];
            errors.add(&labels, count);
        }
    };
    for pipeline in &deployment.plan.pipelines {
        if let Some(stats) = pipelines.and_then(|serving| serving.stats(&pipeline.name)) {
            add(&pipeline.name, &pipeline.function.to_string(), &stats);
        }
    }
    for (name, service) in &deployment.services {
        for (function, stats) in service.counted() {
            add(name, &function.to_string(), stats);
        }
        let (usage, labels) = (service.usage(), [("service", &**name)]);
        running.add(&labels, usage.running as u64);
        waiting.add(&labels, usage.waiting as u64);
        concurrency.add(&labels, u64::from(service.spec.limits.concurrency));
        instances.add(&labels, usage.instances as u64);
        idle.add(&labels, usage.idle as u64);
    }
    vec![
        calls,
        errors,
        running,
        waiting,
        concurrency,
        instances,
        idle,
    ]
}

/// The consumers of durable events, messages and open runs, which JetStream is asked about.
async fn of_consumers(
    context: &jetstream::Context,
    deployment: &Deployment,
    app: &str,
) -> Vec<Family> {
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
    let of_events = deployment.bindings.iter().filter_map(|(source, bound)| {
        let Source::Consumer { stream, name } = source else {
            return None;
        };
        Some((stream.clone(), &*bound.service, &**name))
    });
    let of_runs = deployment.plan.pipelines.iter().map(|pipeline| {
        let name = &*pipeline.name;
        (subject::run_stream(app), name, name)
    });
    let consumers = of_events
        .chain(of_runs)
        .map(|(stream, service, name)| async move {
            let info = async {
                let stream = context.get_stream_no_info(&stream).await.ok()?;
                stream.consumer_info(name).await.ok()
            };
            let info = info.await;
            (stream, service, name, info)
        });
    let asked = tokio::time::timeout(ASK, join_all(consumers)).await;
    for (stream, service, consumer, info) in asked.unwrap_or_default() {
        let Some(info) = info else {
            continue;
        };
        let labels = [
            ("stream", &*stream),
            ("service", service),
            ("consumer", consumer),
        ];
        waiting.add(&labels, info.num_pending);
        unacknowledged.add(&labels, info.num_ack_pending as u64);
        redelivered.add(&labels, info.num_redelivered as u64);
    }
    vec![waiting, unacknowledged, redelivered]
}
