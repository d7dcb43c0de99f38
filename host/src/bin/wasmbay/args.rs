//! What can be typed: verbs, options, their defaults and their help.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};
use wasmbay::build::Language;
use wasmbay::events::dead_letters::Pace;
use wasmbay::manifest::values::parse_duration;

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

/// How the log is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    Up(Up),
    Build(Build),
    Check(Check),
    Inspect(Inspect),
    Call(Call),
    Emit(Emit),
    Dlq(Dlq),
    New(New),
    Doctor(Doctor),
    Completions(Completions),
}

/// Run an app
///
/// Builds what is given as a folder, checks that the services fit together, starts them with their
/// gateway, and swaps in what changes until it is told to stop. Ctrl-C or SIGTERM drains: nothing
/// new is taken and what runs is finished. A second signal stops at once.
///
/// Without --nats, a nats-server of the app's own is started, with its data in .wasmbay/ beside
/// the manifest.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay up                         run the app of this folder
  wasmbay up examples/shop --listen 127.0.0.1:0
  wasmbay up --nats nats://nats.example:4222 --nats-creds host.creds --no-watch

Exit codes: 0 drained, 1 failed or gave up a call, 2 wrong usage, 78 wrong configuration.")]
pub(crate) struct Up {
    /// The app's manifest, or its folder
    #[arg(default_value = "wasmbay.toml", value_hint = ValueHint::FilePath)]
    pub(crate) manifest: PathBuf,
    /// Where the gateway listens; otherwise where the manifest says, or 127.0.0.1:8080
    #[arg(long, value_name = "ADDR", conflicts_with = "no_gateway", value_parser = address)]
    pub(crate) listen: Option<SocketAddr>,
    /// Run without a gateway, and without the admin address that the manifest gives it
    #[arg(long)]
    pub(crate) no_gateway: bool,
    /// Where dead letters are served as JSON over HTTP; otherwise where the manifest says, or
    /// nowhere. Nobody is asked who they are there, so keep it on a loopback address
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) admin: Option<SocketAddr>,
    /// Do not rebuild and swap in what changes
    #[arg(long)]
    pub(crate) no_watch: bool,
    /// How long calls that are under way may take after a signal
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) grace: Duration,
    /// Threads that serve calls; otherwise one for each core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// Instances of all services together
    #[arg(long, value_name = "N", default_value_t = wasmbay::runtime::DEFAULT_INSTANCES, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) instances: u32,
    #[command(flatten)]
    pub(crate) cache: Cache,
    #[command(flatten)]
    pub(crate) nats: Nats,
    /// What to log, as in RUST_LOG: a level, or `target=level` joined by commas
    #[arg(long, value_name = "FILTER", value_parser = logged)]
    pub(crate) log: Option<String>,
    /// How the log is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// Where compiled code is kept.
#[derive(clap::Args)]
pub(crate) struct Cache {
    /// Where compiled code is kept; otherwise in the user's cache folder
    #[arg(long = "cache", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) folder: Option<PathBuf>,
}

/// A NATS system that exists.
#[derive(clap::Args)]
#[command(next_help_heading = "NATS")]
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
    /// A credentials file
    #[arg(long = "nats-creds", value_name = "FILE", requires = "nats", value_hint = ValueHint::FilePath)]
    pub(crate) creds: Option<PathBuf>,
    /// A file with the seed of an nkey
    #[arg(long = "nats-nkey", value_name = "FILE", requires = "nats", value_hint = ValueHint::FilePath)]
    pub(crate) nkey: Option<PathBuf>,
    /// Certificates to trust instead of the system's
    #[arg(long = "nats-ca", value_name = "FILE", requires = "nats", value_hint = ValueHint::FilePath)]
    pub(crate) ca: Option<PathBuf>,
    /// A client certificate
    #[arg(long = "nats-cert", value_name = "FILE", requires_all = ["nats", "key"], value_hint = ValueHint::FilePath)]
    pub(crate) cert: Option<PathBuf>,
    /// The JetStream domain, where hub and leaf nodes have their own
    #[arg(long = "js-domain", value_name = "DOMAIN", requires = "nats", value_parser = domain)]
    pub(crate) js_domain: Option<String>,
    /// The key to the client certificate
    #[arg(long = "nats-key", value_name = "FILE", requires_all = ["nats", "cert"], value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,
}

/// A JetStream domain: one token of a subject.
fn domain(text: &str) -> Result<String, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.is_empty() || !text.chars().all(plain) {
        return Err("a domain has letters, digits, `-` and `_`");
    }
    Ok(text.to_owned())
}

/// Build guests
///
/// Builds folders of guests, or all that a manifest names. Nothing is built that has not changed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay build                      build every folder of this folder's app
  wasmbay build guests/go/payment guests/c/notifications
  wasmbay build --output json examples/shop")]
pub(crate) struct Build {
    /// Guests' folders, manifests, or folders with a manifest
    #[arg(value_name = "PATH", default_value = "wasmbay.toml", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
}

