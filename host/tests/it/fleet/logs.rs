//! Log records of several hosts.

use async_nats::HeaderMap;
use async_nats::jetstream;
use rustix::process::Signal;
use serde_json::Value;

use super::{Fleet, Ran};
use crate::support::cli::Up;
use crate::support::{PATIENCE, until_ok_within};

/// Says "placed" to `wasi:logging` where it is called.
const SAYS: &str = r#"(component
  (import "wasi:logging/logging@0.1.0-draft" (instance $log
    (type $cases (enum "trace" "debug" "info" "warn" "error" "critical"))
    (export "level" (type $level (eq $cases)))
    (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
  (core module $memory (memory (export "memory") 1) (data (i32.const 0) "placed"))
  (core instance $m (instantiate $memory))
  (alias export $log "log" (func $says))
  (alias core export $m "memory" (core memory $mem))
  (core func $lowered (canon lower (func $says) (memory $mem)))
  (core module $code
    (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
    (func (export "place")
      (call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 6))))
  (core instance $c (instantiate $code (with "host" (instance (export "log" (func $lowered))))))
  (func $place (canon lift (core func $c "place")))
  (instance $api (export "place" (func $place)))
  (export "test:says/api@1.0.0" (instance $api)))"#;

const APP: &str =
    "name = \"app\"\n[service.says]\ncomponent = \"guest.wasm\"\nreplicas = \"all\"\n";

const PLACE: &str = "bay.app.test.says.api.v1.place";

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

impl Ran {
    /// What was printed, a record a line.
    fn records(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn what_guests_say_is_read_from_all_hosts_and_followed() {
    let fleet = Fleet::start(APP).await;
    fleet.cli.write("guest.wasm", wat::parse_str(SAYS).unwrap());
    let none = fleet.run(&["logs"]).await.failed();
    assert!(
        none.stderr.contains("no host has kept a log record"),
        "{none:?}"
    );
    let hosts = ["a", "b"].map(|name| fleet.host(name, &[]));
    fleet.run(&["deploy"]).await.done();
    let client = fleet.connect().await;
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    let place = async || {
        let call = client.request_with_headers(PLACE, headers.clone(), "".into());
        call.await.map_err(|error| error.to_string())
    };
    let said = ["logs", "app/says", "--output", "json"];
    let records = until_ok_within(PATIENCE, "both hosts have said something", async || {
        place().await?;
        let records = fleet.run(&said).await.done().records();
        let of = |host: &str| records.iter().any(|one| one["host"] == host);
        if of("a") && of("b") {
            Ok(records)
        } else {
            Err(format!("{records:?}"))
        }
    })
    .await;
    for record in &records {
        for (key, value) in [
            ("level", "INFO"),
            ("target", "guest"),
            ("app", "app"),
            ("service", "says"),
            ("message", "placed"),
            ("trace_id", TRACE),
            ("span_id", "00f067aa0ba902b7"),
        ] {
            assert_eq!(record[key], value, "{record}");
        }
    }
    let of_a = fleet.run(&["logs", "--host", "a"]).await.done().stdout;
    assert!(of_a.contains(" a INFO  app/says placed"), "{of_a}");
    assert!(!of_a.contains(" b INFO"), "{of_a}");
    let other = fleet.run(&["logs", "other"]).await.done();
    assert_eq!(other.stdout, "");
    let wrong = fleet.run(&["logs", "app/says/x"]).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");

    // It ends by itself where nobody follows, and goes on where somebody does.
    let follow = Up::start(fleet.command(&["logs", "app", "-f", "--since", "1ms"]));
    until_ok_within(PATIENCE, "what is said is followed", async || {
        place().await?;
        match follow.stdout() {
            printed if printed.contains("app/says placed") => Ok(()),
            printed => Err(printed),
        }
    })
    .await;
    follow.signal(Signal::INT);
    assert!(follow.end().ends_with("[exit 0]"));

    let stream = jetstream::new(client.clone()).get_stream("bay-logs").await;
    let config = stream.unwrap().cached_info().config.clone();
    assert_eq!(
        (config.max_bytes, config.max_age, config.discard),
        (
            wasmbay::logs::MAX_BYTES,
            wasmbay::logs::MAX_AGE,
            jetstream::stream::DiscardPolicy::Old
        )
    );
    for host in hosts {
        assert!(host.stop().ends_with("[exit 0]"));
    }
    fleet.stop().await;
}
