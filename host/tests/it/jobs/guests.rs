//! Jobs as toolchains make them.

use super::*;
use crate::examples::Example;

#[test]
fn the_example_runs_a_program_that_calls_a_service() {
    let example = Example::start("jobs");
    let url = example.nats.clone();
    let command =
        example
            .cli
            .command(&["jobs", "run", "jobs/greets-all", "--wait", "--nats", &url]);
    // It may be under way by its schedule.
    let mut again = 0;
    let ran = loop {
        let mut next = std::process::Command::new(command.get_program());
        let ran = next.args(command.get_args()).output().unwrap();
        let error = String::from_utf8_lossy(&ran.stderr).into_owned();
        again += 1;
        if ran.status.success() || again > 20 {
            break (
                ran.status.code(),
                String::from_utf8_lossy(&ran.stdout).into_owned(),
                error,
            );
        }
    };
    assert_eq!(
        (ran.0, &*ran.1),
        (Some(0), "Hello, Ada!\nHello, Grace!\n"),
        "{ran:?}"
    );
    example.stop();
}

/// A program as `cargo new` makes one: nothing of it is of wasmbay.
const MANIFEST: &str =
    "[package]\nname = \"plain\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
const PROGRAM: &str = r#"
fn main() -> Result<(), String> {
    let kind = std::env::var("KIND").unwrap();
    println!("{kind} by {:?}", std::env::args().collect::<Vec<_>>());
    match kind.as_str() {
        "status" => std::process::exit(3),
        "error" => Err("no luck".to_owned()),
        "panic" => panic!("oh no"),
        "memory" => Ok(drop(std::hint::black_box(vec![1_u8; 64 << 20]))),
        _ => Ok(()),
    }
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_as_it_is_and_its_ends_are_told_apart() {
    let kinds = ["well", "status", "error", "panic", "memory"];
    let jobs = kinds.map(|kind| {
        format!(
            "[job.{kind}]\ncomponent = \"plain\"\nat = \"request\"\nargs = [\"{kind}\"]\nenv = {{ KIND = \"{kind}\" }}\n\
             retry = {{ attempts = 1 }}\nlimits = {{ memory = \"16MiB\" }}\n"
        )
    });
    let text = format!("name = \"app\"\n{}", jobs.concat());
    let cli = Cli::new().with(&[
        ("wasmbay.toml", &text),
        ("plain/Cargo.toml", MANIFEST),
        ("plain/src/main.rs", PROGRAM),
    ]);
    let nats = Nats::start().await;
    let home = std::env::var_os("HOME").unwrap();
    let mut command = cli.command(&["up", "--no-gateway", "--nats", nats.url()]);
    // cargo and its toolchain are in the home of who runs the test.
    command.env("HOME", home);
    for name in ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let host = Up::start(command);
    host.until_built("ready");
    let jobs = Jobs::new(jetstream::new(nats.connect().await), "app");
    for (kind, outcome, why) in [
        ("well", Outcome::Succeeded, ""),
        ("status", Outcome::Failed, "status 1"),
        ("error", Outcome::Failed, "`run` returned an error"),
        ("panic", Outcome::Trapped, "unreachable"),
        ("memory", Outcome::Trapped, "memory"),
    ] {
        let id = until_ok_within(PATIENCE, "the job is known", async || jobs.run(kind).await).await;
        let run = until_ok_within(PATIENCE, "it has run", async || {
            let run = jobs.look(kind, &id).await.ok().flatten();
            run.filter(|run| run.ended.is_some()).ok_or("it has not")
        })
        .await;
        let attempt = &run.attempts[0];
        assert_eq!(run.outcome, Some(outcome), "{run:#?}");
        assert!(
            attempt.why.as_deref().unwrap_or_default().contains(why),
            "{run:#?}"
        );
        let first = format!("{kind} by [\"{kind}\", \"{kind}\"]");
        assert_eq!(attempt.output[0], first, "{run:#?}");
        // What it prints is in the log as well, with the run.
        host.until(&format!("run=\"{id}\" stream=\"stdout\""));
    }
}

/// A command of WASI 0.3, whose `run` is an `async func`.
const ASYNCHRONOUS: &str = r#"
(component
  (core module $code (func (export "run") (result i32) (i32.const RETURNED)))
  (core instance $core (instantiate $code))
  (func $run async (result (result)) (canon lift (core func $core "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.3.0" (instance $command)))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_wasi_0_3_is_run_too() {
    let app = App::new("at = \"request\"\nretry = { attempts = 1 }").await;
    for (returned, outcome) in [("0", Outcome::Succeeded), ("1", Outcome::Failed)] {
        let component = ASYNCHRONOUS.replace("RETURNED", returned);
        app.cli.write("report.wat", component);
        let text = manifest("at = \"request\"\nretry = { attempts = 1 }");
        let text = text.replace("[wire.\"test:other/api\"]\nexternal = true\n", "");
        app.cli.write("wasmbay.toml", text);
        let _host = app.up();
        let id = app.request().await;
        let ended = |runs: &[Run]| runs.iter().any(|run| run.id == id && run.ended.is_some());
        let runs = app.runs("it has ended", ended).await;
        let run = runs.iter().find(|run| run.id == id).unwrap();
        assert_eq!(outcomes(run), [outcome], "{run:#?}");
    }
}
