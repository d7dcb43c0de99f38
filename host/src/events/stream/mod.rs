//! Streams, consumers and buckets of durable events, created from the plan and updated when it
//! changes.
//!
//! A stream for each durable wire, a consumer for each subscriber (one for each partition, where
//! the wire is ordered), and for the whole app a stream of dead letters and a bucket with the
//! attempts at events that have failed so far. Nothing that holds events is ever deleted here: a
//! wire that is no longer durable leaves its stream, a service that no longer subscribes its
//! consumers.

mod available;
mod kinds;
mod messages;
mod orphans;
mod retire;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config as ConsumerConfig;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info};
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::kv;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use futures_util::TryStreamExt;

use crate::manifest::subjects::SubjectPattern;
use crate::manifest::{App, Durable, StreamSpec, keys};
use crate::nats::Link;
use crate::plan::{EventWire, PARTITIONS, Plan};
use crate::subject;

pub use available::Unavailable;
pub(crate) use available::available;
use kinds::{APP, metadata};
pub use kinds::{Stored, stored};
pub(crate) use kinds::{find, publication_of};
pub(crate) use messages::Share;
use messages::{Subscription, next_stored};
pub(crate) use orphans::{Orphan, orphans};
use retire::retire;

/// Upper bound of the ack wait: how long until an event of a crashed host is delivered again. Work
/// that takes longer reports progress.
pub const MAX_ACK_WAIT: Duration = Duration::from_secs(30);

/// Time for an event's acknowledgement beyond its service's timeout.
const MARGIN: Duration = Duration::from_secs(5);

/// Bytes of all dead letters of an app. Beyond it events that fail for good stay where they are
/// and are tried on. JetStream sets as much aside, as for everything with a bound.
pub const DEAD_LETTERS_SIZE: i64 = 64 << 20;

/// Bytes of all attempts of an app that are remembered: about 300 for each event that has failed and
/// is neither handled nor a dead letter.
const ATTEMPTS_SIZE: i64 = 16 << 20;

/// Time for which attempts at an event are kept after the last one: longer than any wait between two.
const ATTEMPTS_AGE: Duration = Duration::from_secs(3 * 86_400);

/// What NATS answers when it cannot.
type Error = Box<dyn std::error::Error + Send + Sync>;

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
    pub(crate) fn of<E>(what: &'static str, name: &str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let name = name.to_owned();
        move |source| Self {
            what,
            name,
            source: NoRoom::explain(source.into()),
        }
    }

    /// Whether a cluster that has just begun may take it a moment later.
    pub(crate) fn may_pass(&self) -> bool {
        match refusal(self.source.as_ref()) {
            Some(CreateStreamErrorKind::TimedOut) => true,
            Some(CreateStreamErrorKind::JetStream(refused)) => {
                available::INCOMPLETE.contains(&refused.error_code())
            }
            _ => false,
        }
    }
}

/// JetStream has no room for a stream or bucket.
#[derive(Debug, thiserror::Error)]
#[error(
    "JetStream has too little room left: it sets `retention.size` aside for each durable wire and stream, which can be \
     made smaller, and the server can be given more (`max_file_store`, or the account's limit)"
)]
struct NoRoom(#[source] Box<dyn std::error::Error + Send + Sync>);

impl NoRoom {
    /// The error, behind an explanation if that is what it says.
    fn explain(
        error: Box<dyn std::error::Error + Send + Sync>,
    ) -> Box<dyn std::error::Error + Send + Sync> {
        const CODES: [ErrorCode; 3] = [
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
            ErrorCode::INSUFFICIENT_RESOURCES,
            ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ];
        match refusal(error.as_ref()) {
            Some(CreateStreamErrorKind::JetStream(refused))
                if CODES.contains(&refused.error_code()) =>
            {
                Box::new(Self(error))
            }
            _ => error,
        }
    }
}

/// The refusal of a stream or bucket behind an error.
fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<CreateStreamErrorKind> {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut refusals = chain.filter_map(|error| error.downcast_ref::<CreateStreamError>());
    refusals.next().map(CreateStreamError::kind)
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

/// Whether a consumer is one of several that an ordered wire has for a subscriber: no service has a
/// `_` in its name.
pub(crate) fn is_partition(consumer: &str) -> bool {
    let partition = consumer.split_once('_').map(|(_, partition)| partition);
    partition.is_some_and(|partition| partition.parse::<u32>().is_ok())
}

/// How long an event may be unacknowledged before another host gets it.
pub(crate) fn ack_wait(timeout: Duration) -> Duration {
    (timeout + MARGIN).min(MAX_ACK_WAIT)
}

/// Why an app's streams and consumers are looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The app was deployed: they are brought up to date.
    Apply,
    /// Something is missing: that is created, and what is there stays as it is. Another host may have
    /// deployed a newer manifest.
    Restore,
}

/// Creates what the app's durable wires need, and sees to it that streams of interfaces which are not
/// wired so any more store nothing. Other hosts may run other parts of the app, or an older or newer
/// manifest, so only what this plan uses is touched.
pub(crate) struct Provisioning<'a> {
    pub(crate) context: &'a Context,
    /// Asks other hosts.
    pub(crate) link: &'a Link,
    /// The id of this host, by which others know it in discovery.
    pub(crate) host: &'a str,
    pub(crate) app: &'a App,
    pub(crate) plan: &'a Plan,
    /// The consumers of messages that this host knows, for [`Purpose::Restore`].
    pub(crate) shares: &'a [Share],
    pub(crate) purpose: Purpose,
}

