//! `wasmbay deploy`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueHint;
use serde_json::json;
use wasmbay::fleet::{Break, Change, Clash, Fronted, Kept, Revision, clashes};
use wasmbay::host::{self, HostError};
use wasmbay::manifest::{App, GatewaySpec, Specification};
use wasmbay::plan::{self, Description};
use wasmbay::runtime::Component;

use super::fleet::{Fleet, changed, gate, next};
use super::wait::Written;
use crate::args::{Cache, Nats, Waiting};
use crate::progress::Progress;
use crate::project::{Project, Workbench};
use crate::report::{Exit, Terminal, count, failure, misconfigured, plain, size};

/// Deploy an app to a fleet
///
/// Builds what is given as a folder, checks that the services fit together, stores the components, and
/// writes the next revision of the app. Then waits until that serves on all hosts where it should, or
/// says what is wrong and where.
///
/// What would break the services and clients of the revision that runs is refused. So is what another
/// app of the fleet claims at the gateway already.
///
/// Without --nats, the fleet of `wasmbay host` on this machine is meant.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay deploy examples/shop --message 'cheaper shipping'
  wasmbay deploy --dry-run
  wasmbay deploy --service payment
  wasmbay deploy --nats nats://nats.example:4222 --output json | jq .revision

Exit codes: 0 it serves (or was written, with --detach), 1 it does not, or was refused, 2 wrong usage, 78 wrong configuration.")]
pub(crate) struct Deploy {
    /// The app's manifest, or its folder
    #[arg(default_value = "wasmbay.toml", value_hint = ValueHint::FilePath)]
    manifest: PathBuf,
    /// Build and deploy only this service of the manifest, and leave everything else as it is
    /// deployed; may be given several times
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// Only say what would change, and what would be refused
    #[arg(long, conflicts_with = "detach")]
    dry_run: bool,
    /// Deploy although it breaks what runs; what breaks is written into the history
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    nats: Nats,
}

/// What was built of a manifest.
struct Built {
    app: App,
    components: BTreeMap<String, Arc<Component>>,
    described: BTreeMap<String, Description>,
    files: BTreeMap<String, PathBuf>,
}

/// An app that is ready to be deployed.
struct Ready {
    specification: Specification,
    /// The components that were built, and the descriptions of all.
    built: Built,
}

pub(super) async fn run(args: Deploy, terminal: &Terminal) -> anyhow::Result<Exit> {
    let built = build(&args, terminal).await?;
    let app = built.app.name.clone();
    let fleet = Fleet::reach(&args.nats).await?;
    let before = fleet.find(&app).await?;
    let running = before
        .as_ref()
        .and_then(|kept| kept.revision.specification.as_ref());
    let ready = match (args.services.as_slice(), running) {
        ([], _) => whole(built)?,
        (services, Some(running)) => part(&fleet, built, running, services).await?,
        (_, None) => {
            return Err(failure(
                format!(
                    "app \"{app}\" is not deployed, so there is nothing that a service could join"
                ),
                "deploy all of it first, without `--service`",
            ));
        }
    };
    let breaks = match running {
        Some(running) => {
            let breaks = fleet.breaks(running, &ready.specification, &ready.built.described);
            breaks.await.context("what runs cannot be compared")?
        }
        None => Vec::new(),
    };
    let clashes = claimed(&fleet, &ready).await?;
    let mut revision = next(
        before.as_ref(),
        "deploy",
        Some(ready.specification.clone()),
        args.waiting.message.clone(),
    );
    let source = std::path::absolute(&args.manifest).unwrap_or_else(|_| args.manifest.clone());
    revision.source = Some(source.display().to_string());
    let changes = changed(before.as_ref().map(|kept| &kept.revision), &revision);
    if args.dry_run {
        return foretell(&revision, &changes, &breaks, &clashes, terminal);
    }
    if !clashes.is_empty() {
        return Err(refuse_clashes(&clashes));
    }
    revision.forced = gate(&breaks, args.force)?;
    if !args.waiting.detach && fleet.store.hosts().await?.is_empty() {
        return Err(failure(
            "no host of the fleet is alive",
            "`wasmbay host` starts one; `--detach` deploys for hosts that come later",
        ));
    }
    if let (true, Some(before)) = (changes.is_empty(), &before) {
        return again(&fleet, &ready, before, &args.waiting, terminal).await;
    }
    store(&fleet, &ready).await?;
    if !terminal.json() {
        for change in &changes {
            terminal.note(format_args!("  {change}"));
        }
        for line in &revision.forced {
            terminal.note(format_args!("forced: {line}"));
        }
    }
    let after = before.as_ref().map(|kept| kept.sequence);
    fleet.store.write(&app, &revision, after).await?;
    // Another deploy may have collected what was there and named by no revision.
    store(&fleet, &ready).await?;
    if let Err(error) = fleet.store.collect().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "old components are kept"
        );
    }
    let written = Written {
        app: &app,
        revision: &revision,
        changes: &changes,
    };
    written.wait(&fleet, &args.waiting, terminal).await
}

