//! What a component knows of the step that it is called for.

use super::*;

/// Returns what `wasmbay:call/context` says, and imports the pipeline.
const TELLER: &str = r#"
(component
  (import "wasmbay:call/context@0.1.0" (instance $context
    (export "step" (func (result (option string))))))
  (import "test:step/twice@1.0.0" (instance
    (export "run" (func (result (tuple (option string) (option string)))))))
  (core module $memory
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (core func $step (canon lower (func $context "step")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (core module $code
    (import "context" "step" (func $step (param i32)))
    (func (export "told") (result i32)
      (call $step (i32.const 16))
      (i32.const 16)))
  (core instance $code (instantiate $code
    (with "context" (instance (export "step" (func $step))))))
  (func $told (result (option string)) (canon lift (core func $code "told")
    (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
  (instance $api (export "told" (func $told)))
  (export "test:step/api@1.0.0" (instance $api)))
"#;

const LINES: &str = r#"
[pipeline.twice]
implements = "test:step/twice.run"
result = ["$one", "$two"]

[[pipeline.twice.step]]
name = "one"
call = "test:step/api.told"

[[pipeline.twice.step]]
name = "two"
call = "test:step/api.told"
"#;

#[tokio::test]
async fn a_component_knows_its_step() {
    let bench = bench(&Services(&[("teller", TELLER, "")], LINES)).await;
    let told = async |subject: &'static str, headers| {
        let reply = bench
            .client
            .request_with_headers(subject, headers, "".into());
        serde_json::from_slice::<Value>(&reply.await.unwrap().payload).unwrap()
    };
    let reply = told("bay.app.test.step.twice.v1.run", HeaderMap::new()).await;
    let run = all(&bench.client).await.runs.remove(0).id;
    assert_eq!(reply, json!([format!("{run}.one"), format!("{run}.two")]));
    // By another call there is none.
    let api = "bay.app.test.step.api.v1.told";
    assert_eq!(told(api, HeaderMap::new()).await, json!(null));
    let mut headers = HeaderMap::new();
    headers.insert("bay-step", "of.mine");
    assert_eq!(told(api, headers).await, json!("of.mine"));
    let mut headers = HeaderMap::new();
    headers.insert(wire::STEP, "x".repeat(9_000));
    assert_eq!(told(api, headers).await, json!(null));
    bench.end().await;
}
