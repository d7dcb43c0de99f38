//! NestJS microservices of the real packages beside an app: their clients call it, their handlers answer it, and a
//! queue is shared while one of the two is replaced.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use wasmbay::host::HostOptions;
use wasmbay::nats::ConnectOptions;

use crate::examples::{guest, manifest};
use crate::support::apps::{Bench, Services, bench, start, start_with};
use crate::support::cli::{Cli, Up};
use crate::support::components::{CALLER, GUEST, OTHER, RETURNS_ERROR};
use crate::support::http::send;
use crate::support::nats::Nats;
use crate::support::{DEADLINE, until_ok};

const NEWEST: &str = "nestjs";

/// A process of NestJS, which ends with the test.
struct Nest {
    process: Child,
    said: BufReader<ChildStdout>,
}

impl Drop for Nest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Nest {
    fn start(arguments: &[&str]) -> Self {
        Self::of(NEWEST, arguments)
    }

    /// Of a version, by the name of its tool.
    fn of(version: &str, arguments: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let nest = root.join("../.tools/bin").join(version);
        assert!(nest.exists(), "no NestJS: run `guests/tools.sh {version}`");
        let mut process = Command::new(nest)
            .arg(root.join("tests/it/nestjs.mjs"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { process, said }
    }

    fn service(nats: &Nats, queue: &str) -> Self {
        let mut service = Self::start(&["service", nats.url(), queue]);
        service.until("ready");
        service
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "NestJS ended");
        line.trim_end().to_owned()
    }

    fn until(&mut self, expected: &str) {
        while self.line() != expected {}
    }

    /// Has it close, and waits until it has.
    fn end(mut self) {
        drop(self.process.stdin.take());
        self.until("closed");
    }
}

/// The outcomes of requests of a client, one after the other.
async fn ask(version: &'static str, nats: &Nats, requests: Value) -> Vec<Value> {
    let (url, requests) = (nats.url().to_owned(), requests.to_string());
    let asked = spawn_blocking(move || {
        let mut nest = Nest::of(version, &["ask", &url, &requests]);
        let mut text = String::new();
        nest.said.read_to_string(&mut text).unwrap();
        // It logs on the same stream.
        let lines = text.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    });
    asked.await.unwrap()
}

const SERVED: &str = r#"
[[nest]]
pattern = { cmd = "echo" }
call = "test:guest/api.echo"

[[nest]]
pattern = "check"
call = "test:guest/api.check"
queue = "checks"

[[nest]]
pattern = "try"
call = "test:other/api.try"

[[nest]]
pattern = "trap"
call = "test:guest/api.trap"

[[nest]]
pattern = { cmd = "happened" }
call = "test:events/sink.happened"

[wire."test:events/sink"]
mode = "event"
"#;

const SERVICES: Services<'_> = Services(
    &[
        ("guest", GUEST, ""),
        ("other", OTHER, ""),
        ("sink", RETURNS_ERROR, ""),
    ],
    SERVED,
);

#[tokio::test]
async fn a_client_of_nestjs_calls_functions_and_gets_values_and_errors() {
    for version in VERSIONS {
        is_a_client(version).await;
    }
}

/// The newest three, by the names of their tools.
const VERSIONS: [&str; 3] = [NEWEST, "nestjs11", "nestjs10"];

