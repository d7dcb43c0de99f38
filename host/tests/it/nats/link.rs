//! The connection that messages travel over.

use wasmbay::nats::{Link, Subscription};

use super::*;
use crate::support::nats::Configured;
use crate::support::raw::{Raw, let_in, publication};

async fn next(messages: &mut Subscription) -> wasmbay::nats::Message {
    timeout(DEADLINE, messages.next()).await.unwrap().unwrap()
}

async fn publish(link: &Link, subject: &str, body: &str) {
    let none = Headers::new();
    link.publish(subject, None, &none, body.as_bytes())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_malformed_message_is_one_message_and_the_connection_stays() {
    let nats = Nats::start().await;
    let link = nats.link().await;
    let mut messages = link.subscribe("a.>", None).unwrap();
    link.settled().await.unwrap();
    let mut raw = Raw::connect(nats.url()).await;
    for bytes in [
        publication(b"a.\xff", "r", b"", b"1"),
        publication(b"a.b", "r", b"NATS/1.0\r\nA: \xff\r\n\r\n", b"2"),
        publication(b"a.b", "r", b"no headers", b"3"),
        publication(b"a.b", "r", b"NATS/1.0\r\nA: 1\r\n\r\n", b"4"),
    ] {
        raw.send(&bytes).await;
    }
    for (body, malformed, subject) in [
        ("1", true, "a.\u{fffd}"),
        ("2", true, "a.b"),
        ("3", true, "a.b"),
        ("4", false, "a.b"),
    ] {
        let message = next(&mut messages).await;
        assert_eq!(message.payload, body);
        assert_eq!(message.malformed.is_some(), malformed, "{message:?}");
        assert_eq!(&*message.subject, subject);
        assert_eq!(message.reply.as_deref(), Some("r"));
    }
    assert!(link.is_connected());
    nats.stop().await;
}

#[tokio::test]
async fn a_connection_comes_back_with_its_subscriptions_and_what_waits_is_sent() {
    let nats = Nats::start().await;
    let (link, other) = (nats.link().await, nats.link().await);
    let mut messages = link.subscribe("a", None).unwrap();
    let dropped = link.subscribe("b", None).unwrap();
    link.settled().await.unwrap();
    drop(dropped);
    kill_9(nats.server.pid().unwrap());
    until("both are lost", || {
        !link.is_connected() && !other.is_connected()
    })
    .await;
    // Without a server.
    let mut later = link.subscribe("c", None).unwrap();
    publish(&link, "c", "waited").await;
    until("both are there again", || {
        link.is_connected() && other.is_connected()
    })
    .await;
    link.settled().await.unwrap();
    publish(&other, "b", "nobody").await;
    publish(&other, "a", "again").await;
    assert_eq!(next(&mut messages).await.payload, "again");
    assert_eq!(next(&mut later).await.payload, "waited");
    nats.stop().await;
}

#[tokio::test]
async fn what_was_handed_out_before_the_end_of_a_subscription_has_arrived() {
    let nats = Nats::start().await;
    let (link, other) = (nats.link().await, nats.link().await);
    for round in 0..20 {
        let mut members = [(); 2].map(|()| link.subscribe("a", Some("group")).unwrap());
        link.settled().await.unwrap();
        let publishing = async {
            for number in 0..200 {
                publish(&other, "a", &number.to_string()).await;
            }
            other.settled().await.unwrap();
        };
        let [first, second] = &mut members;
        let (ended, ()) = tokio::join!(first.unsubscribe(), publishing);
        ended.unwrap();
        link.settled().await.unwrap();
        let mut arrived = 0;
        for member in [first, second] {
            while let Some(Some(_)) = member.next().now_or_never() {
                arrived += 1;
            }
        }
        assert_eq!(arrived, 200, "round {round}");
    }
    nats.stop().await;
}

#[tokio::test]
async fn a_refused_subscription_is_known_when_the_server_has_seen_it() {
    let lines = "authorization { users = [ { user: a, password: a, permissions: \
                 { publish: \"x\", subscribe: [\"x\", \"_INBOX.>\"] } } ] }";
    let server = Configured::start(lines).await;
    let options = ConnectOptions::to(server.url_of("a"));
    let link = options.link().await.unwrap();
    let allowed = link.subscribe("x", None).unwrap();
    link.settled().await.unwrap();
    assert_eq!(link.refused(), None);
    let refused = link.subscribe("y.>", Some("group")).unwrap();
    link.settled().await.unwrap();
    let words = link.refused().unwrap();
    assert!(words.contains("\"y.>\""), "{words}");
    assert!(options.violations.of("y.").is_some(), "{words}");
    drop((refused, allowed));
    assert_eq!(link.refused(), None);
    // One that is published is no matter of a subscription.
    publish(&link, "z", "").await;
    link.settled().await.unwrap();
    assert!(options.violations.of("z").is_some());
    assert_eq!(link.refused(), None);
}

#[tokio::test]
async fn a_permission_that_is_taken_away_is_known() {
    let lines = |subjects: &str| {
        format!(
            "authorization {{ users = [ {{ user: a, password: a, permissions: \
             {{ publish: \"x\", subscribe: [{subjects}] }} }} ] }}"
        )
    };
    let server = Configured::start_core(&lines("\"x\", \"y\"")).await;
    let link = ConnectOptions::to(server.url_of("a")).link().await.unwrap();
    let _kept = [link.subscribe("x", None), link.subscribe("y", None)];
    link.settled().await.unwrap();
    assert_eq!(link.refused(), None);
    server.reload(&lines("\"x\""));
    until("it is known", || link.refused().is_some()).await;
    let words = link.refused().unwrap();
    assert!(words.contains("\"y\""), "{words}");
}

#[tokio::test]
async fn more_than_a_connection_takes_waits_in_its_publisher() {
    let nats = Nats::start().await;
    let (link, other) = (nats.link().await, nats.link().await);
    let mut messages = other.subscribe("a", None).unwrap();
    other.settled().await.unwrap();
    let (none, body) = (Headers::new(), vec![b'x'; 512 << 10]);
    let many = 2 * wasmbay::nats::OUTPUT_CAPACITY / body.len();
    let publishing = async {
        for _ in 0..many {
            link.publish("a", None, &none, &body).await.unwrap();
        }
    };
    let reading = async {
        for _ in 0..many {
            assert_eq!(next(&mut messages).await.payload.len(), body.len());
        }
    };
    tokio::join!(publishing, reading);
    nats.stop().await;
}

#[tokio::test]
async fn a_silent_server_is_left() {
    // It answers once, and then nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut accepted, connecting) = (0, ConnectOptions::to(address.to_string()));
    let serving = async {
        let mut kept = Vec::new();
        while accepted < 2 {
            kept.push(let_in(&listener).await);
            accepted += 1;
            // From here on time passes without anything else to do.
            if accepted == 1 {
                tokio::time::pause();
            }
        }
        tokio::time::resume();
    };
    let (link, ()) = tokio::join!(connecting.link(), serving);
    drop(link.unwrap());
    assert_eq!(accepted, 2);
}

#[tokio::test]
async fn a_server_that_is_about_to_shut_down_is_left_without_losing_a_request() {
    let cluster = "cluster { name: c, listen: \"127.0.0.1:-1\"";
    let first = Configured::start_core(&format!("{cluster} }}")).await;
    let routes = format!("{cluster}, routes: [\"{}\"] }}", first.cluster());
    let second = Configured::start_core(&routes).await;
    // It learns of the other server from the one that it knows.
    let link = ConnectOptions::to(first.url()).link().await.unwrap();
    let before = link.server();
    let other = ConnectOptions::to(second.url()).link().await.unwrap();
    let mut questions = link.subscribe("ask", Some("group")).unwrap();
    link.settled().await.unwrap();
    let mut left = other.subscribe("left", None).unwrap();
    other.settled().await.unwrap();
    let mut witness = Raw::connect(first.url()).await;
    let responder = link.clone();
    let answering = tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let (to, none) = (question.reply.unwrap(), Headers::new());
            let sent = responder.publish(&to, None, &none, &question.payload);
            sent.await.unwrap();
        }
    });
    let requests = Requests::new(other).unwrap();
    let ask = || requests.request("ask".into(), Headers::new(), "x".into());
    // The route is there when the first one is answered.
    let reached = async {
        while let Err(error) = ask().await {
            assert!(
                matches!(error, RequestError::NoResponders { .. }),
                "{error}"
            );
        }
    };
    timeout(DEADLINE, reached).await.unwrap();
    // A caller that stays: where two servers are, one may choose a member of a group that has just
    // left the other, and no client can help that.
    let caller = ConnectOptions::to(first.url()).connect().await.unwrap();
    first.signal("-USR2");
    let moved = async {
        let mut after = 0;
        while after < 100 {
            caller.request("ask", "x".into()).await.unwrap();
            assert!(link.is_connected());
            after += u32::from(link.server() != before);
        }
    };
    timeout(DEADLINE, moved).await.unwrap();
    // The old server has no subscription any more, and what follows on its route says that the other
    // one knows: until then a member of the group there would still be chosen.
    link.settled().await.unwrap();
    witness.send(b"PUB left 0\r\n\r\n").await;
    next(&mut left).await;
    first.signal("-KILL");
    for _ in 0..100 {
        timeout(DEADLINE, ask()).await.unwrap().unwrap();
    }
    assert!(link.is_connected());
    answering.abort();
}

