//! Opening a connection: a server, TLS, the login, and trying again.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_nats::ServerAddr;
use bytes::BytesMut;
use rand::seq::SliceRandom as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::login::{self, Info, TlsError};
use super::protocol::{self, Broken, Operation};
use super::state::Shared;
use crate::nats::address::{Login, Servers};
use crate::nats::connect::{
    CONNECT_TIMEOUT, ConnectCause, ConnectError, ConnectOptions, reconnect_delay,
};

/// Bytes that are read at a time.
pub(super) const READ: usize = 64 << 10;

/// Room below which a buffer is made larger before it is read into.
const LEAST: usize = 4 << 10;

/// A buffer for what is written that is kept; a larger one of a burst is freed.
const KEPT: usize = 1 << 20;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection, logged in.
pub(super) struct Connection {
    stream: Box<dyn Io>,
    /// Read and not parsed yet.
    read: BytesMut,
    /// Being written, from `written` on.
    output: Vec<u8>,
    written: usize,
    /// Written to the stream, which may still have it.
    unflushed: bool,
    pub(super) info: Info,
}

impl Connection {
    /// The next operation that has been read.
    ///
    /// # Errors
    ///
    /// The peer does not speak NATS.
    pub(super) fn next(&mut self) -> Result<Option<Operation>, Broken> {
        protocol::read(&mut self.read)
    }

