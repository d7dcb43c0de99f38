//! What services have done, as they say themselves by discovery, and how they fare, as their hosts say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::join_all;

use super::AllFigures;
use crate::insight::{self, Health};
use crate::micro::{APP, HOST, Verb};
use crate::nats::{Link, PublishError, ask_services};

/// Time for services to answer.
const ANSWER: Duration = Duration::from_millis(400);

/// What a service has done on a host since it started there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Calls, events and messages.
    pub calls: u64,
    /// Those among them that failed.
    pub errors: u64,
    /// How it fares, once that was asked; a host of an earlier version does not say.
    pub health: Option<Health>,
}

/// The id under which a host of a fleet runs an app. No name of either has a `_`.
#[must_use]
pub fn host_id(host: &str, app: &str) -> String {
    format!("{host}_{app}")
}

/// The figures of all services, by the id of their host, app and service.
///
/// # Errors
///
/// The connection is closed.
pub async fn figures(link: &Link) -> Result<AllFigures, PublishError> {
    let mut found: AllFigures = BTreeMap::new();
    for answer in ask_services(link, Verb::Stats, ANSWER).await? {
        let of = |key: &str| answer.metadata.get(key).cloned();
        let (Some(host), Some(app)) = (of(HOST), of(APP)) else {
            continue;
        };
        let endpoints = answer.endpoints.into_iter().flatten();
        let stats = endpoints.filter_map(|endpoint| endpoint.stats);
        let sum = stats.fold(Figures::default(), |sum, stats| Figures {
            calls: sum.calls + stats.num_requests,
            errors: sum.errors + stats.num_errors,
            health: None,
        });
        // A service has an answer for each of its versions.
        let all = found.entry((host, app, answer.name)).or_default();
        all.calls += sum.calls;
        all.errors += sum.errors;
    }
    Ok(found)
}

/// The apps that hosts run.
///
/// # Errors
///
/// The connection is closed.
pub async fn running_apps(link: &Link) -> Result<BTreeSet<String>, PublishError> {
    let counted = figures(link).await?;
    Ok(counted.into_keys().map(|(_, app, _)| app).collect())
}

/// Adds how services fare. A login that may not ask, as that of a deployer, is not told.
pub async fn add_health(link: &Link, found: &mut AllFigures) {
    let apps: BTreeSet<_> = found.keys().map(|(_, app, _)| app.clone()).collect();
    let asked = apps.iter().map(|app| insight::figures(link, app));
    for (app, hosts) in apps.iter().zip(join_all(asked).await) {
        for host in hosts.unwrap_or_default() {
            for (service, figures) in host.services {
                let of = (host.host.clone(), app.clone(), service);
                if let Some(known) = found.get_mut(&of) {
                    known.health = figures.health;
                }
            }
        }
    }
}