/// The folder of certificates that were made for these tests, for 127.0.0.1 and a hundred years.
fn certificates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/nats/tls")
}

async fn tls_server(lines: &str) -> Configured {
    let folder = certificates();
    let folder = folder.display();
    Configured::start_core(&format!(
        "tls {{ cert_file: \"{folder}/server.pem\", key_file: \"{folder}/server.key\", \
         ca_file: \"{folder}/ca.pem\" {lines} }}"
    ))
    .await
}

fn trusting(url: &str) -> ConnectOptions {
    ConnectOptions {
        tls_ca: Some(certificates().join("ca.pem")),
        ..ConnectOptions::to(url)
    }
}

#[tokio::test]
async fn tls_is_spoken_where_the_server_or_the_url_wants_it() {
    let server = tls_server("").await;
    let address = server.url().split_once("://").unwrap().1.to_owned();
    for url in [format!("nats://{address}"), format!("tls://{address}")] {
        let link = trusting(&url).link().await.unwrap();
        let mut messages = link.subscribe("a", None).unwrap();
        let body = "x".repeat(100_000);
        publish(&link, "a", &body).await;
        assert_eq!(next(&mut messages).await.payload, body);
        let error = ConnectOptions::to(&url).link().await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    }
    // A server without it cannot be spoken to by `tls://`.
    let nats = Nats::start().await;
    let plain = nats.url().replace("nats://", "tls://");
    let error = trusting(&plain).link().await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    nats.stop().await;
}

#[tokio::test]
async fn tls_can_begin_before_the_server_says_anything() {
    let server = tls_server(", handshake_first: true").await;
    let options = ConnectOptions {
        tls_first: true,
        ..trusting(server.url())
    };
    options.link().await.unwrap().settled().await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_the_client_is_shown() {
    let server = tls_server(", verify: true").await;
    let options = ConnectOptions {
        tls_cert: Some(certificates().join("client.pem")),
        tls_key: Some(certificates().join("client.key")),
        ..trusting(server.url())
    };
    options.link().await.unwrap().settled().await.unwrap();
    let error = trusting(server.url()).link().await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Tls { .. } | ConnectError::Unreachable { .. }
        ),
        "{error:?}"
    );
}
