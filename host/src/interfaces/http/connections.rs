//! The connections of one service's outgoing HTTP: bounded for each destination and for all together,
//! and used again.
//!
//! A request takes a place at its destination and one of the service's, waits for them if there is
//! none, and keeps both until its response's body is read or dropped. So connections that work are as
//! many as places, and as many again can be idle.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use wasmtime_wasi::runtime::AbortOnDropJoinHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::tls;

/// Requests of one service that are under way, to all destinations.
pub(crate) const MAX_REQUESTS: usize = 256;

/// Those among them to one host and port.
pub(crate) const MAX_REQUESTS_TO_ONE: usize = 64;

/// Upper bound of the time that a request waits for one of these places.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(5);

/// Upper bound of the time for which a connection waits for its next request. Shorter than what
/// servers usually grant.
const MAX_IDLE: Duration = Duration::from_secs(4);

/// Destinations that are remembered; a service with a pattern of hosts can have any number.
const MAX_DESTINATIONS: usize = 1_024;

/// Bytes that a connection reads ahead, which is also what the headers of a response may have.
const BUFFER: usize = 128 << 10;

/// The bound of all times that a guest sets none for. The deadline of its call ends it before.
const LONG: Duration = Duration::from_secs(600);

/// The connections of one service.
pub(crate) struct Connections {
    places: Arc<Semaphore>,
    idle: Arc<Semaphore>,
    destinations: Mutex<HashMap<Destination, Arc<Known>>>,
    max_wait: Duration,
    max_to_one: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Destination {
    tls: bool,
    /// Host and port.
    authority: String,
}

/// What is kept for a destination.
struct Known {
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    since: Instant,
    connection: Connection,
    _permit: OwnedSemaphorePermit,
}

/// An open connection. Dropping it closes it.
struct Connection {
    sender: SendRequest<WasiBody>,
    _task: AbortOnDropJoinHandle<()>,
    /// Where it was opened: tasks of another runtime's thread would wait for that.
    thread: std::thread::ThreadId,
}

/// A place at the destination and one of the service's.
struct Place {
    known: Arc<Known>,
    /// Where a connection takes a place that becomes idle.
    idle: Arc<Semaphore>,
    _permits: [OwnedSemaphorePermit; 2],
}

/// The times of a request.
struct Times {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self::with(MAX_REQUESTS, MAX_REQUESTS_TO_ONE, MAX_WAIT)
    }

    fn with(max: usize, max_to_one: usize, max_wait: Duration) -> Self {
        Self {
            places: Arc::new(Semaphore::new(max)),
            idle: Arc::new(Semaphore::new(max)),
            destinations: Mutex::default(),
            max_wait,
            max_to_one,
        }
    }

    /// Sends a request. The connection is used again when the response's body has been read.
    pub(super) async fn send(
        &self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<Response<WasiBody>, Error> {
        let destination = Destination::of(request.uri())?;
        let times = Times::of(options.as_ref());
        let place = self.place(&destination).await?;
        let mut request = in_origin_form(request)?;
        while let Some(connection) = place.known.take_idle() {
            request = match exchange(connection, request, &times).await {
                Ok((response, connection)) => {
                    return Ok(answer(response, connection, place, &times));
                }
                Err((_, Some(unsent))) => unsent,
                Err((error, None)) => return Err(error),
            };
        }
        let opened = tokio::time::timeout(times.connect, destination.open()).await;
        let connection = opened.map_err(|_| Error::ConnectionTimeout)??;
        match exchange(connection, request, &times).await {
            Ok((response, connection)) => Ok(answer(response, connection, place, &times)),
            Err((error, _)) => Err(error),
        }
    }

    async fn place(&self, destination: &Destination) -> Result<Place, Error> {
        let known = self.known(destination);
        let permits = async {
            let at_destination = Arc::clone(&known.places).acquire_owned().await;
            let of_service = Arc::clone(&self.places).acquire_owned().await;
            at_destination.ok().zip(of_service.ok())
        };
        match tokio::time::timeout(self.max_wait, permits).await {
            Ok(Some((a, b))) => Ok(Place {
                known,
                idle: Arc::clone(&self.idle),
                _permits: [a, b],
            }),
            _ => Err(Error::ConnectionLimitReached),
        }
    }

    fn known(&self, destination: &Destination) -> Arc<Known> {
        let mut destinations = lock(&self.destinations);
        if let Some(known) = destinations.get(destination) {
            return Arc::clone(known);
        }
        if destinations.len() >= MAX_DESTINATIONS {
            // One that is in use is known to its requests too.
            destinations.retain(|_, known| Arc::strong_count(known) > 1);
        }
        let known = Arc::new(Known {
            places: Arc::new(Semaphore::new(self.max_to_one)),
            idle: Mutex::default(),
        });
        destinations.insert(destination.clone(), Arc::clone(&known));
        known
    }

    /// Closes the connections that have been idle for too long.
    pub(crate) fn close_idle(&self, now: Instant) {
        for known in lock(&self.destinations).values() {
            let fresh = |idle: &Idle| now.saturating_duration_since(idle.since) < MAX_IDLE;
            lock(&known.idle).retain(fresh);
        }
    }
}

impl Known {
    fn take_idle(&self) -> Option<Connection> {
        let thread = std::thread::current().id();
        let now = Instant::now();
        let mut idle = lock(&self.idle);
        idle.retain(|idle| {
            !idle.connection.sender.is_closed()
                && now.saturating_duration_since(idle.since) < MAX_IDLE
        });
        let at = idle
            .iter()
            .rposition(|idle| idle.connection.thread == thread)?;
        Some(idle.swap_remove(at).connection)
    }
}

impl Destination {
    fn of(uri: &Uri) -> Result<Self, Error> {
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            tls,
            authority: format!("{}:{port}", authority.host()),
        })
    }

    async fn open(&self) -> Result<Connection, Error> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .map_err(Error::Connect)?;
        // A request is written at once, and Nagle would have its body wait for an acknowledgement.
        stream.set_nodelay(true).map_err(Error::Connect)?;
        if !self.tls {
            return open_on(stream).await;
        }
        let connector = TlsConnector::from(tls::config()?);
        let stream = connector.connect(self.server_name()?, stream).await;
        open_on(stream.map_err(Error::Tls)?).await
    }

    fn server_name(&self) -> Result<ServerName<'static>, Error> {
        let authority: Authority = self
            .authority
            .parse()
            .map_err(|_| Error::HttpRequestUriInvalid)?;
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let name = ServerName::try_from(host).map_err(|_| Error::HttpRequestUriInvalid)?;
        Ok(name.to_owned())
    }
}

