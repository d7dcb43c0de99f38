//! The gateway over real sockets: what a client sees, and every limit gone over.

pub(crate) mod auth;
mod browsers;
pub(crate) mod clients;
pub(crate) mod components;
mod followed;
mod grpc;
mod grpc_web;
mod life;
mod limits;
pub(crate) mod tls;
mod traces;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use wasmbay::build::{Guest, Tools};
use wasmbay::call::{Blame, Call, CallError, Code};
use wasmbay::deployment::{Current, Deployment};
use wasmbay::gateway::{Gateway, IDLE, LINGER, MAX_HEADERS, RESERVE, Tls};
use wasmbay::host::{Host, HostOptions};
use wasmbay::interface::InterfaceId;
use wasmbay::interfaces::{Backend, Feed, FeedEvent, Pending, Source};
use wasmbay::manifest::{GatewaySpec, Manifest, RpcPaths};
use wasmbay::nats::{ConnectOptions, Link, settled};
use wasmbay::plan::Event;
use wasmbay::plan::{Description, plan};
use wasmbay::runtime::{Component, Engine, EngineOptions, Runtime, Service};
use wasmbay::shape::InterfaceDescription;

use crate::support::apps::{Services, apply};
use crate::support::components::GUEST;
use crate::support::nats::Nats;
use crate::support::raw::let_in;
use crate::support::{DEADLINE, until, until_ok};

const ROUTES: &str = r#"
name = "app"
[service.fake]
component = "fake.wasm"
[[route]]
method = "POST"
path = "/echo/{id}"
call = "test:fake/api.echo"
[[route]]
method = "GET"
path = "/travels"
call = "test:fake/api.travels"
[[route]]
method = "GET"
path = "/fail/{code}"
call = "test:fake/api.fail"
[[route]]
method = "GET"
path = "/never"
call = "test:fake/api.never"
[[route]]
method = "POST"
path = "/take"
call = "test:fake/api.take"
status = 201
errors = { too-few = 409 }
"#;

const FUNCTIONS: [(&str, &str); 6] = [
    ("claims", "func() -> string"),
    ("echo", "func(id: string, note: string) -> string"),
    ("travels", "func() -> string"),
    ("fail", "func(code: u16)"),
    ("never", "func()"),
    ("take", "func(count: u32) -> result<u32, enum { too-few }>"),
];

/// Answers the functions above as their names say.
#[derive(Default)]
struct Fake {
    /// Calls of `never` so far.
    never: AtomicUsize,
    /// What comes to the next one who follows.
    says: Mutex<Vec<Result<FeedEvent, CallError>>>,
}

impl Backend for Fake {
    fn call<'a>(
        &'a self,
        subject: &'a str,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send + 'a>> {
        let function = subject.strip_prefix("bay.app.test.fake.api.v1.");
        let function = function.unwrap_or_else(|| panic!("{subject}"));
        Box::pin(async move {
            match function {
                "echo" => Ok(call.body),
                "claims" => Ok(json!(call.claims.as_deref()).to_string().into()),
                "travels" => Ok(Bytes::from(
                    json!({
                        "parent": call.trace.parent,
                        "state": call.trace.state,
                        "baggage": call.trace.baggage,
                        "caller": call.caller,
                        "claims": call.claims.as_deref(),
                        "hops": call.hops,
                        "left": u64::try_from(call.time_left().as_millis()).unwrap(),
                    })
                    .to_string(),
                )),
                "fail" => {
                    let arguments: Value = serde_json::from_slice(&call.body).unwrap();
                    let code = u16::try_from(arguments["code"].as_u64().unwrap()).unwrap();
                    let code = Code::from_status(code).unwrap();
                    Err(CallError::new(code, Blame::Guest, "as asked"))
                }
                "never" => {
                    self.never.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep_until(call.deadline.into()).await;
                    let why = "no reply in time";
                    Err(CallError::new(Code::Deadline, Blame::Network, why))
                }
                "take" => {
                    let arguments: Value = serde_json::from_slice(&call.body).unwrap();
                    Ok(match arguments["count"].as_u64() {
                        Some(0) => Bytes::from_static(br#"{"err":"too-few"}"#),
                        _ => Bytes::from_static(br#"{"ok":5}"#),
                    })
                }
                other => panic!("{other}"),
            }
        })
    }

    fn follow(&self, source: Source, _: Option<u64>) -> Pending<'_, Box<dyn Feed>> {
        assert_eq!(source.subject, "bay.app.test.fake.api.v1.published");
        let says = std::mem::take(&mut *self.says.lock().unwrap());
        Box::pin(async { Ok(Box::new(followed::Says(says, None)) as _) })
    }

    fn publish<'a>(
        &'a self,
        event: Event,
    ) -> Pin<Box<dyn Future<Output = Result<(), CallError>> + Send + 'a>> {
        assert_eq!(event.subject, "bay.app.test.fake.api.v1.published");
        Box::pin(async move {
            match &*event.call.body {
                br#"{"what":"news"}"# => Ok(()),
                _ => Err(CallError::new(
                    Code::Unavailable,
                    Blame::Network,
                    "not stored",
                )),
            }
        })
    }
}

