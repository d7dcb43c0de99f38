//! The routes of a node's admin address, for its index and as OpenAPI: those of the node itself, and below
//! `/apps/{app}` those of an app's own admin address, as its document describes them.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::admin::OPENAPI;
use crate::gateway::answer::to_json;

/// A route of the node itself.
pub(super) struct Described {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    id: &'static str,
    summary: &'static str,
    /// Name, type and meaning of what the query may have; a `!` stands before the name of what it has to have.
    query: &'static [(&'static str, &'static str, &'static str)],
    body: Content,
    answer: &'static str,
}

/// What a request has in its body.
enum Content {
    Nothing,
    Component,
    Form,
}

const MESSAGE: (&str, &str, &str) = (
    "message",
    "string",
    "Why, for the history; up to 1024 bytes",
);
const FORCE: (&str, &str, &str) = (
    "force",
    "boolean",
    "Do it although that is refused otherwise; the history says so",
);
const DEPLOY: [(&str, &str, &str); 4] = [
    (
        "dry-run",
        "boolean",
        "Only say what would change, and what would be refused",
    ),
    FORCE,
    (
        "at-once",
        "boolean",
        "Give new versions all calls at once, whatever their `rollout` says",
    ),
    MESSAGE,
];

/// Writes the rows of the table.
macro_rules! described {
    ($($method:ident $path:literal $id:ident $summary:literal $query:expr, $body:ident, $answer:literal;)*) => {
        [$(Described {
            method: stringify!($method),
            path: $path,
            id: stringify!($id),
            summary: $summary,
            query: $query,
            body: Content::$body,
            answer: $answer,
        }),*]
    };
}

pub(super) static ROUTES: [Described; 15] = described![
    GET "/" hostIndex "The host and its routes; for a browser, the page" &[], Nothing, "Where this is.";
    GET "/healthz" hostHealthz "Whether the process is there" &[], Nothing, "It is.";
    GET "/readyz" hostReadyz "Whether the fleet sees the host and it has brought up what it is to run" &[], Nothing, "It has.";
    GET "/metrics" hostMetrics "Metrics of the host and all its apps, in the text format of Prometheus" &[], Nothing, "The metrics.";
    GET "/hosts" listHosts "The hosts of the fleet, as `wasmbay hosts` has them" &[], Nothing, "The hosts.";
    POST "/hosts/{host}/drain" drainHost "Has a host run nothing and stay, as `wasmbay drain` does" &[FORCE, MESSAGE], Nothing, "It is marked; `/hosts` says how far it is.";
    POST "/hosts/{host}/uncordon" uncordonHost "Has a drained host take services again, as `wasmbay uncordon` does" &[], Nothing, "It is not marked any more.";
    GET "/apps" listApps "The apps of the fleet and how far they are, as `wasmbay ps` has them" &[], Nothing, "The apps.";
    GET "/apps/{app}" showApp "An app and how far it is" &[], Nothing, "The app.";
    GET "/apps/{app}/history" showHistory "The revisions of an app, as `wasmbay history` has them" &[], Nothing, "The revisions, the oldest first.";
    POST "/apps/{app}/deploy" deployApp "Deploys an app, as `wasmbay deploy` does; a service without a component keeps the one that is deployed" &DEPLOY, Form, "The revision is written; `/apps/{app}` says how far it is. 200 with `dry-run`, and where nothing changes.";
    POST "/apps/{app}/deploy/{service}" deployService "Deploys a component for one service of an app that is deployed" &DEPLOY, Component, "The revision is written. 200 with `dry-run`, and where nothing changes.";
    POST "/apps/{app}/scale" scaleService "Runs a service on more or fewer hosts, as `wasmbay scale` does" &[("!service", "string", "The service"), ("!replicas", "string", "The number of hosts, or `all`"), MESSAGE], Nothing, "The revision is written. 200 where nothing changes.";
    POST "/apps/{app}/rollback" rollBack "Goes back to an earlier revision, as `wasmbay rollback` does" &[("to", "integer", "The revision; otherwise the last that is another than the one of now"), FORCE, MESSAGE], Nothing, "The revision is written. 200 where nothing changes.";
    POST "/apps/{app}/undeploy" undeployApp "Stops an app on all hosts; its history stays" &[MESSAGE], Nothing, "The revision is written.";
];

