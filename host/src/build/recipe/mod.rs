//! How each language's source becomes a component.

mod c;
pub(super) mod go;
mod javascript;
pub(super) mod npm;
pub(super) mod pip;
mod python;
mod rust;
mod starlingmonkey;

use std::path::{Path, PathBuf};

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
