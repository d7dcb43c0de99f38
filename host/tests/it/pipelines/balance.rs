//! The books balance: what inventory and payment know at the end is what callers were told, whatever was killed.
//!
//! Half of the orders are a declared pipeline's, half a durable function's.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng as _;
use rustix::process::Signal;
use tokio::task::JoinHandle;

use super::functions::{DESK, DURABLE};
use super::hosts::Hosts;
use super::*;
use crate::support::cli::Up;

/// The manifest of both. The service's table is the last but for what follows it here.
pub(crate) fn desk_and_counter() -> String {
    let counter = CHECKOUT.replace(
        "implements = \"test:shop/checkout.place\"",
        "implements = \"test:shop/counter.place@1.0.0\"\ntype = \"func(order-id: string, count: u32, tell: bool) -> result<record { reservation-id: string, receipt: string }, string>\"",
    );
    assert_ne!(counter, CHECKOUT);
    format!("{DURABLE}{WIRES}{counter}")
}

/// What is done again for as long as servers are killed.
pub(crate) fn patient(manifest: &str) -> String {
    let step = "[[pipeline.checkout.step]]\n";
    // What was asked for when the server died has no answer: it is asked for again after this.
    let text = manifest.replace(step, &format!("{step}timeout = \"1s\"\n"));
    let text = text.replace("undo = { ", "undo = { timeout = \"1s\", ");
    let text = text.replace("timeout = \"3s\"", "timeout = \"1s\"");
    // However long it takes until the server is back.
    let text = text.replace("attempts = 2,", "attempts = 50,");
    text.replace("attempts = 3,", "attempts = 50,")
}

/// The subjects of the two.
const PLACES: [&str; 2] = ["bay.app.test.shop.counter.v1.place", PLACE];

/// What was done for an order, by the ids of the steps that asked for it.
#[derive(Debug, Default)]
struct Entry {
    reserved: BTreeSet<String>,
    released: bool,
    charged: BTreeSet<String>,
    refunded: bool,
}

/// What inventory and payment know.
#[derive(Default)]
pub(crate) struct Books(BTreeMap<String, Entry>);

impl Books {
    /// Orders that are paid for.
    pub(crate) fn paid(&self) -> usize {
        let all = self.0.values();
        all.filter(|one| !one.charged.is_empty() && !one.refunded)
            .count()
    }

    /// Orders whose goods are set aside.
    fn reserved(&self) -> usize {
        let all = self.0.values();
        all.filter(|one| !one.reserved.is_empty() && !one.released)
            .count()
    }

    /// Notes a call, and answers it.
    fn note(&mut self, call: &Called) -> String {
        if call.function == "tell" {
            return r#"{"ok":null}"#.to_owned();
        }
        let field = |name: &str| call.body[name].as_str().unwrap_or_default().to_owned();
        let order = match field("reservation") {
            none if none.is_empty() => field("order"),
            reservation => reservation.trim_start_matches("r-").to_owned(),
        };
        let entry = self.0.entry(order.clone()).or_default();
        match &*call.function {
            "reserve" => {
                entry.reserved.insert(call.step.clone());
                return json!({"ok": {"id": format!("r-{order}")}}).to_string();
            }
            "release" => entry.released = true,
            "charge" if is_declined(&order) => return r#"{"err":"declined"}"#.to_owned(),
            "charge" => {
                entry.charged.insert(call.step.clone());
                return json!({"ok": format!("receipt-{order}")}).to_string();
            }
            "refund" => entry.refunded = true,
            _ => {}
        }
        r#"{"ok":null}"#.to_owned()
    }
}

fn is_declined(order: &str) -> bool {
    order.ends_with(['3', '6'])
}

