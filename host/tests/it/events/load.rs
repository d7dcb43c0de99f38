//! Many events, and a server that is killed while calls and events flow.

use std::sync::atomic::AtomicUsize;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use super::*;
use crate::support::PATIENCE;
use crate::support::components::COUNTS_CALLS;

/// Counts the deliveries of each event, by what the guests themselves publish.
struct Counts {
    /// The number of deliveries of each event, for each service.
    received: Arc<Mutex<[Vec<u8>; 2]>>,
    task: JoinHandle<()>,
}

impl Counts {
    async fn new(client: &Client, events: usize) -> Self {
        #[derive(serde::Deserialize)]
        struct Arguments {
            by: usize,
            n: usize,
        }
        let mut messages = client
            .subscribe("bay.app.test.counter.api.v1.received")
            .await
            .unwrap();
        settled(client).await.unwrap();
        let received = Arc::new(Mutex::new([vec![0; events], vec![0; events]]));
        let counts = Arc::clone(&received);
        let task = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                let Arguments { by, n } = serde_json::from_slice(&message.payload).unwrap();
                counts.lock().unwrap()[by][n] += 1;
            }
        });
        Self { received, task }
    }

    fn distinct(&self, by: usize) -> usize {
        let received = self.received.lock().unwrap();
        received[by].iter().filter(|count| **count > 0).count()
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_hundred_thousand_events_reach_two_subscribers_on_two_hosts() {
    const EVENTS: u32 = 100_000;
    const WINDOW: usize = 1_000;
    let bench = Bench::start().await;
    // A connection of its own, so that its messages do not wait behind acknowledgements.
    let counts = Counts::new(&bench.nats.connect().await, EVENTS as usize).await;
    let sinks = ["0", "1"].map(|by| COUNTS_CALLS.replace("NAME", by));
    let [a, b] = &sinks;
    let lines = durable("in-flight = 1000") + "[wire.\"test:counter/api\"]\nmode = \"event\"\n";
    let lines = lines.trim_start_matches(EXTERNAL);
    let services = Services(&[("a", a, ""), ("b", b, "")], lines);
    let hosts = [
        start(bench.nats.url(), &services).await,
        start(bench.nats.url(), &services).await,
    ];
    let began = Instant::now();
    let context = jetstream::new(bench.client.clone());
    let publish = |n| {
        let stored = context.publish(HAPPENED, event(0, n).into());
        async { stored.await?.await }
    };
    let published = futures_util::stream::iter((0..EVENTS).map(publish))
        .buffer_unordered(WINDOW)
        .try_for_each(async |stored| {
            assert_eq!(stored.stream, STREAM);
            Ok(())
        });
    published.await.unwrap();
    println!("{EVENTS} events published in {:?}", began.elapsed());
    for service in ["a", "b"] {
        bench.done_within(PATIENCE, service).await;
    }
    println!("and handled twice in {:?}", began.elapsed());
    for by in [0, 1] {
        // What a guest publishes is on its way when its event is acknowledged.
        until("all were counted", || {
            counts.distinct(by) == EVENTS as usize
        })
        .await;
    }
    let stream = context.get_stream(STREAM).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, u64::from(EVENTS));
    assert!(bench.list().await.is_empty());
    for host in hosts {
        assert!(host.stop(DEADLINE).await.is_complete());
    }
    bench.nats.stop().await;
}

/// A client that counts the replies to each of its calls.
struct Caller {
    client: Client,
    inbox: String,
    calls: Arc<Mutex<HashMap<u32, Asked>>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Asked {
    replies: Vec<Message>,
    waiting: Option<oneshot::Sender<()>>,
}

impl Caller {
    async fn new(client: Client) -> Self {
        let inbox = client.new_inbox();
        let mut replies = client.subscribe(format!("{inbox}.*")).await.unwrap();
        settled(&client).await.unwrap();
        let calls: Arc<Mutex<HashMap<u32, Asked>>> = Arc::default();
        let all = Arc::clone(&calls);
        let task = tokio::spawn(async move {
            while let Some(reply) = replies.next().await {
                let n = reply.subject.rsplit_once('.').unwrap().1.parse().unwrap();
                let mut all = all.lock().unwrap();
                let Some(asked) = all.get_mut(&n) else {
                    panic!("a reply to {n}, which was not sent");
                };
                asked.replies.push(reply);
                asked.waiting.take().map(|waiting| waiting.send(()));
            }
        });
        Self {
            client,
            inbox,
            calls,
            task,
        }
    }

