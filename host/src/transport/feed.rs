//! Events as they come, for who follows them: what a stream has stored from a sequence on, or what is
//! published from now on.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::{Config as ConsumerConfig, Stream as Messages};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;

use crate::call::CallError;
use crate::interfaces::{Feed, FeedEvent, Source};
use crate::nats::{Bound, Link, Subscription};
use crate::subject;

/// Events that a feed holds before they are read.
const AHEAD: usize = 16;

/// What waits of events that are not stored. There are many who follow, and one that reads slowly has to begin
/// again.
const WAITING: Bound = Bound {
    messages: 1_024,
    bytes: 1 << 20,
};

/// Time after which JetStream forgets a consumer whose feed has gone.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// How often JetStream says that a consumer is there while nothing comes.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Follows events, those of a stream after this sequence if one is given.
pub(super) async fn follow(
    context: Option<&Context>,
    link: &Link,
    source: Source,
    after: Option<u64>,
) -> Result<Box<dyn Feed>, CallError> {
    let Some(stream) = &source.stream else {
        let subject = match source.partitions {
            true => subject::of_any_partition(&source.subject),
            false => source.subject,
        };
        let messages = link.subscribe_within(&subject, None, WAITING);
        let messages = messages.map_err(CallError::unavailable)?;
        // What is published from now on comes.
        link.settled().await.map_err(CallError::unavailable)?;
        return Ok(Box::new(Published(messages)));
    };
    let context = context.ok_or_else(|| CallError::unavailable("there is no JetStream"))?;
    let opened = open(context, stream, &source.subject, after).await;
    let (messages, last) = opened.map_err(CallError::unavailable)?;
    Ok(Box::new(Stored {
        messages,
        seen: 0,
        position: after.unwrap_or(last),
    }))
}

/// The messages of a new consumer, and the last sequence before them.
async fn open(
    context: &Context,
    stream: &str,
    subject: &str,
    after: Option<u64>,
) -> Result<(Messages, u64), async_nats::Error> {
    let stream = context.get_stream_no_info(stream).await?;
    let config = ConsumerConfig {
        // Whether the wire was ordered when an event was published, the stream knows.
        filter_subjects: vec![subject.to_owned(), subject::of_any_partition(subject)],
        deliver_policy: after.map_or(DeliverPolicy::New, |after| DeliverPolicy::ByStartSequence {
            start_sequence: after.saturating_add(1),
        }),
        ack_policy: AckPolicy::None,
        inactive_threshold: FORGOTTEN,
        memory_storage: true,
        num_replicas: 1,
        ..ConsumerConfig::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let last = consumer.cached_info().delivered.stream_sequence;
    let messages = consumer.stream().max_messages_per_batch(AHEAD);
    let messages = messages.heartbeat(HEARTBEAT).messages().await?;
    Ok((messages, last))
}

/// The events of a stream, in its order.
struct Stored {
    messages: Messages,
    /// Events that have come.
    seen: u64,
    /// The sequence of the last one, or of what was stored before the first.
    position: u64,
}

impl Feed for Stored {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<FeedEvent, CallError>>> {
        Box::pin(async move {
            let message = match self.messages.next().await? {
                Ok(message) => message,
                Err(error) => return Some(Err(CallError::unavailable(error))),
            };
            Some(self.read(&message))
        })
    }

    fn position(&self) -> Option<u64> {
        Some(self.position)
    }
}

impl Stored {
    /// An event, unless one before it was lost on the way: nothing is delivered twice here, so who
    /// follows has to begin again after the last that it got.
    fn read(&mut self, message: &jetstream::Message) -> Result<FeedEvent, CallError> {
        let info = message.info().map_err(CallError::unavailable)?;
        self.seen += 1;
        if info.consumer_sequence != self.seen {
            return Err(CallError::unavailable("events were lost on the way"));
        }
        self.position = info.stream_sequence;
        Ok(FeedEvent {
            sequence: Some(info.stream_sequence),
            body: message.payload.clone(),
        })
    }
}

/// The events of this time.
struct Published(Subscription);

impl Feed for Published {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<FeedEvent, CallError>>> {
        Box::pin(async move {
            loop {
                let lost = self.0.lost();
                if lost > 0 {
                    let why = format!("they are read too slowly: {lost} events were lost");
                    return Some(Err(CallError::unavailable(why)));
                }
                let message = self.0.next().await?;
                if message.malformed.is_none() {
                    return Some(Ok(FeedEvent {
                        sequence: None,
                        body: message.payload,
                    }));
                }
            }
        })
    }

    fn position(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::nats::ConnectOptions;

    /// A server that sends so many events to its first subscription.
    async fn serve(listener: TcpListener, events: usize) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let info = r#"{"server_id":"S","version":"2.12.0","headers":true,"max_payload":1048576}"#;
        let info = format!("INFO {info}\r\n");
        stream.write_all(info.as_bytes()).await.unwrap();
        let (read, mut write) = stream.split();
        let mut lines = BufReader::new(read).lines();
        let mut subscribed = false;
        while let Ok(Some(line)) = lines.next_line().await {
            if line.starts_with("SUB ") && !std::mem::replace(&mut subscribed, true) {
                let all = "MSG a 1 2\r\n{}\r\n".repeat(events);
                write.write_all(all.as_bytes()).await.unwrap();
            }
            if line == "PING" {
                write.write_all(b"PONG\r\n").await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn only_so_much_waits_of_what_is_not_stored() {
        for (events, lost) in [(WAITING.messages, false), (WAITING.messages + 1, true)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let options = ConnectOptions::to(listener.local_addr().unwrap().to_string());
            tokio::spawn(serve(listener, events));
            let link = options.link().await.unwrap();
            let source = Source {
                subject: "a".to_owned(),
                partitions: false,
                stream: None,
            };
            // When this returns, what the server has sent before has come.
            let mut feed = follow(None, &link, source, None).await.unwrap();
            assert_eq!(feed.next().await.unwrap().is_err(), lost, "{events}");
        }
    }
}
