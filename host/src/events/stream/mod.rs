//! Streams, consumers and buckets of durable events, created from the plan and updated when it
//! changes.
//!
//! A stream for each durable wire, a consumer for each subscriber (one for each partition, where
//! the wire is ordered), and for the whole app a stream of dead letters and a bucket with the
//! attempts at events that have failed so far. Nothing that holds events is ever deleted here: a
//! wire that is no longer durable leaves its stream, a service that no longer subscribes its
//! consumers.

mod kinds;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config as ConsumerConfig;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info};
use async_nats::jetstream::kv;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, context::CreateStreamErrorKind};
use futures_util::{StreamExt, TryStreamExt};

use crate::manifest::subjects::SubjectPattern;
use crate::manifest::{App, Durable, Provider, StreamSpec, Wire, keys};
use crate::plan::{EventWire, PARTITIONS, Plan};
use crate::subject;

use kinds::{APP, metadata};
pub use kinds::{Stored, stored};
pub(crate) use kinds::{find, publication_of};

/// Upper bound of the ack wait: how long until an event of a crashed host is delivered again. Work
/// that takes longer reports progress.
pub const MAX_ACK_WAIT: Duration = Duration::from_secs(30);

/// Time for an event's acknowledgement beyond its service's timeout.
const MARGIN: Duration = Duration::from_secs(5);

/// Upper bound of the bytes of all dead letters of an app. Beyond it, events that fail for good
/// stay in their stream and are tried again.
pub const DEAD_LETTERS_SIZE: i64 = 256 << 20;

/// Upper bound of the bytes of an app's attempt store.
const ATTEMPTS_SIZE: i64 = 64 << 20;

/// Time for which attempts at an event are kept after the last one: longer than any wait between two.
const ATTEMPTS_AGE: Duration = Duration::from_secs(3 * 86_400);

/// A stream, bucket or consumer could not be created or updated.
#[derive(Debug, thiserror::Error)]
#[error("events cannot be stored: {what} \"{name}\"")]
pub struct StoreError {
    /// `stream`, `bucket` or `consumer`.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// The error of NATS.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl StoreError {
    fn of<E>(what: &'static str, name: &str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let name = name.to_owned();
        move |source| Self {
            what,
            name,
            source: source.into(),
        }
    }
}

/// One of a subscriber's consumers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerName {
    pub(crate) name: String,
    partition: Option<u32>,
}

/// The consumers of one subscriber: one, or one for each partition of an ordered wire.
pub(crate) fn consumers(durable: &Durable, service: &str) -> Vec<ConsumerName> {
    if durable.order_by.is_none() {
        return vec![ConsumerName {
            name: service.to_owned(),
            partition: None,
        }];
    }
    (0..PARTITIONS)
        .map(|partition| ConsumerName {
            name: format!("{service}_{partition}"),
            partition: Some(partition),
        })
        .collect()
}

/// The ack wait of a service: how long an event may be unacknowledged before it is delivered again.
pub(crate) fn ack_wait(timeout: Duration) -> Duration {
    (timeout + MARGIN).min(MAX_ACK_WAIT)
}

