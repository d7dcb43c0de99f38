//! Two versions of a service at the same time, and clients that are not of one mind with a host.

use std::time::Duration;

use async_nats::{HeaderMap, StatusCode, jetstream};
use wasmbay::wire;

use crate::support::DEADLINE;
use crate::support::apps::{Services, apply, bench, start};
use crate::support::components::{CALLER, GUEST, OTHER};

const ECHO: &str = "bay.app.test.guest.api.v1.echo";
const COUNT: &str = "bay.app.test.guest.api.v1.count";

/// `GUEST` before it had the function `count`.
fn older_guest() -> String {
    let older = GUEST.replace("    (export \"count\" (func $count))\n", "");
    assert_ne!(older, GUEST);
    older.replace("@1.0.0", "@1.1.0")
}

#[tokio::test]
async fn a_new_function_is_called_only_where_it_is() {
    let older = older_guest();
    let bench = bench(&Services(&[("guest", &older, "")], "")).await;
    let newer = start(bench.nats.url(), &Services(&[("guest", GUEST, "")], "")).await;
    for _ in 0..40 {
        let reply = bench.request(COUNT, "").await;
        assert_eq!(reply.headers, None, "{reply:?}");
    }
    // What both have is shared by both.
    for _ in 0..40 {
        assert_eq!(bench.text(ECHO, r#"{"text":"x"}"#).await, r#""x""#);
    }
    assert!(newer.stop(DEADLINE).await.is_complete());
    bench.end().await;
}

#[tokio::test]
async fn a_function_that_nobody_has_has_no_responders() {
    let bench = bench(&Services(&[("guest", GUEST, "")], "")).await;
    let nothing = "bay.app.test.guest.api.v1.nothing";
    let inbox = bench.client.new_inbox();
    let mut replies = bench.client.subscribe(inbox.clone()).await.unwrap();
    let sent = bench
        .client
        .publish_with_reply(nothing, inbox, "".into())
        .await;
    sent.unwrap();
    let reply = tokio::time::timeout(DEADLINE, futures_util::StreamExt::next(&mut replies));
    let reply = reply.await.unwrap().unwrap();
    assert_eq!(reply.status, Some(StatusCode::NO_RESPONDERS));
    bench.end().await;
}

#[tokio::test]
async fn unknown_keys_are_ignored_between_services_and_named_to_people() {
    let bench = bench(&Services(&[("guest", GUEST, "")], "")).await;
    let arguments = r#"{"text":"x","added-later":{"a":[1]}}"#;
    let refused = bench.request(ECHO, arguments).await;
    let body: wire::ErrorBody = serde_json::from_slice(&refused.payload).unwrap();
    assert_eq!(body.error.code, 400);
    assert!(body.error.message.contains("added-later"), "{body:?}");
    let mut headers = HeaderMap::new();
    headers.insert("bay-caller", "orders");
    let reply = bench
        .client
        .request_with_headers(ECHO, headers, arguments.into());
    assert_eq!(&*reply.await.unwrap().payload, br#""x""#);
    bench.end().await;
}

#[tokio::test]
async fn a_reply_that_does_not_decode_names_the_service_that_sent_it() {
    let external = "[wire.\"test:other/api\"]\nexternal = true\n";
    let bench = bench(&Services(&[("caller", CALLER, "")], external)).await;
    let typed = "(func $ask (param \"n\" u32) (result u32)";
    let other = OTHER.replace(typed, &typed.replace("result u32", "result bool"));
    assert_ne!(other, OTHER);
    let host = start(bench.nats.url(), &Services(&[("other", &other, "")], "")).await;
    let ask = "bay.app.test.caller.api.v1.ask";
    // The second one is told what was found for the first.
    for _ in 0..2 {
        let reply = bench.request(ask, r#"{"n":41}"#).await;
        let body: wire::ErrorBody = serde_json::from_slice(&reply.payload).unwrap();
        assert_eq!(body.error.code, 502);
        let message = body.error.message;
        let named = "it has another type in service \"other\" (digest ";
        assert!(message.contains(named), "{message}");
        let why = "result: a `u32` is expected and a `bool` comes";
        assert!(message.contains(why), "{message}");
    }
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.end().await;
}

#[tokio::test]
async fn no_reply_goes_where_its_sender_may_not_publish() {
    let bench = bench(&Services(&[("guest", GUEST, ""), ("other", OTHER, "")], "")).await;
    let context = jetstream::new(bench.client.clone());
    let victim = jetstream::stream::Config {
        name: "victim".to_owned(),
        subjects: vec!["victim".to_owned()],
        ..jetstream::stream::Config::default()
    };
    context.create_stream(victim).await.unwrap();
    let mut forged = bench
        .client
        .subscribe("bay.app.test.forged.api.v1.refund")
        .await
        .unwrap();
    for reply in [
        "$JS.API.STREAM.DELETE.victim",
        "bay.app.test.forged.api.v1.refund",
        "bay-replay.app.guest.x",
    ] {
        for subject in [COUNT, "bay.app.test.guest.api.v1.trap", "$SRV.PING"] {
            let sent = bench.client.publish_with_reply(subject, reply, "".into());
            sent.await.unwrap();
        }
    }
    // An honest call comes after them, and its reply too.
    assert_eq!(bench.text(ECHO, r#"{"text":"x"}"#).await, r#""x""#);
    context.get_stream("victim").await.unwrap();
    let next = futures_util::StreamExt::next(&mut forged);
    assert!(
        tokio::time::timeout(Duration::from_millis(100), next)
            .await
            .is_err(),
        "a call was forged"
    );
    bench.end().await;
}

/// `GUEST` or another component, with its interface in another version.
fn at_version(text: &str, interface: &str, version: &str) -> String {
    let other = text.replace(
        &format!("{interface}@1.0.0"),
        &format!("{interface}@{version}"),
    );
    assert_ne!(other, text);
    other
}

#[tokio::test]
async fn a_call_under_way_finds_the_version_that_it_began_with() {
    // A caller that waits for `test:other/api@1`, while both go to version 2.
    let slow = SLOW_OTHER;
    let bench = bench(&Services(
        &[("caller", CALLER, ""), ("other", slow, "")],
        "",
    ))
    .await;
    let ask = "bay.app.test.caller.api.v1.ask";
    let calls: Vec<_> = (0..5)
        .map(|n| {
            let client = bench.client.clone();
            let body = format!(r#"{{"n":{n}}}"#);
            tokio::spawn(async move { client.request(ask, body.into()).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(150)).await;
    let (caller, other) = (
        at_version(CALLER, "test:other/api", "2.0.0"),
        at_version(OTHER, "test:other/api", "2.0.0"),
    );
    let newer = Services(&[("caller", &caller, ""), ("other", &other, "")], "");
    apply(&bench.host, &newer).await.unwrap();
    for call in calls {
        let reply = call.await.unwrap().unwrap();
        assert_eq!(reply.headers, None, "{reply:?}");
    }
    assert_eq!(bench.text(ask, r#"{"n":41}"#).await, "42");
    bench.end().await;
}

/// As `OTHER`, but `ask` waits half a second on a clock of WASI's.
const SLOW_OTHER: &str = r#"
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (alias outer 1 $pollable (type $outer))
    (export "pollable" (type $p (eq $outer)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core func $drop (canon resource.drop $pollable))
  (core module $code
    (import "wasi" "block" (func $block (param i32)))
    (import "wasi" "subscribe" (func $subscribe (param i64) (result i32)))
    (import "wasi" "drop" (func $drop (param i32)))
    (memory (export "memory") 1)
    (func (export "try") (param i32) (result i32) unreachable)
    (func (export "ask") (param $n i32) (result i32)
      (local $pollable i32)
      (local.set $pollable (call $subscribe (i64.const 500000000)))
      (call $block (local.get $pollable))
      (call $drop (local.get $pollable))
      (i32.add (local.get $n) (i32.const 1))))
  (core instance $core (instantiate $code
    (with "wasi" (instance
      (export "block" (func $block))
      (export "subscribe" (func $subscribe))
      (export "drop" (func $drop))))))
  (func $try (param "n" u32) (result (result u32 (error string)))
    (canon lift (core func $core "try") (memory (core memory $core "memory"))))
  (func $ask (param "n" u32) (result u32) (canon lift (core func $core "ask")))
  (instance $api (export "try" (func $try)) (export "ask" (func $ask)))
  (export "test:other/api@1.0.0" (instance $api)))
"#;
