//! Durable functions: a component in the text format, whose calls are answered by programs.

use std::collections::BTreeMap;

use rustix::process::Signal;
use tokio::sync::mpsc::UnboundedReceiver;
use wasmbay::pipelines::Listed;

use super::hosts::{Hosts, TAKEN_OVER};
use super::*;
use crate::support::apps::{apply, start};

/// Exports `test:shop/checkout@1.0.0`: `place` reserves, charges and tells. The count that it reserves is made
/// of the time, and the cents that it charges are random. With count 1 it traps between the two, with count 2 it
/// reserves without an end, and with count 3 it sleeps until the clock says that it did.
pub(crate) const DESK: &str = r#"
(component
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $monotonic
    (alias outer 1 $pollable (type $outer))
    (export "pollable" (type $p (eq $outer)))
    (export "now" (func (result u64)))
    (export "subscribe-instant" (func (param "when" u64) (result (own $p))))))
  (import "wasi:clocks/wall-clock@0.2.0" (instance $wall
    (type $d' (record (field "seconds" u64) (field "nanoseconds" u32)))
    (export "datetime" (type $d (eq $d')))
    (export "now" (func (result $d)))))
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-u64" (func (result u64)))))
  (import "test:shop/stock@1.0.0" (instance $stock
    (type $r' (record (field "id" string)))
    (export "reservation" (type $r (eq $r')))
    (export "reserve" (func (param "order" string) (param "count" u32) (result (result $r (error string)))))
    (export "release" (func (param "reservation" string) (result (result (error string)))))))
  (import "test:shop/bank@1.0.0" (instance $bank
    (export "charge" (func (param "order" string) (param "cents" u64) (result (result string (error string)))))
    (export "refund" (func (param "order" string) (result (result (error string)))))))
  (import "test:shop/mail@1.0.0" (instance $mail
    (export "tell" (func (param "to" string) (param "receipt" (option string)) (result (result (error u32)))))))
  (core module $heap
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $heap (instantiate $heap))
  (alias core export $heap "memory" (core memory $memory))
  (alias core export $heap "realloc" (core func $realloc))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $drop (canon resource.drop $pollable))
  (core func $since (canon lower (func $monotonic "now")))
  (core func $until (canon lower (func $monotonic "subscribe-instant")))
  (core func $now (canon lower (func $wall "now") (memory (core memory $memory))))
  (core func $any (canon lower (func $random "get-random-u64")))
  (core func $reserve (canon lower (func $stock "reserve") (memory (core memory $memory)) (realloc (core func $realloc))))
  (core func $charge (canon lower (func $bank "charge") (memory (core memory $memory)) (realloc (core func $realloc))))
  (core func $tell (canon lower (func $mail "tell") (memory (core memory $memory)) (realloc (core func $realloc))))
  (core module $code
    (import "heap" "memory" (memory 1))
    (import "shop" "block" (func $block (param i32)))
    (import "shop" "drop" (func $drop (param i32)))
    (import "shop" "since" (func $since (result i64)))
    (import "shop" "until" (func $until (param i64) (result i32)))
    (import "shop" "now" (func $now (param i32)))
    (import "shop" "any" (func $any (result i64)))
    (import "shop" "reserve" (func $reserve (param i32 i32 i32 i32)))
    (import "shop" "charge" (func $charge (param i32 i32 i64 i32)))
    (import "shop" "tell" (func $tell (param i32 i32 i32 i32 i32 i32)))
    (func $sleep
      (local $end i64) (local $pollable i32)
      (local.set $end (i64.add (call $since) (i64.const 30000000)))
      (loop $again
        (local.set $pollable (call $until (local.get $end)))
        (call $block (local.get $pollable))
        (call $drop (local.get $pollable))
        (br_if $again (i64.lt_u (call $since) (local.get $end)))))
    (func (export "place") (param $at i32) (param $bytes i32) (param $count i32) (param $tell i32) (result i32)
      (if (i32.eq (local.get $count) (i32.const 3)) (then (call $sleep)))
      (loop $again
        (call $now (i32.const 128))
        (call $reserve (local.get $at) (local.get $bytes)
          (i32.add (i32.wrap_i64 (i64.load (i32.const 128))) (i32.load (i32.const 136)))
          (i32.const 256))
        (if (i32.load8_u (i32.const 256)) (then (return (i32.const 256))))
        (br_if $again (i32.eq (local.get $count) (i32.const 2))))
      (if (i32.eq (local.get $count) (i32.const 1)) (then unreachable))
      (call $charge (local.get $at) (local.get $bytes) (call $any) (i32.const 288))
      (if (i32.load8_u (i32.const 288)) (then (return (i32.const 288))))
      (if (local.get $tell)
        (then (call $tell (local.get $at) (local.get $bytes)
          (i32.const 1) (i32.load (i32.const 292)) (i32.load (i32.const 296)) (i32.const 320))))
      (i32.const 288)))
  (core instance $core (instantiate $code
    (with "heap" (instance $heap))
    (with "shop" (instance
      (export "block" (func $block)) (export "drop" (func $drop))
      (export "since" (func $since)) (export "until" (func $until))
      (export "now" (func $now)) (export "any" (func $any))
      (export "reserve" (func $reserve)) (export "charge" (func $charge)) (export "tell" (func $tell))))))
  (func $place (param "order-id" string) (param "count" u32) (param "tell" bool) (result (result string (error string)))
    (canon lift (core func $core "place") (memory (core memory $memory)) (realloc (core func $realloc))))
  (instance $api (export "place" (func $place)))
  (export "test:shop/checkout@1.0.0" (instance $api)))
"#;

/// What the table of the service has.
pub(crate) const DURABLE: &str = r#"
durable = { functions = ["test:shop/checkout.place"], deadline = "30s", timeout = "3s", journal = "16KiB", retry = { attempts = 2, backoff = ["20ms"] } }

[service.desk.undo."test:shop/stock.reserve"]
call = "test:shop/stock.release"
with = { reservation = "$result.id" }
retry = { attempts = 2, backoff = ["20ms"] }

[service.desk.undo."test:shop/bank.charge"]
call = "test:shop/bank.refund"
with = { order = "$args.order" }
retry = { attempts = 2, backoff = ["20ms"] }
"#;

fn desk(text: &str) -> [(&'static str, &str, &'static str); 1] {
    [("desk", text, DURABLE)]
}

async fn open(decide: impl Fn(&str, usize) -> Option<Answer> + Send + 'static) -> (Bench, Shop) {
    let bench = bench(&Services(&desk(DESK), WIRES)).await;
    let shop = Shop::open(&bench.client, decide).await;
    (bench, shop)
}

fn order(count: u32) -> String {
    format!(r#"{{"orderId":"o-1","count":{count},"tell":true}}"#)
}

#[tokio::test]
async fn the_calls_of_a_function_are_steps() {
    let (bench, shop) = open(|_, _| None).await;
    let reply = place(&bench.client, &order(0), &[]).await.unwrap();
    assert_eq!(reply, json!({"ok": "receipt-1"}));
    assert_eq!(shop.functions(), ["reserve", "charge", "tell"]);
    no_open_runs(&bench.client).await;
    let run = all(&bench.client).await.runs.remove(0);
    assert_eq!(
        (&*run.pipeline, run.phase),
        ("desk-place", Phase::Completed)
    );
    let steps: Vec<_> = shop.calls().into_iter().map(|call| call.step).collect();
    let named = ["1-reserve", "2-charge", "3-tell"].map(|step| format!("{}.{step}", run.id));
    assert_eq!(steps, named);
    let shown = runs(&bench.client).show(&run.id).await.unwrap();
    assert_eq!(shown.reply.unwrap().get(), r#"{"ok":"receipt-1"}"#);
    assert_eq!(
        shown.steps[1].result.as_ref().unwrap().get(),
        r#""receipt-1""#
    );

    // One publication for each call, and two for the beginning and one for the end of the run.
    let context = jetstream::new(bench.client.clone());
    let mut stream = context.get_stream("bay_app_runs").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.last_sequence, 2 + 3 + 1);
    bench.end().await;
}

#[tokio::test]
async fn a_key_makes_a_second_call_the_same_run() {
    let (bench, shop) = open(|_, _| None).await;
    let key = [(wire::MESSAGE_ID, "order 1")];
    let order = order(0);
    let (one, two) = tokio::join!(
        place(&bench.client, &order, &key),
        place(&bench.client, &order, &key)
    );
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(shop.functions(), ["reserve", "charge", "tell"]);
    bench.end().await;
}

#[tokio::test]
async fn an_err_value_undoes_what_was_done() {
    let (bench, shop) = open(|function, _| match function {
        "charge" => Some(Answer::Ok(r#"{"err":"card declined"}"#)),
        _ => None,
    })
    .await;
    let reply = place(&bench.client, &order(0), &[]).await.unwrap();
    assert_eq!(reply, json!({"err": "card declined"}));
    assert_eq!(shop.functions(), ["reserve", "charge", "release"]);
    let undo = shop.calls().remove(2);
    assert_eq!(undo.body, json!({"reservation": "r-1"}));
    assert!(undo.step.ends_with(".1-reserve.undo"));
    no_open_runs(&bench.client).await;
    assert_eq!(all(&bench.client).await.runs[0].phase, Phase::RolledBack);
    bench.end().await;
}

#[tokio::test]
async fn a_call_that_fails_is_tried_again_before_the_function_sees_it() {
    let (bench, shop) = open(|function, before| match (function, before) {
        ("reserve", 0) | ("charge", _) => Some(Answer::Trap),
        _ => None,
    })
    .await;
    let reply = place(&bench.client, &order(0), &[]).await.unwrap();
    let why = reply["err"].as_str().unwrap();
    assert!(why.contains("it trapped"), "{why}");
    // The charge may have been made, and its order is among its arguments.
    assert_eq!(
        shop.functions(),
        [
            "reserve", "reserve", "charge", "charge", "refund", "release"
        ]
    );
    let calls = shop.calls();
    assert_eq!(
        (&calls[0].step, &calls[0].body),
        (&calls[1].step, &calls[1].body)
    );
    assert_eq!(calls[4].body, json!({"order": "o-1"}));
    bench.end().await;
}

#[tokio::test]
async fn a_function_that_traps_is_undone() {
    let (bench, shop) = open(|_, _| None).await;
    let (code, error) = place(&bench.client, &order(1), &[]).await.unwrap_err();
    assert_eq!(code, 500);
    let why = error["message"].as_str().unwrap();
    assert!(
        why.contains("unreachable") && why.ends_with("what was done is undone"),
        "{why}"
    );
    assert_eq!(shop.functions(), ["reserve", "release"]);
    bench.end().await;
}

#[tokio::test]
async fn a_journal_has_a_bound() {
    let (bench, shop) = open(|_, _| None).await;
    let (code, error) = place(&bench.client, &order(2), &[]).await.unwrap_err();
    assert_eq!(code, 413);
    let why = error["message"].as_str().unwrap();
    assert!(
        why.contains("its journal would have more than 16384 bytes"),
        "{why}"
    );
    let (reserved, released) = (shop.count("reserve"), shop.count("release"));
    assert!(
        reserved > 3 && reserved == released,
        "{reserved} and {released}"
    );
    bench.end().await;
}

#[tokio::test]
async fn a_sleep_moves_the_time_of_a_run() {
    let (bench, shop) = open(|_, _| None).await;
    assert!(place(&bench.client, &order(3), &[]).await.is_ok());
    assert_eq!(shop.count("tell"), 1);
    bench.end().await;
}

async fn hosts() -> Hosts {
    Hosts::of(("desk", DESK), &format!("{DURABLE}{WIRES}"), &order(0)).await
}

/// Leaves the first charge without an answer, and tells of it.
fn silent_once() -> (
    impl Fn(&str, usize) -> Option<Answer> + Send + 'static,
    UnboundedReceiver<()>,
) {
    let (called, calls) = tokio::sync::mpsc::unbounded_channel();
    let decide = move |function: &str, before| {
        let silent = function == "charge" && before == 0;
        if silent {
            called.send(()).unwrap();
        }
        silent.then_some(Answer::Silence)
    };
    (decide, calls)
}

/// The one run, once it is stopped.
async fn until_stopped(client: &Client) -> Listed {
    let stopped = async || {
        let run = all(client).await.runs.remove(0);
        (run.phase == Phase::Stopped)
            .then(|| run.clone())
            .ok_or(run)
    };
    crate::support::until_ok_within(TAKEN_OVER, "the run is stopped", stopped).await
}

/// Every attempt at a step has the same id and the same arguments: time and random are those of the run.
fn assert_alike(shop: &Shop) {
    let mut seen = BTreeMap::new();
    for call in shop.calls() {
        let body = seen.entry(call.step.clone()).or_insert(call.body.clone());
        assert_eq!(*body, call.body, "{call:?}");
    }
}

/// Kills the owner at the journal write with this number; another process finishes.
async fn kill_at_write(number: usize, declines: bool) -> (Phase, Shop) {
    let hosts = hosts().await;
    let shop = hosts
        .shop(move |function, _| match function {
            "charge" if declines => Some(Answer::Ok(r#"{"err":"declined"}"#)),
            _ => None,
        })
        .await;
    let mut writes = hosts.client.subscribe("bay-run.app.run.>").await.unwrap();
    settled(&hosts.client).await.unwrap();
    let first = hosts.start();
    hosts.begin().await;
    for _ in 0..number {
        writes.next().await.unwrap();
    }
    first.signal(Signal::KILL);
    drop(first);
    let _second = hosts.start();
    let phase = hosts.until_ended().await;
    (phase, shop)
}

async fn completes(number: usize) {
    let (phase, shop) = kill_at_write(number, false).await;
    assert_eq!(
        phase,
        Phase::Completed,
        "write {number}: {:?}",
        shop.calls()
    );
    assert_eq!(shop.count("release") + shop.count("refund"), 0);
    let counts = ["reserve", "charge", "tell"].map(|step| shop.count(step));
    // The one that was under way may have been made twice.
    assert!(
        counts.iter().all(|count| (1..=2).contains(count)),
        "{counts:?}"
    );
    assert!(counts.iter().sum::<usize>() <= 4, "{counts:?}");
    assert_alike(&shop);
}

async fn rolls_back(number: usize) {
    let (phase, shop) = kill_at_write(number, true).await;
    assert_eq!(
        phase,
        Phase::RolledBack,
        "write {number}: {:?}",
        shop.calls()
    );
    assert!((1..=2).contains(&shop.count("release")) && shop.count("tell") == 0);
    assert_alike(&shop);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_killed_at_any_write_loses_nothing() {
    // Begin, reserve, charge, tell, end.
    tokio::join!(completes(1), completes(2));
    tokio::join!(completes(3), completes(4));
    // Begin, reserve, charge, release, end.
    tokio::join!(rolls_back(3), rolls_back(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_killed_within_a_call_is_followed_by_another_that_makes_it_again() {
    let hosts = hosts().await;
    let (decide, mut calls) = silent_once();
    let shop = hosts.shop(decide).await;
    let first = hosts.start();
    hosts.begin().await;
    calls.recv().await.unwrap();
    first.signal(Signal::KILL);
    drop(first);
    let second = hosts.start();
    assert_eq!(hosts.until_ended().await, Phase::Completed);
    assert_eq!(shop.functions(), ["reserve", "charge", "charge", "tell"]);
    assert_alike(&shop);
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_paused_writes_nothing() {
    let hosts = hosts().await;
    let (decide, mut calls) = silent_once();
    let shop = hosts.shop(decide).await;
    let first = hosts.start();
    hosts.begin().await;
    calls.recv().await.unwrap();
    first.signal(Signal::STOP);
    let _second = hosts.start();
    assert_eq!(hosts.until_ended().await, Phase::Completed);
    let before = hosts.last_written().await;
    // Its call has run out of time meanwhile, and it has an outcome to write.
    first.signal(Signal::CONT);
    first.until("another owner goes on with a run");
    assert_eq!(hosts.last_written().await, before);
    assert_eq!(shop.functions(), ["reserve", "charge", "charge", "tell"]);
    assert_alike(&shop);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_host_may_have_called_is_undone_when_the_run_is_cancelled() {
    let hosts = hosts().await;
    let (decide, mut calls) = silent_once();
    let shop = hosts.shop(decide).await;
    let first = hosts.start();
    hosts.begin().await;
    calls.recv().await.unwrap();
    first.signal(Signal::KILL);
    drop(first);
    let run = all(&hosts.client).await.runs.remove(0);
    runs(&hosts.client).cancel(&run.id).await.unwrap();
    let _second = hosts.start();
    assert_eq!(hosts.until_ended().await, Phase::RolledBack);
    // The charge is in no journal: the function, run again, shows that it comes next.
    assert_eq!(shop.functions(), ["reserve", "charge", "refund", "release"]);
}

#[tokio::test]
async fn a_function_that_takes_another_way_is_stopped_and_ended_by_what_began_it() {
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let (decide, mut calls) = silent_once();
    let shop = Shop::open(&client, decide).await;
    // Stops while a call is under way, and gives it up.
    let host = start(nats.url(), &Services(&desk(DESK), WIRES)).await;
    client.publish(PLACE, order(0).into()).await.unwrap();
    calls.recv().await.unwrap();
    host.stop(Duration::ZERO).await;

    // It reserves another count.
    let other = DESK.replace("(i64.load (i32.const 128))", "(i64.const 1)");
    let host = start(nats.url(), &Services(&desk(&other), WIRES)).await;
    let run = until_stopped(&client).await;
    let why = run.why.unwrap();
    assert!(why.starts_with("call 1, of test:shop/stock.reserve@1.0.0, has other arguments than before; it was begun by component"), "{why}");
    assert_eq!(shop.functions(), ["reserve", "charge"]);
    let open = runs(&client).list(false, None, None, 10).await.unwrap();
    assert_eq!(open.runs.len(), 1, "a stopped run is listed");

    // With what began it, it is completed; the host keeps that when it is replaced.
    apply(&host, &Services(&desk(DESK), WIRES)).await.unwrap();
    apply(&host, &Services(&desk(&other), WIRES)).await.unwrap();
    runs(&client).retry(&run.id).await.unwrap();
    no_open_runs(&client).await;
    assert_eq!(
        runs(&client).show(&run.id).await.unwrap().run.phase,
        Phase::Completed
    );
    assert_eq!(shop.functions(), ["reserve", "charge", "charge", "tell"]);
    assert_alike(&shop);
    host.stop(DEADLINE).await;
    nats.stop().await;
}

#[tokio::test]
async fn a_stopped_run_can_be_undone() {
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let (decide, mut calls) = silent_once();
    let shop = Shop::open(&client, decide).await;
    let host = start(nats.url(), &Services(&desk(DESK), WIRES)).await;
    client.publish(PLACE, order(0).into()).await.unwrap();
    calls.recv().await.unwrap();
    host.stop(Duration::ZERO).await;
    // It ends before it reserves.
    let other = DESK.replace(
        "(loop $again\n        (call $now",
        "(if (i32.eqz (local.get $count)) (then unreachable)) (loop $again\n        (call $now",
    );
    assert_ne!(other, DESK);
    let host = start(nats.url(), &Services(&desk(&other), WIRES)).await;
    let run = until_stopped(&client).await;
    let why = run.why.unwrap();
    assert!(
        why.starts_with("after call 0 of 1 ") && why.contains("where it went on before"),
        "{why}"
    );
    runs(&client).cancel(&run.id).await.unwrap();
    no_open_runs(&client).await;
    assert_eq!(shop.functions(), ["reserve", "charge", "release"]);
    host.stop(DEADLINE).await;
    nats.stop().await;
}
