//! `wasmbay check`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueHint;
use serde_json::json;
use wasmbay::build::BuildError;
use wasmbay::grpc::Api;
use wasmbay::host::{self, HostError};
use wasmbay::manifest::{App, ManifestError, PROTO_LOCK};
use wasmbay::plan::{self, Description, PlanError, Unreached};
use wasmbay::runtime::{Component, DEFAULT_INSTANCES, Engine, Runtime, Service};

use super::shown;
use crate::args::Cache;
use crate::progress::Progress;
use crate::project::{Built, Project, Source, build, load, manifest_in};
use crate::registries::{Pulling, is_of_registry};
use crate::report::{self, Exit, Terminal, count, failure};

/// Find what is wrong with an app, without running it
///
/// Checks the manifest, the tools, that everything builds, that every component can be loaded, and
/// that the services fit together. Prints everything that is wrong.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay check
  wasmbay check --no-build examples/shop/wasmbay.toml
  wasmbay check --output json | jq '.problems[].message'

Exit codes: 0 nothing is wrong, 78 something is.")]
pub(crate) struct Check {
    /// The app's manifest, or its folder
    #[arg(default_value = "wasmbay.toml", value_hint = ValueHint::FilePath)]
    manifest: PathBuf,
    /// Check what is built already
    #[arg(long)]
    no_build: bool,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    pulling: Pulling,
}

pub(super) async fn run(args: Check, terminal: &Terminal) -> anyhow::Result<Exit> {
    let manifest = manifest_in(&args.manifest);
    let mut found = Found::default();
    let progress = Progress::new(*terminal);
    let pulls = args.pulling.with(&args.cache, &progress);
    let project = match Project::load_partly(&manifest, &pulls).await {
        Ok((project, errors)) => {
            let (fetched, built) = errors.into_iter().partition(is_of_registry);
            found.extend("guest", built);
            found.extend("registry", fetched);
            Some(project)
        }
        Err(error) => {
            found.push("manifest", error);
            None
        }
    };
    let mut warnings = Vec::new();
    if let Some(project) = &project {
        let components = check(project, &args, &progress, &mut found)?;
        warnings.extend(crowded(&project.app, DEFAULT_INSTANCES));
        let unreached = plan::unreached(&project.app, &components);
        warnings.extend(unreached.iter().map(Unreached::to_string));
        warnings.extend(unlocked(&project.app, &components));
    }
    let problems = found.0;
    for warning in &warnings {
        terminal.note(format_args!("warning: {warning}"));
    }
    if terminal.json() {
        let all: Vec<_> = problems.iter().flat_map(describe).collect();
        terminal
            .result_json(&json!({ "manifest": manifest, "problems": all, "warnings": warnings }))?;
    } else if let (Some(project), true) = (&project, problems.is_empty()) {
        let routes = count(project.app.routes.len(), "route");
        let some = |number: usize, what: &str| match number {
            0 => String::new(),
            number => format!(", {}", count(number, what)),
        };
        let jobs = project.app.jobs().count();
        let services = count(project.app.services.len().saturating_sub(jobs), "service");
        let pipelines = some(project.app.pipelines.len(), "pipeline");
        let jobs = some(jobs, "job");
        terminal.say(format_args!(
            "{}: nothing is wrong ({services}, {routes}{pipelines}{jobs})",
            shown(&manifest)
        ));
    } else {
        let errors = problems.into_iter().map(|problem| problem.error).collect();
        report::error(&report::Failures(errors).into());
        return Ok(Exit::Configuration);
    }
    Ok(if problems.is_empty() {
        Exit::Done
    } else {
        Exit::Configuration
    })
}

/// One thing that is wrong, and the stage that found it.
struct Problem {
    stage: &'static str,
    error: anyhow::Error,
}

#[derive(Default)]
struct Found(Vec<Problem>);

impl Found {
    fn push(&mut self, stage: &'static str, error: impl Into<anyhow::Error>) {
        self.0.push(Problem {
            stage,
            error: error.into(),
        });
    }

    fn extend(&mut self, stage: &'static str, errors: Vec<anyhow::Error>) {
        self.0
            .extend(errors.into_iter().map(|error| Problem { stage, error }));
    }
}

/// Each stage goes on with what the one before it left whole. Returns what was loaded.
fn check(
    project: &Project,
    args: &Check,
    progress: &Progress,
    found: &mut Found,
) -> anyhow::Result<BTreeMap<String, Description>> {
    let files = if args.no_build {
        built(project, found)
    } else {
        build_all(project, progress, found)
    };
    let engine = args.cache.looking_engine()?;
    let mut components = BTreeMap::new();
    for (name, file) in files {
        match load(&engine, &name, &file, progress) {
            Ok(component) => drop(components.insert(name, Arc::new(component))),
            Err(error) => found.push("component", error),
        }
    }
    link(project, &engine, &components, found);
    // Against what is missing, the others would all be found wrong.
    if components.len() == project.app.services.len() {
        match host::check(&project.app, &components) {
            Ok(_) => {}
            Err(HostError::Plan(errors)) => {
                errors
                    .into_iter()
                    .for_each(|error: PlanError| found.push("wiring", error));
            }
            Err(error) => found.push("wiring", error),
        }
    }
    let described = components.into_iter();
    Ok(described
        .map(|(name, component)| (name, component.description()))
        .collect())
}

