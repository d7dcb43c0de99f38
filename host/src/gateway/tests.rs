//! Routes, arguments and answers without a connection.

mod answers;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use http::{Method, StatusCode};
use proptest::prelude::*;

use super::answer::{Answer, Refusal};
use super::rate::Limiters;
use super::route::{Destination, Table, Way, normalized};
use crate::deployment::Deployment;
use crate::json::{Limits, decode_arguments};
use crate::manifest::{GatewaySpec, Manifest, RpcPaths};
use crate::plan::{Description, Plan, plan};
use crate::shape::InterfaceDescription;

/// Plans an app whose one service exports these functions.
fn planned(routes: &str, functions: &[(&str, &str, &str)]) -> Plan {
    let text = format!(
        "name = \"app\"\n[service.all]\ncomponent = \"all.wasm\"\n[service.files]\ncomponent = \"files.wasm\"\n{routes}"
    );
    let read = Manifest::parse(Path::new("wasmbay.toml"), &text);
    let app = read.unwrap_or_else(|e| panic!("{e}")).app;
    let mut exports: Vec<InterfaceDescription> = Vec::new();
    for (interface, name, signature) in functions {
        let id = interface.parse().unwrap();
        let at = exports
            .iter()
            .position(|export| export.id == id)
            .unwrap_or_else(|| {
                exports.push(InterfaceDescription {
                    id,
                    functions: BTreeMap::new(),
                    types: BTreeMap::new(),
                });
                exports.len() - 1
            });
        exports[at]
            .functions
            .insert((*name).to_owned(), signature.parse().unwrap());
    }
    let all = Description {
        exports,
        ..Description::default()
    };
    let files = Description {
        http: true,
        ..Description::default()
    };
    let components = BTreeMap::from([("all".to_owned(), all), ("files".to_owned(), files)]);
    plan(&app, &components).unwrap_or_else(|errors| panic!("{errors:?}"))
}

/// The table of a plan whose services are not there.
fn table_of(plan: Plan) -> Table {
    let deployment = Deployment {
        plan,
        ..Deployment::default()
    };
    Table::new(
        "app",
        &GatewaySpec::default(),
        &deployment,
        &Limiters::default(),
    )
}

fn table(routes: &str, functions: &[(&str, &str, &str)]) -> Table {
    table_of(planned(routes, functions))
}

fn route(method: &str, path: &str, rest: &str) -> String {
    format!("[[route]]\nmethod = \"{method}\"\npath = \"{path}\"\n{rest}\n")
}

/// A table of one route to `a:b/c.f` with this signature.
fn one(method: &str, path: &str, rest: &str, signature: &str) -> Table {
    let rest = format!("call = \"a:b/c.f\"\n{rest}");
    table(
        &route(method, path, &rest),
        &[("a:b/c@1.0.0", "f", signature)],
    )
}

/// What a request becomes: a name for the target, with the path's parameters, or the refusal.
fn found(table: &Table, method: &str, path: &str) -> String {
    match table.find(
        &Method::from_bytes(method.as_bytes()).unwrap(),
        &normalized(path),
    ) {
        Destination::Healthz => "healthz".into(),
        Destination::Readyz => "readyz".into(),
        Destination::OpenApi => "openapi".into(),
        Destination::Explorer(file) => format!("{file:?}"),
        Destination::Rpc(rpc) => match &rpc.way {
            Way::Call(callee) => callee.subject.clone(),
            Way::Publish(_) => "event".into(),
        },
        Destination::Call(route, params) => {
            let params: Vec<_> = params.iter().map(|(k, v)| format!(" {k}={v}")).collect();
            format!("{}{}", route.planned.route.label(), params.concat())
        }
        Destination::Events(route, _) => format!("events {}", route.path),
        Destination::Http(route) => route.path.clone(),
        Destination::Refused(refusal) => {
            format!(
                "{} {}",
                refusal.status.as_u16(),
                allow_of(&refusal).unwrap_or(refusal.message)
            )
        }
    }
}

fn allow_of(refusal: &Refusal) -> Option<String> {
    let mut headers = refusal.headers.iter();
    let (_, value) = headers.find(|(name, _)| name == http::header::ALLOW)?;
    value.to_str().ok().map(str::to_owned)
}

