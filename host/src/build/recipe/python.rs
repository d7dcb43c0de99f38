//! Python: the interpreter and the source in one component.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Built, Job, Tested, pip, tested};
use crate::build::componentize::write;
use crate::build::language::module;
use crate::build::process::{Stdout, run};
use crate::build::{BuildError, Language, Tool};

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

/// Runs the files called `test_….py` by pytest where the guest is set up for it, else by unittest. They import the
/// service's own modules; what a component would import raises `NotImplementedError` until it is replaced, as by
/// `unittest.mock`.
pub(super) fn test(
    job: &Job<'_>,
    files: &[PathBuf],
    progress: &mut dyn FnMut(&str),
) -> Result<Option<Tested>, BuildError> {
    let is_named = |file: &&PathBuf| {
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.starts_with("test_") && Language::Python.is_test(file)
    };
    let tests: Vec<_> = files.iter().filter(is_named).collect();
    if tests.is_empty() {
        return Ok(None);
    }
    let python = job.tools.runner(&["python3", "python"])?;
    write_stubs(job, &job.tools.find(Tool::ComponentizePy)?, progress)?;
    let bindings = job.scratch.join("bindings");
    let packages = pip::install(job, progress)?;
    let path = [Some(job.folder.to_owned()), Some(bindings), packages];
    let path = env::join_paths(path.into_iter().flatten()).unwrap_or_default();
    let mut command = Command::new(python);
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", path);
    if wants_pytest(job.folder) {
        command.args(["-m", "pytest"]);
        return tested("pytest", job, &mut command, progress).map(Some);
    }
    command.args(["-m", "unittest"]).args(tests);
    tested("unittest", job, &mut command, progress).map(Some)
}

/// Whether a file is there by which projects set pytest up.
fn wants_pytest(folder: &Path) -> bool {
    let project = fs::read_to_string(folder.join("pyproject.toml")).unwrap_or_default();
    ["pytest.ini", "conftest.py"]
        .iter()
        .any(|file| folder.join(file).is_file())
        || project.contains("[tool.pytest")
}
