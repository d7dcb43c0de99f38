//! The HTTP client of the exporter: one connection, kept between exports.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

/// Upper bound of the time for one export, with its connection.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read. It says which spans were refused, and why.
const MAX_ANSWER: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Client {
    connection: Mutex<Option<SendRequest<Full<Bytes>>>>,
    /// Why the last request had no answer. The exporter says of it only that there was none.
    failure: std::sync::Mutex<Option<String>>,
}

type Answered<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Client {
    fn send_bytes<'s, 'a>(&'s self, request: Request<Bytes>) -> Answered<'a>
    where
        's: 'a,
        Self: 'a,
    {
        Box::pin(async move {
            let uri = request.uri().clone();
            let sent = tokio::time::timeout(TIMEOUT, self.send(request)).await;
            let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}").into()));
            let failure = sent.as_ref().err();
            *self.failure() = failure.map(|error| format!("{uri}: {error}"));
            sent
        })
    }
}

impl Client {
    /// Why the last request had no answer, once.
    pub(crate) fn take_failure(&self) -> Option<String> {
        self.failure().take()
    }

    fn failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut kept = self.connection.lock().await;
        let uri = request.uri().clone();
        let mut request = request.map(Full::new);
        let authority = uri.authority().ok_or("a URL without a host")?;
        let host = HeaderValue::try_from(authority.as_str())?;
        request.headers_mut().insert(HOST, host);
        *request.uri_mut() = uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .parse()?;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => connect(&uri).await?,
        };
        // The collector may have closed one that was kept.
        if connection.ready().await.is_err() {
            connection = connect(&uri).await?;
        }
        let (head, body) = connection.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        *kept = Some(connection);
        Ok(Response::from_parts(head, body))
    }
}

async fn connect(uri: &Uri) -> Result<SendRequest<Full<Bytes>>, HttpError> {
    let is_secure = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or("a URL without a host")?;
    let host = host.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    if !is_secure {
        let (sender, connection) = handshake(TokioIo::new(tcp)).await?;
        tokio::spawn(connection);
        return Ok(sender);
    }
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(tls()?).connect(name, tcp).await?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// With the certificate authorities of the system.
fn tls() -> Result<Arc<ClientConfig>, HttpError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
