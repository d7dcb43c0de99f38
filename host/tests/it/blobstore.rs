//! Objects that services keep: of any size and name, their own, and there after a restart.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wasmbay::nats::ConnectOptions;

use crate::examples::{Example, root};
use crate::support::cli::Cli;
use crate::support::until_ok_blocking;

fn manifest(grants: &str) -> String {
    let guest = root().join("guests/rust/stores-objects");
    let guest = guest.display();
    format!(
        r#"
name = "objects"

[service.mine]
component = "{guest}"
grants = {grants}
limits = {{ message = "64KiB", timeout = "1m" }}

[gateway]
timeout = "1m"
"#
    )
}

const GRANTED: &str = "{ blobstore = true }";

fn run(grants: &str) -> Example {
    Example::run(Cli::new().with(&[("wasmbay.toml", &manifest(grants))]))
}

fn ask(data: &Example, function: &str, arguments: Value) -> Value {
    let path = format!("/rpc/bay:stores-objects/objects/{function}");
    let asked = data.post(&path, &arguments);
    assert_eq!(asked.status, 200, "{asked:?}");
    asked.json()
}

fn ok(value: impl Into<Value>) -> Value {
    json!({ "ok": value.into() })
}

fn err(why: &str) -> Value {
    json!({ "err": why })
}

fn done() -> Value {
    ok(Value::Null)
}

fn names(data: &Example, container: &str) -> BTreeSet<String> {
    let named = ask(data, "names", json!([container, 7, 0]));
    let names: Vec<String> = serde_json::from_value(named["ok"].clone()).unwrap();
    let unique: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(unique.len(), names.len(), "{names:?}");
    unique
}

/// Messages and bytes of the store.
fn stored(data: &Example) -> (u64, u64, i64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = ConnectOptions::to(&data.nats).connect().await.unwrap();
        let context = async_nats::jetstream::new(client);
        let stream = context.get_stream("OBJ_bay_objects_objects_mine").await;
        let info = stream.unwrap().cached_info().clone();
        (info.state.messages, info.state.bytes, info.config.max_bytes)
    })
}

const MANY: u64 = 1 << 20;

#[test]
fn a_service_has_objects_of_its_own_that_outlive_the_host() {
    let data = run(GRANTED);
    let containers = ["", "a", "a/b", "é %2F", "*.>"];
    let objects = ["", "a", "b/c.txt", "é/ü", "%2F", "*.>"];
    for container in containers {
        assert_eq!(ask(&data, "exists", json!([container])), ok(false));
        assert_eq!(ask(&data, "create", json!([container])), done());
        assert_eq!(ask(&data, "exists", json!([container])), ok(true));
    }
    let again = ask(&data, "create", json!(["a"]));
    assert_eq!(again, err("there is a container `a` already"));
    for (number, object) in objects.into_iter().enumerate() {
        for container in ["a", "a/b"] {
            let text = format!("<{container}/{object}>");
            let before = number % 2 == 0;
            let written = ask(&data, "write", json!([container, object, text, before]));
            assert_eq!(written, done());
        }
    }
    let wanted: BTreeSet<_> = objects.map(str::to_owned).into();
    assert_eq!(names(&data, "a"), wanted);
    assert_eq!(names(&data, "a/b"), wanted);
    assert_eq!(names(&data, ""), BTreeSet::new());

    let data = Example::run(data.stop());
    for object in objects {
        let text = format!("<a/b/{object}>");
        let read = |start: u64, end: u64| ask(&data, "read", json!(["a/b", object, start, end]));
        assert_eq!(read(0, MANY), ok(text.clone()));
        assert_eq!(read(1, 3), ok("a/b"));
        let size = ask(&data, "size", json!(["a/b", object]));
        assert_eq!(size, ok(text.len()));
    }
    let about = ask(&data, "about", json!(["a/b"]));
    assert_eq!(about["ok"][0], "a/b");
    let created = about["ok"][1].as_u64().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now - 600..=now).contains(&created), "{created}");

    let over = ask(&data, "read", json!(["a", "a", 5, 100]));
    assert_eq!(over, err("the range starts at 5, the object has 5 bytes"));
    let turned = ask(&data, "read", json!(["a", "a", 3, 2]));
    assert_eq!(turned, err("the range ends at 2, before it starts at 3"));
    let none = ask(&data, "read", json!(["a", "none", 0, 0]));
    assert_eq!(none, err("there is no object `none` in container `a`"));
    let none = ask(&data, "write", json!(["none", "a", "x", true]));
    assert_eq!(none, err("there is no container `none`"));

    assert_eq!(ask(&data, "delete-container", json!(["a"])), done());
    assert_eq!(ask(&data, "exists", json!(["a"])), ok(false));
    assert_eq!(names(&data, "a/b"), wanted);
    assert_eq!(ask(&data, "clear", json!(["a/b"])), done());
    assert_eq!(names(&data, "a/b"), BTreeSet::new());
    for container in ["", "a/b", "é %2F", "*.>"] {
        assert_eq!(ask(&data, "delete-container", json!([container])), done());
    }
    // Nothing is left of what was deleted.
    assert_eq!(stored(&data).0, 0);
    data.stop();
}

