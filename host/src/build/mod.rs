//! From a guest's folder to a component: which language it is in, which world it implements, and
//! the recipe that compiles it.
//!
//! A guest is built against the nearest `wit/` folder above it, for the world that has the folder's
//! name, or for the only world there is. What comes out is `.wasmbay/<world>.wasm` in the guest's
//! folder, beside a fingerprint of all that went in, so that a build with nothing to do costs
//! milliseconds.
//!
//! Everything here blocks: call it from a blocking thread. Nothing here knows of services, NATS or
//! the engine.

use std::fs;
use std::path::{Path, PathBuf};

mod check;
mod comments;
mod componentize;
mod edge;
mod error;
mod fingerprint;
mod language;
mod new;
mod process;
mod recipe;
mod tools;
mod typescript;
mod world;

pub use comments::Comments;
pub use error::BuildError;
pub use language::{Language, UnknownLanguage, detect, tools_of};
pub use new::scaffold;
pub use recipe::Tested;
pub use tools::{Tool, ToolStatus, Tools};

use fingerprint::{Fingerprint, Inputs};
use recipe::Job;
use world::World;

/// What a build leaves in a guest's folder: the component, its fingerprint, intermediate files.
pub const OUTPUT: &str = ".wasmbay";

/// Locked in that folder by the build that writes to it.
const LOCK: &str = "build.lock";

/// A service's source: a folder, its language, and the world that it implements.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The folder, absolute.
    pub folder: PathBuf,
    /// The language of its source.
    pub language: Language,
    /// The `wit/` folder that it is built against.
    pub wit: PathBuf,
    /// The world's name.
    pub world: String,
}

impl Guest {
    /// Recognises the language and finds the world.
    ///
    /// # Errors
    ///
    /// If the folder holds no guest in a known language, or several; if there is no `wit/` above
    /// it, or one that does not parse; if none of its worlds has the folder's name and there is
    /// more than one.
    pub fn open(folder: &Path) -> Result<Self, BuildError> {
        let folder = std::path::absolute(folder).map_err(BuildError::reading(folder))?;
        let language = detect(&folder)?;
        let wit = world::nearest_wit(&folder)?;
        let world = World::of(&folder, &wit)?.name;
        Ok(Self {
            folder,
            language,
            wit,
            world,
        })
    }

    /// Where the component is after a build.
    #[must_use]
    pub fn component(&self) -> PathBuf {
        self.folder
            .join(OUTPUT)
            .join(format!("{}.wasm", self.world))
    }

    /// What to watch for changes: the folder, the WIT, and files elsewhere that the last build
    /// read. Below the folder, what [`Guest::is_source`] denies is no reason to build.
    #[must_use]
    pub fn sources(&self) -> Vec<PathBuf> {
        let mut sources = vec![self.folder.clone(), self.wit.clone()];
        sources.extend(Fingerprint::read(&self.component()).elsewhere);
        sources
    }

    /// Whether a change of this file can change the component: hidden files, build output,
    /// installed packages, generated bindings and tests do not.
    #[must_use]
    pub fn is_source(&self, path: &Path) -> bool {
        let inside = path.strip_prefix(&self.folder);
        inside.is_ok_and(|inside| fingerprint::is_source(inside) && !self.language.is_test(inside))
            || path.starts_with(&self.wit)
            || Fingerprint::read(&self.component())
                .elsewhere
                .iter()
                .any(|file| file == path)
    }

    /// Whether this file is a unit test of the guest: a change of it changes no component.
    #[must_use]
    pub fn is_test(&self, path: &Path) -> bool {
        path.strip_prefix(&self.folder)
            .is_ok_and(|inside| fingerprint::is_source(inside) && self.language.is_test(inside))
    }

    /// Runs the guest's unit tests by its language's own runner, on this machine and not in a sandbox. Nothing if
    /// it has none. The guest has to be built: that leaves the bindings that tests may need.
    ///
    /// # Errors
    ///
    /// If a program is missing that the tests need, or the WIT does not parse. Tests that fail are no error here.
    pub fn test(
        &self,
        tools: &Tools,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Option<Tested>, BuildError> {
        let files = fingerprint::files(&self.folder)?;
        let scratch = self.scratch();
        let job = Job {
            folder: &self.folder,
            scratch: &scratch,
            wit: &self.wit,
            world: &World::of(&self.folder, &self.wit)?,
            tools,
        };
        recipe::test(self.language, &job, &files, progress)
    }

    /// Where intermediate files go.
    fn scratch(&self) -> PathBuf {
        self.folder.join(OUTPUT).join(self.language.to_string())
    }

    /// Compiles the guest, unless the component is there and nothing that went into it has changed,
    /// and returns the component's file. `progress` is called with one line for each step, and those that
    /// the compilers print as they go.
    ///
    /// The component is replaced in one step, so a reader has the old one or the
    /// new one.
    ///
    /// # Errors
    ///
    /// If a tool is missing, with the command that installs it; if a compiler refuses the source,
    /// with what it printed; if the WIT does not parse, or has what no service in the language can
    /// have.
    pub fn build(
        &self,
        tools: &Tools,
        progress: &mut dyn FnMut(&str),
    ) -> Result<PathBuf, BuildError> {
        let component = self.component();
        let world = World::of(&self.folder, &self.wit)?;
        check::check(&world, self.language)?;
        let before = Fingerprint::read(&component);
        let inputs = Inputs {
            folder: &self.folder,
            language: self.language,
            world: &world,
            tools,
        };
        if component.is_file() && before.allows_reuse(&inputs)? {
            return Ok(component);
        }
        let output = self.folder.join(OUTPUT);
        fs::create_dir_all(&output).map_err(BuildError::writing(&output))?;
        // Two builds at once would write to the same intermediate files. The later one waits, and
        // finds its work done. Closing the file lets go.
        let lock = output.join(LOCK);
        let held = fs::File::create(&lock).map_err(BuildError::writing(&lock))?;
        held.lock().map_err(BuildError::writing(&lock))?;
        let before = Fingerprint::read(&component);
        if component.is_file() && before.allows_reuse(&inputs)? {
            return Ok(component);
        }
        let scratch = self.scratch();
        fs::create_dir_all(&scratch).map_err(BuildError::writing(&scratch))?;
        // Taken before compiling, so that a change during it leads to another build, not to none.
        let sources = inputs.sources(&[])?;
        let built = recipe::build(
            self.language,
            &Job {
                folder: &self.folder,
                scratch: &scratch,
                wit: &self.wit,
                world: &world,
                tools,
            },
            progress,
        )
        .map_err(|error| check::explain(error, &world, self.language))?;
        replace(&component, &built.component)?;
        Fingerprint::take(&inputs, sources, built.elsewhere)?.write(&component)?;
        Ok(component)
    }
}

/// Writes a file in one step.
fn replace(path: &Path, contents: &[u8]) -> Result<(), BuildError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || {
        // Made like any file: a temporary one would be readable by its owner alone.
        let mut file =
            tempfile::Builder::new().make_in(folder, |path| fs::File::create_new(path))?;
        std::io::Write::write_all(&mut file, contents)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(BuildError::writing(path))
}

#[cfg(test)]
mod tests;
