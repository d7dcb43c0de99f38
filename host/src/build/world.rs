//! The WIT that a guest is built against, and the world in it that the guest implements.

use std::path::{Path, PathBuf};

use wit_component::StringEncoding;
use wit_parser::{PackageId, Resolve, WorldId};

use super::BuildError;

/// A world and the packages that it is made of.
pub(super) struct World {
    pub(super) resolve: Resolve,
    pub(super) id: WorldId,
    pub(super) name: String,
    wit: PathBuf,
}

/// The nearest `wit/` in the folder or above it.
pub(super) fn nearest_wit(folder: &Path) -> Result<PathBuf, BuildError> {
    folder
        .ancestors()
        .map(|above| above.join("wit"))
        .find(|wit| wit.is_dir())
        .ok_or_else(|| BuildError::NoWit {
            folder: folder.to_owned(),
        })
}

/// The packages of a `wit/` folder, and which of them is its own.
pub(super) fn parse(wit: &Path) -> Result<(Resolve, PackageId), BuildError> {
    let mut resolve = Resolve::default();
    match resolve.push_dir(wit) {
        Ok((package, _)) => Ok((resolve, package)),
        Err(error) => Err(BuildError::Wit {
            wit: wit.to_owned(),
            // The error alone has neither file nor line.
            source: resolve.render_error(&error).into(),
        }),
    }
}

impl World {
    /// The world named like the folder, else the only one that the root package of `wit` has.
    pub(super) fn of(folder: &Path, wit: &Path) -> Result<Self, BuildError> {
        let (resolve, package) = parse(wit)?;
        let expected = folder
            .file_name()
            .map(|name| name.to_string_lossy().replace('_', "-"))
            .unwrap_or_default();
        let worlds = resolve.packages.get(package).map(|package| &package.worlds);
        let worlds = worlds.into_iter().flatten();
        let mut only: Vec<(&String, &WorldId)> = worlds.collect();
        if let Some(named) = only.iter().position(|(name, _)| **name == expected) {
            only = vec![only.swap_remove(named)];
        }
        let &[(name, &id)] = only.as_slice() else {
            return Err(BuildError::NoWorld {
                wit: wit.to_owned(),
                expected,
                worlds: only.into_iter().map(|(name, _)| name.clone()).collect(),
            });
        };
        Ok(Self {
            name: name.clone(),
            resolve,
            id,
            wit: wit.to_owned(),
        })
    }

    /// The only world of a text that is part of wasmbay.
    pub(super) fn of_text(text: &str) -> Result<Self, BuildError> {
        let path = Path::new("own.wit");
        let mut resolve = Resolve::default();
        let package = resolve.push_str(path, text);
        let world = package.and_then(|package| resolve.select_world(&[package], None));
        let id = world.map_err(|error| BuildError::Wit {
            wit: path.to_owned(),
            source: error.into(),
        })?;
        Ok(Self {
            name: String::new(),
            resolve,
            id,
            wit: path.to_owned(),
        })
    }

    /// The world's types as a component carries them: the same bytes mean that bindings are the
    /// same, whatever else changed in the WIT.
    pub(super) fn encoded(&self) -> Result<Vec<u8>, BuildError> {
        wit_component::metadata::encode(&self.resolve, self.id, StringEncoding::UTF8, None, false)
            .map_err(|error| BuildError::Wit {
                wit: self.wit.clone(),
                source: error.into(),
            })
    }
}
