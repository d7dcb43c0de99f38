//! What a gateway serves, as OpenAPI 3.1: its routes and RPC paths, with schemas of the JSON mapping. Pure.

mod schema;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::interface::FunctionId;
use crate::manifest::{App, Auth, Route};
use crate::plan::exposed::exposed;
use crate::plan::{Body, Description, Plan, PlannedEvents, PlannedRoute, docs_of};
use crate::shape::{Docs, Field, Shape, Signature, summary};
use schema::{described, object, schema, variant};

/// Statuses that a route's own errors may share with refusals, whose body is another.
const SHARED: [u16; 14] = [
    400, 401, 403, 404, 405, 408, 413, 415, 429, 500, 502, 503, 504, 508,
];

/// The schema of every refusal, which the gateway and its host answer in place of a service.
const REFUSAL: &str = "#/components/responses/Refusal";

/// The document of an app's gateway.
#[must_use]
pub fn document(app: &App, plan: &Plan, components: &BTreeMap<String, Description>) -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    let none = Docs::default();
    let docs = |function: &FunctionId, signature: &Signature| {
        docs_of(components, function, signature).unwrap_or(&none)
    };
    for planned in &plan.routes {
        let Some(method) = planned.route.method.as_deref() else {
            continue;
        };
        let mut operation = route(planned, plan, docs(&planned.function, &planned.signature));
        secure(&mut operation, &planned.route, app);
        let id = unique(&mut names, operation_id(&planned.function));
        operation.insert("operationId".to_owned(), id.into());
        let path = paths.entry(path_of(&planned.route)).or_default();
        path.insert(method.to_ascii_lowercase(), operation.into());
    }
    for followed in &plan.followed {
        let docs = docs(&followed.function, &followed.signature);
        let mut operation = events(followed, docs);
        secure(&mut operation, &followed.route, app);
        let id = unique(
            &mut names,
            format!("follow-{}", operation_id(&followed.function)),
        );
        operation.insert("operationId".to_owned(), id.into());
        let path = paths.entry(path_of(&followed.route)).or_default();
        path.insert("get".to_owned(), operation.into());
    }
    for (function, signature) in exposed(app, plan, components) {
        let mut operation = rpc(&function, &signature, plan, docs(&function, &signature));
        let id = unique(&mut names, format!("rpc-{}", operation_id(&function)));
        operation.insert("operationId".to_owned(), id.into());
        let FunctionId { interface, name } = &function;
        let path = paths.entry(format!("/rpc/{interface}/{name}")).or_default();
        path.insert("post".to_owned(), operation.into());
    }
    json!({
        "openapi": "3.1.1",
        "info": { "title": app.name, "version": "1" },
        "servers": [{ "url": "/" }],
        "security": security(usual(app)),
        "paths": paths,
        "components": {
            "securitySchemes": schemes(app),
            "responses": { "Refusal": {
                "description": "No result: the arguments do not decode (400), who asks is unknown (401) or may not (403), the service failed (500), what it needs did (502), \
                                it is busy or was asked too often (429), away (503) or too slow (504).",
                "content": { "application/json": { "schema": refusal() } },
            } },
        },
    })
}

/// What is asked of clients where no route says otherwise.
fn usual(app: &App) -> (Auth, &[String]) {
    let auth = app.gateway.auth.as_ref();
    auth.map(|auth| (auth.default, &*auth.scopes))
        .unwrap_or_default()
}

/// How clients can say who they are.
fn schemes(app: &App) -> Value {
    let mut schemes = Map::new();
    if let Some(auth) = &app.gateway.auth {
        if auth.jwt.is_some() {
            let bearer = json!({ "type": "http", "scheme": "bearer", "bearerFormat": "JWT" });
            schemes.insert("token".to_owned(), bearer);
        }
        if auth.has_keys() {
            let key = json!({ "type": "apiKey", "in": "header", "name": "X-Api-Key" });
            schemes.insert("key".to_owned(), key);
        }
    }
    let asks = |auth: Auth| auth == Auth::Cert;
    let mut routes = app.routes.iter().filter_map(|route| route.auth);
    if asks(usual(app).0) || routes.any(asks) {
        schemes.insert("certificate".to_owned(), json!({ "type": "mutualTLS" }));
    }
    schemes.into()
}

fn security((auth, scopes): (Auth, &[String])) -> Value {
    let schemes = [
        ("token", auth.takes_jwt()),
        ("key", auth.takes_key()),
        ("certificate", auth == Auth::Cert),
    ];
    let asked = schemes.into_iter().filter(|(_, takes)| *takes);
    asked.map(|(name, _)| json!({ name: scopes })).collect()
}

