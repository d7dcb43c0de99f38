//! The admin address over real sockets: what an operator does with dead letters, and the requests
//! that are refused.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, jetstream};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use wasmbay::events::dead_letters::{DeadLetterError, Entry, Filter, Pace};
use wasmbay::host::{Host, HostOptions};
use wasmbay::nats::ConnectOptions;
use wasmbay::wire;

use crate::events::{
    Bench, Judge, OK, PUBLISH, QUICK, STREAM, Verdict, durable, event, request, sink,
};
use crate::support::apps::{Services, start_with};
use crate::support::components::PUBLISHES;
use crate::support::http::{Response, send};
use crate::support::{DEADLINE, until};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// An app whose subscriber refuses the events from 1 to 9, and its admin address.
struct Admin {
    bench: Bench,
    judge: Judge,
    host: Host,
    address: String,
}

impl Admin {
    async fn start(keys: &str) -> Self {
        let bench = Bench::start().await;
        let judge = Judge::new(&bench.client, |_, n, _| match n {
            1..=9 => Verdict::Err,
            _ => Verdict::Ok,
        })
        .await;
        let a = sink("a");
        let lines = durable(&format!("{QUICK}\n{keys}"));
        let services = Services(&[("a", &a, ""), ("publisher", PUBLISHES, "")], &lines);
        let options = HostOptions {
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            ..HostOptions::new(ConnectOptions::to(bench.nats.url()))
        };
        let host = start_with(options, &services).await;
        let address = host.admin().unwrap().to_string();
        Self {
            bench,
            judge,
            host,
            address,
        }
    }

    /// With so many dead letters, of the events from 1 on.
    async fn with_dead_letters(keys: &str, count: u32) -> (Self, Vec<String>) {
        let admin = Self::start(keys).await;
        // One after the other, so that their order is known.
        let mut dead_letters = Vec::new();
        for n in 1..=count {
            admin.publish(7, n).await;
            dead_letters = admin.bench.until_dead_letters(n as usize).await;
        }
        (
            admin,
            dead_letters.into_iter().map(|letter| letter.id).collect(),
        )
    }

    async fn publish(&self, key: u32, n: u32) {
        let done = request(&self.bench.client, PUBLISH, event(key, n)).await;
        assert_eq!(done.payload, OK);
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let [address, method, path, body] = [&self.address, method, path, body].map(str::to_owned);
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let sent = spawn_blocking(move || {
            let headers: Vec<_> = headers.iter().map(|(n, v)| (&**n, &**v)).collect();
            send(&address, &method, &path, &headers, &body)
        });
        sent.await.unwrap().unwrap()
    }

    /// The answer's body, if the status is this one.
    async fn expect(&self, status: u16, method: &str, path: &str) -> Value {
        let response = self.send(method, path, &[], "").await;
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        response.json()
    }

    async fn put(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let headers: Vec<_> = headers.iter().copied().chain([JSON]).collect();
        self.send("PUT", path, &headers, body).await
    }

    async fn end(self) {
        assert!(self.host.stop(DEADLINE).await.is_complete());
        self.bench.nats.stop().await;
    }
}

fn ids(list: &Value) -> Vec<&str> {
    let dead_letters = list["deadLetters"].as_array().unwrap();
    dead_letters
        .iter()
        .map(|l| l["id"].as_str().unwrap())
        .collect()
}

