//! Messages that are no text: what any client can publish, and no client library lets through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wasmbay::wire;

use crate::support::apps::{Services, bench};
use crate::support::components::GUEST;
use crate::support::raw::{Raw, publication};

const ECHO: &str = "bay.app.test.guest.api.v1.echo";
const ONE: Services<'_> = Services(&[("guest", GUEST, "")], "");

#[tokio::test]
async fn a_malformed_call_is_answered_with_400() {
    let bench = bench(&ONE).await;
    let mut raw = Raw::connect(bench.nats.url()).await;
    raw.send(b"SUB answer 1\r\n").await;
    for (subject, headers, why) in [
        (
            ECHO.as_bytes(),
            &b"NATS/1.0\r\nA: \xff\r\n\r\n"[..],
            "they are not UTF-8",
        ),
        (ECHO.as_bytes(), b"x", "they do not begin with NATS/1.0"),
        (b"$SRV.PING", b"x", "they do not begin with NATS/1.0"),
        (b"$SRV.PING.\xff", b"", "the subject is not UTF-8"),
    ] {
        raw.send(&publication(
            subject,
            "answer",
            headers,
            br#"{"text":"hi"}"#,
        ))
        .await;
        let mut answer = String::new();
        while !answer.contains("MSG answer") {
            answer.push_str(&raw.settled().await);
        }
        // It may have come in two parts.
        answer.push_str(&raw.settled().await);
        assert!(
            answer.contains(&format!("{}: 400", wire::ERROR_CODE)),
            "{answer}"
        );
        assert!(answer.contains(why), "{answer}");
    }
    assert_eq!(bench.text(ECHO, r#"{"text":"hi"}"#).await, r#""hi""#);
    bench.end().await;
}

#[tokio::test]
async fn a_flood_of_malformed_messages_loses_no_call() {
    let bench = bench(&ONE).await;
    let mut raw = Raw::connect(bench.nats.url()).await;
    let done = Arc::new(AtomicBool::new(false));
    let calls = tokio::spawn({
        let (client, done) = (bench.client.clone(), Arc::clone(&done));
        async move {
            let mut answered = 0;
            while !done.load(Ordering::Relaxed) {
                let call = client.request(ECHO, r#"{"text":"hi"}"#.into());
                let reply = tokio::time::timeout(Duration::from_secs(5), call).await;
                assert_eq!(reply.unwrap().unwrap().payload, r#""hi""#);
                answered += 1;
            }
            answered
        }
    });
    // Thirty a second, on every subject that a host has.
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / 30);
    for _ in 0..60 {
        ticks.tick().await;
        for subject in [
            &b"$SRV.PING.\xff"[..],
            b"$SRV.\xff",
            b"bay.app.test.guest.api.v1.\xff",
        ] {
            raw.send(&publication(subject, "", b"", b"")).await;
        }
        for subject in [ECHO.as_bytes(), b"$SRV.INFO"] {
            raw.send(&publication(
                subject,
                "",
                b"NATS/1.0\r\n\xff: \xff\r\n\r\n",
                b"",
            ))
            .await;
        }
    }
    done.store(true, Ordering::Relaxed);
    let answered = calls.await.unwrap();
    assert!(answered > 60, "{answered}");
    bench.end().await;
}
