//! The operations on dead letters.

use std::time::Duration;

use async_nats::{HeaderMap, jetstream};
use serde_json::{Value, json};
use wasmbay::events::dead_letters::{DeadLetterError, Entry, Filter, Pace};
use wasmbay::wire;

use super::{Admin, error, ids};
use crate::events::{STREAM, event};
use crate::support::{until, until_ok};

#[tokio::test]
async fn dead_letters_are_listed_by_service_and_function() {
    let (admin, all) = Admin::with_dead_letters("", 2).await;
    let list = admin.expect(200, "GET", "/dead-letters").await;
    assert_eq!(ids(&list), all);
    assert_eq!(list.get("next"), None);
    let first = &list["deadLetters"][0];
    assert_eq!(first["attempts"].as_array().unwrap().len(), 3);
    assert_eq!(first.get("body"), None);
    for (query, count) in [
        ("service=a", 2),
        ("service=publisher", 0),
        ("function=sink.happened", 2),
        ("function=test:events/sink.happened@1.0.0&service=a", 2),
        ("function=test:events/sink.happened@2.0.0", 0),
        ("function=other/sink.happened", 0),
    ] {
        let path = format!("/dead-letters?{query}");
        let list = admin.expect(200, "GET", &path).await;
        assert_eq!(ids(&list).len(), count, "{query}");
    }
    admin.end().await;
}

#[tokio::test]
async fn a_list_has_pages() {
    let (admin, all) = Admin::with_dead_letters("", 3).await;
    let page = admin.expect(200, "GET", "/dead-letters?limit=2").await;
    assert_eq!(ids(&page), &all[..2]);
    let next = page["next"].as_str().unwrap();
    let path = format!("/dead-letters?limit=2&after={next}");
    let page = admin.expect(200, "GET", &path).await;
    assert_eq!(ids(&page), &all[2..]);
    assert_eq!(page.get("next"), None);
    admin.end().await;
}

