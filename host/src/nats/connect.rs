//! Connections to NATS from options and credentials. A connection reconnects by itself and logs its
//! state.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, Event, ServerError, jetstream};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::{Login, Servers, redact};
use super::nkey::{Nkey, seed};
use super::reconnects::Reconnects;
use super::violations::Violations;

/// Time for one server to accept a connection, answer and log the client in.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval of pings on an idle connection. Two pings may stay unanswered, so a peer that vanished
/// without closing the connection is noticed after about three times this.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Upper bound of the messages that wait on one subscription. Further ones are dropped with a "slow
/// consumer" warning.
///
/// The client reads its socket in bursts of up to 8 MiB (128 reads of 64 KiB) before another task
/// of the same thread runs. The smallest message with a reply subject that a host gets has 64 bytes or
/// more, so one burst is at most as many; a lower bound could drop calls and replies without any slow
/// consumer. Memory is taken as messages come, an idle subscription costs next to nothing.
pub const SUBSCRIPTION_CAPACITY: usize = 131_072;

/// Upper bound of the commands (publish, subscribe) that wait for the connection. Further ones wait
/// in their callers.
///
/// While the connection is down, as many are kept until it is back.
pub const CLIENT_CAPACITY: usize = 2_048;

/// Time for which [`settled`] waits for the server.
pub const SETTLE_DEADLINE: Duration = Duration::from_secs(5);

const RECONNECT_DELAY_FIRST: Duration = Duration::from_millis(25);
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);

/// The addresses and the login of a NATS system.
///
/// # Limits
/// [`CONNECT_TIMEOUT`], [`PING_INTERVAL`], [`SUBSCRIPTION_CAPACITY`] and [`CLIENT_CAPACITY`] apply
/// to every connection.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), wasmbay::nats::ConnectError> {
/// use wasmbay::nats::ConnectOptions;
///
/// let client = ConnectOptions::to("nats://127.0.0.1:4222").connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct ConnectOptions {
    /// Servers of one NATS system, each as `nats://host:port`, `tls://host:port` or `host:port`; an
    /// entry may be a list separated by commas. `user:password@` or `token@` before the host logs
    /// in with it, and all entries that have it must have the same.
    pub urls: Vec<String>,
    /// A credentials file (JWT and seed, as `nsc` writes it).
    pub credentials: Option<PathBuf>,
    /// An nkey to log in with.
    pub nkey: Option<Nkey>,
    /// Certificates (PEM) to trust instead of the system's.
    pub tls_ca: Option<PathBuf>,
    /// The client's own certificate (PEM); needs `tls_key`.
    pub tls_cert: Option<PathBuf>,
    /// The key (PEM) to `tls_cert`.
    pub tls_key: Option<PathBuf>,
    /// The JetStream domain to use; otherwise that of the server connected to. Hosts on a hub and on its
    /// leaf nodes have to use the same one, or each stores every event.
    pub js_domain: Option<String>,
    /// The connection's name, as the server's monitoring and this host's log show it.
    pub name: Option<String>,
    /// The first tokens of reply subjects; `_INBOX` unless given. For accounts whose users may subscribe
    /// to inboxes of their own only.
    pub inbox_prefix: Option<String>,
    /// Whether TLS begins before the server says anything, as a server with `handshake_first` wants
    /// it.
    pub tls_first: bool,
    /// Where refused permissions are noted.
    pub violations: Violations,
    /// Where it is counted how often a connection was lost and made again.
    pub reconnects: Reconnects,
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field(
                "urls",
                &self.urls.iter().map(|url| redact(url)).collect::<Vec<_>>(),
            )
            .field("credentials", &self.credentials)
            .field("nkey", &self.nkey)
            .field("tls_ca", &self.tls_ca)
            .field("tls_cert", &self.tls_cert)
            .field("tls_key", &self.tls_key)
            .field("js_domain", &self.js_domain)
            .field("name", &self.name)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("tls_first", &self.tls_first)
            .finish()
    }
}

