//! What a deploy would do: an app as it is built, beside what the fleet runs. `deploy` does it, `diff` only
//! shows it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueHint;
use serde_json::{Value, json};
use wasmbay::fleet::{
    Break, Clash, Deployed, Difference, Fronted, Kept, Specified, breaks, clashes, differences,
    lines, rollouts,
};
use wasmbay::host::{self, HostError};
use wasmbay::manifest::{App, Digest, GatewaySpec, Specification};
use wasmbay::plan::{self, Description};
use wasmbay::runtime::Component;

use super::fleet::{Fleet, ServiceName, no_service};
use super::sign::Signer;
use crate::args::{Cache, Nats};
use crate::progress::Progress;
use crate::project::{Project, Workbench};
use crate::report::{Terminal, failure, misconfigured, plain};

/// What is to be deployed, or compared with what is.
#[derive(clap::Args)]
pub(super) struct What {
    /// The app's manifest, its folder, or a `.wasm` file for one service of an app that is deployed
    #[arg(
        value_name = "PATH",
        default_value = "wasmbay.toml",
        value_hint = ValueHint::FilePath
    )]
    pub(super) path: PathBuf,
    /// Take only this service of the manifest, and leave everything else as it is deployed; may be given
    /// several times. APP/SERVICE for a `.wasm` file
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    #[command(flatten)]
    cache: Cache,
}

/// What was built.
struct Built {
    app: Specs,
    components: BTreeMap<String, Arc<Component>>,
    described: BTreeMap<String, Description>,
    files: BTreeMap<String, PathBuf>,
    /// Where `wasmbay up` may run the app.
    folder: PathBuf,
}

/// How services are specified.
enum Specs {
    /// As in this manifest.
    Of(Box<App>),
    /// As the app of this name runs.
    AsDeployed(String),
}

impl Specs {
    fn app(&self) -> &str {
        match self {
            Self::Of(app) => &app.name,
            Self::AsDeployed(name) => name,
        }
    }
}

/// A specification, ready to be deployed, beside what runs.
pub(super) struct Proposal {
    /// The last revision.
    pub(super) before: Option<Kept>,
    pub(super) specification: Specification,
    /// Those that were built.
    components: BTreeMap<String, Arc<Component>>,
    files: BTreeMap<String, PathBuf>,
    pub(super) differences: Vec<Difference>,
    /// Whom it breaks.
    pub(super) breaks: Vec<Break>,
    /// What other apps claim already.
    pub(super) clashes: Vec<Clash>,
    /// The services whose new version would get a share of the calls first, and which.
    pub(super) rollouts: BTreeMap<String, String>,
}

impl Proposal {
    /// Builds what is asked for, and compares it with what the fleet runs.
    pub(super) async fn of(
        what: &What,
        nats: &Nats,
        terminal: &Terminal,
    ) -> anyhow::Result<(Fleet, Self)> {
        let mut built = match component(what)? {
            Some(built) => built,
            None => build(what, terminal).await?,
        };
        let folder = built.folder.clone();
        let fleet = Fleet::reach_from(nats, Some(built.app.app()), &folder).await?;
        if let Specs::AsDeployed(app) = &built.app {
            fleet.deployed(app).await?;
        }
        let before = fleet.find(built.app.app()).await?;
        let running = before
            .as_ref()
            .and_then(|kept| kept.revision.specification.clone());
        let described_before = match &running {
            Some(running) => {
                let described = fleet.store.descriptions(&running.components).await;
                described.context("what runs cannot be compared")?
            }
            None => BTreeMap::new(),
        };
        let specification = match (&built.app, &running) {
            (Specs::Of(app), _) if what.services.is_empty() => {
                host::specify(app, &built.components)?
            }
            (_, Some(running)) => part(&mut built, running, &described_before)?,
            (specs, None) => return Err(not_deployed(specs.app())),
        };
        let mut proposal = Self {
            clashes: claimed(&fleet, &specification.app, &built.described).await?,
            differences: Vec::new(),
            breaks: Vec::new(),
            rollouts: BTreeMap::new(),
            before,
            specification,
            components: built.components,
            files: built.files,
        };
        proposal.compare(running.as_ref(), &described_before, &built.described);
        proposal.foresee_rollouts();
        let stable = proposal.before.as_ref();
        if let Some(stable) = stable.and_then(|kept| kept.revision.stable.as_ref()) {
            // A version that is rolled out has not replaced it yet.
            let specification = &proposal.specification;
            let breaks = fleet.breaks(stable, specification, &built.described);
            proposal.breaks.extend(breaks.await?);
            proposal.breaks.sort();
            proposal.breaks.dedup();
        }
        Ok((fleet, proposal))
    }

