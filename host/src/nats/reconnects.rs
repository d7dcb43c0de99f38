//! How often connections were lost and made again.

use std::sync::Arc;

use crate::telemetry::Count;

/// Counts the connections to NATS that were made again, of all copies of one set of options.
#[derive(Clone, Default)]
pub struct Reconnects(Arc<Count>);

impl Reconnects {
    pub(super) fn note(&self) {
        self.0.add(1);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.read()
    }
}