/// A connection could not be opened. URLs in it are without user and password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No URL was given.
    #[error("no NATS server was named; give its address as nats://host:4222")]
    NoUrl,
    /// A URL does not parse.
    #[error(
        "{url:?} is no address of a NATS server; write it as nats://host:4222 or tls://host:4222"
    )]
    BadUrl {
        /// The URL as given, without user and password.
        url: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Two URLs have different logins.
    #[error(
        "the URL {url} logs in as someone else than another one; give all servers of one NATS system the same user"
    )]
    TwoLogins {
        /// The second of them.
        url: String,
    },
    /// A file named in the options cannot be read.
    #[error("cannot read the {what} {}", path.display())]
    ReadFile {
        /// The kind of file.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// The credentials file has no JWT or no seed.
    #[error("{} is no NATS credentials file; `nsc generate creds` writes one", path.display())]
    BadCredentials {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The nkey is no seed of a user.
    #[error(
        "the nkey {from} is no user's seed (it begins with SU and has 58 characters); `nsc generate nkey --user` makes one"
    )]
    BadNkey {
        /// The file it was in, or "given".
        from: String,
    },
    /// A client certificate without a key, or a key without a certificate.
    #[error("a TLS client certificate and its key belong together; give both or neither")]
    HalfCertificate,
    /// The server did not accept the login.
    #[error(
        "NATS at {url} refused the login; check the user and password of the URL, the token, the credentials file or the nkey"
    )]
    Unauthorized {
        /// The servers tried.
        url: String,
        /// The error of the client.
        source: ConnectCause,
    },
    /// TLS failed.
    #[error(
        "TLS with NATS at {url} failed; check the certificate authority and the client's certificate and key"
    )]
    Tls {
        /// The servers tried.
        url: String,
        /// The error of the client.
        source: ConnectCause,
    },
    /// No server answered.
    #[error(
        "cannot connect to NATS at {url}; check the address, and that a nats-server is running there"
    )]
    Unreachable {
        /// The servers tried.
        url: String,
        /// The error of the client.
        source: ConnectCause,
    },
}

/// The error of the NATS client. It repeats its source in its text, so only the text is kept.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConnectCause(String);

impl ConnectCause {
    pub(super) fn new(error: String) -> Self {
        Self(error)
    }
}

/// The server did not confirm the subscriptions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// The server did not deliver within [`SETTLE_DEADLINE`].
    #[error("NATS did not confirm the subscriptions within {} s", SETTLE_DEADLINE.as_secs())]
    Deadline,
    /// The connection was closed by its owner.
    #[error("the connection to NATS is closed")]
    Closed,
}

impl ConnectOptions {
    /// Options for one server or a comma-separated list of them, without any further login.
    pub fn to(url: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            ..Self::default()
        }
    }

    /// The same options under another connection name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same options, with what servers refuse noted apart.
    #[must_use]
    pub fn with_own_violations(&self) -> Self {
        Self {
            violations: Violations::default(),
            ..self.clone()
        }
    }

    /// JetStream over a connection with these options.
    #[must_use]
    pub fn jetstream(&self, client: Client) -> jetstream::Context {
        match &self.js_domain {
            Some(domain) => jetstream::with_domain(client, domain),
            None => jetstream::new(client),
        }
    }

    /// What the subjects of JetStream's API begin with.
    pub(crate) fn jetstream_prefix(&self) -> String {
        match &self.js_domain {
            Some(domain) => format!("$JS.{domain}.API"),
            None => "$JS.API".to_owned(),
        }
    }

    /// Opens a connection. Every server is tried once; a connection that is lost later is tried for
    /// ever again, at first at once, then with delays that double up to two seconds.
    ///
    /// # Errors
    /// See [`ConnectError`]; it names the server and the fix, and never has a password.
    ///
    /// # Cancel safety
    /// Safe: a dropped attempt leaves nothing behind.
    pub async fn connect(&self) -> Result<Client, ConnectError> {
        let servers = Servers::parse(&self.urls)?;
        let options = self.client_options(servers.login).await?;
        tracing::debug!(
            servers = servers.shown,
            name = self.name,
            "connecting to NATS"
        );
        async_nats::connect_with_options(servers.addrs, options)
            .await
            .map_err(|error| connect_error(servers.shown, self.nkey.as_ref(), &error))
    }

    async fn client_options(
        &self,
        login: Option<Login>,
    ) -> Result<async_nats::ConnectOptions, ConnectError> {
        let name = self.name.clone().unwrap_or_else(|| "wasmbay".to_owned());
        let (connected, dropped) = (AtomicBool::new(false), AtomicU64::new(0));
        let violations = self.violations.clone();
        let options = match &self.credentials {
            Some(path) => with_credentials(path).await?,
            None => async_nats::ConnectOptions::new(),
        };
        let mut options = options
            .name(&name)
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .client_capacity(CLIENT_CAPACITY)
            .max_reconnects(None)
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                let again =
                    matches!(event, Event::Connected) && connected.swap(true, Ordering::Relaxed);
                if let Event::ServerError(ServerError::Other(error)) = &event
                    && violations.note(&name, error)
                {
                    return std::future::ready(());
                }
                // One for each message that is dropped: said often enough to be noticed, and no flood.
                let is_repeated = matches!(event, Event::SlowConsumer(_))
                    && !(dropped.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two();
                if !is_repeated {
                    log_event(&name, &event, again);
                }
                std::future::ready(())
            });
        match login {
            Some(Login::User { user, password }) => {
                options = options.user_and_password(user, password)
            }
            Some(Login::Token(token)) => options = options.token(token),
            None => {}
        }
        if let Some(prefix) = &self.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        if self.tls_first {
            options = options.tls_first();
        }
        if let Some(nkey) = &self.nkey {
            options = options.nkey(seed(nkey)?);
        }
        if let Some(path) = &self.tls_ca {
            // Read here only to name the file in the error: the client reads it anew on every
            // connection.
            read("TLS certificate authority", path).await?;
            options = options.add_root_certificates(path.clone());
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                read("TLS client certificate", cert).await?;
                read("TLS client key", key).await?;
                options = options.add_client_certificate(cert.clone(), key.clone());
            }
            (None, None) => {}
            _ => return Err(ConnectError::HalfCertificate),
        }
        Ok(options)
    }
}

