//! `wasi:http`: what a component answers with, and HTTP to the hosts that the manifest grants.

mod connections;
pub(crate) mod fetch;
pub(crate) mod tls;

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use wasmtime::component::{Linker, Resource, WasmList, WasmStr};
use wasmtime::{AsContext, StoreContextMut};
use wasmtime_wasi_http::p2::HeaderResult;
use wasmtime_wasi_http::p2::bindings::http::types::{self, Host as _, HostFields as _};
use wasmtime_wasi_http::{FieldMap, RequestOptions, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use super::{CurrentCall, Output};
use crate::call::{Blame, Code, Trace};
use crate::manifest::ServiceSpec;
use crate::spans::{Description, Failure, KeyValue, SpanKind, Tracer};
use crate::text::shown;
pub(crate) use connections::Connections;
#[cfg(test)]
pub(crate) use connections::{MAX_REQUESTS, MAX_REQUESTS_TO_ONE};
use fetch::Fetching;
pub use fetch::{Fetch, Fetched};

/// Bytes of a body that a guest can write before the other side has taken some. wasmtime's own 1 MiB
/// would let an instance with a few hundred unsent bodies hold as many MiB of the host's memory.
pub(crate) const BODY_CHUNK: usize = 64 << 10;

/// Fields that a guest can give at a time.
pub(crate) const MAX_FIELDS: usize = 4_096;

/// Bytes of the names and values that a guest can give at a time, as many as wasmtime lets one map
/// have.
pub(crate) const MAX_FIELD_BYTES: usize = 128 << 10;

/// Outgoing HTTP of one instance.
pub(crate) struct GuestHttp {
    service: Arc<ServiceSpec>,
    output: Arc<Output>,
    connections: Arc<Connections>,
    tracer: Arc<Tracer>,
    /// The trace of the call that is being worked on; only where a request can be sent at all.
    trace: Trace,
    /// Where requests go by way of a run's journal.
    fetching: Option<Fetching>,
    /// Whether a request was sent since this was last reset.
    pub(crate) sent: bool,
}

impl GuestHttp {
    pub(crate) fn new(
        service: Arc<ServiceSpec>,
        output: Arc<Output>,
        connections: Arc<Connections>,
        tracer: Arc<Tracer>,
    ) -> Self {
        Self {
            service,
            output,
            connections,
            tracer,
            trace: Trace::default(),
            fetching: None,
            sent: false,
        }
    }

    /// A call begins, perhaps one of a run.
    pub(crate) fn begin(&mut self, call: &CurrentCall, recorded: bool) {
        self.sent = false;
        self.follow(&call.trace);
        if recorded && !self.service.grants.http.is_empty() {
            self.fetching = Some(Fetching::new(call));
        }
    }

    /// From now on requests are of this span.
    pub(crate) fn follow(&mut self, trace: &Trace) {
        if !self.service.grants.http.is_empty() {
            self.trace.clone_from(trace);
        }
    }

    fn allows(&self, uri: &http::Uri) -> bool {
        uri.host()
            .is_some_and(|host| self.service.grants.allows_http(host, port(uri)))
    }
}

/// Adds a trace to a request, unless the guest has one of its own. What else travels with a call
/// (baggage) is for the app's own services.
fn add_trace(trace: &Trace, headers: &mut http::HeaderMap) {
    let Trace { parent, state, .. } = trace;
    if headers.contains_key("traceparent") {
        return;
    }
    for (name, value) in [("traceparent", parent), ("tracestate", state)] {
        if let Some(Ok(value)) = value.as_deref().map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
}

/// What a request's span is of, by OpenTelemetry's conventions for HTTP. The query is left out: it may
/// have secrets.
fn describe(method: &http::Method, uri: &http::Uri, status: Option<u16>) -> Description {
    let (scheme, host) = (
        uri.scheme_str().unwrap_or_default(),
        uri.host().unwrap_or_default(),
    );
    let url = format!(
        "{scheme}://{}{}",
        uri.authority().map_or("", |a| a.as_str()),
        uri.path()
    );
    let mut attributes = vec![
        KeyValue::new("http.request.method", method.to_string()),
        KeyValue::new("server.address", host.to_owned()),
        KeyValue::new("server.port", i64::from(port(uri))),
        KeyValue::new("url.full", url),
    ];
    if let Some(status) = status {
        let status = i64::from(status);
        attributes.push(KeyValue::new("http.response.status_code", status));
    }
    Description {
        kind: SpanKind::Client,
        name: method.to_string().into(),
        attributes,
    }
}

/// A request without an answer, or whose answer is an error: for a client those from 400 on are.
fn failure<'e>(status: Option<u16>, words: Option<&'e str>) -> Option<Failure<'e>> {
    match status {
        Some(status) if status < 400 => None,
        status => Some(Failure {
            code: status.unwrap_or(Code::Unavailable.status()),
            blame: Blame::Network,
            message: words.unwrap_or_default(),
            backtrace: None,
        }),
    }
}