/// A gateway on a port of its own.
struct Front {
    gateway: Arc<Gateway>,
    fake: Arc<Fake>,
    current: Arc<Current>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

/// A connection to NATS that never gets through.
async fn no_nats() -> Link {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ConnectOptions::to(listener.local_addr().unwrap().to_string());
    // It gets through once.
    let (link, stream) = tokio::join!(options.link(), let_in(&listener));
    drop((stream, listener));
    let link = link.unwrap();
    until("the connection is lost", || !link.is_connected()).await;
    link
}

impl Front {
    async fn start(change: impl FnOnce(&mut GatewaySpec)) -> Self {
        let front = Self::bare(change, no_nats().await);
        front.set_routes(ROUTES, &BTreeMap::new());
        front
    }

    /// A gateway as the manifest has it.
    async fn of(manifest: &str) -> Self {
        let read = Manifest::parse(Path::new("wasmbay.toml"), manifest);
        let spec = read.unwrap_or_else(|error| panic!("{error}")).app.gateway;
        let front = Self::bare(|own| *own = spec, no_nats().await);
        front.set_routes(manifest, &BTreeMap::new());
        front
    }

    /// Without routes.
    fn bare(change: impl FnOnce(&mut GatewaySpec), link: Link) -> Self {
        Self::bare_with(change, link, None)
    }

    fn bare_with(change: impl FnOnce(&mut GatewaySpec), link: Link, tls: Option<Tls>) -> Self {
        let mut spec = GatewaySpec::default();
        change(&mut spec);
        let current = Arc::new(Current::default());
        let gateway = Gateway::new("app", spec, Arc::clone(&current)).with_tls(tls);
        let gateway = Arc::new(gateway);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Arc::new(Fake::default());
        let serving = Arc::clone(&gateway).serve(listener, Arc::clone(&fake) as _, link);
        Self {
            gateway,
            fake,
            current,
            address,
            serving: tokio::spawn(serving),
        }
    }

    fn set_routes(&self, manifest: &str, services: &BTreeMap<String, Arc<Service>>) {
        let app = Manifest::parse(Path::new("wasmbay.toml"), manifest)
            .unwrap()
            .app;
        let functions = FUNCTIONS.map(|(name, ty)| (name.to_owned(), ty.parse().unwrap()));
        let id: InterfaceId = "test:fake/api@1.0.0".parse().unwrap();
        let api = InterfaceDescription {
            id: id.clone(),
            functions: functions.into(),
            types: BTreeMap::new(),
        };
        let published = (
            "published".to_owned(),
            "func(what: string)".parse().unwrap(),
        );
        let events = InterfaceDescription {
            id,
            functions: [published].into(),
            types: BTreeMap::new(),
        };
        let describe = |name: &String| {
            let only = |wanted: &str, interface: &InterfaceDescription| {
                let interface = (name == wanted).then(|| interface.clone());
                interface.into_iter()
            };
            let component = Description {
                exports: only("fake", &api).collect(),
                imports: only("asker", &api)
                    .chain(only("publisher", &events))
                    .collect(),
                http: services.contains_key(name),
                ..Description::default()
            };
            (name.clone(), component)
        };
        let components = app.services.keys().map(describe).collect();
        let plan = plan(&app, &components).unwrap_or_else(|errors| panic!("{errors:?}"));
        let deployment = Deployment::new(&app, plan, services.clone());
        self.current.swap(deployment.described_by(components));
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends one request on a connection of its own.
    async fn send(&self, request: http::request::Builder, body: &str) -> Reply {
        let request = request
            .header(HOST, "test")
            .body(Full::from(body.to_owned()))
            .unwrap();
        let mut sender = http1(self.connect().await).await;
        Reply::of(sender.send_request(request).await.unwrap()).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path), "").await
    }

    /// Writes these bytes and returns all that comes back until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        until_closed(&mut stream).await
    }
}

