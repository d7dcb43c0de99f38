//! Calls of a running app are recorded, run against another version, and gate a deploy.

use std::fs;

use serde_json::Value;

use crate::support::cli::{Cli, Up};
use crate::support::components::{CALLER, GUEST, OTHER};

const APP: &str = r#"
name = "app"

[service.guest]
component = "guest.wat"

[service.guest.secret]
"test:guest/api.echo" = ["$args.text"]
"test:guest/api.repeat" = ["$args.length"]

[service.caller]
component = "caller.wat"

[service.other]
component = "other.wat"
"#;

fn app() -> Cli {
    Cli::new().with(&[
        ("wasmbay.toml", APP),
        ("guest.wat", GUEST),
        ("caller.wat", CALLER),
        ("other.wat", OTHER),
    ])
}

/// The guest with another letter in `repeat`.
fn letter(letter: char) -> String {
    GUEST.replace("i32.const 120", &format!("i32.const {}", u32::from(letter)))
}

/// Begins to record, and waits until it does.
fn recording(cli: &Cli, args: &[&str]) -> Up {
    let record = Up::start(cli.command(&[&["record"], args].concat()));
    record.until("recording app/");
    record
}

#[track_caller]
fn done(cli: &Cli, args: &[&str]) -> String {
    let seen = cli.run(args);
    assert!(seen.ends_with("[exit 0]"), "{seen}");
    seen
}

fn cases(cli: &Cli, file: &str) -> Vec<Value> {
    let text = fs::read(cli.path(file)).unwrap();
    let file: Value = serde_json::from_slice(&text).unwrap();
    file["cases"].as_array().unwrap().clone()
}

#[test]
fn recorded_calls_hold_for_the_next_version_or_not() {
    let cli = app();
    let up = cli.up(&[]);
    let record = recording(&cli, &["app/caller", "--calls", "3", "--out", "calls.json"]);
    done(&cli, &["call", "test:caller/api.ask", "[1]"]);
    done(&cli, &["call", "test:caller/api.try", "[5]"]);
    // An `err` value is a result.
    assert!(
        cli.run(&["call", "test:caller/api.try", "[0]"])
            .contains("{\"err\":\"zero\"}")
    );
    record.until("recorded 3 calls of app/caller in calls.json");
    assert!(record.end().ends_with("[exit 0]"));

    let calls = cases(&cli, "calls.json");
    assert_eq!(calls[0]["call"], "test:caller/api.ask@1.0.0");
    assert_eq!(calls[0]["returns"], 2);
    let import = &calls[0]["imports"][0];
    assert_eq!(import["call"], "test:other/api.ask@1.0.0");
    assert_eq!(
        (&import["arguments"]["n"], &import["returns"]),
        (&1.into(), &2.into())
    );
    assert_eq!(calls[2]["returns"]["err"], "zero");

    let seen = done(&cli, &["replay", "calls.json"]);
    assert!(seen.contains("3 calls ended as before"), "{seen}");
    // Another version asks for something else.
    let other = CALLER.replace("(call $ask (local.get 0))", "(call $ask (i32.const 9))");
    cli.write("next.wat", other);
    let seen = cli.run(&["replay", "calls.json", "--component", "next.wat"]);
    for text in [
        "ask at ",
        "it called test:other/api.ask@1.0.0 with {\"n\":9}: its stub answers other arguments",
        "expected 1",
        "got      9",
        "1 of 3 calls differ",
        "[exit 1]",
    ] {
        assert!(seen.contains(text), "{seen}");
    }
    let ignoring = [
        "replay",
        "calls.json",
        "--component",
        "next.wat",
        "--ignore",
        "$.n",
    ];
    done(&cli, &ignoring);
    // One that has another type differs as well.
    cli.write("typed.wat", GUEST);
    let seen = cli.run(&["replay", "calls.json", "--component", "typed.wat"]);
    assert!(seen.contains("3 of 3 calls differ"), "{seen}");
    assert!(
        seen.contains("exports no function `test:caller/api.ask@1.0.0`"),
        "{seen}"
    );
    // The file is not written over.
    let again = cli.run(&["record", "app/caller", "--out", "calls.json"]);
    assert!(again.contains("calls.json is there already"), "{again}");
    up.stop();
}