fn port(uri: &http::Uri) -> u16 {
    let http = uri.scheme_str() == Some("http");
    uri.port_u16().unwrap_or(if http { 80 } else { 443 })
}

/// The grant that would allow a request: with a port only where it takes one.
fn grant_for(uri: &http::Uri) -> String {
    let host = shown(uri.host().unwrap_or_default());
    match port(uri) {
        80 | 443 => host.into_owned(),
        port => format!("{host}:{port}"),
    }
}

/// `wasi:http`, with the two functions that take lists of fields bounded before they copy them.
/// wasmtime's own copy all of a list, two allocations for each field, before the limit on its size is
/// looked at: a tenth of a second.
pub(crate) fn add_to_linker<T: WasiHttpView + 'static>(
    linker: &mut Linker<T>,
) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:http/types@0.2.12")?;
    types.func_wrap(
        "[static]fields.from-list",
        |mut store: StoreContextMut<'_, T>, (entries,): (WasmList<(WasmStr, WasmList<u8>)>,)| {
            let mut room = Room::for_fields(entries.len())?;
            let mut fields = Vec::with_capacity(entries.len());
            for at in 0..entries.len() {
                let Some(entry) = entries.get(&mut store, at) else {
                    break;
                };
                let (name, value) = entry?;
                let value = room.copy(&value, &store)?;
                let name = name.to_str(&store)?;
                room.take(name.len())?;
                fields.push((name.into_owned(), value));
            }
            let mut view = store.data_mut().http();
            let fields = view.from_list(fields);
            Ok((or_header_error(view, fields)?,))
        },
    )?;
    types.func_wrap(
        "[method]fields.set",
        |mut store: StoreContextMut<'_, T>,
         (fields, name, values): (Resource<FieldMap>, String, WasmList<WasmList<u8>>)| {
            let mut room = Room::for_fields(values.len())?;
            let mut copies = Vec::with_capacity(values.len());
            for at in 0..values.len() {
                let Some(value) = values.get(&mut store, at) else {
                    break;
                };
                copies.push(room.copy(&value?, &store)?);
            }
            let mut view = store.data_mut().http();
            let set = view.set(fields, name, copies);
            Ok((or_header_error(view, set)?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn or_header_error<T>(
    mut view: WasiHttpCtxView<'_>,
    result: HeaderResult<T>,
) -> wasmtime::Result<Result<T, types::HeaderError>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(view.convert_header_error(error)?)),
    }
}

/// Bytes that a list of header fields may still have.
struct Room(usize);

impl Room {
    fn for_fields(fields: usize) -> wasmtime::Result<Self> {
        if fields > MAX_FIELDS {
            wasmtime::bail!("{fields} header fields are more than the limit of {MAX_FIELDS}");
        }
        Ok(Self(MAX_FIELD_BYTES))
    }

    fn take(&mut self, bytes: usize) -> wasmtime::Result<()> {
        match self.0.checked_sub(bytes) {
            Some(left) => self.0 = left,
            None => {
                wasmtime::bail!(
                    "header fields have more than their limit of {MAX_FIELD_BYTES} bytes"
                )
            }
        }
        Ok(())
    }

    fn copy(&mut self, value: &WasmList<u8>, store: &impl AsContext) -> wasmtime::Result<Vec<u8>> {
        self.take(value.len())?;
        Ok(value.as_le_slice(store).to_vec())
    }
}

type WasiBody = wasmtime_wasi_http::WasiBody;
type Transfer = Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>;
type Response = Result<(http::Response<WasiBody>, Transfer), wasmtime_wasi_http::Error>;

impl WasiHttpHooks for GuestHttp {
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Transfer,
    ) -> Box<dyn Future<Output = Response> + Send> {
        let allowed = self.allows(request.uri());
        self.sent |= allowed;
        if !allowed && self.output.admits(0) {
            let service = &*self.service.name;
            let grant = grant_for(request.uri());
            tracing::warn!(
                service,
                "outgoing HTTP refused; `grants = {{ http = [\"{grant}\"] }}` would allow it"
            );
        }
        let (connections, tracer) = (Arc::clone(&self.connections), Arc::clone(&self.tracer));
        let mut trace = self.trace.clone();
        if allowed && let Some(fetching) = &mut self.fetching {
            let limit = self.service.limits.message;
            let sender = Sender {
                connections,
                tracer,
            };
            return Box::new(fetching.fetch(sender, request, options, limit));
        }
        Box::new(async move {
            if !allowed {
                return Err(wasmtime_wasi_http::Error::HttpRequestDenied);
            }
            let sender = Sender {
                connections,
                tracer,
            };
            let response = sender.send(request, options, &mut trace).await?;
            Ok((response, Box::new(async { Ok(()) }) as Transfer))
        })
    }
}

