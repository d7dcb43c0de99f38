//! CPU time of processes, from `/proc`.

use std::time::Duration;

/// A process by name.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

/// The CPU time that a process has used since it started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage(Duration);

/// `/proc` counts in hundredths of a second on every Linux there is.
const TICK: Duration = Duration::from_millis(10);

impl Process {
    /// Zero for a process that is gone, or on a system without `/proc`.
    pub(crate) fn usage(&self) -> Usage {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The second field, the name, may itself have spaces; it ends with the last parenthesis.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let ticks: u32 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u32>().ok())
            .sum();
        Usage(TICK * ticks)
    }
}

impl Usage {
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
