//! What the admin address shows of services and traces, the page that reads it, and who may.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use wasmbay::host::{AdminToken, Host, HostError, HostOptions};
use wasmbay::insight;
use wasmbay::nats::ConnectOptions;
use wasmbay::spans::Spans;

use crate::support::apps::{Services, start_with};
use crate::support::components::{CALLER, GUEST, OTHER, PUBLISHES, RETURNS_ERROR};
use crate::support::http::{Response, send};
use crate::support::nats::Nats;
use crate::support::{DEADLINE, until_ok};

const LOOPBACK: Option<SocketAddr> = Some(SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    0,
));

const APP: Services<'_> = Services(
    &[
        ("caller", CALLER, ""),
        ("other", OTHER, ""),
        ("guest", GUEST, ""),
    ],
    "",
);

async fn start(nats: &Nats) -> Host {
    let options = HostOptions {
        admin: LOOPBACK,
        gateway: LOOPBACK,
        spans: Spans::default().keep_last(),
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    start_with(options, &APP).await
}

async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let (method, path) = (method.to_owned(), path.to_owned());
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let asked = spawn_blocking(move || {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (&**n, &**v)).collect();
        send(&address.to_string(), &method, &path, &headers, "")
    });
    asked.await.unwrap().unwrap()
}

async fn get(host: &Host, path: &str) -> Value {
    let response = ask(host.admin().unwrap(), "GET", path, &[]).await;
    assert_eq!(response.status, 200, "{path}: {response:?}");
    response.json()
}

async fn request(host: &Host, path: &str) -> u16 {
    ask(host.gateway().unwrap(), "POST", path, &[]).await.status
}

fn count(counts: &Value) -> u64 {
    let durations = counts["durations"].as_array().unwrap();
    durations.iter().map(|count| count.as_u64().unwrap()).sum()
}

#[tokio::test]
async fn every_host_shows_the_services_of_all_hosts_and_who_calls_whom() {
    let nats = Nats::start().await;
    let (a, b) = (start(&nats).await, start(&nats).await);
    for _ in 0..3 {
        assert_eq!(request(&a, "/rpc/test:caller/api/ask?n=5").await, 400);
        let body = ("Content-Type", "application/json");
        let address = a.gateway().unwrap().to_string();
        let sent = spawn_blocking(move || {
            send(
                &address,
                "POST",
                "/rpc/test:caller/api/ask",
                &[body],
                "{\"n\":5}",
            )
        });
        assert_eq!(sent.await.unwrap().unwrap().status, 200);
        assert_eq!(request(&a, "/rpc/test:guest/api/trap").await, 500);
    }
    for host in [&a, &b] {
        let figures = get(host, "/services").await;
        assert_eq!(figures["app"], "app");
        let hosts = figures["hosts"].as_array().unwrap();
        assert_eq!(hosts.len(), 2, "{figures}");
        // The requests were answered by the host that got them.
        let busy = hosts
            .iter()
            .find(|host| count(&host["services"]["guest"]["calls"]) > 0);
        let busy = busy.unwrap();
        let caller = &busy["services"]["caller"];
        let imports = caller["imports"].as_array().unwrap();
        let asked = imports
            .iter()
            .find(|import| import["function"] == "test:other/api.ask@1.0.0");
        let asked = asked.unwrap();
        assert_eq!(
            (&asked["to"][0], count(&asked["calls"])),
            (&"other".into(), 3)
        );
        assert_eq!(count(&busy["services"]["other"]["calls"]), 3);
        let trapped = &busy["services"]["guest"]["calls"]["errors"];
        assert_eq!(trapped["500 guest"], 3, "{trapped}");
        let routes = busy["routes"].as_array().unwrap();
        assert!(!routes.is_empty(), "{figures}");

        let detail = get(host, "/services/guest").await;
        let parts = detail["hosts"].as_array().unwrap();
        assert_eq!(parts.len(), 2);
        let functions = parts
            .iter()
            .map(|part| &part["functions"]["test:guest/api.trap@1.0.0"]);
        assert_eq!(functions.map(count).sum::<u64>(), 3);
        assert_eq!(parts[0]["manifest"]["limits"]["timeout"], "5s", "{detail}");
    }
    let missing = ask(a.admin().unwrap(), "GET", "/services/nobody", &[]).await;
    assert_eq!(missing.status, 404);
    // What the command line asks.
    let link = ConnectOptions::to(nats.url()).link().await.unwrap();
    assert_eq!(insight::figures(&link, "app").await.unwrap().len(), 2);
    assert!(insight::figures(&link, "another").await.unwrap().is_empty());
    for host in [a, b] {
        assert!(host.stop(DEADLINE).await.is_complete());
    }
    nats.stop().await;
}

