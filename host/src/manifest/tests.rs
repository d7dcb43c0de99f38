use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Reads a manifest at a path that exists nowhere.
fn parse(text: &str) -> Result<App, ManifestError> {
    App::parse(Path::new("shop/wasmbay.toml"), text)
}

/// The problems of a manifest, one a line.
fn refusal(text: &str) -> String {
    match parse(text) {
        Err(refused @ ManifestError::Refused(_)) => refused.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

/// The one problem of a manifest that has `text` after the least that every manifest needs, which
/// takes its first three lines.
fn accepted(text: &str) -> App {
    let text = format!("name = 'shop'\n[service.a]\ncomponent = 'a.wasm'\n{text}");
    App::parse(Path::new("shop/wasmbay.toml"), &text).unwrap()
}

fn problem(text: &str) -> String {
    let all = refusal(&format!(
        "name = 'shop'\n[service.a]\ncomponent = 'a.wasm'\n{text}"
    ));
    assert_eq!(all.lines().count(), 1, "{all}");
    all.strip_prefix("shop/wasmbay.toml:").unwrap().to_owned()
}

/// The one problem of a route with these lines, without its place and name.
fn route_problem(lines: &str) -> String {
    let problem = problem(&format!("[[route]]\n{lines}"));
    problem
        .split_once("\": ")
        .or(problem.split_once("route: "))
        .unwrap()
        .1
        .to_owned()
}

const WHOLE: &str = r#"
    name = "shop"

    [service.inventory]
    component = "../guests/inventory"
    config = { warehouse = "lisbon", shelves = 1_200, ratio = 1.50, open = true }
    limits = { memory = "64MiB", timeout = "2s", message = 2048, hops = 3 }
    reuse = 1
    grants = { http = ["*.example.com", "localhost:8080"] }

    [service.files]
    component = "/srv/files.wasm"

    [wire."shop:payment/payments"]
    external = true

    [wire."shop:inventory/stock@1.0.0"]
    service = "inventory"

    [[route]]
    method = "GET"
    path = "/products/{sku}"
    call = "shop:catalog/products.get@1.0.0"
    status = 203
    errors = { unknown-sku = 404, "*" = 422 }

    [[route]]
    method = "PUT"
    path = "/products/{id}"
    call = "shop:catalog/products.put"
    query = ["dry-run"]

    [[route]]
    path = "/files/*"
    service = "files"

    [gateway]
    listen = "127.0.0.1:8080"
    admin = "localhost:8081"
    rpc = ["shop:catalog/products@1.0.0", "shop:orders/orders"]
    body = "2MiB"
"#;

#[test]
fn a_whole_manifest_is_read() {
    let app = parse(WHOLE).unwrap();
    assert_eq!(
        (app.name.as_str(), app.root.as_path()),
        ("shop", Path::new("shop"))
    );
    let inventory = &app.services["inventory"];
    assert_eq!(inventory.component, Path::new("shop/../guests/inventory"));
    assert_eq!(
        app.services["files"].component,
        Path::new("/srv/files.wasm")
    );
    let config: Vec<_> = inventory
        .config
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(
        config,
        [
            "open=true",
            "ratio=1.50",
            "shelves=1200",
            "warehouse=lisbon"
        ]
    );
    let limits = Limits {
        memory: 64 << 20,
        timeout: Duration::from_secs(2),
        message: 2048,
        hops: 3,
        ..Limits::default()
    };
    assert_eq!((&inventory.limits, inventory.reuse), (&limits, 1));
    assert!(inventory.grants.allows_http("localhost", 8080));
    assert!(!inventory.grants.allows_http("example.org", 443));
    assert_eq!(app.services["files"].limits, Limits::default());
    assert_eq!(app.wires.len(), 2);
    assert_eq!(app.wires[1].provider, Provider::External);
    let labels: Vec<_> = app.routes.iter().map(Route::label).collect();
    assert_eq!(
        labels,
        ["GET /products/{sku}", "PUT /products/{id}", "/files/*"]
    );
    let Target::Function {
        function,
        query,
        status,
        errors,
    } = &app.routes[0].target
    else {
        panic!("no function");
    };
    assert_eq!(function.to_string(), "shop:catalog/products.get@1.0.0");
    assert_eq!(
        (query.len(), *status, errors["unknown-sku"], errors["*"]),
        (0, Some(203), 404, 422)
    );
    assert_eq!(
        app.routes[2].patterns(),
        ["/files", "/files/", "/files/{*rest}"]
    );
    let gateway = GatewaySpec {
        listen: Some("127.0.0.1:8080".to_owned()),
        admin: Some("localhost:8081".to_owned()),
        rpc: RpcPaths::Of(vec![
            "shop:catalog/products@1.0.0".parse().unwrap(),
            "shop:orders/orders".parse().unwrap(),
        ]),
        body: 2 << 20,
        ..GatewaySpec::default()
    };
    assert_eq!(app.gateway, gateway);
}

#[test]
fn every_problem_is_reported_with_its_place() {
    let text = "name = 'Shop'\n\n[service.inventory]\ncomponent = 'a.wasm'\nlimit = 3\n\
                limits = { memory = '64MB',\n   tiemout = '2s' }\n[wires]\n";
    assert_eq!(
        refusal(text),
        "shop/wasmbay.toml:1:8: `name` is 'Shop'; accepted: 1 to 63 of a-z, 0-9 and `-`\n\
         shop/wasmbay.toml:5:1: service \"inventory\": unknown key `limit`; did you mean `limits`? \
         (accepted: component, config, limits, reuse, grants)\n\
         shop/wasmbay.toml:6:21: service \"inventory\": limits: `memory` is '64MB'; accepted: \"512B\", \
         \"64KiB\", \"64MiB\", \"1GiB\" or a number of bytes, 64KiB to 4GiB\n\
         shop/wasmbay.toml:7:4: service \"inventory\": limits: unknown key `tiemout`; did you mean `timeout`? \
         (accepted: memory, tables, instances, timeout, concurrency, wait, queue, message, hops)\n\
         shop/wasmbay.toml:8:2: unknown key `wires`; did you mean `wire`? \
         (accepted: name, service, wire, stream, route, gateway)"
    );
}

#[test]
fn rpc_paths_are_for_all_none_or_some() {
    let rpc = |value: &str| accepted(&format!("[gateway]\nrpc = {value}\n")).gateway.rpc;
    assert_eq!(accepted("").gateway.rpc, RpcPaths::All);
    assert_eq!(rpc("true"), RpcPaths::All);
    assert_eq!(rpc("false"), RpcPaths::None);
    assert_eq!(rpc("[]"), RpcPaths::Of(Vec::new()));
    let refused = |value: &str| problem(&format!("[gateway]\nrpc = {value}\n"));
    assert_eq!(
        refused("'all'"),
        "5:7: gateway: `rpc` is 'all'; accepted: true, false, `[\"shop:catalog/products\"]`"
    );
    assert_eq!(
        refused("[1]"),
        "5:8: gateway: `rpc` is 1; accepted: true, false, `[\"shop:catalog/products\"]`"
    );
    assert!(refused("['catalog']").starts_with("5:8: gateway: `rpc`: "));
}

#[test]
fn a_peer_may_have_half_of_the_connections() {
    let gateway = |lines: &str| {
        let gateway = accepted(&format!("[gateway]\n{lines}\n")).gateway;
        (gateway.connections, gateway.peer_connections)
    };
    assert_eq!(gateway(""), (1024, 512));
    assert_eq!(gateway("connections = 1"), (1, 1));
    assert_eq!(gateway("connections = 7"), (7, 4));
    assert_eq!(gateway("peer-connections = 100"), (1024, 100));
    let refused = problem("[gateway]\npeer-connections = 0\n");
    assert!(refused.ends_with("accepted: 1 to 100000"), "{refused}");
}

#[test]
fn what_is_no_toml_is_refused_and_nothing_else_is_said() {
    assert_eq!(
        refusal("name = \n"),
        "shop/wasmbay.toml:1:8: not TOML: string values must be quoted, expected literal string"
    );
    assert!(refusal(&format!("x = {}", "[".repeat(10_000))).contains("not TOML: "));
}

#[test]
fn an_app_needs_a_name_and_a_service() {
    let service = "there is no service; add one: `[service.NAME]` with `component = \"…\"`";
    assert_eq!(
        refusal(""),
        format!(
            "shop/wasmbay.toml:1:1: `name` is missing; accepted: 1 to 63 of a-z, 0-9 and `-`\n\
             shop/wasmbay.toml:1:1: {service}"
        )
    );
    assert_eq!(
        refusal("name = 'a'\n[service]"),
        format!("shop/wasmbay.toml:2:2: {service}")
    );
    let name = "`name` is {}; accepted: 1 to 63 of a-z, 0-9 and `-`";
    let long = format!("'{}'", "a".repeat(64));
    for bad in ["''", "'a.b'", "'a b'", "'*'", "7", &long] {
        let cut =
            bad.chars().take(60).collect::<String>() + if bad.len() > 60 { "…" } else { "" };
        let found = refusal(&format!("name = {bad}\n[service.a]\ncomponent = 'a'"));
        assert_eq!(
            found,
            format!("shop/wasmbay.toml:1:8: {}", name.replace("{}", &cut))
        );
    }
}

#[test]
fn services_are_checked() {
    let label = "this is no name of a service; accepted: words of letters and digits joined by `-`, \
                 starting with a letter, at most 63 characters";
    assert_eq!(
        problem("[service.b_c]\ncomponent = 'b'"),
        format!("4:10: service \"b_c\": {label}")
    );
    assert_eq!(
        problem("[service.'b.c']\ncomponent = 'b'"),
        format!("4:10: service \"b.c\": {label}")
    );
    assert_eq!(
        problem("[service.b]"),
        "4:10: service \"b\": `component` is missing; accepted: a path from the manifest's folder"
    );
    assert_eq!(
        problem("[service]\nb = 1"),
        "5:5: `service.b` is 1; accepted: `[service.NAME]`, at least one"
    );
    assert_eq!(
        problem("config = { a = { b = 1 } }"),
        "4:16: service \"a\": `config.a` is { b = 1 }; accepted: strings, numbers and booleans, nothing nested"
    );
    assert_eq!(
        problem("config = 3"),
        "4:10: service \"a\": `config` is 3; accepted: strings, numbers and booleans, nothing nested"
    );
    assert_eq!(
        problem("reuse = 0"),
        "4:9: service \"a\": `reuse` is 0; accepted: 1 to 1000000"
    );
    assert_eq!(
        problem("reuse = -1"),
        "4:9: service \"a\": `reuse` is -1; accepted: 1 to 1000000"
    );
    assert_eq!(
        problem("reuse = '5'"),
        "4:9: service \"a\": `reuse` is '5'; accepted: 1 to 1000000"
    );
    assert_eq!(
        problem("limits = { timeout = '1ms' }"),
        "4:22: service \"a\": limits: `timeout` is '1ms'; accepted: \"250ms\", \"2s\" or \"1m\", 10ms to 10m"
    );
    assert_eq!(
        problem("limits = { hops = 300 }"),
        "4:19: service \"a\": limits: `hops` is 300; accepted: 1 to 100"
    );
    assert_eq!(
        problem("grants = { http = ['a.b', 'http://a.b'] }"),
        "4:27: service \"a\": grants: `http`: `http://a.b` is no host; accepted: `api.example.com`, \
         `*.example.com`, either with `:port`, without scheme and path"
    );
    assert_eq!(
        problem("grants = { publish = ['orders.>', 'bay.>'] }"),
        "4:35: service \"a\": grants: `publish`: `bay.>` cannot be granted; accepted: `orders.created`, `orders.*`, \
         `orders.>`, starting with a name other than `bay`, `bay-…`, `$…` and `_INBOX…`"
    );
    assert_eq!(
        problem("grants = { subscribe = ['a.*', 'b', 'a.b'] }"),
        "4:12: service \"a\": grants: `subscribe`: `a.*` and `a.b` overlap, the service would get a message of both \
         twice"
    );
    assert_eq!(
        problem("grants = { http = [1] }"),
        "4:20: service \"a\": grants: `http` is 1; accepted: `api.example.com`, `*.example.com`, either with `:port`"
    );
}

#[test]
fn wires_are_checked() {
    assert_eq!(
        problem("[wire.'shop:payment/payments']\nservice = 'payment'"),
        "5:11: wire \"shop:payment/payments\": there is no service `payment` (services: a)"
    );
    assert_eq!(
        problem("[service.payment-a]\ncomponent = 'p'\n[wire.'a:b/c']\nservice = 'payment-b'"),
        "7:11: wire \"a:b/c\": there is no service `payment-b`; did you mean `payment-a`? (services: a, payment-a)"
    );
    let either = "accepted: either `service = \"…\"`, `external = true` or `mode = \"event\"`";
    assert_eq!(
        problem("[wire.'a:b/c']"),
        format!("4:7: wire \"a:b/c\": {either}")
    );
    assert_eq!(
        problem("[wire.'a:b/c']\nservice = 'a'\nexternal = true"),
        format!("4:7: wire \"a:b/c\": {either}")
    );
    assert_eq!(
        problem("[wire.'a:b/c']\nexternal = false"),
        "5:12: wire \"a:b/c\": `external` is false; accepted: true"
    );
    assert_eq!(
        problem("[wire.'a:b']\nservice = 'a'"),
        "4:7: wire \"a:b\": `a:b` is not an interface such as `acme:stock/reserve@1.0.0`"
    );
    assert_eq!(
        problem("[wire.'a:b/c']\nservice = 'a'\n[wire.'a:b/c@1.0.0']\nservice = 'a'"),
        "6:7: wire \"a:b/c@1.0.0\": `a:b/c` is wired already; keep one of the two"
    );
}

#[test]
fn event_wires_are_read_with_their_defaults() {
    let wire = |text: &str| {
        let mut app = accepted(&format!(
            "[service.b]\ncomponent = 'b'\n[wire.'a:b/c']\n{text}"
        ));
        match app.wires.remove(0).provider {
            Provider::Events(spec) => *spec,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wire("mode = 'event'").durable, None);
    assert_eq!(wire("mode = 'event'\ndurable = false").durable, None);
    let durable = wire("mode = 'event'\ndurable = true").durable.unwrap();
    assert_eq!(
        durable.delivery,
        DeliveryPolicy {
            retry: Retry {
                attempts: 5,
                backoff: keys::BACKOFF_STEPS.to_vec(),
                jitter: 20,
                on: Outcome::ALL.to_vec(),
            },
            in_flight: 256,
        }
    );
    assert_eq!(durable.age, Duration::from_secs(604_800));
    assert_eq!(
        (durable.size, durable.replicas, durable.order_by),
        (128 << 20, 1, None)
    );
    assert_eq!(durable.dedup, Duration::from_secs(120));
    assert!(durable.subscribers.is_empty());
}

#[test]
fn a_stream_stores_what_services_are_granted() {
    let text = "name = 'a'\n[service.b]\ncomponent = 'b'\ngrants = { publish = ['x.>'], subscribe = ['x.a', 'y'] }\n\
                [service.c]\ncomponent = 'c'\ngrants = { publish = ['z'] }\n\
                [stream.s]\nsubjects = ['x.*', 'z.>']\nin-flight = 7\n\
                [stream.s.subscriber.b]\nretry = { attempts = 1 }\n";
    let app = parse(text).unwrap();
    let [stream] = &*app.streams else {
        panic!("{:?}", app.streams);
    };
    assert_eq!(stream.stream, "bay_a_messages_s");
    assert_eq!(stream.durable.delivery.in_flight, 7);
    assert_eq!(stream.durable.delivery("b").retry.attempts, 1);
    let grants = &app.services["b"].grants;
    assert_eq!(grants.stream_of("x.a"), Some("bay_a_messages_s"));
    assert_eq!(grants.stream_of("x.a.b"), None);
    let behind = |i: usize| grants.stream_behind(&grants.subscribe[i]);
    assert_eq!((behind(0), behind(1)), (Some("bay_a_messages_s"), None));
    assert!(app.services["c"].grants.stored.is_empty());
}

#[test]
fn a_stream_that_cannot_be_is_refused() {
    let stored = |service: &str, streams: &str| {
        let text = format!("name = 'a'\n[service.a]\ncomponent = 'a'\n{service}\n{streams}");
        parse(&text).unwrap_err().to_string()
    };
    let refused = |streams: &str| stored("", streams);
    for (streams, why) in [
        ("[stream.s]", "`subjects` is missing"),
        (
            "[stream.s]\nsubjects = ['bay.>']",
            "`bay.>` cannot be granted",
        ),
        (
            "[stream.s_t]\nsubjects = ['x']",
            "this is no name of a stream",
        ),
        (
            "[stream.s]\nsubjects = ['x.>', 'x.a']",
            "`x.a` and `x.>` of stream `s` overlap",
        ),
        (
            "[stream.s]\nsubjects = ['x.*']\n[stream.t]\nsubjects = ['y', '*.x', 'x.>']",
            "`x.>` and `x.*` of stream `s` overlap",
        ),
        (
            "[stream.s]\nsubjects = ['x']\norder-by = 'a'",
            "unknown key `order-by`",
        ),
        (
            "[stream.s]\nsubjects = ['x']\n[stream.s.subscriber.b]\nin-flight = 1",
            "there is no service `b`",
        ),
    ] {
        let refused = refused(streams);
        assert!(refused.contains(why), "{refused}");
    }
    let part = stored(
        "grants = { subscribe = ['x.>'] }",
        "[stream.s]\nsubjects = ['x.a']",
    );
    assert_eq!(
        part.split_once("`subscribe`").unwrap().1,
        ": stream `s` stores `x.a`, which is a part of `x.>`; grant what is stored and what is not apart"
    );
}

#[test]
fn a_subscriber_changes_single_keys_of_its_wire() {
    let text = "[wire.'a:b/c']\nmode = 'event'\ndurable = true\nin-flight = 9\norder-by = 'order.customer-id'\n\
                retention = { age = '12h', size = '64KiB' }\nreplicas = 3\ndedup = '1m'\n\
                retry = { attempts = 7, backoff = ['1s', '1h'], jitter = 0.05, on = ['err', 'trap'] }\n\
                [wire.'a:b/c'.subscriber.a]\nretry = { attempts = 1, jitter = 1 }\n";
    let Provider::Events(spec) = accepted(text).wires.remove(0).provider else {
        panic!("no event wire");
    };
    let durable = spec.durable.unwrap();
    let wire = &durable.delivery;
    assert_eq!((wire.in_flight, wire.retry.jitter), (9, 5));
    assert_eq!(
        durable.order_by.as_deref(),
        Some(&["order".to_owned(), "customer-id".to_owned()][..])
    );
    let own = durable.delivery("a");
    assert_eq!(
        (own.retry.attempts, own.retry.jitter, own.in_flight),
        (1, 100, 9)
    );
    assert_eq!(
        (&own.retry.backoff, &own.retry.on),
        (&wire.retry.backoff, &wire.retry.on)
    );
    assert_eq!(durable.delivery("other"), wire);
}

#[test]
fn event_wires_are_checked() {
    let found = |text: &str| problem(&format!("[wire.'a:b/c']\n{text}"));
    let refused = |text: &str| found(&format!("mode = 'event'\ndurable = true\n{text}"));
    assert_eq!(
        found("service = 'a'\nretry = { attempts = 5 }"),
        "6:1: wire \"a:b/c\": `retry` is for events; accepted: with `mode = \"event\"`"
    );
    assert_eq!(
        found("mode = 'event'\nservice = 'a'"),
        "6:1: wire \"a:b/c\": `service` is for calls: every service that exports the interface hears of its events"
    );
    assert_eq!(
        found("mode = 'event'\norder-by = 'id'"),
        "6:1: wire \"a:b/c\": `order-by` needs `durable = true`"
    );
    assert_eq!(
        found("mode = 'events'"),
        "5:8: wire \"a:b/c\": `mode` is 'events'; accepted: call, event"
    );
    assert_eq!(
        refused("retry = { on = ['err', 'panic'] }"),
        "7:16: wire \"a:b/c\": retry: `on` is ['err', 'panic']; accepted: err, trap, timeout, overload"
    );
    assert!(refused("retry = { backoff = [] }").contains("`backoff` is []; accepted: 1 to 20 of"));
    assert!(refused("retry = { backoff = ['2d'] }").contains("each 1ms to 1d"));
    assert!(refused("retry = { jitter = 1.5 }").contains("accepted: 0 to 1"));
    assert!(refused("retry = { attempts = 0 }").contains("accepted: 1 to 1000"));
    assert!(refused("order-by = 'order..id'").contains("`order-by` is 'order..id'; accepted:"));
    assert_eq!(
        refused("dedup = '2m'\nretention = { age = '1m' }"),
        "7:1: wire \"a:b/c\": `dedup` is longer than `retention.age`, which is 1m"
    );
    assert_eq!(
        refused("[wire.'a:b/c'.subscriber.aa]\nin-flight = 1"),
        "7:26: wire \"a:b/c\": there is no service `aa`; did you mean `a`? (services: a)"
    );
    assert!(refused("[wire.'a:b/c'.subscriber.a]\ndedup = '1s'").contains("unknown key `dedup`"));
}

#[test]
fn routes_are_checked() {
    let call = "call = 'a:b/c.d'";
    let with_path = |path: &str| route_problem(&format!("method = 'GET'\npath = '{path}'\n{call}"));
    let form = "`path`: accepted: `/` and visible ASCII without `?`, `#` and `//`, other characters percent-encoded";
    for path in ["", "a", "/a?b", "/a#b", "/a//b", "/a b", "/é"] {
        assert_eq!(with_path(path), form, "{path}");
    }
    assert_eq!(with_path("/rpc/x"), "`path`: `/rpc` is the gateway's own");
    assert_eq!(
        with_path("/healthz"),
        "`path`: `/healthz` is the gateway's own"
    );
    assert_eq!(with_path("/{a}/{a}"), "`path`: `{a}` stands there twice");
    assert_eq!(
        with_path("/{a}-{b}"),
        "`path`: a segment has at most one parameter"
    );
    assert_eq!(
        with_path("/{*a}/b"),
        "`path`: `{*…}` is accepted at the end only"
    );
    for path in ["/{a", "/a}", "/{}", "/{*}"] {
        assert_eq!(
            with_path(path),
            "`path`: accepted for a parameter: `{name}`, with `{{` and `}}` for braces themselves",
            "{path}"
        );
    }
    assert_eq!(
        with_path("/a/*"),
        "`path`: a prefix goes with `service`; accepted with `call`: `{*rest}` for the rest of the path"
    );
    for path in ["/a", "/{a}/*", "/a*", "/*/*"] {
        assert_eq!(
            route_problem(&format!("path = '{path}'\nservice = 'a'")),
            "`path`: accepted with `service`: a prefix without parameters, such as `/files/*`"
        );
    }
    assert_eq!(
        route_problem(&format!("method = 'GET'\n{call}")),
        "`path` is missing; accepted: `/products/{sku}`, `/files/{*rest}`; with `service` a prefix `/files/*`"
    );
    assert_eq!(
        route_problem(&format!("path = '/a'\n{call}")),
        "`method` is missing; accepted: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    );
    assert_eq!(
        route_problem(&format!("method = 'get'\npath = '/a'\n{call}")),
        "`method` is 'get'; accepted: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    );
    let either =
        "accepted: either `call = \"namespace:package/interface.function\"` or `service = \"…\"`";
    assert_eq!(route_problem("method = 'GET'\npath = '/a'"), either);
    assert_eq!(
        route_problem(&format!("path = '/a'\nservice = 'a'\n{call}")),
        either
    );
    assert_eq!(
        route_problem("path = '/a/*'\nservice = 'a'\nmethod = 'GET'"),
        "`method` goes with `call`; a `service` gets every request as it is"
    );
    assert_eq!(
        route_problem("path = '/a/*'\nservice = 'aa'"),
        "there is no service `aa`; did you mean `a`? (services: a)"
    );
    let get = format!("method = 'GET'\npath = '/a'\n{call}");
    assert_eq!(
        route_problem(&format!("{get}\nstatus = 99")),
        "`status` is 99; accepted: 200 to 599"
    );
    assert_eq!(
        route_problem(&format!("{get}\nstatus = 600")),
        "`status` is 600; accepted: 200 to 599"
    );
    assert_eq!(
        route_problem(&format!("{get}\nerrors = {{ x = 100 }}")),
        "`errors.x` is 100; accepted: `{ unknown-sku = 404, \"*\" = 422 }`, 200 to 599"
    );
    assert_eq!(
        route_problem(&format!("{get}\nerrors = {{ a_b = 404 }}")),
        "`errors`: `a_b` is no case of an error; accepted: its name in kebab-case, or `*`"
    );
    assert_eq!(
        route_problem(&format!("{get}\nquery = ['a', 'a']")),
        "`query` has `a` twice"
    );
    assert_eq!(
        route_problem("method = 'GET'\npath = '/a'\ncall = 'a:b/c'"),
        "`call`: `a:b/c` is not a function such as `acme:stock/reserve.hold`"
    );
}

#[test]
fn routes_that_answer_the_same_requests_are_refused() {
    let route = |method: &str, path: &str| {
        format!("[[route]]\nmethod = '{method}'\npath = '{path}'\ncall = 'a:b/c.d'\n")
    };
    let prefix = |path: &str| format!("[[route]]\npath = '{path}'\nservice = 'a'\n");
    assert_eq!(
        problem(&(route("GET", "/a/{x}") + &route("GET", "/a/{y}"))),
        "10:8: route \"GET /a/{y}\": `path` answers the same requests as `/a/{x}` of line 6; keep one of the two"
    );
    assert_eq!(
        problem(&(route("GET", "/a") + &route("GET", "/a"))),
        "10:8: route \"GET /a\": `path` answers the same requests as `/a` of line 6; keep one of the two"
    );
    assert_eq!(
        problem(&(prefix("/a/*") + &route("GET", "/a/{x}"))),
        "9:8: route \"GET /a/{x}\": `path` answers the same requests as `/a/{*rest}` of line 5; keep one of the two"
    );
    let app = format!(
        "name = 'a'\n[service.a]\ncomponent = 'a'\n{}{}{}{}{}",
        route("GET", "/a/{x}"),
        route("PUT", "/a/{y}"),
        route("GET", "/a/b"),
        prefix("/c/*"),
        prefix("/*")
    );
    assert_eq!(parse(&app).unwrap().routes.len(), 5);
}

#[test]
fn a_manifest_is_loaded_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let text = "name = 'a'\n[service.a]\ncomponent = 'a.wasm'";
    std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
    let refused = App::load(folder.path()).unwrap_err().to_string();
    let root = folder.path().display();
    assert_eq!(
        refused,
        format!(
            "{root}/wasmbay.toml:3:13: service \"a\": `component`: there is nothing at {root}/a.wasm; \
             accepted: a guest's folder or a `.wasm` file"
        )
    );
    std::fs::write(folder.path().join("a.wasm"), "").unwrap();
    let app = App::load(folder.path()).unwrap();
    assert!(app.services["a"].component.is_absolute());
    assert_eq!(App::load(&folder.path().join(FILE_NAME)).unwrap(), app);
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let error = App::load(&folder.path().join("no.toml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot read {}/no.toml", folder.path().display())
    );
    let path = folder.path().join("large.toml");
    std::fs::write(&path, vec![b'\n'; usize::try_from(MAX_FILE).unwrap() + 1]).unwrap();
    let error = App::load(&path).unwrap_err();
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "it has more than 1MiB"
    );
}

proptest! {
    #[test]
    fn no_text_panics(text in ".*") {
        let _ = parse(&text);
    }

    #[test]
    fn no_manifest_panics(
        lines in proptest::collection::vec(
            (
                prop_oneof![
                    "(name|service|wire|stream|subjects|mode|durable|retry|order-by|route|gateway|rpc|component|config|limits|reuse|grants|path|call|method|errors|status|query|external|listen|admin)",
                    r"\[\[route\]\]", r"\[gateway\]", r"\[service\.[a-z'é-]{0,4}\]", r"\[stream\.[a-z]{0,2}\]", r"\[wire\.'[a-z:/@.0-9]{0,9}'\]",
                ],
                prop_oneof![
                    "[0-9_+-]{1,20}", "'[ -~é]{0,20}'", r"\['.{0,9}', 1\]", r"\{ [a-z*']{1,5} = [0-9']{1,4} \}",
                    "'/[a-z{}*/é%?-]{0,12}'", "true", "1979-05-27",
                ],
            ),
            0..30,
        ),
    ) {
        let line = |(key, value): &(String, String)| match key.starts_with('[') {
            true => format!("{key}\n"),
            false => format!("{key} = {value}\n"),
        };
        let _ = parse(&lines.iter().map(line).collect::<String>());
    }

    #[test]
    fn no_pair_of_paths_panics(one in "/[a-c{}*/-]{0,12}", two in "/[a-c{}*/-]{0,12}") {
        let route = |path: &str| format!("[[route]]\nmethod = 'GET'\npath = '{path}'\ncall = 'a:b/c.d'\n");
        let _ = parse(&format!("name = 'a'\n[service.a]\ncomponent = 'a'\n{}{}", route(&one), route(&two)));
    }
}

#[test]
fn data_is_kept_as_often_as_events_are_unless_it_says_otherwise() {
    let granted = |grant: &str, rest: &str| {
        let app = accepted(&format!("grants = {{ keyvalue = {grant} }}\n{rest}"));
        app.services["a"].grants.keyvalue
    };
    let of = |replicas, size| Some(KeyValueGrant { replicas, size });
    let usual = keys::DATA_SIZE.default;
    assert_eq!(granted("false", ""), None);
    assert_eq!(granted("true", ""), of(1, usual));
    let wire = "[stream.work]\nsubjects = ['work.>']\nreplicas = 3\n";
    assert_eq!(granted("true", wire), of(3, usual));
    assert_eq!(granted("{}", wire), of(3, usual));
    assert_eq!(
        granted("{ replicas = 1, size = '2MiB' }", wire),
        of(1, 2 << 20)
    );
    assert_eq!(
        problem("grants = { keyvalue = { replicas = 6 } }"),
        "4:36: service \"a\": grants: keyvalue: `replicas` is 6; accepted: 1 to 5"
    );
    let odd = problem("grants = { keyvalue = 3 }");
    assert!(odd.contains("true, false, `{ replicas = 3"), "{odd}");
}
