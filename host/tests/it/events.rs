//! Event wires on a real nats-server: who hears what, and that nothing is lost on a bad day.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_nats::{Client, Message};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use wasmbay::nats::settled;
use wasmbay::wire;

use crate::support::apps::{Services, start};
use crate::support::components::{MAKER, SINK};
use crate::support::nats::Nats;
use crate::support::{DEADLINE, until};

const HAPPENED: &str = "bay.app.test.events.sink.v1.happened";
const MAKE: &str = "bay.app.test.maker.api.v1.make";
const EXTERNAL: &str = "[wire.\"test:judge/verdict\"]\nexternal = true\n";
const OK: &str = r#"{"ok":null}"#;

/// What a sink is told to do with an event.
#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Ok,
    Err,
    Trap,
}

/// Answers every sink: it knows who was asked what, and decides what comes of it.
struct Judge {
    heard: Arc<Mutex<Vec<Heard>>>,
    task: JoinHandle<()>,
}

/// One attempt of one service at one event.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    service: String,
    key: u32,
    n: u32,
}

impl Judge {
    /// `decide` gets the service, the event's number and how often the service was asked about it
    /// before.
    async fn new(
        client: &Client,
        decide: impl Fn(&str, u32, usize) -> Verdict + Send + 'static,
    ) -> Self {
        let mut asked = client
            .subscribe("bay.app.test.judge.verdict.v1.*")
            .await
            .unwrap();
        settled(client).await.unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (client, all) = (client.clone(), Arc::clone(&heard));
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
                all.lock().unwrap().push(Heard { service, key, n });
                let reply = reply.unwrap();
                client
                    .publish(reply, verdict.to_string().into())
                    .await
                    .unwrap();
            }
        });
        Self { heard, task }
    }

    fn heard(&self) -> MutexGuard<'_, Vec<Heard>> {
        self.heard.lock().unwrap()
    }

    /// How often the service was asked about each event.
    fn counts(&self, service: &str) -> HashMap<u32, usize> {
        let mut counts = HashMap::new();
        for heard in self.heard().iter().filter(|heard| heard.service == service) {
            *counts.entry(heard.n).or_default() += 1;
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
fn sink(name: &str) -> String {
    SINK.replace("NAME", name)
}

async fn request(client: &Client, subject: &str, body: impl Into<String>) -> Message {
    let request = client.request(subject.to_owned(), body.into().into());
    tokio::time::timeout(DEADLINE, request)
        .await
        .unwrap()
        .unwrap()
}

fn event(key: u32, n: u32) -> String {
    format!(r#"{{"key":{key},"n":{n}}}"#)
}

fn code(message: &Message) -> Option<&str> {
    let headers = message.headers.as_ref()?;
    headers.get(wire::ERROR_CODE).map(|code| code.as_str())
}

#[tokio::test]
async fn every_subscribing_service_hears_each_event_once_whatever_the_hosts() {
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let judge = Judge::new(&client, |_, _, _| Verdict::Ok).await;
    let (a, b) = (sink("a"), sink("b"));
    let lines = format!("{EXTERNAL}[wire.\"test:events/sink\"]\nmode = \"event\"\n");
    let services = Services(
        &[("a", &a, ""), ("b", &b, ""), ("maker", MAKER, "")],
        &lines,
    );
    let hosts = [
        start(nats.url(), &services).await,
        start(nats.url(), &services).await,
    ];

    for n in 0..50 {
        let made = request(&client, MAKE, event(1, n)).await;
        assert_eq!(made.payload, OK);
    }
    client.publish(HAPPENED, event(2, 50).into()).await.unwrap();
    until("both have heard all", || judge.heard().len() >= 102).await;
    for service in ["a", "b"] {
        let counts = judge.counts(service);
        assert_eq!(counts.len(), 51);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    }

    for host in hosts {
        assert_eq!(host.stop(DEADLINE).await, 0);
    }
    nats.stop().await;
}

#[tokio::test]
async fn an_event_nobody_subscribes_to_is_published_all_the_same() {
    let nats = Nats::start().await;
    let client = nats.connect().await;
    let services = Services(
        &[("maker", MAKER, "")],
        "[wire.\"test:events/sink\"]\nmode = \"event\"\n",
    );
    let host = start(nats.url(), &services).await;
    let mut listener = client.subscribe(HAPPENED).await.unwrap();
    settled(&client).await.unwrap();
    assert_eq!(request(&client, MAKE, event(1, 7)).await.payload, OK);
    let heard = tokio::time::timeout(DEADLINE, listener.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((heard.payload, heard.reply), (event(1, 7).into(), None));
    let headers = heard.headers.unwrap();
    assert_eq!(headers.get(wire::CALLER).unwrap().as_str(), "maker");
    assert!(headers.get(wire::DEADLINE).is_none());
    assert_eq!(host.stop(DEADLINE).await, 0);
    nats.stop().await;
}

#[tokio::test]
async fn whoever_asks_hears_what_came_of_the_event() {
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
    assert_eq!(host.stop(DEADLINE).await, 0);
    nats.stop().await;
}
