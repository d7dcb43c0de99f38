//! Clients that follow events: signs of life, ends, bounds.

use futures_util::SinkExt as _;
use futures_util::future::BoxFuture;
use tokio_tungstenite::tungstenite::Message;
use wasmbay::interfaces::{Feed, FeedEvent};

use super::*;

const FOLLOWED: &str = r#"
[service.publisher]
component = "publisher.wasm"
[wire."test:fake/api"]
mode = "event"
[[route]]
method = "GET"
path = "/news/{what}"
events = "test:fake/api.published"
filter = { what = "what" }
[gateway]
timeout = "1s"
"#;

/// What [`Fake`] has to say to who follows it, and the sequence of what it has said last.
pub(super) struct Says(
    pub(super) Vec<Result<FeedEvent, CallError>>,
    pub(super) Option<u64>,
);

impl Feed for Says {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<FeedEvent, CallError>>> {
        Box::pin(async {
            if self.0.is_empty() {
                return std::future::pending().await;
            }
            let said = self.0.remove(0);
            if let Ok(event) = &said {
                self.1 = event.sequence;
            }
            Some(said)
        })
    }

    fn position(&self) -> Option<u64> {
        self.1
    }
}

async fn front(says: Vec<Result<FeedEvent, CallError>>) -> Front {
    front_for("", says).await
}

/// The same, with this of `[gateway]`.
async fn front_for(lines: &str, says: Vec<Result<FeedEvent, CallError>>) -> Front {
    let front = Front::of(&format!("name = \"app\"\n{FOLLOWED}{lines}")).await;
    *front.fake.says.lock().unwrap() = says;
    front
}

fn event(sequence: Option<u64>, body: &'static str) -> Result<FeedEvent, CallError> {
    Ok(FeedEvent {
        sequence,
        body: Bytes::from_static(body.as_bytes()),
    })
}

/// What comes of a stream until this.
async fn read_until(body: &mut Incoming, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let Some(frame) = body.frame().await else {
            panic!("it ended after {text}");
        };
        let frame = frame.unwrap();
        text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
    }
    text
}