/// The document, which says nothing of any app.
pub(super) static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| to_json(&document()));

fn document() -> Value {
    let mut document: Value = serde_json::from_str(OPENAPI).unwrap_or_default();
    let mut paths = Map::new();
    if let Some(Value::Object(of_app)) = document.get_mut("paths").map(Value::take) {
        for (path, mut item) in of_app {
            if let Some(item) = item.as_object_mut() {
                let known = item.get("parameters").and_then(Value::as_array);
                let mut parameters = known.cloned().unwrap_or_default();
                parameters.push(in_path("app"));
                item.insert("parameters".to_owned(), parameters.into());
            }
            paths.insert(format!("/apps/{{app}}{path}"), item);
        }
    }
    for route in &ROUTES {
        let names = route.path.split('/').filter_map(|segment| {
            segment
                .strip_prefix('{')
                .and_then(|segment| segment.strip_suffix('}'))
        });
        let names: Vec<_> = names.map(in_path).collect();
        let item = paths
            .entry(route.path)
            .or_insert_with(|| json!({ "parameters": names }));
        if let Some(item) = item.as_object_mut() {
            item.insert(route.method.to_ascii_lowercase(), route.operation());
        }
    }
    if let Some(document) = document.as_object_mut() {
        document.insert("paths".to_owned(), paths.into());
        document.insert("servers".to_owned(), json!([{ "url": "/" }]));
        let info = json!({
            "title": "wasmbay admin API of a host of a fleet",
            "version": "1",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "What operators of a fleet can see and do, at any of its hosts. Below `/apps/{app}/` it is what the host knows of an app that it runs.",
        });
        document.insert("info".to_owned(), info);
    }
    document
}

fn in_path(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
}

impl Described {
    fn operation(&self) -> Value {
        let query = self.query.iter().map(|(name, kind, meaning)| {
            let required = name.strip_prefix('!');
            json!({
                "name": required.unwrap_or(name),
                "in": "query",
                "required": required.is_some(),
                "description": meaning,
                // A flag is there, or not.
                "schema": match *kind {
                    "boolean" => json!({ "type": "string", "enum": ["true"] }),
                    kind => json!({ "type": kind }),
                },
            })
        });
        let (content, schema) = match self.path {
            "/metrics" => ("text/plain", "string"),
            _ => ("application/json", "object"),
        };
        let status = if self.method == "GET" { "200" } else { "202" };
        let mut operation = json!({
            "summary": self.summary,
            "operationId": self.id,
            "parameters": query.collect::<Vec<_>>(),
            "responses": {
                status: {
                    "description": self.answer,
                    "content": { content: { "schema": { "type": schema } } },
                },
                "default": { "$ref": "#/components/responses/Error" },
            },
        });
        let binary = json!({ "type": "string", "contentMediaType": "application/wasm" });
        let body = match self.body {
            Content::Nothing => None,
            Content::Component => Some(json!({ "application/wasm": { "schema": {} } })),
            Content::Form => Some(json!({ "multipart/form-data": { "schema": {
                "type": "object",
                "description": "The manifest first, then a part for each component, called like its service.",
                "required": ["manifest"],
                "properties": { "manifest": { "type": "string", "description": "As in `wasmbay.toml`" } },
                "additionalProperties": binary,
            } } })),
        };
        if let (Some(operation), Some(content)) = (operation.as_object_mut(), body) {
            operation.insert(
                "requestBody".to_owned(),
                json!({ "required": true, "content": content }),
            );
        }
        operation
    }
}
