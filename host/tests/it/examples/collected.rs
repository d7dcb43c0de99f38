//! What the shop exports, as the OpenTelemetry Collector reads it.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{CARD, Example, manifest, order, root};
use crate::support::cli::Cli;
use crate::support::until_ok_blocking;

/// The spans of an order, each below its parent, those of one parent by their names.
const ORDER: &str = r"gateway: server POST /orders
  orders-place: client step shop:catalog/products.get@1.0.0
    catalog: server shop:catalog/products.get@1.0.0
  orders-place: client step shop:inventory/stock.reserve@1.0.0
    inventory: server shop:inventory/stock.reserve@1.0.0
  orders-place: client step shop:orders/events.order-paid@1.0.0
    notifications: consumer process shop:orders/events.order-paid@1.0.0
    sales: consumer process shop:orders/events.order-paid@1.0.0
  orders-place: client step shop:orders/events.order-placed@1.0.0
    notifications: consumer process shop:orders/events.order-placed@1.0.0
    sales: consumer process shop:orders/events.order-placed@1.0.0
  orders-place: client step shop:payment/payments.charge@1.0.0
    payment: server shop:payment/payments.charge@1.0.0
  orders: server shop:orders/orders.place@1.0.0
    orders: client shop:catalog/products.get@1.0.0
    orders: client shop:inventory/stock.reserve@1.0.0
    orders: client shop:payment/payments.charge@1.0.0
    orders: producer publish shop:orders/events.order-paid@1.0.0
    orders: producer publish shop:orders/events.order-placed@1.0.0
";

/// A collector that writes what it gets to files.
struct Collector {
    child: Child,
    address: String,
    folder: PathBuf,
}

impl Collector {
    fn start(cli: &Cli) -> Self {
        let program = root().join(".tools/bin/otelcol");
        assert!(
            program.exists(),
            "no collector: run `guests/tools.sh otelcol`"
        );
        // It cannot say which free port it took.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let (mut exporters, mut pipelines) = (String::new(), String::new());
        for signal in ["traces", "metrics", "logs"] {
            let path = cli.path(signal);
            exporters += &format!(
                "  file/{signal}: {{ path: {}, flush_interval: 50ms }}\n",
                path.display()
            );
            pipelines +=
                &format!("    {signal}: {{ receivers: [otlp], exporters: [file/{signal}] }}\n");
        }
        let settings = format!(
            "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: \"{address}\" }} }} }} }}\n\
             exporters:\n{exporters}\
             service:\n  telemetry: {{ metrics: {{ level: none }} }}\n  pipelines:\n{pipelines}"
        );
        cli.write("otelcol.yaml", settings);
        let child = Command::new(program)
            .arg("--config")
            .arg(cli.path("otelcol.yaml"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until_ok_blocking("the collector listens", || TcpStream::connect(&address));
        Self {
            child,
            address,
            folder: cli.path(""),
        }
    }

    /// What it wrote of a signal: the resources of each export, as `key` has them.
    fn read(&self, signal: &str, key: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.join(signal)).unwrap_or_default();
        // A line may be under way.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let exports = lines.filter_map(|line| line[key].as_array().cloned());
        exports.flatten().collect()
    }

    /// The spans of a trace as a tree: kind, service and name of each, and its depth.
    fn tree(&self, trace: &str) -> String {
        let mut below: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        for resource in self.read("traces", "resourceSpans") {
            let service = attribute(&resource["resource"], "service.name");
            let scopes = resource["scopeSpans"].as_array().unwrap().iter();
            for span in scopes.flat_map(|scope| scope["spans"].as_array().unwrap()) {
                if span["traceId"] == trace {
                    let text = |key: &str| span[key].as_str().unwrap_or_default().to_owned();
                    let kind = ["", "internal", "server", "client", "producer", "consumer"];
                    let kind = kind[usize::try_from(span["kind"].as_u64().unwrap()).unwrap()];
                    let line = format!("{service}: {kind} {}", text("name"));
                    let all = below.entry(text("parentSpanId")).or_default();
                    all.push((line, text("spanId")));
                }
            }
        }
        let mut tree = String::new();
        write(&mut below, "", 0, &mut tree);
        for (parent, lost) in below {
            tree += &format!("below {parent}, which is not there: {lost:?}\n");
        }
        tree
    }
}

fn write(
    below: &mut BTreeMap<String, Vec<(String, String)>>,
    parent: &str,
    depth: usize,
    tree: &mut String,
) {
    let mut children = below.remove(parent).unwrap_or_default();
    children.sort();
    for (line, id) in children {
        *tree += &format!("{}{line}\n", "  ".repeat(depth));
        write(below, &id, depth + 1, tree);
    }
}

fn attribute(of: &Value, key: &str) -> String {
    let all = of["attributes"].as_array().unwrap();
    let found = all.iter().find(|pair| pair["key"] == key);
    let value = found.and_then(|pair| pair["value"]["stringValue"].as_str());
    value.unwrap_or_default().to_owned()
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_order_through_five_languages_is_one_trace_with_all_its_spans() {
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest("shop"))]);
    let collector = Collector::start(&cli);
    let endpoint = format!("http://{}", collector.address);
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200"),
    ];
    let shop = Example::run_with(cli, &[], &variables);
    let placed = shop.post("/orders", &order(&[("keyboard", 1)], CARD));
    assert_eq!(placed.status, 201, "{placed:?}");
    let parent = placed.head.split("traceparent: ").nth(1).unwrap();
    let trace = parent[3..35].to_owned();
    until_ok_blocking("the trace is complete", || {
        let tree = collector.tree(&trace);
        // As text, to be read.
        (tree == ORDER).then_some(()).ok_or(Printed(tree))
    });
    // The same collector reads metrics and log records, the latter with their trace.
    until_ok_blocking("there are metrics and log records", || {
        let metrics = collector.read("metrics", "resourceMetrics");
        let logs = collector.read("logs", "resourceLogs");
        let counted = metrics
            .iter()
            .any(|one| one.to_string().contains("rpc.server.call.duration"));
        let logged = logs
            .iter()
            .filter(|one| attribute(&one["resource"], "service.name") == "notifications");
        let mut logged = logged.map(Value::to_string);
        let of_trace = logged.any(|text| text.contains(&trace) && text.contains("Your order"));
        (counted && of_trace)
            .then_some(())
            .ok_or((metrics.len(), logs))
    });
    shop.stop();
}

/// A text whose lines are shown as they are.
struct Printed(String);

impl std::fmt::Debug for Printed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\n{}", self.0)
    }
}
