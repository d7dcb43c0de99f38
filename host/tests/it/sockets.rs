//! Sockets of guests: to granted endpoints, and to nothing else.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::thread;

use crate::examples::guest;
use crate::messaging::as_text;
use crate::support::apps::{Bench, Services, bench};

/// A server that answers a line with the same one, and its port.
fn tcp() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                stream.write_all(line.as_bytes())
            });
        }
    });
    port
}

/// The same for datagrams.
fn udp() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut bytes = [0; 1024];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).unwrap();
            socket.send_to(&bytes[..length], from).unwrap();
        }
    });
    port
}

const RUST: &str = "guests/rust/sockets";
const GO: &str = "guests/go/sockets";

async fn granted(grants: &str) -> Bench {
    granted_to(RUST, grants).await
}

async fn granted_to(folder: &str, grants: &str) -> Bench {
    let component = as_text(&guest(folder));
    let keys = format!("{grants}\nlimits = {{ timeout = \"3s\" }}");
    bench(&Services(&[("sockets", &component, &keys)], "")).await
}

async fn call(bench: &Bench, function: &str, arguments: serde_json::Value) -> String {
    let subject = format!("bay.app.bay.sockets.client.v1.{function}");
    bench.text(&subject, &arguments.to_string()).await
}

#[tokio::test]
async fn granted_endpoints_are_reached_by_address_and_by_name() {
    let (tcp, udp) = (tcp(), udp());
    let grants = format!(
        "grants = {{ tcp = [\"127.0.0.1:{tcp}\", \"localhost:{tcp}\"], udp = [\"127.0.0.1:{udp}\"] }}"
    );
    let bench = granted(&grants).await;
    for host in ["127.0.0.1", "localhost"] {
        let endpoint = format!("{host}:{tcp}");
        let arguments = serde_json::json!({ "endpoint": endpoint, "line": "hello" });
        assert_eq!(call(&bench, "tcp", arguments).await, r#"{"ok":"hello"}"#);
    }
    let arguments = serde_json::json!({ "endpoint": format!("127.0.0.1:{udp}"), "text": "hello" });
    assert_eq!(call(&bench, "udp", arguments).await, r#"{"ok":"hello"}"#);
    let found = call(
        &bench,
        "look-up",
        serde_json::json!({ "name": "localhost" }),
    )
    .await;
    assert!(found.contains("127.0.0.1"), "{found}");
    bench.end().await;
}

#[tokio::test]
async fn what_is_not_granted_is_refused() {
    let (granted_port, other) = (tcp(), tcp());
    let grants = format!("grants = {{ tcp = [\"localhost:{granted_port}\"] }}");
    let bench = granted(&grants).await;
    let refused = async |function: &'static str, arguments: serde_json::Value| {
        let answer = call(&bench, function, arguments.clone()).await;
        assert!(
            answer.starts_with(r#"{"err":"PermissionDenied"#),
            "{function} {arguments}: {answer}"
        );
    };
    let tcp = |endpoint: String| serde_json::json!({ "endpoint": endpoint, "line": "x" });
    // Another port, another protocol, another name, listening.
    refused("tcp", tcp(format!("127.0.0.1:{other}"))).await;
    refused("tcp", tcp("169.254.169.254:80".to_owned())).await;
    refused(
        "udp",
        serde_json::json!({ "endpoint": format!("127.0.0.1:{granted_port}"), "text": "x" }),
    )
    .await;
    refused("listen", serde_json::json!({})).await;
    let found = call(
        &bench,
        "look-up",
        serde_json::json!({ "name": "example.com" }),
    )
    .await;
    assert!(found.starts_with(r#"{"err":"#), "{found}");
    bench.end().await;

    // Without a grant there are no sockets.
    let bench = granted("").await;
    for (function, arguments) in [
        ("tcp", tcp(format!("127.0.0.1:{granted_port}"))),
        (
            "udp",
            serde_json::json!({ "endpoint": "127.0.0.1:53", "text": "x" }),
        ),
        ("listen", serde_json::json!({})),
        ("look-up", serde_json::json!({ "name": "localhost" })),
    ] {
        let answer = call(&bench, function, arguments).await;
        assert!(answer.starts_with(r#"{"err":"#), "{function}: {answer}");
    }
    bench.end().await;
}

#[tokio::test]
async fn go_connects_to_what_is_granted_and_waits_without_stopping_its_goroutines() {
    let (tcp, other) = (tcp(), tcp());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    let ending = TcpListener::bind("127.0.0.1:0").unwrap();
    let ending_port = ending.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in ending.incoming() {
            let mut line = String::new();
            BufReader::new(stream.unwrap())
                .read_line(&mut line)
                .unwrap();
        }
    });
    let grants = [tcp, silent_port, closed_port, ending_port];
    let grants = grants.map(|port| format!("\"localhost:{port}\", \"127.0.0.1:{port}\""));
    let grants = format!("grants = {{ tcp = [{}] }}", grants.join(", "));
    let bench = granted_to(GO, &grants).await;
    let say = async |endpoint: String, line: &str| {
        let arguments = serde_json::json!({ "endpoint": endpoint, "line": line });
        call(&bench, "tcp", arguments).await
    };
    for host in ["127.0.0.1", "localhost"] {
        let answer = say(format!("{host}:{tcp}"), "hello").await;
        assert_eq!(answer, r#"{"ok":"hello"}"#);
    }
    // More than goes over in one piece, in either direction.
    let long = "x".repeat(500_000);
    let answer = say(format!("127.0.0.1:{tcp}"), &long).await;
    assert_eq!(answer, format!(r#"{{"ok":"{long}"}}"#));

    // The one that reads waits for a second, the other one goes on meanwhile.
    let answer = say(format!("127.0.0.1:{silent_port}"), "hello").await;
    let ticks = answer.strip_prefix(r#"{"err":"TimedOut after "#);
    let ticks = ticks.and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(
        ticks.is_some_and(|ticks| (5..=20).contains(&ticks)),
        "{answer}"
    );
    let answer = say(format!("127.0.0.1:{ending_port}"), "hello").await;
    assert_eq!(answer, r#"{"err":"UnexpectedEof"}"#);

    for (endpoint, kind) in [
        (format!("127.0.0.1:{closed_port}"), "ConnectionRefused"),
        (format!("127.0.0.1:{other}"), "PermissionDenied"),
        ("db.example:5432".to_owned(), "PermissionDenied"),
        ("127.0.0.1:name".to_owned(), "dial tcp: 127.0.0.1:name"),
    ] {
        let answer = say(endpoint, "x").await;
        assert!(
            answer.starts_with(&format!(r#"{{"err":"{kind}"#)),
            "{answer}"
        );
    }
    let found = call(
        &bench,
        "look-up",
        serde_json::json!({ "name": "localhost" }),
    )
    .await;
    assert!(found.contains("127.0.0.1"), "{found}");
    let udp = serde_json::json!({ "endpoint": "127.0.0.1:53", "text": "x" });
    let answer = call(&bench, "udp", udp).await;
    assert!(answer.starts_with(r#"{"err":"Unsupported"#), "{answer}");
    bench.end().await;
}
