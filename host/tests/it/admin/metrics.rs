//! What Prometheus reads of a host.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

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
    let of = |name: &str, service: &str| {
        value(&format!("{name}{{app=\"app\",service=\"{service}\"}}")).unwrap()
    };
    assert_eq!(of("wasmbay_events_published_total", "publisher"), 2.0);
    assert_eq!(of("wasmbay_events_retried_total", "a"), 2.0);
    assert_eq!(of("wasmbay_events_dead_lettered_total", "a"), 1.0);
    assert_eq!(of("wasmbay_shed_total", "a"), 0.0);
    // An instance has at least its memory's page.
    assert!(of("wasmbay_memory_bytes", "a") >= 65_536.0 * instances);
    assert!(of("wasmbay_memory_bytes", "a") <= of("wasmbay_memory_limit_bytes", "a") * instances);
    assert_eq!(value("wasmbay_dead_letters{app=\"app\"}"), Some(1.0));
    assert_eq!(value("wasmbay_nats_reconnects_total"), Some(0.0));
    assert_eq!(
        value("wasmbay_components_total{from=\"compiler\"}"),
        Some(2.0)
    );
    assert_eq!(value("wasmbay_store_healthy{app=\"app\"}"), Some(1.0));
    admin.end().await;
}

/// A host with a gateway and an admin address, whose one service has a short time for its calls.
async fn with_gateway() -> (Bench, Host) {
    let bench = Bench::start().await;
    let loopback = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let options = HostOptions {
        admin: loopback,
        gateway: loopback,
        ..HostOptions::new(ConnectOptions::to(bench.nats.url()))
    };
    let route =
        "[[route]]\nmethod = \"GET\"\npath = \"/check/{number}\"\ncall = \"test:guest/api.check\"";
    let limits = "limits = { timeout = \"200ms\" }";
    let services = Services(&[("guest", GUEST, limits)], route);
    let host = start_with(options, &services).await;
    (bench, host)
}

/// A program of Prometheus.
fn program(name: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin");
    let program = tools.join(name);
    assert!(
        program.exists(),
        "no {name}: run `guests/tools.sh prometheus`"
    );
    program
}

#[tokio::test]
async fn promtool_has_nothing_to_say() {
    let (admin, _) = Admin::with_dead_letters("", 1).await;
    let page = admin.send("GET", "/metrics", &[], "").await.body;
    let mut check = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let said = check.wait_with_output().unwrap();
    let text = [said.stdout, said.stderr].concat();
    assert!(
        said.status.success() && text.is_empty(),
        "{}",
        String::from_utf8_lossy(&text)
    );
    admin.end().await;
}

/// Ends a process with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks Prometheus, once it listens.
async fn query(server: &str, expression: &str) -> Value {
    let text: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
    let path = format!("/api/v1/query?query={text}");
    until_ok_within(PATIENCE, "Prometheus answers", async || {
        let (server, path) = (server.to_owned(), path.clone());
        let sent = spawn_blocking(move || send(&server, "GET", &path, &[], ""));
        let response = sent.await.unwrap().map_err(|error| error.to_string())?;
        serde_json::from_str::<Value>(&response.body).map_err(|error| error.to_string())
    })
    .await
}

#[tokio::test]
async fn prometheus_scrapes_a_host_and_answers_what_the_dashboard_asks() {
    let (bench, host) = with_gateway().await;
    let (gateway, admin) = (host.gateway().unwrap().to_string(), host.admin().unwrap());
    let called = spawn_blocking(move || send(&gateway, "GET", "/check/5", &[], ""));
    assert_eq!(called.await.unwrap().unwrap().status, 200);
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "scrape_configs:\n- job_name: wasmbay\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\n  \
         static_configs: [{{ targets: [\"{admin}\"] }}]\n"
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = port.local_addr().unwrap().to_string();
    drop(port);
    let prometheus = Command::new(program("prometheus"))
        .arg("--config.file=prometheus.yml")
        .arg("--storage.tsdb.path=data")
        .arg(format!("--web.listen-address={server}"))
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _prometheus = Running(prometheus.unwrap());
    let calls = "rpc_server_call_duration_seconds_count{app=\"app\",service=\"guest\"}";
    until_ok_within(PATIENCE, "the host was scraped", async || {
        let answer = query(&server, calls).await;
        match answer["data"]["result"][0]["value"][1].as_str() {
            Some("1") => Ok(()),
            _ => Err(answer),
        }
    })
    .await;
    let dashboard = include_str!("../../../../docs/grafana.json");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression
                .replace("$__rate_interval", "1m")
                .replace("$app", ".*")
                .replace("$service", ".*");
            let answer = query(&server, &expression).await;
            assert_eq!(answer["status"], "success", "{expression}: {answer}");
        }
    }
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}

#[tokio::test]
async fn errors_have_their_code_and_requests_their_route() {
    let (bench, host) = with_gateway().await;
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
        // It computes until its time is over.
        let spins = send(&gateway, "POST", "/rpc/test:guest/api/spin", &[], "");
        assert_eq!(spins.unwrap().status, 504);
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
    let computed = samples["wasmbay_cpu_seconds_total{app=\"app\",service=\"guest\"}"];
    assert!((0.05..=0.6).contains(&computed), "{computed} s of 200 ms");
    // What was never called is not there.
    assert!(!samples.keys().any(|key| key.contains("api.count")));
    // What a client sent is no label.
    assert!(!samples.keys().any(|key| key.contains("nowhere")));
    assert!(host.stop(DEADLINE).await.is_complete());
    bench.nats.stop().await;
}
