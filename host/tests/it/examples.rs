//! The examples do what their READMEs say, run as a person runs them.

mod by_grpc;
mod collected;
mod documented;
mod edited;
mod ledger;
mod looked_at;
mod matrix;
mod returned;
mod story;
mod survives;
mod tested;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use wasmbay::events::dead_letters::{DeadLetters, Entry, Filter};
use wasmbay::nats::ConnectOptions;

use crate::support::cli::{Cli, Up};
use crate::support::http::{Response, request, send};
use crate::support::shown::{Curl, curls};
use crate::support::{DEADLINE, PATIENCE, until_ok, until_ok_blocking, until_ok_blocking_within};

/// Two builds of one guest at a time would be in each other's way.
static BUILDING: Mutex<()> = Mutex::new(());

/// This checkout.
pub(crate) fn root() -> PathBuf {
    let host = Path::new(env!("CARGO_MANIFEST_DIR"));
    host.parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// An app that runs in a folder of its own.
pub(crate) struct Example {
    pub(crate) cli: Cli,
    pub(crate) up: Up,
    /// `host:port` of its gateway.
    gateway: String,
    /// The URL of its NATS server.
    pub(crate) nats: String,
}

impl Example {
    /// Runs an example of this checkout, built and compiled as often as needed, which is once.
    pub(crate) fn start(name: &str) -> Self {
        Self::run(Cli::new().with(&[("wasmbay.toml", &manifest(name))]))
    }

    /// Runs the app that is in this folder.
    pub(crate) fn run(cli: Cli) -> Self {
        Self::run_with(cli, &[], &[])
    }

    /// The same with more arguments of `up`, and variables of its environment.
    fn run_with(cli: Cli, more: &[&str], variables: &[(&str, &str)]) -> Self {
        build(&cli, &["check", "--cache", CACHE]);
        let own = ["up", "--listen", "127.0.0.1:0", "--cache", CACHE];
        let mut command = cli.command(&[&own, more].concat());
        command.envs(variables.iter().copied());
        let up = Up::start(command);
        up.until_built("ready");
        let running = std::fs::read(cli.path(".wasmbay/host.json")).unwrap();
        let running: Value = serde_json::from_slice(&running).unwrap();
        let gateway = running["gateway"].as_str().unwrap();
        Self {
            up,
            gateway: gateway.strip_prefix("http://").unwrap().to_owned(),
            nats: std::fs::read_to_string(running["natsUrlFile"].as_str().unwrap()).unwrap(),
            cli,
        }
    }

    fn get(&self, path: &str) -> Response {
        request(&self.gateway, path, None).unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        request(&self.gateway, path, Some(&body.to_string())).unwrap()
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> Response {
        send(&self.gateway, method, path, &[], body).unwrap()
    }

    /// Waits until so much of a product was sold.
    fn sold(&self, sku: &str, orders: u32, units: u32) {
        let wanted = json!({ "sku": sku, "orders": orders, "units": units });
        until_ok_blocking(&format!("sold is {wanted}"), || {
            let sold = self.get(&format!("/sales/{sku}")).json();
            if sold == wanted { Ok(()) } else { Err(sold) }
        });
    }

    /// Changes the manifest while it runs.
    pub(crate) fn change(&self, from: &str, to: &str) {
        let manifest = std::fs::read_to_string(self.cli.path("wasmbay.toml")).unwrap();
        assert!(manifest.contains(from), "{manifest}");
        self.cli.write("wasmbay.toml", manifest.replace(from, to));
    }

    /// Stops it; every call has to have been answered. Returns its folder, to run it again.
    pub(crate) fn stop(self) -> Cli {
        let printed = self.up.stop();
        assert!(
            printed.ends_with("stopped: every call was answered\n[exit 0]"),
            "{printed}"
        );
        self.cli
    }
}

/// Code is compiled once for all tests.
pub(crate) const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/compiled");

/// An example's manifest, for a folder elsewhere.
pub(crate) fn manifest(example: &str) -> String {
    let guests = format!("\"{}/guests/", root().display());
    read(&format!("examples/{example}/wasmbay.toml")).replace("\"../../guests/", &guests)
}

/// Runs a command that builds, in the environment of this process: cargo's home may be anywhere.
fn build(cli: &Cli, args: &[&str]) {
    let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_wasmbay"))
        .args(args)
        .current_dir(cli.path(""))
        .env("WASMBAY_TOOLS", root().join(".tools"))
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
}

/// A guest of this checkout, built.
pub(crate) fn guest(folder: &str) -> Vec<u8> {
    let folder = root().join(folder);
    let cli = Cli::new();
    build(&cli, &["build", folder.to_str().unwrap()]);
    let guest = wasmbay::build::Guest::open(&folder).unwrap();
    std::fs::read(guest.component()).unwrap()
}

fn order(lines: &[(&str, u32)], card: &str) -> Value {
    let lines = lines
        .iter()
        .map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity }));
    json!({
        "customer": { "name": "Ada", "email": "ada@example.com" },
        "lines": lines.collect::<Vec<_>>(),
        "card": { "number": card, "holder": "Ada Lovelace", "expires": "12/30" },
    })
}

