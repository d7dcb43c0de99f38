//! Requests and connections that are refused.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use tokio::task::spawn_blocking;

use super::{Admin, JSON, error};
use crate::events::event;
use crate::support::{DEADLINE, until};

#[tokio::test]
async fn requests_that_are_not_allowed_are_refused_and_change_nothing() {
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    let path = format!("/dead-letters/{}", all[0]);
    let replay = format!("{path}/replay");
    // Mistyped, or too much.
    for (method, path) in [
        ("DELETE", "/dead-letters"),
        ("DELETE", "/dead-letters?servce=a"),
        ("DELETE", "/dead-letters?all=yes"),
        ("DELETE", "/dead-letters?all=true&service=a"),
        ("POST", "/dead-letters/replay"),
        ("POST", "/dead-letters/replay?all=true&rate=0/s"),
        ("POST", "/dead-letters/replay?all=true&limit=1001"),
        ("GET", "/dead-letters?limit=1001"),
        ("GET", "/dead-letters?limit=0"),
        ("GET", "/dead-letters?after=x"),
        ("GET", "/dead-letters?function=*"),
        ("GET", &format!("{path}?service=a")),
    ] {
        let refused = admin.send(method, path, &[], "").await;
        assert_eq!(error(&refused).0, 400, "{method} {path}");
    }
    for (method, path, allowed) in [
        ("POST", "/", "GET, HEAD"),
        ("POST", "/dead-letters", "GET, HEAD, DELETE"),
        ("GET", "/dead-letters/replay", "POST"),
        ("PUT", "/dead-letters/replay", "POST"),
        ("PATCH", &path, "GET, HEAD, PUT, DELETE"),
        ("OPTIONS", &path, "GET, HEAD, PUT, DELETE"),
        ("GET", &replay, "POST"),
    ] {
        let refused = admin.send(method, path, &[], "").await;
        assert_eq!(error(&refused).0, 405, "{method} {path}");
        let allow = format!("\nallow: {allowed}\n");
        assert!(
            format!("{}\n", refused.head).contains(&allow),
            "{refused:?}"
        );
    }
    admin
        .expect(404, "GET", "/rpc/test:publisher/api/publish")
        .await;

    // What pages of other origins can have a browser send.
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let text = ("Content-Type", "text/plain");
    let rebound = format!("evil.example:{}", admin.address.rsplit(':').next().unwrap());
    for (status, method, path, headers, body) in [
        (415, "POST", &*replay, vec![form], ""),
        (415, "POST", "/dead-letters/replay?all=true", vec![text], ""),
        (415, "PUT", &*path, vec![text], r#"{"key":7,"n":10}"#),
        (415, "DELETE", &*path, vec![form], ""),
        (413, "POST", &*replay, vec![JSON], "{}"),
        (
            403,
            "POST",
            &*replay,
            vec![("Origin", "http://evil.example")],
            "",
        ),
        (403, "POST", &*replay, vec![("Origin", "null")], ""),
        (
            403,
            "DELETE",
            &*path,
            vec![("Origin", "http://127.0.0.1:1")],
            "",
        ),
        (
            403,
            "GET",
            &*path,
            vec![("Origin", "https://evil.example")],
            "",
        ),
        (403, "GET", "/dead-letters", vec![("Host", &*rebound)], ""),
        (403, "POST", &*replay, vec![("Host", &*rebound)], ""),
    ] {
        let refused = admin.send(method, path, &headers, body).await;
        assert_eq!(error(&refused).0, status, "{method} {path} {headers:?}");
        let cors = refused.head.contains("access-control");
        assert!(!cors, "{refused:?}");
    }
    let dead_letter = admin.bench.dead_letters.get(&all[0]).await.unwrap();
    assert_eq!((dead_letter.edited, dead_letter.attempts.len()), (false, 3));
    assert_eq!(admin.judge.attempts().len(), 3);

    // A page of the admin address itself may.
    let own = format!("http://{}", admin.address);
    let replayed = admin.send("POST", &replay, &[("Origin", &own)], "").await;
    assert_eq!(replayed.status, 202);
    until("it has failed again", || admin.judge.attempts().len() == 6).await;
    admin.end().await;
}

#[tokio::test]
async fn every_limit_of_a_connection_is_enforced() {
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    let path = format!("/dead-letters/{}", all[0]);
    // As much as NATS takes, which is 1 MiB.
    let large = format!("{}{}", " ".repeat(1 << 20), event(7, 10));
    assert_eq!(error(&admin.put(&path, &[], &large).await).0, 413);
    // Within that, but not with the dead letter's record.
    let large = format!("{}{}", " ".repeat((1 << 20) - 500), event(7, 10));
    assert_eq!(error(&admin.put(&path, &[], &large).await).0, 413);
    let long = "x".repeat(200 << 10);
    let refused = admin
        .send("GET", "/dead-letters", &[("X-Long", &long)], "")
        .await;
    assert_eq!(refused.status, 431);

    let address = admin.address.clone();
    spawn_blocking(move || {
        let connect = || {
            let stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream
        };
        let ask = |stream: &mut TcpStream| {
            let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
        };
        let mut answer = [0; 12];
        // HTTP/2 would let one connection have many requests at a time.
        let mut http2 = connect();
        http2
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        let mut said = Vec::new();
        let _ = http2.read_to_end(&mut said);
        assert!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 400"),
            "{said:?}"
        );

        let mut open: Vec<_> = (0..32).map(|_| connect()).collect();
        for stream in &mut open {
            ask(stream);
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
        // One more replaces the one that has been idle for longest.
        let mut one_more = connect();
        ask(&mut one_more);
        one_more.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        // And no other. Which of two has been idle for longer is for the host to say: a client may have
        // its answer before the host has written down that it has.
        let short = std::time::Duration::from_millis(20);
        let mut closed = |stream: &mut TcpStream| {
            stream.set_read_timeout(Some(short)).unwrap();
            stream.read(&mut answer).is_ok_and(|read| read == 0)
        };
        let since = std::time::Instant::now();
        while !open.iter_mut().any(&mut closed) {
            assert!(since.elapsed() < DEADLINE, "none was closed");
        }
        let closed: Vec<_> = open
            .iter_mut()
            .map(closed)
            .filter(|closed| *closed)
            .collect();
        assert_eq!(closed.len(), 1);
    })
    .await
    .unwrap();
    admin.end().await;
}
