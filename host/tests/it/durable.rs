//! Messages that are stored until they are handled, on a real nats-server.

mod added;

use std::sync::{Arc, Mutex};

use async_nats::jetstream::stream::Config;
use async_nats::{Client, HeaderMap, Message, Subscriber, jetstream};
use futures_util::StreamExt;
use serde_json::Value;
use wasmbay::call::Blame;
use wasmbay::events::dead_letters::{DeadLetter, DeadLetters, Filter};
use wasmbay::manifest::Outcome;
use wasmbay::nats::settled;
use wasmbay::wire;

use crate::cli::json;
use crate::courier::courier;
use crate::events::until_acknowledged;
use crate::messaging::relay;
use crate::support::apps::{Bench, Services, apply, bench};
use crate::support::cli::Cli;
use crate::support::components::GUEST;
use crate::support::nats::Nats;
use crate::support::{DEADLINE, assert_no_message, until, until_ok, until_ok_blocking};

const STREAM: &str = "bay_app_messages_work";

/// A stream without waits to speak of.
const WORK: &str = "[stream.work]\nsubjects = [\"work.>\"]\n\
                    retry = { attempts = 3, backoff = [\"20ms\"], jitter = 0 }\n";

/// Grants that include part of the stream, or all of it.
fn subscribes(subjects: &str) -> String {
    format!(
        "grants = {{ publish = [\"out.>\", \"work.>\"], subscribe = [{subjects}] }}\n\
         limits = {{ timeout = \"2s\" }}"
    )
}

/// Publishes as any NATS client can, and checks that the stream stored the message.
async fn store(client: &Client, subject: &str, body: &str) {
    let mut headers = HeaderMap::new();
    headers.insert("Sku", "7");
    let stored = client.request_with_headers(subject.to_owned(), headers, body.to_owned().into());
    let stored = tokio::time::timeout(DEADLINE, stored).await;
    let text = String::from_utf8(stored.unwrap().unwrap().payload.to_vec()).unwrap();
    assert!(text.contains(STREAM) && !text.contains("error"), "{text}");
}

async fn next(messages: &mut Subscriber) -> Message {
    let next = tokio::time::timeout(DEADLINE, messages.next()).await;
    next.unwrap().unwrap()
}

fn caller(message: &Message) -> String {
    let headers = message.headers.as_ref().unwrap();
    headers.get(wire::CALLER).unwrap().to_string()
}

async fn until_dead_letters(
    bench: &Bench,
    enough: impl Fn(&[DeadLetter]) -> bool,
) -> Vec<DeadLetter> {
    let context = jetstream::new(bench.client.clone());
    let all = DeadLetters::new(context, bench.nats.link().await, "app");
    until_ok("there are enough dead letters", async || {
        let page = all.list(&Filter::default(), None, 100).await.unwrap();
        let entries = page.entries.into_iter();
        let dead_letters: Vec<DeadLetter> = entries
            .map(|entry| entry.dead_letter().cloned().unwrap())
            .collect();
        if enough(&dead_letters) {
            Ok(dead_letters)
        } else {
            Err(dead_letters)
        }
    })
    .await
}

/// Answers the command `obey` on `out.judge`: `decide` takes the service and the number of its earlier
/// questions. Returns the services in the order of their questions.
async fn judge(
    client: &Client,
    decide: impl Fn(&str, usize) -> &'static str + Send + 'static,
) -> Arc<Mutex<Vec<String>>> {
    let mut asked = client.subscribe("out.judge").await.unwrap();
    settled(client).await.unwrap();
    let services: Arc<Mutex<Vec<String>>> = Arc::default();
    let (client, all) = (client.clone(), Arc::clone(&services));
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let service = caller(&message);
            let before = {
                let mut all = all.lock().unwrap();
                all.push(service.clone());
                all.iter().filter(|one| **one == service).count() - 1
            };
            let verdict = decide(&service, before);
            let reply = message.reply.unwrap();
            client.publish(reply, verdict.into()).await.unwrap();
        }
    });
    services
}

