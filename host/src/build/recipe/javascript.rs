//! TypeScript and JavaScript: one bundle, run by QuickJS inside the component, or by the runtime that the
//! guest asks for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Built, Job, Tested, npm, starlingmonkey, tested};
use crate::build::componentize::write;
use crate::build::edge::{self, Edge, exact};
use crate::build::language::{Runtime, package, runtime, script};
use crate::build::process::{Stdout, run};
use crate::build::{BuildError, Language, Tool, typescript};

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

/// Runs `npm test` where the guest's `package.json` says what that is; else the files called `….test.ts` and the
/// like, each in one module with what it imports, by Node's own runner.
pub(super) fn test(
    job: &Job<'_>,
    files: &[PathBuf],
    progress: &mut dyn FnMut(&str),
) -> Result<Option<Tested>, BuildError> {
    let package = package(job.folder);
    let script = package.and_then(|package| Some(package.get("scripts")?.get("test")?.is_string()));
    if script == Some(true) {
        let mut command = Command::new(job.tools.runner(&["npm"])?);
        return tested("npm test", job, command.arg("test"), progress).map(Some);
    }
    let is_named = |file: &&PathBuf| {
        let ending = file.extension().and_then(|ending| ending.to_str());
        Language::TypeScript.is_test(file)
            && ending.is_some_and(|ending| ["ts", "mts", "js", "mjs"].contains(&ending))
    };
    let tests: Vec<_> = files.iter().filter(is_named).collect();
    if tests.is_empty() {
        return Ok(None);
    }
    let node = job.tools.runner(&["node"])?;
    let bundles = job.scratch.join("tests");
    // Those of tests that are gone would be run again.
    let _ = fs::remove_dir_all(&bundles);
    let mut command = Command::new(job.tools.find(Tool::Esbuild)?);
    command
        .current_dir(job.folder)
        .args(&tests)
        .args([
            "--bundle",
            "--format=esm",
            "--platform=node",
            "--target=node18",
            "--sourcemap=inline",
            "--log-level=warning",
            "--outbase=.",
            "--out-extension:.js=.mjs",
        ])
        .arg(format!("--outdir={}", bundles.display()));
    let bundled = tested("esbuild", job, &mut command, progress)?;
    if !bundled.passed {
        return Ok(Some(bundled));
    }
    let mut command = Command::new(node);
    command.args(["--enable-source-maps", "--test"]);
    command.args(
        tests
            .iter()
            .map(|test| bundles.join(test).with_extension("mjs")),
    );
    tested("node --test", job, &mut command, progress).map(Some)
}
