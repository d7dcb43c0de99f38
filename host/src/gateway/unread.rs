//! What a client still sends of a body whose answer is there already.
//!
//! A socket that is closed with something unread in it resets the connection, and the client may
//! lose the answer, or the next request that it sends on a connection which looked kept. So a small
//! rest is read and the connection kept. Beyond that the answer says that the connection ends with
//! it, and what still comes is read and discarded for a while. On HTTP/2 only the stream is at
//! stake: the rest is discarded beside the answer.

use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::EXPECT;
use http::{HeaderMap, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

use super::connection::Tasks;
use super::tls::Stream;

/// Largest rest of a body that is read so that its connection can be kept: less than a new
/// connection costs.
pub(super) const SMALL: u64 = 64 << 10;

/// How long an answer waits for a small rest, which mostly has come with the headers.
const SMALL_WAIT: Duration = Duration::from_millis(100);

/// Bytes that are discarded for a client that reads no answer before it has sent its body: the
/// largest body that a manifest can allow.
const DISCARD: u64 = (*crate::manifest::keys::gateway::BODY.values.range.end()) as u64;

/// Time for which they are.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// Whether a client waits to be asked for its body. It may then send it or not, so that the
/// connection cannot be kept.
pub(super) fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT)
}

/// Deals with the rest of a body before its answer is sent. True if the connection has to end with
/// the answer.
pub(super) async fn settle(
    mut body: Incoming,
    version: Version,
    headers: &HeaderMap,
    tasks: &Weak<Tasks>,
) -> bool {
    if version >= Version::HTTP_2 {
        discard(body, DISCARD, tasks);
        return false;
    }
    if expects_continue(headers) || body.size_hint().lower() > SMALL {
        return true;
    }
    let reading = read_rest(&mut body, SMALL);
    !timeout(SMALL_WAIT, reading).await.unwrap_or(false)
}

/// Deals with the rest of a body that a component has let go of. False if the connection cannot be
/// kept.
pub(super) fn let_go(body: Incoming, version: Version, tasks: &Weak<Tasks>) -> bool {
    let limit = if version >= Version::HTTP_2 {
        DISCARD
    } else if body.size_hint().upper().is_some_and(|rest| rest <= SMALL) {
        SMALL
    } else {
        return false;
    };
    discard(body, limit, tasks);
    true
}

/// Reads and forgets a body beside everything else.
fn discard(mut body: Incoming, limit: u64, tasks: &Weak<Tasks>) {
    // A worker that ends drops what it has outside of its runtime, where nothing can be spawned.
    if let (Some(tasks), Ok(_)) = (tasks.upgrade(), tokio::runtime::Handle::try_current()) {
        tasks.spawn(async move {
            let _ = timeout(DISCARD_TIME, read_rest(&mut body, limit)).await;
        });
    }
}

/// Whether a body ended within the limit, or its connection did.
async fn read_rest(body: &mut Incoming, limit: u64) -> bool {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if read > limit {
            return false;
        }
    }
    true
}

/// A socket that reads on after its last byte was written, so that the client gets that.
pub(super) struct Socket<L> {
    stream: Stream,
    /// Whether the client is known to be sending what is not read.
    lingers: L,
    closing: Option<Closing>,
}

struct Closing {
    left: usize,
    until: Option<Pin<Box<Sleep>>>,
}

impl<L: Fn() -> bool> Socket<L> {
    pub(super) fn new(stream: Stream, lingers: L) -> Self {
        Self {
            stream,
            lingers,
            closing: None,
        }
    }
}

impl<L: Unpin> AsyncRead for Socket<L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<L: Fn() -> bool + Unpin> AsyncWrite for Socket<L> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Ends the writing half. What has arrived is discarded in any case, and what is still to come
    /// where that is known.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let lingers = &this.lingers;
        let closing = this.closing.get_or_insert_with(|| Closing {
            left: usize::try_from(DISCARD).unwrap_or(usize::MAX),
            until: lingers().then(|| Box::pin(sleep(DISCARD_TIME))),
        });
        let mut scratch = [0; 16 << 10];
        while closing.left > 0 {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut this.stream).poll_read(context, &mut buffer);
            match (read, buffer.filled().len()) {
                (Poll::Ready(Ok(())), 0) | (Poll::Ready(Err(_)), _) => break,
                (Poll::Ready(Ok(())), length) => {
                    closing.left = closing.left.saturating_sub(length);
                }
                (Poll::Pending, _) => match &mut closing.until {
                    Some(until) => return until.as_mut().poll(context).map(Ok),
                    None => break,
                },
            }
        }
        Poll::Ready(Ok(()))
    }
}
