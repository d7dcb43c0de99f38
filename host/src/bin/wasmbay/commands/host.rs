//! `wasmbay host`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueHint;
use serde_json::json;
use wasmbay::fleet::is_host_name;
use wasmbay::host::{Node, NodeOptions};
use wasmbay::manifest::values::parse_size;
use wasmbay::manifest::{ClientCertificate, TlsSpec, is_label_text};
use wasmbay::runtime::Engine;

use super::ended::{self, Ended};
use super::fleet::{NATS_DATA, data, machine};
use super::kept::Kept;
use super::server::Server;
use super::sign;
use super::signals::Signals;
use super::up::{address, logged, metrics, spans, token};
use crate::args::{Cache, Nats, duration};
use crate::logging::{self, LogFormat};
use crate::report::{Exit, STRONG, Terminal, WEAK, table, time};

/// Run a host of a fleet
///
/// A host runs its part of what `wasmbay deploy` has deployed, and takes over from hosts that die or
/// leave. Ctrl-C or SIGTERM hands over what it runs, then drains. Another signal, a second later,
/// stops at once.
///
/// Without --nats, a nats-server of its own is started, or that of another host of this user on this
/// machine is used.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay host --gateway 127.0.0.1:8080
  wasmbay host --name b --label zone=west --capacity 8GiB --nats nats://nats.example:4222