async fn open_on<S>(stream: S) -> Result<Connection, Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await?;
    let task = wasmtime_wasi::runtime::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of outgoing HTTP ended");
        }
    });
    Ok(Connection {
        sender,
        _task: task,
        thread: std::thread::current().id(),
    })
}

/// Sends a request and waits for the head of its response. With an error comes the request, if none
/// of it was sent.
async fn exchange(
    mut connection: Connection,
    request: Request<WasiBody>,
    times: &Times,
) -> Result<(Response<Incoming>, Connection), (Error, Option<Request<WasiBody>>)> {
    if let Err(error) = connection.sender.ready().await {
        return Err((error.into(), Some(request)));
    }
    let response = connection.sender.try_send_request(request);
    match tokio::time::timeout(times.first_byte, response).await {
        Ok(Ok(response)) => Ok((response, connection)),
        Ok(Err(mut error)) => {
            let unsent = error.take_message();
            Err((error.into_error().into(), unsent))
        }
        Err(_) => Err((Error::ConnectionReadTimeout, None)),
    }
}

/// What follows the scheme and the authority: those are for proxies.
fn in_origin_form(mut request: Request<WasiBody>) -> Result<Request<WasiBody>, Error> {
    let root = || PathAndQuery::from_static("/");
    let path = request.uri().path_and_query().cloned().unwrap_or_else(root);
    let uri = Uri::builder().path_and_query(path).build();
    *request.uri_mut() = uri.map_err(|_| Error::HttpRequestUriInvalid)?;
    Ok(request)
}

fn answer(
    response: Response<Incoming>,
    connection: Connection,
    place: Place,
    times: &Times,
) -> Response<WasiBody> {
    // tokio panics when an interval has no length.
    let between = times.between_bytes.max(Duration::from_nanos(1));
    let mut timeout = tokio::time::interval(between);
    timeout.reset();
    response.map(|incoming| {
        let mut body = PooledBody {
            incoming,
            timeout,
            used: Some((connection, place)),
        };
        if body.incoming.is_end_stream() {
            body.give_back();
        }
        body.boxed_unsync()
    })
}

/// The body of a response, whose connection goes back when it ends.
struct PooledBody {
    incoming: Incoming,
    timeout: tokio::time::Interval,
    used: Option<(Connection, Place)>,
}

impl PooledBody {
    fn give_back(&mut self) {
        if let Some((connection, place)) = self.used.take()
            && !connection.sender.is_closed()
            && let Ok(_permit) = Arc::clone(&place.idle).try_acquire_owned()
        {
            lock(&place.known.idle).push(Idle {
                since: Instant::now(),
                connection,
                _permit,
            });
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.timeout.poll_tick(context));
                self.used = None;
                return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
            }
        };
        match &frame {
            Some(Ok(_)) if !self.incoming.is_end_stream() => self.timeout.reset(),
            Some(Ok(_)) | None => self.give_back(),
            Some(Err(_)) => self.used = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Times {
    fn of(options: Option<&RequestOptions>) -> Self {
        let time =
            |of: fn(&RequestOptions) -> Option<Duration>| options.and_then(of).unwrap_or(LONG);
        Self {
            connect: time(|options| options.connect_timeout),
            first_byte: time(|options| options.first_byte_timeout),
            between_bytes: time(|options| options.between_bytes_timeout),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
