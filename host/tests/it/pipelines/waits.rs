//! Runs that sleep, and that wait for events, while no host works on them.

use std::time::Instant;

use async_nats::jetstream::consumer::PullConsumer;
use rustix::process::Signal;

use super::hosts::Hosts;
use super::*;

/// The types of the shop, with an event.
fn types() -> String {
    types_with(
        "paid",
        r#"(func (param "order" string) (param "receipt" string))"#,
    )
}

const LINES: &str = r#"
[wire."test:shop/events"]
mode = "event"
durable = true

[pipeline.waits]
implements = "test:shop/waits.place@1.0.0"
type = "func(order: string) -> result<string, string>"
deadline = "2h"
in-flight = 1
result = "$paid.receipt"

[[pipeline.waits.step]]
name = "reserve"
call = "test:shop/stock.reserve"
with = { order = "$.order", count = 1 }
undo = { call = "test:shop/stock.release", with = { reservation = "$reserve.id" } }

[[pipeline.waits.step]]
name = "paid"
wait-for = { event = "test:shop/events.paid", key = "$.order", equals = "$.order", timeout = "1h" }
error = "not paid"

[pipeline.sleeps]
implements = "test:shop/sleeps.place@1.0.0"
type = "func(order: string) -> result<_, u32>"

[[pipeline.sleeps.step]]
name = "rest"
sleep = "8s"

[[pipeline.sleeps.step]]
name = "tell"
call = "test:shop/mail.tell"
with = { to = "$.order" }
"#;

const WAITS: &str = "bay.app.test.shop.waits.v1.place";
const SLEEPS: &str = "bay.app.test.shop.sleeps.v1.place";
const PAID: &str = "bay.app.test.shop.events.v1.paid";

fn lines() -> String {
    format!("{WIRES}{LINES}")
}

async fn hosts() -> Hosts {
    Hosts::of(("types", &types()), &lines(), ORDER).await
}

