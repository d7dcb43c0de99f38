//! What a host costs beside its calls: starting, replacing a service, and services that wait.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use wasmbay::build::{Language, scaffold};

use crate::drive::{self, Body, Run, Target};
use crate::process::{Memory, Server};
use crate::table::{Cell, Row, Table, median};
use crate::{Options, contest, guests};

/// Callers of a service while it is replaced.
const CALLERS: usize = 16;

/// Between two replacements, so that most calls begin and end with one service.
const PAUSE: Duration = Duration::from_millis(50);

/// Measures and tabulates, if it is wanted.
pub(crate) fn table(options: &Options, nats: &str, folder: &Path) -> anyhow::Result<Option<Table>> {
    if !options.wants("life of a host") {
        return Ok(None);
    }
    eprintln!("measuring the life of a host");
    let component = fs::read(guests::component("rust/bench")?)?;
    let life = Life {
        nats,
        folder: &folder.join("life"),
        component: &component,
    };
    let mut table = Table::new("The life of a host".to_owned(), &["what", "measured"]);
    let mut show = |what: &str, measured: String| {
        let mut row = Row::new(what);
        row.cell(Cell::Text(measured));
        table.rows.push(row);
    };
    let rounds = options.rounds();
    let (cold, warm) = life.starts(10, rounds)?;
    show("start with ten services, all to be compiled", time(cold));
    show("start with ten services, compiled before", time(warm));
    show(
        "replace a service, compiled before",
        time(life.swap(rounds)?),
    );
    let seconds = if options.quick { 1 } else { 4 };
    let (taken, report) = life.swap_under_load(Duration::from_secs(seconds))?;
    show(
        &format!("replace it while {CALLERS} callers keep calling"),
        format!(
            "{}, longest {}; {} of {} calls failed in {} replacements",
            time(middle(&taken)?),
            time(taken.iter().max().copied().unwrap_or_default()),
            report.errors,
            report.calls,
            taken.len()
        ),
    );
    let (file, source) = life.changes(rounds)?;
    show(
        "`wasmbay up`: from a component's new file to serving it",
        time(file),
    );
    show(
        "`wasmbay up`: from a changed Rust source to serving it, with its build",
        time(source),
    );
    let idle = if options.quick { 100 } else { 1_000 };
    let (start, memory) = life.idle(idle)?;
    show(
        &format!("start with {idle} services, compiled before"),
        time(start),
    );
    let each = |bytes: u64| format!("{:.0} KiB", bytes as f64 / 1024.0 / (idle - 1) as f64);
    show(
        &format!("memory of {idle} idle services, beyond that of a host with one"),
        format!("{:.0} MiB", memory.all as f64 / f64::from(1 << 20)),
    );
    show("… for each of them", each(memory.all));
    show("… of that, compiled code", each(memory.file));
    show("… of that, the host's own records", each(memory.anonymous));
    Ok(Some(table))
}

pub(crate) fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

pub(crate) fn middle(taken: &[Duration]) -> anyhow::Result<Duration> {
    let seconds = taken.iter().map(Duration::as_secs_f64).collect();
    Ok(Duration::try_from_secs_f64(median(seconds))?)
}

pub(crate) struct Life<'a> {
    pub(crate) nats: &'a str,
    pub(crate) folder: &'a Path,
    pub(crate) component: &'a [u8],
}

