//! Requests over one connection, each with its reply.
//!
//! All replies come over one subscription, and the task that reads the connection hands each to its
//! request.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use async_nats::{HeaderMap, StatusCode, Subject};
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::connect::{SUBSCRIPTION_CAPACITY, SettleError};
use super::link::{Link, Message, PublishError, Subscription};
use super::violations::{Action, Refusal, Refusals};
use super::waiting::{Outcome, Waiting};
use crate::headers::Headers;
use crate::poll;

/// Upper bound of the requests of one connection that wait for their replies.
///
/// No more than the capacity of the inbox's subscription, so that replies which come all at once cannot
/// overflow it.
pub const MAX_OUTSTANDING: usize = 65_536;

const _: () = assert!(MAX_OUTSTANDING <= SUBSCRIPTION_CAPACITY);

/// A request without a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The subject has no subscriber: the request was not delivered.
    #[error("no responders on {subject}")]
    NoResponders {
        /// The subject.
        subject: Subject,
    },
    /// The request is larger than the server takes; it was not sent.
    #[error(
        "a request of {size} bytes with its headers is larger than the {limit} that NATS takes"
    )]
    TooLarge {
        /// Bytes of headers and body on the wire.
        size: usize,
        /// The server's `max_payload`.
        limit: usize,
    },
    /// [`MAX_OUTSTANDING`] requests wait already; this one was not sent.
    #[error("{limit} requests are waiting for their reply already")]
    TooMany {
        /// The bound.
        limit: usize,
    },
    /// The subject cannot be published to; the request was not sent.
    #[error("{subject:?} is no subject")]
    InvalidSubject {
        /// The subject given.
        subject: Subject,
    },
    /// The login may not publish on the subject: the request was not delivered.
    #[error(transparent)]
    Refused(Refusal),
    /// No reply came until the deadline.
    #[error("no reply came in time")]
    Deadline,
    /// The connection was closed for good, or the inbox's subscription with it.
    #[error("the connection to NATS is closed")]
    Closed,
}

/// Sends requests over one connection and hands each its reply.
///
/// All replies come over one subscription, restored after a reconnect; a request whose reply was lost
/// meanwhile waits until its deadline. A task serves the deadlines of all; it ends when this is dropped.
///
/// # Examples
/// ```no_run
/// # async fn example(link: wasmbay::nats::Link) -> Result<(), wasmbay::nats::RequestError> {
/// use wasmbay::nats::Requests;
///
/// let requests = Requests::new(link)?;
/// let reply = requests.request("greet".into(), Default::default(), "you".into()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Requests {
    link: Link,
    /// The inbox with its last dot.
    prefix: String,
    waiting: Arc<Waiting>,
    /// Ends those that get no reply.
    ends: JoinHandle<()>,
    /// Replies come as long as this is there.
    _inbox: Subscription,
}

impl Requests {
    /// Subscribes an inbox on the connection.
    ///
    /// # Errors
    /// [`RequestError::Closed`] when the connection is.
    pub fn new(link: Link) -> Result<Self, RequestError> {
        let prefix = format!("{}.", link.new_inbox());
        let waiting = Arc::new(Waiting::default());
        let (replies, prefix_len) = (Arc::clone(&waiting), prefix.len());
        let handler = Arc::new(move |message| match message {
            Some(message) => take_reply(message, prefix_len, &replies),
            None => replies.close(),
        });
        let inbox = link.handle(&format!("{prefix}*"), handler);
        let refusals = link.violations().next_refusals();
        Ok(Self {
            link,
            prefix,
            ends: tokio::spawn(end_requests(Arc::clone(&waiting), refusals)),
            waiting,
            _inbox: inbox.map_err(|_closed| RequestError::Closed)?,
        })
    }

    /// Sends a request and waits for its reply without a deadline: the caller has one.
    ///
    /// While the connection is down the request waits here, so that it can still be taken back.
    ///
    /// # Errors
    /// See [`RequestError`]; an error that a service replies with is a reply.
    ///
    /// # Cancel safety
    /// A dropped request leaves nothing behind here; it may have been sent, and a late reply is
    /// ignored.
    ///
    /// # Cost
    /// One allocation for the reply subject, and a few short locks.
    pub fn request(
        &self,
        subject: Subject,
        headers: Headers,
        payload: Bytes,
    ) -> impl Future<Output = Result<Message, RequestError>> + Send {
        self.send(subject, headers, payload, None, false)
    }

