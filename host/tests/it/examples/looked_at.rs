//! The page of the admin address in browsers, with the shop behind it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use wasmbay::nats::ConnectOptions;

use super::{CARD, Example, manifest, order};
use crate::support::browser::{BROWSERS, browse, is_painted};
use crate::support::cli::Cli;
use crate::support::http::request;
use crate::support::until_ok_blocking;

/// Ends a loop also if the test fails.
struct Ends<'f>(&'f AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_reason_of_a_declined_card_is_found_on_the_page() {
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest("shop"))]);
    let shop = Example::run_with(cli, &["--admin", "127.0.0.1:0"], &[]);
    let announced = std::fs::read(shop.cli.path(".wasmbay/host.json")).unwrap();
    let announced: Value = serde_json::from_slice(&announced).unwrap();
    let admin = announced["admin"].as_str().unwrap();

    let paid = shop.post("/orders", &order(&[("keyboard", 1)], CARD));
    assert_eq!(paid.status, 201, "{paid:?}");
    let declined = shop.post("/orders", &order(&[("mouse", 1)], "4000 0000 0000 0002"));
    assert_eq!(declined.status, 402, "{declined:?}");
    // An event that is none, which both of its subscribers refuse for good: one for each browser and for what is
    // done with it.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = ConnectOptions::to(&shop.nats).connect().await.unwrap();
        let subject = "bay.shop.shop.orders.events.v1.order-paid";
        for _ in BROWSERS {
            let published = client.publish(subject, "\"no order\"".into());
            published.await.unwrap();
        }
        client.flush().await.unwrap();
    });
    let address = admin.strip_prefix("http://").unwrap();
    until_ok_blocking("there are dead letters", || {
        let found = request(address, "/dead-letters", None).unwrap().json();
        let count = found["deadLetters"].as_array().map_or(0, Vec::len);
        (count == 2 * BROWSERS.len()).then_some(()).ok_or(found)
    });

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Something for the map to show.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                shop.get("/products/keyboard");
                thread::sleep(Duration::from_millis(50));
            }
        });
        let _ended = Ends(&stop);
        for (number, browser) in (1..).zip(BROWSERS) {
            let mended = json!({ "order": {
                "orderId": format!("mended-{number}"), "customer": "Ada", "email": "ada@example.com",
                "lines": [{ "sku": "lamp", "quantity": 2 }], "total": { "minor": 100, "currency": "EUR" },
            } });
            let found = browse("page.mjs", browser, admin, &["shop", &mended.to_string()]);
            is_painted(&found);
            // What was mended on the page has been handled.
            shop.sold("lamp", number, 2 * number);
        }
    });
    shop.stop();
}

#[test]
fn what_the_gateway_serves_is_read_on_a_page() {
    let shown = manifest("shop").replace("[gateway]", "[gateway]\nopenapi = \"explorer\"");
    let shop = Example::run(Cli::new().with(&[("wasmbay.toml", &shown)]));
    for browser in BROWSERS {
        browse(
            "explorer.mjs",
            browser,
            &format!("http://{}/openapi", shop.gateway),
            &[],
        );
    }
    let cli = shop.stop();
    // Without either.
    cli.write("wasmbay.toml", shown.replace("\"explorer\"", "false"));
    let shop = Example::run(cli);
    for path in ["/openapi.json", "/openapi", "/openapi/rapidoc.js"] {
        assert_eq!(shop.get(path).status, 404, "{path}");
    }
    shop.stop();
}
