//! `wasmbay.proto-lock`: the numbers that fields and cases have in Protocol Buffers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::text::shown;

/// The file's name, beside the manifest.
pub const PROTO_LOCK: &str = "wasmbay.proto-lock";

/// The largest number that a field can have.
const MAX_NUMBER: u32 = (1 << 29) - 1;

/// Numbers that Protocol Buffers keep for themselves.
const KEPT: std::ops::RangeInclusive<u32> = 19_000..=19_999;

/// The numbers of messages and enums by their full names, such as `shop.orders.v1.Money`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    try_from = "BTreeMap<String, Numbers>",
    into = "BTreeMap<String, Numbers>"
)]
pub struct ProtoLock(BTreeMap<String, Numbers>);

/// The numbers of one message or enum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    /// The number of each field or value.
    #[serde(default)]
    pub names: BTreeMap<String, u32>,
    /// Numbers that no field gets any more: those of fields that are gone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reserved: BTreeSet<u32>,
}

/// Why a file is no [`ProtoLock`].
#[derive(Debug, thiserror::Error)]
pub enum ProtoLockError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not have the form that `wasmbay proto --lock` writes.
    #[error("{}: {why}; restore it, or delete it and have `wasmbay proto --lock` number everything anew", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
}

/// A number that cannot be one, or that two names have.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {why}", shown(.of))]
pub struct NumberError {
    of: String,
    why: String,
}

impl Numbers {
    fn check(&self) -> Result<(), String> {
        let mut used = BTreeSet::new();
        let names = self
            .names
            .iter()
            .map(|(name, number)| (Some(name), *number));
        for (name, number) in names.chain(self.reserved.iter().map(|number| (None, *number))) {
            let name = name.map_or("reserved", String::as_str);
            if number == 0 || number > MAX_NUMBER || KEPT.contains(&number) {
                return Err(format!(
                    "`{}` is {number}; accepted: 1 to {MAX_NUMBER} without {} to {}",
                    shown(name),
                    KEPT.start(),
                    KEPT.end()
                ));
            }
            if !used.insert(number) {
                return Err(format!("`{}` is {number}, and so is another", shown(name)));
            }
        }
        Ok(())
    }

    /// The numbers of these names: those that they have, and for the others the next ones after all that were
    /// ever used.
    #[must_use]
    pub fn assign<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> Vec<u32> {
        let used = self.names.values().chain(&self.reserved);
        let mut last = used.max().copied().unwrap_or(0);
        let assigned = names.into_iter().map(|name| {
            self.names.get(name).copied().unwrap_or_else(|| {
                last += 1;
                if KEPT.contains(&last) {
                    last = KEPT.end() + 1;
                }
                last
            })
        });
        assigned.collect()
    }
}

impl ProtoLock {
    /// The file beside a manifest; empty if there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is none that was written here.
    pub fn beside(manifest: &Path) -> Result<Self, ProtoLockError> {
        let path = manifest.with_file_name(PROTO_LOCK);
        let text = match super::read_text(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(ProtoLockError::Read { path, source }),
        };
        toml::from_str(&text).map_err(|error| ProtoLockError::Form {
            why: error.to_string().trim().replace('\n', " "),
            path,
        })
    }

    /// Whether there are no numbers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers of a message or enum.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&Numbers> {
        self.0.get(name)
    }

    /// Has the numbers of these messages and enums: names that are gone leave theirs reserved. What is not
    /// among them stays, in case it comes back.
    #[must_use]
    pub fn updated(
        &self,
        types: impl IntoIterator<Item = (String, BTreeMap<String, u32>)>,
    ) -> Self {
        let mut all = self.0.clone();
        for (name, names) in types {
            let numbers = all.entry(name).or_default();
            let old = std::mem::replace(&mut numbers.names, names);
            numbers.reserved.extend(old.into_values());
            for number in numbers.names.values() {
                numbers.reserved.remove(number);
            }
        }
        Self(all)
    }
}

impl TryFrom<BTreeMap<String, Numbers>> for ProtoLock {
    type Error = NumberError;

