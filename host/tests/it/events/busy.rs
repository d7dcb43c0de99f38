//! Events and calls that want the same service, and hosts that want the same events.

use wasmbay::micro::{Answer, Verb};

use super::*;

/// A sink whose component also answers calls: `wait` does what `happened` does.
fn busy(name: &str) -> String {
    let exported = "(export \"test:events/sink@1.0.0\" (instance $sink)))";
    let both = "(export \"test:events/sink@1.0.0\" (instance $sink))
      (func $wait (param \"key\" u32) (param \"n\" u32) (result (result (error string)))
        (canon lift (core func $core \"happened\") (memory (core memory $core \"memory\"))))
      (instance $api (export \"wait\" (func $wait)))
      (export \"test:busy/api@1.0.0\" (instance $api)))";
    sink(name).replace(exported, both)
}

const WAIT: &str = "bay.app.test.busy.api.v1.wait";

/// A judge that takes its time.
async fn slow_judge(client: &Client, time: Duration) -> Arc<Mutex<usize>> {
    let mut asked = client
        .subscribe("bay.app.test.judge.verdict.v1.*")
        .await
        .unwrap();
    settled(client).await.unwrap();
    let (client, count) = (client.clone(), Arc::<Mutex<usize>>::default());
    let all = Arc::clone(&count);
    tokio::spawn(async move {
        while let Some(message) = asked.next().await {
            let (client, all) = (client.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                *all.lock().unwrap() += 1;
                client
                    .publish(message.reply.unwrap(), "0".into())
                    .await
                    .unwrap();
            });
        }
    });
    count
}

#[tokio::test]
async fn an_event_waits_for_a_service_that_is_busy_with_calls() {
    const CALLS: u32 = 1_000;
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, n, _| match n {
        CALLS.. => Verdict::Silence,
        _ => Verdict::Ok,
    })
    .await;
    let a = busy("a");
    let limits = "limits = { concurrency = 2, timeout = \"300ms\", wait = \"20ms\" }";
    let lines = durable(QUICK);
    let host = start(bench.nats.url(), &Services(&[("a", &a, limits)], &lines)).await;
    let go_on = AtomicBool::new(true);
    let flood = futures_util::future::join_all((0..4).map(async |lane| {
        let mut shed = 0;
        while go_on.load(Ordering::SeqCst) {
            let refused = request(&bench.client, WAIT, event(0, CALLS + lane)).await;
            shed += usize::from(code(&refused) == Some("429"));
        }
        shed
    }));
    let events = async {
        until("calls take every turn", || {
            judge.counts("a").keys().filter(|n| **n >= CALLS).count() >= 2
        })
        .await;
        for n in 0..10 {
            bench.publish(1, n).await;
        }
        until("every event had its turn", || {
            let counts = judge.counts("a");
            (0..10).all(|n| counts.contains_key(&n))
        })
        .await;
        go_on.store(false, Ordering::SeqCst);
    };
    let (shed, ()) = tokio::join!(flood, events);
    // There was more to do than there was room for.
    assert!(shed.iter().sum::<usize>() > 0);
    bench.done("a").await;
    let counts = judge.counts("a");
    assert!((0..10).all(|n| counts[&n] == 1), "{counts:?}");
    assert_eq!(bench.list().await, []);
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    bench.nats.stop().await;
}

#[tokio::test]
async fn an_event_gets_an_instance_when_another_service_has_all_it_can() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |service, _, _| match service {
        "b" => Verdict::Silence,
        _ => Verdict::Ok,
    })
    .await;
    let (a, b) = (
        sink("a"),
        busy("b").replace("test:events/sink", "test:events/none"),
    );
    let limits = "limits = { timeout = \"2s\", concurrency = 300 }";
    let lines = durable(QUICK);
    let services = Services(&[("a", &a, ""), ("b", &b, limits)], &lines);
    let host = start(bench.nats.url(), &services).await;
    let (go_on, full) = (AtomicBool::new(true), AtomicBool::new(false));
    // More at a time than the host has instances for.
    let calls = futures_util::future::join_all((0..220).map(async |n| {
        while go_on.load(Ordering::SeqCst) {
            let refused = request(&bench.client, WAIT, event(0, n)).await;
            let body = String::from_utf8_lossy(&refused.payload);
            if body.contains("of the host's 200 instances") {
                full.store(true, Ordering::SeqCst);
            }
        }
    }));
    let events = async {
        until("no instance is left", || full.load(Ordering::SeqCst)).await;
        for n in 0..10 {
            bench.publish(1, n).await;
        }
        // The last instances are not for the busy service.
        until("one is handled", || !judge.counts("a").is_empty()).await;
        go_on.store(false, Ordering::SeqCst);
        bench.done("a").await;
    };
    tokio::join!(calls, events);
    let counts = judge.counts("a");
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert_eq!(bench.list().await, []);
    assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    bench.nats.stop().await;
}

/// How many calls of the service each host has had.
async fn handled(client: &Client, service: &str, hosts: usize) -> Vec<u64> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    let ask = format!("{}.{service}", Verb::Stats.subject());
    let sent = client.publish_with_reply(ask, inbox, "".into());
    sent.await.unwrap();
    let mut all = Vec::new();
    while all.len() < hosts {
        let answer = tokio::time::timeout(DEADLINE, answers.next()).await;
        let answer: Answer = serde_json::from_slice(&answer.unwrap().unwrap().payload).unwrap();
        let stats = answer.endpoints.unwrap().remove(0).stats.unwrap();
        all.push(stats.num_requests);
    }
    all
}

#[tokio::test]
async fn a_host_takes_no_more_events_than_it_can_work_on() {
    const EVENTS: usize = 60;
    let bench = Bench::start().await;
    let judged = slow_judge(&bench.client, Duration::from_millis(200)).await;
    let a = sink("a");
    let limits = "limits = { concurrency = 2 }";
    let lines = durable(QUICK);
    let services = Services(&[("a", &a, limits)], &lines);
    let first = start(bench.nats.url(), &services).await;
    for n in 0..60 {
        bench.publish(1, n).await;
    }
    until("the first has begun", || *judged.lock().unwrap() >= 4).await;
    let second = start(bench.nats.url(), &services).await;
    until("all are done", || *judged.lock().unwrap() == EVENTS).await;
    bench.done("a").await;
    let handled = handled(&bench.client, "a", 2).await;
    assert_eq!(handled.iter().sum::<u64>(), EVENTS as u64);
    assert!(handled.iter().all(|count| *count >= 15), "{handled:?}");
    for host in [first, second] {
        assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    }
    bench.nats.stop().await;
}
