//! gRPC-Web: what a browser's client gets, and what it and others must not.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::Version;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN,
};

use super::grpc::{TAKE, THREE, framed};
use super::*;

const WEB: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text";
const APP: &str = "https://app.example";

fn web(path: &str, kind: &str) -> http::request::Builder {
    Request::post(path)
        .header(CONTENT_TYPE, kind)
        .header("x-grpc-web", "1")
}

/// What a call came to: its message, and the trailers, which are the headers where there is no body.
struct Ended {
    message: Option<Vec<u8>>,
    trailers: HeaderMap,
    headers: HeaderMap,
}

impl Ended {
    fn code(&self) -> &str {
        self.trailers["grpc-status"].to_str().unwrap()
    }

    fn says(&self, code: &str, part: &str) {
        let message = self.trailers["grpc-message"].to_str().unwrap();
        assert!(
            self.code() == code && message.contains(part),
            "{:?}",
            self.trailers
        );
        assert!(self.message.is_none());
        assert!(self.trailers.contains_key("grpc-status-details-bin"));
    }
}

/// The frames of a body: their first bytes and what is in them.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
        let (frame, rest) = rest.split_at(length);
        frames.push((head[0], frame.to_vec()));
        body = rest;
    }
    assert!(body.is_empty());
    frames
}

impl Front {
    async fn web(&self, version: Version, request: http::request::Builder, body: Vec<u8>) -> Ended {
        let stream = self.connect().await;
        let body = Full::from(body);
        let response = if version == Version::HTTP_2 {
            let (head, body) = request.body(body).unwrap().into_parts();
            let mut request = Request::from_parts(head, body);
            *request.uri_mut() = format!("http://test{}", request.uri()).parse().unwrap();
            http2(stream).await.send_request(request).await
        } else {
            let request = request.header(HOST, "test").body(body).unwrap();
            http1(stream).await.send_request(request).await
        };
        let (head, body) = response.unwrap().into_parts();
        assert_eq!(head.status, 200, "{:?}", head.headers);
        let body = timeout(DEADLINE, body.collect()).await.unwrap().unwrap();
        assert!(body.trailers().is_none());
        let mut bytes = body.to_bytes().to_vec();
        let kind = head.headers[CONTENT_TYPE].to_str().unwrap().to_owned();
        if kind == "application/grpc-web-text+proto" {
            // Each piece is padded by itself.
            let text = String::from_utf8(bytes).unwrap();
            let pieces = text.split_inclusive('=').filter(|piece| *piece != "=");
            let pieces = pieces.map(|piece| STANDARD_NO_PAD.decode(piece.trim_end_matches('=')));
            bytes = pieces.collect::<Result<Vec<_>, _>>().unwrap().concat();
        } else {
            assert_eq!(kind, WEB);
        }
        let (mut message, mut trailers) = (None, HeaderMap::new());
        for (flag, frame) in frames(&bytes) {
            if flag == 0 {
                assert!(message.is_none() && trailers.is_empty());
                message = Some(frame);
                continue;
            }
            assert_eq!(flag, 0x80);
            for line in String::from_utf8(frame).unwrap().lines() {
                let (name, value) = line.split_once(':').unwrap();
                let name: http::HeaderName = name.parse().unwrap();
                trailers.insert(name, value.parse().unwrap());
            }
        }
        if trailers.is_empty() {
            trailers.clone_from(&head.headers);
        }
        Ended {
            message,
            trailers,
            headers: head.headers,
        }
    }

    async fn take_web(&self, kind: &str, body: Vec<u8>) -> Ended {
        self.web(Version::HTTP_11, web(TAKE, kind), body).await
    }
}

