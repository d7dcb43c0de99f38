//! HTTP to registries: connections, proxies, bodies in both directions, and how long all of it may take.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

/// Upper bound of the time to connect.
const CONNECT: Duration = Duration::from_secs(10);

/// Upper bound of the time to the head of an answer, after the request was sent.
const ANSWER: Duration = Duration::from_secs(60);

/// Upper bound of the time between two pieces of an answer.
const IDLE: Duration = Duration::from_secs(30);

/// Bytes a second at which sending is given up.
const SLOWEST: u64 = 16 << 10;

/// Bytes of a body that are sent at a time.
const PIECE: usize = 64 << 10;

pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Is told how many bytes were moved, of how many.
pub type Moved = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Connections, kept between requests.
pub(super) struct Http(Client<HttpsConnector<Connector>, Sent>);

/// Why there is no body.
#[derive(Debug)]
pub(super) enum ReadError {
    TooLarge,
    Failed(Failure),
}

impl Http {
    pub(super) fn new(tls: Arc<ClientConfig>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let proxies = Arc::new(Matcher::from_env());
        let connector = HttpsConnector::from((Connector { tcp, proxies }, tls));
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    pub(super) async fn exchange(
        &self,
        request: Request<Sent>,
    ) -> Result<Response<Incoming>, Failure> {
        let bytes = request.body().bytes.len() as u64;
        let time = ANSWER + Duration::from_secs(bytes / SLOWEST);
        match timeout(time, self.0.request(request)).await {
            Ok(answered) => Ok(answered?),
            Err(_) => Err(format!("no answer within {} s", time.as_secs()).into()),
        }
    }
}

/// Reads a body of at most `limit` bytes, piece by piece.
pub(super) async fn read<B>(
    mut body: B,
    limit: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), ReadError>
where
    B: Body<Data = Bytes, Error: Into<Failure>> + Unpin,
{
    let too_slow = || ReadError::Failed(format!("nothing for {} s", IDLE.as_secs()).into());
    if body.size_hint().lower() > limit {
        return Err(ReadError::TooLarge);
    }
    let mut left = limit;
    while let Some(frame) = timeout(IDLE, body.frame()).await.map_err(|_| too_slow())? {
        let frame = frame.map_err(|error| ReadError::Failed(error.into()))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let rest = left.checked_sub(data.len() as u64);
        left = rest.ok_or(ReadError::TooLarge)?;
        take(data).map_err(ReadError::Failed)?;
    }
    Ok(())
}

/// Reads a whole body of at most `limit` bytes.
pub(super) async fn read_all(body: Incoming, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    let take = |data: &[u8]| {
        all.extend_from_slice(data);
        Ok(())
    };
    read(body, limit, take).await?;
    Ok(all)
}

/// A body that is sent piece by piece.
#[derive(Clone, Default)]
pub(super) struct Sent {
    bytes: Bytes,
    at: usize,
    moved: Option<Moved>,
}

impl Sent {
    pub(super) fn new(bytes: impl Into<Bytes>, moved: Option<&Moved>) -> Self {
        Self {
            bytes: bytes.into(),
            at: 0,
            moved: moved.cloned(),
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let end = self.bytes.len().min(self.at + PIECE);
        if end == self.at {
            return Poll::Ready(None);
        }
        let piece = self.bytes.slice(self.at..end);
        self.at = end;
        if let Some(moved) = &self.moved {
            moved(end as u64, self.bytes.len() as u64);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.bytes.len() - self.at) as u64)
    }
}

/// Connects directly, or through the proxy that `HTTPS_PROXY` and `NO_PROXY` say.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    proxies: Arc<Matcher>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let is_direct = to.scheme_str() != Some("https") || to.host().is_none_or(is_loopback);
        let proxy = (!is_direct).then(|| self.proxies.intercept(&to)).flatten();
        let mut tcp = self.tcp.clone();
        let Some(proxy) = proxy else {
            return Box::pin(async move { Ok(tcp.call(to).await?) });
        };
        let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
        if let Some(login) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(login.clone());
        }
        let name = proxy.uri().host().unwrap_or_default().to_owned();
        Box::pin(async move {
            let tunnelled = tunnel.call(to).await;
            tunnelled.map_err(|error| format!("the proxy {name}: {error}").into())
        })
    }
}

/// Whether a host, with or without a port, is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default();
    let address = name.parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces, after which nothing comes.
    struct Stalling(Vec<&'static [u8]>);

    impl Body for Stalling {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.pop() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece))))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_given_up() {
        let mut bytes = 0;
        let take = |data: &[u8]| {
            bytes += data.len();
            Ok(())
        };
        let error = read(Stalling(vec![b"ab", b"c"]), 3, take).await;
        let Err(ReadError::Failed(error)) = error else {
            panic!("{error:?}");
        };
        assert_eq!(error.to_string(), "nothing for 30 s");
        assert_eq!(bytes, 3);
        let error = read(Stalling(vec![b"ab", b"c"]), 2, |_| Ok(())).await;
        assert!(matches!(error, Err(ReadError::TooLarge)), "{error:?}");
    }

    #[tokio::test]
    async fn a_body_is_sent_piece_by_piece_and_that_is_told() {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let moved: Moved = {
            let told = Arc::clone(&told);
            Arc::new(move |done, all| told.lock().unwrap().push((done, all)))
        };
        let bytes = vec![7; PIECE + 1];
        let sent = Sent::new(bytes.clone(), Some(&moved));
        assert_eq!(sent.size_hint().exact(), Some(bytes.len() as u64));
        assert_eq!(sent.collect().await.unwrap().to_bytes(), bytes);
        let (piece, all) = (PIECE as u64, bytes.len() as u64);
        assert_eq!(*told.lock().unwrap(), [(piece, all), (all, all)]);
    }

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example",
            "127.0.0.1.example",
            "10.0.0.1:5000",
            "[::2]:1",
            "::1",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
