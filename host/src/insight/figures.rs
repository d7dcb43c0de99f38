//! What a host says about the services of an app that run on it: who calls whom, how often, how long
//! that takes and how it fails. Shapes of JSON, and how they are made of counts.

use std::collections::BTreeMap;
use std::iter;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::health::Health;
use crate::call::{Blame, Code};
use crate::deployment::Deployment;
use crate::gateway::Gateway;
use crate::interface::FunctionId;
use crate::interfaces::calls::Import;
use crate::manifest::ServiceSpec;
use crate::pipelines::Serving;
use crate::runtime::Service;
use crate::spans::micros;
use crate::stats::Stats;
use crate::telemetry::Distribution;
use crate::transport::breaker::Breakers;

/// Calls since a service was started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Their number by duration: one for each bound, and one for what takes longer. Zeros at the end are
    /// left out.
    pub durations: Vec<u64>,
    /// The sum of their durations, in seconds.
    pub seconds: f64,
    /// Those that failed, by code and blame, such as `500 guest`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, u64>,
}

/// What a service imports of another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportFigures {
    /// The function.
    pub function: String,
    /// Whether calling it publishes an event.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub event: bool,
    /// The services and pipelines that answer or subscribe; none where they are not of the app.
    pub to: Vec<String>,
    /// Calls and publications.
    pub calls: Counts,
}

/// A service on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceFigures {
    /// The SHA-256 of its component.
    pub component: String,
    /// When it was started, in microseconds since 1970. Its counts begin then.
    pub since_us: u64,
    /// Calls under way.
    pub running: usize,
    /// Calls and stored events that wait for their turn.
    pub waiting: usize,
    /// Calls that may be under way.
    pub concurrency: u32,
    /// Instances that exist.
    pub instances: usize,
    /// How it fares. A host of an earlier version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Calls, events, messages and HTTP requests of all of its functions.
    pub calls: Counts,
    /// What it calls and publishes.
    pub imports: Vec<ImportFigures>,
}

/// A pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineFigures {
    /// The function that it is.
    pub function: String,
    /// The services and pipelines that its steps call; of a durable function, its own service.
    pub to: Vec<String>,
    /// Calls of it.
    pub calls: Counts,
}

/// Requests at the gateway of a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteFigures {
    /// Method and path.
    pub route: String,
    /// The services that may answer; none for what the gateway answers itself.
    pub to: Vec<String>,
    /// Answers; those with a status from 500 count as failed.
    pub calls: Counts,
}

/// The circuit breaker of a wire on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BreakerFigures {
    /// `closed`, `open`, or `trying` while one call is under way that decides.
    pub state: String,
    /// How often it has opened.
    pub opened: u64,
    /// Calls that were not sent.
    pub refused: u64,
    /// Those of them that a fallback has answered.
    pub fallbacks: u64,
}

/// A consumer of stored events, of messages, or of the runs of a pipeline, all hosts together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerFigures {
    /// The service, or the pipeline, that gets them.
    pub service: String,
    /// The JetStream stream.
    pub stream: String,
    /// Its name on the stream.
    pub consumer: String,
    /// Events that no host has been given yet.
    pub pending: u64,
    /// Events that were handed out and are not handled yet, those that wait for their next attempt included.
    pub in_flight: u64,
    /// Those of them that were handed out more than once.
    pub redelivered: u64,
}

/// What is used of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// How much.
    pub used: u64,
    /// How much there may be.
    pub limit: u64,
}

/// How near a service is to its limits on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// The most bytes that one instance has had since the service was started, of those that it may have.
    pub memory: Used,
    /// Calls under way.
    pub concurrency: Used,
    /// Calls that wait for their turn.
    pub queue: Used,
    /// Instances that exist, of those that the host may have of all its services together.
    pub instances: Used,
}

/// What runs of an app on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFigures {
    /// The id of the host.
    pub host: String,
    /// When this was read, in microseconds since 1970.
    pub at_us: u64,
    /// The services that run on it.
    pub services: BTreeMap<String, ServiceFigures>,
    /// The pipelines of the app.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pipelines: BTreeMap<String, PipelineFigures>,
    /// The routes that its gateway has answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteFigures>,
    /// The circuit breakers, by wire.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub breakers: BTreeMap<String, BreakerFigures>,
}

/// A service on a host, in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDetail {
    /// The id of the host.
    pub host: String,
    /// As in [`HostFigures`].
    pub service: ServiceFigures,
    /// How near it is to its limits. A host of an earlier version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Its functions.
    pub functions: BTreeMap<String, Counts>,
    /// Its limits, reuse, grants and configuration keys, as the manifest has them.
    pub manifest: serde_json::Value,
    /// The last hour.
    pub history: Vec<Moment>,
}

