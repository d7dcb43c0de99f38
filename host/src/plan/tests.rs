mod breakers;
mod choices;
mod events;
mod nest;

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::manifest::Manifest;
use crate::shape::{Case, Field, Shape};

/// Interfaces by text: `id: f(p: shape, …) -> shape; …`, with the few shapes that these tests need.
fn interface(text: &str) -> InterfaceDescription {
    let (id, functions) = text.split_once(": ").unwrap();
    let function = |text: &str| {
        let (name, rest) = text.trim().split_once('(').unwrap();
        let (params, result) = rest.split_once(')').unwrap();
        let param = |text: &str| {
            let (name, shape) = text.trim().split_once(": ").unwrap();
            field(name, self::shape(shape))
        };
        let params = params
            .split(',')
            .filter(|text| !text.is_empty())
            .map(param)
            .collect();
        let result = result.strip_prefix(" -> ").map(self::shape);
        (name.to_owned(), Signature { params, result })
    };
    let functions = functions.split(';').map(function).collect();
    InterfaceDescription {
        id: id.parse().unwrap(),
        functions,
        types: BTreeMap::new(),
    }
}

fn field(name: &str, shape: Shape) -> Field {
    let mut key = name.to_owned();
    while let Some(i) = key.find('-') {
        key.remove(i);
        let upper = key[i..=i].to_uppercase();
        key.replace_range(i..=i, &upper);
    }
    Field {
        name: name.into(),
        key: key.into(),
        shape,
    }
}

fn shape(text: &str) -> Shape {
    let err = |shape| Shape::Result {
        ok: Some(Box::new(Shape::U32)),
        err: shape,
    };
    let case = |name: &str, payload| Case {
        name: name.into(),
        payload,
    };
    match text {
        "u32" => Shape::U32,
        "string" => Shape::String,
        "option" => Shape::Option(Box::new(Shape::Bool)),
        "list" => Shape::List(Box::new(Shape::String)),
        "record" => Shape::Record([field("sku", Shape::String)].into()),
        "declined" => err(Some(Box::new(Shape::Variant(
            [
                case("card-declined", None),
                case("unknown", Some(Shape::String)),
            ]
            .into(),
        )))),
        "enum-error" => err(Some(Box::new(Shape::Enum(["gone".into()].into())))),
        "text-error" => err(Some(Box::new(Shape::String))),
        "any-error" => err(None),
        "done" => Shape::Result {
            ok: None,
            err: None,
        },
        other => panic!("no shape {other}"),
    }
}

/// A service by text: `name`, exports, imports.
type Service<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

