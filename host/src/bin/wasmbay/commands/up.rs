//! `wasmbay up`.

mod changes;
mod revisions;
mod summary;

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueHint;
use wasmbay::fleet::host_id;
use wasmbay::host::{self, AdminToken, Drained, Host, HostOptions, MetricsExport, Node};
use wasmbay::manifest::{App, Digest};
use wasmbay::runtime::Component;
use wasmbay::runtime::Engine;
use wasmbay::spans::Spans;

use crate::args::{Cache, Nats, duration};
use crate::logging::{self, LogFormat};
use crate::progress::Progress;
use crate::project::{Project, Workbench};
use crate::registries::{Pulling, Pulls};
use crate::report::{Exit, Terminal, misconfigured};
use crate::running::{Announced, Running, Verbs};
use crate::watch::Watch;
use changes::{Changes, Way};
use revisions::Revisions;
use summary::Summary;

use super::ended::{self, Ended};
use super::fleet::machine;
use super::host::any_name;
use super::kept::Kept;
use super::server::Server;
use super::signals::Signals;

/// Where the gateway listens by default.
const LISTEN: &str = "127.0.0.1:8080";

/// The app's own folder for what it keeps, and NATS in it.
const NATS_DATA: &str = ".wasmbay/nats";

/// Run an app
///
/// Builds what is given as a folder, checks that the services fit together, starts them with their
/// gateway, and swaps in what changes until it is told to stop. Ctrl-C or SIGTERM drains: nothing
/// new is taken and what runs is finished. Another signal, a second later, stops at once.
///
/// Without --nats, a nats-server of the app's own is started, with its data in .wasmbay/ beside
/// the manifest.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay up                         run the app of this folder
  wasmbay up examples/shop --listen 127.0.0.1:0
  wasmbay up --nats nats://nats.example:4222 --nats-creds host.creds --no-watch

Exit codes: 0 drained, 1 failed, gave up a call or could not confirm the drain, 2 wrong usage, 78 wrong configuration.")]
pub(crate) struct Up {
    /// The app's manifest, or its folder
    #[arg(default_value = "wasmbay.toml", value_hint = ValueHint::FilePath)]
    manifest: PathBuf,
    /// Where the gateway listens; otherwise where the manifest says, or 127.0.0.1:8080
    #[arg(long, value_name = "ADDR", conflicts_with = "no_gateway", value_parser = address)]
    listen: Option<SocketAddr>,
    /// Run without a gateway, and without the admin address that the manifest gives it
    #[arg(long)]
    no_gateway: bool,
    /// Where a page shows what is going on, and the same is served as JSON; otherwise where the
    /// manifest says, or nowhere
    #[arg(long, value_name = "ADDR", value_parser = address)]
    admin: Option<SocketAddr>,
    /// A file with the token that the admin address asks for; needed unless it is a loopback address
    #[arg(long, value_name = "FILE", env = "WASMBAY_ADMIN_TOKEN_FILE", value_hint = ValueHint::FilePath)]
    admin_token_file: Option<PathBuf>,
    /// Do not rebuild and swap in what changes
    #[arg(long)]
    no_watch: bool,
    /// How long everything may take after a signal: calls under way, and what is to be closed. Two
    /// seconds later the process has ended
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    grace: Duration,
    /// Threads that serve calls; otherwise one for each core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Instances of all services together
    #[arg(long, value_name = "N", default_value_t = wasmbay::runtime::DEFAULT_INSTANCES, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    instances: u32,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    pulling: Pulling,
    #[command(flatten)]
    nats: Nats,
    /// What to log, as in RUST_LOG: a level, or `target=level` joined by commas
    #[arg(long, value_name = "FILTER", value_parser = logged)]
    log: Option<String>,
    /// How the log is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

pub(super) async fn run(args: Up, terminal: &Terminal, started: Instant) -> anyhow::Result<Exit> {
    let (host, chosen) = (machine(), args.log.as_deref());
    let logged = logging::start_host(terminal, &host, chosen, args.log_format)?;
    let progress = Progress::new(*terminal);
    let pulls = args.pulling.with(&args.cache, &progress);
    let project = Project::load(&args.manifest, &pulls).await?;
    logged.records.set_app(&project.app.name);
    let addresses = Addresses {
        gateway: listen(&args, &project.app)?,
        admin: admin(&args, &project.app)?,
    };
    if let Some(crowded) = super::check::crowded(&project.app, args.instances) {
        terminal.note(format_args!("warning: {crowded}"));
    }
    let engine = Engine::new(args.cache.engine(args.instances))?;
    // Before the first build, so that no change falls between it and watching.
    let watch = watch(&args, &project);
    let mut bench = Workbench::new(project, engine.clone());
    // Until here and through the builds, a signal ends the process as it does any other.
    bench.prepare(&progress).await?;
    host::check(&bench.project.app, &bench.components)?;

    let mut signals = Signals::new()?;
    let server = tokio::select! {
        server = Server::start(&args.nats, bench.project.root.join(NATS_DATA)) => server?,
        // What was started of it ends with the process.
        () = signals.next() => return Ok(Exit::Failed),
    };
    let kept = Kept::start(logged, server.options());
    let result = serve(
        &args,
        terminal,
        started,
        Parts {
            bench,
            watch,
            engine,
            addresses,
            pulls,
            server: &server,
        },
        &mut signals,
    )
    .await;
    kept.stop().await;
    ended::conclude(result, server, args.grace, terminal).await
}

/// What a host is started from.
struct Parts<'a> {
    bench: Workbench,
    watch: Option<Watch>,
    engine: Engine,
    addresses: Addresses,
    pulls: Pulls,
    server: &'a Server,
}

