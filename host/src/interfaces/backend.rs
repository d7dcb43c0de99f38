//! The [`Backend`]: what host interfaces need from outside of the process, in types of their own.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join_all};

use super::blobs::Blobs;
use super::http::{Fetch, Fetched};
use crate::call::{Call, CallError};
use crate::json;
use crate::manifest::{BlobstoreGrant, KeyValueGrant};
use crate::plan::Event;
use crate::shape::{Signature, TypeId};
use crate::value::{Value, streams};

/// The outcome of an operation of a [`Backend`].
pub type Pending<'a, T> = BoxFuture<'a, Result<T, CallError>>;

/// Carries the calls, events and messages of guests to other services, stores and subscribers. Every
/// operation ends by the deadline of its call.
pub trait Backend: Send + Sync {
    /// Calls the function of this subject.
    fn call<'a>(&'a self, subject: &'a str, call: Call) -> Pending<'a, Bytes>;

    /// Calls the function of this subject with values instead of JSON, if that means the same: its callee
    /// is in the process and of the caller's own type. Other calls are given back, as all are unless an
    /// implementation says otherwise.
    fn call_values<'a>(
        &'a self,
        subject: &'a str,
        values: Values<'_>,
        call: Call,
    ) -> Result<Pending<'a, Answer>, (Vec<Value>, Call)> {
        let _ = subject;
        Err((values.arguments, call))
    }

    /// Calls a function among whose parameters or in whose result there are streams or futures. Unless an
    /// implementation says otherwise, all that they give is sent in one piece.
    fn call_streams<'a>(
        &'a self,
        subject: &'a str,
        values: Values<'a>,
        mut call: Call,
    ) -> Pending<'a, Answer> {
        Box::pin(async move {
            call.body = values.whole().await?;
            self.call(subject, call).await.map(Answer::Json)
        })
    }

    /// Which service answers on this subject with a type that a caller of `wanted` cannot read, as words for
    /// the error of a reply that did not decode. Unknown unless an implementation says otherwise.
    fn misfit<'a>(
        &'a self,
        subject: &'a str,
        wanted: &'a Signature,
        deadline: Instant,
    ) -> BoxFuture<'a, Option<String>> {
        let _ = (subject, wanted, deadline);
        Box::pin(std::future::ready(None))
    }

    /// Publishes an event; returns when it is stored, if it has a stream.
    fn publish(&self, event: Event) -> Pending<'_, ()>;

    /// Follows events, from the next one on, or after this sequence of their stream. Unsupported unless an
    /// implementation says otherwise.
    fn follow(&self, source: Source, after: Option<u64>) -> Pending<'_, Box<dyn Feed>> {
        let _ = after;
        unsupported(format!("{} cannot be followed", source.subject))
    }

    /// Opens the bucket of this name and creates it if there is none. Unsupported unless an
    /// implementation says otherwise.
    fn open<'a>(
        &'a self,
        bucket: &'a str,
        granted: KeyValueGrant,
    ) -> Pending<'a, Arc<dyn KeyValue>> {
        let _ = granted;
        unsupported(format!("there is no store for bucket {bucket}"))
    }

    /// Opens the objects of this bucket and creates it if there is none. Unsupported unless an
    /// implementation says otherwise.
    fn blobs<'a>(
        &'a self,
        bucket: &'a str,
        granted: BlobstoreGrant,
    ) -> Pending<'a, Arc<dyn Blobs>> {
        let _ = granted;
        unsupported(format!(
            "there is no store for the objects of bucket {bucket}"
        ))
    }

    /// Publishes a message; returns when it is stored, if it has a stream. The caller checks the
    /// grant of the subject. Unsupported unless an implementation says otherwise.
    fn send(&self, message: OutgoingMessage) -> Pending<'_, ()> {
        unsupported(format!("no message can be sent to {}", message.subject))
    }

    /// Makes an HTTP request that the caller is granted. Unsupported unless an implementation says otherwise: a
    /// guest's requests go the direct way where nothing has to know of them.
    fn fetch(&self, fetch: Fetch) -> Pending<'_, Fetched> {
        unsupported(format!("no HTTP request can be made to {}", fetch.host()))
    }

    /// Publishes a message and returns the replies that came until its deadline: at least one, and
    /// no more than expected. Unsupported unless an implementation says otherwise.
    fn request(&self, message: OutgoingMessage, expected: Expected) -> Pending<'_, Vec<Message>> {
        let _ = expected;
        unsupported(format!("no message can be sent to {}", message.subject))
    }
}

