//! A service between two that share an interface: it exports what it imports, and says who answers it.

use futures_util::future::join_all;
use tokio::sync::Notify;
use wasmbay::micro::{Answer, Verb};

use crate::support::DEADLINE;
use crate::support::apps::{Bench, Services, apply, bench};
use crate::support::components::{OTHER, PASSES_ON};

const FRONT: &str = "bay.app.test.front.api.v1.ask";
const ASK: &str = "bay.app.test.other.api.v1.ask";

/// `ask` adds 100 to what another service says: two that were passed through add 200.
fn audit() -> String {
    PASSES_ON.replace(
        "(call $ask (local.get 0))",
        "(i32.add (call $ask (local.get 0)) (i32.const 100))",
    )
}

/// As [`audit`], as an interface of its own.
fn front() -> String {
    let export = "(export \"test:other/api@1.0.0\" (instance $api))";
    audit().replace(export, "(export \"test:front/api@1.0.0\" (instance $api))")
}

/// The lines by which a service chooses another one.
fn to(service: &str) -> String {
    format!("[service.audit.wire]\n\"test:other/api\" = \"{service}\"\n")
}

const AUDITED: &str = "[wire.\"test:other/api\"]\nservice = \"audit\"\n";

#[tokio::test]
async fn a_service_between_two_is_called_by_all_but_itself() {
    let (front, audit, to_plain) = (front(), audit(), to("plain"));
    let services = Services(
        &[
            ("front", &front, ""),
            ("audit", &audit, &to_plain),
            ("plain", OTHER, ""),
        ],
        AUDITED,
    );
    let bench = bench(&services).await;
    assert_eq!(bench.text(FRONT, "[1]").await, "202");
    assert_eq!(bench.text(ASK, "[1]").await, "102");
    // Below `_` no client is that has a permission for the package alone.
    let of_plain = "bay.app._.plain.test.other.api.v1.ask";
    assert_eq!(bench.text(of_plain, "[1]").await, "2");
    let subjects = async |service: &str| {
        let ask = format!("{}.{service}", Verb::Info.subject());
        let answer: Answer = serde_json::from_str(&bench.text(&ask, "").await).unwrap();
        let endpoints = answer.endpoints.unwrap().into_iter();
        endpoints.map(|one| one.subject).collect::<Vec<_>>()
    };
    assert_eq!(subjects("audit").await, [ASK]);
    let of_try = "bay.app._.plain.test.other.api.v1.try";
    assert_eq!(subjects("plain").await, [of_plain, of_try]);
    bench.end().await;
}

#[tokio::test]
async fn another_choice_holds_when_it_is_applied() {
    let (front, audit) = (front(), audit());
    let choice = "[service.front.wire]\n\"test:other/api\" = \"plain\"\n";
    let to_plain = to("plain");
    let services = [
        ("front", &*front, ""),
        ("audit", &*audit, &*to_plain),
        ("plain", OTHER, ""),
    ];
    let bench = bench(&Services(&services, AUDITED)).await;
    assert_eq!(bench.text(FRONT, "[1]").await, "202");
    let [_, audit, plain] = services;
    let chosen = [("front", &*front, choice), audit, plain];
    apply(&bench.host, &Services(&chosen, AUDITED))
        .await
        .unwrap();
    assert_eq!(bench.text(FRONT, "[1]").await, "102");
    // Nothing is between them any more.
    let without = [("front", &*front, ""), plain];
    apply(&bench.host, &Services(&without, "")).await.unwrap();
    assert_eq!(bench.text(FRONT, "[1]").await, "102");
    assert_eq!(bench.text(ASK, "[1]").await, "2");
    bench.end().await;
}

#[tokio::test]
async fn calls_through_two_services_end_while_the_host_stops() {
    let (audit, to_cache) = (audit(), to("cache"));
    let of_cache = "[service.cache.wire]\n\"test:other/api@1.0.0\" = \"plain\"\n";
    let services = Services(
        &[
            ("audit", &audit, &to_cache),
            ("cache", &audit, of_cache),
            ("plain", OTHER, ""),
        ],
        AUDITED,
    );
    let Bench { nats, host, client } = bench(&services).await;
    let first = Notify::new();
    let calls = (0..200).map(async |n| {
        let reply = client.request(ASK, format!("[{n}]").into()).await;
        first.notify_one();
        reply
    });
    let (replies, drained) = tokio::join!(join_all(calls), async {
        first.notified().await;
        host.stop(DEADLINE).await
    });
    assert!(drained.is_complete());
    for (n, reply) in replies.into_iter().enumerate() {
        match reply {
            Ok(reply) => assert_eq!(&reply.payload[..], (n + 201).to_string().as_bytes()),
            Err(error) => assert_eq!(
                error.kind(),
                async_nats::client::RequestErrorKind::NoResponders
            ),
        }
    }
    nats.stop().await;
}
