//! A fleet of real processes: hosts on one `nats-server`, and the verbs that deploy to them.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use async_nats::Client;
use rustix::process::Signal;
use serde_json::Value;
use wasmbay::nats::ConnectOptions;

use crate::support::cli::{Cli, Up};
use crate::support::components::GUEST;
use crate::support::nats::Nats;
use crate::support::{PATIENCE, until_ok_within};

mod alone;
mod balance;
mod cluster;
mod deploying;
mod events;
mod failing;
pub(crate) mod gateway;
mod logs;
mod many;
mod moving;
mod ordering;
mod permissions;
mod rollouts;
mod signatures;
mod traced;
mod versions;

/// Where `echo` of [`GUEST`] is called.
const ECHO: &str = "bay.app.test.guest.api.v1.echo";

/// An app of one service that runs on every host.
const EVERYWHERE: &str =
    "name = \"app\"\n[service.guest]\ncomponent = \"guest.wasm\"\nreplicas = \"all\"\n";

/// An app of one service that runs on one host.
const ONCE: &str = "name = \"app\"\n[service.guest]\ncomponent = \"guest.wasm\"\nreplicas = 1\n";

/// A fleet's NATS system, and a folder with an app.
pub(crate) struct Fleet {
    url: String,
    /// Unless the servers are others.
    nats: Option<Nats>,
    pub(crate) cli: Cli,
}

/// A folder with the app of this manifest.
fn folder(manifest: &str) -> Cli {
    let cli = Cli::new().with(&[("wasmbay.toml", manifest)]);
    cli.write("guest.wasm", wat::parse_str(GUEST).unwrap());
    cli
}

/// What a verb printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    #[track_caller]
    fn failed(self) -> Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        self
    }
}

impl Fleet {
    /// A NATS system and the app of this manifest, whose component is `guest.wasm`.
    pub(crate) async fn start(manifest: &str) -> Self {
        let nats = Nats::start().await;
        Self {
            url: nats.url().to_owned(),
            nats: Some(nats),
            cli: folder(manifest),
        }
    }

    /// As [`start`](Self::start), on servers that run already.
    fn on(url: String, manifest: &str) -> Self {
        Self {
            url,
            nats: None,
            cli: folder(manifest),
        }
    }

    async fn connect(&self) -> Client {
        ConnectOptions::to(&*self.url).connect().await.unwrap()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.cli.command(args);
        command.env("NATS_URL", &self.url).env("USER", "ada");
        command
    }

    /// Starts a host of this name.
    pub(crate) fn host(&self, name: &str, more: &[&str]) -> Up {
        self.host_with(name, 100, more)
    }

    /// As [`host`](Self::host), with room for so many instances.
    fn host_with(&self, name: &str, instances: usize, more: &[&str]) -> Up {
        let instances = instances.to_string();
        let args = [
            "host",
            "--name",
            name,
            "--workers",
            "1",
            "--instances",
            &instances,
        ];
        let host = Up::start(self.command(&[&args, more].concat()));
        host.until_built("leaves the fleet");
        host
    }

    /// Runs a verb to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        let output = tokio::task::spawn_blocking(move || command.output());
        Ran::of(output.await.unwrap().unwrap())
    }

    /// What `ps` says of the app, with its replicas; nothing if it cannot ask.
    async fn ps(&self) -> Value {
        let ran = self.run(&["ps", "--output", "json"]).await;
        let shown = serde_json::from_str::<Value>(&ran.stdout);
        shown
            .map(|shown| shown["apps"][0].clone())
            .unwrap_or_default()
    }

    /// The hosts that serve a service, once `wanted` holds of them.
    pub(crate) async fn hosts_of(
        &self,
        service: &str,
        wanted: impl Fn(&[String]) -> bool,
    ) -> Vec<String> {
        until_ok_within(PATIENCE, "a service runs where it should", async || {
            let ps = self.ps().await;
            let all = ps["replicas"].as_array().cloned().unwrap_or_default();
            let serving = all
                .iter()
                .filter(|one| one["service"] == service && one["state"] == "serving");
            let hosts: Vec<_> = serving
                .map(|one| one["host"].as_str().unwrap().to_owned())
                .collect();
            if wanted(&hosts)
                && hosts.len() == all.iter().filter(|one| one["service"] == service).count()
            {
                Ok(hosts)
            } else {
                Err(ps)
            }
        })
        .await
    }

    pub(crate) async fn stop(self) {
        if let Some(nats) = self.nats {
            nats.stop().await;
        }
    }
}

/// Calls `echo`; the error that came, if one did.
async fn echo(client: &Client) -> Result<(), String> {
    echo_within(client, Duration::from_secs(5)).await
}

/// Calls `echo` and waits this long for an answer.
async fn echo_within(client: &Client, patience: Duration) -> Result<(), String> {
    let call = client.request(ECHO, "[\"hi\"]".into());
    let reply = tokio::time::timeout(patience, call).await;
    let reply = reply.map_err(|_| "no answer")?;
    let reply = reply.map_err(|error| error.to_string())?;
    if &*reply.payload == b"\"hi\"" {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&reply.payload).into_owned())
    }
}

/// Calls without a pause until it is dropped or told to end; counts what did not succeed.
struct Load {
    task: tokio::task::JoinHandle<(usize, Vec<String>)>,
    end: tokio::sync::oneshot::Sender<()>,
}

impl Load {
    fn begin(client: Client) -> Self {
        let (end, mut ended) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let (mut calls, mut errors) = (0, Vec::new());
            while ended.try_recv().is_err() {
                calls += 1;
                errors.extend(echo(&client).await.err());
                tokio::task::yield_now().await;
            }
            (calls, errors)
        });
        Self { task, end }
    }

    async fn end(self) -> (usize, Vec<String>) {
        let _ = self.end.send(());
        self.task.await.unwrap()
    }
}

/// The time until calls succeed.
async fn until_answered(client: &Client) -> Duration {
    let since = Instant::now();
    // What a dead host has been sent is never answered.
    let short = Duration::from_millis(200);
    let answered = async || echo_within(client, short).await;
    until_ok_within(PATIENCE, "calls are answered", answered).await;
    since.elapsed()
}

/// A component that exports `charge` of `test:pay/api@1.0.0` with these parameters, and returns `amount`.
fn pays(params: &[&str]) -> Vec<u8> {
    let core = "(param i32)".repeat(params.len());
    let params: String = params
        .iter()
        .map(|name| format!("(param \"{name}\" u32)"))
        .collect();
    let text = format!(
        r#"(component
          (core module $code (func (export "charge") {core} (result i32) (local.get 0)))
          (core instance $core (instantiate $code))
          (func $charge {params} (result u32) (canon lift (core func $core "charge")))
          (instance $api (export "charge" (func $charge)))
          (export "test:pay/api@1.0.0" (instance $api)))"#
    );
    wat::parse_str(text).unwrap()
}

/// A component that traps when it is instantiated.
fn crashes() -> Vec<u8> {
    let text = r#"(component
      (core module $code
        (func $start unreachable)
        (start $start)
        (func (export "run")))
      (core instance $core (instantiate $code))
      (func $run (canon lift (core func $core "run")))
      (instance $api (export "run" (func $run)))
      (export "test:crash/api@1.0.0" (instance $api)))"#;
    wat::parse_str(text).unwrap()
}

fn kill(host: &Up) {
    host.signal(Signal::KILL);
}
