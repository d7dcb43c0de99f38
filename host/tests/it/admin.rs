//! The admin address over real sockets: what an operator does with dead letters, and the requests
//! that are refused.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use wasmbay::host::{Host, HostOptions};
use wasmbay::nats::ConnectOptions;

use crate::events::{Bench, Judge, OK, PUBLISH, QUICK, Verdict, durable, event, request, sink};
use crate::support::apps::{Services, start_with};
use crate::support::components::{GUEST, PUBLISHES};
use crate::support::http::{Response, send};
use crate::support::{DEADLINE, PATIENCE, until_ok_within};

mod answers;
mod dead_letters;
mod insight;
pub(crate) mod metrics;
mod refused;

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// An app whose subscriber refuses the events from 1 to 9, and its admin address.
struct Admin {
    bench: Bench,
    judge: Judge,
    host: Host,
    address: String,
}

impl Admin {
    async fn start(keys: &str) -> Self {
        let bench = Bench::start().await;
        let judge = Judge::new(&bench.client, |_, n, _| match n {
            1..=9 => Verdict::Err,
            _ => Verdict::Ok,
        })
        .await;
        let a = sink("a");
        let lines = durable(&format!("{QUICK}\n{keys}"));
        let services = Services(&[("a", &a, ""), ("publisher", PUBLISHES, "")], &lines);
        let options = HostOptions {
            admin: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            ..HostOptions::new(ConnectOptions::to(bench.nats.url()))
        };
        let host = start_with(options, &services).await;
        let address = host.admin().unwrap().to_string();
        Self {
            bench,
            judge,
            host,
            address,
        }
    }

    /// With so many dead letters, of the events from 1 on.
    async fn with_dead_letters(keys: &str, count: u32) -> (Self, Vec<String>) {
        let admin = Self::start(keys).await;
        // One after the other, so that their order is known.
        let mut dead_letters = Vec::new();
        for n in 1..=count {
            admin.publish(7, n).await;
            dead_letters = admin.bench.until_dead_letters(n as usize).await;
        }
        (
            admin,
            dead_letters.into_iter().map(|letter| letter.id).collect(),
        )
    }

    async fn publish(&self, key: u32, n: u32) {
        let done = request(&self.bench.client, PUBLISH, event(key, n)).await;
        assert_eq!(done.payload, OK);
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let [address, method, path, body] = [&self.address, method, path, body].map(str::to_owned);
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let sent = spawn_blocking(move || {
            let headers: Vec<_> = headers.iter().map(|(n, v)| (&**n, &**v)).collect();
            send(&address, &method, &path, &headers, &body)
        });
        sent.await.unwrap().unwrap()
    }

    /// The answer's body, if the status is this one.
    async fn expect(&self, status: u16, method: &str, path: &str) -> Value {
        let response = self.send(method, path, &[], "").await;
        assert_eq!(response.status, status, "{method} {path}: {response:?}");
        response.json()
    }

    async fn put(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let headers: Vec<_> = headers.iter().copied().chain([JSON]).collect();
        self.send("PUT", path, &headers, body).await
    }

    async fn end(self) {
        assert!(self.host.stop(DEADLINE).await.is_complete());
        self.bench.nats.stop().await;
    }
}

fn ids(list: &Value) -> Vec<&str> {
    let dead_letters = list["deadLetters"].as_array().unwrap();
    dead_letters
        .iter()
        .map(|l| l["id"].as_str().unwrap())
        .collect()
}

fn error(response: &Response) -> (u16, u64, String) {
    let body = response.json();
    let error = &body["error"];
    assert!(error["blame"].is_string(), "{body}");
    (
        response.status,
        error["code"].as_u64().unwrap(),
        error["message"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test]
async fn the_index_lists_the_routes() {
    let admin = Admin::start("").await;
    let index = admin.expect(200, "GET", "/").await;
    assert_eq!(index["app"], "app");
    let routes = index["routes"].as_array().unwrap();
    assert!(routes.contains(&json!("GET /dead-letters")), "{index}");
    admin.end().await;
}

#[tokio::test]
async fn health_and_readiness_are_answered() {
    let admin = Admin::start("").await;
    assert_eq!(admin.expect(200, "GET", "/healthz").await["status"], "ok");
    assert_eq!(admin.expect(200, "GET", "/readyz").await["ready"], true);
    admin.end().await;
}

/// A `curl` line of the documentation: its method, path, headers and body.
fn curl(line: &str) -> (String, String, bool, String) {
    let option = |name: &str| {
        let (_, rest) = line.split_once(&format!(" {name} "))?;
        let value = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split('\'').next(),
            None => rest.split(' ').next(),
        };
        value.map(str::to_owned)
    };
    let (_, path) = line.split_once("http://127.0.0.1:8081").unwrap();
    let path = path.split([' ', '\'']).next().unwrap();
    (
        option("-X").unwrap_or_else(|| "GET".to_owned()),
        if path.is_empty() { "/" } else { path }.to_owned(),
        line.contains("Content-Type: application/json"),
        option("-d").unwrap_or_default(),
    )
}

#[tokio::test]
async fn the_commands_of_the_documentation_work() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.md");
    let text = std::fs::read_to_string(text).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ "));
    let lines: Vec<_> = lines.filter(|line| line.starts_with("curl ")).collect();
    assert!(lines.len() >= 6, "{lines:?}");
    let (admin, all) = Admin::with_dead_letters("", 1).await;
    for line in lines {
        let line = line
            .replace("6f0c1b9d2e8a4735", &all[0])
            .replace("notifications", "a")
            .replace("events.order-paid", "sink.happened")
            .replace(r#"{"orderId":"o-17"}"#, &event(7, 2));
        let (method, path, is_json, body) = curl(&line);
        let headers = if is_json { vec![JSON] } else { vec![] };
        let done = admin.send(&method, &path, &headers, &body).await;
        assert!(matches!(done.status, 200 | 202), "{line}: {done:?}");
        admin.bench.done("a").await;
    }
    assert!(admin.bench.list().await.is_empty());
    admin.end().await;
}
