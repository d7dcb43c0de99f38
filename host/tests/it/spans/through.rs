//! Traces that go on outside of a host: outgoing HTTP, and native services that steps of a pipeline call; and what
//! is kept of them because it was slow.

use std::sync::{Arc, Mutex};

use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt as _;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use wasmbay::nats::{ConnectOptions, settled};

use super::{Collector, ask, attributes, hex, span, up_of};
use crate::examples::guest;
use crate::pipelines::fetched::{Server, echo};
use crate::pipelines::{Answer, CHECKOUT, ORDER, TYPES, WIRES, answer_with, called, usual};
use crate::support::cli::Cli;
use crate::support::components::{OTHER, SLEEPER};
use crate::support::http::request;

#[test]
fn outgoing_requests_are_spans_and_take_the_trace_along() {
    let (collector, server) = (Collector::start(), Server::start(echo));
    let manifest = format!(
        "name = \"traced\"\n[service.fetches]\ncomponent = \"fetches.wasm\"\n\
         grants = {{ http = [\"{}\"] }}\n\
         [[route]]\nmethod = \"POST\"\npath = \"/charge/{{address}}/{{order}}\"\n\
         call = \"bay:fetches/client.charge\"\n",
        server.address
    );
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest)]);
    cli.write("fetches.wasm", guest("guests/rust/fetches"));
    let (_cli, up, address) = up_of(cli, &collector, &[]);
    let path = format!("/charge/{}/o-1", server.address);
    let (status, trace) = ask(&address, "POST", &path, &[]);
    assert_eq!(status, 200);
    let spans = collector.trace(&trace, 4);
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let called = span(&spans, "traced/fetches", SpanKind::Server);
    let (host, port) = server.address.split_once(':').unwrap();
    for (seen, (method, path)) in server
        .seen()
        .iter()
        .zip([("POST", "/charge"), ("GET", "/receipt")])
    {
        let mut all = spans.iter().map(|(_, span)| span);
        let out = all.find(|span| span.name == method).unwrap();
        assert_eq!(out.kind, SpanKind::Client as i32);
        assert_eq!(out.parent_span_id, called.span_id);
        let told = attributes(&out.attributes);
        for (key, value) in [
            ("http.request.method", method),
            ("http.response.status_code", "201"),
            ("server.address", host),
            ("server.port", port),
            ("url.full", &format!("http://{}{path}", server.address)),
        ] {
            assert_eq!(told[key], value, "{told:?}");
        }
        // Who is asked goes on below it.
        let parent = format!("00-{trace}-{}-01", hex(&out.span_id));
        assert_eq!(
            (&*seen.path, &*seen.headers["traceparent"]),
            (path, &*parent)
        );
    }
    up.stop();
}

/// A call that a native service got.
#[derive(Clone, Debug)]
struct Got {
    function: String,
    step: String,
    parent: String,
}

/// The span that the native service says it has made.
const OWN: &str = "00000000000000a7";

/// The services of the shop. The first `charge` traps; the second one calls a component, within a span of its own.
async fn native(client: Client) -> Arc<Mutex<Vec<Got>>> {
    let mut calls = client
        .subscribe("bay.traced.test.shop.*.v1.*")
        .await
        .unwrap();
    settled(&client).await.unwrap();
    let got = Arc::<Mutex<Vec<Got>>>::default();
    let kept = Arc::clone(&got);
    tokio::spawn(async move {
        while let Some(message) = calls.next().await {
            // The pipeline itself is called on such a subject, too.
            if message.subject.contains("checkout") {
                continue;
            }
            let call = read(&message);
            let again = kept
                .lock()
                .unwrap()
                .iter()
                .any(|one| one.function == call.function);
            let answer = match (&*call.function, again) {
                ("charge", false) => Answer::Trap,
                ("charge", true) => {
                    let mut headers = HeaderMap::new();
                    let trace = &call.parent[..36];
                    headers.insert("traceparent", format!("{trace}{OWN}-01"));
                    let subject = "bay.traced.test.other.api.v1.ask";
                    let asked = client.request_with_headers(subject, headers, "[1]".into());
                    assert_eq!(&*asked.await.unwrap().payload, b"2");
                    usual("charge")
                }
                (function, _) => usual(function),
            };
            kept.lock().unwrap().push(call);
            answer_with(&client, message, answer).await;
        }
    });
    got
}

