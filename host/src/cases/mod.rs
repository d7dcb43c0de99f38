//! Contract cases: a call of a service, what its imports answer, and what is expected, in a file of JSON.
//!
//! A case is checked against the types of the built component, and run in this process by the path that every
//! call of a host takes: limits, grants, a sandbox of its own. What the component imports is answered by the
//! stubs of the case. Nothing here knows NATS.

mod check;
mod diff;
mod file;
mod path;
mod record;
mod run;
mod stubs;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use check::{Case, CaseError};
pub use diff::Difference;
pub use file::{Any, CaseFile, CasesFile, FailureFile, Json, KeyValueFile, StubFile, TimesFile};
pub use record::Recorded;
pub use run::{Problem, run};

use crate::plan::Description;

/// The folder of an app's cases, beside its manifest: `tests/SERVICE.json` and `tests/SERVICE/*.json`.
pub const FOLDER: &str = "tests";

/// Upper bound of the bytes of a file of cases.
pub const MAX_BYTES: u64 = 64 << 20;

/// A file of cases as it was read.
#[derive(Clone, Debug)]
pub struct Cases {
    /// The file.
    pub file: PathBuf,
    /// What it says.
    pub written: CasesFile,
}

/// The files with cases of an app, in order of their names, each with the service that its name says.
///
/// # Errors
///
/// A folder cannot be read.
pub fn files(app: &Path) -> Result<Vec<(String, PathBuf)>, CaseError> {
    let folder = app.join(FOLDER);
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    for path in entries(&folder)? {
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else {
            continue;
        };
        if path.is_dir() {
            let inside = entries(&path)?.into_iter().filter(|path| is_json(path));
            files.extend(inside.map(|file| (name.to_owned(), file)));
        } else if is_json(&path) {
            files.push((name.to_owned(), path));
        }
    }
    Ok(files)
}

fn is_json(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|ending| ending == "json")
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, CaseError> {
    let read = || -> std::io::Result<Vec<_>> {
        let entries = fs::read_dir(folder)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    let mut entries = read().map_err(|error| unreadable(folder, &error.to_string()))?;
    entries.sort();
    Ok(entries)
}

fn unreadable(file: &Path, why: &str) -> CaseError {
    CaseError {
        file: file.to_owned(),
        line: None,
        at: "$".to_owned(),
        why: format!("it cannot be read: {why}"),
    }
}

impl Cases {
    /// Reads a file of cases.
    ///
    /// # Errors
    ///
    /// It cannot be read, has more than [`MAX_BYTES`], or is no file of cases.
    pub fn read(file: &Path) -> Result<Self, CaseError> {
        let mut text = Vec::new();
        let read = fs::File::open(file)
            .and_then(|opened| opened.take(MAX_BYTES + 1).read_to_end(&mut text));
        read.map_err(|error| unreadable(file, &error.to_string()))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(unreadable(
                file,
                &format!("it has more than {MAX_BYTES} bytes"),
            ));
        }
        let written = file::read(&text).map_err(|misread| CaseError {
            file: file.to_owned(),
            line: Some(misread.line),
            at: format!("${}", misread.path),
            why: misread.why,
        })?;
        Ok(Self {
            file: file.to_owned(),
            written,
        })
    }

    /// Each case by the types of its component, or what is wrong with it.
    #[must_use]
    pub fn check(&self, component: &Description) -> Vec<Result<Case, Vec<CaseError>>> {
        let CasesFile { cases, ignore, .. } = &self.written;
        let cases = cases.iter().enumerate();
        let check = |(number, case)| check::check(&self.file, number, case, ignore, component);
        cases.map(check).collect()
    }
}
