//! Rust: cargo, for the target whose linker makes components.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{Built, Job, Tested, tested};
use crate::build::process::{Stdout, run};
use crate::build::tools::compiles_components;
use crate::build::{BuildError, Tool};

/// A line of `cargo build --message-format=json`.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

pub(super) fn build(job: &Job<'_>, progress: &mut dyn FnMut(&str)) -> Result<Built, BuildError> {
    let cargo = job.tools.find(Tool::Cargo)?;
    if !compiles_components(&cargo, job.folder) {
        return Err(job.tools.missing(Tool::Cargo));
    }
    let manifest = job.folder.join("Cargo.toml");
    let mut command = Command::new(cargo);
    command
        .current_dir(job.folder)
        .args(["build", "--release", "--target", "wasm32-wasip2"])
        .arg("--message-format=json-render-diagnostics")
        .arg("--manifest-path")
        .arg(&manifest)
        // Flags of a build of the host around this one are not meant for guests.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if let Ok(cc) = job.tools.find(Tool::WasmCc) {
        // For crates with sources in C: the compiler of this machine may not know the target.
        c_compiler(&mut command, &cc);
    }
    let messages = run(
        "cargo build",
        job.folder,
        &mut command,
        Stdout::Data,
        progress,
    )?;
    let Some(module) = artifact(&messages, &manifest) else {
        return Err(BuildError::NoOutput {
            step: "cargo build",
            expected: "component; does Cargo.toml have `crate-type = [\"cdylib\"]` under [lib], or the folder a `src/main.rs`?"
                .to_owned(),
            folder: job.folder.to_owned(),
        });
    };
    let elsewhere = elsewhere(&module, job);
    Built::read(&module, "cargo build", elsewhere, job)
}

/// Gives build scripts a compiler of C for components, which the machine's own may not be.
fn c_compiler(command: &mut Command, cc: &Path) {
    let (name, target) = ("wasm-cc", "wasm32_wasip2");
    // What somebody has set is meant.
    let is_set = |variable: &str| std::env::var_os(variable).is_some();
    if cc.file_stem().is_some_and(|stem| stem == name) && !is_set(&format!("CC_{target}")) {
        command.env(format!("CC_{target}"), cc);
        command.env(format!("CXX_{target}"), cc.with_file_name("wasm-c++"));
    }
}

/// Runs `cargo test` for this machine, where a source has a test.
pub(super) fn test(
    job: &Job<'_>,
    files: &[PathBuf],
    progress: &mut dyn FnMut(&str),
) -> Result<Option<Tested>, BuildError> {
    let has_test = |file: &&PathBuf| {
        let text = fs::read_to_string(job.folder.join(file)).unwrap_or_default();
        ["#[test]", "::test]", "::test("]
            .iter()
            .any(|mark| text.contains(mark))
    };
    let mut sources = files
        .iter()
        .filter(|file| file.extension().is_some_and(|ending| ending == "rs"));
    if !sources.any(|file| has_test(&file)) {
        return Ok(None);
    }
    let mut command = Command::new(job.tools.runner(&["cargo"])?);
    command
        .arg("test")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    tested("cargo test", job, &mut command, progress).map(Some)
}

/// The component that cargo says it made of this package.
fn artifact(messages: &[u8], manifest: &Path) -> Option<PathBuf> {
    // cargo may have gone through a link to get there.
    let resolved = manifest.canonicalize().ok();
    let same = |path: &Path| {
        path == manifest || (resolved.is_some() && path.canonicalize().ok() == resolved)
    };
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
        .filter(|message| message.manifest_path.as_deref().is_some_and(same))
        .flat_map(|message| message.filenames)
        .find(|file| file.extension().is_some_and(|ending| ending == "wasm"))
}

/// What the build read outside the folder: the crates beside it that it depends on, as cargo lists
/// them in a file like make's, and the workspace's own files.
fn elsewhere(module: &Path, job: &Job<'_>) -> Vec<PathBuf> {
    let listed = fs::read_to_string(module.with_extension("d")).unwrap_or_default();
    // A space in a path is escaped by a backslash, as in make.
    let listed = listed.replace("\\ ", "\0");
    let mut files: BTreeSet<PathBuf> = listed
        .lines()
        .filter_map(|line| line.split_once(": "))
        .flat_map(|(_, sources)| sources.split(' '))
        .map(|path| PathBuf::from(path.replace('\0', " ")))
        .collect();
    files.retain(|file| !file.starts_with(job.folder) && !file.starts_with(job.wit));
    let locked = |at: &&Path| at.join("Cargo.lock").is_file();
    if let Some(root) = job.folder.ancestors().find(locked) {
        files.extend([root.join("Cargo.toml"), root.join("Cargo.lock")]);
    }
    // Flags of the compiler, and where crates come from.
    let settings = |at: &Path| at.join(".cargo/config.toml");
    let settings = job.folder.ancestors().map(settings);
    files.extend(settings.filter(|settings| settings.is_file()));
    files.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_artifact_is_the_one_of_the_guests_own_manifest() {
        let messages = br#"{"reason":"compiler-artifact","manifest_path":"/other/Cargo.toml","filenames":["/t/other.wasm"]}
not json
{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","filenames":["/t/a.rlib","/t/a.wasm"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            artifact(messages, Path::new("/a/Cargo.toml")),
            Some(PathBuf::from("/t/a.wasm"))
        );
    }
}
