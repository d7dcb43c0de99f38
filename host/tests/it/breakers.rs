//! Circuit breakers of wires: calls that are not sent while too many fail, what answers instead, and where
//! that is seen.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;
use tokio::task::spawn_blocking;
use wasmbay::host::HostOptions;
use wasmbay::insight;
use wasmbay::nats::ConnectOptions;

use crate::support::apps::{Bench, Services, apply, bench, start_with};
use crate::support::components::{CALLER, OTHER};
use crate::support::http::{Response, send};
use crate::support::nats::Nats;
use crate::support::{DEADLINE, until_ok};

const ASK: &str = "bay.app.test.caller.api.v1.ask";
const TRY: &str = "bay.app.test.caller.api.v1.try";

/// As `OTHER`, but `ask` traps from 1000 on.
pub(crate) fn flaky() -> String {
    let from =
        "(func (export \"ask\") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))";
    let to = "(func (export \"ask\") (param i32) (result i32)
      (if (i32.ge_u (local.get 0) (i32.const 1000)) (then unreachable))
      (i32.add (local.get 0) (i32.const 1)))";
    let flaky = OTHER.replace(from, to);
    assert_ne!(flaky, OTHER);
    flaky
}

/// As `OTHER`, whose `ask` answers 7.
fn fixed() -> String {
    let ask =
        "(func (export \"ask\") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))";
    OTHER.replace(
        ask,
        "(func (export \"ask\") (param i32) (result i32) (i32.const 7))",
    )
}

fn wire(lines: &str) -> String {
    format!("[wire.\"test:other/api\"]\nbreaker = {{ calls = 4, open = \"400ms\" }}\n{lines}\n")
}

/// The calls that a service has answered or failed to.
async fn calls(bench: &Bench, service: &str) -> u64 {
    let link = ConnectOptions::to(bench.nats.url()).link().await.unwrap();
    let hosts = insight::figures(&link, "app").await.unwrap();
    let counts = hosts.iter().filter_map(|host| host.services.get(service));
    counts.map(|service| service.calls.totals().0).sum()
}

#[tokio::test]
async fn calls_are_not_sent_while_too_many_fail_in_the_process_and_over_nats() {
    let flaky = flaky();
    for local in ["prefer", "never"] {
        let wire = wire(&format!("local = \"{local}\""));
        let services = Services(&[("caller", CALLER, ""), ("other", &flaky, "")], &wire);
        let bench = bench(&services).await;
        assert_eq!(bench.text(ASK, "[1]").await, "2");
        for _ in 0..3 {
            let failed = bench.text(ASK, "[1000]").await;
            assert!(failed.contains("unreachable"), "{failed}");
        }
        let sent = calls(&bench, "other").await;
        assert_eq!(sent, 4, "{local}");
        // What would succeed is not sent either; a guest with a place for it gets the failure as a value.
        let refused = bench.text(ASK, "[1]").await;
        assert!(
            refused.contains("the breaker of wire test:other/api is open"),
            "{refused}"
        );
        assert!(
            refused.contains("50% of its calls within 10s had failed"),
            "{refused}"
        );
        let value: Value = serde_json::from_str(&bench.text(TRY, "[1]").await).unwrap();
        let err = value["err"].as_str().unwrap();
        assert!(err.contains("the breaker of wire"), "{err}");
        assert_eq!(calls(&bench, "other").await, sent, "{local}");
        // One that fails keeps it open, one that succeeds closes it.
        until_ok("one is sent", async || {
            match bench.text(ASK, "[1000]").await {
                failed if failed.contains("unreachable") => Ok(()),
                other => Err(other),
            }
        })
        .await;
        assert!(bench.text(ASK, "[1]").await.contains("is open"));
        until_ok("it closes", async || match bench.text(ASK, "[1]").await {
            answer if answer == "2" => Ok(()),
            other => Err(other),
        })
        .await;
        for n in 0..20 {
            assert_eq!(
                bench.text(ASK, &format!("[{n}]")).await,
                (n + 1).to_string()
            );
        }
        bench.end().await;
    }
}

