//! The stream of runs and the consumers of open ones.

use std::time::Duration;

use async_nats::jetstream::consumer::AckPolicy;
use async_nats::jetstream::consumer::pull::Config as ConsumerConfig;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{Context, consumer::PullConsumer};

use super::ACK_WAIT;
use crate::events::stream::{StoreError, find};
use crate::manifest::App;
use crate::subject;

/// Creates what an app's pipelines need, or brings it up to date. Nothing is deleted: runs of a pipeline that is
/// taken out of a manifest stay until it comes back.
pub(crate) async fn provision(context: &Context, app: &App) -> Result<(), StoreError> {
    if app.runs().next().is_none() {
        return Ok(());
    }
    let name = subject::run_stream(&app.name);
    let config = config(app);
    let stream = context.create_or_update_stream(config).await;
    stream.map_err(StoreError::of("stream", &name))?;
    consumers(context, app).await
}

/// Creates what is missing of it, and leaves what is there as it is.
pub(crate) async fn restore(context: &Context, app: &App) -> Result<(), StoreError> {
    if app.runs().next().is_none() {
        return Ok(());
    }
    let name = subject::run_stream(&app.name);
    let found = find(context, &name).await;
    if found.map_err(StoreError::of("stream", &name))?.is_none() {
        tracing::warn!(name, "a stream is lost, and created again without its runs");
        return provision(context, app).await;
    }
    consumers(context, app).await
}

fn config(app: &App) -> Config {
    let name = subject::run_stream(&app.name);
    let size = app.runs().map(|(_, bounds)| bounds.size);
    let size = size.fold(0, u64::saturating_add);
    Config {
        name,
        description: Some(format!(
            "runs of pipelines and durable functions of {}",
            app.name
        )),
        subjects: subject::stored_runs(&app.name),
        // The next state of a journal takes the place of the last one, whatever room there is.
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        max_bytes: i64::try_from(size).unwrap_or(i64::MAX),
        num_replicas: app.replicas().into(),
        allow_message_ttl: true,
        ..Config::default()
    }
}

async fn consumers(context: &Context, app: &App) -> Result<(), StoreError> {
    let name = subject::run_stream(&app.name);
    for (own, bounds) in app.runs() {
        let config = ConsumerConfig {
            durable_name: Some(own.clone()),
            description: Some(format!("open runs of {own} of {}", app.name)),
            filter_subject: subject::open_run(&app.name, &own, "*"),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: i64::from(bounds.in_flight),
            ..ConsumerConfig::default()
        };
        let made: Result<PullConsumer, _> = context.create_consumer_on_stream(config, &name).await;
        made.map_err(StoreError::of("consumer", &own))?;
    }
    Ok(())
}

/// The open runs of a pipeline, as they are handed to this host.
pub(super) async fn open_runs(
    context: &Context,
    app: &str,
    pipeline: &str,
) -> Result<async_nats::jetstream::consumer::pull::Stream, async_nats::Error> {
    let stream = subject::run_stream(app);
    let consumer: PullConsumer = context.get_consumer_from_stream(pipeline, stream).await?;
    let messages = consumer.stream().max_messages_per_batch(64);
    Ok(messages
        .heartbeat(Duration::from_secs(5))
        .messages()
        .await?)
}
