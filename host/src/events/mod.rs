//! Durable events and messages: their streams and consumers, the policy for failed attempts, and dead
//! letters.
//!
//! The manifest says which interfaces are events ([`EventWire`](crate::plan::EventWire)).
//! Publishing is planned in [`plan`](crate::plan), consuming is in `transport`; this room knows
//! neither subscriptions nor guests.

pub(crate) mod attempts;
pub mod dead_letters;
pub(crate) mod health;
pub(crate) mod retry;
pub mod stream;
