//! Compiled code on disk, by the component's digest.
//!
//! What is read here is run as machine code. So each file ends with a tag (HMAC-SHA-256) over the
//! component's digest and the code, with a key that lies beside the files and only this user can
//! read: a file that is broken, cut off, swapped with another or made by another user is not loaded
//! but compiled anew and replaced.

mod seal;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;

use seal::{KEY_FILE, Key};

use crate::telemetry::Count;

/// Bytes in the cache of one engine; the oldest files go first. A small Rust guest's has 200 kB, an
/// interpreter's 40 MB. Counted in bytes, since a host of a thousand small services must find all
/// of theirs: one that does not, and drops another's for it, would compile all anew at each start.
const MAX_CACHED: u64 = 8 << 30;

/// The code cache of one engine.
pub(super) struct CodeCache {
    dir: Option<PathBuf>,
    found: Count,
    compiled: Count,
}

/// Why the cache could not be used.
type Failure = Box<dyn std::error::Error + Send + Sync>;

impl CodeCache {
    /// A cache in this directory; without one every component is compiled anew.
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        Self {
            dir,
            found: Count::default(),
            compiled: Count::default(),
        }
    }

    /// Components that were found here, and those that were compiled.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.found.read(), self.compiled.read())
    }

    /// The compiled form of a component: from the cache, or compiled and then cached.
    ///
    /// A cache that cannot be read or written costs time, never the start.
    ///
    /// # Cost
    ///
    /// 25 ms (a small Rust guest) to 10 s (an interpreter) to compile; from the cache 0.1 to 4 ms,
    /// and a millisecond for each megabyte or two whose tag is computed.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        digest: &str,
        bytes: &[u8],
    ) -> wasmtime::Result<Component> {
        let Some(dir) = self.dir(engine) else {
            self.compiled.add(1);
            return Component::new(engine, bytes);
        };
        let file = dir.join(format!("{digest}.cwasm"));
        match load(engine, &dir, &file, digest) {
            Ok(Some(component)) => {
                self.found.add(1);
                return Ok(component);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(file = %file.display(), error = %error, "compiled code in the cache is unusable, compiling anew");
            }
        }
        self.compiled.add(1);
        let component = Component::new(engine, bytes)?;
        if let Err(error) = store(&dir, &file, digest, &component) {
            tracing::warn!(file = %file.display(), error = %error, "cannot cache compiled code");
        }
        Ok(component)
    }

    /// The directory for code of this engine's version and settings.
    fn dir(&self, engine: &Engine) -> Option<PathBuf> {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine = format!("{:016x}", hasher.finish());
        Some(self.dir.as_ref()?.join(engine))
    }
}

/// The code in a file of the cache, if it is there.
fn load(
    engine: &Engine,
    dir: &Path,
    file: &Path,
    digest: &str,
) -> Result<Option<Component>, Failure> {
    if !file.exists() {
        return Ok(None);
    }
    check_private(dir)?;
    let Some(key) = Key::read(dir)? else {
        return Err("there is no key to check it with".into());
    };
    key.check(digest, file)?;
    // SAFETY: the code below made the file, for this component and in this engine's directory, or
    // its tag would not be right. Between the check and here only this user could change it.
    let component = unsafe { Component::deserialize_file(engine, file) }?;
    Ok(Some(component))
}

/// Writes beside the target and renames, so that a reader sees all of a file or none.
fn store(dir: &Path, file: &Path, digest: &str, component: &Component) -> Result<(), Failure> {
    let code = component.serialize()?;
    create_private(dir)?;
    let tag = Key::read_or_create(dir)?.tag(digest, &code);
    let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
    io::Write::write_all(&mut temporary, &code)?;
    // The code comes first, as an ELF file, whose readers do not mind what follows it.
    io::Write::write_all(&mut temporary, &tag)?;
    // Else a crash could leave the name of a file that has to be compiled anew.
    temporary.as_file().sync_all()?;
    temporary.persist(file).map_err(|error| error.error)?;
    remove_oldest(dir, MAX_CACHED)?;
    Ok(())
}