#[tokio::test]
async fn a_message_waits_for_a_service_that_is_away() {
    let bench = bench(&Services(&[("guest", GUEST, "")], WORK)).await;
    let mut out = bench.client.subscribe("out.>").await.unwrap();
    let both = [
        ("courier", courier(), &*subscribes("\"work.a.>\", \"in.*\"")),
        ("relay", relay(), &*subscribes("\"work.b.*\", \"work.c\"")),
    ];
    store(&bench.client, "work.a.1", "send out.courier text").await;
    store(&bench.client, "work.b.1", "pout.relay").await;
    store(&bench.client, "work.none", "no subscriber").await;

    apply(&bench.host, &Services(&both, WORK)).await.unwrap();
    let mut sent = Vec::new();
    for _ in 0..2 {
        let message = next(&mut out).await;
        sent.push((message.subject.to_string(), caller(&message)));
    }
    sent.sort();
    let pair = |one: &str, two: &str| (one.to_owned(), two.to_owned());
    let wanted = [pair("out.courier", "courier"), pair("out.relay", "relay")];
    assert_eq!(sent, wanted);
    // It also gets messages that no stream stores.
    assert_eq!(bench.text("in.x", "hello").await, "hello");

    // Away once more, and back with fewer subjects.
    apply(&bench.host, &Services(&[("guest", GUEST, "")], WORK))
        .await
        .unwrap();
    store(&bench.client, "work.c", "pout.later").await;
    let relay = [("relay", relay(), &*subscribes("\"work.c\""))];
    apply(&bench.host, &Services(&relay, WORK)).await.unwrap();
    assert_eq!(&*next(&mut out).await.subject, "out.later");
    bench.end().await;
}

#[tokio::test]
async fn what_a_guest_publishes_is_stored_when_it_goes_on() {
    let lines = subscribes("\"in.*\"");
    let services = [
        ("courier", courier(), &*lines),
        (
            "relay",
            relay(),
            "grants = { publish = [\"work.>\"], subscribe = [\"to.*\"] }",
        ),
    ];
    let bench = bench(&Services(&services, WORK)).await;
    let context = jetstream::new(bench.client.clone());
    let stream = context.get_stream(STREAM).await.unwrap();
    let stored = async || {
        let stream = context.get_stream(STREAM).await.unwrap();
        stream.cached_info().state.messages
    };
    assert_eq!(bench.text("in.x", "send work.x text").await, "sent");
    assert_eq!(stored().await, 1);
    assert_eq!(bench.text("to.x", "pwork.x").await, "sent");
    assert_eq!(stored().await, 2);
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!(message.payload, "text");
    assert_eq!(message.headers.get("Sku").unwrap().as_str(), "8");
    assert_eq!(
        message.headers.get(wire::CALLER).unwrap().as_str(),
        "courier"
    );

    let why = "\"work.x\" is stored by bay_app_messages_work, and that is all that would reply";
    assert_eq!(bench.text("to.x", "rwork.x").await, why);
    let asked = bench.text("in.x", "ask work.x").await;
    assert_eq!(asked, format!("Error::Other({why:?})"));
    assert_eq!(stored().await, 2);
    bench.end().await;
}

#[tokio::test]
async fn a_full_stream_is_the_publishers_error() {
    let work = format!("{WORK}retention = {{ size = \"1MiB\" }}\n");
    let lines = subscribes("\"in.*\"");
    let bench = bench(&Services(&[("courier", courier(), &*lines)], &work)).await;
    let send = format!("send work.x {}", "x".repeat(600 << 10));
    assert_eq!(bench.text("in.x", &send).await, "sent");
    assert_eq!(
        bench.text("in.x", &send).await,
        "Error::Connection(\"stream bay_app_messages_work did not store the event: maximum bytes exceeded\")"
    );
    // As much as NATS carries, without the room for a dead letter's record.
    let max = bench.client.server_info().max_payload;
    let send = format!("send work.x {}", "x".repeat(max - (20 << 10)));
    let sent = bench.text("in.x", &send).await;
    assert!(sent.starts_with("Error::Other(\"the event has"), "{sent}");
    bench.end().await;
}

