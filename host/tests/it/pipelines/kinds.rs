//! Steps that are no single call: events, groups, and lists.

use rustix::process::Signal;

use super::hosts::Hosts;
use super::*;

/// The types of the shop, with an event.
fn types() -> String {
    types_with(
        "placed",
        r#"(func (param "order" string) (param "receipts" (list string)))"#,
    )
}

const BULK: &str = r#"
[wire."test:shop/events"]
mode = "event"
durable = true

[pipeline.bulk]
implements = "test:shop/bulk.place@1.0.0"
type = "func(orders: list<string>, gift: option<string>) -> result<list<string>, string>"
result = "$charge"

[[pipeline.bulk.step]]
name = "left"
parallel = "stock"
call = "test:shop/stock.reserve"
with = { order = "left", count = 1 }
undo = { call = "test:shop/stock.release", with = { reservation = "$left.id" } }
retry = { attempts = 2, backoff = ["20ms"] }

[[pipeline.bulk.step]]
name = "right"
parallel = "stock"
call = "test:shop/stock.reserve"
with = { order = "right", count = 2 }
undo = { call = "test:shop/stock.release", with = { reservation = "right" } }
retry = { attempts = 2, backoff = ["20ms"] }

[[pipeline.bulk.step]]
name = "charge"
each = "$.orders"
at-most = 3
at-once = 2
call = "test:shop/bank.charge"
with = { order = "$item", cents = 5 }
undo = { call = "test:shop/bank.refund", with = { order = "$item" } }

[[pipeline.bulk.step]]
name = "announce"
event = "test:shop/events.placed"
with = { order = "bulk", receipts = "$charge" }

[[pipeline.bulk.step]]
name = "wrap"
when = "$.gift"
call = "test:shop/mail.tell"
with = { to = "$.gift" }
error = "not wrapped"
"#;

const BULK_PLACE: &str = "bay.app.test.shop.bulk.v1.place";

fn lines() -> String {
    format!("{WIRES}{BULK}")
}

