//! What a guest in Python depends on: packages of pure Python, installed into the build's own folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Job;
use crate::build::componentize::write;
use crate::build::process::{Stdout, run};
use crate::build::{BuildError, Tool};
use crate::text::hex;

/// The language that the interpreter in a component has.
const PYTHON: &str = "3.14";

/// A list of packages as pip reads it.
const REQUIREMENTS: &str = "requirements.txt";

/// A project's description, of which its dependencies are read.
const PROJECT: &str = "pyproject.toml";

/// What pip says before the name of a package that has no file of the kind that is asked for: of one that
/// is listed, and of one that others depend on.
const UNAVAILABLE: [&str; 2] = [
    "No matching distribution found for ",
    "have no matching distributions available for your environment:",
];

/// What pip says when the registry does not answer.
const UNREACHABLE: &str = "after connection broken by";

#[derive(Deserialize)]
struct Project {
    #[serde(default)]
    project: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    dependencies: Vec<String>,
}

/// The folder with the packages that the guest asks for, if it asks for any. What was installed for the same
/// list is used again, so a build needs the registry once.
pub(super) fn install(
    job: &Job<'_>,
    progress: &mut dyn FnMut(&str),
) -> Result<Option<PathBuf>, BuildError> {
    let Some((file, list)) = wanted(job.folder)? else {
        return Ok(None);
    };
    let pip = job.tools.find(Tool::Pip)?;
    // Files that a list includes count by their names alone.
    let digest = Sha256::new()
        .chain_update(PYTHON)
        .chain_update(&list)
        .finalize();
    let key = hex(&digest);
    let packages = job
        .scratch
        .join(format!("packages-{}", key.get(..16).unwrap_or_default()));
    if packages.is_dir() {
        return Ok(Some(packages));
    }
    remove_others(job.scratch);
    let requirements = match file {
        REQUIREMENTS => job.folder.join(file),
        _ => {
            let requirements = job.scratch.join(REQUIREMENTS);
            write(&requirements, list.as_bytes())?;
            requirements
        }
    };
    let unfinished = job.scratch.join("packages-unfinished");
    let mut command = Command::new(pip);
    command
        .current_dir(job.folder)
        .args([
            "install",
            "--progress-bar=off",
            "--disable-pip-version-check",
            "--no-input",
            "--no-compile",
            "--root-user-action=ignore",
            // Pure Python: what is compiled for this machine does not run in a component.
            "--only-binary=:all:",
            "--platform=any",
            "--implementation=py",
            "--abi=none",
        ])
        .args(["--python-version", PYTHON, "--target"])
        .arg(&unfinished)
        .arg("--requirement")
        .arg(&requirements);
    let step = format!("pip, for what {file} lists");
    let installed = run(&step, job.folder, &mut command, Stdout::Messages, progress);
    installed.map_err(|error| explain(error, job.folder, file))?;
    fs::rename(&unfinished, &packages).map_err(BuildError::writing(&packages))?;
    Ok(Some(packages))
}

/// The names of the packages that are installed in a folder.
pub(super) fn modules(packages: &Path) -> Vec<String> {
    let entries = fs::read_dir(packages).into_iter().flatten().flatten();
    let packages = entries.filter(|entry| entry.path().join("__init__.py").is_file());
    let names = packages.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

/// The file that lists what the guest depends on, and the list. `requirements.txt` comes first.
pub(in crate::build) fn wanted(
    folder: &Path,
) -> Result<Option<(&'static str, String)>, BuildError> {
    let read = |name: &str| {
        let path = folder.join(name);
        let text = path.is_file().then(|| fs::read_to_string(&path));
        text.transpose().map_err(BuildError::reading(&path))
    };
    if let Some(list) = read(REQUIREMENTS)? {
        return Ok(Some((REQUIREMENTS, list)));
    }
    let Some(text) = read(PROJECT)? else {
        return Ok(None);
    };
    let path = folder.join(PROJECT);
    let Project { project } = toml::from_str(&text).map_err(|error| BuildError::Read {
        path,
        source: std::io::Error::other(error),
    })?;
    let list = project.dependencies.join("\n");
    Ok((!list.is_empty()).then_some((PROJECT, list)))
}

/// Removes what was installed for other lists, or by a build that was broken off.
fn remove_others(scratch: &Path) {
    let entries = fs::read_dir(scratch).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_name().to_string_lossy().starts_with("packages-") {
            // What stays is in nobody's way but the disk's.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Names the package that has no files of pure Python.
fn explain(error: BuildError, folder: &Path, file: &'static str) -> BuildError {
    let BuildError::Failed { output, .. } = &error else {
        return error;
    };
    match unavailable(output) {
        Some(package) => BuildError::Package {
            file: folder.join(file),
            package: package.to_owned(),
            source: Box::new(error),
        },
        None => error,
    }
}

/// The package of which pip says that it is not available, unless the registry does not answer: then none is.
fn unavailable(output: &str) -> Option<&str> {
    if output.contains(UNREACHABLE) {
        return None;
    }
    let said = UNAVAILABLE
        .iter()
        .find_map(|words| output.split_once(words));
    said?.1.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_that_is_not_available_is_found() {
        let listed = "ERROR: No matching distribution found for numpy==2.0 (from x)\n";
        assert_eq!(unavailable(listed), Some("numpy==2.0"));
        let needed = "Additionally, some packages in these conflicts have no matching distributions available \
             for your environment:\n    markupsafe\n\nTo fix this";
        assert_eq!(unavailable(needed), Some("markupsafe"));
        let unreachable = format!("WARNING: Retrying {UNREACHABLE} 'x'\n{listed}");
        assert_eq!(unavailable(&unreachable), None);
        assert_eq!(unavailable("ERROR: Invalid requirement"), None);
    }

    #[test]
    fn what_is_wanted_is_in_one_of_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = || wanted(folder.path());
        assert!(wanted().unwrap().is_none());
        let project = folder.path().join(PROJECT);
        fs::write(&project, "[build-system]\nrequires = ['x']\n").unwrap();
        assert!(wanted().unwrap().is_none());
        fs::write(
            &project,
            "[project]\nname = 'a'\ndependencies = ['b==1', 'c']\n",
        )
        .unwrap();
        assert_eq!(wanted().unwrap(), Some((PROJECT, "b==1\nc".to_owned())));
        fs::write(&project, "[project]\ndependencies = 'b'\n").unwrap();
        let error = wanted().unwrap_err().to_string();
        assert!(error.contains(PROJECT), "{error}");
        fs::write(folder.path().join(REQUIREMENTS), "d\n").unwrap();
        assert_eq!(wanted().unwrap(), Some((REQUIREMENTS, "d\n".to_owned())));
    }
}
