//! Output of a host that serves: lines go to a thread that writes them, so that a reader that stalls
//! or goes away costs lines, and never the calls of those who print.
//!
//! `tracing-appender` does the same for a log, but prints to stderr itself when its end takes too
//! long, which blocks or panics exactly where this must not.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that wait to be written. What comes beyond is dropped and counted.
pub(crate) const MAX_WAITING: usize = 1 << 20;

/// Time between two attempts on a stream that is set to be non-blocking and full.
const RETRY: Duration = Duration::from_millis(10);

/// The streams of this process, once they are written in the background.
static STREAMS: OnceLock<Streams> = OnceLock::new();

/// Both output streams.
pub(crate) struct Streams {
    pub(crate) stdout: Background,
    pub(crate) stderr: Background,
}

/// Has both streams written in the background from now on.
pub(crate) fn start(json: bool) -> io::Result<()> {
    // Not through the library's own handles, whose locks a write that blocks would hold.
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let streams = Streams {
        stdout: Background::start("stdout", stdout, move |stdout, lines| {
            let text = if json {
                format!(
                    "{}\n",
                    serde_json::json!({ "event": "dropped", "lines": lines })
                )
            } else {
                format!("{lines} lines were dropped here: stdout is read too slowly\n")
            };
            stdout.write(text.as_bytes());
        })?,
        // In the log's own format.
        stderr: Background::start("stderr", stderr, |_, lines| {
            tracing::warn!(lines, "lines were dropped here: stderr is read too slowly");
        })?,
    };
    // Called once; streams that are there already do as well.
    let _ = STREAMS.set(streams);
    Ok(())
}

/// Both streams, if they are written in the background.
pub(crate) fn streams() -> Option<&'static Streams> {
    STREAMS.get()
}

/// A stream that is written by a thread of its own. That thread ends with the process: it may be in a
/// write that never returns.
pub(crate) struct Background {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is waiting.
    waiting: Condvar,
    /// Nothing is waiting any more.
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines that found no room since the thread came last.
    dropped: u64,
    /// The thread has taken what it has not written yet.
    writing: bool,
    /// The reader has gone.
    closed: bool,
}

impl Background {
    /// Starts the thread; `report` is called with the number of lines that were dropped.
    fn start(
        name: &str,
        target: impl Write + Send + 'static,
        report: impl Fn(&Self, u64) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Self {
            shared: Arc::clone(&shared),
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || own.run(target, &report))?;
        Ok(Self { shared })
    }

    /// Takes whole lines. Never blocks for longer than it takes to copy them.
    pub(crate) fn write(&self, lines: &[u8]) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        // Once something was dropped, so is what follows, and the report stands where the gap is.
        let gap = state.dropped > 0 && !state.waiting.is_empty();
        if gap || state.waiting.len() + lines.len() > MAX_WAITING {
            state.dropped += count(lines);
            return;
        }
        state.waiting.extend_from_slice(lines);
        self.shared.waiting.notify_one();
    }

    /// Waits until all is written, or until the deadline.
    pub(crate) fn flush(&self, deadline: Instant) {
        let mut state = self.lock();
        while state.writing || !state.waiting.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return;
            };
            let woken = self.shared.written.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn run(&self, mut target: impl Write, report: &dyn Fn(&Self, u64)) {
        let mut batch = Vec::new();
        loop {
            let dropped = self.take(&mut batch);
            if dropped > 0 {
                report(self, dropped);
            }
            let written = write_all(&mut target, &batch);
            let mut state = self.lock();
            match written {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe) => {
                    state.closed = true;
                    state.waiting = Vec::new();
                }
                // A full disk may have room again.
                Err(_) => state.dropped += count(&batch),
            }
            batch.clear();
            state.writing = false;
            if state.waiting.is_empty() {
                self.shared.written.notify_all();
            }
        }
    }

    /// Waits for something to write; returns how many lines were dropped after it.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            let woken = self.shared.waiting.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.waiting, batch);
        state.writing = true;
        std::mem::take(&mut state.dropped)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

/// As the log's formatter writes: a record at a time.
impl Write for &Background {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        Background::write(self, lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn write_all(target: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match target.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// As long as any of this may take on a machine under load.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Writes nothing before it is let, and then tells what it wrote.
    struct Stalled {
        let_go: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once it was let, it goes on.
            let _ = self.let_go.recv();
            let _ = self.written.send(bytes.to_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stalled() -> (Background, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
        let (go, let_go) = mpsc::channel();
        let (written, read) = mpsc::channel();
        let report = |to: &Background, lines: u64| to.write(format!("[{lines}]\n").as_bytes());
        let target = Stalled { let_go, written };
        let background = Background::start("test", target, report).unwrap();
        (background, go, read)
    }

    #[test]
    fn what_a_stalled_reader_has_no_room_for_is_dropped_and_counted_in_its_place() {
        let (background, go, read) = stalled();
        background.write(b"first\n");
        // The thread is in its write now, with room for everything else.
        while !background.lock().waiting.is_empty() {
            thread::yield_now();
        }
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<_>>();
        let fitting = MAX_WAITING / line.len();
        for _ in 0..fitting + 3 {
            background.write(&line);
        }
        background.write(b"short, but after what was dropped\n");
        assert_eq!(background.lock().waiting.len(), fitting * line.len());
        background.flush(Instant::now());
        drop(go);
        let next = || String::from_utf8(read.recv_timeout(PATIENCE).unwrap()).unwrap();
        assert_eq!(next(), "first\n");
        assert_eq!(next().lines().count(), fitting);
        assert_eq!(next(), "[4]\n");
        background.write(b"again\n");
        assert_eq!(next(), "again\n");
    }

    #[test]
    fn flushing_waits_for_the_last_line() {
        let (background, go, read) = stalled();
        background.write(b"one\n");
        thread::scope(|scope| {
            scope.spawn(|| background.flush(Instant::now() + PATIENCE));
            drop(go);
        });
        assert_eq!(read.try_recv().unwrap(), b"one\n");
    }

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn without_a_reader_nothing_is_kept() {
        let background =
            Background::start("test", Failing(ErrorKind::BrokenPipe), |_, _| {}).unwrap();
        background.write(b"one\n");
        background.flush(Instant::now() + PATIENCE);
        background.write(b"two\n");
        let state = background.lock();
        assert!(state.closed && state.waiting.is_empty());
    }

    #[test]
    fn what_a_full_disk_has_no_room_for_counts_as_dropped() {
        let background =
            Background::start("test", Failing(ErrorKind::StorageFull), |_, _| {}).unwrap();
        background.write(b"one\ntwo\n");
        background.flush(Instant::now() + PATIENCE);
        assert_eq!(background.lock().dropped, 2);
        // And the next line is tried all the same.
        background.write(b"three\n");
        background.flush(Instant::now() + PATIENCE);
        assert_eq!(background.lock().dropped, 1);
    }
}
