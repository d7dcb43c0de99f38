//! Calls of gRPC services outside, in place of calls over NATS.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::by_subject::BySubject;
use crate::call::{Blame, Call, CallError, Code};
use crate::grpc::{Api, Method};
use crate::interfaces::http::tls;
use crate::json::{self, Limits};
use crate::manifest::{App, GrpcAddress};
use crate::plan::{Description, Plan};
use crate::subject;
use crate::wire;

/// Waits between attempts to connect: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_millis(250);

/// Time for which a call whose service cannot be reached is tried again: one that is restarted is back by then.
const UNREACHABLE: Duration = Duration::from_secs(1);

/// How long a connection with calls may be silent before its peer is asked whether it is still there.
const PING: Duration = Duration::from_secs(20);

/// Bytes of a message's prefix: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The most that a header of a call says of its deadline: eight digits of milliseconds.
const MAX_TIMEOUT: u128 = 99_999_999;

/// The functions of an app that gRPC services outside answer, by the subject that they would have here.
#[derive(Default)]
pub(crate) struct Outside(BySubject<Arc<Called>>);

/// A method of a service outside.
pub(super) struct Called {
    address: GrpcAddress,
    path: String,
    method: Arc<Method>,
}

impl Outside {
    pub(crate) fn apply(&self, app: &App, plan: &Plan, components: &BTreeMap<String, Description>) {
        if plan.grpc_calls.is_empty() {
            return self.0.replace(|_| HashMap::new());
        }
        let api = Api::called(app, plan, components);
        let methods = plan.grpc_calls.iter().filter_map(|(function, called)| {
            let (service, method) = api.method_of(function)?;
            let path = format!(
                "/{}/{}",
                called.service.as_deref().unwrap_or(&service),
                called.method.as_deref().unwrap_or(method.name())
            );
            let one = Called {
                address: called.address.clone(),
                path,
                method,
            };
            Some((subject::of_function(&app.name, function), Arc::new(one)))
        });
        self.0.replace(|_| methods.collect());
    }

    /// The method that answers on this subject.
    pub(super) fn of(&self, subject: &str) -> Option<Arc<Called>> {
        self.0.read(subject, Arc::clone)
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// The connections of one worker, one for each address.
#[derive(Default)]
pub(super) struct Connections {
    open: Mutex<HashMap<GrpcAddress, Arc<tokio::sync::Mutex<Option<Sender>>>>>,
    /// What drives them; dropped with this.
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// Spawns what hyper has to do beside a connection, as one of its owner's tasks. Weak, since they hold what
/// holds this.
#[derive(Clone)]
struct Spawn(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade() {
            let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }
}

impl Connections {
    /// The connection to an address, which is made if there is none.
    async fn get(&self, address: &GrpcAddress) -> Result<Sender, String> {
        let place = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(open.entry(address.clone()).or_default())
        };
        let mut place = place.lock().await;
        if let Some(sender) = place.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let sender = self.connect(address).await?;
        *place = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self, address: &GrpcAddress) -> Result<Sender, String> {
        let host = address.host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, address.port)).await;
        let stream = stream.map_err(|error| error.to_string())?;
        // Each call is one small write.
        let _ = stream.set_nodelay(true);
        if !address.tls {
            return self.begin(stream).await;
        }
        let config = tls::config().map_err(|error| error.to_string())?;
        let mut config = (*config).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await;
        self.begin(stream.map_err(|error| error.to_string())?).await
    }

    async fn begin<S>(&self, stream: S) -> Result<Sender, String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let spawn = Spawn(Arc::downgrade(&self.tasks));
        let made = http2::Builder::new(spawn.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = made.map_err(|error| error.to_string())?;
        hyper::rt::Executor::execute(&spawn, async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a gRPC service ended badly");
            }
        });
        Ok(sender)
    }
}

