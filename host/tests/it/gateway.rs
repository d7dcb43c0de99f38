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
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use wasmbay::build::{Guest, Tools};
use wasmbay::call::{Blame, Call, CallError, Code};
use wasmbay::deployment::{Current, Deployment};
use wasmbay::gateway::{Gateway, IDLE, LINGER};
use wasmbay::host::{Host, HostOptions};
use wasmbay::interface::InterfaceId;
use wasmbay::interfaces::Backend;
use wasmbay::manifest::{App, GatewaySpec};
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
async fn one_connection_too_many_waits_for_its_place() {
    let front = Front::start(|spec| spec.connections = 1).await;
    let mut first = http1::<Full<Bytes>>(front.connect().await).await;
    let request = || {
        Request::get("/travels")
            .header(HOST, "test")
            .body(Full::default())
            .unwrap()
    };
    assert_eq!(first.send_request(request()).await.unwrap().status(), 200);
    let mut second = http1::<Full<Bytes>>(front.connect().await).await;
    let mut waiting = Box::pin(second.send_request(request()));
    assert!(
        timeout(Duration::from_millis(300), &mut waiting)
            .await
            .is_err()
    );
    assert_eq!(first.send_request(request()).await.unwrap().status(), 200);
    drop(first);
    let answered = timeout(DEADLINE, waiting).await.unwrap().unwrap();
    assert_eq!(answered.status(), 200);
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
        trap.starts_with("service \"echo\": the service trapped: "),
        "{trap}"
    );
    let silent = front.get("/http/silent").await.error(500, "guest");
    assert_eq!(silent, "service \"echo\": it ended without a response");
    let started = Instant::now();
    let spin = front.get("/http/spin").await.error(504, "guest");
    assert_eq!(spin, "service \"echo\": it did not end within its time");
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
    assert_eq!(host.stop(DEADLINE).await, 0);
    for flood in floods {
        assert!(flood.await.unwrap() > 0);
    }
    nats.stop().await;
}
