//! An app as it is written for others, and read again.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::parse;
use crate::manifest::App;
use crate::manifest::keys::{TABLES, service};

/// Has every key of an app but `component`, which is the manifest's.
const EVERYTHING: &str = r#"
    name = "shop"

    [service.inventory]
    component = "inventory.wasm"
    config = { warehouse = "lisbon", shelves = 12, "an.odd \"key\"" = "two\nlines" }
    env = { WAREHOUSE = "porto", "any name" = "a=b" }
    args = ["--verbose", ""]
    wire = { "shop:payment/payments@1.0.0" = "audit" }
    reuse = 1
    grants = { http = ["*.example.com", "[::1]:80"], keyvalue = true, blobstore = { size = "1GiB" }, files = ["templates"], tcp = ["db.internal:5432", "[fd00::7]:1"], udp = ["10.0.0.2:53"], publish = ["a.>"], subscribe = ["b.*"] }
    [service.inventory.limits]
    memory = "64MiB"
    tables = 1
    instances = 2
    timeout = "1500ms"
    concurrency = 3
    wait = "0ms"
    queue = 0
    message = 1025
    hops = 4

    [service.audit]
    component = "audit"
    replicas = "all"
    require = { zone = "west" }
    spread = "rack"
    reserve = "1GiB"
    rollout = { canary = "12.5%", for = "1m", calls = 10, rollback-on = { errors = "0.25%", p99 = "1.5x" } }
    grants = { subscribe = ["a.b", "c"] }
    durable = { functions = ["shop:audit/audit.check"], timeout = "3s", retry = { attempts = 2 }, deadline = "1h", in-flight = 8, journal = "64KiB", keep = "7d", size = "1GiB" }
    secret = { "shop:audit/audit.check" = ["$args.card"], "shop:payment/payments.charge" = ["$result"] }
    [service.audit.undo."shop:payment/payments.charge"]
    call = "shop:payment/payments.refund"
    with = { receipt = "$result.id", note = "$args.note" }

    [job.report]
    component = "report.wasm"
    schedule = "0 3 * * *"
    retry = { attempts = 5, backoff = ["1s", "1m"] }
    keep = { runs = 10, age = "1h" }
    limits = { timeout = "2h", memory = "128MiB" }

    [job.often]
    component = "often.wasm"
    every = "10m"

    [job.once]
    component = "once.wasm"
    at = "deploy"

    [job.worker]
    component = "worker.wasm"
    restart = "always"
    replicas = 2

    [wire."shop:payment/payments"]
    external = true

    [wire."shop:inventory/stock@1.0.0-rc.1"]
    service = "inventory"
    local = "never"
    breaker = { errors = "20%", window = "1m", calls = 3, open = "2s" }
    fallback = { service = "audit" }

    [wire."shop:prices/prices"]
    breaker = {}
    fallback = { values = { get-price = { tag = "$$", val = [1, 0.5] } } }

    [wire."shop:orders/events"]
    mode = "event"
    durable = true
    in-flight = 9
    order-by = "order.customer-id"
    retention = { age = "1m", size = "64KiB" }
    replicas = 3
    dedup = "30s"
    retry = { attempts = 7, backoff = ["1s", "1h"], jitter = 0.29, on = ["err", "trap"] }
    [wire."shop:orders/events".subscriber.audit]
    in-flight = 1
    retry = { on = [], jitter = 1 }

    [wire."shop:orders/rumours"]
    mode = "event"
    nest = { heard = "rumour.heard", spread = { cmd = "spread" } }

    [stream.orders]
    subjects = ["a.b", "b.*"]
    retention = { age = "1s" }

    [pipeline.checkout]
    implements = "shop:checkout/checkout.place@1.0.0"
    type = "func(order-id: string) -> result<string, string>"
    deadline = "1h"
    in-flight = 7
    journal = "64KiB"
    keep = "7d"
    size = "1GiB"
    secret = ["$.card", "$reserve.token"]
    result = ["$reserve['a b'].c", { x = "$$", y = [1, -2, 0.5, true] }]
    [[pipeline.checkout.step]]
    name = "reserve"
    call = "shop:inventory/stock.reserve"
    with = { order-id = "$.orderId", note = "$$5", lines = [{ sku = "$[0].sku" }] }
    when = "$.express"
    on-error = "retry"
    error = { tag = "sold-out", val = "$error" }
    timeout = "1s"
    retry = { attempts = 9, backoff = ["1s", "1h"] }
    undo = { call = "shop:inventory/stock.release", with = {}, timeout = "2s", retry = { attempts = 1 } }
    [[pipeline.checkout.step]]
    name = "weigh"
    call = "shop:inventory/stock.weigh"
    each = "$.lines"
    at-most = 7
    at-once = 2
    when = { value = "$.payment", is = "card" }
    parallel = "late"
    with = { line = "$item" }
    [[pipeline.checkout.step]]
    name = "tell"
    event = "shop:orders/events.placed"
    parallel = "late"
    with = { order-id = "$.orderId" }
    [[pipeline.checkout.step]]
    name = "rest"
    sleep = "10m"
    [[pipeline.checkout.step]]
    name = "paid"
    wait-for = { event = "shop:orders/events.paid", key = "$.orderId", equals = ["$.orderId"], timeout = "1h" }
    on-error = "continue"

    [wire."shop:pricing/prices"]
    external = "nest"
    patterns = { quote = "price.quote", watch = { cmd = "watch", v = 2 } }
    streams = ["watch"]

    [wire."shop:payments/cards"]
    external = "grpcs://pay.example:443"
    proto-service = "acme.pay.Cards"
    methods = { charge = "ChargeCard" }

    [[nest]]
    pattern = { cmd = "check" }
    call = "shop:audit/audit.check"
    queue = "audits"
    stream = true

    [[route]]
    method = "PUT"
    path = "/products/{sku}"
    call = "shop:catalog/products.put@1.0.0"
    query = ["dry-run"]
    status = 203
    errors = { unknown-sku = 404, "*" = 422 }
    auth = "any"
    scopes = ["products:write"]
    rate = { requests = 5, window = "1s", burst = 2, by = "claim:tenant" }

    [[route]]
    path = "/files/*"
    service = "inventory"

    [[route]]
    method = "GET"
    path = "/orders/{id}/events"
    events = "shop:orders/events.placed"
    filter = { id = "order.id" }

    [gateway]
    listen = "127.0.0.1:8080"
    admin = "localhost:8081"
    openapi = "explorer"
    body = "2MiB"
    header = "8KiB"
    timeout = "10ms"
    connections = 1
    hosts = ["shop.example.com"]
    compress = false
    trusted-proxies = ["10.0.0.0/8", "::1"]
    rate = { requests = 100, by = "client" }
    cors = { origins = ["https://app.example.com"], methods = ["GET"], headers = ["x-a"], credentials = true, max-age = "1h" }

    [gateway.auth]
    default = "jwt"
    key-file = "keys.toml"
    [gateway.auth.jwt]
    issuer = "https://id.example.com"
    audience = ["shop"]
    jwks = "https://id.example.com/jwks.json"
    algorithms = ["RS256", "HS512"]
    skew = "1m"
    refresh = "1h"
    scope-claim = "permissions"
    [gateway.auth.key.till]
    sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    scopes = ["orders:write"]

    [gateway.tls]
    certificate = "/etc/tls/shop.pem"
    key = "/etc/tls/shop.key"
    client-ca = "/etc/tls/clients.pem"
    client = "optional"