/// Creates or updates what the app's durable wires and streams need, and retires streams of
/// interfaces that are not durable any more. Other hosts may run other parts of the app, so only
/// what this plan uses is touched.
///
/// # Errors
///
/// JetStream is not there or refuses.
pub(crate) async fn provision(
    context: &Context,
    manifest: &App,
    plan: &Plan,
) -> Result<(), StoreError> {
    let app = manifest.name.as_str();
    let timeout = |service: &str| {
        let spec = manifest.services.get(service);
        spec.map_or(keys::TIMEOUT.default, |spec| spec.limits.timeout)
    };
    let mut stored = BTreeSet::new();
    for wire in &plan.events {
        let Some(durable) = &wire.spec.durable else {
            continue;
        };
        let stream = create_event_stream(context, app, wire, durable).await?;
        for service in wire.subscribers.keys() {
            let delivery = durable.delivery(service);
            let wanted: Vec<_> = consumers(durable, service)
                .into_iter()
                .map(|ConsumerName { name, partition }| ConsumerConfig {
                    durable_name: Some(name),
                    filter_subjects: subject::consumed(app, service, &wire.interface, partition),
                    ack_wait: ack_wait(timeout(service)),
                    max_ack_pending: match partition {
                        Some(_) => 1,
                        None => i64::from(delivery.in_flight),
                    },
                    ack_policy: AckPolicy::Explicit,
                    ..ConsumerConfig::default()
                })
                .collect();
            update_consumers(context, &stream, service, wanted).await?;
        }
        stored.insert(subject::stream(app, &wire.interface));
    }
    for spec in &manifest.streams {
        create_message_stream(context, manifest, spec).await?;
        stored.insert(spec.stream.clone());
    }
    if !stored.is_empty() {
        let replicas = replicas(manifest);
        create_dead_letter_stream(context, app, replicas).await?;
        create_attempt_store(context, app, replicas).await?;
    }
    let called = plan.required.iter().map(|function| &function.interface);
    let used: BTreeSet<_> = called
        .chain(plan.serves.values().flat_map(BTreeMap::keys))
        .chain(plan.events.iter().map(|wire| &wire.interface))
        .map(|interface| subject::stream(app, interface))
        .filter(|stream| !stored.contains(stream))
        .collect();
    let core = core_subscriptions(manifest);
    if !used.is_empty() || !core.is_empty() {
        let of_messages = subject::message_stream(app, "");
        let unused = |config: &Config| {
            let subscribed = |subject: &String| {
                let subject = subject.parse::<SubjectPattern>();
                subject.is_ok_and(|subject| core.iter().any(|core| core.overlaps(&subject)))
            };
            let unlisted = config.name.starts_with(&of_messages) && !stored.contains(&config.name);
            used.contains(&config.name) || unlisted && config.subjects.iter().any(subscribed)
        };
        retire(context, unused).await;
    }
    Ok(())
}

/// The subjects that services subscribe to and no stream stores.
fn core_subscriptions(manifest: &App) -> Vec<&SubjectPattern> {
    let services = manifest.services.values();
    services
        .flat_map(|spec| {
            let granted = spec.grants.subscribe.iter();
            granted.filter(|pattern| spec.grants.stream_behind(pattern).is_none())
        })
        .collect()
}

/// Creates or updates the stream of a manifest's `[stream.NAME]` and its subscribers' consumers.
async fn create_message_stream(
    context: &Context,
    manifest: &App,
    spec: &StreamSpec,
) -> Result<(), StoreError> {
    let (app, durable) = (manifest.name.as_str(), &spec.durable);
    let subjects = spec.subjects.iter().map(SubjectPattern::as_str);
    let config = Config {
        description: Some(format!("messages of {} in {app}", spec.name)),
        subjects: subjects
            .flat_map(|subject| subject::stored_messages(app, subject))
            .collect(),
        metadata: HashMap::from([(APP.to_owned(), app.to_owned())]),
        ..storage(spec.stream.clone(), durable)
    };
    create_or_update(context, config).await?;
    for (service, subscriber) in &manifest.services {
        let granted = subscriber.grants.subscribe.iter();
        let filter_subjects: Vec<_> = granted
            .filter(|pattern| subscriber.grants.stream_behind(pattern) == Some(&spec.stream))
            .flat_map(|pattern| subject::consumed_messages(app, service, pattern.as_str()))
            .collect();
        if filter_subjects.is_empty() {
            continue;
        }
        let consumer = ConsumerConfig {
            durable_name: Some(service.clone()),
            filter_subjects,
            ack_wait: ack_wait(subscriber.limits.timeout),
            max_ack_pending: i64::from(durable.delivery(service).in_flight),
            ack_policy: AckPolicy::Explicit,
            ..ConsumerConfig::default()
        };
        update_consumers(context, &spec.stream, service, vec![consumer]).await?;
    }
    Ok(())
}

