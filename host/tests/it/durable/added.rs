//! Subjects that are added to what a service subscribes to of a stream, or taken away.

use super::*;
use crate::support::apps::start;

/// A relay that subscribes to these subjects, and a stream of messages.
async fn applied(bench: &Bench, subjects: &str) {
    let lines = subscribes(subjects);
    let services = [("relay", relay(), &*lines)];
    apply(&bench.host, &Services(&services, WORK))
        .await
        .unwrap();
}

/// Stores a message for each of these on a subject; the relay publishes it on `out`.
async fn store_all(client: &Client, subject: &str, names: &[&str]) {
    for name in names {
        store(client, subject, &format!("pout.{name}")).await;
    }
}

/// What the relay publishes until it has published as many as these, in any order.
async fn assert_handled(out: &mut Subscriber, names: &[&str]) {
    let mut handled = Vec::new();
    for _ in names {
        let subject = next(out).await.subject.to_string();
        handled.push(subject.trim_start_matches("out.").to_owned());
    }
    handled.sort();
    assert_eq!(handled, names);
}

/// The names of the stream's consumers, once they have acknowledged everything.
async fn idle_consumers(client: &Client) -> Vec<String> {
    let context = jetstream::new(client.clone());
    let stream = context.get_stream(STREAM).await.unwrap();
    let mut names = Vec::new();
    let mut all = stream.consumer_names();
    while let Some(name) = all.next().await {
        let name = name.unwrap();
        until_acknowledged(DEADLINE, client, STREAM, &name).await;
        names.push(name);
    }
    names.sort();
    names
}

async fn subscribed(subjects: &str) -> (Bench, Subscriber) {
    let lines = subscribes(subjects);
    let bench = bench(&Services(&[("relay", relay(), &*lines)], WORK)).await;
    let out = bench.client.subscribe("out.>").await.unwrap();
    settled(&bench.client).await.unwrap();
    (bench, out)
}