"#;

pub(super) fn again(app: &App) -> App {
    serde_json::from_str(&serde_json::to_string(app).unwrap()).unwrap()
}

#[test]
fn what_is_written_is_read_again() {
    let app = parse(EVERYTHING).unwrap();
    assert_eq!(again(&app), app);
    let least = parse("name = 'a'\n[service.b]\ncomponent = 'b'").unwrap();
    assert_eq!(again(&least), least);
}

#[test]
fn every_key_is_written() {
    let text = serde_json::to_string(&parse(EVERYTHING).unwrap()).unwrap();
    let written = |name: &str| text.contains(&format!("\"{name}\":"));
    for name in TABLES.iter().flat_map(|table| table.names()) {
        assert_eq!(written(name), name != service::COMPONENT.name, "{name}");
    }
}

#[test]
fn values_are_written_in_the_manifests_notation() {
    let app = serde_json::to_value(parse(EVERYTHING).unwrap()).unwrap();
    let wire = &app["wire"]["shop:orders/events"];
    let limits = &app["service"]["inventory"]["limits"];
    assert_eq!(limits["timeout"], "1500ms");
    assert_eq!(
        (&limits["memory"], &limits["message"]),
        (&json!("64MiB"), &json!("1025B"))
    );
    assert_eq!(
        (&wire["dedup"], &wire["replicas"]),
        (&json!("30s"), &json!(3))
    );
    assert_eq!(
        wire["retry"],
        json!({ "attempts": 7, "backoff": ["1s", "1h"], "jitter": 0.29, "on": ["err", "trap"] })
    );
    assert_eq!(
        app["route"][1],
        json!({ "path": "/files/*", "service": "inventory" })
    );
}

