//! Calls that stay in the process: nothing but the wire tells them from those over NATS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wasmbay::host::{Host, HostOptions};
use wasmbay::nats::{ConnectOptions, settled};

use crate::host::code;
use crate::support::apps::{Bench, Services, apply, start_with};
use crate::support::components::{CALLER, GUEST, OTHER, PASSES_ON, SLEEPER};
use crate::support::nats::Nats;
use crate::support::{DEADLINE, assert_no_message, until_ok};

/// The two ways of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    InProcess,
    OverNats,
}

const BOTH: [Way; 2] = [Way::InProcess, Way::OverNats];

impl Way {
    /// The lines of a manifest that have calls of these interfaces go this way.
    fn wires(self, interfaces: &[&str]) -> String {
        let local = if self == Self::InProcess {
            "prefer"
        } else {
            "never"
        };
        let wire = |name: &&str| format!("[wire.\"test:{name}/api\"]\nlocal = \"{local}\"\n");
        interfaces.iter().map(wire).collect()
    }
}

/// The interfaces of [`ALL`].
const APIS: [&str; 4] = ["guest", "caller", "other", "sleeper"];

/// All services, of which the guest takes little at a time.
const ALL: [(&str, &str, &str); 4] = [
    (
        "guest",
        GUEST,
        "limits = { timeout = \"300ms\", message = \"4KiB\", concurrency = 2, queue = 0 }",
    ),
    ("caller", CALLER, ""),
    ("other", OTHER, ""),
    ("sleeper", SLEEPER, ""),
];

