//! How each language's source becomes a component, and by what its unit tests are run.

mod c;
pub(super) mod go;
mod javascript;
pub(super) mod npm;
pub(super) mod pip;
mod python;
mod rust;
mod starlingmonkey;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::process::{Stdout, run};
use super::world::World;
use super::{BuildError, Language, Tools};

/// A guest to be compiled.
pub(super) struct Job<'a> {
    /// The guest's folder.
    pub(super) folder: &'a Path,
    /// Where intermediate files go, kept from one build to the next.
    pub(super) scratch: &'a Path,
    /// The folder of its WIT, and the world in it.
    pub(super) wit: &'a Path,
    pub(super) world: &'a World,
    pub(super) tools: &'a Tools,
}

/// The result of a recipe.
pub(super) struct Built {
    /// The component's bytes.
    pub(super) component: Vec<u8>,
    /// Source files outside the guest's folder and its WIT.
    pub(super) elsewhere: Vec<PathBuf>,
}

impl Built {
    fn read(
        path: &Path,
        step: &'static str,
        elsewhere: Vec<PathBuf>,
        job: &Job<'_>,
    ) -> Result<Self, BuildError> {
        let component = std::fs::read(path).map_err(|_| BuildError::NoOutput {
            step,
            expected: path.display().to_string(),
            folder: job.folder.to_owned(),
        })?;
        if path.starts_with(job.scratch) {
            // One copy is enough; what stays for want of a right costs its size alone.
            let _ = std::fs::remove_file(path);
        }
        Ok(Self {
            component,
            elsewhere,
        })
    }
}

pub(super) fn build(
    language: Language,
    job: &Job<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Built, BuildError> {
    match language {
        Language::Rust => rust::build(job, progress),
        Language::Go => go::build(job, progress),
        Language::TypeScript | Language::JavaScript => javascript::build(job, progress),
        Language::Python => python::build(job, progress),
        Language::C => c::build(job, progress),
    }
}

/// What became of a guest's unit tests.
#[derive(Clone, Debug)]
pub struct Tested {
    /// The runner, such as `cargo test`.
    pub runner: String,
    /// Whether all of them passed.
    pub passed: bool,
    /// What the runner printed.
    pub output: String,
    /// How long it took.
    pub took: Duration,
}

/// Runs the unit tests that are among these files of the guest's folder.
pub(super) fn test(
    language: Language,
    job: &Job<'_>,
    files: &[PathBuf],
    progress: &mut dyn FnMut(&str),
) -> Result<Option<Tested>, BuildError> {
    match language {
        Language::Rust => rust::test(job, files, progress),
        Language::Go => go::test(job, files, progress),
        Language::TypeScript | Language::JavaScript => javascript::test(job, files, progress),
        Language::Python => python::test(job, files, progress),
        Language::C => c::test(job, files, progress),
    }
}

/// Runs a language's runner to its end.
fn tested(
    runner: &str,
    job: &Job<'_>,
    command: &mut Command,
    progress: &mut dyn FnMut(&str),
) -> Result<Tested, BuildError> {
    let started = Instant::now();
    let ran = run(
        runner,
        job.folder,
        command.current_dir(job.folder),
        Stdout::Messages,
        progress,
    );
    let (passed, output) = match ran {
        Ok(output) => (true, String::from_utf8_lossy(&output).into_owned()),
        Err(BuildError::Failed { output, status, .. }) => {
            (false, format!("{}\n{status}", output.trim_end()))
        }
        Err(error) => return Err(error),
    };
    Ok(Tested {
        runner: runner.to_owned(),
        passed,
        output,
        took: started.elapsed(),
    })
}