#[test]
fn what_is_read_again_is_checked_as_a_manifest_is() {
    let app = serde_json::to_value(parse(EVERYTHING).unwrap()).unwrap();
    for (path, value, why) in [
        (
            "/name",
            json!("Shop"),
            "`name` is \"Shop\"; accepted: 1 to 63 of a-z, 0-9 and `-`",
        ),
        ("/service", json!({}), "there is no service"),
        (
            "/service/inventory",
            json!({ "component": "a" }),
            "`component` says where a file is",
        ),
        (
            "/service/inventory/reuse",
            json!(0),
            "`reuse` is 0; accepted: 1 to 1000000",
        ),
        (
            "/service/inventory/limits/hops",
            json!(101),
            "`hops` is 101; accepted: 1 to 100",
        ),
        (
            "/service/inventory/limits/wait",
            json!("61s"),
            "`wait` is \"61s\"",
        ),
        (
            "/service/inventory/limits/memory",
            json!("1KiB"),
            "`memory` is \"1KiB\"",
        ),
        (
            "/service/inventory/grants/http",
            json!(["http://a"]),
            "`http://a` is no host",
        ),
        (
            "/service/inventory/grants/publish",
            json!(["bay.>"]),
            "`bay.>` cannot be granted",
        ),
        (
            "/service/audit/grants/subscribe",
            json!(["a.*", "a.b"]),
            "`a.*` and `a.b` overlap",
        ),
        (
            "/wire",
            json!({ "a:b": { "external": true } }),
            "`a:b` is not an interface",
        ),
        (
            "/wire",
            json!({ "a:b/c": { "service": "d" } }),
            "there is no service `d`",
        ),
        (
            "/wire/shop:orders~1events/retry/backoff",
            json!([]),
            "`backoff` is []",
        ),
        (
            "/wire/shop:orders~1events/dedup",
            json!("2m"),
            "`dedup` is longer",
        ),
        (
            "/stream/orders/subjects",
            json!([]),
            "`subjects` is missing",
        ),
        (
            "/route/0/path",
            json!("/a b"),
            "`path`: accepted: `/` and visible ASCII",
        ),
        (
            "/route/0/status",
            json!(99),
            "`status` is 99; accepted: 200 to 599",
        ),
        (
            "/gateway/listen",
            json!("nowhere"),
            "`listen` is \"nowhere\"",
        ),
        (
            "/gateway",
            json!({ "lisen": "a:1" }),
            "unknown key `lisen`; did you mean `listen`?",
        ),
        ("/gateway", Value::Null, ""),
    ] {
        let mut changed = app.clone();
        *changed.pointer_mut(path).unwrap() = value;
        let refused = serde_json::from_value::<App>(changed)
            .unwrap_err()
            .to_string();
        assert!(refused.contains(why), "{path}: {refused}");
    }
}

#[test]
fn all_that_is_wrong_is_said() {
    let text = r#"{ "name": "A", "service": { "b": { "reuse": 0 } } }"#;
    assert_eq!(
        serde_json::from_str::<App>(text).unwrap_err().to_string(),
        "`name` is \"A\"; accepted: 1 to 63 of a-z, 0-9 and `-`; \
         service \"b\": `reuse` is 0; accepted: 1 to 1000000"
    );
    let twice = r#"{ "name": "a", "name": "b", "service": { "b": {} } }"#;
    assert!(serde_json::from_str::<App>(twice).is_err());
}

proptest! {
    #[test]
    fn any_text_of_a_configuration_survives(key in ".*", value in ".*") {
        let mut app = parse(EVERYTHING).unwrap();
        let config = &mut app.services.get_mut("audit").unwrap().config;
        config.insert(key, value);
        prop_assert_eq!(again(&app), app);
    }
}