#[tokio::test]
async fn a_failed_message_is_delivered_again_until_it_is_handled() {
    let lines = subscribes("\"work.>\"");
    let bench = bench(&Services(&[("courier", courier(), &*lines)], WORK)).await;
    let questions = judge(&bench.client, |_, before| match before {
        0 => "fail",
        1 => "spin",
        2 => "fine",
        3 => "trap",
        _ => "fine",
    })
    .await;
    store(&bench.client, "work.x", "obey out.judge").await;
    until("it is handled", || questions.lock().unwrap().len() == 3).await;
    store(&bench.client, "work.x", "obey out.judge").await;
    until("the other one is handled", || {
        questions.lock().unwrap().len() == 5
    })
    .await;
    until_acknowledged(DEADLINE, &bench.client, STREAM, "courier").await;
    assert_eq!(until_dead_letters(&bench, |_| true).await, []);
    assert_eq!(questions.lock().unwrap().len(), 5);
    bench.end().await;
}

#[tokio::test]
async fn a_dead_letter_is_edited_and_replayed_to_its_service_alone() {
    let lines = subscribes("\"work.>\"");
    let services = [("one", courier(), &*lines), ("two", courier(), &*lines)];
    let bench = bench(&Services(&services, WORK)).await;
    let questions = judge(&bench.client, |service, _| match service {
        "one" => "trap",
        _ => "fine",
    })
    .await;
    let count = |service: &str| {
        let questions = questions.lock().unwrap();
        questions.iter().filter(|one| *one == service).count()
    };
    store(&bench.client, "work.x.1", "obey out.judge").await;
    let found = until_dead_letters(&bench, |all| all.len() == 1).await;
    assert_eq!((count("one"), count("two")), (3, 1));
    let context = jetstream::new(bench.client.clone());
    let all = DeadLetters::new(context, bench.nats.link().await, "app");
    let dead_letter = all.get(&found[0].id).await.unwrap();
    assert!(dead_letter.is_message());
    assert_eq!(
        (&*dead_letter.service, &*dead_letter.subject),
        ("one", "work.x.1")
    );
    assert_eq!(
        dead_letter.function,
        "wasi:messaging/incoming-handler.handle@0.2.0-draft"
    );
    assert_eq!(
        (&dead_letter.body[..], dead_letter.attempts.len()),
        (&b"obey out.judge"[..], 3)
    );
    assert_eq!(dead_letter.headers["Sku"], ["7"]);
    let attempt = &dead_letter.attempts[0];
    assert_eq!(
        (attempt.outcome, attempt.code, attempt.blame),
        (Some(Outcome::Trap), Some(500), Blame::Guest)
    );
    let mut filter = Filter {
        function: "wasi:messaging/incoming-handler.handle".parse().ok(),
        ..Filter::default()
    };
    assert_eq!(all.list(&filter, None, 9).await.unwrap().entries.len(), 1);
    filter.service = Some("two".to_owned());
    assert_eq!(all.list(&filter, None, 9).await.unwrap().entries.len(), 0);

    // It fails again: still one dead letter, with a longer history.
    all.replay(&dead_letter.id).await.unwrap();
    until_dead_letters(&bench, |all| all.len() == 1 && all[0].attempts.len() == 6).await;
    assert_eq!((count("one"), count("two")), (6, 1));

    let mut out = bench.client.subscribe("out.fine").await.unwrap();
    bench.client.flush().await.unwrap();
    let body = "send out.fine edited";
    let dead_letter = all.find(&dead_letter.id).await.unwrap();
    all.edit(&dead_letter, body.into(), async { None })
        .await
        .unwrap();
    all.replay(&dead_letter.id).await.unwrap();
    let message = next(&mut out).await;
    assert_eq!(
        (&*message.payload, &*caller(&message)),
        (&b"edited"[..], "one")
    );
    until_dead_letters(&bench, |all| all.is_empty()).await;
    // Not to the other one, which has nothing left to handle either.
    until_acknowledged(DEADLINE, &bench.client, STREAM, "two").await;
    assert_no_message(&bench.client, &mut out).await;
    bench.end().await;
}