async fn until_closed(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset is an end as well: the server does not read what it has refused.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut all))
        .await
        .unwrap();
    String::from_utf8(all).unwrap()
}

async fn http1<B>(stream: TcpStream) -> hyper::client::conn::http1::SendRequest<B>
where
    B: hyper::body::Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

async fn http2(stream: TcpStream) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let io = TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

struct Reply {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    async fn of(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = timeout(DEADLINE, body.collect())
            .await
            .unwrap()
            .unwrap()
            .to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Checks that this is an error as the contract has it, and returns the message.
    #[track_caller]
    fn error(&self, status: u16, blame: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header(CONTENT_TYPE), "application/json");
        let error = self.json()["error"].take();
        assert_eq!(
            (&error["code"], &error["blame"]),
            (&json!(status), &json!(blame))
        );
        error["message"].as_str().unwrap().to_owned()
    }
}

/// A client that keeps its connection where the server lets it, as pooled clients do.
struct Pooled<'f> {
    front: &'f Front,
    kept: Option<hyper::client::conn::http1::SendRequest<Full<Bytes>>>,
    connections: usize,
}

impl Pooled<'_> {
    async fn send(&mut self, request: http::request::Builder, body: Vec<u8>) -> Reply {
        let mut sender = match self.kept.take() {
            Some(sender) => sender,
            None => {
                self.connections += 1;
                http1(self.front.connect().await).await
            }
        };
        let request = request.header(HOST, "t").body(Full::from(body)).unwrap();
        let response = timeout(DEADLINE, sender.send_request(request)).await;
        let reply = Reply::of(response.unwrap().unwrap()).await;
        if reply.header(CONNECTION) != "close" {
            timeout(DEADLINE, sender.ready()).await.unwrap().unwrap();
            self.kept = Some(sender);
        }
        reply
    }
}

