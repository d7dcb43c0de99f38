//! What a running app leaves for other commands: `.wasmbay/host.json` says where it is reached.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
    /// Where the gateway listens.
    pub(crate) gateway: Option<String>,
    /// Where dead letters are served over HTTP.
    pub(crate) admin: Option<String>,
}

/// Removes the file when the host ends.
#[derive(Debug)]
pub(crate) struct Announced {
    path: PathBuf,
    running: Running,
}

impl Running {
    /// Writes the file for the app in this folder.
    pub(crate) fn announce(self, root: &Path) -> io::Result<Announced> {
        let folder = root.join(OUTPUT);
        fs::create_dir_all(&folder)?;
        let path = folder.join(FILE);
        // In one step, so that a reader sees all of it.
        let mut file = tempfile::NamedTempFile::new_in(&folder)?;
        serde_json::to_writer_pretty(&mut file, &self)?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(Announced {
            path,
            running: self,
        })
    }

    /// The host of the app in this folder or the nearest above it. One that was killed left its
    /// file, but its process is gone.
    pub(crate) fn find(folder: &Path) -> Option<Self> {
        folder
            .ancestors()
            .filter_map(|folder| read(&folder.join(OUTPUT).join(FILE)))
            .find(Self::is_alive)
    }

    fn is_alive(&self) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // A process of another user is there, but cannot be signalled.
        pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
    }
}

fn read(path: &Path) -> Option<Running> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
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
            gateway: None,
            admin: None,
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
