//! What a run costs beside many that have ended.

use std::time::Instant;

use async_nats::jetstream::Context;

use super::*;

/// Calls by which the cost of one is measured.
const MEASURED: usize = 100;

/// The median time of a call, after some that nobody counts.
async fn median(client: &Client) -> Duration {
    let mut times = Vec::new();
    for number in 0..MEASURED + 10 {
        let order = format!(r#"{{"orderId":"m-{number}","count":1,"tell":false}}"#);
        let began = Instant::now();
        place(client, &order, &[]).await.unwrap();
        if number >= 10 {
            times.push(began.elapsed());
        }
    }
    times.sort();
    times[MEASURED / 2]
}

/// Stores journals of so many runs that have ended, as copies of one that has.
async fn finish(context: &Context, count: usize) {
    let stream = context.get_stream("bay_app_runs").await.unwrap();
    let subject = "bay-run.app.run.checkout.*";
    let ended = stream.get_last_raw_message_by_subject(subject).await;
    let ended = ended.unwrap();
    let (begin, id) = ended.subject.rsplit_once('.').unwrap();
    let text = String::from_utf8(ended.payload.to_vec()).unwrap();
    assert!(text.contains("completed"), "{text}");
    for batch in (0..count).collect::<Vec<_>>().chunks(500) {
        let mut stored = Vec::new();
        for number in batch {
            let other = format!("{number:032x}");
            let subject = format!("{begin}.{other}");
            let text = text.replace(id, &other);
            stored.push(context.publish(subject, text.into()).await.unwrap());
        }
        for stored in stored {
            stored.await.unwrap();
        }
    }
}

/// The medians before and beside so many runs that have ended.
async fn beside(count: usize) -> (Duration, Duration) {
    let lines = manifest("").replace("deadline = \"30s\"", "size = \"4GiB\"");
    let bench = bench(&Services(&[("types", TYPES, "")], &lines)).await;
    let _shop = Shop::open(&bench.nats.connect().await, |_, _| None).await;
    let alone = median(&bench.client).await;
    finish(&jetstream::new(bench.client.clone()), count).await;
    let beside = median(&bench.client).await;
    let page = runs(&bench.client).list(false, None, None, 10).await;
    assert!(page.unwrap().runs.is_empty());
    bench.end().await;
    tell(&format!(
        "a call of a pipeline: {alone:.2?} alone, {beside:.2?} beside {count} runs that have ended"
    ));
    (alone, beside)
}

fn assert_alike((alone, beside): (Duration, Duration)) {
    // A list of all would take hundreds of times as long.
    assert!(
        beside < alone * 3 + Duration::from_millis(5),
        "{alone:?}, {beside:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_have_ended_do_not_slow_new_ones() {
    assert_alike(beside(5_000).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "stores gigabytes; `cargo test --test it -- --ignored --nocapture a_million`"]
async fn a_million_runs_that_have_ended_do_not_slow_new_ones() {
    assert_alike(beside(1_000_000).await);
}