async fn is_a_client(version: &'static str) {
    let bench = bench(&SERVICES).await;
    let outcomes = ask(
        version,
        &bench.nats,
        json!([
            { "pattern": { "cmd": "echo" }, "data": "hi" },
            { "pattern": "check", "data": 5 },
            { "pattern": "check", "data": 50 },
            { "pattern": "try", "data": 0 },
            { "pattern": "trap", "data": {} },
            { "pattern": "check", "data": { "unknown": 1 } },
            { "pattern": { "cmd": "happened" }, "data": { "key": 1, "n": 2 }, "emit": true },
        ]),
    )
    .await;
    let value = |index: usize| &outcomes[index]["value"];
    let error = |index: usize| &outcomes[index]["error"];
    assert_eq!(
        (value(0), value(1)),
        (&"hi".into(), &5.into()),
        "{outcomes:?}"
    );
    assert_eq!(
        error(2),
        &json!({ "status": "error", "message": "refused", "val": 50 })
    );
    assert_eq!(error(3), &json!({ "status": "error", "message": "zero" }));
    assert_eq!(
        (&error(4)["code"], &error(4)["blame"]),
        (&500.into(), &"guest".into())
    );
    assert_eq!(error(5)["code"], 400);
    let message = error(5)["message"].as_str().unwrap();
    assert!(message.contains("expected"), "{message}");
    // What is emitted is an event of the wire.
    bench
        .stats_when("sink", |stats| stats.num_requests == 1)
        .await;
    // A plain client gets what it would get of the function.
    assert_eq!(bench.text("check", "5").await, "{\"ok\":5}");
    // A packet that is no JSON, and one that is hostile, get one answer each.
    for packet in [
        "{",
        "{\"id\":1,\"pattern\":1}",
        "{\"id\":[[[[1]]]],\"data\":null}",
    ] {
        let answer = bench.text("check", packet).await;
        assert!(answer.contains("error"), "{packet}: {answer}");
    }
    bench.end().await;
}

const ANSWERED: &str = r#"
[wire."test:other/api"]
external = "nest"
patterns = { ask = { cmd = "ask" }, try = "nest.try" }
"#;

const ASK: &str = "bay.app.test.caller.api.v1.ask";
const TRY: &str = "bay.app.test.caller.api.v1.try";

#[tokio::test]
async fn a_handler_of_nestjs_answers_an_import() {
    let limits = "limits = { timeout = \"3s\" }";
    let services = Services(&[("caller", CALLER, limits)], ANSWERED);
    let Bench { nats, host, client } = bench(&services).await;
    let bench = Bench { nats, host, client };
    // Nobody handles it yet.
    let none = bench.text(ASK, "[1]").await;
    assert!(none.contains("no service of NestJS handles"), "{none}");
    for version in VERSIONS {
        let service = handlers(version, &bench.nats).await;
        answers(&bench).await;
        drop(service);
        // The server may not know yet that it is gone.
        bench.client.flush().await.unwrap();
    }
    bench.end().await;
}

/// A service of NestJS that is ready.
async fn handlers(version: &'static str, nats: &Nats) -> Nest {
    let url = nats.url().to_owned();
    let service = spawn_blocking(move || {
        let mut service = Nest::of(version, &["service", &url, "nest"]);
        service.until("ready");
        service
    });
    service.await.unwrap()
}

async fn answers(bench: &Bench) {
    assert_eq!(bench.text(ASK, "[1]").await, "2");
    assert_eq!(bench.text(TRY, "[1]").await, "{\"ok\":2}");
    assert_eq!(bench.text(TRY, "[0]").await, "{\"err\":\"none left\"}");
    // What a handler throws by accident is not shown by NestJS itself.
    assert_eq!(
        bench.text(TRY, "[2]").await,
        "{\"err\":\"Internal server error\"}"
    );
    // No place for an error: the caller fails, and says why.
    let failed = bench.text(ASK, "[13]").await;
    assert!(
        failed.contains("\"code\":502") && failed.contains("thirteen"),
        "{failed}"
    );
}

/// Exports a function that returns a list.
const LISTS: &str = r#"
(component
  (core module $code
    (memory (export "memory") 1)
    (data (i32.const 64) "abc")
    (func (export "all") (result i32)
      (i32.store (i32.const 32) (i32.const 64)) (i32.store (i32.const 36) (i32.const 1))
      (i32.store (i32.const 40) (i32.const 65)) (i32.store (i32.const 44) (i32.const 1))
      (i32.store (i32.const 48) (i32.const 66)) (i32.store (i32.const 52) (i32.const 1))
      (i32.store (i32.const 16) (i32.const 32)) (i32.store (i32.const 20) (i32.const 3))
      (i32.const 16)))
  (core instance $core (instantiate $code))
  (func $all (result (list string))
    (canon lift (core func $core "all") (memory (core memory $core "memory"))))
  (instance $api (export "all" (func $all)))
  (export "test:lists/api@1.0.0" (instance $api)))
