//! How a running app ends: what it waits for, for how long, and what it says of that.

use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{APP, demo};
use crate::support::DEADLINE;
use crate::support::cli::{Cli, Up, assert_seen};
use crate::support::components::{GUEST, SLEEPER};
use crate::support::nats::Nats;

/// Time beyond all that is promised, for a machine under load.
const SLACK: Duration = Duration::from_secs(3);

const SLEEPY: &str = r#"
name = "sleepy"

[service.sleeper]
component = "sleeper.wat"
limits = { timeout = "60s", concurrency = 1, wait = "10s" }
"#;

/// An app with a call under way that takes so long.
fn sleepy(milliseconds: u32, args: &[&str]) -> (Cli, Up, std::process::Child) {
    let cli = Cli::new().with(&[("wasmbay.toml", SLEEPY), ("sleeper.wat", SLEEPER)]);
    let up = cli.up(args);
    let call = cli
        .command(&[
            "call",
            "api.sleep",
            &format!("[{milliseconds}]"),
            "--timeout",
            "60s",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It is there once others have to wait for their turn.
    let other = ["call", "api.sleep", "[0]", "--timeout", "250ms"];
    let deadline = Instant::now() + DEADLINE;
    while cli.run(&other).ends_with("[exit 0]") {
        assert!(Instant::now() < deadline, "the call does not arrive");
    }
    (cli, up, call)
}

#[test]
fn what_outlasts_the_grace_time_is_given_up() {
    let (cli, up, call) = sleepy(50_000, &["--grace", "100ms"]);
    up.signal(Signal::TERM);
    assert_seen!(cli, "grace", up.end());
    let answer = call.wait_with_output().unwrap();
    assert_eq!(answer.status.code(), Some(1));
    let error = String::from_utf8(answer.stderr).unwrap();
    assert!(
        error.contains("error: 503 unavailable (blame: host)"),
        "{error}"
    );
}

#[test]
fn a_second_signal_stops_at_once() {
    let (cli, up, mut call) = sleepy(50_000, &["--grace", "60s"]);
    up.signal(Signal::INT);
    up.until("draining");
    // Before that, it would count as the first one.
    thread::sleep(Duration::from_millis(1_100));
    up.signal(Signal::INT);
    assert_seen!(cli, "second_signal", up.end());
    call.kill().unwrap();
    call.wait().unwrap();
}

#[test]
fn two_signals_that_come_together_are_one() {
    let (_cli, up, call) = sleepy(2_000, &["--grace", "60s"]);
    // As of a wrapper that forwards Ctrl-C to a process that the terminal has signalled already.
    up.signal(Signal::INT);
    up.signal(Signal::INT);
    up.signal(Signal::TERM);
    up.until("draining");
    thread::sleep(Duration::from_millis(1));
    up.signal(Signal::INT);
    let printed = up.end();
    assert!(
        printed.ends_with("every call was answered\n[exit 0]"),
        "{printed}"
    );
    assert_eq!(call.wait_with_output().unwrap().status.code(), Some(0));
}

/// Ends it and returns what it printed; fails if that takes longer than the grace time and two
/// seconds.
fn stopped_in_time(up: Up, grace: Duration) -> String {
    let began = Instant::now();
    let printed = up.stop();
    let took = began.elapsed();
    assert!(took < grace + Duration::from_secs(2) + SLACK, "{took:?}");
    printed
}

#[tokio::test]
async fn without_nats_it_ends_in_time_and_says_that_nothing_was_confirmed() {
    let nats = Nats::start().await;
    let cli = Cli::new().with(&[("wasmbay.toml", APP), ("guest.wat", GUEST)]);
    let up = cli.up(&["--nats", nats.url(), "--grace", "2s"]);
    nats.stop().await;
    let printed = stopped_in_time(up, Duration::from_secs(2));
    assert!(
        printed
            .ends_with("stopped: NATS did not confirm the end, calls may have been lost\n[exit 1]"),
        "{printed}"
    );
}

#[test]
fn a_server_of_its_own_that_hangs_is_killed_in_time() {
    let cli = demo();
    let up = cli.up(&["--grace", "1s"]);
    let pid = std::fs::read_to_string(cli.path(".wasmbay/nats/nats.pid")).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let printed = stopped_in_time(up, Duration::from_secs(1));
    assert!(printed.ends_with("[exit 1]"), "{printed}");
    // It was waited for, so nothing of that number is there.
    assert!(kill_process(pid, Signal::CONT).is_err());
}