/// The log record of notifications about a paid order.
fn email_sent(confirmation: &Value) -> String {
    let order = confirmation["orderId"].as_str().unwrap();
    format!(": email from orders@shop.example to ada@example.com: Your order {order}")
}

const CARD: &str = "4242 4242 4242 4242";

#[test]
fn hello_answers() {
    let hello = Example::start("hello");
    let shown = curls(&read("examples/hello/README.md"));
    assert_eq!(shown.len(), 1);
    shown[0].check(&hello.gateway);
    assert_eq!(
        hello.get("/hello/Zo%C3%AB").status_and_body(),
        (200, "\"Hello, Zoë!\"")
    );
    hello.stop();
}

#[test]
fn shop_passes_an_order_through_five_languages() {
    let shop = Example::start("shop");
    assert_eq!(shop.get("/readyz").status, 200);

    let check = |curls: &[Curl]| curls.iter().for_each(|curl| curl.check(&shop.gateway));
    let shown = curls(&read("examples/shop/README.md"));
    assert_eq!(shown.len(), 8);
    let (calls, reports) = shown.split_at(3);
    check(calls);
    // Sales gets the event some time after the order.
    shop.sold("keyboard", 1, 1);
    check(reports);
    shop.up.until("to ada@example.com: Your gift card");
    let shown = curls(&read("README.md"));
    assert_eq!(shown.len(), 3);
    check(&shown);

    // TypeScript answers, with what Python, Rust, Go and C said.
    let placed = shop.post("/orders", &order(&[("keyboard", 1), ("mouse", 2)], CARD));
    assert_eq!(placed.status, 201, "{placed:?}");
    let confirmation = placed.json();
    assert_eq!(confirmation["total"]["minor"], 15970);
    assert_eq!(confirmation["warehouse"], "lisbon");
    assert_eq!(confirmation["receipt"]["processor"], "go-pay");
    assert_eq!(confirmation["receipt"]["amount"], confirmation["total"]);
    shop.up.until(&email_sent(&confirmation));

    assert_eq!(shop.get("/stock/mouse").status_and_body(), (200, "3"));
    assert_eq!(
        shop.get("/stock/teapot").status_and_body(),
        (404, r#"{"tag":"unknown-sku","val":"teapot"}"#)
    );
    assert_eq!(shop.get("/products/teapot").status, 404);
    let found = shop.get("/products?tag=input&limit=1").json();
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    let quoted = shop.post("/quote", &json!([{ "sku": "mouse", "quantity": 2 }]));
    assert_eq!(
        quoted.status_and_body(),
        (200, r#"{"minor":6980,"currency":"EUR"}"#)
    );
    shop.stop();
}

#[test]
fn shop_has_an_answer_for_every_order_that_cannot_be_filled() {
    let readme = read("examples/shop/README.md");
    let (_, table) = readme
        .split_once("| order | answer |\n|---|---|\n")
        .unwrap();
    let rows: Vec<_> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split_once('|').unwrap())
        .collect();
    assert_eq!(rows.len(), 8);

    let shop = Example::start("shop");
    for (what, answer) in rows {
        let order = match what.trim() {
            "4 mice and a cable" => order(&[("mouse", 4), ("cable", 1)], CARD),
            "a product `teapot`" => order(&[("teapot", 1)], CARD),
            "no lines" => order(&[], CARD),
            gift if gift.starts_with("101 gift cards") => order(&[("gift-card", 101)], CARD),
            card => order(&[("keyboard", 1)], card.strip_prefix("card ").unwrap()),
        };
        let (status, body) = answer.trim().split_once(' ').unwrap();
        assert_eq!(
            shop.post("/orders", &order).status_and_body(),
            (status.parse().unwrap(), body.trim_matches('`')),
            "{what}"
        );
    }
    shop.stop();
}

/// Orders that are placed one after the other by several customers at once.
struct Load<'scope> {
    stop: &'scope AtomicBool,
    /// Each order's confirmation or what became of it instead, in the order of the answers.
    answers: &'scope Mutex<Vec<Result<Value, String>>>,
}

