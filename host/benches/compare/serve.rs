//! A wasmbay host as a contestant: a process of its own that runs one manifest.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use wasmbay::host::{self, DEFAULT_GRACE, Host, HostOptions};
use wasmbay::manifest::{App, Manifest};
use wasmbay::nats::ConnectOptions;
use wasmbay::runtime::Component;
use wasmbay::runtime::{Engine, EngineOptions};

/// The arguments of the process.
#[derive(clap::Args)]
pub(crate) struct Serve {
    #[arg(long)]
    manifest: PathBuf,
    #[arg(long)]
    nats: String,
    /// Open a gateway on a free port.
    #[arg(long)]
    gateway: bool,
    /// Open an admin address on a free port.
    #[arg(long)]
    admin: bool,
    /// Threads that serve, instead of one for each core.
    #[arg(long)]
    workers: Option<NonZeroUsize>,
}

/// Runs a host until standard input ends. Each line of it is the path of another manifest to
/// apply, and is answered by the microseconds that took.
pub(crate) fn serve(options: &Serve) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let engine = Engine::new(EngineOptions::default())?;
    let (app, components) = load(&engine, &options.manifest)?;
    let mut host_options = HostOptions::new(ConnectOptions::to(options.nats.clone()));
    if let Some(workers) = options.workers {
        host_options.workers = workers;
    }
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    host_options.gateway = options.gateway.then_some(free);
    host_options.admin = options.admin.then_some(free);
    let host = runtime.block_on(async {
        let host = Host::start(&app, engine.clone(), host_options).await?;
        let specification = host::specify(&app, &components)?;
        host.apply(&specification, &components).await?;
        anyhow::Ok(host)
    })?;
    super::ready(host.gateway().or(host.admin()));
    for line in std::io::stdin().lock().lines() {
        let (app, components) = load(&engine, Path::new(&line?))?;
        let specification = host::specify(&app, &components)?;
        let started = Instant::now();
        runtime.block_on(host.apply(&specification, &components))?;
        super::say(format_args!("applied {}", started.elapsed().as_micros()));
    }
    runtime.block_on(host.stop(DEFAULT_GRACE));
    Ok(())
}

type Components = BTreeMap<String, Arc<Component>>;

fn load(engine: &Engine, manifest: &Path) -> anyhow::Result<(App, Components)> {
    let read = Manifest::load(manifest)?;
    let components = host::load(engine, &read.components)?;
    Ok((read.app, components))
}