/// The configuration of a stream by the retention of the manifest.
fn storage(name: String, durable: &Durable) -> Config {
    Config {
        name,
        max_age: durable.age,
        max_bytes: i64::try_from(durable.size).unwrap_or(i64::MAX),
        // A stored message may not have been handled yet, so none is dropped to make room.
        discard: DiscardPolicy::New,
        num_replicas: durable.replicas.into(),
        duplicate_window: durable.dedup,
        allow_direct: true,
        ..Config::default()
    }
}

/// Replicas of what the whole app shares: as many as of its wire or stream with the most.
fn replicas(manifest: &App) -> usize {
    let of_wire = |wire: &Wire| match &wire.provider {
        Provider::Events(spec) => spec.durable.as_ref().map(|durable| durable.replicas),
        Provider::Service(_) | Provider::External => None,
    };
    let of_streams = manifest.streams.iter().map(|spec| spec.durable.replicas);
    let of_wires = manifest.wires.iter().filter_map(of_wire);
    let most = of_wires.chain(of_streams).max();
    most.unwrap_or(keys::REPLICAS.default).into()
}

async fn create_event_stream(
    context: &Context,
    app: &str,
    wire: &EventWire,
    durable: &Durable,
) -> Result<String, StoreError> {
    let interface = &wire.interface;
    let name = subject::stream(app, interface);
    let config = Config {
        description: Some(format!("events of {interface} in {app}")),
        subjects: subject::stored(app, interface),
        metadata: metadata(app, wire, durable),
        ..storage(name.clone(), durable)
    };
    create_or_update(context, config).await?;
    Ok(name)
}

async fn create_dead_letter_stream(
    context: &Context,
    app: &str,
    replicas: usize,
) -> Result<(), StoreError> {
    let config = Config {
        name: subject::dead_letter_stream(app),
        description: Some(format!("dead letters of {app}")),
        subjects: vec![subject::all_dead_letters(app)],
        // A dead letter has a subject of its own, and its next revision replaces it.
        max_messages_per_subject: 1,
        max_bytes: DEAD_LETTERS_SIZE,
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        ..Config::default()
    };
    create_or_update(context, config).await
}

async fn create_or_update(context: &Context, config: Config) -> Result<(), StoreError> {
    let name = config.name.clone();
    let made = match context.create_or_update_stream(config.clone()).await {
        // Another host may have created it between the two steps.
        Err(error) if matches!(error.kind(), CreateStreamErrorKind::JetStream(_)) => {
            tracing::debug!(name, %error, "creating a stream, again");
            context.create_or_update_stream(config).await
        }
        made => made,
    };
    made.map(drop).map_err(StoreError::of("stream", &name))
}

async fn create_attempt_store(
    context: &Context,
    app: &str,
    replicas: usize,
) -> Result<(), StoreError> {
    let bucket = subject::attempts_bucket(app);
    let config = kv::Config {
        bucket: bucket.clone(),
        description: format!("attempts at events of {app}"),
        max_age: ATTEMPTS_AGE,
        max_bytes: ATTEMPTS_SIZE,
        num_replicas: replicas,
        history: 1,
        ..kv::Config::default()
    };
    context
        .create_or_update_key_value(config)
        .await
        .map(drop)
        .map_err(StoreError::of("bucket", &bucket))
}