/// Find what is wrong with an app, without running it
///
/// Checks the manifest, the tools, that everything builds, that every component can be loaded, and
/// that the services fit together. Prints everything that is wrong.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay check
  wasmbay check --no-build examples/shop/wasmbay.toml
  wasmbay check --output json | jq '.problems[].message'

Exit codes: 0 nothing is wrong, 78 something is.")]
pub(crate) struct Check {
    /// The app's manifest, or its folder
    #[arg(default_value = "wasmbay.toml", value_hint = ValueHint::FilePath)]
    pub(crate) manifest: PathBuf,
    /// Check what is built already
    #[arg(long)]
    pub(crate) no_build: bool,
    #[command(flatten)]
    pub(crate) cache: Cache,
}

/// Show what a component offers and needs
///
/// Prints the component's world as WIT, its functions, what it expects of the host, its size,
/// digest and memory, and what made it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay inspect payment.wasm
  wasmbay inspect guests/go/payment  a guest's folder, built first
  wasmbay inspect payment            a service of this folder's app
  wasmbay inspect payment --output json | jq -r .digest")]
pub(crate) struct Inspect {
    /// A component's file, a guest's folder, or a service of the manifest
    #[arg(value_name = "FILE|FOLDER|SERVICE", value_hint = ValueHint::AnyPath)]
    pub(crate) target: PathBuf,
    /// The manifest that has the service
    #[arg(long, value_name = "FILE", default_value = "wasmbay.toml", value_hint = ValueHint::FilePath)]
    pub(crate) manifest: PathBuf,
    #[command(flatten)]
    pub(crate) cache: Cache,
}

/// Call a function
///
/// Finds out over NATS where the function is and what it takes, checks the arguments before
/// anything is sent, and prints the result as JSON.
///
/// The interface may be shortened as long as only one function is meant: `orders.place` for
/// `shop:orders/orders.place@1.0.0`. Without --nats, the app of this folder, or of one above it,
/// has to run.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay call greetings.greet '{\"who\":\"you\"}'
  wasmbay call shop:orders/orders.place @order.json
  echo '[\"mouse\"]' | wasmbay call stock.on-hand -
  wasmbay call stock.on-hand '{\"sku\":\"mouse\"}' --nats nats://127.0.0.1:4222 --app shop

Exit codes: 0 a result, 1 an error or an `err` value, 2 wrong usage. With --output json an `err`
value is a result, and an error is printed as {\"error\":{\"code\":…,\"message\":…,\"blame\":…}}.")]
pub(crate) struct Call {
    /// The function
    #[arg(value_name = "INTERFACE.FUNCTION")]
    pub(crate) function: String,
    /// The arguments: an object by parameter, or an array; @FILE reads a file, - reads stdin
    #[arg(value_name = "JSON|@FILE|-")]
    pub(crate) arguments: Option<String>,
    /// How long to wait for the result
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Which app is meant.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// The app, where several run on one NATS system
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Option<String>,
    #[command(flatten)]
    pub(crate) nats: Nats,
}

/// Publish an event
///
/// Finds out over NATS what the event carries, checks the arguments before anything is sent, and
/// publishes it where its subscribers hear it. An event of a durable wire is stored when this ends
/// well, also while none of its subscribers runs; any other reaches those that listen.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay emit events.order-paid '{\"orderId\":\"o-17\"}'
  wasmbay emit shop:orders/events.order-paid @order.json
  wasmbay emit events.order-paid '[\"o-17\"]' --nats nats://127.0.0.1:4222 --app shop

