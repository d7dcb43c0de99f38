//! `wasmbay up` is a fleet of one host: the verbs of a fleet reach it from its folder, and a change of a file is a
//! deploy among those of others.

use serde_json::Value;

use super::folder;
use crate::support::cli::{Cli, Up};
use crate::support::components::GUEST;
use crate::support::nats::Nats;
use crate::support::{PATIENCE, until_ok_blocking_within};

const APP: &str = "name = \"app\"\n[service.guest]\ncomponent = \"guest.wasm\"\nreplicas = 3\nrequire = { zone = \"west\" }\n";

/// The guest with another letter in `repeat`.
fn letter(letter: char) -> Vec<u8> {
    let other = format!("i32.const {}", u32::from(letter));
    wat::parse_str(GUEST.replace("i32.const 120", &other)).unwrap()
}

fn printed(cli: &Cli, args: &[&str]) -> Value {
    let output = cli
        .command(&[args, &["--output", "json"]].concat())
        .output();
    let stdout = output.unwrap().stdout;
    serde_json::from_slice(&stdout).unwrap_or_default()
}

#[track_caller]
fn done(cli: &Cli, args: &[&str]) -> String {
    let seen = cli.run(args);
    assert!(seen.ends_with("[exit 0]"), "{seen}");
    seen
}

#[track_caller]
fn failed(cli: &Cli, args: &[&str], why: &str) {
    let seen = cli.run(args);
    assert!(seen.ends_with("[exit 1]") && seen.contains(why), "{seen}");
}

/// What `repeat` answers with.
fn answers(cli: &Cli, letter: char) {
    let expected = format!("\"{letter}\"");
    until_ok_blocking_within(PATIENCE, "the version answers", || {
        let seen = cli.run(&["call", "api.repeat", "[1]"]);
        seen.contains(&expected).then_some(()).ok_or(seen)
    });
}

fn history(cli: &Cli) -> Vec<(String, Value)> {
    let history = printed(cli, &["history", "app"]);
    let revisions = history["revisions"].as_array().unwrap().iter();
    let short = |one: &Value| {
        (
            one["verb"].as_str().unwrap().to_owned(),
            one["message"].clone(),
        )
    };
    revisions.map(short).collect()
}

fn until_said(up: &Up, text: &str) {
    up.until_built(text);
}

#[test]
fn the_verbs_of_a_fleet_reach_an_app_that_up_runs() {
    let cli = folder(APP);
    let up = cli.up(&[]);
    // It runs all of its app, whatever that requires of a host.
    let ps = printed(&cli, &["ps"]);
    assert_eq!(ps["apps"][0]["serves"], true, "{ps}");
    assert_eq!(ps["apps"][0]["replicas"].as_array().unwrap().len(), 1);
    assert_eq!(ps["apps"][0]["lacks"], serde_json::json!({}), "{ps}");
    let hosts = printed(&cli, &["hosts"]);
    let host = hosts["hosts"][0]["name"].as_str().unwrap().to_owned();

    cli.write("guest.wasm", letter('y'));
    until_said(&up, "swapped guest");
    answers(&cli, 'y');
    cli.write("new.wasm", letter('z'));
    done(
        &cli,
        &[
            "deploy",
            "new.wasm",
            "--service",
            "app/guest",
            "--message",
            "by hand",
        ],
    );
    until_said(&up, "(revision 3: deploy by ");
    answers(&cli, 'z');
    done(&cli, &["rollback", "app"]);
    answers(&cli, 'y');
    done(&cli, &["scale", "app/guest", "2"]);
    let (files, by_hand) = (Value::from("files changed"), Value::from("by hand"));
    let expected = [
        ("up", Value::from("started")),
        ("up", files.clone()),
        ("deploy", by_hand),
        ("rollback to 2", Value::Null),
        ("scale guest to 2", Value::Null),
    ];
    let expected = expected.map(|(verb, message)| (verb.to_owned(), message));
    assert_eq!(history(&cli), expected);
    let diff = cli.run(&["diff"]);
    assert!(
        diff.contains("replicas") && diff.ends_with("[exit 1]"),
        "{diff}"
    );
    failed(&cli, &["drain", &host], "these run nowhere");

    done(&cli, &["undeploy", "app"]);
    until_said(&up, "app was undeployed");
    assert!(cli.run(&["call", "api.count"]).ends_with("[exit 1]"));
    // What files say is what is to run.
    cli.write("guest.wasm", letter('w'));
    until_said(&up, "started guest");
    answers(&cli, 'w');
    assert_eq!(history(&cli).last().unwrap(), &("up".to_owned(), files));
    assert!(
        up.stop()
            .ends_with("stopped: every call was answered\n[exit 0]")
    );
    failed(
        &cli,
        &["ps"],
        "no host of this user runs a NATS system on this machine",
    );

    // Started again it goes on with its history, and with its files.
    let up = cli.up(&["--no-watch"]);
    until_ok_blocking_within(PATIENCE, "it serves", || {
        let ps = printed(&cli, &["ps"]);
        (ps["apps"][0]["serves"] == true).then_some(()).ok_or(ps)
    });
    assert_eq!(history(&cli).len(), 7);
    up.stop();
}

