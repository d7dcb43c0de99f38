use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod auth;
mod breakers;
mod clients;
mod events;
mod grpc;
mod kinds;
mod nest;
mod routes;
mod services;
mod tls;
mod written;

/// Reads a manifest at a path that exists nowhere.
fn read(text: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(Path::new("shop/wasmbay.toml"), text)
}

fn parse(text: &str) -> Result<App, ManifestError> {
    read(text).map(|manifest| manifest.app)
}

/// The problems of a manifest, one a line.
fn refusal(text: &str) -> String {
    match parse(text) {
        Err(refused @ ManifestError::Refused(_)) => refused.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

/// The app of a manifest that has `text` after the least that every manifest needs.
fn accepted(text: &str) -> App {
    let text = format!("name = 'shop'\n[service.a]\ncomponent = 'a.wasm'\n{text}");
    parse(&text).unwrap()
}

/// The one problem of a manifest that has `text` after the least that every manifest needs, which
/// takes its first three lines.
fn problem(text: &str) -> String {
    let all = refusal(&format!(
        "name = 'shop'\n[service.a]\ncomponent = 'a.wasm'\n{text}"
    ));
    assert_eq!(all.lines().count(), 1, "{all}");
    all.strip_prefix("shop/wasmbay.toml:").unwrap().to_owned()
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

    [service.mail]
    component = "oci://ghcr.io/acme/mail:2"

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
    let Manifest {
        app,
        root,
        components,
        references,
    } = read(WHOLE).unwrap();
    assert_eq!(
        (app.name.as_str(), root.as_path()),
        ("shop", Path::new("shop"))
    );
    assert_eq!(
        components["inventory"],
        Path::new("shop/../guests/inventory")
    );
    assert_eq!(components["files"], Path::new("/srv/files.wasm"));
    assert_eq!(references["mail"].to_string(), "ghcr.io/acme/mail:2");
    assert_eq!((components.len(), references.len()), (2, 1));
    let inventory = &app.services["inventory"];
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
         (accepted: component, config, env, args, wire, limits, reuse, grants, durable, undo, secret, replicas, require, spread, reserve, rollout)\n\
         shop/wasmbay.toml:6:21: service \"inventory\": limits: `memory` is '64MB'; accepted: \"512B\", \
         \"64KiB\", \"64MiB\", \"1GiB\" or a number of bytes, 64KiB to 4GiB\n\
         shop/wasmbay.toml:7:4: service \"inventory\": limits: unknown key `tiemout`; did you mean `timeout`? \
         (accepted: memory, tables, instances, timeout, concurrency, wait, queue, message, hops)\n\
         shop/wasmbay.toml:8:2: unknown key `wires`; did you mean `wire`? \
         (accepted: name, service, job, wire, stream, pipeline, route, nest, gateway)"
    );
}

#[test]
fn rpc_paths_are_for_all_none_or_some() {
    let rpc = |value: &str| accepted(&format!("[gateway]\nrpc = {value}\n")).gateway.rpc;
    assert_eq!(accepted("").gateway.rpc, RpcPaths::Loopback);
    assert_eq!(rpc("'loopback'"), RpcPaths::Loopback);
    assert_eq!(rpc("true"), RpcPaths::All);
    assert_eq!(rpc("false"), RpcPaths::None);
    assert_eq!(rpc("[]"), RpcPaths::Of(Vec::new()));
    for refused in ["'all'", "[1]", "['catalog']"] {
        assert_eq!(
            problem(&format!("[gateway]\nrpc = {refused}\n")),
            format!(
                "5:7: gateway: `rpc` is {refused}; accepted: \"loopback\", true, false, `[\"shop:catalog/products\"]`"
            )
        );
    }
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
fn data_is_kept_as_often_as_events_are_unless_it_says_otherwise() {
    let granted = |grant: &str, rest: &str| {
        let app = accepted(&format!("grants = {{ keyvalue = {grant} }}\n{rest}"));
        app.services["a"].grants.keyvalue
    };
    let of = |replicas, size| Some(KeyValueGrant { replicas, size });
    let usual = keys::keyvalue::SIZE.values.default;
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

#[test]
fn objects_are_granted_as_data_is() {
    let granted = |grant: &str, rest: &str| {
        let app = accepted(&format!("grants = {{ blobstore = {grant} }}\n{rest}"));
        app.services["a"].grants.blobstore
    };
    let of = |replicas, size| Some(BlobstoreGrant { replicas, size });
    let usual = keys::blobstore::SIZE.values.default;
    assert_eq!(granted("false", ""), None);
    assert_eq!(granted("true", ""), of(1, usual));
    let wire = "[stream.work]\nsubjects = ['work.>']\nreplicas = 3\n";
    assert_eq!(granted("true", wire), of(3, usual));
    assert_eq!(
        granted("{ replicas = 1, size = '1GiB' }", wire),
        of(1, 1 << 30)
    );
    let small = problem("grants = { blobstore = { size = '512KiB' } }");
    assert!(small.contains("1MiB to"), "{small}");
    let odd = problem("grants = { blobstore = 3 }");
    assert!(odd.contains("true, false, `{ replicas = 3"), "{odd}");
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
        "4:10: service \"b\": `component` is missing; accepted: a path from the manifest's folder, \
         `oci://REGISTRY/NAME:TAG`, `oci://REGISTRY/NAME@sha256:DIGEST`"
    );
    assert_eq!(
        problem("[service]\nb = 1"),
        "5:5: `service.b` is 1; accepted: `[service.NAME]`, at least one of them or of the jobs"
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
    let either =
        "accepted: `service = \"…\"`, `external = true`, `breaker = {}` or `mode = \"event\"`";
    assert_eq!(
        problem("[wire.'a:b/c']"),
        format!("4:7: wire \"a:b/c\": {either}")
    );
    assert_eq!(
        problem("[wire.'a:b/c']\nservice = 'a'\nexternal = true"),
        format!("4:7: wire \"a:b/c\": {either}")
    );
    assert_eq!(
        problem("[wire.'a:b/c']\nexternal = true\nlocal = 'never'"),
        "6:1: wire \"a:b/c\": `local` is for interfaces that a service of the app exports"
    );
    assert_eq!(
        problem("[wire.'a:b/c']\nlocal = 'always'"),
        "5:9: wire \"a:b/c\": `local` is 'always'; accepted: prefer, never"
    );
    assert_eq!(
        problem("[wire.'a:b/c']\nmode = 'event'\nlocal = 'never'"),
        "6:1: wire \"a:b/c\": `local` is for calls: every service that exports the interface hears of its events"
    );
    assert_eq!(
        problem("[wire.'a:b/c']\nexternal = false"),
        "5:12: wire \"a:b/c\": `external` is false; accepted: `true`, `\"nest\"`, `\"grpc://host:port\"`, `\"grpcs://host:port\"`"
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
fn a_manifest_is_loaded_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let text = "name = 'a'\n[service.a]\ncomponent = 'a.wasm'";
    std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
    let refused = Manifest::load(folder.path()).unwrap_err().to_string();
    let root = folder.path().display();
    assert_eq!(
        refused,
        format!(
            "{root}/wasmbay.toml:3:13: service \"a\": `component`: there is nothing at {root}/a.wasm; \
             accepted: a guest's folder, a `.wasm` file or `oci://REGISTRY/NAME:TAG`"
        )
    );
    std::fs::write(folder.path().join("a.wasm"), "").unwrap();
    let read = Manifest::load(folder.path()).unwrap();
    assert!(read.components["a"].is_absolute() && read.root.is_absolute());
    assert_eq!(
        Manifest::load(&folder.path().join(FILE_NAME)).unwrap(),
        read
    );
}

#[test]
fn what_cannot_be_read_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let error = Manifest::load(&folder.path().join("no.toml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot read {}/no.toml", folder.path().display())
    );
    let path = folder.path().join("large.toml");
    std::fs::write(&path, vec![b'\n'; usize::try_from(MAX_FILE).unwrap() + 1]).unwrap();
    let error = Manifest::load(&path).unwrap_err();
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
        if let Ok(app) = parse(&lines.iter().map(line).collect::<String>()) {
            prop_assert_eq!(written::again(&app), app);
        }
    }

    #[test]
    fn no_pair_of_paths_panics(one in "/[a-c{}*/-]{0,12}", two in "/[a-c{}*/-]{0,12}") {
        let route = |path: &str| format!("[[route]]\nmethod = 'GET'\npath = '{path}'\ncall = 'a:b/c.d'\n");
        let _ = parse(&format!("name = 'a'\n[service.a]\ncomponent = 'a'\n{}{}", route(&one), route(&two)));
    }
}

/// An app of one service `x` with these lines of its table, or what is wrong with them.
pub(super) fn of_service(lines: &str) -> Result<App, String> {
    let text = format!("name = \"a\"\n[service.x]\ncomponent = \"x.wasm\"\n{lines}");
    let read = Manifest::parse(Path::new("wasmbay.toml"), &text);
    read.map(|manifest| manifest.app)
        .map_err(|error| error.to_string())
}
