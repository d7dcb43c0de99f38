//! The command line as a person sees it: what is printed, and how it ends.

mod comments;
mod dead_letters;
mod running;
mod seen;
mod stopping;
mod testing;
mod uncalled;
mod unread;
mod watching;

use std::io::Read as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::cli::{Cli, assert_seen};
use crate::support::components::{CALLER, GUEST};

/// An app of one component, with a route.
const APP: &str = r#"
name = "demo"

[service.guest]
component = "guest.wat"

[[route]]
method = "GET"
path = "/echo/{text}"
call = "test:guest/api.echo"
"#;

fn demo() -> Cli {
    Cli::new().with(&[("wasmbay.toml", APP), ("guest.wat", GUEST)])
}

/// Several commands, one after the other.
pub(crate) fn session(cli: &Cli, commands: &[&[&str]]) -> String {
    let seen: Vec<_> = commands.iter().map(|args| cli.run(args)).collect();
    seen.join("\n\n")
}

/// What was printed on stdout, as JSON.
pub(crate) fn json(seen: &str) -> Value {
    let (_, printed) = seen.split_once("[stdout]\n").unwrap();
    let end = printed.rfind("\n[").unwrap();
    let printed = printed.split("\n[stderr]").next().unwrap();
    serde_json::from_str(&printed[..end.min(printed.len())])
        .unwrap_or_else(|error| panic!("{error}: {seen}"))
}

#[test]
fn alone_it_prints_its_help() {
    let cli = Cli::new();
    assert_seen!(cli, "alone", cli.run(&[]));
}

#[test]
fn wrong_usage_is_explained() {
    let cli = Cli::new();
    assert_seen!(
        cli,
        "usage",
        session(
            &cli,
            &[
                &["upp"],
                &["up", "--no-wach"],
                &["up", "--grace", "soon"],
                &["up", "--listen", "8080"],
                &["up", "--listen", "127.0.0.1:0", "--no-gateway"],
                &["up", "--workers", "0"],
                &["up", "--log", "wasmbay=loud"],
                &["up", "--nats-creds", "host.creds"],
                &["call"],
                &["new", "--lang", "cobol", "hello"],
                &["check", "--quiet", "--verbose"],
                &["inspect", "--color", "sometimes", "x"],
            ],
        )
    );
}

#[test]
fn a_log_filter_in_the_environment_is_checked() {
    let cli = demo();
    let output = cli
        .command(&["check"])
        .env("RUST_LOG", "wasmbay=loud")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with("error: RUST_LOG=wasmbay=loud: "),
        "{error}"
    );
}

#[test]
fn without_a_manifest_there_is_a_hint() {
    let cli = Cli::new();
    assert_seen!(
        cli,
        "no_manifest",
        session(
            &cli,
            &[
                &["up"],
                &["check"],
                &["build"],
                &["doctor", "elsewhere"],
                &["inspect", "orders"],
                &["call", "orders.place"],
            ],
        )
    );
}

#[test]
fn a_guests_folder_has_a_hint_of_its_own() {
    let cli = Cli::new();
    cli.run(&["new", "--lang", "c", "hello"]);
    let seen = cli.run(&["up", "hello/hello"]);
    assert!(
        seen.contains("hint: this is a guest's folder: `wasmbay build hello/hello` builds it"),
        "{seen}"
    );
}

#[test]
fn everything_wrong_in_a_manifest_is_reported_at_once() {
    let manifest = APP
        .replace("method", "methd")
        .replace("guest.wat", "gest.wat");
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest), ("guest.wat", GUEST)]);
    assert_seen!(
        cli,
        "broken_manifest",
        session(&cli, &[&["up"], &["check"], &["check", "--output", "json"]])
    );
}

