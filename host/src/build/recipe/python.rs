//! Python: the interpreter and the source in one component.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Built, Job, pip};
use crate::build::componentize::write;
use crate::build::language::module;
use crate::build::process::{Stdout, run};
use crate::build::{BuildError, Tool};

/// The module that a component begins with, which imports the service's own.
const START: &str = "wasmbay_start";
const START_MODULE: &str = include_str!("start.py");

pub(super) fn build(job: &Job<'_>, progress: &mut dyn FnMut(&str)) -> Result<Built, BuildError> {
    let componentize = job.tools.find(Tool::ComponentizePy)?;
    let module = module(job.folder).ok_or_else(|| BuildError::NoEntry {
        folder: job.folder.to_owned(),
        expected: "app.py or main.py".to_owned(),
    })?;
    // First, so that an editor has them however the build ends.
    write_stubs(job, &componentize, progress)?;
    let packages = pip::install(job, progress)?;
    let modules = packages.as_deref().map(pip::modules).unwrap_or_default();
    let start = job.scratch.join("start");
    fs::create_dir_all(&start).map_err(BuildError::writing(&start))?;
    let text = START_MODULE.replace("APP", &module);
    let text = text.replace("PACKAGES", &format!("{modules:?}"));
    write(&start.join(format!("{START}.py")), text.as_bytes())?;
    let output = job.scratch.join("component.wasm");
    let mut command = Command::new(componentize);
    command
        .current_dir(job.folder)
        // Compiled modules belong to the interpreter in the component, not into the folder.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("--wit-path")
        .arg(job.wit)
        .args([
            "--world",
            &job.world.name,
            "componentize",
            START,
            "--python-path",
            ".",
            "--python-path",
        ])
        .arg(&start)
        .args(packages.iter().flat_map(|packages| {
            let path: &OsStr = packages.as_ref();
            [OsStr::new("--python-path"), path]
        }))
        .arg("--output")
        .arg(&output);
    run(
        "componentize-py",
        job.folder,
        &mut command,
        Stdout::Messages,
        progress,
    )?;
    Built::read(&output, "componentize-py", Vec::new(), job)
}

/// Writes what an editor knows the modules of the bindings by. The component gets its own.
fn write_stubs(
    job: &Job<'_>,
    componentize: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let stubs = job.scratch.join("bindings");
    if stubs.is_dir() {
        fs::remove_dir_all(&stubs).map_err(BuildError::writing(&stubs))?;
    }
    let mut command = Command::new(componentize);
    command
        .current_dir(job.folder)
        .arg("--wit-path")
        .arg(job.wit)
        .args(["--world", &job.world.name, "bindings"])
        .arg(&stubs);
    let step = "componentize-py, for the bindings";
    run(step, job.folder, &mut command, Stdout::Messages, progress).map(drop)
}
