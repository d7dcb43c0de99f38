//! The messages of a stream, a page at a time: how the keys and objects of a service are listed.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt as _;

/// Messages of one page.
pub(super) const PAGE: usize = 1_000;

/// Goes over messages from a sequence on, until the page is full, there are no more or `take` has enough;
/// returns where the next page begins.
pub(super) async fn page(
    stream: &Stream,
    filter_subject: String,
    from: Option<u64>,
    headers_only: bool,
    mut take: impl FnMut(&Message, u64) -> bool,
) -> Result<Option<u64>, async_nats::Error> {
    let config = pull::Config {
        deliver_policy: match from {
            Some(start_sequence @ 1..) => DeliverPolicy::ByStartSequence { start_sequence },
            _ => DeliverPolicy::All,
        },
        ack_policy: AckPolicy::None,
        filter_subject,
        headers_only,
        inactive_threshold: Duration::from_secs(30),
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let (mut left, mut read, mut next) = (consumer.cached_info().num_pending, 0, None);
    let mut wanted = true;
    while wanted && left > 0 && read < PAGE {
        let batch = consumer.fetch().max_messages(PAGE - read).messages();
        let mut batch = batch.await?;
        let before = read;
        while let Some(message) = batch.next().await {
            let message = message?;
            let info = message.info()?;
            read += 1;
            left = info.pending;
            next = Some(info.stream_sequence + 1);
            wanted = wanted && take(&message, info.stream_sequence);
        }
        if read == before {
            break;
        }
    }
    // It would expire by itself.
    let name = &consumer.cached_info().name;
    let _ = stream.delete_consumer(name).await;
    Ok(next.filter(|_| left > 0))
}
