//! Components from registries: how they are reached, what the lock file pins, and where what was fetched is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use futures_util::StreamExt as _;
use wasmbay::fleet::{Signatures, read_signatures};
use wasmbay::manifest::{Digest, Manifest};
use wasmbay::manifest::{LOCK, Lock, Reference};
use wasmbay::registry::{Fetched, Registries, RegistryError, RegistryOptions};

use crate::args::Cache;
use crate::commands::sign;
use crate::progress::Progress;
use crate::project::of_service;
use crate::report::{failure, size};

/// What is fetched at the same time.
const AT_ONCE: usize = 4;

/// How registries are reached.
#[derive(clap::Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct Reach {
    /// A registry that is reached without TLS if it has none, with its port; those of this machine always are. May be
    /// given several times
    #[arg(
        long = "insecure-registry",
        value_name = "HOST",
        env = "WASMBAY_INSECURE_REGISTRIES",
        hide_env_values = true,
        value_delimiter = ','
    )]
    insecure: Vec<String>,
}

/// What a verb makes of components in registries.
#[derive(clap::Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct Pulling {
    /// Fail if wasmbay.lock would change
    #[arg(long)]
    locked: bool,
    #[command(flatten)]
    reach: Reach,
}

impl Reach {
    pub(crate) fn with(&self, cache: &Cache, progress: &Progress) -> Pulls {
        Pulls {
            locked: false,
            options: RegistryOptions {
                insecure: self.insecure.clone(),
                cache: cache.folder().map(|folder| folder.join("registry")),
            },
            progress: progress.clone(),
        }
    }
}

impl Pulling {
    pub(crate) fn with(&self, cache: &Cache, progress: &Progress) -> Pulls {
        Pulls {
            locked: self.locked,
            ..self.reach.with(cache, progress)
        }
    }
}

/// Fetches components from registries, or finds them where they were fetched to.
#[derive(Clone)]
pub(crate) struct Pulls {
    locked: bool,
    options: RegistryOptions,
    progress: Progress,
}

/// A component that was asked for, with the digest of its manifest.
pub(crate) struct Pulled {
    pub(crate) digest: Digest,
    pub(crate) fetched: Fetched,
}

/// The files of services, and what is wrong with those that have none.
type Files = (BTreeMap<String, PathBuf>, Vec<anyhow::Error>);

impl Pulls {
    /// With other progress.
    pub(crate) fn showing(&self, progress: Progress) -> Self {
        Self {
            progress,
            ..self.clone()
        }
    }

    pub(crate) fn registries(&self) -> anyhow::Result<Registries> {
        let registries = Registries::new(self.options.clone());
        registries.map_err(|error| anyhow!(error).context("TLS cannot be set up"))
    }

    /// Fetches what services need of a manifest's references as its lock file has it. What that does not have it has
    /// then, and nothing that is no reference of the manifest any more.
    ///
    /// # Errors
    ///
    /// The lock file is broken, cannot be written, or would change although it may not.
    pub(crate) async fn resolve(
        &self,
        path: &Path,
        all: &BTreeMap<String, Reference>,
        wanted: &BTreeMap<String, Reference>,
    ) -> anyhow::Result<Files> {
        let used: BTreeSet<&Reference> = wanted.values().collect();
        let old = Lock::beside(path)?;
        let mut lock = old.clone();
        lock.retain(&all.values().collect());
        if used.is_empty() && lock == old {
            return Ok(Files::default());
        }
        let registries = self.registries()?;
        let unknown = used.iter().copied();
        let unknown: Vec<&Reference> = unknown
            .filter(|one| lock.digest_of(one).is_none())
            .collect();
        if self.locked {
            self.refuse_change(&lock, &old, &unknown)?;
        }
        let mut failed = BTreeMap::new();
        let looks = unknown
            .into_iter()
            .map(async |one| (one, registries.look_up(one).await));
        let mut looks = futures_util::stream::iter(looks).buffered(AT_ONCE);
        while let Some((reference, looked)) = looks.next().await {
            match looked {
                Ok(digest) => drop(lock.set(reference, digest)),
                Err(error) => drop(failed.insert(reference, anyhow!(error))),
            }
        }
        drop(looks);
        if lock != old {
            lock.write(path)?;
            self.progress.print(&format!("wrote {LOCK}"));
        }
        let known = used
            .iter()
            .filter_map(|one| Some((*one, lock.digest_of(one)?)));
        let fetches =
            known.map(async |(one, digest)| (one, self.fetch(&registries, one, digest).await));
        let mut fetches = futures_util::stream::iter(fetches).buffered(AT_ONCE);
        let mut files = BTreeMap::new();
        while let Some((reference, fetched)) = fetches.next().await {
            match fetched {
                Ok(fetched) => drop(files.insert(reference, fetched.file)),
                Err(error) => drop(failed.insert(reference, error)),
            }
        }
        let mut found = Files::default();
        for (service, reference) in wanted {
            if let Some(file) = files.get(reference) {
                found.0.insert(service.clone(), file.clone());
            } else if let Some(error) = failed.remove(reference) {
                // What several services have is wrong once.
                found.1.push(of_service(service, error));
            }
        }
        Ok(found)
    }

