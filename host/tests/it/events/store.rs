//! What JetStream keeps for events: full, lost, or wanted otherwise by another host.

use async_nats::jetstream::stream::Config;
use serde_json::Value;
use wasmbay::host::{Host, HostOptions};
use wasmbay::nats::{ConnectOptions, ManagedServer, ServerOptions};

use super::*;
use crate::support::apps::start_with;
use crate::support::http;
use crate::support::nats::Configured;

const ATTEMPTS: &str = "KV_bay_app_attempts";

async fn config(client: &Client, stream: &str) -> Config {
    let context = jetstream::new(client.clone());
    let stream = context.get_stream(stream).await.unwrap();
    stream.cached_info().config.clone()
}

async fn update(client: &Client, stream: &str, change: impl FnOnce(&mut Config)) {
    let mut config = config(client, stream).await;
    change(&mut config);
    let context = jetstream::new(client.clone());
    context.update_stream(config).await.unwrap();
}

async fn messages(client: &Client, stream: &str) -> u64 {
    let context = jetstream::new(client.clone());
    let stream = context.get_stream(stream).await.unwrap();
    stream.cached_info().state.messages
}

/// A host with a gateway, for its readiness.
async fn start_ready(url: &str, services: &Services<'_>) -> Host {
    let options = HostOptions {
        gateway: "127.0.0.1:0".parse().ok(),
        ..HostOptions::new(ConnectOptions::to(url))
    };
    start_with(options, services).await
}

/// Waits for a readiness with this status and this in its reason.
async fn readiness(host: &Host, status: u16, reason: &str) {
    let address = host.gateway().unwrap().to_string();
    until_ok("the readiness is as expected", async || {
        let asked = address.clone();
        let ask = move || http::request(&asked, "/readyz", None).unwrap();
        let ready = tokio::task::spawn_blocking(ask).await.unwrap();
        let body: Value = ready.json();
        let is = body["reason"].as_str().unwrap_or_default();
        (ready.status == status && is.contains(reason))
            .then_some(())
            .ok_or(ready)
    })
    .await;
}

#[tokio::test]
async fn attempts_that_cannot_be_stored_are_counted_all_the_same() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, _, _| Verdict::Err).await;
    let a = sink("a");
    let lines = durable(QUICK);
    let host = start(bench.nats.url(), &Services(&[("a", &a, "")], &lines)).await;
    update(&bench.client, ATTEMPTS, |config| config.max_bytes = 1).await;
    for n in 0..5 {
        bench.publish(1, n).await;
    }
    let dead_letters = bench.until_dead_letters(5).await;
    bench.done("a").await;
    let counts = judge.counts("a");
    assert!(counts.values().all(|count| *count == 3), "{counts:?}");
    for dead_letter in dead_letters {
        // The record has the last one, and the number of the others.
        assert_eq!((dead_letter.attempts.len(), dead_letter.left_out), (1, 2));
    }
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    bench.nats.stop().await;
}

