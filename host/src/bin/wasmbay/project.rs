//! From a manifest to loaded components: what is given as a folder is built, and all is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use wasmbay::build::{BuildError, Comments, Guest, Language, Tools};
use wasmbay::host::HostError;
use wasmbay::manifest::{App, FILE_NAME, Manifest, Reference};
use wasmbay::plan::{self, MAX_DOCS};
use wasmbay::runtime::Component;
use wasmbay::runtime::Engine;

use crate::progress::Progress;
use crate::registries::Pulls;
use crate::report::all_of;

/// An app and where its components come from.
pub(crate) struct Project {
    /// The manifest's file as it was named, which may lead over links.
    pub(crate) given: PathBuf,
    /// The manifest's file.
    pub(crate) manifest: PathBuf,
    /// The manifest's folder.
    pub(crate) root: PathBuf,
    pub(crate) app: App,
    /// By service.
    pub(crate) sources: BTreeMap<String, Source>,
}

/// What services have in registries.
type References = BTreeMap<String, Reference>;

/// Where a service's component comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A folder that is built.
    Guest(Guest),
    /// A file that is there.
    File(PathBuf),
    /// A file that was fetched from a registry. It does not change.
    Fetched(PathBuf),
}

impl Source {
    /// A folder is a guest, anything else is a component.
    pub(crate) fn of(component: &Path) -> Result<Self, BuildError> {
        if component.is_dir() {
            Guest::open(component).map(Self::Guest)
        } else {
            Ok(Self::File(component.to_owned()))
        }
    }

    pub(crate) fn guest(&self) -> Option<&Guest> {
        match self {
            Self::Guest(guest) => Some(guest),
            Self::File(_) | Self::Fetched(_) => None,
        }
    }

    pub(crate) fn language(&self) -> Option<Language> {
        self.guest().map(|guest| guest.language)
    }

    /// The component's file; a guest's is there once it is built.
    pub(crate) fn file(&self) -> PathBuf {
        match self {
            Self::Guest(guest) => guest.component(),
            Self::File(file) | Self::Fetched(file) => file.clone(),
        }
    }

    /// Whether a change of this file can change the component.
    pub(crate) fn depends_on(&self, changed: &Path) -> bool {
        match self {
            Self::Guest(guest) => guest.is_source(changed),
            Self::File(file) => file == changed,
            Self::Fetched(_) => false,
        }
    }

    /// Whether a folder is watched: what is in it can change the component or its tests.
    pub(crate) fn is_watched(&self, folder: &Path) -> bool {
        self.depends_on(folder) || self.guest().is_some_and(|guest| guest.is_test(folder))
    }

    /// Whether a folder that was moved, removed or made can have what the component is made of.
    fn is_below(&self, folder: &Path) -> bool {
        match self {
            Self::Guest(guest) => guest.folder.starts_with(folder) || guest.wit.starts_with(folder),
            Self::File(file) => file.starts_with(folder),
            Self::Fetched(_) => false,
        }
    }
}

/// The manifest's file, given the file or its folder.
pub(crate) fn manifest_in(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(FILE_NAME)
    } else {
        path.to_owned()
    }
}

/// Where a manifest says that components are, whether or not they are there, and whatever else is wrong
/// with it.
pub(crate) fn named_components(manifest: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(manifest).unwrap_or_default();
    let table: toml::Table = text.parse().unwrap_or_default();
    let services = table.get("service").and_then(toml::Value::as_table);
    let services = services.into_iter().flat_map(toml::Table::values);
    let components = services.filter_map(|service| service.get("component")?.as_str());
    let components = components.filter(|component| !Reference::is_meant(component));
    let root = manifest.parent().unwrap_or(Path::new(""));
    components.map(|component| root.join(component)).collect()
}

impl Project {
    /// Reads a manifest, or that of a folder, recognises its guests, and fetches what is in registries.
    ///
    /// # Errors
    ///
    /// The manifest is refused, some of the folders hold no guest, or something cannot be fetched.
    pub(crate) async fn load(path: &Path, pulls: &Pulls) -> anyhow::Result<Self> {
        let (project, errors) = Self::load_partly(path, pulls).await?;
        all_of(project, errors)
    }

    /// As [`Project::load`], but without the services whose folder holds no guest, or that cannot be fetched.
    pub(crate) async fn load_partly(
        path: &Path,
        pulls: &Pulls,
    ) -> anyhow::Result<(Self, Vec<anyhow::Error>)> {
        let (mut project, references, mut errors) = Self::read(path)?;
        let manifest = manifest_in(path);
        let fetched = pulls.resolve(&manifest, &references, &references);
        let (fetched, unfetched) = fetched.await?;
        let fetched = fetched.into_iter();
        let fetched = fetched.map(|(name, file)| (name, Source::Fetched(file)));
        project.sources.extend(fetched);
        errors.extend(unfetched);
        Ok((project, errors))
    }