/// What sends the requests of a service.
#[derive(Clone)]
struct Sender {
    connections: Arc<Connections>,
    tracer: Arc<Tracer>,
}

impl Sender {
    /// Sends a request within a trace, as a span of its own.
    async fn send(
        &self,
        mut request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        trace: &mut Trace,
    ) -> Result<http::Response<WasiBody>, wasmtime_wasi_http::Error> {
        let span = self.tracer.begin(trace, Instant::now());
        add_trace(trace, request.headers_mut());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let response = self.connections.send(request, options).await;
        let status = response
            .as_ref()
            .ok()
            .map(|response| response.status().as_u16());
        let words = response.as_ref().err().map(ToString::to_string);
        span.end(failure(status, words.as_deref()), || {
            describe(&method, &uri, status)
        });
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spans::Spans;

    #[test]
    fn the_grant_that_is_named_allows_the_request() {
        for (uri, grant) in [
            ("http://api.example/a", "api.example"),
            ("https://api.example:443/a", "api.example"),
            ("https://api.example:80/a", "api.example"),
            ("http://api.example:8080/a", "api.example:8080"),
            ("https://127.0.0.1:1/a", "127.0.0.1:1"),
            ("http://[::1]:8080/a", "[::1]:8080"),
            ("http://[::1]/a", "[::1]"),
        ] {
            let uri: http::Uri = uri.parse().unwrap();
            assert_eq!(grant_for(&uri), grant);
            let pattern: crate::manifest::values::HostPattern = grant.parse().unwrap();
            assert!(pattern.matches(uri.host().unwrap(), port(&uri)), "{uri}");
        }
    }

    #[test]
    fn the_trace_of_a_call_goes_on_unless_the_guest_has_its_own() {
        let text = "name = \"app\"\n[service.a]\ncomponent = \"a.wasm\"\ngrants = { http = [\"a.example\"] }";
        let app = crate::manifest::Manifest::parse(std::path::Path::new("wasmbay.toml"), text)
            .unwrap()
            .app;
        let spec = Arc::new(app.services["a"].clone());
        let output = Arc::new(Output::new("app", Arc::clone(&spec)));
        let tracer = Arc::new(Spans::default().tracer("x", "a"));
        let mut http = GuestHttp::new(spec, output, Arc::new(Connections::new()), tracer);
        let trace = Trace {
            baggage: Some("secret=1".to_owned()),
            state: Some("a=b".to_owned()),
            ..Trace::begin(true)
        };
        http.follow(&trace);
        let mut headers = http::HeaderMap::new();
        add_trace(&http.trace, &mut headers);
        assert_eq!(
            headers["traceparent"].to_str().ok(),
            trace.parent.as_deref()
        );
        assert_eq!(headers["tracestate"], "a=b");
        assert_eq!(headers.len(), 2);
        let mut own = http::HeaderMap::new();
        own.insert("traceparent", HeaderValue::from_static("its own"));
        add_trace(&http.trace, &mut own);
        assert_eq!(own.len(), 1);
        http.follow(&Trace::default());
        let mut none = http::HeaderMap::new();
        add_trace(&http.trace, &mut none);
        assert!(none.is_empty());
    }
}