#[tokio::test]
async fn a_call_is_made_in_both_forms_over_both_versions() {
    let front = Front::start(|_| {}).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for kind in [
            "application/grpc-web",
            WEB,
            TEXT,
            "application/grpc-web-text+proto",
        ] {
            let write = |message: &[u8]| match kind.contains("text") {
                true => STANDARD.encode(framed(0, message)).into_bytes(),
                false => framed(0, message),
            };
            let ended = front.web(version, web(TAKE, kind), write(&THREE)).await;
            // `ok` is 5.
            assert_eq!(ended.message.as_deref(), Some(&[0x08, 0x05][..]), "{kind}");
            assert_eq!(ended.code(), "0");
            assert!(ended.headers.contains_key("traceparent"));
            // As gRPC has it: what a function says is no failure, and what failed is a status.
            let ended = front.web(version, web(TAKE, kind), write(&[])).await;
            assert_eq!(ended.message.as_deref(), Some(&[0x10, 0x01][..]), "{kind}");
            let fail = web("/test.fake.v1.Api/Fail", kind);
            let ended = front.web(version, fail, write(&[0x08, 0xad, 0x03])).await;
            ended.says("8", "as asked");
            let never = web("/test.fake.v1.Api/Never", kind).header("grpc-timeout", "50m");
            let ended = front.web(version, never, write(&[])).await;
            ended.says("4", "no reply in time");
        }
    }
    // In stretches of base64 that are padded one by one.
    let message = framed(0, &THREE);
    let stretches = [&message[..1], &message[1..5], &message[5..]].map(|one| STANDARD.encode(one));
    let ended = front.take_web(TEXT, stretches.concat().into_bytes()).await;
    assert_eq!(ended.code(), "0");
}

#[tokio::test]
async fn what_is_no_message_in_its_form_is_refused() {
    let front = Front::start(|spec| spec.body = 1_000).await;
    let text = |bytes: &[u8]| STANDARD.encode(bytes).into_bytes();
    let three = framed(0, &THREE);
    for (kind, body, code, part) in [
        (WEB, Vec::new(), "12", "exactly one message"),
        (WEB, [&*three, &three].concat(), "12", "exactly one message"),
        (WEB, three[..6].to_vec(), "3", "ends within its message"),
        // Trailers of a client.
        (WEB, framed(0x80, b"a:b\r\n"), "3", "begins with 128"),
        (TEXT, three.clone(), "3", "not base64"),
        (TEXT, b"AAAA!AAA".to_vec(), "3", "not base64"),
        (
            TEXT,
            text(&three)[..9].to_vec(),
            "3",
            "ends within its base64",
        ),
        (TEXT, text(&three[..6]), "3", "ends within its message"),
        (WEB, framed(0, &[0; 1_001]), "8", "1005 bytes"),
        (TEXT, text(&framed(0, &[0; 1_001])), "8", "1340 bytes"),
        (TEXT, text(&[0, 0xff, 0xff, 0xff, 0xff]), "8", "1000 bytes"),
        // All of it is sent, and next to nothing is read.
        (TEXT, vec![b'A'; 50 << 20], "8", "bytes"),
    ] {
        front.take_web(kind, body).await.says(code, part);
    }
    let most = [&[0x7a, 0xe3, 0x07][..], &[0; 995]].concat();
    for (kind, body) in [(WEB, framed(0, &most)), (TEXT, text(&framed(0, &most)))] {
        assert_eq!(front.take_web(kind, body).await.code(), "0");
    }
    for kind in ["application/grpc-web+json", "application/grpc-webx"] {
        let message = front.send(web(TAKE, kind), "").await.error(415, "caller");
        assert!(message.contains("application/grpc-web-text"), "{message}");
    }
    let get = Request::get(TAKE).header(CONTENT_TYPE, WEB);
    assert_eq!(front.send(get, "").await.header(ALLOW), "POST");
    let none = web("/test.fake.v1.Api/Nothing", WEB);
    let ended = front.web(Version::HTTP_11, none, three.clone()).await;
    ended.says("12", "no method has the path");
}

#[tokio::test]
async fn health_is_there_and_conversations_are_not() {
    let front = Front::start(|_| {}).await;
    let not_serving = Some(&[0x08, 2][..]);
    let ask = |path: &str| front.web(Version::HTTP_11, web(path, WEB), framed(0, &[]));
    let ended = ask("/grpc.health.v1.Health/Check").await;
    assert_eq!((ended.code(), ended.message.as_deref()), ("0", not_serving));
    let watch = web("/grpc.health.v1.Health/Watch", WEB).header("grpc-timeout", "50m");
    let ended = front.web(Version::HTTP_11, watch, framed(0, &[])).await;
    assert_eq!((ended.code(), ended.message.as_deref()), ("4", not_serving));
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    ask(reflection).await.says("12", "conversation");
}

