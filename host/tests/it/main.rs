//! Everything that needs more than one module: a real `nats-server`, processes, the network.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step of a test's own helper fails the test"
)]

mod build;
mod docs;
mod nats;
mod support;