/// The arguments of a request at a table's only route.
fn arguments(
    table: &Table,
    method: &str,
    target: &str,
    body: &(impl AsRef<[u8]> + ?Sized),
) -> Result<String, Refusal> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let path = normalized(path);
    let Destination::Call(route, params) = table.find(&method.parse().unwrap(), &path) else {
        panic!("no route");
    };
    let body = Bytes::copy_from_slice(body.as_ref());
    let arguments = route.arguments.arguments(&params, query, body)?;
    Ok(String::from_utf8(arguments.to_vec()).unwrap())
}

fn refused(
    table: &Table,
    method: &str,
    target: &str,
    body: &(impl AsRef<[u8]> + ?Sized),
) -> String {
    let refusal = arguments(table, method, target, body).unwrap_err();
    assert_eq!(refusal.status, StatusCode::BAD_REQUEST);
    refusal.message
}

fn answered(table: &Table, method: &str, path: &str, reply: &str) -> (u16, String) {
    let Destination::Call(route, _) = table.find(&method.parse().unwrap(), path) else {
        panic!("no route");
    };
    let reply = Bytes::copy_from_slice(reply.as_bytes());
    let answer = route
        .outcome
        .answer(&route.planned, reply)
        .unwrap_or_else(Refusal::answer);
    (answer.status().as_u16(), text(answer))
}

