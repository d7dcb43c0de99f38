//! A connection to NATS that this project reads and writes itself: what calls, replies, events and the
//! pulls of consumers travel over.
//!
//! One task reads the socket, cuts what came into messages where it lies, and puts each into the
//! queue of its subscription; whoever reads that is woken on the same thread. What is published goes
//! into one buffer, which the task writes once for each turn of the runtime. The task reconnects,
//! subscribes again, and moves to another server before the present one goes.
//!
//! Beside cost there is one more reason for it: any client may publish bytes that are no text. Here
//! that is one message which says that it is [malformed](Malformed), never the end of the connection.

mod connection;
mod driver;
mod login;
mod protocol;
mod state;
mod subscription;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

pub use protocol::{Malformed, Message};
use subscription::Queue;
pub use subscription::Subscription;

use super::connect::{
    ConnectError, ConnectOptions, SETTLE_DEADLINE, SUBSCRIPTION_CAPACITY, SettleError,
};
use super::violations::Violations;
use crate::headers::Headers;
use connection::Dialer;
pub(crate) use state::{Handler, Status};
use state::{Shared, Sink, Tried};

/// Bytes of messages that wait on one subscription of a [`Link`]; beyond it as with
/// [`SUBSCRIPTION_CAPACITY`](super::SUBSCRIPTION_CAPACITY).
pub const SUBSCRIPTION_BYTES: usize = 256 << 20;

/// What waits on a subscription to be read; messages beyond it are dropped, and counted as
/// [lost](Subscription::lost).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    /// Messages.
    pub(crate) messages: usize,
    /// Bytes after which no further message waits.
    pub(crate) bytes: usize,
}

impl Default for Bound {
    fn default() -> Self {
        Self {
            messages: SUBSCRIPTION_CAPACITY,
            bytes: SUBSCRIPTION_BYTES,
        }
    }
}

/// Bytes that wait to be written to the connection of a [`Link`]. Whoever publishes more waits.
///
/// As much as a server holds for a client. A flood of calls is one of refusals, and while those wait for
/// room nobody reads what comes.
pub const OUTPUT_CAPACITY: usize = 64 << 20;

/// Time in which a server that is about to shut down hands over what it had handed out already.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection, shared by its clones; it closes when the last of them and of its subscriptions is
/// dropped.
///
/// # Examples
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use futures_util::StreamExt as _;
/// use wasmbay::nats::ConnectOptions;
///
/// let link = ConnectOptions::to("nats://127.0.0.1:4222").link().await?;
/// let mut greetings = link.subscribe("greet", None)?;
/// link.settled().await?;
/// let greeting = greetings.next().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Link(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    driver: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A message could not be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The subject, or that of replies, cannot be published to.
    #[error("{0:?} is no subject")]
    InvalidSubject(String),
    /// It is larger than the server takes.
    #[error(
        "a message of {size} bytes with its headers is larger than the {limit} that NATS takes"
    )]
    TooLarge {
        /// Bytes of headers and body.
        size: usize,
        /// The server's `max_payload`.
        limit: usize,
    },
    /// The connection is closed.
    #[error("the connection to NATS is closed")]
    Closed,
}

/// A subject cannot be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The subject, or the queue group, is none.
    #[error("{0:?} is no subject")]
    InvalidSubject(String),
    /// The connection is closed.
    #[error("the connection to NATS is closed")]
    Closed,
}

impl ConnectOptions {
    /// Opens a connection for messages. Every server is tried once; a connection that is lost later is
    /// tried for ever again, at first at once, then with delays that double up to two seconds.
    ///
    /// # Errors
    /// See [`ConnectError`]; it names the server and the fix, and never has a password.
    ///
    /// # Cancel safety
    /// Safe: a dropped attempt leaves nothing behind.
    pub async fn link(&self) -> Result<Link, ConnectError> {
        let mut dialer = Dialer::new(self)?;
        let connection = dialer.connect().await?;
        let name = self.name.clone().unwrap_or_else(|| "wasmbay".to_owned());
        let inbox = self.inbox_prefix.clone();
        let inbox = inbox.unwrap_or_else(|| "_INBOX".to_owned());
        let (api, violations) = (self.jetstream_prefix(), self.violations.clone());
        let shared = Arc::new(Shared::new(name, inbox, api, violations));
        shared.resume(&connection.info);
        let driver = driver::drive(Arc::clone(&shared), dialer, connection);
        let driver = tokio::spawn(driver).abort_handle();
        Ok(Link(Arc::new(Handle { shared, driver })))
    }
}

impl Link {
    /// Publishes a message. It is written when the runtime has no other work, together with others.
    ///
    /// Without a connection it waits in memory, and when that is full here.
    ///
    /// # Errors
    /// See [`PublishError`].
    ///
    /// # Cancel safety
    /// A dropped future has either published the message or not begun to.
    pub async fn publish(
        &self,
        subject: &str,
        reply: Option<&str>,
        headers: &Headers,
        payload: &[u8],
    ) -> Result<(), PublishError> {
        let shared = &self.0.shared;
        match shared.publish(subject, reply, headers, payload) {
            Tried::Done => Ok(()),
            Tried::Failed(error) => Err(error),
            // Boxed: else every call would have room for it.
            Tried::Full => Box::pin(shared.publish_later(subject, reply, headers, payload)).await,
        }
    }

