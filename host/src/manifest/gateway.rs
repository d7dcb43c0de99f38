//! `[gateway]`: where and how the gateway listens.

use std::time::Duration;

use super::file::Section;
use super::keys;
use super::kinds::settings;

settings! {
    /// Where and how the gateway listens.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct GatewaySpec in gateway {
        /// `host:port`; none leaves it to the command line.
        pub listen: Option<String> = LISTEN,
        /// `host:port` of the admin address; none leaves it to the command line.
        pub admin: Option<String> = ADMIN,
        /// Bytes of a request's body.
        pub body: usize = BODY,
        /// Bytes of a request's line and headers.
        pub header: usize = HEADER,
        /// Time from a request's first byte to the last of its answer.
        pub timeout: Duration = TIMEOUT,
        /// Connections open at the same time.
        pub connections: u32 = CONNECTIONS,
    }
}

/// Reads the gateway's part.
pub(super) fn read(top: &Section<'_>) -> GatewaySpec {
    let section = top.section(&keys::app::GATEWAY, &keys::gateway::TABLE);
    GatewaySpec::read(&section, &GatewaySpec::default())
}
