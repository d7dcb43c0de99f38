//! Messages of components that were written for `wasi:messaging`: a real guest on a real
//! nats-server.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use futures_util::StreamExt;
use wasmbay::micro::{Answer, EndpointStats, Verb};
use wasmbay::runtime::Component;
use wasmbay::runtime::{Engine, EngineOptions};
use wasmbay::wire;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::examples::{guest, root};
use crate::messaging::as_text;
use crate::support::apps::{Bench, Services, bench};
use crate::support::{DEADLINE, assert_no_message};

const GRANTS: &str = "grants = { publish = [\"out.>\"], subscribe = [\"in.*\"] }\n";
const LIMITS: &str = "limits = { timeout = \"2s\", memory = \"8MiB\", message = \"64KiB\" }";

/// `guests/rust/courier` in the text format.
pub(crate) fn courier() -> &'static str {
    static COURIER: OnceLock<String> = OnceLock::new();
    COURIER.get_or_init(|| as_text(&guest("guests/rust/courier")))
}

async fn courier_with(lines: &str) -> Bench {
    bench(&Services(&[("courier", courier(), lines)], "")).await
}

async fn start() -> Bench {
    courier_with(&format!("{GRANTS}{LIMITS}")).await
}

#[tokio::test]
async fn a_message_is_handled_and_replied_to() {
    let bench = start().await;
    assert_eq!(bench.text("in.x", "hello").await, "hello");
    let mut headers = HeaderMap::new();
    headers.insert("Sku", "7");
    headers.append("Sku", "8");
    headers.insert("Content-Type", "text/plain");
    headers.insert(
        wire::TRACEPARENT,
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    headers.insert(wire::CALLER, "another");
    headers.insert("Nats-Msg-Id", "1");
    let reply = bench
        .client
        .request_with_headers("in.x", headers, "headers".into());
    assert_eq!(
        reply.await.unwrap().payload,
        r#"Some("in.x") Some("text/plain") [("Sku", "7"), ("Sku", "8")]"#
    );
    let bare = bench.text("in.x", "headers").await;
    assert_eq!(bare, r#"Some("in.x") None []"#);
    // Without a reply subject.
    bench.client.publish("in.x", "hello".into()).await.unwrap();
    assert_eq!(bench.text("in.x", "hello").await, "hello");
    bench.end().await;
}

#[tokio::test]
async fn a_message_is_sent_with_what_the_guest_and_the_host_add_to_it() {
    let bench = start().await;
    let mut out = bench.client.subscribe("out.a.b").await.unwrap();
    bench.client.flush().await.unwrap();
    assert_eq!(bench.text("in.x", "send out.a.b some text").await, "sent");
    let message = tokio::time::timeout(DEADLINE, out.next()).await;
    let message = message.unwrap().unwrap();
    assert_eq!(
        (&*message.payload, message.reply),
        (&b"some text"[..], None)
    );
    let headers = message.headers.unwrap();
    let chosen: Vec<_> = headers
        .iter()
        .filter(|(name, _)| !wire::is_own_header(name.as_ref()))
        .map(|(name, values)| (name.to_string(), values[0].to_string()))
        .collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(chosen.len(), 2, "{chosen:?}");
    for pair in [pair("Sku", "8"), pair("Content-Type", "text/plain")] {
        assert!(chosen.contains(&pair), "{chosen:?}");
    }
    assert_eq!(headers.get(wire::CALLER).unwrap().as_str(), "courier");
    assert_eq!(headers.get(wire::HOPS).unwrap().as_str(), "1");
    bench.end().await;
}

#[tokio::test]
async fn what_is_not_granted_or_makes_no_sense_is_refused() {
    let bench = start().await;
    let not_granted = "Error::PermissionDenied(\"\\\"else\\\" is not granted; \
                       `grants = { publish = [\\\"else\\\"] }` would allow it\")";
    for (command, why) in [
        ("send else x", not_granted),
        ("ask else", not_granted),
        (
            "send $JS.API.INFO x",
            "Error::PermissionDenied(\"\\\"$JS.API.INFO\\\" cannot be granted\")",
        ),
        (
            "send out.* x",
            "Error::Other(\"\\\"out.*\\\" is no subject\")",
        ),
        (
            "leave out.a",
            "Error::Connection(\"the client is disconnected\")",
        ),
        ("connect default", "connected"),
        (
            "connect kafka",
            "Error::PermissionDenied(\"there is no client \\\"kafka\\\", only \\\"default\\\"\")",
        ),
        ("set Sku 7", "set"),
        (
            "set Nats-Msg-Id 7",
            "\"Nats-Msg-Id\" is for the host to set",
        ),
        ("set bay-hops 0", "\"bay-hops\" is for the host to set"),
        (
            "set traceparent 0",
            "\"traceparent\" is for the host to set",
        ),
        ("set a:b 7", "\"a:b\" is no name of a header"),
        (
            "set Sku 7\r\nBay-Hops: 0",
            "the value of \"Sku\" has a line break",
        ),
        (
            "ask out.a 0",
            "Error::Other(\"0 replies cannot be expected; accepted: 1 to 1000\")",
        ),
        (
            "ask out.a 1001",
            "Error::Other(\"1001 replies cannot be expected; accepted: 1 to 1000\")",
        ),
    ] {
        assert_eq!(bench.text("in.x", command).await, why, "{command:?}");
    }
    let elsewhere = bench.client.request("in.one.two", "x".into()).await;
    assert!(
        elsewhere.is_err(),
        "a subject that is not granted has a subscriber"
    );
    bench.end().await;
}

#[tokio::test]
async fn a_request_returns_the_replies_that_are_expected_or_come_in_time() {
    let bench = start().await;
    for service in ["one", "two", "three"] {
        let mut asked = bench.client.subscribe("out.ask").await.unwrap();
        let client = bench.client.clone();
        tokio::spawn(async move {
            while let Some(message) = asked.next().await {
                assert_eq!(message.payload, "question");
                let reply = message.reply.unwrap();
                client.publish(reply, service.into()).await.unwrap();
            }
        });
    }
    let mut large = bench.client.subscribe("out.large").await.unwrap();
    let mut silent = bench.client.subscribe("out.silent").await.unwrap();
    bench.client.flush().await.unwrap();
    let client = bench.client.clone();
    tokio::spawn(async move {
        while let Some(message) = large.next().await {
            let body = vec![b'x'; 40 << 10];
            let reply = message.reply.unwrap();
            client
                .publish(reply.clone(), body.clone().into())
                .await
                .unwrap();
            client.publish(reply, body.into()).await.unwrap();
        }
    });
    let replies = async |command: &str| {
        let text = bench.text("in.x", command).await;
        text.split('+').count()
    };
    assert_eq!(replies("ask out.ask").await, 1);
    assert_eq!(replies("ask out.ask 1").await, 1);
    assert_eq!(replies("ask out.ask 2").await, 2);
    let began = Instant::now();
    assert_eq!(replies("ask out.ask 3").await, 3);
    assert!(began.elapsed() < Duration::from_secs(1), "it waited on");
    assert_eq!(replies("ask out.ask 4").await, 3);

    for count in ["1", "2"] {
        let asked = bench.text("in.x", &format!("ask out.silent {count}")).await;
        assert_eq!(asked, "Error::Timeout");
        assert!(silent.next().await.is_some());
        let asked = bench.text("in.x", &format!("ask out.none {count}")).await;
        assert_eq!(asked, "Error::Connection(\"no responders on out.none\")");
    }
    assert_eq!(replies("ask out.large 1").await, 1);
    let asked = bench.text("in.x", "ask out.large 2").await;
    assert_eq!(
        asked,
        "Error::Other(\"the reply has 40960 bytes, 24576 are allowed\")"
    );
    // Without options it waits until the handler's own time is nearly over; whether that is enough
    // for a reply is left to the machine.
    let before = bench
        .stats_when("courier", |stats| stats.num_requests == 11)
        .await;
    bench
        .client
        .publish("in.x", "ask out.silent".into())
        .await
        .unwrap();
    let asked = |stats: &EndpointStats| stats.num_requests > before.num_requests;
    let after = bench.stats_when("courier", asked).await;
    let took = Duration::from_nanos(after.processing_time - before.processing_time);
    assert!(took > Duration::from_millis(1_900), "{took:?}");
    bench.end().await;
}

/// The sender of a message chooses the reply subject, which could be one that only a host may write.
#[tokio::test]
async fn a_reply_never_goes_to_a_subject_of_the_host() {
    let bench = start().await;
    let mut calls = bench.client.subscribe("bay.>").await.unwrap();
    let sent =
        bench
            .client
            .publish_with_reply("in.x", "bay.app.test.guest.api.v1.count", "a text".into());
    sent.await.unwrap();
    bench
        .stats_when("courier", |stats| stats.num_requests == 1)
        .await;
    assert_no_message(&bench.client, &mut calls).await;
    bench.end().await;
}

#[tokio::test]
async fn a_handler_is_discovered_on_its_granted_subject() {
    let bench = start().await;
    let ask = format!("{}.courier", Verb::Info.subject());
    let answer: Answer = serde_json::from_str(&bench.text(&ask, "").await).unwrap();
    let endpoint = answer.endpoints.unwrap().remove(0);
    let called = (&*endpoint.name, &*endpoint.subject);
    assert_eq!(called, ("incoming-handler-handle", "in.*"));
    bench.end().await;
}

#[tokio::test]
async fn what_the_host_keeps_for_a_guest_counts_as_its_memory() {
    let bench = start().await;
    assert_eq!(bench.text("in.x", "keep 2").await, "kept");
    bench.client.publish("in.x", "keep 9".into()).await.unwrap();
    let failed = bench
        .stats_when("courier", |stats| stats.num_errors == 1)
        .await;
    let reached = "reached its memory limit of 8388608 bytes";
    assert!(failed.last_error.contains(reached), "{}", failed.last_error);
    for failing in ["fail today", "trap"] {
        bench.client.publish("in.x", failing.into()).await.unwrap();
    }
    assert_eq!(bench.text("in.x", "again").await, "again");
    let stats = bench
        .stats_when("courier", |stats| stats.num_requests == 5)
        .await;
    // What the guest itself returns is a result.
    assert_eq!(stats.num_errors, 2);
    bench.end().await;
}

/// Adds a header to a reply, tries to add one of NATS', and replies with what came of that.
const EARLIER: &str = r#"
(module
  (import "wasi:messaging/types@0.2.0-draft" "[constructor]message" (func $new (param i32 i32) (result i32)))
  (import "wasi:messaging/types@0.2.0-draft" "[method]message.add-metadata"
    (func $add (param i32 i32 i32 i32 i32)))
  (import "wasi:messaging/request-reply@0.2.0-draft" "reply" (func $reply (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "Sku")
  (data (i32.const 32) "7")
  (data (i32.const 48) "Nats-Msg-Id")
  (global $free (mut i32) (i32.const 4096))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $at) (local.get 3)))
    (local.get $at))
  (func (export "wasi:messaging/incoming-handler@0.2.0-draft#handle") (param $to i32) (result i32)
    (local $new i32)
    (local.set $new (call $new (i32.const 32) (i32.const 1)))
    (call $add (local.get $new) (i32.const 16) (i32.const 3) (i32.const 32) (i32.const 1))
    (call $reply (local.get $to) (local.get $new) (i32.const 64))
    (local.set $new (call $new (i32.const 32) (i32.const 1)))
    (call $add (local.get $new) (i32.const 48) (i32.const 11) (i32.const 32) (i32.const 1))
    (call $reply (local.get $to) (local.get $new) (i32.const 64))
    (call $reply (local.get $to)
      (call $new (i32.load (i32.const 72)) (i32.load (i32.const 76))) (i32.const 96))
    (i32.store8 (i32.const 64) (i32.const 0))
    (i32.const 64)))