fn read(message: &Message) -> Got {
    let headers = message.headers.as_ref().unwrap();
    let called = called(message);
    Got {
        function: called.function,
        step: called.step,
        parent: headers.get("traceparent").unwrap().to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_of_a_step_is_a_span_that_a_native_service_goes_on_from() {
    let collector = Collector::start();
    let manifest = format!(
        "name = \"traced\"\n[service.types]\ncomponent = \"types.wat\"\n[service.other]\ncomponent = \"other.wat\"\n\
         {WIRES}{CHECKOUT}\n[[route]]\nmethod = \"POST\"\npath = \"/place\"\ncall = \"test:shop/checkout.place\"\n"
    );
    let files = [
        ("wasmbay.toml", &*manifest),
        ("types.wat", TYPES),
        ("other.wat", OTHER),
    ];
    let (cli, up, address) = up_of(Cli::new().with(&files), &collector, &[]);
    let announced = std::fs::read(cli.path(".wasmbay/host.json")).unwrap();
    let announced: serde_json::Value = serde_json::from_slice(&announced).unwrap();
    let nats = std::fs::read_to_string(announced["natsUrlFile"].as_str().unwrap()).unwrap();
    let got = native(ConnectOptions::to(&*nats).connect().await.unwrap()).await;
    let (answer, spans) = tokio::task::spawn_blocking(move || {
        let answer = request(&address, "/place", Some(ORDER)).unwrap();
        let parent = answer.head.split("traceparent: ").nth(1).unwrap();
        let trace = parent[3..35].to_owned();
        // The gateway's, four attempts, and what the native service has called.
        let spans = collector.trace(&trace, 6);
        assert!(spans.iter().all(|(_, span)| hex(&span.trace_id) == trace));
        (answer, spans)
    })
    .await
    .unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let got = got.lock().unwrap().clone();
    let order: Vec<_> = got.iter().map(|call| &*call.function).collect();
    assert_eq!(order, ["reserve", "charge", "charge", "tell"]);

    let of_pipeline = spans.iter().filter(|(of, _)| of == "traced/checkout");
    let attempts: Vec<&Span> = of_pipeline.map(|(_, span)| span).collect();
    let steps: Vec<_> = attempts
        .iter()
        .filter(|span| span.name.starts_with("step "))
        .collect();
    assert_eq!(steps.len(), 4, "{spans:#?}");
    let ids: Vec<_> = spans.iter().map(|(_, span)| &span.span_id).collect();
    for call in &got {
        // The message carries the span of the attempt that it is.
        let mut same = steps
            .iter()
            .filter(|span| hex(&span.span_id) == call.parent[36..52]);
        let step = same
            .next()
            .unwrap_or_else(|| panic!("{call:?}: {spans:#?}"));
        let told = attributes(&step.attributes);
        assert_eq!(told["wasmbay.step"], call.step);
        assert!(told["rpc.method"].ends_with(&format!(".{}@1.0.0", call.function)));
        assert_eq!(step.kind, SpanKind::Client as i32);
        assert!(ids.contains(&&step.parent_span_id), "{spans:#?}");
    }
    let [first, second] = [1, 2].map(|at: usize| &got[at]);
    assert_eq!(first.step, second.step);
    assert_ne!(first.parent, second.parent);
    let failed = steps
        .iter()
        .filter(|span| attributes(&span.attributes).contains_key("error.type"));
    let failed: Vec<_> = failed.map(|span| hex(&span.span_id)).collect();
    assert_eq!(failed, [first.parent[36..52].to_owned()]);
    let other = span(&spans, "traced/other", SpanKind::Server);
    assert_eq!(hex(&other.parent_span_id), OWN);
    up.stop();
}

#[test]
fn what_takes_a_second_is_recorded_although_nothing_is_sampled() {
    let collector = Collector::start();
    let manifest = "name = \"traced\"\n[service.sleeper]\ncomponent = \"sleeper.wat\"\n\
         [[route]]\nmethod = \"POST\"\npath = \"/sleep/{milliseconds}\"\ncall = \"test:sleeper/api.sleep\"\n";
    let cli = Cli::new().with(&[("wasmbay.toml", manifest), ("sleeper.wat", SLEEPER)]);
    let off = ("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    let (_cli, up, address) = up_of(cli, &collector, &[off]);
    let (_, fast) = ask(&address, "POST", "/sleep/1", &[]);
    let (status, slow) = ask(&address, "POST", "/sleep/1000", &[]);
    assert_eq!(status, 204);
    let spans = collector.trace(&slow, 2);
    assert_eq!(spans.len(), 2, "{spans:#?}");
    for of in ["traced/gateway", "traced/sleeper"] {
        let span = span(&spans, of, SpanKind::Server);
        assert!(span.end_time_unix_nano - span.start_time_unix_nano >= 1_000_000_000);
        assert!(!attributes(&span.attributes).contains_key("error.type"));
    }
    up.stop();
    let got = collector.spans();
    assert!(got.iter().all(|(_, span)| hex(&span.trace_id) != fast));
}
