//! gRPC, by what no client library would send.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

pub(super) const TAKE: &str = "/test.fake.v1.Api/Take";
/// `count` is 3.
pub(super) const THREE: [u8; 2] = [0x08, 0x03];

pub(super) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[flag], &length.to_be_bytes()[..], message].concat()
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

/// What came back: headers and trailers together, since a refusal has the latter in the former.
pub(super) struct Ended {
    status: u16,
    pub(super) headers: HeaderMap,
    body: Bytes,
}

impl Ended {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The code and the message of a call that came to an end by gRPC's rules.
    #[track_caller]
    pub(super) fn code(&self) -> (&str, String) {
        assert_eq!(self.status, 200, "{:?}", self.headers);
        assert_eq!(self.header("content-type"), "application/grpc");
        let message = percent_encoding::percent_decode_str(self.header("grpc-message"));
        (
            self.header("grpc-status"),
            message.decode_utf8().unwrap().into_owned(),
        )
    }

    #[track_caller]
    pub(super) fn refused(&self, code: &str, part: &str) {
        let (found, message) = self.code();
        assert!(
            found == code && message.contains(part),
            "{found}: {message}"
        );
        assert!(self.body.is_empty());
        let details = STANDARD_NO_PAD.decode(self.header("grpc-status-details-bin"));
        let details = String::from_utf8_lossy(&details.unwrap()).into_owned();
        assert!(
            details.contains("type.googleapis.com/google.rpc.ErrorInfo"),
            "{details}"
        );
        assert!(details.contains("blame"), "{details}");
    }
}

impl Front {
    pub(super) fn grpc(path: &str) -> http::request::Builder {
        Request::post(format!("http://test{path}"))
            .header("te", "trailers")
            .header(CONTENT_TYPE, "application/grpc")
    }