#[test]
fn secret_values_are_in_no_recording() {
    let cli = app();
    let up = cli.up(&[]);
    let record = recording(&cli, &["app/guest", "--calls", "2"]);
    done(&cli, &["call", "api.echo", "[\"4242 4242\"]"]);
    // What is no text cannot be hidden.
    done(&cli, &["call", "api.repeat", "[3]"]);
    done(&cli, &["call", "api.count"]);
    record.until("recorded 2 calls");
    assert!(
        record
            .stderr()
            .contains("left out 1 call: a secret value that is no text"),
        "{}",
        record.stderr()
    );
    let text = fs::read_to_string(cli.path("guest-recording.json")).unwrap();
    assert!(!text.contains("4242"), "{text}");
    let calls = cases(&cli, "guest-recording.json");
    assert_eq!(calls[0]["arguments"]["text"], "***");
    assert_eq!(calls[0]["returns"], "***");
    done(&cli, &["replay", "guest-recording.json"]);
    up.stop();
}

#[test]
fn a_deploy_that_answers_recorded_calls_otherwise_is_refused() {
    let cli = Cli::new().with(&[
        (
            "wasmbay.toml",
            "name = \"app\"\n[service.guest]\ncomponent = \"guest.wat\"\n",
        ),
        ("guest.wat", GUEST),
    ]);
    let up = cli.up(&[]);
    let record = recording(&cli, &["app/guest", "--calls", "1"]);
    done(&cli, &["call", "api.repeat", "[2]"]);
    record.until("recorded 1 call");
    cli.write("next.wasm", wat::parse_str(letter('z')).unwrap());
    let deploy = [
        "deploy",
        "next.wasm",
        "--service",
        "app/guest",
        "--replay",
        "guest-recording.json",
    ];
    let seen = cli.run(&deploy);
    for text in [
        "since recorded calls end otherwise",
        "expected \"xx\"",
        "got      \"zz\"",
        "--force",
        "[exit 1]",
    ] {
        assert!(seen.contains(text), "{seen}");
    }
    let seen = cli.run(&[&deploy[..], &["--dry-run"]].concat());
    assert!(seen.ends_with("[exit 1]"), "{seen}");
    done(&cli, &[&deploy[..], &["--force"]].concat());
    let history = cli.run(&["history", "app"]);
    assert!(
        history.contains("a recorded call differs: guest: repeat at "),
        "{history}"
    );
    // As it was recorded it is no change of behaviour.
    cli.write("same.wasm", wat::parse_str(GUEST).unwrap());
    done(
        &cli,
        &[
            "deploy",
            "same.wasm",
            "--service",
            "app/guest",
            "--replay",
            "guest-recording.json",
        ],
    );
    up.stop();
}

#[test]
fn there_is_nothing_to_record_where_nothing_runs() {
    let cli = app();
    let seen = cli.run(&["record", "app/guest"]);
    assert!(seen.contains("`wasmbay up` runs it"), "{seen}");
    let up = cli.up(&[]);
    let seen = cli.run(&["record", "app/gust"]);
    assert!(
        seen.contains("no host answers that runs service \"gust\" of app \"app\""),
        "{seen}"
    );
    let seen = cli.run(&["record", "app/guest", "--for", "10ms"]);
    assert!(
        seen.contains("no call of app/guest ended that can be kept"),
        "{seen}"
    );
    let seen = cli.run(&["record", "guest"]);
    assert!(seen.ends_with("[exit 2]"), "{seen}");
    up.stop();
}
