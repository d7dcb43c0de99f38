//! Wires with `mode = "event"`: who publishes and who subscribes follows from the components, what
//! is stored and how often it is tried is written here.

use std::collections::BTreeMap;
use std::time::Duration;

use super::file::Section;
use super::keys::{self, Bounds};
use super::values::{duration_text, parse_duration};
use super::{Provider, check_service};
use crate::interface::is_label;

/// The keys that only an event wire has.
pub(super) const KEYS: [&str; 8] = [
    "durable",
    "retry",
    "in-flight",
    "order-by",
    "retention",
    "replicas",
    "dedup",
    "subscriber",
];

/// An interface wired as events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSpec {
    /// How events are stored; without it they reach only who listens at that moment.
    pub durable: Option<Durable>,
}

/// How the events of a wire are stored and delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// What every subscriber gets that has nothing of its own in `subscribers`.
    pub delivery: DeliveryPolicy,
    /// Subscribers for which something is different.
    pub subscribers: BTreeMap<String, DeliveryPolicy>,
    /// The parameter and the fields below it whose value orders events; kebab-case names.
    pub order_by: Option<Vec<String>>,
    /// Time that an event is kept.
    pub age: Duration,
    /// Bytes of all events together.
    pub size: u64,
    /// Servers that keep a copy.
    pub replicas: u8,
    /// Time within which the same `Nats-Msg-Id` is the same event.
    pub dedup: Duration,
}

/// How events reach one subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// What happens to an event that fails.
    pub retry: Retry,
    /// Events that may be unacknowledged, those that wait for their next attempt included.
    pub in_flight: u32,
}

/// What happens to an event that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often it is tried in all.
    pub attempts: u32,
    /// The waits between attempts; never empty, the last one repeats.
    pub backoff: Vec<Duration>,
    /// Hundredths of a wait by which it is made longer or shorter at random.
    pub jitter: u8,
    /// What is tried again.
    pub on: Vec<Outcome>,
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
    /// All of them, in the order of [`keys::OUTCOMES`].
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

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: keys::ATTEMPTS.default,
            backoff: keys::BACKOFF_STEPS.to_vec(),
            jitter: keys::JITTER.default,
            on: Outcome::ALL.to_vec(),
        }
    }
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            in_flight: keys::IN_FLIGHT.default,
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

/// Reads a wire with `mode = "event"`.
pub(super) fn read(section: &Section<'_>, declared: &[&str]) -> Provider {
    for key in ["service", "external"] {
        if let Some(at) = section.place(key) {
            section.report(
                at,
                format!(
                    "`{key}` is for calls: every service that exports the interface hears of its events"
                ),
            );
        }
    }
    let durable = section
        .choice("durable")
        .is_some_and(|durable| durable.value);
    if durable {
        let durable = Some(read_durable(section, declared));
        return Provider::Events(Box::new(EventSpec { durable }));
    }
    for key in KEYS.into_iter().filter(|key| *key != "durable") {
        if let Some(at) = section.place(key) {
            section.report(at, format!("`{key}` needs `durable = true`"));
        }
    }
    Provider::Events(Box::default())
}

pub(super) fn read_durable(section: &Section<'_>, declared: &[&str]) -> Durable {
    let delivery = read_delivery(section, &DeliveryPolicy::default());
    let mut subscribers = BTreeMap::new();
    for (name, own) in section.named("subscriber", &keys::SUBSCRIBER) {
        check_service(section, name, declared);
        subscribers.insert(name.value.to_owned(), read_delivery(&own, &delivery));
    }
    let order_by = section.text_that("order-by", |path| path.split('.').all(is_label));
    let retention = section.section("retention", &keys::RETENTION);
    let (age, size) = match &retention {
        Some(retention) => (
            retention.duration("age", keys::AGE),
            retention.size("size", keys::SIZE),
        ),
        None => (keys::AGE.default, keys::SIZE.default),
    };
    let dedup = section.duration("dedup", keys::DEDUP);
    // JetStream refuses to remember an id for longer than the event. A shorter age alone is no
    // mistake of the user's.
    if let Some(at) = section.place("dedup").filter(|_| dedup > age) {
        let age = duration_text(age);
        section.report(
            at,
            format!("`dedup` is longer than `retention.age`, which is {age}"),
        );
    }
    Durable {
        delivery,
        subscribers,
        order_by: order_by.map(|path| path.value.split('.').map(str::to_owned).collect()),
        age,
        size,
        replicas: section.count("replicas", keys::REPLICAS),
        dedup: dedup.min(age),
    }
}

/// Reads `retry` and `in-flight`; what is not given is as in `usual`.
fn read_delivery(section: &Section<'_>, usual: &DeliveryPolicy) -> DeliveryPolicy {
    let in_flight = Bounds {
        default: usual.in_flight,
        ..keys::IN_FLIGHT
    };
    DeliveryPolicy {
        retry: section
            .section("retry", &keys::RETRY)
            .map_or_else(|| usual.retry.clone(), |s| read_retry(&s, &usual.retry)),
        in_flight: section.count("in-flight", in_flight),
    }
}

fn read_retry(section: &Section<'_>, usual: &Retry) -> Retry {
    let attempts = Bounds {
        default: usual.attempts,
        ..keys::ATTEMPTS
    };
    let jitter = Bounds {
        default: usual.jitter,
        ..keys::JITTER
    };
    let step = |text: &str| parse_duration(text).filter(|step| keys::BACKOFF.contain(step));
    let outcome = |text: &str| {
        Outcome::ALL
            .into_iter()
            .find(|known| known.as_str() == text)
    };
    let backoff = section.list("backoff", 1..=keys::MAX_STEPS, step);
    let on = section.list("on", 0..=Outcome::ALL.len(), outcome);
    Retry {
        attempts: section.count("attempts", attempts),
        backoff: backoff.unwrap_or_else(|| usual.backoff.clone()),
        jitter: section.hundredths("jitter", jitter),
        on: on.unwrap_or_else(|| usual.on.clone()),
    }
}
