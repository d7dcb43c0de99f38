//! WASI 0.2 with nothing granted: no files, no sockets, no environment. What a guest prints becomes
//! log records.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

use crate::manifest::ServiceSpec;
use crate::telemetry;
use crate::text::one_line;

/// Bytes of a guest's line that become a log record; the rest of a longer line is dropped.
pub(super) const MAX_LINE: usize = 8 << 10;

/// A context that grants nothing and logs what the guest prints, with the service's name.
pub(crate) fn context(spec: &Arc<ServiceSpec>) -> WasiCtx {
    let output = |stream| Output {
        spec: Arc::clone(spec),
        stream,
    };
    WasiCtxBuilder::new()
        .stdout(output("stdout"))
        .stderr(output("stderr"))
        .allow_tcp(false)
        .allow_udp(false)
        .build()
}

/// One of a guest's output streams.
#[derive(Clone)]
struct Output {
    spec: Arc<ServiceSpec>,
    stream: &'static str,
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Lines {
            output: self.clone(),
            partial: Vec::new(),
        })
    }
}

/// Turns bytes into log records, a line each.
struct Lines {
    output: Output,
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
        let (service, stream) = (&*self.output.spec.name, self.output.stream);
        if !line.trim().is_empty() {
            tracing::info!(target: telemetry::GUEST, service, stream, "{line}");
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
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::manifest::{Grants, Limits};

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

    #[test]
    fn what_a_guest_prints_becomes_a_record_for_each_line() {
        let spec = ServiceSpec {
            name: "guest".into(),
            config: BTreeMap::new(),
            limits: Limits::default(),
            reuse: 1,
            grants: Grants::default(),
        };
        let output = Output {
            spec: Arc::new(spec),
            stream: "stdout",
        };
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut lines = Lines {
                output,
                partial: Vec::new(),
            };
            lines.take(b"one\ntw");
            lines.take(b"o\n\nwithout an end");
        });
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
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
}
