//! WASI 0.2: files of granted folders, sockets to granted endpoints, and of the environment what the manifest gives.
//! The output of a guest becomes log records.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

use super::files::Folders;
use super::sockets::Sockets;
use super::{Output, Recorded, Tail, recorded};
use crate::telemetry;
use crate::text::one_line;

/// Upper bound of the bytes of a guest's line in a log record; the rest of a longer line is dropped.
pub(super) const MAX_LINE: usize = 8 << 10;

/// Bytes of randomness that one call returns, as many as `crypto.getRandomValues` of browsers. A call
/// does not yield, and 64 MiB, wasmtime's own bound, took more than a second.
pub(crate) const MAX_RANDOM: u64 = 64 << 10;

/// A context that grants nothing but these variables, arguments, folders and sockets, and logs what the guest prints, with the service's
/// name. Time and random are those of a pipeline's run if it is for one; of a job's run the last lines are kept.
pub(crate) fn context(
    output: &Arc<Output>,
    (env, args): (&BTreeMap<String, String>, &[String]),
    (recorded, tail): (Option<&Arc<Recorded>>, Option<&Arc<Tail>>),
    (sockets, used): (&Arc<Sockets>, &Arc<AtomicBool>),
    folders: &Folders,
) -> WasiCtx {
    let printed = |stream| Printed {
        output: Arc::clone(output),
        recorded: recorded.cloned(),
        tail: tail.cloned(),
        stream,
    };
    let mut context = WasiCtxBuilder::new();
    if let Some(recorded) = recorded {
        recorded::record(&mut context, recorded);
    }
    for (name, value) in env {
        context.env(name, value);
    }
    if !args.is_empty() {
        // The first is the program's own name, which programs leave out.
        context.arg(output.service()).args(args);
    }
    folders.grant(&mut context, output);
    sockets.grant(&mut context, used);
    context
        .stdout(printed("stdout"))
        .stderr(printed("stderr"))
        .max_random_size(MAX_RANDOM)
        .build()
}

/// One of a guest's output streams.
#[derive(Clone)]
struct Printed {
    output: Arc<Output>,
    recorded: Option<Arc<Recorded>>,
    tail: Option<Arc<Tail>>,
    stream: &'static str,
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Lines {
            printed: self.clone(),
            partial: Vec::new(),
        })
    }
}

/// Turns bytes into log records, a line each.
struct Lines {
    printed: Printed,
    partial: Vec<u8>,
}

impl Lines {
    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.append(line);
            self.emit();
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.partial.len());
        self.partial.extend(bytes.iter().take(room));
    }

    fn emit(&mut self) {
        let text = String::from_utf8_lossy(&self.partial);
        let line = one_line(text.trim_end(), MAX_LINE);
        let Printed {
            output,
            recorded,
            tail,
            stream,
        } = &self.printed;
        let is_replaying = recorded.as_ref().is_some_and(|run| run.is_replaying());
        let is_empty = line.trim().is_empty();
        if let Some(tail) = tail.as_ref().filter(|_| !is_empty) {
            tail.push(&line);
        }
        if !is_empty && !is_replaying && output.admits(line.len()) {
            let (app, service) = (output.app(), output.service());
            let run = tail.as_ref().map(|tail| tail.run());
            tracing::info!(target: telemetry::GUEST, app, service, run, stream, "{line}");
        }
        self.partial.clear();
    }
}

impl AsyncWrite for Lines {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.emit();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::manifest::ServiceSpec;

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The log of what is done with a guest's output.
    fn logged(work: impl FnOnce(Lines)) -> String {
        let spec = ServiceSpec {
            reuse: 1,
            ..ServiceSpec::new("guest")
        };
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let printed = Printed {
                output: Arc::new(Output::new("app", Arc::new(spec))),
                recorded: None,
                tail: None,
                stream: "stdout",
            };
            work(Lines {
                printed,
                partial: Vec::new(),
            });
        });
        let log = log.0.lock().unwrap().clone();
        String::from_utf8(log).unwrap()
    }

    #[test]
    fn what_a_guest_prints_becomes_a_record_for_each_line() {
        let log = logged(|mut lines| {
            lines.take(b"one\ntw");
            lines.take(b"o\n\nwithout an end");
        });
        let records: Vec<_> = log.lines().collect();
        assert_eq!(records.len(), 3, "{log}");
        for (record, text) in records.iter().zip(["one", "two", "without an end"]) {
            assert!(record.contains(&format!("guest: {text} ")), "{record}");
            assert!(
                record.contains("service=\"guest\" stream=\"stdout\""),
                "{record}"
            );
        }
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let log = logged(|mut lines| lines.take(&b"x\n".repeat(100_000)));
        let records = log.lines().count();
        // A slow machine may see a few seconds pass.
        assert!((1_001..20_000).contains(&records), "{records}");
        let written = log
            .lines()
            .filter(|line| line.contains("guest: x "))
            .count();
        let dropped = log.lines().filter_map(|line| {
            let (_, lines) = line
                .split_once("output was dropped")?
                .1
                .split_once(" lines=")?;
            lines.split_whitespace().next()?.parse::<usize>().ok()
        });
        assert_eq!(written + dropped.sum::<usize>(), 100_000);
    }
}
