//! The kill matrix of the shop's checkout: what works on an order dies before and after each single write of its
//! journal, and inventory and payment count what was done.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::{Client, HeaderMap, jetstream};
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use wasmbay::nats::settled;
use wasmbay::pipelines::Runs;
use wasmbay::wire;

use super::*;
use crate::support::nats::Configured;
use crate::support::tap::{Tap, Way};

const PLACE: &str = "bay.shop.shop.orders.orders.v1.place";

const DECLINED: &str = "4000 0000 0000 0002";

/// More writes than the journal of an order has.
const ENOUGH: usize = 30;

/// What was done for one order number, by the ids of the steps that asked for it.
#[derive(Debug, Default)]
struct Entry {
    reserved: BTreeSet<String>,
    released: bool,
    charged: BTreeSet<String>,
    /// The holder of the card, which is another one for each order.
    holder: Option<String>,
}

/// What inventory and payment know, by the number of the order.
type Books = Arc<Mutex<BTreeMap<String, Entry>>>;

/// Catalog, inventory and payment, as one program that is no component: it never dies, and counts.
async fn keep_books(client: Client, books: Books) {
    let interfaces = ["catalog.products", "inventory.stock", "payment.payments"];
    let mut streams = Vec::new();
    for interface in interfaces {
        let subject = format!("bay.shop.shop.{interface}.v1.*");
        streams.push(client.subscribe(subject).await.unwrap());
    }
    settled(&client).await.unwrap();
    tokio::spawn(async move {
        let mut calls = futures_util::stream::select_all(streams);
        while let Some(message) = calls.next().await {
            let Some(to) = message.reply.clone() else {
                continue;
            };
            let answer = note(&mut books.lock().unwrap(), &message).to_string();
            client.publish(to, answer.into()).await.unwrap();
        }
    });
}

fn note(books: &mut BTreeMap<String, Entry>, message: &async_nats::Message) -> Value {
    let body: Value = serde_json::from_slice(&message.payload).unwrap();
    let headers = message.headers.as_ref().unwrap();
    let step = headers.get(wire::STEP).unwrap().to_string();
    let text = |pointer: &str| body.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    match message.subject.rsplit('.').next().unwrap() {
        "get" => json!({"ok": {
            "sku": text("/sku"), "name": "A mouse", "tags": [], "weightGrams": null,
            "price": {"minor": 2_990, "currency": "EUR"},
        }}),
        "reserve" => {
            let order = text("/orderId");
            books
                .entry(order.clone())
                .or_default()
                .reserved
                .insert(step);
            let id = format!("res-{order}");
            json!({"ok": {"id": id, "warehouse": "lisbon", "lines": body["lines"]}})
        }
        "release" => {
            let order = text("/reservationId").replace("res-", "");
            books.entry(order).or_default().released = true;
            json!({"ok": null})
        }
        "charge" => {
            let entry = books.entry(text("/orderId")).or_default();
            let holder = text("/card/holder");
            assert!(entry.holder.as_ref().is_none_or(|one| *one == holder));
            entry.holder = Some(holder);
            if text("/card/number") == DECLINED {
                return json!({"err": {"tag": "declined", "val": "insufficient-funds"}});
            }
            entry.charged.insert(step);
            json!({"ok": {"id": "rcpt-1", "amount": body["amount"], "processor": "test", "card": "4242"}})
        }
        other => panic!("{other}"),
    }
}

/// The orders service with its tables as the shop's manifest has them; the others are that program.
fn checkout() -> String {
    let text = manifest("shop");
    let (_, orders) = text.split_once("[service.orders]").unwrap();
    let (orders, _) = orders.split_once("\n# Buying a gift card").unwrap();
    let (first, rest) = orders.split_once("component = ").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let external = ["catalog/products", "inventory/stock", "payment/payments"]
        .map(|of| format!("[wire.\"shop:{of}\"]\nexternal = true\n"))
        .concat();
    format!(
        "name = \"shop\"\n[service.orders]{first}component = \"orders.wasm\"\n{rest}\n{external}"
    )
}

