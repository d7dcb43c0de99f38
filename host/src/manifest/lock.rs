//! `wasmbay.lock`: the digests that the references of a manifest stand for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Digest, Reference};

/// The file's name, beside the manifest.
pub const LOCK: &str = "wasmbay.lock";

/// What each tag of the manifest was when it was first looked up. A reference with a digest needs no entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock(BTreeMap<Reference, Digest>);

/// Why a file is no [`Lock`], or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not have the form that is written here.
    #[error("{}: {why}; restore it, or delete it and have the references looked up anew", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    digest: String,
}

impl Lock {
    /// The file beside a manifest; empty if there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is none that was written here.
    pub fn beside(manifest: &Path) -> Result<Self, LockError> {
        let path = manifest.with_file_name(LOCK);
        let text = match super::read_text(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(LockError::Read { path, source }),
        };
        Self::read(&text).map_err(|why| LockError::Form { path, why })
    }

    fn read(text: &str) -> Result<Self, String> {
        let entries: BTreeMap<String, Entry> =
            toml::from_str(text).map_err(|error| error.to_string().trim().replace('\n', " "))?;
        let mut lock = BTreeMap::new();
        for (name, entry) in entries {
            let reference: Reference = name.parse().map_err(|why| format!("{why}"))?;
            if reference.digest().is_some() || reference.to_string() != name {
                return Err(format!(
                    "`{name}` is not as it is written here, `REGISTRY/NAME:TAG`"
                ));
            }
            let digits = entry.digest.strip_prefix("sha256:");
            let digest = digits.unwrap_or(&entry.digest).parse::<Digest>();
            let digest = digest.ok().filter(|_| digits.is_some());
            let digest = digest.ok_or_else(|| {
                format!(
                    "`digest` of `{name}` is none; accepted: `sha256:` and 64 digits of 0-9 and a-f"
                )
            })?;
            lock.insert(reference, digest);
        }
        Ok(Self(lock))
    }

    /// Writes the file beside a manifest in one step; without entries there is none.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn write(&self, manifest: &Path) -> Result<(), LockError> {
        let path = manifest.with_file_name(LOCK);
        let folder = manifest.parent().unwrap_or(Path::new(""));
        let write = || {
            if self.0.is_empty() {
                return match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                };
            }
            // Made like any file: a temporary one would be readable by its owner alone.
            let new = |path: &Path| std::fs::File::create_new(path);
            let mut file = tempfile::Builder::new().make_in(folder, new)?;
            write!(file, "{self}")?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|source| LockError::Write {
            path: path.clone(),
            source,
        })
    }

    /// The digest of the manifest that a reference stands for: its own, or the one that is locked.
    #[must_use]
    pub fn digest_of<'l>(&'l self, reference: &'l Reference) -> Option<&'l Digest> {
        reference.digest().or_else(|| self.0.get(reference))
    }

    /// Has a reference stand for a manifest; returns for which one it did before.
    pub fn set(&mut self, reference: &Reference, digest: Digest) -> Option<Digest> {
        match reference.digest() {
            Some(_) => None,
            None => self.0.insert(reference.clone(), digest),
        }
    }

    /// Drops the entries of all other references.
    pub fn retain(&mut self, used: &BTreeSet<&Reference>) {
        self.0.retain(|reference, _| used.contains(reference));
    }

    /// The references of one lock that the other does not have so.
    #[must_use]
    pub fn differences(&self, other: &Self) -> BTreeSet<Reference> {
        let all = self.0.iter().chain(&other.0);
        let differs = |reference: &&Reference| self.0.get(reference) != other.0.get(reference);
        all.map(|(reference, _)| reference)
            .filter(differs)
            .cloned()
            .collect()
    }
}

/// Writes the file's text.
impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "# What the tags in wasmbay.toml stand for, so that they stay the same components.\n\
             # `wasmbay update` looks them up again; keep this file with the manifest.\n",
        )?;
        for (reference, digest) in &self.0 {
            write!(f, "\n[\"{reference}\"]\ndigest = \"sha256:{digest}\"\n")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn it_is_read_as_it_is_written_and_sorted() {
        let (a, b) = (reference("a.io/x:1"), reference("a.io/y:1"));
        let mut lock = Lock::default();
        assert_eq!(lock.set(&b, Digest::of(b"b")), None);
        assert_eq!(lock.set(&a, Digest::of(b"a")), None);
        let text = lock.to_string();
        let entries: Vec<_> = text.lines().filter(|line| line.starts_with('[')).collect();
        assert_eq!(entries, ["[\"a.io/x:1\"]", "[\"a.io/y:1\"]"]);
        assert_eq!(Lock::read(&text), Ok(lock.clone()));
        assert_eq!(lock.set(&a, Digest::of(b"c")), Some(Digest::of(b"a")));
        let read = Lock::read(&text).unwrap();
        assert_eq!(lock.differences(&read), [a.clone()].into());
        lock.retain(&[&b].into());
        assert_eq!(
            (lock.digest_of(&a), lock.digest_of(&b)),
            (None, Some(&Digest::of(b"b")))
        );
        assert_eq!(lock.differences(&read), [a].into());
    }

    #[test]
    fn a_reference_with_a_digest_has_no_entry() {
        let digest = Digest::of(b"a");
        let pinned = reference(&format!("a.io/x@sha256:{digest}"));
        let mut lock = Lock::default();
        assert_eq!(lock.set(&pinned, Digest::of(b"b")), None);
        assert_eq!(lock, Lock::default());
        assert_eq!(lock.digest_of(&pinned), Some(&digest));
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let entry = |name: &str, digest: &str| format!("[\"{name}\"]\ndigest = \"{digest}\"");
        let digest = format!("sha256:{}", Digest::of(b"a"));
        assert!(Lock::read(&entry("a.io/x:1", &digest)).is_ok());
        for (text, why) in [
            (entry("a.io/x", &digest), "neither a tag nor a digest"),
            (
                entry("oci://a.io/x:1", &digest),
                "not as it is written here",
            ),
            (
                entry(&format!("a.io/x@{digest}"), &digest),
                "not as it is written here",
            ),
            (
                entry("a.io/x:1", "sha256:0"),
                "`digest` of `a.io/x:1` is none",
            ),
            (
                entry("a.io/x:1", digest.trim_start_matches("sha256:")),
                "is none",
            ),
            ("[\"a.io/x:1\"]".to_owned(), "missing field `digest`"),
            ("[\"a.io/x:1\"]\nat = 1".to_owned(), "unknown field `at`"),
            ("<<<<<<< HEAD".to_owned(), "line 1"),
        ] {
            let error = Lock::read(&text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn the_file_is_there_while_it_has_entries() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("wasmbay.toml");
        assert_eq!(Lock::beside(&manifest).unwrap(), Lock::default());
        let mut lock = Lock::default();
        lock.set(&reference("a.io/x:1"), Digest::of(b"a"));
        lock.write(&manifest).unwrap();
        assert_eq!(Lock::beside(&manifest).unwrap(), lock);
        std::fs::write(manifest.with_file_name(LOCK), "x").unwrap();
        let error = Lock::beside(&manifest).unwrap_err().to_string();
        assert!(error.contains("wasmbay.lock: "), "{error}");
        for _ in 0..2 {
            Lock::default().write(&manifest).unwrap();
            assert!(!manifest.with_file_name(LOCK).exists());
        }
    }
}