    /// Sends a request and waits for its reply until the deadline.
    ///
    /// # Errors
    /// As [`Self::request`], and [`RequestError::Deadline`].
    ///
    /// # Cancel safety
    /// As [`Self::request`].
    ///
    /// # Cost
    /// As [`Self::request`]: a timer is armed only for the earliest deadline.
    pub fn request_until(
        &self,
        subject: Subject,
        headers: Headers,
        payload: Bytes,
        deadline: Instant,
    ) -> impl Future<Output = Result<Message, RequestError>> + Send {
        self.send(subject, headers, payload, Some(deadline), false)
    }

    /// As [`Self::request_until`], for what a service answers: that a stream stores the subject's
    /// messages too, and acknowledges them to the requester, is no reply.
    ///
    /// # Errors
    /// As [`Self::request_until`].
    pub fn call_until(
        &self,
        subject: Subject,
        headers: Headers,
        payload: Bytes,
        deadline: Instant,
    ) -> impl Future<Output = Result<Message, RequestError>> + Send {
        self.send(subject, headers, payload, Some(deadline), true)
    }

    async fn send(
        &self,
        subject: Subject,
        headers: Headers,
        payload: Bytes,
        deadline: Option<Instant>,
        is_call: bool,
    ) -> Result<Message, RequestError> {
        let size = headers.size() + payload.len();
        let limit = self.link.max_payload();
        if size > limit {
            return Err(RequestError::TooLarge { size, limit });
        }
        self.link.connected(deadline).await?;
        let token = self.waiting.register(subject.clone(), deadline)?;
        let reply = Reply {
            waiting: &self.waiting,
            token: Some(token),
        };
        let to = self.reply_subject(token, is_call);
        // The connection takes it at once unless it is down or far behind.
        let sent = {
            let sending = self.link.publish(&subject, Some(&to), &headers, &payload);
            let sending = pin!(sending);
            match deadline {
                Some(deadline) => poll::within(deadline, sending).await,
                None => Ok(sending.await),
            }
        };
        match sent {
            Ok(Ok(())) => {}
            Err(_) => return Err(RequestError::Deadline),
            Ok(Err(error)) => {
                return Err(match error {
                    // The limit can shrink between the check above and here, by a reconnect to
                    // another server.
                    PublishError::TooLarge { size, limit } => {
                        RequestError::TooLarge { size, limit }
                    }
                    PublishError::InvalidSubject(_) => RequestError::InvalidSubject { subject },
                    PublishError::Closed => RequestError::Closed,
                });
            }
        }
        let message = reply.await?;
        // The body is looked at too, since a responder may send a status line of its own.
        if message.status == Some(StatusCode::NO_RESPONDERS) && message.payload.is_empty() {
            return Err(RequestError::NoResponders { subject });
        }
        Ok(message)
    }

    /// Number of requests that wait for their replies.
    pub fn outstanding(&self) -> usize {
        self.waiting.len()
    }

    /// The connection.
    pub fn link(&self) -> &Link {
        &self.link
    }

    fn reply_subject(&self, token: u64, is_call: bool) -> String {
        let mut digits = [0; TOKEN_LEN];
        let digits = write_token(&mut digits, token);
        let mut subject =
            String::with_capacity(self.prefix.len() + usize::from(is_call) + digits.len());
        subject.push_str(&self.prefix);
        if is_call {
            subject.push(CALL);
        }
        subject.push_str(digits);
        subject
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.ends.abort();
    }
}

impl From<SettleError> for RequestError {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::Deadline => Self::Deadline,
            SettleError::Closed => Self::Closed,
        }
    }
}

/// The pending reply of one request.
struct Reply<'a> {
    waiting: &'a Waiting,
    /// `None` when the reply was taken.
    token: Option<u64>,
}

impl Future for Reply<'_> {
    type Output = Result<Message, RequestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(token) = self.token else {
            return Poll::Pending;
        };
        let Some(outcome) = self.waiting.poll(token, context.waker()) else {
            return Poll::Pending;
        };
        self.token = None;
        Poll::Ready(match outcome {
            Outcome::Answered(message) => Ok(*message),
            Outcome::Overdue => Err(RequestError::Deadline),
            Outcome::Refused(refusal) => Err(RequestError::Refused(*refusal)),
            Outcome::Closed => Err(RequestError::Closed),
        })
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            self.waiting.forget(token);
        }
    }
}

fn take_reply(message: Message, prefix_len: usize, waiting: &Waiting) {
    let tail = message.subject.get(prefix_len..).unwrap_or_default();
    let (token, is_call) = match tail.strip_prefix(CALL) {
        Some(token) => (token, true),
        None => (tail, false),
    };
    if is_call && is_acknowledgement(&message) {
        return;
    }
    if let Some(token) = read_token(token) {
        waiting.answer(token, message);
    }
}

