//! Components that answer HTTP themselves.

use std::path::PathBuf;

use super::*;

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

/// Guests that answer HTTP themselves, by WASI 0.2 and by 0.3.
const GUESTS: [&str; 2] = ["http-echo", "http-concurrent"];

/// The component of the guest `http-echo`.
pub(crate) async fn http_echo() -> PathBuf {
    built("http-echo").await
}

async fn built(guest: &'static str) -> PathBuf {
    let building = tokio::task::spawn_blocking(move || {
        let host = Path::new(env!("CARGO_MANIFEST_DIR"));
        let guest = Guest::open(&host.join("../guests/rust").join(guest)).unwrap();
        guest
            .build(&Tools::near(host), &mut |_| {})
            .unwrap_or_else(|error| panic!("{error}"))
    });
    building.await.unwrap()
}

/// A gateway with a guest under `/http/`.
async fn with_http(guest: &'static str) -> Front {
    with_http_for(guest, "").await
}

/// The same, with this of `[gateway]`.
async fn with_http_for(guest: &'static str, lines: &str) -> Front {
    let manifest = format!("{HTTP}{lines}");
    let read = Manifest::parse(Path::new("wasmbay.toml"), &manifest).unwrap();
    let change = |own: &mut GatewaySpec| {
        own.clone_from(&read.app.gateway);
        own.body = 1 << 20;
    };
    let front = Front::bare(change, no_nats().await);
    let component = built(guest).await;
    let engine = Engine::new(EngineOptions {
        instances: 50,
        cache: None,
    })
    .unwrap();
    let component = Arc::new(Component::load(&engine, &component).unwrap());
    let spec = Arc::new(read.app.services["echo"].clone());
    let service = Service::new(&Runtime::new(engine).unwrap(), "app", component, spec).unwrap();
    front.set_routes(&manifest, &[("echo".to_owned(), Arc::new(service))].into());
    front
}

#[tokio::test]
async fn an_http_component_answers_below_its_prefix() {
    for guest in GUESTS {
        let front = with_http(guest).await;
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
}

#[tokio::test]
async fn a_browser_asks_a_component_without_credentials_whether_a_page_may() {
    let front = with_http_for(
        "http-echo",
        r#"
[gateway]
rate = { requests = 3, window = "1h" }
[gateway.auth]
default = "key"
[gateway.auth.key.billing]
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
"#,
    )
    .await;
    let ask = |method: &str| {
        Request::builder()
            .method(method)
            .uri("/http/x")
            .header("origin", "https://other.example")
            .header("access-control-request-method", "PUT")
    };
    let reply = front.send(ask("OPTIONS"), "").await;
    assert_eq!((reply.status, reply.header("x-path")), (200, "/http/x"));
    front.send(ask("PUT"), "").await.error(401, "caller");
    // What has a body is nothing that a browser asks.
    front.send(ask("OPTIONS"), "x").await.error(401, "caller");
    front.send(ask("OPTIONS"), "").await.error(429, "caller");
}

#[tokio::test]
async fn a_component_reads_where_a_request_comes_from() {
    let said = |request: http::request::Builder| {
        request
            .header("forwarded", "for=1.2.3.4;proto=https")
            .header("x-forwarded-for", "9.9.9.9, 1.2.3.4")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "shop.example")
            .header("x-real-ip", "9.9.9.9")
    };
    for guest in GUESTS {
        let front = with_http(guest).await;
        let nobody = "http\nx-forwarded-for: 127.0.0.1\nx-forwarded-proto: http";
        assert_eq!(front.get("/http/sender").await.body, nobody);
        let reply = front.send(said(Request::get("/http/sender")), "").await;
        assert_eq!(reply.body, nobody);
        let front = with_http_for(guest, "[gateway]\ntrusted-proxies = ['127.0.0.0/8']\n").await;
        let reply = front.send(said(Request::get("/http/sender")), "").await;
        assert_eq!(
            reply.body,
            "https\nx-forwarded-for: 1.2.3.4\nx-forwarded-host: shop.example\nx-forwarded-proto: https"
        );
    }
}

#[tokio::test]
async fn an_http_components_bodies_are_streamed() {
    for guest in GUESTS {
        let front = with_http(guest).await;
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
}

#[tokio::test]
async fn what_an_http_component_does_wrong_is_its_own_error() {
    for guest in GUESTS {
        let front = with_http(guest).await;
        let trap = front.get("/http/trap").await.error(500, "guest");
        let handler = match guest {
            "http-echo" => "incoming-handler",
            _ => "handler",
        };
        assert!(
            trap.starts_with(&format!("service \"echo\": wasi:http/{handler}.handle@"))
                && trap.contains(": the service trapped: "),
            "{trap}"
        );
        let (path, words) = match guest {
            "http-echo" => ("silent", "it ended without a response"),
            _ => (
                "error",
                "it answered with the error ErrorCode::ConfigurationError",
            ),
        };
        let silent = front
            .get(&format!("/http/{path}"))
            .await
            .error(500, "guest");
        assert!(silent.ends_with(words), "{silent}");
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
}

#[tokio::test]
async fn a_component_that_ignores_the_body_costs_a_pooled_client_nothing() {
    for guest in GUESTS {
        let front = with_http(guest).await;
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
}

#[tokio::test]
async fn a_component_answers_with_a_status_as_http_has_it() {
    for guest in GUESTS {
        let front = with_http(guest).await;
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
}
