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
/// is gone: then it has not seen what was written a look ago, and nothing since. Returns whether anybody still
/// listens.
async fn follow(
    bucket: &kv::Store,
    mut entries: kv::Watch,
    tell: &mut impl FnMut(Watched) -> bool,
) -> bool {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What is there at the beginning is passed on without a last entry: that may have been removed.
    let mut lag = Lag::default();
    loop {
        tokio::select! {
            entry = entries.next() => {
                let Some(Ok(entry)) = entry else {
                    return true;
                };
                lag.see(entry.revision);
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
                // Not `status`, which is as it was when the bucket was opened.
                let asked = tokio::time::timeout(LOOK, bucket.stream.get_info()).await;
                let written = asked.ok().and_then(Result::ok).map(|info| info.state.last_sequence);
                if lag.look(written) {
                    tracing::debug!(bucket = bucket.name, "is watched anew, since nothing comes");
                    return true;
                }
            }
        }
    }
}

/// How far a watch is behind its bucket.
#[derive(Debug, Default)]
struct Lag {
    /// The last entry that came; that of the first look before.
    seen: Option<u64>,
    /// The same at the last look.
    seen_before: Option<u64>,
    /// What was written at the last look.
    written: u64,
}

impl Lag {
    fn see(&mut self, sequence: u64) {
        self.seen = self.seen.map(|seen| seen.max(sequence));
    }

    /// Takes a look at the last entry that is there, if it is known; returns whether the watch is stuck.
    fn look(&mut self, written: Option<u64>) -> bool {
        let is_still = self.seen == self.seen_before;
        if is_still && self.seen.is_some_and(|seen| seen < self.written) {
            return true;
        }
        self.written = written.unwrap_or(self.written);
        self.seen = self.seen.or(written);
        self.seen_before = self.seen;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_to_which_nothing_comes_is_stuck() {
        let mut lag = Lag::default();
        assert!(!lag.look(Some(7)) && !lag.look(Some(7)));
        // Written now, and not seen by the next look.
        assert!(!lag.look(Some(9)));
        assert!(lag.look(Some(9)));
    }

    #[test]
    fn a_watch_that_is_slow_is_not_stuck() {
        let mut lag = Lag::default();
        // Before the first look nothing is known of what is there.
        lag.see(3);
        assert!(!lag.look(Some(7)) && !lag.look(Some(90)));
        for sequence in 8..20 {
            lag.see(sequence);
            assert!(!lag.look(Some(90 + sequence)));
        }
        // What is not known is no reason.
        lag.see(109);
        assert!(!lag.look(None) && !lag.look(None));
    }
}
