//! What people and scripts are shown of a fleet, as JSON: the same by the command line and by the admin
//! address of a host.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::insight::Health;

use super::{
    Figures, HostRecord, Placement, Progress, ReplicaState, Report, Revision, Rolling, changes,
    host_id, show_outcome, show_rolling,
};

/// Figures by the id of a host, app and service.
pub type AllFigures = BTreeMap<(String, String, String), Figures>;

/// The figures of a service, of all hosts or of one.
#[must_use]
pub fn sum(figures: &AllFigures, app: &str, service: &str, host: Option<&str>) -> Figures {
    let host = host.map(|host| host_id(host, app));
    let of = figures.iter().filter(|((on, of, name), _)| {
        of == app && name == service && host.as_ref().is_none_or(|host| host == on)
    });
    of.fold(Figures::default(), |sum, (_, one)| Figures {
        calls: sum.calls + one.calls,
        errors: sum.errors + one.errors,
        health: Health::of_all(sum.health.iter().chain(&one.health)),
    })
}

/// The services on a host.
#[must_use]
pub fn services_on(host: &HostRecord, reports: &[Report]) -> usize {
    let own = reports
        .iter()
        .filter(|report| report.host == host.name && report.id == host.id);
    own.map(|report| report.services.len()).sum()
}

/// The hosts of a fleet.
#[must_use]
pub fn show_hosts(hosts: &[HostRecord], placement: &Placement, reports: &[Report]) -> Value {
    let hosts: Vec<_> = hosts
        .iter()
        .map(|host| {
            let services = services_on(host, reports);
            json!({
                "name": host.name,
                "state": host.state(services),
                "services": services,
                "gateway": host.gateway,
                "reserved": placement.reserved(&host.name),
                "capacity": host.capacity,
                "labels": host.labels,
                "version": host.version,
                "since": host.started,
            })
        })
        .collect();
    json!({ "hosts": hosts })
}

/// An app, and how far it is.
#[must_use]
pub fn show_app(
    app: &str,
    revision: &Revision,
    progress: &Progress,
    figures: &AllFigures,
    rolling: Option<&Rolling>,
) -> Value {
    let mut replicas = show_replicas(progress);
    for (replica, shown) in progress.replicas.iter().zip(&mut replicas) {
        let Figures {
            calls,
            errors,
            health,
        } = sum(figures, app, &replica.service, Some(&replica.host));
        if let Some(shown) = shown.as_object_mut() {
            shown.insert("calls".to_owned(), calls.into());
            shown.insert("errors".to_owned(), errors.into());
            shown.insert("health".to_owned(), json!(health));
        }
    }
    json!({
        "app": app,
        "revision": revision.number,
        "deployed": revision.specification.is_some(),
        "serves": progress.is_done(),
        "replicas": replicas,
        "lacks": show_lacks(progress),
        "leaving": progress.leaving,
        "rollout": show_rolling(revision, rolling),
        "outcome": show_outcome(revision.outcome.as_ref()),
    })
}

/// The replicas of an app.
#[must_use]
pub fn show_replicas(progress: &Progress) -> Vec<Value> {
    let replicas = progress.replicas.iter();
    replicas
        .map(|replica| {
            let (since, error) = match &replica.state {
                ReplicaState::Serving(since) => (Some(since), None),
                ReplicaState::Failed(error) => (None, Some(error)),
                ReplicaState::Waiting | ReplicaState::Coming(_) => (None, None),
            };
            json!({
                "service": replica.service,
                "host": replica.host,
                "state": replica.state.as_str(),
                "since": since,
                "error": error,
            })
        })
        .collect()
}

/// Why services of an app run on fewer hosts than they should.
#[must_use]
pub fn show_lacks(progress: &Progress) -> Value {
    let lacks = progress.lacks.iter();
    lacks
        .map(|(service, lack)| (service.clone(), Value::from(lack.to_string())))
        .collect::<Map<_, _>>()
        .into()
}

/// What each of these revisions changed, the oldest first; nothing where the one before it is not kept.
#[must_use]
pub fn changes_of(history: &[Revision]) -> Vec<Option<Vec<String>>> {
    let mut before: Option<&Revision> = None;
    let mut all = Vec::new();
    for revision in history {
        let is_known = before.is_some() || revision.number == 1;
        let from = before.and_then(|before| before.specification.as_ref());
        let found = changes(from, revision.asked());
        all.push(is_known.then(|| found.iter().map(ToString::to_string).collect()));
        before = Some(revision);
    }
    all
}

/// The revisions of an app, the oldest first.
#[must_use]
pub fn show_history(app: &str, history: &[Revision]) -> Value {
    let revisions = history.iter().zip(changes_of(history));
    let revisions: Vec<_> = revisions
        .map(|(revision, changes)| {
            let specification = revision.specification.as_ref();
            json!({
                "revision": revision.number,
                "verb": revision.verb,
                "author": revision.author,
                "at": revision.at,
                "source": revision.source,
                "message": revision.message,
                "forced": revision.forced,
                "outcome": show_outcome(revision.outcome.as_ref()),
                "changes": changes,
                "components": specification.map(|specification| &specification.components),
            })
        })
        .collect();
    json!({ "app": app, "revisions": revisions })
}
