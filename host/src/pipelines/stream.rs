//! The stream of runs and the consumers of open ones.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::pull::Config as ConsumerConfig;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{Context, consumer::PullConsumer};

use super::ACK_WAIT;
use crate::events::stream::{StoreError, find};
use crate::manifest::App;
use crate::plan::{Pipeline, Step};
use crate::subject;

/// The consumer of what wakes runs at a time. No pipeline's name begins with a `_`.
const TIMERS: &str = "_timers";

/// Time after which an event that a host was handed is handed to another.
const WAKE_WAIT: Duration = Duration::from_secs(30);

/// Events of a pipeline that are looked at, at the same time.
const EVENTS_IN_FLIGHT: i64 = 256;

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
    let config = ConsumerConfig {
        durable_name: Some(TIMERS.to_owned()),
        description: Some(format!("runs of {} that are woken at a time", app.name)),
        filter_subject: subject::timer(&app.name, "*", "*"),
        ack_policy: AckPolicy::Explicit,
        // A server that was killed forgets for how long a timer was refused, and hands it out after this.
        ack_wait: ACK_WAIT,
        // Each run that sleeps has one that is not acknowledged.
        max_ack_pending: -1,
        ..ConsumerConfig::default()
    };
    let made: Result<PullConsumer, _> = context.create_consumer_on_stream(config, &name).await;
    made.map(drop).map_err(StoreError::of("consumer", TIMERS))
}

/// Creates what hands the events to a host that steps of pipelines wait for, whose streams are there.
pub(crate) async fn provision_events(
    context: &Context,
    app: &str,
    pipelines: &[Pipeline],
) -> Result<(), StoreError> {
    for pipeline in pipelines {
        for stream in streams(pipeline) {
            let waits = pipeline.steps.iter().filter_map(Step::wait);
            let own = waits.filter(|wait| wait.stream == stream);
            let subjects: BTreeSet<_> = own
                .flat_map(|wait| {
                    [
                        wait.subject.clone(),
                        subject::of_any_partition(&wait.subject),
                    ]
                })
                .collect();
            let name = consumer_of(&pipeline.name);
            let config = ConsumerConfig {
                durable_name: Some(name.clone()),
                description: Some(format!(
                    "events that runs of {} of {app} wait for",
                    pipeline.name
                )),
                filter_subjects: subjects.into_iter().collect(),
                // A run looks for itself at what came before it waited.
                deliver_policy: DeliverPolicy::New,
                ack_policy: AckPolicy::Explicit,
                ack_wait: WAKE_WAIT,
                max_ack_pending: EVENTS_IN_FLIGHT,
                ..ConsumerConfig::default()
            };
            let made: Result<PullConsumer, _> =
                context.create_consumer_on_stream(config, &stream).await;
            made.map_err(StoreError::of("consumer", &name))?;
        }
    }
    Ok(())
}

/// The streams of the events that steps of a pipeline wait for.
pub(super) fn streams(pipeline: &Pipeline) -> BTreeSet<String> {
    let waits = pipeline.steps.iter().filter_map(Step::wait);
    waits.map(|wait| wait.stream.clone()).collect()
}

/// The consumer of a pipeline of the events that it waits for. No service has a `_` in its name.
fn consumer_of(pipeline: &str) -> String {
    format!("_runs_{pipeline}")
}

type Messages = async_nats::jetstream::consumer::pull::Stream;

/// What wakes runs at a time, as it is handed to this host.
pub(super) async fn timers(context: &Context, app: &str) -> Result<Messages, async_nats::Error> {
    messages(context, &subject::run_stream(app), TIMERS).await
}

/// The events of a stream that a pipeline waits for, as they are handed to this host.
pub(super) async fn events_of(
    context: &Context,
    stream: &str,
    pipeline: &str,
) -> Result<Messages, async_nats::Error> {
    messages(context, stream, &consumer_of(pipeline)).await
}

/// What a stream has of a subject since a time, without a trace of the reader.
pub(super) async fn since(
    context: &Context,
    stream: &str,
    subject: &str,
    since: SystemTime,
) -> Result<PullConsumer, async_nats::Error> {
    let stream = context.get_stream_no_info(stream).await?;
    let config = ConsumerConfig {
        filter_subjects: vec![subject.to_owned(), subject::of_any_partition(subject)],
        deliver_policy: DeliverPolicy::ByStartTime {
            start_time: since.into(),
        },
        ack_policy: AckPolicy::None,
        inactive_threshold: WAKE_WAIT,
        memory_storage: true,
        ..ConsumerConfig::default()
    };
    Ok(stream.create_consumer(config).await?)
}

/// The open runs of a pipeline, as they are handed to this host.
pub(super) async fn open_runs(
    context: &Context,
    app: &str,
    pipeline: &str,
) -> Result<Messages, async_nats::Error> {
    messages(context, &subject::run_stream(app), pipeline).await
}

async fn messages(
    context: &Context,
    stream: &str,
    consumer: &str,
) -> Result<Messages, async_nats::Error> {
    let consumer: PullConsumer = context.get_consumer_from_stream(consumer, stream).await?;
    let messages = consumer.stream().max_messages_per_batch(64);
    Ok(messages
        .heartbeat(Duration::from_secs(5))
        .messages()
        .await?)
}
