//! The state of an app's streams and buckets in JetStream: whether they exist and store what is
//! written. Publishers and consumers report it, readiness reads it, and the host creates again what
//! is missing.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Time for which a refusal for want of room counts. Then the next event shows whether there is room: a
/// host that is not ready may get none.
const FULL: Duration = Duration::from_secs(10);

/// The state of what an app stores.
#[derive(Default)]
pub(crate) struct StoreHealth {
    reasons: Mutex<Reasons>,
    /// Whether something was refused for want of room since the last event was stored; beside the
    /// reason, so that storing an event takes no lock.
    is_full: AtomicBool,
    is_unretired: AtomicBool,
    wanted: Notify,
}

#[derive(Default)]
struct Reasons {
    missing: Option<String>,
    full: Option<(Instant, String)>,
}

impl StoreHealth {
    /// A stream, consumer or bucket is not there: the host is to create it.
    pub(crate) fn report_missing(&self, why: impl Display) {
        self.reasons().missing = Some(why.to_string());
        self.wanted.notify_one();
    }

    /// Everything is there.
    pub(crate) fn report_complete(&self) {
        self.reasons().missing = None;
    }

    /// JetStream has no room for an event, other than by the bound of its stream.
    pub(crate) fn report_full(&self, why: impl Display) {
        self.reasons().full = Some((Instant::now(), why.to_string()));
        self.is_full.store(true, Ordering::Relaxed);
    }

    /// An event was stored.
    pub(crate) fn report_stored(&self) {
        if self.is_full.load(Ordering::Relaxed) {
            self.is_full.store(false, Ordering::Relaxed);
            self.reasons().full = None;
        }
    }

    /// Why events cannot be stored or handled now, if they cannot.
    pub(crate) fn reason(&self) -> Option<String> {
        let reasons = self.reasons();
        let full = reasons.full.as_ref();
        let full = full.filter(|(since, _)| since.elapsed() < FULL);
        let full = full.map(|(_, why)| why);
        reasons.missing.as_ref().or(full).cloned()
    }

    /// Whether a stream that the app does not use stores on, since another host uses it.
    pub(crate) fn report_unretired(&self, is_unretired: bool) {
        self.is_unretired.store(is_unretired, Ordering::Relaxed);
    }

    /// There may be streams that are left from a time when the app stored events: the host is to look.
    pub(crate) fn report_unknown(&self) {
        self.report_unretired(true);
        self.wanted.notify_one();
    }

    /// Whether a stream has to be looked at again.
    pub(crate) fn is_unretired(&self) -> bool {
        self.is_unretired.load(Ordering::Relaxed)
    }

    /// Done when something was reported to be missing since the last time.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has taken no report.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    fn reasons(&self) -> MutexGuard<'_, Reasons> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_missing_is_the_reason_until_it_is_there() {
        let health = StoreHealth::default();
        assert_eq!(health.reason(), None);
        health.report_full("no space left");
        health.report_missing("stream x");
        health.wanted().await;
        assert_eq!(health.reason().as_deref(), Some("stream x"));
        health.report_complete();
        assert_eq!(health.reason().as_deref(), Some("no space left"));
        health.report_stored();
        assert_eq!(health.reason(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn want_of_room_is_the_reason_until_an_event_shows_it_again() {
        let health = StoreHealth::default();
        health.report_full("no space left");
        tokio::time::advance(FULL - Duration::from_secs(1)).await;
        assert_eq!(health.reason().as_deref(), Some("no space left"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(health.reason(), None);
        health.report_full("no space left");
        assert_eq!(health.reason().as_deref(), Some("no space left"));
    }
}