    /// Reads a manifest, and what is beside it; also returns the references to what is in registries, and what is
    /// wrong.
    pub(crate) fn read(path: &Path) -> anyhow::Result<(Self, References, Vec<anyhow::Error>)> {
        let read = Manifest::load(path)?;
        let mut sources = BTreeMap::new();
        let mut errors = Vec::new();
        for (name, component) in &read.components {
            match Source::of(component) {
                Ok(source) => drop(sources.insert(name.clone(), source)),
                Err(error) => errors.push(of_service(name, error)),
            }
        }
        let manifest = manifest_in(path);
        let project = Self {
            given: std::path::absolute(&manifest).unwrap_or_else(|_| manifest.clone()),
            // As the services' folders are, so that a watched folder has one name.
            manifest: manifest.canonicalize().unwrap_or(manifest),
            root: read.root,
            app: read.app,
            sources,
        };
        Ok((project, read.references, errors))
    }

    /// What has to be built for these services (otherwise for all), each folder once.
    pub(crate) fn jobs(&self, services: Option<&BTreeSet<String>>) -> Vec<Job> {
        let mut folders = BTreeSet::new();
        let chosen = |name: &String| services.is_none_or(|services| services.contains(name));
        let sources = self.sources.iter().filter(|(name, _)| chosen(name));
        let guests = sources.filter_map(|(name, source)| Some((name, source.guest()?)));
        guests
            .filter(|(_, guest)| folders.insert(guest.folder.clone()))
            .map(|(name, guest)| Job {
                name: name.clone(),
                root: self.root.clone(),
                guest: guest.clone(),
            })
            .collect()
    }
}

pub(crate) fn of_service(name: &str, error: impl Into<anyhow::Error>) -> anyhow::Error {
    error.into().context(format!("service \"{name}\""))
}

/// A guest to be built, under the name that a user knows it by.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) name: String,
    /// Where its manifest is, whose project's tools are used.
    pub(crate) root: PathBuf,
    pub(crate) guest: Guest,
}

/// What came of a job.
pub(crate) struct Built {
    pub(crate) name: String,
    pub(crate) guest: Guest,
    pub(crate) file: PathBuf,
    /// Whether there was anything to do.
    pub(crate) fresh: bool,
    pub(crate) time: Duration,
}

/// Builds guests, as many at a time as there are cores. Blocks.
pub(crate) fn build(jobs: Vec<Job>, progress: &Progress) -> (Vec<Built>, Vec<anyhow::Error>) {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(jobs.len());
    // Results in the order of the jobs, whatever finishes first.
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((index, job)) = next else { break };
                    let built = build_one(job, progress);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(index, built);
                }
            });
        }
    });
    let (mut built, mut errors) = (Vec::new(), Vec::new());
    for result in done
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_values()
    {
        match result {
            Ok(one) => built.push(one),
            Err(error) => errors.push(error),
        }
    }
    (built, errors)
}

fn build_one(job: Job, progress: &Progress) -> anyhow::Result<Built> {
    let Job { name, root, guest } = job;
    let started = Instant::now();
    let mut task = progress.task(format!("{name} ({})", guest.language));
    task.begin("building");
    let mut fresh = false;
    let tools = Tools::of_app(&root, &guest.folder);
    let result = guest.build(&tools, &mut |line| {
        fresh = true;
        task.step("building", line);
    });
    let file = result.map_err(|error| of_service(&name, error))?;
    task.end("built");
    Ok(Built {
        name,
        guest,
        file,
        fresh,
        time: started.elapsed(),
    })
}

/// Loads a component under its service's name. Blocks.
pub(crate) fn load(
    engine: &Engine,
    name: &str,
    file: &Path,
    progress: &Progress,
) -> anyhow::Result<Component> {
    let mut task = progress.task(name);
    task.begin("compiling");
    let component = Component::load(engine, file).map_err(|source| HostError::Component {
        service: name.to_owned(),
        path: file.to_owned(),
        source,
    })?;
    task.end("compiled");
    Ok(component)
}

/// The documentation comments of an app's `wit/` folders, each read once.
struct AllComments<'a> {
    /// Where the manifest is.
    root: &'a Path,
    read: BTreeMap<PathBuf, Option<Comments>>,
    progress: &'a Progress,
}

