//! The manifest, `wasmbay.toml`: from what was typed to a checked [`App`].
//!
//! Everything that the text alone can show is checked here, all problems at once, each with its
//! line. What needs the components' types is the business of [`crate::plan`]. Only [`App::load`]
//! touches the file system.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::interface::is_label;

mod events;
mod file;
mod gateway;
pub(crate) mod keys;
mod kinds;
mod routes;
mod services;
mod streams;
pub mod subjects;
pub mod values;
mod wires;

pub use events::{DeliveryPolicy, Durable, EventSpec, Outcome, Retention, Retry};
pub use gateway::GatewaySpec;
pub use keys::reference;
pub use routes::{Route, Target};
pub use services::{Grants, Limits, ServiceSpec};
pub use streams::{StoredSubjects, StreamSpec};
pub use wires::{Provider, Wire};

use file::{ManifestFile, Section};
use keys::app;

/// The file that [`App::load`] looks for in a folder.
pub const FILE_NAME: &str = "wasmbay.toml";

/// Bytes that a manifest may have. A service takes some 200, so this is room for thousands.
pub const MAX_FILE: u64 = 1 << 20;

/// Characters that the name of an app or service may have, as in a DNS label.
const MAX_NAME: usize = 63;

/// A named set of services, wires and routes, as a manifest describes it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct App {
    /// The app's name: one token of a NATS subject.
    pub name: String,
    /// The folder of the manifest.
    pub root: PathBuf,
    /// The services by name; never empty.
    pub services: BTreeMap<String, ServiceSpec>,
    /// Who answers which interface, where that was stated.
    pub wires: Vec<Wire>,
    /// Subjects whose raw messages are stored.
    pub streams: Vec<StreamSpec>,
    /// What the gateway serves.
    pub routes: Vec<Route>,
    /// Where and how the gateway listens.
    pub gateway: GatewaySpec,
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

impl App {
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
        let mut app = Self::check(&path, &text, &find)?;
        // Only to make the root independent of later changes of directory; failing leaves it as good.
        app.root = app.root.canonicalize().unwrap_or(app.root);
        Ok(app)
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
        let file = ManifestFile::new(path, text);
        let document = file.document();
        // A file that is no TOML would report its missing parts as well, and mislead.
        let app = if file.clean() {
            read_app(&file, &document, root, find)
        } else {
            None
        };
        match app {
            Some(app) if file.clean() => Ok(app),
            _ => Err(ManifestError::Refused(file.into_problems())),
        }
    }
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

fn read_app<'f>(
    file: &'f ManifestFile<'f>,
    document: &'f toml::de::DeTable<'f>,
    root: PathBuf,
    find: Find<'_>,
) -> Option<App> {
    let top = Section::top(file, document, &app::TABLE);
    let is_name = |text: &str| {
        (1..=MAX_NAME).contains(&text.len())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    top.require(&app::NAME);
    let name = top.text_that(&app::NAME, is_name);

    let sections = top.named(&app::SERVICE, &keys::service::TABLE);
    // Names of services count as declared even if the service itself is refused, so that one
    // mistake is one message.
    let declared: Vec<&str> = sections.iter().map(|(name, _)| name.value).collect();
    if document
        .get(app::SERVICE.name)
        .is_none_or(|all| all.get_ref().as_table().is_some_and(|t| t.is_empty()))
    {
        let at = top.place(app::SERVICE.name).unwrap_or_default();
        top.report(
            at,
            "there is no service; add one: `[service.NAME]` with `component = \"…\"`",
        );
    }
    let app_name = name.as_ref().map_or("", |name| name.value);
    let streams = streams::read(&top, app_name, &declared);
    let services = sections
        .iter()
        .filter_map(|(name, section)| {
            if !is_label(name.value) || name.value.len() > MAX_NAME {
                section.report(name.at, format!(
                    "this is no name of a service; accepted: words of letters and digits joined by `-`, starting with \
                     a letter, at most {MAX_NAME} characters"
                ));
            }
            Some((name.value.to_owned(), services::read(name.value, section, &root, &streams, find)?))
        })
        .collect();
    let wires = wires::read(&top, &declared);
    let routes = routes::read(file, &top, &declared);
    Some(App {
        name: name?.value.to_owned(),
        root,
        services,
        wires,
        streams,
        routes,
        gateway: gateway::read(&top),
    })
}

#[cfg(test)]
mod tests;
