//! What a client does too much, too slowly, or not as HTTP has it.

use super::*;

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
    let app = Manifest::parse(Path::new("wasmbay.toml"), &manifest)
        .unwrap()
        .app;
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
    until_ok("80 of 100 are closed", async || match closed(&slow) {
        80.. => Ok(()),
        few => Err(few),
    })
    .await;
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