/// At which write of which run who dies.
struct Aim {
    id: String,
    left: usize,
    way: Way,
}

impl Aim {
    fn at(&mut self, subject: &str) -> Way {
        if self.left == 0
            || !subject.starts_with("bay-run.shop.run.")
            || !subject.ends_with(&self.id)
        {
            return Way::On;
        }
        self.left -= 1;
        if self.left == 0 { self.way } else { Way::On }
    }
}

/// Who dies.
#[derive(Clone, Copy, PartialEq)]
enum Victim {
    /// The host that writes.
    Host,
    /// The server that it writes to.
    Server,
}

/// Hosts of the checkout that share one server.
struct Lane {
    victim: Victim,
    nats: Configured,
    cli: Cli,
    client: Client,
    books: Books,
    aim: Arc<Mutex<Aim>>,
    server: Arc<Mutex<Pid>>,
    /// Hosts by number, each with its way to the server.
    hosts: Vec<(Tap, Up)>,
    died: UnboundedReceiver<usize>,
    dies: UnboundedSender<usize>,
}

impl Lane {
    async fn open(victim: Victim, orders: &[u8]) -> Self {
        let nats = Configured::start("").await;
        let client = ConnectOptions::to(nats.url()).connect().await.unwrap();
        let cli = Cli::new().with(&[("wasmbay.toml", &checkout())]);
        cli.write("orders.wasm", orders);
        let books = Books::default();
        let keeper = ConnectOptions::to(nats.url()).connect().await.unwrap();
        keep_books(keeper, Arc::clone(&books)).await;
        let aim = Aim {
            id: String::new(),
            left: 0,
            way: Way::On,
        };
        let (dies, died) = unbounded_channel();
        let server = Arc::new(Mutex::new(nats.pid()));
        let mut lane = Self {
            victim,
            server,
            nats,
            cli,
            client,
            books,
            aim: Arc::new(Mutex::new(aim)),
            hosts: Vec::new(),
            died,
            dies,
        };
        for number in 0..2 {
            let host = lane.host(number).await;
            lane.hosts.push(host);
        }
        lane
    }

    async fn host(&self, number: usize) -> (Tap, Up) {
        let (aim, dies) = (Arc::clone(&self.aim), self.dies.clone());
        let own: Arc<OnceLock<Pid>> = Arc::default();
        let (host, server, victim) = (Arc::clone(&own), Arc::clone(&self.server), self.victim);
        let watch = move |subject: &str| aim.lock().unwrap().at(subject);
        let cut = move || {
            let pid = match victim {
                Victim::Host => *host.get().unwrap(),
                Victim::Server => *server.lock().unwrap(),
            };
            kill_process(pid, Signal::KILL).unwrap();
            dies.send(number).unwrap();
        };
        let tap = Tap::to(self.nats.url(), watch, cut).await;
        let url = tap.url();
        let up = tokio::task::block_in_place(|| {
            self.cli
                .up(&["--no-gateway", "--cache", CACHE, "--nats", &url])
        });
        own.set(up.pid()).unwrap();
        (tap, up)
    }

