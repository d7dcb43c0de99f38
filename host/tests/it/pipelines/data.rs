//! Durable functions that keep data.

use super::*;

/// Adds one to a number that it keeps, and returns the sum.
const COUNTER: &str = r#"
(component
  (import "wasi:keyvalue/store@0.2.0-draft" (instance $store
    (export "bucket" (type $bucket (sub resource)))
    (type $error' (variant (case "no-such-store") (case "access-denied") (case "other" string)))
    (export "error" (type $error (eq $error')))
    (type $owned (own $bucket))
    (type $opened (result $owned (error $error)))
    (export "open" (func (param "identifier" string) (result $opened)))))
  (alias export $store "bucket" (type $bucket))
  (alias export $store "error" (type $error))
  (import "wasi:keyvalue/atomics@0.2.0-draft" (instance $atomics
    (alias outer 1 $bucket (type $outer-bucket))
    (export "bucket" (type $bucket (eq $outer-bucket)))
    (alias outer 1 $error (type $outer-error))
    (export "error" (type $error (eq $outer-error)))
    (type $borrowed (borrow $bucket))
    (type $sum (result u64 (error $error)))
    (export "increment" (func (param "bucket" $borrowed) (param "key" string) (param "delta" u64)
      (result $sum)))))
  (core module $memory
    (memory (export "memory") 1)
    (data (i32.const 8) "hits")
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $memory (instantiate $memory))
  (core func $open (canon lower (func $store "open")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core func $increment (canon lower (func $atomics "increment")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core module $code
    (import "host" "open" (func $open (param i32 i32 i32)))
    (import "host" "increment" (func $increment (param i32 i32 i32 i64 i32)))
    (import "memory" "memory" (memory 1))
    (func (export "bump") (result i64)
      (call $open (i32.const 8) (i32.const 0) (i32.const 16))
      (if (i32.load8_u (i32.const 16)) (then unreachable))
      (call $increment (i32.load (i32.const 20)) (i32.const 8) (i32.const 4) (i64.const 1) (i32.const 32))
      (if (i32.load8_u (i32.const 32)) (then unreachable))
      (i64.load (i32.const 40))))
  (core instance $code (instantiate $code
    (with "memory" (instance $memory))
    (with "host" (instance
      (export "open" (func $open))
      (export "increment" (func $increment))))))
  (func $bump (result u64) (canon lift (core func $code "bump")))
  (instance $api (export "bump" (func $bump)))
  (export "test:counter/api@1.0.0" (instance $api)))
"#;

const BUMP: &str = "bay.app.test.counter.api.v1.bump";

#[tokio::test]
async fn data_of_a_durable_function_is_answered_from_the_journal() {
    let keys = "durable = [\"test:counter/api.bump\"]\ngrants = { keyvalue = true }";
    let bench = bench(&Services(&[("counter", COUNTER, keys)], "")).await;
    let bump = async || bench.text(BUMP, "").await;
    assert_eq!(bump().await, "1");
    assert_eq!(bump().await, "2");
    let page = all(&bench.client).await;
    let id = page.runs[1].id.clone();
    let shown = runs(&bench.client).show(&id).await.unwrap();
    let shown = serde_json::to_value(shown).unwrap();
    let step = &shown["steps"][0];
    assert_eq!(step["name"], "1-increment");
    assert_eq!(step["call"]["function"], "wasi:keyvalue/atomics.increment");
    assert_eq!(
        step["call"]["arguments"],
        json!({"key": "hits", "delta": 1})
    );
    assert_eq!(step["result"], 2);

    // A run whose owner died after it had counted: another one runs the function again.
    let context = jetstream::new(bench.client.clone());
    let stream = context.get_stream("bay_app_runs").await.unwrap();
    let subject = |kind: &str, id: &str| format!("bay-run.app.{kind}.counter-bump.{id}");
    let journal = stream
        .get_last_raw_message_by_subject(&subject("run", &id))
        .await;
    // As text: what the function asks for is compared with it.
    let journal = String::from_utf8(journal.unwrap().payload.to_vec()).unwrap();
    let other = "f".repeat(32);
    let journal = journal.replace(&id, &other);
    let journal = journal.replace("\"phase\":\"completed\"", "\"phase\":\"running\"");
    let (began, ended) = journal.split_once("\"ended\":").unwrap();
    let (_, rest) = ended.split_once(',').unwrap();
    let journal = format!("{began}{rest}").into_bytes();
    for (kind, body) in [("run", journal), ("open", Vec::new())] {
        let stored = context.publish(subject(kind, &other), body.into()).await;
        stored.unwrap().await.unwrap();
    }
    let reply = until_ok("the run has ended", async || {
        let shown = runs(&bench.client).show(&other).await.unwrap();
        shown.reply.ok_or(shown.run)
    })
    .await;
    assert_eq!(reply.get(), "2");
    assert_eq!(bump().await, "3");
    bench.end().await;
}