#[test]
fn a_new_version_by_hand_gets_a_share_and_one_that_crashes_changes_nothing() {
    let rollout = "[service.guest.rollout]\ncanary = \"50%\"\nfor = \"1s\"\n";
    let cli = folder(&format!("{APP}{rollout}"));
    let up = cli.up(&[]);
    let crashing = GUEST.replacen(
        "(core module $code",
        "(core module $code (func $crash unreachable) (start $crash)",
        1,
    );
    cli.write("crash.wasm", wat::parse_str(&crashing).unwrap());
    failed(
        &cli,
        &["deploy", "crash.wasm", "--service", "app/guest"],
        "was rolled back: guest does not start on ",
    );
    answers(&cli, 'x');
    cli.write("new.wasm", letter('y'));
    let deployed = done(&cli, &["deploy", "new.wasm", "--service", "app/guest"]);
    assert!(deployed.contains("gets 50% of the calls"), "{deployed}");
    answers(&cli, 'y');
    // Changed files are taken over at once.
    cli.write("guest.wasm", letter('z'));
    until_said(&up, "swapped guest");
    for _ in 0..4 {
        answers(&cli, 'z');
    }
    cli.write("guest.wasm", wat::parse_str(&crashing).unwrap());
    until_ok_blocking_within(PATIENCE, "the crash is told", || {
        let ps = printed(&cli, &["ps", "app"]);
        let error = ps["apps"][0]["replicas"][0]["error"].as_str();
        let is_told = error.is_some_and(|error| error.contains("does not start"));
        is_told.then_some(()).ok_or(ps)
    });
    answers(&cli, 'z');
    up.stop();
}

#[test]
fn another_app_is_none_of_a_host_that_runs_one() {
    let cli = folder(APP);
    cli.write(
        "other/wasmbay.toml",
        "name = \"other\"\n[service.pay]\ncomponent = \"pay.wasm\"\n",
    );
    cli.write("other/pay.wasm", super::pays(&["amount"]));
    let up = cli.up(&[]);
    // It is for the fleet of `wasmbay host`, of which there is none.
    failed(
        &cli,
        &["deploy", "other"],
        "no host of this user runs a NATS system",
    );
    // The app answers a moment before its host is in the fleet; verbs that are given no address wait for that.
    until_ok_blocking_within(PATIENCE, "the host is in its fleet", || {
        let hosts = printed(&cli, &["hosts"])["hosts"].clone();
        let is_there = hosts.as_array().is_some_and(|hosts| !hosts.is_empty());
        is_there.then_some(()).ok_or(hosts)
    });
    let url = std::fs::read_to_string(cli.path(".wasmbay/nats/url")).unwrap();
    failed(
        &cli,
        &["deploy", "other", "--nats", url.trim()],
        "`wasmbay up` runs app \"app\" alone; `wasmbay host` starts a host for any app",
    );
    answers(&cli, 'x');
    up.stop();
}

#[tokio::test]
async fn an_app_on_a_system_of_others_keeps_what_it_runs_to_itself() {
    let nats = Nats::start().await;
    let url = nats.url().to_owned();
    let checked = tokio::task::spawn_blocking(move || {
        let cli = folder(APP);
        let up = cli.up(&["--nats", &url]);
        failed(&cli, &["ps"], "`up --nats` keeps what it runs to itself");
        failed(
            &cli,
            &["ps", "--nats", &url],
            "there is no fleet on this NATS system",
        );
        cli.write("guest.wasm", letter('y'));
        until_said(&up, "swapped guest");
        up.stop();
    });
    checked.await.unwrap();
    nats.stop().await;
}