/// Says what a route asks for, where that is not what everything does.
fn secure(operation: &mut Map<String, Value>, route: &Route, app: &App) {
    let usual = usual(app);
    let asked = (route.auth.unwrap_or(usual.0), &*route.scopes);
    if route.asks_itself() && asked != usual {
        operation.insert("security".to_owned(), security(asked));
    }
}

fn refusal() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": { "error": {
            "type": "object",
            "required": ["code", "message", "blame"],
            "properties": {
                "code": { "type": "integer" },
                "message": { "type": "string" },
                "blame": { "enum": ["caller", "guest", "host", "network"] },
                "run": { "type": "string" },
            },
        } },
    })
}

/// `place` of `shop:orders/orders` is `orders-place`.
fn operation_id(function: &FunctionId) -> String {
    format!("{}-{}", function.interface.name, function.name)
}

fn unique(names: &mut BTreeSet<String>, name: String) -> String {
    let mut found = name.clone();
    let mut number = 2;
    while !names.insert(found.clone()) {
        found = format!("{name}-{number}");
        number += 1;
    }
    found
}

/// The path as OpenAPI writes it, which has no parameter for several segments.
fn path_of(route: &Route) -> String {
    route.path.replace("{*", "{")
}

fn route(planned: &PlannedRoute, plan: &Plan, docs: &Docs) -> Map<String, Value> {
    let PlannedRoute {
        signature,
        bindings,
        function,
        ..
    } = planned;
    let param = |index: &usize| signature.params.get(*index);
    let mut parameters = Vec::new();
    for (name, index) in &bindings.path {
        let shape = param(index).map(|param| schema(&param.shape, docs));
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": shape }));
    }
    for (name, index) in &bindings.query {
        let Some(field) = param(index) else {
            continue;
        };
        let (required, shape) = match &field.shape {
            Shape::Option(some) => (false, schema(some, docs)),
            list @ Shape::List(_) => (false, schema(list, docs)),
            shape => (true, schema(shape, docs)),
        };
        parameters
            .push(json!({ "name": name, "in": "query", "required": required, "schema": shape }));
    }
    let mut operation = Map::from_iter([
        ("tags".to_owned(), json!([function.interface.name])),
        (
            "responses".to_owned(),
            responses(planned, plan, docs).into(),
        ),
    ]);
    operation.extend(described_function(function, docs));
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), parameters.into());
    }
    let body = match &bindings.body {
        Body::None => None,
        Body::Whole(index) => param(index).map(|param| {
            let required = !matches!(param.shape, Shape::Option(_));
            (schema(&param.shape, docs), required)
        }),
        Body::Object(indices) => {
            let fields: Vec<_> = indices
                .iter()
                .filter_map(|index| param(index).cloned())
                .collect();
            Some((object(&fields, None, docs), needs_some(&fields)))
        }
    };
    if let Some((schema, required)) = body {
        operation.insert("requestBody".to_owned(), content(&schema, required));
    }
    operation
}

/// What is said of a function; its name, where nothing is.
fn described_function(function: &FunctionId, docs: &Docs) -> Vec<(String, Value)> {
    match docs.functions.get(&function.name) {
        None => vec![("summary".to_owned(), function.to_string().into())],
        Some(text) => vec![
            ("summary".to_owned(), summary(text).into()),
            ("description".to_owned(), text.as_str().into()),
        ],
    }
}

/// A route that clients follow. What an event has is in its `data`, which OpenAPI 3.1 cannot say.
fn events(followed: &PlannedEvents, docs: &Docs) -> Map<String, Value> {
    let params = followed.route.path_params();
    let text = json!({ "type": "string" });
    let parameters = params
        .iter()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": text }));
    let last =
        json!({ "name": "Last-Event-ID", "in": "header", "required": false, "schema": text });
    let parameters: Vec<_> = parameters.chain([last]).collect();
    let function = &followed.function;
    let mut operation = Map::from_iter([
        ("tags".to_owned(), json!([function.interface.name])),
        ("parameters".to_owned(), parameters.into()),
        (
            "responses".to_owned(),
            json!({
                "200": {
                    "description": "Events as they come.",
                    "content": { "text/event-stream": { "schema": text } },
                },
                "default": { "$ref": REFUSAL },
            }),
        ),
    ]);
    operation.extend(described_function(function, docs));
    operation.insert("summary".to_owned(), format!("events {function}").into());
    operation
}

/// Whether a body has to have something in it.
fn needs_some(fields: &[Field]) -> bool {
    fields
        .iter()
        .any(|field| !matches!(field.shape, Shape::Option(_)))
}

fn content(schema: &Value, required: bool) -> Value {
    json!({ "required": required, "content": { "application/json": { "schema": schema } } })
}

