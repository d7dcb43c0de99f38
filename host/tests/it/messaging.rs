//! Messages: a component that was written for `wasmcloud:messaging`, on a real nats-server.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use futures_util::StreamExt;
use wasmbay::micro::{Answer, Verb};
use wasmbay::runtime::{Component, ComponentError};
use wasmbay::runtime::{Engine, EngineOptions};
use wasmbay::wire;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::support::apps::{Bench, Services, apply, bench, start};
use crate::support::cli::Cli;
use crate::support::components::GUEST;
use crate::support::nats::Nats;
use crate::support::{DEADLINE, assert_no_message, until};

/// The first byte of a message is a command, the rest its subject or text, and the outcome is the
/// reply; any other message is sent back as it is.
const RELAY: &str = r#"
(module
  (import "wasmcloud:messaging/consumer@0.2.0" "publish"
    (func $publish (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "wasmcloud:messaging/consumer@0.2.0" "request"
    (func $request (param i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 4)
  (data (i32.const 1024) "sent")
  (data (i32.const 1040) "question")
  (data (i32.const 1056) "bay.app.test.guest.api.v1.count")
  (global $free (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "cabi_post_wasmcloud:messaging/handler@0.2.0#handle-message") (param i32)
    (global.set $free (i32.const 4096)))
  (func $reply (param $to i32) (param $to-len i32) (param $body i32) (param $len i32)
    (call $publish (local.get $to) (local.get $to-len) (local.get $body) (local.get $len)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 64)))
  (func (export "wasmcloud:messaging/handler@0.2.0#handle-message")
    (param $subject i32) (param $subject-len i32) (param $body i32) (param $len i32)
    (param $asked i32) (param $to i32) (param $to-len i32) (result i32)
    (local $kind i32) (local $rest i32) (local $rest-len i32)
    (if (local.get $len) (then
      (local.set $kind (i32.load8_u (local.get $body)))
      (local.set $rest (i32.add (local.get $body) (i32.const 1)))
      (local.set $rest-len (i32.sub (local.get $len) (i32.const 1)))))
    ;; p: publishes "sent" on the subject. q: the same, with replies to the guest's own subject.
    (if (i32.or (i32.eq (local.get $kind) (i32.const 112)) (i32.eq (local.get $kind) (i32.const 113))) (then
      (call $publish (local.get $rest) (local.get $rest-len) (i32.const 1024) (i32.const 4)
        (i32.eq (local.get $kind) (i32.const 113)) (i32.const 1056) (i32.const 31) (i32.const 32))
      (if (i32.load8_u (i32.const 32))
        (then (call $reply (local.get $to) (local.get $to-len) (i32.load (i32.const 36)) (i32.load (i32.const 40))))
        (else (call $reply (local.get $to) (local.get $to-len) (i32.const 1024) (i32.const 4))))
      (i32.store8 (i32.const 16) (i32.const 0))
      (return (i32.const 16))))
    ;; r: asks "question" for 300 ms and passes the answer on.
    (if (i32.eq (local.get $kind) (i32.const 114)) (then
      (call $request (local.get $rest) (local.get $rest-len) (i32.const 1040) (i32.const 8)
        (i32.const 300) (i32.const 128))
      (if (i32.load8_u (i32.const 128))
        (then (call $reply (local.get $to) (local.get $to-len) (i32.load (i32.const 132)) (i32.load (i32.const 136))))
        (else (call $reply (local.get $to) (local.get $to-len) (i32.load (i32.const 140)) (i32.load (i32.const 144)))))
      (i32.store8 (i32.const 16) (i32.const 0))
      (return (i32.const 16))))
    ;; e: returns the rest as its error.
    (if (i32.eq (local.get $kind) (i32.const 101)) (then
      (i32.store8 (i32.const 16) (i32.const 1))
      (i32.store (i32.const 20) (local.get $rest))
      (i32.store (i32.const 24) (local.get $rest-len))
      (return (i32.const 16))))
    ;; t: traps. s: spins.
    (if (i32.eq (local.get $kind) (i32.const 116)) (then unreachable))
    (if (i32.eq (local.get $kind) (i32.const 115)) (then (loop $again (br $again))))
    (if (local.get $asked) (then
      (call $reply (local.get $to) (local.get $to-len) (local.get $body) (local.get $len))))
    (i32.store8 (i32.const 16) (i32.const 0))
    (i32.const 16)))
"#;

/// The module as the usual tools make a component of it, with the interface's own WIT.
fn component(module: &str) -> String {
    let mut resolve = Resolve::default();
    let interfaces = include_str!("../../../wit/deps/wasmcloud-messaging.wit");
    resolve.push_str("messaging.wit", interfaces).unwrap();
    let world = "package test:relay; world relay { import wasmcloud:messaging/consumer@0.2.0; \
                 export wasmcloud:messaging/handler@0.2.0; }";
    let package = resolve.push_str("relay.wit", world).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    let binary = ComponentEncoder::default()
        .module(&module)
        .unwrap()
        .validate(true)
        .encode()
        .unwrap();
    as_text(&binary)
}

/// The binary as the text format has one, since apps of tests are made of texts.
pub(crate) fn as_text(binary: &[u8]) -> String {
    let bytes: String = binary.iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(component binary \"{bytes}\")")
}

pub(crate) fn relay() -> &'static str {
    static RELAY_COMPONENT: OnceLock<String> = OnceLock::new();
    RELAY_COMPONENT.get_or_init(|| component(RELAY))
}

const GRANTS: &str = "grants = { publish = [\"out.>\"], subscribe = [\"in.*\", \"audit.>\"] }\nlimits = { timeout = \"2s\" }";

async fn relay_with(lines: &str) -> Bench {
    bench(&Services(&[("relay", relay(), lines)], "")).await
}

#[tokio::test]
async fn a_message_is_handled_and_replied_to_by_the_guest() {
    let bench = relay_with(GRANTS).await;
    assert_eq!(bench.text("in.one", "hello").await, "hello");
    assert_eq!(bench.text("audit.a.b", "").await, "");
    let reply = bench.request("in.one", "x").await;
    let headers = reply.headers.unwrap();
    assert_eq!(headers.get(wire::CALLER).unwrap().as_str(), "relay");
    assert_eq!(headers.get(wire::HOPS).unwrap().as_str(), "1");

    let elsewhere = bench.client.request("in.one.two", "x".into()).await;
    assert!(
        elsewhere.is_err(),
        "a subject that is not granted has a subscriber"
    );

    // Counted and discovered as a micro service on its granted subjects.
    let ask = bench
        .text(&format!("{}.relay", Verb::Stats.subject()), "")
        .await;
    let answer: Answer = serde_json::from_str(&ask).unwrap();
    let endpoints = answer.endpoints.unwrap();
    let subjects: Vec<_> = endpoints.iter().map(|e| e.subject.as_str()).collect();
    assert_eq!(subjects, ["in.*", "audit.>"]);
    assert_eq!(endpoints[0].stats.as_ref().unwrap().num_requests, 3);
    bench.end().await;
}

#[tokio::test]
async fn each_service_gets_a_message_once_with_two_workers() {
    let nats = Nats::start().await;
    let services = Services(&[("one", relay(), GRANTS), ("two", relay(), GRANTS)], "");
    let host = start(nats.url(), &services).await;
    let client = nats.connect().await;
    let mut out = client.subscribe("out.*").await.unwrap();
    let inbox = client.new_inbox();
    client
        .publish_with_reply("in.x", inbox, "pout.x".into())
        .await
        .unwrap();
    let mut callers = Vec::new();
    for _ in 0..2 {
        let message = tokio::time::timeout(DEADLINE, out.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(message.payload, "sent");
        callers.push(
            message
                .headers
                .unwrap()
                .get(wire::CALLER)
                .unwrap()
                .to_string(),
        );
    }
    callers.sort();
    assert_eq!(callers, ["one", "two"]);
    assert!(host.stop(DEADLINE).await.is_complete());
    assert_no_message(&client, &mut out).await;
    nats.stop().await;
}

#[tokio::test]
async fn only_granted_subjects_are_published_on() {
    let bench = relay_with(GRANTS).await;
    let mut out = bench.client.subscribe("out.a.b").await.unwrap();
    bench.client.flush().await.unwrap();
    assert_eq!(bench.text("in.x", "pout.a.b").await, "sent");
    let message = tokio::time::timeout(DEADLINE, out.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((&message.payload[..], message.reply), (&b"sent"[..], None));

    for (command, why) in [
        (
            "pelse",
            "\"else\" is not granted; `grants = { publish = [\"else\"] }` would allow it",
        ),
        (
            "relse",
            "\"else\" is not granted; `grants = { publish = [\"else\"] }` would allow it",
        ),
        (
            "pbay.app.test.guest.api.v1.count",
            "\"bay.app.test.guest.api.v1.count\" cannot be granted",
        ),
        ("p$JS.API.INFO", "\"$JS.API.INFO\" cannot be granted"),
        ("p_INBOX.other", "\"_INBOX.other\" cannot be granted"),
        ("pout.*", "\"out.*\" is no subject"),
        (
            "pout.a\r\nPUB x 0\r\n",
            "\"out.a\\r\\nPUB x 0\\r\\n\" is no subject",
        ),
        // The reply would be written with the permissions of the receiver.
        (
            "qout.a.b",
            "\"bay.app.test.guest.api.v1.count\" cannot be granted",
        ),
    ] {
        assert_eq!(bench.text("in.x", command).await, why, "{command:?}");
    }
    bench.end().await;
}

/// The sender of a message chooses the reply subject, which could be one that only a host may write.
#[tokio::test]
async fn a_reply_never_goes_to_a_subject_of_the_host() {
    let bench = relay_with(GRANTS).await;
    let mut calls = bench.client.subscribe("bay.>").await.unwrap();
    let mut api = bench.client.subscribe("$JS.x").await.unwrap();
    let echo = async |to: &str| {
        let sent = bench
            .client
            .publish_with_reply("in.x", to.to_owned(), "a text".into());
        sent.await.unwrap();
    };
    echo("bay.app.test.guest.api.v1.count").await;
    echo("$JS.x").await;
    bench
        .stats_when("relay", |stats| stats.num_requests == 2)
        .await;
    assert_no_message(&bench.client, &mut calls).await;
    assert_no_message(&bench.client, &mut api).await;
    bench.end().await;
}

#[tokio::test]
async fn a_request_returns_the_reply_or_why_there_is_none() {
    let bench = relay_with(GRANTS).await;
    let mut asked = bench.client.subscribe("out.ask").await.unwrap();
    let mut silent = bench.client.subscribe("out.silent").await.unwrap();
    bench.client.flush().await.unwrap();
    let client = bench.client.clone();
    let answering = tokio::spawn(async move {
        let message = asked.next().await.unwrap();
        assert_eq!(message.payload, "question");
        client
            .publish(message.reply.unwrap(), "answer".into())
            .await
            .unwrap();
    });
    assert_eq!(bench.text("in.x", "rout.ask").await, "answer");
    answering.await.unwrap();

    let began = Instant::now();
    assert_eq!(
        bench.text("in.x", "rout.silent").await,
        "out.silent did not answer in time"
    );
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_secs(2),
        "{took:?}"
    );
    assert!(silent.next().await.is_some());
    assert_eq!(
        bench.text("in.x", "rout.none").await,
        "no responders on out.none"
    );
    bench.end().await;
}

#[tokio::test]
async fn a_guest_that_fails_costs_its_message_and_nothing_else() {
    let bench = relay_with(GRANTS).await;
    let mut headers = HeaderMap::new();
    headers.insert(wire::HOPS, "17");
    bench
        .client
        .publish_with_headers("in.x", headers, "of a circle".into())
        .await
        .unwrap();
    for failing in ["enot today", "t", "s"] {
        bench.client.publish("in.x", failing.into()).await.unwrap();
    }
    assert_eq!(bench.text("in.x", "again").await, "again");
    let stats = bench.stats_when("relay", |stats| stats.num_requests == 5);
    let stats = stats.await;
    // The guest's own error is a result; the trap, and what ran out of hops or time, are none.
    assert_eq!(stats.num_errors, 3);
    assert!(stats.last_error.starts_with("504:"), "{}", stats.last_error);
    bench.end().await;
}

#[tokio::test]
async fn the_error_of_a_handler_and_a_refused_subject_are_logged() {
    let nats = Nats::start().await;
    let manifest =
        format!("name = \"app\"\n[service.relay]\ncomponent = \"relay.wasm\"\n{GRANTS}\n");
    let files = [("wasmbay.toml", &*manifest), ("relay.wasm", relay())];
    let cli = Cli::new().with(&files);
    let up = cli.up(&["--no-gateway", "--nats", nats.url()]);
    let client = nats.connect().await;
    client.publish("in.x", "enot today".into()).await.unwrap();
    client
        .publish_with_reply("in.x", "$JS.x", "pelse".into())
        .await
        .unwrap();
    until("it is logged", || {
        let log = up.stderr();
        let has = |words: &[&str]| {
            log.lines()
                .any(|line| words.iter().all(|w| line.contains(w)))
        };
        has(&[
            "WARN",
            "an event or message failed",
            "relay",
            "in.x",
            "not today",
        ]) && has(&["WARN", "a message was refused", "\"else\" is not granted"])
            && has(&[
                "WARN",
                "a message was refused",
                "\"$JS.x\" cannot be granted",
            ])
    })
    .await;
    drop(up);
    nats.stop().await;
}

#[tokio::test]
async fn what_waits_when_a_host_stops_is_not_answered_for_the_guest() {
    let bench = relay_with("grants = { subscribe = [\"in.*\"] }").await;
    let inbox = bench.client.new_inbox();
    let mut replies = bench.client.subscribe(inbox.clone()).await.unwrap();
    bench
        .client
        .publish_with_reply("in.x", inbox, "s".into())
        .await
        .unwrap();
    bench.client.flush().await.unwrap();
    let ask = format!("{}.relay", Verb::Stats.subject());
    // The directory is on the same server, so the message is under way when it has answered.
    bench.text(&ask, "").await;
    bench.host.stop(Duration::ZERO).await;
    assert_no_message(&bench.client, &mut replies).await;
    bench.nats.stop().await;
}

#[tokio::test]
async fn grants_change_while_messages_flow() {
    let bench = relay_with(GRANTS).await;
    let lines = "grants = { subscribe = [\"new.*\"] }";
    apply(
        &bench.host,
        &Services(&[("relay", relay(), lines), ("guest", GUEST, "")], ""),
    )
    .await
    .unwrap();
    assert_eq!(bench.text("new.x", "hello").await, "hello");
    // The old subscription ends in the background.
    let deadline = Instant::now() + DEADLINE;
    while bench.client.request("in.x", "hello".into()).await.is_ok() {
        assert!(Instant::now() < deadline, "it still has what it lost");
    }
    let denied = bench.text("new.x", "pout.a").await;
    assert!(denied.contains("not granted"), "{denied}");
    bench.end().await;
}

#[test]
fn a_handler_of_another_type_is_refused_by_name() {
    let engine = Engine::new(EngineOptions {
        instances: 1,
        cache: None,
    });
    let text = r#"(component
      (core module $code (func (export "f")))
      (core instance $core (instantiate $code))
      (func $f (canon lift (core func $core "f")))
      (instance $api (export "handle-message" (func $f)))
      (export "wasmcloud:messaging/handler@0.2.0" (instance $api)))"#;
    let refused = Component::new(&engine.unwrap(), text.as_bytes())
        .err()
        .unwrap();
    assert!(
        matches!(refused, ComponentError::Unwirable { .. }),
        "{refused}"
    );
    assert_eq!(
        refused.to_string(),
        "export wasmcloud:messaging/handler@0.2.0: it has to have `handle-message: func(msg: record { subject: \
         string, body: list<u8>, reply-to: option<string> }) -> result<_, string>` and nothing else"
    );
}
