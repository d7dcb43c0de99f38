//! The bounds of one instance: its memories, its tables, and its share of the host's memory.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use crate::manifest::Limits;
use crate::telemetry::Counts;

/// Memories of one instance. The pool has two for each instance that can exist.
const MAX_MEMORIES: usize = 8;

/// Counts what an instance takes, all its memories and tables together, against its limits.
pub(crate) struct Bounds {
    memory: u64,
    tables: u64,
    limits: Limits,
    /// Where the memory of all instances of the service is counted.
    counts: Arc<Counts>,
    /// The limit of the last refusal, for the message of the trap that mostly follows.
    pub(crate) refused: Option<String>,
}

impl Bounds {
    pub(crate) fn new(limits: Limits, counts: Arc<Counts>) -> Self {
        Self {
            memory: 0,
            tables: 0,
            limits,
            counts,
            refused: None,
        }
    }

    /// Counts memory of the host for the guest as the guest's memory: `after` bytes instead of
    /// `before`.
    ///
    /// # Errors
    ///
    /// The instance would exceed its memory limit.
    pub(crate) fn recount(&mut self, before: usize, after: usize) -> wasmtime::Result<()> {
        let limit = self.limits.memory;
        if self.grow_memory(before, after) {
            let less = (before.saturating_sub(after) as u64).min(self.memory);
            self.memory -= less;
            self.counts.memory.subtract(less);
            return Ok(());
        }
        self.refused = Some(format!("its memory limit of {limit} bytes"));
        wasmtime::bail!("the host keeps too much for the guest")
    }

    fn grow_memory(&mut self, current: usize, desired: usize) -> bool {
        let before = self.memory;
        let fits = Self::grow(&mut self.memory, current, desired, self.limits.memory);
        self.counts.memory.add(self.memory - before);
        self.counts.most_memory.raise(self.memory);
        fits
    }

    fn grow(used: &mut u64, current: usize, desired: usize, limit: u64) -> bool {
        let more = (desired as u64).saturating_sub(current as u64);
        let fits = used.saturating_add(more) <= limit;
        if fits {
            *used += more;
        }
        fits
    }
}

impl ResourceLimiter for Bounds {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = self.grow_memory(current, desired);
        if !fits {
            let limit = self.limits.memory;
            self.refused = Some(format!("its memory limit of {limit} bytes"));
        }
        Ok(fits)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.limits.tables;
        let fits = Self::grow(&mut self.tables, current, desired, u64::from(limit));
        if !fits {
            self.refused = Some(format!("its limit of {limit} table elements"));
        }
        Ok(fits)
    }

    fn instances(&self) -> usize {
        self.limits.instances as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }

    fn tables(&self) -> usize {
        self.limits.instances as usize
    }
}

impl Drop for Bounds {
    fn drop(&mut self) {
        self.counts.memory.subtract(self.memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_keeps_counts_as_memory() {
        let limits = Limits {
            memory: 100,
            ..Limits::default()
        };
        let counts = Arc::<Counts>::default();
        let mut bounds = Bounds::new(limits, Arc::clone(&counts));
        assert!(bounds.memory_growing(0, 60, None).unwrap());
        bounds.recount(0, 40).unwrap();
        assert!(bounds.recount(40, 41).is_err());
        assert_eq!(
            bounds.refused.as_deref(),
            Some("its memory limit of 100 bytes")
        );
        bounds.recount(40, 10).unwrap();
        assert!(bounds.memory_growing(60, 90, None).unwrap());
        assert!(!bounds.memory_growing(90, 91, None).unwrap());
        assert_eq!(counts.memory.read(), 100);
        drop(bounds);
        assert_eq!(counts.memory.read(), 0);
        assert_eq!(counts.most_memory.read(), 100);
    }
}