"#;

/// Imports what handlers of NestJS answer and get, so that its types are known.
const TYPES: &str = r#"
(component
  (import "test:nest/lists@1.0.0" (instance (export "list" (func (result (list string))))))
  (import "test:nest/news@1.0.0" (instance
    (export "told" (func (param "text" string)))
    (export "sold" (func (param "sku" string) (param "count" u32)))))
  (core module $code (func (export "nothing")))
  (core instance $core (instantiate $code))
  (func $nothing (canon lift (core func $core "nothing")))
  (instance $api (export "nothing" (func $nothing)))
  (export "test:types/api@1.0.0" (instance $api)))
"#;

const STREAMED: &str = r#"
[[nest]]
pattern = "all"
call = "test:lists/api.all"
stream = true

[wire."test:nest/lists"]
external = "nest"
patterns = { list = "list" }
streams = ["list"]

[wire."test:nest/news"]
mode = "event"
durable = true
nest = { told = "told", sold = { cmd = "sold" } }

[pipeline.listing]
implements = "test:pipes/lists.run@1.0.0"
type = "func() -> list<string>"
result = "$list"

[[pipeline.listing.step]]
name = "list"
call = "test:nest/lists.list"

[[pipeline.listing.step]]
name = "tell"
event = "test:nest/news.told"
with = { text = "b" }

[[pipeline.listing.step]]
name = "sell"
event = "test:nest/news.sold"
with = { sku = "a", count = 3 }
"#;