impl Life<'_> {
    /// How long a host with this many services takes from the start of its process until all of
    /// them serve: with an empty cache, and with a full one.
    fn starts(&self, services: usize, rounds: usize) -> anyhow::Result<(Duration, Duration)> {
        let manifest = self.manifest("start", services)?;
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let cache = format!("cache-{round}");
            for taken in [&mut cold, &mut warm] {
                let started = Instant::now();
                let server = self.host(&manifest, &cache, &[])?;
                taken.push(started.elapsed());
                drop(server);
            }
        }
        Ok((middle(&cold)?, middle(&warm)?))
    }

    /// How long it takes until another component serves in the place of one.
    fn swap(&self, rounds: usize) -> anyhow::Result<Duration> {
        let mut swaps = self.swaps("swap")?;
        let taken: Result<Vec<_>, _> = (0..2 * rounds).map(|_| swaps.next()).collect();
        middle(&taken?)
    }

    /// The same while calls flow. A call that fails, or has no responders, is an error of the report.
    fn swap_under_load(
        &self,
        duration: Duration,
    ) -> anyhow::Result<(Vec<Duration>, drive::Report)> {
        let mut swaps = self.swaps("busy")?;
        let body = Body::new(contest::ARGUMENTS, 100)?;
        let load = Run {
            target: Target::Nats {
                address: self.nats.trim_start_matches("nats://").to_owned(),
                subject: "bay.busy.bay.bench.e000.v1.echo".to_owned(),
            },
            method: String::new(),
            expect: Some(body.padded(contest::ITEM)),
            body: body.bytes,
            concurrency: CALLERS,
            duration,
            warm_up: Duration::ZERO,
            processes: Vec::new(),
        };
        let loading = thread::spawn(move || drive::run(&load));
        let mut taken = Vec::new();
        while !loading.is_finished() {
            thread::sleep(PAUSE);
            taken.push(swaps.next()?);
        }
        let report = loading
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((taken, report))
    }

    /// A host with one service, which two components take turns at.
    fn swaps(&self, name: &str) -> anyhow::Result<Swaps> {
        let first = self.manifest(name, 1)?;
        let text = fs::read_to_string(&first)?;
        let (old, new) = (format!("{name}-e000.wasm"), format!("{name}-other.wasm"));
        let touched = guests::touched(&fs::read(self.folder.join(&old))?);
        fs::write(self.folder.join(&new), touched)?;
        let second = self.folder.join(format!("{name}-other.toml"));
        fs::write(&second, text.replace(&old, &new))?;
        let server = self.host(&first, "cache-swap", &[])?;
        let mut swaps = Swaps {
            server,
            manifests: [second, first],
            turn: 0,
        };
        // The first of each is compiled.
        swaps.next()?;
        swaps.next()?;
        Ok(swaps)
    }

    /// How long `wasmbay up` takes from a change of a file until it says that what came of it
    /// serves: for a component that is there ready-made and never was compiled before, and for a
    /// guest in Rust that has to be built.
    fn changes(&self, rounds: usize) -> anyhow::Result<(Duration, Duration)> {
        let app = self.folder.join("changes");
        fs::create_dir_all(&app)?;
        scaffold(Language::Rust, "greeter", &app)?;
        let app = app.join("greeter");
        let ready_made = app.join("made.wasm");
        fs::write(&ready_made, self.component)?;
        let manifest = app.join("wasmbay.toml");
        let mut text = fs::read_to_string(&manifest)?;
        text.push_str("\n[service.made]\ncomponent = \"made.wasm\"\n");
        fs::write(&manifest, text)?;

        let mut command = Command::new(env!("CARGO_BIN_EXE_wasmbay"));
        command
            .args(["--output", "json", "up", "--no-gateway"])
            .arg(&manifest)
            .args(["--nats", self.nats])
            .env("XDG_CACHE_HOME", self.folder.join("cache-changes"));
        let mut up = Server::start("wasmbay up", &mut command, 0)?;
        up.wait("\"event\":\"ready\"")?;

        let mut component = self.component.to_vec();
        let source = app.join("greeter/src/lib.rs");
        let text = fs::read_to_string(&source)?;
        let (mut files, mut sources) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            component = guests::touched(&component);
            files.push(replaced(&mut up, &ready_made, &component)?);
            // Code, since a comment would give the same component.
            let text = text.replace("Hello", &format!("Hello {round}"));
            sources.push(replaced(&mut up, &source, text.as_bytes())?);
        }
        Ok((middle(&files)?, middle(&sources)?))
    }

    /// How long a host with so many services takes to start, and what they take of memory when
    /// they have served nothing yet, or nothing for a while.
    fn idle(&self, services: usize) -> anyhow::Result<(Duration, Memory)> {
        // Compiling leaves memory behind, so the host that is looked at finds all compiled.
        let many = self.manifest("idle", services)?;
        drop(self.host(&many, "cache-idle", &[])?);
        let few = self.manifest("one", 1)?;
        drop(self.host(&few, "cache-idle", &[])?);
        let ((_, few), (start, many)) = (self.settled(&few)?, self.settled(&many)?);
        Ok((start, many.beyond(few)))
    }

    /// How soon a host has started, and its memory when it has nothing to do and has let go of
    /// what it can.
    fn settled(&self, manifest: &Path) -> anyhow::Result<(Duration, Memory)> {
        let started = Instant::now();
        let server = self.host(manifest, "cache-idle", &[])?;
        let start = started.elapsed();
        let patience = wasmbay::runtime::IDLE + Duration::from_secs(6);
        thread::sleep(patience);
        Ok((start, server.memory()?))
    }

    /// A manifest of services that answer for an interface each, and their components.
    pub(crate) fn manifest(&self, name: &str, services: usize) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(self.folder)?;
        let mut text = format!("name = \"{name}\"\n");
        for (service, bytes) in guests::variants(self.component, services) {
            let file = format!("{name}-{service}.wasm");
            fs::write(self.folder.join(&file), bytes)?;
            writeln!(text, "[service.{service}]\ncomponent = \"{file}\"")?;
        }
        let path = self.folder.join(format!("{name}.toml"));
        fs::write(&path, text)?;
        Ok(path)
    }

    pub(crate) fn host(
        &self,
        manifest: &Path,
        cache: &str,
        more: &[&str],
    ) -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("serve")
            .arg("--manifest")
            .arg(manifest)
            .args(["--nats", self.nats])
            .args(more)
            .env("XDG_CACHE_HOME", self.folder.join(cache));
        Server::start("a wasmbay host", &mut command, 1).context("starting a host")
    }
}

/// A host whose one service is replaced again and again.
struct Swaps {
    server: Server,
    manifests: [PathBuf; 2],
    turn: usize,
}

impl Swaps {
    /// Replaces it once, and returns the time until the other one served.
    fn next(&mut self) -> anyhow::Result<Duration> {
        let next = self.manifests.iter().cycle().nth(self.turn);
        let next = next.context("no manifest")?.display().to_string();
        self.turn += 1;
        let microseconds = self.server.ask(&next, "applied")?.parse()?;
        Ok(Duration::from_micros(microseconds))
    }
}

/// Replaces a file as editors and builds do, and returns the time until the host reports that it
/// serves the result.
fn replaced(up: &mut Server, path: &Path, contents: &[u8]) -> anyhow::Result<Duration> {
    let beside = path.with_extension("new");
    fs::write(&beside, contents)?;
    let started = Instant::now();
    fs::rename(&beside, path)?;
    let line = up.wait("\"event\":")?;
    ensure!(
        line.contains("\"event\":\"applied\"") && !line.contains("\"replaced\":[]"),
        "{} was not taken over: {line}",
        path.display()
    );
    Ok(started.elapsed())
}
