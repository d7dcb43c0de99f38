//! `wasmbay test` as a person uses it.

use rustix::process::Signal;

use super::{json, session};
use crate::support::cli::{Cli, Up, assert_seen};
use crate::support::components::{CALLER, GUEST};

const APP: &str = r#"
name = "demo"

[service.guest]
component = "guest.wat"

[service.caller]
component = "caller.wat"

[wire."test:other/api"]
external = true
"#;

const PASSES: &str = r#"{
  "cases": [
    { "name": "it echoes", "call": "api.echo", "arguments": { "text": "a" }, "returns": "a" },
    { "name": "it traps", "call": "api.trap", "fails": { "code": 500 } }
  ]
}"#;

const CALLS: &str = r#"{
  "cases": [
    {
      "name": "what the other says is passed on",
      "call": "test:caller/api.ask",
      "arguments": { "n": 1 },
      "imports": [{ "call": "test:other/api.ask", "arguments": { "n": 1 }, "returns": 7 }],
      "returns": 7
    }
  ]
}"#;

fn app() -> Cli {
    Cli::new().with(&[
        ("wasmbay.toml", APP),
        ("guest.wat", GUEST),
        ("caller.wat", CALLER),
        ("tests/guest.json", PASSES),
        ("tests/caller/asks.json", CALLS),
    ])
}

#[test]
fn an_app_that_does_what_its_cases_say() {
    let cli = app();
    assert_seen!(
        cli,
        "test_passes",
        session(
            &cli,
            &[
                &["test"],
                &["test", ".", "--service", "caller"],
                &["test", "--filter", "TRAPS"],
                &["test", "--filter", "nothing like it"],
                &["test", "-q"],
            ]
        )
    );
    let tested = json(&cli.run(&["test", "--output", "json"]));
    assert_eq!(tested["passed"], true);
    assert_eq!(
        tested["services"][0]["cases"][0]["file"],
        "tests/caller/asks.json"
    );
}

#[test]
fn what_a_service_does_otherwise_is_shown() {
    let cli = app();
    cli.write(
        "tests/guest.json",
        PASSES
            .replace("\"returns\": \"a\"", "\"returns\": \"b\"")
            .replace("500", "504"),
    );
    cli.write(
        "tests/caller/asks.json",
        CALLS.replace("{ \"n\": 1 }, \"returns\"", "{ \"n\": 2 }, \"returns\""),
    );
    assert_seen!(cli, "test_fails", session(&cli, &[&["test"]]));
    let tested = json(&cli.run(&["test", "--output", "json"]));
    assert_eq!(tested["passed"], false);
    let problem = &tested["services"][1]["cases"][0]["problems"][0];
    assert_eq!(problem["differences"][0]["got"], "\"a\"", "{tested}");
}

#[test]
fn cases_that_fit_nothing_are_refused_before_any_runs() {
    let cli = app();
    cli.write("tests/guset.json", PASSES);
    cli.write(
        "tests/guest/broken.json",
        "{ \"cases\": [\n  { \"name\": \"a\" \"call\": 1 }\n] }",
    );
    cli.write(
        "tests/guest/key.json",
        PASSES.replace("arguments", "argumets"),
    );
    cli.write(
        "tests/guest/function.json",
        PASSES.replace("api.echo", "api.ecko"),
    );
    cli.write(
        "tests/guest/type.json",
        PASSES.replace("\"text\": \"a\"", "\"text\": 1"),
    );
    cli.write(
        "tests/caller/stub.json",
        CALLS.replace("\"returns\": 7 }", "\"returns\": \"7\" }"),
    );
    assert_seen!(
        cli,
        "test_refused",
        session(
            &cli,
            &[
                &["test"],
                &["test", "--service", "gust"],
                &["test", "elsewhere"],
            ]
        )
    );
}

#[test]
fn a_component_that_does_not_load_is_no_test_that_fails() {
    let cli = app();
    cli.write("guest.wat", "(module)");
    let seen = cli.run(&["test"]);
    assert!(seen.contains("core WebAssembly module"), "{seen}");
    assert!(seen.ends_with("[exit 78]"), "{seen}");
    // The others can be tested meanwhile.
    let seen = cli.run(&["test", "--service", "caller"]);
    assert!(seen.ends_with("[exit 0]"), "{seen}");
}

#[test]
fn a_change_runs_again_what_it_touches() {
    let cli = app();
    let watching = Up::start(cli.command(&["test", "--watch"]));
    watching.until_built("waiting for changes");
    assert!(
        watching.stdout().contains("3 cases passed"),
        "{}",
        watching.stdout()
    );

    cli.write(
        "tests/guest.json",
        PASSES.replace("\"returns\": \"a\"", "\"returns\": \"b\""),
    );
    watching.until("1 of 2 cases failed");
    cli.write("tests/guest.json", "{");
    watching.until("EOF while parsing");
    // The component, which another one takes the place of.
    cli.write("tests/guest.json", PASSES);
    watching.until("2 cases passed");
    cli.write(
        "guest.wat",
        GUEST.replace("\"echo\" (func $echo)", "\"ecko\" (func $echo)"),
    );
    watching.until("exports no function `api.echo`");
    cli.write("tests/later/first.json", CALLS);
    watching.until("there is no service \"later\"");

    watching.signal(Signal::INT);
    let end = watching.end();
    assert!(!end.is_empty());
}