    /// Writes what there is, and waits until something was read; returns how much, 0 at the end.
    pub(super) fn poll(
        &mut self,
        shared: Option<&Shared>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(error)) = self.poll_write(shared, context) {
            return Poll::Ready(Err(error));
        }
        if self.read.capacity() - self.read.len() < LEAST {
            self.read.reserve(READ);
        }
        pin!(self.stream.read_buf(&mut self.read)).poll(context)
    }

    /// Writes until nothing is left; then it is not ready, since more can come.
    fn poll_write(
        &mut self,
        shared: Option<&Shared>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.output.len() {
                self.written = 0;
                self.output.clear();
                if self.output.capacity() > KEPT {
                    self.output = Vec::new();
                }
                if let Some(shared) = shared {
                    shared.take_output(context.waker(), &mut self.output);
                }
            }
            let rest = self.output.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                if self.unflushed {
                    ready!(pin!(self.stream.flush()).poll(context))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
            let wrote = ready!(pin!(self.stream.write(rest)).poll(context))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += wrote;
            self.unflushed = true;
        }
    }

    /// Adds to what is written.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// What was published and not begun to be written.
    pub(super) fn unwritten(&self) -> Vec<u8> {
        protocol::publications(&self.output, self.written)
    }

    /// The next operation, waiting for it.
    ///
    /// # Errors
    ///
    /// The connection ended.
    pub(super) async fn receive(&mut self) -> Result<Operation, DialError> {
        loop {
            if let Some(operation) = self.next()? {
                return Ok(operation);
            }
            let read = std::future::poll_fn(|context| self.poll(None, context));
            if read.await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("IO error: {0}")]
    Io(#[from] io::Error),
    #[error("TLS error: {0}")]
    Tls(#[source] io::Error),
    #[error(transparent)]
    TlsOptions(#[from] TlsError),
    #[error("{0}")]
    Refused(String),
    #[error("the server reports: {0}")]
    Reported(String),
    #[error("timed out")]
    Timeout,
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Options(#[from] ConnectError),
}

/// A server of the system.
#[derive(Clone, Debug)]
struct Server {
    host: String,
    port: u16,
    tls: bool,
    /// The name that its certificate has to have.
    name: String,
    /// Another server named it.
    discovered: bool,
}

impl Server {
    fn named(address: &ServerAddr) -> Self {
        let host = address.host().trim_matches(['[', ']']).to_owned();
        Self {
            port: address.port(),
            tls: address.tls_required(),
            name: host.clone(),
            host,
            discovered: false,
        }
    }
}

/// Opens connections to the servers of a system.
#[derive(Clone)]
pub(super) struct Dialer {
    options: ConnectOptions,
    login: Option<Arc<Login>>,
    servers: Vec<Server>,
    /// All that were given, for errors.
    shown: String,
}

impl Dialer {
    /// # Errors
    ///
    /// An address does not parse, options do not fit together, or a file has no login.
    pub(super) fn new(options: &ConnectOptions) -> Result<Self, ConnectError> {
        let given = Servers::parse(&options.urls)?;
        if options.tls_cert.is_some() != options.tls_key.is_some() {
            return Err(ConnectError::HalfCertificate);
        }
        // So that a file is named before any server is asked.
        login::connect(options, given.login.as_ref(), &Info::default(), false)?;
        let own = options.tls_ca.is_some() || options.tls_cert.is_some();
        if own && let Err(TlsError::Options(error)) = login::tls(options) {
            return Err(error);
        }
        let mut servers: Vec<_> = given.addrs.iter().map(Server::named).collect();
        // The hosts of a fleet spread over the servers.
        servers.shuffle(&mut rand::rng());
        Ok(Self {
            options: options.clone(),
            login: given.login.map(Arc::new),
            servers,
            shown: given.shown,
        })
    }

    /// Tries every server once.
    ///
    /// # Errors
    ///
    /// The error of the last one, or of one that answered and refused.
    pub(super) async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let mut worst: Option<DialError> = None;
        for server in self.servers.clone() {
            match self.dial(&server).await {
                Ok(connection) => return Ok(connection),
                Err(
                    DialError::Options(error) | DialError::TlsOptions(TlsError::Options(error)),
                ) => {
                    return Err(error);
                }
                Err(error) => {
                    let answered = |error: &DialError| !matches!(error, DialError::Io(_));
                    if worst.as_ref().is_none_or(|worst| !answered(worst)) {
                        worst = Some(error);
                    }
                }
            }
        }
        Err(self.explain(worst.unwrap_or(DialError::Timeout)))
    }

    /// Tries until a server can be used; rounds begin later and later.
    pub(super) async fn reconnect(&mut self, name: &str) -> Connection {
        let mut round = 0;
        loop {
            round += 1;
            sleep(reconnect_delay(round)).await;
            for server in self.servers.clone() {
                match self.dial(&server).await {
                    Ok(connection) => {
                        self.options.reconnects.note();
                        return connection;
                    }
                    Err(error @ DialError::Refused(_)) => {
                        tracing::error!(connection = name, %error, "NATS refuses the login");
                    }
                    Err(error) => tracing::debug!(connection = name, %error, "NATS client"),
                }
            }
        }
    }

    /// Tries until a server other than this one can be used, and is not about to shut down itself.
    pub(super) async fn elsewhere(&mut self, name: &str, than: &str) -> Connection {
        let mut round = 0;
        loop {
            round += 1;
            sleep(reconnect_delay(round)).await;
            for server in self.servers.clone() {
                match self.dial(&server).await {
                    Ok(connection)
                        if connection.info.server_id != than && !connection.info.is_lame_duck =>
                    {
                        return connection;
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(connection = name, %error, "NATS client"),
                }
            }
        }
    }

    /// Learns of the servers of the system from one of them.
    pub(super) fn learn(&mut self, info: &Info) {
        if info.connect_urls.is_empty() {
            return;
        }
        self.servers.retain(|server| !server.discovered);
        let (tls, name) = match self.servers.first() {
            Some(server) => (server.tls, server.name.clone()),
            None => return,
        };
        for url in &info.connect_urls {
            let Ok(address) = url.parse::<ServerAddr>() else {
                continue;
            };
            let mut server = Server::named(&address);
            let is_known =
                |known: &Server| (&known.host, known.port) == (&server.host, server.port);
            if self.servers.iter().any(is_known) {
                continue;
            }
            server.discovered = true;
            server.tls = tls;
            // Certificates have the names by which people know the servers.
            if server.host.parse::<std::net::IpAddr>().is_ok() {
                server.name.clone_from(&name);
            }
            self.servers.push(server);
        }
    }

    async fn dial(&mut self, server: &Server) -> Result<Connection, DialError> {
        let opened = timeout(CONNECT_TIMEOUT, self.open(server)).await;
        let connection = opened.unwrap_or(Err(DialError::Timeout))?;
        self.learn(&connection.info);
        Ok(connection)
    }

    async fn open(&self, server: &Server) -> Result<Connection, DialError> {
        let tcp = TcpStream::connect((server.host.as_str(), server.port)).await?;
        tcp.set_nodelay(true)?;
        let mut has_tls = self.options.tls_first;
        let mut connection = Connection {
            stream: match has_tls {
                true => self.secure(tcp, server).await?,
                false => Box::new(tcp),
            },
            read: BytesMut::with_capacity(READ),
            output: Vec::new(),
            written: 0,
            unflushed: false,
            info: Info::default(),
        };
        connection.info = match connection.receive().await? {
            Operation::Info(info) => read_info(&info)?,
            Operation::Error(words) => return Err(DialError::Reported(words)),
            _ => return Err(Broken::Operation("no INFO".to_owned()).into()),
        };
        if !has_tls && (server.tls || connection.info.tls_required) {
            has_tls = true;
            connection.stream = self.secure(connection.stream, server).await?;
        }
        let login = self.login.as_deref();
        let lines = login::connect(&self.options, login, &connection.info, has_tls)?;
        connection.write(&lines);
        loop {
            match connection.receive().await? {
                Operation::Pong => return Ok(connection),
                Operation::Ping => connection.write(protocol::PONG),
                Operation::Info(info) => connection.info = read_info(&info)?,
                Operation::Error(words) if is_login(&words) => {
                    return Err(DialError::Refused(words));
                }
                Operation::Error(words) => return Err(DialError::Reported(words)),
                Operation::Ok | Operation::Message(..) => {}
            }
        }
    }

    async fn secure(
        &self,
        stream: impl Io + 'static,
        server: &Server,
    ) -> Result<Box<dyn Io>, DialError> {
        let options = self.options.clone();
        // The system's certificates are many files.
        let config = tokio::task::spawn_blocking(move || login::tls(&options)).await;
        let config = config.map_err(io::Error::other)??;
        let name = ServerName::try_from(server.name.clone())
            .map_err(|error| DialError::Tls(io::Error::other(error)))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        Ok(Box::new(stream.map_err(DialError::Tls)?))
    }

    fn explain(&self, error: DialError) -> ConnectError {
        let (url, source) = (self.shown.clone(), ConnectCause::new(error.to_string()));
        match error {
            DialError::Options(error) | DialError::TlsOptions(TlsError::Options(error)) => error,
            DialError::Refused(_) => ConnectError::Unauthorized { url, source },
            DialError::Tls(_) | DialError::TlsOptions(_) => ConnectError::Tls { url, source },
            // With TLS 1.3 a server that does not accept the client's certificate says so after
            // the handshake.
            DialError::Io(error)
                if error
                    .get_ref()
                    .is_some_and(|inner| inner.is::<rustls::Error>()) =>
            {
                ConnectError::Tls { url, source }
            }
            _ => ConnectError::Unreachable { url, source },
        }
    }
}

pub(super) fn read_info(info: &[u8]) -> Result<Info, DialError> {
    let broken = |_| Broken::Operation("INFO".to_owned());
    Ok(serde_json::from_slice(info).map_err(broken)?)
}

/// Whether an error is about who the client is.
fn is_login(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    words.contains("authorization") || words.contains("authentication")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(url: &str) -> Dialer {
        Dialer::new(&ConnectOptions::to(url)).unwrap()
    }

    #[test]
    fn servers_that_others_name_are_tried_too_under_the_name_of_their_system() {
        let mut dialer = dialer("tls://nats.example:4222");
        let info = |urls: &[&str]| Info {
            connect_urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..Info::default()
        };
        let known = |dialer: &Dialer| {
            let all = dialer.servers.iter();
            all.map(|server| format!("{} {} {}", server.host, server.port, server.name))
                .collect::<Vec<_>>()
        };
        dialer.learn(&info(&[
            "nats.example:4222",
            "10.0.0.2:4222",
            "two.example:1",
            "[::1]:2",
        ]));
        assert_eq!(
            known(&dialer),
            [
                "nats.example 4222 nats.example",
                "10.0.0.2 4222 nats.example",
                "two.example 1 two.example",
                "::1 2 nats.example"
            ]
        );
        assert!(dialer.servers.iter().all(|server| server.tls));
        dialer.learn(&info(&[]));
        assert_eq!(dialer.servers.len(), 4);
        dialer.learn(&info(&["10.0.0.3:4222"]));
        assert_eq!(dialer.servers.len(), 2);
    }
}
