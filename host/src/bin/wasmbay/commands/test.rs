//! `wasmbay test`.

mod outcome;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueHint;
use wasmbay::build::{Guest, Tested, Tools};
use wasmbay::cases::{self, Case, CaseError, Cases, FOLDER};
use wasmbay::host::HostError;
use wasmbay::runtime::{Component, Engine, Runtime};
use wasmbay::text::nearest;

use super::shown;
use super::signals::Signals;
use crate::args::Cache;
use crate::progress::Progress;
use crate::project::{Project, Workbench};
use crate::registries::{Pulling, Pulls};
use crate::report::{self, Exit, Terminal, all_of, misconfigured};
use crate::watch::Watch;
pub(super) use outcome::explain;
use outcome::{CaseOutcome, Outcome, Round};

/// Instances for cases, which run one after the other.
pub(super) const INSTANCES: u32 = 16;

/// Run the tests of an app
///
/// Builds what has changed, runs each guest's unit tests by its language's own runner (`cargo test`,
/// `go test`, `node --test` or `npm test`, `unittest` or `pytest`, C programs in tests/), and then the
/// contract cases of each service: `tests/SERVICE.json` and `tests/SERVICE/*.json` beside the manifest.
/// A case calls the built component in this process, without NATS, and answers what it imports.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay test
  wasmbay test --watch
  wasmbay test examples/shop --service payment --filter declined
  wasmbay test --output json | jq '.services[].cases[] | select(.passed | not)'

Exit codes: 0 all passed, 1 a test failed or something did not build, 78 the manifest or a file of
cases is wrong.")]
pub(crate) struct Test {
    /// The app's manifest, or its folder
    #[arg(value_name = "APP", default_value = "wasmbay.toml", value_hint = ValueHint::AnyPath)]
    manifest: PathBuf,
    /// Test this service only; may be repeated
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// Run the cases whose name has this text, and no unit tests
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Run again what a change of files touches, until it is interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    pulling: Pulling,
}

pub(super) async fn run(args: Test, terminal: &Terminal) -> anyhow::Result<Exit> {
    let progress = Progress::new(*terminal);
    let pulls = args.pulling.with(&args.cache, &progress);
    let project = Project::load(&args.manifest, &pulls).await?;
    let engine = Engine::new(args.cache.engine(INSTANCES)).context("the engine")?;
    let mut tests = Tests {
        bench: Workbench::new(project, engine.clone()),
        engine,
        services: args.services,
        filter: args.filter.map(|text| text.to_lowercase()),
        terminal: *terminal,
        pulls,
    };
    tests.check_names()?;
    if !args.watch {
        return tests.run(None).await;
    }
    let mut signals = Signals::new()?;
    tokio::select! {
        ended = tests.watch() => ended,
        () = signals.next() => Ok(Exit::Done),
    }
}

struct Tests {
    bench: Workbench,
    engine: Engine,
    /// Those that were named.
    services: Vec<String>,
    filter: Option<String>,
    terminal: Terminal,
    pulls: Pulls,
}

/// The checked cases of a service, each with its file.
type OfService = Vec<(PathBuf, Case)>;

impl Tests {
    /// Refuses names of services that are not there.
    fn check_names(&self) -> anyhow::Result<()> {
        let known = &self.bench.project.app.services;
        let unknown = self
            .services
            .iter()
            .filter(|name| !known.contains_key(*name));
        let errors = unknown.map(|name| misconfigured(no_service(name, self.names())));
        all_of((), errors.collect())
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.bench.project.app.services.keys().map(String::as_str)
    }

