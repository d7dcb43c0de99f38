//! `wasi:filesystem`: folders of the app, to be read and never written.
//!
//! wasmtime-wasi holds a guest within a folder, whatever its paths and links say; which folders there are is
//! decided here, once for a service.

use std::io;
use std::path::{Path, PathBuf};

use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use super::Output;
use crate::manifest::ServiceSpec;

/// Why a service cannot have its folders.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The host was not started in an app's folder.
    #[error(
        "`grants.files` names `{0}`, and this host has no folder of the app: files do not travel with a deploy"
    )]
    NoFolder(String),
    /// There is no such folder.
    #[error("`grants.files`: there is no folder {}", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// It is something else.
    #[error("`grants.files`: {} is no folder", .0.display())]
    NotAFolder(PathBuf),
    /// A link leads out of the app's folder.
    #[error("`grants.files`: {} is a link to {}, outside of the app's folder", path.display(), target.display())]
    Outside {
        /// The folder.
        path: PathBuf,
        /// Where it is.
        target: PathBuf,
    },
}

/// The folders of a service: where they are, and what it calls them.
#[derive(Debug, Default)]
pub(crate) struct Folders(Vec<(PathBuf, String)>);

impl Folders {
    /// Finds them in the folder of the app.
    pub(crate) fn of(spec: &ServiceSpec, root: Option<&Path>) -> Result<Self, FilesError> {
        let folders = spec.grants.files.iter();
        let folders = folders.map(|folder| {
            let Some(root) = root else {
                return Err(FilesError::NoFolder(folder.to_string()));
            };
            let path = root.join(folder.as_str());
            let real = |at: &Path| {
                at.canonicalize().map_err(|source| FilesError::Missing {
                    path: at.to_owned(),
                    source,
                })
            };
            let (root, target) = (real(root)?, real(&path)?);
            if !target.starts_with(root) {
                return Err(FilesError::Outside { path, target });
            }
            if !target.is_dir() {
                return Err(FilesError::NotAFolder(path));
            }
            Ok((target, format!("/{folder}")))
        });
        folders.collect::<Result<_, _>>().map(Self)
    }

    /// Gives them to a new instance.
    pub(super) fn grant(&self, context: &mut WasiCtxBuilder, output: &Output) {
        for (path, name) in &self.0 {
            if let Err(error) = context.preopened_dir(path, name, FsPerms::ReadOnly)
                && output.admits(0)
            {
                let (service, path) = (output.service(), path.display());
                tracing::warn!(service, %path, %error, "a folder is gone, and missing in an instance");
            }
        }
    }
}
