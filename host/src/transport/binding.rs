//! The bindings of sources of messages to services.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Semaphore, watch};

use super::local::UnderWay;
use crate::manifest::DeliveryPolicy;
use crate::manifest::subjects::SubjectPattern;
use crate::runtime::{Exported, Service};

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
            Self::Call | Self::Event | Self::Message => None,
        }
    }
}

/// A service, one of its exported interfaces, and the delivery of its messages.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) service: Arc<Service>,
    pub(crate) exported: Arc<Exported>,
    pub(crate) delivery: Delivery,
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