#[test]
fn a_file_that_is_no_component_is_refused_by_what_it_is() {
    let cli = Cli::new().with(&[
        ("text.wasm", "int main() {}\n"),
        ("empty.wasm", ""),
        ("module.wat", "(module)"),
    ]);
    let component = wat::parse_str(GUEST).unwrap();
    cli.write("module.wasm", wat::parse_str("(module)").unwrap());
    cli.write("truncated.wasm", &component[..component.len() / 2]);
    assert_seen!(
        cli,
        "no_component",
        session(
            &cli,
            &[
                &["inspect", "text.wasm"],
                &["inspect", "empty.wasm"],
                &["inspect", "module.wasm"],
                &["inspect", "module.wat"],
                &["inspect", "truncated.wasm"],
                &["inspect", "missing.wasm"],
            ],
        )
    );
    cli.write("wasmbay.toml", APP.replace("guest.wat", "module.wasm"));
    assert_seen!(
        cli,
        "no_component_of_an_app",
        session(&cli, &[&["check"], &["up"]])
    );
}

#[test]
fn an_app_that_fits_together_passes() {
    let cli = demo();
    assert_seen!(
        cli,
        "check_passes",
        session(
            &cli,
            &[
                &["check"],
                &["check", "--output", "json"],
                &["check", "-q", "."]
            ]
        )
    );
}

/// Two of everything that the wiring check looks at.
const MISFITS: &str = r#"
name = "demo"

[service.caller]
component = "caller.wat"

[service.guest]
component = "guest.wat"

[service.broken]
component = "broken.wat"

[[route]]
method = "GET"
path = "/echo/{word}"
call = "test:guest/api.echo"

[[route]]
method = "GET"
path = "/ecco"
call = "test:guest/api.ecco"
"#;

#[test]
fn everything_that_does_not_fit_is_reported_at_once() {
    let cli = Cli::new().with(&[
        ("wasmbay.toml", MISFITS),
        ("guest.wat", GUEST),
        ("caller.wat", CALLER),
        ("broken.wat", "(component"),
        ("folder/readme.txt", "no guest"),
    ]);
    let mut seen = vec![cli.run(&["check"])];
    cli.write("broken.wat", "(component)");
    seen.push(cli.run(&["check"]));
    seen.push(cli.run(&["check", "--output", "json"]));
    seen.push(cli.run(&["up"]));
    cli.write("wasmbay.toml", MISFITS.replace("broken.wat", "folder"));
    seen.push(cli.run(&["check"]));
    assert_seen!(cli, "check_fails", seen.join("\n\n"));
}

#[test]
fn a_component_is_shown() {
    let cli = demo().with(&[("caller.wat", CALLER)]);
    assert_seen!(
        cli,
        "inspect",
        session(
            &cli,
            &[
                &["inspect", "caller.wat"],
                &["inspect", "guest"],
                &["inspect", "gest"],
                &["inspect", "caller.wat", "--output", "json"],
            ],
        )
    );
}

