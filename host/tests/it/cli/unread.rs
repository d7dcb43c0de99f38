//! An app that runs though what it prints is not read.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::running::{announced, get};
use crate::support::cli::Cli;
use crate::support::components::LOGGER;
use crate::support::until_ok_blocking;

const APP: &str = r#"
name = "loud"

[service.logger]
component = "logger.wat"
"#;

/// More than the pipe and the host's own buffer hold: 4 MB.
const CALLS: usize = 40;
const LOG: [&str; 3] = ["call", "api.log", "[100]"];

/// A running `wasmbay up` whose streams are the test's to read.
struct Unread(Child);

impl Unread {
    fn start(mut command: Command) -> Self {
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(piped.spawn().unwrap())
    }

    /// Waits until the app serves, of which it prints nothing that could be read.
    fn until_ready(&self, cli: &Cli) -> String {
        until("ready", || {
            cli.path(".wasmbay/host.json")
                .exists()
                .then(|| announced(cli))
                .and_then(|ready| ready["gateway"].as_str().map(str::to_owned))
        })
    }

    fn end(mut self) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        until("ended", || self.0.try_wait().unwrap()).code()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    until_ok_blocking(what, || holds().ok_or("it does not hold"))
}

fn loud() -> Cli {
    Cli::new().with(&[("wasmbay.toml", APP), ("logger.wat", LOGGER)])
}

fn up(cli: &Cli) -> Unread {
    Unread::start(cli.command(&["up", "--listen", "127.0.0.1:0"]))
}

fn assert_serves(cli: &Cli, gateway: &str) {
    let seen = cli.run(&LOG);
    assert!(seen.ends_with("[exit 0]"), "{seen}");
    let health = get(gateway.trim_start_matches("http://"), "/healthz");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
}

#[test]
fn a_closed_stderr_costs_no_call_and_no_nats_server() {
    let cli = loud();
    let mut up = up(&cli);
    drop((up.0.stdout.take(), up.0.stderr.take()));
    let gateway = up.until_ready(&cli);
    assert_serves(&cli, &gateway);

    let pid_file = cli.path(".wasmbay/nats/nats.pid");
    let server = || {
        let pid: i32 = std::fs::read_to_string(&pid_file)
            .ok()?
            .trim()
            .parse()
            .ok()?;
        Pid::from_raw(pid)
    };
    let first = server().unwrap();
    kill_process(first, Signal::KILL).unwrap();
    until("another nats-server runs", || {
        server().filter(|pid| *pid != first)
    });
    until("calls are answered again", || {
        cli.run(&LOG).ends_with("[exit 0]").then_some(())
    });
    assert_serves(&cli, &gateway);
    assert_eq!(up.end(), Some(0));
}

#[test]
fn a_stalled_stderr_costs_lines_and_nothing_else() {
    let cli = loud();
    let mut up = up(&cli);
    let gateway = up.until_ready(&cli);
    for _ in 0..CALLS {
        assert!(cli.run(&LOG).ends_with("[exit 0]"));
    }
    assert_serves(&cli, &gateway);

    // Reading on shows what is missing.
    let stderr = BufReader::new(up.0.stderr.take().unwrap());
    let mut lines = stderr.lines().map(Result::unwrap);
    let report = lines.find(|line| line.contains("lines were dropped here"));
    assert!(report.unwrap().contains("stderr is read too slowly"));
    drop(lines);
    assert_eq!(up.end(), Some(0));
}

#[test]
fn a_stalled_stderr_does_not_keep_it_from_ending() {
    let cli = loud();
    let up = up(&cli);
    up.until_ready(&cli);
    for _ in 0..CALLS {
        assert!(cli.run(&LOG).ends_with("[exit 0]"));
    }
    assert_eq!(up.end(), Some(0));
}
