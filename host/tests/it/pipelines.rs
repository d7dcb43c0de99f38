//! Pipelines, on a real nats-server: their steps are programs with a plain NATS client.

pub(crate) mod balance;
mod context;
mod data;
pub(crate) mod fetched;
pub(crate) mod functions;
mod hosts;
mod killed;
mod kinds;
mod languages;
mod many;
mod operated;
mod reached;
mod restarted;
mod secrets;
mod waits;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, jetstream};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use wasmbay::nats::settled;
use wasmbay::pipelines::{Edited, Page, Phase, Runs};
use wasmbay::wire;

use crate::support::apps::{Bench, Services, bench};
use crate::support::nats::Nats;
use crate::support::{DEADLINE, until, until_ok};

/// `TYPES` with an event of this name and type in place of the checkout.
fn types_with(event: &str, of: &str) -> String {
    let event = format!(
        "\n  (import \"test:shop/events@1.0.0\" (instance\n    (export \"{event}\" {of})))\n  (core module"
    );
    let (imports, code) = TYPES.split_once("\n  (core module").unwrap();
    let (imports, _) = imports
        .split_once("\n  (import \"test:shop/checkout")
        .unwrap();
    format!("{imports}{event}{code}")
}

/// Imports what is called in these tests, so that its types are known, and the pipeline itself.
pub(crate) const TYPES: &str = r#"
(component
  (import "test:shop/stock@1.0.0" (instance
    (type $r' (record (field "id" string)))
    (export "reservation" (type $r (eq $r')))
    (export "reserve" (func (param "order" string) (param "count" u32) (result (result $r (error string)))))
    (export "release" (func (param "reservation" string) (result (result (error string)))))))
  (import "test:shop/bank@1.0.0" (instance
    (export "charge" (func (param "order" string) (param "cents" u64) (result (result string (error string)))))
    (export "refund" (func (param "order" string) (result (result (error string)))))))
  (import "test:shop/mail@1.0.0" (instance
    (export "tell" (func (param "to" string) (param "receipt" (option string)) (result (result (error u32)))))))
  (import "test:shop/checkout@1.0.0" (instance
    (type $c' (record (field "reservation-id" string) (field "receipt" string)))
    (export "confirmation" (type $c (eq $c')))
    (export "place" (func (param "order-id" string) (param "count" u32) (param "tell" bool)
      (result (result $c (error string)))))))
  (core module $code (func (export "nothing")))
  (core instance $core (instantiate $code))
  (func $nothing (canon lift (core func $core "nothing")))
  (instance $api (export "nothing" (func $nothing)))
  (export "test:types/api@1.0.0" (instance $api)))
"#;

pub(crate) const WIRES: &str = r#"
[wire."test:shop/stock"]
external = true
[wire."test:shop/bank"]
external = true
[wire."test:shop/mail"]
external = true
"#;

pub(crate) const CHECKOUT: &str = r#"
[pipeline.checkout]
implements = "test:shop/checkout.place"
deadline = "30s"

[[pipeline.checkout.step]]
name = "reserve"
call = "test:shop/stock.reserve"
with = { order = "$.orderId", count = "$.count" }
undo = { call = "test:shop/stock.release", with = { reservation = "$reserve.id" }, retry = { attempts = 2, backoff = ["20ms"] } }
retry = { attempts = 3, backoff = ["20ms"] }

[[pipeline.checkout.step]]
name = "charge"
call = "test:shop/bank.charge"
with = { order = "$.orderId", cents = 500 }
undo = { call = "test:shop/bank.refund", with = { order = "$.orderId" }, retry = { attempts = 2, backoff = ["20ms"] } }
retry = { attempts = 2, backoff = ["20ms"] }

[[pipeline.checkout.step]]
name = "tell"
call = "test:shop/mail.tell"
with = { to = "$$team", receipt = "$charge" }
when = "$.tell"
on-error = "continue"

[pipeline.checkout.result]
reservation-id = "$reserve.id"
receipt = "$charge"
"#;

pub(crate) const PLACE: &str = "bay.app.test.shop.checkout.v1.place";

/// What a service answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Ok(&'static str),
    /// As a host answers for a guest that trapped.
    Trap,
    /// Nothing.
    Silence,
}

/// A call that arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Called {
    pub(crate) function: String,
    pub(crate) step: String,
    pub(crate) body: Value,
}

/// Services of the shop that write down what they are called for.
#[derive(Clone)]
pub(crate) struct Shop(Arc<Mutex<Vec<Called>>>);

impl Shop {
    /// Answers all calls; `decide` gets the function and the number of its earlier calls, and `None` is the
    /// usual answer.
    pub(crate) async fn open(
        client: &Client,
        decide: impl Fn(&str, usize) -> Option<Answer> + Send + 'static,
    ) -> Self {
        let mut streams = Vec::new();
        for interface in ["stock", "bank", "mail"] {
            let subject = format!("bay.app.test.shop.{interface}.v1.*");
            streams.push(client.subscribe(subject).await.unwrap());
        }
        settled(client).await.unwrap();
        let shop = Self(Arc::default());
        let (client, calls) = (client.clone(), Arc::clone(&shop.0));
        tokio::spawn(async move {
            let mut messages = futures_util::stream::select_all(streams);
            while let Some(message) = messages.next().await {
                let called = called(&message);
                let before = {
                    let mut calls = calls.lock().unwrap();
                    let same = calls.iter().filter(|one| one.function == called.function);
                    let before = same.count();
                    calls.push(called.clone());
                    before
                };
                let answer = decide(&called.function, before);
                let answer = answer.unwrap_or_else(|| usual(&called.function));
                answer_with(&client, message, answer).await;
            }
        });
        shop
    }

    pub(crate) fn calls(&self) -> Vec<Called> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn functions(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.function).collect()
    }

    pub(crate) fn count(&self, function: &str) -> usize {
        self.functions()
            .iter()
            .filter(|one| *one == function)
            .count()
    }
}

pub(crate) fn called(message: &Message) -> Called {
    let headers = message.headers.as_ref().unwrap();
    Called {
        function: message.subject.rsplit('.').next().unwrap().to_owned(),
        step: headers.get(wire::STEP).unwrap().to_string(),
        body: serde_json::from_slice(&message.payload).unwrap(),
    }
}

pub(crate) fn usual(function: &str) -> Answer {
    Answer::Ok(match function {
        "reserve" => r#"{"ok":{"id":"r-1"}}"#,
        "charge" => r#"{"ok":"receipt-1"}"#,
        _ => r#"{"ok":null}"#,
    })
}

pub(crate) async fn answer_with(client: &Client, message: Message, answer: Answer) {
    let to = message.reply.unwrap();
    match answer {
        Answer::Ok(body) => client.publish(to, body.into()).await.unwrap(),
        Answer::Trap => {
            let mut headers = HeaderMap::new();
            headers.insert(wire::ERROR, "it trapped");
            headers.insert(wire::ERROR_CODE, "500");
            let published = client.publish_with_headers(to, headers, "".into());
            published.await.unwrap();
        }
        Answer::Silence => {}
    }
}

pub(crate) fn manifest(lines: &str) -> String {
    format!("{WIRES}{CHECKOUT}{lines}")
}

async fn open(decide: impl Fn(&str, usize) -> Option<Answer> + Send + 'static) -> (Bench, Shop) {
    let bench = bench(&Services(&[("types", TYPES, "")], &manifest(""))).await;
    let shop = Shop::open(&bench.client, decide).await;
    (bench, shop)
}

/// Calls the pipeline; returns the body, or code and message of the error.
pub(crate) async fn place(
    client: &Client,
    body: &str,
    headers: &[(&str, &str)],
) -> Result<Value, (u16, Value)> {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.insert(*name, *value);
    }
    let request = client.request_with_headers(PLACE, all, body.to_owned().into());
    let reply = tokio::time::timeout(2 * DEADLINE, request)
        .await
        .unwrap()
        .unwrap();
    let text: Value = serde_json::from_slice(&reply.payload).unwrap();
    match reply
        .headers
        .as_ref()
        .and_then(|headers| headers.get(wire::ERROR_CODE))
    {
        None => Ok(text),
        Some(code) => Err((code.as_str().parse().unwrap(), text["error"].clone())),
    }
}

pub(crate) const ORDER: &str = r#"{"order-id":"o-1","count":2,"tell":true}"#;

/// Says a figure to who runs the test.
pub(crate) fn tell(figure: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{figure}");
}

pub(crate) fn runs(client: &Client) -> Runs {
    Runs::new(jetstream::new(client.clone()), "app")
}

async fn all(client: &Client) -> Page {
    runs(client).list(true, None, None, 100).await.unwrap()
}

async fn no_open_runs(client: &Client) {
    until_ok("no run is open", async || {
        let page = runs(client).list(false, None, None, 100).await.unwrap();
        if page.runs.is_empty() {
            Ok(())
        } else {
            Err(page)
        }
    })
    .await;
}

#[tokio::test]
async fn steps_are_done_in_order_with_what_came_before() {
    let (bench, shop) = open(|_, _| None).await;
    let reply = place(&bench.client, ORDER, &[]).await.unwrap();
    assert_eq!(
        reply,
        json!({"ok": {"reservationId": "r-1", "receipt": "receipt-1"}})
    );
    let calls = shop.calls();
    let bodies: Vec<_> = calls
        .iter()
        .map(|call| (&*call.function, &call.body))
        .collect();
    assert_eq!(
        bodies,
        [
            ("reserve", &json!({"order": "o-1", "count": 2})),
            ("charge", &json!({"order": "o-1", "cents": 500})),
            ("tell", &json!({"to": "$team", "receipt": "receipt-1"})),
        ]
    );
    no_open_runs(&bench.client).await;
    let page = all(&bench.client).await;
    let [run] = &page.runs[..] else {
        panic!("{page:?}")
    };
    assert_eq!((&*run.pipeline, run.phase), ("checkout", Phase::Completed));
    assert_eq!(calls[1].step, format!("{}.charge", run.id));

    // Discovery has it as a function like any other.
    let answer = bench.text("$SRV.INFO.checkout", "").await;
    assert!(
        answer.contains(PLACE) && answer.contains("func(order-id: string"),
        "{answer}"
    );
    let stats = bench
        .stats_when("checkout", |stats| stats.num_requests == 1)
        .await;
    assert_eq!(stats.num_errors, 0);
    bench.end().await;
}

#[tokio::test]
async fn arguments_that_do_not_fit_begin_no_run() {
    let (bench, shop) = open(|_, _| None).await;
    let (code, error) = place(
        &bench.client,
        r#"{"order-id":"o-1","count":-1,"tell":true}"#,
        &[],
    )
    .await
    .unwrap_err();
    assert_eq!(code, 400);
    let why = "pipeline \"checkout\": arguments: $.count: expected u32 (0 to 4294967295), found -1";
    assert_eq!(error["message"], why);
    let large = format!(
        r#"{{"order-id":"{}","count":1,"tell":true}}"#,
        "x".repeat(300 << 10)
    );
    assert_eq!(place(&bench.client, &large, &[]).await.unwrap_err().0, 413);
    let key = [(wire::MESSAGE_ID, "")];
    assert_eq!(place(&bench.client, ORDER, &key).await.unwrap_err().0, 400);
    assert!(all(&bench.client).await.runs.is_empty());
    assert!(shop.calls().is_empty());
    bench.end().await;
}

#[tokio::test]
async fn a_step_is_skipped_when_its_condition_does_not_hold() {
    let (bench, shop) = open(|_, _| None).await;
    let order = r#"{"orderId":"o-1","count":2,"tell":false}"#;
    assert!(place(&bench.client, order, &[]).await.is_ok());
    assert_eq!(shop.functions(), ["reserve", "charge"]);
    bench.end().await;
}

#[tokio::test]
async fn an_err_value_undoes_what_was_done() {
    let (bench, shop) = open(|function, _| match function {
        "charge" => Some(Answer::Ok(r#"{"err":"card declined"}"#)),
        _ => None,
    })
    .await;
    let reply = place(&bench.client, ORDER, &[]).await.unwrap();
    assert_eq!(reply, json!({"err": "card declined"}));
    assert_eq!(shop.functions(), ["reserve", "charge", "release"]);
    let calls = shop.calls();
    assert_eq!(calls[2].body, json!({"reservation": "r-1"}));
    assert!(calls[2].step.ends_with(".reserve.undo"));
    no_open_runs(&bench.client).await;
    assert_eq!(all(&bench.client).await.runs[0].phase, Phase::RolledBack);
    bench.end().await;
}

#[tokio::test]
async fn an_err_value_can_be_gone_over() {
    let (bench, shop) = open(|function, _| match function {
        "tell" => Some(Answer::Ok(r#"{"err":7}"#)),
        _ => None,
    })
    .await;
    let reply = place(&bench.client, ORDER, &[]).await.unwrap();
    assert_eq!(reply["ok"]["receipt"], "receipt-1");
    assert_eq!(shop.functions(), ["reserve", "charge", "tell"]);
    bench.end().await;
}

#[tokio::test]
async fn what_may_have_been_done_is_undone_too_and_the_last_first() {
    let (bench, shop) = open(|function, _| match function {
        "charge" => Some(Answer::Trap),
        _ => None,
    })
    .await;
    let (code, error) = place(&bench.client, ORDER, &[]).await.unwrap_err();
    assert_eq!(code, 502);
    let message = error["message"].as_str().unwrap();
    assert_eq!(
        message,
        "pipeline \"checkout\": step \"charge\": it trapped (code 500); what was done is undone"
    );
    assert_eq!(
        shop.functions(),
        ["reserve", "charge", "charge", "refund", "release"]
    );
    let calls = shop.calls();
    assert_eq!(calls[1].step, calls[2].step);
    let run = error["run"].as_str().unwrap();
    assert_eq!(calls[1].step, format!("{run}.charge"));
    bench.end().await;
}

#[tokio::test]
async fn a_trap_that_passes_is_tried_again() {
    let (bench, shop) = open(|function, before| match (function, before) {
        ("reserve", 0 | 1) => Some(Answer::Trap),
        _ => None,
    })
    .await;
    assert!(place(&bench.client, ORDER, &[]).await.is_ok());
    assert_eq!(
        shop.functions(),
        ["reserve", "reserve", "reserve", "charge", "tell"]
    );
    bench.end().await;
}

#[tokio::test]
async fn what_never_arrived_is_not_undone() {
    // Nothing answers, so the first step is not even delivered.
    let bench = bench(&Services(&[("types", TYPES, "")], &manifest(""))).await;
    let (code, error) = place(&bench.client, ORDER, &[]).await.unwrap_err();
    assert_eq!(code, 502);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("no responders"), "{message}");
    assert!(message.ends_with("nothing had to be undone"), "{message}");
    bench.end().await;
}

#[tokio::test]
async fn a_key_makes_a_second_call_the_same_run() {
    let (bench, shop) = open(|_, _| None).await;
    let key = [(wire::MESSAGE_ID, "order 1")];
    let (one, two) = tokio::join!(
        place(&bench.client, ORDER, &key),
        place(&bench.client, ORDER, &key)
    );
    assert_eq!(one.unwrap(), two.unwrap());
    no_open_runs(&bench.client).await;
    let other = r#"{"orderId":"o-2","count":1,"tell":true}"#;
    assert!(place(&bench.client, other, &key).await.is_ok());
    assert_eq!(shop.functions(), ["reserve", "charge", "tell"]);
    assert!(
        place(&bench.client, ORDER, &[(wire::MESSAGE_ID, "order 2")])
            .await
            .is_ok()
    );
    assert_eq!(shop.count("charge"), 2);
    bench.end().await;
}

#[tokio::test]
async fn a_caller_that_does_not_wait_is_told_that_the_run_goes_on() {
    let (bench, shop) = open(|function, before| match (function, before) {
        ("charge", 0) => Some(Answer::Silence),
        _ => None,
    })
    .await;
    let headers = [(wire::DEADLINE, "500"), (wire::MESSAGE_ID, "k")];
    let (code, error) = place(&bench.client, ORDER, &headers).await.unwrap_err();
    assert_eq!(code, 202);
    let run = error["run"].as_str().unwrap();
    assert!(error["message"].as_str().unwrap().contains(run), "{error}");
    let shown = runs(&bench.client).show(run).await.unwrap();
    assert_eq!(
        (shown.run.phase, shown.run.step.as_deref()),
        (Phase::Running, Some("charge"))
    );
    assert_eq!(shop.functions(), ["reserve", "charge"]);
    // Nobody waits for it, and it is cancelled; its step is under way.
    runs(&bench.client).cancel(run).await.unwrap();
    bench.host.stop(Duration::from_millis(100)).await;
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_run_whose_journal_is_full_fails() {
    let lines = WIRES.to_owned() + &CHECKOUT.replace("deadline = \"30s\"", "journal = \"16KiB\"");
    let bench = bench(&Services(&[("types", TYPES, "")], &lines)).await;
    let large: &'static str = format!(r#"{{"ok":"{}"}}"#, "x".repeat(20 << 10)).leak();
    let shop = Shop::open(&bench.client, move |function, _| {
        (function == "charge").then_some(Answer::Ok(large))
    })
    .await;
    let (code, error) = place(&bench.client, ORDER, &[]).await.unwrap_err();
    let message = error["message"].as_str().unwrap();
    assert!(
        code == 413 && message.contains("journal would have more than 16384 bytes"),
        "{message}"
    );
    assert_eq!(shop.functions(), ["reserve", "charge", "refund", "release"]);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_go_on_when_a_host_stops() {
    let nats = Nats::start().await;
    let manifest = manifest("");
    let services = Services(&[("types", TYPES, "")], &manifest);
    let one = crate::support::apps::start(nats.url(), &services).await;
    let client = nats.connect().await;
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let shop = Shop::open(&nats.connect().await, move |function, before| {
        if function == "charge" && before == 0 {
            // The test lets it answer.
            tokio::task::block_in_place(|| held.lock().unwrap().recv().ok());
        }
        None
    })
    .await;
    let caller = tokio::spawn({
        let client = client.clone();
        async move { place(&client, ORDER, &[]).await }
    });
    until("the step is under way", || shop.count("charge") == 1).await;
    let two = crate::support::apps::start(nats.url(), &services).await;
    let stopping = tokio::spawn(async move { one.stop(DEADLINE).await });
    // The caller of the host that stops is told at once.
    let (code, error) = caller.await.unwrap().unwrap_err();
    assert_eq!(code, 202);
    release.send(()).unwrap();
    assert!(stopping.await.unwrap().is_complete());
    let run = error["run"].as_str().unwrap();
    until_ok("the other host has finished", async || {
        let shown = runs(&client).show(run).await.unwrap();
        if shown.run.phase == Phase::Completed {
            Ok(())
        } else {
            Err(shown.run)
        }
    })
    .await;
    assert_eq!(shop.functions(), ["reserve", "charge", "tell"]);
    assert!(two.stop(DEADLINE).await.is_complete());
    nats.stop().await;
}
