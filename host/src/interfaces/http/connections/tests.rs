use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{Empty, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// An HTTP server that counts.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// What it does when a request's head has come.
#[derive(Clone, Copy)]
enum Answers {
    /// Answers after a time, and goes on.
    After(Duration),
    /// Answers and closes the connection without announcing it.
    AndCloses,
    Never,
}

async fn server(answers: Answers) -> (String, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Arc::<Seen>::default();
    let counts = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&counts);
            tokio::spawn(async move {
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
                seen.most_open.fetch_max(open, Ordering::SeqCst);
                let mut read = Vec::new();
                while stream
                    .read_buf(&mut read)
                    .await
                    .is_ok_and(|bytes| bytes > 0)
                {
                    if !read.windows(4).any(|end| end == b"\r\n\r\n") {
                        continue;
                    }
                    read.clear();
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    match answers {
                        Answers::After(time) => tokio::time::sleep(time).await,
                        Answers::AndCloses => {}
                        Answers::Never => continue,
                    }
                    if stream.write_all(answer).await.is_err()
                        || matches!(answers, Answers::AndCloses)
                    {
                        break;
                    }
                }
                seen.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (address, seen)
}

fn get(address: &str) -> Request<WasiBody> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let uri = format!("http://{address}/path?query");
    Request::get(uri)
        .header("host", address)
        .body(body)
        .unwrap()
}

async fn text(connections: &Connections, request: Request<WasiBody>) -> Result<Bytes, Error> {
    let response = connections.send(request, None).await?;
    Ok(response.into_body().collect().await?.to_bytes())
}

#[tokio::test]
async fn connections_are_used_again() {
    let (address, seen) = server(Answers::After(Duration::ZERO)).await;
    let connections = Connections::new();
    for _ in 0..50 {
        assert_eq!(text(&connections, get(&address)).await.unwrap(), "ok");
    }
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn requests_beyond_the_bound_wait_for_a_place() {
    let (address, seen) = server(Answers::After(Duration::from_millis(20))).await;
    let connections = Connections::with(100, 3, MAX_WAIT);
    let requests = (0..12).map(|_| text(&connections, get(&address)));
    for answer in futures_util::future::join_all(requests).await {
        assert_eq!(answer.unwrap(), "ok");
    }
    assert!(seen.most_open.load(Ordering::SeqCst) <= 3);
    // And for all destinations together.
    let connections = Connections::with(2, 100, MAX_WAIT);
    let (other, of_other) = server(Answers::After(Duration::from_millis(20))).await;
    let (first, of_first) = server(Answers::After(Duration::from_millis(20))).await;
    let requests = (0..12).map(|n| text(&connections, get([&first, &other][n % 2])));
    for answer in futures_util::future::join_all(requests).await {
        assert_eq!(answer.unwrap(), "ok");
    }
    for seen in [of_first, of_other] {
        assert!(seen.most_open.load(Ordering::SeqCst) <= 2);
    }
}

#[tokio::test]
async fn a_wait_without_end_is_refused() {
    let (address, _) = server(Answers::Never).await;
    let connections = Connections::with(100, 1, Duration::from_millis(50));
    let stuck = text(&connections, get(&address));
    let refused = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        text(&connections, get(&address)).await.unwrap_err()
    };
    tokio::select! {
        _ = stuck => panic!("the server never answers"),
        refused = refused => assert!(matches!(refused, Error::ConnectionLimitReached), "{refused:?}"),
    }
    // What was dropped has left its place.
    let destination = Destination::of(get(&address).uri()).unwrap();
    connections.place(&destination).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let (address, seen) = server(Answers::AndCloses).await;
    let connections = Connections::new();
    for _ in 0..10 {
        let body = Full::new(Bytes::from_static(b"")).map_err(|never| match never {});
        let (mut parts, _) = get(&address).into_parts();
        parts.method = http::Method::POST;
        let request = Request::from_parts(parts, body.boxed_unsync());
        assert_eq!(text(&connections, request).await.unwrap(), "ok");
        // Until the end of the connection has been seen.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(seen.connections.load(Ordering::SeqCst), 10);
}

#[tokio::test]
async fn a_response_that_is_not_read_closes_its_connection() {
    let (address, seen) = server(Answers::After(Duration::ZERO)).await;
    let connections = Connections::with(1, 1, MAX_WAIT);
    for _ in 0..3 {
        let response = connections.send(get(&address), None).await.unwrap();
        drop(response);
    }
    assert_eq!(seen.connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn idle_connections_are_bounded_and_closed() {
    let connections = Connections::with(2, 2, MAX_WAIT);
    let mut counts = Vec::new();
    for _ in 0..4 {
        let (address, seen) = server(Answers::After(Duration::ZERO)).await;
        text(&connections, get(&address)).await.unwrap();
        counts.push(seen);
    }
    let idle = || -> usize {
        let destinations = lock(&connections.destinations);
        let idle = destinations.values().map(|known| lock(&known.idle).len());
        idle.sum()
    };
    assert_eq!(idle(), 2);
    connections.close_idle(Instant::now());
    assert_eq!(idle(), 2);
    connections.close_idle(Instant::now() + MAX_IDLE);
    assert_eq!(idle(), 0);
}

#[test]
fn a_destination_is_a_host_and_a_port() {
    let of = |uri: &str| Destination::of(&uri.parse().unwrap()).map(|to| to.authority);
    assert_eq!(of("http://a.example/x").unwrap(), "a.example:80");
    assert_eq!(of("https://a.example/x").unwrap(), "a.example:443");
    assert_eq!(
        of("https://user@a.example:8443/").unwrap(),
        "a.example:8443"
    );
    assert_eq!(of("http://[::1]/").unwrap(), "[::1]:80");
    assert!(of("/path").is_err());
    let name = |uri: &str| {
        Destination::of(&uri.parse().unwrap())
            .unwrap()
            .server_name()
            .unwrap()
    };
    assert_eq!(
        name("https://[::1]:1/"),
        ServerName::from(std::net::Ipv6Addr::LOCALHOST)
    );
    assert_eq!(
        name("https://127.0.0.1/"),
        ServerName::from(std::net::Ipv4Addr::LOCALHOST)
    );
    assert_eq!(
        name("https://a.example/"),
        ServerName::try_from("a.example").unwrap()
    );
}
