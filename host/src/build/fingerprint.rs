//! What a component was made of, by which a build knows that it has nothing to do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::world::World;
use super::{BuildError, Language, Tools, tools_of};
use crate::text::hex;

/// Changes when the recipes do, so that components of an older wasmbay are built again.
const RECIPES: &str = concat!(env!("CARGO_PKG_VERSION"), "/6");

/// All that can change a component.
pub(super) struct Inputs<'a> {
    pub(super) folder: &'a Path,
    pub(super) language: Language,
    pub(super) world: &'a World,
    pub(super) tools: &'a Tools,
}

/// The digests of a component's inputs, kept beside it as JSON.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    /// SHA-256 of sources, world and recipe.
    sources: String,
    /// SHA-256 of what is known of the tools' files.
    tools: Option<String>,
    /// Files outside the guest's folder that the compiler read.
    pub(super) elsewhere: Vec<PathBuf>,
}

impl Fingerprint {
    /// The fingerprint of a component; an empty one, which allows nothing, where there is none.
    pub(super) fn read(component: &Path) -> Self {
        fs::read(beside(component))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Takes the fingerprint of a build from the digest of its sources before it.
    pub(super) fn take(
        inputs: &Inputs<'_>,
        before: String,
        elsewhere: Vec<PathBuf>,
    ) -> Result<Self, BuildError> {
        // Files elsewhere are known only now, so a change of the guest's own during the build is
        // what `before` is for.
        let sources = if inputs.sources(&[])? == before {
            inputs.sources(&elsewhere)?
        } else {
            String::new()
        };
        Ok(Self {
            sources,
            tools: inputs.tools(),
            elsewhere,
        })
    }

    /// Whether the component that carries this fingerprint is what a build would make.
    ///
    /// Where a tool is missing, a component with the same sources is taken as it is.
    pub(super) fn allows_reuse(&self, inputs: &Inputs<'_>) -> Result<bool, BuildError> {
        let now = inputs.tools();
        Ok((now.is_none() || now == self.tools)
            && self.sources == inputs.sources(&self.elsewhere)?)
    }

    pub(super) fn write(&self, component: &Path) -> Result<(), BuildError> {
        let path = beside(component);
        let text = serde_json::to_vec(self)
            .map_err(io::Error::from)
            .map_err(BuildError::writing(&path))?;
        super::replace(&path, &text)
    }
}

fn beside(component: &Path) -> PathBuf {
    component.with_extension("json")
}

impl Inputs<'_> {
    /// The digest of the sources, with those elsewhere. A file elsewhere that is gone counts as
    /// empty: the build will say what is missing.
    pub(super) fn sources(&self, elsewhere: &[PathBuf]) -> Result<String, BuildError> {
        let mut digest = Sha256::new();
        let mut add = |name: &Path, contents: &[u8]| {
            // Lengths keep one file's end from passing for the next one's beginning.
            let name = name.as_os_str().as_encoded_bytes();
            digest.update((name.len() as u64).to_le_bytes());
            digest.update(name);
            digest.update((contents.len() as u64).to_le_bytes());
            digest.update(contents);
        };
        add(Path::new("recipe"), RECIPES.as_bytes());
        add(Path::new("language"), self.language.to_string().as_bytes());
        add(Path::new("world"), &self.world.encoded()?);
        let files = files(self.folder)?.into_iter();
        for file in files.filter(|file| !self.language.is_test(file)) {
            let path = self.folder.join(&file);
            add(&file, &fs::read(&path).map_err(BuildError::reading(&path))?);
        }
        for path in elsewhere {
            add(path, &fs::read(path).unwrap_or_default());
        }
        Ok(hex(&digest.finalize()))
    }

    /// The digest of where the tools are and which files they are; `None` when one is missing.
    ///
    /// Their versions would have to be asked for, which takes longer than all else here.
    fn tools(&self) -> Option<String> {
        let mut digest = Sha256::new();
        for tool in tools_of(self.folder, self.language) {
            let path = self.tools.find(*tool).ok()?.canonicalize().ok()?;
            let about = path.metadata().ok()?;
            let modified = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            digest.update(path.as_os_str().as_encoded_bytes());
            digest.update([0]);
            digest.update(about.len().to_le_bytes());
            digest.update(modified.as_nanos().to_le_bytes());
        }
        Some(hex(&digest.finalize()))
    }
}

/// Whether a path inside a guest's folder is source: no part of it is hidden, the output of a
/// compiler, an installed package or a generated binding.
pub(super) fn is_source(inside: &Path) -> bool {
    let generated = |name: &str| {
        name.starts_with('.')
            || ["target", "node_modules", "__pycache__"].contains(&name)
            // The first build writes it, so it counts as one of the files elsewhere.
            || name == "Cargo.lock"
            || super::recipe::go::GENERATED.contains(&name)
            || name.ends_with('~')
    };
    !inside
        .components()
        .any(|part| part.as_os_str().to_str().is_some_and(generated))
}

/// The files of a guest's folder that people wrote, tests included, in order of their paths in it.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let mut files = Vec::new();
    list(folder, Path::new(""), &mut files)?;
    files.sort();
    Ok(files)
}

fn list(root: &Path, inside: &Path, files: &mut Vec<PathBuf>) -> Result<(), BuildError> {
    let folder = root.join(inside);
    for entry in fs::read_dir(&folder).map_err(BuildError::reading(&folder))? {
        let entry = entry.map_err(BuildError::reading(&folder))?;
        let path = inside.join(entry.file_name());
        if !is_source(&path) {
            continue;
        }
        let kind = entry.file_type().map_err(BuildError::reading(&folder))?;
        // A link to a folder is not followed: it may lead back here.
        if kind.is_dir() {
            list(root, &path, files)?;
        } else if root.join(&path).is_file() {
            files.push(path);
        }
    }
    Ok(())
}
