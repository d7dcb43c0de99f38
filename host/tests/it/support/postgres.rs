//! A real PostgreSQL server on a free port, with a folder of its own.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use super::until_ok_blocking;

/// PostgreSQL does not run as root. Then this is who it runs as: nobody.
const NOBODY: u32 = 65_534;

pub(crate) const USER: &str = "ledger";
pub(crate) const PASSWORD: &str = "a secret";

pub(crate) struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    server: Option<Child>,
    pub(crate) port: u16,
}

impl Postgres {
    /// Starts a server that asks everybody for the password. `rule` says which connections it takes: `host` is all of them,
    /// `hostssl` those by TLS.
    pub(crate) fn start(rule: &str) -> Self {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/postgres");
        let program = installed.canonicalize().unwrap_or_else(|error| {
            panic!("no postgres ({error}): run `guests/tools.sh postgres`");
        });
        let folder = tempfile::tempdir().unwrap();
        let mut programs = program.parent().unwrap().to_owned();
        if geteuid().is_root() {
            // This user has to get to its own programs, and nobody may get to the checkout.
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let copied = folder.path().join("native");
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(programs.parent().unwrap()).arg(&copied);
            assert!(copy.status().unwrap().success());
            programs = copied.join("bin");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut server = Self {
            folder,
            programs,
            server: None,
            port,
        };
        server.create(rule);
        server.run();
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.folder.path());
        if geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// A file of the server's user.
    fn write(&self, path: &Path, contents: &[u8]) {
        fs::write(path, contents).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        if geteuid().is_root() {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    fn create(&self, rule: &str) {
        let data = self.data();
        fs::create_dir(&data).unwrap();
        if geteuid().is_root() {
            chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let password = self.folder.path().join("password");
        self.write(&password, PASSWORD.as_bytes());
        let created = self
            .program("initdb")
            .args(["--username", USER, "--auth", "scram-sha-256"])
            .args(["--no-sync", "--locale", "C", "--encoding", "UTF8"])
            .arg("--pwfile")
            .arg(&password)
            .arg("--pgdata")
            .arg(&data)
            .output()
            .unwrap();
        assert!(created.status.success(), "{created:?}");
        let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/gateway/tls");
        for name in ["server.pem", "server.key"] {
            let contents = fs::read(certificates.join(name)).unwrap();
            self.write(&data.join(name), &contents);
        }
        let rule = format!("{rule} all all 127.0.0.1/32 scram-sha-256\n");
        self.write(&data.join("pg_hba.conf"), rule.as_bytes());
    }

    fn run(&mut self) {
        let mut command = self.program("postgres");
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        command.arg("-D").arg(self.data());
        for setting in [
            &format!("port={}", self.port),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "ssl=on",
            "ssl_cert_file=server.pem",
            "ssl_key_file=server.key",
        ] {
            command.args(["-c", setting]);
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.server = Some(child);
        until_ok_blocking("the database is ready", || {
            // The last line of its file says how far it is.
            let state = fs::read_to_string(self.data().join("postmaster.pid"));
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap();
            match state.is_ok_and(|state| state.trim_end().ends_with("ready")) {
                true => Ok(()),
                false => Err(log()),
            }
        });
    }

    /// Stops it, with all of its connections.
    pub(crate) fn stop(&mut self) {
        let mut child = self.server.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        child.wait().unwrap();
    }

    /// Starts it again, with its data.
    pub(crate) fn start_again(&mut self) {
        self.run();
    }

    /// The processes that serve a connection, one for each.
    pub(crate) fn connections(&self) -> Vec<Pid> {
        let server = self.server.as_ref().unwrap().id();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            // It may end meanwhile.
            let read = |file| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            // Its parent is the fourth field, the second one after the name in brackets.
            let stat = read("stat");
            let rest = stat.rsplit(')').next().unwrap_or_default();
            let parent = rest.split_whitespace().nth(1);
            let of_client = format!("postgres: {USER} ");
            if parent == Some(&server.to_string()) && read("cmdline").starts_with(&of_client) {
                found.extend(Pid::from_raw(pid));
            }
        }
        found
    }

    /// Ends every connection, as `pg_terminate_backend` does, and waits until they are gone.
    pub(crate) fn end_connections(&self) {
        for pid in self.connections() {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        until_ok_blocking("the connections have ended", || {
            let left = self.connections();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.stop();
        }
    }
}
