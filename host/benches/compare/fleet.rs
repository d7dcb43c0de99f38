//! What a fleet of three hosts costs: deploys, the death of a host, a new version under load, many services. All of
//! it with the command line and processes of its own, as people have it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::runtime::Runtime;
use wasmbay::nats::ConnectOptions;

use crate::drive::{self, Body, Report, Run, Target};
use crate::lifecycle::{middle, time};
use crate::process::Server;
use crate::table::{Cell, Row, Table};
use crate::{Options, contest, guests};

/// Bytes of the component that is deployed again and again.
const LARGE: usize = 2 << 20;

/// Services of which each runs on one host, when one of the hosts dies.
const SPREAD: usize = 12;

/// Callers of a service while it is deployed.
const CALLERS: usize = 16;

/// Time for a call before it is tried again: what a dead host has been sent is never answered.
const PATIENCE: Duration = Duration::from_millis(100);

/// Measures and tabulates, if it is wanted.
pub(crate) fn table(
    options: &Options,
    runtime: &Runtime,
    nats: &str,
    folder: &Path,
) -> anyhow::Result<Option<Table>> {
    if !options.wants("life of a fleet") {
        return Ok(None);
    }
    eprintln!("measuring the life of a fleet");
    let folder = folder.join("fleet");
    fs::create_dir_all(&folder)?;
    let fleet = Fleet {
        nats,
        folder: &folder,
        component: fs::read(guests::component("rust/bench")?)?,
    };
    let rounds = options.rounds();
    let many = if options.quick { 100 } else { 1_000 };
    let mut table = Table::new(
        "The life of a fleet of three hosts".to_owned(),
        &["what", "measured"],
    );
    let mut show = |what: &str, measured: String| {
        let mut row = Row::new(what);
        row.cell(Cell::Text(measured));
        table.rows.push(row);
    };
    let mut hosts = Hosts::start(&fleet, ["a", "b", "c"], 4 * many)?;
    show(
        "`wasmbay deploy` of a changed component of 2 MB, until it serves on all three",
        time(fleet.deploys(rounds)?),
    );
    let (before, during, deploys) = fleet.deploys_under_load(options)?;
    show(
        &format!("deploys of it while {CALLERS} callers keep calling"),
        format!(
            "{} of {} calls failed in {deploys} deploys, p99 {:.2} ms, without deploys {:.2} ms",
            during.errors,
            during.calls,
            during.p99_us / 1e3,
            before.p99_us / 1e3,
        ),
    );
    show(
        &format!("kill -9 of a host until all {SPREAD} services answer"),
        time(fleet.deaths(runtime, &mut hosts, rounds)?),
    );
    let mut taken = Vec::new();
    for round in 0..rounds.min(3) {
        taken.push(fleet.many(round, many)?);
    }
    show(
        &format!(
            "`wasmbay deploy` of {many} services, none compiled before, until all serve on two hosts each"
        ),
        time(middle(&taken)?),
    );
    Ok(Some(table))
}

struct Fleet<'a> {
    nats: &'a str,
    folder: &'a Path,
    component: Vec<u8>,
}

