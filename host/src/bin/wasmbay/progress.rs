//! What happens while a user waits: bars on a terminal, lines anywhere else.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use wasmbay::registry::Moved;

use crate::report::{self, Terminal, plain, size};

/// Work of which a user may not notice that it was done: nothing is printed for it.
const UNNOTICED: Duration = Duration::from_millis(500);

/// Where progress is shown.
#[derive(Clone)]
pub(crate) struct Progress {
    terminal: Terminal,
    bars: Option<MultiProgress>,
    ends: bool,
}

/// One thing that takes a while.
pub(crate) struct Task {
    progress: Progress,
    name: String,
    bar: Option<ProgressBar>,
    started: Instant,
    noticed: bool,
}

impl Progress {
    /// Bars on a terminal, unless every line is wanted or none.
    pub(crate) fn new(terminal: Terminal) -> Self {
        let bars = std::io::stderr().is_terminal() && !terminal.quiet && !terminal.verbose;
        Self {
            terminal,
            bars: bars.then(MultiProgress::new),
            ends: true,
        }
    }

    /// A line at the beginning, for work whose end is reported elsewhere. Bars would be torn by
    /// what a running host logs.
    pub(crate) fn beginnings(terminal: Terminal) -> Self {
        Self {
            terminal,
            bars: None,
            ends: false,
        }
    }

    pub(crate) fn task(&self, name: impl Into<String>) -> Task {
        Task {
            progress: self.clone(),
            name: name.into(),
            bar: None,
            started: Instant::now(),
            noticed: false,
        }
    }

    /// Says what a user should know of, and what is no error.
    pub(crate) fn warn(&self, what: &str) {
        self.print(&format!("warning: {}", plain(what)));
    }

    /// Prints a line beside what is shown.
    pub(crate) fn print(&self, line: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| {
                self.terminal.note(line);
                // Before the bars are drawn again.
                report::flush();
            }),
            None => self.terminal.note(line),
        }
    }
}

impl Task {
    /// Says what is being done, such as `building`, before it is known how long it takes.
    pub(crate) fn begin(&mut self, doing: &str) {
        let Some(bars) = &self.progress.bars else {
            return;
        };
        let bar = bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {wide_msg:.dim}") {
            bar.set_style(style);
        }
        bar.set_prefix(format!("{doing} {}", self.name));
        bar.enable_steady_tick(Duration::from_millis(100));
        self.bar = Some(bar);
    }

    /// Takes a line of the work's own.
    pub(crate) fn step(&mut self, doing: &str, line: &str) {
        let first = !std::mem::replace(&mut self.noticed, true);
        match &self.bar {
            Some(bar) => bar.set_message(plain(line.trim())),
            None if first => self.progress.print(&format!("{doing} {}", self.name)),
            None => {}
        }
        if self.progress.terminal.verbose {
            self.progress
                .print(&format!("  {}: {}", self.name, plain(line)));
        }
    }

    /// Shows how much was moved of how much, where that can be seen.
    pub(crate) fn moved(&self) -> Option<Moved> {
        let bar = self.bar.clone()?;
        Some(Arc::new(move |done, all| {
            bar.set_message(format!("{} of {}", size(done), size(all)));
        }))
    }

    /// Ends; prints what was done, if it took long enough to wait for.
    pub(crate) fn end(self, done: &str) {
        let took = self.started.elapsed();
        if self.progress.ends && (self.noticed || took >= UNNOTICED) {
            let line = format!("{done} {} in {}", self.name, report::time(took));
            self.progress.print(&line);
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