/// Removes the oldest files until the others have no more than `limit` bytes.
pub(crate) fn remove_oldest(dir: &Path, limit: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() == KEY_FILE {
            continue;
        }
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
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => surplus = surplus.saturating_sub(bytes),
        }
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

    #[test]
    fn the_key_stays() {
        let dir = tempfile::tempdir().unwrap();
        Key::read_or_create(dir.path()).unwrap();
        remove_oldest(dir.path(), 0).unwrap();
        assert!(Key::read(dir.path()).unwrap().is_some());
    }

    /// An engine and a cache with the code of two components, and their files.
    struct Cached {
        engine: Engine,
        cache: CodeCache,
        files: [PathBuf; 2],
        _dir: tempfile::TempDir,
    }

    const COMPONENTS: [(&str, &[u8]); 2] = [
        (
            "first",
            b"(component (core module (func (export \"one\"))))",
        ),
        (
            "second",
            b"(component (core module (func (export \"two\"))))",
        ),
    ];

    impl Cached {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (engine, cache) = (Engine::default(), CodeCache::new(Some(dir.path().into())));
            let files = COMPONENTS.map(|(digest, bytes)| {
                cache.compile(&engine, digest, bytes).unwrap();
                let file = cache.dir(&engine).unwrap();
                file.join(format!("{digest}.cwasm"))
            });
            Self {
                engine,
                cache,
                files,
                _dir: dir,
            }
        }

        fn load(&self, which: usize) -> Result<(), String> {
            let dir = self.cache.dir(&self.engine).unwrap();
            let loaded = load(&self.engine, &dir, &self.files[which], COMPONENTS[which].0);
            match loaded.map_err(|error| error.to_string())? {
                Some(_) => Ok(()),
                None => Err("not there".to_owned()),
            }
        }

        /// Compiles again, after which the file has to be good.
        fn heal(&self) {
            for (which, (digest, bytes)) in COMPONENTS.into_iter().enumerate() {
                self.cache.compile(&self.engine, digest, bytes).unwrap();
                assert_eq!(self.load(which), Ok(()));
            }
        }
    }

    #[test]
    fn code_comes_from_the_cache_while_it_is_what_was_put_there() {
        let cached = Cached::new();
        let before = cached.files.each_ref().map(|file| fs::read(file).unwrap());
        assert_eq!(cached.load(0), Ok(()));
        assert_eq!(cached.load(1), Ok(()));
        cached.heal();
        let after = cached.files.each_ref().map(|file| fs::read(file).unwrap());
        assert!(before == after, "nothing was written again");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found_and_the_file_replaced() {
        let cached = Cached::new();
        let good = fs::read(&cached.files[0]).unwrap();
        for trial in 0..40 {
            let mut broken = good.clone();
            let at = trial * (broken.len() - 1) / 39;
            broken[at] ^= 1 << (trial % 8);
            fs::write(&cached.files[0], broken).unwrap();
            let error = cached.load(0).unwrap_err();
            assert!(error.contains("not what was written"), "{error}");
        }
        cached.heal();
    }

    #[test]
    fn a_file_that_is_cut_off_or_longer_is_found() {
        let cached = Cached::new();
        let good = fs::read(&cached.files[0]).unwrap();
        for length in [
            0,
            1,
            31,
            32,
            good.len() / 2,
            good.len() - 32,
            good.len() - 1,
        ] {
            fs::write(&cached.files[0], &good[..length]).unwrap();
            cached.load(0).unwrap_err();
        }
        let mut longer = good;
        longer.push(0);
        fs::write(&cached.files[0], longer).unwrap();
        cached.load(0).unwrap_err();
        cached.heal();
    }

    #[test]
    fn files_that_changed_places_are_found() {
        let cached = Cached::new();
        let [first, second] = &cached.files;
        let between = first.with_extension("tmp");
        fs::rename(first, &between).unwrap();
        fs::rename(second, first).unwrap();
        fs::rename(&between, second).unwrap();
        cached.load(0).unwrap_err();
        cached.load(1).unwrap_err();
        cached.heal();
    }

    #[test]
    fn code_of_another_key_is_not_run() {
        let (cached, other) = (Cached::new(), Cached::new());
        fs::copy(&other.files[0], &cached.files[0]).unwrap();
        cached.load(0).unwrap_err();
        cached.heal();
        let key = cached.files[1].with_file_name(KEY_FILE);
        fs::remove_file(key).unwrap();
        cached.load(1).unwrap_err();
        cached.heal();
    }
}