#[tokio::test]
async fn a_dead_letter_is_shown_with_its_body_and_revision() {
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    let path = format!("/dead-letters/{}", all[0]);
    let response = admin.send("GET", &path, &[], "").await;
    let shown = response.json();
    assert_eq!(shown["body"], json!({ "key": 7, "n": 1 }));
    assert_eq!(shown["attempts"][0]["error"], r#""refused""#);
    let tag = format!("etag: \"{}\"", shown["revision"]);
    for header in [
        &*tag,
        "cache-control: no-store",
        "x-content-type-options: nosniff",
    ] {
        assert!(response.head.contains(header), "{response:?}");
    }
    let head = admin.send("HEAD", &path, &[], "").await;
    assert_eq!(head.status_and_body(), (200, ""));
    let length = format!("content-length: {}", response.body.len());
    assert!(head.head.contains(&length), "{head:?}");
    admin.end().await;
}

#[tokio::test]
async fn an_edit_is_checked_against_type_and_revision() {
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    let path = format!("/dead-letters/{}", all[0]);
    let before = admin.expect(200, "GET", &path).await;
    let refused = admin.put(&path, &[], r#"{"key":7,"n":"10"}"#).await;
    let (status, code, why) = error(&refused);
    assert_eq!((status, code), (400, 400));
    assert!(why.contains("$.n: expected u32"), "{why}");
    for (tag, status) in [("\"1000\"", 412), ("17", 400)] {
        let refused = admin.put(&path, &[("If-Match", tag)], &event(7, 10)).await;
        assert_eq!(error(&refused).0, status, "{tag}");
    }
    assert_eq!(admin.expect(200, "GET", &path).await, before);

    let tag = format!("\"{}\"", before["revision"]);
    let edited = admin.put(&path, &[("If-Match", &tag)], &event(7, 10)).await;
    assert_eq!(edited.status, 200, "{edited:?}");
    assert_eq!(edited.json()["body"], json!({ "key": 7, "n": 10 }));
    assert_eq!(edited.json()["edited"], true);
    let second = admin.put(&path, &[("If-Match", &tag)], &event(7, 11)).await;
    assert_eq!(error(&second).0, 412);
    admin.end().await;
}

#[tokio::test]
async fn a_replayed_dead_letter_is_gone_when_its_event_is_handled() {
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    let path = format!("/dead-letters/{}", all[0]);
    assert_eq!(admin.put(&path, &[], &event(7, 10)).await.status, 200);
    let replay = format!("{path}/replay");
    let replayed = admin.expect(202, "POST", &replay).await;
    assert_eq!(replayed, json!({ "replayed": [all[0]] }));
    admin.bench.until_dead_letters(0).await;
    assert_eq!(admin.judge.counts("a")[&10], 1);
    for (method, path) in [
        ("GET", &*path),
        ("PUT", &path),
        ("DELETE", &path),
        ("POST", &replay),
        ("GET", "/dead-letters/nonsense"),
        ("DELETE", "/dead-letters/at-99999"),
    ] {
        admin.expect(404, method, path).await;
    }
    admin.end().await;
}

#[tokio::test]
async fn many_are_replayed_page_by_page_and_none_twice() {
    let (admin, all) = Admin::with_dead_letters("", 2).await;
    let before = admin.judge.attempts().len();
    let path = "/dead-letters/replay?service=a&rate=100/s&limit=1";
    let first = admin.expect(202, "POST", path).await;
    assert_eq!(first["replayed"], json!([all[0]]));
    let next = first["next"].as_str().unwrap();
    // It is stored anew, behind the other one.
    until("it has failed again", || {
        admin.judge.attempts().len() == before + 3
    })
    .await;
    let path = format!("{path}&after={next}");
    let rest = admin.expect(202, "POST", &path).await;
    assert_eq!(rest, json!({ "replayed": [all[1]], "failed": [] }));
    until("so has the other", || {
        admin.judge.attempts().len() == before + 6
    })
    .await;
    admin.bench.done("a").await;
    let list = admin.expect(200, "GET", "/dead-letters").await;
    assert_eq!(ids(&list), all);
    for dead_letter in list["deadLetters"].as_array().unwrap() {
        assert_eq!(dead_letter["attempts"].as_array().unwrap().len(), 6);
    }
    admin.end().await;
}

#[tokio::test]
async fn dead_letters_are_purged_one_by_one_or_by_a_filter() {
    let (admin, all) = Admin::with_dead_letters("", 2).await;
    let one = format!("/dead-letters/{}", all[0]);
    for (path, purged) in [
        ("/dead-letters?service=publisher", 0),
        (&*one, 1),
        ("/dead-letters?all=true", 1),
    ] {
        let answer = admin.expect(200, "DELETE", path).await;
        assert_eq!(answer, json!({ "purged": purged }), "{path}");
    }
    assert!(admin.bench.list().await.is_empty());
    admin.end().await;
}

#[tokio::test]
async fn an_unreadable_record_is_listed_as_such_and_can_be_purged() {
    let (admin, all) = Admin::with_dead_letters("", 2).await;
    let context = jetstream::new(admin.bench.client.clone());
    let store = async |subject: String, record: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(record) = record {
            headers.insert(wire::DEAD_LETTER, record);
        }
        let sent = context.publish_with_headers(subject, headers, "x".into());
        sent.await.unwrap().await.unwrap().sequence
    };
    let event = "bay-dlq.app.a.test.events.sink.v1.happened";
    let broken = "0123456789abcdef";
    store(format!("{event}.{broken}"), Some("{}")).await;
    let odd = store("bay-dlq.app.odd".to_owned(), None).await;
    let odd = format!("at-{odd}");
    // The record of one dead letter under the id of another.
    let one = admin.bench.dead_letters.get(&all[0]).await.unwrap();
    let record = serde_json::to_string(&one).unwrap();
    let forged = "fedcba9876543210";
    store(format!("{event}.{forged}"), Some(&record)).await;

    let list = admin.expect(200, "GET", "/dead-letters").await;
    assert_eq!(ids(&list), [&*all[0], &*all[1], broken, &*odd, forged]);
    let why = |index: usize| list["deadLetters"][index]["unreadable"].as_str().unwrap();
    assert!(why(2).contains("missing field `id`"), "{list}");
    assert_eq!(why(3), "the header Bay-Dead-Letter is missing");
    assert_eq!(why(4), "the record is that of another dead letter");
    assert_eq!(format!("at-{}", list["deadLetters"][3]["revision"]), odd);
    for id in [broken, &odd, forged] {
        let shown = admin
            .expect(500, "GET", &format!("/dead-letters/{id}"))
            .await;
        let why = shown["error"]["message"].as_str().unwrap();
        assert!(why.contains("cannot be read"), "{why}");
        admin
            .expect(500, "POST", &format!("/dead-letters/{id}/replay"))
            .await;
    }
    // Those that can be are replayed.
    let replays = admin
        .expect(202, "POST", "/dead-letters/replay?all=true")
        .await;
    assert_eq!(replays["replayed"], json!(all));
    assert_eq!(replays["failed"].as_array().unwrap().len(), 3);
    assert_eq!(replays["failed"][0]["id"], broken);
    assert_eq!(replays["failed"][0]["error"]["code"], 500);
    until("they have failed again", || {
        admin.judge.attempts().len() == 12
    })
    .await;
    admin.bench.done("a").await;

    for id in [broken, &odd] {
        let purged = admin
            .expect(200, "DELETE", &format!("/dead-letters/{id}"))
            .await;
        assert_eq!(purged["purged"], 1, "{id}");
        admin
            .expect(404, "DELETE", &format!("/dead-letters/{id}"))
            .await;
    }
    let purged = admin.expect(200, "DELETE", "/dead-letters?service=a").await;
    assert_eq!(purged["purged"], 3);
    store("bay-dlq.app.odd".to_owned(), None).await;
    assert_eq!(
        admin.expect(200, "DELETE", "/dead-letters?all=true").await["purged"],
        1
    );
    admin.end().await;
}

#[tokio::test]
async fn the_second_edit_of_one_revision_is_refused() {
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    let dead_letters = &admin.bench.dead_letters;
    let body = |n| event(7, n).into();
    let seen = dead_letters.find(&all[0]).await.unwrap();
    let edited = dead_letters
        .edit(&seen, body(2), async { None })
        .await
        .unwrap();
    assert!(edited.revision > seen.revision);
    let late = dead_letters.edit(&seen, body(3), async { None }).await;
    assert!(
        matches!(late, Err(DeadLetterError::Changed { .. })),
        "{late:?}"
    );

    admin.end().await;
}

#[tokio::test]
async fn edits_at_the_time_of_failing_replays_lose_nothing() {
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    let dead_letters = &admin.bench.dead_letters;
    let body = |n| event(7, n).into();
    let mut last = 1;
    for round in 0..10 {
        let before = admin.judge.attempts().len();
        dead_letters.replay(&all[0]).await.unwrap();
        // One after another, until the replay has failed for good.
        while admin.judge.attempts().len() < before + 3 {
            let now = dead_letters.find(&all[0]).await.unwrap();
            last = 1 + (last + 1) % 9;
            match dead_letters.edit(&now, body(last), async { None }).await {
                Ok(_) => {}
                Err(DeadLetterError::Changed { .. }) => last = now_n(&now.body),
                Err(error) => panic!("{error}"),
            }
        }
        let attempts = 3 * (round + 2);
        until_ok("every attempt is recorded", async || {
            let now = dead_letters.find(&all[0]).await.unwrap();
            assert_eq!(now_n(&now.body), last, "an edit was lost");
            if now.left_out + now.attempts.len() == attempts {
                Ok(())
            } else {
                Err(now)
            }
        })
        .await;
        // Another body, so that the next replay is another message.
        let now = dead_letters.find(&all[0]).await.unwrap();
        last = 1 + (last + 1) % 9;
        dead_letters
            .edit(&now, body(last), async { None })
            .await
            .unwrap();
    }

    admin.end().await;
}

#[tokio::test]
async fn an_edit_after_the_event_was_handled_is_refused() {
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    let dead_letters = &admin.bench.dead_letters;
    let body = |n| event(7, n).into();
    let now = dead_letters.find(&all[0]).await.unwrap();
    let now = dead_letters
        .edit(&now, body(10), async { None })
        .await
        .unwrap();
    dead_letters.replay(&all[0]).await.unwrap();
    admin.bench.until_dead_letters(0).await;
    let late = dead_letters.edit(&now, body(11), async { None }).await;
    assert!(
        matches!(late, Err(DeadLetterError::Changed { .. })),
        "{late:?}"
    );
    assert!(admin.bench.list().await.is_empty());
    admin.end().await;
}

fn now_n(body: &[u8]) -> u32 {
    let body: Value = serde_json::from_slice(body).unwrap();
    u32::try_from(body["n"].as_u64().unwrap()).unwrap()
}

#[tokio::test]
async fn a_dead_letter_with_an_edited_key_is_replayed_to_the_partition_of_that_key() {
    let (admin, all) = Admin::with_dead_letters("order-by = \"key\"", 1).await;
    let context = jetstream::new(admin.bench.client.clone());
    let last = async || {
        let stream = context.get_stream(STREAM).await.unwrap();
        let sequence = stream.cached_info().state.last_sequence;
        stream
            .get_raw_message(sequence)
            .await
            .unwrap()
            .subject
            .to_string()
    };
    let old = admin.bench.dead_letters.get(&all[0]).await.unwrap().subject;
    admin.publish(8, 20).await;
    let wanted = last().await;
    assert_ne!(wanted, old);

    let path = format!("/dead-letters/{}", all[0]);
    let edited = admin.put(&path, &[], &event(8, 10)).await.json();
    assert_eq!(
        (&edited["subject"], &edited["movedTo"]),
        (&json!(old), &json!(wanted))
    );
    admin.expect(202, "POST", &format!("{path}/replay")).await;
    admin.bench.until_dead_letters(0).await;
    let replayed = last().await;
    assert_eq!(
        replayed,
        wanted.replacen("bay.app.", "bay-replay.app.a.", 1)
    );
    assert_eq!(admin.judge.counts("a")[&10], 1);
    admin.end().await;
}

#[tokio::test]
async fn a_type_that_is_not_in_the_streams_metadata_comes_from_the_deployment() {
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    let context = jetstream::new(admin.bench.client.clone());
    let mut config = context
        .get_stream(STREAM)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    let before = config.metadata.len();
    config
        .metadata
        .retain(|name, _| !name.starts_with("wasmbay.function."));
    assert!(config.metadata.len() < before);
    context.update_stream(config).await.unwrap();
    let dead_letter = admin.bench.dead_letters.get(&all[0]).await.unwrap();
    let untyped = admin
        .bench
        .dead_letters
        .edit(&dead_letter, event(7, 10).into(), async { None })
        .await;
    assert!(
        matches!(untyped, Err(DeadLetterError::Untyped { .. })),
        "{untyped:?}"
    );
    let path = format!("/dead-letters/{}", all[0]);
    assert_eq!(error(&admin.put(&path, &[], r#"{"key":7}"#).await).0, 400);
    assert_eq!(admin.put(&path, &[], &event(7, 10)).await.status, 200);
    admin.end().await;
}

#[tokio::test]
async fn replaying_many_stops_in_time_and_returns_where_to_go_on() {
    let (admin, all) = Admin::with_dead_letters("", 3).await;
    let (dead_letters, filter) = (&admin.bench.dead_letters, Filter::default());
    let soon = Some(tokio::time::Instant::now() + Duration::from_millis(200));
    let mut slow = Pace::new(Some(1));
    let some = dead_letters
        .replay_all(&filter, None, 10, &mut slow, soon)
        .await
        .unwrap();
    assert_eq!(some.replayed, all[..1]);
    let next = some.next.unwrap();
    // Too late for any, it goes on at the same place.
    let over = Some(tokio::time::Instant::now());
    let none = dead_letters
        .replay_all(&filter, Some(next), 10, &mut slow, over)
        .await
        .unwrap();
    assert_eq!((none.replayed.len(), none.next), (0, Some(next)));
    let page = dead_letters.list(&filter, Some(next), 10).await.unwrap();
    let rest: Vec<_> = page.entries.iter().map(Entry::id).collect();
    assert_eq!(rest, all[1..]);
    let mut pace = Pace::new(None);
    let rest = dead_letters
        .replay_all(&filter, Some(next), 10, &mut pace, None)
        .await
        .unwrap();
    assert_eq!((rest.replayed, rest.next), (all[1..].to_vec(), None));
    until("all have failed again", || {
        admin.judge.attempts().len() == 18
    })
    .await;
    admin.end().await;
}