#[tokio::test]
async fn attempts_are_forgotten_when_an_event_is_handled() {
    let bench = Bench::start().await;
    let failed = Arc::new(AtomicBool::new(false));
    let passes = Arc::clone(&failed);
    let judge = Judge::new(&bench.client, move |_, _, _| {
        if passes.load(Ordering::SeqCst) {
            Verdict::Ok
        } else {
            Verdict::Trap
        }
    })
    .await;
    let a = sink("a");
    let lines = durable("retry = { attempts = 1000, backoff = [\"20ms\"] }");
    let host = start(bench.nats.url(), &Services(&[("a", &a, "")], &lines)).await;
    for n in 0..5 {
        bench.publish(1, n).await;
    }
    until("each has failed twice", || {
        let counts = judge.counts("a");
        counts.len() == 5 && counts.values().all(|count| *count > 2)
    })
    .await;
    assert_eq!(messages(&bench.client, ATTEMPTS).await, 5);
    failed.store(true, Ordering::SeqCst);
    bench.done("a").await;
    until_ok("the attempts are removed", async || {
        match messages(&bench.client, ATTEMPTS).await {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    bench.nats.stop().await;
}

#[tokio::test]
async fn what_was_deleted_while_the_host_runs_is_created_again() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, n, before| match (n, before) {
        (3, 0) => Verdict::Err,
        _ => Verdict::Ok,
    })
    .await;
    let a = sink("a");
    let lines = durable(QUICK);
    let services = Services(&[("a", &a, ""), ("publisher", PUBLISHES, "")], &lines);
    let host = start_ready(bench.nats.url(), &services).await;
    let context = jetstream::new(bench.client.clone());
    let made = async |n| {
        assert_eq!(
            request(&bench.client, PUBLISH, event(1, n)).await.payload,
            OK
        );
        until("it was handled", || judge.counts("a").contains_key(&n)).await;
    };
    made(1).await;
    readiness(&host, 200, "").await;

    let stream = context.get_stream(STREAM).await.unwrap();
    stream.delete_consumer("a").await.unwrap();
    made(2).await;
    readiness(&host, 200, "").await;

    for bucket in [ATTEMPTS, "bay_app_dlq"] {
        context.delete_stream(bucket).await.unwrap();
    }
    context.delete_stream(STREAM).await.unwrap();
    made(3).await;
    until("it came again", || judge.counts("a")[&3] == 2).await;
    bench.done("a").await;
    readiness(&host, 200, "").await;

    // Something else has the subjects: they cannot be stored, and readiness says why.
    let foreign = Config {
        name: "foreign".to_owned(),
        subjects: vec![HAPPENED.to_owned()],
        ..Config::default()
    };
    context.delete_stream(STREAM).await.unwrap();
    // The host may be faster; and the server creates both when they are asked for in the same moment.
    while context.create_stream(foreign.clone()).await.is_err()
        || context.get_stream(STREAM).await.is_ok()
    {
        drop(context.delete_stream(STREAM).await);
    }
    readiness(&host, 503, "overlap").await;
    context.delete_stream("foreign").await.unwrap();
    readiness(&host, 200, "").await;
    made(4).await;
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_server_that_comes_back_empty_gets_everything_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = async |data: &str, port| {
        let options = ServerOptions {
            data: folder.path().join(data),
            port,
            // The second one accepts the same clients.
            open: true,
            ..ServerOptions::default()
        };
        ManagedServer::start(options).await.unwrap()
    };
    let first = server("first", None).await;
    let url = first.url().to_owned();
    let port = url.rsplit_once(':').unwrap().1.parse().ok();
    let client = ConnectOptions::to(&url).connect().await.unwrap();
    let judge = Judge::new(&client, |_, _, _| Verdict::Ok).await;
    let a = sink("a");
    let lines = durable(QUICK);
    let services = Services(&[("a", &a, ""), ("publisher", PUBLISHES, "")], &lines);
    let host = start_ready(&url, &services).await;
    assert_eq!(request(&client, PUBLISH, event(1, 1)).await.payload, OK);
    until("it was handled", || judge.counts("a").len() == 1).await;

    first.stop().await;
    let second = server("second", port).await;
    // Nothing is published, so that the connection alone shows it.
    let context = jetstream::new(client.clone());
    let _: jetstream::consumer::PullConsumer =
        until_ok("the consumer is created again", async || {
            context.get_consumer_from_stream("a", STREAM).await
        })
        .await;
    readiness(&host, 200, "").await;
    assert_eq!(request(&client, PUBLISH, event(1, 2)).await.payload, OK);
    until("the next was handled", || judge.counts("a").len() == 2).await;
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    second.stop().await;
}

#[tokio::test]
async fn an_app_for_whose_streams_there_is_no_room_says_what_to_do() {
    let bench = Bench::start().await;
    let context = jetstream::new(bench.client.clone());
    // All that the server has but some 64 MiB.
    for size in (26..50).rev() {
        let fill = Config {
            name: format!("fill_{size}"),
            max_bytes: 1 << size,
            ..Config::default()
        };
        drop(context.create_stream(fill).await);
    }
    let a = sink("a");
    let host = start(bench.nats.url(), &Services(&[("a", &a, "")], EXTERNAL)).await;
    let lines = durable("retention = { size = \"1GiB\" }");
    let refused = apply(&host, &Services(&[("a", &a, "")], &lines)).await;
    let refused = refused.unwrap_err();
    let source = std::error::Error::source(&refused).unwrap();
    assert!(source.to_string().contains("`retention.size`"), "{source}");
    let cause = source.source().unwrap().to_string();
    assert!(cause.contains("storage resources"), "{cause}");
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_server_that_has_no_room_is_not_ready_until_it_has() {
    // What the app reserves, and little more.
    let server = Configured::with_room(90 << 20).await;
    let client = ConnectOptions::to(server.url()).connect().await.unwrap();
    let lines = durable("retention = { size = \"1MiB\" }");
    let lines = lines.trim_start_matches(EXTERNAL);
    let services = Services(&[("publisher", PUBLISHES, "")], lines);
    let host = start_ready(server.url(), &services).await;
    readiness(&host, 200, "").await;
    // Another stream takes all of it.
    let context = jetstream::new(client.clone());
    let foreign = Config {
        name: "foreign".to_owned(),
        ..Config::default()
    };
    let foreign = context.create_stream(foreign).await.unwrap();
    let body = "x".repeat(900 << 10);
    let mut stored = 0;
    loop {
        let answer = request(&client, "foreign", &*body).await.payload;
        if String::from_utf8_lossy(&answer).contains("error") {
            break;
        }
        stored += 1;
        assert!(stored < 200);
    }
    let refused = request(&client, PUBLISH, event(1, 1)).await;
    let refused = String::from_utf8(refused.payload.to_vec()).unwrap();
    assert!(refused.contains("did not store the event"), "{refused}");
    readiness(&host, 503, "insufficient resources").await;

    foreign.purge().await.unwrap();
    assert_eq!(request(&client, PUBLISH, event(1, 2)).await.payload, OK);
    readiness(&host, 200, "").await;
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
}

#[tokio::test]
async fn a_stream_that_is_given_less_room_than_it_has_taken_loses_nothing() {
    let bench = Bench::start().await;
    let lines = durable("retention = { size = \"1MiB\" }");
    let lines = lines.trim_start_matches(EXTERNAL);
    let host = start(
        bench.nats.url(),
        &Services(&[("publisher", PUBLISHES, "")], lines),
    )
    .await;
    let padding = " ".repeat(60 << 10);
    for n in 0..4 {
        let body = event(1, n).replace('}', &format!("{padding}}}"));
        request(&bench.client, HAPPENED, body).await;
    }
    assert_eq!(messages(&bench.client, STREAM).await, 4);
    let smaller = lines.replace("1MiB", "128KiB");
    apply(&host, &Services(&[("publisher", PUBLISHES, "")], &smaller))
        .await
        .unwrap();
    assert_eq!(messages(&bench.client, STREAM).await, 4);
    let more = request(&bench.client, HAPPENED, event(1, 4)).await;
    let more = String::from_utf8(more.payload.to_vec()).unwrap();
    assert!(more.contains("maximum bytes exceeded"), "{more}");
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    bench.nats.stop().await;
}

#[tokio::test]
async fn hosts_with_another_manifest_leave_a_durable_wire_as_it_is() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, _, _| Verdict::Ok).await;
    let a = sink("a");
    let lines = durable(QUICK);
    let newer = start(bench.nats.url(), &Services(&[("a", &a, "")], &lines)).await;
    let over_nats = "[wire.\"test:events/sink\"]\nlocal = \"never\"\n".to_owned() + EXTERNAL;
    let calls = Services(&[("a", &a, ""), ("publisher", PUBLISHES, "")], &over_nats);
    let older = start(bench.nats.url(), &calls).await;
    // The stream acknowledges each of these calls, and that is no reply.
    for n in 0..20 {
        assert_eq!(
            request(&bench.client, PUBLISH, event(1, n)).await.payload,
            OK
        );
    }
    bench.done("a").await;
    assert_eq!(messages(&bench.client, STREAM).await, 20);
    assert!(judge.counts("a").values().all(|count| *count == 2));

    // When the last host that knows the wire is gone, so is the stream's part in it.
    assert_eq!(newer.stop(DEADLINE).await.given_up, 0);
    let next = start(bench.nats.url(), &calls).await;
    let replays = ["bay-replay.app.*.test.events.sink.v1.>"];
    until_ok("the stream stores nothing but replays", async || {
        let subjects = config(&bench.client, STREAM).await.subjects;
        (subjects == replays).then_some(()).ok_or(subjects)
    })
    .await;
    for host in [older, next] {
        assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    }
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_stream_that_was_told_to_store_nothing_stores_again_when_it_is_published_to() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, _, _| Verdict::Ok).await;
    let a = sink("a");
    let lines = durable(QUICK);
    let services = Services(&[("a", &a, ""), ("publisher", PUBLISHES, "")], &lines);
    let host = start(bench.nats.url(), &services).await;
    let before = config(&bench.client, STREAM).await;
    update(&bench.client, STREAM, |config| {
        config
            .subjects
            .retain(|subject| subject.starts_with("bay-replay"));
    })
    .await;
    assert_eq!(
        request(&bench.client, PUBLISH, event(1, 1)).await.payload,
        OK
    );
    until("it was handled", || judge.counts("a").len() == 1).await;
    let mut subjects = config(&bench.client, STREAM).await.subjects;
    let mut wanted = before.subjects;
    subjects.sort();
    wanted.sort();
    assert_eq!(subjects, wanted);
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    bench.nats.stop().await;
}