fn text(answer: Answer) -> String {
    use http_body_util::BodyExt;
    let body = futures_util::FutureExt::now_or_never(answer.into_body().collect());
    let body = body.unwrap().unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

const SHOP: &[(&str, &str, &str)] = &[
    (
        "shop:catalog/products@1.2.0",
        "get",
        "func(sku: string) -> result<u32, enum { unknown-sku }>",
    ),
    (
        "shop:catalog/products@1.2.0",
        "search",
        "func(tag: option<string>) -> list<string>",
    ),
    ("shop:catalog/products@1.2.0", "drop", "func(sku: string)"),
    ("old:api/one@1.0.0", "f", "func()"),
    ("old:api/one@2.0.0", "f", "func()"),
];

fn shop() -> Table {
    let routes = [
        route(
            "GET",
            "/products/{sku}",
            "call = \"shop:catalog/products.get\"",
        ),
        route(
            "DELETE",
            "/products/{sku}",
            "call = \"shop:catalog/products.drop\"",
        ),
        route(
            "GET",
            "/products",
            "call = \"shop:catalog/products.search\"",
        ),
        route(
            "GET",
            "/caf%c3%a9/{sku}",
            "call = \"shop:catalog/products.get\"",
        ),
        route(
            "HEAD",
            "/products",
            "call = \"shop:catalog/products.search\"",
        ),
        route(
            "GET",
            "/files/{*sku}",
            "call = \"shop:catalog/products.get\"",
        ),
    ];
    table(&routes.concat(), SHOP)
}

#[test]
fn a_request_finds_its_route() {
    let table = shop();
    for (method, path, expected) in [
        ("GET", "/products/lamp", "GET /products/{sku} sku=lamp"),
        (
            "DELETE",
            "/products/lamp",
            "DELETE /products/{sku} sku=lamp",
        ),
        ("GET", "/products", "GET /products"),
        // What is encoded stays within its segment until the parameter is decoded.
        ("GET", "/products/a%2Fb", "GET /products/{sku} sku=a%2Fb"),
        ("GET", "/files/a/b", "GET /files/{*sku} sku=a/b"),
        // One path in several spellings.
        ("GET", "/%70roducts/%6camp", "GET /products/{sku} sku=lamp"),
        ("GET", "/caf%C3%A9/lamp", "GET /caf%c3%a9/{sku} sku=lamp"),
        // HEAD, of its own or by GET's route.
        ("HEAD", "/products", "HEAD /products"),
        ("HEAD", "/products/lamp", "GET /products/{sku} sku=lamp"),
    ] {
        assert_eq!(found(&table, method, path), expected, "{method} {path}");
    }
}

#[test]
fn a_request_without_a_route_is_refused_with_the_reason() {
    let table = shop();
    for (method, path, expected) in [
        ("GET", "/nothing", "404 no route has this path"),
        ("GET", "/", "404 no route has this path"),
        ("GET", "/products/", "404 no route has this path"),
        ("GET", "/products/a/b", "404 no route has this path"),
        ("POST", "/products", "405 GET, HEAD"),
        ("PATCH", "/products/lamp", "405 GET, HEAD, DELETE"),
        ("PROPFIND", "/products/lamp", "405 GET, HEAD, DELETE"),
        ("POST", "/healthz", "405 GET, HEAD"),
        ("GET", "/rpc/a:b/c/d", "405 POST"),
    ] {
        assert_eq!(found(&table, method, path), expected, "{method} {path}");
    }
}

#[test]
fn the_gateways_own_paths_are_there_without_routes() {
    let table = table("", SHOP);
    assert_eq!(found(&table, "GET", "/healthz"), "healthz");
    assert_eq!(found(&table, "HEAD", "/readyz"), "readyz");
    assert_eq!(found(&table, "GET", "/health%7A"), "healthz");
}

#[test]
fn every_function_has_an_rpc_path() {
    let mut plan = planned("", SHOP);
    // As a route would require them: there are no services in this test that export them.
    let ids: Vec<_> = plan.serves["all"].keys().cloned().collect();
    plan.required.extend(
        ids.iter()
            .filter(|id| id.namespace == "old")
            .map(|id| id.function("f")),
    );
    let products = ids.iter().find(|id| id.package == "catalog").unwrap();
    plan.required.insert(products.function("get"));
    let table = table_of(plan);

    let get = "bay.app.shop.catalog.products.v1.get";
    for path in [
        "/rpc/shop:catalog/products/get",
        "/rpc/shop:catalog/products@1.2.0/get",
        "/rpc/shop:catalog/products@1.0.7/get",
        "/rpc/shop%3Acatalog/products%401.2.0/get",
    ] {
        assert_eq!(found(&table, "POST", path), get, "{path}");
    }
    assert_eq!(
        found(&table, "POST", "/rpc/old:api/one@2.1.0/f"),
        "bay.app.old.api.one.v2.f"
    );
    let none = "404 no such function";
    for (path, expected) in [
        (
            "/rpc/shop:catalog/products@2.0.0/get",
            "404 no compatible version is served; there is shop:catalog/products@1.2.0",
        ),
        (
            "/rpc/shop:catalog/products@x/get",
            "404 no compatible version is served; there is shop:catalog/products@1.2.0",
        ),
        (
            "/rpc/old:api/one/f",
            "404 say which version: old:api/one@1.0.0 and old:api/one@2.0.0",
        ),
        ("/rpc/", none),
        ("/rpc/shop:catalog/products", none),
        ("/rpc/shop:catalog/products/get/more", none),
        ("/rpc/shop:catalog/products/>", none),
        ("/rpc/%FF", none),
    ] {
        let found = found(&table, "POST", path);
        assert!(found.starts_with(expected), "{path}: {found}");
    }
}

#[test]
fn rpc_paths_are_for_the_interfaces_that_the_manifest_names() {
    let with = |rpc: RpcPaths| {
        let mut plan = planned("", SHOP);
        let ids = plan.serves["all"].clone();
        plan.required.extend(ids.keys().map(|id| id.function("f")));
        let deployment = Deployment {
            plan,
            ..Deployment::default()
        };
        Table::new(
            "app",
            &GatewaySpec {
                rpc,
                ..GatewaySpec::default()
            },
            &deployment,
            &Limiters::default(),
        )
    };
    let of = |ids: &[&str]| RpcPaths::Of(ids.iter().map(|id| id.parse().unwrap()).collect());
    let one = "bay.app.old.api.one.v2.f";
    assert_eq!(
        found(&with(RpcPaths::All), "POST", "/rpc/old:api/one@2.0.0/f"),
        one
    );
    let some = with(of(&["old:api/one@2.0.0"]));
    // Of the two versions one is left, so none has to be named.
    for path in ["/rpc/old:api/one@2.0.0/f", "/rpc/old:api/one/f"] {
        assert_eq!(found(&some, "POST", path), one);
    }
    for (table, path) in [
        (&some, "/rpc/old:api/one@1.0.0/f"),
        (&some, "/rpc/shop:catalog/products/f"),
        (&with(of(&[])), "/rpc/old:api/one@2.0.0/f"),
        (&with(RpcPaths::None), "/rpc/old:api/one@2.0.0/f"),
    ] {
        assert!(found(table, "POST", path).starts_with("404 "), "{path}");
    }
}

#[test]
fn what_is_wired_as_events_is_published() {
    let routes = route("POST", "/f", "call = \"a:b/c.f\"") + "[wire.\"a:b/c\"]\nmode = \"event\"\n";
    let table = table(&routes, &[("a:b/c@1.0.0", "f", "func(n: u32)")]);
    assert_eq!(found(&table, "POST", "/rpc/a:b/c/f"), "event");
    let Destination::Call(route, _) = table.find(&Method::POST, "/f") else {
        panic!("no route");
    };
    assert!(matches!(route.way, Way::Publish(_)));
    assert_eq!(route.planned.status, 202);
    assert!(table.external.is_empty());
}

#[test]
fn parameters_come_from_path_and_query() {
    let signature = "func(sku: string, max-count: option<u32>, tag: list<string>, exact: bool)";
    let table = one("GET", "/p/{sku}", "", signature);
    let ok = |target: &str| arguments(&table, "GET", target, "").unwrap();
    assert_eq!(
        ok("/p/a%2Fb%20%22c?exact=true&maxCount=7&tag=x&tag=y%26z&utm=1"),
        r#"{"sku":"a/b \"c","maxCount":7,"tag":["x","y&z"],"exact":true}"#
    );
    assert_eq!(
        ok("/p/7?exact=false"),
        r#"{"sku":"7","tag":[],"exact":false}"#
    );
    for spelling in ["max-count", "max_count", "maxCount"] {
        let target = format!("/p/a?exact=true&{spelling}=1");
        assert!(ok(&target).contains("\"maxCount\":1"), "{spelling}");
    }
    let bad = |target: &str| refused(&table, "GET", target, "");
    assert_eq!(
        bad("/p/a"),
        "query parameter \"exact\": it is missing (bool)"
    );
    assert_eq!(
        bad("/p/a?exact=true&max-count=1&maxCount=2"),
        "query parameter \"max-count\": it is given 2 times"
    );
    assert_eq!(
        bad("/p/a?exact=true&maxCount=-1"),
        "query parameter \"max-count\": expected u32 (0 to 4294967295), found -1"
    );
    assert_eq!(
        bad("/p/%FF?exact=true"),
        "path parameter \"sku\": its percent-encoding is not UTF-8"
    );
    for query in ["exact=true&tag=%ff", "exact=true&tag=a&tag=a+%C3%28"] {
        assert_eq!(
            bad(&format!("/p/a?{query}")),
            "query parameter \"tag\": its percent-encoding is not UTF-8"
        );
    }
    // What is no parameter is not looked at.
    assert_eq!(
        ok("/p/a?exact=true&&utm=%ff&%ff=1&tag=a+b%2Bc%&tag"),
        r#"{"sku":"a","tag":["a b+c%",""],"exact":true}"#
    );
}

#[test]
fn a_body_is_the_one_parameter_that_is_left() {
    let table = one("PUT", "/p/{id}", "", "func(id: u32, note: list<string>)");
    let ok = |body: &str| arguments(&table, "PUT", "/p/7", body).unwrap();
    assert_eq!(ok(r#" ["a"] "#), r#"{"id":7,"note": ["a"] }"#);
    let bad = |body: &str| refused(&table, "PUT", "/p/7", body);
    assert_eq!(
        bad(""),
        "body: $: expected list (an array), found an empty body"
    );
    assert_eq!(bad(r#"["a", 1"#), "body: $[1]: expected string, found 1");
    for smuggled in [
        r#"[]},"x":{"#,
        r#"[],"id":9"#,
        "[] []",
        "[]}",
        "[",
        "\"",
        "{'a':1}",
    ] {
        bad(smuggled);
    }
    let optional = one("PUT", "/p/{id}", "", "func(id: u32, note: option<string>)");
    assert_eq!(
        arguments(&optional, "PUT", "/p/7", "").unwrap(),
        r#"{"id":7}"#
    );
}

#[test]
fn places_in_a_broken_body_are_those_of_what_was_sent() {
    let whole = one("PUT", "/p/{id}", "", "func(id: u32, note: string)");
    let object = one("PUT", "/p/{id}", "", "func(id: u32, a: string, b: string)");
    let bad = |table: &Table, body: &[u8]| refused(table, "PUT", "/p/7", body);
    assert_eq!(
        bad(&whole, b"\"ab\xff\""),
        "body: expected UTF-8, found the byte 0xff at offset 3"
    );
    assert_eq!(
        bad(&object, b" {\"a\":\"\xff\"}"),
        "body: expected UTF-8, found the byte 0xff at offset 7"
    );
    let broken = bad(&object, b"\n\n  {\"a\":\"x\",}");
    assert_eq!(broken, "body: trailing comma at line 3 column 12");
    let broken = bad(&whole, b"\n  \"x\" 1");
    assert_eq!(broken, "body: $: expected nothing more, found 1");
}

#[test]
fn a_body_is_an_object_of_the_parameters_that_are_left() {
    let table = one(
        "PATCH",
        "/p/{id}",
        "",
        "func(id: u32, new-name: string, age: option<u8>)",
    );
    let ok = |body: &str| arguments(&table, "PATCH", "/p/7", body).unwrap();
    assert_eq!(
        ok(r#" { "newName" : "x" , "age" : 3 } "#),
        r#"{"id":7,"newName" : "x" , "age" : 3}"#
    );
    assert_eq!(ok("{}"), r#"{"id":7}"#);
    assert_eq!(ok(""), r#"{"id":7}"#);
    let bad = |body: &str| refused(&table, "PATCH", "/p/7", body);
    // The path's parameter cannot be set again, in no spelling and by no escape.
    for body in [
        r#"{"id":8}"#,
        r#"{"\u0069d":8}"#,
        r#"{"newName":"a","id":8}"#,
    ] {
        let message = bad(body);
        assert!(
            message.contains("expected an object keyed by parameter (newName, age)"),
            "{message}"
        );
    }
    assert!(bad(r#"{"newName":"a","new-name":"b"}"#).contains("new-name is there twice"));
    for body in [
        "[]",
        "1",
        "null",
        r#"{"newName":"a"}}"#,
        r#"{"newName":"a""#,
        "{}{}",
        "{,}",
    ] {
        bad(body);
    }
    // Nothing but the body: it is passed on, and decoded by the callee.
    let alone = one("POST", "/p", "", "func(a: u32, b: u32)");
    assert_eq!(arguments(&alone, "POST", "/p", "[1, 2]").unwrap(), "[1, 2]");
}

proptest! {
    /// Whatever a client sends, the arguments keep the path's parameter and are one object.
    #[test]
    fn no_body_reaches_beyond_its_place(body in "[\\[\\]{}\",:a-c0-9\\\\ ]{0,24}") {
        for signature in [
            "func(id: u32, a: list<u32>)",
            "func(id: u32, a: option<string>, b: option<string>)",
        ] {
            let table = one("PUT", "/p/{id}", "", signature);
            let Ok(arguments) = arguments(&table, "PUT", "/p/7", &body) else { continue };
            let object: serde_json::Value = serde_json::from_str(&arguments).unwrap();
            prop_assert_eq!(&object["id"], 7);
            let begins = arguments.starts_with(r#"{"id":7"#);
            prop_assert!(begins);
            prop_assert_eq!(arguments.matches(r#""id""#).count(), 1);
        }
    }

    /// What the gateway writes of a path is what the callee reads.
    #[test]
    fn text_arrives_as_it_was_sent(text in "\\PC{1,12}") {
        let signature = "func(sku: string)";
        let table = one("GET", "/p/{sku}", "", signature);
        let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
        let arguments = arguments(&table, "GET", &format!("/p/{encoded}"), "").unwrap();
        let signature = signature.parse().unwrap();
        let values = decode_arguments(arguments.as_bytes(), &signature, &Limits::default()).unwrap();
        prop_assert_eq!(&values, &[crate::value::Value::String(text)]);
    }
}