impl AllComments<'_> {
    /// Gives a component those of its guest's folder, else of the manifest's. Without them it is the same component,
    /// so what is wrong with them is said and is no error.
    fn add(&mut self, name: &str, source: &Source, component: &mut Component) {
        let guest = source.guest().map(|guest| guest.wit.clone());
        // A program has none.
        let guest = guest.filter(|wit| wit.is_dir());
        let folders: Vec<_> = guest
            .into_iter()
            .chain(Comments::folder(self.root))
            .collect();
        for folder in &folders {
            if !self.read.contains_key(folder) {
                let comments = Comments::read(folder).map_err(|error| {
                    let error = anyhow::Error::from(error);
                    let why = format!("no documentation comments: {error:#}");
                    self.progress.warn(&why);
                });
                self.read.insert(folder.clone(), comments.ok());
            }
        }
        let known = folders
            .iter()
            .filter_map(|folder| self.read.get(folder)?.as_ref());
        let interfaces = component.exports.iter().chain(&component.imports);
        let docs = interfaces.filter_map(|interface| {
            let docs = known.clone().find_map(|comments| comments.of(interface))?;
            Some((interface.id.clone(), docs))
        });
        component.docs = docs.collect();
        if !plan::docs_fit(&component.docs) {
            component.docs.clear();
            self.progress.warn(&format!(
                "{name}: no documentation comments: they are more than {MAX_DOCS} bytes"
            ));
        }
    }
}

/// An app on its way to being run, again and again as its sources change.
pub(crate) struct Workbench {
    pub(crate) project: Project,
    /// What was loaded last, by service.
    pub(crate) components: BTreeMap<String, Arc<Component>>,
    /// Services whose component may not be that of their sources.
    pub(crate) pending: BTreeSet<String>,
    engine: Engine,
}

impl Workbench {
    pub(crate) fn new(project: Project, engine: Engine) -> Self {
        let pending = project.app.services.keys().cloned().collect();
        Self {
            project,
            components: BTreeMap::new(),
            pending,
            engine,
        }
    }

    /// Takes over a manifest that has changed.
    pub(crate) fn replace(&mut self, project: Project) {
        self.pending = project.app.services.keys().cloned().collect();
        self.components
            .retain(|name, _| self.pending.contains(name));
        self.project = project;
    }

    /// Marks the services that depend on a file that has changed; returns whether there are any.
    pub(crate) fn touch(&mut self, changed: &BTreeSet<PathBuf>) -> bool {
        let touches = |source: &Source, path| source.depends_on(path) || source.is_below(path);
        let touched = |source: &&Source| changed.iter().any(|path| touches(source, path));
        let sources = self.project.sources.iter();
        let names: Vec<_> = sources
            .filter(|(_, source)| touched(source))
            .map(|(name, _)| name.clone())
            .collect();
        self.pending.extend(names.iter().cloned());
        !names.is_empty()
    }

    /// Builds and loads what is pending, and returns the time that building took.
    ///
    /// # Errors
    ///
    /// All that does not build or load; that stays pending, the rest is done.
    pub(crate) async fn prepare(&mut self, progress: &Progress) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let jobs = self.project.jobs(Some(&self.pending));
        let shown = progress.clone();
        let (built, mut errors) = tokio::task::spawn_blocking(move || build(jobs, &shown))
            .await
            .context("building")?;
        let time = started.elapsed();

        let built: BTreeSet<&PathBuf> = built.iter().map(|one| &one.guest.folder).collect();
        let ready = |source: &&Source| match source {
            Source::Guest(guest) => built.contains(&guest.folder),
            Source::File(_) | Source::Fetched(_) => true,
        };
        let sources = self.project.sources.iter();
        let ready: Vec<(String, Source)> = sources
            .filter(|(name, source)| self.pending.contains(*name) && ready(source))
            .map(|(name, source)| (name.clone(), source.clone()))
            .collect();
        let (engine, shown) = (self.engine.clone(), progress.clone());
        let root = self.project.manifest.parent().map(Path::to_owned);
        let loading = tokio::task::spawn_blocking(move || {
            let mut comments = AllComments {
                root: root.as_deref().unwrap_or(Path::new("")),
                read: BTreeMap::new(),
                progress: &shown,
            };
            let load = |(name, source): (String, Source)| {
                let component = load(&engine, &name, &source.file(), &shown);
                let component = component.map(|mut component| {
                    comments.add(&name, &source, &mut component);
                    Arc::new(component)
                });
                (name, component)
            };
            ready.into_iter().map(load).collect::<Vec<_>>()
        });
        for (name, component) in loading.await.context("loading")? {
            match component {
                Ok(component) => {
                    self.pending.remove(&name);
                    self.components.insert(name, component);
                }
                Err(error) => errors.push(error),
            }
        }
        all_of(time, errors)
    }
}