/// The second version of a sink, with these types.
fn second(name: &str, key: &str) -> String {
    let key = format!("(param \"{key}\" u32) (param \"n\" u32) (result (result");
    sink(name).replace("sink@1.0.0", "sink@2.0.0").replace(
        "(param \"key\" u32) (param \"n\" u32) (result (result",
        &key,
    )
}

/// More attempts than there is time for.
const PATIENT: &str = "retry = { attempts = 100, backoff = [\"200ms\"] }";

/// Five events of version 1 that wait for their next attempt, and the host.
async fn five_that_wait(bench: &Bench, judge: &Judge) -> Host {
    let a = sink("a");
    let lines = durable(PATIENT);
    let host = start(bench.nats.url(), &Services(&[("a", &a, "")], &lines)).await;
    for n in 0..5 {
        bench.publish(1, n).await;
    }
    until("each has failed", || judge.counts("a").len() == 5).await;
    host
}

#[tokio::test]
async fn events_of_an_earlier_version_are_handled_by_the_next_of_the_same_types() {
    let bench = Bench::start().await;
    let swapped = Arc::new(AtomicBool::new(false));
    let passes = Arc::clone(&swapped);
    let judge = Judge::new(&bench.client, move |_, _, _| {
        if passes.load(Ordering::SeqCst) {
            Verdict::Ok
        } else {
            Verdict::Err
        }
    })
    .await;
    let host = five_that_wait(&bench, &judge).await;
    let next = second("a", "key");
    apply(&host, &Services(&[("a", &next, "")], &durable(PATIENT)))
        .await
        .unwrap();
    swapped.store(true, Ordering::SeqCst);
    bench.done("a").await;
    assert_eq!(bench.list().await, []);
    // So is one that a publisher of that version stores now.
    bench.publish(1, 5).await;
    until("it was handled", || judge.counts("a").contains_key(&5)).await;
    bench.done("a").await;
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    bench.nats.stop().await;
}

