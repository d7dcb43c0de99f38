//! Hosts that stop, and hosts that are killed.

use super::*;

#[tokio::test]
async fn a_host_that_stops_hands_its_unfinished_events_over() {
    let bench = Bench::start().await;
    let stuck = Arc::new(AtomicBool::new(true));
    let silent = Arc::clone(&stuck);
    let judge = Judge::new(&bench.client, move |_, _, _| {
        if silent.load(Ordering::SeqCst) {
            Verdict::Silence
        } else {
            Verdict::Ok
        }
    })
    .await;
    let a = sink("a");
    let lines = durable(QUICK);
    let services = Services(&[("a", &a, "limits = { timeout = \"60s\" }")], &lines);
    let first = start(bench.nats.url(), &services).await;
    for n in 0..5 {
        bench.publish(1, n).await;
    }
    until("the first has begun", || judge.attempts().len() == 5).await;
    assert_eq!(first.stop(Duration::from_millis(50)).await.given_up, 5);
    stuck.store(false, Ordering::SeqCst);
    let began = Instant::now();
    let second = start(bench.nats.url(), &services).await;
    until("the second has done it", || judge.attempts().len() == 10).await;
    bench.done("a").await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert!(second.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}

/// The process that the next test starts and kills; alone it does nothing.
#[tokio::test]
async fn a_host_to_kill() {
    let Some(url) = std::env::var_os("WASMBAY_TEST_EVENTS_AT") else {
        return;
    };
    let a = sink("a");
    let lines = durable(QUICK);
    let _host = start(
        url.to_str().unwrap(),
        &Services(&[("a", &a, SHORT)], &lines),
    )
    .await;
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_host_killed_before_it_acknowledged_loses_nothing() {
    let bench = Bench::start().await;
    // Every tenth event is never answered until the host is dead: its work was done, and no
    // acknowledgement followed.
    let killed = Arc::new(AtomicBool::new(false));
    let dead = Arc::clone(&killed);
    let judge = Judge::new(&bench.client, move |_, n, _| match n % 10 {
        0 if !dead.load(Ordering::SeqCst) => Verdict::Silence,
        _ => Verdict::Ok,
    })
    .await;
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["events::stopping::a_host_to_kill", "--exact", "--nocapture"])
        .env("WASMBAY_TEST_EVENTS_AT", bench.nats.url())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let context = jetstream::new(bench.client.clone());
    until_ok("the host has started", async || {
        context.get_stream(STREAM).await
    })
    .await;
    for n in 0..200 {
        bench.publish(1, n).await;
    }
    until("it is in the middle of them", || {
        judge.counts("a").len() >= 60
    })
    .await;
    host.start_kill().unwrap();
    host.wait().await.unwrap();
    killed.store(true, Ordering::SeqCst);
    let unfinished = judge.counts("a").keys().filter(|n| *n % 10 == 0).count();
    assert!(unfinished > 0);

    let a = sink("a");
    let lines = durable(QUICK);
    let next = start(bench.nats.url(), &Services(&[("a", &a, SHORT)], &lines)).await;
    until("nothing is missing", || judge.counts("a").len() == 200).await;
    bench.done("a").await;
    let counts = judge.counts("a");
    assert!((0..200).step_by(10).all(|n| counts[&n] >= 1));
    assert!(counts.values().filter(|count| **count > 1).count() >= unfinished);
    assert!(bench.list().await.is_empty());
    assert!(next.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}