async fn follow(front: &Front, request: http::request::Builder) -> Response<Incoming> {
    let mut sender = http1(front.connect().await).await;
    let request = request.header(HOST, "test").body(Full::<Bytes>::default());
    sender.send_request(request.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_client_gets_the_events_that_are_for_it() {
    let front = front(vec![
        event(Some(3), r#"{"what":"a b"}"#),
        event(Some(4), r#"{"what":"other"}"#),
        event(Some(5), "no JSON"),
        event(Some(6), "[ \"a b\"\n]"),
        event(None, r#"{"what":"a b","later":1}"#),
        Err(CallError::new(
            Code::Unavailable,
            Blame::Network,
            "they are read too slowly",
        )),
        event(Some(9), r#"{"what":"a b"}"#),
    ])
    .await;
    let response = follow(&front, Request::get("/news/a%20b")).await;
    assert_eq!(response.status(), 200);
    let headers = response.headers();
    assert_eq!(headers[CONTENT_TYPE], "text/event-stream");
    assert_eq!(headers[http::header::CACHE_CONTROL], "no-cache");
    let reply = Reply::of(response).await;
    let end = r#"event: end
data: {"error":{"code":503,"message":"they are read too slowly","blame":"network"}}

"#;
    let data = r#"data: {"what":"a b"}"#;
    let all = format!("retry: 2000\n\nid: 3\n{data}\n\nid: 6\n{data}\n\n{data}\n\n{end}");
    assert_eq!(reply.body, all);
    let head = follow(&front, Request::head("/news/a")).await;
    assert_eq!(head.headers()[CONTENT_TYPE], "text/event-stream");
    assert_eq!(Reply::of(head).await.body, "");
    let odd = Request::get("/news/a").header("last-event-id", "x");
    front.send(odd, "").await.error(400, "caller");
    let post = front.send(Request::post("/news/a"), "").await;
    assert_eq!(post.header(ALLOW), "GET, HEAD");
    post.error(405, "caller");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hears_nothing_hears_that_there_is_nothing() {
    let front = front(Vec::new()).await;
    let mut response = follow(&front, Request::get("/news/a")).await;
    let started = Instant::now();
    for _ in 0..10 {
        read_until(response.body_mut(), ": alive\n\n").await;
    }
    // Longer than any other request may take, and than an idle connection stays.
    assert!(started.elapsed() > Duration::from_secs(25));
    front.gateway.close();
    let text = read_until(response.body_mut(), "event: end").await;
    assert!(text.contains("the host is shutting down"), "{text}");
    let rest = response.into_body().collect().await.unwrap();
    assert!(rest.to_bytes().len() < 10);
    timeout(DEADLINE, front.serving).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_knows_where_it_is_also_when_nothing_was_for_it() {
    let says = || {
        vec![
            event(Some(4), r#"{"what":"other"}"#),
            event(Some(5), r#"{"what":"other"}"#),
        ]
    };
    let front = front(says()).await;
    let mut response = follow(&front, Request::get("/news/a")).await;
    let text = read_until(response.body_mut(), ": alive\n\n").await;
    assert_eq!(text, "retry: 2000\n\nid: 5\n: alive\n\n");
    let text = read_until(response.body_mut(), ": alive\n\n").await;
    assert_eq!(text, ": alive\n\n");
    *front.fake.says.lock().unwrap() = says();
    let mut socket = socket(&front, "/news/a").await;
    assert_eq!(message(&mut socket).await, r#"{"id":"5"}"#);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_let_go_also_where_its_connection_lives() {
    let large = format!(r#"{{"what":"{}"}}"#, "a".repeat(20_000));
    let says = std::iter::repeat_with(|| {
        Ok(FeedEvent {
            sequence: None,
            body: Bytes::from(large.clone()),
        })
    });
    // Room for one follower.
    let lines = "connections = 2\npeer-connections = 2\n";
    let front = front_for(lines, says.take(20).collect()).await;
    let io = TokioIo::new(front.connect().await);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    // Less than there is to read.
    builder.initial_stream_window_size(65_535);
    let (mut sender, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    let ask = |path: &str| {
        let request = Request::get(format!("http://test{path}")).body(Full::<Bytes>::default());
        request.unwrap()
    };
    let path = format!("/news/{}", "a".repeat(20_000));
    let stuck = sender.send_request(ask(&path)).await.unwrap();
    assert_eq!(stuck.status(), 200);
    let started = Instant::now();
    // Other requests of the connection go on.
    until_ok("there is room again", async || {
        let mut sender = sender.clone();
        sender.ready().await.unwrap();
        let other = sender.send_request(ask("/news/b")).await.unwrap();
        let status = other.status().as_u16();
        (status == 200).then_some(()).ok_or(status)
    })
    .await;
    assert!(started.elapsed() > Duration::from_secs(5));
    let reply = Reply::of(stuck).await;
    assert!(reply.body.contains("events are read too slowly"));
}

#[tokio::test]
async fn only_so_many_follow_at_a_time() {
    let lines = "connections = 40\npeer-connections = 20\n";
    let front = front_for(lines, Vec::new()).await;
    let mut followers = Vec::new();
    let ask = || {
        let request = Request::get("http://test/news/a").body(Full::<Bytes>::default());
        request.unwrap()
    };
    let mut sender = http2(front.connect().await).await;
    for _ in 0..10 {
        sender.ready().await.unwrap();
        let response = sender.send_request(ask()).await.unwrap();
        assert_eq!(response.status(), 200);
        followers.push(response);
    }
    let reply = front.get("/news/a").await;
    assert_eq!(reply.header(RETRY_AFTER), "1");
    let message = reply.error(503, "host");
    assert_eq!(message, "10 clients of this address follow events already");
    followers.pop();
    until_ok("there is room again", async || {
        let response = follow(&front, Request::get("/news/a")).await;
        let status = response.status().as_u16();
        (status == 200).then_some(()).ok_or(status)
    })
    .await;
}

type WebSocket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn socket(front: &Front, path: &str) -> WebSocket {
    let stream = front.connect().await;
    let connecting = tokio_tungstenite::client_async(format!("ws://test{path}"), stream);
    connecting.await.unwrap().0
}

/// The next message that says something.
async fn message(socket: &mut WebSocket) -> String {
    loop {
        match timeout(DEADLINE, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
        {
            Message::Text(text) => return text.to_string(),
            Message::Close(Some(close)) => return format!("{} {}", close.code, close.reason),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn events_are_messages_of_a_websocket() {
    let front = front(vec![
        event(Some(3), r#"{"what":"a b"}"#),
        event(Some(4), r#"{"what":"other"}"#),
        event(None, "[\"a b\"]"),
        Err(CallError::new(
            Code::Unavailable,
            Blame::Network,
            "they are read too slowly",
        )),
    ])
    .await;
    let mut socket = socket(&front, "/news/a%20b").await;
    assert_eq!(
        message(&mut socket).await,
        r#"{"id":"3","data":{"what":"a b"}}"#
    );
    assert_eq!(
        message(&mut socket).await,
        r#"{"id":null,"data":{"what":"a b"}}"#
    );
    assert_eq!(message(&mut socket).await, "1001 they are read too slowly");
    assert!(socket.next().await.is_none());
}

#[tokio::test]
async fn a_websocket_is_asked_for_as_it_should_be_and_takes_no_messages() {
    let front = front(Vec::new()).await;
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let ask = |version: &str, key: &str, connection: &str| {
        Request::get("/news/a")
            .header("upgrade", "websocket")
            .header(CONNECTION, connection)
            .header("sec-websocket-version", version)
            .header("sec-websocket-key", key)
    };
    let old = front.send(ask("8", key, "upgrade"), "").await;
    assert_eq!(old.header("sec-websocket-version"), "13");
    old.error(426, "caller");
    for (key, connection) in [("short", "upgrade"), (key, "keep-alive"), ("", "upgrade")] {
        front
            .send(ask("13", key, connection), "")
            .await
            .error(400, "caller");
    }
    let evil = ask("13", key, "keep-alive, Upgrade").header("origin", "https://evil.example");
    front.send(evil, "").await.error(403, "caller");
    for (sent, reason) in [
        (Message::text("hello"), "1008 no messages are taken here"),
        (
            Message::binary(vec![1, 2]),
            "1008 no messages are taken here",
        ),
        (
            Message::text("x".repeat(5_000)),
            "1009 no messages are taken here",
        ),
    ] {
        let mut socket = socket(&front, "/news/a").await;
        socket.send(sent).await.unwrap();
        assert_eq!(message(&mut socket).await, reason);
    }
    // A ping is answered, and a client that goes is let go.
    let mut client = socket(&front, "/news/a").await;
    client.send(Message::Ping("x".into())).await.unwrap();
    let pong = timeout(DEADLINE, client.next()).await.unwrap().unwrap();
    assert_eq!(pong.unwrap(), Message::Pong("x".into()));
    client.close(None).await.unwrap();
    front.gateway.close();
    timeout(DEADLINE, front.serving).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_websocket_lives_for_as_long_as_its_client_does() {
    let front = front(Vec::new()).await;
    let mut lively = socket(&front, "/news/a").await;
    let dead = socket(&front, "/news/a").await;
    let started = Instant::now();
    let mut pings = 0;
    // Reading answers them.
    while started.elapsed() < Duration::from_secs(60) {
        let message = lively.next().await.unwrap().unwrap();
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
        pings += 1;
    }
    assert!(pings > 10);
    // One that answers none has been cut off.
    let mut stream = dead.into_inner();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    front.gateway.close();
    assert_eq!(message(&mut lively).await, "1001 the host is shutting down");
    timeout(DEADLINE, front.serving).await.unwrap().unwrap();
}
