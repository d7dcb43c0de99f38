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

const QUIET: [&str; 3] = [
    "--progress-bar=off",
    "--disable-pip-version-check",
    "--no-input",
];

/// The file beside the packages by which it is known what they were installed for.
const STAMP: &str = ".list";

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
    // Editors look here, so it has one name whatever is in it.
    let packages = job.scratch.join("packages");
    let Some((file, list)) = wanted(job.folder)? else {
        remove(&packages);
        return Ok(None);
    };
    let pip = job.tools.find(Tool::Pip)?;
    // Files that a list includes count by their names alone.
    let digest = Sha256::new()
        .chain_update(PYTHON)
        .chain_update(&list)
        .finalize();
    let stamp = hex(&digest);
    if fs::read_to_string(packages.join(STAMP)).is_ok_and(|there| there == stamp) {
        return Ok(Some(packages));
    }
    remove(&packages);
    let requirements = match file {
        REQUIREMENTS => job.folder.join(file),
        _ => {
            let requirements = job.scratch.join(REQUIREMENTS);
            write(&requirements, list.as_bytes())?;
            requirements
        }
    };
    let wheels = job.scratch.join("wheels");
    remove(&wheels);
    fs::create_dir_all(&wheels).map_err(BuildError::writing(&wheels))?;
    let step = format!("pip, for what {file} lists");
    let mut from_source: Vec<String> = Vec::new();
    loop {
        let mut command = pure(&pip, job.folder);
        command
            .arg("--find-links")
            .arg(&wheels)
            .arg("--target")
            .arg(&packages);
        command.arg("--requirement").arg(&requirements);
        let error = match run(&step, job.folder, &mut command, Stdout::Messages, progress) {
            Ok(_) => break,
            Err(error) => error,
        };
        let BuildError::Failed { output, .. } = &error else {
            return Err(error);
        };
        let Some(package) = unavailable(output).map(str::to_owned) else {
            return Err(error);
        };
        let refuse = |error| refused(&job.folder.join(file), name(&package), error);
        if from_source.contains(&package) {
            return Err(refuse(error));
        }
        make_pure(&pip, job.folder, &package, &wheels, progress).map_err(refuse)?;
        from_source.push(package);
    }
    if let Some(package) = from_source.iter().find(|_| has_machine_code(&packages)) {
        let error = BuildError::NoOutput {
            step: "making it from source",
            expected: "package of pure Python".to_owned(),
            folder: job.folder.to_owned(),
        };
        remove(&packages);
        return Err(refused(&job.folder.join(file), name(package), error));
    }
    write(&packages.join(STAMP), stamp.as_bytes())?;
    Ok(Some(packages))
}

/// pip, for packages of pure Python: what is compiled for this machine does not run in a component.
fn pure(pip: &Path, folder: &Path) -> Command {
    let mut command = Command::new(pip);
    command
        .current_dir(folder)
        .arg("install")
        .args(QUIET)
        .args([
            "--no-compile",
            "--root-user-action=ignore",
            "--only-binary=:all:",
            "--platform=any",
            "--implementation=py",
            "--abi=none",
            "--python-version",
            PYTHON,
        ]);
    command
}

/// Makes a package from its source without a compiler. Where the compiled part is there for speed alone, the package then leaves it
/// out.
fn make_pure(
    pip: &Path,
    folder: &Path,
    package: &str,
    wheels: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(), BuildError> {
    let mut command = Command::new(pip);
    command
        .current_dir(folder)
        .arg("wheel")
        .args(QUIET)
        .args(["--no-deps", "--no-binary", name(package), "--wheel-dir"])
        .arg(wheels)
        .arg(package)
        .env("CC", "false")
        .env("CXX", "false");
    let step = format!("pip, for {package} without what is compiled");
    run(&step, folder, &mut command, Stdout::Messages, progress)?;
    for entry in fs::read_dir(wheels).into_iter().flatten().flatten() {
        let path = entry.path();
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(stem) = file.strip_suffix(".whl") else {
            continue;
        };
        // A package that could have had a compiled part may be named as if it had one. What is in it is looked at later.
        let named: Vec<_> = stem.split('-').take(2).collect();
        let pure = wheels.join(format!("{}-py3-none-any.whl", named.join("-")));
        fs::rename(&path, &pure).map_err(BuildError::writing(&pure))?;
    }
    Ok(())
}

/// Whether something in the folder, or below it, is compiled.
fn has_machine_code(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths = entries.map(|entry| entry.path());
    paths.any(|path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!(ending, Some("so" | "pyd" | "dylib")) || (path.is_dir() && has_machine_code(&path))
    })
}

fn remove(folder: &Path) {
    // What stays shows when something is written there.
    let _ = fs::remove_dir_all(folder);
}

/// The name in a requirement such as `numpy>=2`.
fn name(requirement: &str) -> &str {
    let end = requirement.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c));
    requirement
        .get(..end.unwrap_or(requirement.len()))
        .unwrap_or_default()
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

/// Names the package that is not there for a component.
fn refused(file: &Path, package: &str, error: BuildError) -> BuildError {
    BuildError::Package {
        file: file.to_owned(),
        package: package.to_owned(),
        why: "there is none of pure Python in this version, only compiled for machines, which no component is"
            .to_owned(),
        source: Box::new(error),
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
    fn a_requirement_has_a_name() {
        for requirement in [
            "ruamel.yaml",
            "ruamel.yaml==0.18",
            "ruamel.yaml>=0.18,<1",
            "ruamel.yaml[x]~=1",
        ] {
            assert_eq!(name(requirement), "ruamel.yaml");
        }
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