/// Where a host listens.
#[derive(Clone, Copy)]
struct Addresses {
    gateway: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// Starts the host, runs it until a signal, and drains it; returns the end of the grace time as well.
async fn serve(
    args: &Up,
    terminal: &Terminal,
    started: Instant,
    parts: Parts<'_>,
    signals: &mut Signals,
) -> anyhow::Result<(Ended, Instant)> {
    let Parts {
        bench,
        watch,
        engine,
        addresses,
        pulls,
        server,
    } = parts;
    let name = any_name();
    let mut options = options(args, addresses, server)?;
    // As a host of a fleet is called, since it is one.
    options.files = Some(bench.project.root.clone());
    options.id = Some(host_id(&name, &bench.project.app.name));
    // On a NATS system of its own it joins, and what runs began with is in the store.
    options.in_fleet = matches!(server, Server::Managed(_));
    let starting = async {
        let host = Host::start(&bench.project.app, engine.clone(), options.clone()).await?;
        let specification = host::specify(&bench.project.app, &bench.components)?;
        host.apply(&specification, &bench.components).await?;
        anyhow::Ok(host)
    };
    let host = tokio::select! {
        host = starting => host?,
        () = signals.next() => return Ok((Ended::BeforeServing, Instant::now() + args.grace)),
    };
    let mut announced = announce(&bench.project, &host, server);
    let summary = Summary {
        bench: &bench,
        host: &host,
        server,
        time: started.elapsed(),
    };
    terminal.event(&summary.json());
    terminal.say(summary.text(watch.is_some()));
    if let Some(first) = announced.as_ref().and_then(|announced| announced.first) {
        terminal.note(format_args!(
            "process {first} runs this folder's app, too: `wasmbay call`, `emit` and `dlq` reach that \
             one while it runs, and this one by `--nats {}`",
            server.url()
        ));
    }

    // Where it listens, also when it is started anew.
    options.gateway = host.gateway();
    options.admin = host.admin();
    let mut parts = Serving {
        host: Some(host),
        node: None,
    };
    let joining = Joining {
        name,
        options,
        engine,
        server,
    };
    let changes = Changes::new(bench, *terminal, watch, pulls);
    tokio::select! {
        () = parts.follow(joining, announced.as_mut(), changes) => {}
        () = signals.next() => {}
    }
    let told = Instant::now();
    terminal.say("draining; another signal, after a second, stops at once");
    let ended = tokio::select! {
        drained = parts.stop(args.grace) => Ended::Stopped(drained),
        () = signals.another(told.into()) => Ended::AtOnce,
    };
    Ok((ended, told + args.grace))
}

/// An app whose sources cannot be watched runs all the same.
fn watch(args: &Up, project: &Project) -> Option<Watch> {
    if args.no_watch {
        return None;
    }
    match Watch::new() {
        Ok(mut watch) => {
            watch.follow(project);
            Some(watch)
        }
        Err(error) => {
            tracing::error!(%error, "changes cannot be watched");
            None
        }
    }
}

/// A host whose app runs, and the node of its fleet that has it from then on.
struct Serving {
    host: Option<Host>,
    node: Option<Node>,
}

/// What a host becomes a fleet of one with.
struct Joining<'a> {
    name: String,
    options: HostOptions,
    engine: Engine,
    server: &'a Server,
}

