//! A trace through several hosts.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;

use super::Fleet;
use super::gateway::{address, address_of};
use crate::spans::{Collector, ask, span};
use crate::support::cli::Up;
use crate::support::components::{CALLER, OTHER};
use crate::support::http::request;
use crate::support::until_ok;

const APP: &str = r#"
name = "app"

[service.caller]
component = "caller.wasm"
replicas = 1
require = { zone = "a" }

[service.other]
component = "other.wasm"
replicas = 1
require = { zone = "b" }

[[route]]
method = "GET"
path = "/ask/{n}"
call = "test:caller/api.ask"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_through_two_hosts_is_one_trace() {
    let (fleet, collector) = (Fleet::start(APP).await, Collector::start());
    for (file, text) in [("caller.wasm", CALLER), ("other.wasm", OTHER)] {
        fleet.cli.write(file, wat::parse_str(text).unwrap());
    }
    let hosts = ["a", "b"].map(|name| {
        let label = format!("zone={name}");
        let mut command = fleet.command(&[
            "host",
            "--name",
            name,
            "--workers",
            "1",
            "--instances",
            "100",
            "--label",
            &label,
            "--admin",
            "127.0.0.1:0",
        ]);
        if name == "a" {
            command.args(["--gateway", "127.0.0.1:0"]);
        }
        collector.exported_by(&mut command);
        let host = Up::start(command);
        host.until_built("leaves the fleet");
        host
    });
    fleet.run(&["deploy"]).await.done();
    fleet.hosts_of("other", |hosts| hosts == ["b"]).await;
    let at = address(&hosts[0]);
    let trace = until_ok("the route is there", async || {
        match ask(&at, "GET", "/ask/7", &[]) {
            (200, trace) => Ok(trace),
            (status, _) => Err(status),
        }
    })
    .await;
    let spans = collector.trace(&trace, 4);
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let gateway = span(&spans, "app/gateway", SpanKind::Server);
    let called = span(&spans, "app/caller", SpanKind::Server);
    let import = span(&spans, "app/caller", SpanKind::Client);
    let other = span(&spans, "app/other", SpanKind::Server);
    assert_eq!(called.parent_span_id, gateway.span_id);
    assert_eq!(import.parent_span_id, called.span_id);
    assert_eq!(other.parent_span_id, import.span_id);

    // Whichever host is asked, both have their part of it.
    for host in &hosts {
        let admin = address_of(host, "admin ");
        let path = format!("/apps/app/traces/{trace}");
        let shown: Value = request(&admin, &path, None).unwrap().json();
        let parts = shown["hosts"].as_array().unwrap();
        let mut found: Vec<_> = parts
            .iter()
            .map(|part| {
                (
                    part["host"].as_str().unwrap(),
                    part["spans"].as_array().unwrap().len(),
                )
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, [("a_app", 3), ("b_app", 1)], "{shown}");
    }
    for host in hosts {
        assert!(host.stop().ends_with("[exit 0]"));
    }
    fleet.stop().await;
}
