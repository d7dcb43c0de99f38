//! The room in the stream of runs.
//!
//! A journal grows, and JetStream refuses what makes a full stream larger, whoever wrote the rest. So a run
//! begins only while there is room for those that have begun.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::journal::{JournalError, Journals};

/// Time between two looks at the stream. What this host begins meanwhile it counts itself.
const LOOK: Duration = Duration::from_secs(1);

/// The room for runs that begin.
pub(super) struct Room {
    used: AtomicU64,
    /// Three quarters of the stream.
    limit: AtomicU64,
    /// Held by who looks at the stream: one of the host's pipelines, for all.
    looking: Mutex<()>,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            used: AtomicU64::new(0),
            // Until the first look.
            limit: AtomicU64::new(u64::MAX),
            looking: Mutex::default(),
        }
    }
}

impl Room {
    /// Takes the room of a run that begins with so many bytes.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(super) fn take(&self, bytes: usize) -> Result<(), JournalError> {
        let bytes = bytes as u64;
        let used = self.used.fetch_add(bytes, Ordering::Relaxed);
        if used.saturating_add(bytes) <= self.limit.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        Err(JournalError::Full)
    }

    /// Looks at the stream from time to time, for as long as it is polled.
    pub(super) async fn measure(&self, journals: &Journals) {
        let _one = self.looking.lock().await;
        let mut every = tokio::time::interval(LOOK);
        loop {
            every.tick().await;
            match journals.bytes().await {
                Ok((used, most)) => {
                    self.used.store(used, Ordering::Relaxed);
                    self.limit.store(most / 4 * 3, Ordering::Relaxed);
                }
                Err(error) => tracing::debug!(%error, "the room for runs"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_takes_nothing() {
        let room = Room::default();
        room.take(1_000).unwrap();
        room.limit.store(1_500, Ordering::Relaxed);
        assert!(matches!(room.take(501), Err(JournalError::Full)));
        room.take(500).unwrap();
        assert!(matches!(room.take(1), Err(JournalError::Full)));
    }
}
