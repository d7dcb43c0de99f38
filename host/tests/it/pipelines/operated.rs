//! Runs that a person deals with.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::cli::json;
use crate::support::cli::Cli;

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
        shown.steps[1]
            .call
            .as_ref()
            .unwrap()
            .failure()
            .map(drop)
            .ok_or("no failure")
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

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_and_retries_runs() {
    let fixed = Arc::new(AtomicBool::new(false));
    let is_fixed = Arc::clone(&fixed);
    let (bench, _shop) = open(move |function, before| match function {
        "charge" if before == 0 => Some(Answer::Ok(r#"{"err":"declined"}"#)),
        "release" if !is_fixed.load(Ordering::SeqCst) => Some(Answer::Trap),
        _ => None,
    })
    .await;
    assert!(place(&bench.client, ORDER, &[]).await.is_err());
    let cli = Cli::new();
    let nats = bench.nats.url().to_owned();
    let run = |args: &[&str]| cli.run(&[&["runs"], args, &["--nats", &nats]].concat());
    let listed = json(&run(&["ls", "--output", "json"]));
    let id = listed["runs"][0]["id"].as_str().unwrap();
    let text = run(&["ls"]);
    let why = "undo failed  reserve";
    assert!(
        text.contains(why) && text.contains(id) && text.contains("checkout"),
        "{text}"
    );
    let text = run(&["show", id]);
    for wanted in [
        "state     undo failed",
        "undo reserve  ",
        "2 attempts",
        "it returned err: \"declined\"",
        "undo arguments  {\"reservation\":\"r-1\"}",
        "result          {\"id\":\"r-1\"}",
        "error     502 step \"charge\"",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let refused = run(&["undo", id]);
    assert!(
        refused.contains("only one that is completed can be undone")
            && refused.ends_with("[exit 1]"),
        "{refused}"
    );
    fixed.store(true, Ordering::SeqCst);
    let retried = run(&["retry", id]);
    assert!(retried.contains("is tried once more"), "{retried}");
    no_open_runs(&bench.client).await;
    assert!(run(&["ls"]).contains("no open runs"));
    assert!(run(&["ls", "--all"]).contains("rolled back"));
    let missing = run(&["show", &"0".repeat(32)]);
    assert!(
        missing.contains("hint: `wasmbay runs ls --all`"),
        "{missing}"
    );
    let called = cli.run(&["call", "checkout.place", ORDER, "--nats", &nats]);
    assert!(
        called.contains(r#"{"ok":{"reservationId":"r-1","receipt":"receipt-1"}}"#),
        "{called}"
    );
    bench.end().await;
}

#[test]
fn check_says_where_a_path_is_wrong() {
    let text = format!(
        "name = \"app\"\n[service.types]\ncomponent = \"types.wat\"\n{}",
        manifest("").replace("count = \"$.count\"", "count = \"$.orderId\"")
    );
    let line = 1 + text
        .lines()
        .position(|line| line.contains("$.orderId\" }"))
        .unwrap();
    let cli = Cli::new().with(&[("wasmbay.toml", &text), ("types.wat", TYPES)]);
    let seen = cli.run(&["check"]);
    let wanted = format!(
        "wasmbay.toml:{line}:39: pipeline \"checkout\": step \"reserve\": `with.count`: `$.orderId` is string; expected u32"
    );
    assert!(seen.contains(&wanted), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_undo_takes_can_be_edited() {
    let (bench, shop) = open(|function, before| match (function, before) {
        ("charge", _) => Some(Answer::Ok(r#"{"err":"declined"}"#)),
        ("release", 0 | 1) => Some(Answer::Ok(r#"{"err":"no such shelf"}"#)),
        _ => None,
    })
    .await;
    assert!(place(&bench.client, ORDER, &[]).await.is_err());
    let runs = runs(&bench.client);
    let page = runs.list(false, None, None, 10).await.unwrap();
    let id = &page.runs[0].id;
    let before = runs.show(id).await.unwrap().revision;

    let cli = Cli::new();
    let nats = bench.nats.url().to_owned();
    let run = |args: &[&str]| {
        tokio::task::block_in_place(|| cli.run(&[&["runs"], args, &["--nats", &nats]].concat()))
    };
    let refused = run(&["edit", id, r#"{"reservation":7}"#]);
    let why = "step \"reserve\": arguments of its undo: $.reservation: expected string, found 7";
    assert!(
        refused.contains(why) && refused.contains("[exit 1]"),
        "{refused}"
    );
    let refused = run(&["edit", id, "{}", "--step", "tell"]);
    assert!(refused.contains("accepted: reserve"), "{refused}");
    let refused = run(&["edit", id]);
    assert!(refused.contains("no $EDITOR on a terminal"), "{refused}");
    assert_eq!(runs.show(id).await.unwrap().revision, before);

    let edited = run(&["edit", id, r#"{"reservation":"r-2"}"#]);
    assert!(
        edited.contains(&format!("`wasmbay runs retry {id}`")),
        "{edited}"
    );
    // Who has looked at it before does not overwrite this.
    let late = runs.edit(
        id,
        None,
        Edited::Undo,
        br#"{"reservation":"r-3"}"#,
        Some(before),
    );
    let late = late.await.unwrap_err().to_string();
    assert!(late.contains("look at it again"), "{late}");
    let shown = run(&["show", id]);
    assert!(
        shown.contains("undo arguments  {\"reservation\":\"r-2\"}"),
        "{shown}"
    );

    runs.retry(id).await.unwrap();
    no_open_runs(&bench.client).await;
    let released = shop.calls().pop().unwrap();
    assert_eq!(released.body, json!({"reservation": "r-2"}));
    let refused = runs.edit(id, None, Edited::Undo, b"{}", None).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("only one whose undo failed can be edited"),
        "{refused}"
    );
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_shown_with_its_timeline() {
    let (bench, _shop) = open(|function, before| match (function, before) {
        ("charge", 0) => Some(Answer::Trap),
        ("charge", _) => Some(Answer::Ok(r#"{"err":"declined"}"#)),
        _ => None,
    })
    .await;
    place(&bench.client, ORDER, &[]).await.unwrap();
    no_open_runs(&bench.client).await;
    let id = all(&bench.client).await.runs.remove(0).id;
    let url = bench.nats.url().to_owned();
    let show = move || Cli::new().run(&["runs", "show", &id, "--app", "app", "--nats", &url]);
    let printed = tokio::task::spawn_blocking(show).await.unwrap();
    let (_, timeline) = printed.split_once("\nTimeline\n").unwrap();
    let (timeline, steps) = timeline.split_once("\n\n").unwrap();
    let is_bar = |word: &&str| word.chars().all(|one| "·━".contains(one));
    let rows: Vec<_> = timeline
        .lines()
        .map(|line| {
            let words = line.split_whitespace();
            let (bars, words): (Vec<_>, Vec<_>) = words.partition(is_bar);
            assert_eq!(bars.len(), 1, "{line}");
            let bar: Vec<char> = bars[0].chars().collect();
            assert_eq!(bar.len(), 40, "{line}");
            let from = bar.iter().position(|one| *one == '━').unwrap();
            let to = bar.iter().rposition(|one| *one == '━').unwrap();
            (from, to, words)
        })
        .collect();
    let [reserve, charge, _, undo] = &rows[..] else {
        panic!("{printed}")
    };
    // Each begins where the time of those before has come to, and the last one ends at the end.
    assert!(reserve.0 <= charge.0 && charge.1 <= undo.1, "{timeline}");
    assert_eq!(undo.1, 39, "{timeline}");
    // The wait between its attempts is most of the time.
    assert!(charge.1 - charge.0 > undo.1 / 3, "{timeline}");
    let told = |row: &[&str]| {
        let last = row.len() - 3;
        (row[..last - 2].join(" "), row[last..].join(" "))
    };
    let told: Vec<_> = rows.iter().map(|(_, _, words)| told(words)).collect();
    let expected = [
        ("reserve", "done 1 attempt"),
        ("charge", "failed 2 attempts"),
        // One of its attempts may have been carried out.
        ("undo charge", "undone 1 attempt"),
        ("undo reserve", "undone 1 attempt"),
    ];
    let expected = expected.map(|(name, how)| (name.to_owned(), how.to_owned()));
    assert_eq!(told, expected, "{timeline}");
    assert!(
        steps.contains("charge undone") && steps.contains("undo call"),
        "{steps}"
    );
    bench.end().await;
}
