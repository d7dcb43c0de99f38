//! What a component knows of the step that it is called for.

use super::*;
use crate::support::components::teller;

/// Imports the pipeline, so that its type is known.
const CALLER: &str = r#"
(component
  (import "test:step/twice@1.0.0" (instance
    (export "run" (func (result (tuple (option string) (option string)))))))
  (core module $code (func (export "wait")))
  (core instance $code (instantiate $code))
  (func $wait (canon lift (core func $code "wait")))
  (instance $api (export "wait" (func $wait)))
  (export "test:caller/api@1.0.0" (instance $api)))
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
    let context = "wasmbay:call/context@0.1.0";
    let teller = teller(context, "step", "test:step/api@1.0.0");
    let services = [("caller", CALLER, ""), ("teller", &*teller, "")];
    let bench = bench(&Services(&services, LINES)).await;
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
