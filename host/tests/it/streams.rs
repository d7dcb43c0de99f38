//! Streams and futures between services, in the process and over NATS, and for those who know none.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use wasmbay::host::HostOptions;
use wasmbay::nats::ConnectOptions;

use crate::examples::guest;
use crate::host::code;
use crate::messaging::as_text;
use crate::support::apps::{Bench, Services, bench, start, start_with};
use crate::support::cli::Cli;
use crate::support::http::send;
use crate::support::nats::Nats;
use crate::support::{DEADLINE, until_ok};

/// A service that reads another one's streams, in the process or over NATS.
async fn reads(lines: &str, local: &str) -> Bench {
    let streams = as_text(&guest("guests/rust/streams"));
    let reads = as_text(&guest("guests/rust/reads-streams"));
    let services = [("streams", &*streams, lines), ("reads", &*reads, lines)];
    let wires = format!("[wire.\"bay:streams/source\"]\nlocal = \"{local}\"\n");
    bench(&Services(&services, &wires)).await
}

async fn call(bench: &Bench, function: &str, arguments: Value) -> (Option<String>, Value) {
    let subject = format!("bay.app.bay.streams.{function}");
    let reply = bench.request(&subject, &arguments.to_string()).await;
    let value = serde_json::from_slice(&reply.payload).unwrap();
    (code(&reply).map(str::to_owned), value)
}

fn row(number: u64) -> Value {
    let text = format!("row {number}");
    json!({ "odd": number % 2 == 1, "number": number, "square": number * number, "text": text })
}

#[tokio::test]
async fn what_a_stream_gives_arrives_whole_and_in_order() {
    for local in ["prefer", "never"] {
        let bench = reads("", local).await;
        for (function, arguments, expected) in [
            ("total", json!([0, 0]), json!(0)),
            ("total", json!([1_000, 0]), json!(499_500)),
            ("first", json!([1_000_000, 3]), json!(2)),
            // More than a message carries.
            ("length", json!([10_000_000]), json!(10_000_000)),
            ("length", json!([0]), json!(0)),
            ("checked", json!([100]), json!({ "ok": 4_950 })),
            (
                "checked",
                json!([1_001]),
                json!({ "err": "1001 rows are too many" }),
            ),
            ("later", json!([50]), json!("later")),
            ("sent", json!([1_000]), json!(499_500)),
            ("back", json!([1_000]), json!("ROW 999")),
            ("passed", json!([500]), json!(500)),
        ] {
            let reply = call(&bench, &format!("reader.v1.{function}"), arguments).await;
            assert_eq!(reply, (None, expected), "{function}, {local}");
        }
        bench.end().await;
    }
}

