//! Pulling from a JetStream consumer: a host asks for as many events as it has room for, so that what
//! it cannot begin soon stays with the server, for the other hosts.
//!
//! The client library's stream of pulls asks for a fixed number at a time, and an event that waits in a
//! busy host is one that no idle host can get. Here the number is another one each time.

use std::task::Poll;
use std::time::Duration;

use async_nats::StatusCode;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::jetstream::{AckKind, Context};
use futures_util::StreamExt;

use super::consumer::Link;
use crate::headers::Headers;
use crate::nats::{self, Delivered, SETTLE_DEADLINE, Subscription};
use crate::poll;

/// Time for which a pull for events stays with the server. Then it is made again, so that one that
/// got lost costs no more than this.
const PULL: Duration = Duration::from_secs(30);

/// Time between signs of the server that a pull is still there. After twice this without one it is
/// made again.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);

/// Why nothing more comes.
#[derive(Debug, thiserror::Error)]
pub(super) enum PullError {
    /// The consumer or its stream is not there, and nothing brings it back by itself.
    #[error("the consumer is gone: {0}")]
    Gone(String),
    /// Something else; asking again helps.
    #[error("{0}")]
    Ended(String),
}

/// A message that a stream handed out.
pub(super) struct Stored {
    pub(super) message: nats::Message,
    nats: nats::Link,
}

impl Stored {
    /// What the stream says of it.
    pub(super) fn delivered(&self) -> Option<Delivered<'_>> {
        Delivered::parse(self.message.reply.as_ref()?)
    }

    /// Tells the stream what became of it.
    pub(super) async fn acknowledge(&self, kind: AckKind) {
        let Some(to) = &self.message.reply else {
            return;
        };
        let (none, body) = (Headers::new(), bytes::Bytes::from(kind));
        let sent = self.nats.publish(to, None, &none, &body);
        if let Err(error) = sent.await {
            // It is delivered again.
            tracing::debug!(%error, "an acknowledgement could not be sent");
        }
    }
}

/// The pulls of one worker from one consumer.
pub(super) struct Pulls {
    nats: nats::Link,
    /// Where pulls are sent.
    api: String,
    inbox: String,
    arrived: Subscription,
    /// Events that were asked for and have neither come nor been refused.
    asked: usize,
    /// Looks since the server last sent anything.
    silent: u8,
}

