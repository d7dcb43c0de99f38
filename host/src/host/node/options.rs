//! What a node is started with, and why it may not start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use super::own::OwnApp;
use crate::admin::metrics::MetricsExport;
use crate::events::stream::Unavailable;
use crate::fleet::{StoreError, Trust};
use crate::host::{AdminToken, HostError, HostOptions};
use crate::manifest::TlsSpec;
use crate::nats::{ConnectError, ConnectOptions, Refusal};
use crate::spans::Spans;

/// The options of a node.
#[derive(Clone)]
pub struct NodeOptions {
    /// Where NATS is.
    pub nats: ConnectOptions,
    /// The host's name, which no other host of the fleet has; see [`crate::fleet::is_host_name`].
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The address of the gateway; `None` runs without one.
    pub gateway: Option<SocketAddr>,
    /// The certificates of the gateway; `None` has it speak HTTP without TLS.
    pub tls: Option<TlsSpec>,
    /// The bytes of memory that services may reserve on it, together; any number by default.
    pub capacity: Option<u64>,
    /// The admin address, where any client that can reach it sees what the fleet runs; `None` runs without
    /// one.
    pub admin: Option<SocketAddr>,
    /// The token that the admin address asks for. Without one it has to be a loopback address.
    pub admin_token: Option<AdminToken>,
    /// Threads that serve calls, for each app; one for each core by default.
    pub workers: NonZeroUsize,
    /// Upper bound of the time for which calls of replaced or removed services go on.
    pub grace: Duration,
    /// Servers that keep a copy of the fleet's store; one unless given, or as many as it has already.
    pub copies: Option<u8>,
    /// Whose components it runs; anyone's by default.
    pub trust: Trust,
    /// Records what services and gateways do; nothing by default.
    pub spans: Spans,
    /// Exports the metrics of all apps; nothing by default.
    pub metrics: MetricsExport,
    /// The one app that it runs, all of it; its part of every app by default.
    pub app: Option<OwnApp>,
}

impl NodeOptions {
    /// The defaults, with these options of NATS, this name and no gateway.
    #[must_use]
    pub fn new(nats: ConnectOptions, name: impl Into<String>) -> Self {
        let HostOptions { workers, grace, .. } = HostOptions::new(nats.clone());
        Self {
            nats,
            name: name.into(),
            labels: BTreeMap::new(),
            gateway: None,
            tls: None,
            capacity: None,
            admin: None,
            admin_token: None,
            workers,
            grace,
            copies: None,
            trust: Trust::anyone(),
            spans: Spans::default(),
            metrics: MetricsExport::default(),
            app: None,
        }
    }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The gateway cannot listen.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The socket of the admin address does not say where it listens.
    #[error("the admin address cannot be read")]
    AdminAddress(#[source] std::io::Error),
    /// NATS cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There is no JetStream.
    #[error("a fleet keeps what it runs in JetStream")]
    JetStream(#[from] Unavailable),
    /// The fleet's store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The login lacks a permission for it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The name is no name.
    #[error("\"{0}\" is no name of a host; accepted: 1 to 63 of a-z, 0-9 and `-`")]
    Name(String),
    /// Another host has the name.
    #[error("another host of the fleet is called \"{0}\"; choose another name with `--name`")]
    NameTaken(String),
}
