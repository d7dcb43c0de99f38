//! The last lines that a guest has printed.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::text::one_line;

/// Lines that are kept.
const MAX_LINES: usize = 20;

/// Bytes of all of them.
const MAX_BYTES: usize = 4 << 10;

/// Bytes of one.
const MAX_LINE: usize = 1 << 10;

/// The last lines of a job's run, whose id is in the records of its log.
#[derive(Debug)]
pub(crate) struct Tail {
    run: String,
    lines: Mutex<VecDeque<String>>,
}

impl Tail {
    pub(crate) fn new(run: &str) -> Self {
        Self {
            run: run.to_owned(),
            lines: Mutex::default(),
        }
    }

    /// The id of the run.
    pub(crate) fn run(&self) -> &str {
        &self.run
    }

    pub(crate) fn push(&self, line: &str) {
        let mut lines = self.locked();
        lines.push_back(one_line(line, MAX_LINE).into_owned());
        let mut bytes: usize = lines.iter().map(String::len).sum();
        while bytes > MAX_BYTES || lines.len() > MAX_LINES {
            bytes -= lines.pop_front().map_or(bytes, |line| line.len());
        }
    }

    /// The lines, oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.locked().iter().cloned().collect()
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_both_bounds() {
        let tail = Tail::new("r");
        for line in 0..MAX_LINES + 5 {
            tail.push(&line.to_string());
        }
        let lines = tail.lines();
        assert_eq!((lines.len(), &*lines[0]), (MAX_LINES, "5"));
        for _ in 0..10 {
            tail.push(&"x".repeat(MAX_LINE + 9));
        }
        let bytes: usize = tail.lines().iter().map(String::len).sum();
        assert!(
            (MAX_BYTES - MAX_LINE..=MAX_BYTES).contains(&bytes),
            "{bytes}"
        );
    }
}