impl Serving {
    /// Becomes a fleet of one host where the NATS system is its own, and follows changes for as long as it is
    /// polled.
    async fn follow(
        &mut self,
        joining: Joining<'_>,
        announced: Option<&mut Announced>,
        mut changes: Changes,
    ) {
        let revisions = match joining.server {
            Server::Managed(_) => self.join(joining, &changes.bench).await,
            Server::Given(_) | Server::Joined(..) => Err(anyhow::anyhow!(
                "`up --nats` keeps what it runs to itself, since other apps and hosts use that NATS system too"
            )),
        };
        let verbs = match &revisions {
            Ok(_) => Verbs::Reach,
            Err(error) => {
                tracing::debug!("verbs of a fleet do not reach this host: {error:#}");
                Verbs::Never(format!("{error:#}"))
            }
        };
        if let Some(Err(error)) = announced.map(|announced| announced.set_verbs(verbs)) {
            tracing::warn!(%error, "`wasmbay ps` will not find this host by itself");
        }
        let Self { host, node } = self;
        let way = match (revisions, host) {
            (Ok(revisions), _) => Way::Revisions(Box::new(revisions)),
            (Err(_), Some(host)) => Way::Host(host),
            // The node has it.
            (Err(_), None) => return,
        };
        let run = async {
            match node {
                Some(node) => node.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(run, changes.follow(way));
    }

    async fn join(&mut self, joining: Joining<'_>, bench: &Workbench) -> anyhow::Result<Revisions> {
        let Joining {
            name,
            options,
            engine,
            server: _,
        } = joining;
        let (node, revisions) = Revisions::begin(name, options, engine, bench).await?;
        if let Some(host) = self.host.take() {
            node.adopt(host);
        }
        self.node = Some(node);
        Ok(revisions)
    }

    async fn stop(self, grace: Duration) -> Drained {
        match (self.node, self.host) {
            (Some(node), _) => node.stop(grace).await,
            (None, Some(host)) => host.stop(grace).await,
            (None, None) => Drained::NOTHING,
        }
    }
}

fn options(args: &Up, addresses: Addresses, server: &Server) -> anyhow::Result<HostOptions> {
    let mut options = HostOptions::new(server.options());
    options.gateway = addresses.gateway;
    options.admin = addresses.admin;
    options.admin_token = token(args.admin_token_file.as_deref())?;
    options.engine = args.cache.engine(args.instances);
    options.spans = spans(addresses.admin.is_some())?;
    options.metrics = metrics(&machine())?;
    if let Some(workers) = args.workers.and_then(|n| NonZeroUsize::new(n.into())) {
        options.workers = workers;
    }
    Ok(options)
}

/// Where the gateway has to listen: as the command line says, else the manifest, else the default.
fn listen(args: &Up, app: &App) -> anyhow::Result<Option<SocketAddr>> {
    if args.no_gateway {
        return Ok(None);
    }
    let given = app.gateway.listen.as_deref().unwrap_or(LISTEN);
    args.listen
        .map_or_else(|| resolve("listen", given), Ok)
        .map(Some)
}

/// Where dead letters have to be served: as the command line says, else the manifest, else nowhere.
fn admin(args: &Up, app: &App) -> anyhow::Result<Option<SocketAddr>> {
    match (args.admin, &app.gateway.admin) {
        (Some(address), _) => Ok(Some(address)),
        (None, Some(given)) if !args.no_gateway => resolve("admin", given).map(Some),
        _ => Ok(None),
    }
}

fn resolve(key: &str, address: &str) -> anyhow::Result<SocketAddr> {
    let found = address
        .to_socket_addrs()
        .map(|mut addresses| addresses.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(misconfigured(format!(
            "`[gateway] {key}`: {address} has no address"
        ))),
        Err(error) => Err(misconfigured(format!(
            "`[gateway] {key}`: {address}: {error}"
        ))),
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "accepted: an address such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

/// The token of the admin address.
pub(super) fn token(file: Option<&Path>) -> anyhow::Result<Option<AdminToken>> {
    let Some(file) = file else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(file).with_context(|| {
        format!(
            "cannot read the admin address's token in {}",
            file.display()
        )
    })?;
    let token = AdminToken::parse(&text);
    token
        .map(Some)
        .map_err(|error| misconfigured(format!("{}: {error}", file.display())))
}

/// What the environment wants of spans; where they can be looked at, the last are kept.
pub(super) fn spans(looked_at: bool) -> anyhow::Result<Spans> {
    let spans = Spans::from_environment().map_err(|error| misconfigured(error.to_string()))?;
    Ok(if looked_at { spans.keep_last() } else { spans })
}

/// What the environment wants of metrics.
pub(super) fn metrics(host: &str) -> anyhow::Result<MetricsExport> {
    let metrics = MetricsExport::from_environment(host);
    metrics.map_err(|error| misconfigured(error.to_string()))
}

pub(super) fn logged(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned())
}

/// Writes down where other commands find the app. They are a convenience, so failing is no reason to stop.
fn announce(project: &Project, host: &Host, server: &Server) -> Option<Announced> {
    let running = Running {
        pid: std::process::id(),
        app: project.app.name.clone(),
        nats: (!server.has_password()).then(|| server.url()),
        nats_url_file: server.url_file().map(PathBuf::from),
        gateway: host.gateway_url(),
        admin: host.admin().map(|address| format!("http://{address}")),
        verbs: Verbs::Soon,
    };
    match running.announce(&project.root) {
        Ok(announced) => Some(announced),
        Err(error) => {
            tracing::warn!(%error, "`wasmbay call` will not find this host by itself");
            None
        }
    }
}

/// Digests by service.
fn digests(components: &BTreeMap<String, Arc<Component>>) -> BTreeMap<String, Digest> {
    components
        .iter()
        .map(|(name, component)| (name.clone(), component.digest.clone()))
        .collect()
}
