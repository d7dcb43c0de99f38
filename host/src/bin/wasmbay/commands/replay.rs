//! `wasmbay replay`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueHint;
use serde_json::json;
use wasmbay::cases::{self, Cases, Problem};
use wasmbay::host::HostError;
use wasmbay::manifest::ServiceSpec;
use wasmbay::runtime::{Component, Engine, Runtime};

use super::test::{INSTANCES, explain, no_service, wrong};
use crate::args::Cache;
use crate::progress::Progress;
use crate::project::{Job, Project, Source, build, load, manifest_in};
use crate::registries::Pulling;
use crate::report::{Exit, STRONG, Terminal, all_of, count, misconfigured, plain};

/// Run recorded calls against another version of a service
///
/// Calls the component in this process as a contract case does, with what its imports answered when the
/// calls were recorded, and shows where it answers otherwise or calls something else. Limits, grants and
/// configuration are those of the manifest, if there is one.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay replay payment-recording.json
  wasmbay replay payment-recording.json --component payment.wasm
  wasmbay replay orders-recording.json --ignore '$..orderId'

Exit codes: 0 all calls end as they did, 1 some differ, 2 wrong usage, 78 the file or the manifest is wrong.")]
pub(crate) struct Replay {
    /// The recording, or any file of contract cases
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// The new version: a `.wasm` file or a guest's folder; otherwise what the manifest names
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    component: Option<PathBuf>,
    /// The app's manifest, or its folder
    #[arg(long, value_name = "APP", default_value = "wasmbay.toml", value_hint = ValueHint::AnyPath)]
    manifest: PathBuf,
    /// A path to what may differ in results and in arguments of imports; may be repeated
    #[arg(long, value_name = "PATH")]
    ignore: Vec<String>,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    pulling: Pulling,
}

/// What came of recorded calls.
pub(super) struct Replayed {
    pub(super) calls: usize,
    /// Those that end otherwise, with what is otherwise.
    pub(super) differing: Vec<(String, Vec<Problem>)>,
}

pub(super) async fn run(args: Replay, terminal: &Terminal) -> anyhow::Result<Exit> {
    let mut cases = read(&args.file)?;
    cases.written.ignore.extend(args.ignore);
    let service = service_of(&cases);
    let project = match &args.component {
        Some(_) if !manifest_in(&args.manifest).is_file() => None,
        _ => {
            let progress = Progress::new(*terminal);
            let pulls = args.pulling.with(&args.cache, &progress);
            Some(Project::load(&args.manifest, &pulls).await?)
        }
    };
    let spec = match &project {
        None => {
            terminal.note("without a manifest there are no configuration and no grants");
            ServiceSpec::new(service.as_str())
        }
        Some(project) => {
            let services = &project.app.services;
            let names = services.keys().map(String::as_str);
            let spec = services.get(&service).cloned();
            spec.ok_or_else(|| misconfigured(no_service(&service, names)))?
        }
    };
    let source = match (&args.component, &project) {
        (Some(component), _) => Source::of(component)?,
        (None, Some(project)) => project
            .sources
            .get(&service)
            .cloned()
            .context("no component")?,
        (None, None) => return Ok(Exit::Configuration),
    };
    let app = project.as_ref().map_or("app", |project| &project.app.name);
    let root = project.as_ref().map(|project| project.root.clone());
    let progress = Progress::new(*terminal);
    if let Some(guest) = source.guest() {
        let job = Job {
            name: service.clone(),
            root: root.clone().unwrap_or_else(|| guest.folder.clone()),
            guest: guest.clone(),
        };
        let (_, errors) = build(vec![job], &progress);
        all_of((), errors)?;
    }
    let engine = Engine::new(args.cache.engine(INSTANCES)).context("the engine")?;
    let component = Arc::new(load(&engine, &service, &source.file(), &progress)?);
    let runtime = Runtime::new(engine)?.with_files(root.as_deref());
    let replayed = replay(&runtime, app, &component, &spec, &cases).await?;
    let Replayed { calls, differing } = &replayed;
    if terminal.json() {
        let differing: Vec<_> = differing
            .iter()
            .map(|(name, problems)| {
                let problems = problems.iter().map(|problem| {
                    json!({ "message": problem.to_string(), "differences": problem.differences() })
                });
                json!({ "name": name, "problems": problems.collect::<Vec<_>>() })
            })
            .collect();
        terminal
            .result_json(&json!({ "service": service, "calls": calls, "differing": differing }))?;
    } else {
        for (name, problems) in differing {
            let name = plain(name);
            let why = explain(problems);
            terminal.result(format_args!(
                "{name}: {STRONG}differs{STRONG:#}\n{}",
                why.trim_end()
            ))?;
        }
        match differing.len() {
            0 => terminal.say(format_args!("{} ended as before", count(*calls, "call"))),
            some => terminal.say(format_args!("{some} of {} differ", count(*calls, "call"))),
        }
    }
    Ok(match differing.is_empty() {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

/// Reads a recording.
pub(super) fn read(file: &Path) -> anyhow::Result<Cases> {
    Cases::read(file).map_err(wrong)
}

/// The service that a recording is of.
pub(super) fn service_of(cases: &Cases) -> String {
    let named = || {
        cases
            .file
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let service = cases.written.service.clone();
    service.or_else(named).unwrap_or_default()
}

/// Runs recorded calls against a component. One that does not fit its types any more differs.
pub(super) async fn replay(
    runtime: &Runtime,
    app: &str,
    component: &Arc<Component>,
    spec: &ServiceSpec,
    cases: &Cases,
) -> anyhow::Result<Replayed> {
    let mut differing = Vec::new();
    let checked = cases.check(&component.description());
    let calls = checked.len();
    for (checked, written) in checked.into_iter().zip(&cases.written.cases) {
        let problems = match checked {
            Ok(case) => {
                let ran = cases::run(runtime, app, component, spec, &case).await;
                ran.map_err(HostError::Service)?
            }
            Err(errors) => {
                // What is ignored is no part of the recording.
                let ignored = |error: &&cases::CaseError| error.at.starts_with("$.ignore");
                if let Some(error) = errors.iter().find(ignored) {
                    return Err(wrong(error.clone()));
                }
                let misfit = |error: cases::CaseError| Problem::Misfit {
                    at: error.at,
                    why: error.why,
                };
                errors.into_iter().map(misfit).collect()
            }
        };
        if !problems.is_empty() {
            differing.push((written.name.clone(), problems));
        }
    }
    Ok(Replayed { calls, differing })
}