    fn refuse_change(&self, lock: &Lock, old: &Lock, unknown: &[&Reference]) -> anyhow::Result<()> {
        let superfluous = lock.differences(old);
        let missing = unknown.iter().map(|one| format!("{one} is not in it"));
        let superfluous = superfluous
            .iter()
            .map(|one| format!("no service has {one}"));
        let why: Vec<_> = missing.chain(superfluous).collect();
        if why.is_empty() {
            return Ok(());
        }
        Err(failure(
            format!("{LOCK} would change: {}", why.join(", ")),
            "`wasmbay check` without `--locked` writes it; keep it with the manifest",
        ))
    }

    /// Fetches what a reference stands for now, with its signatures as they are now.
    pub(crate) async fn pull(&self, reference: &Reference) -> anyhow::Result<Pulled> {
        let registries = self.registries()?;
        let digest = registries.look_up(reference).await?;
        let fetched = self.fetch(&registries, reference, &digest).await?;
        if fetched.cached {
            self.fetch_signatures(&registries, reference, &digest, &fetched)
                .await;
        }
        Ok(Pulled { digest, fetched })
    }

    /// Fetches a component, with its signatures unless it was fetched before.
    pub(crate) async fn fetch(
        &self,
        registries: &Registries,
        reference: &Reference,
        digest: &Digest,
    ) -> anyhow::Result<Fetched> {
        let mut task = self.progress.task(reference.to_string());
        task.begin("pulling");
        let fetched = registries
            .fetch(reference, digest, task.moved().as_ref())
            .await?;
        if !fetched.cached {
            self.fetch_signatures(registries, reference, digest, &fetched)
                .await;
            task.end(&format!("pulled {} of", size(fetched.bytes)));
        }
        Ok(fetched)
    }

    /// Has the signatures of a component beside its file, where `wasmbay sign` would have put them. Without them it
    /// is the same component, so what is wrong with them is said and is no error.
    async fn fetch_signatures(
        &self,
        registries: &Registries,
        reference: &Reference,
        digest: &Digest,
        fetched: &Fetched,
    ) {
        let read = async {
            let mut signatures = Signatures::new();
            for text in registries.signatures(reference, digest).await? {
                signatures.extend(read_signatures(&text, &fetched.component)?);
            }
            sign::write(&fetched.file, &signatures)
        };
        if let Err(error) = read.await {
            let why = format!("{reference}: no signatures: {error:#}");
            self.progress.warn(&why);
        }
    }
}

/// A reference that was typed.
pub(crate) fn reference(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|error| format!("{error}"))
}

/// The file of a component that is named by a reference.
pub(crate) async fn file_of(reference: &str, pulls: &Pulls) -> anyhow::Result<PathBuf> {
    let reference: Reference = reference.parse()?;
    Ok(pulls.pull(&reference).await?.fetched.file)
}

/// Whether an error came from a registry.
pub(crate) fn is_of_registry(error: &anyhow::Error) -> bool {
    error.downcast_ref::<RegistryError>().is_some()
}

/// A reference that stands for something else than before.
pub(crate) struct Update {
    pub(crate) reference: Reference,
    pub(crate) from: Option<Digest>,
    pub(crate) to: Digest,
}

impl Pulls {
    /// Looks up these references again, fetches what they stand for, and returns the lock file with it, and what has
    /// changed in it.
    pub(crate) async fn update(
        &self,
        manifest: &Path,
        read: &Manifest,
        chosen: &BTreeSet<&Reference>,
    ) -> anyhow::Result<(Lock, Vec<Update>)> {
        let mut lock = Lock::beside(manifest)?;
        lock.retain(&read.references.values().collect());
        let registries = self.registries()?;
        let mut updates = Vec::new();
        for reference in chosen.iter().filter(|one| one.digest().is_none()) {
            let about = || reference.to_string();
            let to = registries.look_up(reference).await.with_context(about)?;
            let fetched = self
                .fetch(&registries, reference, &to)
                .await
                .with_context(about)?;
            if fetched.cached {
                self.fetch_signatures(&registries, reference, &to, &fetched)
                    .await;
            }
            let from = lock.set(reference, to.clone());
            if from.as_ref() != Some(&to) {
                updates.push(Update {
                    reference: (*reference).clone(),
                    from,
                    to,
                });
            }
        }
        Ok((lock, updates))
    }
}
