//! What a guest writes to the host's log, within bounds: lines and bytes a second for each service.
//!
//! What is beyond them is dropped and counted, and a record says how much it was.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::manifest::ServiceSpec;
use crate::telemetry;

/// Records of one service in a second. A busy service writes one or two for a call and samples what
/// is more; a log beyond that is too long to be read.
pub(crate) const MAX_LINES: u32 = 1_000;

/// Bytes of text of those.
pub(crate) const MAX_BYTES: usize = 1 << 20;

const WINDOW: Duration = Duration::from_secs(1);

/// The output of one service, of all its instances together.
pub(crate) struct Output {
    app: String,
    spec: Arc<ServiceSpec>,
    window: Mutex<Window>,
}

/// What was written in the second that began then.
struct Window {
    began: Instant,
    lines: u32,
    bytes: usize,
    dropped: Dropped,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Dropped {
    lines: u64,
    bytes: u64,
}

impl Output {
    pub(crate) fn new(app: &str, spec: Arc<ServiceSpec>) -> Self {
        Self {
            app: app.to_owned(),
            spec,
            window: Mutex::new(Window {
                began: Instant::now(),
                lines: 0,
                bytes: 0,
                dropped: Dropped::default(),
            }),
        }
    }

    /// The name of the app.
    pub(crate) fn app(&self) -> &str {
        &self.app
    }

    /// The name of the service.
    pub(crate) fn service(&self) -> &str {
        &self.spec.name
    }

    /// Whether a record with so much text may be written now. Counts it, written or dropped.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        let (admitted, dropped) = self.count(bytes, Instant::now());
        self.report(dropped);
        admitted
    }

    /// Reports what was dropped in a second that is over.
    pub(crate) fn flush(&self, now: Instant) {
        let dropped = self.with(|window| window.turn_over(now));
        self.report(dropped);
    }

    fn count(&self, bytes: usize, now: Instant) -> (bool, Dropped) {
        self.with(|window| {
            let dropped = window.turn_over(now);
            let fits = window.lines < MAX_LINES && window.bytes.saturating_add(bytes) <= MAX_BYTES;
            if fits {
                window.lines += 1;
                window.bytes += bytes;
            } else {
                window.dropped.lines += 1;
                window.dropped.bytes += bytes as u64;
            }
            (fits, dropped)
        })
    }

    fn report(&self, Dropped { lines, bytes }: Dropped) {
        if lines > 0 {
            let (app, service) = (self.app(), self.service());
            tracing::warn!(
                target: telemetry::GUEST,
                app,
                service,
                lines,
                bytes,
                "output was dropped: a service can write {MAX_LINES} lines and {MAX_BYTES} bytes a second"
            );
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Window) -> T) -> T {
        work(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Window {
    /// Begins a new second if this one is over, and returns what was dropped in it.
    fn turn_over(&mut self, now: Instant) -> Dropped {
        if now.saturating_duration_since(self.began) < WINDOW {
            return Dropped::default();
        }
        self.began = now;
        (self.lines, self.bytes) = (0, 0);
        std::mem::take(&mut self.dropped)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let dropped = self.with(|window| std::mem::take(&mut window.dropped));
        self.report(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output() -> Output {
        Output::new(
            "app",
            Arc::new(ServiceSpec {
                reuse: 1,
                ..ServiceSpec::new("guest")
            }),
        )
    }

    #[test]
    fn lines_beyond_the_bound_are_dropped_and_counted_until_the_second_is_over() {
        let output = output();
        let now = Instant::now();
        for _ in 0..MAX_LINES {
            assert_eq!(output.count(10, now), (true, Dropped::default()));
        }
        for _ in 0..7 {
            assert_eq!(output.count(10, now), (false, Dropped::default()));
        }
        let dropped = Dropped {
            lines: 7,
            bytes: 70,
        };
        assert_eq!(output.count(10, now + 2 * WINDOW), (true, dropped));
        assert_eq!(
            output.count(10, now + 2 * WINDOW),
            (true, Dropped::default())
        );
    }

    #[test]
    fn bytes_beyond_the_bound_are_dropped() {
        let output = output();
        let now = Instant::now();
        assert!(output.count(MAX_BYTES, now).0);
        assert!(!output.count(1, now).0);
        // A record without text has its lines only.
        assert!(output.count(0, now).0);
    }

    #[test]
    fn what_was_dropped_is_reported_without_another_line() {
        let output = output();
        let now = Instant::now();
        output.count(MAX_BYTES + 1, now);
        assert_eq!(output.with(|w| w.turn_over(now)), Dropped::default());
        let dropped = output.with(|w| w.turn_over(now + 2 * WINDOW));
        assert_eq!(dropped.lines, 1);
    }
}