fn unsupported<'a, T>(why: String) -> Pending<'a, T>
where
    T: Send + 'a,
{
    let error = CallError::unsupported(why);
    Box::pin(std::future::ready(Err(error)))
}

/// The arguments of a call as values.
pub struct Values<'a> {
    pub(crate) arguments: Vec<Value>,
    /// The type of the function, as the caller imports it.
    pub(crate) signature: &'a Signature,
    pub(crate) identity: TypeId,
    /// The caller's bounds on what it sends and gets.
    pub(crate) limits: json::Limits,
}

impl Values<'_> {
    /// The arguments as JSON, with all that their streams give.
    pub(crate) async fn whole(self) -> Result<Bytes, CallError> {
        let (bytes, nodes) = (self.limits.bytes, self.limits.nodes);
        let bad = |error: &dyn std::fmt::Display| {
            CallError::bad_arguments(format_args!("arguments: {error}"))
        };
        let whole = self.arguments.into_iter();
        let whole = try_join_all(whole.map(|argument| streams::whole(argument, bytes, nodes)));
        let arguments = whole.await.map_err(|error| bad(&error))?;
        let body = json::encode_arguments(&arguments, self.signature, &self.limits);
        Ok(body.map_err(|error| bad(&error))?.into())
    }
}

/// The result of a call that was made with values.
pub enum Answer {
    /// As a value, if the function has a result.
    Value(Option<Value>),
    /// As JSON, which decides exactly about what is near a limit.
    Json(Bytes),
}

/// An incoming message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The subject that it was published on.
    pub subject: String,
    /// The body: bytes without a type.
    pub body: Vec<u8>,
    /// The subject of replies.
    pub reply_to: Option<String>,
    /// The headers that its sender chose.
    pub headers: Vec<(String, String)>,
}

/// An outgoing message.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    /// The subject that it is published on.
    pub subject: String,
    /// The subject of replies.
    pub reply_to: Option<String>,
    /// The headers that the guest chose.
    pub headers: Vec<(String, String)>,
    /// The stream that stores it; without one it reaches the subscribers of that moment.
    pub stream: Option<Arc<str>>,
    /// The body, the deadline, hops, caller and trace.
    pub call: Call,
}

/// Where events come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Their subject, without a partition.
    pub subject: String,
    /// Whether they have partitions, which streams know by themselves.
    pub partitions: bool,
    /// The stream that stores them.
    pub stream: Option<Arc<str>>,
}

/// Events as they come. It ends when it is dropped.
pub trait Feed: Send {
    /// The next event. An error ends the feed.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<FeedEvent, CallError>>>;

    /// The sequence after which another feed goes on where this one is, if its events are stored.
    fn position(&self) -> Option<u64>;
}

/// An event that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEvent {
    /// Its sequence in the stream, if it is stored.
    pub sequence: Option<u64>,
    /// Its arguments as JSON, as they were published.
    pub body: Bytes,
}

/// The replies that a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Number of replies after which the request ends.
    pub replies: usize,
    /// Upper bound of the bytes of all replies.
    pub bytes: usize,
}

/// An opened bucket. Keys are any text.
pub trait KeyValue: Send + Sync {
    /// The value of a key.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, KeyValueError>>;

    /// Sets the value of a key.
    fn set<'a>(&'a self, key: &'a str, value: Bytes) -> BoxFuture<'a, Result<(), KeyValueError>>;

    /// Removes a key, whether or not it is there.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), KeyValueError>>;

    /// Adds to the number that a key holds as decimal digits, atomically; a key that is not there
    /// counts as 0. Returns the sum.
    fn increment<'a>(
        &'a self,
        key: &'a str,
        delta: u64,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>>;

    /// A page of the keys, from the cursor of an earlier page on. A key that is set while pages are
    /// read may come twice and is not missed.
    fn keys(&self, cursor: Option<u64>) -> BoxFuture<'_, Result<KeyPage, KeyValueError>>;
}

/// Some of the keys of a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<String>,
    /// The position of the next page, if there are more.
    pub cursor: Option<u64>,
}

/// The error of an operation on a bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// The store refuses the operation, and would again.
    #[error("{0}")]
    Refused(String),
    /// The store cannot be reached. Whether the operation was done is not known.
    #[error("{0}")]
    Unreachable(String),
}
