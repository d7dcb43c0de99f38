//! What a guest in TypeScript or JavaScript depends on: packages of npm, as its lock file has them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::Job;
use crate::build::language::package;
use crate::build::process::{Stdout, run};
use crate::build::{BuildError, Tool};

/// The file that says which version of each package it is.
pub(in crate::build) const LOCK: &str = "package-lock.json";

const PACKAGE: &str = "package.json";
const PACKAGES: &str = "node_modules";

/// What npm writes beside the packages that it has installed.
const INSTALLED: &str = "node_modules/.package-lock.json";

/// A lock file, of what is wanted or of what is installed.
#[derive(Default, Deserialize)]
struct Lock {
    #[serde(default)]
    packages: BTreeMap<String, Package>,
}

/// A package by its folder.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    version: Option<String>,
    #[serde(default)]
    dev: bool,
    #[serde(default)]
    optional: bool,
}

/// Installs what the lock file has, unless it is installed: a build with nothing new asks no registry.
///
/// No script of a package runs. What is installed for the guest by hand, without a lock file, is taken as it is.
pub(super) fn install(job: &Job<'_>, progress: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    let Some(wanted) = read(&job.folder.join(LOCK))? else {
        return match missing(job.folder) {
            Some(package) => Err(BuildError::Unlocked {
                folder: job.folder.to_owned(),
                package,
            }),
            None => Ok(()),
        };
    };
    // One that cannot be read is written anew.
    let installed = read(&job.folder.join(INSTALLED)).ok().flatten();
    if has(&installed.unwrap_or_default(), &wanted) {
        return Ok(());
    }
    let mut command = Command::new(job.tools.find(Tool::Npm)?);
    command.current_dir(job.folder).args([
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]);
    run(
        "npm ci",
        job.folder,
        &mut command,
        Stdout::Messages,
        progress,
    )
    .map(drop)
}

fn read(path: &Path) -> Result<Option<Lock>, BuildError> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read(path).map_err(BuildError::reading(path))?;
    let lock = serde_json::from_slice(&text).map_err(std::io::Error::from);
    lock.map(Some).map_err(BuildError::reading(path))
}

/// Whether everything that a component can be made of is there in its version.
fn has(installed: &Lock, wanted: &Lock) -> bool {
    let needed = |(folder, package): &(&String, &Package)| {
        !folder.is_empty() && !package.dev && !package.optional
    };
    let there = |(folder, package): (&String, &Package)| {
        let found = installed.packages.get(folder);
        found.is_some_and(|found| found.version == package.version)
    };
    wanted.packages.iter().filter(needed).all(there)
}

/// The names that a `package.json` lists for use.
fn listed(folder: &Path) -> Vec<String> {
    let package = package(folder);
    let listed = package
        .as_ref()
        .and_then(|package| package.get("dependencies")?.as_object());
    listed
        .into_iter()
        .flat_map(|listed| listed.keys().cloned())
        .collect()
}

/// A package that is listed and not installed, here or above.
fn missing(folder: &Path) -> Option<String> {
    let installed = |name: &String| {
        let mut above = folder.ancestors();
        above.any(|above| above.join(PACKAGES).join(name).is_dir())
    };
    listed(folder).into_iter().find(|name| !installed(name))
}

/// Names the package because of which there is no bundle.
pub(super) fn explain(error: BuildError, folder: &Path) -> BuildError {
    let BuildError::Failed { output, .. } = &error else {
        return error;
    };
    let Some((package, why)) = unfit(output, folder) else {
        return error;
    };
    BuildError::Package {
        file: folder.join(PACKAGE),
        package,
        why,
        source: Box::new(error),
    }
}

/// The package that needs what is not in a component, and what that is.
fn unfit(output: &str, folder: &Path) -> Option<(String, String)> {
    let is_addon = output.contains("for \".node\" files");
    let (_, after) = output
        .split_once("Could not resolve \"")
        .unwrap_or_default();
    let module = after.split('"').next().unwrap_or_default();
    // So esbuild says of the modules of Node.
    let is_of_node = output.contains("is built into node");
    if !is_addon && !is_of_node {
        return None;
    }
    let (_, place) = output.split_once(&format!("{PACKAGES}/"))?;
    let place = place.split([':', '\n']).next()?;
    let place = place.rsplit(&format!("{PACKAGES}/")).next()?;
    let parts = if place.starts_with('@') { 2 } else { 1 };
    let named: Vec<_> = place.split('/').take(parts).collect();
    let named = named.join("/");
    // Most addons are loaded by a package that finds them.
    let addon = listed(folder)
        .into_iter()
        .chain([named.clone()])
        .find(|name| {
            folder
                .join(PACKAGES)
                .join(name)
                .join("binding.gyp")
                .is_file()
        });
    match addon {
        Some(addon) => Some((
            addon,
            "it is an addon of Node, compiled for machines".to_owned(),
        )),
        None if is_addon => Some((
            named,
            "it is an addon of Node, compiled for machines".to_owned(),
        )),
        None => Some((named, format!("it needs the module `{module}` of Node"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(text: &str) -> Lock {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_installed_is_compared_by_version() {
        let wanted = lock(
            r#"{ "packages": {
                "": { "name": "guest" },
                "node_modules/a": { "version": "1.0.0" },
                "node_modules/types": { "version": "2.0.0", "dev": true },
                "node_modules/fsevents": { "version": "2.0.0", "optional": true }
            } }"#,
        );
        assert!(!has(&Lock::default(), &wanted));
        let older = r#"{ "packages": { "node_modules/a": { "version": "0.9.0" } } }"#;
        assert!(!has(&lock(older), &wanted));
        let same = r#"{ "packages": { "node_modules/a": { "version": "1.0.0" } } }"#;
        assert!(has(&lock(same), &wanted));
    }

    #[test]
    fn the_package_that_cannot_be_bundled_is_named() {
        let root = tempfile::tempdir().unwrap();
        let unfit = |output| unfit(output, root.path());
        let output = "✘ [ERROR] Could not resolve \"fs\"\n\n    node_modules/a/node_modules/@b/c/index.js:1:20:\n      \
             1 │ require('fs')\n\n  The package \"fs\" wasn't found on the file system but is built into node.";
        let (package, why) = unfit(output).unwrap();
        assert_eq!(
            (&*package, &*why),
            ("@b/c", "it needs the module `fs` of Node")
        );
        let output =
            "✘ [ERROR] No loader is configured for \".node\" files: node_modules/d/build/x.node\n";
        let (package, why) = unfit(output).unwrap();
        assert_eq!((&*package, why.contains("addon")), ("d", true));
        // A mistake of the guest's own.
        assert_eq!(
            unfit("✘ [ERROR] Could not resolve \"./gone.js\"\n\n    index.ts:1:7:\n"),
            None
        );
    }

    #[test]
    fn a_package_that_is_neither_installed_nor_locked_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(missing(root.path()), None);
        write(PACKAGE, r#"{ "dependencies": { "a": "1", "@b/c": "1" } }"#);
        write("node_modules/@b/c/package.json", "{}");
        assert_eq!(missing(root.path()), Some("a".to_owned()));
        write("node_modules/a/package.json", "{}");
        assert_eq!(missing(root.path()), None);
    }
}