/// A host with a gateway on this server.
async fn host_on(nats: &Nats, services: &Services<'_>) -> (Host, SocketAddr) {
    let options = HostOptions {
        gateway: Some("127.0.0.1:0".parse().unwrap()),
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let host = start_with(options, services).await;
    let address = host.gateway().unwrap();
    (host, address)
}

/// Calls a function at its RPC path; returns status and body.
async fn post(address: SocketAddr, function: &str, body: &str) -> (u16, String) {
    let request = Request::post(format!("/rpc/test:{function}"))
        .header(HOST, "test")
        .body(Full::<Bytes>::from(body.to_owned()))
        .unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let response = timeout(DEADLINE, sender.send_request(request)).await;
    let response = response.unwrap().unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    connection.abort();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// As [`post`], again until there is room for the call: one by which a test looks may come first.
async fn post_admitted(address: SocketAddr, function: &str, body: &str) -> (u16, String) {
    loop {
        let answer = post(address, function, body).await;
        if answer.0 != 429 {
            return answer;
        }
    }
}

/// Hears every call of the app that goes over NATS.
async fn wire_of(client: &Client) -> Subscriber {
    let calls = client.subscribe("bay.app.>").await.unwrap();
    settled(client).await.unwrap();
    calls
}

/// A text without durations, which are never the same.
fn without_times(text: &str) -> String {
    let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
    for word in &mut words {
        let number = word.trim_end_matches(|c: char| !c.is_ascii_digit());
        if (word.ends_with("ms") || word.ends_with('s')) && number.parse::<f64>().is_ok() {
            *word = "TIME".to_owned();
        }
    }
    words.join(" ")
}

/// What callers get, for every way in which a call can end.
async fn outcomes(way: Way) -> Vec<(String, u16, String)> {
    let nats = Nats::start().await;
    let next =
        |next| format!("limits = {{ hops = 5 }}\nwire = {{ \"test:other/api\" = \"{next}\" }}");
    let (to_one, to_two) = (next("one"), next("two"));
    let circle = [("one", PASSES_ON, &*to_two), ("two", PASSES_ON, &*to_one)];
    let large = format!("[\"{}\"]", "x".repeat(5_000));
    let mut outcomes = Vec::new();

    let (host, address) = host_on(&nats, &Services(&ALL, &way.wires(&APIS))).await;
    for (function, body) in [
        ("guest/api/echo", r#"["hello"]"#),
        ("guest/api/echo", r#"{"text":1}"#),
        ("guest/api/echo", r#"{"text":"a","more":1}"#),
        ("guest/api/echo", &large),
        ("guest/api/none", ""),
        ("guest/api/repeat", "[10]"),
        ("guest/api/repeat", "[5000]"),
        ("guest/api/check", "[5]"),
        ("guest/api/check", "[50]"),
        ("guest/api/trap", ""),
        ("guest/api/take-memory", "[60000]"),
        ("guest/api/spin", ""),
        ("caller/api/ask", "[41]"),
        ("caller/api/try", "[41]"),
        ("caller/api/try", "[0]"),
    ] {
        let (status, text) = post(address, function, body).await;
        outcomes.push((function.to_owned(), status, without_times(&text)));
    }
    assert!(host.stop(DEADLINE).await.is_complete());

    let wires = way.wires(&["other"]) + "service = \"one\"\n";
    let (host, address) = host_on(&nats, &Services(&circle, &wires)).await;
    let (status, text) = post(address, "other/api/ask", "[1]").await;
    outcomes.push(("circle".to_owned(), status, text));
    assert!(host.stop(DEADLINE).await.is_complete());

    // What the caller needs fails: a trap, no end in time, no room.
    let broken = OTHER.replace("(i32.add (local.get 0) (i32.const 1))", "unreachable");
    let endless = OTHER.replace(
        "(i32.add (local.get 0) (i32.const 1))",
        "(loop $again (br $again)) (i32.const 0)",
    );
    for (callee, limits) in [
        (&broken, ""),
        (&endless, "limits = { timeout = \"100ms\" }"),
        (&endless, ""),
    ] {
        let caller = ("caller", CALLER, "limits = { timeout = \"300ms\" }");
        let services = [caller, ("other", callee, limits)];
        let wires = way.wires(&["caller", "other"]);
        let (host, address) = host_on(&nats, &Services(&services, &wires)).await;
        let (status, text) = post(address, "caller/api/ask", "[1]").await;
        // Where both run out of the caller's time, either may be the first to say so.
        let text = if limits.is_empty() && callee == &endless {
            String::new()
        } else {
            text
        };
        outcomes.push((limits.to_owned(), status, without_times(&text)));
        assert!(host.stop(DEADLINE).await.is_complete());
    }
    nats.stop().await;
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_is_the_same_in_the_process_and_over_nats() {
    let (local, remote) = tokio::join!(outcomes(Way::InProcess), outcomes(Way::OverNats));
    for (local, remote) in local.iter().zip(&remote) {
        assert_eq!(local, remote);
    }
    assert_eq!(local.len(), remote.len());
    let statuses: Vec<_> = local.iter().map(|(_, status, _)| *status).collect();
    for status in [200, 400, 404, 413, 500, 502, 504, 508] {
        assert!(statuses.contains(&status), "{status}: {local:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_on_the_wire_only_where_it_has_to_be() {
    let nats = Nats::start().await;
    let (host, address) = host_on(&nats, &Services(&ALL, "")).await;
    let client = nats.connect().await;
    let mut wire = wire_of(&client).await;
    assert_eq!(
        post(address, "caller/api/ask", "[41]").await,
        (200, "42".to_owned())
    );
    assert_no_message(&client, &mut wire).await;

    // A change of the manifest is enough, there and back.
    apply(&host, &Services(&ALL, &Way::OverNats.wires(&APIS)))
        .await
        .unwrap();
    assert_eq!(post(address, "caller/api/ask", "[41]").await.0, 200);
    for subject in [
        "bay.app.test.caller.api.v1.ask",
        "bay.app.test.other.api.v1.ask",
    ] {
        let message = timeout(DEADLINE, wire.next()).await.unwrap().unwrap();
        assert_eq!(&*message.subject, subject);
    }
    apply(&host, &Services(&ALL, "")).await.unwrap();
    assert_eq!(post(address, "caller/api/ask", "[41]").await.0, 200);
    assert_no_message(&client, &mut wire).await;
    assert!(host.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_room_leaves_the_call_to_another_host() {
    let nats = Nats::start().await;
    let one = "limits = { concurrency = 1, queue = 0, timeout = \"20s\" }";
    let services = Services(&[("guest", GUEST, one)], "");
    let (first, address) = host_on(&nats, &services).await;
    let busy = tokio::spawn(async move { post_admitted(address, "guest/api/spin", "").await });
    until_ok("the first host has no room", async || {
        let (status, text) = post(address, "guest/api/count", "").await;
        if status == 429 { Ok(()) } else { Err(text) }
    })
    .await;
    let (second, _) = host_on(&nats, &services).await;
    // The first one still is a member of the queue group, so some calls come back to it.
    until_ok("the second host answers", async || {
        let (status, text) = post(address, "guest/api/count", "").await;
        if status == 200 { Ok(()) } else { Err(text) }
    })
    .await;
    let (stopped, ended) = tokio::join!(first.stop(Duration::from_millis(200)), busy);
    assert_eq!((stopped.given_up, ended.unwrap().0), (1, 503));
    assert!(second.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_called_goes_on_when_its_caller_is_gone() {
    for way in BOTH {
        let nats = Nats::start().await;
        let (host, address) = host_on(&nats, &Services(&ALL, &way.wires(&APIS))).await;
        let client = nats.connect().await;
        let bench = Bench { nats, host, client };
        let gone = post(address, "sleeper/api/sleep", "[300]");
        assert!(timeout(Duration::from_millis(100), gone).await.is_err());
        let stats = bench
            .stats_when("sleeper", |stats| stats.num_requests == 1)
            .await;
        assert_eq!(stats.num_errors, 0, "{way:?}");
        assert!(stats.processing_time >= 300_000_000, "{stats:?}");
        bench.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stops_waits_for_what_it_calls_itself() {
    for way in BOTH {
        let nats = Nats::start().await;
        let one = "limits = { concurrency = 1, queue = 0 }";
        let services = [("sleeper", SLEEPER, one)];
        let wires = way.wires(&["sleeper"]);
        let (host, address) = host_on(&nats, &Services(&services, &wires)).await;
        let call =
            tokio::spawn(
                async move { post_admitted(address, "sleeper/api/sleep", "[1500]").await },
            );
        until_ok("the call is under way", async || {
            let (status, text) = post(address, "sleeper/api/sleep", "[0]").await;
            if status == 429 { Ok(()) } else { Err(text) }
        })
        .await;
        assert!(host.stop(DEADLINE).await.is_complete());
        nats.stop().await;
        assert_eq!(call.await.unwrap(), (204, String::new()), "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callee_is_replaced_under_load_without_a_lost_call() {
    let nats = Nats::start().await;
    let services = |other| [("caller", CALLER, ""), ("other", OTHER, other)];
    let (host, address) = host_on(&nats, &Services(&services(""), "")).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = (0..8u32).map(|n| {
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            let mut calls = 0;
            while !stop.load(Ordering::Relaxed) {
                let answer = post(address, "caller/api/ask", &format!("[{n}]")).await;
                assert_eq!(answer, (200, (n + 1).to_string()));
                calls += 1;
            }
            calls
        })
    });
    let load: Vec<_> = load.collect();
    for round in 0..10 {
        let lines = ["reuse = 7", ""][round % 2];
        apply(&host, &Services(&services(lines), "")).await.unwrap();
        let (status, _) = post(address, "caller/api/ask", "[1]").await;
        assert_eq!(status, 200);
    }
    stop.store(true, Ordering::Relaxed);
    let calls: Vec<u32> = join_all(load)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(calls.iter().sum::<u32>() > 50, "{calls:?}");
    assert!(host.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_comes_back_while_it_drains_is_served() {
    let nats = Nats::start().await;
    let one = "limits = { concurrency = 1, queue = 0 }";
    let both = [ALL[0], ("sleeper", SLEEPER, one)];
    let (host, address) = host_on(&nats, &Services(&both, "")).await;
    let client = nats.connect().await;
    let caller = client.clone();
    let sleep = tokio::spawn(async move {
        loop {
            let sleep = caller.request("bay.app.test.sleeper.api.v1.sleep", "[1500]".into());
            let reply = sleep.await.unwrap();
            if code(&reply) != Some("429") {
                return reply;
            }
        }
    });
    let bench = Bench { nats, host, client };
    until_ok("the call is under way", async || {
        let (status, text) = post(address, "sleeper/api/sleep", "[0]").await;
        if status == 429 { Ok(()) } else { Err(text) }
    })
    .await;
    apply(&bench.host, &Services(&both[..1], "")).await.unwrap();
    apply(&bench.host, &Services(&both, "")).await.unwrap();
    let again = || bench.request("bay.app.test.sleeper.api.v1.sleep", "[0]");
    assert!(again().await.headers.is_none());
    let reply = sleep.await.unwrap();
    assert!(reply.headers.is_none(), "{reply:?}");
    // Also when the drain of the first is over.
    for _ in 0..200 {
        assert!(again().await.headers.is_none());
        assert_eq!(post(address, "sleeper/api/sleep", "[0]").await.0, 204);
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_a_client_takes_to_send_is_no_wait_of_the_service() {
    for way in BOTH {
        let nats = Nats::start().await;
        let services = [("guest", GUEST, "limits = { wait = \"50ms\" }")];
        let (host, address) = host_on(&nats, &Services(&services, &way.wires(&["guest"]))).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head =
            "POST /rpc/test:guest/api/echo HTTP/1.0\r\nHost: test\r\nContent-Length: 8\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        // More than the service lets a call wait: time is what is tested here.
        tokio::time::sleep(Duration::from_millis(150)).await;
        stream.write_all(b"[\"late\"]").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("\"late\""), "{way:?}: {answer}");
        assert!(host.stop(DEADLINE).await.is_complete());
        nats.stop().await;
    }
}