    fn is_chosen(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|name| name == service)
    }

    /// Runs tests again and again, as files change.
    async fn watch(&mut self) -> anyhow::Result<Exit> {
        let mut watch = Watch::new().context("cannot watch for changes")?;
        let mut touched = None;
        loop {
            // Before anything is read, so that what changes from now on is another change.
            watch.follow_also(&self.bench.project, &self.folder());
            if let Err(error) = self.run(touched.as_ref()).await {
                report::error(&error);
            }
            watch.follow_also(&self.bench.project, &self.folder());
            self.terminal.note("waiting for changes; Ctrl-C ends it");
            touched = loop {
                let changed = watch.changed().await;
                if watch.is_manifest(&changed) {
                    match Project::load(&self.bench.project.given, &self.pulls).await {
                        Ok(project) => self.bench.replace(project),
                        Err(error) => {
                            report::error(&error);
                            continue;
                        }
                    }
                    break None;
                }
                let touched = self.touched(&changed);
                if !touched.is_empty() {
                    break Some(touched);
                }
                watch.follow_also(&self.bench.project, &self.folder());
            };
        }
    }

    fn folder(&self) -> PathBuf {
        self.bench.project.root.join(FOLDER)
    }

    /// The services whose component or tests a change touches.
    fn touched(&mut self, changed: &BTreeSet<PathBuf>) -> BTreeSet<String> {
        self.bench.touch(changed);
        let folder = self.folder();
        let mut touched = self.bench.pending.clone();
        let of_cases = changed.iter().filter_map(|path| {
            let inside = path.strip_prefix(&folder).ok()?.components().next()?;
            let name = Path::new(inside.as_os_str()).file_stem()?.to_str()?;
            Some(name.to_owned())
        });
        // A file may be another service's than its name says, or be there no more.
        for name in of_cases {
            match self.bench.project.sources.contains_key(&name) {
                true => drop(touched.insert(name)),
                false => touched.extend(self.bench.project.sources.keys().cloned()),
            }
        }
        for (name, source) in &self.bench.project.sources {
            let mut changed = changed.iter();
            if source
                .guest()
                .is_some_and(|guest| changed.any(|path| guest.is_test(path)))
            {
                touched.insert(name.clone());
            }
        }
        touched.retain(|name| self.is_chosen(name));
        touched
    }

    /// Runs the tests of these services, or of all, once.
    async fn run(&mut self, only: Option<&BTreeSet<String>>) -> anyhow::Result<Exit> {
        let names = self.names().filter(|name| self.is_chosen(name));
        let names = names.filter(|name| only.is_none_or(|only| only.contains(*name)));
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        let progress = Progress::new(self.terminal);
        // The others need not build.
        let others = self
            .bench
            .pending
            .difference(&names)
            .cloned()
            .collect::<Vec<_>>();
        self.bench.pending.retain(|name| names.contains(name));
        let prepared = self.bench.prepare(&progress).await;
        self.bench.pending.extend(others);
        prepared?;
        let cases = self.cases(&names)?;
        let units = match self.filter {
            None => self.unit_tests(&names, &progress).await?,
            Some(_) => BTreeMap::new(),
        };
        let root = &self.bench.project.root;
        let runtime = Runtime::new(self.engine.clone())?.with_files(Some(root));
        let mut round = Round::new(self.terminal, self.filter.is_some());
        for name in &names {
            let Some(component) = self.bench.components.get(name) else {
                continue;
            };
            let mut outcome = Outcome::new(name, self.bench.project.sources.get(name));
            outcome.units = units.get(name).cloned();
            round.begin(&outcome);
            for (file, case) in cases.get(name).into_iter().flatten() {
                let ran = self.run_case(&runtime, name, component, file, case).await?;
                round.say(name, &ran);
                outcome.cases.push(ran);
            }
            round.end(outcome);
        }
        Ok(round.finish()?)
    }

    async fn run_case(
        &self,
        runtime: &Runtime,
        service: &str,
        component: &Arc<Component>,
        file: &Path,
        case: &Case,
    ) -> anyhow::Result<CaseOutcome> {
        let app = &self.bench.project.app;
        let spec = app.services.get(service).context("the service is gone")?;
        let ran = cases::run(runtime, &app.name, component, spec, case).await;
        let problems = ran.map_err(HostError::Service)?;
        Ok(CaseOutcome {
            file: shown(file),
            name: case.name.clone(),
            problems,
        })
    }

    /// The cases of these services that are wanted, checked by the types of their components. All files are read,
    /// since any may be of a service that is not there.
    fn cases(&self, names: &BTreeSet<String>) -> anyhow::Result<BTreeMap<String, OfService>> {
        let mut all: BTreeMap<String, OfService> = BTreeMap::new();
        let mut errors: Vec<anyhow::Error> = Vec::new();
        let files = cases::files(&self.bench.project.root).map_err(wrong)?;
        for (named, file) in files {
            let cases = match Cases::read(&file) {
                Ok(cases) => cases,
                Err(error) if self.is_chosen(&named) => {
                    errors.push(wrong(error));
                    continue;
                }
                Err(_) => continue,
            };
            let service = cases.written.service.clone().unwrap_or(named);
            if !self.bench.project.app.services.contains_key(&service) {
                let why = no_service(&service, self.names());
                errors.push(misconfigured(format!("{}: {why}", shown(&file))));
                continue;
            }
            let component = self.bench.components.get(&service);
            let Some(component) = component.filter(|_| names.contains(&service)) else {
                continue;
            };
            let of_service = all.entry(service).or_default();
            for checked in cases.check(&component.description()) {
                match checked {
                    Ok(case) if self.wants(&case) => of_service.push((file.clone(), case)),
                    Ok(_) => {}
                    Err(found) => errors.extend(found.into_iter().map(wrong)),
                }
            }
        }
        all_of(all, errors)
    }

    fn wants(&self, case: &Case) -> bool {
        let filter = self.filter.as_deref();
        filter.is_none_or(|text| case.name.to_lowercase().contains(text))
    }

    /// What the unit tests of these services' guests say. Those of a guest of several services are run once.
    async fn unit_tests(
        &self,
        names: &BTreeSet<String>,
        progress: &Progress,
    ) -> anyhow::Result<BTreeMap<String, Tested>> {
        let mut guests: BTreeMap<PathBuf, (Guest, Vec<String>)> = BTreeMap::new();
        for (name, source) in &self.bench.project.sources {
            if let Some(guest) = source.guest().filter(|_| names.contains(name)) {
                let (_, services) = guests
                    .entry(guest.folder.clone())
                    .or_insert_with(|| (guest.clone(), Vec::new()));
                services.push(name.clone());
            }
        }
        let root = self.bench.project.root.clone();
        let progress = progress.clone();
        let running = tokio::task::spawn_blocking(move || {
            let (mut all, mut errors) = (BTreeMap::new(), Vec::new());
            for (guest, services) in guests.into_values() {
                let name = services.first().map(String::as_str).unwrap_or_default();
                match unit_tests(&root, &guest, name, &progress) {
                    Ok(Some(tested)) => {
                        all.extend(services.into_iter().map(|name| (name, tested.clone())));
                    }
                    Ok(None) => {}
                    Err(error) => errors.push(error),
                }
            }
            all_of(all, errors)
        });
        running.await.context("unit tests")?
    }
}

fn unit_tests(
    root: &Path,
    guest: &Guest,
    name: &str,
    progress: &Progress,
) -> anyhow::Result<Option<Tested>> {
    let tools = Tools::of_app(root, &guest.folder);
    let mut task = progress.task(format!("{name} ({})", guest.language));
    task.begin("testing");
    let tested = guest.test(&tools, &mut |line| task.step("testing", line));
    tested.with_context(|| format!("service \"{name}\""))
}

/// What is wrong with a file of cases, which is named as briefly as elsewhere.
pub(super) fn wrong(error: CaseError) -> anyhow::Error {
    let file = shown(&error.file).into();
    misconfigured(CaseError { file, ..error }.to_string())
}

pub(super) fn no_service<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    let meant = nearest(name, known.iter().copied());
    let meant = meant.map(|name| format!("; did you mean \"{name}\"?"));
    let name = wasmbay::text::shown(name);
    format!(
        "there is no service \"{name}\"{}",
        meant.unwrap_or_default()
    )
}