#[test]
fn objects_are_copied_moved_replaced_and_deleted_without_a_rest() {
    let data = run(GRANTED);
    for container in ["a", "b"] {
        ask(&data, "create", json!([container]));
    }
    let size = 300_000;
    assert_eq!(ask(&data, "write-large", json!(["a", "x", size])), done());
    assert_eq!(ask(&data, "copy", json!(["a", "x", "b", "y"])), done());
    assert_eq!(ask(&data, "copy", json!(["a", "x", "a", "x"])), done());
    assert_eq!(ask(&data, "move", json!(["b", "y", "b", "z"])), done());
    assert_eq!(ask(&data, "move", json!(["b", "z", "b", "z"])), done());
    for (container, name) in [("a", "x"), ("b", "z")] {
        let read = ask(&data, "read-large", json!([container, name, 0, MANY]));
        assert_eq!(read, ok(size));
    }
    assert_eq!(names(&data, "b"), ["z".to_owned()].into());
    assert_eq!(
        ask(&data, "copy", json!(["a", "none", "b", "y"])),
        err("there is no object `none` in container `a`")
    );
    assert_eq!(
        ask(&data, "move", json!(["a", "x", "none", "y"])),
        err("there is no container `none`")
    );
    // What replaces an object removes its chunks: two of three each, and two containers.
    assert_eq!(stored(&data).0, 2 * (1 + 3) + 2);
    assert_eq!(
        ask(&data, "write", json!(["a", "x", "short", true])),
        done()
    );
    assert_eq!(ask(&data, "copy", json!(["a", "x", "b", "z"])), done());
    assert_eq!(stored(&data).0, 2 * (1 + 1) + 2);
    assert_eq!(ask(&data, "delete", json!(["a", ["x", "none"]])), done());
    assert_eq!(ask(&data, "has", json!(["a", "x"])), ok(false));
    assert_eq!(ask(&data, "delete", json!(["a", ["x"]])), done());
    assert_eq!(ask(&data, "has", json!(["b", "z"])), ok(true));

    // A value that is not finished is no object, and leaves nothing.
    assert_eq!(ask(&data, "write-half", json!(["a", "half", size])), done());
    assert_eq!(ask(&data, "has", json!(["a", "half"])), ok(false));
    until_ok_blocking(
        "the chunks of the half object are removed",
        || match stored(&data).0 {
            4 => Ok(()),
            other => Err(other),
        },
    );
    data.stop();
}

#[test]
fn large_objects_go_in_chunks_and_are_read_from_anywhere() {
    let data = run(GRANTED);
    ask(&data, "create", json!(["c"]));
    let size: u64 = 20 << 20;
    assert_eq!(
        ask(&data, "write-large", json!(["c", "large", size])),
        done()
    );
    let read = |start: u64, end: u64| ask(&data, "read-large", json!(["c", "large", start, end]));
    assert_eq!(read(0, u64::MAX >> 1), ok(size));
    assert_eq!(read(131_071, 131_072), ok(2));
    assert_eq!(read(15_000_000, 16_000_000), ok(1_000_001));
    assert_eq!(read(size - 1, size), ok(1));
    let whole = ask(&data, "read", json!(["c", "large", 0, 65_536]));
    assert_eq!(
        whole,
        err("65537 bytes at a time are more than the limit of 65536; read them as a stream")
    );
    let some = ask(&data, "read", json!(["c", "large", 4_095, 4_095]));
    assert_eq!(some, ok("\0"));
    data.stop();
}