/// Waits until the server has processed everything that this connection sent before. From then on
/// every message published on that server reaches the connection's subscriptions.
///
/// The proof is a message to an inbox of the connection itself, since a server processes the
/// commands of one connection in order; after `flush` the bytes have only left. In a cluster, the
/// other servers learn of a subscription a moment later.
///
/// # Errors
/// When the message is not back within [`SETTLE_DEADLINE`]; a connection that is lost and restored
/// meanwhile is no error.
///
/// # Cancel safety
/// Safe: the inbox goes away with the future.
pub async fn settled(client: &Client) -> Result<(), SettleError> {
    // Long enough to be rare, short enough to leave several tries: the message is lost when the
    // connection is.
    const RESEND: Duration = Duration::from_millis(500);
    let deadline = Instant::now() + SETTLE_DEADLINE;
    let attempt = async {
        let inbox = client.new_inbox();
        let mut echo = client
            .subscribe(inbox.clone())
            .await
            .map_err(|_closed| SettleError::Closed)?;
        loop {
            client
                .publish(inbox.clone(), Bytes::new())
                .await
                .map_err(|_closed| SettleError::Closed)?;
            tokio::select! {
                message = echo.next() => return message.map(drop).ok_or(SettleError::Closed),
                () = sleep_until(Instant::now() + RESEND) => {}
            }
        }
    };
    timeout_at(deadline, attempt)
        .await
        .unwrap_or(Err(SettleError::Deadline))
}

async fn read(what: &'static str, path: &Path) -> Result<String, ConnectError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|source| ConnectError::ReadFile {
            what,
            path: path.to_owned(),
            source,
        })
}

/// Options that log in with a credentials file, read anew on every connection: a renewed file holds
/// from the next one on.
async fn with_credentials(path: &Path) -> Result<async_nats::ConnectOptions, ConnectError> {
    let text = read("credentials file", path).await?;
    credentials(&text, b"").map_err(|source| ConnectError::BadCredentials {
        path: path.to_owned(),
        source,
    })?;
    let path = path.to_owned();
    Ok(async_nats::ConnectOptions::with_auth_callback(
        move |nonce| {
            // The file is small, and a connection is not opened often.
            let read = std::fs::read_to_string(&path).and_then(|text| credentials(&text, &nonce));
            std::future::ready(read.map_err(async_nats::AuthError::new))
        },
    ))
}

/// The login of a credentials file for a server that sent this nonce.
pub(super) fn credentials(text: &str, nonce: &[u8]) -> io::Result<async_nats::Auth> {
    let section = |title: &str| {
        let mut lines = text.lines().map(str::trim);
        lines.find(|line| line.starts_with("---") && line.contains(title))?;
        lines.find(|line| !line.is_empty() && !line.starts_with('-'))
    };
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let jwt = section("BEGIN NATS USER JWT").ok_or_else(|| invalid("it has no user JWT"))?;
    let seed = section("BEGIN USER NKEY SEED").ok_or_else(|| invalid("it has no seed"))?;
    let sign = || nkeys::KeyPair::from_seed(seed)?.sign(nonce);
    let signature = sign().map_err(|error| invalid(&error.to_string()))?;
    let mut auth = async_nats::Auth::new();
    auth.jwt = Some(jwt.to_owned());
    auth.signature = Some(signature);
    Ok(auth)
}

