//! Everything that `docs/performance.md` states, measured side by side in one run: `make bench`.
//!
//! ```text
//! cargo bench --bench compare
//! cargo bench --bench compare -- --quick
//! cargo bench --bench compare -- --only native --only rust --concurrency 128 --payload 100
//! cargo bench --bench compare -- --only events --payload 100
//! ```
//!
//! All contestants run at the same time on the same server and are measured one after the other,
//! round after round; the tables have medians over the rounds, and ratios within each round.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program's output"
)]

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

mod contest;
#[path = "../../examples/load/drive/mod.rs"]
mod drive;
mod events;
mod fleet;
mod guests;
mod in_process;
mod lifecycle;
mod native;
mod process;
mod rounds;
mod runs;
mod serve;
mod table;
mod watched;

/// The one that `wasmbay` has, for native contestants too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Compares wasmbay with the native alternative.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    options: Options,
}

/// What is measured and how long.
#[derive(clap::Args)]
struct Options {
    /// About two minutes instead of fifteen.
    #[arg(long)]
    quick: bool,
    /// Only contestants and measurements whose name has this in it; can be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// Only this concurrency; can be repeated.
    #[arg(long)]
    concurrency: Vec<usize>,
    /// Only this size of the arguments, in bytes; can be repeated.
    #[arg(long)]
    payload: Vec<usize>,
    /// Rounds, instead of 7 (3 with --quick).
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds of each measurement, instead of 1 (0.4 with --quick).
    #[arg(long)]
    seconds: Option<f64>,
    /// Events of the backlog that is consumed, instead of 50,000 (20,000 with --quick).
    #[arg(long)]
    events: Option<u64>,
    /// Replace the tables in `docs/performance.md`.
    #[arg(long)]
    write: bool,
    /// Write each round's figures to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// `cargo bench` says that it is cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The contestants are this program, too.
#[derive(Subcommand)]
enum Role {
    /// A native service.
    #[command(hide = true)]
    Native {
        shape: native::Shape,
        nats: String,
        subject: String,
    },
    /// A native gateway.
    #[command(hide = true)]
    Gateway {
        shape: native::Shape,
        nats: String,
        subject: String,
    },
    /// A wasmbay host.
    #[command(hide = true)]
    Serve(serve::Serve),
    /// A native pull consumer.
    #[command(hide = true)]
    Pull {
        shape: native::Shape,
        nats: String,
        stream: String,
        consumer: String,
    },
    /// A native service that publishes.
    #[command(hide = true)]
    Publish {
        shape: native::Shape,
        nats: String,
        subject: String,
        to: String,
    },
    /// A native service that stores how far it is.
    #[command(hide = true)]
    Runs {
        shape: native::Shape,
        nats: String,
        subject: String,
        steps: String,
    },
    /// A native service that publishes twice.
    #[command(hide = true)]
    RunsPublishes {
        shape: native::Shape,
        nats: String,
        subject: String,
    },
    /// A native publisher.
    #[command(hide = true)]
    Publisher {
        nats: String,
        to: String,
        body: String,
    },
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only.as_str()))
    }

    fn concurrencies(&self) -> Vec<usize> {
        or(&self.concurrency, &[1, 16, 128])
    }

    fn payloads(&self) -> Vec<usize> {
        or(&self.payload, &[100, 10 << 10])
    }

    fn events(&self) -> u64 {
        let events = if self.quick { 20_000 } else { 50_000 };
        self.events.unwrap_or(events).max(1)
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 7 }).max(1)
    }

    fn seconds(&self) -> anyhow::Result<Duration> {
        let seconds = self.seconds.unwrap_or(if self.quick { 0.4 } else { 1.0 });
        Ok(Duration::try_from_secs_f64(seconds)?)
    }
}

fn or(given: &[usize], otherwise: &[usize]) -> Vec<usize> {
    match given {
        [] => otherwise.to_vec(),
        given => given.to_vec(),
    }
}

fn main() -> anyhow::Result<()> {
    let mut args = Args::parse();
    if std::env::args().len() == 1 {
        // `cargo test --benches` only asks whether this works.
        args.options.only = vec!["native".to_owned(), "events".to_owned(), "runs".to_owned()];
        args.options.events = Some(1_000);
        args.options.payload = vec![100];
        args.options.rounds = Some(1);
        args.options.seconds = Some(0.05);
    }
    match args.role {
        None => rounds::run(&args.options),
        Some(Role::Native {
            shape,
            nats,
            subject,
        }) => native::service(shape, nats, subject),
        Some(Role::Gateway {
            shape,
            nats,
            subject,
        }) => native::gateway(shape, nats, subject),
        Some(Role::Serve(serve)) => serve::serve(&serve),
        Some(Role::Pull {
            shape,
            nats,
            stream,
            consumer,
        }) => events::native::pull(shape, nats, stream, consumer),
        Some(Role::Publish {
            shape,
            nats,
            subject,
            to,
        }) => events::native::service(shape, nats, subject, to),
        Some(Role::Runs {
            shape,
            nats,
            subject,
            steps,
        }) => runs::native(shape, nats, subject, steps),
        Some(Role::RunsPublishes {
            shape,
            nats,
            subject,
        }) => runs::publishes(shape, nats, subject),
        Some(Role::Publisher { nats, to, body }) => events::native::publisher(nats, to, body),
    }
}

/// Reports to the harness that this contestant can be called.
fn ready(address: Option<SocketAddr>) {
    match address {
        Some(address) => say(format_args!("ready {address}")),
        None => say(format_args!("ready")),
    }
}

/// Prints a line at once, although stdout is no terminal.
fn say(line: fmt::Arguments<'_>) {
    use std::io::Write as _;
    let mut output = std::io::stdout().lock();
    // It fails when the reader is gone.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}
