//! `[gateway]`: where and how the gateway listens.

use std::time::Duration;

use super::file::Section;
use super::keys;
use super::kinds::settings;
use crate::interface::InterfaceId;

/// Which functions have an RPC path at the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RpcPaths {
    /// All that the app's services export or need.
    #[default]
    All,
    /// None.
    None,
    /// Those of these interfaces; one without a version stands for all of its versions.
    Of(Vec<InterfaceId>),
}

impl RpcPaths {
    /// Whether the functions of this interface have one.
    #[must_use]
    pub fn include(&self, interface: &InterfaceId) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Of(these) => these.iter().any(|these| interface.answers_to(these)),
        }
    }
}

settings! {
    /// Where and how the gateway listens.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct GatewaySpec in gateway {
        /// `host:port`; none leaves it to the command line.
        pub listen: Option<String> = LISTEN,
        /// `host:port` of the admin address; none leaves it to the command line.
        pub admin: Option<String> = ADMIN,
        /// Names by which requests reach the app at the gateway of a fleet; none stands for all.
        pub hosts: Vec<String> = HOSTS,
        /// Which functions have an RPC path.
        pub rpc: RpcPaths = RPC,
        /// Bytes of a request's body.
        pub body: usize = BODY,
        /// Bytes of a request's line and headers.
        pub header: usize = HEADER,
        /// Time from a request's first byte to the last of its answer.
        pub timeout: Duration = TIMEOUT,
        /// Connections open at the same time.
        pub connections: u32 = CONNECTIONS,
        /// Those among them that one peer may have.
        pub peer_connections: u32 = PEER_CONNECTIONS,
    }
}

/// Reads the gateway's part.
pub(super) fn read(top: &Section<'_>) -> GatewaySpec {
    let section = top.section(&keys::app::GATEWAY, &keys::gateway::TABLE);
    let mut spec = GatewaySpec::read(&section, &GatewaySpec::default());
    if !section.has(keys::gateway::PEER_CONNECTIONS.name) {
        spec.peer_connections = keys::half(spec.connections);
    }
    spec
}
