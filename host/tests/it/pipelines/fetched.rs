//! Durable functions that ask others by HTTP: a component of Rust, and a server that writes down what it gets.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use rustix::process::Signal;

use super::hosts::Hosts;
use super::*;
use crate::examples::guest;
use crate::messaging::as_text;
use crate::support::apps::Services;

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    body: String,
}

/// Answers requests with what `decide` says for the path and the number of earlier requests for it, `None`
/// being no answer at all.
pub(crate) struct Server {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) fn start(
        decide: impl Fn(&str, usize) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, decide) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::new(decide));
        let kept = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, decide, kept) =
                    (stream.unwrap(), Arc::clone(&decide), Arc::clone(&kept));
                thread::spawn(move || serve(stream, &*decide, &kept));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.path).collect()
    }
}

fn serve(
    mut stream: TcpStream,
    decide: &dyn Fn(&str, usize) -> Option<String>,
    kept: &Mutex<Vec<Seen>>,
) -> Option<()> {
    let mut read = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let end = loop {
            if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
            read.extend_from_slice(&buffer[..count]);
        };
        let head: String = read[..end].iter().map(|byte| char::from(*byte)).collect();
        let mut lines = head.lines();
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<_, _> = headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers
            .get("content-length")
            .map_or(0, |text| text.parse().unwrap());
        while read.len() < end + length {
            let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
            read.extend_from_slice(&buffer[..count]);
        }
        let body: Vec<u8> = read.drain(..end + length).skip(end).collect();
        let body = String::from_utf8(body).unwrap();
        let before = {
            let mut kept = kept.lock().unwrap();
            let before = kept.iter().filter(|seen| seen.path == path).count();
            kept.push(Seen {
                path: path.clone(),
                headers,
                body,
            });
            before
        };
        let Some(answer) = decide(&path, before) else {
            // Until whoever asked is gone.
            let _ = stream.read(&mut buffer);
            return None;
        };
        let length = answer.len();
        let answer = format!(
            "HTTP/1.1 201 Created\r\ncontent-length: {length}\r\nset-cookie: id=s3cret\r\n\r\n{answer}"
        );
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

fn keys(server: &Server) -> String {
    format!(
        r#"durable = {{ functions = ["bay:fetches/client.charge", "bay:fetches/client.all"], deadline = "30s", timeout = "10s", retry = {{ attempts = 2, backoff = ["20ms"] }} }}
grants = {{ http = ["{}", "127.0.0.1:1"] }}
limits = {{ message = "64KiB" }}
"#,
        server.address
    )
}

fn fetches() -> String {
    as_text(&guest("guests/rust/fetches"))
}

pub(crate) fn echo(path: &str, before: usize) -> Option<String> {
    Some(format!("{path}#{before}"))
}

const CHARGE: &str = "bay.app.bay.fetches.client.v1.charge";

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_steps_with_a_stable_key_and_logins_that_are_not_shown() {
    let server = Server::start(echo);
    let bench = bench(&Services(&[("fetches", &fetches(), &keys(&server))], "")).await;
    let arguments = json!({ "address": server.address, "order": "o-1" }).to_string();
    let reply = bench.text(CHARGE, &arguments).await;
    assert_eq!(
        reply,
        r#"{"ok":"201 /charge#0id=s3cret, 201 /receipt#0id=s3cret"}"#
    );
    let seen = server.seen();
    assert_eq!((&*seen[0].path, &*seen[0].body), ("/charge", "o-1"));
    let run = all(&bench.client).await.runs.remove(0).id;
    assert_eq!(
        seen[0].headers["idempotency-key"],
        format!("{run}.1-handle")
    );
    assert_eq!(
        seen[1].headers["idempotency-key"],
        format!("{run}.2-handle")
    );
    assert_eq!(seen[0].headers["authorization"], "Bearer 1234");
    assert_eq!(seen[0].headers["x-own"], "\u{e4}");

    let shown = runs(&bench.client).show(&run).await.unwrap();
    let shown = serde_json::to_value(shown).unwrap();
    let text = shown["steps"].to_string();
    assert!(!text.contains("1234") && !text.contains("s3cret"), "{text}");
    let step = &shown["steps"][0];
    let call = &step["call"];
    assert_eq!(call["function"], "wasi:http/outgoing-handler.handle");
    assert_eq!(call["arguments"]["method"], "POST");
    let url = format!("http://{}/charge", server.address);
    assert_eq!(call["arguments"]["url"], url);
    assert_eq!(call["arguments"]["secretHeaders"], "***");
    assert_eq!(step["result"]["status"], 201);
    assert_eq!(step["result"]["secretHeaders"], "***");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_is_made_again_and_then_the_functions_to_see() {
    // Two attempts each: the first order is not answered at first, the second one never.
    let server = Server::start(|path, before| (before > 0).then(|| path.to_owned()));
    let keys = keys(&server).replace("timeout = \"10s\"", "timeout = \"500ms\"");
    let bench = bench(&Services(&[("fetches", &fetches(), &keys)], "")).await;
    let charge = async |address: &str| {
        let arguments = json!({ "address": address, "order": "o-1" });
        bench.text(CHARGE, &arguments.to_string()).await
    };
    let reply = charge(&server.address).await;
    assert!(reply.starts_with(r#"{"ok":"201 /charge"#), "{reply}");
    assert_eq!(
        server.paths(),
        ["/charge", "/charge", "/receipt", "/receipt"]
    );
    let seen = server.seen();
    let key = |at: usize| &seen[at].headers["idempotency-key"];
    assert_eq!((key(0), key(2)), (key(1), key(3)));
    // Nobody listens there.
    let reply = charge("127.0.0.1:1").await;
    assert!(
        reply.contains("POST 127.0.0.1:1: connection error"),
        "{reply}"
    );
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_answers_are_bounded() {
    let server = Server::start(|_, _| Some("x".repeat(65 << 10)));
    let bench = bench(&Services(&[("fetches", &fetches(), &keys(&server))], "")).await;
    let charge = async |order: &str| {
        let arguments = json!({ "address": server.address, "order": order });
        bench.text(CHARGE, &arguments.to_string()).await
    };
    let reply = charge("o-1").await;
    let why = "the body of the answer has more than 65536 bytes, the limit of the service";
    assert!(reply.contains(why), "{reply}");
    // It would have the same answer another time.
    assert_eq!(server.paths(), ["/charge"]);
    // What is not granted is refused without a step.
    let refused = json!({ "address": "a.example", "order": "o" }).to_string();
    let reply = bench.text(CHARGE, &refused).await;
    assert!(reply.contains("HttpRequestDenied"), "{reply}");
    let page = all(&bench.client).await;
    let steps = async |run: usize| {
        let shown = runs(&bench.client).show(&page.runs[run].id).await.unwrap();
        serde_json::to_value(shown).unwrap()["steps"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!((steps(0).await, steps(1).await), (1, 0));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_under_way_together_keep_their_order() {
    let server = Server::start(echo);
    let bench = bench(&Services(&[("fetches", &fetches(), &keys(&server))], "")).await;
    let arguments = json!({ "address": server.address }).to_string();
    for round in 0..5 {
        let reply = bench
            .text("bay.app.bay.fetches.client.v1.all", &arguments)
            .await;
        for path in ["/a", "/b", "/c"] {
            assert!(reply.contains(&format!("{path}#{round}")), "{reply}");
        }
    }
    assert_eq!(server.paths(), ["/c", "/a", "/b"].repeat(5));
    assert_eq!(server.seen()[0].body, "late");
    bench.end().await;
}

/// The host dies while the request with this path is under way.
async fn killed_at(path: &'static str) -> Vec<Seen> {
    let server = Server::start(move |asked, before| match before {
        0 if asked == path => None,
        _ => echo(asked, before),
    });
    let order = json!({ "address": server.address, "order": "o-1" }).to_string();
    let component = fetches();
    let hosts = Hosts::called(("fetches", &component), &keys(&server), (CHARGE, &order)).await;
    let first = hosts.start();
    hosts.begin().await;
    until("the request is under way", || {
        server.paths().iter().any(|seen| seen == path)
    })
    .await;
    first.signal(Signal::KILL);
    let second = hosts.start();
    assert_eq!(hosts.until_ended().await, Phase::Completed);
    second.stop();
    server.seen()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_makes_the_request_again_that_nobody_knows_the_outcome_of_and_no_other() {
    let seen = killed_at("/charge").await;
    let paths: Vec<_> = seen.iter().map(|seen| &*seen.path).collect();
    assert_eq!(paths, ["/charge", "/charge", "/receipt"]);
    let key = |at: usize| &seen[at].headers["idempotency-key"];
    assert_eq!(key(0), key(1));

    let seen = killed_at("/receipt").await;
    let paths: Vec<_> = seen.iter().map(|seen| &*seen.path).collect();
    assert_eq!(paths, ["/charge", "/receipt", "/receipt"]);
}
