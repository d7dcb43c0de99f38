//! Owners that die or are paused, as real processes.

use std::time::Instant;

use rustix::process::Signal;

use super::hosts::Hosts;
use super::*;

async fn hosts() -> Hosts {
    Hosts::of(("types", TYPES), &manifest(""), ORDER).await
}

/// Kills the owner when this function is called, before or after it has its answer; another process
/// finishes.
async fn kill_at(function: &'static str, answered: bool, declines: bool) -> (Phase, Shop) {
    let hosts = hosts().await;
    let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let shop = hosts
        .shop(move |name, before| {
            let silent = name == function && before == 0;
            if silent {
                called.send(()).unwrap();
            }
            match name {
                _ if silent && !answered => Some(Answer::Silence),
                "charge" if declines => Some(Answer::Ok(r#"{"err":"declined"}"#)),
                _ => None,
            }
        })
        .await;
    let first = hosts.start();
    hosts.begin().await;
    calls.recv().await.unwrap();
    first.signal(Signal::KILL);
    drop(first);
    let _second = hosts.start();
    let phase = hosts.until_ended().await;
    (phase, shop)
}

/// Every call of the same step has the same id.
fn assert_recognisable(shop: &Shop) {
    let calls = shop.calls();
    for call in &calls {
        let mut same = calls.iter().filter(|other| other.function == call.function);
        assert!(same.all(|other| other.step == call.step), "{calls:?}");
    }
}

async fn completes(function: &'static str, answered: bool) {
    let (phase, shop) = kill_at(function, answered, false).await;
    assert_eq!(phase, Phase::Completed, "{:?}", shop.calls());
    assert_eq!(shop.count("release") + shop.count("refund"), 0);
    for step in ["reserve", "charge", "tell"] {
        let most = if step == function { 2 } else { 1 };
        assert!(
            (1..=most).contains(&shop.count(step)),
            "{step}: {:?}",
            shop.calls()
        );
    }
    assert_recognisable(&shop);
}

async fn rolls_back(function: &'static str, answered: bool) {
    let (phase, shop) = kill_at(function, answered, true).await;
    assert_eq!(phase, Phase::RolledBack, "{:?}", shop.calls());
    assert!(shop.count("release") >= 1 && shop.count("tell") == 0);
    assert_recognisable(&shop);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_finishes_what_a_killed_one_began() {
    tokio::join!(completes("reserve", false), completes("charge", false));
    tokio::join!(completes("tell", false), completes("reserve", true));
    tokio::join!(completes("charge", true), completes("tell", true));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_undoes_what_a_killed_one_began() {
    tokio::join!(rolls_back("charge", true), rolls_back("release", false));
    rolls_back("release", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_paused_writes_nothing() {
    let hosts = hosts().await;
    // The charge of the first owner is answered late, by hand.
    let held = Arc::new(Mutex::new(None));
    let mut charges = hosts.client.subscribe("held").await.unwrap();
    settled(&hosts.client).await.unwrap();
    let client = hosts.nats.connect().await;
    let mut calls = client.subscribe("bay.app.test.shop.*.v1.*").await.unwrap();
    settled(&client).await.unwrap();
    let shop = Shop(Arc::default());
    let (log, keep) = (Arc::clone(&shop.0), Arc::clone(&held));
    tokio::spawn(async move {
        while let Some(message) = calls.next().await {
            if message.subject.ends_with("place") {
                continue;
            }
            let called = called(&message);
            let function = called.function.clone();
            log.lock().unwrap().push(called);
            if function == "charge" && keep.lock().unwrap().is_none() {
                *keep.lock().unwrap() = Some(message);
                client.publish("held", "".into()).await.unwrap();
                continue;
            }
            answer_with(&client, message, usual(&function)).await;
        }
    });
    let first = hosts.start();
    hosts.begin().await;
    charges.next().await.unwrap();
    first.signal(Signal::STOP);
    let _second = hosts.start();
    assert_eq!(hosts.until_ended().await, Phase::Completed);
    let before = hosts.last_written().await;

    let late = held.lock().unwrap().take().unwrap();
    answer_with(&hosts.client, late, Answer::Ok(r#"{"ok":"late"}"#)).await;
    first.signal(Signal::CONT);
    first.until("another owner goes on with a run");
    assert_eq!(hosts.last_written().await, before);
    let run = all(&hosts.client).await.runs.remove(0);
    let shown = runs(&hosts.client).show(&run.id).await.unwrap();
    assert_eq!(
        shown.reply.unwrap().get(),
        r#"{"ok":{"reservationId":"r-1","receipt":"receipt-1"}}"#
    );
    // The charge was made twice, and both with one id.
    assert_eq!(shop.functions(), ["reserve", "charge", "charge", "tell"]);
    assert_recognisable(&shop);
}

/// Time within which another host takes over, as the documentation has it: a host is given up after 4 seconds.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn another_host_takes_over_within_five_seconds() {
    let hosts = hosts().await;
    let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let _shop = hosts
        .shop(move |name, before| {
            let silent = name == "charge" && before == 0;
            if silent {
                called.send(()).unwrap();
            }
            silent.then_some(Answer::Silence)
        })
        .await;
    let first = hosts.start();
    hosts.begin().await;
    calls.recv().await.unwrap();
    let _second = hosts.start();
    let mut writes = hosts.client.subscribe("bay-run.app.run.>").await.unwrap();
    settled(&hosts.client).await.unwrap();
    first.signal(Signal::KILL);
    drop(first);
    let died = Instant::now();
    // Nobody else is left to write.
    writes.next().await.unwrap();
    let took = died.elapsed();
    assert!(took < SOON, "{took:?}");
    assert_eq!(hosts.until_ended().await, Phase::Completed);
    tell(&format!("another host took over after {took:.1?}"));
}
