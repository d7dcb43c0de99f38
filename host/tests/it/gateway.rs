//! The gateway over real sockets: what a client sees, and every limit gone over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use wasmbay::build::{Guest, Tools};
use wasmbay::call::{Blame, Call, CallError, Code};
use wasmbay::deployment::{Current, Deployment};
use wasmbay::gateway::{Gateway, IDLE, LINGER, MAX_HEADERS, RESERVE};
use wasmbay::host::{Host, HostOptions};
use wasmbay::interface::InterfaceId;
use wasmbay::interfaces::Backend;
use wasmbay::manifest::{App, GatewaySpec, RpcPaths};
use wasmbay::nats::{ConnectOptions, settled};
use wasmbay::plan::Event;
use wasmbay::plan::{Description, plan};
use wasmbay::runtime::{Component, Engine, EngineOptions, Runtime, Service};
use wasmbay::shape::InterfaceDescription;

use crate::support::apps::{Services, apply};
use crate::support::components::GUEST;
use crate::support::nats::Nats;
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

const FUNCTIONS: [(&str, &str); 5] = [
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
                "travels" => Ok(Bytes::from(
                    json!({
                        "parent": call.trace.parent,
                        "state": call.trace.state,
                        "baggage": call.trace.baggage,
                        "caller": call.caller,
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
async fn no_nats() -> Client {
    let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
    options.connect("nats://127.0.0.1:9").await.unwrap()
}

impl Front {
    async fn start(change: impl FnOnce(&mut GatewaySpec)) -> Self {
        let front = Self::bare(change, no_nats().await);
        front.set_routes(ROUTES, &BTreeMap::new());
        front
    }

    /// Without routes.
    fn bare(change: impl FnOnce(&mut GatewaySpec), client: Client) -> Self {
        let mut spec = GatewaySpec::default();
        change(&mut spec);
        let current = Arc::new(Current::default());
        let gateway = Arc::new(Gateway::new("app", spec, Arc::clone(&current)));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Arc::new(Fake::default());
        let serving = Arc::clone(&gateway).serve(listener, Arc::clone(&fake) as _, client);
        Self {
            gateway,
            fake,
            current,
            address,
            serving: tokio::spawn(serving),
        }
    }

    fn set_routes(&self, manifest: &str, services: &BTreeMap<String, Arc<Service>>) {
        let app = App::parse(Path::new("wasmbay.toml"), manifest).unwrap();
        let functions = FUNCTIONS.map(|(name, ty)| (name.to_owned(), ty.parse().unwrap()));
        let id: InterfaceId = "test:fake/api@1.0.0".parse().unwrap();
        let api = InterfaceDescription {
            id: id.clone(),
            functions: functions.into(),
        };
        let published = (
            "published".to_owned(),
            "func(what: string)".parse().unwrap(),
        );
        let events = InterfaceDescription {
            id,
            functions: [published].into(),
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
                messages: None,
            };
            (name.clone(), component)
        };
        let components = app.services.keys().map(describe).collect();
        let plan = plan(&app, &components).unwrap_or_else(|errors| panic!("{errors:?}"));
        self.current
            .swap(Deployment::new(&app, plan, services.clone()));
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

#[tokio::test]
async fn a_trace_is_carried_on_or_begun() {
    let front = Front::start(|_| {}).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = Request::get("/travels")
        .header("traceparent", parent)
        .header("tracestate", "a=b")
        .header("baggage", "k=v");
    let reply = front.send(request, "").await;
    assert_eq!(reply.header("traceparent"), parent);
    let call = reply.json();
    assert_eq!(call["parent"], parent);
    assert_eq!(
        (&call["state"], &call["baggage"]),
        (&json!("a=b"), &json!("k=v"))
    );
    assert_eq!((&call["hops"], &call["caller"]), (&json!(0), &Value::Null));
    let left = call["left"].as_u64().unwrap();
    assert!((25_000..=30_000).contains(&left), "{left}");

    let request = Request::get("/travels")
        .header("traceparent", "nonsense")
        .header("tracestate", "a=b");
    let reply = front.send(request, "").await;
    let begun = reply.header("traceparent");
    assert_eq!(begun.len(), 55);
    assert_eq!(
        (&reply.json()["parent"], &reply.json()["state"]),
        (&json!(begun), &Value::Null)
    );
    // Errors belong to a trace too.
    assert_eq!(front.get("/nowhere").await.header("traceparent").len(), 55);
}

#[tokio::test]
async fn a_body_above_the_limit_is_not_read() {
    let front = Front::start(|spec| spec.body = 2048).await;
    let fits = format!("\"{}\"", "x".repeat(2046));
    assert_eq!(
        front.send(Request::post("/echo/a"), &fits).await.status,
        200
    );
    // By its announced length, before anything of it is sent.
    let head = b"POST /echo/a HTTP/1.1\r\nHost: test\r\nContent-Length: 2049\r\n\r\n";
    let reply = front.raw(head).await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    assert!(reply.contains(r#"{"error":{"code":413,"message":"the body has more than 2048 bytes","blame":"caller"}}"#), "{reply}");
    // By counting, when there is no length: the end never comes.
    let mut stream = front.connect().await;
    let head = b"POST /echo/a HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).await.unwrap();
    for _ in 0..3 {
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    let reply = until_closed(&mut stream).await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
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
async fn an_answer_before_the_body_costs_a_pooled_client_nothing() {
    let front = Front::start(|spec| spec.body = 1 << 20).await;
    let refused = || {
        [
            (Request::post("/nowhere"), 404),
            (Request::put("/travels"), 405),
            (
                Request::post("/take").header(CONTENT_TYPE, "text/plain"),
                415,
            ),
            (
                Request::post("/take").header("origin", "http://evil.example"),
                403,
            ),
        ]
    };
    // A small rest is read, and the connection kept; a larger one is not, and that is said.
    for (size, kept) in [(20, true), (60 << 10, true), (300 << 10, false)] {
        let mut client = Pooled {
            front: &front,
            kept: None,
            connections: 0,
        };
        for _ in 0..25 {
            for (request, status) in refused() {
                let reply = client.send(request, vec![b'1'; size]).await;
                assert_eq!(reply.status, status, "{}", reply.body);
                let reply = client.send(Request::post("/take"), b"3".to_vec()).await;
                assert_eq!((reply.status, reply.body.as_str()), (201, "5"));
            }
        }
        assert_eq!(client.connections, if kept { 1 } else { 101 }, "{size}");
    }
}

#[tokio::test]
async fn who_sends_all_of_a_large_body_reads_why_it_is_refused() {
    let front = Front::start(|_| {}).await;
    let large = vec![b'x'; 10 << 20];
    // One that looks for no answer before it has sent everything.
    for head in [
        format!("Content-Length: {}\r\n\r\n", large.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", large.len()),
    ] {
        let mut stream = front.connect().await;
        let head = format!("POST /echo/a HTTP/1.1\r\nHost: t\r\n{head}");
        stream.write_all(head.as_bytes()).await.unwrap();
        timeout(DEADLINE, stream.write_all(&large))
            .await
            .unwrap()
            .unwrap();
        let reply = until_closed(&mut stream).await;
        assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
        assert!(reply.contains("\r\nconnection: close\r\n"), "{reply}");
    }
    let mut sender = http2(front.connect().await).await;
    for _ in 0..20 {
        let request = Request::post("http://t/echo/a").body(Full::from(large.clone()));
        let response = timeout(DEADLINE, sender.send_request(request.unwrap())).await;
        Reply::of(response.unwrap().unwrap())
            .await
            .error(413, "caller");
    }
    // And the connection is as good as before.
    let request = Request::get("http://t/travels").body(Full::default());
    assert_eq!(
        sender
            .send_request(request.unwrap())
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_its_body_is_not() {
    let front = Front::start(|_| {}).await;
    let head =
        b"POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let reply = front.raw(head).await;
    assert!(reply.starts_with("HTTP/1.1 404 "), "{reply}");
    assert!(reply.contains("\r\nconnection: close\r\n"), "{reply}");
    let mut stream = front.connect().await;
    let head =
        b"POST /take HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
}

#[tokio::test]
async fn one_that_never_ends_its_body_is_not_read_for_ever() {
    let front = Front::start(|_| {}).await;
    let mut stream = front.connect().await;
    let head = b"POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000000\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while write.write_all(&[b'x'; 64 << 10]).await.is_ok() {
            sent += 64 << 10;
        }
        sent
    });
    let mut reply = Vec::new();
    let _ = timeout(DEADLINE, read.read_to_end(&mut reply))
        .await
        .unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 404 "));
    // 64 MiB are discarded, and some more fit into the buffers of the system.
    let sent = timeout(DEADLINE, sending).await.unwrap().unwrap();
    assert!(sent < 100 << 20, "{sent}");
}

async fn http2(stream: TcpStream) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let io = TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn the_host_has_to_be_named() {
    let front = Front::start(|_| {}).await;
    for (host, status) in [
        ("Host: test:80\r\n", 200),
        ("", 400),
        ("Host: \r\n", 400),
        ("Host: a b\r\n", 400),
        ("Host: a@b\r\n", 400),
        ("Host: test\r\nHost: test\r\n", 400),
    ] {
        for request in ["GET /travels", "POST /rpc/test:fake/api/travels"] {
            let raw = format!("{request} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
            let reply = front.raw(raw.as_bytes()).await;
            let expected = format!("HTTP/1.1 {status} ");
            assert!(reply.starts_with(&expected), "{request} {host:?}: {reply}");
        }
    }
    // Health checks are often made by hand, and HTTP/1.0 had no such header.
    for raw in [
        "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /travels HTTP/1.0\r\n\r\n",
    ] {
        let reply = front.raw(raw.as_bytes()).await;
        assert!(reply.contains(" 200 OK\r\n"), "{raw:?}: {reply}");
    }
}

#[tokio::test]
async fn http2_has_the_limits_of_headers_as_well() {
    let front = Front::start(|_| {}).await;
    let mut sender = http2(front.connect().await).await;
    for (count, status) in [(MAX_HEADERS, 200), (MAX_HEADERS + 1, 431)] {
        let mut request = Request::get("http://t/travels");
        for number in 0..count {
            request = request.header(format!("x-{number}"), "1");
        }
        let response = sender
            .send_request(request.body(Full::default()).unwrap())
            .await;
        let reply = Reply::of(response.unwrap()).await;
        assert_eq!(reply.status, status, "{}", reply.body);
    }
}

#[tokio::test]
async fn a_byte_order_mark_is_no_part_of_a_body() {
    let front = Front::start(|_| {}).await;
    let reply = front.send(Request::post("/echo/a"), "\u{feff}\"hi\"").await;
    assert_eq!(reply.body, r#"{"id":"a","note":"hi"}"#);
    let echo = Request::post("/rpc/test:fake/api/echo");
    assert_eq!(front.send(echo, "\u{feff}[1]").await.body, "[1]");
    let twice = front
        .send(Request::post("/echo/a"), "\u{feff}\u{feff}\"hi\"")
        .await;
    twice.error(400, "caller");
}

#[tokio::test]
async fn headers_above_the_limits_are_refused() {
    let front = Front::start(|spec| spec.header = 8 << 10).await;
    let long = format!(
        "GET /travels HTTP/1.1\r\nHost: test\r\nX: {}\r\n\r\n",
        "x".repeat(9 << 10)
    );
    let reply = front.raw(long.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 431 "), "{reply}");
    let many: String = (0..101).map(|i| format!("X-{i}: 1\r\n")).collect();
    let reply = front
        .raw(format!("GET /travels HTTP/1.1\r\n{many}\r\n").as_bytes())
        .await;
    assert!(reply.starts_with("HTTP/1.1 431 "), "{reply}");
    let reply = front.raw(b"NONSENSE\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
    assert_eq!(front.get("/travels").await.status, 200);
}

#[tokio::test]
async fn slow_headers_and_idle_connections_do_not_stay() {
    let front = Front::start(|_| {}).await;
    let mut slow = front.connect().await;
    slow.write_all(b"GET /travels HTTP/1.1\r\nHost: te")
        .await
        .unwrap();
    let mut silent = front.connect().await;
    let mut idle = front.connect().await;
    idle.write_all(b"GET /travels HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    tokio::time::pause();
    let started = Instant::now();
    assert_eq!(until_none(&mut slow).await, "");
    assert_eq!(until_none(&mut silent).await, "");
    until_none(&mut idle).await;
    let took = started.elapsed();
    assert!(
        took >= IDLE - Duration::from_secs(1) && took < IDLE * 2,
        "{took:?}"
    );
}

/// As [`until_closed`], while time is paused and only timers of the server are to run.
async fn until_none(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_request_has_its_time() {
    let front = Front::start(|spec| spec.timeout = Duration::from_millis(200)).await;
    // A call keeps the deadline that the gateway gives it.
    let message = front.get("/never").await.error(504, "network");
    assert_eq!(message, "no reply in time");
    // A body that does not come.
    let head = b"POST /echo/a HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n\"abc";
    let reply = front.raw(head).await;
    assert!(reply.starts_with("HTTP/1.1 504 "), "{reply}");
    assert!(reply.contains("no answer within 200ms"), "{reply}");
}

#[tokio::test]
async fn a_call_waits_no_longer_than_its_service_takes() {
    let front = Front::start(|_| {}).await;
    let own = "component = \"fake.wasm\"\nlimits = { timeout = \"300ms\" }";
    let manifest = ROUTES.replace("component = \"fake.wasm\"", own);
    let engine = Engine::new(EngineOptions {
        instances: 1,
        cache: None,
    })
    .unwrap();
    let component = Arc::new(Component::new(&engine, GUEST.as_bytes()).unwrap());
    let app = App::parse(Path::new("wasmbay.toml"), &manifest).unwrap();
    let spec = Arc::new(app.services["fake"].clone());
    let runtime = Runtime::new(engine).unwrap();
    let service = Arc::new(Service::new(&runtime, "app", component, spec).unwrap());
    front.set_routes(&manifest, &[("fake".to_owned(), service)].into());
    // The service's time, and a second for the way.
    let call = front.get("/travels").await.json();
    let rpc = Request::post("/rpc/test:fake/api/travels");
    for call in [call, front.send(rpc, "").await.json()] {
        let left = call["left"].as_u64().unwrap();
        assert!((300..=1300).contains(&left), "{left}");
    }
    // As when the reply was lost.
    let started = Instant::now();
    front.get("/never").await.error(504, "network");
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(1300) && took < DEADLINE,
        "{took:?}"
    );
}

/// Connects from another loopback address, as another peer.
async fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Sends a request on a connection of its own that may be closed at any time.
async fn get_on(stream: TcpStream, path: &str) -> Reply {
    let request = Request::get(path).header(HOST, "test");
    let request = request.body(Full::<Bytes>::default()).unwrap();
    Reply::of(http1(stream).await.send_request(request).await.unwrap()).await
}

/// How many of these connections the server has closed.
fn closed(streams: &[TcpStream]) -> usize {
    let ended = |stream: &&TcpStream| {
        let read = stream.try_read(&mut [0; 64]);
        !matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    streams.iter().filter(ended).count()
}

#[tokio::test]
async fn slow_clients_do_not_keep_others_out() {
    let front = Front::start(|spec| (spec.connections, spec.peer_connections) = (20, 10)).await;
    let mut slow = Vec::new();
    // Of one peer, and then of so many that the bound of all is reached as well.
    for peer in [1, 2, 3, 4] {
        for _ in 0..25 {
            let mut stream = connect_from(peer, front.address).await;
            let head = b"POST /take HTTP/1.1\r\nHost: te";
            stream.write_all(head).await.unwrap();
            slow.push(stream);
        }
        let own = connect_from(peer, front.address).await;
        assert_eq!(get_on(own, "/travels").await.status, 200, "{peer}");
        let other = connect_from(9, front.address).await;
        assert_eq!(get_on(other, "/travels").await.status, 200, "{peer}");
        let health = connect_from(9, front.address).await;
        assert_eq!(get_on(health, "/healthz").await.status, 200, "{peer}");
    }
    let deadline = Instant::now() + DEADLINE;
    while closed(&slow) < 80 {
        assert!(
            Instant::now() < deadline,
            "{} of 100 are closed",
            closed(&slow)
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The peer that came last keeps what is its own but for the few that made room.
    assert!(closed(&slow[75..]) < 25);
}

#[tokio::test]
async fn the_longest_idle_connection_makes_room() {
    let front = Front::start(|spec| (spec.connections, spec.peer_connections) = (2, 2)).await;
    let request = || {
        let request = Request::get("/travels").header(HOST, "test");
        request.body(Full::<Bytes>::default()).unwrap()
    };
    let mut first = http1(front.connect().await).await;
    let mut second = http1(front.connect().await).await;
    for sender in [&mut second, &mut first] {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let response = sender.send_request(request()).await.unwrap();
        assert_eq!(Reply::of(response).await.status, 200);
    }
    assert_eq!(front.get("/travels").await.status, 200);
    timeout(DEADLINE, async { while second.ready().await.is_ok() {} })
        .await
        .unwrap();
    assert_eq!(first.send_request(request()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn where_all_connections_are_busy_health_checks_are_answered() {
    let front = Front::start(|spec| {
        (spec.connections, spec.peer_connections) = (2, 2);
    })
    .await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut stream = front.connect().await;
        let head =
            "POST /take HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // It is asked for its body, so the request is running.
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        busy.push(stream);
    }
    // Those that take up the reserve and ask nothing make room as well.
    let mut slow = Vec::new();
    for _ in 0..RESERVE * 2 {
        slow.push(front.connect().await);
    }
    let reply = front.get("/travels").await;
    assert_eq!(reply.error(503, "host"), "all connections are busy");
    assert_eq!(reply.header(RETRY_AFTER), "1");
    assert_eq!(reply.header(CONNECTION), "close");
    for _ in 0..RESERVE * 2 {
        let health = front.get("/healthz").await;
        assert_eq!((health.status, health.header(CONNECTION)), (200, "close"));
    }
    assert_eq!(front.get("/readyz").await.json()["nats"], false);
    for mut stream in busy {
        stream.write_all(b"3").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 201");
    }
    assert_eq!(front.get("/travels").await.status, 200);
    assert!(closed(&slow) >= RESERVE);
}

#[tokio::test]
async fn a_gateway_that_closes_answers_what_has_come() {
    let front = Front::start(|spec| spec.timeout = Duration::from_millis(500)).await;
    let request = |path: &str| {
        Request::get(path)
            .header(HOST, "t")
            .body(Full::default())
            .unwrap()
    };
    let mut busy = http1::<Full<Bytes>>(front.connect().await).await;
    let mut idle = http1::<Full<Bytes>>(front.connect().await).await;
    assert_eq!(
        idle.send_request(request("/travels"))
            .await
            .unwrap()
            .status(),
        200
    );
    let running = tokio::spawn(async move { busy.send_request(request("/never")).await });
    until("the request is under way", || {
        front.fake.never.load(Ordering::SeqCst) == 1
    })
    .await;
    front.gateway.close();
    // An idle connection may bring one more request; its reply says that it was the last.
    let last = Reply::of(idle.send_request(request("/readyz")).await.unwrap()).await;
    assert_eq!((last.status, last.header(CONNECTION)), (503, "close"));
    assert_eq!(last.json()["reason"], "shutting down");
    let running = Reply::of(running.await.unwrap().unwrap()).await;
    assert_eq!((running.status, running.header(CONNECTION)), (504, "close"));
    timeout(DEADLINE, front.serving).await.unwrap().unwrap();
    TcpStream::connect(front.address).await.unwrap_err();
}

#[tokio::test]
async fn routes_are_replaced_while_requests_flow() {
    let front = Front::bare(|_| {}, no_nats().await);
    assert_eq!(front.get("/healthz").await.status, 200);
    let message = front.get("/travels").await.error(503, "host");
    assert_eq!(message, "nothing is served yet");
    front.set_routes(ROUTES, &BTreeMap::new());
    let mut sender = http1::<Full<Bytes>>(front.connect().await).await;
    for round in 0..20 {
        let request = Request::get("/travels")
            .header(HOST, "t")
            .body(Full::default())
            .unwrap();
        let expected = if round % 2 == 0 { 200 } else { 404 };
        assert_eq!(
            sender.send_request(request).await.unwrap().status(),
            expected
        );
        let other = ROUTES.replace("/travels", "/moved");
        front.set_routes(
            if round % 2 == 0 { &other } else { ROUTES },
            &BTreeMap::new(),
        );
    }
}

#[tokio::test]
async fn every_request_is_logged_by_its_route() {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter("gateway=info")
        .with_writer(move || writer.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let front = Front::start(|_| {}).await;
    // A test on another thread may be the first to meet this record, and tracing then caches for a
    // while that no subscriber wants it.
    let deadline = Instant::now() + DEADLINE;
    while lines
        .0
        .lock()
        .unwrap()
        .iter()
        .filter(|b| **b == b'\n')
        .count()
        != 2
    {
        assert!(Instant::now() < deadline, "nothing is logged");
        tracing::callsite::rebuild_interest_cache();
        lines.0.lock().unwrap().clear();
        let echo = Request::post("/echo/secret?token=secret");
        front.send(echo, "\"secret\"").await;
        front.get("/secret").await;
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].contains("method=POST route=\"/echo/{id}\" status=200 duration="),
        "{text}"
    );
    assert!(
        lines[1].contains("method=GET route=\"-\" status=404 duration="),
        "{text}"
    );
    assert!(lines[0].contains(" trace=\""), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn ready_means_nats_and_a_responder_for_everything() {
    let nats = Nats::start().await;
    let front = Front::bare(|_| {}, nats.connect().await);
    let reply = front.get("/readyz").await;
    assert_eq!(
        (reply.status, &reply.json()["reason"]),
        (503, &json!("nothing is served yet"))
    );
    front.set_routes(ROUTES, &BTreeMap::new());
    let ready = json!({"ready": true, "nats": true, "missing": [], "unknown": []});
    let reply = front.get("/readyz").await;
    assert_eq!((reply.status, reply.json()), (200, ready.clone()));

    // Answered from outside, by no responder yet: a plain NATS program would look the same.
    let external = ROUTES.replace("service.fake", "service.asker")
        + "[wire.\"test:fake/api\"]\nexternal = true\n";
    front.set_routes(&external, &BTreeMap::new());
    let reply = front.get("/readyz").await;
    assert_eq!(
        (
            reply.status,
            reply.json()["unknown"].as_array().unwrap().len()
        ),
        (200, 5)
    );

    // One that introduces itself is known, and missed when it is gone.
    let client = nats.connect().await;
    let mut questions = client.subscribe("$SRV.INFO").await.unwrap();
    settled(&client).await.unwrap();
    let endpoints: Vec<_> = FUNCTIONS
        .iter()
        .map(|(name, _)| json!({"name": name, "subject": format!("bay.app.test.fake.api.v1.{name}")}))
        .collect();
    let answer = Bytes::from(json!({"name": "native", "endpoints": endpoints}).to_string());
    let introduces = tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            client
                .publish(question.reply.unwrap(), answer.clone())
                .await
                .unwrap();
        }
    });
    until_readyz(&front, |status, readiness| {
        status == 200 && *readiness == ready
    })
    .await;
    introduces.abort();
    until_readyz(&front, |status, readiness| {
        let missing = readiness["missing"].as_array().unwrap();
        status == 503 && missing.len() == 5 && missing.contains(&json!("test:fake/api.take@1.0.0"))
    })
    .await;

    nats.stop().await;
    until_readyz(&front, |status, readiness| {
        status == 503 && readiness["nats"] == false
    })
    .await;
    assert_eq!(front.get("/healthz").await.status, 200);
}

async fn until_readyz(front: &Front, holds: impl Fn(u16, &Value) -> bool) {
    until_ok("readiness is as wanted", async || {
        let reply = front.get("/readyz").await;
        if holds(reply.status, &reply.json()) {
            Ok(())
        } else {
            Err((reply.status, reply.body))
        }
    })
    .await;
}

const HTTP: &str = r#"
name = "app"
[service.fake]
component = "fake.wasm"
[service.echo]
component = "echo.wasm"
limits = { timeout = "1s" }
[[route]]
path = "/http/*"
service = "echo"
[[route]]
method = "GET"
path = "/http/function"
call = "test:fake/api.travels"
"#;

/// A gateway with the guest `http-echo` under `/http/`.
async fn with_http() -> Front {
    let front = Front::bare(|spec| spec.body = 1 << 20, no_nats().await);
    let component = tokio::task::spawn_blocking(|| {
        let host = Path::new(env!("CARGO_MANIFEST_DIR"));
        let guest = Guest::open(&host.join("../guests/rust/http-echo")).unwrap();
        guest
            .build(&Tools::near(host), &mut |_| {})
            .unwrap_or_else(|error| panic!("{error}"))
    })
    .await
    .unwrap();
    let engine = Engine::new(EngineOptions {
        instances: 20,
        cache: None,
    })
    .unwrap();
    let component = Arc::new(Component::load(&engine, &component).unwrap());
    let app = App::parse(Path::new("wasmbay.toml"), HTTP).unwrap();
    let spec = Arc::new(app.services["echo"].clone());
    let service = Service::new(&Runtime::new(engine).unwrap(), "app", component, spec).unwrap();
    front.set_routes(HTTP, &[("echo".to_owned(), Arc::new(service))].into());
    front
}

#[tokio::test]
async fn an_http_component_answers_below_its_prefix() {
    let front = with_http().await;
    let reply = front.send(Request::post("/http/a%20b?c=d"), "hello").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "hello"));
    assert_eq!(reply.header("x-path"), "/http/a%20b?c=d");
    assert_eq!(reply.header("traceparent").len(), 55);
    for method in ["GET", "DELETE", "PROPFIND"] {
        let reply = front
            .send(Request::builder().method(method).uri("/http"), "")
            .await;
        assert_eq!(
            (reply.status, reply.header("x-path")),
            (200, "/http"),
            "{method}"
        );
    }
    let head = b"HEAD /http/x HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let reply = front.raw(head).await;
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\n"), "{reply}");
    // A route of its own comes before the prefix.
    assert!(front.get("/http/function").await.json()["left"].is_u64());
    // Many at a time, fresh and reused instances alike.
    let many = (0..40).map(|i| {
        let (front, body) = (&front, format!("{i}"));
        async move { assert_eq!(front.send(Request::put("/http/x"), &body).await.body, body) }
    });
    futures_util::future::join_all(many).await;
}

#[tokio::test]
async fn an_http_components_bodies_are_streamed() {
    let front = with_http().await;
    let (pieces, body) = tokio::sync::mpsc::channel::<Bytes>(1);
    let stream = futures_util::stream::unfold(body, |mut body| async move {
        let piece = body.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Frame::data(piece)), body))
    });
    let mut sender = http1(front.connect().await).await;
    let request = Request::post("/http/x")
        .header(HOST, "t")
        .body(StreamBody::new(stream));
    let response = sender.send_request(request.unwrap()).await.unwrap();
    let mut body = response.into_body();
    // Each piece comes back before the next is sent.
    for i in 0..5 {
        let piece = Bytes::from(format!("piece {i}").repeat(100));
        pieces.send(piece.clone()).await.unwrap();
        let mut back = Vec::new();
        while back.len() < piece.len() {
            let frame = timeout(DEADLINE, body.frame())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            back.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(back, piece);
    }
    drop(pieces);
    assert!(body.frame().await.is_none());

    let large = "x".repeat(1 << 20);
    assert_eq!(
        front
            .send(Request::post("/http/x"), &large)
            .await
            .body
            .len(),
        large.len()
    );
    let larger = "x".repeat((1 << 20) + 1);
    let head = format!(
        "POST /http/x HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n",
        larger.len()
    );
    let reply = front.raw(head.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
    // Without a length it breaks off where it exceeds the limit.
    let pieces = futures_util::stream::iter((0..20).map(|_| {
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b'x'; 64 << 10])))
    }));
    let mut sender = http1(front.connect().await).await;
    let request = Request::post("/http/x")
        .header(HOST, "t")
        .body(StreamBody::new(pieces));
    if let Ok(response) = sender.send_request(request.unwrap()).await {
        timeout(DEADLINE, response.into_body().collect())
            .await
            .unwrap()
            .unwrap_err();
    }
}

#[tokio::test]
async fn what_an_http_component_does_wrong_is_its_own_error() {
    let front = with_http().await;
    let trap = front.get("/http/trap").await.error(500, "guest");
    assert!(
        trap.starts_with("service \"echo\": wasi:http/incoming-handler.handle@")
            && trap.contains(": the service trapped: "),
        "{trap}"
    );
    let silent = front.get("/http/silent").await.error(500, "guest");
    assert!(
        silent.ends_with(": it ended without a response"),
        "{silent}"
    );
    let started = Instant::now();
    let spin = front.get("/http/spin").await.error(504, "guest");
    assert!(spin.contains(": no result within "), "{spin}");
    assert!(started.elapsed() < DEADLINE);
    // After the head there is no other way to say it than to break off.
    let request = Request::get("/http/break")
        .header(HOST, "t")
        .body(Full::<Bytes>::default());
    let mut sender = http1(front.connect().await).await;
    let response = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap_err();
    // And the next request finds a working instance.
    assert_eq!(front.send(Request::post("/http/x"), "on").await.body, "on");
    // A guest that still runs when the gateway closes is waited for.
    front.gateway.close();
    timeout(DEADLINE, front.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_component_that_ignores_the_body_costs_a_pooled_client_nothing() {
    let front = with_http().await;
    for size in [20, 60 << 10, 300 << 10] {
        let mut client = Pooled {
            front: &front,
            kept: None,
            connections: 0,
        };
        for _ in 0..10 {
            for (path, status) in [("trap", 500), ("status?200", 200), ("status?503", 503)] {
                let path = format!("/http/{path}");
                let reply = client.send(Request::post(path), vec![b'1'; size]).await;
                assert_eq!(reply.status, status, "{}", reply.body);
                let reply = client.send(Request::post("/http/x"), b"on".to_vec()).await;
                assert_eq!((reply.status, reply.body.as_str()), (200, "on"));
            }
        }
        assert!(
            size > 100 << 10 || client.connections == 1,
            "{size}: {}",
            client.connections
        );
    }
}

#[tokio::test]
async fn a_component_answers_with_a_status_as_http_has_it() {
    let front = with_http().await;
    let mut http2 = http2(front.connect().await).await;
    let mut http1 = Pooled {
        front: &front,
        kept: None,
        connections: 0,
    };
    // No content goes with these, though the guest writes some, and the connection is kept.
    for status in [204, 304, 200, 599] {
        let uri = format!("http://t/http/status?{status}");
        let request = Request::get(uri).body(Full::default()).unwrap();
        let response = timeout(DEADLINE, http2.send_request(request)).await;
        let over_http2 = Reply::of(response.unwrap().unwrap()).await;
        let request = Request::get(format!("/http/status?{status}"));
        let body = if status < 300 && status != 204 || status == 599 {
            "as asked"
        } else {
            ""
        };
        for reply in [over_http2, http1.send(request, Vec::new()).await] {
            assert_eq!((reply.status, reply.body.as_str()), (status, body));
        }
    }
    assert_eq!(http1.connections, 1);
    for status in [101, 103] {
        let reply = front.get(&format!("/http/status?{status}")).await;
        let message = reply.error(500, "guest");
        assert!(
            message.starts_with("service \"echo\": it answered with 10"),
            "{message}"
        );
        assert!(message.ends_with("which is no final status"), "{message}");
    }
    let raw = b"GET /http/x HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n";
    let reply = front.raw(raw).await;
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
    assert!(reply.contains(r#""blame":"caller""#), "{reply}");
}

const GUEST_ROUTE: &str = r#"
[[route]]
method = "POST"
path = "/echo"
call = "test:guest/api.echo"
[[route]]
method = "GET"
path = "/check/{number}"
call = "test:guest/api.check"
"#;

/// Sends requests on kept connections until the gateway takes no more. Returns the number of those
/// that were answered, and fails the test for one that was not.
async fn flood(
    address: SocketAddr,
    stopping: Arc<OnceLock<Instant>>,
    all: Arc<AtomicUsize>,
) -> usize {
    let mut answered = 0;
    loop {
        let Ok(stream) = TcpStream::connect(address).await else {
            assert!(stopping.get().is_some(), "no connection");
            return answered;
        };
        let mut sender = http1(stream).await;
        let mut fresh = true;
        loop {
            let request = Request::post("/echo").header(HOST, "t");
            let request = request.body(Full::<Bytes>::from("\"hi\"")).unwrap();
            let sent = Instant::now();
            let reply = match sender.send_request(request).await {
                Ok(response) => Reply::of(response).await,
                // The system may have taken a connection that the closing gateway never saw, and
                // this task may have slept for longer than an idle connection is waited for.
                Err(error) => match stopping.get() {
                    Some(since) if fresh || sent > *since + LINGER / 2 => return answered,
                    _ => panic!("request {answered}: {error:?}"),
                },
            };
            assert_eq!((reply.status, reply.body.as_str()), (200, "\"hi\""));
            answered += 1;
            all.fetch_add(1, Ordering::SeqCst);
            fresh = false;
            if reply.header(CONNECTION) == "close" {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_host_answers_while_services_are_replaced_and_until_it_stops() {
    let nats = Nats::start().await;
    let services = |reuse| {
        let lines = if reuse { "" } else { "reuse = 1" };
        Services(Box::leak(Box::new([("guest", GUEST, lines)])), GUEST_ROUTE)
    };
    let engine = Engine::new(EngineOptions {
        instances: 200,
        cache: None,
    })
    .unwrap();
    let options = HostOptions {
        workers: NonZeroUsize::new(2).unwrap(),
        gateway: Some("127.0.0.1:0".parse().unwrap()),
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let first = services(true);
    let host = Host::start(&first.app(), engine, options).await.unwrap();
    apply(&host, &first).await.unwrap();
    let address = host.gateway().unwrap();
    let ask = async |request: http::request::Builder| {
        let mut sender = http1(TcpStream::connect(address).await.unwrap()).await;
        let request = request.header(HOST, "t").body(Full::<Bytes>::default());
        Reply::of(sender.send_request(request.unwrap()).await.unwrap()).await
    };
    assert_eq!(ask(Request::get("/readyz")).await.status, 200);
    let check = async |number| {
        let reply = ask(Request::get(format!("/check/{number}"))).await;
        (reply.status, reply.body)
    };
    assert_eq!(check(5).await, (200, "5".to_owned()));
    assert_eq!(check(15).await, (422, "15".to_owned()));
    let trapped = ask(Request::post("/rpc/test:guest/api/trap")).await;
    assert!(
        trapped
            .error(500, "guest")
            .starts_with("service \"guest\": ")
    );

    let stopping = Arc::new(OnceLock::new());
    let answered = Arc::new(AtomicUsize::new(0));
    let floods: Vec<_> = (0..8)
        .map(|_| {
            let (stopping, answered) = (Arc::clone(&stopping), Arc::clone(&answered));
            tokio::spawn(flood(address, stopping, answered))
        })
        .collect();
    for round in 0..6 {
        let before = answered.load(Ordering::SeqCst);
        until("requests flow", || {
            answered.load(Ordering::SeqCst) > before + 50
        })
        .await;
        apply(&host, &services(round % 2 == 1)).await.unwrap();
    }
    stopping.set(Instant::now()).unwrap();
    assert!(host.stop(DEADLINE).await.is_complete());
    for flood in floods {
        assert!(flood.await.unwrap() > 0);
    }
    nats.stop().await;
}
