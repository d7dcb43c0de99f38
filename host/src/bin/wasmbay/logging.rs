//! The log, on stderr: what the host says of itself and what its guests print.

use std::io;

use anyhow::Context as _;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::background;
use crate::report::{Terminal, misconfigured};

/// What is logged by default; guests log under the target `guest`.
const RUNNING: &str = "warn,wasmbay=info,guest=info";
const RUNNING_VERBOSE: &str = "info,wasmbay=debug,guest=debug";
const RUNNING_QUIET: &str = "error,wasmbay=warn,guest=warn";
/// Verbs that print a result log only what is wrong. What is refused to them is their error.
const ASKING: &str = "error,wasmbay=warn,wasmbay::nats::violations=off";

/// How the log is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// For a verb that prints a result and ends.
pub(crate) fn start(terminal: &Terminal) -> anyhow::Result<()> {
    let default = if terminal.verbose {
        RUNNING_VERBOSE
    } else {
        ASKING
    };
    init(filter(None, default)?, LogFormat::Text, io::stderr)
}

/// For a host that runs: from now on, what is printed waits for no reader.
pub(crate) fn start_host(
    terminal: &Terminal,
    chosen: Option<&str>,
    format: LogFormat,
) -> anyhow::Result<()> {
    let default = match terminal {
        Terminal { quiet: true, .. } => RUNNING_QUIET,
        Terminal { verbose: true, .. } => RUNNING_VERBOSE,
        _ => RUNNING,
    };
    let filter = filter(chosen, default)?;
    background::start(terminal.json()).context("the output streams")?;
    init(filter, format, Log)
}

/// The option, else `RUST_LOG`, else the default.
fn filter(chosen: Option<&str>, default: &str) -> anyhow::Result<EnvFilter> {
    if let Some(chosen) = chosen {
        return EnvFilter::try_new(chosen).context("--log");
    }
    match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            misconfigured(format!(
                "RUST_LOG={text}: {error}; accepted: a level, or `target=level` joined by commas"
            ))
        }),
        _ => EnvFilter::try_new(default).context("the log's filter"),
    }
}

/// The log of a host.
struct Log;

impl<'a> MakeWriter<'a> for Log {
    type Writer = Box<dyn io::Write + 'a>;

    fn make_writer(&'a self) -> Self::Writer {
        match background::streams() {
            Some(streams) => Box::new(&streams.stderr),
            None => Box::new(io::stderr()),
        }
    }
}

fn init<W>(filter: EnvFilter, format: LogFormat, writer: W) -> anyhow::Result<()>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let choice = anstream::AutoStream::choice(&io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // It would print them on stderr, and panic if that fails.
        .log_internal_errors(false)
        .with_ansi(choice != anstream::ColorChoice::Never);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!(error))
}
