//! The tag that distinguishes code written by this user's hosts from any other.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::Path;

use sha2::digest::Output;
use sha2::{Digest as _, Sha256};

/// The file of the key, in the directory of what it is for.
pub(super) const KEY_FILE: &str = "key";

/// Bytes of a key and of a tag.
const LENGTH: usize = 32;

/// Bytes that SHA-256 works on at a time.
const BLOCK: usize = 64;

/// The key of one directory.
pub(super) struct Key([u8; LENGTH]);

impl Key {
    /// The key of a directory, if there is one.
    ///
    /// # Errors
    ///
    /// It cannot be read, or others can read it too.
    pub(super) fn read(dir: &Path) -> io::Result<Option<Self>> {
        let mut file = match File::open(dir.join(KEY_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let unusable = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() != LENGTH as u64 {
            return Err(unusable("the key beside it is no key"));
        }
        if !is_secret(&metadata) {
            return Err(unusable("others can read the key beside it"));
        }
        let mut key = [0; LENGTH];
        file.read_exact(&mut key)?;
        Ok(Some(Self(key)))
    }

    /// The key of a directory; a new one where there is none that can be used.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn read_or_create(dir: &Path) -> io::Result<Self> {
        let unusable = match Self::read(dir) {
            Ok(Some(key)) => return Ok(key),
            Ok(None) => false,
            Err(_) => true,
        };
        let key: [u8; LENGTH] = rand::random();
        // Such a file is made with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(&key)?;
        file.as_file().sync_all()?;
        let path = dir.join(KEY_FILE);
        if unusable {
            file.persist(&path).map_err(|error| error.error)?;
            return Ok(Self(key));
        }
        match file.persist_noclobber(&path) {
            Ok(_) => Ok(Self(key)),
            // Another host was faster.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Self::read(dir)?.ok_or_else(|| io::ErrorKind::NotFound.into())
            }
            Err(error) => Err(error.error),
        }
    }

    /// The tag of the code of the component with this digest.
    pub(super) fn tag(&self, digest: &str, code: &[u8]) -> [u8; LENGTH] {
        let mut tag = self.begin(digest);
        tag.update(code);
        self.finish(tag)
    }

    /// Checks that a file is the code of the component with this digest, followed by its tag.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is anything else.
    pub(super) fn check(&self, digest: &str, file: &Path) -> io::Result<()> {
        let broken = || {
            let why = "it is not what was written there";
            io::Error::new(io::ErrorKind::InvalidData, why)
        };
        let mut file = File::open(file)?;
        let length = file.metadata()?.len().checked_sub(LENGTH as u64);
        let mut code = (&mut file).take(length.ok_or_else(broken)?);
        let mut tag = self.begin(digest);
        io::copy(&mut code, &mut tag)?;
        let mut written = Vec::new();
        file.take(LENGTH as u64 + 1).read_to_end(&mut written)?;
        if written == self.finish(tag) {
            Ok(())
        } else {
            Err(broken())
        }
    }

    // HMAC (RFC 2104), of which a crate of its own would be most of the lines.

    fn begin(&self, digest: &str) -> Sha256 {
        // The length keeps digest and code apart.
        self.hash(0x36)
            .chain_update((digest.len() as u64).to_be_bytes())
            .chain_update(digest)
    }

    fn finish(&self, inner: Sha256) -> [u8; LENGTH] {
        let tag: Output<Sha256> = self.hash(0x5c).chain_update(inner.finalize()).finalize();
        tag.into()
    }

    fn hash(&self, pad: u8) -> Sha256 {
        let mut block = [pad; BLOCK];
        for (byte, key) in block.iter_mut().zip(self.0) {
            *byte ^= key;
        }
        Sha256::new().chain_update(block)
    }
}

/// Whether only this user can read a file.
#[cfg(unix)]
fn is_secret(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 == 0
}

#[cfg(not(unix))]
fn is_secret(_: &fs::Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::hex;

    #[test]
    fn the_tag_is_an_hmac() {
        // Test case 2 of RFC 4231, whose key is padded with zeros to a block.
        let mut key = [0; LENGTH];
        key[..4].copy_from_slice(b"Jefe");
        let key = Key(key);
        let inner = key.hash(0x36).chain_update("what do ya want for nothing?");
        assert_eq!(
            hex(&key.finish(inner)),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn digest_and_code_are_kept_apart() {
        let key = Key([7; LENGTH]);
        assert_ne!(key.tag("ab", b"c"), key.tag("a", b"bc"));
    }

    #[test]
    fn a_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Key::read(dir.path()).unwrap().is_none());
        let first = Key::read_or_create(dir.path()).unwrap();
        let second = Key::read_or_create(dir.path()).unwrap();
        assert_eq!(first.0, second.0);
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let first = Key::read_or_create(dir.path()).unwrap();
        let file = dir.path().join(KEY_FILE);
        let mode = || file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Key::read(dir.path()).is_err());
        let second = Key::read_or_create(dir.path()).unwrap();
        assert_ne!(first.0, second.0);
        assert_eq!(mode(), 0o600);
    }
}
