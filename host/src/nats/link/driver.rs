//! The task of a connection: reads, hands on, writes, and keeps the connection open.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, timeout};

use super::RETIRE_TIMEOUT;
use super::connection::{Connection, DialError, Dialer, READ, read_info};
use super::protocol::{self, Operation};
use super::state::{Handler, Shared, Sink};
use crate::nats::connect::PING_INTERVAL;

/// Pings without a sign of life after which the server counts as gone.
const UNANSWERED: u8 = 2;

/// Time for one server of a system to learn of the subscriptions of another.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes that are read before other tasks of the thread run.
const BURST: usize = 4 * READ;

/// Ends what waits for the connection, however the task ends.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Serves a connection, and those that follow it, until the task is aborted.
pub(super) async fn drive(shared: Arc<Shared>, mut dialer: Dialer, first: Connection) {
    let _closing = Closing(Arc::clone(&shared));
    let mut connection = first;
    let name = &*shared.name;
    tracing::debug!(connection = name, "connected to NATS");
    loop {
        let why = serve(&shared, &mut dialer, &mut connection).await;
        tracing::warn!(
            connection = name,
            %why,
            "lost the connection to NATS, reconnecting"
        );
        shared.lose(connection.unwritten());
        connection = dialer.reconnect(name).await;
        shared.resume(&connection.info);
        tracing::info!(connection = name, "connected to NATS again");
    }
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connection elsewhere with the ids of the subscriptions that it has.
type Elsewhere = (Connection, BTreeSet<u64>);

/// Serves a connection until it is lost. When its server is about to go, another takes its place.
async fn serve(
    shared: &Arc<Shared>,
    dialer: &mut Dialer,
    connection: &mut Connection,
) -> DialError {
    let mut keepalive = tokio::time::interval(PING_INTERVAL);
    keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    keepalive.reset();
    let mut silent = 0;
    let mut burst = 0;
    let mut moving: Option<Pending<Elsewhere>> = None;
    let mut retiring: Option<Pending<()>> = None;
    loop {
        let read = tokio::select! {
            biased;
            read = poll_fn(|context| connection.poll(Some(&**shared), context)) => read,
            _ = keepalive.tick() => {
                if silent >= UNANSWERED {
                    let silence = io::Error::new(io::ErrorKind::TimedOut, "the server is silent");
                    return silence.into();
                }
                silent += 1;
                shared.ping();
                continue;
            }
            (elsewhere, known) = poll_some(&mut moving) => {
                moving = None;
                let (rest, owed) = shared.begin_move(&known, &elsewhere.info);
                let mut old = std::mem::replace(connection, elsewhere);
                old.write(&rest);
                dialer.learn(&connection.info);
                retiring = Some(Box::pin(retire(Arc::clone(shared), old, owed)));
                tracing::info!(connection = &*shared.name, "moved to another NATS server");
                continue;
            }
            () = poll_some(&mut retiring) => {
                retiring = None;
                shared.end_move();
                continue;
            }
        };
        match read {
            Ok(0) => return io::Error::from(io::ErrorKind::UnexpectedEof).into(),
            Ok(bytes) => burst += bytes,
            Err(error) => return error.into(),
        }
        silent = 0;
        let is_lame_duck = connection.info.is_lame_duck;
        if let Err(error) = take(shared, dialer, connection) {
            return error;
        }
        if connection.info.is_lame_duck && !is_lame_duck && moving.is_none() {
            tracing::warn!(
                connection = &*shared.name,
                "the NATS server is about to shut down"
            );
            let (server, dialer) = (connection.info.server_id.clone(), dialer.clone());
            moving = Some(Box::pin(go_elsewhere(Arc::clone(shared), dialer, server)));
        }
        if burst >= BURST {
            burst = 0;
            tokio::task::yield_now().await;
        }
    }
}

async fn poll_some<T>(pending: &mut Option<Pending<T>>) -> T {
    match pending {
        Some(pending) => pending.await,
        None => std::future::pending().await,
    }
}

/// Handles everything that has been read.
fn take(
    shared: &Shared,
    dialer: &mut Dialer,
    connection: &mut Connection,
) -> Result<(), DialError> {
    while let Some(operation) = connection.next()? {
        match operation {
            Operation::Message(sid, message) => shared.deliver(sid, message),
            Operation::Ping => shared.answer_ping(),
            Operation::Pong => shared.pong(),
            Operation::Ok => {}
            Operation::Info(info) => {
                let info = read_info(&info)?;
                shared.set_max_payload(info.max_payload);
                dialer.learn(&info);
                connection.info = info;
            }
            Operation::Error(words) => {
                if !shared.refuse(&words) {
                    let connection = &*shared.name;
                    tracing::error!(connection, error = words, "NATS reports an error");
                }
            }
        }
    }
    Ok(())
}

/// Connects to another server and subscribes there; done when it has seen the subscriptions.
async fn go_elsewhere(shared: Arc<Shared>, mut dialer: Dialer, than: String) -> Elsewhere {
    loop {
        let mut connection = dialer.elsewhere(&shared.name, &than).await;
        let (subscriptions, known) = shared.subscriptions();
        connection.write(&subscriptions);
        connection.write(protocol::PING);
        match timeout(RETIRE_TIMEOUT, pass(&shared, &mut connection, 1)).await {
            Ok(Ok(())) => {
                // Without the permission for it, or a way from there to here, it goes on all the same.
                let _ = timeout(KNOWN_TIMEOUT, until_known(&shared, &mut connection)).await;
                return (connection, known);
            }
            Ok(Err(error)) => {
                tracing::debug!(connection = &*shared.name, %error, "NATS client");
            }
            Err(_) => {}
        }
    }
}

/// Waits until the present server knows the subscriptions of the other one, by a message that follows
/// them on its way: until then a call there would have no responder once they end here.
async fn until_known(shared: &Shared, connection: &mut Connection) -> Result<(), DialError> {
    let (sent, arrived) = tokio::sync::oneshot::channel();
    let sent = std::sync::Mutex::new(Some(sent));
    let handler: Handler = Arc::new(move |_| {
        let sent = sent.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It may not be waited for any more.
        let _ = sent.map(|sent| sent.send(()));
    });
    let inbox = format!("{}.{:032x}", shared.inbox, rand::random::<u128>());
    let Ok(sid) = shared.subscribe(&inbox, None, Sink::Handler(handler)) else {
        return Ok(());
    };
    let _marker = Marker { shared, sid };
    if shared.confirm().await.is_err() {
        return Ok(());
    }
    let mut publication = Vec::new();
    protocol::write_publish(&mut publication, &inbox, None, b"", b"");
    connection.write(&publication);
    tokio::select! {
        _ = arrived => Ok(()),
        ended = pass(shared, connection, u64::MAX) => ended,
    }
}

/// A subscription for a moment.
struct Marker<'a> {
    shared: &'a Shared,
    sid: u64,
}

impl Drop for Marker<'_> {
    fn drop(&mut self) {
        self.shared.forget(self.sid);
    }
}

/// Takes what a connection that was left had handed out.
async fn retire(shared: Arc<Shared>, mut connection: Connection, pongs: u64) {
    // Its server goes anyway.
    let _ = timeout(RETIRE_TIMEOUT, pass(&shared, &mut connection, pongs)).await;
}

/// Hands on what comes before so many PONGs.
async fn pass(
    shared: &Shared,
    connection: &mut Connection,
    mut pongs: u64,
) -> Result<(), DialError> {
    while pongs > 0 {
        match connection.receive().await? {
            Operation::Message(sid, message) => shared.deliver(sid, message),
            Operation::Ping => connection.write(protocol::PONG),
            Operation::Pong => pongs -= 1,
            Operation::Info(info) => connection.info = read_info(&info)?,
            Operation::Error(words) if shared.refuse(&words) => {}
            Operation::Error(words) => return Err(DialError::Reported(words)),
            Operation::Ok => {}
        }
    }
    Ok(())
}
