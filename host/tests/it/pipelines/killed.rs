//! Owners that die or are paused, as real processes.

use std::collections::BTreeSet;

use rand::Rng as _;
use rustix::process::Signal;

use tokio::task::JoinHandle;

use super::hosts::Hosts;
use super::*;
use crate::support::cli::Up;

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

/// What the bank knows.
#[derive(Default)]
pub(super) struct Books {
    pub(super) charged: BTreeSet<String>,
    refunded: BTreeSet<String>,
}

impl Books {
    /// Orders that are paid for.
    pub(super) fn paid(&self) -> usize {
        self.charged.difference(&self.refunded).count()
    }
}

/// Services that recognise a repetition; the bank declines orders whose number ends with 3.
pub(super) async fn keep_books(client: Client, books: Arc<Mutex<Books>>) {
    let mut calls = client.subscribe("bay.app.test.shop.*.v1.*").await.unwrap();
    settled(&client).await.unwrap();
    tokio::spawn(async move {
        while let Some(message) = calls.next().await {
            if message.subject.ends_with("place") {
                continue;
            }
            let Called { function, body, .. } = called(&message);
            let order = body["order"].as_str().unwrap_or_default().to_owned();
            let answer = match &*function {
                "charge" if order.ends_with('3') => Answer::Ok(r#"{"err":"declined"}"#),
                "charge" => {
                    books.lock().unwrap().charged.insert(order);
                    usual(&function)
                }
                "refund" => {
                    books.lock().unwrap().refunded.insert(order);
                    usual(&function)
                }
                _ => usual(&function),
            };
            // Long enough for a host to die meanwhile.
            let client = client.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                answer_with(&client, message, answer).await;
            });
        }
    });
}

/// Asks until there is an outcome, always for the same run; whether it was completed.
pub(super) async fn insist(client: Client, number: usize) -> bool {
    let order = format!(r#"{{"orderId":"o-{number}","count":1,"tell":true}}"#);
    loop {
        let mut headers = HeaderMap::new();
        headers.insert(wire::MESSAGE_ID, format!("o-{number}"));
        headers.insert(wire::DEADLINE, "2000");
        let request = client.request_with_headers(PLACE, headers, order.clone().into());
        let Ok(Ok(reply)) = tokio::time::timeout(Duration::from_secs(3), request).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let text: Value = serde_json::from_slice(&reply.payload).unwrap_or_default();
        match (&text["ok"], &text["err"]) {
            (Value::Null, Value::Null) => tokio::time::sleep(Duration::from_millis(50)).await,
            (ok, _) => return !ok.is_null(),
        }
    }
}

/// Every order has its outcome, declined where its number ends with 3, and what is paid is what is completed.
pub(super) async fn assert_balance(
    client: &Client,
    orders: Vec<JoinHandle<bool>>,
    books: &Mutex<Books>,
) {
    let mut completed = 0;
    for (number, order) in orders.into_iter().enumerate() {
        let outcome = tokio::time::timeout(3 * DEADLINE, order).await;
        let Ok(is_completed) = outcome else {
            let open = runs(client).list(false, None, None, 100).await;
            panic!("order {number} has no outcome: {open:?}");
        };
        let is_completed = is_completed.unwrap();
        assert_eq!(is_completed, number % 10 != 3, "order {number}");
        completed += usize::from(is_completed);
    }
    no_open_runs(client).await;
    assert_eq!(books.lock().unwrap().paid(), completed);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; `cargo test --test it -- --ignored --nocapture the_books_balance_at_size`"]
async fn the_books_balance_at_size() {
    const ORDERS: usize = 10_000;
    const AT_ONCE: usize = 200;
    // What is kept of all runs is more than a pipeline has room for otherwise.
    let lines = manifest("").replace("deadline = \"30s\"", "deadline = \"2m\"\nsize = \"1GiB\"");
    let hosts = Hosts::of(("types", TYPES), &lines, ORDER).await;
    let books = Arc::new(Mutex::new(Books::default()));
    keep_books(hosts.nats.connect().await, Arc::clone(&books)).await;
    let mut running: Vec<Up> = (0..3).map(|_| hosts.start()).collect();
    let room = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let began = std::time::Instant::now();
    let orders = (0..ORDERS).map(|number| {
        let (client, room) = (hosts.client.clone(), Arc::clone(&room));
        tokio::spawn(async move {
            let _place = room.acquire().await.unwrap();
            insist(client, number).await
        })
    });
    let orders: Vec<_> = orders.collect();
    let mut kills = 0;
    while orders.iter().any(|order| !order.is_finished()) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let victim = rand::rng().random_range(0..running.len());
        running.remove(victim).signal(Signal::KILL);
        running.push(tokio::task::block_in_place(|| hosts.start()));
        kills += 1;
    }
    let took = began.elapsed();
    assert_balance(&hosts.client, orders, &books).await;
    let paid = books.lock().unwrap().paid();
    tell(&format!(
        "{ORDERS} runs, {paid} paid, {kills} hosts killed, {took:.0?}"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_balance_whatever_is_killed() {
    const ORDERS: usize = 120;
    let hosts = hosts().await;
    let books = Arc::new(Mutex::new(Books::default()));
    keep_books(hosts.nats.connect().await, Arc::clone(&books)).await;
    let mut running: Vec<Up> = (0..3).map(|_| hosts.start()).collect();
    let orders = (0..ORDERS).map(|number| {
        let client = hosts.client.clone();
        tokio::spawn(async move {
            // A few at a time, over several seconds.
            tokio::time::sleep(Duration::from_millis(60 * number as u64)).await;
            insist(client, number).await
        })
    });
    let orders: Vec<_> = orders.collect();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let victim = rand::rng().random_range(0..running.len());
        running.remove(victim).signal(Signal::KILL);
        running.push(tokio::task::block_in_place(|| hosts.start()));
    }
    assert_balance(&hosts.client, orders, &books).await;
}
