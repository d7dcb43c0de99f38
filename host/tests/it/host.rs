//! A host on a real nats-server: what callers see while services come, change and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt;
use tokio::sync::Notify;
use wasmbay::host::{self, CLOSE_TIMEOUT, Host, HostError, HostOptions};
use wasmbay::micro::{Answer, Verb};
use wasmbay::nats::ConnectOptions;
use wasmbay::runtime::{Engine, EngineOptions};
use wasmbay::wire;

use crate::support::apps::{Bench, Services, apply, bench, start};
use crate::support::components::{CALLER, GUEST, OTHER, PASSES_ON};
use crate::support::nats::Nats;
use crate::support::{DEADLINE, assert_no_message, until, until_ok};

const ECHO: &str = "bay.app.test.guest.api.v1.echo";

/// The code of a reply that is an error.
pub(crate) fn code(message: &Message) -> Option<&str> {
    message
        .headers
        .as_ref()?
        .get(wire::ERROR_CODE)
        .map(|code| code.as_str())
}

const ONE: Services<'_> = Services(&[("guest", GUEST, "")], "");

#[tokio::test]
async fn any_nats_client_can_call_a_service() {
    let bench = bench(&ONE).await;
    assert_eq!(bench.text(ECHO, r#"{"text":"hi"}"#).await, r#""hi""#);

    let reply = bench.request(ECHO, r#"{"text":1}"#).await;
    assert_eq!(code(&reply), Some("400"));
    let body: wire::ErrorBody = serde_json::from_slice(&reply.payload).unwrap();
    assert!(
        body.error.message.contains("$.text"),
        "{}",
        body.error.message
    );

    assert_eq!(
        code(&bench.request("bay.app.test.guest.api.v1.trap", "").await),
        Some("500")
    );

    let mut headers = HeaderMap::new();
    headers.insert(wire::DEADLINE, "20");
    let spin = "bay.app.test.guest.api.v1.spin";
    let reply = bench
        .client
        .request_with_headers(spin, headers, "".into())
        .await
        .unwrap();
    assert_eq!(code(&reply), Some("504"));
    bench.end().await;
}

#[tokio::test]
async fn services_are_discovered_as_nats_micro_services() {
    let bench = bench(&ONE).await;
    for _ in 0..3 {
        bench.request(ECHO, r#"["x"]"#).await;
    }
    bench.request(ECHO, "7").await;
    let ask = async |subject: String| {
        serde_json::from_str::<Answer>(&bench.text(&subject, "").await).unwrap()
    };
    let ping = ask(Verb::Ping.subject()).await;
    assert_eq!(
        (ping.name.as_str(), ping.kind.as_str()),
        ("guest", "io.nats.micro.v1.ping_response")
    );
    let info = ask(format!("{}.guest", Verb::Info.subject())).await;
    let endpoints = info.endpoints.unwrap();
    let echo = endpoints.iter().find(|e| e.subject == ECHO).unwrap();
    assert_eq!(echo.metadata["signature"], "func(text: string) -> string");
    assert_eq!(echo.metadata["interface"], "test:guest/api@1.0.0");
    assert_eq!(info.metadata["digest"].len(), 64);
    let stats = ask(format!("{}.guest.{}", Verb::Stats.subject(), ping.id)).await;
    let endpoints = stats.endpoints.unwrap();
    let echo = endpoints
        .iter()
        .find(|e| e.subject == ECHO)
        .unwrap()
        .stats
        .as_ref()
        .unwrap();
    assert_eq!((echo.num_requests, echo.num_errors), (4, 1));
    assert!(echo.processing_time > 0);
    assert!(echo.last_error.starts_with("400:"), "{}", echo.last_error);
    bench.end().await;
}

#[tokio::test]
async fn one_service_calls_another() {
    let bench = bench(&Services(
        &[("caller", CALLER, ""), ("other", OTHER, "")],
        "",
    ))
    .await;
    let ask = "bay.app.test.caller.api.v1.ask";
    assert_eq!(bench.text(ask, r#"{"n":41}"#).await, "42");
    let attempt = "bay.app.test.caller.api.v1.try";
    assert_eq!(bench.text(attempt, r#"{"n":0}"#).await, r#"{"err":"zero"}"#);
    bench.end().await;
}

const EXTERNAL: &str = "[wire.\"test:other/api\"]\nexternal = true\n";
const CALLER_ALONE: Services<'_> = Services(&[("caller", CALLER, "")], EXTERNAL);

#[tokio::test]
async fn a_native_service_can_answer_an_import_and_may_come_late() {
    let bench = bench(&CALLER_ALONE).await;
    let native = bench.nats.connect().await;
    let answering = tokio::spawn(async move {
        // Within the second for which a call without responders is sent again.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut requests = native
            .subscribe("bay.app.test.other.api.v1.ask")
            .await
            .unwrap();
        let request = requests.next().await.unwrap();
        let headers = request.headers.unwrap();
        assert_eq!(headers.get(wire::CALLER).unwrap().as_str(), "caller");
        assert_eq!(headers.get(wire::HOPS).unwrap().as_str(), "1");
        assert!(
            headers
                .get(wire::DEADLINE)
                .unwrap()
                .as_str()
                .parse::<u64>()
                .unwrap()
                < 5_000
        );
        assert_eq!(
            headers.get(wire::TRACEPARENT).unwrap().as_str(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        );
        native
            .publish(request.reply.unwrap(), request.payload.slice(5..6))
            .await
            .unwrap();
        native.flush().await.unwrap();
    });
    let mut headers = HeaderMap::new();
    headers.insert(
        wire::TRACEPARENT,
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    let subject = "bay.app.test.caller.api.v1.ask";
    let reply = bench
        .client
        .request_with_headers(subject, headers, r#"{"n":7}"#.into());
    assert_eq!(&reply.await.unwrap().payload[..], b"7");
    answering.await.unwrap();
    bench.end().await;
}

#[tokio::test]
async fn an_import_without_responders_fails_with_its_cause() {
    let services = Services(
        &[("caller", CALLER, "limits = { timeout = \"300ms\" }")],
        EXTERNAL,
    );
    let bench = bench(&services).await;
    let reply = bench
        .request("bay.app.test.caller.api.v1.ask", r#"{"n":7}"#)
        .await;
    let body: wire::ErrorBody = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(body.error.code, 502, "{}", body.error.message);
    assert!(
        body.error
            .message
            .contains("no responders on bay.app.test.other"),
        "{}",
        body.error.message
    );
    bench.end().await;
}

#[tokio::test]
async fn calls_in_a_circle_end_after_so_many_hops() {
    let table = |next: &str| {
        format!("limits = {{ hops = 5 }}\nwire = {{ \"test:other/api\" = \"{next}\" }}")
    };
    let bench = bench(&Services(
        &[
            ("one", PASSES_ON, &table("two")),
            ("two", PASSES_ON, &table("one")),
        ],
        "[wire.\"test:other/api\"]\nservice = \"one\"\n",
    ))
    .await;
    let reply = bench
        .request("bay.app.test.other.api.v1.ask", r#"{"n":1}"#)
        .await;
    let body: wire::ErrorBody = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(body.error.code, 508);
    assert_eq!(
        body.error.message,
        "service \"one\": test:other/api.ask@1.0.0: the call passed through 6 services, 5 are allowed; \
         do two of them call each other?"
    );
    bench.end().await;
}

/// Calls without a pause from several tasks until it is stopped, and counts the outcomes.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    /// `fine` says which error codes (or `none` for no responders) are no failure.
    fn start(client: &Client, fine: &'static [&'static str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let tasks = (0..16).map(|task| {
            let (client, stop, answered) = (client.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                let mut failures = Vec::new();
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    let text = format!("\"{task}.{number}\"");
                    let body = format!("[{text}]");
                    match client.request(ECHO, body.into()).await {
                        Ok(reply) if reply.payload == text.as_bytes() => {}
                        Ok(reply) if code(&reply).is_some_and(|code| fine.contains(&code)) => {}
                        Ok(reply) => failures.push(format!("{reply:?}")),
                        Err(error)
                            if error.kind()
                                == async_nats::client::RequestErrorKind::NoResponders
                                && fine.contains(&"none") => {}
                        Err(error) => failures.push(error.to_string()),
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        });
        Self {
            tasks: tasks.collect(),
            stop,
            answered,
        }
    }

    async fn more(&self, calls: u64) {
        let goal = self.answered.load(Ordering::Relaxed) + calls;
        until("calls are answered", || {
            self.answered.load(Ordering::Relaxed) >= goal
        })
        .await;
    }

    async fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for task in self.tasks {
            failures.extend(tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap());
        }
        failures
    }
}

#[tokio::test]
async fn a_service_is_replaced_under_load_without_a_lost_call() {
    let bench = bench(&ONE).await;
    let load = Load::start(&bench.client, &[]);
    let other_bytes = GUEST.replace("(i32.const 120)", "(i32.const 121)");
    for round in 0..10 {
        load.more(200).await;
        let text = if round % 2 == 0 { &*other_bytes } else { GUEST };
        apply(&bench.host, &Services(&[("guest", text, "")], ""))
            .await
            .unwrap();
    }
    load.more(200).await;
    assert_eq!(load.failures().await, Vec::<String>::new());
    bench.end().await;
}

#[tokio::test]
async fn a_host_stops_under_load_with_every_call_answered() {
    let Bench { nats, host, client } = bench(&ONE).await;
    let load = Load::start(&client, &["none"]);
    load.more(500).await;
    assert!(host.stop(DEADLINE).await.is_complete());
    load.more(100).await;
    assert_eq!(load.failures().await, Vec::<String>::new());
    nats.stop().await;
}

#[tokio::test]
async fn calls_that_outlast_the_grace_time_are_answered_with_an_error() {
    let one_call = "limits = { concurrency = 1, queue = 0 }";
    let Bench { nats, host, client } = bench(&Services(&[("guest", GUEST, one_call)], "")).await;
    let spin = async {
        loop {
            let spin = client.request("bay.app.test.guest.api.v1.spin", "".into());
            let reply = spin.await.unwrap();
            // A call by which the other side looks may have come first.
            if code(&reply) != Some("429") {
                return reply;
            }
        }
    };
    let stop = async {
        until_ok("the call is under way", async || {
            let count = client.request("bay.app.test.guest.api.v1.count", "".into());
            let reply = count.await.unwrap();
            if code(&reply) == Some("429") {
                Ok(())
            } else {
                Err(reply)
            }
        })
        .await;
        host.stop(Duration::from_millis(200)).await
    };
    let (reply, drained) = tokio::join!(spin, stop);
    let drained = (drained.given_up, drained.confirmed);
    assert_eq!((code(&reply), drained), (Some("503"), (1, true)));
    nats.stop().await;
}

#[tokio::test]
async fn a_call_finds_those_it_needs_while_the_host_stops() {
    let services = Services(&[("caller", CALLER, ""), ("other", OTHER, "")], "");
    let Bench { nats, host, client } = bench(&services).await;
    let first = Notify::new();
    let calls = (0..200).map(async |n| {
        let call = client.request("bay.app.test.caller.api.v1.ask", format!("[{n}]").into());
        let reply = call.await;
        first.notify_one();
        reply
    });
    let calls = futures_util::future::join_all(calls);
    let (replies, drained) = tokio::join!(calls, async {
        first.notified().await;
        host.stop(DEADLINE).await
    });
    assert!(drained.is_complete());
    for (n, reply) in replies.into_iter().enumerate() {
        match reply {
            Ok(reply) => assert_eq!(&reply.payload[..], (n + 1).to_string().as_bytes()),
            Err(error) => assert_eq!(
                error.kind(),
                async_nats::client::RequestErrorKind::NoResponders
            ),
        }
    }
    nats.stop().await;
}

#[tokio::test]
async fn a_host_stops_in_time_and_says_so_though_nats_is_gone() {
    let Bench { nats, host, .. } = bench(&ONE).await;
    nats.stop().await;
    let (began, grace) = (Instant::now(), Duration::from_millis(1_500));
    let drained = host.stop(grace).await;
    assert_eq!((drained.given_up, drained.confirmed), (0, false));
    // Whatever has to wait for NATS waits once, not one after the other.
    let most = grace + CLOSE_TIMEOUT + Duration::from_secs(1);
    assert!(began.elapsed() < most, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_guest_that_spins_does_not_keep_its_neighbours_waiting() {
    let slow = "limits = { timeout = \"3s\" }";
    let bench = bench(&Services(
        &[("guest", GUEST, slow), ("other", OTHER, "")],
        "",
    ))
    .await;
    let inbox = bench.client.new_inbox();
    let mut spinners = bench.client.subscribe(inbox.clone()).await.unwrap();
    let spin = "bay.app.test.guest.api.v1.spin";
    for _ in 0..8 {
        bench
            .client
            .publish_with_reply(spin, inbox.clone(), "".into())
            .await
            .unwrap();
    }
    let mut times = Vec::new();
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(
            bench.text("bay.app.test.other.api.v1.ask", "[1]").await,
            "2"
        );
        times.push(asked.elapsed());
    }
    times.sort();
    // Eight spinners on two workers have 5 ms each in turn; the timers of a starved runtime come
    // every 300 ms.
    assert!(times[10] < Duration::from_millis(150), "{times:?}");
    for _ in 0..8 {
        let reply = tokio::time::timeout(DEADLINE, spinners.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(code(&reply), Some("504"));
    }
    bench.end().await;
}

#[tokio::test]
async fn of_two_hosts_one_takes_over_without_a_lost_call() {
    let Bench { nats, host, client } = bench(&ONE).await;
    let load = Load::start(&client, &[]);
    load.more(200).await;
    let second = start(nats.url(), &ONE).await;
    load.more(200).await;
    assert!(host.stop(DEADLINE).await.is_complete());
    load.more(500).await;
    assert_eq!(load.failures().await, Vec::<String>::new());
    Bench {
        nats,
        host: second,
        client,
    }
    .end()
    .await;
}

#[tokio::test]
async fn a_service_leaves_under_load_and_others_go_on() {
    let both = Services(&[("guest", GUEST, ""), ("other", OTHER, "")], "");
    let bench = bench(&both).await;
    let load = Load::start(&bench.client, &["none"]);
    load.more(300).await;
    apply(&bench.host, &Services(&[("other", OTHER, "")], ""))
        .await
        .unwrap();
    assert_eq!(
        bench.text("bay.app.test.other.api.v1.ask", "[1]").await,
        "2"
    );
    assert_eq!(load.failures().await, Vec::<String>::new());
    bench.end().await;
}

#[tokio::test]
async fn only_the_specified_components_are_run() {
    let bench = bench(&ONE).await;
    let two = Services(&[("guest", GUEST, ""), ("other", OTHER, "")], "");
    let mut components = two.components(bench.host.engine());
    let specification = host::specify(&two.app(), &components).unwrap();
    let (guest, other) = (components["guest"].clone(), components["other"].clone());
    components.insert("other".to_owned(), guest.clone());
    let refused = bench.host.apply(&specification, &components).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        format!(
            "service \"other\": component {} is specified, but {} is given",
            other.digest, guest.digest
        )
    );
    components.remove("other");
    let refused = bench.host.apply(&specification, &components).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        format!(
            "service \"other\": component {} is specified, but none is given",
            other.digest
        )
    );
    assert_eq!(bench.text(ECHO, r#"["as before"]"#).await, r#""as before""#);
    components.insert("other".to_owned(), other);
    let applied = bench.host.apply(&specification, &components).await;
    assert_eq!(applied.unwrap().started, ["other"]);
    bench.end().await;
}

#[tokio::test]
async fn what_cannot_run_changes_nothing() {
    let bench = bench(&ONE).await;
    let broken = Services(&[("guest", GUEST, ""), ("caller", CALLER, "")], "");
    let error = apply(&bench.host, &broken).await.unwrap_err();
    assert!(matches!(error, HostError::Plan(_)), "{error}");
    let starving = Services(
        &[
            ("guest", GUEST, ""),
            ("caller", CALLER, "limits = { instances = 1 }"),
            ("other", OTHER, ""),
        ],
        "",
    );
    let error = apply(&bench.host, &starving).await.unwrap_err();
    assert!(matches!(error, HostError::Warm { .. }), "{error}");
    assert_eq!(
        bench.text(ECHO, r#"["still here"]"#).await,
        r#""still here""#
    );
    bench.end().await;
}

#[tokio::test]
async fn a_killed_nats_server_comes_back_and_calls_go_on() {
    let bench = bench(&ONE).await;
    let before = bench.nats.server.restarts();
    let pid = bench.nats.server.pid().unwrap();
    let killed = std::process::Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status();
    assert!(killed.unwrap().success());
    until("nats-server was started again", || {
        bench.nats.server.restarts() > before
    })
    .await;
    let reply = until_ok("calls are answered again", async || {
        let request = bench.client.request(ECHO, r#"["back"]"#.into());
        let reply = tokio::time::timeout(Duration::from_secs(1), request).await;
        let reply = reply.map_err(|error| error.to_string())?;
        reply.map_err(|error| error.to_string())
    });
    assert_eq!(&reply.await.payload[..], br#""back""#);
    bench.end().await;
}

#[tokio::test]
async fn a_flood_is_shed_with_one_reply_for_each_message() {
    const FLOOD: usize = 20_000;
    let slow = "limits = { concurrency = 1, wait = \"20ms\", timeout = \"100ms\" }";
    let bench = bench(&Services(&[("guest", GUEST, slow)], "")).await;
    let inbox = bench.client.new_inbox();
    let mut replies = bench.client.subscribe(inbox.clone()).await.unwrap();
    let spin = "bay.app.test.guest.api.v1.spin";
    for _ in 0..FLOOD {
        bench
            .client
            .publish_with_reply(spin, inbox.clone(), "".into())
            .await
            .unwrap();
    }
    let mut codes = BTreeMap::new();
    for _ in 0..FLOOD {
        let reply = tokio::time::timeout(DEADLINE, replies.next())
            .await
            .unwrap()
            .unwrap();
        *codes.entry(code(&reply).unwrap().to_owned()).or_insert(0) += 1;
    }
    assert!(codes["429"] > FLOOD / 2, "{codes:?}");
    assert!(codes["504"] > 0, "{codes:?}");
    assert!(bench.host.stop(DEADLINE).await.is_complete());
    assert_no_message(&bench.client, &mut replies).await;
    bench.nats.stop().await;
}

#[tokio::test]
async fn a_second_app_of_one_name_that_answers_the_same_calls_is_refused() {
    let nats = Nats::start().await;
    let first = start(nats.url(), &Services(&[("one", GUEST, "")], "")).await;
    let other = Services(&[("two", GUEST, "")], "");
    let options = HostOptions::new(ConnectOptions::to(nats.url()));
    let engine = Engine::new(EngineOptions {
        instances: 4,
        cache: None,
    });
    let second = Host::start(&other.app(), engine.unwrap(), options)
        .await
        .unwrap();
    let refused = apply(&second, &other).await.unwrap_err().to_string();
    assert!(
        refused.starts_with(
            "another app is called \"app\" on this NATS system: service \"one\" of host "
        ),
        "{refused}"
    );
    assert_eq!(second.stop(DEADLINE).await.given_up, 0);
    // Several hosts of one app are no two apps.
    let replica = start(nats.url(), &Services(&[("one", GUEST, "")], "")).await;
    let part = start(nats.url(), &Services(&[("other", OTHER, "")], "")).await;
    for host in [first, replica, part] {
        assert_eq!(host.stop(DEADLINE).await.given_up, 0);
    }
    nats.stop().await;
}
