//! An order of the shop survives the host that works on it.

use async_nats::jetstream;
use rustix::process::Signal;
use wasmbay::nats::settled;
use wasmbay::pipelines::{Phase, Runs, StepState};

use super::*;
use crate::support::nats::Nats;

/// The journal writes of an order of one product: its beginning, and the outcomes of `get`, `order-placed`,
/// `reserve` and `charge`. What comes next is `order-paid`.
const CHARGED: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn shop_ends_an_order_whose_host_died_between_charge_and_notice() {
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest("shop"))]);
    let options = ["--no-gateway", "--cache", CACHE, "--nats", nats.url()];
    let start = || {
        tokio::task::block_in_place(|| {
            build(&cli, &["check", "--cache", CACHE]);
            cli.up(&options)
        })
    };
    let first = start();
    let mut writes = client.subscribe("bay-run.shop.run.>").await.unwrap();
    settled(&client).await.unwrap();
    let order = order(&[("keyboard", 1)], CARD);
    let order = [&order["customer"], &order["lines"], &order["card"]];
    let order = serde_json::to_vec(&order).unwrap();
    let place = "bay.shop.shop.orders.orders.v1.place";
    client.publish(place, order.into()).await.unwrap();
    for _ in 0..CHARGED {
        writes.next().await.unwrap();
    }
    first.signal(Signal::KILL);
    drop(first);

    let second = start();
    let runs = Runs::new(jetstream::new(client.clone()), "shop");
    let run = until_ok("the order is confirmed", async || {
        let page = runs.list(true, None, None, 10).await.unwrap();
        let run = page.runs.into_iter().next().ok_or("no run".to_owned())?;
        match run.phase {
            Phase::Completed => Ok(run),
            other => Err(format!("{other:?}: {:?}", run.why)),
        }
    })
    .await;
    let shown = runs.show(&run.id).await.unwrap();
    let steps: Vec<_> = shown.steps.iter().map(|step| step.name.as_str()).collect();
    let expected = [
        "1-get",
        "2-order-placed",
        "3-reserve",
        "4-charge",
        "5-order-paid",
    ];
    assert_eq!(steps, expected);
    assert!(shown.steps.iter().all(|step| step.state == StepState::Done));
    // TypeScript took the same way: its random number is the one that was charged for.
    let reply: Value = serde_json::from_str(shown.reply.unwrap().get()).unwrap();
    let number = reply["ok"]["orderId"].as_str().unwrap();
    for step in &shown.steps[1..] {
        let arguments = step
            .call
            .as_ref()
            .unwrap()
            .arguments
            .as_ref()
            .unwrap()
            .get();
        assert!(arguments.contains(number), "{number}: {arguments}");
    }
    second.until(&email_sent(&reply["ok"]));
    second.stop();
    nats.stop().await;
}
