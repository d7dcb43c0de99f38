//! One connection: HTTP/1.1 or HTTP/2 by its first bytes, with requests until it is closed, idle for
//! too long, or stuck.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::answer::Answer;
use crate::telemetry;

/// Time after which a connection without a running request is closed. It also bounds the arrival of
/// headers.
pub const IDLE: Duration = Duration::from_secs(30);

/// Time beyond its request's timeout within which the client has to read a response.
const WRITE_GRACE: Duration = Duration::from_secs(5);

/// Time within which an idle connection of a closing gateway may bring one more request: the client
/// may have sent it before it could know.
pub const LINGER: Duration = Duration::from_millis(500);

/// Time within which a closing connection has to write its last response.
const CLOSE_TIMEOUT: Duration = WRITE_GRACE;

/// Upper bound of the concurrent requests of one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 128;

/// Silence of the peer of an HTTP/2 connection with requests after which it is pinged.
const PING: Duration = Duration::from_secs(20);

/// The handler of requests behind a connection.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Time from a request's first byte to the last of its answer.
    fn timeout(&self) -> Duration;

    /// Answers a request, with an error too.
    fn answer(
        &self,
        request: http::Request<Incoming>,
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
        // The timer of [`serve`] bounds this and costs nothing for each request; see [`Activity`].
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
    born: Instant,
    running: AtomicU32,
    /// Milliseconds from `born` to the last beginning or end of a request.
    last: AtomicU64,
}

/// One running request of a connection.
pub(crate) struct Running(Arc<Activity>);

impl Activity {
    fn new(now: Instant) -> Self {
        Self {
            born: now,
            running: AtomicU32::new(0),
            last: AtomicU64::new(0),
        }
    }

    pub(crate) fn begin(self: &Arc<Self>, now: Instant) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.touch(now);
        Running(Arc::clone(self))
    }

    fn touch(&self, now: Instant) {
        let since = now.saturating_duration_since(self.born).as_millis();
        self.last
            .store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The time at which the connection is closed if nothing happens until then.
    fn expiry(&self, timeout: Duration) -> Instant {
        let last = self.born + Duration::from_millis(self.last.load(Ordering::Relaxed));
        match self.running.load(Ordering::Relaxed) {
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

/// Serves a connection until it ends.
pub(crate) async fn serve<A: Answers>(
    answers: Arc<A>,
    builder: Arc<Builder<Spawn>>,
    stream: TcpStream,
    mut closing: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let timeout = answers.timeout();
    let activity = Arc::new(Activity::new(Instant::now()));
    let service = service_fn(|request: http::Request<Incoming>| {
        let (answers, activity) = (Arc::clone(&answers), Arc::clone(&activity));
        async move { Ok::<_, Infallible>(answers.answer(request, &activity).await) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut timer = pin!(sleep_until(activity.expiry(timeout)));
    let mut ending = false;
    let mut lingering = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(target: telemetry::GATEWAY, %error, "a connection ended badly");
                }
                return;
            }
            () = timer.as_mut() => {
                let now = Instant::now();
                let expiry = activity.expiry(timeout);
                match (expiry > now, lingering) {
                    // Running requests have their time; an idle connection has lingered.
                    (_, false) if ending => match activity.running.load(Ordering::Relaxed) {
                        0 => return,
                        _ if expiry <= now => return,
                        _ => timer.as_mut().reset(expiry),
                    },
                    (true, false) => timer.as_mut().reset(expiry),
                    (false, _) | (_, true) => {
                        connection.as_mut().graceful_shutdown();
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
