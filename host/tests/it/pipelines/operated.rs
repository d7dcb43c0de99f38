//! Runs that a person deals with.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[tokio::test]
async fn an_undo_that_fails_is_kept_and_tried_again_by_hand() {
    let fixed = Arc::new(AtomicBool::new(false));
    let is_fixed = Arc::clone(&fixed);
    let (bench, shop) = open(move |function, _| match function {
        "charge" => Some(Answer::Ok(r#"{"err":"declined"}"#)),
        "release" if !is_fixed.load(Ordering::SeqCst) => {
            Some(Answer::Ok(r#"{"err":"no such shelf"}"#))
        }
        _ => None,
    })
    .await;
    let (code, error) = place(&bench.client, ORDER, &[]).await.unwrap_err();
    assert_eq!(code, 502);
    let message = error["message"].as_str().unwrap();
    let why =
        "step \"reserve\" could not be undone: it returned err: \"no such shelf\"; the run is kept";
    assert!(message.ends_with(why), "{message}");
    assert_eq!(
        shop.functions(),
        ["reserve", "charge", "release", "release"]
    );

    let runs = runs(&bench.client);
    let page = runs.list(false, None, None, 10).await.unwrap();
    let [run] = &page.runs[..] else {
        panic!("{page:?}")
    };
    assert_eq!(
        (run.phase, run.step.as_deref()),
        (Phase::UndoFailed, Some("reserve"))
    );
    for refused in [runs.undo(&run.id).await, runs.cancel(&run.id).await] {
        let error = refused.unwrap_err().to_string();
        assert!(
            error.contains("has failed and could not be undone"),
            "{error}"
        );
    }

    fixed.store(true, Ordering::SeqCst);
    runs.retry(&run.id).await.unwrap();
    no_open_runs(&bench.client).await;
    let shown = runs.show(&run.id).await.unwrap();
    assert_eq!(shown.run.phase, Phase::RolledBack);
    assert_eq!(shown.reply.unwrap().get(), r#"{"err":"declined"}"#);
    assert_eq!(shop.count("release"), 3);
    bench.end().await;
}

#[tokio::test]
async fn a_completed_run_can_be_undone() {
    let (bench, shop) = open(|_, _| None).await;
    place(&bench.client, ORDER, &[]).await.unwrap();
    no_open_runs(&bench.client).await;
    let run = all(&bench.client).await.runs.remove(0);
    let runs = runs(&bench.client);
    assert!(runs.retry(&run.id).await.is_err());
    runs.undo(&run.id).await.unwrap();
    no_open_runs(&bench.client).await;
    let shown = runs.show(&run.id).await.unwrap();
    assert_eq!(shown.run.phase, Phase::RolledBack);
    assert_eq!(shown.run.why.as_deref(), Some("it was cancelled"));
    assert_eq!(
        shop.functions(),
        ["reserve", "charge", "tell", "refund", "release"]
    );
    bench.end().await;
}

#[tokio::test]
async fn a_run_that_waits_is_cancelled_and_undone() {
    let lines = CHECKOUT.replace(
        r#"attempts = 2, backoff = ["20ms"] }
"#,
        r#"attempts = 9, backoff = ["1h"] }
"#,
    );
    assert_ne!(lines, CHECKOUT);
    let manifest = format!("{WIRES}{lines}").replace("deadline = \"30s\"", "deadline = \"1d\"");
    let bench = bench(&Services(&[("types", TYPES, "")], &manifest)).await;
    let shop = Shop::open(&bench.client, |function, _| {
        (function == "charge").then_some(Answer::Trap)
    })
    .await;
    let client = bench.client.clone();
    let caller = tokio::spawn(async move { place(&client, ORDER, &[]).await });
    until_ok("the failed attempt is written", async || {
        let page = all(&bench.client).await;
        let run = page.runs.first().ok_or("no run")?;
        let shown = runs(&bench.client).show(&run.id).await.unwrap();
        shown.steps[1].call.failure().map(drop).ok_or("no failure")
    })
    .await;
    let run = all(&bench.client).await.runs.remove(0);
    runs(&bench.client).cancel(&run.id).await.unwrap();
    let (code, error) = caller.await.unwrap().unwrap_err();
    let message = error["message"].as_str().unwrap();
    assert!(
        code == 503 && message.contains("it was cancelled; what was done is undone"),
        "{message}"
    );
    assert_eq!(shop.functions(), ["reserve", "charge", "refund", "release"]);
    bench.end().await;
}

#[tokio::test]
async fn what_is_no_run_is_said_so() {
    let (bench, _) = open(|_, _| None).await;
    let runs = runs(&bench.client);
    for (id, why) in [
        ("x", "\"x\" is no id of a run"),
        (&*"a".repeat(32), "there is no run"),
    ] {
        let error = runs.show(id).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    bench.end().await;
}
