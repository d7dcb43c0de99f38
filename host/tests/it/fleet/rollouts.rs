//! New versions that get a share of the calls first.

use std::time::Duration;

use async_nats::Client;
use serde_json::Value;

use super::gateway::address;
use super::{Fleet, Ran, kill};
use crate::events::{Attempt, Judge, OK, PUBLISH, Verdict, event, request, sink};
use crate::support::components::{CALLER, OTHER, PUBLISHES};
use crate::support::http;
use crate::support::{PATIENCE, until_ok_within};

/// Where `ask` of the service that is rolled out is called, and that of the service that calls it.
const ASK: &str = "bay.app.test.other.api.v1.ask";
const ASK_CALLER: &str = "bay.app.test.caller.api.v1.ask";
const GO: &str = "bay.app.test.flow.api.unversioned.go";

/// A service that is rolled out, in this way, and one that calls it.
fn app(rollout: &str) -> String {
    format!(
        r#"name = "app"
[service.other]
component = "other.wasm"
replicas = "all"
[service.other.rollout]
{rollout}
[service.caller]
component = "caller.wasm"
replicas = "all"
[[route]]
method = "GET"
path = "/ask/{{n}}"
call = "test:other/api.ask"
[pipeline.flow]
implements = "test:flow/api.go"
type = "func(n: u32) -> u32"
result = "$ask"
[[pipeline.flow.step]]
name = "ask"
call = "test:other/api.ask"
with = {{ n = "$.n" }}
"#
    )
}

/// A version whose `ask` has this body.
fn version(body: &str) -> Vec<u8> {
    let own = "(i32.add (local.get 0) (i32.const 1))))";
    assert!(OTHER.contains(own));
    wat::parse_str(OTHER.replace(own, &format!("{body}))"))).unwrap()
}

/// A version that adds so much.
fn adds(number: u32) -> Vec<u8> {
    version(&format!("(i32.add (local.get 0) (i32.const {number}))"))
}

/// What `ask` of 0 returned, or why it returned nothing.
async fn ask(client: &Client, subject: &str, number: u32) -> Result<u32, String> {
    let call = client.request(subject.to_owned(), format!("[{number}]").into());
    let reply = tokio::time::timeout(Duration::from_secs(5), call).await;
    let reply = reply.map_err(|_| "no answer")?;
    let reply = reply.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&reply.payload).into_owned();
    text.parse().map_err(|_| text)
}

/// Asserts that of so many about a fifth are of the new version: exactly that on each of two hosts, but for the
/// one that each is at.
#[track_caller]
fn assert_fifth(new: usize, all: usize, what: &str) {
    let fifth = all / 5;
    assert!(new.abs_diff(fifth) <= 3, "{what}: {new} of {all}");
}

impl Fleet {
    /// A fleet whose app is rolled out in this way, with these hosts, on which its first version runs.
    async fn rolled(rollout: &str, hosts: &[&str]) -> (Self, Vec<crate::support::cli::Up>) {
        let fleet = Self::start(&app(rollout)).await;
        fleet.cli.write("other.wasm", adds(1));
        fleet
            .cli
            .write("caller.wasm", wat::parse_str(CALLER).unwrap());
        let hosts = hosts.iter();
        let hosts = hosts
            .map(|name| fleet.host(name, &["--gateway", "127.0.0.1:0"]))
            .collect();
        fleet.run(&["deploy"]).await.done();
        (fleet, hosts)
    }

