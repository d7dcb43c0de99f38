//! Pipelines over HTTP, and what there is room for.

use wasmbay::host::HostOptions;
use wasmbay::nats::ConnectOptions;

use super::*;
use crate::support::apps::start_with;
use crate::support::http::send;

/// The manifest's routes and the gateway for the pipeline.
const ROUTE: &str = r#"
[[route]]
method = "POST"
path = "/orders/{order-id}"
call = "test:shop/checkout.place"
status = 201
errors = { "*" = 409 }
[gateway]
timeout = "2s"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_route_leads_to_a_pipeline_and_operators_see_its_runs() {
    let nats = Nats::start().await;
    let options = HostOptions {
        gateway: Some("127.0.0.1:0".parse().unwrap()),
        admin: Some("127.0.0.1:0".parse().unwrap()),
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let manifest = manifest(ROUTE);
    let services = Services(&[("types", TYPES, "")], &manifest);
    let host = start_with(options, &services).await;
    let client = nats.connect().await;
    let shop = Shop::open(&client, |function, before| match (function, before) {
        ("charge", 1) => Some(Answer::Ok(r#"{"err":"declined"}"#)),
        ("charge", 2) => Some(Answer::Silence),
        _ => None,
    })
    .await;
    let (gateway, admin) = (host.gateway().unwrap(), host.admin().unwrap());
    let (gateway, admin) = (gateway.to_string(), admin.to_string());
    let kind = ("Content-Type", "application/json");
    let body = r#"{"count":2,"tell":false}"#;
    let post = |address: &str, path: &str, key: &str, body: &str| {
        send(
            address,
            "POST",
            path,
            &[kind, ("Idempotency-Key", key)],
            body,
        )
        .unwrap()
    };
    let bought = post(&gateway, "/orders/o-1", "k-1", body);
    let confirmation = r#"{"reservationId":"r-1","receipt":"receipt-1"}"#;
    assert_eq!(bought.status_and_body(), (201, confirmation));
    let again = post(&gateway, "/orders/o-1", "k-1", body);
    assert_eq!(again.status_and_body(), (201, confirmation));
    assert_eq!(shop.count("charge"), 1);
    let declined = post(&gateway, "/orders/o-2", "k-2", body);
    assert_eq!(declined.status_and_body(), (409, "\"declined\""));
    let slow = post(&gateway, "/orders/o-3", "k-3", body);
    assert_eq!(slow.status, 202);
    let run = slow.json()["run"].as_str().unwrap().to_owned();
    assert_eq!(post(&gateway, "/orders/o-4", "\u{e9}", body).status, 400);
    let rpc = r#"{"orderId":"o-5","count":1,"tell":false}"#;
    let called = post(&gateway, "/rpc/test:shop/checkout/place", "k-1", rpc);
    assert_eq!(called.json()["ok"]["receipt"], "receipt-1");

    let get = |path: &str| send(&admin, "GET", path, &[], "").unwrap();
    let open = get("/runs").json();
    assert_eq!(open["runs"].as_array().unwrap().len(), 1, "{open}");
    assert_eq!(
        (&open["runs"][0]["id"], &open["runs"][0]["phase"]),
        (&json!(run), &json!("running"))
    );
    let all = get("/runs?all=true&pipeline=checkout&limit=2").json();
    assert_eq!(all["runs"].as_array().unwrap().len(), 2);
    let next = all["next"].as_u64().unwrap();
    let rest = get(&format!("/runs?all=true&after={next}")).json();
    assert_eq!(rest["runs"].as_array().unwrap().len(), 1);
    let shown = get(&format!("/runs/{run}")).json();
    assert_eq!(shown["steps"][0]["result"], json!({"id": "r-1"}));
    assert_eq!(
        shown["steps"][0]["call"]["arguments"],
        json!({"order": "o-3", "count": 2})
    );
    assert_eq!(get("/runs/xyz").status, 400);
    assert_eq!(get(&format!("/runs/{}", "0".repeat(32))).status, 404);
    let refused = post(&admin, &format!("/runs/{run}/undo"), "", "");
    assert_eq!(refused.status, 409);
    let cancelled = post(&admin, &format!("/runs/{run}/cancel"), "", "");
    assert_eq!(cancelled.json(), json!({ "run": run }));
    let metrics = get("/metrics").body;
    for wanted in [
        "rpc_server_call_duration_seconds_count{app=\"app\",service=\"checkout\",rpc_method=\"test:shop/checkout.place@1.0.0\"} 5",
        "wasmbay_consumer_unacknowledged{app=\"app\",stream=\"bay_app_runs\",service=\"checkout\",consumer=\"checkout\"} 1",
    ] {
        assert!(metrics.contains(wanted), "{wanted}: {metrics}");
    }
    host.stop(Duration::from_millis(100)).await;
    nats.stop().await;
}

#[tokio::test]
async fn a_full_stream_refuses_new_runs_and_lets_others_go_on() {
    let lines = manifest("").replace("deadline = \"30s\"", "size = \"1MiB\"");
    let lines = lines.replace(
        "retry = { attempts = 2, backoff = [\"20ms\"] }\n\n",
        "retry = { attempts = 2, backoff = [\"3s\"] }\n\n",
    );
    assert!(lines.contains("\"3s\"") && lines.contains("1MiB"));
    let bench = bench(&Services(&[("types", TYPES, "")], &lines)).await;
    let shop = Shop::open(&bench.client, |function, before| {
        (function == "charge" && before == 0).then_some(Answer::Trap)
    })
    .await;
    let client = bench.client.clone();
    let first = tokio::spawn(async move { place(&client, ORDER, &[]).await });
    until("the first run waits", || shop.count("charge") == 1).await;
    let large = format!(
        r#"{{"orderId":"{}","count":1,"tell":false}}"#,
        "x".repeat(100 << 10)
    );
    let mut refused = None;
    for _ in 0..20 {
        if let Err(error) = place(&bench.client, &large, &[]).await {
            refused = Some(error);
            break;
        }
    }
    let (code, error) = refused.unwrap();
    let message = error["message"].as_str().unwrap();
    assert!(
        code == 503 && message.contains("the stream of runs is full"),
        "{message}"
    );
    assert!(shop.count("charge") > 3);
    assert!(first.await.unwrap().is_ok());
    bench.end().await;
}