#[tokio::test]
async fn events_of_an_earlier_version_that_no_service_can_handle_become_dead_letters() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, _, _| Verdict::Err).await;
    let host = five_that_wait(&bench, &judge).await;
    let next = second("a", "number");
    let services = Services(&[("a", &next, "")], &durable(QUICK));
    // Another host handles them still, so they are left to it.
    let a = sink("a");
    let patient = durable(PATIENT);
    let other = start(bench.nats.url(), &Services(&[("a", &a, "")], &patient)).await;
    apply(&host, &services).await.unwrap();
    let before = judge.attempts().len();
    until("the other one goes on", || {
        judge.attempts().len() > before + 5
    })
    .await;
    assert_eq!(bench.list().await, []);
    assert_eq!(other.stop(DEADLINE).await.given_up, 0);

    apply(&host, &services).await.unwrap();
    let dead_letters = bench.until_dead_letters(5).await;
    for dead_letter in dead_letters {
        let last = dead_letter.attempts.last().unwrap();
        assert_eq!((last.outcome, last.code), (None, Some(404)));
        assert!(
            last.error.contains("`happened` is func(number: u32"),
            "{}",
            last.error
        );
        assert_eq!(dead_letter.subject, HAPPENED);
    }
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_full_stream_is_the_publishers_error_and_loses_nothing() {
    let bench = Bench::start().await;
    let lines = durable("retention = { size = \"64KiB\" }");
    let publisher = Services(
        &[("publisher", PUBLISHES, "")],
        lines.trim_start_matches(EXTERNAL),
    );
    let host = start(bench.nats.url(), &publisher).await;
    let mut stored = 0;
    let refused = loop {
        let made = request(&bench.client, PUBLISH, event(1, stored)).await;
        if made.payload != OK {
            break String::from_utf8(made.payload.to_vec()).unwrap();
        }
        stored += 1;
        assert!(stored < 10_000);
    };
    assert!(refused.contains("maximum bytes exceeded"), "{refused}");

    // More room, and a subscriber that finds all of it.
    let judge = Judge::new(&bench.client, |_, _, _| Verdict::Ok).await;
    let a = sink("a");
    let lines = durable("retention = { size = \"1MiB\" }");
    let services = Services(&[("a", &a, ""), ("publisher", PUBLISHES, "")], &lines);
    apply(&host, &services).await.unwrap();
    assert_eq!(
        request(&bench.client, PUBLISH, event(1, stored))
            .await
            .payload,
        OK
    );
    until("everything was handled", || {
        judge.attempts().len() > stored as usize
    })
    .await;
    assert_eq!(judge.counts("a").len(), stored as usize + 1);
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}
