//! Messages in and out: core subscriptions, JetStream consumers, replies, and the backend for the
//! imports of guests.
//!
//! A `Source` is a subject or a consumer, and its `Slot` has the present `Binding`: a service
//! and the delivery of its messages. Replacing the binding swaps a service without touching the
//! subscription. This room does not know which services an app has, nor how the gateway reads
//! requests.

pub(crate) mod backend;
mod binding;
mod client;
pub(crate) mod consumer;
mod keyvalue;
pub(crate) mod subscription;

pub use client::Client;

pub(crate) use binding::{Binding, Delivery, Slot, Source, Subscriber};