/// What a browser asks before it sends a request of gRPC-Web.
fn preflight(path: &str, origin: &str, headers: &str) -> http::request::Builder {
    Request::options(path)
        .header(ORIGIN, origin)
        .header(ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(ACCESS_CONTROL_REQUEST_HEADERS, headers)
}

const ASKED: &str = "content-type,x-grpc-web,x-user-agent";

#[tokio::test]
async fn only_pages_that_are_named_may_call() {
    let cors = format!("[gateway]\ncors = {{ origins = [\"{APP}\"] }}\n");
    let front = Front::of(&format!("{ROUTES}{cors}")).await;
    for path in [TAKE, "/grpc.health.v1.Health/Check"] {
        let reply = front.send(preflight(path, APP, ASKED), "").await;
        assert_eq!((reply.status, &*reply.body), (204, ""), "{path}");
        assert_eq!(reply.header(ACCESS_CONTROL_ALLOW_ORIGIN), APP);
        assert!(reply.header(ACCESS_CONTROL_ALLOW_METHODS).contains("POST"));
        let allowed: Vec<_> = reply
            .header(ACCESS_CONTROL_ALLOW_HEADERS)
            .split(", ")
            .collect();
        for name in [
            "content-type",
            "grpc-timeout",
            "x-grpc-web",
            "x-user-agent",
            "authorization",
        ] {
            assert!(allowed.contains(&name), "{name}: {allowed:?}");
        }
    }
    // A method that is not there says so itself, and who does not speak gRPC-Web asks for a route.
    let none = preflight("/test.fake.v1.Api/Nothing", APP, ASKED);
    assert_eq!(front.send(none, "").await.status, 204);
    let other = preflight(TAKE, APP, "content-type");
    front.send(other, "").await.error(404, "caller");
    let evil = "https://evil.example";
    let reply = front.send(preflight(TAKE, evil, ASKED), "").await;
    assert_eq!(reply.header(ACCESS_CONTROL_ALLOW_ORIGIN), "");

    let from = |origin: &str| {
        web(TAKE, WEB)
            .header(ORIGIN, origin)
            .header("sec-fetch-site", "cross-site")
    };
    let ended = front
        .web(Version::HTTP_11, from(APP), framed(0, &THREE))
        .await;
    assert_eq!(ended.code(), "0");
    // A refusal can be read as well.
    let refused = front.web(Version::HTTP_11, from(APP), Vec::new()).await;
    refused.says("12", "exactly one message");
    for Ended { headers, .. } in [ended, refused] {
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], APP);
        let exposed = headers[ACCESS_CONTROL_EXPOSE_HEADERS].to_str().unwrap();
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            assert!(exposed.split(", ").any(|one| one == name), "{exposed}");
        }
    }
    front.send(from(evil), "").await.error(403, "caller");
    // Without origins that are named, no page of another one may.
    let front = Front::start(|_| {}).await;
    front.send(from(APP), "").await.error(403, "caller");
    let reply = front.send(preflight(TAKE, APP, ASKED), "").await;
    reply.error(404, "caller");
}

#[tokio::test]
async fn who_may_call_and_how_often_is_as_it_is_for_grpc() {
    // The SHA-256 of "secret".
    let lines = "[gateway]\nrpc = true\nrate = { requests = 3, window = \"1h\" }\n[gateway.auth]\ndefault = \"key\"\n\
                 [gateway.auth.key.till]\nsha256 = \"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\"\n";
    let front = Front::of(&format!("{ROUTES}{lines}")).await;
    let call =
        |request: http::request::Builder| front.web(Version::HTTP_11, request, framed(0, &THREE));
    call(web(TAKE, WEB)).await.says("16", "API key is missing");
    let with_key = || web(TAKE, WEB).header("x-api-key", "secret");
    for left in ["r=1;", "r=0;"] {
        let ended = call(with_key()).await;
        assert_eq!(ended.code(), "0");
        let limit = ended.headers["ratelimit"].to_str().unwrap();
        assert!(limit.contains(left), "{limit}");
    }
    let ended = call(with_key()).await;
    ended.says("8", "more than 3 requests");
    assert!(ended.headers.contains_key(RETRY_AFTER));
    // As RPC paths are: from this machine only.
    let front = Front::start(|_| {}).await;
    let proxied = web(TAKE, WEB).header("x-forwarded-for", "10.0.0.1");
    let ended = front.web(Version::HTTP_11, proxied, framed(0, &THREE));
    ended.await.says("12", "own machine only");
}
