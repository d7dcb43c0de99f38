//! Messages in and out: core subscriptions, JetStream consumers, replies, and the backend for the
//! imports of guests.
//!
//! A `Source` is a subject or a consumer, and its `Slot` has the present `Binding`: a service
//! and the delivery of its messages. Replacing the binding swaps a service without touching the
//! subscription. This room does not know which services an app has, nor how the gateway reads
//! requests.

pub(crate) mod backend;
mod backlog;
mod binding;
mod blobs;
pub(crate) mod breaker;
mod by_subject;
mod client;
pub(crate) mod consumer;
mod feed;
pub(crate) mod grpc;
mod keyvalue;
pub(crate) mod local;
pub(crate) mod nest;
mod pages;
mod pull;
mod responders;
mod streams;
pub(crate) mod subscription;
mod wires;

pub use client::Client;

use crate::call::CallError;

/// How the end of what is served went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Calls that had not ended at the deadline and were answered with 503.
    pub given_up: usize,
    /// NATS said that no further calls come and took every reply; without that, calls that it had
    /// handed out may have got none.
    pub confirmed: bool,
}

impl Drained {
    /// Nothing was given up.
    pub const NOTHING: Self = Self {
        given_up: 0,
        confirmed: true,
    };

    /// Every call was answered in time.
    #[must_use]
    pub fn is_complete(self) -> bool {
        self == Self::NOTHING
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            given_up: self.given_up + other.given_up,
            confirmed: self.confirmed && other.confirmed,
        }
    }
}

/// Checks that NATS carries a result.
///
/// # Errors
///
/// It is too large.
fn check_result(bytes: usize, carried: usize) -> Result<(), CallError> {
    if bytes <= carried {
        return Ok(());
    }
    Err(CallError::result_too_large(format_args!(
        "the result has {bytes} bytes, more than NATS carries"
    )))
}

pub(crate) use binding::{
    Binding, Canary, Choice, Delivery, NestDelivery, NestWay, Slot, Source, Subscriber,
};
pub(crate) use wires::Wires;
