//! Why a guest could not be built or made.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::{Language, Tool};

/// Why a guest could not be built or made. Where a compiler refused the source, the text is what
/// it printed, unchanged.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nothing in the folder is the start of a guest.
    #[error(
        "{} holds no guest: it has none of Cargo.toml, go.mod, index.ts, index.js, app.py and *.c",
        folder.display()
    )]
    NoLanguage {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder could be a guest in more than one language.
    #[error("{} could be a guest in {first} or in {second}: give each its own folder", folder.display())]
    TwoLanguages {
        /// The folder.
        folder: PathBuf,
        /// One of the languages.
        first: Language,
        /// Another one.
        second: Language,
    },
    /// There is no file that the language's recipe could begin with.
    #[error("{} has no {expected}", folder.display())]
    NoEntry {
        /// The folder.
        folder: PathBuf,
        /// What is looked for.
        expected: String,
    },
    /// No `wit/` folder on the way up.
    #[error("there is no wit/ folder in {} or above it", folder.display())]
    NoWit {
        /// The guest's folder.
        folder: PathBuf,
    },
    /// There is no such runtime.
    #[error("`wasmbay.runtime` in {} is {found}; accepted: \"quickjs\", \"starlingmonkey\"", folder.join("package.json").display())]
    Runtime {
        /// The guest's folder.
        folder: PathBuf,
        /// What is there.
        found: String,
    },
    /// The WIT has an error.
    #[error("the WIT in {} has an error", wit.display())]
    Wit {
        /// The `wit/` folder.
        wit: PathBuf,
        /// The parser's message, with file and line.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Several worlds, none of them named like the folder.
    #[error(
        "no world in {} is named `{expected}` like the guest's folder; its worlds are {}",
        wit.display(), list(worlds)
    )]
    NoWorld {
        /// The `wit/` folder.
        wit: PathBuf,
        /// The name that a world should have.
        expected: String,
        /// The worlds that there are.
        worlds: Vec<String>,
    },
    /// The world has something that no service, or none in this language, can have.
    #[error("{interface}: `{item}` {why}")]
    Unserved {
        /// The interface.
        interface: String,
        /// The function or type.
        item: String,
        /// What it has.
        why: String,
    },
    /// A compiler failed, and the WIT has names that are words of the language.
    #[error(
        "these names mean something in {language}, and have to be others in the WIT: {}",
        places.join(", ")
    )]
    Word {
        /// The guest's language.
        language: Language,
        /// The names, and what they are names of.
        places: Vec<String>,
        /// What the compiler printed.
        source: Box<BuildError>,
    },
    /// A package cannot be part of a component.
    #[error("{}: `{package}` cannot be part of a component: {why}", file.display())]
    Package {
        /// The file that lists it, or what depends on it.
        file: PathBuf,
        /// The package, as its language's tool names it.
        package: String,
        /// What is in the way.
        why: String,
        /// What the tool printed.
        source: Box<BuildError>,
    },
    /// A package is neither installed nor locked.
    #[error(
        "{} lists `{package}`, which is not installed, and no package-lock.json says which one: \
         run `npm install` there, and keep the package-lock.json that it writes",
        folder.join("package.json").display()
    )]
    Unlocked {
        /// The guest's folder.
        folder: PathBuf,
        /// The package.
        package: String,
    },
    /// A tool is not installed.
    #[error("{tool} is missing, which {} needs; install it by `{install}`", tool.needed_for())]
    Missing {
        /// The tool.
        tool: Tool,
        /// The command that installs it.
        install: String,
    },
    /// Another user may have put the tool there, or can change it.
    #[error("{tool} is not run from {}", path.display())]
    Unsafe {
        /// The tool.
        tool: Tool,
        /// Where it was found.
        path: PathBuf,
        /// What is wrong there.
        source: crate::programs::Unsafe,
    },
    /// A program that runs unit tests is not installed.
    #[error("{program} is missing, by which the unit tests are run; install it, or put it on PATH")]
    NoRunner {
        /// The program, or those of which one is enough.
        program: String,
    },
    /// Another user may have put the program there, or can change it.
    #[error("no tests are run by {}", path.display())]
    UnsafeRunner {
        /// Where it was found.
        path: PathBuf,
        /// What is wrong there.
        source: crate::programs::Unsafe,
    },
    /// A tool could not be started.
    #[error("cannot run {}", program.display())]
    Start {
        /// The tool's file.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A tool ran and failed.
    #[error("{step} failed in {} ({status})\n{}", folder.display(), output.trim_end())]
    Failed {
        /// Which tool, and what it was to do.
        step: String,
        /// The guest's folder.
        folder: PathBuf,
        /// How the tool ended.
        status: ExitStatus,
        /// What the tool printed.
        output: String,
    },
    /// The source does not export what its world says.
    #[error("the source in {} does not export what world `{world}` says:\n  {}", folder.display(), problems.join("\n  "))]
    Exports {
        /// The guest's folder.
        folder: PathBuf,
        /// The world's name.
        world: String,
        /// What is missing or wrong, a line each.
        problems: Vec<String>,
    },
    /// Two exported interfaces would be one object in JavaScript.
    #[error(
        "{first} and {second} would both be the export `{object}` of {}: \
         a service in TypeScript or JavaScript can export only one of them",
        folder.display()
    )]
    OneObject {
        /// The guest's folder.
        folder: PathBuf,
        /// One of the interfaces.
        first: String,
        /// The other one.
        second: String,
        /// The name of both.
        object: String,
    },
    /// Bindings could not be generated, or a module could not be made a component.
    #[error("{step} failed in {}", folder.display())]
    Component {
        /// What was to be done.
        step: &'static str,
        /// The guest's folder.
        folder: PathBuf,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A compiler ended well, but what it should have made is not there.
    #[error("{step} made no {expected} in {}", folder.display())]
    NoOutput {
        /// Which tool, and what it was to do.
        step: &'static str,
        /// What was expected.
        expected: String,
        /// The guest's folder.
        folder: PathBuf,
    },
    /// A name that no service can have.
    #[error("`{name}` cannot be the name of a service: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Something is where a new file belongs.
    #[error("{} is there already", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
}

impl BuildError {
    pub(super) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    pub(super) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }
}

fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() {
        return "none".to_owned();
    }
    quoted.join(", ")
}
