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

#[tokio::test(flavor = "multi_thread")]
async fn operators_edit_what_a_failed_undo_takes() {
    let nats = Nats::start().await;
    let options = HostOptions {
        admin: Some("127.0.0.1:0".parse().unwrap()),
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let manifest = manifest("").replace("deadline = \"30s\"", "journal = \"16KiB\"");
    let host = start_with(options, &Services(&[("types", TYPES, "")], &manifest)).await;
    let client = nats.connect().await;
    let _shop = Shop::open(&client, |function, _| match function {
        "charge" => Some(Answer::Ok(r#"{"err":"declined"}"#)),
        "release" => Some(Answer::Ok(r#"{"err":"no such shelf"}"#)),
        _ => None,
    })
    .await;
    assert!(place(&client, ORDER, &[]).await.is_err());
    let id = all(&client).await.runs.remove(0).id;
    let admin = host.admin().unwrap().to_string();
    let put = |query: &str, tag: &str, body: &str| {
        let kind = ("Content-Type", "application/json");
        let path = format!("/runs/{id}{query}");
        send(&admin, "PUT", &path, &[kind, ("If-Match", tag)], body).unwrap()
    };
    let get = || send(&admin, "GET", &format!("/runs/{id}"), &[], "").unwrap();
    let shown = get();
    let revision = shown.json()["revision"].to_string();
    let tag = format!("\"{revision}\"");
    assert!(
        shown.head.contains(&format!("etag: {tag}")),
        "{}",
        shown.head
    );

    for (query, tag, body, status, why) in [
        (
            "",
            "*",
            r#"{"reservation":7}"#,
            400,
            "$.reservation: expected string, found 7",
        ),
        (
            "?step=charge",
            "*",
            r#"{"order":"o"}"#,
            400,
            "accepted: reserve",
        ),
        ("?what=all", "*", "{}", 400, "accepted: undo, result"),
        ("?who=me", "*", "{}", 400, "who"),
        (
            "",
            "\"1\"",
            r#"{"reservation":"r-2"}"#,
            412,
            "look at it again",
        ),
        (
            "?what=result",
            "*",
            r#"{"id":5}"#,
            400,
            "result: $.id: expected string",
        ),
    ] {
        let refused = put(query, tag, body);
        assert_eq!(refused.status, status, "{}", refused.body);
        assert!(refused.body.contains(why), "{}", refused.body);
    }
    let large = format!(r#"{{"reservation":"{}"}}"#, "r".repeat(20 << 10));
    assert_eq!(put("", "*", &large).status, 413);
    assert_eq!(get().json()["revision"].to_string(), revision);

    let edited = put("?step=reserve&what=result", &tag, r#"{"id":"r-9"}"#);
    assert_eq!(edited.status, 200, "{}", edited.body);
    let step = &edited.json()["steps"][0];
    assert_eq!(
        (&step["result"], &step["edited"]),
        (&json!({"id": "r-9"}), &json!(true))
    );
    assert_eq!(put("", &tag, r#"{"reservation":"r-2"}"#).status, 412);
    let edited = put("", "*", r#"{"reservation":"r-2"}"#);
    let undo = &edited.json()["steps"][0]["undo"];
    assert_eq!(undo["arguments"], json!({"reservation": "r-2"}));
    assert!(host.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}