    fn compare(
        &mut self,
        running: Option<&Specification>,
        before: &BTreeMap<String, Description>,
        now: &BTreeMap<String, Description>,
    ) {
        let (old, new) = (
            running.map(|specification| Specified {
                specification,
                components: before,
            }),
            Specified {
                specification: &self.specification,
                components: now,
            },
        );
        self.differences = differences(old, Some(new));
        if let Some(running) = running {
            let (app, components) = (&running.app, before);
            let old = Deployed { app, components };
            let (app, components) = (&self.specification.app, now);
            self.breaks = breaks(old, Deployed { app, components });
        }
    }

    fn foresee_rollouts(&mut self) {
        let works = self.before.as_ref().and_then(|kept| kept.revision.works());
        let rolled = works.map(|works| rollouts(works, &self.specification));
        let rolled = rolled.into_iter().flatten();
        let rolled = rolled.map(|(service, spec)| (service.to_owned(), spec.text()));
        self.rollouts = rolled.collect();
    }

    pub(super) fn app(&self) -> &str {
        &self.specification.app.name
    }

    /// Whether it cannot be deployed as it is.
    pub(super) fn is_refused(&self) -> bool {
        !self.breaks.is_empty() || !self.clashes.is_empty()
    }

    /// Every difference, and what would be refused, a line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = lines(&self.differences);
        let rollouts = self.rollouts.iter();
        lines.extend(rollouts.map(|(service, share)| {
            format!("{service}: its new version would get {share}, and then all or none")
        }));
        let breaks = self.breaks.iter();
        lines.extend(breaks.map(|one| format!("refused without --force: {one}")));
        let clashes = self.clashes.iter();
        lines.extend(clashes.map(|clash| format!("refused: {clash}")));
        lines.iter().map(|line| plain(line)).collect()
    }

    /// The same for scripts.
    pub(super) fn json(&self) -> Value {
        fn texts<T: ToString>(all: &[T]) -> Vec<String> {
            all.iter().map(ToString::to_string).collect()
        }
        json!({
            "app": self.app(),
            "differences": self.differences,
            "rollouts": self.rollouts,
            "breaks": texts(&self.breaks),
            "clashes": texts(&self.clashes),
        })
    }

    /// Stores the components that are not there yet, and their signatures.
    pub(super) async fn store(&self, fleet: &Fleet, signer: &Signer) -> anyhow::Result<()> {
        for (service, component) in &self.components {
            let (bytes, description) = self.bytes_of(service, component)?;
            let stored = fleet.store.put_component(&bytes, &description).await;
            stored.with_context(|| format!("service \"{service}\""))?;
        }
        self.sign(fleet, signer).await.map(drop)
    }

    /// Stores the signatures of the components; returns how many were not signed so before.
    pub(super) async fn sign(&self, fleet: &Fleet, signer: &Signer) -> anyhow::Result<usize> {
        let mut signed = 0;
        for (service, component) in &self.components {
            let file = self.files.get(service).map(PathBuf::as_path);
            let file = file.unwrap_or(Path::new(""));
            let done = signer.store(&fleet.store, file, &component.digest).await;
            signed += usize::from(done.with_context(|| format!("service \"{service}\""))?);
        }
        Ok(signed)
    }

    /// Stores again the components that are gone, or others under their digest; returns how many.
    pub(super) async fn repair(&self, fleet: &Fleet) -> anyhow::Result<usize> {
        let mut repaired = 0;
        for (service, component) in &self.components {
            let (bytes, description) = self.bytes_of(service, component)?;
            let done = fleet.store.repair_component(&bytes, &description).await;
            repaired += usize::from(done.with_context(|| format!("service \"{service}\""))?);
        }
        Ok(repaired)
    }

    /// The bytes of a component as it was loaded.
    fn bytes_of(
        &self,
        service: &str,
        component: &Component,
    ) -> anyhow::Result<(Vec<u8>, Description)> {
        let file = self.files.get(service).map(PathBuf::as_path);
        let file = file.unwrap_or(Path::new(""));
        let bytes = std::fs::read(file);
        let bytes = bytes.with_context(|| format!("cannot read {}", file.display()))?;
        if Digest::of(&bytes) != component.digest {
            return Err(failure(
                format!("{} was changed while it was deployed", file.display()),
                "deploy again",
            ));
        }
        Ok((bytes, component.description()))
    }
}