#[tokio::test]
async fn lists_are_streams_and_events_are_told_both_ways() {
    let services = [("lists", LISTS, ""), ("types", TYPES, "")];
    let bench = bench(&Services(&services, STREAMED)).await;
    let all = json!([{ "pattern": "all", "data": {}, "all": true }]);
    for version in VERSIONS {
        let mut service = handlers(version, &bench.nats).await;
        let outcomes = ask(version, &bench.nats, all.clone()).await;
        assert_eq!(outcomes[0]["value"], json!(["a", "b", "c"]), "{version}");
        // Its handler sends three, and hears what a step publishes.
        let listed = bench.text("bay.app.test.pipes.lists.v1.run", "").await;
        assert_eq!(listed, r#"["a","b","c"]"#, "{version}");
        let heard = spawn_blocking(move || {
            service.until("told b");
            service.until("sold a 3");
        });
        heard.await.unwrap();
    }
    // What is durable is stored as it always is.
    let stored = bench
        .client
        .request("$JS.API.STREAM.INFO.bay_app_test_nest_news_v1", "".into());
    let stored: Value = serde_json::from_slice(&stored.await.unwrap().payload).unwrap();
    assert_eq!(stored["state"]["messages"], 2 * VERSIONS.len(), "{stored}");
    bench.end().await;
}

#[tokio::test]
async fn patterns_are_endpoints_of_their_service() {
    let bench = bench(&SERVICES).await;
    let info = bench.text("$SRV.INFO.guest", "").await;
    let info: Value = serde_json::from_str(&info).unwrap();
    let endpoints = info["endpoints"].as_array().unwrap();
    let mut own = endpoints.iter();
    let check = own.find(|one| one["name"] == "nest-api-check").unwrap();
    assert_eq!(
        (&check["subject"], &check["queue_group"]),
        (&json!("check"), &json!("checks"))
    );
    assert_eq!(check["metadata"]["nest"], "check");
    assert_eq!(check["metadata"]["function"], "check");
    bench.end().await;
}

#[tokio::test]
async fn a_queue_is_shared_while_either_side_is_replaced_and_no_call_fails() {
    let nats = Nats::start().await;
    let first = start(nats.url(), &SERVICES).await;
    let service = Nest::service(&nats, "checks");
    let mut load = Nest::start(&["load", nats.url(), "check", "3000"]);
    load.until("sent 200");
    // The component goes: the service of NestJS answers all.
    assert!(first.stop(DEADLINE).await.is_complete());
    load.until("sent 700");
    // It comes back, and the service of NestJS goes.
    let second = start_with(HostOptions::new(ConnectOptions::to(nats.url())), &SERVICES).await;
    load.until("sent 1200");
    service.end();
    load.until("sent 3000");
    load.until("failed 0");
    let handled = until_ok("it has handled its part", async || {
        let link = ConnectOptions::to(nats.url()).link().await.unwrap();
        let hosts = wasmbay::insight::figures(&link, "app").await.unwrap();
        let calls: u64 = hosts
            .iter()
            .map(|host| host.services["guest"].calls.totals().0)
            .sum();
        if calls > 1_500 { Ok(calls) } else { Err(calls) }
    });
    handled.await;
    assert!(second.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}

/// A program of the example, on this server.
fn example(script: &str, nats: &Nats, more: &[(&str, &str)]) -> Nest {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let login = nats.url().trim_start_matches("nats://");
    let (token, server) = login.split_once('@').unwrap();
    let mut process = Command::new(root.join(".tools/bin/nestjs"))
        .arg(root.join("examples/nestjs").join(script))
        .env("NATS_SERVER", server)
        .envs(match token.split_once(':') {
            Some((user, password)) => vec![("NATS_USER", user), ("NATS_PASSWORD", password)],
            None => vec![("NATS_TOKEN", token)],
        })
        .envs(more.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(process.stdout.take().unwrap());
    Nest { process, said }
}

#[tokio::test]
async fn the_example_replaces_a_service_and_gives_it_back() {
    let nats = Nats::start().await;
    let url = nats.url().to_owned();
    let manifest = manifest("nestjs");
    guest("guests/rust/inventory");
    let mut stock = example("stock.mjs", &nats, &[]);
    stock.until("the NestJS service answers");
    let mut front = example("front.mjs", &nats, &[("PORT", "0")]);
    let address = front.line().replace("the front listens on ", "");
    let on_hand = async |sku: &str| {
        let (address, path) = (address.clone(), format!("/stock/{sku}"));
        let sent = spawn_blocking(move || send(&address, "GET", &path, &[], ""));
        let response = sent.await.unwrap().unwrap();
        (response.status, response.body)
    };
    assert_eq!(on_hand("keyboard").await, (200, "40".to_owned()));
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest)]);
    let up = async || {
        let command = cli.command(&["up", "--nats", &url, "--no-gateway", "--no-watch"]);
        let up = Up::start(command);
        up.until("ready");
        up
    };
    let component = up().await;
    // Both answer for a while, and then the component alone.
    for _ in 0..20 {
        let (status, count) = on_hand("keyboard").await;
        assert!(
            status == 200 && ["40", "12"].contains(&&*count),
            "{status} {count}"
        );
    }
    let told = Command::new("kill")
        .arg(stock.process.id().to_string())
        .status();
    assert!(told.unwrap().success());
    assert!(stock.process.wait().unwrap().success());
    assert_eq!(on_hand("keyboard").await, (200, "12".to_owned()));
    let (status, body) = on_hand("nothing").await;
    assert!(
        status == 404 && body.contains("unknown-sku"),
        "{status} {body}"
    );
    let mut stock = example("stock.mjs", &nats, &[]);
    stock.until("the NestJS service answers");
    component.stop();
    assert_eq!(on_hand("keyboard").await, (200, "40".to_owned()));
    drop((stock, front));
    nats.stop().await;
}