/// Calls a method and waits for its response until the deadline.
pub(super) async fn call(
    connections: &Connections,
    called: &Called,
    call: Call,
    limit: usize,
) -> Result<Bytes, CallError> {
    let (method, to) = (&called.method, &called.path);
    let limits = Limits {
        bytes: limit,
        ..Limits::default()
    };
    let arguments = json::decode_arguments(&call.body, &method.signature, &limits);
    let arguments = arguments.map_err(CallError::bad_arguments)?;
    let message = method.encode_request(arguments, limit);
    let message = message.map_err(CallError::request_too_large)?;
    let answer = tokio::time::timeout_at(
        call.deadline.into(),
        exchange(connections, called, &call, &message, limit),
    );
    let answer = answer.await.unwrap_or_else(|_| {
        let why = format_args!("{}{to} did not answer in time", called.address);
        Err(CallError::no_reply_in_time(why))
    })?;
    let bad = |why: &dyn std::fmt::Display| {
        CallError::bad_reply(format_args!("{}{to} answered with {why}", called.address))
    };
    let result = method.decode_response(&answer, limit);
    let result = result.map_err(|error| bad(&error))?;
    let body = json::encode_result(result.as_ref(), &method.signature, &limits);
    body.map(Bytes::from)
        .map_err(|error| match error.is_too_large() {
            true => CallError::result_too_large(error),
            false => bad(&error),
        })
}

/// Sends the request, anew while its service cannot be reached, and reads the answer's message.
async fn exchange(
    connections: &Connections,
    called: &Called,
    call: &Call,
    message: &[u8],
    limit: usize,
) -> Result<Bytes, CallError> {
    let until = Instant::now() + UNREACHABLE;
    let mut retry = FIRST_RETRY;
    loop {
        let why = match connections.get(&called.address).await {
            Ok(mut sender) => {
                let request = request(called, call, message)?;
                match sender.try_send_request(request).await {
                    Ok(response) => return read(called, response, limit).await,
                    Err(mut error) => {
                        let unsent = error.take_message().is_some();
                        let error = error.into_error();
                        if !unsent {
                            let why = format_args!("{}: {error}", called.address);
                            return Err(CallError::unavailable(why));
                        }
                        error.to_string()
                    }
                }
            }
            Err(error) => error,
        };
        if Instant::now() + retry >= until {
            let why = format_args!("{} cannot be reached: {why}", called.address);
            return Err(CallError::no_responders(why));
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

fn request(
    called: &Called,
    call: &Call,
    message: &[u8],
) -> Result<Request<Full<Bytes>>, CallError> {
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(message);
    let GrpcAddress { tls, host, port } = &called.address;
    let scheme = if *tls { "https" } else { "http" };
    let left = call.time_left().as_millis().clamp(1, MAX_TIMEOUT);
    let mut request = Request::post(format!("{scheme}://{host}:{port}{}", called.path))
        .header(TE, "trailers")
        .header(CONTENT_TYPE, "application/grpc")
        .header(USER_AGENT, concat!("wasmbay/", env!("CARGO_PKG_VERSION")))
        .header("grpc-timeout", format!("{left}m"));
    let trace = [
        (wire::TRACEPARENT, &call.trace.parent),
        (wire::TRACESTATE, &call.trace.state),
        (wire::BAGGAGE, &call.trace.baggage),
    ];
    for (name, value) in trace {
        // What came in a header of NATS may be none of HTTP.
        let value = value
            .as_ref()
            .and_then(|value| HeaderValue::try_from(value).ok());
        if let Some(value) = value {
            request = request.header(HeaderName::from_static(name), value);
        }
    }
    let request = request.body(Full::new(body.freeze()));
    request.map_err(CallError::defect)
}

/// Reads an answer to its end: its one message, or the error that its status is.
async fn read(
    called: &Called,
    response: http::Response<Incoming>,
    limit: usize,
) -> Result<Bytes, CallError> {
    let at = |why: &dyn std::fmt::Display| format!("{}{}: {why}", called.address, called.path);
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(CallError::bad_reply(at(&format_args!(
            "HTTP {}",
            head.status
        ))));
    }
    let mut came = BytesMut::new();
    let mut trailers = head.headers;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| CallError::unavailable(at(&error)))?;
        match frame.into_data() {
            Ok(data) if came.len() + data.len() > limit.saturating_add(PREFIX) => {
                let why = format_args!("the response has more than {limit} bytes");
                return Err(CallError::result_too_large(at(&why)));
            }
            Ok(data) => came.extend_from_slice(&data),
            Err(frame) => {
                if let Ok(ended) = frame.into_trailers() {
                    trailers.extend(ended);
                }
            }
        }
    }
    if let Some(error) = failure(&trailers) {
        return Err(error.within(format_args!("{}{}", called.address, called.path)));
    }
    let bad = |why: &str| CallError::bad_reply(at(&why));
    if came.len() < PREFIX {
        return Err(bad("no message"));
    }
    let (flag, length) = (came.get_u8(), came.get_u32() as usize);
    if flag != 0 {
        return Err(bad("a compressed message, which was not asked for"));
    }
    if came.len() != length {
        return Err(bad("what is not exactly one message"));
    }
    Ok(came.freeze())
}