fn connect_error(
    url: String,
    nkey: Option<&Nkey>,
    error: &async_nats::ConnectError,
) -> ConnectError {
    let source = ConnectCause(error.to_string());
    // A failed handshake comes as an I/O error that wraps one of rustls.
    let handshake = std::error::Error::source(error)
        .and_then(|inner| inner.downcast_ref::<io::Error>())
        .and_then(io::Error::get_ref)
        .is_some_and(|inner| inner.is::<async_nats::rustls::Error>());
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => ConnectError::Unauthorized { url, source },
        ConnectErrorKind::Authentication => match nkey {
            Some(nkey) => ConnectError::BadNkey {
                from: nkey.origin(),
            },
            None => ConnectError::Unauthorized { url, source },
        },
        ConnectErrorKind::Tls => ConnectError::Tls { url, source },
        ConnectErrorKind::Io if handshake => ConnectError::Tls { url, source },
        _ => ConnectError::Unreachable { url, source },
    }
}

/// At once, then 25 ms doubling to 2 s. A random quarter more or less keeps the connections of one
/// host, and the hosts of one fleet, from coming back in step.
pub(super) fn reconnect_delay(attempt: usize) -> Duration {
    let Some(doublings) = attempt.checked_sub(2) else {
        return Duration::ZERO;
    };
    let factor = u32::try_from(doublings)
        .ok()
        .and_then(|power| 2_u32.checked_pow(power))
        .unwrap_or(u32::MAX);
    RECONNECT_DELAY_FIRST
        .saturating_mul(factor)
        .min(RECONNECT_DELAY_MAX)
        .mul_f64(rand::random_range(0.75..1.25))
}

/// `again` is a connection after the first one, which its owner reports.
fn log_event(connection: &str, event: &Event, again: bool) {
    match event {
        Event::Connected if again => tracing::info!(connection, "connected to NATS again"),
        Event::Connected => tracing::debug!(connection, "connected to NATS"),
        Event::Disconnected => {
            tracing::warn!(connection, "lost the connection to NATS, reconnecting")
        }
        Event::LameDuckMode => tracing::warn!(connection, "the NATS server is about to shut down"),
        Event::SlowConsumer(subscription) => {
            tracing::warn!(
                connection,
                subscription,
                "a subscription was read too slowly, messages were dropped"
            );
        }
        Event::ServerError(ServerError::AuthorizationViolation) => {
            tracing::error!(connection, "NATS refuses the login");
        }
        Event::ServerError(error) => tracing::error!(connection, %error, "NATS reports an error"),
        // One for each failed attempt to reconnect: the loss itself was logged above.
        Event::ClientError(error) => tracing::debug!(connection, %error, "NATS client"),
        Event::Draining | Event::Closed => tracing::debug!(connection, %event, "NATS client"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_in_the_debug_output() {
        let options = ConnectOptions {
            nkey: Some(Nkey::Seed("SUs3cret".into())),
            ..ConnectOptions::to("nats://ann:s3cret@host")
        };
        assert!(!format!("{options:?}").contains("s3cret"), "{options:?}");
    }

    #[test]
    fn a_seed_is_distinguished_from_a_path() {
        assert!(matches!(Nkey::from("keys/SU.nk"), Nkey::File(_)));
        assert!(matches!(
            Nkey::from(format!("SU{}", "A".repeat(56)).as_str()),
            Nkey::Seed(_)
        ));
    }

    #[test]
    fn delays_double_up_to_their_bound() {
        assert_eq!(reconnect_delay(0), Duration::ZERO);
        assert_eq!(reconnect_delay(1), Duration::ZERO);
        let first = reconnect_delay(2);
        assert!(
            first >= Duration::from_millis(18) && first < Duration::from_millis(32),
            "{first:?}"
        );
        for attempt in [9, 10, 40, usize::MAX] {
            let delay = reconnect_delay(attempt);
            assert!(
                delay >= RECONNECT_DELAY_MAX.mul_f64(0.75)
                    && delay <= RECONNECT_DELAY_MAX.mul_f64(1.25),
                "{delay:?}"
            );
        }
    }
}
