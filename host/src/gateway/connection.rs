//! One connection: HTTP/1.1 or HTTP/2 by its first bytes, with requests until it is closed, idle for
//! too long, or stuck.

use std::convert::Infallible;
use std::fmt::Display;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::CONNECTION;
use http::{HeaderValue, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::{Builder, Connection, UpgradeableConnection};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::answer::{Answer, Refusal};
use super::auth::Certificate;
use super::health;
use super::places::Place;
use super::tls::Stream;
use super::unread::{self, Socket};
use crate::call::Blame;
use crate::poll;
use crate::telemetry;

/// A header's value that says that the connection ends with this answer.
pub(crate) const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// A connection on which no request is running, and none's headers have arrived completely, is
/// closed after this time. Slowly sent headers are bounded by it as well.
pub const IDLE: Duration = Duration::from_secs(30);

/// As [`IDLE`], where all ordinary connections are busy.
const RESERVE_IDLE: Duration = Duration::from_secs(2);

/// How much longer than its request's whole time a response may take to be read by the client.
pub(super) const WRITE_GRACE: Duration = Duration::from_secs(5);

/// Time within which an idle connection of a closing gateway may bring one more request: the client
/// may have sent it before it could know.
pub const LINGER: Duration = Duration::from_millis(500);

/// Time within which a closing connection has to write its last response.
const CLOSE_TIMEOUT: Duration = WRITE_GRACE;

/// Upper bound of the concurrent requests of one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 128;

/// Headers that a request may have.
pub const MAX_HEADERS: usize = 100;

/// How long the peer of an HTTP/2 connection with requests may be silent before it is asked
/// whether it is still there.
const PING: Duration = Duration::from_secs(20);

/// A request, with its body unless that was read.
pub(crate) type Received = http::Request<Option<Incoming>>;

/// What is behind a connection.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Time from a request's first byte to the last of its answer.
    fn timeout(&self) -> Duration;

    /// Where tasks are spawned that go on beside an answer.
    fn tasks(&self) -> &Weak<Tasks>;

    /// Answers a request, whatever becomes of it. Who reads the body to its end takes it away.
    fn answer(
        &self,
        request: &mut Received,
        activity: &Arc<Activity>,
    ) -> impl Future<Output = Answer> + Send;
}

/// The tasks of a worker's gateway: those of HTTP/2 requests, and guests that go on after the head of
/// their response. Dropping it aborts them.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<JoinSet<()>>);

impl Tasks {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Waits until every task has ended, also those that others spawn meanwhile.
    pub(crate) async fn drain(&self) {
        loop {
            let mut tasks =
                std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
            if tasks.is_empty() {
                return;
            }
            while tasks.join_next().await.is_some() {}
        }
    }
}

/// Spawns the tasks of HTTP/2 requests for hyper. Weak, since the tasks hold what holds this.
#[derive(Clone)]
pub(crate) struct Spawn(pub(crate) Weak<Tasks>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.spawn(task);
        }
    }
}

