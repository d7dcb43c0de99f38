//! JavaScript on StarlingMonkey: a larger runtime, with `fetch`, timers and promises, for a guest that asks
//! for it in its `package.json`.

use std::process::Command;

use wit_parser::WorldItem;

use super::{Built, Job};
use crate::build::process::{Stdout, run};
use crate::build::{BuildError, Tool};

/// What a world exports that has requests come to it.
const HTTP_HANDLER: &str = "wasi:http/incoming-handler";

/// Arguments by which esbuild leaves imported interfaces to the tool, which knows them by their
/// versions.
pub(super) fn arguments(job: &Job<'_>) -> Vec<String> {
    let (mut arguments, mut unversioned) = (Vec::new(), Vec::new());
    let world = job.world.resolve.worlds.get(job.world.id);
    for (key, item) in world.into_iter().flat_map(|world| &world.imports) {
        if !matches!(item, WorldItem::Interface { .. }) {
            continue;
        }
        let name = job.world.resolve.name_world_key(key);
        if let Some((bare, _)) = name.split_once('@') {
            unversioned.push((bare.to_owned(), name.clone()));
        }
        arguments.push(format!("--external:{name}"));
    }
    // Of two versions of an interface neither is the one without a version.
    let is_only = |bare: &str| {
        unversioned
            .iter()
            .filter(|(other, _)| other == bare)
            .count()
            == 1
    };
    let alias =
        |(bare, name): &(String, String)| is_only(bare).then(|| format!("--alias:{bare}={name}"));
    arguments.extend(unversioned.iter().filter_map(alias));
    arguments
}

/// Makes a component of the bundle.
pub(super) fn componentize(
    job: &Job<'_>,
    bundle: &std::path::Path,
    progress: &mut dyn FnMut(&str),
) -> Result<Built, BuildError> {
    let tool = job.tools.find(Tool::ComponentizeJs)?;
    let output = job.scratch.join("component.wasm");
    let mut command = Command::new(tool);
    command
        .current_dir(job.folder)
        .arg(bundle)
        .arg("--wit")
        .arg(job.wit)
        .args(["--world-name", &job.world.name]);
    let world = job.world.resolve.worlds.get(job.world.id);
    let mut exports = world.into_iter().flat_map(|world| world.exports.keys());
    let name = |key| job.world.resolve.name_world_key(key);
    if !exports.any(|key| name(key).starts_with(HTTP_HANDLER)) {
        // Else every component would take requests.
        command.args(["--disable", "fetch-event"]);
    }
    command.arg("--out").arg(&output);
    run(
        "componentize-js",
        job.folder,
        &mut command,
        Stdout::Messages,
        progress,
    )?;
    Built::read(&output, "componentize-js", Vec::new(), job)
}