    pub(super) async fn over_http2(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Ended {
        let mut sender = http2(self.connect().await).await;
        let request = request.body(Full::new(body.into())).unwrap();
        let response = timeout(DEADLINE, sender.send_request(request)).await;
        let (head, body) = response.unwrap().unwrap().into_parts();
        let body = timeout(DEADLINE, body.collect()).await.unwrap().unwrap();
        let mut headers = head.headers;
        headers.extend(body.trailers().cloned().unwrap_or_default());
        Ended {
            status: head.status.as_u16(),
            headers,
            body: body.to_bytes(),
        }
    }

    /// Sends these bytes to `take`.
    async fn take(&self, body: impl Into<Bytes>) -> Ended {
        self.over_http2(Self::grpc(TAKE), body).await
    }
}

#[tokio::test]
async fn a_call_has_a_message_and_a_status() {
    let front = Front::start(|_| {}).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let request = Front::grpc(TAKE).header("traceparent", trace);
    let ended = front.over_http2(request, framed(0, &THREE)).await;
    assert_eq!(ended.code(), ("0", String::new()));
    // `ok` is 5.
    assert_eq!(ended.body, framed(0, &[0x08, 0x05]));
    assert_eq!(ended.header("traceparent"), trace);
    // What the function says itself is no failure of the call. `err` is the first case.
    let ended = front.take(framed(0, &[])).await;
    assert_eq!(ended.code(), ("0", String::new()));
    assert_eq!(ended.body, framed(0, &[0x10, 0x01]));
    // The same as `application/grpc+proto`, and one field that the type does not have.
    let request = Front::grpc(TAKE);
    let mut request = request.header("grpc-accept-encoding", "identity");
    let kind = "application/grpc+proto".parse().unwrap();
    request.headers_mut().unwrap().insert(CONTENT_TYPE, kind);
    let unknown = framed(0, &[&THREE[..], &[0x7a, 0x01, 0x00]].concat());
    let ended = front.over_http2(request, unknown).await;
    assert_eq!(ended.body, framed(0, &[0x08, 0x05]));
}

#[tokio::test]
async fn every_failure_has_its_code() {
    let front = Front::start(|_| {}).await;
    for (code, status) in [
        (400_u16, "3"),
        (404, "12"),
        (413, "8"),
        (429, "8"),
        (500, "13"),
        (502, "14"),
        (503, "14"),
        (504, "4"),
        (508, "9"),
    ] {
        let mut message = vec![0x08];
        prost_varint(code.into(), &mut message);
        let request = Front::grpc("/test.fake.v1.Api/Fail");
        let ended = front.over_http2(request, framed(0, &message)).await;
        ended.refused(status, "as asked");
    }
    let request = Front::grpc("/test.fake.v1.Api/Never").header("grpc-timeout", "50m");
    let ended = front.over_http2(request, framed(0, &[])).await;
    ended.refused("4", "no reply in time");
    // A reply that is no result: `echo` answers with its arguments.
    let request = Front::grpc("/test.fake.v1.Api/Echo");
    let ended = front.over_http2(request, framed(0, &[])).await;
    ended.refused("14", "expected string");
}

fn prost_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

#[tokio::test]
async fn frames_that_are_none_are_refused() {
    let front = Front::start(|_| {}).await;
    let two = [framed(0, &THREE), framed(0, &THREE)].concat();
    for (body, code, part) in [
        (Vec::new(), "12", "exactly one message"),
        (two, "12", "exactly one message"),
        (vec![0, 0, 0], "3", "ends within its message"),
        (
            framed(0, &THREE)[..6].to_vec(),
            "3",
            "ends within its message",
        ),
        (framed(7, &THREE), "3", "begins with 7"),
        (framed(1, &THREE), "3", "without grpc-encoding"),
        (framed(0, &[0x0a, 0x01, b'x']), "3", "count: expected u32"),
        (framed(0, &[0x08]), "3", "count: expected a varint"),
        (framed(0, &[0x0f, 0x00]), "3", "message: expected a field"),
    ] {
        front.take(body).await.refused(code, part);
    }
    let request = Front::grpc("/test.fake.v1.Api/Nothing");
    let ended = front.over_http2(request, framed(0, &[])).await;
    ended.refused("12", "no method has the path");
    for (name, value, code, part) in [
        ("grpc-timeout", "soon", "3", "grpc-timeout"),
        ("grpc-timeout", "123456789S", "3", "grpc-timeout"),
        ("grpc-encoding", "br", "12", "accepted: identity, gzip"),
    ] {
        let request = Front::grpc(TAKE).header(name, value);
        let ended = front.over_http2(request, framed(0, &THREE)).await;
        ended.refused(code, part);
    }
    let request =
        Request::post(format!("http://test{TAKE}")).header(CONTENT_TYPE, "application/grpc");
    let ended = front.over_http2(request, framed(0, &THREE)).await;
    ended.refused("3", "te: trailers");
}

#[tokio::test]
async fn messages_are_bounded_compressed_or_not() {
    let front = Front::start(|spec| spec.body = 1_000).await;
    let zipped = |message: &[u8]| {
        let request = Front::grpc(TAKE).header("grpc-encoding", "gzip");
        front.over_http2(request, framed(1, &gzip(message)))
    };
    let ended = zipped(&THREE).await;
    assert_eq!(ended.body, framed(0, &[0x08, 0x05]));
    zipped(&vec![0; 512 << 10])
        .await
        .refused("8", "more when it is unpacked");
    let request = Front::grpc(TAKE).header("grpc-encoding", "gzip");
    let ended = front.over_http2(request, framed(1, &THREE)).await;
    ended.refused("3", "says that it is gzip");
    front
        .take(framed(0, &vec![0; 1_001]))
        .await
        .refused("8", "1005 bytes");
    front
        .take(vec![0, 0xff, 0xff, 0xff, 0xff])
        .await
        .refused("8", "1000 bytes");
    // All of it is sent, and next to nothing is read.
    front
        .take(framed(0, &vec![0; 100 << 20]))
        .await
        .refused("8", "bytes");
    // It goes on.
    assert_eq!(front.take(framed(0, &THREE)).await.code().0, "0");
}

#[tokio::test]
async fn what_is_no_grpc_gets_an_answer_of_http() {
    let front = Front::start(|_| {}).await;
    for kind in [
        "application/grpc-web+json",
        "application/grpc+json",
        "application/grpcx",
    ] {
        let mut request = Front::grpc(TAKE);
        let headers = request.headers_mut().unwrap();
        headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        let ended = front.over_http2(request, framed(0, &THREE)).await;
        assert_eq!(
            (ended.status, ended.header("content-type")),
            (415, "application/json"),
            "{kind}"
        );
    }
    let request = Request::post(TAKE).header(CONTENT_TYPE, "application/grpc");
    let message = front.send(request, "").await.error(505, "caller");
    assert_eq!(
        message,
        "gRPC is taken over HTTP/2 only, gRPC-Web over HTTP/1.1, too"
    );
    let request =
        Request::get(format!("http://test{TAKE}")).header(CONTENT_TYPE, "application/grpc");
    let ended = front.over_http2(request, Bytes::new()).await;
    assert_eq!((ended.status, ended.header("allow")), (405, "POST"));
    // A page of another site cannot.
    let request = Front::grpc(TAKE).header("origin", "http://evil.example");
    assert_eq!(
        front.over_http2(request, framed(0, &THREE)).await.status,
        403
    );
}

#[tokio::test]
async fn an_event_is_published_and_has_no_result() {
    let front = Front::bare(|_| {}, no_nats().await);
    let publisher =
        "[service.publisher]\ncomponent = \"p.wasm\"\n[wire.\"test:fake/api\"]\nmode = \"event\"\n";
    front.set_routes(&format!("name = \"app\"\n{publisher}"), &BTreeMap::new());
    let published = |what: &str| {
        let message = [&[0x0a, u8::try_from(what.len()).unwrap()], what.as_bytes()].concat();
        front.over_http2(
            Front::grpc("/test.fake.v1.Api/Published"),
            framed(0, &message),
        )
    };
    let ended = published("news").await;
    assert_eq!((ended.code().0, &*ended.body), ("0", &framed(0, &[])[..]));
    published("olds").await.refused("14", "not stored");
}

#[tokio::test]
async fn reflection_answers_message_by_message() {
    let front = Front::start(|_| {}).await;
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    // Reflection is answered message by message; `host` is 0x0a, `list_services` is 0x3a.
    let ask = [0x3a, 0x01, b'*'];
    let body = [framed(0, &ask), framed(1, &gzip(&ask))].concat();
    let request = Front::grpc(path).header("grpc-encoding", "gzip");
    let ended = front.over_http2(request, body).await;
    assert_eq!(ended.code().0, "0");
    let text = String::from_utf8_lossy(&ended.body).into_owned();
    assert_eq!(text.matches("test.fake.v1.Api").count(), 2, "{text}");
    let ended = front
        .over_http2(Front::grpc(path), framed(0, &[0xff]))
        .await;
    assert_eq!(ended.code().0, "3");
    let ended = front
        .over_http2(Front::grpc(path), framed(0, &vec![0; 20 << 10]))
        .await;
    assert_eq!(ended.code().0, "8");
    let ended = front
        .over_http2(Front::grpc(path), vec![0, 0, 0, 0, 9, 1])
        .await;
    assert_eq!(ended.code().0, "3");
}

#[tokio::test]
async fn health_is_that_of_readiness() {
    let front = Front::start(|_| {}).await;
    let check = |service: &str| {
        let name = service.as_bytes();
        let message = match name {
            [] => Vec::new(),
            name => [&[0x0a, u8::try_from(name.len()).unwrap()], name].concat(),
        };
        front.over_http2(
            Front::grpc("/grpc.health.v1.Health/Check"),
            framed(0, &message),
        )
    };
    // There is no NATS, so nothing is ready.
    for service in ["", "test.fake.v1.Api"] {
        let ended = check(service).await;
        assert_eq!(
            (ended.code().0, &*ended.body),
            ("0", &framed(0, &[0x08, 0x02])[..])
        );
    }
    assert_eq!(check("x.Y").await.code().0, "5");
    let other = Front::grpc("/grpc.health.v1.Health/Listen");
    front
        .over_http2(other, framed(0, &[]))
        .await
        .refused("12", "Check and Watch");
}

const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
const SERVICE_UNKNOWN: u8 = 3;

/// A health check that goes on.
struct Watching {
    status: u16,
    headers: HeaderMap,
    body: Incoming,
    /// Its connection lives as long as this.
    _sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
}

impl Front {
    async fn watch(&self, service: &str) -> Watching {
        self.watch_for(service, None).await
    }