/// Services that keep these books.
pub(crate) async fn keep_books(client: Client, books: Arc<Mutex<Books>>) {
    let mut streams = Vec::new();
    for interface in ["stock", "bank", "mail"] {
        let subject = format!("bay.app.test.shop.{interface}.v1.*");
        streams.push(client.subscribe(subject).await.unwrap());
    }
    settled(&client).await.unwrap();
    tokio::spawn(async move {
        let mut calls = futures_util::stream::select_all(streams);
        while let Some(message) = calls.next().await {
            let answer = books.lock().unwrap().note(&called(&message));
            // Long enough for a host to die meanwhile.
            let client = client.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let to = message.reply.unwrap();
                client.publish(to, answer.into()).await.unwrap();
            });
        }
    });
}

/// Asks until there is an outcome, always for the same run; whether it was completed.
pub(crate) async fn insist(client: Client, number: usize) -> bool {
    let order = format!(r#"{{"orderId":"o-{number}","count":0,"tell":true}}"#);
    loop {
        let mut headers = HeaderMap::new();
        headers.insert(wire::MESSAGE_ID, format!("o-{number}"));
        headers.insert(wire::DEADLINE, "2000");
        let place = PLACES[number % 2];
        let request = client.request_with_headers(place, headers, order.clone().into());
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

/// Every order has its outcome, and each is charged for and reserved once or neither.
pub(crate) async fn assert_balance(
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
        let (is_completed, order) = (is_completed.unwrap(), format!("o-{number}"));
        assert_eq!(is_completed, !is_declined(&order), "{order}");
        completed += usize::from(is_completed);
    }
    no_open_runs(client).await;
    let books = books.lock().unwrap();
    for (order, entry) in &books.0 {
        // Asked for by one step, as often as that was tried.
        let (reserved, charged) = (entry.reserved.len(), entry.charged.len());
        let is_fine = match is_declined(order) {
            false => (reserved, charged) == (1, 1) && !entry.released && !entry.refunded,
            true => charged == 0 && reserved <= 1 && entry.released == (reserved == 1),
        };
        assert!(is_fine, "{order}: {entry:?}");
    }
    // Money taken, goods set aside, orders confirmed.
    assert_eq!((books.paid(), books.reserved()), (completed, completed));
}

/// Places so many orders, one each `pace`.
pub(crate) fn place_orders(client: &Client, count: usize, pace: Duration) -> Vec<JoinHandle<bool>> {
    let orders = (0..count).map(|number| {
        let client = client.clone();
        let after = pace * u32::try_from(number).unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            insist(client, number).await
        })
    });
    orders.collect()
}

/// Three hosts of which one is killed each second, and another started, while many orders are to come.
pub(crate) struct Killing {
    /// They end with it.
    _left: Vec<Up>,
    pub(crate) kills: usize,
}

impl Killing {
    pub(crate) async fn until_few_are_left(
        orders: &[JoinHandle<bool>],
        mut start: impl FnMut() -> Up,
    ) -> Self {
        let mut start = || tokio::task::block_in_place(&mut start);
        let mut hosts: Vec<Up> = (0..3).map(|_| start()).collect();
        let mut kills = 0;
        let few = orders.len() / 20;
        while orders.iter().filter(|order| !order.is_finished()).count() > few {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let victim = rand::rng().random_range(0..hosts.len());
            hosts.remove(victim).signal(Signal::KILL);
            hosts.push(start());
            kills += 1;
        }
        Self {
            _left: hosts,
            kills,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_books_balance_whatever_is_killed() {
    let hosts = Hosts::of(("desk", DESK), &desk_and_counter(), ORDER).await;
    let books = Arc::new(Mutex::new(Books::default()));
    keep_books(hosts.nats.connect().await, Arc::clone(&books)).await;
    let orders = place_orders(&hosts.client, 200, Duration::from_millis(40));
    let killing = Killing::until_few_are_left(&orders, || hosts.start()).await;
    assert_balance(&hosts.client, orders, &books).await;
    assert!(killing.kills > 3, "{}", killing.kills);
}
