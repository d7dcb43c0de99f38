//! The log, on stderr: what the host says of itself and what its guests print.

use std::io::{self, Write as _};

use anyhow::Context as _;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use wasmbay::logs::{self, Export, Records};

use crate::background;
use crate::report::{Terminal, misconfigured};

/// What is logged by default; guests log under the target `guest`.
const RUNNING: &str = "warn,wasmbay=info,guest=info";
const RUNNING_VERBOSE: &str = "info,wasmbay=debug,guest=debug";
const RUNNING_QUIET: &str = "error,wasmbay=warn,guest=warn";
/// Verbs that print a result log only what is wrong. What is refused to them is their error, and a call that fails
/// in a test may be meant to.
const ASKING: &str =
    "error,wasmbay=warn,wasmbay::nats::violations=off,wasmbay::runtime::service=off";

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
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter(None, default)?)
        .with_writer(io::stderr)
        // It would print them on stderr, and panic if that fails.
        .log_internal_errors(false)
        .with_ansi(has_colour())
        .try_init();
    started.map_err(|error| anyhow::anyhow!(error))
}

/// What a host logs, on its way to where it is kept.
pub(crate) struct Logged {
    pub(crate) records: Records,
    pub(crate) export: Option<Export>,
}

/// For a host of this name that runs: from now on, what is printed waits for no reader. Returns the records,
/// to be kept.
pub(crate) fn start_host(
    terminal: &Terminal,
    host: &str,
    chosen: Option<&str>,
    format: LogFormat,
) -> anyhow::Result<Logged> {
    let default = match terminal {
        Terminal { quiet: true, .. } => RUNNING_QUIET,
        Terminal { verbose: true, .. } => RUNNING_VERBOSE,
        _ => RUNNING,
    };
    let filter = filter(chosen, default)?;
    background::start(terminal.json()).context("the output streams")?;
    let (capture, records) = logs::capture(host);
    let exporting = capture.exporting();
    let (capture, export) = exporting.map_err(|error| misconfigured(error.to_string()))?;
    let (capture, text) = match format {
        LogFormat::Json => (capture.printing(print), None),
        LogFormat::Text => {
            let text = tracing_subscriber::fmt::layer()
                .with_writer(Log)
                .log_internal_errors(false)
                .with_ansi(has_colour());
            (capture, Some(text))
        }
    };
    let subscriber = tracing_subscriber::registry()
        .with(filter)
        .with(text)
        .with(capture);
    subscriber.try_init()?;
    Ok(Logged { records, export })
}

/// Prints a line of JSON on stderr.
fn print(line: &str) {
    // A log that cannot be written has nowhere to say so.
    let _ = Log.make_writer().write_all(format!("{line}\n").as_bytes());
}

fn has_colour() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
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
