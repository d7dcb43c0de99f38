//! The NATS system of a host: one of its own, or one that exists.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use wasmbay::nats::{ConnectOptions, ManagedServer, ServerError, ServerOptions, redact};

use crate::args::Nats;

/// The file in a server's data that has its URL with the login.
const URL_FILE: &str = "url";

/// The NATS system: one of the host's own, or one that exists.
pub(super) enum Server {
    Managed(ManagedServer),
    Given(ConnectOptions),
    /// That of another host on this machine, and the file with its login.
    Joined(ConnectOptions, PathBuf),
}

impl Server {
    /// Starts a server with this data, unless one is given.
    pub(super) async fn start(nats: &Nats, data: PathBuf) -> anyhow::Result<Self> {
        if let Some(options) = nats.options()? {
            return Ok(Self::Given(options));
        }
        let options = ServerOptions {
            data,
            ..ServerOptions::default()
        };
        Ok(Self::Managed(ManagedServer::start(options).await?))
    }

    /// As [`start`](Self::start), but where another host runs a server on this data, uses that one.
    pub(super) async fn start_or_join(nats: &Nats, data: PathBuf) -> anyhow::Result<Self> {
        let file = data.join(URL_FILE);
        match Self::start(nats, data).await {
            Err(error) if matches!(error.downcast_ref(), Some(ServerError::InUse { .. })) => {
                let url = read_url(&file).context(error)?;
                Ok(Self::Joined(ConnectOptions::to(url), file))
            }
            started => started,
        }
    }

    pub(super) fn options(&self) -> ConnectOptions {
        match self {
            Self::Managed(server) => ConnectOptions::to(server.url()),
            Self::Given(options) | Self::Joined(options, _) => options.clone(),
        }
    }

    /// As it may be shown.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Managed(server) => server.address().to_owned(),
            Self::Given(options) | Self::Joined(options, _) => redact(&options.urls.join(",")),
        }
    }

    /// The file with a URL that has the login, for a server that a host started.
    pub(super) fn url_file(&self) -> Option<&Path> {
        match self {
            Self::Managed(server) => Some(server.url_file()),
            Self::Joined(_, file) => Some(file),
            Self::Given(_) => None,
        }
    }

    pub(super) fn has_password(&self) -> bool {
        match self {
            Self::Managed(_) | Self::Joined(..) => false,
            Self::Given(options) => options.urls.iter().any(|url| url.contains('@')),
        }
    }

    /// Ends a server of the host's own within this time.
    pub(super) async fn stop(self, patience: Duration) {
        if let Self::Managed(server) = self {
            server.stop_within(patience).await;
        }
    }
}

/// The URL of the server with this data, if one runs.
pub(super) fn running(data: &Path) -> Option<String> {
    read_url(&data.join(URL_FILE)).ok()
}

fn read_url(file: &Path) -> anyhow::Result<String> {
    let url = std::fs::read_to_string(file);
    let url = url.with_context(|| format!("cannot read the NATS login in {}", file.display()))?;
    Ok(url.trim().to_owned())
}
