//! Event wires on a real nats-server: which services get which events, and that no failure loses one.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_nats::{Client, Message, jetstream};
use futures_util::StreamExt;
use tokio::process::Command;
use tokio::task::JoinHandle;
use wasmbay::call::Blame;
use wasmbay::events::dead_letters::{DeadLetter, DeadLetterError, DeadLetters, Filter};
use wasmbay::manifest::Outcome;
use wasmbay::nats::settled;
use wasmbay::wire;

use crate::support::apps::{Services, apply, start};
use crate::support::cli::Cli;
use crate::support::components::{OTHER, PUBLISHES, RETURNS_ERROR, SINK};
use crate::support::nats::Nats;
use crate::support::{DEADLINE, until, until_ok, until_ok_within};

mod busy;
mod dead_letters;
mod domain;
mod load;
mod malformed;
mod stopping;
mod store;

const HAPPENED: &str = "bay.app.test.events.sink.v1.happened";
pub(crate) const PUBLISH: &str = "bay.app.test.publisher.api.v1.publish";
const EXTERNAL: &str = "[wire.\"test:judge/verdict\"]\nexternal = true\n";
pub(crate) const OK: &str = r#"{"ok":null}"#;

/// What a sink does with an event.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    Ok,
    Err,
    Trap,
    /// No answer: the sink waits until its deadline.
    Silence,
}

/// Answers the question of every sink what to do with an event, and records the attempts.
pub(crate) struct Judge {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    task: JoinHandle<()>,
}

/// One attempt of one service at one event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) service: String,
    key: u32,
    pub(crate) n: u32,
}

impl Judge {
    /// `decide` takes the service, the event's number, and the number of earlier attempts of that
    /// service at it.
    pub(crate) async fn new(
        client: &Client,
        decide: impl Fn(&str, u32, usize) -> Verdict + Send + 'static,
    ) -> Self {
        let mut asked = client
            .subscribe("bay.app.test.judge.verdict.v1.*")
            .await
            .unwrap();
        settled(client).await.unwrap();
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let (client, all) = (client.clone(), Arc::clone(&attempts));
        let task = tokio::spawn(async move {
            let mut counts: HashMap<(String, u32), usize> = HashMap::new();
            while let Some(Message {
                subject,
                payload,
                reply,
                ..
            }) = asked.next().await
            {
                #[derive(serde::Deserialize)]
                struct Arguments {
                    key: u32,
                    n: u32,
                }
                let Arguments { key, n } = serde_json::from_slice(&payload).unwrap();
                let service = subject.rsplit_once("judge-").unwrap().1.to_owned();
                let count = counts.entry((service.clone(), n)).or_default();
                let verdict = decide(&service, n, *count) as u8;
                *count += 1;
                all.lock().unwrap().push(Attempt { service, key, n });
                if verdict == Verdict::Silence as u8 {
                    continue;
                }
                let reply = reply.unwrap();
                client
                    .publish(reply, verdict.to_string().into())
                    .await
                    .unwrap();
            }
        });
        Self { attempts, task }
    }

    pub(crate) fn attempts(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.attempts.lock().unwrap()
    }

