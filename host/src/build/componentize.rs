//! From a world to bindings, and from a core module to a component, without any program outside
//! this one.

use std::error::Error;
use std::fs;
use std::path::Path;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::BuildError;
use super::world::World;

/// The files of a world's bindings.
pub(super) fn bindings(
    mut generator: Box<dyn WorldGenerator>,
    world: &World,
    folder: &Path,
) -> Result<Files, BuildError> {
    let mut files = Files::default();
    generator
        .generate(&mut world.resolve.clone(), world.id, &mut files)
        .map_err(|error| failed("generating bindings", folder, error.into()))?;
    Ok(files)
}

/// Adds to a core module what it needs to become a component of the world.
pub(super) fn embed(module: &mut Vec<u8>, world: &World, folder: &Path) -> Result<(), BuildError> {
    embed_component_metadata(
        module,
        &world.resolve,
        world.id,
        StringEncoding::UTF8,
        false,
    )
    .map_err(|error| failed("embedding the world", folder, error.into()))
}

/// The component of a core module for WASI 0.1 that carries its world.
pub(super) fn componentize(module: &[u8], folder: &Path) -> Result<Vec<u8>, BuildError> {
    let encode = || {
        ComponentEncoder::default()
            .module(module)?
            .validate(true)
            .adapter(
                WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )?
            .encode()
    };
    encode().map_err(|error| failed("making a component", folder, error.into()))
}

/// Writes a file unless it has these contents, so that compilers which look at times see
/// no changes that are none.
pub(super) fn write(path: &Path, contents: &[u8]) -> Result<(), BuildError> {
    if fs::read(path).is_ok_and(|there| there == contents) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(BuildError::writing(parent))?;
    }
    fs::write(path, contents).map_err(BuildError::writing(path))
}

fn failed(step: &'static str, folder: &Path, source: Box<dyn Error + Send + Sync>) -> BuildError {
    BuildError::Component {
        step,
        folder: folder.to_owned(),
        source,
    }
}