Exit codes: 0 drained, 1 failed, gave up a call or could not confirm the drain, 2 wrong usage, 78 wrong configuration.")]
pub(crate) struct Host {
    /// The host's name in the fleet; otherwise that of the machine, and some digits
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// A label that services can require; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// The memory that services may reserve on this host together; otherwise it is not counted
    #[arg(long, value_name = "SIZE", value_parser = capacity)]
    capacity: Option<u64>,
    /// Where the gateway of all apps listens; otherwise nowhere
    #[arg(long, value_name = "ADDR", value_parser = address)]
    gateway: Option<SocketAddr>,
    /// The gateway's certificate and those between it and its authority, as PEM; without it there is no TLS.
    /// Files are read again when they have changed
    #[arg(long, value_name = "FILE", requires_all = ["gateway", "gateway_key"], value_hint = ValueHint::FilePath)]
    gateway_certificate: Option<PathBuf>,
    /// The certificate's private key
    #[arg(long, value_name = "FILE", requires = "gateway_certificate", value_hint = ValueHint::FilePath)]
    gateway_key: Option<PathBuf>,
    /// The authorities of clients' certificates
    #[arg(long, value_name = "FILE", requires = "gateway_certificate", value_hint = ValueHint::FilePath)]
    gateway_client_ca: Option<PathBuf>,
    /// Clients need no certificate; one that they show has to be valid
    #[arg(long, requires = "gateway_client_ca")]
    gateway_client_optional: bool,
    /// Where the host's health, metrics and what the fleet runs are served over HTTP, and changed there;
    /// otherwise nowhere. Without a token it asks for no login, and has to be a loopback address
    #[arg(long, value_name = "ADDR", value_parser = address)]
    admin: Option<SocketAddr>,
    /// A file with the token that the admin address asks for; needed unless it is a loopback address
    #[arg(long, value_name = "FILE", env = "WASMBAY_ADMIN_TOKEN_FILE", value_hint = ValueHint::FilePath)]
    admin_token_file: Option<PathBuf>,
    /// How long everything may take after a signal: handing over, calls under way, and what is to be
    /// closed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    grace: Duration,
    /// Threads that serve the calls of each app; otherwise one for each core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Instances of all services together
    #[arg(long, value_name = "N", default_value_t = wasmbay::runtime::DEFAULT_INSTANCES, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    instances: u32,
    /// Servers that keep a copy of what is deployed, in a cluster of nats-server: 1, 3 or 5; otherwise
    /// as many as do already, or 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    state_replicas: Option<u8>,
    /// Where a nats-server of the host's own keeps its data; otherwise below the user's state folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "system")]
    data: Option<PathBuf>,
    /// Run only components that this key has signed, or one of the keys in this file, one on each line; may
    /// be given several times
    #[arg(long, value_name = "KEY|FILE", value_hint = ValueHint::FilePath)]
    trust: Vec<String>,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    nats: Nats,
    /// What to log, as in RUST_LOG: a level, or `target=level` joined by commas
    #[arg(long, value_name = "FILTER", value_parser = logged)]
    log: Option<String>,
    /// How the log is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

pub(super) async fn run(args: Host, terminal: &Terminal, started: Instant) -> anyhow::Result<Exit> {
    let (name, chosen) = (
        args.name.clone().unwrap_or_else(any_name),
        args.log.as_deref(),
    );
    let logged = logging::start_host(terminal, &name, chosen, args.log_format)?;
    let engine = Engine::new(args.cache.engine(args.instances))?;
    let mut signals = Signals::new()?;
    let folder = args.data.clone().unwrap_or_else(data).join(NATS_DATA);
    let server = tokio::select! {
        server = Server::start_or_join(&args.nats, folder) => server?,
        // What was started of it ends with the process.
        () = signals.next() => return Ok(Exit::Failed),
    };
    let kept = Kept::start(logged, server.options());
    let result = serve(
        &args,
        name,
        terminal,
        started,
        (engine, &server),
        &mut signals,
    )
    .await;
    kept.stop().await;
    ended::conclude(result, server, args.grace, terminal).await
}

/// Runs the host until a signal, and drains it; returns the end of the grace time as well.
async fn serve(
    args: &Host,
    name: String,
    terminal: &Terminal,
    started: Instant,
    (engine, server): (Engine, &Server),
    signals: &mut Signals,
) -> anyhow::Result<(Ended, Instant)> {
    let mut options = NodeOptions::new(server.options(), name);
    options.labels = args.labels.iter().cloned().collect();
    options.gateway = args.gateway;
    options.tls = certificates(args);
    options.admin = args.admin;
    options.admin_token = token(args.admin_token_file.as_deref())?;
    options.capacity = args.capacity;
    options.grace = args.grace;
    options.copies = args.state_replicas;
    options.trust = sign::trust(&args.trust)?;
    options.spans = spans(args.admin.is_some())?;
    options.metrics = metrics(&options.name)?;
    if let Some(workers) = args.workers.and_then(|n| NonZeroUsize::new(n.into())) {
        options.workers = workers;
    }
    let labels = options.labels.clone();
    let mut node = tokio::select! {
        node = Node::start(options, engine) => node?,
        () = signals.next() => return Ok((Ended::BeforeServing, Instant::now() + args.grace)),
    };
    announce(&node, &labels, server, started.elapsed(), terminal);
    tokio::select! {
        () = node.run() => {}
        () = signals.next() => {}
    }
    let told = Instant::now();
    terminal.say("handing over and draining; another signal, after a second, stops at once");
    let ended = tokio::select! {
        drained = node.stop(args.grace) => Ended::Stopped(drained),
        () = signals.another(told.into()) => Ended::AtOnce,
    };
    Ok((ended, told + args.grace))
}

/// The files of the gateway's certificates.
fn certificates(args: &Host) -> Option<TlsSpec> {
    let certificate = args.gateway_certificate.clone()?;
    Some(TlsSpec {
        certificate,
        key: args.gateway_key.clone()?,
        client_ca: args.gateway_client_ca.clone(),
        client: match (&args.gateway_client_ca, args.gateway_client_optional) {
            (None, _) => ClientCertificate::None,
            (Some(_), true) => ClientCertificate::Optional,
            (Some(_), false) => ClientCertificate::Required,
        },
    })
}

fn announce(
    node: &Node,
    labels: &BTreeMap<String, String>,
    server: &Server,
    took: Duration,
    terminal: &Terminal,
) {
    let gateway = node.gateway_url();
    let admin = node.admin().map(|address| format!("http://{address}"));
    terminal.event(&json!({
        "event": "ready",
        "host": node.name(),
        "pid": std::process::id(),
        "seconds": took.as_secs_f64(),
        "labels": labels,
        "gateway": gateway,
        "admin": admin,
        "nats": server.url(),
        "natsUrlFile": server.url_file(),
    }));
    let mut rows = Vec::new();
    if !labels.is_empty() {
        let labels = labels.iter().map(|(key, value)| format!("{key}={value}"));
        let labels: Vec<_> = labels.collect();
        rows.push(vec!["labels".to_owned(), labels.join(", ")]);
    }
    rows.extend(gateway.map(|url| vec!["http".to_owned(), url]));
    rows.extend(admin.map(|url| vec!["admin".to_owned(), url]));
    let whose = match server {
        Server::Managed(_) => " (its own)",
        Server::Joined(..) => " (that of another host)",
        Server::Given(_) => "",
    };
    let login = server
        .url_file()
        .map(|file| format!("; login in {}", file.display()));
    let nats = format!("{}{whose}{}", server.url(), login.unwrap_or_default());
    rows.push(vec!["nats".to_owned(), nats]);
    terminal.say(format_args!(
        "{STRONG}host {} is ready{STRONG:#} in {}\n\n{}\n\n{WEAK}`wasmbay deploy` deploys an app; Ctrl-C leaves the fleet{WEAK:#}",
        node.name(),
        time(took),
        table(&rows),
    ));
}

/// A name that no other host is likely to have.
pub(super) fn any_name() -> String {
    let plain = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            c
        } else {
            '-'
        }
    };
    let machine = machine();
    let machine = machine.split('.').next().unwrap_or_default();
    let machine: String = machine.chars().take(40).map(plain).collect();
    format!("{machine}-{:x}", std::process::id())
}

fn name(text: &str) -> Result<String, &'static str> {
    if is_host_name(text) {
        Ok(text.to_owned())
    } else {
        Err("accepted: 1 to 63 of a-z, 0-9 and `-`")
    }
}

fn capacity(text: &str) -> Result<u64, &'static str> {
    parse_size(text)
        .filter(|bytes| *bytes > 0)
        .ok_or("accepted: a size such as 512MiB or 8GiB")
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if is_label_text(key) && is_label_text(value) => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err("accepted: KEY=VALUE, each up to 63 of letters, digits, `-`, `_`, `.` and `/`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_made_up_is_a_name() {
        assert!(is_host_name(&any_name()), "{}", any_name());
    }

    #[test]
    fn a_label_has_a_key_and_a_value() {
        assert_eq!(label("zone=a"), Ok(("zone".to_owned(), "a".to_owned())));
        for text in ["zone", "=a", "zone=", "zo ne=a"] {
            assert!(label(text).is_err(), "{text}");
        }
    }
}
