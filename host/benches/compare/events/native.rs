//! The native alternative: a pull consumer, a service that publishes, and a bare publisher.

use std::io::BufRead as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::{Message, Subject, jetstream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::native::{Shape, arguments, echo};

/// Events of one request to the server; the next is made when half of them have come.
const BATCH: usize = 500;

/// Events that are not acknowledged yet; what the server takes by itself.
const IN_FLIGHT: i64 = 1_000;

/// What a service answers whose event is stored.
const DONE: Bytes = Bytes::from_static(br#"{"ok":null}"#);

/// Takes events from a consumer that it makes, and acknowledges each. Prints `ready` for each
/// connection that does.
pub(crate) fn pull(
    shape: Shape,
    nats: String,
    stream: String,
    consumer: String,
) -> anyhow::Result<()> {
    shape.run(move || {
        let (nats, stream, consumer) = (nats.clone(), stream.clone(), consumer.clone());
        async move {
            let context = jetstream::new(async_nats::connect(nats).await?);
            let config = pull::Config {
                durable_name: Some(consumer),
                ack_policy: AckPolicy::Explicit,
                max_ack_pending: IN_FLIGHT,
                ..pull::Config::default()
            };
            let consumer = context.create_consumer_on_stream(config, stream).await?;
            let messages = consumer.stream().max_messages_per_batch(BATCH);
            let mut messages = messages.messages().await?;
            crate::ready(None);
            while let Some(message) = messages.next().await {
                let message = message?;
                arguments(&message.payload)?;
                message.ack().await.map_err(anyhow::Error::from_boxed)?;
            }
            Ok(())
        }
    })
}

/// A service whose calls publish an event each, and are answered when the stream has it.
pub(crate) fn service(
    shape: Shape,
    nats: String,
    subject: String,
    to: String,
) -> anyhow::Result<()> {
    shape.run(move || {
        let (nats, subject, to) = (nats.clone(), subject.clone(), to.clone());
        async move {
            let client = async_nats::connect(nats).await?;
            let context = jetstream::new(client.clone());
            let mut messages = client.queue_subscribe(subject, "native".to_owned()).await?;
            wasmbay::nats::settled(&client).await?;
            crate::ready(None);
            if shape == Shape::Tasks {
                while let Some(message) = messages.next().await {
                    let (client, context, to) = (client.clone(), context.clone(), to.clone());
                    tokio::spawn(async move {
                        let reply = publish(&context, &to, message).await?.await?;
                        client.publish(reply, DONE).await?;
                        anyhow::Ok(())
                    });
                }
                return Ok(());
            }
            let mut outstanding = FuturesUnordered::new();
            loop {
                tokio::select! {
                    message = messages.next() => {
                        let message = message.context("the subscription ended")?;
                        outstanding.push(publish(&context, &to, message).await?);
                    }
                    Some(reply) = outstanding.next() => client.publish(reply?, DONE).await?,
                }
            }
        }
    })
}

/// Publishes what a call has for its arguments. What comes back gives the call's reply subject
/// when the stream has it.
async fn publish(
    context: &jetstream::Context,
    to: &str,
    message: Message,
) -> anyhow::Result<impl Future<Output = anyhow::Result<Subject>> + use<>> {
    let Message { payload, reply, .. } = message;
    let reply = reply.context("the message has no reply subject")?;
    let item = String::from_utf8(echo(&payload)?)?;
    let body = format!(r#"{{"item":{item}}}"#);
    let stored = context.publish(to.to_owned(), body.into()).await?;
    Ok(async move {
        stored.await?;
        Ok(reply)
    })
}

/// Publishes and does nothing else: for each line with a window and milliseconds, for that long
/// and with as many acknowledgements outstanding. Answers `published`, the number and the
/// microseconds.
pub(crate) fn publisher(nats: String, to: String, body: String) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let context =
        runtime.block_on(async { anyhow::Ok(jetstream::new(async_nats::connect(nats).await?)) })?;
    let body = Bytes::from(body);
    crate::ready(None);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (window, milliseconds) = line.split_once(' ').context("a window and a time")?;
        let window: usize = window.parse()?;
        let time = Duration::from_millis(milliseconds.parse()?);
        ensure!(window > 0, "no window");
        let (published, taken) = runtime.block_on(async {
            let began = Instant::now();
            let (mut outstanding, mut published) = (FuturesUnordered::new(), 0_u64);
            while began.elapsed() < time {
                while outstanding.len() < window {
                    let stored = context.publish(to.clone(), body.clone()).await?;
                    outstanding.push(stored.into_future());
                }
                if let Some(stored) = outstanding.next().await {
                    stored?;
                    published += 1;
                }
            }
            while let Some(stored) = outstanding.next().await {
                stored?;
                published += 1;
            }
            anyhow::Ok((published, began.elapsed()))
        })?;
        crate::say(format_args!("published {published} {}", taken.as_micros()));
    }
    Ok(())
}
