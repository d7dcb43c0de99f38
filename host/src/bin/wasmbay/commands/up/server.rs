//! The NATS system of an app: one of its own, or one that exists.

use std::path::Path;
use std::time::Duration;

use wasmbay::nats::{ConnectOptions, ManagedServer, ServerOptions, redact};

use super::{NATS_DATA, Up};

/// The NATS system: one of the app's own, or one that exists.
pub(super) enum Server {
    Managed(ManagedServer),
    Given(ConnectOptions),
}

impl Server {
    pub(super) async fn start(args: &Up, root: &Path) -> anyhow::Result<Self> {
        if let Some(options) = args.nats.options()? {
            return Ok(Self::Given(options));
        }
        let data = root.join(NATS_DATA);
        let options = ServerOptions {
            data,
            ..ServerOptions::default()
        };
        Ok(Self::Managed(ManagedServer::start(options).await?))
    }

    pub(super) fn options(&self) -> ConnectOptions {
        match self {
            Self::Managed(server) => ConnectOptions::to(server.url()),
            Self::Given(options) => options.clone(),
        }
    }

    /// As it may be shown.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Managed(server) => server.address().to_owned(),
            Self::Given(options) => redact(&options.urls.join(",")),
        }
    }

    /// The file with a URL that has the login, for a server of the app's own.
    pub(super) fn url_file(&self) -> Option<&Path> {
        match self {
            Self::Managed(server) => Some(server.url_file()),
            Self::Given(_) => None,
        }
    }

    pub(super) fn has_password(&self) -> bool {
        match self {
            Self::Managed(_) => false,
            Self::Given(options) => options.urls.iter().any(|url| url.contains('@')),
        }
    }

    /// Ends a server of the app's own within this time.
    pub(super) async fn stop(self, patience: Duration) {
        if let Self::Managed(server) = self {
            server.stop_within(patience).await;
        }
    }
}