    fn try_from(types: BTreeMap<String, Numbers>) -> Result<Self, NumberError> {
        for (name, numbers) in &types {
            let of = |why| NumberError {
                of: name.clone(),
                why,
            };
            numbers.check().map_err(of)?;
        }
        Ok(Self(types))
    }
}

impl From<ProtoLock> for BTreeMap<String, Numbers> {
    fn from(lock: ProtoLock) -> Self {
        lock.0
    }
}

/// Writes the file.
impl fmt::Display for ProtoLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "# The numbers of fields and enum values in gRPC, so that they stay when types change.\n\
             # `wasmbay proto --lock` writes this file; keep it with the manifest.\n",
        )?;
        for (name, numbers) in &self.0 {
            write!(f, "\n[\"{name}\"]\n")?;
            if !numbers.reserved.is_empty() {
                let reserved: Vec<_> = numbers.reserved.iter().map(u32::to_string).collect();
                writeln!(f, "reserved = [{}]", reserved.join(", "))?;
            }
            let mut names: Vec<_> = numbers.names.iter().collect();
            names.sort_by_key(|(_, number)| **number);
            for (name, number) in names {
                writeln!(f, "names.{name} = {number}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{App, Manifest};

    fn read(text: &str) -> Result<ProtoLock, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_stay_and_those_that_are_gone_are_never_used_again() {
        let names = |names: &[(&str, u32)]| {
            let names = names
                .iter()
                .map(|(name, number)| ((*name).to_owned(), *number));
            names.collect::<BTreeMap<_, _>>()
        };
        let lock = ProtoLock::default().updated([("a.A".to_owned(), names(&[("x", 1), ("y", 2)]))]);
        let assign = |lock: &ProtoLock, names: &[&str]| {
            lock.of("a.A").unwrap().assign(names.iter().copied())
        };
        assert_eq!(assign(&lock, &["new", "y", "x"]), [3, 2, 1]);
        let lock = lock.updated([("a.A".to_owned(), names(&[("y", 2)]))]);
        assert_eq!(assign(&lock, &["new", "y"]), [3, 2]);
        assert_eq!(lock.of("a.A").unwrap().reserved, [1].into());
        let lock = lock.updated([("b.B".to_owned(), names(&[("z", 1)]))]);
        assert_eq!(read(&lock.to_string()).unwrap(), lock);
        assert_eq!(lock.updated([]), lock);
    }

    #[test]
    fn numbers_that_protocol_buffers_keep_are_left_out() {
        let numbers = Numbers {
            reserved: [18_999].into(),
            ..Numbers::default()
        };
        assert_eq!(numbers.assign(["a", "b"]), [20_000, 20_001]);
    }

    #[test]
    fn it_travels_with_its_app_and_is_no_key_of_a_manifest() {
        let text = "name = 'a'\n[service.b]\ncomponent = 'b'\n";
        let parse = |text: &str| Manifest::parse(Path::new("wasmbay.toml"), text);
        let mut app = parse(text).unwrap().app;
        app.proto_lock = read("[\"a.A\"]\nreserved = [1]\nnames.x = 2").unwrap();
        let written = serde_json::to_string(&app).unwrap();
        assert_eq!(serde_json::from_str::<App>(&written).unwrap(), app);
        let damaged = written.replace("\"x\":2", "\"x\":1");
        let error = serde_json::from_str::<App>(&damaged).unwrap_err();
        assert!(error.to_string().contains("and so is another"), "{error}");
        let error = parse(&format!("{text}[proto-lock]\n")).unwrap_err();
        assert!(
            error.to_string().contains("unknown key `proto-lock`"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        for (text, why) in [
            ("[\"a.A\"]\nnames.x = 0", "`x` is 0"),
            ("[\"a.A\"]\nnames.x = 19500", "`x` is 19500"),
            ("[\"a.A\"]\nnames = { x = 1, y = 1 }", "and so is another"),
            ("[\"a.A\"]\nnames.x = 1\nreserved = [1]", "`reserved` is 1"),
            ("[\"a.A\"]\nfields.x = 1", "unknown field"),
            ("x = 1", "invalid type"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