/// Begins a run for an order, and waits for its outcome.
fn order(client: &Client, name: &str) -> tokio::task::JoinHandle<Value> {
    let (client, body) = (client.clone(), format!(r#"{{"order":"{name}"}}"#));
    tokio::spawn(async move {
        let mut headers = HeaderMap::new();
        headers.insert(wire::DEADLINE, "60000");
        let request = async_nats::Request::new()
            .payload(body.into())
            .headers(headers)
            .timeout(Some(Duration::from_secs(60)));
        let reply = client.send_request(WAITS, request).await.unwrap();
        serde_json::from_slice(&reply.payload).unwrap()
    })
}

async fn pay(client: &Client, name: &str) {
    let body = format!(r#"{{"order":"{name}","receipt":"of {name}"}}"#);
    let context = jetstream::new(client.clone());
    let stored = context.publish(PAID, body.into()).await.unwrap();
    stored.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_of_an_earlier_sleep_that_is_stored_late_wakes_too() {
    let bench = bench(&Services(&[("types", &types(), "")], &lines())).await;
    let client = bench.client.clone();
    let answered = tokio::spawn(async move {
        let request = client.request(SLEEPS, r#"{"order":"o-1"}"#.into());
        tokio::time::timeout(2 * DEADLINE, request).await
    });
    let _shop = Shop::open(&bench.client, |_, _| None).await;
    until_asleep(&bench.client, "sleeps", 1).await;
    let id = all(&bench.client).await.runs.remove(0).id;
    let context = jetstream::new(bench.client.clone());
    let timer = format!("bay-run.app.timer.sleeps.{id}");
    let stored = context.publish(timer, r#"{"open":1,"until":0}"#.into());
    stored.await.unwrap().await.unwrap();
    answered.await.unwrap().unwrap().unwrap();
    no_open_runs(&bench.client).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_a_newer_wasmbay_is_left_to_a_host_that_reads_it() {
    let hosts = hosts().await;
    let host = hosts.start();
    let body = r#"{"order":"o-1"}"#;
    hosts.client.publish(SLEEPS, body.into()).await.unwrap();
    until_asleep(&hosts.client, "sleeps", 1).await;
    let id = all(&hosts.client).await.runs.remove(0).id;
    let context = jetstream::new(hosts.client.clone());
    let stream = context.get_stream("bay_app_runs").await.unwrap();
    let journal = format!("bay-run.app.run.sleeps.{id}");
    let before = stream.get_last_raw_message_by_subject(&journal).await;
    let before = String::from_utf8(before.unwrap().payload.to_vec()).unwrap();
    let newer = before.replacen("\"format\":1", "\"format\":2", 1);
    let put = async |text: String| {
        let stored = context.publish(journal.clone(), text.into()).await;
        stored.unwrap().await.unwrap();
    };
    put(newer.clone()).await;
    host.until("it is of format 2, which a newer wasmbay writes; this one reads 1");
    let kept = stream.get_last_raw_message_by_subject(&journal).await;
    assert_eq!(kept.unwrap().payload, newer);
    put(before).await;
    let _shop = hosts.shop(|_, _| None).await;
    assert_eq!(hosts.until_ended().await, Phase::Completed);
}

/// Waits until so many runs wait, none of which has a place among those that are worked on.
async fn until_asleep(client: &Client, pipeline: &str, count: usize) {
    until_ok("the runs are asleep", async || {
        let page = runs(client).list(false, Some(pipeline), None, 100).await;
        let open = page.unwrap().runs;
        let context = jetstream::new(client.clone());
        let consumer = context.get_consumer_from_stream(pipeline, "bay_app_runs");
        let mut consumer: PullConsumer = consumer.await.unwrap();
        let worked_on = consumer.info().await.unwrap().num_ack_pending;
        let waits = open.iter().filter(|run| {
            run.phase == Phase::Running && matches!(run.step.as_deref(), Some("paid" | "rest"))
        });
        if waits.count() == count && worked_on == 0 {
            Ok(())
        } else {
            Err((open, worked_on))
        }
    })
    .await;
}

/// What would wake runs, and steps that wait for events.
async fn alarms(client: &Client) -> usize {
    let context = jetstream::new(client.clone());
    let stream = context.get_stream("bay_app_runs").await.unwrap();
    let mut count = 0;
    for subjects in ["bay-run.app.timer.>", "bay-run.app.await.>"] {
        let mut info = stream.info_with_subjects(subjects).await.unwrap();
        while let Some(subject) = info.next().await {
            subject.unwrap();
            count += 1;
        }
    }
    count
}

#[tokio::test]
async fn runs_that_wait_hold_no_place_and_are_woken_by_their_own_events() {
    let (types, lines) = (types(), lines());
    let bench = bench(&Services(&[("types", &types, "")], &lines)).await;
    let shop = Shop::open(&bench.client, |_, _| None).await;
    // One is worked on at a time.
    let orders = ["a", "b", "c"].map(|name| order(&bench.client, name));
    until_asleep(&bench.client, "waits", 3).await;
    assert_eq!(shop.functions(), ["reserve", "reserve", "reserve"]);
    pay(&bench.client, "d").await;
    for name in ["c", "a", "b"] {
        pay(&bench.client, name).await;
    }
    for (name, order) in ["a", "b", "c"].into_iter().zip(orders) {
        let reply = order.await.unwrap();
        assert_eq!(reply, json!({"ok": format!("of {name}")}));
    }
    no_open_runs(&bench.client).await;
    // Nothing is left that would wake them.
    until_ok("no alarm is left", async || {
        match alarms(&bench.client).await {
            0 => Ok(()),
            left => Err(left),
        }
    })
    .await;
    let run = all(&bench.client).await.runs.remove(0);
    let shown = runs(&bench.client).show(&run.id).await.unwrap();
    let shown = serde_json::to_value(shown).unwrap();
    let event = &shown["steps"][1]["event"];
    assert_eq!(event["function"], "test:shop/events.paid@1.0.0");
    assert!(
        event["sequence"].is_u64() && event["key"].is_string(),
        "{event}"
    );
    bench.end().await;
}

#[tokio::test]
async fn an_event_that_comes_before_the_run_waits_for_it_is_taken() {
    let (types, lines) = (types(), lines());
    let bench = bench(&Services(&[("types", &types, "")], &lines)).await;
    let client = bench.nats.connect().await;
    let mut calls = client
        .subscribe("bay.app.test.shop.stock.v1.*")
        .await
        .unwrap();
    settled(&client).await.unwrap();
    pay(&client, "early").await;
    // Times are compared in milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let caller = order(&client, "early");
    let reserve = calls.next().await.unwrap();
    // Many others come as well.
    for other in 0..600 {
        let body = format!(r#"{{"order":"o-{other}","receipt":"x"}}"#);
        client.publish(PAID, body.into()).await.unwrap();
    }
    let body = r#"{"order":"early","receipt":"in time"}"#;
    jetstream::new(client.clone())
        .publish(PAID, body.into())
        .await
        .unwrap()
        .await
        .unwrap();
    // The consumer of the pipeline has had all of them, and found nobody.
    let context = jetstream::new(client.clone());
    until_ok("all events are handled", async || {
        let consumer = context
            .get_consumer_from_stream("_runs_waits", "bay_app_test_shop_events_v1")
            .await;
        let mut consumer: PullConsumer = consumer.unwrap();
        let info = consumer.info().await.unwrap();
        match (info.num_pending, info.num_ack_pending) {
            (0, 0) => Ok(()),
            left => Err(left),
        }
    })
    .await;
    answer_with(&client, reserve, Answer::Ok(r#"{"ok":{"id":"r-1"}}"#)).await;
    // That of before the run began is not taken.
    assert_eq!(caller.await.unwrap(), json!({"ok": "in time"}));
    bench.end().await;
}

#[tokio::test]
async fn a_run_fails_when_its_event_does_not_come_in_time() {
    let lines = lines().replace("timeout = \"1h\"", "timeout = \"6s\"");
    let types = types();
    let bench = bench(&Services(&[("types", &types, "")], &lines)).await;
    let shop = Shop::open(&bench.client, |_, _| None).await;
    let began = Instant::now();
    let reply = order(&bench.client, "late").await.unwrap();
    assert_eq!(reply, json!({"err": "not paid"}));
    let took = began.elapsed();
    assert!((6..10).contains(&took.as_secs()), "{took:?}");
    assert_eq!(shop.functions(), ["reserve", "release"]);
    let run = all(&bench.client).await.runs.remove(0);
    assert_eq!(
        run.why.as_deref(),
        Some("step \"paid\": no event came within 6s")
    );
    bench.end().await;
}

#[tokio::test]
async fn a_run_that_waits_for_an_event_can_be_cancelled() {
    let (types, lines) = (types(), lines());
    let bench = bench(&Services(&[("types", &types, "")], &lines)).await;
    let shop = Shop::open(&bench.client, |_, _| None).await;
    let caller = order(&bench.client, "a");
    until_asleep(&bench.client, "waits", 1).await;
    let run = all(&bench.client).await.runs.remove(0);
    runs(&bench.client).cancel(&run.id).await.unwrap();
    let reply = caller.await.unwrap();
    let message = reply["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("it was cancelled; what was done is undone"),
        "{message}"
    );
    assert_eq!(shop.functions(), ["reserve", "release"]);
    assert_eq!(alarms(&bench.client).await, 0);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_sleeps_while_all_hosts_are_dead() {
    let hosts = hosts().await;
    let shop = hosts.shop(|_, _| None).await;
    let first = hosts.start();
    let began = Instant::now();
    let body = r#"{"order":"o"}"#;
    hosts.client.publish(SLEEPS, body.into()).await.unwrap();
    until_asleep(&hosts.client, "sleeps", 1).await;
    first.signal(Signal::KILL);
    drop(first);
    let _second = hosts.start();
    assert_eq!(hosts.until_ended().await, Phase::Completed);
    let took = began.elapsed();
    assert!((8..14).contains(&took.as_secs()), "{took:?}");
    assert_eq!(shop.functions(), ["tell"]);
    let run = all(&hosts.client).await.runs.remove(0);
    let shown = runs(&hosts.client).show(&run.id).await.unwrap();
    let slept = shown.steps[0].sleep.as_ref().unwrap();
    assert!(slept.ended - slept.first >= 8_000, "{slept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_comes_while_all_hosts_are_dead_wakes_its_run() {
    let hosts = hosts().await;
    let shop = hosts.shop(|_, _| None).await;
    let first = hosts.start();
    let body = r#"{"order":"o"}"#;
    hosts.client.publish(WAITS, body.into()).await.unwrap();
    until_asleep(&hosts.client, "waits", 1).await;
    first.signal(Signal::KILL);
    drop(first);
    pay(&hosts.client, "o").await;
    let _second = hosts.start();
    assert_eq!(hosts.until_ended().await, Phase::Completed);
    assert_eq!(shop.functions(), ["reserve"]);
}
