//! A real `nats-server` for one test, on a free port and a folder of its own.

use async_nats::Client;
use tempfile::TempDir;
use wasmbay::nats::{ConnectOptions, ManagedServer, ServerOptions};

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

    pub(crate) async fn stop(self) {
        self.server.stop().await;
    }
}
