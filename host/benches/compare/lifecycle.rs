//! What a host costs beside its calls: starting, replacing a service, and services that wait.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::process::Server;
use crate::table::{Cell, Row, Table, median};
use crate::{Options, guests};

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
    show(
        "start with ten services, all to be compiled",
        milliseconds(cold),
    );
    show(
        "start with ten services, compiled before",
        milliseconds(warm),
    );
    show(
        "replace a service, compiled before",
        milliseconds(life.swap(rounds)?),
    );
    let idle = if options.quick { 100 } else { 1_000 };
    let (all, anonymous) = life.idle(idle)?;
    show(
        &format!("memory of each of {idle} idle services"),
        format!(
            "{:.0} KiB ({:.0} KiB without mapped code)",
            all / 1024.0,
            anonymous / 1024.0
        ),
    );
    Ok(Some(table))
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

struct Life<'a> {
    nats: &'a str,
    folder: &'a Path,
    component: &'a [u8],
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
                let server = self.host(&manifest, &cache)?;
                taken.push(started.elapsed().as_secs_f64());
                drop(server);
            }
        }
        let median = |taken| Duration::try_from_secs_f64(median(taken));
        Ok((median(cold)?, median(warm)?))
    }

    /// How long it takes until another component serves in the place of one.
    fn swap(&self, rounds: usize) -> anyhow::Result<Duration> {
        let first = self.manifest("swap", 1)?;
        let text = fs::read_to_string(&first)?;
        let old = self.folder.join("swap-e000.wasm");
        let new = self.folder.join("swap-other.wasm");
        fs::write(&new, guests::touched(&fs::read(&old)?))?;
        let second = self.folder.join("swap-other.toml");
        fs::write(&second, text.replace("swap-e000.wasm", "swap-other.wasm"))?;
        let mut server = self.host(&first, "cache-swap")?;
        let mut taken = Vec::new();
        // The first of each is compiled.
        for round in 0..2 * rounds + 2 {
            let next = if round % 2 == 0 { &second } else { &first };
            let microseconds: f64 = server
                .ask(&next.display().to_string(), "applied")?
                .parse()?;
            if round > 1 {
                taken.push(microseconds / 1e6);
            }
        }
        Ok(Duration::try_from_secs_f64(median(taken))?)
    }

    /// Bytes of memory for each service that has served nothing yet, or nothing for a while: all,
    /// and those that are no file's.
    fn idle(&self, services: usize) -> anyhow::Result<(f64, f64)> {
        // Compiling leaves memory behind, so the host that is looked at finds all compiled.
        let many = self.manifest("idle", services)?;
        drop(self.host(&many, "cache-idle")?);
        let few = self.manifest("one", 1)?;
        drop(self.host(&few, "cache-idle")?);
        let (many, few) = (self.settled(&many)?, self.settled(&few)?);
        let each = |many: u64, few: u64| many.saturating_sub(few) as f64 / (services - 1) as f64;
        Ok((each(many.0, few.0), each(many.1, few.1)))
    }

    /// The memory of a host that has nothing to do, after it has let go of what it can.
    fn settled(&self, manifest: &Path) -> anyhow::Result<(u64, u64)> {
        let server = self.host(manifest, "cache-idle")?;
        let patience = wasmbay::service::IDLE + Duration::from_secs(6);
        std::thread::sleep(patience);
        server.memory()
    }

    /// A manifest of services that answer for an interface each, and their components.
    fn manifest(&self, name: &str, services: usize) -> anyhow::Result<PathBuf> {
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

    fn host(&self, manifest: &Path, cache: &str) -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("serve")
            .arg("--manifest")
            .arg(manifest)
            .args(["--nats", self.nats])
            .env("XDG_CACHE_HOME", self.folder.join(cache));
        Server::start("a wasmbay host", &mut command, 1).context("starting a host")
    }
}