    async fn watch_for(&self, service: &str, time: Option<&str>) -> Watching {
        let mut sender = http2(self.connect().await).await;
        let mut request = Self::grpc("/grpc.health.v1.Health/Watch");
        if let Some(time) = time {
            request = request.header("grpc-timeout", time);
        }
        let name = service.as_bytes();
        let message = match name {
            [] => Vec::new(),
            name => [&[0x0a, u8::try_from(name.len()).unwrap()], name].concat(),
        };
        let request = request.body(Full::from(framed(0, &message))).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        Watching {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            _sender: sender,
        }
    }
}

impl Watching {
    /// The next state.
    async fn state(&mut self) -> u8 {
        let frame = timeout(DEADLINE, self.body.frame()).await.unwrap();
        let frame = frame.unwrap_or_else(|| panic!("{:?}", self.headers));
        let data = frame.unwrap().into_data().unwrap();
        assert_eq!(data[..6], framed(0, &[0x08, 0])[..6]);
        data[6]
    }

    /// How it ends, after what has come.
    async fn end(self) -> Ended {
        let body = timeout(DEADLINE, self.body.collect()).await;
        let body = body.unwrap().unwrap();
        let mut headers = self.headers;
        headers.extend(body.trailers().cloned().unwrap_or_default());
        Ended {
            status: self.status,
            headers,
            body: body.to_bytes(),
        }
    }
}

#[tokio::test]
async fn who_watches_health_is_told_each_change() {
    let nats = Nats::start().await;
    let link = ConnectOptions::to(nats.url()).link().await.unwrap();
    let front = Front::bare(|_| {}, link);
    front.set_routes(
        &format!("{ROUTES}[gateway]\nrpc = false\n"),
        &BTreeMap::new(),
    );
    let mut all = front.watch("").await;
    let mut one = front.watch("test.fake.v1.Api").await;
    let mut own = front.watch("grpc.health.v1.Health").await;
    assert_eq!(
        (all.state().await, one.state().await, own.state().await),
        (SERVING, SERVICE_UNKNOWN, SERVING)
    );
    front.set_routes(ROUTES, &BTreeMap::new());
    assert_eq!(one.state().await, SERVING);
    nats.stop().await;
    assert_eq!(
        (all.state().await, one.state().await),
        (NOT_SERVING, NOT_SERVING)
    );
    // The host stops: all of them are told, and end.
    front.gateway.close();
    assert_eq!(own.state().await, NOT_SERVING);
    for watching in [all, one, own] {
        watching.end().await.refused("14", "shutting down");
    }
    timeout(DEADLINE, front.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn so_many_watch_health_and_no_more() {
    let front = Front::start(|spec| {
        spec.connections = 6;
        spec.peer_connections = 4;
    })
    .await;
    let mut first = front.watch("").await;
    let second = front.watch("").await;
    assert_eq!(first.state().await, NOT_SERVING);
    let third = front.watch("").await.end().await;
    third.refused("14", "2 clients of this address follow health already");
    // Those that follow events have room of their own, and who only asks needs none.
    let check = Front::grpc("/grpc.health.v1.Health/Check");
    let checked = front.over_http2(check, framed(0, &[])).await;
    assert_eq!(checked.code().0, "0");
    drop(second);
    until_ok("there is room again", async || {
        let watching = front.watch("").await;
        let refused = watching.headers.get("grpc-status").cloned();
        refused.map_or(Ok(()), Err)
    })
    .await;
}

#[tokio::test]
async fn who_watches_health_may_say_for_how_long() {
    let front = Front::start(|_| {}).await;
    let mut watching = front.watch_for("", Some("50m")).await;
    assert_eq!(watching.state().await, NOT_SERVING);
    watching
        .end()
        .await
        .refused("4", "the time that the client gave");
    let refused = front.watch_for("", Some("soon")).await;
    refused.end().await.refused("3", "grpc-timeout");
}

#[tokio::test]
async fn who_watches_health_is_not_idle() {
    let front = Front::start(|spec| spec.timeout = Duration::from_secs(1)).await;
    let mut watching = front.watch("").await;
    assert_eq!(watching.state().await, NOT_SERVING);
    tokio::time::pause();
    tokio::time::sleep(Duration::from_mins(5)).await;
    front.gateway.close();
    watching.end().await.refused("14", "shutting down");
}

#[tokio::test]
async fn who_may_call_is_asked_of_grpc_too() {
    let digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let keys = format!(
        "[gateway]\nrpc = true\n[gateway.auth]\ndefault = \"key\"\n[gateway.auth.key.till]\nsha256 = \"{digest}\"\n"
    );
    let front = Front::of(&format!("{ROUTES}{keys}")).await;
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    for path in [TAKE, reflection] {
        let ended = front.over_http2(Front::grpc(path), framed(0, &THREE)).await;
        ended.refused("16", "API key is missing");
        let request = Front::grpc(path).header("x-api-key", "secret");
        let ended = front.over_http2(request, framed(0, &THREE)).await;
        assert_ne!(ended.code().0, "16");
    }
    let health = Front::grpc("/grpc.health.v1.Health/Check");
    assert_eq!(front.over_http2(health, framed(0, &[])).await.code().0, "0");
    // As RPC paths are: from this machine only, or not at all.
    let front = Front::start(|_| {}).await;
    for path in [TAKE, reflection] {
        let request = Front::grpc(path).header("x-forwarded-for", "10.0.0.1");
        let ended = front.over_http2(request, framed(0, &THREE)).await;
        ended.refused("12", "own machine only");
    }
    let front = Front::start(|spec| spec.rpc = RpcPaths::None).await;
    front
        .take(framed(0, &THREE))
        .await
        .refused("12", "no method");
}
