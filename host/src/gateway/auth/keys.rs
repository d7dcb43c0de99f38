//! API keys: those of the manifest, and those of a file that is read again when it changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::super::watched::Seen;
use super::Client;
use crate::claims::{Claims, Proof};
use crate::manifest::AuthSpec;
use crate::text::unhex;

/// Upper bound of the bytes of a key, and of a file of keys.
const MAX_KEY: usize = 512;
const MAX_FILE: u64 = 1 << 20;

/// Upper bound of the keys of a file. Each is compared with each that is given.
const MAX_KEYS: usize = 1_000;

pub(super) struct Keys {
    own: Vec<Known>,
    file: Option<KeyFile>,
}

struct Known {
    sha256: [u8; 32],
    client: Client,
}

struct KeyFile {
    path: PathBuf,
    read: RwLock<Read>,
}

#[derive(Default)]
struct Read {
    /// `None` until it could be read.
    keys: Option<Arc<Vec<Known>>>,
    /// What it was like when it was last looked at.
    seen: Option<Seen>,
}

/// A table of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sha256: String,
    #[serde(default)]
    scopes: Vec<String>,
}

/// Whether a key is known.
pub(super) enum Found {
    Client(Client),
    Unknown,
    /// It is not of the manifest, and the file could never be read.
    Unready,
}

impl Known {
    fn new(name: &str, sha256: [u8; 32], scopes: &[String]) -> Option<Self> {
        let claims = Claims {
            auth: Proof::Key,
            subject: Some(name.into()),
            scopes: scopes.iter().map(Into::into).collect(),
            claims: serde_json::Map::new(),
        };
        let client = Client {
            proof: Proof::Key,
            subject: Some(name.into()),
            scopes: scopes.to_vec(),
            claims: claims.write()?,
        };
        Some(Self { sha256, client })
    }
}

impl Keys {
    pub(super) fn new(spec: &AuthSpec) -> Self {
        let own = spec.keys.iter();
        let keys = Self {
            own: own
                .filter_map(|(name, key)| Known::new(name, key.sha256, &key.scopes))
                .collect(),
            file: spec.key_file.clone().map(|path| KeyFile {
                path,
                read: RwLock::default(),
            }),
        };
        keys.keep();
        keys
    }

    /// The client that has this key. How long that takes depends on how many keys there are, and on nothing
    /// else.
    pub(super) fn find(&self, key: &[u8]) -> Found {
        if key.len() > MAX_KEY {
            return Found::Unknown;
        }
        let given: [u8; 32] = Sha256::digest(key).into();
        let of_file = self.file.as_ref().map(KeyFile::keys);
        let files = of_file.iter().flatten().flat_map(|keys| keys.iter());
        let mut found = None;
        for known in self.own.iter().chain(files) {
            if same(&known.sha256, &given) {
                found = Some(known);
            }
        }
        match (found, &of_file) {
            (Some(known), _) => Found::Client(known.client.clone()),
            (None, Some(None)) => Found::Unready,
            (None, _) => Found::Unknown,
        }
    }

    /// Reads the file if it has changed.
    pub(super) fn keep(&self) {
        if let Some(file) = &self.file {
            file.keep();
        }
    }
}

/// Compares all of both.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let differing = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differing) == 0
}

impl KeyFile {
    fn keys(&self) -> Option<Arc<Vec<Known>>> {
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        read.keys.clone()
    }

    fn keep(&self) {
        let seen = Some(Seen::look([self.path.as_path()]));
        let mut read = self.read.write().unwrap_or_else(PoisonError::into_inner);
        if read.keys.is_some() && read.seen == seen {
            return;
        }
        let first = read.seen.is_none();
        let changed = first || read.seen != seen;
        read.seen = seen;
        match read_file(&self.path) {
            Ok(keys) => read.keys = Some(Arc::new(keys)),
            Err(why) if changed => {
                let (file, held) = (self.path.display(), read.keys.is_some());
                tracing::error!(%file, why, "API keys cannot be read; the last ones hold: {held}");
            }
            Err(_) => {}
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<Known>, String> {
    let found = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if found.len() > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let lines: BTreeMap<String, Line> =
        toml::from_str(&text).map_err(|error| error.message().to_owned())?;
    if lines.len() > MAX_KEYS {
        return Err(format!("it has more than {MAX_KEYS} keys"));
    }
    let known = |(name, line): (&String, &Line)| {
        let digest = unhex::<32>(&line.sha256);
        let digest =
            digest.ok_or_else(|| format!("`sha256` of `{name}` is no 64 hexadecimal digits"))?;
        let known = Known::new(name, digest, &line.scopes);
        known.ok_or_else(|| format!("`{name}` has too many scopes"))
    };
    lines.iter().map(known).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::manifest::{Auth, KeySpec};
    use crate::text::hex;

    fn spec(file: Option<PathBuf>) -> AuthSpec {
        let key = KeySpec {
            sha256: Sha256::digest("secret").into(),
            scopes: vec!["a:b".to_owned()],
        };
        AuthSpec {
            scopes: Vec::new(),
            default: Auth::Key,
            jwt: None,
            keys: BTreeMap::from([("till".to_owned(), key)]),
            key_file: file,
        }
    }

    fn name(keys: &Keys, key: &str) -> String {
        match keys.find(key.as_bytes()) {
            Found::Client(client) => client.subject.unwrap().to_string(),
            Found::Unknown => "unknown".to_owned(),
            Found::Unready => "unready".to_owned(),
        }
    }

    #[test]
    fn a_key_is_known_by_its_digest() {
        let keys = Keys::new(&spec(None));
        assert_eq!(name(&keys, "secret"), "till");
        for other in ["", "Secret", "secret ", &"x".repeat(MAX_KEY + 1)] {
            assert_eq!(name(&keys, other), "unknown", "{other}");
        }
    }

    #[test]
    fn a_file_is_read_again_and_a_broken_one_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let mut time = SystemTime::now();
        // Times of files can be coarse.
        let mut write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            time += Duration::from_secs(2);
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(time).unwrap();
        };
        let keys = Keys::new(&spec(Some(path.clone())));
        assert_eq!(name(&keys, "other"), "unready");
        assert_eq!(name(&keys, "secret"), "till");
        let line =
            |name: &str, key: &str| format!("[{name}]\nsha256 = '{}'\n", hex(&Sha256::digest(key)));
        write(&line("partner", "other"));
        keys.keep();
        assert_eq!(name(&keys, "other"), "partner");
        for broken in [
            "[",
            "[a]\nsha256 = '00'",
            "[a]\nsha = ''",
            &"#".repeat(MAX_FILE as usize + 1),
        ] {
            write(broken);
            keys.keep();
            assert_eq!(name(&keys, "other"), "partner");
        }
        write("");
        keys.keep();
        assert_eq!(name(&keys, "other"), "unknown");
        assert_eq!(name(&keys, "secret"), "till");
    }
}