/// An interval of a service's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// Its end, in seconds since 1970.
    pub at: u64,
    /// Calls that ended in it.
    pub calls: u64,
    /// Those that failed.
    pub errors: u64,
    /// Those of them that failed through no fault of their callers, by code and blame.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub faults: BTreeMap<String, u64>,
    /// The duration that 99 of 100 did not exceed, in seconds.
    pub p99: f64,
}

impl Counts {
    fn of(durations: &Distribution) -> Self {
        let filled = durations.buckets.iter().rposition(|count| *count > 0);
        let buckets = durations.buckets.iter();
        Self {
            durations: buckets
                .take(filled.map_or(0, |last| last + 1))
                .copied()
                .collect(),
            seconds: durations.sum.as_secs_f64(),
            errors: BTreeMap::new(),
        }
    }

    pub(super) fn of_stats(stats: &Stats) -> Self {
        let mut counts = Self::of(&stats.durations());
        for (found, count) in stats.error_counts() {
            counts.errors.insert(kind(found), count);
        }
        counts
    }

    /// Of all functions together.
    pub(super) fn sum<'s>(all: impl Iterator<Item = &'s Stats>) -> Self {
        let (mut durations, mut errors) = (Distribution::default(), BTreeMap::new());
        for stats in all {
            durations.add(&stats.durations());
            for (kind, count) in Self::of_stats(stats).errors {
                *errors.entry(kind).or_default() += count;
            }
        }
        Self {
            errors,
            ..Self::of(&durations)
        }
    }

    /// What was counted since an earlier reading; nothing, where it counts from a later start, or a new version
    /// that was counted with it is gone.
    #[must_use]
    pub fn since(&self, earlier: Option<&Self>) -> Self {
        let Some(earlier) = earlier else {
            return self.clone();
        };
        if earlier.totals().0 > self.totals().0 {
            return Self::default();
        }
        let mut since = self.clone();
        for (count, before) in since.durations.iter_mut().zip(&earlier.durations) {
            *count = count.saturating_sub(*before);
        }
        for (kind, count) in &mut since.errors {
            *count = count.saturating_sub(earlier.errors.get(kind).copied().unwrap_or_default());
        }
        since.seconds -= earlier.seconds;
        since
    }

    /// Adds what another host has counted.
    pub fn add(&mut self, other: &Self) {
        let length = self.durations.len().max(other.durations.len());
        self.durations.resize(length, 0);
        for (sum, count) in self.durations.iter_mut().zip(&other.durations) {
            *sum += count;
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.seconds += other.seconds;
    }

    /// All of them, and those that failed.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        (self.durations.iter().sum(), self.errors.values().sum())
    }
}

/// Code and blame of an error as one text, such as `500 guest`.
pub(super) fn kind((code, blame): (Code, Blame)) -> String {
    format!("{} {}", code.status(), blame.as_str())
}

/// Who answers a function, or subscribes to it.
fn answered_by(deployment: &Deployment, caller: &ServiceSpec, import: &Import) -> Vec<String> {
    let interface = &import.id.interface;
    if import.is_event() {
        let wire = deployment.plan.event_wire(interface);
        return wire.map_or_else(Vec::new, |wire| wire.subscribers.keys().cloned().collect());
    }
    match caller.exporter_of(interface) {
        Some(chosen) => vec![chosen.to_owned()],
        None => exporters(deployment, &import.id),
    }
}

/// The services and pipelines that answer a function.
fn exporters(deployment: &Deployment, function: &FunctionId) -> Vec<String> {
    let plan = &deployment.plan;
    if let Some(pipeline) = plan.pipeline_of(function) {
        return vec![pipeline.name.clone()];
    }
    if let Some(wire) = plan.event_wire(&function.interface) {
        return wire.subscribers.keys().cloned().collect();
    }
    let serving = plan.serves.iter().filter(|(_, interfaces)| {
        let mut interfaces = interfaces.keys();
        interfaces.any(|interface| interface.compatible(&function.interface))
    });
    serving.map(|(service, _)| service.clone()).collect()
}

pub(super) fn of_breakers(breakers: &Breakers) -> BTreeMap<String, BreakerFigures> {
    let all = breakers.all().into_iter().map(|breaker| {
        let counts = breaker.counts();
        let figures = BreakerFigures {
            state: counts.state.as_str().to_owned(),
            opened: counts.opened,
            refused: counts.refused,
            fallbacks: counts.fallbacks,
        };
        (breaker.wire.to_string(), figures)
    });
    all.collect()
}

/// A service, and its new version where one has a share of its calls.
pub(super) fn both<'d>(
    deployment: &'d Deployment,
    service: &'d Service,
) -> impl Iterator<Item = &'d Service> + Clone {
    let candidate = deployment.candidates.get(&service.spec.name);
    iter::once(service).chain(candidate.map(|candidate| &*candidate.service))
}