fn responses(planned: &PlannedRoute, plan: &Plan, docs: &Docs) -> Map<String, Value> {
    let mut responses = Map::new();
    let ok = match &planned.signature.result {
        None | Some(Shape::Result { ok: None, .. }) => None,
        Some(Shape::Result { ok: Some(ok), .. }) => Some(schema(ok, docs)),
        Some(shape) => Some(schema(shape, docs)),
    };
    let mut result = answer("The result.", ok);
    if gives_stream(&planned.signature)
        && let Some(content) = result.get_mut("content")
    {
        content["text/event-stream"] = json!({ "schema": { "type": "string" } });
    }
    responses.insert(planned.status.to_string(), result);
    if let Some(Shape::Result { err, .. }) = &planned.signature.result {
        for (status, mut shapes) in errors(planned, err.as_deref(), docs) {
            if SHARED.contains(&status) {
                shapes.push(refusal());
            }
            let one = match shapes.as_slice() {
                [] => None,
                [only] => Some(only.clone()),
                several => Some(json!({ "oneOf": several })),
            };
            let known = responses.remove(&status.to_string());
            // A case may have the status of a result.
            let merged = known.map_or_else(
                || answer("The function's own error.", one.clone()),
                |_| answer("The result, or the function's own error.", None),
            );
            responses.insert(status.to_string(), merged);
        }
    }
    if plan.pipeline_of(&planned.function).is_some() {
        let accepted = responses.entry("202");
        accepted.or_insert_with(goes_on);
    }
    responses.insert("default".to_owned(), json!({ "$ref": REFUSAL }));
    responses
}

/// Whether a client can have the items of the result as events.
fn gives_stream(signature: &Signature) -> bool {
    match &signature.result {
        Some(Shape::Result { ok: Some(ok), .. }) => matches!(**ok, Shape::Stream(_)),
        Some(shape) => matches!(shape, Shape::Stream(_)),
        None => false,
    }
}

/// A run that takes longer than its request may.
fn goes_on() -> Value {
    let run = json!({
        "type": "object",
        "required": ["run"],
        "properties": { "run": { "type": "string" } },
    });
    answer("It goes on as a run, whose id this is.", Some(run))
}

fn answer(description: &str, schema: Option<Value>) -> Value {
    match schema {
        Some(schema) => json!({
            "description": description,
            "content": { "application/json": { "schema": schema } },
        }),
        None => json!({ "description": description }),
    }
}

/// The schemas of a function's errors by the status that the route answers with.
fn errors(planned: &PlannedRoute, err: Option<&Shape>, docs: &Docs) -> BTreeMap<u16, Vec<Value>> {
    let known = err.and_then(|err| docs.of(err));
    let mut errors: BTreeMap<u16, Vec<Value>> = BTreeMap::new();
    let mut add = |status: u16, schema: Option<Value>| {
        let schemas = errors.entry(status).or_default();
        schemas.extend(schema);
    };
    match err {
        None => add(planned.error_status(None), None),
        Some(Shape::Variant(cases)) => {
            for case in cases {
                let status = planned.error_status(Some(&case.name));
                let one = variant(std::slice::from_ref(case), known, docs);
                add(status, Some(one));
            }
        }
        Some(Shape::Enum(cases)) => {
            for case in cases {
                let text = known.and_then(|known| known.member(case));
                let one = described(json!({ "const": case }), text);
                add(planned.error_status(Some(case)), Some(one));
            }
        }
        Some(shape) => add(planned.error_status(None), Some(schema(shape, docs))),
    }
    errors
}

fn rpc(
    function: &FunctionId,
    signature: &Signature,
    plan: &Plan,
    docs: &Docs,
) -> Map<String, Value> {
    let is_event = plan.event_wire(&function.interface).is_some();
    let mut responses = Map::new();
    let (status, result) = match &signature.result {
        _ if is_event => ("202", None),
        None => ("204", None),
        Some(shape) => ("200", Some(schema(shape, docs))),
    };
    responses.insert(status.to_owned(), answer("The result.", result));
    if plan.pipeline_of(function).is_some() {
        responses.insert("202".to_owned(), goes_on());
    }
    responses.insert("default".to_owned(), json!({ "$ref": REFUSAL }));
    let mut operation = Map::from_iter([
        ("tags".to_owned(), json!(["rpc"])),
        ("responses".to_owned(), responses.into()),
    ]);
    operation.extend(described_function(function, docs));
    if !signature.params.is_empty() {
        let body = content(
            &object(&signature.params, None, docs),
            needs_some(&signature.params),
        );
        operation.insert("requestBody".to_owned(), body);
    }
    operation
}