/// Plans an app of these services, with more lines of a manifest. A service called `web` serves
/// HTTP.
fn try_plan(services: &[Service<'_>], lines: &str) -> Result<Plan, String> {
    let tables = services
        .iter()
        .map(|(name, ..)| format!("[service.{name}]\ncomponent = '{name}.wasm'\n"));
    let manifest = format!("name = 'shop'\n{}{lines}", tables.collect::<String>());
    let app = Manifest::parse(Path::new("wasmbay.toml"), &manifest)
        .unwrap()
        .app;
    let read = |texts: &[&str]| texts.iter().map(|text| interface(text)).collect::<Vec<_>>();
    let components = services
        .iter()
        .map(|(name, exports, imports)| {
            let component = Description {
                exports: read(exports),
                imports: read(imports),
                http: *name == "web",
                concurrent: *name == "concurrent",
                ..Description::default()
            };
            ((*name).to_owned(), component)
        })
        .collect();
    let lines = |errors: Vec<PlanError>| {
        errors
            .iter()
            .map(PlanError::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    plan(&app, &components).map_err(lines)
}

fn problem(services: &[Service<'_>], lines: &str) -> String {
    try_plan(services, lines).unwrap_err()
}

/// The plan of one route to a function with this signature.
fn try_route(function: &str, lines: &str) -> Result<PlannedRoute, String> {
    let services: &[Service<'_>] = &[("a", &[&format!("a:b/c@1.2.0: {function}")], &[])];
    let planned = try_plan(services, &format!("[[route]]\n{lines}\ncall = 'a:b/c.f'\n"));
    planned
        .map(|mut plan| plan.routes.remove(0))
        .map_err(|text| text.split_once("\": ").unwrap().1.to_owned())
}

fn route_problem(function: &str, lines: &str) -> String {
    try_route(function, lines).unwrap_err()
}

const PAY: &str =
    "shop:payment/payments@1.2.0: charge(amount: u32) -> declined; refund(id: string)";
const PAY_2: &str = "shop:payment/payments@2.0.0: charge(amount: u32) -> declined";
const USE_PAY: &str = "shop:payment/payments@1.0.0: charge(amount: u32) -> declined";

#[test]
fn services_that_fit_are_planned() {
    let services: &[Service<'_>] = &[
        ("orders", &["shop:orders/orders: place()"], &[USE_PAY]),
        ("pay", &[PAY], &[]),
        ("web", &[], &[]),
    ];
    let plan = try_plan(services, "[[route]]\npath = '/files/*'\nservice = 'web'\n").unwrap();
    let serves: Vec<_> = plan
        .serves
        .iter()
        .map(|(name, ids)| {
            format!(
                "{name} {}",
                ids.keys().map(ToString::to_string).collect::<String>()
            )
        })
        .collect();
    assert_eq!(
        serves,
        [
            "orders shop:orders/orders",
            "pay shop:payment/payments@1.2.0",
            "web "
        ]
    );
    let required: Vec<_> = plan.required.iter().map(ToString::to_string).collect();
    assert_eq!(required, ["shop:payment/payments.charge@1.0.0"]);
    assert_eq!(plan.http[0].service, "web");
}

#[test]
fn rpc_paths_are_for_interfaces_that_the_app_has() {
    let services: &[Service<'_>] = &[("orders", &[], &[USE_PAY]), ("pay", &[PAY], &[])];
    let rpc = |listed: &str| try_plan(services, &format!("[gateway]\nrpc = {listed}\n"));
    for listed in [
        "true",
        "false",
        "[]",
        "['shop:payment/payments']",
        "['shop:payment/payments@1.9.0']",
    ] {
        rpc(listed).unwrap();
    }
    assert_eq!(
        rpc("['shop:payment/payments', 'shop:payment/payment']").unwrap_err(),
        "`[gateway] rpc`: no service exports or imports shop:payment/payment; did you mean \
         `shop:payment/payments@1.2.0`?"
    );
    assert_eq!(
        rpc("['shop:payment/payments@2.0.0']")
            .unwrap_err()
            .lines()
            .count(),
        1
    );
}

#[test]
fn an_import_that_nothing_exports_is_refused() {
    let import = "shop:payment/payment@1.0.0: charge()";
    assert_eq!(
        problem(&[("orders", &[], &[import]), ("pay", &[PAY], &[])], ""),
        "service \"orders\": imports shop:payment/payment@1.0.0, which no service exports; add a service that \
         exports it, or `[wire.\"shop:payment/payment@1.0.0\"] external = true`; did you mean \
         `shop:payment/payments@1.2.0`?"
    );
    assert_eq!(
        problem(&[("orders", &[], &[import])], ""),
        "service \"orders\": imports shop:payment/payment@1.0.0, which no service exports; add a service that \
         exports it, or `[wire.\"shop:payment/payment@1.0.0\"] external = true`"
    );
    assert!(
        try_plan(
            &[("orders", &[], &[import])],
            "[wire.'shop:payment/payment']\nexternal = true"
        )
        .is_ok()
    );
}

#[test]
fn an_import_of_another_version_is_refused() {
    assert_eq!(
        problem(&[("orders", &[], &[PAY_2]), ("pay", &[PAY], &[])], ""),
        "service \"orders\": imports shop:payment/payments@2.0.0, but \"pay\" exports 1.2.0, which is not \
         compatible; build both against one version"
    );
    assert_eq!(
        problem(
            &[
                ("orders", &[], &["a:b/c@1.0.0: f()"]),
                ("pay", &["a:b/c: f()"], &[])
            ],
            ""
        ),
        "service \"orders\": imports a:b/c@1.0.0, but \"pay\" exports it without a version, which is not \
         compatible; build both against one version"
    );
}

#[test]
fn two_exporters_need_a_wire_that_chooses() {
    let services: &[Service<'_>] = &[
        ("a", &[PAY], &[]),
        ("b", &[USE_PAY], &[]),
        ("c", &[PAY_2], &[]),
    ];
    assert_eq!(
        problem(services, ""),
        "shop:payment/payments@1.2.0 is exported by \"a\" and \"b\"; choose one: \
         `[wire.\"shop:payment/payments@1.2.0\"] service = \"…\"`"
    );
    let plan = try_plan(
        services,
        "[wire.'shop:payment/payments@1.0.0']\nservice = 'b'",
    )
    .unwrap();
    let counts: Vec<_> = plan.serves.values().map(BTreeMap::len).collect();
    assert_eq!(counts, [0, 1, 1]);
    assert_eq!(
        problem(&[("a", &[PAY, USE_PAY], &[])], ""),
        "service \"a\": exports both shop:payment/payments@1.2.0 and shop:payment/payments@1.0.0, which callers \
         cannot tell apart; export one of them"
    );
    // With an external wire neither answers.
    let external = "[wire.'shop:payment/payments']\nexternal = true";
    let plan = try_plan(&[("a", &[PAY], &[]), ("b", &[PAY], &[USE_PAY])], external).unwrap();
    assert!(plan.serves.values().all(BTreeMap::is_empty));
}

#[test]
fn a_wire_must_lead_somewhere() {
    let services: &[Service<'_>] = &[("orders", &[], &[USE_PAY]), ("pay", &[PAY], &[])];
    assert_eq!(
        problem(
            services,
            "[wire.'shop:payment/payments']\nservice = 'orders'"
        ),
        "wire \"shop:payment/payments\": service \"orders\" does not export it (it exports: nothing)"
    );
    assert_eq!(
        problem(
            services,
            "[wire.'shop:payment/payments@2.0.0']\nservice = 'pay'"
        ),
        "wire \"shop:payment/payments@2.0.0\": service \"pay\" does not export it; did you mean \
         `shop:payment/payments@1.2.0`? (it exports: shop:payment/payments@1.2.0)"
    );
    assert_eq!(
        problem(
            &[("a", &[PAY], &[])],
            "[wire.'shop:payment/payment@1.0.0']\nlocal = 'never'"
        ),
        "wire \"shop:payment/payment@1.0.0\": no service exports it; remove the wire; did you mean \
         `shop:payment/payments@1.2.0`?"
    );
    assert_eq!(
        problem(
            services,
            "[wire.'shop:payment/payment@1.0.0']\nexternal = true"
        ),
        "wire \"shop:payment/payment@1.0.0\": no service imports it and no route calls it; remove the wire; did \
         you mean `shop:payment/payments@1.0.0`?"
    );
}

#[test]
fn importer_and_exporter_must_agree_on_every_function_used() {
    let orders = |import| problem(&[("orders", &[], &[import]), ("pay", &[PAY], &[])], "");
    assert_eq!(
        orders("shop:payment/payments@1.0.0: charg(amount: u32)"),
        "service \"orders\": imports shop:payment/payments.charg@1.0.0, which \"pay\" does not export; did you \
         mean `charge`?"
    );
    assert_eq!(
        orders("shop:payment/payments@1.0.0: refund(amount: u32)"),
        "service \"orders\": imports shop:payment/payments.refund@1.0.0 as `func(amount: u32)`, but \"pay\" exports \
         it as `func(id: string)`; build both against one version of the WIT"
    );
}

#[test]
fn every_misfit_is_reported() {
    let services: &[Service<'_>] = &[
        ("orders", &[], &["x:y/z: f()", PAY_2]),
        ("a", &[PAY], &[]),
        ("b", &[PAY], &[]),
    ];
    assert_eq!(
        problem(services, "[[route]]\npath = '/*'\nservice = 'a'")
            .lines()
            .count(),
        4
    );
}

#[test]
fn a_route_finds_its_function() {
    let pay: &[Service<'_>] = &[("pay", &[PAY], &[])];
    let route = |call: &str| format!("[[route]]\nmethod = 'POST'\npath = '/x'\ncall = '{call}'\n");
    let plan = try_plan(pay, &route("shop:payment/payments.charge")).unwrap();
    assert_eq!(
        plan.routes[0].function.to_string(),
        "shop:payment/payments.charge@1.2.0"
    );
    assert_eq!(plan.required.len(), 1);
    assert!(try_plan(pay, &route("shop:payment/payments.charge@1.9.0")).is_ok());
    assert_eq!(
        problem(pay, &route("shop:payment/payment.charge")),
        "route \"POST /x\": calls a function of shop:payment/payment, which no service exports; did you mean \
         `shop:payment/payments`?"
    );
    assert_eq!(
        problem(pay, &route("shop:payment/payments.charge@2.0.0")),
        "route \"POST /x\": calls a function of shop:payment/payments@2.0.0, which no service exports; did you \
         mean `shop:payment/payments@1.2.0`?"
    );
    assert_eq!(
        problem(pay, &route("shop:payment/payments.chage")),
        "route \"POST /x\": shop:payment/payments@1.2.0 has no function `chage`; did you mean `charge`? \
         (it has: charge, refund)"
    );
    assert_eq!(
        problem(
            &[("pay", &[PAY, PAY_2], &[])],
            &route("shop:payment/payments.charge")
        ),
        "route \"POST /x\": `call` must say which version it means: shop:payment/payments@1.2.0 or \
         shop:payment/payments@2.0.0"
    );
    let external = "[wire.'shop:payment/payments']\nexternal = true\n";
    assert_eq!(
        problem(
            &[("pay", &[], &[])],
            &(external.to_owned() + &route("shop:payment/payments.charge"))
        ),
        "route \"POST /x\": calls a function of shop:payment/payments, whose types are unknown: it is external, and \
         no service imports it"
    );
    let plan = try_plan(
        &[("orders", &[], &[USE_PAY])],
        &(external.to_owned() + &route("shop:payment/payments.charge")),
    );
    assert_eq!(
        plan.unwrap().routes[0].function.to_string(),
        "shop:payment/payments.charge@1.0.0"
    );
    assert_eq!(
        problem(pay, "[[route]]\npath = '/*'\nservice = 'pay'"),
        "route \"/*\": service \"pay\" exports neither `wasi:http/incoming-handler@0.2` nor `wasi:http/handler@0.3`; name one of its functions with `call`"
    );
}

#[test]
fn parameters_come_from_path_query_and_body() {
    let bind = |function: &str, lines: &str| try_route(function, lines).unwrap().bindings;
    let three = "f(order-id: string, dry-run: option, item: record)";
    let pairs = |pairs: &[(String, usize)]| {
        pairs
            .iter()
            .map(|(k, i)| format!("{k}={i}"))
            .collect::<Vec<_>>()
    };
    for name in ["order-id", "order_id", "orderId", "*orderId"] {
        let lines = format!("method = 'POST'\npath = '/o/{{{name}}}'\nquery = ['dry-run']");
        let bound = bind(three, &lines);
        assert_eq!(
            pairs(&bound.path),
            [format!("{}=0", name.trim_start_matches('*'))]
        );
        assert_eq!(pairs(&bound.query), ["dryRun=1"]);
        assert_eq!(bound.body, Body::Whole(2));
    }
    assert_eq!(
        bind(three, "method = 'PUT'\npath = '/o'").body,
        Body::Object(vec![0, 1, 2])
    );
    assert_eq!(bind("f()", "method = 'POST'\npath = '/o'").body, Body::None);
    let bound = bind(
        "f(max-price: u32, tags: list, open: option)",
        "method = 'GET'\npath = '/o/{max-price}'",
    );
    assert_eq!(
        (pairs(&bound.path), pairs(&bound.query)),
        (
            vec!["max-price=0".to_owned()],
            vec!["tags=1".to_owned(), "open=2".to_owned()]
        )
    );
    assert_eq!(bound.body, Body::None);
}

#[test]
fn parameters_that_cannot_be_bound_are_refused() {
    let get = |path: &str| format!("method = 'GET'\npath = '{path}'");
    assert_eq!(
        route_problem("f(sku: string)", &get("/x/{sk}")),
        "`sk` in its path is no parameter of the function; did you mean `sku`? (parameters: sku)"
    );
    assert_eq!(
        route_problem("f()", "method = 'POST'\npath = '/x'\nquery = ['a']"),
        "`a` in its query is no parameter of the function (parameters: nothing)"
    );
    assert_eq!(
        route_problem("f(item: record)", &get("/x/{item}")),
        "parameter `item` is a `record { sku: string }`, which cannot come from the path; accepted there: text, \
         numbers, booleans and enums"
    );
    assert_eq!(
        route_problem("f(item: record)", &get("/x")),
        "parameter `item` is a `record { sku: string }`, which cannot come from the query; accepted there: text, \
         numbers, booleans, enums, options and lists of them; use a method with a body, such as POST"
    );
    assert!(
        route_problem("f(tags: list)", &get("/x/{tags}"))
            .starts_with("parameter `tags` is a `list<string>`")
    );
    for lines in [
        "path = '/x/{sku}'\nquery = ['sku']",
        "path = '/x/{sku-id}/{skuId}'",
        "path = '/x'\nquery = ['sku-id', 'sku_id']",
    ] {
        let function = if lines.contains("sku-id") {
            "f(sku-id: string)"
        } else {
            "f(sku: string)"
        };
        let name = if lines.contains("sku-id") {
            "sku-id"
        } else {
            "sku"
        };
        assert_eq!(
            route_problem(function, &format!("method = 'GET'\n{lines}")),
            format!("parameter `{name}` is bound twice; keep one of the two")
        );
    }
}

#[test]
fn statuses_and_errors_are_planned() {
    let route = |result: &str, lines: &str| {
        try_route(
            &format!("f(){result}"),
            &format!("method = 'GET'\npath = '/x'\n{lines}"),
        )
    };
    assert_eq!(route("", "").unwrap().status, 204);
    assert_eq!(route(" -> done", "").unwrap().status, 204);
    assert_eq!(route(" -> u32", "").unwrap().status, 200);
    assert_eq!(route(" -> declined", "status = 201").unwrap().status, 201);
    let mapped = route(" -> declined", "errors = { card-declined = 402 }").unwrap();
    assert_eq!(
        (
            mapped.error_status(Some("card-declined")),
            mapped.error_status(Some("unknown"))
        ),
        (402, UNMAPPED_ERROR)
    );
    let any = route(" -> text-error", "errors = { '*' = 422 }").unwrap();
    assert_eq!(any.error_status(None), 422);
    assert!(route(" -> enum-error", "errors = { gone = 410 }").is_ok());
    assert!(route(" -> any-error", "errors = { '*' = 410 }").is_ok());
    let refused = |result: &str, errors: &str| route(result, errors).unwrap_err();
    assert_eq!(
        refused(" -> declined", "errors = { card-decline = 402 }"),
        "`errors` has `card-decline`, which is no case of the function's error; did you mean `card-declined`? \
         (cases: card-declined, unknown)"
    );
    assert_eq!(
        refused(" -> text-error", "errors = { gone = 402 }"),
        "`errors` has `gone`, but the function's error has no cases; accepted: `*`"
    );
    assert_eq!(
        refused(" -> u32", "errors = { '*' = 402 }"),
        "`errors` is set, but the function has no error: `func() -> u32`"
    );
}

proptest! {
    /// Whatever the route, a plan that is accepted binds each parameter once.
    #[test]
    fn every_parameter_is_bound_once(
        params in proptest::collection::btree_set("[a-d]", 0..4),
        path in proptest::collection::btree_set("[a-d]", 0..3),
        query in proptest::collection::btree_set("[a-d]", 0..3),
        method in prop_oneof![Just("GET"), Just("POST")],
    ) {
        let typed = params.iter().map(|name| format!("{name}: string")).collect::<Vec<_>>().join(",");
        let path: String = path.iter().map(|name| format!("/{{{name}}}")).collect();
        let lines = format!("method = '{method}'\npath = '/x{path}'\nquery = {:?}", Vec::from_iter(query));
        if let Ok(planned) = try_route(&format!("f({typed})"), &lines) {
            let Bindings { path, query, body } = planned.bindings;
            let mut bound: Vec<_> = path.iter().chain(&query).map(|(_, index)| *index).collect();
            match body {
                Body::None => {}
                Body::Whole(index) => bound.push(index),
                Body::Object(indices) => bound.extend(indices),
            }
            bound.sort_unstable();
            prop_assert_eq!(bound, (0..params.len()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_description_is_read_as_it_was_written() {
    let description = Description {
        exports: vec![interface("a:b/c@1.2.0: f(x: record) -> declined")],
        imports: vec![interface("a:b/d@0.1.0: g()")],
        http: true,
        messages: Some("wasmcloud:messaging/handler@0.2.0".parse().unwrap()),
        concurrent: true,
        docs: BTreeMap::from([documented("a:b/c@1.2.0", 10)]),
        command: true,
    };
    let text = serde_json::to_string(&description).unwrap();
    let read: Description = serde_json::from_str(&text).unwrap();
    assert_eq!(read, description);
    assert!(read != description.without_docs());
}

/// Documentation comments of so many bytes on a function `f`.
fn documented(id: &str, bytes: usize) -> (InterfaceId, Docs) {
    let functions = BTreeMap::from([("f".to_owned(), "x".repeat(bytes))]);
    (id.parse().unwrap(), Docs::new(None, functions, []))
}

#[test]
fn documentation_comments_have_a_bound() {
    let fits = |bytes| docs_fit(&BTreeMap::from([documented("a:b/c@1.0.0", bytes)]));
    assert!(fits(MAX_DOCS - 100));
    assert!(!fits(MAX_DOCS));
}

#[test]
fn documentation_comments_are_of_a_function_of_the_same_type() {
    let described = |function: &str| Description {
        exports: vec![interface(&format!("a:b/c@1.2.0: {function}"))],
        docs: BTreeMap::from([documented("a:b/c@1.2.0", 1)]),
        ..Description::default()
    };
    let components = BTreeMap::from([("a".to_owned(), described("f(x: string)"))]);
    let is_known = |id: &str, signature: &str| {
        let function = id.parse::<InterfaceId>().unwrap().function("f");
        docs_of(&components, &function, &signature.parse().unwrap()).is_some()
    };
    let signature = described("f(x: string)").exports[0].functions["f"].to_string();
    assert!(is_known("a:b/c@1.2.0", &signature));
    assert!(!is_known("a:b/c@1.2.0", "func(x: u8)"));
    assert!(!is_known("a:b/c@1.3.0", &signature));
}

#[test]
fn what_is_followed_is_an_event_of_the_app() {
    let services: &[Service<'_>] = &[(
        "a",
        &["a:b/events@1.2.0: placed(order: string, note: list); gone()"],
        &[],
    )];
    let wire = "[wire.'a:b/events']\nmode = 'event'\ndurable = true\n";
    let follow = |path: &str, events: &str, filter: &str, wire: &str| {
        let lines = format!(
            "[[route]]\nmethod = 'GET'\npath = '{path}'\nevents = '{events}'\n{filter}\n{wire}"
        );
        try_plan(services, &lines)
    };
    let planned = follow(
        "/o/{id}",
        "a:b/events.placed",
        "filter = { id = 'order' }",
        wire,
    );
    let followed = planned.unwrap().followed.remove(0);
    assert_eq!(followed.function.to_string(), "a:b/events.placed@1.2.0");
    assert_eq!((followed.durable, followed.partitions), (true, false));
    assert_eq!(followed.filter[0].0, "id");
    for (path, events, filter, wire, why) in [
        (
            "/o",
            "a:b/events.placed",
            "",
            "",
            "`events` names a:b/events, which is not wired as events",
        ),
        (
            "/o",
            "a:b/events.placd",
            "",
            wire,
            "a:b/events@1.2.0 has no function `placd`; did you mean `placed`?",
        ),
        (
            "/o/{id}",
            "a:b/events.placed",
            "",
            wire,
            "`{id}` of its path chooses no events; add it to `filter`",
        ),
        (
            "/o/{id}",
            "a:b/events.placed",
            "filter = { id = 'order', x = 'order' }",
            wire,
            "`filter.x`: its path has no `{x}` (it has: id)",
        ),
        (
            "/o/{id}",
            "a:b/events.placed",
            "filter = { id = 'ordr' }",
            wire,
            "`filter.id`: `ordr` is nothing of the event that can be compared: `placed` has no parameter `ordr`; did you mean `order`?",
        ),
        (
            "/o/{id}",
            "a:b/events.placed",
            "filter = { id = 'note' }",
            wire,
            "`filter.id`: `note` is nothing of the event that can be compared: `note` of `placed` cannot be a key",
        ),
    ] {
        let refused = follow(path, events, filter, wire).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
}