#[test]
fn what_an_instance_holds_open_and_names_at_once_is_bounded() {
    let data = run(GRANTED);
    ask(&data, "create", json!(["c"]));
    ask(&data, "write", json!(["c", "a", "text", true]));
    let why = "16 values are written and read already, which is the limit of an instance";
    assert_eq!(ask(&data, "read-many", json!(["c", "a", 16])), done());
    assert_eq!(ask(&data, "read-many", json!(["c", "a", 17])), err(why));
    assert_eq!(ask(&data, "write-many", json!(["c", 16])), done());
    assert_eq!(ask(&data, "write-many", json!(["c", 17])), err(why));
    assert_eq!(ask(&data, "read-many", json!(["c", "a", 16])), done());

    let many: Vec<_> = (0..1_001).map(|n| n.to_string()).collect();
    let why = "1001 names at a time are more than the limit of 1000";
    assert_eq!(ask(&data, "delete", json!(["c", many])), err(why));
    let long = "k".repeat(1_024);
    let why = "the name is longer than the limit of 1024 bytes";
    assert_eq!(ask(&data, "write", json!(["c", long, "x", true])), err(why));
    assert_eq!(ask(&data, "has", json!(["c", long])), ok(false));
    data.stop();
}

#[test]
fn more_names_than_a_page_has_are_listed() {
    let data = run(GRANTED);
    ask(&data, "create", json!(["c"]));
    let wanted: BTreeSet<_> = (0..1_050).map(|n| format!("object {n}")).collect();
    for name in &wanted {
        assert_eq!(ask(&data, "write", json!(["c", name, "", true])), done());
    }
    assert_eq!(names(&data, "c"), wanted);
    // More at a time than is returned at once, after some that are left out.
    let some = ask(&data, "names", json!(["c", 5_000, 1_005]));
    assert_eq!(some["ok"].as_array().unwrap().len(), 45);
    assert_eq!(ask(&data, "clear", json!(["c"])), done());
    assert_eq!(stored(&data).0, 1);
    data.stop();
}

#[test]
fn objects_need_the_grant() {
    let data = run("{}");
    let denied = err("the service is granted no objects");
    assert_eq!(ask(&data, "create", json!(["c"])), denied);
    assert_eq!(ask(&data, "exists", json!(["c"])), denied);
    data.stop();
}

#[test]
fn objects_have_the_size_that_is_granted_and_grow_with_it() {
    let data = run("{ blobstore = { size = \"1MiB\" } }");
    assert_eq!(ask(&data, "create", json!(["c"])), done());
    let write = |name: &str| ask(&data, "write-large", json!(["c", name, 700_000]));
    assert_eq!(write("a"), done());
    let full = write("b");
    assert!(
        full["err"].as_str().unwrap().contains("maximum bytes"),
        "{full}"
    );
    assert_eq!(ask(&data, "has", json!(["c", "b"])), ok(false));
    data.change("size = \"1MiB\"", "size = \"4MiB\"");
    data.up.until("reconfigured mine");
    assert_eq!(write("b"), done());
    assert_eq!(stored(&data).2, 4 << 20);
    data.stop();
}

#[test]
fn a_store_that_was_lost_is_created_again() {
    let data = run(GRANTED);
    for function in ["exists", "names", "create"] {
        ask(&data, "create", json!(["c"]));
        ask(&data, "write", json!(["c", "a", "text", true]));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = ConnectOptions::to(&data.nats).connect().await.unwrap();
            let context = async_nats::jetstream::new(client);
            let lost = context.delete_stream("OBJ_bay_objects_objects_mine").await;
            lost.unwrap();
        });
        let (arguments, wanted) = match function {
            "exists" => (json!(["c"]), ok(false)),
            "names" => (json!(["c", 1, 0]), err("there is no container `c`")),
            _ => (json!(["c"]), done()),
        };
        assert_eq!(ask(&data, function, arguments), wanted);
    }
    assert_eq!(ask(&data, "has", json!(["c", "a"])), ok(false));
    data.stop();
}