impl<'scope> Load<'scope> {
    fn start<'env>(
        scope: &'scope thread::Scope<'scope, 'env>,
        shop: &'scope Example,
        stop: &'scope AtomicBool,
        answers: &'scope Mutex<Vec<Result<Value, String>>>,
    ) -> Self {
        for _ in 0..4 {
            scope.spawn(move || {
                let order = order(&[("keyboard", 1), ("lamp", 2)], CARD).to_string();
                while !stop.load(Ordering::Relaxed) {
                    let answer = match request(&shop.gateway, "/orders", Some(&order)) {
                        Ok(response) if response.status == 201 => Ok(response.json()),
                        other => Err(format!("{other:?}")),
                    };
                    answers.lock().unwrap().push(answer);
                }
            });
        }
        Self { stop, answers }
    }

    /// Waits until ten more orders are confirmed, at least one of which has this value there.
    fn flows(&self, pointer: &str, value: &str) {
        let start = self.len();
        let fits = |answer: &Result<Value, String>| {
            let answer = answer.as_ref();
            answer.is_ok_and(|order| order.pointer(pointer).unwrap() == value)
        };
        let what = format!("an order has {value} at {pointer}");
        until_ok_blocking_within(PATIENCE, &what, || {
            assert!(
                !self.stop.load(Ordering::Relaxed),
                "no order flows any more"
            );
            let answers = self.answers.lock().unwrap();
            let flows = answers.len() >= start + 10 && answers[start..].iter().any(fits);
            flows.then_some(()).ok_or_else(|| answers.last().cloned())
        });
    }

    fn len(&self) -> usize {
        self.answers.lock().unwrap().len()
    }
}

/// Ends the customers' loops also if the test fails, which would wait for them otherwise.
impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What was confirmed, if that was everything: a value of each order, each one once.
fn confirmed(answers: Mutex<Vec<Result<Value, String>>>, pointer: &str) -> BTreeSet<String> {
    let answers = answers.into_inner().unwrap();
    let lost: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert!(
        lost.is_empty(),
        "{} of {} orders failed: {:?}",
        lost.len(),
        answers.len(),
        lost[0]
    );
    let of = |order: &Value| order.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    answers.iter().flatten().map(of).collect()
}

