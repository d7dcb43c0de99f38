//! Drains of hosts, as operators ask for them.

use http::StatusCode;
use serde_json::json;

use super::orders::{Orders, conflict};
use super::refused;
use crate::admin::query::Query;
use crate::fleet::{DrainRecord, FORMAT, Lack, is_host_name, placement_of};
use crate::gateway::answer::{Answer, Refusal, json as answer_json, to_json};

impl Orders<'_> {
    pub(super) async fn drain(&self, host: &str, query: &Query<'_>) -> Result<Answer, Refusal> {
        let asked = query.only(&["force", "message"])?;
        let (force, signed) = (asked.flag("force")?, self.signed(asked.text("message"))?);
        let store = &self.shared.store;
        let hosts = store.hosts().await.map_err(refused)?;
        if !hosts.iter().any(|record| record.name == host) {
            return Err(no_host());
        }
        if !force {
            let apps = store.specified(None).await.map_err(refused)?;
            let mut others = hosts.clone();
            others.retain(|record| record.name != host);
            let (before, after) = (placement_of(&apps, &hosts), placement_of(&apps, &others));
            let runs = |(app, service, _): &(&str, &str, &Lack)| {
                let placed = before.of(app, service);
                placed.is_some_and(|placed| !placed.hosts.is_empty())
            };
            let stranded = after.unplaced().filter(runs);
            let stranded: Vec<_> = stranded
                .map(|(app, service, lack)| format!("{app}/{service}: {lack}"))
                .collect();
            if !stranded.is_empty() {
                return Err(conflict(
                    "without this host these run nowhere (`force=true` drains it all the same)",
                    &stranded,
                ));
            }
        }
        let record = DrainRecord {
            format: FORMAT,
            host: host.to_owned(),
            author: signed.author,
            at: signed.at,
            message: signed.message,
        };
        store.drain(&record).await.map_err(refused)?;
        let body = json!({ "host": host, "drained": true });
        Ok(answer_json(StatusCode::ACCEPTED, to_json(&body)))
    }

    pub(super) async fn uncordon(&self, host: &str, query: &Query<'_>) -> Result<Answer, Refusal> {
        query.only(&[])?;
        let store = &self.shared.store;
        let hosts = store.hosts().await.map_err(refused)?;
        // No other text can be a name, and some are no keys.
        let was_drained = is_host_name(host) && store.undrain(host).await.map_err(refused)?;
        if !was_drained && !hosts.iter().any(|record| record.name == host) {
            return Err(no_host());
        }
        let body = json!({ "host": host, "drained": false, "wasDrained": was_drained });
        Ok(answer_json(StatusCode::ACCEPTED, to_json(&body)))
    }
}

fn no_host() -> Refusal {
    Refusal::caller(
        StatusCode::NOT_FOUND,
        "no host of this name is alive; `/hosts` lists them",
    )
}
