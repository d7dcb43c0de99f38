//! Jobs that are refused before anything runs.

use super::*;
use crate::support::components::GUEST;

/// What `check` prints of an app of this job.
fn checked(lines: &str, component: &str) -> String {
    let cli = Cli::new().with(&[
        ("wasmbay.toml", &manifest(lines)),
        ("report.wat", component),
    ]);
    cli.run(&["check"])
}

#[test]
fn a_bad_manifest_is_refused_with_place_and_fix() {
    for (lines, place, wanted) in [
        ("", "4:6", "nothing says when it runs; add one of `schedule"),
        (
            "schedule = \"0 25 * * *\"",
            "6:12",
            "`schedule` is `0 25 * * *`",
        ),
        (
            "schedule = \"0 0 3 * * *\"",
            "6:12",
            "it has 6 fields instead of five",
        ),
        ("schedule = \"0 0 30 2 *\"", "6:12", "it has no time"),
        (
            "schedule = \"0 3 * * *\"\nevery = \"1m\"",
            "7:1",
            "`every` and `schedule` both say when it runs",
        ),
        ("every = \"1500ms\"", "6:9", "whole seconds"),
        ("every = \"0s\"", "6:9", "1s to 31d"),
        ("at = \"start\"", "6:6", "deploy, request"),
        ("restart = \"never\"", "6:11", "always"),
        (
            "restart = \"always\"\nretry = { attempts = 2 }",
            "7:11",
            "leave it out",
        ),
        (
            "restart = \"always\"\nlimits = { timeout = \"1h\" }",
            "7:12",
            "leave it out",
        ),
        (
            "at = \"request\"\nlimits = { concurrency = 2 }",
            "7:12",
            "unknown key `concurrency`",
        ),
        (
            "at = \"request\"\nlimits = { timeout = \"8d\" }",
            "7:22",
            "10ms to 7d",
        ),
        (
            "at = \"request\"\nretry = { attempts = 101 }",
            "7:22",
            "1 to 100",
        ),
        (
            "at = \"request\"\nkeep = { runs = 1001 }",
            "7:17",
            "1 to 1000",
        ),
        (
            "at = \"request\"\ngrants = { subscribe = [\"a\"] }",
            "7:1",
            "handles no messages",
        ),
        (
            "at = \"request\"\nrollout = {}",
            "7:1",
            "unknown key `rollout`",
        ),
        (
            "at = \"request\"\n[service.report]\ncomponent = \"report.wat\"",
            "4:6",
            "a service has this name",
        ),
    ] {
        let seen = checked(lines, &asks(1));
        assert!(seen.contains(wanted), "{lines}: {seen}");
        assert!(
            seen.contains(&format!("wasmbay.toml:{place}: ")),
            "{lines}: {seen}"
        );
        assert!(seen.contains("[exit 78]"), "{lines}: {seen}");
    }
}

#[test]
fn a_component_that_cannot_be_run_is_no_job() {
    let lines = "at = \"request\"";
    assert!(checked(lines, &asks(1)).contains("[exit 0]"));
    let seen = checked(lines, GUEST);
    for wanted in [
        "job \"report\": its component does not export wasi:cli/run",
        "cargo build --target wasm32-wasip2",
        "[service.report]",
        "[exit 78]",
    ] {
        assert!(seen.contains(wanted), "{wanted}: {seen}");
    }
    let other = asks(1).replace("wasi:cli/run@0.2.3", "wasi:cli/run@0.1.0");
    assert!(checked(lines, &other).contains("does not export wasi:cli/run"));
}
