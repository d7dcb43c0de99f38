//! Changes of a fleet's buckets, as they happen.

use std::time::Duration;

use async_nats::jetstream::kv::{self, Operation};
use bytes::Bytes;
use futures_util::StreamExt as _;

/// Time between two attempts to watch a bucket.
const WATCH_AGAIN: Duration = Duration::from_millis(250);

/// Time between two looks at whether a watch has seen what was written to its bucket.
const LOOK: Duration = Duration::from_secs(2);

/// A change of a bucket.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) key: String,
    /// Where it stands in its bucket.
    pub(crate) sequence: u64,
    /// Nothing if the key was removed.
    pub(crate) value: Option<Bytes>,
}

/// Gives what is in a bucket, and then every change of it, to `tell`, until that does not want more.
/// What is there is told again whenever the watch had to begin anew.
pub(crate) async fn watch(bucket: kv::Store, mut tell: impl FnMut(Watched) -> bool) {
    loop {
        match bucket.watch_many_with_history([">"]).await {
            Ok(entries) => {
                if !follow(&bucket, entries, &mut tell).await {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, bucket = bucket.name, "cannot be watched"),
        }
        tokio::time::sleep(WATCH_AGAIN).await;
    }
}

/// Passes on what is watched, until that ends or is stuck, as it can be when the server that led the bucket
/// is gone: then it has not seen what was written a look ago. Returns whether anybody still listens.
async fn follow(
    bucket: &kv::Store,
    mut entries: kv::Watch,
    tell: &mut impl FnMut(Watched) -> bool,
) -> bool {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What is there at the beginning is passed on without a last entry: that may have been removed.
    let (mut seen, mut written) = (None, 0);
    loop {
        tokio::select! {
            entry = entries.next() => {
                let Some(Ok(entry)) = entry else {
                    return true;
                };
                seen = seen.map(|seen: u64| seen.max(entry.revision));
                let is_there = entry.operation == Operation::Put;
                let watched = Watched {
                    key: entry.key,
                    sequence: entry.revision,
                    value: is_there.then_some(entry.value),
                };
                if !tell(watched) {
                    return false;
                }
            }
            _ = look.tick() => {
                if seen.is_some_and(|seen| seen < written) {
                    tracing::debug!(bucket = bucket.name, "is watched anew, since nothing comes");
                    return true;
                }
                let Ok(Ok(status)) = tokio::time::timeout(LOOK, bucket.status()).await else {
                    continue;
                };
                written = status.info.state.last_sequence;
                seen = seen.or(Some(written));
            }
        }
    }
}
