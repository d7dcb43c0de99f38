//! The shop by gRPC, with clients of others.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{CACHE, Example, manifest, root};
use crate::support::cli::Cli;
use crate::support::until_ok_blocking;

fn tool(name: &str) -> Command {
    let tool: PathBuf = root().join(".tools/bin").join(name);
    assert!(tool.exists(), "no {name}: run `guests/tools.sh grpc`");
    Command::new(tool)
}

/// What a program printed, which has to end well.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{error}");
    said.into_owned()
}

fn order(card: &str) -> String {
    json!({
        "customer": { "name": "Ada", "email": "ada@example.com" },
        "lines": [{ "sku": "keyboard", "quantity": 1 }],
        "card": { "number": card, "holder": "Ada Lovelace", "expires": "12/30" },
    })
    .to_string()
}

#[test]
fn clients_of_grpc_place_orders() {
    let shop = Example::start("shop");
    let address = shop.gateway.clone();
    let curl = |arguments: &[&str]| {
        let mut grpcurl = tool("grpcurl");
        grpcurl.arg("-plaintext").args(arguments);
        output(&mut grpcurl)
    };
    // By reflection alone.
    let services = curl(&[&address, "list"]);
    for service in [
        "shop.orders.v1.Orders",
        "shop.orders.v1.Events",
        "shop.gift_cards.unversioned.GiftCards",
        "grpc.health.v1.Health",
    ] {
        assert!(services.lines().any(|line| line == service), "{services}");
    }
    let place = |card: &str| {
        let printed = curl(&["-d", &order(card), &address, "shop.orders.v1.Orders/Place"]);
        serde_json::from_str::<Value>(&printed).unwrap()
    };
    let placed = place("4242 4242 4242 4242");
    assert_eq!(placed["ok"]["total"]["currency"], "EUR", "{placed}");
    let declined = place("4000 0000 0000 0002");
    assert_eq!(
        declined["err"]["declined"], "DECLINE_REASON_INSUFFICIENT_FUNDS",
        "{declined}"
    );
    let described = curl(&[&address, "describe", "shop.orders.v1.Customer"]);
    assert!(described.contains("string email = 2;"), "{described}");
    until_ok_blocking("the shop is healthy", || {
        let health = curl(&[&address, "grpc.health.v1.Health/Check"]);
        if health.contains("SERVING") && !health.contains("NOT") {
            Ok(())
        } else {
            Err(health)
        }
    });

    // By files. They do not change until the types do.
    let protos = shop.cli.path("proto");
    let protos = protos.to_str().unwrap();
    let wasmbay = |arguments: &[&str]| {
        let arguments = [&["proto", "--cache", CACHE], arguments].concat();
        output(&mut shop.cli.command(&arguments))
    };
    wasmbay(&["--out", protos, "--lock"]);
    wasmbay(&["--out", protos, "--check"]);
    let script = |name: &str| root().join("host/tests/it").join(name);
    output(
        tool("python-grpc")
            .arg(script("by_grpc.py"))
            .args([&address, protos]),
    );
    output(
        tool("node-grpc")
            .arg(script("by_grpc.mjs"))
            .args([&address, protos]),
    );
    // What is written to the file of numbers is checked as well.
    let lock = shop.cli.path("wasmbay.proto-lock");
    let numbers = std::fs::read_to_string(&lock).unwrap();
    assert!(
        numbers.contains("[\"shop.orders.v1.Customer\"]\nnames.name = 1\nnames.email = 2\n"),
        "{numbers}"
    );
    std::fs::write(&lock, numbers.replace("names.email = 2\n", "")).unwrap();
    let checked = shop
        .cli
        .command(&["proto", "--cache", CACHE, "--check"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(1), "{error}");
    assert!(error.contains("wasmbay proto --lock"), "{error}");
    shop.stop();
}

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_grpc_service_outside_takes_the_payments() {
    let protos = {
        let cli = Cli::new().with(&[("wasmbay.toml", &manifest("shop"))]);
        super::build(&cli, &["proto", "--cache", CACHE, "--out", "proto"]);
        cli
    };
    let mut server = tool("python-grpc");
    server
        .arg(root().join("host/tests/it/by_grpc_server.py"))
        .arg(protos.path("proto"))
        .stdout(Stdio::piped());
    let mut server = Running(server.spawn().unwrap());
    let mut port = String::new();
    let mut printed = BufReader::new(server.0.stdout.take().unwrap());
    printed.read_line(&mut port).unwrap();

    // The shop without its own payments.
    let (before, rest) = manifest("shop")
        .split_once("[service.payment]")
        .map(owned)
        .unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    let wire = format!(
        "[wire.\"shop:payment/payments\"]\nexternal = \"grpc://127.0.0.1:{}\"\n",
        port.trim()
    );
    let text = format!("{before}{after}\n{wire}").replace(
        ", retry = { attempts = 3, backoff = [\"100ms\", \"1s\"] } }\n\n[service.orders.undo",
        " }\n\n[service.orders.undo",
    );
    let shop = Example::run(Cli::new().with(&[("wasmbay.toml", &text)]));
    let place = |card: &str, holder: &str| {
        let order = json!({
            "customer": { "name": "Ada", "email": "ada@example.com" },
            "lines": [{ "sku": "mouse", "quantity": 1 }],
            "card": { "number": card, "holder": holder, "expires": "12/30" },
        });
        shop.post("/orders", &order)
    };
    let placed = place("4242 4242 4242 4242", "Ada");
    assert_eq!(placed.status, 201, "{placed:?}");
    assert_eq!(
        placed.json()["receipt"]["processor"],
        "python",
        "{placed:?}"
    );
    assert_eq!(place("4000 0000 0000 0002", "Ada").status, 402);
    // The service's own failure, with its status and message.
    let charge = |holder: &str| {
        let charge = json!({
            "orderId": "o", "amount": { "minor": 1, "currency": "EUR" },
            "card": { "number": "4242", "holder": holder, "expires": "12/30" },
        });
        shop.post("/rpc/shop:payment/payments/charge", &charge)
    };
    let failed = charge("Nobody");
    assert_eq!(failed.status, 502, "{failed:?}");
    assert!(
        failed.body.contains("gRPC status 13: no such bank: 100%"),
        "{failed:?}"
    );
    // It goes away, and the connection with it.
    drop(server);
    let failed = charge("Ada");
    assert_eq!(failed.status, 503, "{failed:?}");
    assert!(failed.body.contains("cannot be reached"), "{failed:?}");
    shop.stop();
}

fn owned((one, other): (&str, &str)) -> (String, String) {
    (one.to_owned(), other.to_owned())
}
