//! TLS of the gateway: certificates from files, which are read again when they change, and connections
//! that begin with a handshake.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answer::{Refusal, to_json};
use super::auth::Certificate;
use super::connection::LINGER;
use super::places::Place;
use super::watched::Seen;
use crate::manifest::{ClientCertificate, TlsSpec};
use crate::telemetry;

/// Time for a handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The first byte of a handshake.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Bytes and time that are discarded of a request that came without TLS, so that its client reads why it is
/// refused.
const PLAIN: u64 = 64 << 10;
const PLAIN_TIME: Duration = Duration::from_millis(500);

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has nothing of what it is for.
    #[error("{} has no {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificate and its key cannot be used.
    #[error("{} and {} cannot be used", certificate.display(), key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The authority of the clients cannot be used.
    #[error("{} cannot be used", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
}

/// Certificates, as they were last read.
pub struct Tls {
    spec: TlsSpec,
    read: RwLock<Read>,
    /// Whether it has a keeper.
    kept: AtomicBool,
}

struct Read {
    config: Arc<ServerConfig>,
    /// The files that were looked at last, whether or not they could be used.
    seen: Seen,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// They cannot be used.
    pub fn load(spec: &TlsSpec) -> Result<Self, TlsError> {
        // First: what changes while it is read is read again.
        let seen = Seen::look(files(spec));
        let config = Arc::new(configure(spec)?);
        Ok(Self {
            spec: spec.clone(),
            read: RwLock::new(Read { config, seen }),
            kept: AtomicBool::new(false),
        })
    }

    fn config(&self) -> Arc<ServerConfig> {
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&read.config)
    }

    /// Reads the files again if they have changed. Those that cannot be used change nothing.
    fn keep(&self) {
        let seen = Seen::look(files(&self.spec));
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        let known = read.seen == seen;
        drop(read);
        if known {
            return;
        }
        let certificate = self.spec.certificate.display();
        let config = match configure(&self.spec) {
            Ok(config) => {
                tracing::info!(target: telemetry::GATEWAY, %certificate, "certificates were read again");
                Some(Arc::new(config))
            }
            Err(error) => {
                let error = with_causes(&error);
                tracing::error!(target: telemetry::GATEWAY, %certificate, error, "changed certificates cannot be used; the last ones are");
                None
            }
        };
        let mut read = self.read.write().unwrap_or_else(PoisonError::into_inner);
        read.seen = seen;
        if let Some(config) = config {
            read.config = config;
        }
    }

    /// Looks at the files for as long as this exists: to be polled by one task. `None` if somebody does.
    pub(super) fn keeper(this: &Arc<Self>) -> Option<impl Future<Output = ()> + Send + use<>> {
        if this.kept.swap(true, Ordering::Relaxed) {
            return None;
        }
        let this = Arc::downgrade(this);
        Some(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(this) = Weak::upgrade(&this) else {
                    return;
                };
                this.keep();
            }
        })
    }
}

/// The scheme of an address with this.
pub(super) fn scheme(tls: Option<&Tls>) -> &'static str {
    if tls.is_some() { "https" } else { "http" }
}

fn files(spec: &TlsSpec) -> impl Iterator<Item = &Path> {
    let own = [&spec.certificate, &spec.key].into_iter();
    own.chain(&spec.client_ca).map(PathBuf::as_path)
}

/// An error with its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += ": ";
        text += &cause.to_string();
        next = cause.source();
    }
    text
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refuse = |source| TlsError::File {
        path: path.to_owned(),
        what,
        source,
    };
    let all = CertificateDer::pem_file_iter(path).map_err(refuse)?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(refuse)?;
    match all.is_empty() {
        true => Err(refuse(rustls::pki_types::pem::Error::NoItemsFound)),
        false => Ok(all),
    }
}

fn configure(spec: &TlsSpec) -> Result<ServerConfig, TlsError> {
    let TlsSpec {
        certificate, key, ..
    } = spec;
    let chain = certificates(certificate, "certificate")?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
        path: key.clone(),
        what: "private key",
        source,
    })?;
    let pair = |source| TlsError::Pair {
        certificate: certificate.clone(),
        key: key.clone(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(pair)?;
    let builder = match (&spec.client_ca, spec.client) {
        (None, _) | (_, ClientCertificate::None) => builder.with_no_client_auth(),
        (Some(path), client) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path, "certificate of an authority")? {
                roots.add(authority).map_err(pair)?;
            }
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            if client == ClientCertificate::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|source| TlsError::Authority {
                path: path.clone(),
                source,
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, private).map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A connection, with TLS or without.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The beginning of a connection: a handshake, where there is TLS. `None` for one that ends with it.
pub(super) async fn begin(
    tls: Option<&Tls>,
    stream: TcpStream,
    place: &mut Place,
    closing: &mut watch::Receiver<bool>,
) -> Option<Stream> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let Some(tls) = tls else {
        return Some(Stream::Plain(stream));
    };
    let closes = async {
        // A dropped sender closes as well.
        let _ = closing.wait_for(|closing| *closing).await;
        tokio::time::sleep(LINGER).await;
    };
    let activity = Arc::clone(&place.activity);
    let shaken = async {
        let stream = shake_hands(tls, stream).await?;
        if let Stream::Tls(stream) = &stream {
            let (_, connection) = stream.get_ref();
            let first = connection.peer_certificates().and_then(<[_]>::first);
            activity.set_shown(Certificate::read(first.map(AsRef::as_ref)));
        }
        Some(stream)
    };
    tokio::select! {
        begun = timeout(HANDSHAKE, shaken) => begun.ok().flatten(),
        // It is idle until it has made its first request, and so makes room.
        _ = &mut place.evicted => None,
        () = closes => None,
    }
}

async fn shake_hands(tls: &Tls, stream: TcpStream) -> Option<Stream> {
    let mut first = [0];
    let peeked = stream.peek(&mut first).await;
    if peeked.is_ok_and(|length| length > 0) && first[0] != HANDSHAKE_RECORD {
        refuse_plain(stream, first[0]).await;
        return None;
    }
    match TlsAcceptor::from(tls.config()).accept(stream).await {
        Ok(stream) => Some(Stream::Tls(Box::new(stream))),
        Err(error) => {
            tracing::debug!(target: telemetry::GATEWAY, %error, "a handshake failed");
            None
        }
    }
}

/// Tells a client that speaks HTTP without TLS so. All methods and HTTP/2 begin with a capital.
async fn refuse_plain(mut stream: TcpStream, first: u8) {
    if !first.is_ascii_uppercase() {
        return;
    }
    let why = "this address speaks HTTPS";
    let refusal = Refusal::caller(http::StatusCode::BAD_REQUEST, why);
    let body = to_json(&refusal.body());
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let answered = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.shutdown().await?;
        // A socket that is closed with something unread resets its connection.
        let mut rest = stream.take(PLAIN);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = timeout(PLAIN_TIME, answered).await;
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