"#;

/// A module with the interfaces' WIT, which `edit` has changed.
fn component(module: &str, edit: impl Fn(String) -> String) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let interfaces = std::fs::read_to_string(root().join("wit/deps/wasi-messaging.wit"));
    resolve
        .push_str("messaging.wit", &edit(interfaces.unwrap()))
        .unwrap();
    let world = "package test:earlier; world earlier { import wasi:messaging/request-reply@0.2.0-draft; \
                 export wasi:messaging/incoming-handler@0.2.0-draft; }";
    let package = resolve.push_str("earlier.wit", world).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default()
        .module(&module)
        .unwrap()
        .validate(true)
        .encode()
        .unwrap()
}

#[tokio::test]
async fn a_component_of_the_earlier_interface_without_errors_of_setters_runs() {
    let bytes = component(EARLIER, |wit| {
        wit.replace(" -> result<_, metadata-error>", "").replace(
            "set-content-type: func(content-type: string) -> result;",
            "set-content-type: func(content-type: string);",
        )
    });
    let text = as_text(&bytes);
    let bench = bench(&Services(&[("earlier", &text, GRANTS)], "")).await;
    let inbox = bench.client.new_inbox();
    let mut replies = bench.client.subscribe(inbox.clone()).await.unwrap();
    let sent = bench.client.publish_with_reply("in.x", inbox, "".into());
    sent.await.unwrap();
    let mut next = async || {
        let reply = tokio::time::timeout(DEADLINE, replies.next()).await;
        reply.unwrap().unwrap()
    };
    let first = next().await;
    assert_eq!(first.payload, "7");
    assert_eq!(first.headers.unwrap().get("Sku").unwrap().as_str(), "7");
    let second = next().await;
    assert_eq!(second.payload, "\"Nats-Msg-Id\" is for the host to set");
    bench.end().await;
}

#[test]
fn a_handler_of_another_type_is_refused_by_name() {
    let engine = Engine::new(EngineOptions {
        instances: 1,
        cache: None,
    });
    let handler = r#"(module
      (memory (export "memory") 1)
      (func (export "wasi:messaging/incoming-handler@0.2.0-draft#handle") (param i32) (result i32) (i32.const 0)))"#;
    let bytes = component(handler, |wit| wit.replace("timeout,\n", "late,\n"));
    let refused = Component::new(&engine.unwrap(), &bytes).err().unwrap();
    assert_eq!(
        refused.to_string(),
        "export wasi:messaging/incoming-handler@0.2.0-draft: it has to have `handle: func(message: message) -> \
         result<_, error>` and nothing else"
    );
}