/// Builds an app, as `up` does, or some of its services.
async fn build(args: &Deploy, terminal: &Terminal) -> anyhow::Result<Built> {
    let project = Project::load(&args.manifest)?;
    let services = &project.app.services;
    if let Some(unknown) = args
        .services
        .iter()
        .find(|name| !services.contains_key(*name))
    {
        let names: Vec<_> = services.keys().map(String::as_str).collect();
        return Err(failure(
            format!("the manifest has no service \"{}\"", plain(unknown)),
            format!("it has {}", names.join(", ")),
        ));
    }
    if args.services.is_empty() {
        for ignored in ignored(&project.app.gateway) {
            terminal.note(format_args!("warning: {ignored}"));
        }
    }
    let engine = args.cache.looking_engine()?;
    let mut bench = Workbench::new(project, engine);
    if !args.services.is_empty() {
        bench.pending = args.services.iter().cloned().collect();
    }
    bench.prepare(&Progress::new(*terminal)).await?;
    let Workbench {
        project,
        components,
        ..
    } = bench;
    let described: BTreeMap<_, _> = components
        .iter()
        .map(|(name, component)| (name.clone(), component.description()))
        .collect();
    if args.services.is_empty() {
        host::check(&project.app, &components)?;
        for unreached in plan::unreached(&project.app, &described) {
            terminal.note(format_args!("warning: {unreached}"));
        }
    }
    let files = project.sources.iter();
    let files = files.map(|(name, source)| (name.clone(), source.file()));
    Ok(Built {
        files: files.collect(),
        app: project.app,
        components,
        described,
    })
}

/// All of the app.
fn whole(built: Built) -> anyhow::Result<Ready> {
    Ok(Ready {
        specification: host::specify(&built.app, &built.components)?,
        built,
    })
}

/// What runs, with these services as they are in the manifest.
async fn part(
    fleet: &Fleet,
    mut built: Built,
    running: &Specification,
    services: &[String],
) -> anyhow::Result<Ready> {
    let mut specification = running.clone();
    for service in services {
        if let (Some(spec), Some(component)) = (
            built.app.services.get(service),
            built.components.get(service),
        ) {
            let digest = component.digest.clone();
            specification
                .app
                .services
                .insert(service.clone(), spec.clone());
            specification.components.insert(service.clone(), digest);
        }
    }
    // As hosts read it: what a service refers to has to be in what runs.
    let written = serde_json::to_value(&specification)?;
    let read = serde_json::from_value::<Specification>(written);
    let specification = read.map_err(|error| {
        misconfigured(format!(
            "the service does not fit into what is deployed: {error}"
        ))
    })?;
    let mut described = fleet.store.descriptions(&running.components).await?;
    described.append(&mut built.described);
    plan::plan(&specification.app, &described).map_err(HostError::Plan)?;
    built.described = described;
    Ok(Ready {
        specification,
        built,
    })
}

/// Keys of the manifest's gateway that are those of hosts in a fleet.
fn ignored(gateway: &GatewaySpec) -> Vec<String> {
    let usual = GatewaySpec::default();
    let keys = [
        ("listen", gateway.listen != usual.listen),
        ("admin", gateway.admin != usual.admin),
        ("header", gateway.header != usual.header),
        ("connections", gateway.connections != usual.connections),
        (
            "peer-connections",
            gateway.peer_connections != usual.peer_connections,
        ),
    ];
    let given = keys.into_iter().filter(|(_, given)| *given);
    given
        .map(|(key, _)| {
            format!(
                "`[gateway] {key}` is for `wasmbay up`; in a fleet the gateway is the hosts' own"
            )
        })
        .collect()
}

/// What other apps of the fleet claim at the gateway already.
async fn claimed(fleet: &Fleet, ready: &Ready) -> anyhow::Result<Vec<Clash>> {
    let apps = fleet.store.apps().await?;
    let mut others: Vec<(App, BTreeMap<String, Description>)> = Vec::new();
    for (name, kept) in apps {
        let Some(specification) = kept.revision.specification else {
            continue;
        };
        if name == ready.specification.app.name {
            continue;
        }
        let described = fleet.store.descriptions(&specification.components).await;
        let described = described.with_context(|| format!("app \"{name}\" cannot be compared"))?;
        others.push((specification.app, described));
    }
    let own = Fronted {
        app: &ready.specification.app,
        components: &ready.built.described,
    };
    let others = others
        .iter()
        .map(|(app, components)| Fronted { app, components });
    Ok(clashes(own, others))
}

