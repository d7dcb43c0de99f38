//! Durable events and messages: the streams and consumers that hold them, what becomes of one whose
//! handling failed, and the dead letters.
//!
//! Which interfaces are events is the manifest's business ([`EventWire`](crate::plan::EventWire));
//! the guest does not know. How they get out is in [`plan`](crate::plan), how they come in is in
//! `transport`.

pub(crate) mod attempts;
pub mod dead_letters;
pub(crate) mod health;
pub(crate) mod retry;
pub mod stream;
