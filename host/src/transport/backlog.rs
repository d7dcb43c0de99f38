//! Messages of one subscription that wait for their turn.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::poll::POLL_BUDGET;

/// Messages that wait. Beyond it the oldest is shed, long before the client library would drop
/// messages without a word.
pub(super) const MAX_MESSAGES: usize = 8_192;

/// Bytes of messages that wait; beyond it the same.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// Upper bound of the time for which messages are worked on before the connection reads and writes.
const MAX_BUDGET: Duration = Duration::from_millis(20);

/// The time to work on messages after so much was spent on taking and shedding: as much, so that a flood
/// does not have all of it for being shed.
pub(super) fn work_budget(spent: Duration) -> Duration {
    spent.clamp(POLL_BUDGET, MAX_BUDGET)
}

/// A bounded queue whose members know when they arrived.
pub(super) struct Backlog<M> {
    waiting: VecDeque<Waiting<M>>,
    bytes: usize,
}

struct Waiting<M> {
    arrived: Instant,
    size: usize,
    message: M,
}

impl<M> Backlog<M> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a message of so many bytes.
    pub(super) fn push(&mut self, message: M, size: usize, arrived: Instant) {
        self.bytes += size;
        self.waiting.push_back(Waiting {
            arrived,
            size,
            message,
        });
    }

    /// The oldest message, if there are too many or it has waited for longer than `wait`: it is to be
    /// shed, so that what is served is fresh.
    pub(super) fn shed(&mut self, now: Instant, wait: Duration) -> Option<M> {
        let oldest = self.waiting.front()?;
        let full = self.waiting.len() > MAX_MESSAGES || self.bytes > MAX_BYTES;
        if full || now.saturating_duration_since(oldest.arrived) > wait {
            return self.pop_front().map(|(_, message)| message);
        }
        None
    }

    /// The next message to work on: the oldest. When that has waited for half of `wait` already, more
    /// comes than can be served, and where order means nothing (`unordered`) the newest is next: first
    /// in first out would have every message wait until it is nearly too late.
    pub(super) fn next(
        &mut self,
        now: Instant,
        wait: Duration,
        unordered: bool,
    ) -> Option<(Instant, M)> {
        let oldest = self.waiting.front()?;
        let waited = now.saturating_duration_since(oldest.arrived);
        if unordered && waited > wait / 2 {
            let newest = self.waiting.pop_back()?;
            self.bytes -= newest.size;
            return Some((newest.arrived, newest.message));
        }
        self.pop_front()
    }

    /// All messages, the oldest first.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = M> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|waiting| waiting.message)
    }

    fn pop_front(&mut self) -> Option<(Instant, M)> {
        let oldest = self.waiting.pop_front()?;
        self.bytes -= oldest.size;
        Some((oldest.arrived, oldest.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(500);

    fn backlog(ages: &[u64], now: Instant) -> Backlog<u64> {
        let mut backlog = Backlog::new();
        for age in ages {
            backlog.push(*age, 10, now - Duration::from_millis(*age));
        }
        backlog
    }

    fn order(mut backlog: Backlog<u64>, now: Instant, unordered: bool) -> Vec<u64> {
        std::iter::from_fn(|| backlog.next(now, WAIT, unordered))
            .map(|(_, message)| message)
            .collect()
    }

    #[test]
    fn a_flood_takes_no_more_time_than_the_calls() {
        let shed = Duration::from_millis(7);
        assert_eq!(work_budget(shed), shed);
        assert_eq!(work_budget(Duration::ZERO), POLL_BUDGET);
        // Others of the thread wait meanwhile.
        assert_eq!(work_budget(Duration::from_secs(1)), MAX_BUDGET);
    }

    #[test]
    fn what_came_first_is_first_while_there_is_time() {
        let now = Instant::now();
        assert_eq!(order(backlog(&[30, 20, 10], now), now, true), [30, 20, 10]);
    }

    #[test]
    fn the_newest_is_first_when_the_oldest_is_late() {
        let now = Instant::now();
        assert_eq!(
            order(backlog(&[300, 20, 10], now), now, true),
            [10, 20, 300]
        );
    }

    #[test]
    fn order_is_kept_where_it_means_something() {
        let now = Instant::now();
        assert_eq!(
            order(backlog(&[300, 20, 10], now), now, false),
            [300, 20, 10]
        );
    }

    #[test]
    fn what_has_waited_too_long_is_shed() {
        let now = Instant::now();
        let mut backlog = backlog(&[700, 501, 499], now);
        assert_eq!(backlog.shed(now, WAIT), Some(700));
        assert_eq!(backlog.shed(now, WAIT), Some(501));
        assert_eq!(backlog.shed(now, WAIT), None);
        assert!(!backlog.is_empty());
    }

    #[test]
    fn the_oldest_of_too_many_is_shed() {
        let now = Instant::now();
        let mut backlog = Backlog::new();
        for number in 0..=MAX_MESSAGES {
            backlog.push(number, 1, now);
        }
        assert_eq!(backlog.shed(now, WAIT), Some(0));
        assert_eq!(backlog.shed(now, WAIT), None);
        backlog.push(MAX_MESSAGES + 1, MAX_BYTES, now);
        assert_eq!(backlog.shed(now, WAIT), Some(1));
    }
}
