//! Asynchronous components: calls at once from one instance, to its own service and to plain ones.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::examples::guest;
use crate::host::code;
use crate::messaging::as_text;
use crate::support::apps::{Bench, Services, bench};

/// Time for which what is asked for takes.
const WHILE: u32 = 200;

/// A service that asks another one, in the process or over NATS.
async fn asks(lines: &str, local: &str) -> Bench {
    let concurrent = as_text(&guest("guests/rust/concurrent"));
    let slow = as_text(&guest("guests/rust/slow"));
    let services = [("concurrent", &*concurrent, lines), ("slow", &*slow, lines)];
    let wires = format!("[wire.\"bay:concurrent/slow\"]\nlocal = \"{local}\"\n");
    bench(&Services(&services, &wires)).await
}

async fn call(bench: &Bench, function: &str, arguments: Value) -> (Option<String>, Value) {
    let subject = format!("bay.app.bay.concurrent.{function}");
    let reply = bench.request(&subject, &arguments.to_string()).await;
    let value = serde_json::from_slice(&reply.payload).unwrap();
    (code(&reply).map(str::to_owned), value)
}

#[tokio::test]
async fn calls_of_one_instance_go_on_at_once() {
    for local in ["prefer", "never"] {
        let bench = asks("", local).await;
        let texts: Vec<_> = (0..20).map(|i| i.to_string()).collect();
        let bracketed: Vec<_> = texts.iter().map(|text| format!("<{text}>")).collect();
        let began = Instant::now();
        let (code, all) = call(&bench, "work.v1.all", json!([texts, WHILE])).await;
        assert_eq!((code, all), (None, json!(bracketed)), "{local}");
        let took = began.elapsed();
        assert!(
            took < Duration::from_millis(10 * u64::from(WHILE)),
            "{took:?}"
        );
        // What is given up is ended with the call, and the instance goes on.
        for _ in 0..3 {
            let first = call(&bench, "work.v1.first", json!([1, 1_000])).await;
            assert_eq!(first, (None, json!("<quick>")), "{local}");
        }
        let plain = call(&bench, "work.v1.plain", json!(["x"])).await;
        assert_eq!(plain, (None, json!("<x>")), "{local}");
        let (code, failed) = call(&bench, "work.v1.failed", json!([])).await;
        assert_eq!(code.as_deref(), Some("502"), "{failed}");
        assert!(
            failed["error"]["message"]
                .as_str()
                .unwrap()
                .contains("slow.trap"),
            "{failed}"
        );
        bench.end().await;
    }
}

#[tokio::test]
async fn a_call_lasts_until_its_tasks_have_ended() {
    let bench = asks("limits = { timeout = \"1s\" }", "prefer").await;
    for calls in 1..4 {
        let began = Instant::now();
        let later = call(&bench, "work.v1.later", json!([WHILE, false])).await;
        assert_eq!(later, (None, json!(calls)));
        assert!(began.elapsed() >= Duration::from_millis(u64::from(WHILE)));
    }
    let (code, error) = call(&bench, "work.v1.later", json!([1, true])).await;
    assert_eq!(code.as_deref(), Some("500"), "{error}");
    let (code, error) = call(&bench, "work.v1.later", json!([5_000, false])).await;
    assert_eq!(code.as_deref(), Some("504"), "{error}");
    let (code, error) = call(&bench, "slow.v1.bracket", json!(["x", 5_000])).await;
    assert_eq!(code.as_deref(), Some("504"), "{error}");
    // A fresh instance each.
    let later = call(&bench, "work.v1.later", json!([1, false])).await;
    assert_eq!(later, (None, json!(1)));
    bench.end().await;
}

#[tokio::test]
async fn a_call_makes_no_more_calls_at_once_than_it_may_hold() {
    for local in ["prefer", "never"] {
        let bench = asks("limits = { timeout = \"5s\" }", local).await;
        let texts = vec!["x"; 20_000];
        let (code, error) = call(&bench, "work.v1.all", json!([texts, 0])).await;
        assert_eq!(code.as_deref(), Some("500"), "{error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("handle limit exceeded"), "{message}");
        let plain = call(&bench, "work.v1.plain", json!(["x"])).await;
        assert_eq!(plain, (None, json!("<x>")));
        bench.end().await;
    }
}
