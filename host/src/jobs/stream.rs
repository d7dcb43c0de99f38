//! The stream of an app's jobs, and its consumers.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config as ConsumerConfig;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{Context, Message};
use futures_util::StreamExt as _;

use super::ACK_WAIT;
use super::store::{Definition, Store};
use crate::events::stream::{StoreError, find};
use crate::manifest::App;
use crate::subject;

/// The consumer of what says that a job is due. No job's name begins with a `_`.
const DUE: &str = "_due";

/// Bytes that are set aside for each run that is kept.
const RUN: u64 = 32 << 10;

/// Time for which a host waits for a message before it asks again.
const ASK: Duration = Duration::from_secs(20);

/// Creates what an app's jobs need, or brings it up to date. Jobs that are not in the manifest any more are not
/// due any more; what they ran is kept as long as it was to be.
pub(crate) async fn provision(context: &Context, app: &App) -> Result<(), StoreError> {
    let name = subject::job_stream(&app.name);
    if app.jobs().next().is_none() {
        let found = find(context, &name).await;
        return match found.map_err(StoreError::of("stream", &name))? {
            Some(_) => retire(context, app).await,
            None => Ok(()),
        };
    }
    let runs = app.jobs().map(|(_, _, job)| u64::from(job.keep.runs) + 64);
    let size = runs.sum::<u64>().saturating_mul(RUN);
    let config = Config {
        name: name.clone(),
        description: Some(format!("jobs of {}", app.name)),
        subjects: subject::stored_jobs(&app.name),
        // The next state of a run takes the place of the last one.
        max_messages_per_subject: 1,
        // The server schedules nothing on a stream that refuses what is new.
        discard: DiscardPolicy::Old,
        max_bytes: i64::try_from(size).unwrap_or(i64::MAX),
        num_replicas: app.replicas().into(),
        allow_message_ttl: true,
        allow_message_schedules: true,
        ..Config::default()
    };
    let stream = context.create_or_update_stream(config).await;
    let stream = stream.map_err(StoreError::of("stream", &name))?;
    // An older server leaves out what it does not know.
    if !stream.config.allow_message_schedules {
        let why = "jobs need nats-server 2.12 or later, which hands out messages at a time";
        return Err(StoreError::of("stream", &name)(why));
    }
    retire(context, app).await?;
    consumers(context, app).await
}

/// Creates what is missing of it, and leaves what is there as it is.
pub(crate) async fn restore(context: &Context, app: &App) -> Result<(), StoreError> {
    if app.jobs().next().is_none() {
        return Ok(());
    }
    let name = subject::job_stream(&app.name);
    let found = find(context, &name).await;
    if found.map_err(StoreError::of("stream", &name))?.is_none() {
        tracing::warn!(name, "a stream is lost, and created again without its runs");
        return provision(context, app).await;
    }
    consumers(context, app).await
}

async fn consumers(context: &Context, app: &App) -> Result<(), StoreError> {
    let own = app.jobs().map(|(name, ..)| {
        let subjects = subject::open_job(&app.name, name, "*");
        (name.clone(), subjects, format!("open runs of {name}"))
    });
    let due = subject::job_due(&app.name, "*");
    let due = (DUE.to_owned(), due, "jobs that are due".to_owned());
    for (name, filter_subject, what) in own.chain([due]) {
        let config = ConsumerConfig {
            durable_name: Some(name.clone()),
            description: Some(format!("{what} of {}", app.name)),
            filter_subject,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            ..ConsumerConfig::default()
        };
        let stream = subject::job_stream(&app.name);
        let made: Result<PullConsumer, _> = context.create_consumer_on_stream(config, stream).await;
        made.map_err(StoreError::of("consumer", &name))?;
    }
    Ok(())
}

/// Forgets the jobs that are not in the manifest any more.
async fn retire(context: &Context, app: &App) -> Result<(), StoreError> {
    let store = Store::new(context.clone(), &app.name);
    let failed = |error| StoreError::of("stream", &subject::job_stream(&app.name))(error);
    let known = store.all::<Definition>(&subject::job(&app.name, "*")).await;
    let known = known.map_err(failed)?;
    let present: BTreeSet<_> = app.jobs().map(|(name, ..)| name.as_str()).collect();
    for (subject, _) in &known {
        let Some(name) = subject::of_job(subject).filter(|name| !present.contains(name)) else {
            continue;
        };
        tracing::info!(
            app = app.name,
            job = name,
            "a job is not in the manifest any more"
        );
        let gone = [
            subject::job_schedule(&app.name, name),
            subject::job_due(&app.name, name),
            subject::open_job(&app.name, name, "*"),
            // Last, so that it is found again if anything fails before.
            subject::job(&app.name, name),
        ];
        for subjects in gone {
            store.purge(&subjects).await.map_err(failed)?;
        }
        let stream = subject::job_stream(&app.name);
        if let Err(error) = context.delete_consumer_from_stream(name, stream).await {
            tracing::debug!(job = name, %error, "a consumer was not deleted");
        }
    }
    Ok(())
}

/// The next message that says that a job is due, if there is one within some time.
pub(super) async fn next_due(store: &Store) -> Result<Option<Message>, async_nats::Error> {
    next(store, DUE).await
}

/// The next open run of a job, if there is one within some time.
pub(super) async fn next_open(
    store: &Store,
    job: &str,
) -> Result<Option<Message>, async_nats::Error> {
    next(store, job).await
}

async fn next(store: &Store, consumer: &str) -> Result<Option<Message>, async_nats::Error> {
    let stream = subject::job_stream(&store.app);
    let consumer: PullConsumer = store
        .context
        .get_consumer_from_stream(consumer, stream)
        .await?;
    // One at a time, so that nothing waits at a host that is busy.
    let batch = consumer.batch().max_messages(1).expires(ASK);
    let mut batch = batch.messages().await?;
    batch.next().await.transpose()
}
