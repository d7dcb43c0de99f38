//! The command line: its verbs, whose own arguments stand beside what they do in
//! [`commands`](crate::commands), and the options that several verbs share.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};
use wasmbay::manifest::values::parse_duration;

use crate::commands::{
    build, call, check, completions, deploy, diff, dlq, doctor, drain, emit, history, host, hosts,
    inspect, jobs, logs, man, new, openapi, proto, ps, pull, push, record, replay, rollback, runs,
    scale, sign, test, top, trace, uncordon, undeploy, up, update,
};

/// Columns of the help, at most.
const WIDTH: usize = 100;

/// Runs microservices that are WebAssembly components, wired by their WIT interfaces over NATS.
#[derive(Parser)]
#[command(
    name = "wasmbay",
    version,
    max_term_width = WIDTH,
    after_help = "\
Examples:
  wasmbay new --lang rust hello      write a service that builds and runs as it is
  wasmbay up hello                   build and run it, and swap in what changes
  wasmbay call greetings.greet '{\"who\":\"you\"}'
  wasmbay test hello                 run its tests
  wasmbay doctor                     see which tools are there

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration."
)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// What every verb understands.
#[derive(clap::Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub(crate) color: ColorChoice,
    /// How results are printed
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Print results and errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print what the compilers print, too, and log more
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    Up(up::Up),
    Host(host::Host),
    Deploy(deploy::Deploy),
    Diff(diff::Diff),
    Ps(ps::Ps),
    Hosts(hosts::Hosts),
    Drain(drain::Drain),
    Uncordon(uncordon::Uncordon),
    Scale(scale::Scale),
    History(history::History),
    Rollback(rollback::Rollback),
    Undeploy(undeploy::Undeploy),
    Build(build::Build),
    Check(check::Check),
    Test(test::Test),
    Record(record::Record),
    Replay(replay::Replay),
    Inspect(inspect::Inspect),
    Push(push::Push),
    Pull(pull::Pull),
    Update(update::UpdateArgs),
    Openapi(openapi::OpenApi),
    Proto(proto::Proto),
    Call(call::Call),
    Emit(emit::Emit),
    Dlq(dlq::Dlq),
    Logs(logs::Logs),
    Runs(runs::Runs),
    Jobs(jobs::Jobs),
    Top(top::Top),
    Trace(trace::Trace),
    New(new::New),
    Doctor(doctor::Doctor),
    Sign(sign::Sign),
    Completions(completions::Completions),
    Man(man::Man),
}

/// Where compiled code is kept, and what was fetched from registries.
#[derive(clap::Args)]
pub(crate) struct Cache {
    /// Where compiled code is kept, and components of registries; otherwise in the user's cache folder
    #[arg(long = "cache", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) folder: Option<PathBuf>,
}

/// A NATS system that exists.
#[derive(clap::Args)]
#[command(
    next_help_heading = "NATS",
    group = clap::ArgGroup::new("system").args(["nats", "context"]).multiple(true)
)]
pub(crate) struct Nats {
    /// Servers of one NATS system, joined by commas
    #[arg(
        long = "nats",
        id = "nats",
        env = "NATS_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub(crate) url: Option<String>,
    /// A context of the `nats` command line, `.` for the selected one: servers, login and what else
    /// it says. Other options take its place
    #[arg(long = "nats-context", env = "NATS_CONTEXT", value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// A credentials file; otherwise the one that NATS_CREDS names
    #[arg(long = "nats-creds", value_name = "FILE", requires = "system", value_hint = ValueHint::FilePath)]
    pub(crate) creds: Option<PathBuf>,
    /// A file with the seed of an nkey
    #[arg(long = "nats-nkey", value_name = "FILE", requires = "system", value_hint = ValueHint::FilePath)]
    pub(crate) nkey: Option<PathBuf>,
    /// Certificates to trust instead of the system's
    #[arg(long = "nats-ca", value_name = "FILE", requires = "system", value_hint = ValueHint::FilePath)]
    pub(crate) ca: Option<PathBuf>,
    /// A client certificate
    #[arg(long = "nats-cert", value_name = "FILE", requires_all = ["system", "key"], value_hint = ValueHint::FilePath)]
    pub(crate) cert: Option<PathBuf>,
    /// The first tokens of reply subjects, otherwise _INBOX; the login must be allowed to subscribe
    /// below it
    #[arg(long = "nats-inbox-prefix", value_name = "PREFIX", requires = "system", value_parser = inbox_prefix)]
    pub(crate) inbox_prefix: Option<String>,
    /// Begin TLS before the server says anything, as one with handshake_first wants it
    #[arg(long = "nats-tls-first", requires = "system")]
    pub(crate) tls_first: bool,
    /// The JetStream domain, where hub and leaf nodes have their own
    #[arg(long = "js-domain", value_name = "DOMAIN", requires = "system", value_parser = domain)]
    pub(crate) js_domain: Option<String>,
    /// The key to the client certificate
    #[arg(long = "nats-key", value_name = "FILE", requires_all = ["system", "cert"], value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
}

