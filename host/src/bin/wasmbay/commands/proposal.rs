//! What a deploy would do: an app as it is built, beside what the fleet runs. `deploy` does it, `diff` only
//! shows it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueHint;
use wasmbay::cases::Problem;
use wasmbay::fleet::{Offer, Proposal, ProposalError, Specs};
use wasmbay::host::{self, HostError};
use wasmbay::manifest::{Digest, GatewaySpec, Reference, Specification};
use wasmbay::plan::{self, Description};
use wasmbay::runtime::{Component, Engine, EngineOptions, Runtime};

use super::fleet::{Fleet, ServiceName, no_service};
use super::replay;
use super::sign::Signer;
use super::test::INSTANCES;
use crate::args::{Cache, Nats};
use crate::progress::Progress;
use crate::project::{Project, Workbench, load};
use crate::registries::{Pulling, Pulls, file_of};
use crate::report::{Terminal, failure, misconfigured, plain};

/// What is to be deployed, or compared with what is.
#[derive(clap::Args)]
pub(super) struct What {
    /// The app's manifest, its folder, or for one service of an app that is deployed a `.wasm` file or
    /// oci://REGISTRY/NAME:TAG
    #[arg(
        value_name = "PATH",
        default_value = "wasmbay.toml",
        value_hint = ValueHint::FilePath
    )]
    pub(super) path: PathBuf,
    /// Take only this service of the manifest, and leave everything else as it is deployed; may be given
    /// several times. APP/SERVICE for a component
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    pulling: Pulling,
}

/// What was loaded.
struct Loaded {
    specs: Specs,
    components: BTreeMap<String, Arc<Component>>,
    files: BTreeMap<String, PathBuf>,
    /// Where `wasmbay up` may run the app.
    folder: PathBuf,
}

/// A deploy as it was built here.
pub(super) struct Built {
    /// What it would do.
    pub(super) proposal: Proposal,
    components: BTreeMap<String, Arc<Component>>,
    files: BTreeMap<String, PathBuf>,
}

/// A recorded call that ends otherwise.
pub(super) struct Differing {
    pub(super) name: String,
    pub(super) problems: Vec<Problem>,
}

/// Refuses services that read files: a host of a fleet has none of them.
fn refuse_files(loaded: &Loaded) -> anyhow::Result<()> {
    let (Specs::All(app) | Specs::Some(app)) = &loaded.specs else {
        return Ok(());
    };
    let mut services = app.services.values();
    let reads = services
        .find(|spec| !spec.grants.files.is_empty() && loaded.components.contains_key(&spec.name));
    match reads {
        None => Ok(()),
        Some(spec) => Err(failure(
            format!(
                "service \"{}\": `grants.files`: files do not travel with a deploy",
                spec.name
            ),
            "build them into the component, or keep them as objects (`grants.blobstore`); `wasmbay up` has them from the app's folder",
        )),
    }
}

impl Built {
    /// Builds what is asked for, and compares it with what the fleet runs.
    pub(super) async fn of(
        what: &What,
        nats: &Nats,
        terminal: &Terminal,
    ) -> anyhow::Result<(Fleet, Self)> {
        let progress = Progress::new(*terminal);
        let pulls = what.pulling.with(&what.cache, &progress);
        let loaded = match component(what, &pulls).await? {
            Some(loaded) => loaded,
            None => build(what, &pulls, &progress, terminal).await?,
        };
        refuse_files(&loaded)?;
        let app = loaded.specs.app();
        let fleet = Fleet::reach_from(nats, Some(app), &loaded.folder).await?;
        let before = match &loaded.specs {
            Specs::AsDeployed(app) => Some(fleet.deployed(app).await?.0),
            Specs::All(_) => None,
            Specs::Some(_) => fleet.find(app).await?,
        };
        let digests = loaded.components.iter();
        let digests = digests.map(|(name, one)| (name.clone(), one.digest.clone()));
        let offer = Offer {
            components: digests.collect(),
            described: describe(&loaded.components),
            specs: loaded.specs,
        };
        let running = before.and_then(|kept| kept.revision.specification);
        let proposal = Proposal::of(&fleet.store, offer).await;
        let proposal = proposal.map_err(|error| explain(error, running.as_ref()))?;
        let built = Self {
            proposal,
            components: loaded.components,
            files: loaded.files,
        };
        Ok((fleet, built))
    }

    /// The recorded calls in a file that end otherwise with what is built.
    pub(super) async fn differing(
        &self,
        file: &Path,
        terminal: &Terminal,
    ) -> anyhow::Result<Vec<Differing>> {
        let cases = replay::read(file)?;
        let service = replay::service_of(&cases);
        let app = &self.proposal.specification.app;
        let (Some(spec), Some(component)) = (app.services.get(&service), self.files.get(&service))
        else {
            return Err(failure(
                format!(
                    "{} is of service \"{}\", which is not deployed by this",
                    file.display(),
                    plain(&service)
                ),
                "leave it out, or deploy that service",
            ));
        };
        let engine = Engine::new(EngineOptions {
            instances: INSTANCES,
            ..EngineOptions::default()
        });
        let engine = engine.context("the engine")?;
        let component = load(&engine, &service, component, &Progress::new(*terminal))?;
        let runtime = Runtime::new(engine)?;
        let replayed =
            replay::replay(&runtime, &app.name, &Arc::new(component), spec, &cases).await?;
        let named = replayed.differing.into_iter();
        let named = named.map(|(name, problems)| Differing {
            name: format!("{service}: {}", plain(&name)),
            problems,
        });
        Ok(named.collect())
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
async fn component(what: &What, pulls: &Pulls) -> anyhow::Result<Option<Loaded>> {
    let name = what.path.to_string_lossy();
    let is_file = what.path.extension().is_some_and(|end| end == "wasm");
    if !is_file && !Reference::is_meant(&name) {
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
    let [target] = what.services.as_slice() else {
        return Err(usage());
    };
    let ServiceName { app, service } = target.parse().map_err(|_| usage())?;
    let engine = what.cache.looking_engine()?;
    let file = match Reference::is_meant(&name) {
        true => file_of(&name, pulls).await?,
        false => what.path.clone(),
    };
    let files = BTreeMap::from([(service, file)]);
    let components = host::load(&engine, &files)?;
    Ok(Some(Loaded {
        specs: Specs::AsDeployed(app),
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
async fn build(
    what: &What,
    pulls: &Pulls,
    progress: &Progress,
    terminal: &Terminal,
) -> anyhow::Result<Loaded> {
    let project = Project::load(&what.path, pulls).await?;
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
    bench.prepare(progress).await?;
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
    let app = Box::new(project.app);
    Ok(Loaded {
        files: files.collect(),
        folder: project.root.clone(),
        specs: match what.services.is_empty() {
            true => Specs::All(app),
            false => Specs::Some(app),
        },
        components,
    })
}

/// Why it is no deploy, and what helps.
fn explain(error: ProposalError, running: Option<&Specification>) -> anyhow::Error {
    match error {
        ProposalError::Plan(errors) => HostError::Plan(errors).into(),
        ProposalError::Misfit(_) => misconfigured(error.to_string()),
        ProposalError::NotDeployed(_) => failure(
            error.to_string(),
            "deploy all of it first, without `--service`",
        ),
        ProposalError::NoService { ref service, .. } => match running {
            Some(running) => no_service(&running.app, service),
            None => error.into(),
        },
        ProposalError::Store(error) => error.into(),
        ProposalError::Specification(error) => HostError::Specification(error).into(),
        ProposalError::Compared(..) => error.into(),
    }
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
