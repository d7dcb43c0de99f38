//! The data folder of a `nats-server`: its locks and files.
//!
//! | name | is |
//! |---|---|
//! | `host.lock` | locked by the host that runs the server; its process id is the content |
//! | `server.lock` | locked by the host and by its server, so for as long as either lives |
//! | `nats.pid` | the server's process id, written by itself; removed before each start |
//! | `ports/` | the file of the server with its port |
//! | `nats-server.log` | the server's log; `nats-server.log.1` is the one before |
//! | `jetstream/` | the server's store |
//! | `nats-server.conf` | the login that the server asks for |
//! | `url` | where clients connect, with that login |
//!
//! The folder is for its owner only, since what is stored there is for no other user, and the last two
//! files are as well.
//!
//! The server shares `server.lock` by having the open file as its standard input: a lock belongs to
//! an open file, whichever processes hold it. A process id is trusted only if a lock proves it.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::server::{POLL, STOP_DEADLINE, ServerError};

/// Time for a lock to become free: a child between fork and exec holds a copy of every lock of its
/// parent.
const LOCK_TIMEOUT: Duration = Duration::from_millis(300);
/// Upper bound of the bytes of a log; a longer one is renamed at the next start. The server logs a
/// dozen lines a start and little else.
const LOG_LIMIT: u64 = 4 * 1024 * 1024;
/// Lines of a failed server's log in an error, out of so many bytes.
const LOG_TAIL_LINES: usize = 8;
const LOG_TAIL_BYTES: u64 = 4096;

/// An existing data folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Opens the folder; creates it if there is none.
    pub(super) fn open(path: &Path) -> Result<Self, ServerError> {
        let made = fs::create_dir_all(path.join("ports"))
            .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)))
            .and_then(|()| path.canonicalize());
        made.map(|path| Self { path })
            .map_err(|source| unusable(path, source))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn ports(&self) -> PathBuf {
        self.path.join("ports")
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.path.join("nats.pid")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("nats-server.log")
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path.join("nats-server.conf")
    }

    /// The file with the URL for clients, login included.
    pub(super) fn url(&self) -> PathBuf {
        self.path.join("url")
    }

    /// Writes a file that only its owner can read, in one step.
    pub(super) fn write_secret(&self, path: &Path, text: &str) -> Result<(), ServerError> {
        let write = || {
            // Temporary files have mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(text.as_bytes())?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|source| unusable(path, source))
    }

    /// Removes the login of a server that has ended.
    pub(super) fn forget_login(&self) {
        for path in [self.config(), self.url()] {
            // A file that is left means nothing once the server is gone.
            let _gone = fs::remove_file(path);
        }
    }

    /// Removes the files of earlier servers.
    pub(super) fn clear(&self) -> Result<(), ServerError> {
        let remove = |path: &Path| match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(unusable(path, source)),
            _ => Ok(()),
        };
        remove(&self.pid_file())?;
        let ports = self.ports();
        let entries = fs::read_dir(&ports).map_err(|source| unusable(&ports, source))?;
        entries
            .flatten()
            .try_for_each(|entry| remove(&entry.path()))
    }

    /// The port in the file of the server with this process id, which is
    /// `{"nats":["nats://127.0.0.1:37577"]}`; none while the file is not there or not whole.
    pub(super) fn port_of(&self, pid: u32) -> Option<u16> {
        #[derive(serde::Deserialize)]
        struct Ports {
            nats: Vec<String>,
        }
        let suffix = format!("_{pid}.ports");
        let file = fs::read_dir(self.ports())
            .ok()?
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().ends_with(&suffix))?;
        let ports: Ports = serde_json::from_slice(&fs::read(file.path()).ok()?).ok()?;
        ports.nats.first()?.rsplit_once(':')?.1.parse().ok()
    }

    /// Takes the lock of the host.
    pub(super) async fn lock_as_host(&self) -> Result<File, ServerError> {
        let path = self.path.join("host.lock");
        let mut lock = self.open_lock("host.lock")?;
        let taken = take_lock(&lock, LOCK_TIMEOUT).await;
        if !taken.map_err(|source| unusable(&path, source))? {
            return Err(ServerError::InUse {
                data: self.path.clone(),
                pid: read_pid(&path),
            });
        }
        let write = |lock: &mut File| {
            lock.set_len(0)?;
            writeln!(lock, "{}", std::process::id())
        };
        write(&mut lock).map_err(|source| unusable(&path, source))?;
        Ok(lock)
    }

    /// Takes the lock that the server will share. Its holder can only be a server without a host,
    /// since a host would hold the other lock: so the process id in the file is alive and that of
    /// the server, and it is safe to end it.
    pub(super) async fn lock_for_server(&self) -> Result<File, ServerError> {
        let failed = |source| unusable(&self.path.join("server.lock"), source);
        let lock = self.open_lock("server.lock")?;
        if take_lock(&lock, LOCK_TIMEOUT).await.map_err(failed)? {
            return Ok(lock);
        }
        for ending in [Signal::TERM, Signal::KILL] {
            if let Some(pid) = read_pid(&self.pid_file()) {
                tracing::warn!(pid, "a killed host left its nats-server behind, ending it");
                signal(pid, ending);
            }
            if take_lock(&lock, STOP_DEADLINE).await.map_err(failed)? {
                return Ok(lock);
            }
        }
        Err(ServerError::Orphan {
            data: self.path.clone(),
            pid: read_pid(&self.pid_file()),
        })
    }

    /// The log to append to, and the offset of the new server's part.
    pub(super) fn open_log(&self) -> Result<(File, u64), ServerError> {
        let path = self.log();
        let open = || {
            let append = || OpenOptions::new().append(true).create(true).open(&path);
            let mut log = append()?;
            if log.metadata()?.len() > LOG_LIMIT {
                fs::rename(&path, path.with_extension("log.1"))?;
                log = append()?;
            }
            let start = log.metadata()?.len();
            Ok((log, start))
        };
        open().map_err(|source| unusable(&path, source))
    }

    /// The log's last lines from `start` on, indented.
    pub(super) fn log_tail(&self, start: u64) -> String {
        let read = || {
            let mut file = File::open(self.log())?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(
                start.max(end.saturating_sub(LOG_TAIL_BYTES)),
            ))?;
            let mut bytes = Vec::new();
            file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text
            .lines()
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>();
        let last = lines
            .get(lines.len().saturating_sub(LOG_TAIL_LINES)..)
            .unwrap_or_default();
        if last.is_empty() {
            "  (empty)".to_owned()
        } else {
            format!("  {}", last.join("\n  "))
        }
    }

    fn open_lock(&self, name: &str) -> Result<File, ServerError> {
        let path = self.path.join(name);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| unusable(&path, source))
    }
}

