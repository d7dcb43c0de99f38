//! What was fetched, in files that are named by the digest of what is in them. Nothing is taken from here whose
//! bytes have another one.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::RegistryError;
use crate::manifest::Digest;
use crate::runtime::remove_oldest;

/// Bytes in the cache; what was not used for longest goes first.
const MAX_CACHED: u64 = 4 << 30;

pub(super) struct Cache(Option<PathBuf>);

impl Cache {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    fn folder(&self) -> Result<&Path, RegistryError> {
        self.0.as_deref().ok_or(RegistryError::NoCache)
    }

    pub(super) fn manifest(&self, digest: &Digest) -> Option<Vec<u8>> {
        let path = self.0.as_ref()?.join(format!("{digest}.json"));
        let bytes = fs::read(path).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    pub(super) fn put_manifest(&self, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
        let mut file = self.create()?;
        let path = self.folder()?.join(format!("{digest}.json"));
        io::Write::write_all(&mut file, bytes).map_err(failing(&path))?;
        persist(file, &path)
    }

    /// The file of a component, if it is there and whole.
    pub(super) fn component(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.component_path(digest).ok()?;
        let mut file = fs::File::open(&path).ok()?;
        let mut hash = Sha256::new();
        io::copy(&mut file.by_ref(), &mut hash).ok()?;
        if Digest::finish(hash) != *digest {
            return None;
        }
        // It was used now. Failing leaves it as old as it was.
        let _ = fs::File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        Some(path)
    }

    fn component_path(&self, digest: &Digest) -> Result<PathBuf, RegistryError> {
        Ok(self.folder()?.join(format!("{digest}.wasm")))
    }

    /// A file for what is fetched, beside where it will be.
    pub(super) fn create(&self) -> Result<NamedTempFile, RegistryError> {
        let folder = self.folder()?;
        fs::create_dir_all(folder).map_err(failing(folder))?;
        NamedTempFile::new_in(folder).map_err(failing(folder))
    }

    /// Takes over a file that has the bytes of a component.
    pub(super) fn put_component(
        &self,
        digest: &Digest,
        file: NamedTempFile,
    ) -> Result<PathBuf, RegistryError> {
        let path = self.component_path(digest)?;
        persist(file, &path)?;
        let folder = self.folder()?;
        remove_oldest(folder, MAX_CACHED).map_err(failing(folder))?;
        Ok(path)
    }
}

fn persist(file: NamedTempFile, path: &Path) -> Result<(), RegistryError> {
    let persisted = file.persist(path).map_err(|error| error.error);
    persisted.map(drop).map_err(failing(path))
}

pub(super) fn failing(path: &Path) -> impl FnOnce(io::Error) -> RegistryError {
    let path = path.to_owned();
    move |source| RegistryError::Cache { path, source }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn put(cache: &Cache, bytes: &[u8]) -> PathBuf {
        let mut file = cache.create().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        cache.put_component(&Digest::of(bytes), file).unwrap()
    }

    #[test]
    fn what_is_not_what_was_put_there_is_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(dir.path().join("deep/registry")));
        let digest = Digest::of(b"component");
        assert_eq!(cache.component(&digest), None);
        let path = put(&cache, b"component");
        assert_eq!(cache.component(&digest), Some(path.clone()));
        for other in [&b"componenT"[..], b"component ", b""] {
            fs::write(&path, other).unwrap();
            assert_eq!(cache.component(&digest), None);
        }
        let digest = Digest::of(b"{}");
        cache.put_manifest(&digest, b"{}").unwrap();
        assert_eq!(cache.manifest(&digest).unwrap(), b"{}");
        let path = path.with_file_name(format!("{digest}.json"));
        fs::write(path, "{} ").unwrap();
        assert_eq!(cache.manifest(&digest), None);
        assert!(matches!(
            Cache::new(None).create(),
            Err(RegistryError::NoCache)
        ));
    }

    #[test]
    fn what_was_not_used_for_longest_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(dir.path().into()));
        let old = SystemTime::now() - Duration::from_secs(3600);
        let paths = [b"1", b"2", b"3"].map(|bytes| put(&cache, bytes));
        for path in &paths {
            let file = fs::File::options().append(true).open(path).unwrap();
            file.set_modified(old).unwrap();
        }
        cache.component(&Digest::of(b"1")).unwrap();
        remove_oldest(dir.path(), 1).unwrap();
        assert_eq!(paths.map(|path| path.exists()), [true, false, false]);
    }
}
