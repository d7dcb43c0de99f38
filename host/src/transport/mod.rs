//! Messages in and out: core subscriptions, JetStream consumers, replies, and the backend that
//! carries what guests import.
//!
//! A [`Source`] is where messages come from, a [`Slot`] what stands behind it: a [`Binding`] of a
//! service and the way in which its messages are delivered. Replacing the binding swaps a service
//! without touching the subscription.

pub(crate) mod backend;
mod binding;
mod client;
pub(crate) mod consumer;
mod keyvalue;
mod pull;
pub(crate) mod subscription;

pub use client::Client;

pub(crate) use binding::{Binding, Delivery, Slot, Source, Subscriber};