/// What there is in JetStream now, beside what the plan says.
#[derive(Debug, Default)]
pub(crate) struct Provisioned {
    /// Whether a stream that this app does not use stores on, since another host uses it.
    pub(crate) is_unretired: bool,
    /// The consumers of messages; none for [`Purpose::Restore`].
    pub(crate) shares: Vec<Share>,
}

/// The streams that store what this app publishes or subscribes to.
pub(crate) fn names(app: &App, plan: &Plan) -> BTreeSet<String> {
    let durable = plan.events.iter().filter(|w| w.spec.durable.is_some());
    let events = durable.map(|wire| subject::stream(&app.name, &wire.interface));
    let messages = app.streams.iter().map(|spec| spec.stream.clone());
    events.chain(messages).collect()
}

impl Provisioning<'_> {
    /// Does it.
    ///
    /// # Errors
    ///
    /// JetStream is not there or refuses.
    pub(crate) async fn run(&self) -> Result<Provisioned, StoreError> {
        let app = self.app.name.as_str();
        let stored = names(self.app, self.plan);
        for wire in &self.plan.events {
            if let Some(durable) = &wire.spec.durable {
                self.wire(wire, durable).await?;
            }
        }
        let mut shares = Vec::new();
        for spec in &self.app.streams {
            shares.extend(self.messages(spec).await?);
        }
        if !stored.is_empty() {
            let replicas = self.app.replicas().into();
            self.dead_letters(replicas).await?;
            self.attempts(replicas).await?;
        }
        let called = self
            .plan
            .required
            .iter()
            .map(|function| &function.interface);
        let used: BTreeSet<_> = called
            .chain(self.plan.serves.values().flat_map(BTreeMap::keys))
            .chain(self.plan.events.iter().map(|wire| &wire.interface))
            .map(|interface| subject::stream(app, interface))
            .filter(|stream| !stored.contains(stream))
            .collect();
        let core = core_subscriptions(self.app);
        if used.is_empty() && core.is_empty() {
            return Ok(Provisioned {
                shares,
                ..Provisioned::default()
            });
        }
        let of_messages = subject::message_stream(app, "");
        let unused = |config: &Config| {
            let subscribed = |subject: &String| {
                let subject = subject.parse::<SubjectPattern>();
                subject.is_ok_and(|subject| core.iter().any(|core| core.overlaps(&subject)))
            };
            let unlisted = config.name.starts_with(&of_messages) && !stored.contains(&config.name);
            used.contains(&config.name) || unlisted && config.subjects.iter().any(subscribed)
        };
        Ok(Provisioned {
            is_unretired: retire(self.context, self.link, app, self.host, unused).await,
            shares,
        })
    }

    /// The stream of a durable wire, and the consumers of its subscribers.
    async fn wire(&self, wire: &EventWire, durable: &Durable) -> Result<(), StoreError> {
        let app = self.app.name.as_str();
        let interface = &wire.interface;
        let stream = subject::stream(app, interface);
        let config = Config {
            description: Some(format!("events of {interface} in {app}")),
            subjects: subject::stored(app, interface),
            metadata: metadata(app, wire, durable),
            ..storage(stream.clone(), durable)
        };
        self.create_or_update(config).await?;
        for service in wire.subscribers.keys() {
            let delivery = durable.delivery(service);
            let spec = self.app.services.get(service);
            let timeout = spec.map_or(keys::limits::TIMEOUT.values.default, |spec| {
                spec.limits.timeout
            });
            let wanted: Vec<_> = consumers(durable, service)
                .into_iter()
                .map(|ConsumerName { name, partition }| ConsumerConfig {
                    durable_name: Some(name),
                    description: Some(match partition {
                        Some(partition) => format!("partition {partition} for {service} of {app}"),
                        None => format!("events for {service} of {app}"),
                    }),
                    filter_subjects: subject::consumed(app, service, interface, partition),
                    ack_wait: ack_wait(timeout),
                    max_ack_pending: match partition {
                        Some(_) => 1,
                        None => i64::from(delivery.in_flight),
                    },
                    ack_policy: AckPolicy::Explicit,
                    ..ConsumerConfig::default()
                })
                .collect();
            self.subscribe(&stream, service, wanted).await?;
        }
        Ok(())
    }

    /// The stream of a manifest's `[stream.NAME]`, and the consumers of its subscribers.
    async fn messages(&self, spec: &StreamSpec) -> Result<Vec<Share>, StoreError> {
        let (app, durable) = (self.app.name.as_str(), &spec.durable);
        let subjects = spec.subjects.iter().map(SubjectPattern::as_str);
        let config = Config {
            description: Some(format!("messages of {} in {app}", spec.name)),
            subjects: subjects
                .flat_map(|subject| subject::stored_messages(app, subject))
                .collect(),
            metadata: HashMap::from([(APP.to_owned(), app.to_owned())]),
            ..storage(spec.stream.clone(), durable)
        };
        self.create_or_update(config).await?;
        let mut shares = Vec::new();
        for service in self.app.services.values() {
            let granted = service.grants.subscribe.iter();
            let of_stream = granted.filter(|pattern| {
                service.grants.stream_behind(pattern) == Some(spec.stream.as_str())
            });
            let subscription = Subscription {
                app,
                stream: spec,
                service,
                subjects: of_stream.cloned().collect(),
            };
            if !subscription.subjects.is_empty() {
                shares.extend(self.subscribe_to_messages(&subscription).await?);
            }
        }
        Ok(shares)
    }

    async fn dead_letters(&self, replicas: usize) -> Result<(), StoreError> {
        let app = self.app.name.as_str();
        let config = Config {
            name: subject::dead_letter_stream(app),
            description: Some(format!("dead letters of {app}")),
            subjects: vec![subject::all_dead_letters(app)],
            // A dead letter has a subject of its own, and its next version takes its place.
            max_messages_per_subject: 1,
            max_bytes: DEAD_LETTERS_SIZE,
            discard: DiscardPolicy::New,
            num_replicas: replicas,
            ..Config::default()
        };
        self.create_or_update(config).await
    }

    async fn attempts(&self, replicas: usize) -> Result<(), StoreError> {
        let app = self.app.name.as_str();
        let bucket = subject::attempts_bucket(app);
        if self.purpose == Purpose::Restore && self.context.get_key_value(&bucket).await.is_ok() {
            return Ok(());
        }
        let config = kv::Config {
            bucket: bucket.clone(),
            description: format!("attempts at events of {app}"),
            max_age: ATTEMPTS_AGE,
            max_bytes: ATTEMPTS_SIZE,
            num_replicas: replicas,
            history: 1,
            ..kv::Config::default()
        };
        let created = self.context.create_or_update_key_value(config).await;
        created.map(drop).map_err(StoreError::of("bucket", &bucket))
    }

    async fn create_or_update(&self, mut config: Config) -> Result<(), StoreError> {
        let name = config.name.clone();
        if self.purpose == Purpose::Restore {
            let found = find(self.context, &name).await;
            match found.map_err(StoreError::of("stream", &name))? {
                None => tracing::warn!(
                    name,
                    "a stream is lost, and created again without its events"
                ),
                Some(stream) => {
                    let mut there = stream.cached_info().config.clone();
                    let lost = |subject: &String| !there.subjects.contains(subject);
                    let lost: Vec<_> = config.subjects.into_iter().filter(lost).collect();
                    if lost.is_empty() {
                        return Ok(());
                    }
                    // A host that does not know the wire took them out.
                    there.subjects.extend(lost);
                    config = there;
                }
            }
        }
        let context = self.context;
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

    /// Creates a subscriber's consumers or brings them up to date.
    ///
    /// When they are others than before, because the wire became ordered or stopped being so, the new
    /// ones begin where the old ones have not finished, and the old ones go.
    async fn subscribe(
        &self,
        stream: &str,
        service: &str,
        wanted: Vec<ConsumerConfig>,
    ) -> Result<(), StoreError> {
        let fail = |source: Error| StoreError {
            what: "consumer",
            name: format!("{service} of {stream}"),
            source,
        };
        // The stream is looked at before the consumers are, so what they have finished reaches at
        // least as far.
        let handle = self.context.get_stream(stream).await;
        let handle = handle.map_err(|e| fail(e.into()))?;
        let known = consumers_of(&handle, service).await.map_err(fail)?;
        let is_wanted = |name: &str| {
            let mut names = wanted.iter().filter_map(|w| w.durable_name.as_deref());
            names.any(|wanted| wanted == name)
        };
        let others: Vec<_> = known.iter().filter(|info| !is_wanted(&info.name)).collect();
        let is_restored = self.purpose == Purpose::Restore;
        if is_restored && !others.is_empty() {
            // Another host has ordered the wire, or ordered it no more.
            return Ok(());
        }
        let mut begin = None;
        for old in &others {
            let subjects = &old.config.filter_subjects;
            let unfinished = unfinished(&handle, old, subjects).await.map_err(fail)?;
            begin = Some(begin.map_or(unfinished, |begin: u64| begin.min(unfinished)));
        }
        for mut config in wanted.iter().cloned() {
            let name = config.durable_name.clone().unwrap_or_default();
            let there = known.iter().find(|info| info.name == name);
            if is_restored && there.is_some() {
                continue;
            }
            if is_restored {
                warn_of_lost(&handle, &name);
            }
            config.deliver_policy = match there {
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
        for old in others {
            handle
                .delete_consumer(&old.name)
                .await
                .map_err(|e| fail(e.into()))?;
        }
        Ok(())
    }
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

/// A stream as the manifest says how it stores.
fn storage(name: String, durable: &Durable) -> Config {
    Config {
        name,
        max_age: durable.retention.age,
        max_bytes: i64::try_from(durable.retention.size).unwrap_or(i64::MAX),
        // A stored message may not have been handled yet, so none is dropped to make room.
        discard: DiscardPolicy::New,
        num_replicas: durable.replicas.into(),
        duplicate_window: durable.dedup,
        allow_direct: true,
        ..Config::default()
    }
}

fn warn_of_lost(stream: &Stream, consumer: &str) {
    let info = stream.cached_info();
    tracing::warn!(
        stream = info.config.name,
        consumer,
        stored = info.state.messages,
        "a consumer is lost, and created again: all that is stored is delivered anew"
    );
}

/// The sequence of the first event on these subjects that a consumer has not finished, or the one after
/// the last.
async fn unfinished(stream: &Stream, consumer: &Info, subjects: &[String]) -> Result<u64, Error> {
    let end = stream.cached_info().state.last_sequence + 1;
    if consumer.num_pending == 0 && consumer.num_ack_pending == 0 {
        return Ok(end);
    }
    // Its floor is where it last finished something, and that may be long ago.
    let floor = consumer.ack_floor.stream_sequence;
    let subjects = subjects.iter().map(String::as_str);
    let first = next_stored(stream, floor + 1, subjects).await?;
    Ok(first.map_or(end, |first| first.min(end)))
}

/// The consumers that a service has on a stream, with and without partitions.
async fn consumers_of(stream: &Stream, service: &str) -> Result<Vec<Info>, Error> {
    let all: Vec<Info> = stream.consumers().try_collect().await?;
    let own = |name: &str| name.split('_').next() == Some(service);
    Ok(all.into_iter().filter(|info| own(&info.name)).collect())
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
