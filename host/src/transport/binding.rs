//! The bindings of sources of messages to services.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::local::UnderWay;
use crate::call::CallError;
use crate::manifest::subjects::SubjectPattern;
use crate::manifest::{DeliveryPolicy, Percent};
use crate::plan::Publication;
use crate::runtime::{Exported, Service};
use crate::shape::Signature;

/// A source of messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    /// A subject, shared by the members of a queue group.
    Subject {
        /// The subject, with a wildcard for the function.
        subject: String,
        /// The queue group.
        group: String,
    },
    /// A durable consumer, shared by the workers and hosts that pull from it.
    Consumer {
        /// The stream.
        stream: String,
        /// The consumer.
        name: String,
    },
}

/// The delivery of the messages of a source to their service.
#[derive(Clone, Debug)]
pub(crate) enum Delivery {
    /// A call: its result is the reply.
    Call,
    /// An event; it mostly has no reply subject.
    Event,
    /// A request or an event of a client of NestJS.
    Nest(Arc<NestDelivery>),
    /// A stored event: its outcome is acknowledged.
    DurableEvent(Arc<Subscriber>),
    /// A stored event of an earlier version that the service cannot handle, and why: it becomes a dead
    /// letter.
    Orphaned(Arc<Subscriber>, Arc<str>),
    /// A message: whether it gets a reply is for the guest that handles it.
    Message,
    /// A stored message: its outcome is acknowledged.
    DurableMessage(Arc<Subscriber>),
}

/// What requests and events of clients of NestJS become.
#[derive(Debug)]
pub(crate) struct NestDelivery {
    /// The function's name.
    pub(crate) function: String,
    pub(crate) signature: Signature,
    /// Whether a list is answered element by element.
    pub(crate) stream: bool,
    pub(crate) way: NestWay,
    /// A permit for each run and event that is begun at the same time; what a service answers itself has its
    /// own admission.
    pub(crate) permits: Semaphore,
}

impl NestDelivery {
    /// Room for one more run or event.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn room(&self) -> Result<SemaphorePermit<'_>, CallError> {
        let permit = self.permits.try_acquire();
        permit.map_err(|_| CallError::overloaded("too many requests of NestJS are under way"))
    }
}

/// The way of a request of NestJS to its function.
#[derive(Debug)]
pub(crate) enum NestWay {
    /// To the service of the binding.
    Service,
    /// Over this subject, behind which calls become runs, within this time.
    Run(String, Duration),
    /// It is published.
    Publish(Publication),
}

/// A subscriber of stored events or messages.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) policy: DeliveryPolicy,
    /// A permit for each event that this host works on; further events wait without being refused.
    pub(crate) permits: Semaphore,
    /// Subjects whose messages another consumer of the service delivers.
    pub(crate) elsewhere: Vec<SubjectPattern>,
}

impl Subscriber {
    /// A subscriber that works on at most as many events at a time as its service runs calls.
    pub(crate) fn new(policy: DeliveryPolicy, concurrency: u32) -> Self {
        let permits = policy.in_flight.min(concurrency);
        Self {
            policy,
            permits: Semaphore::new(permits as usize),
            elsewhere: Vec::new(),
        }
    }

    /// The same, without messages on these subjects.
    pub(crate) fn except(self, elsewhere: Vec<SubjectPattern>) -> Self {
        Self { elsewhere, ..self }
    }
}

impl Delivery {
    /// Whether the service gets the messages as they are. They are no calls then, and the host
    /// itself never replies. All bindings of a slot agree on it.
    pub(crate) fn is_message(&self) -> bool {
        matches!(self, Self::Message | Self::DurableMessage(_))
    }

    /// The subscriber, if the source is a consumer.
    pub(crate) fn subscriber(&self) -> Option<&Arc<Subscriber>> {
        match self {
            Self::DurableEvent(subscriber)
            | Self::Orphaned(subscriber, _)
            | Self::DurableMessage(subscriber) => Some(subscriber),
            Self::Call | Self::Event | Self::Message | Self::Nest(_) => None,
        }
    }
}

