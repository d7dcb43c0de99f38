//! Requests over one connection: a subject and a body out, the reply back, and nothing left behind.
//!
//! The client's own `request` keeps an entry for every request that is never answered
//! (<https://github.com/nats-io/nats.rs/issues/1617>); once that is mended upstream this module can
//! go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::connect::SUBSCRIPTION_CAPACITY;

/// Requests of one connection that may wait for their reply at a time.
///
/// As many as fit into the inbox's subscription, so that replies which come all at once cannot
/// overflow it.
pub const MAX_OUTSTANDING: usize = SUBSCRIPTION_CAPACITY;

/// Why a request has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Nobody subscribes to the subject: the request was delivered to no one.
    #[error("nobody answers on {subject}")]
    NoResponders {
        /// The subject asked.
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
    /// The connection was closed for good, or the inbox's subscription with it.
    #[error("the connection to NATS is closed")]
    Closed,
}

/// Sends requests over one connection and hands each its reply.
///
/// All replies come over one subscription, restored by the client after a reconnect; a request
/// whose reply fell into the gap waits until its caller gives up. There is one task for each of
/// these, none for each request, and it ends when this is dropped.
///
/// # Examples
/// ```no_run
/// # async fn example(client: async_nats::Client) -> Result<(), wasmbay::nats::RequestError> {
/// use wasmbay::nats::Requests;
///
/// let requests = Requests::new(client).await?;
/// let reply = requests.request("greet".into(), Default::default(), "you".into()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Requests {
    client: Client,
    /// The inbox with its last dot.
    prefix: String,
    waiting: Arc<Mutex<Waiting>>,
    reader: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    closed: bool,
    replies: HashMap<u64, oneshot::Sender<Message>>,
}

impl Requests {
    /// Subscribes an inbox on the connection and starts reading it.
    ///
    /// # Errors
    /// [`RequestError::Closed`] when the connection is.
    pub async fn new(client: Client) -> Result<Self, RequestError> {
        let prefix = format!("{}.", client.new_inbox());
        let inbox = client
            .subscribe(format!("{prefix}*"))
            .await
            .map_err(|_closed| RequestError::Closed)?;
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let reader = tokio::spawn(read_replies(inbox, prefix.len(), Arc::clone(&waiting)));
        Ok(Self {
            client,
            prefix,
            waiting,
            reader,
        })
    }

    /// Sends a request and waits for its reply as long as it takes: the deadline is the caller's.
    ///
    /// While the connection is down the request waits to be sent.
    ///
    /// # Errors
    /// See [`RequestError`]; an error that a service replies with is a reply.
    ///
    /// # Cancel safety
    /// A dropped request leaves nothing behind here; it may have been sent, and a late reply is
    /// ignored.
    ///
    /// # Cost
    /// One allocation for the reply subject, one for the way back, and three short locks.
    pub async fn request(
        &self,
        subject: Subject,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Message, RequestError> {
        let size = wire_size(&headers, payload.len());
        let limit = self.client.max_payload();
        if size > limit {
            return Err(RequestError::TooLarge { size, limit });
        }
        let (mut entry, reply) = self.register()?;
        let reply_subject = self.reply_subject(entry.token);
        let sent = if headers.is_empty() {
            self.client
                .publish_with_reply(subject.clone(), reply_subject, payload)
                .await
        } else {
            self.client
                .publish_with_reply_and_headers(subject.clone(), reply_subject, headers, payload)
                .await
        };
        sent.map_err(|error| match error.kind() {
            // The limit can shrink between the check above and here, by a reconnect to another
            // server.
            PublishErrorKind::MaxPayloadExceeded => RequestError::TooLarge {
                size,
                limit: self.client.max_payload(),
            },
            PublishErrorKind::InvalidSubject => RequestError::InvalidSubject {
                subject: subject.clone(),
            },
            PublishErrorKind::Send => RequestError::Closed,
        })?;
        let message = reply.await.map_err(|_dropped| RequestError::Closed)?;
        entry.answered = true;
        // The body is looked at too, since a responder may send a status line of its own.
        if message.status == Some(StatusCode::NO_RESPONDERS) && message.payload.is_empty() {
            return Err(RequestError::NoResponders { subject });
        }
        Ok(message)
    }

    /// Requests that wait for their reply right now.
    pub fn outstanding(&self) -> usize {
        lock(&self.waiting).replies.len()
    }

    /// The connection that the requests go over.
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn register(&self) -> Result<(Entry<'_>, oneshot::Receiver<Message>), RequestError> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            return Err(RequestError::Closed);
        }
        if waiting.replies.len() >= MAX_OUTSTANDING {
            return Err(RequestError::TooMany {
                limit: MAX_OUTSTANDING,
            });
        }
        let token = waiting.next;
        waiting.next = token.wrapping_add(1);
        waiting.replies.insert(token, sender);
        Ok((
            Entry {
                waiting: &self.waiting,
                token,
                answered: false,
            },
            receiver,
        ))
    }

    fn reply_subject(&self, token: u64) -> Subject {
        let mut subject = String::with_capacity(self.prefix.len() + TOKEN_LEN);
        subject.push_str(&self.prefix);
        push_token(&mut subject, token);
        Subject::from(subject)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Takes a request's entry out again unless its reply did.
struct Entry<'a> {
    waiting: &'a Mutex<Waiting>,
    token: u64,
    answered: bool,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if !self.answered {
            lock(self.waiting).replies.remove(&self.token);
        }
    }
}

async fn read_replies(mut inbox: Subscriber, prefix_len: usize, waiting: Arc<Mutex<Waiting>>) {
    while let Some(message) = inbox.next().await {
        let Some(token) = message.subject.get(prefix_len..).and_then(read_token) else {
            continue;
        };
        let sender = lock(&waiting).replies.remove(&token);
        if let Some(sender) = sender {
            // The request may have been dropped a moment ago, then nobody wants this.
            let _unwanted = sender.send(message);
        }
    }
    let mut waiting = lock(&waiting);
    waiting.closed = true;
    waiting.replies.clear();
}

/// Nothing that can panic runs while the lock is held, so what a poisoned one guards is as good as
/// ever.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that a message takes of the server's `max_payload`: its body, and its headers as they go
/// over the wire, which is `NATS/1.0`, a line `name: value` for each value, and an empty line, all
/// ended by two bytes; nothing without headers.
pub fn wire_size(headers: &HeaderMap, payload_len: usize) -> usize {
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

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// 62^11 is the first power above 2^64.
const TOKEN_LEN: usize = 11;

/// Lowest digit first: nobody reads these, and so no buffer is needed to turn them around.
fn push_token(out: &mut String, mut token: u64) {
    loop {
        let digit = usize::try_from(token % 62).unwrap_or_default();
        out.push(char::from(DIGITS.get(digit).copied().unwrap_or(b'0')));
        token /= 62;
        if token == 0 {
            return;
        }
    }
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
        let mut text = String::new();
        push_token(&mut text, number);
        text
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