    /// The number of attempts of the service at each event.
    pub(crate) fn counts(&self, service: &str) -> HashMap<u32, usize> {
        let mut counts = HashMap::new();
        let attempts = self.attempts();
        for attempt in attempts.iter().filter(|one| one.service == service) {
            *counts.entry(attempt.n).or_default() += 1;
        }
        counts
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The sink's component under this name.
pub(crate) fn sink(name: &str) -> String {
    SINK.replace("NAME", name)
}

pub(crate) async fn request(client: &Client, subject: &str, body: impl Into<String>) -> Message {
    let request = client.request(subject.to_owned(), body.into().into());
    tokio::time::timeout(DEADLINE, request)
        .await
        .unwrap()
        .unwrap()
}

/// Waits until a consumer has nothing left to acknowledge.
pub(crate) async fn until_acknowledged(
    time: Duration,
    client: &Client,
    stream: &str,
    consumer: &str,
) {
    let context = jetstream::new(client.clone());
    until_ok_within(time, "everything is acknowledged", async || {
        let consumer: jetstream::consumer::PullConsumer = context
            .get_consumer_from_stream(consumer, stream)
            .await
            .unwrap();
        let info = consumer.cached_info();
        if info.num_pending == 0 && info.num_ack_pending == 0 {
            Ok(())
        } else {
            Err(info.clone())
        }
    })
    .await;
}

pub(crate) fn event(key: u32, n: u32) -> String {
    format!(r#"{{"key":{key},"n":{n}}}"#)
}

fn code(message: &Message) -> Option<&str> {
    let headers = message.headers.as_ref()?;
    headers.get(wire::ERROR_CODE).map(|code| code.as_str())
}

#[tokio::test]
async fn every_subscribing_service_gets_each_event_once_on_two_hosts() {
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let judge = Judge::new(&client, |_, _, _| Verdict::Ok).await;
    let (a, b) = (sink("a"), sink("b"));
    let lines = format!("{EXTERNAL}[wire.\"test:events/sink\"]\nmode = \"event\"\n");
    let services = Services(
        &[("a", &a, ""), ("b", &b, ""), ("publisher", PUBLISHES, "")],
        &lines,
    );
    let hosts = [
        start(nats.url(), &services).await,
        start(nats.url(), &services).await,
    ];

    for n in 0..50 {
        let made = request(&client, PUBLISH, event(1, n)).await;
        assert_eq!(made.payload, OK);
    }
    client.publish(HAPPENED, event(2, 50).into()).await.unwrap();
    until("both have got all", || judge.attempts().len() >= 102).await;
    for service in ["a", "b"] {
        let counts = judge.counts(service);
        assert_eq!(counts.len(), 51);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    }

    for host in hosts {
        assert!(host.stop(DEADLINE).await.is_complete());
    }
    nats.stop().await;
}

#[tokio::test]
async fn an_event_without_a_subscriber_is_published() {
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let services = Services(
        &[("publisher", PUBLISHES, "")],
        "[wire.\"test:events/sink\"]\nmode = \"event\"\n",
    );
    let host = start(nats.url(), &services).await;
    let mut listener = client.subscribe(HAPPENED).await.unwrap();
    settled(&client).await.unwrap();
    assert_eq!(request(&client, PUBLISH, event(1, 7)).await.payload, OK);
    let message = tokio::time::timeout(DEADLINE, listener.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((message.payload, message.reply), (event(1, 7).into(), None));
    let headers = message.headers.unwrap();
    assert_eq!(headers.get(wire::CALLER).unwrap().as_str(), "publisher");
    assert!(headers.get(wire::DEADLINE).is_none());
    assert!(host.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}

#[tokio::test]
async fn a_request_on_an_events_subject_is_answered_with_the_outcome() {
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let verdicts = |_: &str, n, _| match n {
        1 => Verdict::Err,
        2 => Verdict::Trap,
        _ => Verdict::Ok,
    };
    let _judge = Judge::new(&client, verdicts).await;
    let a = sink("a");
    let lines = format!("{EXTERNAL}[wire.\"test:events/sink\"]\nmode = \"event\"\n");
    let host = start(nats.url(), &Services(&[("a", &a, "")], &lines)).await;
    assert_eq!(request(&client, HAPPENED, event(0, 0)).await.payload, OK);
    assert_eq!(
        request(&client, HAPPENED, event(0, 1)).await.payload,
        r#"{"err":"refused"}"#
    );
    assert_eq!(
        code(&request(&client, HAPPENED, event(0, 2)).await),
        Some("500")
    );
    assert_eq!(code(&request(&client, HAPPENED, "{}").await), Some("400"));
    assert!(host.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}

pub(crate) const STREAM: &str = "bay_app_test_events_sink_v1";

/// A manifest's lines for a durable wire with further keys, and no waits to speak of.
pub(crate) fn durable(keys: &str) -> String {
    format!("{EXTERNAL}[wire.\"test:events/sink\"]\nmode = \"event\"\ndurable = true\n{keys}\n")
}

pub(crate) const QUICK: &str = "retry = { attempts = 3, backoff = [\"20ms\"], jitter = 0 }";

/// Calls that end after half a second, so that an event of a killed host comes again after 5.5.
const SHORT: &str = "limits = { timeout = \"500ms\" }";

/// A server, a client, and the app's dead letters.
pub(crate) struct Bench {
    pub(crate) nats: Nats,
    pub(crate) client: Client,
    pub(crate) dead_letters: DeadLetters,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let nats = Nats::start().await;
        let client = nats.connect().await;
        let context = jetstream::new(client.clone());
        let dead_letters = DeadLetters::new(context, nats.link().await, "app");
        Self {
            nats,
            client,
            dead_letters,
        }
    }

    /// Publishes as any NATS client can, and checks that the stream stored the event.
    async fn publish(&self, key: u32, n: u32) {
        let stored = request(&self.client, HAPPENED, event(key, n)).await;
        let text = String::from_utf8(stored.payload.to_vec()).unwrap();
        assert!(text.contains(STREAM) && !text.contains("error"), "{text}");
    }

    pub(crate) async fn list(&self) -> Vec<DeadLetter> {
        let page = self
            .dead_letters
            .list(&Filter::default(), None, 1_000)
            .await;
        let entries = page.unwrap().entries.into_iter();
        entries
            .map(|entry| entry.dead_letter().cloned().unwrap())
            .collect()
    }

    /// Waits until there are so many dead letters.
    pub(crate) async fn until_dead_letters(&self, count: usize) -> Vec<DeadLetter> {
        until_ok("there are so many dead letters", async || {
            let dead_letters = self.list().await;
            if dead_letters.len() == count {
                Ok(dead_letters)
            } else {
                Err(dead_letters.len())
            }
        })
        .await
    }

    /// Waits until the subscriber has nothing left to acknowledge.
    pub(crate) async fn done(&self, consumer: &str) {
        self.done_within(DEADLINE, consumer).await;
    }

    async fn done_within(&self, time: Duration, consumer: &str) {
        until_acknowledged(time, &self.client, STREAM, consumer).await;
    }
}

#[tokio::test]
async fn what_a_guest_publishes_is_stored_for_subscribers_that_come_later() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, _, _| Verdict::Ok).await;
    let (a, b) = (sink("a"), sink("b"));
    let lines = durable(QUICK);
    let publisher = Services(
        &[("publisher", PUBLISHES, "")],
        lines.trim_start_matches(EXTERNAL),
    );
    let host = start(bench.nats.url(), &publisher).await;
    for n in 0..20 {
        assert_eq!(
            request(&bench.client, PUBLISH, event(1, n)).await.payload,
            OK
        );
    }
    assert_eq!(judge.attempts().len(), 0);

    let all = Services(
        &[("a", &a, ""), ("b", &b, ""), ("publisher", PUBLISHES, "")],
        &lines,
    );
    apply(&host, &all).await.unwrap();
    until("both have got all", || judge.attempts().len() == 40).await;
    for service in ["a", "b"] {
        bench.done(service).await;
        assert_eq!(judge.counts(service).len(), 20);
    }

    // One of them is away for a while.
    let fewer = Services(&[("b", &b, ""), ("publisher", PUBLISHES, "")], &lines);
    apply(&host, &fewer).await.unwrap();
    for n in 20..30 {
        assert_eq!(
            request(&bench.client, PUBLISH, event(1, n)).await.payload,
            OK
        );
    }
    until("the other has got them", || judge.counts("b").len() == 30).await;
    apply(&host, &all).await.unwrap();
    until("so has the one that was away", || {
        judge.counts("a").len() == 30
    })
    .await;
    assert_eq!(judge.attempts().len(), 60);
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_failed_event_is_delivered_again_and_a_trapping_subscriber_harms_no_other() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |service, n, before| {
        match (service, n, before) {
            ("a", _, _) => Verdict::Trap,
            (_, 3, 0) => Verdict::Err,
            (_, 3, 1) => Verdict::Trap,
            _ => Verdict::Ok,
        }
    })
    .await;
    let (a, b) = (sink("a"), sink("b"));
    let lines = durable(QUICK);
    let services = Services(&[("a", &a, ""), ("b", &b, "")], &lines);
    let host = start(bench.nats.url(), &services).await;
    for n in 0..10 {
        bench.publish(1, n).await;
    }
    until("b is done", || {
        judge.counts("b").values().sum::<usize>() == 12
    })
    .await;
    assert_eq!(judge.counts("b")[&3], 3);
    let dead_letters = bench.until_dead_letters(10).await;
    bench.done("a").await;
    // Each as often as it may be, and then no more.
    assert!(judge.counts("a").values().all(|count| *count == 3));
    for dead_letter in &dead_letters {
        let DeadLetter {
            service, attempts, ..
        } = dead_letter;
        assert_eq!((service.as_str(), attempts.len()), ("a", 3));
        let attempt = &attempts[0];
        assert_eq!(
            (attempt.outcome, attempt.code, attempt.blame),
            (Some(Outcome::Trap), Some(500), Blame::Guest)
        );
        assert!(attempt.error.contains("unreachable"), "{}", attempt.error);
        assert!(attempt.time.ends_with('Z'));
    }
    let first = bench.dead_letters.get(&dead_letters[0].id).await.unwrap();
    let n = u32::try_from(first.sequence).unwrap() - 1;
    assert_eq!(first.body, event(1, n));
    assert_eq!(first.subject, HAPPENED);
    assert_eq!(first.function, "test:events/sink.happened@1.0.0");
    assert_eq!(first.digest.len(), 64);
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_changed_policy_counts_for_what_is_in_flight() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, _, _| Verdict::Err).await;
    let a = sink("a");
    let patient = durable("retry = { attempts = 1000, backoff = [\"50ms\"] }");
    let services = Services(&[("a", &a, "")], &patient);
    let host = start(bench.nats.url(), &services).await;
    for n in 0..5 {
        bench.publish(1, n).await;
    }
    until("they come again", || judge.attempts().len() > 15).await;
    assert!(bench.list().await.is_empty());
    let hasty = durable("retry = { attempts = 2 }");
    apply(&host, &Services(&[("a", &a, "")], &hasty))
        .await
        .unwrap();
    let dead_letters = bench.until_dead_letters(5).await;
    assert!(dead_letters.iter().all(|one| one.attempts.len() > 2));
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}

#[tokio::test]
async fn events_with_one_key_are_handled_in_order_across_hosts() {
    let bench = Bench::start().await;
    // The first attempt at every third event fails, and nothing may overtake it.
    let judge = Judge::new(&bench.client, |_, n, before| match (n % 3, before) {
        (0, 0) => Verdict::Err,
        _ => Verdict::Ok,
    })
    .await;
    let a = sink("a");
    let lines = durable(&format!("{QUICK}\norder-by = \"key\""));
    let services = Services(&[("a", &a, ""), ("publisher", PUBLISHES, "")], &lines);
    let hosts = [
        start(bench.nats.url(), &services).await,
        start(bench.nats.url(), &services).await,
    ];
    for n in 0..60 {
        assert_eq!(
            request(&bench.client, PUBLISH, event(n % 4, n))
                .await
                .payload,
            OK
        );
    }
    // Published by another client, without a partition.
    bench.publish(9, 60).await;
    until("all were handled", || judge.counts("a").len() == 61).await;
    until("all came again that failed", || {
        judge.attempts().len() == 82
    })
    .await;
    for key in 0..4 {
        let attempts = judge.attempts();
        let with_key = attempts.iter().filter(|one| one.key == key);
        let order: Vec<_> = with_key.map(|one| one.n).collect();
        assert!(order.is_sorted(), "{order:?}");
    }

    // Without the order it goes on where it was.
    let plain = durable(QUICK);
    let services = Services(&[("a", &a, ""), ("publisher", PUBLISHES, "")], &plain);
    bench.done("a_0").await;
    for host in &hosts {
        apply(host, &services).await.unwrap();
    }
    bench.publish(1, 61).await;
    until("the next was handled", || {
        judge.counts("a").contains_key(&61)
    })
    .await;
    bench.done("a").await;
    assert_eq!(judge.attempts().len(), 83);
    for host in hosts {
        assert!(host.stop(DEADLINE).await.is_complete());
    }
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_stream_of_a_wire_that_is_not_durable_any_more_acknowledges_no_calls() {
    let bench = Bench::start().await;
    let judge = Judge::new(&bench.client, |_, _, _| Verdict::Ok).await;
    let a = sink("a");
    let lines = durable(QUICK);
    let host = start(bench.nats.url(), &Services(&[("a", &a, "")], &lines)).await;
    bench.publish(1, 1).await;
    until("it was handled", || judge.attempts().len() == 1).await;
    apply(&host, &Services(&[("a", &a, "")], EXTERNAL))
        .await
        .unwrap();
    assert_eq!(
        request(&bench.client, HAPPENED, event(1, 2)).await.payload,
        OK
    );
    // What was stored still is.
    let stream = jetstream::new(bench.client.clone())
        .get_stream(STREAM)
        .await
        .unwrap();
    assert_eq!(stream.cached_info().state.messages, 1);
    apply(&host, &Services(&[("a", &a, "")], &lines))
        .await
        .unwrap();
    // A host that runs another part of the app leaves the stream alone.
    let other = start(bench.nats.url(), &Services(&[("other", OTHER, "")], "")).await;
    bench.publish(1, 3).await;
    assert!(other.stop(DEADLINE).await.is_complete());
    until("it is handled again", || judge.attempts().len() == 3).await;
    assert_eq!(judge.counts("a").len(), 3);
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}

#[tokio::test]
async fn an_event_that_no_type_fits_is_a_warning_with_service_and_subject() {
    let nats = Nats::start().await;
    let manifest = "name = \"app\"\n[service.returns-error]\ncomponent = \"returns-error.wasm\"\n\
                    [wire.\"test:events/sink\"]\nmode = \"event\"\n";
    let cli = Cli::new().with(&[
        ("wasmbay.toml", manifest),
        ("returns-error.wasm", RETURNS_ERROR),
    ]);
    let up = cli.up(&["--no-gateway", "--nats", nats.url()]);
    let client = nats.connect().await;
    client.publish(HAPPENED, "{}".into()).await.unwrap();
    client.flush().await.unwrap();
    let warns = |line: &str| {
        ["WARN", "cannot be handled", "returns-error", HAPPENED]
            .iter()
            .all(|word| line.contains(word))
    };
    until("there is a warning", || up.stderr().lines().any(warns)).await;
    up.stop();
    nats.stop().await;
}