pub(super) fn of_service(
    deployment: &Deployment,
    service: &Service,
    health: Health,
) -> ServiceFigures {
    // A new version that has a share of the calls is of the same service.
    let both = both(deployment, service);
    let (mut running, mut waiting, mut instances) = (0, 0, 0);
    for usage in both.clone().map(Service::usage) {
        running += usage.running;
        waiting += usage.waiting;
        instances += usage.instances;
    }
    let since = service.started.duration_since(UNIX_EPOCH);
    let imports = service.imports.iter().map(|import| ImportFigures {
        function: import.id.to_string(),
        event: import.is_event(),
        to: answered_by(deployment, &service.spec, import),
        calls: Counts::of_stats(&import.stats),
    });
    ServiceFigures {
        component: service.component.digest.to_string(),
        since_us: since.map_or(0, micros),
        running,
        waiting,
        concurrency: service.spec.limits.concurrency,
        instances,
        health: Some(health),
        calls: Counts::sum(both.flat_map(Service::counted).map(|(_, stats)| stats)),
        imports: imports.collect(),
    }
}

pub(super) fn usage(deployment: &Deployment, service: &Service, instances: u32) -> Usage {
    let limits = &service.spec.limits;
    let used = |used: u64, limit: u64| Used { used, limit };
    let mut usage = Usage {
        memory: used(0, limits.memory),
        concurrency: used(0, limits.concurrency.into()),
        queue: used(0, limits.queue.into()),
        instances: used(0, instances.into()),
    };
    for version in both(deployment, service) {
        let now = version.usage();
        let most = version.counts().most_memory.read();
        usage.memory.used = usage.memory.used.max(most);
        usage.concurrency.used += now.running as u64;
        usage.queue.used += now.waiting as u64;
        usage.instances.used += now.instances as u64;
    }
    usage
}

pub(super) fn of_pipelines(
    deployment: &Deployment,
    pipelines: Option<&Serving>,
) -> BTreeMap<String, PipelineFigures> {
    let figures = deployment.plan.pipelines.iter().map(|pipeline| {
        let stats = pipelines.and_then(|serving| serving.stats(&pipeline.name));
        let called = pipeline.steps.iter().filter_map(crate::plan::Step::call);
        let called = called.map(|call| &call.function);
        let mut to: Vec<_> = called
            .flat_map(|function| exporters(deployment, function))
            .collect();
        // A durable function is called as a pipeline, and its service runs it.
        let own = pipeline.durable.as_ref();
        to.extend(own.map(|durable| durable.service.clone()));
        to.sort();
        to.dedup();
        let figures = PipelineFigures {
            function: pipeline.function.to_string(),
            to,
            calls: stats
                .map(|stats| Counts::of_stats(&stats))
                .unwrap_or_default(),
        };
        (pipeline.name.clone(), figures)
    });
    figures.collect()
}

pub(super) fn of_routes(deployment: &Deployment, gateway: &Gateway) -> Vec<RouteFigures> {
    let mut routes: BTreeMap<String, (Distribution, BTreeMap<String, u64>)> = BTreeMap::new();
    for ((route, kind), durations) in gateway.counts.read() {
        let (sum, errors) = routes
            .entry(format!("{} {route}", kind.method))
            .or_default();
        sum.add(&durations);
        if kind.status >= 500 {
            *errors.entry(kind.status.to_string()).or_default() += durations.count();
        }
    }
    let figures = routes.into_iter().map(|(route, (durations, errors))| {
        let planned = deployment.plan.routes.iter();
        let mut planned = planned.filter(|planned| planned.route.label() == route);
        let (_, path) = route.split_once(' ').unwrap_or_default();
        let mut http = deployment.plan.http.iter();
        let http = http.find(|http| http.route.path == path);
        RouteFigures {
            to: match (planned.next(), http) {
                (Some(planned), _) => exporters(deployment, &planned.function),
                (None, Some(http)) => vec![http.service.clone()],
                (None, None) => Vec::new(),
            },
            calls: Counts {
                errors,
                ..Counts::of(&durations)
            },
            route,
        }
    });
    figures.collect()
}

/// What the manifest says of a service, with the names of its configuration and not the values, which may
/// be secrets.
pub(super) fn manifest(spec: &ServiceSpec) -> serde_json::Value {
    let names = |of: &BTreeMap<String, String>| of.keys().cloned().collect::<Vec<_>>();
    json!({
        "limits": spec.limits,
        "reuse": spec.reuse,
        "grants": spec.grants,
        "config": names(&spec.config),
        "env": names(&spec.env),
    })
}
