//! The command line of wasmbay: [`args`] says what can be typed, each module of [`commands`] does
//! one verb, [`report`] says how it ended.

mod args;
mod background;
mod commands;
mod logging;
mod nats;
mod progress;
mod project;
mod registries;
mod report;
mod running;
mod watch;

use std::process::ExitCode;
use std::time::Instant;

use report::{Exit, Terminal};

/// A call allocates some twenty small values and frees them again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let started = Instant::now();
    let args = args::parse();
    let terminal = Terminal::new(&args.common);
    let exit = run(args, &terminal, started).unwrap_or_else(|error| report::error(&error));
    report::flush();
    exit.into()
}

/// The services run on threads of their own, so one thread is enough for what is between them.
fn run(args: args::Args, terminal: &Terminal, started: Instant) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let exit = runtime.block_on(commands::run(args, terminal, started));
    // A build or a file that is still being read is no reason to stay.
    runtime.shutdown_background();
    exit
}
