//! `[gateway]`: where and how the gateway listens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::auth::{self, AuthSpec};
use super::cors::{self, CorsSpec};
use super::file::Section;
use super::kinds::{Key, Other};
use super::proxies::{self, Networks};
use super::rate::{self, RateSpec};
use super::settings::settings;
use super::tls::{self, TlsSpec};
use super::{Find, keys};
use crate::interface::InterfaceId;

/// Which functions have an RPC path at the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RpcPaths {
    /// All that the app's services export or need, for clients on the gateway's own machine.
    #[default]
    Loopback,
    /// All of them for everybody.
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
            Self::All | Self::Loopback => true,
            Self::None => false,
            Self::Of(these) => these.iter().any(|these| interface.answers_to(these)),
        }
    }
}

/// What a gateway says of itself to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApiDocument {
    /// Nothing.
    None,
    /// Its OpenAPI document.
    #[default]
    Document,
    /// The document, and a page to read and try it.
    Explorer,
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
        /// What it says of itself.
        pub openapi: ApiDocument = OPENAPI,
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
        /// Bytes from which on a result is compressed; none is never.
        pub compress: Option<usize> = COMPRESS,
        ;
        /// Who may call; none is everybody.
        pub auth: AuthSpec = AUTH,
        /// Its certificates; none is HTTP without TLS. A gateway that several apps share has its own.
        pub tls: TlsSpec = TLS,
        /// Pages of other origins that may call functions.
        pub cors: CorsSpec = CORS,
        /// How many requests a client may make.
        pub rate: RateSpec = RATE,
        /// Who may say for whom a request is; none is nobody.
        pub trusted_proxies: Networks = TRUSTED_PROXIES,
    }
}

/// Reads the gateway's part.
pub(super) fn read(top: &Section<'_>) -> GatewaySpec {
    let section = top.section(&keys::app::GATEWAY, &keys::gateway::TABLE);
    let mut spec = GatewaySpec::read(&section, &GatewaySpec::default());
    if !section.has(keys::gateway::PEER_CONNECTIONS.name) {
        spec.peer_connections = keys::half(spec.connections);
    }
    spec.auth = auth::read(&section);
    spec.tls = tls::read(&section);
    spec.cors = cors::read(&section);
    spec.rate = rate::read(&section, &keys::gateway::RATE);
    spec.trusted_proxies = proxies::read(&section);
    spec
}

/// The files that the gateway's part names, as they are found; those that are not there are reported.
pub(super) fn find_files(top: &Section<'_>, root: &Path, find: Find<'_>) -> Files {
    let section = top.section(&keys::app::GATEWAY, &keys::gateway::TABLE);
    let (finding, mut files) = (Finding { root, find }, Files::new());
    auth::find_files(&section, &finding, &mut files);
    tls::find_files(&section, &finding, &mut files);
    files
}

/// Files by the paths that a manifest has for them.
pub(super) type Files = BTreeMap<PathBuf, PathBuf>;

/// Where files are looked for.
pub(super) struct Finding<'a> {
    pub(super) root: &'a Path,
    pub(super) find: Find<'a>,
}

impl Finding<'_> {
    /// The file that a key names. Reports one that is not there.
    pub(super) fn file(&self, section: &Section<'_>, key: &Key<Other>, files: &mut Files) {
        let Some(typed) = section.text(key) else {
            return;
        };
        let path = self.root.join(typed.value);
        match (self.find)(&path) {
            Some(found) => drop(files.insert(typed.value.into(), found)),
            None => {
                let why = format!("`{}`: there is no file {}", key.name, path.display());
                section.report(typed.at, why);
            }
        }
    }
}

impl GatewaySpec {
    /// Puts files where they were found.
    pub(super) fn put_files(&mut self, files: &Files) {
        if let Some(auth) = &mut self.auth {
            auth.put_files(files);
        }
        if let Some(tls) = &mut self.tls {
            tls.put_files(files);
        }
    }
}

/// Puts a file where it was found.
pub(super) fn put_file(path: &mut PathBuf, files: &Files) {
    if let Some(found) = files.get(path) {
        path.clone_from(found);
    }
}