    /// What `ps` says of the app, once that is as wanted.
    async fn ps_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until_ok_within(PATIENCE, what, async || {
            let ps = self.ps().await;
            if wanted(&ps) { Ok(ps) } else { Err(ps) }
        })
        .await
    }

    /// Waits until a revision has its share on so many hosts.
    async fn until_shared(&self, hosts: usize) -> Value {
        self.ps_until("the new version has its share", |ps| {
            let figures = &ps["rollout"]["services"]["other"]["figures"];
            // There are none where `ps` could not ask.
            let replicas = ps["replicas"].as_array().cloned().unwrap_or_default();
            let serving = replicas.iter().filter(|one| one["state"] == "serving");
            figures.is_object() && figures["missing"].is_null() && serving.count() == 2 * hosts
        })
        .await
    }

    async fn history(&self) -> Vec<Value> {
        let ran = self.run(&["history", "app", "--output", "json"]).await;
        ran.done().json()["revisions"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn a_good_version_has_its_share_of_every_kind_of_call_and_goes_on() {
    let (fleet, hosts) =
        Fleet::rolled("canary = \"20%\"\nfor = \"12s\"\ncalls = 20", &["a", "b"]).await;
    let client = fleet.connect().await;
    fleet.cli.write("other.wasm", adds(1_000));
    fleet.run(&["deploy", "--detach"]).await.done();
    fleet.until_shared(2).await;
    for (subject, calls) in [(ASK, 200), (ASK_CALLER, 100), (GO, 50)] {
        let mut new = 0;
        for _ in 0..calls {
            let answer = ask(&client, subject, 0).await.unwrap();
            assert!([1, 1_000].contains(&answer), "{answer}");
            new += usize::from(answer == 1_000);
        }
        assert_fifth(new, calls, subject);
    }
    let at = address(&hosts[0]);
    let mut new = 0;
    for _ in 0..100 {
        let answer = http::request(&at, "/ask/0", None).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        new += usize::from(answer.body == "1000");
    }
    assert_fifth(new, 100, "gateway");
    let ps = fleet.run(&["ps"]).await.done();
    assert!(
        ps.stdout
            .contains("app/other: revision 2 gets 20% of the calls, for "),
        "{ps:?}"
    );
    let ps = fleet
        .ps_until("it goes on", |ps| ps["outcome"]["went-on"] == true)
        .await;
    let why = ps["outcome"]["why"].as_str().unwrap();
    assert!(why.starts_with("other: errors 0.0% of "), "{why}");
    assert!(ps["rollout"].is_null(), "{ps}");
    until_ok_within(PATIENCE, "all calls are the new version's", async || {
        for _ in 0..20 {
            let answer = ask(&client, ASK, 0).await.unwrap();
            if answer != 1_000 {
                return Err(answer);
            }
        }
        Ok(())
    })
    .await;
    let history = fleet.run(&["history", "app"]).await.done();
    assert!(
        history.stdout.contains("revision 2 went on: other: errors"),
        "{history:?}"
    );
    drop(hosts);
    fleet.stop().await;
}

#[tokio::test]
async fn a_version_with_errors_goes_back_and_fails_no_call_beyond_its_share() {
    let (fleet, hosts) =
        Fleet::rolled("canary = \"20%\"\nfor = \"60s\"\ncalls = 20", &["a", "b"]).await;
    let client = fleet.connect().await;
    // Every other of its calls fails.
    let bad =
        version("(if (i32.and (local.get 0) (i32.const 1)) (then unreachable)) (i32.const 1000)");
    fleet.cli.write("other.wasm", bad);
    let (end, mut ended) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::spawn(async move {
        let (mut calls, mut failed) = (0, Vec::new());
        while ended.try_recv().is_err() {
            calls += 1;
            failed.extend(ask(&client, ASK, calls).await.err());
        }
        (calls, failed)
    });
    let deployed = fleet.run(&["deploy"]).await.failed();
    end.send(()).unwrap();
    let (calls, failed) = load.await.unwrap();
    let told = "app revision 2 was rolled back: other: errors ";
    assert!(
        deployed.stderr.contains(told) && deployed.stderr.contains(" calls, at most 1%"),
        "{deployed:?}"
    );
    let failures = u32::try_from(failed.len()).unwrap();
    assert!(
        failures >= 1 && failures <= calls / 5 + 4,
        "{failures} of {calls}"
    );
    assert!(
        failed.iter().all(|error| error.contains("\"code\":500")),
        "{failed:?}"
    );
    // Nothing of it is left.
    let client = fleet.connect().await;
    until_ok_within(PATIENCE, "all calls are the old version's", async || {
        for number in 0..40 {
            let answer = ask(&client, ASK, number).await;
            if answer != Ok(number + 1) {
                return Err(answer);
            }
        }
        Ok(())
    })
    .await;
    let ps = fleet.run(&["ps"]).await.done();
    assert!(
        ps.stdout
            .contains("app: revision 2 was rolled back: other: "),
        "{ps:?}"
    );
    let history = fleet.history().await;
    assert_eq!(history[1]["outcome"]["went-on"], false);
    let change = history[1]["changes"][0].as_str().unwrap();
    assert!(change.starts_with("swap other "), "{change}");
    // What was rolled back can be tried again, and a fixed one goes on from the old one.
    fleet.cli.write("other.wasm", adds(1_000));
    let manifest = app("canary = \"20%\"\nfor = \"1s\"\ncalls = 20");
    fleet.cli.write("wasmbay.toml", manifest);
    let fixed = fleet.run(&["deploy"]).await.done();
    let went_on = "app revision 3 went on: other: nobody called it";
    assert!(
        fixed.stdout.contains(went_on) && fixed.stdout.contains("app revision 3 serves: "),
        "{fixed:?}"
    );
    assert_eq!(fleet.history().await.len(), 3);
    drop(hosts);
    fleet.stop().await;
}

#[tokio::test]
async fn a_version_that_is_much_slower_goes_back() {
    let rollout = "canary = \"50%\"\nfor = \"5m\"\nrollback-on = { p99 = \"2x\" }";
    let (fleet, hosts) = Fleet::rolled(rollout, &["a"]).await;
    let client = fleet.connect().await;
    // Tens of milliseconds.
    let slow = version(
        "(local $i i32)
         (loop $more
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $more (i32.lt_u (local.get $i) (i32.const 40000000))))
         (i32.const 1000)",
    );
    fleet.cli.write("other.wasm", slow);
    let (end, mut ended) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::spawn(async move {
        let mut calls = 0;
        while ended.try_recv().is_err() {
            ask(&client, ASK, 0).await.unwrap();
            calls += 1;
        }
        calls
    });
    let refused = fleet.run(&["deploy"]).await.failed();
    end.send(()).unwrap();
    assert!(load.await.unwrap() > 0);
    let told = "app revision 2 was rolled back: other: p99 ";
    assert!(
        refused.stderr.contains(told) && refused.stderr.contains("at most 2x the "),
        "{refused:?}"
    );
    drop(hosts);
    fleet.stop().await;
}

#[tokio::test]
async fn another_host_decides_when_the_one_that_did_is_killed() {
    let (fleet, hosts) = Fleet::rolled(
        "canary = \"20%\"\nfor = \"10s\"\ncalls = 20",
        &["a", "b", "c"],
    )
    .await;
    fleet.cli.write("other.wasm", adds(1_000));
    fleet.run(&["deploy", "--detach"]).await.done();
    let ps = fleet
        .ps_until("time has passed", |ps| {
            ps["rollout"]["seconds"].as_f64().is_some_and(|s| s >= 2.0)
        })
        .await;
    let holder = ps["rollout"]["host"].as_str().unwrap().to_owned();
    let at = ["a", "b", "c"].iter().position(|name| *name == holder);
    kill(&hosts[at.unwrap()]);
    // One that joins gets both versions.
    let joins = fleet.host("d", &[]);
    let ps = fleet
        .ps_until("another host decides", |ps| {
            let host = &ps["rollout"]["host"];
            host.is_string() && *host != *holder
        })
        .await;
    // It goes on where the other one was.
    assert!(ps["rollout"]["seconds"].as_f64().unwrap() >= 2.0, "{ps}");
    let ps = fleet
        .ps_until("it goes on", |ps| ps["outcome"]["went-on"] == true)
        .await;
    assert_ne!(ps["outcome"]["host"], *holder);
    let hosts_of = fleet.hosts_of("other", |hosts| hosts.len() == 3).await;
    assert!(hosts_of.contains(&"d".to_owned()), "{hosts_of:?}");
    let client = fleet.connect().await;
    until_ok_within(PATIENCE, "all calls are the new version's", async || {
        for _ in 0..20 {
            let answer = ask(&client, ASK, 0).await;
            if answer != Ok(1_000) {
                return Err(answer);
            }
        }
        Ok(())
    })
    .await;
    drop((hosts, joins));
    fleet.stop().await;
}

#[tokio::test]
async fn a_second_deploy_takes_the_place_of_a_rollout() {
    let (fleet, hosts) = Fleet::rolled("canary = \"50%\"\nfor = \"10m\"\ncalls = 20", &["a"]).await;
    let client = fleet.connect().await;
    fleet.cli.write("other.wasm", adds(2_000));
    fleet.run(&["deploy", "--detach"]).await.done();
    fleet.until_shared(1).await;
    fleet.cli.write("other.wasm", adds(3_000));
    fleet.run(&["deploy", "--detach"]).await.done();
    fleet
        .ps_until("the third has its share", |ps| {
            let figures = &ps["rollout"]["services"]["other"]["figures"];
            ps["revision"] == 3 && figures.is_object() && figures["missing"].is_null()
        })
        .await;
    // The first version goes on beside it; nothing of the second is left.
    let mut third = 0;
    for _ in 0..40 {
        let answer = ask(&client, ASK, 0).await.unwrap();
        assert!([1, 3_000].contains(&answer), "{answer}");
        third += usize::from(answer == 3_000);
    }
    assert!((19..=21).contains(&third), "{third}");
    // A rollback is no deploy: what it says runs at once, and ends the rollout.
    let back: Ran = fleet.run(&["rollback", "app", "--to", "1"]).await.done();
    assert!(back.stdout.contains("app revision 4 serves: "), "{back:?}");
    for _ in 0..20 {
        assert_eq!(ask(&client, ASK, 0).await, Ok(1));
    }
    // Who does not want to wait does not have to.
    fleet.run(&["deploy", "--detach"]).await.done();
    fleet.until_shared(1).await;
    fleet.run(&["deploy", "--at-once"]).await.done();
    for _ in 0..20 {
        assert_eq!(ask(&client, ASK, 0).await, Ok(3_000));
    }
    let ps = fleet.ps().await;
    assert!(ps["rollout"].is_null() && ps["outcome"].is_null(), "{ps}");
    drop(hosts);
    fleet.stop().await;
}

#[tokio::test]
async fn a_second_deploy_of_the_same_version_begins_with_no_figures() {
    let rollout = "canary = \"50%\"\nfor = \"10m\"\ncalls = 20";
    let (fleet, hosts) = Fleet::rolled(rollout, &["a"]).await;
    let client = fleet.connect().await;
    fleet.cli.write("other.wasm", adds(2_000));
    let foretold =
        "other: its new version would get 50% of the calls for 10m, and then all or none";
    for verb in [&["diff"][..], &["deploy", "--dry-run"]] {
        let said = fleet.run(verb).await;
        assert!(said.stdout.contains(foretold), "{said:?}");
    }
    let said = fleet
        .run(&["deploy", "--dry-run", "--at-once"])
        .await
        .done();
    assert!(!said.stdout.contains("its new version"), "{said:?}");
    fleet.run(&["deploy", "--detach"]).await.done();
    fleet.until_shared(1).await;
    for _ in 0..30 {
        ask(&client, ASK, 0).await.unwrap();
    }
    let counted = |ps: &Value| {
        let figures = &ps["rollout"]["services"]["other"]["figures"];
        let calls = ["calls", "old_calls"].map(|key| figures[key].as_u64());
        let [new, old] = calls;
        Some(new? + old?)
    };
    let all = |ps: &Value| counted(ps) == Some(30);
    fleet.ps_until("all are counted", all).await;
    fleet
        .cli
        .write("wasmbay.toml", app(&rollout.replace("20", "21")));
    fleet.run(&["deploy", "--detach"]).await.done();
    let begins = |ps: &Value| ps["revision"] == 3 && counted(ps).is_some();
    let ps = fleet.ps_until("the third has its share", begins).await;
    assert_eq!(counted(&ps), Some(0), "{ps}");
    for _ in 0..10 {
        ask(&client, ASK, 0).await.unwrap();
    }
    let ten = |ps: &Value| counted(ps) == Some(10);
    fleet.ps_until("those since then are counted", ten).await;
    drop(hosts);
    fleet.stop().await;
}

#[tokio::test]
async fn a_store_of_an_earlier_version_is_told_as_one() {
    let fleet = Fleet::start(&app("canary = \"50%\"")).await;
    let host = fleet.host("a", &[]);
    host.stop();
    let client = fleet.connect().await;
    let context = async_nats::jetstream::new(client);
    context
        .delete_key_value("bay-fleet-rollouts")
        .await
        .unwrap();
    let ps = fleet.run(&["ps"]).await.failed();
    let why = "its store has no bucket `bay-fleet-rollouts`; start a host of version";
    assert!(ps.stderr.contains(why), "{ps:?}");
    fleet.stop().await;
}

#[tokio::test]
async fn a_version_that_does_not_start_never_serves() {
    let (fleet, hosts) =
        Fleet::rolled("canary = \"50%\"\nfor = \"10s\"\ncalls = 20", &["a", "b"]).await;
    let client = fleet.connect().await;
    let crashes = OTHER.replacen(
        "(core module $code",
        "(core module $code (func $start unreachable) (start $start)",
        1,
    );
    fleet
        .cli
        .write("other.wasm", wat::parse_str(crashes).unwrap());
    let (end, mut ended) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::spawn(async move {
        let mut calls = 0;
        while ended.try_recv().is_err() {
            assert_eq!(ask(&client, ASK, calls).await, Ok(calls + 1));
            calls += 1;
        }
        calls
    });
    let refused = fleet.run(&["deploy"]).await.failed();
    assert!(
        refused
            .stderr
            .contains("app revision 2 was rolled back: other does not start on "),
        "{refused:?}"
    );
    // Nor on a host that comes later.
    let joins = fleet.host("c", &[]);
    fleet.hosts_of("other", |hosts| hosts.len() == 3).await;
    end.send(()).unwrap();
    assert!(load.await.unwrap() > 0);
    assert!(
        !joins.stderr().contains("does not start"),
        "{}",
        joins.stderr()
    );
    drop((hosts, joins));
    fleet.stop().await;
}

const HTTP: &str = r#"
name = "app"
[service.echo]
component = "echo.wasm"
[service.echo.rollout]
canary = "20%"
for = "10m"
[[route]]
path = "/http/*"
service = "echo"
"#;

#[tokio::test]
async fn a_new_version_gets_its_share_of_the_requests_that_a_service_answers_itself() {
    let fleet = Fleet::start(HTTP).await;
    let component = crate::gateway::components::http_echo().await;
    let mut bytes = std::fs::read(component).unwrap();
    fleet.cli.write("echo.wasm", &bytes);
    let host = fleet.host("a", &["--gateway", "127.0.0.1:0"]);
    fleet.run(&["deploy"]).await.done();
    // The same code with other bytes: a custom section called `v`.
    bytes.extend([0, 2, 1, b'v']);
    fleet.cli.write("echo.wasm", &bytes);
    fleet.run(&["deploy", "--detach"]).await.done();
    let figures = |ps: &Value| ps["rollout"]["services"]["echo"]["figures"].clone();
    fleet
        .ps_until("the new version has its share", |ps| {
            figures(ps).is_object() && figures(ps)["missing"].is_null()
        })
        .await;
    let at = address(&host);
    for _ in 0..100 {
        let answer = http::send(&at, "POST", "/http/x", &[], "hello").unwrap();
        assert_eq!(answer.body, "hello");
    }
    let ps = fleet
        .ps_until("all are counted", |ps| {
            let figures = figures(ps);
            let counted = |key: &str| figures[key].as_u64().unwrap_or_default();
            counted("calls") + counted("old_calls") == 100
        })
        .await;
    let new = figures(&ps)["calls"].as_u64().unwrap();
    assert!((19..=21).contains(&new), "{ps}");
    // An answer that says that the service failed is an error of it.
    for status in [200, 404, 503, 500] {
        for _ in 0..5 {
            let path = format!("/http/status?{status}");
            assert_eq!(
                http::send(&at, "GET", &path, &[], "").unwrap().status,
                status
            );
        }
    }
    fleet
        .ps_until("all are counted", |ps| {
            let figures = figures(ps);
            let counted = |key: &str| figures[key].as_u64().unwrap_or_default();
            counted("calls") + counted("old_calls") == 120
                && counted("errors") + counted("old_errors") == 10
        })
        .await;
    host.stop();
    fleet.stop().await;
}

const EVENTS: &str = r#"
name = "app"
[service.publisher]
component = "publisher.wasm"
[service.sink]
component = "sink.wasm"
[service.sink.rollout]
canary = "25%"
for = "10m"
[wire."test:events/sink"]
mode = "event"
durable = true
[wire."test:judge/verdict"]
external = true
"#;

#[tokio::test]
async fn a_new_version_gets_its_share_of_stored_events() {
    let fleet = Fleet::start(EVENTS).await;
    fleet
        .cli
        .write("publisher.wasm", wat::parse_str(PUBLISHES).unwrap());
    let write = |name: &str| {
        fleet
            .cli
            .write("sink.wasm", wat::parse_str(sink(name)).unwrap());
    };
    write("old");
    let client = fleet.connect().await;
    let judge = Judge::new(&client, |_, _, _| Verdict::Ok).await;
    let host = fleet.host("a", &[]);
    fleet.run(&["deploy"]).await.done();
    write("new");
    fleet.run(&["deploy", "--detach"]).await.done();
    fleet
        .ps_until("the new version has its share", |ps| {
            let figures = &ps["rollout"]["services"]["sink"]["figures"];
            figures.is_object() && figures["missing"].is_null()
        })
        .await;
    for n in 0..80 {
        let reply = request(&client, PUBLISH, event(n, n)).await;
        assert_eq!(reply.payload, OK, "event {n}");
    }
    until_ok_within(PATIENCE, "every event is handled", async || {
        let handled = judge.attempts().len();
        if handled >= 80 { Ok(()) } else { Err(handled) }
    })
    .await;
    let is_new = |attempt: &&Attempt| attempt.service == "new";
    let new = judge.attempts().iter().filter(is_new).count();
    assert!((19..=21).contains(&new), "{new}");
    host.stop();
    fleet.stop().await;
}
