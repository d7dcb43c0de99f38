//! What `up` prints when an app is ready.

use std::time::Duration;

use serde_json::json;
use wasmbay::host::Host;
use wasmbay::manifest::{PipelineSpec, Route, Target};
use wasmbay::runtime::Component;

use super::super::server::Server;
use super::NATS_DATA;
use crate::project::Workbench;
use crate::report::{self, STRONG, WEAK, table};

pub(super) struct Summary<'a> {
    pub(super) bench: &'a Workbench,
    pub(super) host: &'a Host,
    pub(super) server: &'a Server,
    pub(super) time: Duration,
}

impl Summary<'_> {
    pub(super) fn text(&self, watching: bool) -> String {
        let app = &self.bench.project.app;
        let mut text = format!(
            "{STRONG}{} is ready{STRONG:#} in {}\n\n",
            app.name,
            report::time(self.time)
        );
        text.push_str(&table(&self.services().map(row).collect::<Vec<_>>()));
        if !app.pipelines.is_empty() {
            text.push_str("\n\n");
            let pipelines = app.pipelines.iter().map(pipeline);
            text.push_str(&table(&pipelines.collect::<Vec<_>>()));
        }
        if !app.routes.is_empty() && self.host.gateway().is_some() {
            text.push_str("\n\n");
            text.push_str(&table(&app.routes.iter().map(route).collect::<Vec<_>>()));
        }
        let mut places = Vec::new();
        if let Some(url) = self.host.gateway_url() {
            places.push(vec!["http".to_owned(), url]);
        }
        if let Some(address) = self.host.admin() {
            places.push(vec!["admin".to_owned(), format!("http://{address}")]);
        }
        let managed = match self.server {
            Server::Managed(_) => {
                format!(" (its own, data in {NATS_DATA}, login in {NATS_DATA}/url)")
            }
            Server::Given(_) | Server::Joined(..) => String::new(),
        };
        places.push(vec![
            "nats".to_owned(),
            format!("{}{managed}", self.server.url()),
        ]);
        text.push_str(&format!("\n\n{}", table(&places)));
        let watched = if watching {
            "; what changes is swapped in"
        } else {
            ""
        };
        text.push_str(&format!("\n\n{WEAK}Ctrl-C stops{watched}{WEAK:#}"));
        text
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let services = self.services().map(|service| {
            json!({
                "name": service.name,
                "language": service.language,
                "digest": service.component.digest,
                "size": service.component.size,
                "exports": service.exports(),
            })
        });
        json!({
            "event": "ready",
            "app": self.bench.project.app.name,
            "pid": std::process::id(),
            "seconds": self.time.as_secs_f64(),
            "gateway": self.host.gateway_url(),
            "admin": self.host.admin().map(|address| format!("http://{address}")),
            "nats": self.server.url(),
            "natsUrlFile": self.server.url_file(),
            "services": services.collect::<Vec<_>>(),
        })
    }

    fn services(&self) -> impl Iterator<Item = Loaded<'_>> {
        let Workbench {
            project,
            components,
            ..
        } = self.bench;
        components.iter().map(|(name, component)| {
            let language = project
                .sources
                .get(name)
                .and_then(|source| source.language());
            let language = language.map(|language| language.to_string());
            Loaded {
                name,
                component,
                language,
            }
        })
    }
}

struct Loaded<'a> {
    name: &'a str,
    component: &'a Component,
    language: Option<String>,
}

impl Loaded<'_> {
    fn exports(&self) -> Vec<String> {
        let exports = self
            .component
            .exports
            .iter()
            .map(|export| export.id.to_string());
        let messages = self
            .component
            .messages
            .iter()
            .map(|m| m.interface.id.to_string());
        exports
            .chain(self.component.http.clone())
            .chain(messages)
            .collect()
    }
}

fn row(service: Loaded<'_>) -> Vec<String> {
    vec![
        service.name.to_owned(),
        service
            .language
            .clone()
            .unwrap_or_else(|| "file".to_owned()),
        report::size(service.component.size as u64),
        service.component.digest.short().to_owned(),
        service.exports().join(", "),
    ]
}

fn pipeline(pipeline: &PipelineSpec) -> Vec<String> {
    vec![
        pipeline.name.clone(),
        report::count(pipeline.steps.len(), "step"),
        pipeline.implements.to_string(),
    ]
}

fn route(route: &Route) -> Vec<String> {
    let (method, target) = match &route.target {
        Target::Function { function, .. } => (
            route.method.clone().unwrap_or_default(),
            function.to_string(),
        ),
        Target::Events { function, .. } => (
            route.method.clone().unwrap_or_default(),
            format!("events {function}"),
        ),
        Target::Http { service } => ("any".to_owned(), format!("service \"{service}\"")),
    };
    vec![method, route.path.clone(), target]
}