pub(super) fn unusable(path: &Path, source: io::Error) -> ServerError {
    ServerError::Data {
        path: path.to_owned(),
        source,
    }
}

/// Signals a process whose id cannot belong to another one by now: a child that was not waited for
/// yet, or one that a lock proves to be alive.
pub(super) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It fails only for a process that is gone already.
        let _gone = kill_process(pid, signal);
    }
}

/// Takes a lock that is free or becomes so within the timeout; whether it did.
async fn take_lock(lock: &File, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL).await,
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn read_pid(path: &Path) -> Option<u32> {
    fs::read_to_string(path)
        .ok()?
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::super::{ManagedServer, ServerOptions};
    use super::*;
    use std::process::Stdio;
    use tokio::process::Command;

    fn folder() -> (tempfile::TempDir, Folder) {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(&root.path().join("nats")).unwrap();
        (root, folder)
    }

    #[test]
    fn a_port_is_read_only_from_a_whole_file_of_that_process() {
        let (_root, folder) = folder();
        let file = folder.ports().join("nats-server_12.ports");
        assert_eq!(folder.port_of(12), None);
        fs::write(&file, r#"{"nats":["nats://127.0.0.1:3757"#).unwrap();
        assert_eq!(folder.port_of(12), None);
        fs::write(&file, r#"{"nats":["nats://127.0.0.1:37577"]}"#).unwrap();
        assert_eq!(folder.port_of(12), Some(37577));
        assert_eq!(folder.port_of(2), None);
        folder.clear().unwrap();
        assert_eq!(folder.port_of(12), None);
    }

    #[test]
    fn a_tail_is_short_and_of_this_start_only() {
        let (_root, folder) = folder();
        assert_eq!(folder.log_tail(0), "  (empty)");
        fs::write(folder.log(), "before\n").unwrap();
        let (mut file, start) = folder.open_log().unwrap();
        assert_eq!(folder.log_tail(start), "  (empty)");
        for line in 0..100 {
            writeln!(file, "line {line}").unwrap();
        }
        let tail = folder.log_tail(start);
        assert_eq!(tail.lines().count(), LOG_TAIL_LINES);
        assert!(tail.ends_with("\n  line 99"), "{tail}");
    }

    #[test]
    fn a_long_log_is_renamed() {
        let (_root, folder) = folder();
        File::create(folder.log())
            .unwrap()
            .set_len(LOG_LIMIT + 1)
            .unwrap();
        assert_eq!(folder.open_log().unwrap().1, 0);
        let aside = fs::metadata(folder.path().join("nats-server.log.1")).unwrap();
        assert_eq!(aside.len(), LOG_LIMIT + 1);
    }

    /// A server whose host is gone and that did not die with it, as outside Linux.
    #[tokio::test]
    async fn a_server_left_behind_is_ended_by_the_next_start() {
        let (_root, folder) = folder();
        let lock = folder.open_lock("server.lock").unwrap();
        lock.lock().unwrap();
        let binary = super::super::launch::find_binary(None, folder.path())
            .unwrap_or_else(|error| panic!("{error}"));
        let mut orphan = Command::new(binary)
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                "-1",
                "--jetstream",
                "--store_dir",
            ])
            .arg(folder.path())
            .arg("--pid")
            .arg(folder.pid_file())
            .stdin(Stdio::from(lock))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let left = orphan.id();
        let options = ServerOptions {
            data: folder.path().to_owned(),
            ..Default::default()
        };
        let (server, status) = tokio::join!(ManagedServer::start(options), orphan.wait());
        let server = server.unwrap();
        status.unwrap();
        assert_ne!(read_pid(&folder.pid_file()), left);
        assert_eq!(read_pid(&folder.pid_file()), server.pid());
        server.stop().await;
    }
}
