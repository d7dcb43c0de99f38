//! Go: bindings beside the source, the standard compiler for WASI 0.1, and a component made of it.
//!
//! Go wants the package that implements an interface and its bindings in one folder, so the
//! bindings are written among the source, where editors find them, too. The one package that they
//! import is part of wasmbay and replaces the published one, so no network is needed. The module `wasmbay`
//! beside it is our own: connections, for drivers that ask for a function that makes some.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Built, Job, Tested, tested};
use crate::build::componentize::{bindings, componentize, embed, write};
use crate::build::process::{Stdout, run};
use crate::build::world::World;
use crate::build::{BuildError, Language, OUTPUT, Tool};

/// The names of the generated files.
pub(in crate::build) const GENERATED: [&str; 3] = ["wit_bindings.go", "wit_exports.go", "empty.s"];

const PACKAGE: &str = "go.bytecodealliance.org/pkg";

/// The module with what services can use of ours.
const MODULE: &str = "wasmbay";

/// The modules that come with wasmbay, and their folders below the scratch folder.
const MODULES: [(&str, &str); 2] = [(PACKAGE, "pkg"), (MODULE, MODULE)];

/// What the module `wasmbay` imports, whatever the guest's own world does.
const SOCKETS: &str = include_str!("../golib/sockets.wit");

/// Has the collector finish in one go what it begins. Otherwise it goes on in whatever of Go runs
/// next, and asks for the time. While the host fetches a result or makes room for arguments a
/// component may call no import, not even for the time: it would trap.
const COLLECT: &str = "runtime.godebugDefault=gcstoptheworld=1";

macro_rules! files {
    ($folder:literal: $($file:literal),*) => {
        &[$(($file, include_str!(concat!("../", $folder, "/", $file)))),*]
    };
}

/// `go.bytecodealliance.org/pkg` as the generator of bindings has it, with its licence.
const PACKAGE_FILES: &[(&str, &str)] = files!["gopkg":
    "LICENSE",
    "go.mod.in",
    "wit/async/async.go",
    "wit/async/empty.s",
    "wit/runtime/empty.s",
    "wit/runtime/runtime.go",
    "wit/types/future.go",
    "wit/types/option.go",
    "wit/types/result.go",
    "wit/types/stream.go",
    "wit/types/tuple.go",
    "wit/types/unit.go"
];

/// The module `wasmbay`, without the bindings that it imports.
const MODULE_FILES: &[(&str, &str)] = files!["golib":
    "go.mod.in",
    "sockets/address.go",
    "sockets/conn.go",
    "sockets/dial.go",
    "sockets/wait.go"
];

pub(super) fn build(job: &Job<'_>, progress: &mut dyn FnMut(&str)) -> Result<Built, BuildError> {
    let go = job.tools.find(Tool::Go)?;
    write_bindings(job)?;
    let sockets = World::of_text(SOCKETS)?;
    write_modules(job, &sockets)?;
    let core = job.scratch.join("core.wasm");
    let mut command = Command::new(go);
    command
        .current_dir(job.folder)
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm")
        .env_remove("GOFLAGS")
        // A workspace above would have to list the guest, and is none of its own.
        .env("GOWORK", "off")
        .args([
            "build",
            "-buildmode=c-shared",
            "-buildvcs=false",
            "-trimpath",
        ])
        .arg(format!("-ldflags=-checklinkname=0 -s -w -X={COLLECT}"));
    if let Some(modfile) = modfile(job)? {
        // What Go would have added to it, it may add: the file is generated.
        command.args([modfile.as_str(), "-mod=mod"]);
    }
    command.arg("-o").arg(&core).arg(".");
    run(
        "go build",
        job.folder,
        &mut command,
        Stdout::Messages,
        progress,
    )
    .map_err(|error| explain(error, job.folder))?;
    let mut core = fs::read(&core).map_err(BuildError::reading(&core))?;
    progress("making a component");
    embed(&mut core, job.world, job.folder)?;
    // Of this, too, only what the module imports gets into the component.
    embed(&mut core, &sockets, job.folder)?;
    Ok(Built {
        component: componentize(&core, job.folder)?,
        elsewhere: Vec::new(),
    })
}

/// Names the package that has no source for a component.
fn explain(error: BuildError, folder: &Path) -> BuildError {
    let BuildError::Failed { output, .. } = &error else {
        return error;
    };
    let Some((before, _)) = output.split_once(": build constraints exclude all Go files") else {
        return error;
    };
    let package = before.split_whitespace().next_back().unwrap_or_default();
    BuildError::Package {
        file: folder.join("go.mod"),
        package: package.to_owned(),
        why: "all of its source is for cgo or for other systems than WASI".to_owned(),
        source: Box::new(error),
    }
}

