//! A set of keys, from an address or a file.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::interfaces::http::tls;
use crate::manifest::JwksSource;

/// Upper bound of the bytes of a set.
const MAX: usize = 256 << 10;

/// Upper bound of the time for it to come.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The bytes of the set.
///
/// # Errors
///
/// Why there are none, in words for the log.
pub(super) async fn fetch(source: &JwksSource) -> Result<Bytes, String> {
    let fetched = async {
        match source {
            JwksSource::File(path) => read(path).await,
            JwksSource::Url(url) => get(&url.parse()?).await,
        }
    };
    match timeout(TIMEOUT, fetched).await {
        Ok(fetched) => fetched.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
    }
}

async fn read(path: &Path) -> Result<Bytes, Failure> {
    let file = tokio::fs::File::open(path).await?;
    let mut bytes = Vec::new();
    let mut limited = file.take(MAX as u64 + 1);
    limited.read_to_end(&mut bytes).await?;
    if bytes.len() > MAX {
        return Err(format!("it has more than {MAX} bytes").into());
    }
    Ok(bytes.into())
}

async fn get(uri: &Uri) -> Result<Bytes, Failure> {
    let authority = uri.authority().ok_or("the address has no host")?;
    let tls = uri.scheme_str() == Some("https");
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = TcpStream::connect(format!("{}:{port}", authority.host())).await?;
    if !tls {
        return exchange(stream, uri).await;
    }
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let name = ServerName::try_from(bare.unwrap_or(host).to_owned())?;
    let connector = TlsConnector::from(tls::config()?);
    exchange(connector.connect(name, stream).await?, uri).await
}

async fn exchange<S>(stream: S, uri: &Uri) -> Result<Bytes, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, host)
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("wasmbay/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())?;
    let answered = async {
        let response = sender.send_request(request).await?;
        // Wherever a redirection leads, the manifest does not say so.
        if response.status() != StatusCode::OK {
            return Err(format!("the answer is {}", response.status()).into());
        }
        let body = Limited::new(response.into_body(), MAX);
        Ok(body.collect().await?.to_bytes())
    };
    let driven = async {
        // It may end before the last of the answer is read.
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        answered = answered => answered,
        () = driven => Err("the connection ended".into()),
    }
}
