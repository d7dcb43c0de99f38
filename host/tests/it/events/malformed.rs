//! Events and dead letters that are no text.

use wasmbay::events::dead_letters::{DeadLetterError, Entry, Filter};

use super::*;
use crate::support::raw::{Raw, publication};

/// Stores what no client library publishes.
async fn store(raw: &mut Raw, subject: &[u8], headers: &[u8], body: &str) {
    raw.send(&publication(subject, "stored", headers, body.as_bytes()))
        .await;
    let mut answer = String::new();
    while !answer.contains("MSG stored") {
        answer.push_str(&raw.settled().await);
    }
    // It may have come in two parts.
    answer.push_str(&raw.settled().await);
    assert!(answer.contains("\"seq\""), "{answer}");
}

#[tokio::test]
async fn a_malformed_event_is_a_dead_letter_and_the_next_one_is_handled() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, _, _| Verdict::Ok).await;
    let (a, lines) = (sink("a"), durable(QUICK));
    let host = start(bench.nats.url(), &Services(&[("a", &a, "")], &lines)).await;
    let mut raw = Raw::connect(bench.nats.url()).await;
    raw.send(b"SUB stored 1\r\n").await;
    let (event, headers) = (event(1, 1), b"NATS/1.0\r\nA: \xff\r\n\r\n");
    store(&mut raw, HAPPENED.as_bytes(), headers, &event).await;
    let subject = b"bay.app.test.events.sink.v1.\xff";
    store(&mut raw, subject, b"", &event).await;
    // This is what a server says when a consumer is gone.
    let status = b"NATS/1.0 503\r\n\r\n";
    store(&mut raw, HAPPENED.as_bytes(), status, &event).await;
    bench.publish(1, 2).await;
    bench.done("a").await;
    assert_eq!(judge.attempts().len(), 2);
    let mut dead_letters = bench.until_dead_letters(2).await;
    dead_letters.sort_by_key(|dead_letter| dead_letter.sequence);
    for (dead_letter, why) in dead_letters.iter().zip(["headers", "subject"]) {
        let [attempt] = &dead_letter.attempts[..] else {
            panic!("{dead_letter:?}");
        };
        assert_eq!(attempt.code, Some(400));
        assert!(attempt.error.contains(why), "{}", attempt.error);
        let found = bench.dead_letters.get(&dead_letter.id).await.unwrap();
        assert_eq!(found.body, event);
    }
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_malformed_dead_letter_is_listed_as_unreadable_and_can_be_purged() {
    let bench = Bench::start().await;
    let (a, lines) = (sink("a"), durable(QUICK));
    let host = start(bench.nats.url(), &Services(&[("a", &a, "")], &lines)).await;
    let mut raw = Raw::connect(bench.nats.url()).await;
    raw.send(b"SUB stored 1\r\n").await;
    let prefix = "bay-dlq.app.a.test.events.sink.v1.happened";
    let subject = format!("{prefix}.0123456789abcdef").into_bytes();
    store(&mut raw, &subject, b"NATS/1.0\r\nA: \xff\r\n\r\n", "").await;
    let subject = [prefix.as_bytes(), b".\xff"].concat();
    store(&mut raw, &subject, b"", "").await;
    let page = bench.dead_letters.list(&Filter::default(), None, 10).await;
    let entries = page.unwrap().entries;
    let ids: Vec<_> = entries.iter().map(Entry::id).collect();
    assert_eq!(ids, ["0123456789abcdef", "at-2"]);
    for (entry, why) in entries
        .iter()
        .zip(["they are not UTF-8", "the subject is not UTF-8"])
    {
        let Entry::Unreadable(unreadable) = entry else {
            panic!("{entry:?}");
        };
        assert!(unreadable.unreadable.contains(why), "{unreadable:?}");
        let error = bench.dead_letters.get(entry.id()).await.unwrap_err();
        assert!(matches!(error, DeadLetterError::Unreadable(_)), "{error}");
        let purged = bench.dead_letters.purge(&Filter::only(entry.id())).await;
        assert_eq!(purged.unwrap(), 1);
    }
    let page = bench.dead_letters.list(&Filter::default(), None, 10).await;
    assert!(page.unwrap().entries.is_empty());
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}
