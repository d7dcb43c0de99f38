//! Draining: sources that are not served any more stop in an order in which calls under way still
//! reach the services that they need, and everything that has arrived is answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::CLOSE_TIMEOUT;
use super::worker::Worker;
use crate::runtime::Service;
use crate::transport::{Drained, Slot, Source};

/// The sources and services that one step of reconciliation retires.
pub(super) struct Drain {
    pub(super) workers: Arc<Vec<Worker>>,
    /// Services without new calls, whose calls under way may need the sources.
    pub(super) callers: Vec<Arc<Service>>,
    /// The sources, in the order in which they can stop.
    pub(super) layers: Vec<Vec<(Source, Arc<Slot>)>>,
    pub(super) grace: Duration,
}

impl Drain {
    async fn run(self) -> usize {
        let deadline = Instant::now() + self.grace;
        let callers = join_all(self.callers.iter().map(|service| service.drained()));
        // Calls that have not ended by then are given up with the services that they call.
        let _ = tokio::time::timeout_at(deadline.into(), callers).await;
        let mut given_up = 0;
        for layer in &self.layers {
            given_up += drain(&self.workers, layer, deadline).await.given_up;
        }
        if given_up > 0 {
            tracing::warn!(
                given_up,
                grace = ?self.grace,
                "calls of services that were stopped had not ended in time"
            );
        }
        given_up
    }
}

/// The drains of a host that are under way.
#[derive(Default)]
pub(super) struct Drains(Mutex<JoinSet<usize>>);

impl Drains {
    /// Begins a drain beside everything else.
    pub(super) fn begin(&self, drain: Drain) {
        let mut drains = self.lock();
        while drains.try_join_next().is_some() {}
        drains.spawn(drain.run());
    }

    /// Waits for the drains that are under way; returns the number of calls that were given up, one for
    /// each drain that has not ended by the deadline.
    pub(super) async fn finish(&self, deadline: Instant) -> usize {
        let mut drains = std::mem::take(&mut *self.lock());
        let mut given_up = 0;
        loop {
            match tokio::time::timeout_at(deadline.into(), drains.join_next()).await {
                Ok(None) => return given_up,
                Ok(Some(ended)) => given_up += ended.unwrap_or(1),
                Err(_) => {
                    given_up += drains.len();
                    drains.shutdown().await;
                    return given_up;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has every worker stop serving these sources, and ends their local calls.
pub(super) async fn drain(
    workers: &[Worker],
    sources: &[(Source, Arc<Slot>)],
    deadline: Instant,
) -> Drained {
    if sources.is_empty() {
        return Drained::NOTHING;
    }
    let local = sources.iter().map(|(_, slot)| slot.drain_local(deadline));
    let remote = drain_workers(workers, Some(sources), deadline);
    let (local, remote) = tokio::join!(join_all(local), remote);
    Drained {
        given_up: local.into_iter().sum::<usize>() + remote.given_up,
        ..remote
    }
}

/// Has every worker stop serving these sources, or all.
pub(super) async fn drain_workers(
    workers: &[Worker],
    sources: Option<&[(Source, Arc<Slot>)]>,
    deadline: Instant,
) -> Drained {
    let sources = sources.map(<[_]>::to_vec);
    let drains = workers
        .iter()
        .map(|worker| worker.drain(sources.clone(), deadline));
    // Without a server nothing confirms that calls have stopped coming. The time is one for all layers.
    let last = deadline + CLOSE_TIMEOUT;
    match tokio::time::timeout_at(last.into(), join_all(drains)).await {
        Ok(drained) => drained.into_iter().fold(Drained::NOTHING, Drained::and),
        Err(_) => {
            tracing::warn!("NATS did not confirm that the subscriptions have ended");
            Drained {
                given_up: 0,
                confirmed: false,
            }
        }
    }
}