/// The error that a status is; nothing if the call succeeded.
fn failure(trailers: &HeaderMap) -> Option<CallError> {
    let status = trailers
        .get("grpc-status")
        .and_then(|status| status.to_str().ok());
    let message = trailers
        .get("grpc-message")
        .and_then(|message| message.to_str().ok());
    let message = percent_decode_str(message.unwrap_or_default()).decode_utf8_lossy();
    let Some(status) = status else {
        return Some(CallError::bad_reply("an answer without a status of gRPC"));
    };
    let (code, blame) = match status {
        "0" => return None,
        "3" | "9" | "11" => (Code::BadArguments, Blame::Caller),
        "4" => (Code::Deadline, Blame::Guest),
        "8" => (Code::Overloaded, Blame::Guest),
        "12" => (Code::NotFound, Blame::Caller),
        "14" => (Code::Unavailable, Blame::Network),
        _ => (Code::Dependency, Blame::Guest),
    };
    Some(CallError::new(
        code,
        blame,
        format!("gRPC status {status}: {message}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::convert::Infallible;

    use futures_util::stream;
    use http::Response;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioExecutor;
    use tokio::net::TcpListener;

    use crate::manifest::Manifest;
    use crate::plan::plan;
    use crate::shape::InterfaceDescription;

    /// A method of a service on this port: `get: func(n: u8) -> result<u8, string>`.
    fn called(port: u16) -> Arc<Called> {
        let text = format!(
            "name = 'app'\n[service.one]\ncomponent = 'x'\n[wire.'a:b/c']\nexternal = 'grpc://127.0.0.1:{port}'\n\
             proto-service = 'their.Own'\nmethods = {{ get = 'Fetch' }}\n"
        );
        let app = Manifest::parse("wasmbay.toml".as_ref(), &text).unwrap().app;
        let get = "func(n: u8) -> result<u8, string>".parse().unwrap();
        let import = InterfaceDescription {
            id: "a:b/c@1.0.0".parse().unwrap(),
            functions: [("get".to_owned(), get)].into(),
            types: BTreeMap::new(),
        };
        let component = Description {
            imports: vec![import],
            ..Description::default()
        };
        let components = [("one".to_owned(), component)].into();
        let plan = plan(&app, &components).unwrap();
        let outside = Outside::default();
        outside.apply(&app, &plan, &components);
        assert!(outside.of("bay.app.a.b.c.v1.other").is_none());
        outside.of("bay.app.a.b.c.v1.get").unwrap()
    }

    /// What a service answers.
    #[derive(Clone)]
    struct Script {
        status: u16,
        headers: &'static [(&'static str, &'static str)],
        body: Vec<u8>,
        trailers: &'static [(&'static str, &'static str)],
    }

    const GOOD: &[(&str, &str)] = &[("grpc-status", "0")];

    fn script(body: &[u8]) -> Script {
        Script {
            status: 200,
            headers: &[("content-type", "application/grpc")],
            body: body.to_vec(),
            trailers: GOOD,
        }
    }

    /// A service that answers each call so, for as long as a test runs.
    async fn serve(listener: TcpListener, script: Script) {
        let answer = move |request: Request<Incoming>| {
            let script = script.clone();
            async move {
                assert_eq!(request.uri().path(), "/their.Own/Fetch");
                assert_eq!(request.headers()["te"], "trailers");
                assert!(
                    request.headers()["grpc-timeout"]
                        .to_str()
                        .unwrap()
                        .ends_with('m')
                );
                let mut trailers = HeaderMap::new();
                for (name, value) in script.trailers {
                    trailers.insert(*name, HeaderValue::from_static(value));
                }
                let frames = [
                    Frame::data(Bytes::from(script.body)),
                    Frame::trailers(trailers),
                ];
                let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
                let mut response = Response::builder().status(script.status);
                for (name, value) in script.headers {
                    response = response.header(*name, *value);
                }
                Ok::<_, Infallible>(response.body(body).unwrap())
            }
        };
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(answer.clone());
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    }

    fn asked() -> Call {
        Call::new(Bytes::from_static(b"{\"n\":3}"), Duration::from_secs(5))
    }

    /// The result of a call that is answered so, as text.
    async fn answered(script: Script) -> Result<String, (u16, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let called = called(listener.local_addr().unwrap().port());
        let connections = Connections::default();
        let calling = call(&connections, &called, asked(), 100);
        let answer = tokio::select! {
            answer = calling => answer,
            () = serve(listener, script) => unreachable!(),
        };
        let text = answer.map(|body| String::from_utf8(body.to_vec()).unwrap());
        text.map_err(|error| (error.code.status(), error.message))
    }

    #[tokio::test]
    async fn an_answer_is_a_result() {
        let ok = answered(script(&[0, 0, 0, 0, 2, 0x08, 0x07])).await;
        assert_eq!(ok.unwrap(), r#"{"ok":7}"#);
        let err = answered(script(&[0, 0, 0, 0, 3, 0x12, 0x01, b'x'])).await;
        assert_eq!(err.unwrap(), r#"{"err":"x"}"#);
    }

    #[tokio::test]
    async fn what_is_no_answer_is_the_services_fault() {
        let good = script(&[0, 0, 0, 0, 2, 0x08, 0x07]);
        for (script, code, part) in [
            (script(&[]), 502, "no message"),
            (script(&[0, 0, 0]), 502, "no message"),
            (script(&[0, 0, 0, 0, 9, 8]), 502, "exactly one message"),
            (
                script(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                502,
                "exactly one message",
            ),
            (script(&[1, 0, 0, 0, 1, 0]), 502, "compressed"),
            (script(&[0, 0, 0, 0, 1, 0x08]), 502, "ok: expected a varint"),
            (
                script(&[0, 0, 0, 0, 3, 0x08, 0x80, 0x02]),
                502,
                "ok: expected u8",
            ),
            (script(&[0, 0, 0, 0, 0]), 502, "expected one of ok, err"),
            (script(&[0; 200]), 413, "more than 100 bytes"),
            (
                Script {
                    trailers: &[],
                    ..good.clone()
                },
                502,
                "without a status",
            ),
            (
                Script {
                    trailers: &[("grpc-status", "8"), ("grpc-message", "full")],
                    ..good.clone()
                },
                429,
                "gRPC status 8: full",
            ),
            (
                Script {
                    status: 503,
                    ..good.clone()
                },
                502,
                "HTTP 503",
            ),
        ] {
            let (found, message) = answered(script).await.unwrap_err();
            assert!(
                found == code && message.contains(part),
                "{found} {message}: {part}"
            );
        }
    }

    #[tokio::test]
    async fn a_service_that_is_away_is_tried_again_and_then_said_to_be() {
        // A port that was free a moment ago.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (called, connections) = (called(port), Connections::default());
        let error = call(&connections, &called, asked(), 100).await.unwrap_err();
        assert!(
            error.undelivered && error.code == Code::Unavailable,
            "{error}"
        );
        assert!(error.message.contains("cannot be reached"), "{error}");
        // It comes while it is called.
        let late = async {
            tokio::time::sleep(LAST_RETRY).await;
            let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
            serve(listener, script(&[0, 0, 0, 0, 2, 0x08, 0x07])).await;
        };
        tokio::select! {
            answer = call(&connections, &called, asked(), 100) => drop(answer.unwrap()),
            () = late => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_service_that_does_not_answer_has_the_calls_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let called = called(listener.local_addr().unwrap().port());
        let mut asked = asked();
        asked.deadline = Instant::now() + Duration::from_millis(100);
        let error = call(&Connections::default(), &called, asked, 100)
            .await
            .unwrap_err();
        assert_eq!(error.code, Code::Deadline, "{error}");
    }

    #[test]
    fn every_status_is_an_error_of_a_call() {
        let failure = |status: &'static str| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(status));
            trailers.insert("grpc-message", HeaderValue::from_static("no%20room%0A"));
            failure(&trailers).map(|error| (error.code.status(), error.message))
        };
        assert_eq!(failure("0"), None);
        for (status, code) in [
            ("1", 502),
            ("3", 400),
            ("4", 504),
            ("5", 502),
            ("8", 429),
            ("12", 404),
            ("13", 502),
            ("14", 503),
            ("16", 502),
            ("x", 502),
        ] {
            let (found, message) = failure(status).unwrap();
            assert_eq!(found, code, "{status}");
            assert_eq!(message, format!("gRPC status {status}: no room\\n"));
        }
        let nothing = super::failure(&HeaderMap::new()).unwrap();
        assert_eq!(nothing.code, Code::Dependency);
    }
}