/// One or more tokens of a subject, without wildcards.
pub(crate) fn inbox_prefix(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_token = |token: &str| !token.is_empty() && token.chars().all(plain);
    if !text.split('.').all(is_token) {
        return Err("a prefix is tokens of letters, digits, `-` and `_`, joined by dots");
    }
    Ok(text.to_owned())
}

/// A JetStream domain: one token of a subject.
pub(crate) fn domain(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.is_empty() || !text.chars().all(plain) {
        return Err("a domain has letters, digits, `-` and `_`");
    }
    Ok(text.to_owned())
}

/// How a verb that changes a fleet ends.
#[derive(clap::Args)]
pub(crate) struct Waiting {
    /// Do not wait until the change has arrived on all hosts
    #[arg(long)]
    pub(crate) detach: bool,
    /// How long to wait for that
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = duration, conflicts_with = "detach")]
    pub(crate) timeout: Duration,
    /// Why the change is made, for the history
    #[arg(short, long, value_name = "TEXT", value_parser = message)]
    pub(crate) message: Option<String>,
}

/// Characters of a message.
const MAX_MESSAGE: usize = 500;

fn message(text: &str) -> Result<String, String> {
    if (1..=MAX_MESSAGE).contains(&text.chars().count()) {
        Ok(text.to_owned())
    } else {
        Err(format!("accepted: 1 to {MAX_MESSAGE} characters"))
    }
}

/// A function, and the arguments that are sent to it.
#[derive(clap::Args)]
pub(crate) struct Outgoing {
    /// The function, with its interface
    #[arg(value_name = "INTERFACE.FUNCTION")]
    pub(crate) function: String,
    /// The arguments: an object by parameter, or an array; @FILE reads a file, - reads stdin
    #[arg(value_name = "JSON|@FILE|-")]
    pub(crate) arguments: Option<String>,
    /// How long to wait for the result, or until an event is stored
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) app: WhichApp,
}

/// Which app is meant.
#[derive(clap::Args)]
pub(crate) struct WhichApp {
    /// The app, where several run on one NATS system
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Option<String>,
    #[command(flatten)]
    pub(crate) nats: Nats,
}

/// Reads the command line, or prints help, version or what is wrong with it, and ends.
pub(crate) fn parse() -> Args {
    // clap colours its own errors and help before anything is parsed.
    let command = Args::command().color(color_in(std::env::args_os()));
    let matches = command.get_matches();
    Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// What `--color` says, as far as it can be known before parsing.
fn color_in(args: impl Iterator<Item = OsString>) -> ColorChoice {
    let mut follows = false;
    for arg in args {
        let text = arg.to_string_lossy();
        let value = if follows {
            Some(&*text)
        } else {
            text.strip_prefix("--color=")
        };
        if let Some(choice) = value.and_then(|value| value.parse().ok()) {
            return choice;
        }
        follows = text == "--color";
    }
    ColorChoice::Auto
}

/// Reads a time.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "accepted: a time such as 250ms, 10s or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn colour_is_known_before_parsing() {
        let color = |args: &[&str]| color_in(args.iter().map(OsString::from));
        assert_eq!(
            color(&["wasmbay", "--color", "never", "up"]),
            ColorChoice::Never
        );
        assert_eq!(
            color(&["wasmbay", "up", "--color=always"]),
            ColorChoice::Always
        );
        assert_eq!(color(&["wasmbay", "--color"]), ColorChoice::Auto);
        assert_eq!(color(&["wasmbay", "--color=green"]), ColorChoice::Auto);
    }
}
