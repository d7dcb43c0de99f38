//! Joining a fleet: its store, and a name of one's own.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use tokio::time::sleep;

use super::{LOOK, NodeError};
use crate::fleet::{Store, StoreError};

/// Time for a name to become free that a host had which has ended.
const NAME_TAKEN: Duration = Duration::from_secs(5);

/// Time for the fleet's store to be created, where servers do not know each other yet.
const CREATE: Duration = Duration::from_secs(10);

/// Opens or creates the fleet's store. The servers of a cluster that has just begun need a moment to know
/// each other.
pub(super) async fn create(
    context: jetstream::Context,
    copies: Option<u8>,
    history: u8,
) -> Result<Store, StoreError> {
    let deadline = Instant::now() + CREATE;
    loop {
        match Store::create(context.clone(), copies, history).await {
            Err(error @ StoreError::JetStream { .. }) if Instant::now() < deadline => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "trying again");
                sleep(LOOK).await;
            }
            created => return created,
        }
    }
}

/// Waits until no other host has the name: one that has ended is forgotten soon.
pub(super) async fn claim(store: &Store, name: &str) -> Result<(), NodeError> {
    let deadline = Instant::now() + NAME_TAKEN;
    while store.host(name).await?.is_some() {
        if Instant::now() > deadline {
            return Err(NodeError::NameTaken(name.to_owned()));
        }
        sleep(LOOK).await;
    }
    Ok(())
}
