//! What a customer of the shop sends back.

use wasmbay::pipelines::{Phase, Runs, ShownRun, StepState};

use super::*;

/// The run that ended last.
async fn last(runs: &Runs) -> ShownRun {
    let page = runs.list(true, Some("returns"), None, 10).await.unwrap();
    let run = page.runs.iter().max_by_key(|run| run.began).unwrap();
    runs.show(&run.id).await.unwrap()
}

fn states(run: &ShownRun) -> Vec<(&str, StepState)> {
    let steps = run.steps.iter();
    steps.map(|step| (step.name.as_str(), step.state)).collect()
}

#[test]
fn shop_gives_the_money_back_for_what_it_takes_back() {
    let shop = Example::start("shop");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let runs = runtime.block_on(async {
        let client = ConnectOptions::to(&shop.nats).connect().await.unwrap();
        Runs::new(async_nats::jetstream::new(client), "shop")
    });
    let placed = shop.post("/orders", &order(&[("mouse", 2)], CARD)).json();
    let (number, receipt) = (&placed["orderId"], &placed["receipt"]);
    let back = |receipt: &Value, amount: &Value, sku: &str| {
        let back = json!({
            "orderId": number, "receipt": receipt, "amount": amount,
            "lines": [{ "sku": sku, "quantity": 2 }], "email": "ada@example.com",
        });
        shop.post("/returns", &back)
    };
    let (id, amount) = (&receipt["id"], &receipt["amount"]);

    let taken = back(id, amount, "mouse");
    assert_eq!(taken.status, 201, "{taken:?}");
    let taken = taken.json();
    let own = id.as_str().unwrap().strip_prefix("rcpt-").unwrap();
    assert_eq!(taken["refund"], format!("rfnd-{own}"));
    shop.up.until("to ada@example.com: Your return");
    let number = number.as_str().unwrap();
    shop.up.until(&format!("order {number} is back in stock"));
    shop.up
        .until(&format!("order {number} refunded, rfnd-{own}"));
    let run = runtime.block_on(last(&runs));
    assert_eq!(run.run.phase, Phase::Completed);
    let done = ["refund", "restock", "tell"].map(|step| (step, StepState::Done));
    assert_eq!(states(&run), done);

    // What does not come back to its shelf is not paid back.
    let refused = back(id, amount, "teapot");
    let why = r#"{"tag":"unavailable","val":"the warehouse does not take this back"}"#;
    assert_eq!(refused.status_and_body(), (503, why));
    shop.up.until(&format!("refund rfnd-{own} cancelled"));
    let run = runtime.block_on(last(&runs));
    assert_eq!(run.run.phase, Phase::RolledBack);
    assert_eq!(run.steps[0].state, StepState::Undone);

    // Another amount than was paid.
    let more = json!({ "minor": 1_000_000, "currency": "EUR" });
    let refused = back(id, &more, "mouse");
    let why = json!({ "tag": "unknown-receipt", "val": id }).to_string();
    assert_eq!(refused.status_and_body(), (404, &*why));
    shop.stop();
}
