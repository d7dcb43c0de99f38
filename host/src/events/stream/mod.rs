//! What JetStream keeps for events, made from the plan and brought up to date when that changes.
//!
//! A stream for each durable wire, a consumer for each subscriber (one for each partition, where
//! the wire is ordered), and for the whole app a stream of dead letters and a bucket with the
//! attempts at events that have failed so far. Nothing that holds events is ever deleted here: a
//! wire that is no longer durable leaves its stream, a service that no longer subscribes its
//! consumers.

mod kinds;

use std::collections::{BTreeSet, HashMap};
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

use kinds::{APP, describe};
pub use kinds::{Stored, stored};
pub(crate) use kinds::{find, publication_of};

/// The longest that an event of a host that vanished waits until another one gets it. Work that
/// takes longer says that it goes on.
pub const MAX_ACK_WAIT: Duration = Duration::from_secs(30);

/// What an event may take beyond its service's timeout until it is acknowledged.
const MARGIN: Duration = Duration::from_secs(5);

/// Bytes of all dead letters of an app. Beyond it events that fail for good stay where they are
/// and are tried on.
pub const DEAD_LETTERS_SIZE: i64 = 256 << 20;

/// Bytes of all attempts of an app that are remembered.
const ATTEMPTS_SIZE: i64 = 64 << 20;

/// How long attempts at an event are remembered after the last one: longer than any wait between
/// two.
const ATTEMPTS_AGE: Duration = Duration::from_secs(3 * 86_400);

/// Why what JetStream keeps could not be made.
#[derive(Debug, thiserror::Error)]
#[error("events cannot be stored: {what} \"{name}\"")]
pub struct StoreError {
    /// `stream`, `bucket` or `consumer`.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// What NATS said.
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

/// How long an event may be unacknowledged before another host gets it.
pub(crate) fn ack_wait(timeout: Duration) -> Duration {
    (timeout + MARGIN).min(MAX_ACK_WAIT)
}

/// Makes what the app's durable wires need, and sees to it that streams of interfaces which are not
/// wired so any more take nothing. Other hosts may run other parts of the app, so only what this
/// plan uses is touched.
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
        spec.map_or(keys::limits::TIMEOUT.values.default, |spec| {
            spec.limits.timeout
        })
    };
    let mut stored = BTreeSet::new();
    for wire in &plan.events {
        let Some(durable) = &wire.spec.durable else {
            continue;
        };
        let stream = stream(context, app, wire, durable).await?;
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
            subscribe(context, &stream, service, wanted).await?;
        }
        stored.insert(subject::stream(app, &wire.interface));
    }
    for spec in &manifest.streams {
        messages(context, manifest, spec).await?;
        stored.insert(spec.stream.clone());
    }
    if !stored.is_empty() {
        let replicas = replicas(manifest);
        dead_letters(context, app, replicas).await?;
        attempts(context, app, replicas).await?;
    }
    let called = plan.required.iter().map(|function| &function.interface);
    let used: BTreeSet<_> = called
        .chain(plan.serves.values().flatten())
        .chain(plan.events.iter().map(|wire| &wire.interface))
        .map(|interface| subject::stream(app, interface))
        .filter(|stream| !stored.contains(stream))
        .collect();
    let core = core_subscriptions(manifest);
    if !used.is_empty() || !core.is_empty() {
        let of_messages = subject::message_stream(app, "");
        let unused = |config: &Config| {
            let heard = |subject: &String| {
                let subject = subject.parse::<SubjectPattern>();
                subject.is_ok_and(|subject| core.iter().any(|core| core.overlaps(&subject)))
            };
            let raw = config.name.starts_with(&of_messages) && !stored.contains(&config.name);
            used.contains(&config.name) || raw && config.subjects.iter().any(heard)
        };
        retire(context, unused).await;
    }
    Ok(())
}

/// What services hear that no stream stores.
fn core_subscriptions(manifest: &App) -> Vec<&SubjectPattern> {
    let services = manifest.services.values();
    services
        .flat_map(|spec| {
            let granted = spec.grants.subscribe.iter();
            granted.filter(|pattern| spec.grants.stream_behind(pattern).is_none())
        })
        .collect()
}