async fn bulk(client: &Client, body: &'static str) -> Value {
    let reply = client.request(BULK_PLACE, body.into()).await.unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

#[tokio::test]
async fn groups_lists_and_events_are_steps() {
    let (types, lines) = (types(), lines());
    let bench = bench(&Services(&[("types", &types, "")], &lines)).await;
    let shop = Shop::open(&bench.client, |_, _| None).await;
    let reply = bulk(&bench.client, r#"{"orders":["a","b","c"],"gift":null}"#).await;
    assert_eq!(
        reply,
        json!({"ok": ["receipt-1", "receipt-1", "receipt-1"]})
    );
    let functions = shop.functions();
    assert_eq!(
        functions,
        ["reserve", "reserve", "charge", "charge", "charge"]
    );
    let run = all(&bench.client).await.runs.remove(0);
    let mut steps: Vec<_> = shop.calls().into_iter().map(|call| call.step).collect();
    steps.sort();
    let expected = ["charge.0", "charge.1", "charge.2", "left", "right"];
    assert_eq!(steps, expected.map(|step| format!("{}.{step}", run.id)));

    // The event is stored once, with what it can be recognised by.
    let context = jetstream::new(bench.client.clone());
    let stream = context
        .get_stream("bay_app_test_shop_events_v1")
        .await
        .unwrap();
    let event = stream.get_raw_message(1).await.unwrap();
    let body: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(
        body,
        json!({"order": "bulk", "receipts": ["receipt-1", "receipt-1", "receipt-1"]})
    );
    let header = |name: &str| event.headers.get(name).unwrap().to_string();
    let step = format!("{}.announce", run.id);
    assert_eq!(
        [header(wire::STEP), header(wire::MESSAGE_ID)],
        [step.clone(), step]
    );
    assert!(stream.get_raw_message(2).await.is_err());

    let shown = serde_json::to_value(runs(&bench.client).show(&run.id).await.unwrap()).unwrap();
    let charge = &shown["steps"][2];
    assert_eq!(
        charge["result"],
        json!(["receipt-1", "receipt-1", "receipt-1"])
    );
    assert_eq!(charge["items"][1]["name"], "charge.1");
    assert_eq!(
        charge["items"][1]["call"]["arguments"],
        json!({"order": "b", "cents": 5})
    );
    assert_eq!(shown["steps"][4]["state"], "skipped");
    bench.end().await;
}

#[tokio::test]
async fn items_and_groups_are_undone_from_the_last_on() {
    let (types, lines) = (types(), lines());
    let bench = bench(&Services(&[("types", &types, "")], &lines)).await;
    let shop = Shop::open(&bench.client, |function, _| match function {
        "tell" => Some(Answer::Ok(r#"{"err":7}"#)),
        _ => None,
    })
    .await;
    let reply = bulk(&bench.client, r#"{"orders":["a","b"],"gift":"you"}"#).await;
    assert_eq!(reply, json!({"err": "not wrapped"}));
    let undone: Vec<_> = shop
        .calls()
        .into_iter()
        .filter(|call| call.step.ends_with(".undo"))
        .collect();
    let bodies: Vec<_> = undone.iter().map(|call| &call.body).collect();
    assert_eq!(
        bodies,
        [
            &json!({"order": "b"}),
            &json!({"order": "a"}),
            &json!({"reservation": "right"}),
            &json!({"reservation": "r-1"})
        ]
    );
    let reply = bulk(&bench.client, r#"{"orders":["a","b","c","d"],"gift":null}"#).await;
    let message = reply["error"]["message"].as_str().unwrap();
    assert!(
        message.contains(
            "step \"charge\": its list has 4 items, 3 are allowed; what was done is undone"
        ),
        "{message}"
    );
    bench.end().await;
}

#[tokio::test]
async fn steps_of_a_group_are_under_way_at_the_same_time() {
    let (types, lines) = (types(), lines());
    let bench = bench(&Services(&[("types", &types, "")], &lines)).await;
    let client = bench.nats.connect().await;
    let mut calls = client
        .subscribe("bay.app.test.shop.stock.v1.*")
        .await
        .unwrap();
    settled(&client).await.unwrap();
    let caller = bench.client.clone();
    let caller = tokio::spawn(async move { bulk(&caller, r#"{"orders":[],"gift":null}"#).await });
    let (left, right) = (calls.next().await.unwrap(), calls.next().await.unwrap());
    // One is refused while the other is under way, which is undone once it has its answer.
    answer_with(&client, right, Answer::Ok(r#"{"err":"none left"}"#)).await;
    until_ok("it is written that the group failed", async || {
        let run = all(&client).await.runs.remove(0);
        if run.phase == Phase::RollingBack {
            Ok(())
        } else {
            Err(run)
        }
    })
    .await;
    answer_with(&client, left, Answer::Ok(r#"{"ok":{"id":"r-9"}}"#)).await;
    let undo = calls.next().await.unwrap();
    assert_eq!(called(&undo).body, json!({"reservation": "r-9"}));
    answer_with(&client, undo, Answer::Ok(r#"{"ok":null}"#)).await;
    assert_eq!(caller.await.unwrap(), json!({"err": "none left"}));
    bench.end().await;
}

/// Kills the owner at the `nth` call of a function, which is not answered; another process finishes.
async fn kill_at(function: &'static str, nth: usize, declines: bool) {
    let hosts = Hosts::of(("types", &types()), &lines(), ORDER).await;
    let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let shop = Shop::open(&hosts.nats.connect().await, move |name, before| {
        if name == function && before == nth {
            called.send(()).unwrap();
            return Some(Answer::Silence);
        }
        (name == "tell" && declines).then_some(Answer::Ok(r#"{"err":7}"#))
    })
    .await;
    let first = hosts.start();
    let body = r#"{"orders":["a","b","c"],"gift":"x"}"#;
    hosts.client.publish(BULK_PLACE, body.into()).await.unwrap();
    calls.recv().await.unwrap();
    first.signal(Signal::KILL);
    drop(first);
    let _second = hosts.start();
    let phase = hosts.until_ended().await;
    let calls = shop.calls();
    let steps = |ending: &str| {
        let steps = calls.iter().filter(|call| call.step.ends_with(ending));
        steps
            .map(|call| call.step.clone())
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert_eq!(
        phase,
        if declines {
            Phase::RolledBack
        } else {
            Phase::Completed
        },
        "{calls:?}"
    );
    assert_eq!(steps(".undo"), if declines { 5 } else { 0 }, "{calls:?}");
    // At most what was under way is repeated: two at the same time.
    assert!(
        calls.len() <= 6 + 2 + if declines { 5 } else { 0 },
        "{calls:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_goes_on_with_groups_and_lists() {
    tokio::join!(kill_at("reserve", 1, false), kill_at("charge", 1, false));
    tokio::join!(kill_at("charge", 2, true), kill_at("refund", 1, true));
}