fn refuse_clashes(clashes: &[Clash]) -> anyhow::Error {
    let lines: Vec<_> = clashes.iter().map(|clash| format!("\n  {clash}")).collect();
    failure(
        format!("two apps would answer the same requests:{}", lines.concat()),
        "give one of them names of its own, `[gateway] hosts = [\"shop.example.com\"]`, or `rpc = false` where the RPC paths are not needed",
    )
}

/// Stores the components that are not there yet.
async fn store(fleet: &Fleet, ready: &Ready) -> anyhow::Result<()> {
    for (service, component) in &ready.built.components {
        let (bytes, description) = bytes_of(ready, service, component)?;
        let stored = fleet.store.put_component(&bytes, &description).await;
        stored.with_context(|| format!("service \"{service}\""))?;
    }
    Ok(())
}

/// The bytes of a component as it was loaded.
fn bytes_of(
    ready: &Ready,
    service: &str,
    component: &Component,
) -> anyhow::Result<(Vec<u8>, Description)> {
    let file = ready
        .built
        .files
        .get(service)
        .map(PathBuf::as_path)
        .unwrap_or(Path::new(""));
    let bytes = std::fs::read(file);
    let bytes = bytes.with_context(|| format!("cannot read {}", file.display()))?;
    if wasmbay::manifest::Digest::of(&bytes) != component.digest {
        return Err(failure(
            format!("{} was changed while it was deployed", file.display()),
            "deploy again",
        ));
    }
    Ok((bytes, component.description()))
}

/// Nothing changes: whatever is wrong with the components in the store is repaired.
async fn again(
    fleet: &Fleet,
    ready: &Ready,
    before: &Kept,
    waiting: &Waiting,
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    let mut repaired = 0;
    for (service, component) in &ready.built.components {
        let (bytes, description) = bytes_of(ready, service, component)?;
        let done = fleet.store.repair_component(&bytes, &description).await;
        repaired += usize::from(done.with_context(|| format!("service \"{service}\""))?);
    }
    let app = &ready.specification.app.name;
    let number = before.revision.number;
    terminal.say(format_args!(
        "nothing has changed since revision {number} of {app}"
    ));
    let mut revision = before.revision.clone();
    if repaired > 0 {
        let components = count(repaired, "component");
        terminal.say(format_args!(
            "stored {components} again, whose bytes were not there or others"
        ));
        // So that hosts look again now, and not when they would have tried again.
        let specification = Some(ready.specification.clone());
        revision = next(
            Some(before),
            "deploy again",
            specification,
            waiting.message.clone(),
        );
        fleet
            .store
            .write(app, &revision, Some(before.sequence))
            .await?;
    }
    let written = Written {
        app,
        revision: &revision,
        changes: &[],
    };
    written.wait(fleet, waiting, terminal).await
}

/// Says what a deploy would do; fails if that is nothing, since it would be refused.
fn foretell(
    revision: &Revision,
    changes: &[Change],
    breaks: &[Break],
    clashes: &[Clash],
    terminal: &Terminal,
) -> anyhow::Result<Exit> {
    let refused = !breaks.is_empty() || !clashes.is_empty();
    let bytes = serde_json::to_vec(revision).map_or(0, |bytes| bytes.len());
    if terminal.json() {
        let texts = |all: Vec<String>| all;
        terminal.result_json(&json!({
            "revision": revision.number,
            "changes": texts(changes.iter().map(ToString::to_string).collect()),
            "breaks": texts(breaks.iter().map(ToString::to_string).collect()),
            "clashes": texts(clashes.iter().map(ToString::to_string).collect()),
            "bytes": bytes,
        }))?;
    } else {
        let mut lines = vec![if changes.is_empty() {
            "nothing would change".to_owned()
        } else {
            let bytes = size(bytes as u64);
            format!(
                "revision {} would ({bytes} of specification):",
                revision.number
            )
        }];
        lines.extend(changes.iter().map(|change| format!("  {change}")));
        lines.extend(
            breaks
                .iter()
                .map(|one| format!("refused without --force: {one}")),
        );
        lines.extend(clashes.iter().map(|clash| format!("refused: {clash}")));
        terminal.result(lines.join("\n"))?;
    }
    Ok(if refused { Exit::Failed } else { Exit::Done })
}