#[tokio::test]
async fn a_fallback_answers_while_it_is_open_and_not_before() {
    let (flaky, fixed) = (flaky(), fixed());
    let by_service = wire("fallback = { service = \"spare\" }");
    let by_value = wire("fallback = { values = { ask = 7, try = { ok = 9 } } }");
    let spare = ("spare", &*fixed, "");
    let plain = [("caller", CALLER, ""), ("other", &*flaky, "")];
    let with_spare = [plain[0], plain[1], spare];
    for services in [
        Services(&with_spare, &by_service),
        Services(&plain, &by_value),
    ] {
        let bench = bench(&services).await;
        for _ in 0..4 {
            let failed = bench.text(ASK, "[1000]").await;
            assert!(failed.contains("unreachable"), "{failed}");
        }
        assert_eq!(bench.text(ASK, "[1]").await, "7");
        let tried: Value = serde_json::from_str(&bench.text(TRY, "[8]").await).unwrap();
        assert_eq!(tried["ok"], 9);
        // A breaker that did not change goes on as it was when something else is deployed.
        apply(&bench.host, &services).await.unwrap();
        assert_eq!(bench.text(ASK, "[1]").await, "7");
        until_ok("the wire is used again", async || {
            match bench.text(ASK, "[1]").await {
                answer if answer == "2" => Ok(()),
                other => Err(other),
            }
        })
        .await;
        bench.end().await;
    }
}

async fn ask(address: SocketAddr, method: &str, path: &str, body: &str) -> Response {
    let (method, path, body) = (method.to_owned(), path.to_owned(), body.to_owned());
    let headers = [("Content-Type", "application/json")];
    let sent = spawn_blocking(move || send(&address.to_string(), &method, &path, &headers, &body));
    sent.await.unwrap().unwrap()
}

#[tokio::test]
async fn the_gateway_uses_it_and_operators_see_it() {
    let nats = Nats::start().await;
    let loopback = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let options = HostOptions {
        admin: loopback,
        gateway: loopback,
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let (flaky, wire) = (
        flaky(),
        "[wire.\"test:other/api\"]\nbreaker = { calls = 5, open = \"10m\" }",
    );
    let services = Services(&[("caller", CALLER, ""), ("other", &flaky, "")], wire);
    let host = start_with(options, &services).await;
    let (gateway, admin) = (host.gateway().unwrap(), host.admin().unwrap());
    let ask_other = async |n: u32| {
        let body = format!("{{\"n\":{n}}}");
        ask(gateway, "POST", "/rpc/test:other/api/ask", &body).await
    };
    // Arguments that do not decode are their caller's fault, and count for nobody.
    for _ in 0..20 {
        assert_eq!(
            ask(gateway, "POST", "/rpc/test:other/api/ask", "{}")
                .await
                .status,
            400
        );
    }
    for _ in 0..20 {
        assert_eq!(ask_other(1).await.status, 200);
    }
    for _ in 0..40 {
        ask_other(1000).await;
    }
    let refused = ask_other(1).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(
        refused
            .body
            .contains("the breaker of wire test:other/api is open"),
        "{refused:?}"
    );
    let figures = ask(admin, "GET", "/services", "").await.json();
    let breaker = &figures["hosts"][0]["breakers"]["test:other/api"];
    assert_eq!(
        (&breaker["state"], &breaker["opened"]),
        (&"open".into(), &1.into()),
        "{breaker}"
    );
    assert_eq!(breaker["fallbacks"], 0);
    let services = &figures["hosts"][0]["services"];
    let caller = &services["caller"]["health"];
    assert_eq!(caller["state"], "degraded", "{caller}");
    assert_eq!(
        caller["why"][0],
        "the breaker of wire test:other/api, which it calls, is open"
    );
    let other = &services["other"]["health"];
    assert_ne!(other["state"], "ready", "{other}");
    assert!(
        other["why"][0].as_str().unwrap().contains("with 500 guest"),
        "{other}"
    );
    let metrics = ask(admin, "GET", "/metrics", "").await.body;
    assert!(
        metrics.contains("wasmbay_breaker_open{app=\"app\",wire=\"test:other/api\"} 1"),
        "{metrics}"
    );
    assert!(host.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}