#[tokio::test]
async fn a_trace_shows_where_it_failed_on_any_host() {
    let nats = Nats::start().await;
    let (a, b) = (start(&nats).await, start(&nats).await);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let (gateway, headers) = (a.gateway().unwrap(), [("Traceparent", &*parent)]);
    let failed = ask(gateway, "POST", "/rpc/test:guest/api/trap", &headers).await;
    assert_eq!(failed.status, 500);
    // The gateway's span ends with its answer, a moment after the client has it.
    let found = until_ok("both spans", async || {
        let found = get(&a, &format!("/traces/{trace}")).await;
        let spans = found["hosts"][0]["spans"].as_array().unwrap().clone();
        if spans.len() == 2 {
            Ok(spans)
        } else {
            Err(found.to_string())
        }
    });
    let spans = found.await;
    let guest = spans
        .iter()
        .find(|span| span["service"] == "guest")
        .unwrap();
    let error = guest["error"].as_str().unwrap();
    assert!(error.contains("unreachable"), "{error}");
    let stack = guest["attributes"]["exception.stacktrace"]
        .as_str()
        .unwrap();
    assert!(stack.contains("wasm"), "{stack}");
    assert_eq!(guest["attributes"]["wasmbay.blame"], "guest");
    let gateway = spans
        .iter()
        .find(|span| span["service"] == "gateway")
        .unwrap();
    assert_eq!(guest["parent"], gateway["span"]);

    for host in [&a, &b] {
        let all = get(host, "/traces?errors=true&service=guest").await;
        let listed = all["traces"].as_array().unwrap();
        assert_eq!(
            (listed.len(), &listed[0]["trace"]),
            (1, &trace.into()),
            "{all}"
        );
        assert!(listed[0]["error"].as_str().unwrap().contains("unreachable"));
        assert_eq!(get(host, &format!("/traces/{trace}")).await["trace"], trace);
    }
    let none = get(&a, "/traces?service=caller").await;
    assert_eq!(none["traces"].as_array().unwrap().len(), 0);
    for path in ["/traces/0af7", "/traces/00000000000000000000000000000001"] {
        assert_eq!(
            ask(a.admin().unwrap(), "GET", path, &[]).await.status,
            404,
            "{path}"
        );
    }
    for path in [
        "/traces?errors=yes",
        "/traces?limit=0",
        "/traces?x=1",
        "/services?x=1",
    ] {
        assert_eq!(
            ask(a.admin().unwrap(), "GET", path, &[]).await.status,
            400,
            "{path}"
        );
    }
    for host in [a, b] {
        assert!(host.stop(DEADLINE).await.is_complete());
    }
    nats.stop().await;
}