/// A component that is there already, for a service that is deployed; nothing if a manifest is meant.
fn component(what: &What) -> anyhow::Result<Option<Built>> {
    if what.path.extension().is_none_or(|end| end != "wasm") {
        return Ok(None);
    }
    let usage = || {
        failure(
            format!(
                "{} is one component, and goes to one service of an app that is deployed",
                what.path.display()
            ),
            "name that service: `--service APP/SERVICE`",
        )
    };
    let [name] = what.services.as_slice() else {
        return Err(usage());
    };
    let ServiceName { app, service } = name.parse().map_err(|_| usage())?;
    let engine = what.cache.looking_engine()?;
    let files = BTreeMap::from([(service, what.path.clone())]);
    let components = host::load(&engine, &files)?;
    Ok(Some(Built {
        app: Specs::AsDeployed(app),
        described: describe(&components),
        components,
        files,
        folder: std::env::current_dir().context("the working directory")?,
    }))
}

fn describe(components: &BTreeMap<String, Arc<Component>>) -> BTreeMap<String, Description> {
    let components = components.iter();
    components
        .map(|(name, component)| (name.clone(), component.description()))
        .collect()
}

/// Builds an app, as `up` does, or some of its services.
async fn build(what: &What, terminal: &Terminal) -> anyhow::Result<Built> {
    let project = Project::load(&what.path)?;
    let services = &project.app.services;
    if let Some(unknown) = what
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
    if what.services.is_empty() {
        for ignored in ignored(&project.app.gateway) {
            terminal.note(format_args!("warning: {ignored}"));
        }
    }
    let engine = what.cache.looking_engine()?;
    let mut bench = Workbench::new(project, engine);
    if !what.services.is_empty() {
        bench.pending = what.services.iter().cloned().collect();
    }
    bench.prepare(&Progress::new(*terminal)).await?;
    let Workbench {
        project,
        components,
        ..
    } = bench;
    let described = describe(&components);
    if what.services.is_empty() {
        host::check(&project.app, &components)?;
        for unreached in plan::unreached(&project.app, &described) {
            terminal.note(format_args!("warning: {unreached}"));
        }
    }
    let files = project.sources.iter();
    let files = files.map(|(name, source)| (name.clone(), source.file()));
    Ok(Built {
        files: files.collect(),
        folder: project.root.clone(),
        app: Specs::Of(Box::new(project.app)),
        components,
        described,
    })
}

fn not_deployed(app: &str) -> anyhow::Error {
    failure(
        format!("app \"{app}\" is not deployed, so there is nothing that a service could join"),
        "deploy all of it first, without `--service`",
    )
}

/// What runs, with these services as they were built. Completes the descriptions.
fn part(
    built: &mut Built,
    running: &Specification,
    described: &BTreeMap<String, Description>,
) -> anyhow::Result<Specification> {
    let mut specification = running.clone();
    for (service, component) in &built.components {
        let spec = match &built.app {
            Specs::Of(app) => app.services.get(service),
            Specs::AsDeployed(_) => running.app.services.get(service),
        };
        let spec = spec.ok_or_else(|| no_service(&running.app, service))?;
        let services = &mut specification.app.services;
        services.insert(service.clone(), spec.clone());
        let digest = component.digest.clone();
        specification.components.insert(service.clone(), digest);
    }
    // As hosts read it: what a service refers to has to be in what runs.
    let written = serde_json::to_value(&specification)?;
    let read = serde_json::from_value::<Specification>(written);
    let specification = read.map_err(|error| {
        misconfigured(format!(
            "the service does not fit into what is deployed: {error}"
        ))
    })?;
    for (service, description) in described {
        let known = built.described.entry(service.clone());
        known.or_insert_with(|| description.clone());
    }
    plan::plan(&specification.app, &built.described).map_err(HostError::Plan)?;
    Ok(specification)
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
async fn claimed(
    fleet: &Fleet,
    app: &App,
    components: &BTreeMap<String, Description>,
) -> anyhow::Result<Vec<Clash>> {
    let apps = fleet.store.apps().await?;
    let mut others: Vec<(App, BTreeMap<String, Description>)> = Vec::new();
    for (name, kept) in apps {
        let Some(specification) = kept.revision.specification else {
            continue;
        };
        if name == app.name {
            continue;
        }
        let described = fleet.store.descriptions(&specification.components).await;
        let described = described.with_context(|| format!("app \"{name}\" cannot be compared"))?;
        others.push((specification.app, described));
    }
    let others = others
        .iter()
        .map(|(app, components)| Fronted { app, components });
    Ok(clashes(Fronted { app, components }, others))
}
