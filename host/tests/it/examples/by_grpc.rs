//! The shop by gRPC, with clients of others.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{CACHE, Example, root};
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
