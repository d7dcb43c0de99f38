//! TypeScript and JavaScript: one bundle, run by QuickJS inside the component, or by the runtime that the
//! guest asks for.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Built, Job, npm, starlingmonkey};
use crate::build::componentize::write;
use crate::build::edge::{self, Edge, exact};
use crate::build::language::{Runtime, runtime, script};
use crate::build::process::{Stdout, run};
use crate::build::{BuildError, Tool, typescript};

pub(super) fn build(job: &Job<'_>, progress: &mut dyn FnMut(&str)) -> Result<Built, BuildError> {
    let runtime = runtime(job.folder)?;
    let entry = script(job.folder).ok_or_else(|| BuildError::NoEntry {
        folder: job.folder.to_owned(),
        expected: "index.ts or index.js, nor the file that its package.json calls `main`"
            .to_owned(),
    })?;
    // First, so that an editor has them however the build ends.
    let declarations = typescript::declarations(&job.world.resolve, job.world.id);
    write(&job.scratch.join("bindings.d.ts"), declarations.as_bytes())?;
    npm::install(job, progress)?;
    let bundle = job.scratch.join("bundle.js");
    if runtime == Runtime::StarlingMonkey {
        let arguments = starlingmonkey::arguments(job);
        make_bundle(job, &entry, &arguments, &bundle, progress)?;
        return starlingmonkey::componentize(job, &bundle, progress);
    }
    let componentize = job.tools.find(Tool::ComponentizeQjs)?;
    write(
        &job.scratch.join("globals.d.ts"),
        edge::GLOBALS_TYPES.as_bytes(),
    )?;
    let edge = Edge::of(job.world, job.folder, &entry)?;
    let modules = job.scratch.join("edge");
    edge.write(&modules)?;
    make_bundle(
        job,
        &modules.join("entry.js"),
        &edge.arguments(&modules),
        &bundle,
        progress,
    )?;
    let text = fs::read_to_string(&bundle).map_err(BuildError::reading(&bundle))?;
    fs::write(&bundle, Edge::finish(&text)).map_err(BuildError::writing(&bundle))?;
    let output = job.scratch.join("component.wasm");
    let mut command = Command::new(componentize);
    command
        .current_dir(job.folder)
        .arg("--wit")
        .arg(modules.join(edge::WIT))
        .args(["--world", &job.world.name])
        .arg("--js")
        .arg(&bundle)
        // The asynchronous runtime would need an engine with concurrency support.
        .args(["--sync", "--opt-size", "--output"])
        .arg(&output);
    run(
        "componentize-qjs",
        job.folder,
        &mut command,
        Stdout::Messages,
        progress,
    )
    .map_err(|error| not_exported(error, job))?;
    let mut built = Built::read(&output, "componentize-qjs", Vec::new(), job)?;
    built.component = exact::exact(&built.component).map_err(|error| BuildError::Component {
        step: "making integers of 64 bits exact",
        folder: job.folder.to_owned(),
        source: error.into(),
    })?;
    Ok(built)
}

/// Puts the source and all that it imports into one module.
fn make_bundle(
    job: &Job<'_>,
    entry: &Path,
    arguments: &[String],
    bundle: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let esbuild = job.tools.find(Tool::Esbuild)?;
    let mut command = Command::new(esbuild);
    command
        .current_dir(job.folder)
        .arg(entry)
        .args([
            "--bundle",
            "--format=esm",
            "--platform=neutral",
            "--main-fields=module,main",
            "--conditions=import",
            "--target=es2023",
            "--log-level=warning",
        ])
        .args(arguments)
        .arg(format!("--outfile={}", bundle.display()));
    run(
        "esbuild",
        job.folder,
        &mut command,
        Stdout::Messages,
        progress,
    )
    .map(drop)
    .map_err(|error| npm::explain(error, job.folder))
}

/// What the tool printed, for people, where the source lacks exports.
fn not_exported(error: BuildError, job: &Job<'_>) -> BuildError {
    let BuildError::Failed { output, .. } = &error else {
        return error;
    };
    let problems = edge::problems(output);
    if problems.is_empty() {
        return error;
    }
    BuildError::Exports {
        folder: job.folder.to_owned(),
        world: job.world.name.clone(),
        problems,
    }
}
