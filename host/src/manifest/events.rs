//! Wires with `mode = "event"`: who publishes and who subscribes follows from the components, what
//! is stored and how often it is tried is written here.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::file::Section;
use super::keys::{retention, retry, subscriber, wire};
use super::kinds::Setting as _;
use super::nest;
use super::services::check_service;
use super::settings::settings;
use super::values::duration_text;
use super::wires::Provider;
use crate::interface::is_label;
use crate::nest::Pattern;

/// The keys that only an event wire has.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    wire::TABLE
        .names()
        .skip_while(|name| *name != wire::DURABLE.name)
}

/// An interface wired as events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSpec {
    /// How events are stored; without it they reach only who listens at that moment.
    pub durable: Option<Durable>,
    /// Patterns of NestJS under which events of these functions are published, too.
    pub nest: BTreeMap<String, Pattern>,
}

/// How the events of a wire are stored and delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Durable {
    /// What every subscriber gets that has nothing of its own in `subscribers`.
    #[serde(flatten)]
    pub delivery: DeliveryPolicy,
    /// Subscribers for which something is different.
    #[serde(rename = "subscriber")]
    pub subscribers: BTreeMap<String, DeliveryPolicy>,
    /// The parameter and the fields below it whose value orders events; kebab-case names.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "dotted")]
    pub order_by: Option<Vec<String>>,
    /// How long and how many events are kept.
    pub retention: Retention,
    /// Servers that keep a copy.
    pub replicas: u8,
    /// Time within which the same `Nats-Msg-Id` is the same event.
    #[serde(serialize_with = "as_text")]
    pub dedup: Duration,
}

/// How events reach one subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeliveryPolicy {
    /// What happens to an event that fails.
    pub retry: Retry,
    /// Events that may be unacknowledged, those that wait for their next attempt included.
    pub in_flight: u32,
}

settings! {
    /// How long and how many events are kept.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Retention in retention {
        /// Time that an event is kept.
        pub age: Duration = AGE,
        /// Bytes of all events together.
        pub size: u64 = SIZE,
    }
}

settings! {
    /// What happens to an event that fails.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Retry in retry {
        /// How often it is tried in all.
        pub attempts: u32 = ATTEMPTS,
        /// The waits between attempts; never empty, the last one repeats.
        pub backoff: Vec<Duration> = BACKOFF,
        /// Hundredths of a wait by which it is made longer or shorter at random.
        pub jitter: u8 = JITTER,
        /// What is tried again.
        pub on: Vec<Outcome> = ON,
    }
}

/// How an attempt failed, as far as trying again is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The guest returned an `err` value.
    Err,
    /// The guest trapped, or an import failed that it has no value for.
    Trap,
    /// It took too long.
    Timeout,
    /// The host or something it needs was busy or away.
    Overload,
}

impl Outcome {
    /// All of them, in the order in which messages list them.
    pub const ALL: [Self; 4] = [Self::Err, Self::Trap, Self::Timeout, Self::Overload];

    /// The word for it in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Err => "err",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Overload => "overload",
        }
    }
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            in_flight: wire::IN_FLIGHT.values.default(),
        }
    }
}

impl DeliveryPolicy {
    /// Reads `retry` and `in-flight`; what is not given is as in `usual`.
    fn read(section: &Section<'_>, usual: &Self) -> Self {
        let retry = section.section(&wire::RETRY, &retry::TABLE);
        Self {
            retry: Retry::read(&retry, &usual.retry),
            in_flight: section.read(&wire::IN_FLIGHT, &usual.in_flight),
        }
    }
}

impl Durable {
    /// How events reach this subscriber.
    #[must_use]
    pub fn delivery(&self, service: &str) -> &DeliveryPolicy {
        self.subscribers.get(service).unwrap_or(&self.delivery)
    }
}

impl Serialize for EventSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            mode: &'static str,
            durable: bool,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            nest: &'a BTreeMap<String, Pattern>,
            #[serde(flatten)]
            storage: Option<&'a Durable>,
        }
        let written = Written {
            mode: "event",
            durable: self.durable.is_some(),
            nest: &self.nest,
            storage: self.durable.as_ref(),
        };
        written.serialize(serializer)
    }
}

fn dotted<S: Serializer>(path: &Option<Vec<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    let path = path.as_ref().map(|path| path.join("."));
    path.serialize(serializer)
}

fn as_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&duration_text(*duration))
}

/// Reads a wire with `mode = "event"`.
pub(super) fn read(section: &Section<'_>, declared: &[&str]) -> Provider {
    for key in [wire::SERVICE.name, wire::EXTERNAL.name, wire::LOCAL.name] {
        let why = "is for calls: every service that exports the interface hears of its events";
        section.report_key(key, format!("`{key}` {why}"));
    }
    let nest = nest::read_patterns(section, &wire::NEST);
    let durable = section.read_or_default(&wire::DURABLE);
    if !durable {
        for key in keys().skip(1) {
            section.report_key(key, format!("`{key}` needs `durable = true`"));
        }
    }
    let durable = durable.then(|| read_durable(section, declared));
    Provider::Events(Box::new(EventSpec { durable, nest }))
}

/// Reads what a durable wire and a stream share.
pub(super) fn read_durable(section: &Section<'_>, declared: &[&str]) -> Durable {
    let delivery = DeliveryPolicy::read(section, &DeliveryPolicy::default());
    let mut subscribers = BTreeMap::new();
    for (name, own) in section.named(&wire::SUBSCRIBER, &subscriber::TABLE) {
        check_service(section, name, declared);
        let own = DeliveryPolicy::read(&own, &delivery);
        subscribers.insert(name.value.to_owned(), own);
    }
    let order_by = section.text_that(&wire::ORDER_BY, |path| path.split('.').all(is_label));
    let retention = section.section(&wire::RETENTION, &retention::TABLE);
    let retention = Retention::read(&retention, &Retention::default());
    let dedup = section.read_or_default(&wire::DEDUP);
    // JetStream refuses to remember an id for longer than the event. A shorter age alone is no
    // mistake of the user's.
    if dedup > retention.age {
        let age = duration_text(retention.age);
        section.report_key(
            wire::DEDUP.name,
            format!("`dedup` is longer than `retention.age`, which is {age}"),
        );
    }
    Durable {
        delivery,
        subscribers,
        order_by: order_by.map(|path| path.value.split('.').map(str::to_owned).collect()),
        replicas: section.read_or_default(&wire::REPLICAS),
        dedup: dedup.min(retention.age),
        retention,
    }
}