impl Pulls {
    /// Finds the consumer, and asks for nothing yet.
    pub(super) async fn open(link: &Link, stream: &str, consumer: &str) -> Result<Self, PullError> {
        let Link { nats, context, .. } = link;
        let context: &Context = context;
        let api = nats.jetstream_api();
        let found = context.get_consumer_from_stream(consumer, stream).await;
        let _: PullConsumer = found.map_err(|error| not_found(&error))?;
        let inbox = nats.new_inbox();
        let arrived = nats.subscribe(&inbox, None);
        Ok(Self {
            nats: nats.clone(),
            api: format!("{api}.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
            inbox,
            arrived: arrived.map_err(|error| PullError::Ended(error.to_string()))?,
            asked: 0,
            silent: 0,
        })
    }

    /// Events that were asked for and have not come.
    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    /// Sees to it that about `room` events are asked for. Pulls cost, so it waits until half of them
    /// have come.
    pub(super) async fn ask(&mut self, room: usize) -> Result<(), PullError> {
        if room == 0 || self.asked > room / 2 {
            return Ok(());
        }
        let batch = room - self.asked;
        if self.asked == 0 {
            self.silent = 0;
        }
        let (expires, heartbeat) = (PULL.as_nanos(), HEARTBEAT.as_nanos());
        let pull =
            format!(r#"{{"batch":{batch},"expires":{expires},"idle_heartbeat":{heartbeat}}}"#);
        let (to, inbox, none) = (&self.api, Some(&*self.inbox), Headers::new());
        let sent = self.nats.publish(to, inbox, &none, pull.as_bytes());
        sent.await
            .map_err(|error| PullError::Ended(error.to_string()))?;
        self.asked += batch;
        Ok(())
    }

    /// The next event.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has taken none.
    pub(super) async fn next(&mut self) -> Result<Stored, PullError> {
        loop {
            let next = self.arrived.next().await;
            if let Some(event) = self.read(next)? {
                return Ok(event);
            }
        }
    }

    /// An event that has arrived already.
    pub(super) fn ready(&mut self) -> Result<Option<Stored>, PullError> {
        while let Poll::Ready(next) = poll::ready(&mut self.arrived) {
            if let Some(event) = self.read(next)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Whether the server has forgotten the pulls. To be asked every [`HEARTBEAT`].
    pub(super) fn is_silent(&mut self) -> bool {
        if self.asked == 0 {
            self.silent = 0;
            return false;
        }
        self.silent += 1;
        self.silent > 2
    }

    /// Takes the pulls back. What the server had handed out until then has arrived afterwards.
    pub(super) async fn close(&mut self) {
        self.asked = 0;
        let ended = tokio::time::timeout(SETTLE_DEADLINE, self.arrived.unsubscribe());
        if !matches!(ended.await, Ok(Ok(()))) {
            tracing::debug!("NATS did not confirm the end of pulling events");
        }
    }

    /// An event, or nothing for a word of the server's.
    fn read(&mut self, next: Option<nats::Message>) -> Result<Option<Stored>, PullError> {
        let Some(message) = next else {
            return Err(PullError::Ended("the connection is closed".to_owned()));
        };
        self.silent = 0;
        // What is stored has a subject to acknowledge it; its publisher may write any status.
        let said = message.status.filter(|_| message.reply.is_none());
        let Some(status) = said.filter(|status| *status != StatusCode::OK) else {
            self.asked = self.asked.saturating_sub(1);
            let nats = self.nats.clone();
            return Ok(Some(Stored { message, nats }));
        };
        if status == StatusCode::IDLE_HEARTBEAT {
            return Ok(None);
        }
        let headers = message.headers.as_ref();
        let why = headers.and_then(Headers::description);
        let why = why.unwrap_or("no reason given");
        if status == StatusCode::NO_RESPONDERS || why == "Consumer Deleted" {
            return Err(PullError::Gone(format!("{status} {why}")));
        }
        // A pull that has ended says how much of it is left.
        let left = headers.and_then(|headers| headers.get("Nats-Pending-Messages"));
        match left.and_then(|left| left.parse::<usize>().ok()) {
            Some(left) => {
                self.asked = self.asked.saturating_sub(left);
                Ok(None)
            }
            None => Err(PullError::Ended(format!("{status} {why}"))),
        }
    }
}

fn not_found(error: &ConsumerError) -> PullError {
    match error.kind() {
        // The server answered: it is not there, or JetStream is not.
        ConsumerErrorKind::JetStream(_) => PullError::Gone(error.to_string()),
        _ => PullError::Ended(error.to_string()),
    }
}

/// How much a worker asks for.
///
/// As many events as can begin at once, and, while events end in the poll that begins them, up to as
/// many as one batch may have: those do not wait here for long. It grows with each such event, and
/// halves with each one that takes longer.
#[derive(Debug, Default)]
pub(super) struct Appetite {
    quick: usize,
}

/// What bounds the events of a consumer that one worker asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Events that may be worked on at a time and are not.
    pub(super) free: usize,
    /// Calls that the service could begin at once.
    pub(super) service: usize,
    /// Workers that ask for events.
    pub(super) workers: usize,
    /// Events that may be unacknowledged.
    pub(super) in_flight: usize,
}

impl Appetite {
    /// An event was handled in its first poll.
    pub(super) fn quick(&mut self) {
        self.quick = self.quick.saturating_add(1);
    }

    /// An event takes longer.
    pub(super) fn slow(&mut self) {
        self.quick /= 2;
    }

    /// The number of events that should be asked for.
    pub(super) fn room(&mut self, bounds: Bounds) -> usize {
        let Bounds {
            free,
            service,
            workers,
            in_flight,
        } = bounds;
        if free == 0 {
            return 0;
        }
        let workers = workers.max(1);
        let most = in_flight.div_ceil(workers).max(1);
        self.quick = self.quick.min(most);
        // Where calls take every turn, one event waits among them: it gets its turn, and the others
        // stay for hosts that are less busy.
        let begin = free.min(service.max(1)).div_ceil(workers);
        begin.max(self.quick).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Bounds = Bounds {
        free: 64,
        service: 64,
        workers: 2,
        in_flight: 256,
    };

    #[test]
    fn a_worker_asks_for_its_share_of_what_can_begin() {
        let mut appetite = Appetite::default();
        assert_eq!(appetite.room(IDLE), 32);
        assert_eq!(appetite.room(Bounds { free: 3, ..IDLE }), 2);
        assert_eq!(appetite.room(Bounds { free: 0, ..IDLE }), 0);
        let few = Bounds {
            in_flight: 1,
            ..IDLE
        };
        assert_eq!(appetite.room(few), 1);
    }

    #[test]
    fn one_event_waits_where_calls_take_every_turn() {
        let busy = Bounds { service: 0, ..IDLE };
        assert_eq!(Appetite::default().room(busy), 1);
    }

    #[test]
    fn quick_events_come_in_batches_until_one_is_not() {
        let mut appetite = Appetite::default();
        for _ in 0..1_000 {
            appetite.quick();
        }
        assert_eq!(appetite.room(IDLE), 128);
        assert_eq!(appetite.room(Bounds { free: 0, ..IDLE }), 0);
        appetite.slow();
        assert_eq!(appetite.room(IDLE), 64);
        for _ in 0..7 {
            appetite.slow();
        }
        assert_eq!(appetite.room(Bounds { free: 1, ..IDLE }), 1);
    }
}