#[tokio::test]
async fn it_says_how_far_a_subscriber_is_behind_and_how_near_a_service_is_to_its_limits() {
    let wire = "[wire.\"test:events/sink\"]\nmode = \"event\"\ndurable = true\nin-flight = 2\n\
         retry = { attempts = 9, backoff = [\"1h\"] }\n";
    let limits = "limits = { concurrency = 7, queue = 9, memory = \"1MiB\" }";
    let services = Services(
        &[
            ("sink", RETURNS_ERROR, ""),
            ("publisher", PUBLISHES, limits),
        ],
        wire,
    );
    let nats = Nats::start().await;
    let options = || HostOptions {
        admin: LOOPBACK,
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let hosts = [
        start_with(options(), &services).await,
        start_with(options(), &services).await,
    ];
    let client = nats.connect().await;
    for key in 0..5 {
        let subject = "bay.app.test.publisher.api.v1.publish";
        let arguments = format!("[{key},13]");
        let reply = client.request(subject, arguments.into()).await.unwrap();
        assert_eq!(&*reply.payload, b"{\"ok\":null}");
    }
    // Two of them have failed and wait for their next attempt, the others for those.
    let behind = json!([{
        "service": "sink", "stream": "bay_app_test_events_sink_v1", "consumer": "sink",
        "pending": 3, "inFlight": 2, "redelivered": 0,
    }]);
    for host in &hosts {
        until_ok("the consumer is as far behind as it is", async || {
            let found = get(host, "/services").await["consumers"].clone();
            (found == behind).then_some(()).ok_or(found)
        })
        .await;
        let sink = get(host, "/services/sink").await;
        assert_eq!(sink["consumers"], behind);
        let publisher = get(host, "/services/publisher").await;
        assert_eq!(publisher["consumers"], json!([]));
        let parts = publisher["hosts"].as_array().unwrap();
        assert_eq!(parts.len(), 2);
        for part in parts {
            let usage = &part["usage"];
            assert_eq!(usage["concurrency"], json!({ "used": 0, "limit": 7 }));
            assert_eq!(usage["queue"], json!({ "used": 0, "limit": 9 }));
            assert_eq!(usage["memory"]["limit"], 1 << 20);
            assert_eq!(usage["instances"]["limit"], 200);
        }
        // Whoever has answered has had a memory of at least one page.
        let most = parts
            .iter()
            .map(|part| part["usage"]["memory"]["used"].as_u64().unwrap());
        let most = most.max().unwrap();
        assert!((64 << 10..=1 << 20).contains(&most), "{publisher}");
        let instances = parts
            .iter()
            .map(|part| part["usage"]["instances"]["used"].as_u64().unwrap());
        assert!(instances.sum::<u64>() > 0, "{publisher}");
    }
    for host in hosts {
        host.stop(DEADLINE).await;
    }
    nats.stop().await;
}

#[tokio::test]
async fn an_err_value_is_in_the_trace_of_a_call_that_did_not_fail() {
    let nats = Nats::start().await;
    let host = start(&nats).await;
    let trace = "1af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let address = host.gateway().unwrap().to_string();
    let sent = spawn_blocking(move || {
        let headers = [
            ("Traceparent", &*parent),
            ("Content-Type", "application/json"),
        ];
        send(
            &address,
            "POST",
            "/rpc/test:guest/api/check",
            &headers,
            "{\"number\":50}",
        )
    });
    // At its RPC path an `err` value is a result.
    assert_eq!(sent.await.unwrap().unwrap().status, 200);
    let listed = get(&host, "/traces").await;
    assert_eq!(listed["traces"][0]["refusal"], "50", "{listed}");
    assert_eq!(listed["traces"][0]["error"], Value::Null);
    assert!(host.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}

#[tokio::test]
async fn a_browser_gets_the_page_and_a_program_json() {
    let nats = Nats::start().await;
    let host = start(&nats).await;
    let address = host.admin().unwrap();
    let html = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let page = ask(address, "GET", "/", &[html]).await;
    assert!(
        page.body.starts_with("<!doctype html>") && page.head.contains("text/html"),
        "{page:?}"
    );
    assert!(page.head.contains("default-src 'none'"), "{page:?}");
    // Nothing of it is from elsewhere.
    for path in ["/page.js", "/page.css"] {
        let file = ask(address, "GET", path, &[]).await;
        assert_eq!(file.status, 200);
        let elsewhere = file.body.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !elsewhere.contains("http://") && !elsewhere.contains("https://"),
            "{path}"
        );
        assert!(page.body.contains(&path[1..]));
    }
    let index = get(&host, "/").await;
    let routes = index["routes"].as_array().unwrap().iter();
    let routes: BTreeSet<_> = routes
        .map(|route| route.as_str().unwrap().to_owned())
        .collect();
    let documented = get(&host, "/openapi.json").await;
    let paths = documented["paths"].as_object().unwrap().iter();
    let documented: BTreeSet<_> = paths
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    assert_eq!(documented, routes);
    assert!(host.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}

#[tokio::test]
async fn what_others_reach_asks_for_its_token() {
    let nats = Nats::start().await;
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let options = |token| HostOptions {
        admin: Some(everywhere),
        admin_token: token,
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let engine = wasmbay::runtime::Engine::new(wasmbay::runtime::EngineOptions {
        instances: 1,
        cache: None,
    });
    let refused = Host::start(&APP.app(), engine.unwrap(), options(None)).await;
    assert!(matches!(refused, Err(HostError::Unguarded { address }) if address == everywhere));

    let token = AdminToken::parse("a-token-of-this-test").unwrap();
    let host = start_with(options(Some(token)), &APP).await;
    let mut address = host.admin().unwrap();
    address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    let bearer = ("Authorization", "Bearer a-token-of-this-test");
    let status = async |path: &str, headers: &[(&str, &str)]| {
        ask(address, "GET", path, headers).await.status
    };
    for path in ["/", "/services", "/dead-letters", "/metrics", "/nothing"] {
        assert_eq!(status(path, &[]).await, 401, "{path}");
        assert_eq!(
            status(path, &[("Authorization", "Bearer another-token-of-it")]).await,
            401
        );
    }
    for path in ["/healthz", "/readyz", "/page.js"] {
        assert_eq!(status(path, &[]).await, 200, "{path}");
    }
    for path in ["/", "/services", "/dead-letters", "/metrics"] {
        assert_eq!(status(path, &[bearer]).await, 200, "{path}");
        // As behind what has a name and ends TLS.
        assert_eq!(status(path, &[bearer, ("Host", "ops.example")]).await, 200);
        let other = ("Origin", "https://evil.example");
        assert_eq!(
            status(path, &[bearer, ("Host", "ops.example"), other]).await,
            403
        );
    }
    assert!(host.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}
