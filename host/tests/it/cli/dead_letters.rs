//! Events and dead letters by hand.

use serde_json::Value;

use super::{json, session};
use crate::support::cli::Cli;
use crate::support::components::{GUEST, RETURNS_ERROR};
use crate::support::until_ok_blocking;

/// An ordered durable wire, a plain one, and a function that is called.
const APP: &str = r#"
name = "demo"

[service.returns-error]
component = "returns-error.wat"

[service.plain]
component = "plain.wat"

[service.guest]
component = "guest.wat"

[wire."test:events/sink"]
mode     = "event"
durable  = true
order-by = "key"
retry    = { attempts = 2, backoff = ["10ms"] }

[wire."test:plain/sink"]
mode = "event"
"#;

fn app() -> Cli {
    let plain = RETURNS_ERROR.replace("test:events/", "test:plain/");
    Cli::new().with(&[
        ("wasmbay.toml", APP),
        ("returns-error.wat", RETURNS_ERROR),
        ("plain.wat", &plain),
        ("guest.wat", GUEST),
    ])
}

/// Waits until there are so many dead letters.
fn until_dead_letters(cli: &Cli, wanted: usize) -> Vec<Value> {
    until_ok_blocking("there are so many dead letters", || {
        let seen = json(&cli.run(&["dlq", "ls", "--output", "json"]));
        let dead_letters = seen.as_array().unwrap().clone();
        if dead_letters.len() == wanted {
            Ok(dead_letters)
        } else {
            Err(dead_letters)
        }
    })
}

fn assert_seen(cli: &Cli, name: &str, seen: &str) {
    let mut settings = cli.settings();
    for (from, to) in [
        (r"\b00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]\b", "[trace]"),
        (r"\b[0-9a-f]{16}-[0-9a-f]+\b", "[message]"),
        (r"\b[0-9a-f]{16}\b", "[id]"),
    ] {
        settings.add_filter(from, to);
    }
    settings.bind(|| insta::assert_snapshot!(name, seen));
}

#[test]
fn what_is_no_event_or_not_of_its_type_is_not_published() {
    let cli = app();
    let up = cli.up(&["--no-gateway"]);
    let event = r#"{"key":7,"n":1}"#;
    let seen = session(
        &cli,
        &[
            &["emit", "sink.happened", event],
            &["emit", "events/sink.hapened", event],
            &["emit", "events/sink.happened", r#"{"key":7,"n":"1"}"#],
            &["emit", "events/sink.happened", r#"{"key":7}"#],
            &["emit", "api.echo", r#"["x"]"#],
            &["emit", "plain/sink.happened", event],
            &["emit", "events/sink.happened", event],
            &["emit", "events/sink.happened", "[7,2]", "--output", "json"],
            &["dlq", "ls"],
        ],
    );
    assert_seen(&cli, "emit", &seen);
    up.stop();
}

#[test]
fn a_dead_letter_is_shown_edited_and_replayed() {
    let cli = app();
    let up = cli.up(&["--no-gateway"]);
    let mut seen = cli.run(&["emit", "events/sink.happened", r#"{"key":7,"n":13}"#]);
    let id = until_dead_letters(&cli, 1)[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut then = |commands: &[&[&str]]| {
        seen.push_str("\n\n");
        seen.push_str(&session(&cli, commands));
    };
    then(&[
        &["dlq", "ls"],
        &["dlq", "show", &id],
        &["dlq", "edit", &id, r#"{"key":7,"n":"12"}"#],
        &["dlq", "edit", &id],
        &["dlq", "purge", &id],
        &["dlq", "replay"],
        &["dlq", "edit", &id, r#"{"key":7,"n":12}"#],
        &["dlq", "show", &id, "--output", "json"],
        &["dlq", "replay", &id],
    ]);
    until_dead_letters(&cli, 0);
    then(&[&["dlq", "ls"], &["dlq", "show", &id], &["dlq", "show", "*"]]);
    assert_seen(&cli, "dead_letter", &seen);
    up.stop();
}

#[test]
fn dead_letters_are_chosen_by_service_and_event() {
    let cli = app();
    let up = cli.up(&["--no-gateway"]);
    for key in ["1", "2", "3"] {
        let event = format!("[{key},13]");
        assert!(
            cli.run(&["emit", "events/sink.happened", &event])
                .ends_with("[exit 0]")
        );
    }
    until_dead_letters(&cli, 3);
    let listed = |args: &[&str]| {
        let args: Vec<_> = ["dlq", "ls", "--output", "json"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        json(&cli.run(&args)).as_array().unwrap().len()
    };
    assert_eq!(listed(&["--service", "returns-error"]), 3);
    assert_eq!(listed(&["--service", "plain"]), 0);
    assert_eq!(listed(&["--function", "events/sink.happened"]), 3);
    assert_eq!(listed(&["--function", "plain/sink.happened"]), 0);
    assert_eq!(listed(&["--limit", "2"]), 2);

    // They fail again, and are the same dead letters with longer histories.
    let replayed = cli.run(&[
        "dlq",
        "replay",
        "--service",
        "returns-error",
        "--rate",
        "100/s",
    ]);
    assert!(replayed.contains("replayed 3 dead letters"), "{replayed}");
    let tried_four_times = |one: &Value| one["attempts"].as_array().unwrap().len() == 4;
    until_ok_blocking("they have failed again", || {
        let dead_letters = until_dead_letters(&cli, 3);
        if dead_letters.iter().all(tried_four_times) {
            Ok(())
        } else {
            Err(dead_letters)
        }
    });

    let other = ["dlq", "purge", "--service", "plain", "--output", "json"];
    assert_eq!(json(&cli.run(&other))["purged"], 0);
    let purged = cli.run(&["dlq", "purge", "--function", "sink.happened", "--yes"]);
    assert!(purged.contains("purged 3 dead letters"), "{purged}");
    assert_eq!(until_dead_letters(&cli, 0).len(), 0);
    up.stop();
}
