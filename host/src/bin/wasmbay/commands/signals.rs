//! The signals that stop a host.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Signals within this time after the first are that first one, sent several times.
const TOGETHER: Duration = Duration::from_secs(1);

/// SIGINT and SIGTERM.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for one of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
    /// Waits for a signal that is one more than those that came together: whoever forwards Ctrl-C to a
    /// process that the terminal has told already sends it twice.
    pub(super) async fn another(&mut self, first: Instant) {
        loop {
            self.next().await;
            if first.elapsed() >= TOGETHER {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Sent, getpid, kill_process};
    use tokio::time::timeout;

    use super::*;

    /// `kill` returns before the runtime has seen the signal.
    const SEEN: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn signals_that_come_together_are_one() {
        let mut signals = Signals::new().unwrap();
        let first = Instant::now();
        kill_process(getpid(), Sent::TERM).unwrap();
        assert!(timeout(SEEN, signals.another(first)).await.is_err());
        tokio::time::sleep_until(first + TOGETHER).await;
        kill_process(getpid(), Sent::INT).unwrap();
        signals.another(first).await;
    }
}
