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
use crate::nats::{Link, Subscription};
use crate::subject;

/// Events that a feed holds before they are read.
const AHEAD: usize = 16;

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
        let messages = link.subscribe(&subject, None);
        let messages = messages.map_err(CallError::unavailable)?;
        // What is published from now on comes.
        link.settled().await.map_err(CallError::unavailable)?;
        return Ok(Box::new(Published(messages)));
    };
    let context = context.ok_or_else(|| CallError::unavailable("there is no JetStream"))?;
    let opened = open(context, stream, &source.subject, after).await;
    let messages = opened.map_err(CallError::unavailable)?;
    Ok(Box::new(Stored { messages, seen: 0 }))
}

async fn open(
    context: &Context,
    stream: &str,
    subject: &str,
    after: Option<u64>,
) -> Result<Messages, async_nats::Error> {
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
    let messages = consumer.stream().max_messages_per_batch(AHEAD);
    Ok(messages.heartbeat(HEARTBEAT).messages().await?)
}

/// The events of a stream, in its order.
struct Stored {
    messages: Messages,
    /// Events that have come.
    seen: u64,
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
}