/// Creates or updates a subscriber's consumers.
///
/// Where the wire became ordered, or is not any more, there are other consumers than before: the
/// new ones begin at the first event that the old ones have not finished, and the old ones are
/// deleted.
async fn update_consumers(
    context: &Context,
    stream: &str,
    service: &str,
    wanted: Vec<ConsumerConfig>,
) -> Result<(), StoreError> {
    let fail = |source: Box<dyn std::error::Error + Send + Sync>| StoreError {
        what: "consumer",
        name: format!("{service} of {stream}"),
        source,
    };
    // The stream is looked at before the consumers are, so what they have finished reaches at
    // least as far.
    let handle = context.get_stream(stream).await;
    let handle = handle.map_err(|e| fail(e.into()))?;
    let known = consumers_of(&handle, service).await.map_err(fail)?;
    let is_wanted = |name: &str| {
        let mut names = wanted.iter().filter_map(|w| w.durable_name.as_deref());
        names.any(|wanted| wanted == name)
    };
    let mut begin = None;
    for old in known.iter().filter(|info| !is_wanted(&info.name)) {
        let unfinished = unfinished(&handle, old).await.map_err(fail)?;
        begin = Some(begin.map_or(unfinished, |begin: u64| begin.min(unfinished)));
    }
    for mut config in wanted.iter().cloned() {
        let name = config.durable_name.clone().unwrap_or_default();
        config.deliver_policy = match known.iter().find(|info| info.name == name) {
            // Where a consumer begins cannot be changed.
            Some(info) => info.config.deliver_policy,
            None => begin.map_or(DeliverPolicy::All, |start_sequence| {
                DeliverPolicy::ByStartSequence { start_sequence }
            }),
        };
        handle
            .create_consumer(config)
            .await
            .map_err(|e| fail(e.into()))?;
    }
    for old in known.iter().filter(|info| !is_wanted(&info.name)) {
        handle
            .delete_consumer(&old.name)
            .await
            .map_err(|e| fail(e.into()))?;
    }
    Ok(())
}

/// The sequence of the first event that a consumer has not finished, or the one after the last.
async fn unfinished(
    stream: &Stream,
    consumer: &Info,
) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    let end = stream.cached_info().state.last_sequence + 1;
    if consumer.num_pending == 0 && consumer.num_ack_pending == 0 {
        return Ok(end);
    }
    // Its floor is where it last finished something, and that may be long ago.
    let floor = consumer.ack_floor.stream_sequence;
    let mut first = end;
    for subject in &consumer.config.filter_subjects {
        let next = stream.raw_message_builder().sequence(floor + 1);
        match next.next_by_subject(subject.as_str()).send().await {
            Ok(message) => first = first.min(message.sequence),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(first)
}

/// The consumers that a service has on a stream, with and without partitions.
async fn consumers_of(
    stream: &Stream,
    service: &str,
) -> Result<Vec<Info>, Box<dyn std::error::Error + Send + Sync>> {
    let all: Vec<Info> = stream.consumers().try_collect().await?;
    let own = |name: &str| name.split('_').next() == Some(service);
    Ok(all.into_iter().filter(|info| own(&info.name)).collect())
}

/// Retires streams whose wires or subjects are not durable any more: they store nothing but replays.
/// Otherwise they would answer each call, event or message with an acknowledgement.
///
/// Only a warning when it fails: an app without durable wires must not depend on JetStream.
async fn retire(context: &Context, unused: impl Fn(&Config) -> bool) {
    let mut streams = context.streams();
    while let Some(info) = streams.next().await {
        let mut config = match info {
            Ok(info) => info.config,
            Err(error) => {
                tracing::debug!(%error, "streams cannot be listed");
                return;
            }
        };
        if !unused(&config) {
            continue;
        }
        let name = config.name.clone();
        let retired = async {
            let before = config.subjects.len();
            config.subjects.retain(|stored| subject::is_replay(stored));
            if config.subjects.len() < before {
                context.update_stream(config).await?;
                tracing::info!(
                    name,
                    "what it stores is not durable any more, the stream is kept"
                );
            }
            Ok::<_, async_nats::Error>(())
        };
        if let Err(error) = retired.await {
            tracing::warn!(name, %error, "a stream of a wire that is not durable any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ack_wait_is_bounded() {
        assert_eq!(ack_wait(Duration::from_secs(5)), Duration::from_secs(10));
        assert_eq!(ack_wait(Duration::from_secs(600)), MAX_ACK_WAIT);
    }
}