Exit codes: 0 published, 1 not known to be, 2 wrong usage.")]
pub(crate) struct Emit {
    /// The event: a function of an interface that is wired as events
    #[arg(value_name = "INTERFACE.FUNCTION")]
    pub(crate) function: String,
    /// The arguments: an object by parameter, or an array; @FILE reads a file, - reads stdin
    #[arg(value_name = "JSON|@FILE|-")]
    pub(crate) arguments: Option<String>,
    /// How long to wait until it is stored
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Look at dead letters, mend and replay them
///
/// A dead letter is an event that a subscriber could not handle. It is kept until it is handled
/// after a replay, or purged.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay dlq ls --service notifications
  wasmbay dlq show 6f0c1b9d2e8a4735
  wasmbay dlq edit 6f0c1b9d2e8a4735 @mended.json
  wasmbay dlq replay --service notifications --rate 10/s
  wasmbay dlq purge --function events.order-paid")]
pub(crate) struct Dlq {
    #[command(subcommand)]
    pub(crate) verb: DlqVerb,
}

#[derive(Subcommand)]
pub(crate) enum DlqVerb {
    /// List dead letters, those that failed longest ago first
    Ls(DlqLs),
    /// Show one with its attempts and its body
    Show(DlqShow),
    /// Deliver letters again, each to the subscriber that failed
    ///
    /// A letter goes as soon as its event is handled. If it fails again, it stays, with a longer
    /// history.
    Replay(DlqReplay),
    /// Give a letter another body, which is checked against the event's type
    ///
    /// Without a body, the one that it has is opened in $VISUAL or $EDITOR. Replaying it is a step
    /// of its own.
    Edit(DlqEdit),
    /// Drop letters for good
    Purge(DlqPurge),
}

/// Which letters are listed.
#[derive(clap::Args)]
pub(crate) struct DlqLs {
    #[command(flatten)]
    pub(crate) filter: LetterFilter,
    /// List no more than these
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Which letters are meant.
#[derive(clap::Args)]
pub(crate) struct LetterFilter {
    /// Those of this subscriber
    #[arg(long, value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// Those of this event
    #[arg(long, value_name = "INTERFACE.FUNCTION")]
    pub(crate) function: Option<String>,
}

/// Which letters something is done with: it has to be said.
#[derive(clap::Args)]
#[group(id = "meant", required = true, multiple = true)]
pub(crate) struct Meant {
    /// The letters' ids
    #[arg(value_name = "ID", conflicts_with_all = ["all", "service", "function"])]
    pub(crate) ids: Vec<String>,
    /// All letters of the app
    #[arg(long, conflicts_with_all = ["service", "function"])]
    pub(crate) all: bool,
    /// Those of this subscriber
    #[arg(long, value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// Those of this event
    #[arg(long, value_name = "INTERFACE.FUNCTION")]
    pub(crate) function: Option<String>,
}

#[derive(clap::Args)]
pub(crate) struct DlqShow {
    /// The letter's id
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(clap::Args)]
pub(crate) struct DlqReplay {
    #[command(flatten)]
    pub(crate) meant: Meant,
    /// Replay no more than these in a second
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub(crate) rate: Option<u32>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(clap::Args)]
pub(crate) struct DlqEdit {
    /// The letter's id
    pub(crate) id: String,
    /// The body: an object by parameter, or an array; @FILE reads a file, - reads stdin
    #[arg(value_name = "JSON|@FILE|-")]
    pub(crate) body: Option<String>,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(clap::Args)]
pub(crate) struct DlqPurge {
    #[command(flatten)]
    pub(crate) meant: Meant,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Write a new service
///
/// The service greets, builds and runs as it is. In the folder of an app it is added to the app,
/// anywhere else it gets an app of its own.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay new --lang rust hello
  wasmbay new --lang python forecast --path examples/shop")]
pub(crate) struct New {
    /// The service's name: words of lowercase letters and digits joined by `-`
    pub(crate) name: String,
    /// The language: rust, go, typescript, javascript, python or c
    #[arg(long, value_name = "LANG", value_parser = language())]
    pub(crate) lang: Language,
    /// The folder to write to
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) path: PathBuf,
}

/// See which tools are there, and how to get those that are missing
///
/// In the folder of an app, its own languages are what is needed; anywhere else, every tool is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay doctor
  wasmbay doctor examples/shop
  wasmbay doctor --output json | jq -r '.tools[] | select(.path == null) | .install'

Exit codes: 0 everything needed is there, 1 something is missing.")]
pub(crate) struct Doctor {
    /// The app's manifest, or its folder; otherwise wasmbay.toml where there is one
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) manifest: Option<PathBuf>,
}

/// Print a shell's completions
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay completions bash > ~/.local/share/bash-completion/completions/wasmbay
  wasmbay completions zsh > ~/.zfunc/_wasmbay
  wasmbay completions fish > ~/.config/fish/completions/wasmbay.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
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
        let value = match follows {
            true => Some(&*text),
            false => text.strip_prefix("--color="),
        };
        if let Some(choice) = value.and_then(|value| value.parse().ok()) {
            return choice;
        }
        follows = text == "--color";
    }
    ColorChoice::Auto
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "accepted: a time such as 250ms, 10s or 2m".to_owned())
}

fn rate(text: &str) -> Result<u32, String> {
    Pace::rate(text).map_err(|error| error.to_string())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "accepted: an address such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

fn logged(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned())
}

fn language() -> impl clap::builder::TypedValueParser<Value = Language> {
    use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
    let value = |name: &'static str, aliases: &'static [&'static str]| {
        PossibleValue::new(name).aliases(aliases)
    };
    let values = [
        value("rust", &["rs"]),
        value("go", &["golang"]),
        value("typescript", &["ts"]),
        value("javascript", &["js"]),
        value("python", &["py"]),
        value("c", &["c++", "cpp"]),
    ];
    PossibleValuesParser::new(values).try_map(|text| text.parse::<Language>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_language_can_be_named() {
        for language in Language::ALL {
            let args = ["wasmbay", "new", "--lang", &language.to_string(), "x"];
            let Some(Verb::New(new)) = Args::parse_from(args).verb else {
                panic!("{language}")
            };
            assert_eq!(new.lang, language);
        }
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