/// Makes the stream of a manifest's `[stream.NAME]`, and the consumers of those that hear it.
async fn messages(context: &Context, manifest: &App, spec: &StreamSpec) -> Result<(), StoreError> {
    let (app, durable) = (manifest.name.as_str(), &spec.durable);
    let subjects = spec.subjects.iter().map(SubjectPattern::as_str);
    let config = Config {
        description: Some(format!("raw messages of {} in {app}", spec.name)),
        subjects: subjects
            .flat_map(|subject| subject::stored_messages(app, subject))
            .collect(),
        metadata: HashMap::from([(APP.to_owned(), app.to_owned())]),
        ..storage(spec.stream.clone(), durable)
    };
    create_or_update(context, config).await?;
    for (service, heard) in &manifest.services {
        let granted = heard.grants.subscribe.iter();
        let filter_subjects: Vec<_> = granted
            .filter(|pattern| heard.grants.stream_behind(pattern) == Some(&spec.stream))
            .flat_map(|pattern| subject::consumed_messages(app, service, pattern.as_str()))
            .collect();
        if filter_subjects.is_empty() {
            continue;
        }
        let consumer = ConsumerConfig {
            durable_name: Some(service.clone()),
            filter_subjects,
            ack_wait: ack_wait(heard.limits.timeout),
            max_ack_pending: i64::from(durable.delivery(service).in_flight),
            ack_policy: AckPolicy::Explicit,
            ..ConsumerConfig::default()
        };
        subscribe(context, &spec.stream, service, vec![consumer]).await?;
    }
    Ok(())
}

/// A stream as the manifest says how it stores.
fn storage(name: String, durable: &Durable) -> Config {
    Config {
        name,
        max_age: durable.retention.age,
        max_bytes: i64::try_from(durable.retention.size).unwrap_or(i64::MAX),
        // What is stored may not have been handled yet, so it never makes room.
        discard: DiscardPolicy::New,
        num_replicas: durable.replicas.into(),
        duplicate_window: durable.dedup,
        allow_direct: true,
        ..Config::default()
    }
}

/// As many copies of what the whole app shares as of the wire that has the most.
fn replicas(manifest: &App) -> usize {
    let of_wire = |wire: &Wire| match &wire.provider {
        Provider::Events(spec) => spec.durable.as_ref().map(|durable| durable.replicas),
        Provider::Service(_) | Provider::External => None,
    };
    let of_streams = manifest.streams.iter().map(|spec| spec.durable.replicas);
    let of_wires = manifest.wires.iter().filter_map(of_wire);
    let most = of_wires.chain(of_streams).max();
    most.unwrap_or(keys::wire::REPLICAS.values.default).into()
}

async fn stream(
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
        metadata: describe(app, wire, durable),
        ..storage(name.clone(), durable)
    };
    create_or_update(context, config).await?;
    Ok(name)
}

async fn dead_letters(context: &Context, app: &str, replicas: usize) -> Result<(), StoreError> {
    let config = Config {
        name: subject::dead_letter_stream(app),
        description: Some(format!("dead letters of {app}")),
        subjects: vec![subject::all_dead_letters(app)],
        // A letter has a subject of its own, and its next version takes its place.
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
        // Another host may have made it between the two steps.
        Err(error) if matches!(error.kind(), CreateStreamErrorKind::JetStream(_)) => {
            tracing::debug!(name, %error, "making a stream, again");
            context.create_or_update_stream(config).await
        }
        made => made,
    };
    made.map(drop).map_err(StoreError::of("stream", &name))
}

async fn attempts(context: &Context, app: &str, replicas: usize) -> Result<(), StoreError> {
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

/// Makes a subscriber's consumers or brings them up to date.
///
/// When they are others than before, because the wire became ordered or stopped being so, the new
/// ones begin where the old ones have not finished, and the old ones go.
async fn subscribe(
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

/// The place of the first event that a consumer has not finished, or the one after the last.
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

/// Has streams that are left from a time when their wires or subjects were durable store nothing
/// but replays. Left as they were they would answer each call, event or message with an
/// acknowledgement.
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
    fn a_vanished_host_is_noticed_within_a_bound() {
        assert_eq!(ack_wait(Duration::from_secs(5)), Duration::from_secs(10));
        assert_eq!(ack_wait(Duration::from_secs(600)), MAX_ACK_WAIT);
    }
}
