//! Figures of services, and traces, of all hosts of the app.

use futures_util::future::join;
use http::StatusCode;
use serde_json::json as value;

use super::routes::AdminRequest;
use super::{Admin, Answer, Refusal, json, to_json};
use crate::interface::is_label;
use crate::telemetry::BOUNDS;

impl Admin {
    pub(super) async fn list_services(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        let (hosts, consumers) = join(self.insight.all_figures(&self.link), self.consumers()).await;
        let body = value!({
            "app": self.insight.app, "bounds": BOUNDS, "hosts": hosts, "consumers": *consumers,
        });
        Ok(json(StatusCode::OK, to_json(&body)))
    }

    pub(super) async fn show_service(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        let missing = || {
            let why = "no host runs a service of this name";
            Err(Refusal::caller(StatusCode::NOT_FOUND, why))
        };
        if !is_label(asked.id) {
            return missing();
        }
        let hosts = self.insight.all_of_service(&self.link, asked.id);
        let (hosts, consumers) = join(hosts, self.consumers()).await;
        if hosts.is_empty() {
            return missing();
        }
        let own = consumers.iter().filter(|one| one.service == asked.id);
        let own: Vec<_> = own.collect();
        let body = value!({
            "service": asked.id, "bounds": BOUNDS, "hosts": hosts, "consumers": own,
        });
        Ok(json(StatusCode::OK, to_json(&body)))
    }

    pub(super) async fn list_traces(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        let query = asked.query.only(&["service", "errors", "limit"])?;
        let (errors, limit) = (query.flag("errors")?, query.limit()?);
        let service = query.text("service");
        let mut traces = self.insight.all_traces(&self.link).await;
        traces.retain(|trace| {
            let of_service = |name| trace.services.iter().any(|service| service == name);
            service.is_none_or(of_service) && (!errors || trace.error.is_some())
        });
        traces.truncate(limit);
        Ok(json(StatusCode::OK, to_json(&value!({ "traces": traces }))))
    }

    pub(super) async fn show_trace(&self, asked: AdminRequest<'_>) -> Result<Answer, Refusal> {
        asked.query.only(&[])?;
        let missing = || {
            let why = "no host has spans of this trace; the last 4096 spans of each are kept, and those of the last failures";
            Err(Refusal::caller(StatusCode::NOT_FOUND, why))
        };
        let is_id = asked.id.len() == 32 && asked.id.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_id {
            return missing();
        }
        let id = asked.id.to_ascii_lowercase();
        let hosts = self.insight.all_of_trace(&self.link, &id).await;
        if hosts.is_empty() {
            return missing();
        }
        let body = value!({ "trace": id, "hosts": hosts });
        Ok(json(StatusCode::OK, to_json(&body)))
    }
}
