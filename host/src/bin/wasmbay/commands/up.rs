//! `wasmbay up`.

mod changes;
mod summary;

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use wasmbay::host::{self, Host, HostOptions};
use wasmbay::manifest::App;
use wasmbay::nats::{ConnectOptions, ManagedServer, ServerOptions, redact};
use wasmbay::runtime::Component;
use wasmbay::runtime::Engine;

use crate::args::Up;
use crate::logging;
use crate::progress::Progress;
use crate::project::{Project, Workbench};
use crate::report::{Exit, Terminal, count, misconfigured, time};
use crate::running::{Announced, Running};
use crate::watch::Watch;
use changes::Changes;
use summary::Summary;

/// Where the gateway listens unless somebody says otherwise.
const LISTEN: &str = "127.0.0.1:8080";

/// The app's own folder for what it keeps, and NATS in it.
const NATS_DATA: &str = ".wasmbay/nats";

pub(super) async fn run(args: Up, terminal: &Terminal, started: Instant) -> anyhow::Result<Exit> {
    logging::start_host(terminal, args.log.as_deref(), args.log_format)?;
    let project = Project::load(&args.manifest)?;
    let addresses = Addresses {
        gateway: listen(&args, &project.app)?,
        admin: admin(&args, &project.app)?,
    };
    let engine = Engine::new(args.cache.engine(args.instances))?;
    // Before the first build, so that no change falls between it and watching.
    let watch = watch(&args, &project);
    let mut bench = Workbench::new(project, engine.clone());
    // Until here and through the builds, a signal ends the process as it does any other.
    bench.prepare(&Progress::new(*terminal)).await?;
    host::check(&bench.project.app, &bench.components)?;

    let mut signals = Signals::new()?;
    let server = tokio::select! {
        server = Server::start(&args, &bench.project.root) => server?,
        () = signals.next() => return Ok(Exit::Failed),
    };
    let result = serve(
        &args,
        terminal,
        started,
        Parts {
            bench,
            watch,
            engine,
            addresses,
            server: &server,
        },
        &mut signals,
    )
    .await;
    match &result {
        // Told to stop at once: what is left is ended with the process.
        Ok(Ended::AtOnce) => {}
        _ => server.stop().await,
    }
    let ended = result?;
    terminal.say(ended.text(&args));
    if terminal.json() {
        print_json(
            terminal,
            &json!({ "event": "stopped", "drained": ended == Ended::Drained }),
        );
    }
    Ok(if ended == Ended::Drained {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// What a host is started from.
struct Parts<'a> {
    bench: Workbench,
    watch: Option<Watch>,
    engine: Engine,
    addresses: Addresses,
    server: &'a Server,
}

/// Where a host listens.
#[derive(Clone, Copy)]
struct Addresses {
    gateway: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// How a host ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Every call was answered.
    Drained,
    /// The grace time was not enough for so many calls.
    GaveUp(usize),
    /// A second signal came.
    AtOnce,
    /// The signal came before anything was served.
    BeforeServing,
}

impl Ended {
    fn of(given_up: usize) -> Self {
        match given_up {
            0 => Self::Drained,
            calls => Self::GaveUp(calls),
        }
    }

    fn text(self, args: &Up) -> String {
        match self {
            Self::Drained => "stopped: every call was answered".to_owned(),
            Self::GaveUp(calls) => format!(
                "stopped: gave up {} that still ran after {}",
                count(calls, "call"),
                time(args.grace)
            ),
            Self::AtOnce => "stopped at once: calls may have been lost".to_owned(),
            Self::BeforeServing => "stopped before anything was served".to_owned(),
        }
    }
}

/// Starts the host, runs it until a signal, and drains it.
async fn serve(
    args: &Up,
    terminal: &Terminal,
    started: Instant,
    parts: Parts<'_>,
    signals: &mut Signals,
) -> anyhow::Result<Ended> {
    let Parts {
        bench,
        watch,
        engine,
        addresses,
        server,
    } = parts;
    let starting = async {
        let host = start(args, &bench.project.app, engine, addresses, server).await?;
        host.apply(&bench.project.app, &bench.components).await?;
        anyhow::Ok(host)
    };
    let host = tokio::select! {
        host = starting => host?,
        () = signals.next() => return Ok(Ended::BeforeServing),
    };
    let _announced = announce(&bench.project, &host, server);
    let summary = Summary {
        bench: &bench,
        host: &host,
        server,
        time: started.elapsed(),
    };
    match terminal.json() {
        true => print_json(terminal, &summary.json()),
        false => terminal.say(summary.text(watch.is_some())),
    }

    let watching = async {
        match watch {
            None => std::future::pending().await,
            Some(watch) => {
                Changes {
                    bench,
                    host: &host,
                    terminal: *terminal,
                    watch,
                }
                .follow()
                .await;
            }
        }
    };
    tokio::select! {
        () = watching => {}
        () = signals.next() => {}
    }
    terminal.say("draining; a second signal stops at once");
    Ok(tokio::select! {
        given_up = host.stop(args.grace) => Ended::of(given_up),
        () = signals.next() => Ended::AtOnce,
    })
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

async fn start(
    args: &Up,
    app: &App,
    engine: Engine,
    addresses: Addresses,
    server: &Server,
) -> anyhow::Result<Host> {
    let mut options = HostOptions::new(server.options());
    options.gateway = addresses.gateway;
    options.admin = addresses.admin;
    options.engine = args.cache.engine(args.instances);
    if let Some(workers) = args.workers.and_then(|n| NonZeroUsize::new(n.into())) {
        options.workers = workers;
    }
    Ok(Host::start(app, engine, options).await?)
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

/// The NATS system: one of the app's own, or one that exists.
enum Server {
    Managed(ManagedServer),
    Given(ConnectOptions),
}

impl Server {
    async fn start(args: &Up, root: &Path) -> anyhow::Result<Self> {
        if let Some(options) = args.nats.options() {
            return Ok(Self::Given(options));
        }
        let data = root.join(NATS_DATA);
        let options = ServerOptions {
            data,
            ..ServerOptions::default()
        };
        Ok(Self::Managed(ManagedServer::start(options).await?))
    }

    fn options(&self) -> ConnectOptions {
        match self {
            Self::Managed(server) => ConnectOptions::to(server.url()),
            Self::Given(options) => options.clone(),
        }
    }

    /// As it may be shown.
    fn url(&self) -> String {
        match self {
            Self::Managed(server) => server.url().to_owned(),
            Self::Given(options) => redact(&options.urls.join(",")),
        }
    }

    fn has_password(&self) -> bool {
        match self {
            Self::Managed(_) => false,
            Self::Given(options) => options.urls.iter().any(|url| url.contains('@')),
        }
    }

    async fn stop(self) {
        if let Self::Managed(server) = self {
            server.stop().await;
        }
    }
}

/// Tells other commands where the app is. They are a convenience, so failing is no reason to stop.
fn announce(project: &Project, host: &Host, server: &Server) -> Option<Announced> {
    let running = Running {
        pid: std::process::id(),
        app: project.app.name.clone(),
        nats: (!server.has_password()).then(|| server.url()),
        gateway: host.gateway().map(|address| format!("http://{address}")),
        admin: host.admin().map(|address| format!("http://{address}")),
    };
    match running.announce(&project.root) {
        Ok(announced) => Some(announced),
        Err(error) => {
            tracing::warn!(%error, "`wasmbay call` will not find this host by itself");
            None
        }
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// One event on a line of its own. Whoever no longer listens is no reason to stop serving.
fn print_json(terminal: &Terminal, event: &serde_json::Value) {
    let _ = terminal.result(event);
}

/// Digests by service.
fn digests(components: &BTreeMap<String, Arc<Component>>) -> BTreeMap<String, String> {
    components
        .iter()
        .map(|(name, component)| (name.clone(), component.digest.clone()))
        .collect()
}