impl Fleet<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmbay"));
        command
            .args(["--output", "json"])
            .args(args)
            .args(["--nats", self.nats])
            .env("XDG_CACHE_HOME", self.folder.join("cache"))
            .env("XDG_STATE_HOME", self.folder.join("state"));
        command
    }

    /// Runs a verb to its end, and returns how long that took.
    fn run(&self, args: &[&str]) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let mut command = self.command(args);
        let output = command.stdout(Stdio::null()).output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{args:?}: {told}");
        Ok(started.elapsed())
    }

    /// An app of so many services that answer for an interface each, with these lines.
    fn app(&self, name: &str, services: usize, lines: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        // The apps export the same interfaces, and have no need of a gateway.
        let mut text = format!("name = \"{name}\"\n[gateway]\nrpc = false\n");
        for (service, bytes) in guests::variants(&self.component, services) {
            let file = format!("{service}.wasm");
            fs::write(folder.join(&file), bytes)?;
            writeln!(text, "[service.{service}]\ncomponent = \"{file}\"\n{lines}")?;
        }
        fs::write(folder.join("wasmbay.toml"), text)?;
        Ok(folder)
    }

    /// The same component with so many bytes and another digest each time.
    fn changed(&self, folder: &Path, turn: usize) -> anyhow::Result<()> {
        let file = folder.join("e000.wasm");
        let (_, component) = guests::variants(&self.component, 1)
            .next()
            .context("no component")?;
        fs::write(file, guests::padded(&component, LARGE, turn))?;
        Ok(())
    }

    fn deploys(&self, rounds: usize) -> anyhow::Result<Duration> {
        let folder = self.app("large", 1, "replicas = \"all\"")?;
        let path = folder.display().to_string();
        self.run(&["deploy", &path])?;
        let mut taken = Vec::new();
        for turn in 0..rounds {
            self.changed(&folder, turn)?;
            taken.push(self.run(&["deploy", &path])?);
        }
        middle(&taken)
    }

    /// Calls without deploys, then as long as some deploys take; the reports of both, and how many those were.
    fn deploys_under_load(&self, options: &Options) -> anyhow::Result<(Report, Report, usize)> {
        let folder = self.folder.join("large");
        let path = folder.display().to_string();
        let duration = Duration::from_secs(if options.quick { 4 } else { 20 });
        let body = Body::new(contest::ARGUMENTS, 100)?;
        let load = || -> anyhow::Result<Run> {
            Ok(Run {
                target: Target::Nats {
                    address: self.nats.trim_start_matches("nats://").to_owned(),
                    subject: "bay.large.bay.bench.e000.v1.echo".to_owned(),
                },
                method: String::new(),
                expect: Some(body.padded(contest::ITEM)),
                body: body.bytes.clone(),
                concurrency: CALLERS,
                duration,
                warm_up: Duration::ZERO,
                processes: Vec::new(),
            })
        };
        let before = drive::run(&load()?)?;
        let run = load()?;
        let loading = thread::spawn(move || drive::run(&run));
        let mut deploys = 0;
        // The last one has to end before the calls do.
        let until = Instant::now() + duration.mul_f64(0.75);
        while Instant::now() < until {
            self.changed(&folder, 1_000 + deploys)?;
            self.run(&["deploy", &path])?;
            deploys += 1;
        }
        let during = loading
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((before, during, deploys))
    }

    /// How long it takes after the death of a host until each service answers, whichever host it was on.
    fn deaths(
        &self,
        runtime: &Runtime,
        hosts: &mut Hosts<'_>,
        rounds: usize,
    ) -> anyhow::Result<Duration> {
        let folder = self.app("spread", SPREAD, "replicas = 1")?;
        let path = folder.display().to_string();
        self.run(&["deploy", &path])?;
        let client = runtime.block_on(ConnectOptions::to(self.nats).connect())?;
        let body = Body::new(contest::ARGUMENTS, 100)?;
        let answers = |service: usize| {
            let subject = format!("bay.spread.bay.bench.e{service:03}.v1.echo");
            let call = client.request(subject, body.bytes.clone().into());
            runtime.block_on(async {
                let reply = tokio::time::timeout(PATIENCE, call).await;
                let reply = reply.ok().and_then(Result::ok);
                let error = wasmbay::wire::ERROR;
                reply.is_some_and(|reply| {
                    let headers = reply.headers.unwrap_or_default();
                    headers.get(error).is_none()
                })
            })
        };
        let mut taken = Vec::new();
        for _ in 0..rounds {
            let started = Instant::now();
            hosts.kill("c");
            let mut left: Vec<_> = (0..SPREAD).collect();
            while !left.is_empty() {
                left.retain(|service| !answers(*service));
                ensure!(
                    started.elapsed() < Duration::from_secs(60),
                    "{left:?} do not answer"
                );
            }
            taken.push(started.elapsed());
            hosts.add(self, "c")?;
            // It gets its part back before it dies again.
            self.run(&["deploy", &path])?;
            self.until_moved()?;
        }
        middle(&taken)
    }

    /// Waits until every service runs where it should.
    fn until_moved(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let output = self.command(&["ps", "spread"]).output()?;
            let shown: serde_json::Value = serde_json::from_slice(&output.stdout)?;
            let app = shown.get("apps").and_then(|apps| apps.get(0));
            let app = app.context("it is not deployed")?;
            let moves = app.get("leaving").and_then(|leaving| leaving.as_object());
            if output.status.success() && moves.is_none_or(serde_json::Map::is_empty) {
                return Ok(());
            }
            ensure!(
                started.elapsed() < Duration::from_secs(60),
                "it goes on moving: {app}"
            );
            thread::sleep(PATIENCE);
        }
    }

    fn many(&self, round: usize, services: usize) -> anyhow::Result<Duration> {
        let name = format!("many-{round}");
        // Another one in each round, so that nothing of it is compiled.
        let fresh = Fleet {
            component: guests::padded(&self.component, 64, round),
            ..*self
        };
        let folder = fresh.app(&name, services, "")?;
        let path = folder.display().to_string();
        let taken = self.run(&["deploy", &path, "--timeout", "10m"])?;
        self.run(&["undeploy", &name])?;
        Ok(taken)
    }
}

/// The hosts by name.
struct Hosts<'a> {
    running: Vec<(&'a str, Server)>,
    instances: usize,
}

impl<'a> Hosts<'a> {
    fn start(fleet: &Fleet<'_>, names: [&'a str; 3], instances: usize) -> anyhow::Result<Self> {
        let mut hosts = Self {
            running: Vec::new(),
            instances,
        };
        for name in names {
            hosts.add(fleet, name)?;
        }
        Ok(hosts)
    }

    fn add(&mut self, fleet: &Fleet<'_>, name: &'a str) -> anyhow::Result<()> {
        let instances = self.instances.to_string();
        let args = [
            "host",
            "--name",
            name,
            "--workers",
            "1",
            "--instances",
            &instances,
            "--log",
            "error",
        ];
        let mut command = fleet.command(&args);
        let mut host = Server::start("wasmbay host", &mut command, 0)?;
        host.wait("\"event\":\"ready\"")?;
        self.running.push((name, host));
        Ok(())
    }

    /// Kills a host as `kill -9` does.
    fn kill(&mut self, name: &str) {
        self.running.retain(|(known, _)| *known != name);
    }
}