#[tokio::test]
async fn requests_become_calls_on_one_connection() {
    let front = Front::start(|_| {}).await;
    let mut sender = http1(front.connect().await).await;
    for id in ["a", "b%20c"] {
        let request = Request::post(format!("/echo/{id}"))
            .header(HOST, "test")
            .body(Full::from("\"hi\""))
            .unwrap();
        let reply = Reply::of(sender.send_request(request).await.unwrap()).await;
        let id = id.replace("%20", " ");
        assert_eq!(reply.body, format!(r#"{{"id":"{id}","note":"hi"}}"#));
        assert_eq!(
            (reply.status, reply.header(CONTENT_TYPE)),
            (200, "application/json")
        );
    }
    let created = front.send(Request::post("/take"), "3").await;
    assert_eq!((created.status, created.body.as_str()), (201, "5"));
    let refused = front.send(Request::post("/take"), "0").await;
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (409, "\"too-few\"")
    );
}

#[tokio::test]
async fn http2_is_served_to_clients_that_begin_with_it() {
    let front = Front::start(|_| {}).await;
    let io = TokioIo::new(front.connect().await);
    let (sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io)
            .await
            .unwrap();
    tokio::spawn(connection);
    let requests = (0..50).map(|id| {
        let mut sender = sender.clone();
        async move {
            let uri = format!("http://test/echo/{id}");
            let request = Request::post(uri).body(Full::from("\"hi\"")).unwrap();
            let reply = Reply::of(sender.send_request(request).await.unwrap()).await;
            assert_eq!(reply.body, format!(r#"{{"id":"{id}","note":"hi"}}"#));
            assert!(!reply.headers.contains_key(CONNECTION));
        }
    });
    futures_util::future::join_all(requests).await;
    let mut sender = sender;
    let head = Request::head("http://test/travels")
        .body(Full::default())
        .unwrap();
    let reply = Reply::of(sender.send_request(head).await.unwrap()).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert!(reply.header(CONTENT_LENGTH).parse::<u32>().unwrap() > 0);
    // GOAWAY, and the connection ends.
    front.gateway.close();
    timeout(DEADLINE, front.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn head_has_the_headers_and_no_body() {
    let front = Front::start(|_| {}).await;
    let raw = b"HEAD /travels HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let reply = front.raw(raw).await;
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.contains("\r\ncontent-length: "), "{reply}");
    assert!(reply.ends_with("\r\n\r\n"), "{reply}");
}

#[tokio::test]
async fn errors_have_one_form() {
    let front = Front::start(|_| {}).await;
    for code in [400, 404, 413, 429, 500, 502, 503, 504, 508] {
        let reply = front.get(&format!("/fail/{code}")).await;
        assert_eq!(reply.error(code, "guest"), "as asked");
        let retry = if matches!(code, 429 | 503) { "1" } else { "" };
        assert_eq!(reply.header(RETRY_AFTER), retry);
    }
    front.get("/nowhere").await.error(404, "caller");
    let reply = front.send(Request::delete("/take"), "").await;
    reply.error(405, "caller");
    assert_eq!(reply.header(ALLOW), "POST");
    let text = Request::post("/take").header(CONTENT_TYPE, "text/plain");
    front.send(text, "3").await.error(415, "caller");
    let message = front
        .send(Request::post("/take"), "{\"a\"")
        .await
        .error(400, "caller");
    assert_eq!(
        message,
        "body: $: expected u32 (0 to 4294967295), found an object"
    );
}

#[tokio::test]
async fn functions_are_called_at_their_rpc_path() {
    let front = Front::start(|_| {}).await;
    let reply = front
        .send(Request::post("/rpc/test:fake/api/echo"), "[1]")
        .await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "[1]"));
    let reply = front
        .send(
            Request::post("/rpc/test:fake/api@1.0.0/take"),
            r#"{"count":0}"#,
        )
        .await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (200, r#"{"err":"too-few"}"#)
    );
    let reply = front
        .send(Request::post("/rpc/test:fake/api/echo"), "")
        .await;
    assert_eq!((reply.status, reply.body.as_str()), (204, ""));
    front
        .send(Request::post("/rpc/test:fake/api/none"), "")
        .await
        .error(404, "caller");
}

#[tokio::test]
async fn rpc_paths_can_be_turned_off() {
    let front = Front::start(|spec| spec.rpc = RpcPaths::None).await;
    let echo = Request::post("/rpc/test:fake/api/echo");
    let message = front.send(echo, "[1]").await.error(404, "caller");
    assert!(message.contains("`[gateway] rpc` is false"), "{message}");
    assert_eq!(front.get("/travels").await.status, 200);

    let only = "test:fake/api".parse().unwrap();
    let front = Front::start(|spec| spec.rpc = RpcPaths::Of(vec![only])).await;
    let echo = Request::post("/rpc/test:fake/api/echo");
    assert_eq!(front.send(echo, "[1]").await.status, 200);
}

#[tokio::test]
async fn a_page_of_another_site_calls_no_function() {
    let front = Front::start(|_| {}).await;
    let paths = [
        ("POST", "/rpc/test:fake/api/take", r#"{"count":3}"#),
        ("POST", "/take", "3"),
        ("GET", "/travels", ""),
    ];
    for (method, path, body) in paths {
        let request = || Request::builder().method(method).uri(path);
        // A form without a type needs no preflight, and a name that leads here is no other origin.
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let reply = front.send(request().header(name, value), body).await;
            let message = reply.error(403, "caller");
            assert_eq!(message, "a page of another origin may not ask here");
        }
        for (name, value) in [
            ("origin", "http://test"),
            ("sec-fetch-site", "same-origin"),
            ("user-agent", "curl/8"),
        ] {
            let reply = front.send(request().header(name, value), body).await;
            assert!(matches!(reply.status, 200 | 201), "{path}: {}", reply.body);
        }
    }
    // What says nothing of the app may be asked from anywhere.
    let health = Request::get("/healthz").header("origin", "https://evil.example");
    assert_eq!(front.send(health, "").await.status, 200);
}

#[tokio::test]
async fn what_is_wired_as_events_is_published() {
    let front = Front::bare(|_| {}, no_nats().await);
    let manifest = r#"
name = "app"
[service.publisher]
component = "publisher.wasm"
[wire."test:fake/api"]
mode = "event"
[[route]]
method = "POST"
path = "/publish"
call = "test:fake/api.published"
"#;
    front.set_routes(manifest, &BTreeMap::new());
    let reply = front.send(Request::post("/publish"), "\"news\"").await;
    assert_eq!((reply.status, reply.body.as_str()), (202, ""));
    let reply = front
        .send(
            Request::post("/rpc/test:fake/api/published"),
            r#"{"what":"news"}"#,
        )
        .await;
    assert_eq!((reply.status, reply.body.as_str()), (202, ""));
    let message = front
        .send(Request::post("/publish"), "1")
        .await
        .error(400, "caller");
    assert_eq!(message, "arguments: $.what: expected string, found 1");
    let other = front.send(Request::post("/publish"), "\"olds\"").await;
    assert_eq!(other.error(503, "network"), "not stored");
}
