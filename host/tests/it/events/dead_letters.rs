//! Events that fail for good.

use super::*;

#[tokio::test]
async fn a_poison_message_becomes_a_dead_letter_at_once() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, _, _| Verdict::Ok).await;
    let a = sink("a");
    let lines = durable("retry = { backoff = [\"1h\"] }\nin-flight = 1");
    let host = start(bench.nats.url(), &Services(&[("a", &a, "")], &lines)).await;
    request(&bench.client, HAPPENED, r#"{"key":1,"n":"one"}"#).await;
    request(&bench.client, HAPPENED, "\u{0}no JSON at all").await;
    request(
        &bench.client,
        &HAPPENED.replace("happened", "nothing"),
        "{}",
    )
    .await;
    // Too large for a dead letter; its body stays in the stream.
    let max = bench.client.server_info().max_payload;
    let large = format!(r#"{{"key":"{}"}}"#, "x".repeat(max - 300));
    request(&bench.client, HAPPENED, large.clone()).await;
    bench.publish(1, 1).await;
    until("the good one was handled", || judge.attempts().len() == 1).await;
    let mut dead_letters = bench.until_dead_letters(4).await;
    let last = dead_letters.pop().unwrap();
    assert!(last.body_left && matches!(last.attempts[0].code, Some(400 | 413)));
    assert_eq!(bench.dead_letters.get(&last.id).await.unwrap().body, large);
    let codes: Vec<_> = dead_letters
        .iter()
        .map(|one| (one.attempts.len(), one.attempts[0].code.unwrap()))
        .collect();
    assert_eq!(codes, [(1, 400), (1, 400), (1, 404)]);
    assert!(
        dead_letters
            .iter()
            .all(|one| one.attempts[0].outcome.is_none())
    );
    assert!(dead_letters[0].attempts[0].error.contains("$.n"));
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_dead_letter_is_edited_and_replayed_to_its_subscriber_alone() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |service, n, _| match (service, n) {
        ("a", 1..=9) => Verdict::Err,
        _ => Verdict::Ok,
    })
    .await;
    let (a, b) = (sink("a"), sink("b"));
    let lines = durable(QUICK);
    let services = Services(
        &[("a", &a, ""), ("b", &b, ""), ("publisher", PUBLISHES, "")],
        &lines,
    );
    let host = start(bench.nats.url(), &services).await;
    for n in 1..=3 {
        assert_eq!(
            request(&bench.client, PUBLISH, event(7, n)).await.payload,
            OK
        );
    }
    let dead_letters = bench.until_dead_letters(3).await;
    let one = &dead_letters[0];
    assert_eq!(one.headers["Bay-Caller"], ["publisher"]);
    assert_eq!(one.attempts[0].error, r#""refused""#);

    // It fails again: still one dead letter, with a longer history.
    bench.dead_letters.replay(&one.id).await.unwrap();
    let longer = until_ok("it has failed again", async || {
        let now = bench.dead_letters.get(&one.id).await.unwrap();
        if now.attempts.len() > 3 {
            Ok(now)
        } else {
            Err(now)
        }
    })
    .await;
    assert_eq!(longer.attempts.len(), 6);
    assert_eq!(longer.attempts[..3], one.attempts[..]);
    assert_eq!(bench.list().await.len(), 3);

    let body = event(7, 100);
    let edited = bench
        .dead_letters
        .edit(&longer, body.clone().into(), async { None })
        .await
        .unwrap();
    assert!(edited.edited);
    let edited = bench.dead_letters.get(&one.id).await.unwrap();
    assert_eq!((edited.body, edited.attempts.len()), (body.into(), 6));
    bench.dead_letters.replay(&one.id).await.unwrap();
    let rest = bench.until_dead_letters(2).await;
    assert!(rest.iter().all(|other| other.id != one.id));
    assert_eq!(judge.counts("a")[&100], 1);
    assert_eq!(judge.counts("b").get(&100), None);

    assert!(matches!(
        bench.dead_letters.replay(&one.id).await,
        Err(DeadLetterError::NotFound { .. })
    ));
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}

#[tokio::test]
async fn dead_letters_are_purged_by_id_service_and_function() {
    let bench = Bench::start().await;
    let _judge = Judge::new(&bench.client, |_, _, _| Verdict::Err).await;
    let (a, lines) = (sink("a"), durable(QUICK));
    let host = start(bench.nats.url(), &Services(&[("a", &a, "")], &lines)).await;
    for n in 1..=2 {
        bench.publish(7, n).await;
    }
    let dead_letters = bench.until_dead_letters(2).await;
    let purge = async |filter| bench.dead_letters.purge(&filter).await.unwrap();
    assert_eq!(purge(Filter::only(&dead_letters[0].id)).await, 1);
    let elsewhere = Filter {
        service: Some("b".into()),
        ..Filter::default()
    };
    assert_eq!(purge(elsewhere).await, 0);
    assert_eq!(bench.list().await[0].id, dead_letters[1].id);
    let of_function = Filter {
        function: Some("test:events/sink.happened".parse().unwrap()),
        ..Filter::default()
    };
    assert_eq!(purge(of_function).await, 1);
    assert!(bench.list().await.is_empty());
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_wildcard_is_no_id_of_a_dead_letter() {
    let bench = Bench::start().await;
    for id in ["*", ">", "", "0123456789abcdeX"] {
        let found = bench.dead_letters.get(id).await;
        assert!(matches!(found, Err(DeadLetterError::NoId(_))), "{id}");
    }
    bench.nats.stop().await;
}
