//! The page of the admin address in browsers, with the shop behind it.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use wasmbay::nats::ConnectOptions;

use super::{CARD, Example, manifest, order, root};
use crate::support::cli::Cli;
use crate::support::http::request;
use crate::support::until_ok_blocking;

/// Where the pictures of the last run are, for people.
const PICTURES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/page");

/// Upper bound of the time to the first paint in a debug build on a busy machine, in milliseconds. It is
/// about 50 where nothing else runs.
const PAINT: f64 = 2_000.0;

/// Both browsers, each with its program.
const BROWSERS: [(&str, &str); 2] = [
    ("chrome", "chromium-headless-shell"),
    ("firefox", "firefox-esr"),
];

fn browse(script: &str, (browser, program): (&str, &str), url: &str) -> Value {
    let tools = root().join(".tools/bin");
    let browse = tools.join("browse");
    assert!(
        browse.exists(),
        "no browsers: run `guests/tools.sh browsers`"
    );
    std::fs::create_dir_all(PICTURES).unwrap();
    let output = Command::new(browse)
        .arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/it")
                .join(script),
        )
        .arg(browser)
        .arg(tools.join(program))
        .args([url, PICTURES])
        .output()
        .unwrap();
    let (said, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{browser}: {said}{error}");
    serde_json::from_str(said.trim()).unwrap()
}

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
    let shop = Example::run_with(cli, &["--admin", "127.0.0.1:0"]);
    let announced = std::fs::read(shop.cli.path(".wasmbay/host.json")).unwrap();
    let announced: Value = serde_json::from_slice(&announced).unwrap();
    let admin = announced["admin"].as_str().unwrap();

    let paid = shop.post("/orders", &order(&[("keyboard", 1)], CARD));
    assert_eq!(paid.status, 201, "{paid:?}");
    let declined = shop.post("/orders", &order(&[("mouse", 1)], "4000 0000 0000 0002"));
    assert_eq!(declined.status, 402, "{declined:?}");
    // An event that is none, which both of its subscribers refuse for good.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = ConnectOptions::to(&shop.nats).connect().await.unwrap();
        let subject = "bay.shop.shop.orders.events.v1.order-placed";
        client
            .publish(subject, "\"no order\"".into())
            .await
            .unwrap();
        client.flush().await.unwrap();
    });
    let address = admin.strip_prefix("http://").unwrap();
    until_ok_blocking("there are dead letters", || {
        let found = request(address, "/dead-letters", None).unwrap().json();
        let count = found["deadLetters"].as_array().map_or(0, Vec::len);
        (count == 2).then_some(()).ok_or(found)
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
        for browser in BROWSERS {
            let found = browse("page.mjs", browser, admin);
            println!("{found}");
            assert!(found["paint"].as_f64().unwrap() < PAINT, "{found}");
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