/// A warning if messages of gRPC have fields that the file of numbers does not know.
fn unlocked(app: &App, components: &BTreeMap<String, Description>) -> Option<String> {
    if app.proto_lock.is_empty() {
        return None;
    }
    let plan = plan::plan(app, components).ok()?;
    let lock = Api::new(app, &plan, components).lock(&app.proto_lock);
    (lock != app.proto_lock).then(|| {
        format!("{PROTO_LOCK} does not have the types of now; `wasmbay proto --lock` writes it")
    })
}

/// A warning if the services together can work on more calls than a host has instances: those beyond
/// are answered with 429.
pub(super) fn crowded(app: &App, instances: u32) -> Option<String> {
    let calls = app
        .services
        .values()
        .map(|s| u64::from(s.limits.concurrency));
    let calls: u64 = calls.sum();
    (calls > u64::from(instances)).then(|| {
        format!(
            "the services can work on {calls} calls at a time (the sum of `limits.concurrency`) and a host has {instances} instances; `--instances {calls}` has one for each"
        )
    })
}

/// The files that are there already.
fn built(project: &Project, found: &mut Found) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for (name, source) in &project.sources {
        let file = source.file();
        match source {
            Source::Guest(guest) if !file.is_file() => found.push(
                "build",
                failure(
                    format!("service \"{name}\" is not built"),
                    format!("`wasmbay build {}`", shown(&guest.folder)),
                ),
            ),
            _ => files.push((name.clone(), file)),
        }
    }
    files
}

/// Builds all guests. A tool that is missing is reported once, however many need it.
fn build_all(project: &Project, progress: &Progress, found: &mut Found) -> Vec<(String, PathBuf)> {
    let (built, errors) = build(project.jobs(None), progress);
    let mut missing = BTreeSet::new();
    for error in errors {
        match error.downcast_ref() {
            Some(BuildError::Missing { tool, .. }) if !missing.insert(*tool) => {}
            Some(BuildError::Missing { .. }) => found.push("tools", error),
            _ => found.push("build", error),
        }
    }
    let mut files = Vec::new();
    for (name, source) in &project.sources {
        let file = source.file();
        let is_ready = |built: &Built| built.file == file;
        if source.guest().is_none() || built.iter().any(is_ready) {
            files.push((name.clone(), file));
        }
    }
    files
}

/// Imports that neither the host nor a message can satisfy.
fn link(
    project: &Project,
    engine: &Engine,
    components: &BTreeMap<String, Arc<Component>>,
    found: &mut Found,
) {
    let runtime = match Runtime::new(engine.clone()) {
        Ok(runtime) => runtime.with_files(Some(&project.root)),
        Err(error) => return found.push("component", error),
    };
    for (name, component) in components {
        let Some(spec) = project.app.services.get(name) else {
            continue;
        };
        let (component, spec) = (Arc::clone(component), Arc::new(spec.clone()));
        if let Err(error) = Service::new(&runtime, &project.app.name, component, spec) {
            found.push("component", error);
        }
    }
}

fn describe(problem: &Problem) -> Vec<serde_json::Value> {
    let Problem { stage, error } = problem;
    if let Some(ManifestError::Refused(problems)) = error.downcast_ref() {
        let of = |problem: &wasmbay::manifest::Problem| {
            json!({
                "stage": stage,
                "file": problem.file,
                "line": problem.line,
                "column": problem.column,
                "message": problem.message,
            })
        };
        return problems.iter().map(of).collect();
    }
    let reports = report::reports(error).into_iter();
    reports
        .map(|report| {
            json!({
                "stage": stage,
                "message": report.messages.join("\n"),
                "causes": report.causes,
                "hint": report.hint,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_calls_than_instances_are_warned_of() {
        let text = "name = \"app\"\n[service.a]\ncomponent = \"a.wasm\"\nlimits = { concurrency = 60 }\n[service.b]\ncomponent = \"b.wasm\"\nlimits = { concurrency = 40 }";
        let app = wasmbay::manifest::Manifest::parse(std::path::Path::new("wasmbay.toml"), text)
            .unwrap()
            .app;
        assert_eq!(crowded(&app, 100), None);
        let warning = crowded(&app, 99).unwrap();
        assert!(warning.contains("100 calls at a time"), "{warning}");
        assert!(warning.contains("`--instances 100`"), "{warning}");
    }
}