/// Whether a message is what a stream of an app says when it stores something, or cannot.
pub(crate) fn is_acknowledgement(message: &Message) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Acknowledgement<'a> {
        stream: &'a str,
        #[serde(rename = "seq")]
        _seq: u64,
        #[serde(rename = "domain")]
        _domain: Option<&'a str>,
        #[serde(rename = "duplicate")]
        _duplicate: Option<bool>,
        #[serde(rename = "error")]
        _error: Option<serde::de::IgnoredAny>,
    }
    // Few replies are read for it: the server writes these first.
    let begins = [&b"{\"stream\":\"bay_"[..], b"{\"error\":{"];
    message.headers.is_none()
        && begins
            .iter()
            .any(|start| message.payload.starts_with(start))
        && serde_json::from_slice::<Acknowledgement<'_>>(&message.payload)
            .is_ok_and(|acknowledgement| acknowledgement.stream.starts_with("bay_"))
}

/// Ends the requests whose deadline passes, with one timer for all, at the earliest; and those that the
/// server refuses.
async fn end_requests(waiting: Arc<Waiting>, mut refusals: Refusals) {
    loop {
        let earliest = waiting.earliest();
        let overdue = async {
            match earliest {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = overdue => waiting.expire(Instant::now()),
            () = waiting.earlier() => {}
            refusal = refusals.next() => if refusal.action == Action::Publish {
                waiting.refuse(&refusal);
            },
        }
    }
}

/// Bytes of a message of the client library that count against the server's `max_payload`: its body, and its headers as
/// they are on the wire: `NATS/1.0`, a line `name: value` for each value, and an empty line, each
/// ended by two bytes; none without headers.
pub(crate) fn wire_size(headers: &HeaderMap, payload_len: usize) -> usize {
    if headers.is_empty() {
        return payload_len;
    }
    let lines = headers
        .iter()
        .flat_map(|(name, values)| {
            let name: &str = name.as_ref();
            values
                .iter()
                .map(|value| name.len() + ": ".len() + value.as_str().len() + "\r\n".len())
        })
        .sum::<usize>();
    "NATS/1.0\r\n".len() + lines + "\r\n".len() + payload_len
}

/// Begins the token of a request that is a call; no digit.
const CALL: char = '-';

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// 62^11 is the first power above 2^64.
const TOKEN_LEN: usize = 11;

/// Lowest digit first: the order does not matter to machines, and nothing has to be reversed.
fn write_token(out: &mut [u8; TOKEN_LEN], mut token: u64) -> &str {
    let mut len = 0;
    for place in out.iter_mut() {
        let digit = usize::try_from(token % 62).unwrap_or_default();
        *place = DIGITS.get(digit).copied().unwrap_or(b'0');
        len += 1;
        token /= 62;
        if token == 0 {
            break;
        }
    }
    let digits = out.get(..len).unwrap_or_default();
    // They are all ASCII.
    std::str::from_utf8(digits).unwrap_or_default()
}

fn read_token(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.bytes().rev().try_fold(0_u64, |token, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        token.checked_mul(62)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u64) -> String {
        write_token(&mut [0; TOKEN_LEN], number).to_owned()
    }

    #[test]
    fn tokens_round_trip() {
        for number in [
            0,
            1,
            61,
            62,
            63,
            3843,
            3844,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            assert_eq!(read_token(&token(number)), Some(number));
        }
        assert_eq!(token(0), "0");
        assert_eq!(token(62), "01");
        assert_eq!(token(u64::MAX).len(), TOKEN_LEN);
    }

    #[test]
    fn hostile_tokens_are_no_tokens() {
        for text in [
            "",
            ".",
            "a.b",
            "-1",
            "é",
            "zzzzzzzzzzz",
            "000000000000000000000001",
        ] {
            assert_eq!(read_token(text), None, "{text}");
        }
    }

    #[test]
    fn headers_count_as_the_wire_has_them() {
        let mut headers = HeaderMap::new();
        assert_eq!(wire_size(&headers, 7), 7);
        headers.append("Key", "value");
        headers.append("Key", "other");
        headers.insert("Second", "x");
        let wire = "NATS/1.0\r\nKey: value\r\nKey: other\r\nSecond: x\r\n\r\n";
        assert_eq!(wire_size(&headers, 7), wire.len() + 7);
    }
}