#[tokio::test]
async fn items_are_had_before_the_stream_ends_and_no_more_than_are_wanted_are_written() {
    for local in ["prefer", "never"] {
        let bench = reads("", local).await;
        // A million rows that are a second apart.
        let began = Instant::now();
        let reply = call(&bench, "reader.v1.first", json!([1_000_000, 1])).await;
        assert_eq!(reply, (None, json!(0)), "{local}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        // Who writes waits for who reads: some chunks are under way, the rest never.
        let (code, written) = call(&bench, "reader.v1.refused", json!([1_000_000, 10])).await;
        assert_eq!(code, None, "{written}");
        let written = written.as_u64().unwrap();
        assert!((10..5_000).contains(&written), "{written}, {local}");
        bench.end().await;
    }
}

#[tokio::test]
async fn a_part_is_never_taken_for_the_whole() {
    for local in ["prefer", "never"] {
        let bench = reads("limits = { timeout = \"1s\" }", local).await;
        let (code, error) = call(&bench, "reader.v1.broken", json!([100])).await;
        assert_eq!(code.as_deref(), Some("502"), "{error}, {local}");
        // The writer has no time left.
        let (code, error) = call(&bench, "reader.v1.total", json!([1_000, 100])).await;
        assert!(code.is_some(), "{error}, {local}");
        let reply = call(&bench, "reader.v1.total", json!([10, 1])).await;
        assert_eq!(reply, (None, json!(45)), "{local}");
        bench.end().await;
    }
}

#[tokio::test]
async fn who_knows_no_streams_sends_and_gets_lists() {
    let bench = reads(
        "limits = { timeout = \"5s\", message = \"64KiB\" }",
        "prefer",
    )
    .await;
    let rows = json!([row(0), row(1)]);
    let reply = call(&bench, "source.v1.rows", json!([2, 10])).await;
    assert_eq!(reply, (None, rows.clone()));
    let reply = call(&bench, "reader.v1.through", json!([2, 10])).await;
    assert_eq!(reply, (None, rows.clone()));
    let reply = call(&bench, "source.v1.upper", json!([rows])).await;
    assert_eq!(reply.1[1]["text"], "ROW 1");
    let reply = call(&bench, "source.v1.same", json!([rows])).await;
    assert_eq!(reply, (None, rows.clone()));
    let reply = call(&bench, "source.v1.bytes", json!([3])).await;
    assert_eq!(reply, (None, json!("AAAA")));
    let reply = call(&bench, "source.v1.checked", json!([0])).await;
    assert_eq!(reply, (None, json!({ "ok": [] })));
    let reply = call(&bench, "source.v1.later", json!([10])).await;
    assert_eq!(reply, (None, json!([10, "later"])));
    let (code, error) = call(&bench, "source.v1.broken", json!([3])).await;
    assert_eq!(code.as_deref(), Some("500"), "{error}");
    // A list that no message has room for.
    for (function, arguments) in [
        ("bytes", json!([10_000_000])),
        ("rows", json!([100_000, 0])),
    ] {
        let (code, error) = call(&bench, &format!("source.v1.{function}"), arguments).await;
        assert_eq!(code.as_deref(), Some("413"), "{error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("65536"), "{error}");
    }
    bench.end().await;
}

/// Asks for the items of a stream by its name, as any client of NATS can.
async fn ask(bench: &Bench, name: &str, header: Option<&str>) -> async_nats::Message {
    let subject = format!("bay-streams.app.{name}");
    let mut headers = async_nats::HeaderMap::new();
    if let Some(value) = header {
        headers.insert("Bay-Stream", value);
    }
    let asked = bench
        .client
        .request_with_headers(subject, headers, "".into());
    asked.await.unwrap()
}

/// Calls a function as one who reads streams by their names.
async fn named(bench: &Bench, function: &str, arguments: Value) -> async_nats::Message {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Bay-Streams", "named");
    let subject = format!("bay.app.bay.streams.{function}");
    let body = arguments.to_string().into();
    let called = bench.client.request_with_headers(subject, headers, body);
    called.await.unwrap()
}

#[tokio::test]
async fn any_client_can_read_a_stream_by_its_name() {
    let bench = reads("", "prefer").await;
    let reply = named(&bench, "source.v1.rows", json!([5, 1])).await;
    assert_eq!(
        reply.headers.unwrap().get("Bay-Streams").unwrap().as_str(),
        "named"
    );
    let name: String = serde_json::from_slice(&reply.payload).unwrap();
    let mut read = Vec::new();
    loop {
        let answer = ask(&bench, &name, None).await;
        if !answer.payload.is_empty() {
            let items: Vec<Value> = serde_json::from_slice(&answer.payload).unwrap();
            read.extend(items);
        }
        match answer.headers.unwrap().get("Bay-Stream").unwrap().as_str() {
            "more" => {}
            state => break assert_eq!(state, "end"),
        }
    }
    assert_eq!(read, (0..5).map(row).collect::<Vec<_>>());
    // What has ended is not there any more.
    let subject = format!("bay-streams.app.{name}");
    until_ok("the stream is gone", async || {
        match bench.client.request(subject.clone(), "".into()).await {
            Ok(answer) => Err(answer),
            Err(_) => Ok(()),
        }
    })
    .await;

    // An error is a reply, and the last one.
    let reply = named(&bench, "source.v1.broken", json!([3])).await;
    let name: String = serde_json::from_slice(&reply.payload).unwrap();
    let failed = loop {
        let answer = ask(&bench, &name, None).await;
        if code(&answer).is_some() {
            break answer;
        }
    };
    assert_eq!(code(&failed), Some("503"), "{failed:?}");

    // An `err` value has no stream, and a name that none can have is an error of its caller.
    let reply = named(&bench, "source.v1.checked", json!([1_001])).await;
    let refused: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(refused, json!({ "err": "1001 rows are too many" }));
    for name in ["", "x", "*", "00000000000000000000000000000000.x"] {
        let reply = named(&bench, "source.v1.sum", json!([name])).await;
        assert_eq!(code(&reply), Some("400"), "{name}");
    }
    // Nobody has this one.
    let reply = named(&bench, "source.v1.sum", json!(["0".repeat(32)])).await;
    assert_eq!(code(&reply), Some("502"), "{reply:?}");
    bench.end().await;
}

#[tokio::test]
async fn a_host_that_stops_writes_its_streams_to_their_end() {
    let bench = reads("", "never").await;
    let reply = named(&bench, "source.v1.rows", json!([50, 20])).await;
    let name: String = serde_json::from_slice(&reply.payload).unwrap();
    let Bench { nats, host, client } = bench;
    let stopped = tokio::spawn(host.stop(DEADLINE));
    let mut read = 0;
    loop {
        let subject = format!("bay-streams.app.{name}");
        let answer = client.request(subject, "".into()).await.unwrap();
        if !answer.payload.is_empty() {
            let items: Vec<Value> = serde_json::from_slice(&answer.payload).unwrap();
            read += items.len();
        }
        if answer.headers.unwrap().get("Bay-Stream").unwrap().as_str() == "end" {
            break;
        }
    }
    assert_eq!(read, 50);
    assert!(stopped.await.unwrap().is_complete());
    nats.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_gets_the_items_of_a_result_as_events() {
    let nats = Nats::start().await;
    let options = HostOptions {
        gateway: Some("127.0.0.1:0".parse().unwrap()),
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let (streams, reads) = (
        as_text(&guest("guests/rust/streams")),
        as_text(&guest("guests/rust/reads-streams")),
    );
    let routes = r#"
[[route]]
method = "GET"
path = "/rows"
call = "bay:streams/reader.through"
query = ["count", "millis"]
[[route]]
method = "GET"
path = "/checked/{count}"
call = "bay:streams/source.checked"
[[route]]
method = "GET"
path = "/broken/{count}"
call = "bay:streams/source.broken"
"#;
    let limits = "limits = { timeout = \"2s\" }";
    let services = [("streams", &*streams, limits), ("reads", &*reads, limits)];
    let host = start_with(options, &Services(&services, routes)).await;
    let address = host.gateway().unwrap().to_string();
    let get = async |path: &str, accept: &'static str| {
        let (address, path) = (address.clone(), path.to_owned());
        let sent = move || send(&address, "GET", &path, &[("Accept", accept)], "").unwrap();
        tokio::task::spawn_blocking(sent).await.unwrap()
    };
    const EVENTS: &str = "text/html, text/event-stream;q=0.9";
    let frames = |rows: u64| {
        let frames = (0..rows).map(|number| format!("data: {}\n\n", compact(&row(number))));
        frames.collect::<String>()
    };
    let answer = get("/rows?count=3&millis=20", EVENTS).await;
    assert!(answer.head.contains("text/event-stream"), "{answer:?}");
    assert_eq!(answer.body, frames(3) + "event: end\ndata: null\n\n");
    let answer = get("/rows?count=3&millis=20", "application/json").await;
    assert_eq!(answer.json(), json!([row(0), row(1), row(2)]));
    let answer = get("/checked/2", EVENTS).await;
    assert_eq!(answer.body, frames(2) + "event: end\ndata: null\n\n");
    let answer = get("/checked/1001", EVENTS).await;
    assert_eq!(answer.status, 422, "{answer:?}");
    // A part is no whole: the last event says why there is no more.
    for path in ["/broken/2", "/rows?count=1000&millis=50"] {
        let answer = get(path, EVENTS).await;
        let last = answer.body.split("event: end\ndata: ").nth(1).unwrap();
        let last: Value = serde_json::from_str(last).unwrap();
        assert_eq!(last["error"]["code"], 503, "{answer:?}");
    }
    host.stop(DEADLINE).await;
    nats.stop().await;
}

/// A row as hosts write it, in the order of its declaration.
fn compact(row: &Value) -> String {
    format!(
        r#"{{"odd":{},"number":{},"square":{},"text":{}}}"#,
        row["odd"], row["number"], row["square"], row["text"]
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_host_is_no_end_of_its_streams() {
    let nats = Nats::start().await;
    let component = guest("guests/rust/streams");
    let limits = "limits = { timeout = \"60s\" }\n";
    let manifest =
        format!("name = \"app\"\n[service.streams]\ncomponent = \"streams.wasm\"\n{limits}");
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest)]);
    cli.write("streams.wasm", component);
    let writer = cli.up(&["--no-gateway", "--nats", nats.url()]);
    let reads = as_text(&guest("guests/rust/reads-streams"));
    let wires = "[wire.\"bay:streams/source\"]\nexternal = true\n";
    let host = start(nats.url(), &Services(&[("reads", &*reads, limits)], wires)).await;
    let client = nats.connect().await;
    let through = "bay.app.bay.streams.reader.v1.through";
    let total = "bay.app.bay.streams.reader.v1.total";
    // Items of the other process that go through this one.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Bay-Streams", "named");
    let arguments = json!([1_000, 20]).to_string();
    let reply = client.request_with_headers(through, headers, arguments.into());
    let name: String = serde_json::from_slice(&reply.await.unwrap().payload).unwrap();
    let items = format!("bay-streams.app.{name}");
    let first = client.request(items.clone(), "".into()).await.unwrap();
    assert_eq!(code(&first), None, "{first:?}");
    // And some that are read here.
    let reading = tokio::spawn({
        let client = client.clone();
        async move { client.request(total, "[1000,20]".into()).await.unwrap() }
    });
    until_ok("both are read", async || {
        let asked = client.request(items.clone(), "".into()).await.unwrap();
        let read = code(&asked).is_none() && !reading.is_finished();
        if read { Ok(()) } else { Err(asked) }
    })
    .await;
    writer.signal(Signal::KILL);
    let failed = reading.await.unwrap();
    assert_eq!(code(&failed), Some("502"), "{failed:?}");
    loop {
        let next = client.request(items.clone(), "".into()).await.unwrap();
        if code(&next).is_some() {
            break assert_eq!(code(&next), Some("503"), "{next:?}");
        }
        let state = next.headers.unwrap().get("Bay-Stream").unwrap().to_string();
        assert_eq!(state, "more");
    }
    drop(writer);
    host.stop(DEADLINE).await;
    nats.stop().await;
}