#[tokio::test]
async fn what_was_stored_before_a_subject_was_added_is_delivered_once() {
    let (bench, mut out) = subscribed("\"work.a\"").await;
    store_all(&bench.client, "work.b", &["b1", "b2"]).await;
    store_all(&bench.client, "work.a", &["a1"]).await;
    assert_handled(&mut out, &["a1"]).await;
    applied(&bench, "\"work.a\", \"work.b\"").await;
    assert_handled(&mut out, &["b1", "b2"]).await;
    store_all(&bench.client, "work.b", &["b3"]).await;
    store_all(&bench.client, "work.a", &["a2"]).await;
    assert_handled(&mut out, &["a2", "b3"]).await;
    let consumers = ["relay", "relay_added_1"];
    assert_eq!(idle_consumers(&bench.client).await, consumers);
    let context = jetstream::new(bench.client.clone());
    let added = context.get_consumer_from_stream("relay_added_1", STREAM);
    let added: jetstream::consumer::PullConsumer = added.await.unwrap();
    assert_eq!(
        added.cached_info().config.description.as_deref(),
        Some("messages for relay of app, on subjects that were added")
    );

    // Another host finds both, and nothing is left for it.
    let lines = subscribes("\"work.a\", \"work.b\"");
    let services = [("relay", relay(), &*lines)];
    let second = start(bench.nats.url(), &Services(&services, WORK)).await;
    let Bench { nats, host, client } = bench;
    assert!(host.stop(DEADLINE).await.is_complete());
    store_all(&client, "work.b", &["b4"]).await;
    assert_handled(&mut out, &["b4"]).await;
    assert_eq!(idle_consumers(&client).await, consumers);
    assert_no_message(&client, &mut out).await;
    assert!(second.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}

#[tokio::test]
async fn a_wider_subject_delivers_what_the_narrower_one_has_not() {
    let (bench, mut out) = subscribed("\"work.a.*\"").await;
    store_all(&bench.client, "work.b", &["b1"]).await;
    store_all(&bench.client, "work.a.x", &["a1"]).await;
    assert_handled(&mut out, &["a1"]).await;
    applied(&bench, "\"work.>\"").await;
    assert_handled(&mut out, &["b1"]).await;
    store_all(&bench.client, "work.a.y", &["a2"]).await;
    store_all(&bench.client, "work.b", &["b2"]).await;
    assert_handled(&mut out, &["a2", "b2"]).await;
    idle_consumers(&bench.client).await;
    assert_no_message(&bench.client, &mut out).await;

    // What is left of both fits into one.
    applied(&bench, "\"work.a.x\"").await;
    assert_eq!(idle_consumers(&bench.client).await, ["relay"]);
    store_all(&bench.client, "work.a.x", &["a3"]).await;
    assert_handled(&mut out, &["a3"]).await;
    bench.end().await;
}

#[tokio::test]
async fn a_subject_of_which_nothing_is_stored_takes_no_further_consumer() {
    let (bench, mut out) = subscribed("\"work.a\"").await;
    store_all(&bench.client, "work.a", &["a1"]).await;
    assert_handled(&mut out, &["a1"]).await;
    applied(&bench, "\"work.a\", \"work.b\"").await;
    store_all(&bench.client, "work.b", &["b1"]).await;
    assert_handled(&mut out, &["b1"]).await;
    assert_eq!(idle_consumers(&bench.client).await, ["relay"]);
    bench.end().await;
}

#[tokio::test]
async fn a_subject_that_is_added_again_goes_on_where_it_was_left() {
    let (bench, mut out) = subscribed("\"work.a\", \"work.b\"").await;
    store_all(&bench.client, "work.b", &["b1", "b2"]).await;
    assert_handled(&mut out, &["b1", "b2"]).await;
    idle_consumers(&bench.client).await;
    applied(&bench, "\"work.a\"").await;
    store_all(&bench.client, "work.b", &["b3"]).await;
    store_all(&bench.client, "work.a", &["a1"]).await;
    assert_handled(&mut out, &["a1"]).await;
    applied(&bench, "\"work.a\", \"work.b\"").await;
    assert_handled(&mut out, &["b3"]).await;
    idle_consumers(&bench.client).await;
    assert_no_message(&bench.client, &mut out).await;
    bench.end().await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_subjects_are_added_while_messages_flow() {
    const EACH: usize = 150;
    let (bench, mut out) = subscribed("\"work.a\"").await;
    let client = bench.client.clone();
    let publishing = tokio::spawn(async move {
        for n in 0..EACH {
            for kind in ["a", "b", "c"] {
                store(&client, &format!("work.{kind}"), &format!("pout.{kind}{n}")).await;
            }
        }
    });
    let mut handled = std::collections::BTreeMap::<String, usize>::new();
    let mut count = async |out: &mut Subscriber, wanted: usize| {
        while handled.len() < wanted {
            *handled
                .entry(next(out).await.subject.to_string())
                .or_default() += 1;
        }
        handled.clone()
    };
    count(&mut out, 20).await;
    applied(&bench, "\"work.a\", \"work.b\"").await;
    count(&mut out, 100).await;
    applied(&bench, "\"work.*\"").await;
    let all = count(&mut out, 3 * EACH).await;
    publishing.await.unwrap();
    idle_consumers(&bench.client).await;
    let doubled: Vec<_> = all.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert_no_message(&bench.client, &mut out).await;
    bench.end().await;
}

#[tokio::test]
async fn an_added_consumer_that_was_deleted_is_created_again() {
    let (bench, mut out) = subscribed("\"work.a\"").await;
    store_all(&bench.client, "work.b", &["b1"]).await;
    applied(&bench, "\"work.a\", \"work.b\"").await;
    assert_handled(&mut out, &["b1"]).await;
    let context = jetstream::new(bench.client.clone());
    let stream = context.get_stream(STREAM).await.unwrap();
    stream.delete_consumer("relay_added_1").await.unwrap();
    // It begins anew.
    assert_handled(&mut out, &["b1"]).await;
    store_all(&bench.client, "work.b", &["b2"]).await;
    assert_handled(&mut out, &["b2"]).await;
    assert_eq!(
        idle_consumers(&bench.client).await,
        ["relay", "relay_added_1"]
    );
    bench.end().await;
}
