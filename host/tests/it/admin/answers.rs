//! What the admin address answers is what its OpenAPI document says, as a validator of others reads both.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use wasmbay::nats::ConnectOptions;

use crate::examples::root;
use crate::pipelines::{Answer, CHECKOUT, ORDER, Shop, TYPES, WIRES, place};
use crate::support::cli::Cli;
use crate::support::components::{CALLER, GUEST, OTHER, PUBLISHES, RETURNS_ERROR};
use crate::support::http::{request, send};
use crate::support::until_ok;

const APP: &str = r#"
name = "app"

[service.caller]
component = "caller.wat"

[service.other]
component = "other.wat"

[service.guest]
component = "guest.wat"

[service.publisher]
component = "publisher.wat"

[service.sink]
component = "sink.wat"

[service.types]
component = "types.wat"

[wire."test:events/sink"]
mode = "event"
durable = true
retry = { attempts = 2, backoff = ["10ms"] }

[wire."test:other/api"]
breaker = {}
"#;

/// What is asked, one after the other, and what came back.
struct Asked {
    address: String,
    answers: Vec<Value>,
}

impl Asked {
    /// Asks a route with this in the place of its id, and keeps the answer.
    fn ask(&mut self, method: &str, route: &str, id: &str, query: &str, body: &str) -> Value {
        let path = format!("{}{query}", route.replace("{id}", id));
        let headers = [("Content-Type", "application/json")];
        let headers = if body.is_empty() { &[][..] } else { &headers };
        let answer = send(&self.address, method, &path, headers, body).unwrap();
        let kept = json!({
            "route": format!("{method} {route}"), "status": answer.status, "body": answer.json(),
        });
        self.answers.push(kept);
        answer.json()
    }

