//! Data that services keep: their own, exact under concurrency, and there after a restart.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};

use wasmbay::nats::ConnectOptions;

use crate::examples::{Example, root};
use crate::support::cli::Cli;
use crate::support::until_ok_blocking;

/// Two services of one component, of which one answers at a time.
fn manifest(answers: &str, grants: &str) -> String {
    let guest = root().join("guests/rust/stores-keys");
    let guest = guest.display();
    format!(
        r#"
name = "data"

[service.mine]
component = "{guest}"
grants = {grants}

[service.yours]
component = "{guest}"
grants = {grants}
limits = {{ message = "64KiB" }}

[wire."bay:stores-keys/bucket"]
service = "{answers}"
"#
    )
}

fn ask(data: &Example, function: &str, arguments: Value) -> Value {
    let asked = data.post(
        &format!("/rpc/bay:stores-keys/bucket/{function}"),
        &arguments,
    );
    assert_eq!(asked.status, 200, "{asked:?}");
    asked.json()
}

fn keys(data: &Example) -> BTreeSet<String> {
    serde_json::from_value(ask(data, "keys", json!([]))["ok"].take()).unwrap()
}

const GRANTED: &str = "{ keyvalue = true }";

#[test]
fn a_service_has_data_of_its_own_that_outlives_the_host() {
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest("mine", GRANTED))]);
    let data = Example::run(cli);
    let odd = ["", "a.b", "*.>", "é/ü", "=41", "A"];
    for key in odd {
        assert_eq!(ask(&data, "get", json!([key])), json!({ "ok": null }));
        let set = ask(&data, "set", json!([key, format!("<{key}>")]));
        assert_eq!(set, json!({ "ok": null }));
    }
    for key in odd {
        let value = format!("<{key}>");
        assert_eq!(ask(&data, "get", json!([key])), json!({ "ok": value }));
    }
    assert_eq!(keys(&data), odd.map(str::to_owned).into());
    assert_eq!(ask(&data, "delete", json!(["A"])), json!({ "ok": null }));
    assert_eq!(ask(&data, "delete", json!(["A"])), json!({ "ok": null }));
    assert_eq!(ask(&data, "exists", json!(["A"])), json!({ "ok": false }));
    assert!(!keys(&data).contains("A"));

    let data = Example::run(data.stop());
    assert_eq!(ask(&data, "get", json!(["a.b"])), json!({ "ok": "<a.b>" }));

    data.change("service = \"mine\"", "service = \"yours\"");
    until_ok_blocking("the other service, without that key, answers", || {
        let value = ask(&data, "get", json!(["a.b"]));
        if value == json!({ "ok": null }) {
            Ok(())
        } else {
            Err(value)
        }
    });
    assert_eq!(keys(&data), BTreeSet::new());
    let large = ask(&data, "set", json!(["large", "x".repeat(60 << 10)]));
    assert_eq!(large, json!({ "ok": null }));
    data.stop();
}

#[test]
fn increments_of_several_callers_at_once_are_all_counted() {
    let data = Example::run(Cli::new().with(&[("wasmbay.toml", &manifest("mine", GRANTED))]));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let sum = ask(&data, "increment", json!(["sum", 3]));
                    assert!(sum["ok"].is_u64(), "{sum}");
                }
            });
        }
    });
    assert_eq!(ask(&data, "get", json!(["sum"])), json!({ "ok": "300" }));
    ask(&data, "set", json!(["text", "many"]));
    assert_eq!(
        ask(&data, "increment", json!(["text", 1])),
        json!({ "err": "the value is no number" })
    );
    data.stop();
}

#[test]
fn a_batch_does_to_many_keys_what_is_done_to_one() {
    let data = Example::run(Cli::new().with(&[("wasmbay.toml", &manifest("mine", GRANTED))]));
    let done = json!({ "ok": null });
    assert_eq!(ask(&data, "set-many", json!([["a", "b", ""]])), done);
    assert_eq!(ask(&data, "set-many", json!([[]])), done);
    let some = ask(&data, "get-many", json!([["b", "none", "a", ""]]));
    assert_eq!(some, json!({ "ok": ["b", "a", ""] }));
    assert_eq!(ask(&data, "delete-many", json!([["a", "none"]])), done);
    assert_eq!(keys(&data), ["b", ""].map(str::to_owned).into());

    let many: Vec<_> = (0..1_001).map(|n| format!("k{n}")).collect();
    let refused = json!({ "err": "1001 keys at a time are more than the limit of 1000" });
    for function in ["set-many", "get-many", "delete-many"] {
        assert_eq!(ask(&data, function, json!([many])), refused);
    }
    // One key may be asked for twice, and its value then comes twice.
    let large = json!(["large", "x".repeat(500 << 10)]);
    assert_eq!(ask(&data, "set", large), done);
    let refused = json!({ "err": "the values together exceed 16777216 bytes" });
    assert_eq!(ask(&data, "get-many", json!([vec!["large"; 40]])), refused);
    data.stop();
}

