//! Durable events between hosts.

use std::collections::BTreeSet;

use super::{Fleet, kill};
use crate::events::{Judge, OK, PUBLISH, Verdict, event, request, sink};
use crate::support::components::PUBLISHES;
use crate::support::until_ok_within;

const APP: &str = "
name = \"app\"
[service.publisher]
component = \"publisher.wasm\"
require = { zone = \"one\" }
[service.sink]
component = \"sink.wasm\"
replicas = \"all\"
require = { zone = \"two\" }
[wire.\"test:events/sink\"]
mode = \"event\"
durable = true
[wire.\"test:judge/verdict\"]
external = true
";

#[tokio::test]
async fn a_durable_event_is_handled_although_hosts_die() {
    const EVENTS: u32 = 40;
    let fleet = Fleet::start(APP).await;
    fleet
        .cli
        .write("publisher.wasm", wat::parse_str(PUBLISHES).unwrap());
    fleet
        .cli
        .write("sink.wasm", wat::parse_str(sink("sink")).unwrap());
    let client = fleet.connect().await;
    let judge = Judge::new(&client, |_, _, _| Verdict::Ok).await;
    let one = fleet.host("a", &["--label", "zone=one"]);
    let [two, three] = ["b", "c"].map(|name| fleet.host(name, &["--label", "zone=two"]));
    fleet.run(&["deploy"]).await.done();
    for n in 0..EVENTS {
        if n == EVENTS / 2 {
            kill(&two);
        }
        let reply = request(&client, PUBLISH, event(n % 4, n)).await;
        assert_eq!(reply.payload, OK, "event {n}");
    }
    until_ok_within(
        crate::support::PATIENCE,
        "every event is handled",
        async || {
            let handled: BTreeSet<_> = judge.attempts().iter().map(|attempt| attempt.n).collect();
            if handled.len() == EVENTS as usize {
                Ok(())
            } else {
                Err(handled.len())
            }
        },
    )
    .await;
    // What was undeployed finds its stream again.
    fleet.run(&["undeploy", "app"]).await.done();
    fleet.run(&["rollback", "app"]).await.done();
    let reply = request(&client, PUBLISH, event(1, EVENTS)).await;
    assert_eq!(reply.payload, OK);
    until_ok_within(
        crate::support::PATIENCE,
        "the last event is handled",
        async || {
            let attempts = judge.attempts();
            let last = attempts.iter().any(|attempt| attempt.n == EVENTS);
            if last { Ok(()) } else { Err(attempts.len()) }
        },
    )
    .await;
    for host in [one, three] {
        assert!(host.stop().ends_with("[exit 0]"));
    }
    fleet.stop().await;
}