    /// Asks for the number after `n`; returns whether it came in time.
    async fn ask(&self, n: u32) -> bool {
        let (waiting, replied) = oneshot::channel();
        let asked = Asked {
            waiting: Some(waiting),
            ..Asked::default()
        };
        self.calls.lock().unwrap().insert(n, asked);
        let reply = format!("{}.{n}", self.inbox);
        let body = format!(r#"{{"n":{n}}}"#).into();
        let call = async {
            let sent = self.client.publish_with_reply(ASK, reply, body).await;
            sent.is_ok() && replied.await.is_ok()
        };
        match tokio::time::timeout(Duration::from_secs(2), call).await {
            Ok(true) if is_right(n, &self.calls.lock().unwrap()[&n].replies[0]) => true,
            _ => {
                // The pause of a client that tries again.
                tokio::time::sleep(Duration::from_millis(5)).await;
                false
            }
        }
    }
}

fn is_right(n: u32, reply: &Message) -> bool {
    reply.payload == (n + 1).to_string()
}

fn is_refusal(reply: &Message) -> bool {
    reply.status == Some(async_nats::StatusCode::NO_RESPONDERS) || code(reply).is_some()
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const ASK: &str = "bay.app.test.other.api.v1.ask";

/// Runs `work` in so many lanes while `go_on` is set, each lane with numbers from a million times its
/// own number on. Returns the numbers for which it was true; `count` counts them meanwhile.
async fn lanes(
    lanes: u32,
    go_on: &AtomicBool,
    count: &AtomicUsize,
    work: impl AsyncFn(u32, u32) -> bool,
) -> Vec<u32> {
    let lane = async |lane: u32| {
        let mut done = Vec::new();
        let mut n = lane * 1_000_000;
        while go_on.load(Ordering::SeqCst) {
            n += 1;
            if work(lane, n).await {
                done.push(n);
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
        done
    };
    join_all((0..lanes).map(lane)).await.concat()
}

/// The server is killed twice. No event whose publication was confirmed is lost; no call gets two
/// replies, and all but those under way at a kill get one.
#[tokio::test]
async fn a_server_killed_under_load_loses_no_stored_event_and_answers_no_call_twice() {
    const LANES: u32 = 8;
    const KILLS: u32 = 2;
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, _, _| Verdict::Ok).await;
    let a = sink("a");
    let lines = durable(QUICK);
    let services = Services(
        &[
            ("a", &a, SHORT),
            ("publisher", PUBLISHES, ""),
            ("other", OTHER, ""),
        ],
        &lines,
    );
    let host = start(bench.nats.url(), &services).await;
    let caller = Caller::new(bench.nats.connect().await).await;
    let go_on = AtomicBool::new(true);
    let [published, answered]: [AtomicUsize; 2] = Default::default();

    let publish = async |lane, n| {
        // A lost confirmation counts as not published.
        let request = bench.client.request(PUBLISH, event(lane, n).into());
        let reply = tokio::time::timeout(Duration::from_secs(8), request).await;
        matches!(reply, Ok(Ok(reply)) if reply.payload == OK)
    };
    let ask = async |_, n| caller.ask(n).await;
    let flow = async || {
        for (count, what) in [
            (&published, "events flow"),
            (&answered, "calls are answered"),
        ] {
            let before = count.load(Ordering::SeqCst);
            until(what, || count.load(Ordering::SeqCst) > before + 200).await;
        }
    };
    let kill = async {
        for kill in 0..u64::from(KILLS) {
            flow().await;
            let pid = bench.nats.server.pid().unwrap();
            let killed = std::process::Command::new("kill")
                .args(["-9", &pid.to_string()])
                .status();
            assert!(killed.unwrap().success());
            until("the server is started again", || {
                bench.nats.server.restarts() == kill + 1
            })
            .await;
        }
        flow().await;
        go_on.store(false, Ordering::SeqCst);
    };
    let (stored, _, ()) = tokio::join!(
        lanes(LANES, &go_on, &published, publish),
        lanes(LANES, &go_on, &answered, ask),
        kill
    );

    until("all that were confirmed are handled", || {
        let counts = judge.counts("a");
        stored.iter().all(|n| counts.contains_key(n))
    })
    .await;
    // What is still under way, a second reply included, comes before the host has stopped.
    assert!(host.stop(DEADLINE).await.is_complete());
    settled(&caller.client).await.unwrap();
    let calls = std::mem::take(&mut *caller.calls.lock().unwrap());
    for (n, Asked { replies, .. }) in &calls {
        assert!(replies.len() <= 1, "{n}: {replies:?}");
        let fits = |reply| is_right(*n, reply) || is_refusal(reply);
        assert!(replies.iter().all(fits), "{n}: {replies:?}");
    }
    // Each lane can lose the call that it has under way at a kill, and those of the time without
    // a server.
    let lost = calls.values().filter(|asked| asked.replies.is_empty());
    let (lost, most) = (lost.count(), (LANES * KILLS * 3) as usize);
    assert!(lost <= most, "{lost} of {} calls", calls.len());
    bench.nats.stop().await;
}