/// A service, one of its exported interfaces, and the delivery of its messages.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) service: Arc<Service>,
    pub(crate) exported: Arc<Exported>,
    pub(crate) delivery: Delivery,
    /// A new version of the service that gets a share of the messages.
    pub(crate) canary: Option<Arc<Canary>>,
}

/// A new version of a service behind the same source, and its share of the messages.
pub(crate) struct Canary {
    pub(crate) binding: Binding,
    pub(crate) choice: Choice,
}

/// Chooses a share of what comes, as evenly as can be: of each hundred 10% is ten, all threads together.
pub(crate) struct Choice {
    share: Percent,
    /// Grows by the share with each choice; whole hundreds of percent that are passed are the chosen ones.
    passed: AtomicU64,
}

impl Choice {
    /// A whole: 100%.
    const WHOLE: u64 = 10_000;

    /// A choice of this share. Where it begins is random, so that what comes once in a while has its share
    /// over many hosts and functions.
    pub(crate) fn new(share: Percent) -> Self {
        Self::beginning(share, rand::random())
    }

    fn beginning(share: Percent, at: u32) -> Self {
        Self {
            share,
            passed: AtomicU64::new(u64::from(at) % Self::WHOLE),
        }
    }

    /// Whether what comes now is of the share.
    pub(crate) fn next(&self) -> bool {
        let share = u64::from(self.share.0);
        let passed = self.passed.fetch_add(share, Ordering::Relaxed);
        passed % Self::WHOLE + share >= Self::WHOLE
    }
}

impl Binding {
    /// The binding that gets the next message: this one, or that of a new version, in its share.
    ///
    /// # Cost
    ///
    /// Nothing unless there is a new version; then a number that all workers count.
    pub(crate) fn chosen(&self) -> &Self {
        match &self.canary {
            Some(canary) if canary.choice.next() => &canary.binding,
            _ => self,
        }
    }

    /// The binding that gets the next call of a function. Where only one of the two versions has the function it
    /// gets all calls.
    pub(crate) fn chosen_for(&self, function: &str) -> &Self {
        let Some(canary) = &self.canary else {
            return self;
        };
        let has = |binding: &Self| binding.exported.functions.contains_key(function);
        match (has(self), has(&canary.binding)) {
            (true, false) => self,
            (false, true) => &canary.binding,
            _ => self.chosen(),
        }
    }
}

/// Holds the binding of a source: replaced while messages flow, never empty.
pub(crate) struct Slot {
    binding: watch::Sender<Arc<Binding>>,
    pub(super) local: UnderWay,
}

impl Slot {
    /// A slot with its first binding.
    pub(crate) fn new(binding: Binding) -> Self {
        Self {
            binding: watch::Sender::new(Arc::new(binding)),
            local: UnderWay::default(),
        }
    }

    /// Replaces the binding. Calls that are under way end with the one that they began with.
    pub(crate) fn replace(&self, binding: Binding) {
        self.binding.send_replace(Arc::new(binding));
    }

    /// The present binding.
    pub(crate) fn binding(&self) -> Arc<Binding> {
        Arc::clone(&self.binding.borrow())
    }

    /// Ends the local calls of the source: none begins any more, and those that have not ended at the
    /// deadline end with [`CallError::stopped`](crate::call::CallError::stopped). Returns the number of
    /// the latter.
    pub(crate) async fn drain_local(&self, deadline: Instant) -> usize {
        self.local.drain(deadline).await
    }

    /// Changes of the binding, the present one included.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Binding>> {
        self.binding.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tenth_is_every_tenth() {
        let choice = Choice::beginning(Percent(1_000), 0);
        let chosen: Vec<_> = (1..=30).filter(|_| choice.next()).collect();
        assert_eq!(chosen, [10, 20, 30]);
    }

    proptest! {
        #[test]
        fn a_share_is_exact_to_one(share in 1u32..=9_900, at in any::<u32>(), number in 1u64..5_000) {
            let choice = Choice::beginning(Percent(share), at);
            let chosen = (0..number).filter(|_| choice.next()).count() as u64;
            let exact = number * u64::from(share) / Choice::WHOLE;
            prop_assert!((exact..=exact + 1).contains(&chosen), "{chosen} of {number}");
        }
    }
}
