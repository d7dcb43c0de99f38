//! What the host itself provides to guests: WASI 0.2 with nothing granted, configuration,
//! logging, output as log records, and HTTP to the hosts that the manifest allows.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime::component::{ComponentType, Lift, Linker};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};
use wasmtime_wasi_config::WasiConfig;
use wasmtime_wasi_http::{RequestOptions, WasiHttpHooks};

use crate::instance::State;
use crate::manifest::ServiceSpec;

/// The longest line of a guest's output that becomes one log record; what is longer is cut there.
const MAX_LINE: usize = 8 << 10;

/// A context that grants nothing: no files, no sockets, no environment, no arguments. What a guest
/// prints becomes log records with the service's name.
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

/// `wasi:config/store` from the manifest.
pub(crate) fn add_config(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_config::add_to_linker(linker, |state| WasiConfig::new(&state.config))
}

/// The levels of `wasi:logging`.
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "guests construct them, by their number")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

/// `wasi:logging/logging`: records with the guest's level and context.
pub(crate) fn add_logging(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker
        .instance("wasi:logging/logging@0.1.0-draft")?
        .func_wrap(
            "log",
            |store: wasmtime::StoreContextMut<'_, State>,
             (level, context, message): (Level, String, String)| {
                let service = &*store.data().spec.name;
                let (context, message) = (one_line(&context), one_line(&message));
                let context = &*context;
                match level {
                    Level::Trace => tracing::trace!(target: "guest", service, context, "{message}"),
                    Level::Debug => tracing::debug!(target: "guest", service, context, "{message}"),
                    Level::Info => tracing::info!(target: "guest", service, context, "{message}"),
                    Level::Warn => tracing::warn!(target: "guest", service, context, "{message}"),
                    Level::Error | Level::Critical => {
                        tracing::error!(target: "guest", service, context, "{message}");
                    }
                }
                Ok(())
            },
        )
}

/// A guest's text as one line of a log: at most [`MAX_LINE`] bytes, control characters escaped, so
/// that it can forge no record of another's.
fn one_line(text: &str) -> Cow<'_, str> {
    let text = text
        .get(..text.floor_char_boundary(MAX_LINE))
        .unwrap_or(text);
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    Cow::Owned(line)
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
        let line = one_line(text.trim_end());
        let (service, stream) = (&*self.output.spec.name, self.output.stream);
        if !line.trim().is_empty() {
            tracing::info!(target: "guest", service, stream, "{line}");
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

/// Outgoing HTTP of one instance: only to the hosts that its service is granted.
pub(crate) struct GuestHttp {
    spec: Arc<ServiceSpec>,
}

impl GuestHttp {
    pub(crate) fn new(spec: Arc<ServiceSpec>) -> Self {
        Self { spec }
    }

    fn allows(&self, uri: &http::Uri) -> bool {
        let default = if uri.scheme_str() == Some("http") {
            80
        } else {
            443
        };
        let port = uri.port_u16().unwrap_or(default);
        uri.host()
            .is_some_and(|host| self.spec.grants.allows_http(host, port))
    }
}

type WasiBody = wasmtime_wasi_http::WasiBody;
type Transfer = Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>;
type Response = Result<(http::Response<WasiBody>, Transfer), wasmtime_wasi_http::Error>;

impl WasiHttpHooks for GuestHttp {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Transfer,
    ) -> Box<dyn Future<Output = Response> + Send> {
        let allowed = self.allows(request.uri());
        if !allowed {
            let service = &*self.spec.name;
            let host = request.uri().host().unwrap_or_default().escape_debug();
            tracing::warn!(service, %host, "outgoing HTTP refused; `grants = {{ http = [\"{host}\"] }}` would allow it");
        }
        Box::new(async move {
            if !allowed {
                return Err(wasmtime_wasi_http::Error::HttpRequestDenied);
            }
            let (response, transfer) =
                wasmtime_wasi_http::default_send_request(request, options).await?;
            let response = response.map(http_body_util::BodyExt::boxed_unsync);
            Ok((response, Box::new(transfer) as Transfer))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::manifest::{Grants, Limits};

    #[test]
    fn a_guests_text_is_one_line_of_bounded_length() {
        assert_eq!(one_line("fine: é"), "fine: é");
        assert_eq!(
            one_line("a\n2026 ERROR forged\r\u{1b}[2J\tb"),
            "a\\n2026 ERROR forged\\r\\u{1b}[2J b"
        );
        assert_eq!(one_line(&"é".repeat(MAX_LINE)).len(), MAX_LINE);
    }

    /// What is logged, to be read again.
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
            component: "guest.wasm".into(),
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