/// Runs `go test` for this machine, in the packages that have tests: others may be made of bindings, which are
/// for components alone.
pub(super) fn test(
    job: &Job<'_>,
    files: &[PathBuf],
    progress: &mut dyn FnMut(&str),
) -> Result<Option<Tested>, BuildError> {
    let tests = files.iter().filter(|file| Language::Go.is_test(file));
    let packages: BTreeSet<_> = tests
        .filter_map(|file| Some(Path::new(".").join(file.parent()?)))
        .collect();
    if packages.is_empty() {
        return Ok(None);
    }
    let mut command = Command::new(job.tools.find(Tool::Go)?);
    command
        .env_remove("GOFLAGS")
        .env_remove("GOOS")
        .env_remove("GOARCH")
        .env("GOWORK", "off")
        .arg("test");
    if let Some(modfile) = modfile(job)? {
        command.args([modfile.as_str(), "-mod=mod"]);
    }
    // `.` joined with nothing ends in a slash, which Go takes as well.
    command.args(&packages);
    tested("go test", job, &mut command, progress).map(Some)
}

/// Writes the bindings, and takes away those of interfaces that the world has no more.
fn write_bindings(job: &Job<'_>) -> Result<(), BuildError> {
    let files = bindings(options(None).build(), job.world, job.folder)?;
    for entry in fs::read_dir(job.folder).map_err(BuildError::reading(job.folder))? {
        let package = entry.map_err(BuildError::reading(job.folder))?.path();
        let stale = |path: &Path| {
            path.is_file() && !files.iter().any(|(name, _)| job.folder.join(name) == path)
        };
        if stale(&package.join("wit_bindings.go")) {
            for name in GENERATED {
                // What cannot be removed does no harm unless it is imported.
                let _ = fs::remove_file(package.join(name));
            }
            // Fails, as it should, where a file of the guest's own is left.
            let _ = fs::remove_dir(&package);
        }
    }
    for (name, contents) in files.iter().filter(|(name, _)| *name != "go.mod") {
        write(&job.folder.join(name), contents)?;
    }
    Ok(())
}

/// Writes the modules that come with wasmbay.
fn write_modules(job: &Job<'_>, sockets: &World) -> Result<(), BuildError> {
    for ((_, folder), files) in MODULES.iter().zip([PACKAGE_FILES, MODULE_FILES]) {
        for (name, contents) in files {
            let path = job.scratch.join(folder).join(name.trim_end_matches(".in"));
            write(&path, contents.as_bytes())?;
        }
    }
    let files = bindings(options(Some(MODULE)).build(), sockets, job.folder)?;
    for (name, contents) in files
        .iter()
        .filter(|(name, _)| name.starts_with("imports/"))
    {
        write(&job.scratch.join(MODULE).join(name), contents)?;
    }
    Ok(())
}

fn options(module: Option<&str>) -> wit_bindgen_go::Opts {
    wit_bindgen_go::Opts {
        // Running gofmt takes longer than generating.
        format: wit_bindgen_go::Format::False,
        quiet: true,
        pkg_name: module.map(str::to_owned),
        ..wit_bindgen_go::Opts::default()
    }
}

/// A `go.mod` that has our modules, unless the guest's own has them as a new service does.
fn modfile(job: &Job<'_>) -> Result<Option<String>, BuildError> {
    let own = job.folder.join("go.mod");
    let mut text = fs::read_to_string(&own).map_err(BuildError::reading(&own))?;
    let missing: Vec<_> = MODULES
        .iter()
        .filter(|(module, _)| !text.contains(&format!("{module} =>")))
        .collect();
    if missing.is_empty() {
        return Ok(None);
    }
    for (module, folder) in missing {
        text.push_str(&format!("\nreplace {module} => ./{OUTPUT}/go/{folder}\n"));
    }
    let modfile = job.scratch.join("go.mod");
    write(&modfile, text.as_bytes())?;
    // Go keeps the sums beside the file that it is given.
    if let Ok(sums) = fs::read(job.folder.join("go.sum")) {
        write(&job.scratch.join("go.sum"), &sums)?;
    }
    Ok(Some(format!("-modfile={}", modfile.display())))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_package_is_of_the_version_that_the_bindings_are_made_for() {
        let copied = include_str!("../gopkg/VERSION");
        assert_eq!(copied.trim(), wit_bindgen_go::remote_pkg_version());
    }
}
