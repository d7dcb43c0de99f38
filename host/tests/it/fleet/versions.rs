//! Open runs of durable functions are ended by the version that began them, also when no host has that in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream;
use wasmbay::pipelines::{Phase, Runs};

use super::{Fleet, kill};
use crate::pipelines::functions::{DESK, DURABLE};
use crate::pipelines::{Answer, PLACE, Shop, WIRES};
use crate::support::{PATIENCE, until_ok, until_ok_within};

const ORDER: &str = r#"{"orderId":"o-1","count":0,"tell":true}"#;

/// A desk that reserves another count than [`DESK`].
fn other() -> String {
    let other = DESK.replace("(i64.load (i32.const 128))", "(i64.const 1)");
    assert_ne!(other, DESK);
    other
}

fn write(fleet: &Fleet, desk: &str) {
    fleet.cli.write("desk.wasm", wat::parse_str(desk).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_ended_by_the_version_that_began_it_after_all_hosts_were_replaced() {
    // The call is under way for as long as the test wants.
    let durable = DURABLE.replace("\"3s\"", "\"60s\"");
    let durable = durable.replace("deadline = \"30s\"", "deadline = \"5m\"");
    let manifest = format!(
        "name = \"app\"\n[service.desk]\ncomponent = \"desk.wasm\"\nreplicas = \"all\"\n{durable}{WIRES}"
    );
    let fleet = Fleet::start(&manifest).await;
    write(&fleet, DESK);
    let client = fleet.connect().await;
    let answers = Arc::new(AtomicBool::new(false));
    let (called, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let are_answered = Arc::clone(&answers);
    let shop = Shop::open(&fleet.connect().await, move |function, _| {
        let silent = function == "charge" && !are_answered.load(Ordering::SeqCst);
        if silent {
            // Nobody listens any more when it is called again.
            let _ = called.send(());
        }
        silent.then_some(Answer::Silence)
    })
    .await;
    let first = fleet.host("a", &[]);
    fleet.run(&["deploy"]).await.done();
    client.publish(PLACE, ORDER.into()).await.unwrap();
    calls.recv().await.unwrap();

    // The next version comes while the run is open, and is the only one that later hosts run.
    write(&fleet, &other());
    fleet.run(&["deploy", "--force"]).await.done();
    let context = jetstream::new(client.clone());
    let rollouts = context.get_key_value("bay-fleet-rollouts").await.unwrap();
    // Once no revision names it any more, its component is kept for this.
    until_ok("what the run began with is kept", async || {
        let kept = rollouts.get("app.runs").await.unwrap().unwrap_or_default();
        let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap_or_default();
        let specifications = kept["specifications"].as_array().map_or(0, Vec::len);
        (specifications == 1).then_some(()).ok_or(kept)
    })
    .await;
    kill(&first);
    drop(first);
    answers.store(true, Ordering::SeqCst);

    let second = fleet.host("b", &[]);
    let runs = Runs::new(context, "app");
    let ended = async || {
        let page = runs.list(true, None, None, 10).await.unwrap();
        let run = page.runs.first().cloned().ok_or("no run".to_owned())?;
        match run.ended {
            Some(_) => Ok(run),
            None => Err(format!("{run:?}")),
        }
    };
    let run = until_ok_within(PATIENCE, "the run has ended", ended).await;
    assert_eq!(run.phase, Phase::Completed, "{run:?}");
    second.until("a run goes on with the version that began it");
    let counts = ["reserve", "tell"].map(|function| shop.count(function));
    assert_eq!(counts, [1, 1], "{:?}", shop.functions());

    // A new one begins with the present version.
    let request = client.request(PLACE, ORDER.into()).await.unwrap();
    assert_eq!(&*request.payload, br#"{"ok":"receipt-1"}"#);
    let reserved = shop.calls().into_iter();
    let reserved = reserved.filter(|call| call.function == "reserve");
    let reserved: Vec<_> = reserved.map(|call| call.body["count"].clone()).collect();
    assert_eq!(reserved.len(), 2);
    assert_ne!(reserved[0], reserved[1]);
    second.stop();
    fleet.stop().await;
}