fn error(response: &Response) -> (u16, u64, String) {
    let body = response.json();
    let error = &body["error"];
    assert!(error["blame"].is_string(), "{body}");
    (
        response.status,
        error["code"].as_u64().unwrap(),
        error["message"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test]
async fn a_dead_letter_is_listed_shown_edited_replayed_and_purged() {
    let (admin, all) = Admin::with_dead_letters("", 3).await;
    let index = admin.expect(200, "GET", "/").await;
    assert_eq!(index["app"], "app");
    assert!(
        index["routes"]
            .as_array()
            .unwrap()
            .contains(&json!("GET /dead-letters"))
    );
    assert_eq!(admin.expect(200, "GET", "/healthz").await["status"], "ok");
    assert_eq!(admin.expect(200, "GET", "/readyz").await["ready"], true);

    // Filters and pages.
    let list = admin.expect(200, "GET", "/dead-letters").await;
    assert_eq!(ids(&list), all);
    assert_eq!(list.get("next"), None);
    assert_eq!(
        list["deadLetters"][0]["attempts"].as_array().unwrap().len(),
        3
    );
    assert_eq!(list["deadLetters"][0].get("body"), None);
    for (query, count) in [
        ("service=a", 3),
        ("service=publisher", 0),
        ("function=sink.happened", 3),
        ("function=test:events/sink.happened@1.0.0&service=a", 3),
        ("function=test:events/sink.happened@2.0.0", 0),
        ("function=other/sink.happened", 0),
    ] {
        let list = admin
            .expect(200, "GET", &format!("/dead-letters?{query}"))
            .await;
        assert_eq!(ids(&list).len(), count, "{query}");
    }
    let page = admin.expect(200, "GET", "/dead-letters?limit=2").await;
    assert_eq!(ids(&page), &all[..2]);
    let next = page["next"].as_str().unwrap();
    let page = admin
        .expect(200, "GET", &format!("/dead-letters?limit=2&after={next}"))
        .await;
    assert_eq!(ids(&page), &all[2..]);
    assert_eq!(page.get("next"), None);

    let path = format!("/dead-letters/{}", all[0]);
    let response = admin.send("GET", &path, &[], "").await;
    let shown = response.json();
    assert_eq!(shown["body"], json!({ "key": 7, "n": 1 }));
    assert_eq!(shown["attempts"][0]["error"], r#""refused""#);
    let tag = format!("\"{}\"", shown["revision"]);
    assert!(
        response.head.contains(&format!("etag: {tag}")),
        "{response:?}"
    );
    assert!(
        response.head.contains("cache-control: no-store"),
        "{response:?}"
    );
    let head = admin.send("HEAD", &path, &[], "").await;
    assert_eq!(head.status_and_body(), (200, ""));
    let length = format!("content-length: {}", response.body.len());
    assert!(head.head.contains(&length), "{head:?}");

    // An edit is checked against the type, and against the revision that was read.
    let refused = admin.put(&path, &[], r#"{"key":7,"n":"10"}"#).await;
    let (status, code, why) = error(&refused);
    assert_eq!((status, code), (400, 400));
    assert!(why.contains("$.n: expected u32"), "{why}");
    let stale = admin
        .put(&path, &[("If-Match", "\"1000\"")], &event(7, 10))
        .await;
    assert_eq!(error(&stale).0, 412);
    let odd = admin.put(&path, &[("If-Match", "17")], &event(7, 10)).await;
    assert_eq!(error(&odd).0, 400);
    let still = admin.expect(200, "GET", &path).await;
    assert_eq!(
        (&still["edited"], &still["revision"]),
        (&json!(false), &shown["revision"])
    );
    let edited = admin.put(&path, &[("If-Match", &tag)], &event(7, 10)).await;
    assert_eq!(edited.status, 200, "{edited:?}");
    assert_eq!(edited.json()["body"], json!({ "key": 7, "n": 10 }));
    assert_eq!(edited.json()["edited"], true);
    let second = admin.put(&path, &[("If-Match", &tag)], &event(7, 11)).await;
    assert_eq!(error(&second).0, 412);

    let replayed = admin.expect(202, "POST", &format!("{path}/replay")).await;
    assert_eq!(replayed, json!({ "replayed": [all[0]] }));
    admin.bench.until_dead_letters(2).await;
    assert_eq!(admin.judge.counts("a")[&10], 1);
    for (method, path) in [
        ("GET", path.clone()),
        ("PUT", path.clone()),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/replay")),
        ("GET", "/dead-letters/nonsense".to_owned()),
        ("DELETE", "/dead-letters/at-99999".to_owned()),
    ] {
        admin.expect(404, method, &path).await;
    }

    // Many at once: what fails again is still one dead letter, and is not replayed twice.
    let before = admin.judge.attempts().len();
    let path = "/dead-letters/replay?service=a&rate=100/s&limit=1";
    let first = admin.expect(202, "POST", path).await;
    assert_eq!(first["replayed"], json!([all[1]]));
    let next = first["next"].as_str().unwrap();
    until("it has failed again", || {
        admin.judge.attempts().len() == before + 3
    })
    .await;
    let rest = admin
        .expect(202, "POST", &format!("{path}&after={next}"))
        .await;
    assert_eq!(rest, json!({ "replayed": [all[2]], "failed": [] }));
    until("so has the other", || {
        admin.judge.attempts().len() == before + 6
    })
    .await;
    admin.bench.done("a").await;
    let list = admin.expect(200, "GET", "/dead-letters").await;
    assert_eq!(ids(&list), &all[1..]);
    for dead_letter in list["deadLetters"].as_array().unwrap() {
        assert_eq!(dead_letter["attempts"].as_array().unwrap().len(), 6);
    }

    let none = admin
        .expect(200, "DELETE", "/dead-letters?service=publisher")
        .await;
    assert_eq!(none, json!({ "purged": 0 }));
    let one = admin
        .expect(200, "DELETE", &format!("/dead-letters/{}", all[1]))
        .await;
    assert_eq!(one, json!({ "purged": 1 }));
    let rest = admin.expect(200, "DELETE", "/dead-letters?all=true").await;
    assert_eq!(rest, json!({ "purged": 1 }));
    assert!(admin.bench.list().await.is_empty());
    admin.end().await;
}

#[tokio::test]
async fn requests_that_are_not_allowed_are_refused_and_change_nothing() {
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    let path = format!("/dead-letters/{}", all[0]);
    let replay = format!("{path}/replay");
    // Mistyped, or too much.
    for (method, path) in [
        ("DELETE", "/dead-letters"),
        ("DELETE", "/dead-letters?servce=a"),
        ("DELETE", "/dead-letters?all=yes"),
        ("DELETE", "/dead-letters?all=true&service=a"),
        ("POST", "/dead-letters/replay"),
        ("POST", "/dead-letters/replay?all=true&rate=0/s"),
        ("POST", "/dead-letters/replay?all=true&limit=1001"),
        ("GET", "/dead-letters?limit=1001"),
        ("GET", "/dead-letters?limit=0"),
        ("GET", "/dead-letters?after=x"),
        ("GET", "/dead-letters?function=*"),
        ("GET", &format!("{path}?service=a")),
    ] {
        let refused = admin.send(method, path, &[], "").await;
        assert_eq!(error(&refused).0, 400, "{method} {path}");
    }
    for (method, path, allowed) in [
        ("POST", "/", "GET, HEAD"),
        ("POST", "/dead-letters", "GET, HEAD, DELETE"),
        ("GET", "/dead-letters/replay", "POST"),
        ("PUT", "/dead-letters/replay", "POST"),
        ("PATCH", &path, "GET, HEAD, PUT, DELETE"),
        ("OPTIONS", &path, "GET, HEAD, PUT, DELETE"),
        ("GET", &replay, "POST"),
    ] {
        let refused = admin.send(method, path, &[], "").await;
        assert_eq!(error(&refused).0, 405, "{method} {path}");
        let allow = format!("\nallow: {allowed}\n");
        assert!(
            format!("{}\n", refused.head).contains(&allow),
            "{refused:?}"
        );
    }
    admin
        .expect(404, "GET", "/rpc/test:publisher/api/publish")
        .await;

    // What pages of other origins can have a browser send.
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let text = ("Content-Type", "text/plain");
    let rebound = format!("evil.example:{}", admin.address.rsplit(':').next().unwrap());
    for (status, method, path, headers, body) in [
        (415, "POST", &*replay, vec![form], ""),
        (415, "POST", "/dead-letters/replay?all=true", vec![text], ""),
        (415, "PUT", &*path, vec![text], r#"{"key":7,"n":10}"#),
        (415, "DELETE", &*path, vec![form], ""),
        (413, "POST", &*replay, vec![JSON], "{}"),
        (
            403,
            "POST",
            &*replay,
            vec![("Origin", "http://evil.example")],
            "",
        ),
        (403, "POST", &*replay, vec![("Origin", "null")], ""),
        (
            403,
            "DELETE",
            &*path,
            vec![("Origin", "http://127.0.0.1:1")],
            "",
        ),
        (
            403,
            "GET",
            &*path,
            vec![("Origin", "https://evil.example")],
            "",
        ),
        (403, "GET", "/dead-letters", vec![("Host", &*rebound)], ""),
        (403, "POST", &*replay, vec![("Host", &*rebound)], ""),
    ] {
        let refused = admin.send(method, path, &headers, body).await;
        assert_eq!(error(&refused).0, status, "{method} {path} {headers:?}");
        let cors = refused.head.contains("access-control");
        assert!(!cors, "{refused:?}");
    }
    let dead_letter = admin.bench.dead_letters.get(&all[0]).await.unwrap();
    assert_eq!((dead_letter.edited, dead_letter.attempts.len()), (false, 3));
    assert_eq!(admin.judge.attempts().len(), 3);

    // A page of the admin address itself may.
    let own = format!("http://{}", admin.address);
    let replayed = admin.send("POST", &replay, &[("Origin", &own)], "").await;
    assert_eq!(replayed.status, 202);
    until("it has failed again", || admin.judge.attempts().len() == 6).await;
    admin.end().await;
}

#[tokio::test]
async fn every_limit_of_a_connection_is_enforced() {
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    let path = format!("/dead-letters/{}", all[0]);
    // As much as NATS takes, which is 1 MiB.
    let large = format!("{}{}", " ".repeat(1 << 20), event(7, 10));
    assert_eq!(error(&admin.put(&path, &[], &large).await).0, 413);
    // Within that, but not with the dead letter's record.
    let large = format!("{}{}", " ".repeat((1 << 20) - 500), event(7, 10));
    assert_eq!(error(&admin.put(&path, &[], &large).await).0, 413);
    let long = "x".repeat(200 << 10);
    let refused = admin
        .send("GET", "/dead-letters", &[("X-Long", &long)], "")
        .await;
    assert_eq!(refused.status, 431);

    let address = admin.address.clone();
    spawn_blocking(move || {
        let connect = || {
            let stream = TcpStream::connect(&address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream
        };
        let ask = |stream: &mut TcpStream| {
            let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
        };
        let mut answer = [0; 12];
        // HTTP/2 would let one connection have many requests at a time.
        let mut http2 = connect();
        http2
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        let mut said = Vec::new();
        let _ = http2.read_to_end(&mut said);
        assert!(
            said.is_empty() || said.starts_with(b"HTTP/1.1 400"),
            "{said:?}"
        );

        let mut open: Vec<_> = (0..32).map(|_| connect()).collect();
        for stream in &mut open {
            ask(stream);
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
        // One more takes the place of the one that has been idle for longest.
        let mut one_more = connect();
        ask(&mut one_more);
        one_more.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        // The longest idle has made room, and no other.
        let mut rest = Vec::new();
        open[0].read_to_end(&mut rest).unwrap();
        let short = Duration::from_millis(300);
        open[1].set_read_timeout(Some(short)).unwrap();
        open[1].read_to_end(&mut rest).unwrap_err();
    })
    .await
    .unwrap();
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

    // Edits at the same time as replays that fail: neither loses what the other wrote.
    let mut last = 2;
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
        let deadline = Instant::now() + DEADLINE;
        let attempts = 3 * (round + 2);
        loop {
            let now = dead_letters.find(&all[0]).await.unwrap();
            assert_eq!(now_n(&now.body), last, "an edit was lost");
            if now.left_out + now.attempts.len() == attempts {
                break;
            }
            assert!(Instant::now() < deadline, "{now:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Another body, so that the next replay is none that was there.
        let now = dead_letters.find(&all[0]).await.unwrap();
        last = 1 + (last + 1) % 9;
        dead_letters
            .edit(&now, body(last), async { None })
            .await
            .unwrap();
    }

    // One that was handled meanwhile is not brought back.
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

/// A `curl` line of the documentation: its method, path, headers and body.
fn curl(line: &str) -> (String, String, bool, String) {
    let option = |name: &str| {
        let (_, rest) = line.split_once(&format!(" {name} "))?;
        let value = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split('\'').next(),
            None => rest.split(' ').next(),
        };
        value.map(str::to_owned)
    };
    let (_, path) = line.split_once("http://127.0.0.1:8081").unwrap();
    let path = path.split([' ', '\'']).next().unwrap();
    (
        option("-X").unwrap_or_else(|| "GET".to_owned()),
        if path.is_empty() { "/" } else { path }.to_owned(),
        line.contains("Content-Type: application/json"),
        option("-d").unwrap_or_default(),
    )
}

#[tokio::test]
async fn the_commands_of_the_documentation_work() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.md");
    let text = std::fs::read_to_string(text).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ "));
    let lines: Vec<_> = lines.filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.len() >= 6, "{lines:?}");
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    for line in lines {
        let line = line
            .replace("6f0c1b9d2e8a4735", &all[0])
            .replace("notifications", "a")
            .replace("events.order-paid", "sink.happened")
            .replace(r#"{"orderId":"o-17"}"#, &event(7, 2));
        let (method, path, is_json, body) = curl(&line);
        let headers = if is_json { vec![JSON] } else { vec![] };
        let done = admin.send(&method, &path, &headers, &body).await;
        assert!(matches!(done.status, 200 | 202), "{line}: {done:?}");
        admin.bench.done("a").await;
    }
    assert!(admin.bench.list().await.is_empty());
    admin.end().await;
}