    /// Places an order whose writes are counted; whether something died at this one, and the order was confirmed.
    async fn order(&mut self, number: usize, way: Way, card: &str) -> (bool, bool) {
        let key = format!("order-{number}");
        let digest = Sha256::digest(format!("orders-place\n{key}"));
        let id: String = digest[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        *self.aim.lock().unwrap() = Aim {
            id: id.clone(),
            left: number,
            way,
        };
        let order = json!({
            "customer": { "name": "Ada", "email": "ada@example.com" },
            "lines": [{ "sku": "mouse", "quantity": 1 }],
            "card": { "number": card, "holder": holder(number), "expires": "12/30" },
        });
        let placing = tokio::spawn(insist(self.client.clone(), key, order.to_string()));
        let mut has_died = false;
        let confirmed = loop {
            tokio::select! {
                Some(host) = self.died.recv() => {
                    has_died = true;
                    match self.victim {
                        Victim::Host => self.hosts[host] = self.host(host).await,
                        Victim::Server => {
                            self.nats.crash().await;
                            *self.server.lock().unwrap() = self.nats.pid();
                        }
                    }
                }
                () = tokio::time::sleep(Duration::from_millis(5)) => if placing.is_finished() {
                    break placing.await.unwrap();
                }
            }
        };
        let runs = Runs::new(jetstream::new(self.client.clone()), "shop");
        let shown = until_ok("the run is there", async || runs.show(&id).await).await;
        assert!(shown.run.ended.is_some(), "{shown:?}");
        (has_died, confirmed)
    }

    /// Inventory and payment have the order once, or neither has it.
    fn assert_balance(&self, number: usize, confirmed: bool, what: &str) {
        let books = self.books.lock().unwrap();
        let of_order = |entry: &&Entry| entry.holder.as_ref() == Some(&holder(number));
        let entries: Vec<_> = books.values().filter(of_order).collect();
        let [entry] = entries[..] else {
            panic!("{what}: one number of an order, not {entries:?}");
        };
        let counts = (entry.reserved.len(), entry.charged.len());
        let is_fine = match confirmed {
            true => counts == (1, 1) && !entry.released,
            false => counts == (1, 0) && entry.released,
        };
        assert!(is_fine, "{what}: {entry:?}");
    }
}

fn holder(number: usize) -> String {
    format!("Customer {number}")
}

/// Asks until there is an outcome; whether the order was confirmed.
async fn insist(client: Client, key: String, order: String) -> bool {
    loop {
        let mut headers = HeaderMap::new();
        headers.insert(wire::MESSAGE_ID, &*key);
        headers.insert(wire::DEADLINE, "8000");
        let request = client.request_with_headers(PLACE, headers, order.clone().into());
        let reply = tokio::time::timeout(Duration::from_secs(2), request).await;
        let body = reply.ok().and_then(Result::ok).map(|reply| reply.payload);
        let body: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
        if !body["ok"].is_null() {
            return true;
        }
        if !body["err"].is_null() {
            assert_eq!(body["err"]["tag"], "declined", "{body}");
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One order for each write that the journal of an order has, and one at which nothing dies. Returns the number of
/// writes.
async fn walk(orders: &[u8], victim: Victim, way: Way, card: &str) -> usize {
    let mut lane = Lane::open(victim, orders).await;
    for number in 1..ENOUGH {
        let (has_died, confirmed) = lane.order(number, way, card).await;
        assert_eq!(confirmed, card == CARD, "write {number}, {way:?}");
        let what = format!("write {number}, {way:?}, confirmed: {confirmed}");
        lane.assert_balance(number, confirmed, &what);
        if !has_died {
            return number - 1;
        }
    }
    panic!("an order has no end");
}

/// Walks these ways at the same time; returns the numbers of writes.
fn walk_all<const N: usize>(victim: Victim, ways: [(Way, &str); N]) -> [usize; N] {
    let orders = guest("guests/typescript/orders");
    thread::scope(|scope| {
        let walks = ways.map(|(way, card)| {
            let orders = &orders;
            scope.spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(walk(orders, victim, way, card))
            })
        });
        walks.map(|walk| walk.join().unwrap())
    })
}

/// The writes of an order: its beginning, get, order-placed, reserve, charge, order-paid, and its end. Of one that is
/// declined: order-rejected, and the release that ends it.
const WRITES: usize = 7;

#[test]
fn an_order_is_paid_and_reserved_once_or_neither_at_whatever_write_its_host_dies() {
    let ways = [
        (Way::Lost, CARD),
        (Way::Unanswered, CARD),
        (Way::Lost, DECLINED),
        (Way::Unanswered, DECLINED),
    ];
    let writes = walk_all(Victim::Host, ways);
    assert_eq!(writes, [WRITES; 4]);
}

#[test]
fn an_order_is_paid_and_reserved_once_or_neither_at_whatever_write_the_server_dies() {
    let ways = [(Way::Lost, CARD), (Way::Unanswered, DECLINED)];
    let writes = walk_all(Victim::Server, ways);
    assert_eq!(writes, [WRITES; 2]);
}
