//! Compiled code on disk, by the component's digest.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;

/// Upper bound of the bytes in the cache of one engine; the oldest files are removed first. The
/// file of a small Rust guest has 200 kB, that of an interpreter 40 MB. Counted in bytes, since the
/// files of a thousand small services must all fit: a service without one, whose file then replaces
/// that of another, would have all compiled anew at each start.
const MAX_CACHED: u64 = 8 << 30;

/// The code cache of one engine.
pub(super) struct CodeCache {
    dir: Option<PathBuf>,
}

impl CodeCache {
    /// A cache in this directory; without one every component is compiled anew.
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// The compiled form of a component: from the cache, or compiled and then cached.
    ///
    /// A cache that cannot be read or written costs time, never the start.
    ///
    /// # Cost
    ///
    /// 25 ms (a small Rust guest) to 10 s (an interpreter) to compile, 0.1 to 4 ms from the cache.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        digest: &str,
        bytes: &[u8],
    ) -> wasmtime::Result<Component> {
        let Some(file) = self.file(engine, digest) else {
            return Component::new(engine, bytes);
        };
        if file.exists() && file.parent().is_some_and(|dir| check_private(dir).is_ok()) {
            // SAFETY: the file lies in a directory that only this user can write to, as was just
            // checked, under the hash of this engine's settings, and was renamed into place by the
            // code below.
            match unsafe { Component::deserialize_file(engine, &file) } {
                Ok(component) => return Ok(component),
                Err(error) => {
                    tracing::warn!(file = %file.display(), error = %error, "compiled code in the cache is unusable, compiling anew");
                }
            }
        }
        let component = Component::new(engine, bytes)?;
        if let Err(error) = store(&file, &component) {
            tracing::warn!(file = %file.display(), error = %error, "cannot cache compiled code");
        }
        Ok(component)
    }

    fn file(&self, engine: &Engine, digest: &str) -> Option<PathBuf> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine = format!("{:016x}", hasher.finish());
        let dir = self.dir.as_ref()?;
        Some(dir.join(engine).join(format!("{digest}.cwasm")))
    }
}

/// Writes beside the target and renames, so that a reader sees all of a file or none.
fn store(
    file: &Path,
    component: &Component,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let code = component.serialize()?;
    let Some(dir) = file.parent() else {
        return Ok(());
    };
    create_private(dir)?;
    let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
    io::Write::write_all(&mut temporary, &code)?;
    // The name must not outlive the bytes in a crash: the file is run without a check.
    temporary.as_file().sync_all()?;
    temporary.persist(file).map_err(|error| error.error)?;
    remove_oldest(dir, MAX_CACHED)?;
    Ok(())
}

/// Removes the oldest files until the others have no more than `limit` bytes.
fn remove_oldest(dir: &Path, limit: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Another host may have removed it since.
        if let Ok(metadata) = entry.metadata() {
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
    }
    files.sort();
    let mut surplus = files
        .iter()
        .map(|(_, bytes, _)| bytes)
        .sum::<u64>()
        .saturating_sub(limit);
    for (_, bytes, path) in files {
        if surplus == 0 {
            break;
        }
        fs::remove_file(&path)?;
        surplus = surplus.saturating_sub(bytes);
    }
    Ok(())
}

/// Creates a directory that only this user can write to: its files are run as machine code.
fn create_private(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)?;
    check_private(dir)
}

/// Whether only this user can write to a directory.
#[cfg(unix)]
fn check_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(dir)?;
    if metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let why = format!(
        "{} can be written to by others; `chmod 700` it",
        dir.display()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

#[cfg(not(unix))]
fn check_private(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_oldest_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for (age, name) in ["new", "older", "oldest"].into_iter().enumerate() {
            let file = fs::File::create(dir.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            let age = Duration::from_secs(60 * age as u64);
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        let left = |limit| {
            remove_oldest(dir.path(), limit).unwrap();
            let entries = fs::read_dir(dir.path()).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(left(300), ["new", "older", "oldest"]);
        assert_eq!(left(299), ["new", "older"]);
        assert_eq!(left(150), ["new"]);
    }
}
