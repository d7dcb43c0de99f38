//! What a running app leaves for other commands: `.wasmbay/host.json` says where it is reached.
//!
//! A second host of the same folder leaves the first one's file as it is and writes
//! `host-PROCESS.json`, which is read when the first one has ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use wasmbay::build::OUTPUT;

const FILE: &str = "host.json";

/// A host that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    /// Its process.
    pub(crate) pid: u32,
    /// The app's name.
    pub(crate) app: String,
    /// Where NATS is; absent if the URL holds a password, which belongs in no file.
    pub(crate) nats: Option<String>,
    /// A file with that and a login, which only the user of the host can read.
    #[serde(rename = "natsUrlFile", default)]
    pub(crate) nats_url_file: Option<PathBuf>,
    /// Where the gateway listens.
    pub(crate) gateway: Option<String>,
    /// Where dead letters are served over HTTP.
    pub(crate) admin: Option<String>,
    /// Whether the verbs of a fleet reach it.
    #[serde(default)]
    pub(crate) verbs: Verbs,
}

/// Whether the verbs of a fleet reach a host that runs one app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verbs {
    /// Soon: its app runs already.
    #[default]
    Soon,
    /// They do.
    Reach,
    /// They do not, and why.
    Never(String),
}

/// Removes the file when the host ends.
#[derive(Debug)]
pub(crate) struct Announced {
    path: PathBuf,
    running: Running,
    /// The process of the host that other commands find instead of this one.
    pub(crate) first: Option<u32>,
}

impl Running {
    /// Writes the file for the app in this folder.
    pub(crate) fn announce(self, root: &Path) -> io::Result<Announced> {
        let folder = root.join(OUTPUT);
        fs::create_dir_all(&folder)?;
        // Two that start at once look one after the other. Closing it lets go.
        let lock = fs::File::open(&folder)?;
        lock.lock()?;
        let first = read(&folder.join(FILE)).filter(Self::is_alive);
        let first = first.map(|first| first.pid).filter(|pid| *pid != self.pid);
        let name = if first.is_none() {
            FILE.to_owned()
        } else {
            format!("host-{}.json", self.pid)
        };
        let path = folder.join(name);
        self.write(&path)?;
        Ok(Announced {
            path,
            running: self,
            first,
        })
    }

    /// In one step, so that a reader sees all of it.
    fn write(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// The host of the app in this folder or the nearest above it. One that was killed left its
    /// file, but its process is gone.
    pub(crate) fn find(folder: &Path) -> Option<Self> {
        folder
            .ancestors()
            .flat_map(|folder| announced_in(&folder.join(OUTPUT)))
            .filter_map(|file| read(&file))
            .find(Self::is_alive)
    }

    /// Where NATS is, with a login if it needs one; none if that is written nowhere.
    pub(crate) fn nats_url(&self) -> anyhow::Result<Option<String>> {
        let Some(file) = &self.nats_url_file else {
            return Ok(self.nats.clone());
        };
        let url = fs::read_to_string(file);
        let url =
            url.with_context(|| format!("cannot read the NATS login in {}", file.display()))?;
        Ok(Some(url.trim().to_owned()))
    }

    fn is_alive(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // A process of another user is there, but cannot be signalled.
        pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
    }
}

/// The files of this folder's hosts, that of the first one first.
fn announced_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut others: Vec<_> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("host-") && name.ends_with(".json")
        })
        .map(|entry| entry.path())
        .collect();
    others.sort();
    others.insert(0, folder.join(FILE));
    others
}

fn read(path: &Path) -> Option<Running> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

impl Announced {
    /// Says whether the verbs of a fleet reach the host.
    pub(crate) fn set_verbs(&mut self, verbs: Verbs) -> io::Result<()> {
        // Another host of the same app may have written its own since.
        let is_own = read(&self.path).as_ref() == Some(&self.running);
        self.running.verbs = verbs;
        if is_own {
            self.running.write(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        // Another host of the same app may have written its own since.
        if read(&self.path).as_ref() == Some(&self.running) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(pid: u32) -> Running {
        Running {
            pid,
            app: "shop".into(),
            nats: Some("nats://127.0.0.1:4222".into()),
            nats_url_file: None,
            gateway: None,
            admin: None,
            verbs: Verbs::Soon,
        }
    }

    #[test]
    fn a_host_is_found_from_below_until_it_ends() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("guests/rust");
        let host = running(std::process::id());
        let announced = host.clone().announce(root.path()).unwrap();
        assert_eq!(Running::find(&below), Some(host));
        drop(announced);
        assert_eq!(Running::find(&below), None);
    }

    #[test]
    fn what_a_host_says_of_itself_later_is_found() {
        let root = tempfile::tempdir().unwrap();
        let mut announced = running(std::process::id()).announce(root.path()).unwrap();
        announced.set_verbs(Verbs::Never("why".into())).unwrap();
        let found = Running::find(root.path()).unwrap();
        assert_eq!(found.verbs, Verbs::Never("why".into()));
        drop(announced);
        assert_eq!(Running::find(root.path()), None);
    }

    #[test]
    fn a_second_host_is_found_when_the_first_one_has_ended() {
        let root = tempfile::tempdir().unwrap();
        let first = running(std::process::id());
        let announced = first.clone().announce(root.path()).unwrap();
        assert_eq!(announced.first, None);
        // Another process that is alive.
        let second = running(std::os::unix::process::parent_id());
        let other = second.clone().announce(root.path()).unwrap();
        assert_eq!(other.first, Some(first.pid));
        assert_eq!(Running::find(root.path()), Some(first));
        drop(announced);
        assert_eq!(Running::find(root.path()), Some(second));
        drop(other);
        assert_eq!(Running::find(root.path()), None);
    }

    #[test]
    fn a_host_that_was_killed_is_not_found() {
        let root = tempfile::tempdir().unwrap();
        // No process has this number: the kernel's are smaller.
        let left = running(0x7fff_ffff).announce(root.path()).unwrap();
        assert_eq!(Running::find(root.path()), None);
        let next = running(std::process::id()).announce(root.path()).unwrap();
        drop(left);
        assert!(Running::find(root.path()).is_some());
        drop(next);
    }
}