#[tokio::test]
async fn a_stream_that_overlaps_a_foreign_one_is_refused_and_changes_nothing() {
    let bench = bench(&Services(&[("guest", GUEST, "")], "")).await;
    let context = jetstream::new(bench.client.clone());
    let foreign = Config {
        name: "foreign".to_owned(),
        subjects: vec!["work.*.x".to_owned()],
        ..Config::default()
    };
    context.create_stream(foreign).await.unwrap();
    let lines = subscribes("\"work.>\"");
    let services = Services(&[("relay", relay(), &*lines)], WORK);
    let refused = apply(&bench.host, &services).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "events cannot be stored: stream \"bay_app_messages_work\""
    );
    let why = std::error::Error::source(&refused).unwrap().to_string();
    assert!(why.contains("overlap"), "{why}");
    let count = bench.text("bay.app.test.guest.api.v1.count", "").await;
    assert_eq!(count, "1", "the guest is gone");
    bench.end().await;
}

#[tokio::test]
async fn subjects_that_are_not_stored_any_more_are_core_subscriptions_again() {
    let lines = subscribes("\"work.>\"");
    let services = [("relay", relay(), &*lines)];
    let bench = bench(&Services(&services, WORK)).await;
    store(&bench.client, "work.x", "pout.x").await;
    apply(&bench.host, &Services(&services, "")).await.unwrap();
    assert_eq!(bench.text("work.x", "hello").await, "hello");
    let context = jetstream::new(bench.client.clone());
    let stream = context.get_stream(STREAM).await.unwrap();
    let subjects = &stream.cached_info().config.subjects;
    assert_eq!(*subjects, ["bay-replay.app.*._.work.>"]);
    bench.end().await;
}

#[tokio::test]
async fn a_body_that_is_no_text_is_shown_and_replaced() {
    let nats = Nats::start().await;
    let manifest = format!(
        "name = \"app\"\n[service.relay]\ncomponent = \"relay.wasm\"\n{}\n{WORK}",
        subscribes("\"work.>\"")
    );
    let files = [("wasmbay.toml", &*manifest), ("relay.wasm", relay())];
    let cli = Cli::new().with(&files);
    let up = cli.up(&["--no-gateway", "--nats", nats.url()]);
    let client = nats.connect().await;
    let mut out = client.subscribe("out.x").await.unwrap();
    client
        .publish("work.x", b"e\xff\xfe".to_vec().into())
        .await
        .unwrap();
    // The commands below block this thread, so the client has to write now.
    client.flush().await.unwrap();
    let dlq = |arguments: &[&str]| -> Value {
        let place = ["--nats", nats.url(), "--output", "json"];
        let arguments: Vec<_> = ["dlq"]
            .iter()
            .chain(arguments)
            .chain(&place)
            .copied()
            .collect();
        json(&cli.run(&arguments))
    };
    // Before the first dead letter the list is empty.
    until_ok_blocking("there is a dead letter", || {
        let seen = cli.run(&["dlq", "ls", "--nats", nats.url(), "--output", "json"]);
        if seen.contains("\"id\"") {
            Ok(())
        } else {
            Err(seen)
        }
    });
    let dead_letter = dlq(&["ls"])[0].clone();
    assert_eq!(
        dead_letter["function"],
        "wasmcloud:messaging/handler.handle-message@0.2.0"
    );
    let id = dead_letter["id"].as_str().unwrap();
    let shown = dlq(&["show", id]);
    assert_eq!(shown["bodyBase64"], "Zf/+");
    assert!(shown.get("bodyText").is_none() && shown.get("body").is_none());
    let plain = cli.run(&["dlq", "show", id, "--nats", nats.url()]);
    assert!(plain.contains("(3 B, as base64)\n  Zf/+"), "{plain}");
    // A message has no type.
    assert_eq!(dlq(&["edit", id, "pout.x"])["edited"], id);
    assert_eq!(dlq(&["show", id])["bodyText"], "pout.x");
    assert_eq!(dlq(&["replay", id])["replayed"][0], id);
    assert_eq!(next(&mut out).await.payload, "sent");
    up.stop();
    nats.stop().await;
}
