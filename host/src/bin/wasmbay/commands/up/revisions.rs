//! What `up` runs, as revisions of a fleet of one host: a change of a file is a deploy, and verbs in other
//! terminals write revisions beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout_at};
use wasmbay::fleet::{Revision, Store, StoreError, next};
use wasmbay::host::{
    self, Applied, HostError, HostOptions, Known, Node, NodeOptions, OwnApp, Told,
};
use wasmbay::manifest::{Digest, Specification};
use wasmbay::runtime::Engine;

use super::super::fleet::signed;
use crate::project::Workbench;
use crate::report::failure;

/// Time for the host to take over a revision: it links services and makes their first instances.
const TAKEN_OVER: Duration = Duration::from_secs(120);

/// Attempts to write a revision while others write theirs.
const ATTEMPTS: u32 = 10;

/// Components that no kept revision names stay for this long: a deploy stores them before it is written. Less than
/// in a fleet, since every change of a file may be one.
const COLLECT: Duration = Duration::from_secs(60);

pub(super) struct Revisions {
    app: String,
    /// The manifest.
    source: String,
    store: Store,
    known: Known,
    told: UnboundedReceiver<Told>,
    /// The last revision that was written here, or taken over.
    pub(super) last: u64,
}

impl Revisions {
    /// Makes a running app the first, or next, revision of a fleet of one host, which has yet to adopt it.
    pub(super) async fn begin(
        name: String,
        options: HostOptions,
        engine: Engine,
        bench: &Workbench,
    ) -> anyhow::Result<(Node, Self)> {
        let app = bench.project.app.name.clone();
        let mut of_node = NodeOptions::new(options.nats.clone(), name);
        of_node.workers = options.workers;
        of_node.app = Some(OwnApp {
            name: app.clone(),
            options,
        });
        let mut node = Node::start(of_node, engine).await?;
        let told = node.telling().context("it is told once")?;
        let mut revisions = Self {
            app,
            source: bench.project.manifest.display().to_string(),
            store: node.store().clone(),
            known: node.known(),
            told,
            last: 0,
        };
        let specification = host::specify(&bench.project.app, &bench.components)?;
        let written = revisions.write(bench, &specification, "started").await?;
        if written.is_none() {
            let kept = revisions.store.app(&revisions.app).await?;
            revisions.last = kept.map_or(0, |kept| kept.revision.number);
        }
        Ok((node, revisions))
    }

    /// Has a change of files taken over.
    ///
    /// # Errors
    ///
    /// It does not fit, then nothing is written; or it cannot run, then what ran before goes on.
    pub(super) async fn take_over(
        &mut self,
        bench: &Workbench,
        specification: &Specification,
    ) -> anyhow::Result<Applied> {
        let app = &specification.app;
        if app.name != self.app {
            let (running, wanted) = (self.app.clone(), app.name.clone());
            return Err(HostError::Renamed { running, wanted }.into());
        }
        host::check(app, &bench.components)?;
        let written = self.write(bench, specification, "files changed").await?;
        let Some(number) = written else {
            return Ok(Applied::default());
        };
        let deadline = Instant::now() + TAKEN_OVER;
        loop {
            let told = timeout_at(deadline, self.told.recv()).await;
            match told {
                Ok(Some(Told::Step { revision, result })) if revision.number >= number => {
                    let mut applied = result?;
                    if let Some((_, error)) = applied.failed.pop_first() {
                        return Err(error.into());
                    }
                    return Ok(applied);
                }
                Ok(Some(Told::Stopped)) => {
                    let kept = self.store.app(&self.app).await?;
                    let last = kept.as_ref().map(|kept| &kept.revision);
                    // One of what came before says nothing of this change.
                    if last.is_some_and(|last| last.number >= number) {
                        let undeployed = last.is_some_and(|last| last.specification.is_none());
                        let (why, then) = match undeployed {
                            true => (
                                "the app was undeployed meanwhile",
                                "`wasmbay rollback`, or the next change of a file, has it run again",
                            ),
                            false => (
                                "the app is not to run on this host",
                                "`wasmbay hosts` shows whether it was drained",
                            ),
                        };
                        return Err(failure(why, then));
                    }
                }
                // Of what came before.
                Ok(Some(_)) => {}
                Ok(None) => return Err(failure("the app has ended", "start it again")),
                Err(_) => {
                    return Err(failure(
                        format!("revision {number} is written, and is not taken over yet"),
                        "`wasmbay ps` shows how far it is",
                    ));
                }
            }
        }
    }

    /// Waits for what becomes of the app without a change of files.
    pub(super) async fn told(&mut self) -> Told {
        match self.told.recv().await {
            Some(told) => told,
            None => std::future::pending().await,
        }
    }

    /// Writes the next revision, unless the last one is the same; returns its number.
    async fn write(
        &mut self,
        bench: &Workbench,
        specification: &Specification,
        message: &str,
    ) -> anyhow::Result<Option<u64>> {
        self.known.add(&bench.components).await;
        for attempt in 1.. {
            let before = self.store.app(&self.app).await?;
            let last = before.as_ref().map(|kept| &kept.revision);
            let is_same = |last: &Revision| {
                last.specification.as_ref() == Some(specification) && last.rollouts().is_empty()
            };
            if last.is_some_and(is_same) {
                return Ok(None);
            }
            self.store_components(bench).await?;
            let mut signed = signed(Some(message.to_owned()));
            signed.source = Some(self.source.clone());
            let specification = Some(specification.clone());
            let revision = next(before.as_ref(), "up", specification, signed);
            let after = before.as_ref().map(|kept| kept.sequence);
            match self.store.write(&self.app, &revision, after).await {
                Ok(()) => {
                    self.last = revision.number;
                    break;
                }
                // The files are what is to run, whatever someone else has written meanwhile.
                Err(StoreError::Conflict { .. }) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Err(error) = self.store.collect_older(COLLECT).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "old components are kept");
        }
        Ok(Some(self.last))
    }

    async fn store_components(&self, bench: &Workbench) -> anyhow::Result<()> {
        let mut stored: BTreeMap<&Digest, ()> = BTreeMap::new();
        for (service, component) in &bench.components {
            if stored.insert(&component.digest, ()).is_some() {
                continue;
            }
            let file = bench.project.sources.get(service);
            let file = file.map(|source| source.file()).unwrap_or_default();
            let bytes = read(&file, &component.digest)?;
            let description = Arc::clone(component).description();
            let put = self.store.put_component(&bytes, &description).await;
            put.with_context(|| format!("service \"{service}\""))?;
        }
        Ok(())
    }
}

/// The bytes of a component as it was loaded.
fn read(file: &Path, digest: &Digest) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(file);
    let bytes = bytes.with_context(|| format!("cannot read {}", file.display()))?;
    if Digest::of(&bytes) == *digest {
        return Ok(bytes);
    }
    let what = format!("{} was changed while it was read", file.display());
    Err(failure(what, "the change is taken over next"))
}
