//! The manifest, `wasmbay.toml`: from what was typed to a checked [`App`], and to where its components
//! are.
//!
//! Everything that the text alone can show is checked here, all problems at once, each with its
//! line. What needs the components' types is the business of [`crate::plan`]. Only [`Manifest::load`]
//! touches the file system, and only [`Manifest`] has paths: an [`App`] means the same on every host.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

mod app;
mod auth;
mod breakers;
mod cors;
mod durable;
mod endpoint;
mod events;
mod file;
mod gateway;
mod grpc;
mod jobs;
pub(crate) mod keys;
mod kinds;
mod lock;
mod nest;
mod pipelines;
mod placement;
mod proto_lock;
mod proxies;
mod rate;
mod reference;
mod rollout;
mod routes;
mod services;
mod settings;
mod shares;
mod specification;
mod streams;
pub mod subjects;
mod tls;
pub mod values;
mod wires;

pub use app::App;
pub use auth::{Auth, AuthSpec, JwksSource, JwtSpec, KeySpec};
pub use breakers::{BreakerPolicy, BreakerSpec, Fallback};
pub use cors::CorsSpec;
pub use durable::{DurableFunction, DurableSpec};
pub use endpoint::{Endpoint, EndpointError, EndpointHost};
pub use events::{DeliveryPolicy, Durable, EventSpec, Outcome, Retention, Retry};
pub use gateway::{ApiDocument, GatewaySpec, RpcPaths};
pub use grpc::{GrpcAddress, GrpcAddressError, GrpcSpec};
pub use jobs::{JobKeep, JobRetry, JobSpec, Schedule, When};
pub use keys::reference;
pub use lock::{LOCK, Lock, LockError};
pub use nest::{NestHandler, NestSpec};
pub use pipelines::{
    ActSpec, Attempts, CallSpec, Case, ConditionSpec, EachSpec, NoPath, OnError, PipelineBounds,
    PipelineSpec, Place, Segment, SleepSpec, StepSpec, Template, TemplateKind, ValuePath, WaitSpec,
};
pub(crate) use pipelines::{ERROR, ITEM};
pub use placement::{MAX_REPLICAS, Replicas, ReplicasError, is_label_text};
pub use proto_lock::{Numbers, PROTO_LOCK, ProtoLock, ProtoLockError};
pub use proxies::Networks;
pub use rate::{RateBy, RateSpec};
pub use reference::{Reference, ReferenceError};
pub use rollout::{CanarySpec, RollbackOn, RolloutSpec};
pub use routes::{Route, Target};
pub use services::{BlobstoreGrant, Grants, KeyValueGrant, Limits, ServiceSpec};
pub use shares::{Percent, PercentError, Times};
pub use specification::{Digest, DigestError, Specification, SpecificationError};
pub use streams::{StoredSubjects, StreamSpec};
pub use tls::{ClientCertificate, TlsSpec};
pub(crate) use values::duration_text;
pub use values::{FolderName, FolderNameError};
pub use wires::{LocalCall, Provider, Wire};

use file::Section;

/// The file that [`Manifest::load`] looks for in a folder.
pub const FILE_NAME: &str = "wasmbay.toml";

/// Bytes that a manifest may have. A service takes some 200, so this is room for thousands.
pub const MAX_FILE: u64 = 1 << 20;

/// Characters that the name of an app or service may have, as in a DNS label.
const MAX_NAME: usize = 63;

/// A manifest that was read: what it specifies, and where the components come from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Manifest {
    /// The app.
    pub app: App,
    /// The folder of the manifest.
    pub root: PathBuf,
    /// A guest's folder or a `.wasm` file for each service that has one here.
    pub components: BTreeMap<String, PathBuf>,
    /// For the other services, where their component is in a registry.
    pub references: BTreeMap<String, Reference>,
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read and refused. One problem a line.
    #[error("{}", lines(.0))]
    Refused(Vec<Problem>),
    /// The file of numbers beside it could not be read.
    #[error(transparent)]
    ProtoLock(#[from] ProtoLockError),
}

/// One thing that is wrong in a manifest, and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The manifest.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong with which key, and what it accepts.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
        } = self;
        write!(f, "{}:{line}:{column}: {message}", file.display())
    }
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Finds the component that a manifest names, or tells that there is none.
type Find<'a> = &'a dyn Fn(&Path) -> Option<PathBuf>;

impl Manifest {
    /// Reads and checks a manifest, or the `wasmbay.toml` of a folder.
    ///
    /// # Errors
    ///
    /// The file cannot be read, has more than [`MAX_FILE`] bytes or is refused; then the error
    /// has every problem that was found.
    pub fn load(path: &Path) -> Result<Self, ManifestError> {
        let path = if path.is_dir() {
            path.join(FILE_NAME)
        } else {
            path.to_owned()
        };
        let text = read_text(&path).map_err(|source| ManifestError::Read {
            path: path.clone(),
            source,
        })?;
        let find = |component: &Path| component.canonicalize().ok();
        let mut manifest = Self::check(&path, &text, &find)?;
        // Only to make the root independent of later changes of directory; failing leaves it as good.
        manifest.root = manifest.root.canonicalize().unwrap_or(manifest.root);
        manifest.app.proto_lock = ProtoLock::beside(&path)?;
        Ok(manifest)
    }

    /// Checks a manifest's text. Paths are resolved against the folder of `path`, and whether
    /// something is there is left open.
    ///
    /// # Errors
    ///
    /// The text is refused; the error has every problem that was found.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ManifestError> {
        Self::check(path, text, &|component| Some(component.to_owned()))
    }

    fn check(path: &Path, text: &str, find: Find<'_>) -> Result<Self, ManifestError> {
        let root = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let read = |top: &Section<'_>| {
            let (components, references) = services::read_components(top, &root, find);
            let files = gateway::find_files(top, &root, find);
            let mut app = App::read(top)?;
            app.gateway.put_files(&files);
            Some((app, components, references))
        };
        let (app, components, references) =
            file::read(path, text, read).map_err(ManifestError::Refused)?;
        Ok(Self {
            app,
            root,
            components,
            references,
        })
    }
}

/// The keys of `grants`.
#[cfg(test)]
pub(crate) fn grant_names() -> Vec<&'static str> {
    let rows = keys::grants::TABLE.keys.iter();
    rows.map(|row| row.name()).collect()
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read <= MAX_FILE) {
        Ok(text)
    } else {
        let size = values::size_text(MAX_FILE);
        Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {size}"),
        ))
    }
}

#[cfg(test)]
mod tests;