#[test]
fn more_keys_than_a_page_has_are_listed() {
    let data = Example::run(Cli::new().with(&[("wasmbay.toml", &manifest("mine", GRANTED))]));
    let wanted: BTreeSet<_> = (0..1_050).map(|n| format!("key {n}")).collect();
    for key in &wanted {
        ask(&data, "set", json!([key, "x"]));
    }
    assert_eq!(keys(&data), wanted);
    data.stop();
}

#[test]
fn what_is_not_granted_or_not_there_is_refused() {
    let data = Example::run(Cli::new().with(&[("wasmbay.toml", &manifest("mine", "{}"))]));
    let open = |name: &str| ask(&data, "open", json!([name]));
    assert_eq!(open(""), json!({ "err": "access-denied" }));
    assert_eq!(open("other"), json!({ "err": "access-denied" }));
    data.change("grants = {}", "grants = { keyvalue = true }");
    data.up.until("reconfigured mine");
    assert_eq!(open(""), json!({ "ok": null }));
    assert_eq!(open("default"), json!({ "ok": null }));
    assert_eq!(open("other"), json!({ "err": "no-such-store" }));
    data.stop();
}

/// Something that is asked of JetStream about a stream, from a test that waits by itself.
fn stream_of<T>(
    data: &Example,
    name: &str,
    ask: impl AsyncFnOnce(async_nats::jetstream::Context, async_nats::jetstream::stream::Info) -> T,
) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = ConnectOptions::to(&data.nats).connect().await.unwrap();
        let context = async_nats::jetstream::new(client);
        let stream = context.get_stream(name).await.unwrap();
        let info = stream.cached_info().clone();
        ask(context, info).await
    })
}

const BUCKET: &str = "KV_bay_data_data_mine";

#[test]
fn nothing_is_left_of_keys_that_were_deleted() {
    let data = Example::run(Cli::new().with(&[("wasmbay.toml", &manifest("mine", GRANTED))]));
    let done = json!({ "ok": null });
    ask(&data, "set", json!(["kept", "x"]));
    for n in 0..20 {
        assert_eq!(ask(&data, "set", json!([format!("k{n}"), "x"])), done);
        assert_eq!(ask(&data, "delete", json!([format!("k{n}")])), done);
    }
    let messages = stream_of(&data, BUCKET, async |_, info| info.state.messages);
    assert_eq!(messages, 1);
    // What was deleted is counted from the start.
    ask(&data, "increment", json!(["sum", 3]));
    ask(&data, "delete", json!(["sum"]));
    assert_eq!(
        ask(&data, "increment", json!(["sum", 4])),
        json!({ "ok": 4 })
    );
    data.stop();
}

#[test]
fn data_has_the_size_that_is_granted_and_grows_with_it() {
    let small = "{ keyvalue = { size = \"64KiB\" } }";
    let data = Example::run(Cli::new().with(&[("wasmbay.toml", &manifest("mine", small))]));
    let done = json!({ "ok": null });
    let large = json!(["a", "x".repeat(40 << 10)]);
    assert_eq!(ask(&data, "set", large), done);
    let more = json!(["b", "x".repeat(40 << 10)]);
    let full = ask(&data, "set", more.clone());
    assert!(
        full["err"].as_str().unwrap().contains("maximum bytes"),
        "{full}"
    );
    data.change("size = \"64KiB\"", "size = \"1MiB\"");
    data.up.until("reconfigured mine");
    assert_eq!(ask(&data, "set", more), done);
    let size = stream_of(&data, BUCKET, async |_, info| info.config.max_bytes);
    assert_eq!(size, 1 << 20);
    data.stop();
}

#[test]
fn a_bucket_that_was_lost_is_created_again() {
    let data = Example::run(Cli::new().with(&[("wasmbay.toml", &manifest("mine", GRANTED))]));
    let done = json!({ "ok": null });
    for function in ["get", "set", "increment"] {
        assert_eq!(ask(&data, "set", json!(["a", "1"])), done);
        stream_of(&data, BUCKET, async |context, _| {
            context.delete_stream(BUCKET).await.unwrap();
        });
        let (arguments, wanted) = match function {
            "get" => (json!(["a"]), done.clone()),
            "set" => (json!(["a", "2"]), done.clone()),
            _ => (json!(["a", 5]), json!({ "ok": 5 })),
        };
        assert_eq!(ask(&data, function, arguments), wanted);
    }
    data.stop();
}