#[test]
fn shop_swaps_payment_for_its_twin_and_loses_no_order() {
    let shop = Example::start("shop");
    let twin = root().join("guests/rust/payment");
    build(&shop.cli, &["build", twin.to_str().unwrap()]);

    let (stop, answers) = (AtomicBool::new(false), Mutex::default());
    thread::scope(|scope| {
        let load = Load::start(scope, &shop, &stop, &answers);
        let processor = "/receipt/processor";
        load.flows(processor, "go-pay");
        shop.change("guests/go/payment", "guests/rust/payment");
        shop.up.until_built("swapped payment");
        load.flows(processor, "rust-pay");
        // What was swapped out answers nothing more.
        let placed = shop.post("/orders", &order(&[("mouse", 1)], CARD)).json();
        assert_eq!(placed.pointer(processor).unwrap(), "rust-pay");
    });
    let processors = confirmed(answers, "/receipt/processor");
    assert_eq!(Vec::from_iter(processors), ["go-pay", "rust-pay"]);
    shop.stop();
}

/// The inventory that is no component.
struct Native {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Native {
    fn start(nats: &str) -> Self {
        let mut child = Command::new(root().join(".tools/bin/python-nats"))
            .arg(root().join("examples/shop/native-inventory/inventory.py"))
            .arg(nats)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!(".tools/bin/python-nats: {error}; run make tools"));
        let mut printed = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        printed.read_line(&mut line).unwrap();
        assert!(line.contains("answering"), "{line:?}");
        let reader = thread::spawn(move || {
            // Until it ends; the rest of its output does not matter.
            let _ = printed.read_to_end(&mut Vec::new());
        });
        let reader = Some(reader);
        Self { child, reader }
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

#[test]
fn shop_has_its_inventory_from_a_native_program() {
    let shop = Example::start("shop");
    let native = Native::start(&shop.nats);
    let (stop, answers) = (AtomicBool::new(false), Mutex::default());
    thread::scope(|scope| {
        let load = Load::start(scope, &shop, &stop, &answers);
        // The host calls what it serves itself.
        load.flows("/warehouse", "lisbon");
        let text = manifest("shop");
        let (before, service) = text.split_once("[service.inventory]").unwrap();
        let (_, after) = service.split_once("\n\n").unwrap();
        let external = "[wire.\"shop:inventory/stock\"]\nexternal = true\n\n";
        shop.cli
            .write("wasmbay.toml", format!("{before}{external}{after}"));
        shop.up.until("stopped inventory");
        load.flows("/warehouse", "porto");
    });
    let warehouses = confirmed(answers, "/warehouse");
    assert_eq!(Vec::from_iter(warehouses), ["lisbon", "porto"]);

    for _ in 0..8 {
        let placed = shop.post("/orders", &order(&[("mouse", 1)], CARD)).json();
        assert_eq!(placed["warehouse"], "porto");
    }
    assert_eq!(shop.get("/stock/mouse").status_and_body(), (200, "3"));
    assert_eq!(shop.get("/stock/teapot").status, 404);
    drop(native);

    // Without it there is an answer all the same.
    let placed = shop.post("/orders", &order(&[("mouse", 1)], CARD));
    assert_eq!(placed.status, 503, "{placed:?}");
    assert_eq!(placed.json()["tag"], "unavailable");
    shop.stop();
}

#[test]
fn shop_notifies_customers_after_notifications_was_down() {
    let shop = Example::start("shop");
    let text = std::fs::read_to_string(shop.cli.path("wasmbay.toml")).unwrap();
    let without = |text: &str, table: &str| {
        let (before, cut) = text.split_once(table).unwrap();
        let (_, after) = cut.split_once("\n\n").unwrap();
        format!("{before}{after}")
    };
    let fewer = without(&text, "[service.notifications]");
    let fewer = without(&fewer, "[[pipeline.gift-card.step]]\nname = \"send\"");
    let fewer = without(&fewer, "[[pipeline.returns.step]]\nname = \"tell\"");
    let fewer = fewer.replace("message = \"$send\"\n", "");
    let fewer = fewer.replace("message = \"$tell\"\n", "");
    shop.cli.write("wasmbay.toml", fewer);
    shop.up.until("stopped notifications");

    let place = |email: &str| {
        let mut order = order(&[("mouse", 1), ("lamp", 2)], CARD);
        order["customer"]["email"] = email.into();
        let placed = shop.post("/orders", &order);
        assert_eq!(placed.status, 201, "{placed:?}");
        placed.json()
    };
    let placed: Vec<_> = (0..5).map(|_| place("ada@example.com")).collect();
    let rejected = shop.post("/orders", &order(&[("mouse", 4)], CARD));
    assert_eq!(rejected.status, 409);
    // What is rejected is not sold, and sales gets events while notifications is away.
    shop.sold("mouse", 5, 5);
    shop.sold("lamp", 5, 10);
    assert!(!shop.up.stderr().contains("email from"));

    // An event that cannot be handled becomes a dead letter, and delays no other.
    place("ada@example");
    shop.cli.write("wasmbay.toml", &text);
    shop.up.until_built("started notifications");
    for confirmation in &placed {
        shop.up.until(&email_sent(confirmation));
    }
    shop.up.until("was rejected");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(replay_with_address(&shop));
    shop.up.until("to fixed@example.com: Your order");
    // Sales had no part in it.
    shop.sold("mouse", 6, 6);
    shop.stop();
}

/// Waits for the dead letter of the customer without an address, edits one in and replays it.
async fn replay_with_address(shop: &Example) {
    let nats = ConnectOptions::to(&shop.nats);
    let context = nats.jetstream(nats.connect().await.unwrap());
    let dead_letters = DeadLetters::new(context, nats.link().await.unwrap(), "shop");
    let dead_letter = until_ok("there is one dead letter", async || {
        let list = dead_letters.list(&Filter::default(), None, 10).await;
        match &list.unwrap().entries[..] {
            [Entry::DeadLetter(found)] => Ok(dead_letters.get(&found.id).await.unwrap()),
            others => Err(others.to_vec()),
        }
    })
    .await;
    assert_eq!(dead_letter.service, "notifications");
    assert_eq!(dead_letter.function, "shop:orders/events.order-paid@1.0.0");
    assert_eq!(dead_letter.attempts.len(), 3, "{dead_letter:?}");
    let last = dead_letter.attempts.last().unwrap();
    assert!(last.error.contains("name@host.domain"), "{last:?}");

    let body = String::from_utf8(dead_letter.body.to_vec()).unwrap();
    assert!(body.contains("\"ada@example\""), "{body}");
    let fixed = body.replace("ada@example", "fixed@example.com");
    dead_letters
        .edit(&dead_letter, fixed.into(), async { None })
        .await
        .unwrap();
    dead_letters.replay(&dead_letter.id).await.unwrap();
    until_ok("the dead letter is gone", async || {
        let list = dead_letters.list(&Filter::default(), None, 10).await;
        let entries = list.unwrap().entries;
        if entries.is_empty() {
            Ok(())
        } else {
            Err(entries)
        }
    })
    .await;
}

#[test]
fn shop_is_discovered_by_any_nats_client() {
    let shop = Example::start("shop");
    let wanted = [
        "catalog",
        "inventory",
        "notifications",
        "orders",
        "payment",
        "sales",
    ];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let found = runtime.block_on(async {
        let client = ConnectOptions::to(&shop.nats).connect().await.unwrap();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.unwrap();
        client
            .publish_with_reply("$SRV.INFO", inbox, "".into())
            .await
            .unwrap();
        let mut found = BTreeSet::new();
        while found.len() < wanted.len() {
            let answer = tokio::time::timeout(DEADLINE, answers.next()).await;
            let answer = answer.unwrap_or_else(|_| panic!("only {found:?} answered"));
            let answer: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
            assert_eq!(answer["type"], "io.nats.micro.v1.info_response");
            let endpoint = &answer["endpoints"][0];
            let subject = endpoint["subject"].as_str().unwrap();
            assert!(subject.starts_with("bay.shop.shop."), "{answer}");
            found.insert(answer["name"].as_str().unwrap().to_owned());
        }
        found
    });
    assert_eq!(Vec::from_iter(found), wanted);
    shop.stop();
}
