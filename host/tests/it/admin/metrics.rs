//! What Prometheus reads of a host.

use std::collections::BTreeMap;

use super::*;

/// The samples of a page by name and labels, after each line was found to be well-formed.
pub(crate) fn samples(page: &str) -> BTreeMap<String, f64> {
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in page.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => assert!(help.ends_with('.'), "{name}: {help}"),
            ["#", "TYPE", name, kind] => {
                assert!(types.insert(name, kind).is_none(), "{name} twice");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            }
            _ => {
                let (key, value) = line.rsplit_once(' ').unwrap();
                let name = key.split('{').next().unwrap();
                let of_histogram = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|part| types.get(name.strip_suffix(part)?));
                assert!(
                    types.contains_key(name) || of_histogram == Some(&"histogram"),
                    "{line}"
                );
                let value = value.parse().unwrap();
                assert!(samples.insert(key.to_owned(), value).is_none(), "{line}");
            }
        }
    }
    samples
}

#[tokio::test]
async fn a_host_counts_calls_events_and_requests() {
    let (admin, _) = Admin::with_dead_letters("", 1).await;
    admin.publish(7, 10).await;
    admin.bench.done("a").await;
    let page = admin.send("GET", "/metrics", &[], "").await;
    assert_eq!(page.status, 200);
    let head = page.head.to_lowercase();
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    let samples = samples(&page.body);
    let value = |key: &str| samples.get(key).copied();
    let handled = "app=\"app\",service=\"a\",rpc_method=\"test:events/sink.happened@1.0.0\"";
    // Three attempts at the first event, and one at the second.
    assert_eq!(
        value(&format!(
            "rpc_server_call_duration_seconds_count{{{handled}}}"
        )),
        Some(4.0),
        "{}",
        page.body
    );
    let bucket = |bound: &str| {
        let key = format!("rpc_server_call_duration_seconds_bucket{{{handled},le=\"{bound}\"}}");
        value(&key).unwrap()
    };
    assert!(bucket("0.00005") <= bucket("2.5") && bucket("+Inf") == 4.0);
    let published =
        "app=\"app\",service=\"publisher\",rpc_method=\"test:publisher/api.publish@1.0.0\"";
    assert_eq!(
        value(&format!(
            "rpc_server_call_duration_seconds_count{{{published}}}"
        )),
        Some(2.0)
    );
    for (name, expected) in [
        ("wasmbay_calls_running", 0.0),
        ("wasmbay_calls_waiting", 0.0),
        ("wasmbay_calls_limit", 64.0),
    ] {
        assert_eq!(
            value(&format!("{name}{{app=\"app\",service=\"a\"}}")),
            Some(expected)
        );
    }
    let instances = value("wasmbay_instances{app=\"app\",service=\"a\"}").unwrap();
    assert_eq!(
        value("wasmbay_instances_idle{app=\"app\",service=\"a\"}"),
        Some(instances)
    );
    assert!(instances >= 1.0);
    let consumer = format!(
        "{{app=\"app\",stream=\"{}\",service=\"a\",consumer=\"a\"}}",
        crate::events::STREAM
    );
    for name in ["waiting", "unacknowledged", "redelivered"] {
        assert_eq!(
            value(&format!("wasmbay_consumer_{name}{consumer}")),
            Some(0.0)
        );
    }
    assert_eq!(value("wasmbay_store_healthy{app=\"app\"}"), Some(1.0));
    admin.end().await;
}

#[tokio::test]
async fn errors_have_their_code_and_requests_their_route() {
    let bench = Bench::start().await;
    let loopback = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let options = HostOptions {
        admin: loopback,
        gateway: loopback,
        ..HostOptions::new(ConnectOptions::to(bench.nats.url()))
    };
    let route =
        "[[route]]\nmethod = \"GET\"\npath = \"/check/{number}\"\ncall = \"test:guest/api.check\"";
    let services = Services(&[("guest", GUEST, "")], route);
    let host = start_with(options, &services).await;
    let (gateway, admin) = (
        host.gateway().unwrap().to_string(),
        host.admin().unwrap().to_string(),
    );
    let asked = spawn_blocking(move || {
        for (path, status) in [("/check/5", 200), ("/check/50", 422), ("/nowhere", 404)] {
            assert_eq!(send(&gateway, "GET", path, &[], "").unwrap().status, status);
        }
        let trap = send(&gateway, "POST", "/rpc/test:guest/api/trap", &[], "");
        assert_eq!(trap.unwrap().status, 500);
        send(&admin, "GET", "/metrics", &[], "").unwrap().body
    });
    let samples = samples(&asked.await.unwrap());
    let count = |route: &str, method: &str, status: u16| {
        let key = format!(
            "http_server_request_duration_seconds_count{{app=\"app\",http_route=\"{route}\",http_request_method=\"{method}\",\
             http_response_status_code=\"{status}\"}}"
        );
        samples.get(&key).copied()
    };
    assert_eq!(
        count("/check/{number}", "GET", 200),
        Some(1.0),
        "{samples:#?}"
    );
    assert_eq!(count("/check/{number}", "GET", 422), Some(1.0));
    let trapped = "wasmbay_errors_total{app=\"app\",service=\"guest\",rpc_method=\"test:guest/api.trap@1.0.0\",code=\"500\",blame=\"guest\"}";
    assert_eq!(samples.get(trapped), Some(&1.0));
    // What a client sent is no label.
    assert!(!samples.keys().any(|key| key.contains("nowhere")));
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}