/// The builder of connections, with the limits of the manifest.
pub(crate) fn builder(header: usize, tasks: Weak<Tasks>) -> Builder<Spawn> {
    let mut builder = Builder::new(Spawn(tasks));
    builder
        .http1()
        .max_buf_size(header)
        .max_headers(MAX_HEADERS)
        // Ours costs nothing for each request; see [`Activity`].
        .header_read_timeout(None);
    builder
        .http2()
        .max_header_list_size(u32::try_from(header).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(PING)
        .timer(TokioTimer::new());
    builder
}

/// The running requests of a connection. Read when its timer fires, so that a request costs no timer.
pub(crate) struct Activity {
    /// The other end of the connection.
    pub(crate) peer: IpAddr,
    /// What its handshake has shown of the client, if it began with one.
    shown: OnceLock<Certificate>,
    born: Instant,
    reserve: bool,
    /// Whether it ends with the answer that comes next, although the client is still sending.
    ends: AtomicBool,
    running: AtomicU32,
    /// Milliseconds from `born` to the last beginning or end of a request.
    last: AtomicU64,
    /// What the connection is for when it speaks HTTP no more.
    next: Mutex<Option<BoxFuture<'static, ()>>>,
}

/// One running request of a connection.
pub(crate) struct Running(Arc<Activity>);

impl Activity {
    /// A connection of this peer that begins now; `reserve` is for health checks only.
    pub(super) fn new(peer: IpAddr, now: Instant, reserve: bool) -> Self {
        Self {
            peer: peer.to_canonical(),
            shown: OnceLock::new(),
            born: now,
            reserve,
            ends: AtomicBool::new(reserve),
            running: AtomicU32::new(0),
            last: AtomicU64::new(0),
            next: Mutex::default(),
        }
    }

    /// Notes that the connection has TLS, and what the client has shown.
    pub(super) fn set_shown(&self, certificate: Certificate) {
        // A connection has one handshake.
        let _ = self.shown.set(certificate);
    }

    /// What the client has shown; nothing of a connection without TLS.
    pub(super) fn shown(&self) -> Option<&Certificate> {
        self.shown.get()
    }

    /// Has the connection be for this, once the answer that switches protocols is written. It keeps its place
    /// meanwhile.
    pub(super) fn become_of(&self, next: BoxFuture<'static, ()>) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }

    fn next(&self) -> Option<BoxFuture<'static, ()>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.take()
    }

    pub(crate) fn begin(self: &Arc<Self>, now: Instant) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.touch(now);
        Running(Arc::clone(self))
    }

    /// Something has happened, so that it is not stuck.
    pub(super) fn touch(&self, now: Instant) {
        let since = now.saturating_duration_since(self.born).as_millis();
        self.last
            .store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Has the connection end with the answer that comes next, and what the client still sends
    /// discarded.
    pub(super) fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// Whether the connection is one beyond the bounds.
    pub(super) fn in_reserve(&self) -> bool {
        self.reserve
    }

    /// Since when no request has been running; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.running.load(Ordering::Relaxed) == 0).then(|| self.last())
    }

    fn last(&self) -> Instant {
        self.born + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// When the connection is to be closed, if nothing happens until then.
    fn expiry(&self, timeout: Duration) -> Instant {
        let last = self.last();
        match self.running.load(Ordering::Relaxed) {
            0 if self.reserve => last + RESERVE_IDLE,
            0 => last + IDLE,
            _ => last + timeout + WRITE_GRACE,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        self.0.touch(Instant::now());
    }
}

/// Answers one request, and sees to what is left of its body.
async fn answer<A: Answers>(
    answers: &A,
    request: http::Request<Incoming>,
    activity: &Arc<Activity>,
) -> Answer {
    let version = request.version();
    let mut request = request.map(Some);
    let mut answer = if activity.reserve && !health::is_health(request.uri().path()) {
        let why = "all connections are busy";
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Blame::Host, why).answer()
    } else if request.headers().len() > MAX_HEADERS {
        // On HTTP/1.1 hyper has refused it.
        let why = format!("the request has more than {MAX_HEADERS} headers");
        Refusal::caller(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why).answer()
    } else {
        answers.answer(&mut request, activity).await
    };
    let unread = request.body_mut().take();
    if let Some(body) = unread.filter(|body| !body.is_end_stream()) {
        // Boxed, so that answers to what was read do not carry its state about.
        let settled = unread::settle(body, version, request.headers(), answers.tasks());
        if Box::pin(settled).await {
            activity.end();
        }
    }
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    if version < Version::HTTP_2 && activity.ends() && !switches {
        answer.headers_mut().insert(CONNECTION, CLOSE);
    }
    answer
}

/// Serves a connection until it ends.
pub(crate) async fn serve<A: Answers>(
    answers: Arc<A>,
    builder: Arc<Builder<Spawn>>,
    stream: Stream,
    mut place: Place,
    mut closing: watch::Receiver<bool>,
) {
    let timed = Arc::clone(&answers);
    // Asked for when it counts: a gateway that several apps share gets others.
    let timeout = || timed.timeout();
    let activity = Arc::clone(&place.activity);
    let service = service_fn(|request: http::Request<Incoming>| {
        let (answers, activity) = (Arc::clone(&answers), Arc::clone(&activity));
        async move { Ok::<_, Infallible>(answer(&*answers, request, &activity).await) }
    });
    let lingering = Arc::clone(&place.activity);
    let socket = TokioIo::new(Socket::new(stream, move || lingering.ends()));
    // One that upgrades looks for HTTP/2 in any case.
    if builder.is_http2_available() {
        let mut connection = pin!(builder.serve_connection_with_upgrades(socket, service));
        let shut_down =
            |connection: Pin<&mut _>| UpgradeableConnection::graceful_shutdown(connection);
        drive(
            connection.as_mut(),
            shut_down,
            timeout,
            &mut place,
            &mut closing,
        )
        .await;
    } else {
        let mut connection = pin!(builder.serve_connection(socket, service));
        let shut_down = |connection: Pin<&mut _>| Connection::graceful_shutdown(connection);
        drive(
            connection.as_mut(),
            shut_down,
            timeout,
            &mut place,
            &mut closing,
        )
        .await;
    }
    if let Some(next) = activity.next() {
        next.await;
    }
}

/// Polls a connection until it ends.
async fn drive<C, E>(
    mut connection: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
    timeout: impl Fn() -> Duration,
    place: &mut Place,
    closing: &mut watch::Receiver<bool>,
) where
    C: Future<Output = Result<(), E>>,
    E: Display,
{
    let activity = Arc::clone(&place.activity);
    let mut timer = pin!(sleep_until(activity.expiry(timeout())));
    let mut ending = false;
    let mut lingering = false;
    let mut evicted = false;
    loop {
        tokio::select! {
            biased;
            _ = &mut place.evicted, if !evicted => {
                evicted = true;
                shut_down(connection.as_mut());
                if activity.idle_since().is_some() {
                    // What HTTP/2 says goodbye with is written if there is room for it.
                    let _ = poll::once(&mut connection).await;
                    return;
                }
                (ending, lingering) = (true, false);
                timer.as_mut().reset(Instant::now() + CLOSE_TIMEOUT);
            }
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(target: telemetry::GATEWAY, %error, "a connection ended badly");
                }
                return;
            }
            () = timer.as_mut() => {
                let now = Instant::now();
                let expiry = activity.expiry(timeout());
                match (expiry > now, lingering) {
                    // Running requests have their time; an idle connection has lingered.
                    (_, false) if ending => match activity.running.load(Ordering::Relaxed) {
                        0 => return,
                        _ if expiry <= now => return,
                        _ => timer.as_mut().reset(expiry),
                    },
                    (true, false) => timer.as_mut().reset(expiry),
                    (false, _) | (_, true) => {
                        shut_down(connection.as_mut());
                        (ending, lingering) = (true, false);
                        timer.as_mut().reset(now + CLOSE_TIMEOUT);
                    }
                }
            }
            changed = closing.changed(), if !ending && !lingering => {
                // A dropped sender closes as well.
                let closes = changed.is_err() || *closing.borrow_and_update();
                if closes {
                    lingering = true;
                    timer.as_mut().reset(Instant::now() + LINGER);
                }
            }
        }
    }
}