#[test]
fn a_component_is_shown_with_the_grants_that_it_needs() {
    let component = r#"
(component
  (import "wasi:keyvalue/store@0.2.0-draft" (instance (export "bucket" (type (sub resource)))))
  (import "wasi:http/outgoing-handler@0.2.3" (instance (export "x" (type (sub resource)))))
  (import "wasi:io/poll@0.2.3" (instance (export "pollable" (type (sub resource))))))
"#;
    let cli = Cli::new().with(&[("needs.wat", component)]);
    let shown = cli.run(&["inspect", "needs.wat"]);
    for line in [
        "wasi:keyvalue@0.2.0-draft: store (granted by keyvalue)\n",
        "wasi:http@0.2.3: outgoing-handler (granted by http)\n",
        "wasi:io@0.2.3: poll\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let json = cli.run(&["inspect", "needs.wat", "--output", "json"]);
    let list = "\"grants\": [\n    \"http\",\n    \"keyvalue\"\n  ]";
    assert!(json.contains(list), "{json}");
}

#[test]
fn without_a_nats_server_up_says_how_to_get_one() {
    let cli = Cli::without_tools().with(&[("wasmbay.toml", APP), ("guest.wat", GUEST)]);
    assert_seen!(cli, "no_nats", cli.run(&["up"]));
}

#[test]
fn a_doctor_says_what_is_missing_and_how_to_get_it() {
    let cli = Cli::without_tools();
    assert_seen!(cli, "doctor_nothing", cli.run(&["doctor"]));
    cli.write("wasmbay.toml", APP);
    cli.write("guest.wat", GUEST);
    assert_seen!(cli, "doctor_app", cli.run(&["doctor"]));
    let seen = cli.run(&["doctor", "--output", "json"]);
    let tools = json(&seen);
    assert_eq!(tools["app"], "demo");
    assert_eq!(tools["tools"][0]["name"], "nats-server");
    assert_eq!(tools["tools"][0]["path"], Value::Null);
    assert_eq!(
        (&tools["tools"][0]["needed"], &tools["tools"][1]["needed"]),
        (&true.into(), &false.into())
    );

    cli.write(
        ".tools/bin/nats-server",
        "#!/bin/sh\necho nats-server: v2.15.1\n",
    );
    let program = cli.path(".tools/bin/nats-server");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(program, executable).unwrap();
    assert_seen!(cli, "doctor_healthy", cli.run(&["doctor"]));
}

#[test]
fn a_new_service_is_written_and_added_to() {
    let cli = Cli::new();
    assert_seen!(
        cli,
        "new",
        session(
            &cli,
            &[
                &["new", "--lang", "rust", "hello"],
                &["new", "--lang", "ts", "second", "--path", "hello"],
                &["new", "--lang", "rust", "hello"],
                &["new", "--lang", "rust", "Hello"],
                &["check", "hello", "--no-build"],
            ],
        )
    );
    let written = json(&cli.run(&["new", "--lang", "c", "third", "--output", "json"]));
    assert_eq!(written["language"], "c");
    assert!(written["files"].as_array().unwrap().len() > 3, "{written}");
}

#[test]
fn what_has_not_changed_is_not_built_again() {
    let cli = Cli::new();
    cli.run(&["new", "--lang", "c", "hello"]);
    let first = json(&cli.run(&["build", "hello", "--output", "json"]));
    let (one, size) = (&first[0], first[0]["size"].as_u64().unwrap());
    assert_eq!(
        (&one["name"], &one["language"], &one["built"]),
        (&"hello".into(), &"c".into(), &true.into())
    );
    assert!(size > 1_000, "{first}");
    let again = cli.run(&["build", "hello/hello"]);
    assert!(
        again.contains("up to date  hello/hello/.wasmbay/hello.wasm"),
        "{again}"
    );
    assert!(again.ends_with("[exit 0]"), "{again}");

    cli.write("hello/hello/hello.c", "no C");
    let broken = cli.run(&["build", "hello"]);
    assert!(
        broken.contains("error: service \"hello\"\ncaused by: "),
        "{broken}"
    );
    assert!(broken.contains("hello.c:1:1: error: "), "{broken}");
    assert!(broken.ends_with("[exit 1]"), "{broken}");
}

#[test]
fn two_builds_of_one_guest_at_once_build_it_once() {
    let cli = Cli::new();
    cli.run(&["new", "--lang", "c", "hello"]);
    let start = || {
        let mut command = cli.command(&["build", "hello", "--output", "json"]);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        piped.spawn().unwrap()
    };
    let both = [start(), start(), start()].map(|child| child.wait_with_output().unwrap());
    let built = both.map(|output| {
        assert!(output.status.success(), "{output:?}");
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        printed[0]["built"].as_bool().unwrap()
    });
    assert_eq!(built.iter().filter(|built| **built).count(), 1);
}

#[test]
fn what_is_no_guest_is_not_built() {
    let cli = demo().with(&[("folder/readme.txt", "no guest")]);
    assert_seen!(
        cli,
        "build_nothing",
        session(
            &cli,
            &[&["build"], &["build", "folder"], &["build", "none"]]
        )
    );
}

#[test]
fn completions_are_made_for_each_shell() {
    let cli = Cli::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = cli.run(&["completions", shell]);
        assert!(
            script.contains("inspect") && script.ends_with("[exit 0]"),
            "{shell}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let cli = Cli::new();
    let mut child = cli
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut error = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut error)
        .unwrap();
    assert_eq!((child.wait().unwrap().code(), &*error), (Some(0), ""));
}

#[test]
fn colour_is_for_terminals_unless_it_is_asked_for() {
    let cli = Cli::new();
    assert!(!cli.run(&["check"]).contains('\x1b'));
    assert!(
        cli.run(&["check", "--color", "always"])
            .contains("\x1b[1m\x1b[31merror:")
    );
    assert!(cli.run(&["--color=always", "upp"]).contains('\x1b'));
}
