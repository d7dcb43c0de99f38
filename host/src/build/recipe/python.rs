//! Python: the interpreter and the source in one component.

use std::process::Command;

use super::{Built, Job};
use crate::build::language::module;
use crate::build::process::{Stdout, run};
use crate::build::{BuildError, Tool};

pub(super) fn build(job: &Job<'_>, progress: &mut dyn FnMut(&str)) -> Result<Built, BuildError> {
    let componentize = job.tools.find(Tool::ComponentizePy)?;
    let module = module(job.folder).ok_or_else(|| BuildError::NoEntry {
        folder: job.folder.to_owned(),
        expected: "app.py or main.py".to_owned(),
    })?;
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
            &module,
            "--output",
        ])
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