    fn get(&mut self, route: &str, id: &str) -> Value {
        self.ask("GET", route, id, "", "")
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("{value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_the_document_says() {
    let manifest = format!("{APP}{WIRES}{CHECKOUT}");
    let cli = Cli::new().with(&[
        ("wasmbay.toml", &manifest),
        ("caller.wat", CALLER),
        ("other.wat", OTHER),
        ("guest.wat", GUEST),
        ("publisher.wat", PUBLISHES),
        ("sink.wat", RETURNS_ERROR),
        ("types.wat", TYPES),
    ]);
    let up = cli.up(&["--admin", "127.0.0.1:0"]);
    let announced = std::fs::read(cli.path(".wasmbay/host.json")).unwrap();
    let announced: Value = serde_json::from_slice(&announced).unwrap();
    let address = |of: &str| {
        let url = text(&announced, of);
        url.trim_start_matches("http://").to_owned()
    };
    let (gateway, admin) = (address("gateway"), address("admin"));
    let nats = std::fs::read_to_string(text(&announced, "natsUrlFile")).unwrap();
    let client = ConnectOptions::to(&*nats).connect().await.unwrap();
    let shop = Shop::open(&client, |function, before| match (function, before) {
        ("charge", 0) => Some(Answer::Ok(r#"{"err":"declined"}"#)),
        ("release", 0 | 1) => Some(Answer::Ok(r#"{"err":"no such shelf"}"#)),
        _ => None,
    })
    .await;
    // One whose undo has failed, and one that has completed.
    place(&client, ORDER, &[]).await.unwrap_err();
    place(&client, ORDER, &[]).await.unwrap();
    assert!(shop.count("tell") > 0);
    let calls = [
        ("test:caller/api/ask", "[7]"),
        ("test:guest/api/trap", "[]"),
        ("test:guest/api/check", "[50]"),
        ("test:publisher/api/publish", "[1,13]"),
        ("test:publisher/api/publish", "[2,13]"),
        ("test:publisher/api/publish", "[3,13]"),
    ];
    for (function, arguments) in calls {
        request(&gateway, &format!("/rpc/{function}"), Some(arguments)).unwrap();
    }
    until_ok("there are three dead letters", async || {
        let found = request(&admin, "/dead-letters", None).unwrap().json();
        let count = found["deadLetters"].as_array().map_or(0, Vec::len);
        (count == 3).then_some(()).ok_or(found)
    })
    .await;

    let mut asked = Asked {
        address: admin,
        answers: Vec::new(),
    };
    for route in ["/", "/healthz", "/readyz"] {
        asked.get(route, "");
    }
    let services = asked.get("/services", "");
    assert_eq!(
        services["consumers"].as_array().unwrap().len(),
        2,
        "{services}"
    );
    for service in ["caller", "guest", "sink", "nobody"] {
        asked.get("/services/{id}", service);
    }
    let traces = asked.get("/traces", "");
    for trace in traces["traces"].as_array().unwrap() {
        asked.get("/traces/{id}", text(trace, "trace"));
    }
    asked.get("/traces/{id}", "none");
    let logs = asked.get("/logs", "");
    assert!(!logs["logs"].as_array().unwrap().is_empty());
    asked.ask("GET", "/logs", "", "?limit=0", "");

    let letters = asked.ask("GET", "/dead-letters", "", "?limit=2", "");
    assert!(letters["next"].is_string(), "{letters}");
    let letters: Vec<_> = letters["deadLetters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| text(one, "id").to_owned())
        .collect();
    asked.get("/dead-letters/{id}", &letters[0]);
    let edited = asked.ask(
        "PUT",
        "/dead-letters/{id}",
        &letters[0],
        "",
        r#"{"key":1,"n":13}"#,
    );
    assert_eq!(edited["edited"], true);
    asked.ask("PUT", "/dead-letters/{id}", &letters[0], "", "{");
    asked.ask("POST", "/dead-letters/{id}/replay", &letters[0], "", "");
    asked.ask("DELETE", "/dead-letters/{id}", &letters[1], "", "");
    asked.get("/dead-letters/{id}", &letters[1]);
    asked.ask("POST", "/dead-letters/replay", "", "?all=true", "");
    asked.ask("DELETE", "/dead-letters", "", "?all=true", "");

    let runs = asked.ask("GET", "/runs", "", "?all=true&limit=1", "");
    assert!(runs["next"].is_number(), "{runs}");
    let runs = asked.ask("GET", "/runs", "", "?all=true", "");
    for run in runs["runs"].as_array().unwrap() {
        let id = text(run, "id");
        asked.get("/runs/{id}", id);
        // One of them is what may be done with it, the others are refused.
        for verb in ["cancel", "retry", "undo"] {
            asked.ask("POST", &format!("/runs/{{id}}/{verb}"), id, "", "");
        }
        asked.ask("PUT", "/runs/{id}", id, "", "{}");
    }
    let kept = asked
        .answers
        .iter()
        .map(|answer| (text(answer, "route"), answer["status"].as_u64().unwrap()));
    let kept: Vec<_> = kept.collect();
    for wanted in [
        ("POST /runs/{id}/retry", 202),
        ("POST /runs/{id}/undo", 202),
        ("POST /runs/{id}/cancel", 409),
    ] {
        assert!(kept.contains(&wanted), "{wanted:?}: {kept:?}");
    }

    let document = request(&asked.address, "/openapi.json", None).unwrap();
    cli.write("openapi.json", &document.body);
    cli.write("answers.json", serde_json::to_vec(&asked.answers).unwrap());
    let validator = root().join(".tools/bin/openapi-spec-validator");
    let validator = validator.canonicalize();
    let validator = validator.expect("no validator: run `guests/tools.sh schemathesis`");
    let checked = Command::new("python3")
        .env("PYTHONPATH", validator.parent().unwrap().parent().unwrap())
        .arg(root().join("host/tests/it/answers.py"))
        .args([cli.path("openapi.json"), cli.path("answers.json")])
        .output()
        .unwrap();
    let said = [checked.stdout, checked.stderr].concat();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
    let valid = Command::new(&validator)
        .arg(cli.path("openapi.json"))
        .output()
        .unwrap();
    assert!(
        valid.status.success(),
        "{}",
        String::from_utf8_lossy(&valid.stdout)
    );
    up.signal(Signal::TERM);
    up.end();
}
