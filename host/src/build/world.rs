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

/// The nearest `wit/` in the folder or above it. A program needs none; that of another is then as good.
pub(super) fn nearest_wit(folder: &Path) -> Result<PathBuf, BuildError> {
    let mut all = folder.ancestors().map(|above| above.join("wit"));
    match all.find(|wit| wit.is_dir()) {
        Some(wit) => Ok(wit),
        None if is_program(folder) => Ok(folder.join("wit")),
        None => Err(BuildError::NoWit {
            folder: folder.to_owned(),
        }),
    }
}

/// Whether a folder has a program with a `main`, which says by itself what it exports: `wasi:cli/run`.
fn is_program(folder: &Path) -> bool {
    folder.join("src/main.rs").is_file()
}

/// The world of a program that has none in WIT.
fn of_program(name: &str) -> Option<(Resolve, PackageId)> {
    let mut resolve = Resolve::default();
    let text = format!("package wasmbay:program; world {name} {{}}");
    let package = resolve.push_str("program.wit", &text).ok()?;
    Some((resolve, package))
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
    /// The world named like the folder, else the only one that the root package of `wit` has. A program without
    /// one of its name has an empty one.
    pub(super) fn of(folder: &Path, wit: &Path) -> Result<Self, BuildError> {
        let expected = folder
            .file_name()
            .map(|name| name.to_string_lossy().replace('_', "-"))
            .unwrap_or_default();
        let has = |(resolve, package): &(Resolve, PackageId)| {
            let package = resolve.packages.get(*package);
            package.is_some_and(|package| package.worlds.contains_key(&expected))
        };
        let program = is_program(folder).then(|| of_program(&expected)).flatten();
        let (resolve, package) = match program {
            Some(program) if !wit.is_dir() => program,
            Some(program) => Some(parse(wit)?).filter(has).unwrap_or(program),
            None => parse(wit)?,
        };
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
