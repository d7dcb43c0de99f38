//! Who a call is made for: from the gateway through services, and what clients of NATS say.

use std::net::SocketAddr;

use async_nats::HeaderMap;
use serde_json::{Value, json};
use wasmbay::host::HostOptions;
use wasmbay::nats::ConnectOptions;
use wasmbay::wire;

use crate::support::apps::{Bench, Services, start_with};
use crate::support::components::{MEMORY, teller};
use crate::support::http::send;
use crate::support::nats::Nats;

/// Returns the claim `name`, and the scopes.
fn details() -> String {
    format!(
        r#"
(component
  (import "wasmbay:call/identity@0.1.0" (instance $of
    (export "claim" (func (param "name" string) (result (option string))))
    (export "scopes" (func (result (list string))))))
  {MEMORY}
  (core func $claim (canon lower (func $of "claim")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $scopes (canon lower (func $of "scopes")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core module $code
    (import "of" "claim" (func $claim (param i32 i32 i32)))
    (import "of" "scopes" (func $scopes (param i32)))
    (func (export "name") (result i32)
      (call $claim (i32.const 512) (i32.const 4) (i32.const 16))
      (i32.const 16))
    (func (export "scopes") (result i32)
      (call $scopes (i32.const 16))
      (i32.const 16)))
  (core instance $code (instantiate $code
    (with "of" (instance (export "claim" (func $claim)) (export "scopes" (func $scopes))))))
  (func $name (result (option string)) (canon lift (core func $code "name")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (func $scopes (result (list string)) (canon lift (core func $code "scopes")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (instance $api (export "name" (func $name)) (export "scopes" (func $scopes)))
  (export "test:details/api@1.0.0" (instance $api)))
"#
    )
}

const LINES: &str = r#"
[wire."test:far/api"]
local = "never"

[pipeline.run]
implements = "test:run/api.run"
type = "func() -> option<string>"
result = "$one"
[[pipeline.run.step]]
name = "one"
call = "test:asks/api.told"

[[route]]
method = "GET"
path = "/asks"
call = "test:asks/api.told"

[[route]]
method = "GET"
path = "/run"
call = "test:run/api.run"

[gateway.auth]
default = "key"
[gateway.auth.key.till]
# Of "secret".
sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
scopes = ["orders:write"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn services_know_who_asks_however_far_they_are() {
    let identity = "wasmbay:call/identity@0.1.0";
    let who = teller(identity, "caller", "test:who/api@1.0.0");
    let subject = teller(identity, "subject", "test:subject/api@1.0.0");
    let far = teller("test:who/api@1.0.0", "told", "test:far/api@1.0.0");
    let asks = teller("test:far/api@1.0.0", "told", "test:asks/api@1.0.0");
    let details = details();
    let services = Services(
        &[
            ("who", &who, ""),
            ("subject", &subject, ""),
            ("far", &far, ""),
            ("asks", &asks, ""),
            ("details", &details, ""),
        ],
        LINES,
    );
    let nats = Nats::start().await;
    let options = HostOptions {
        gateway: Some("127.0.0.1:0".parse().unwrap()),
        ..HostOptions::new(ConnectOptions::to(nats.url()))
    };
    let host = start_with(options, &services).await;
    let (client, address) = (nats.connect().await, host.gateway().unwrap());
    let bench = Bench { nats, host, client };

    // The header is none that a client of HTTP can set.
    let forged = r#"{"auth":"jwt","subject":"root","scopes":[]}"#;
    let headers = [("X-Api-Key", "secret"), ("Bay-Claims", forged)];
    let known = json!({ "auth": "key", "subject": "till", "scopes": ["orders:write"] });
    for path in ["/asks", "/run"] {
        let (status, told) = get(address, path, &headers).await;
        assert_eq!(status, 200, "{path}: {told}");
        let told: Value = serde_json::from_str(told.as_str().unwrap()).unwrap();
        assert_eq!(told, known, "{path}");
        let (status, _) = get(address, path, &headers[1..]).await;
        assert_eq!(status, 401, "{path}");
    }

    // Clients on other machines see no RPC paths.
    for (name, has_rpc) in [("Accept", true), ("Via", false), ("Accept", true)] {
        let headers = [headers[0], (name, "1.1 proxy")];
        let (_, document) = get(address, "/openapi.json", &headers).await;
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.keys().any(|path| path.starts_with("/rpc/")), has_rpc);
        assert_eq!(document["security"], json!([{ "key": [] }]));
    }

    // Clients of NATS say what they like, as services see it.
    let claims =
        r#"{"auth":"jwt","subject":"u-7","scopes":["a","b"],"claims":{"name":"Zo\u00eb","n":7}}"#;
    let told = async |function: &str, claims: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(claims) = claims {
            headers.insert(wire::CLAIMS, claims);
        }
        let subject = format!("bay.app.test.{function}");
        let reply = bench
            .client
            .request_with_headers(subject, headers, "".into());
        serde_json::from_slice::<Value>(&reply.await.unwrap().payload).unwrap()
    };
    assert_eq!(told("asks.api.v1.told", Some(claims)).await, json!(claims));
    assert_eq!(
        told("subject.api.v1.told", Some(claims)).await,
        json!("u-7")
    );
    assert_eq!(
        told("details.api.v1.name", Some(claims)).await,
        json!("\"Zoë\"")
    );
    let scopes = told("details.api.v1.scopes", Some(claims)).await;
    assert_eq!(scopes, json!(["a", "b"]));
    let long = format!(r#"{{"auth":"jwt","scopes":["{}"]}}"#, "x".repeat(9_000));
    for nobody in [None, Some(""), Some("{}"), Some(&*long)] {
        assert_eq!(told("subject.api.v1.told", nobody).await, json!(null));
        assert_eq!(told("details.api.v1.name", nobody).await, json!(null));
        assert_eq!(told("details.api.v1.scopes", nobody).await, json!([]));
    }
    bench.end().await;
}

async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let (path, headers) = (path.to_owned(), headers.to_owned());
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let asked = tokio::task::spawn_blocking(move || {
        let headers: Vec<_> = headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        send(&address.to_string(), "GET", &path, &headers, "").unwrap()
    });
    let response = asked.await.unwrap();
    (response.status, response.json())
}