    /// Subscribes to a subject, as a member of a queue group if one is given. The server has seen it
    /// when [`settled`](Self::settled) returns.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub fn subscribe(
        &self,
        subject: &str,
        group: Option<&str>,
    ) -> Result<Subscription, SubscribeError> {
        self.subscribe_within(subject, group, Bound::default())
    }

    /// The same, with another bound of what waits to be read.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub(crate) fn subscribe_within(
        &self,
        subject: &str,
        group: Option<&str>,
        bound: Bound,
    ) -> Result<Subscription, SubscribeError> {
        let queue = Arc::new(Queue::new(bound));
        let sink = Sink::Queue(Arc::clone(&queue));
        let sid = self.0.shared.subscribe(subject, group, sink)?;
        Ok(Subscription::new(self.clone(), sid, queue))
    }

    /// Subscribes to a subject; each message is handled by the task that reads it, instead of being
    /// read from the subscription.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub(crate) fn handle(
        &self,
        subject: &str,
        handler: Handler,
    ) -> Result<Subscription, SubscribeError> {
        let sid = self
            .0
            .shared
            .subscribe(subject, None, Sink::Handler(handler))?;
        Ok(Subscription::new(self.clone(), sid, Arc::default()))
    }

    /// Waits until the server has processed everything that this connection sent before. From then on
    /// every message published on that server reaches the connection's subscriptions. In a cluster,
    /// the other servers learn of a subscription a moment later.
    ///
    /// # Errors
    /// The server has not answered within [`SETTLE_DEADLINE`]; a connection that is lost and restored
    /// meanwhile is no error.
    pub async fn settled(&self) -> Result<(), SettleError> {
        let confirmed = self.0.shared.confirm();
        match timeout(SETTLE_DEADLINE, confirmed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SettleError::Closed),
            Err(_) => Err(SettleError::Deadline),
        }
    }

    /// A subject of its own for replies.
    #[must_use]
    pub fn new_inbox(&self) -> String {
        let Shared { inbox, .. } = &*self.0.shared;
        format!("{inbox}.{:032x}", rand::random::<u128>())
    }

    /// What the subjects of JetStream's API begin with.
    #[must_use]
    pub(crate) fn jetstream_api(&self) -> &str {
        &self.0.shared.api
    }

    /// Bytes of headers and body that the server takes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.0.shared.max_payload()
    }

    /// Whether there is a connection at the moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.shared.is_connected()
    }

    /// Waits until there is a connection. What is published without one waits, and is sent when its
    /// caller has long given up.
    ///
    /// # Errors
    /// [`SettleError::Deadline`] when there is none until the deadline, [`SettleError::Closed`] when
    /// it was closed.
    pub(crate) async fn connected(&self, deadline: Option<Instant>) -> Result<(), SettleError> {
        if self.is_connected() {
            return Ok(());
        }
        let mut status = self.0.shared.status();
        let changed = async {
            match status.wait_for(|status| *status != Status::Lost).await {
                Ok(status) if *status == Status::Connected => Ok(()),
                _ => Err(SettleError::Closed),
            }
        };
        match deadline {
            Some(deadline) => timeout_at(deadline, changed)
                .await
                .unwrap_or(Err(SettleError::Deadline)),
            None => changed.await,
        }
    }

    /// The id of the server that it is connected to, or was last.
    #[must_use]
    pub fn server(&self) -> String {
        self.0.shared.server()
    }

    /// The server's words for a subscription of this connection that it refuses.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.0.shared.refused()
    }

    /// What servers refuse to this connection, and to others with the same options.
    #[must_use]
    pub(crate) fn violations(&self) -> &Violations {
        &self.0.shared.violations
    }

    /// Closes the connection at once: what has not been written is lost, and all subscriptions end.
    pub fn close(&self) {
        self.0.shared.close();
        self.0.driver.abort();
    }
}

/// Asks a subject and takes the replies of all that answer, until the time is up. None at once where
/// no subscriber is.
pub(crate) struct Asking {
    replies: Subscription,
    last: Instant,
}

impl Asking {
    /// Sends the question.
    ///
    /// # Errors
    /// The connection is closed.
    pub(crate) async fn new(
        link: &Link,
        subject: &str,
        payload: Bytes,
        time: Duration,
    ) -> Result<Self, PublishError> {
        let last = Instant::now() + time;
        let inbox = link.new_inbox();
        let replies = link.subscribe(&inbox, None);
        let replies = replies.map_err(|_| PublishError::Closed)?;
        let headers = Headers::new();
        link.publish(subject, Some(&inbox), &headers, &payload)
            .await?;
        Ok(Self { replies, last })
    }

    /// The next reply.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        use futures_util::StreamExt as _;
        let next = timeout_at(self.last, self.replies.next()).await;
        next.ok()
            .flatten()
            .filter(|reply| reply.status != Some(async_nats::StatusCode::NO_RESPONDERS))
    }
}
