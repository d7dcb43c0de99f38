//! A real `nats-server` for one test, on a free port and a folder of its own.

use async_nats::Client;
use tempfile::TempDir;
use wasmbay::nats::{ConnectOptions, Link, ManagedServer, ServerOptions};

/// A server that is stopped by [`stop`](Self::stop), or killed at the end of the test's runtime.
pub(crate) struct Nats {
    pub(crate) server: ManagedServer,
    /// Holds the server's data.
    pub(crate) folder: TempDir,
}

impl Nats {
    /// Fails the test if there is no `nats-server`; the message says how to install it.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = ServerOptions {
            data: folder.path().join("nats"),
            ..Default::default()
        };
        let server = ManagedServer::start(options)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        Self { server, folder }
    }

    pub(crate) fn url(&self) -> &str {
        self.server.url()
    }

    /// A new connection as the host makes it.
    pub(crate) async fn connect(&self) -> Client {
        ConnectOptions::to(self.url()).connect().await.unwrap()
    }

    /// A new connection for messages as the host makes it.
    pub(crate) async fn link(&self) -> Link {
        ConnectOptions::to(self.url()).link().await.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}

/// A `nats-server` with a configuration of its own, which is killed when it is dropped.
pub(crate) struct Configured {
    child: std::process::Child,
    url: String,
    /// Where other servers of its cluster connect to.
    cluster: Option<String>,
    folder: TempDir,
}

impl Configured {
    /// Starts a server with JetStream and these further lines of configuration.
    pub(crate) async fn start(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let lines = format!("jetstream {{ store_dir: \"{}\" }}\n{lines}", data.display());
        Self::start_in(folder, &lines).await
    }

    /// As [`start`](Self::start), with at most so many bytes in JetStream.
    pub(crate) async fn with_room(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let lines = format!(
            "jetstream {{ store_dir: \"{}\", max_file_store: {bytes} }}",
            data.display()
        );
        Self::start_in(folder, &lines).await
    }

    /// As [`start`](Self::start), without JetStream.
    pub(crate) async fn start_core(lines: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), lines).await
    }

    /// Kills the server, and starts it again with its data and at its port.
    pub(crate) async fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let path = self.folder.path().join("nats.conf");
        let address = self.url.trim_start_matches("nats://").to_owned();
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, config.replace("127.0.0.1:-1", &address)).unwrap();
        let mut server = std::process::Command::new(program().await);
        server
            .arg("--config")
            .arg(&path)
            .stderr(std::process::Stdio::null());
        self.child = server.spawn().unwrap();
        super::until("the server listens again", || {
            std::net::TcpStream::connect(&address).is_ok()
        })
        .await;
    }

    async fn start_in(folder: TempDir, lines: &str) -> Self {
        let path = folder.path().join("nats.conf");
        let config = format!("listen: \"127.0.0.1:-1\"\n{lines}\n");
        std::fs::write(&path, config).unwrap();
        // Configurations of the documentation have passwords from there.
        let users = ["host", "deployer", "operator", "client"];
        let passwords = users.map(|user| (format!("{}_PASSWORD", user.to_uppercase()), user));
        let child = std::process::Command::new(program().await)
            .envs(passwords)
            .arg("--config")
            .arg(&path)
            .arg("--ports_file_dir")
            .arg(folder.path())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let ports = folder
            .path()
            .join(format!("nats-server_{}.ports", child.id()));
        let (mut url, mut cluster) = (None, None);
        super::until("the server has written its port", || {
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            let ports: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            url = ports["nats"][0].as_str().map(str::to_owned);
            cluster = ports["cluster"][0].as_str().map(str::to_owned);
            url.is_some()
        })
        .await;
        Self {
            child,
            url: url.unwrap(),
            cluster,
            folder,
        }
    }

    /// The server's URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub(crate) fn cluster(&self) -> &str {
        self.cluster.as_deref().unwrap()
    }

    /// Has the server read these lines instead of those that it was started with.
    pub(crate) fn reload(&self, lines: &str) {
        let config = format!("listen: \"127.0.0.1:-1\"\n{lines}\n");
        std::fs::write(self.folder.path().join("nats.conf"), config).unwrap();
        self.signal("-HUP");
    }

    /// Sends a signal, such as `-USR2`.
    pub(crate) fn signal(&self, signal: &str) {
        let mut kill = std::process::Command::new("kill");
        let sent = kill.args([signal, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// The server's URL with a login.
    pub(crate) fn url_of(&self, user: &str) -> String {
        self.url
            .replace("nats://", &format!("nats://{user}:{user}@"))
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the `nats-server` is that tests use.
pub(crate) async fn program() -> std::path::PathBuf {
    let found = Nats::start().await;
    let pid = found.server.pid().unwrap();
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    found.stop().await;
    program
}
