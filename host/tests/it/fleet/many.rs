//! One app of many services.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::{Fleet, kill};
use crate::support::until_ok_within;

/// Services of the app, unless `WASMBAY_SERVICES` says otherwise: enough to see what grows with their number, few
/// enough for every run of the tests.
const SERVICES: usize = 100;

/// Upper bound of the time for them to serve on two of three hosts each, compiled one at a time.
const SERVE: Duration = Duration::from_secs(60);

/// Upper bound of the time for what a killed host ran to serve elsewhere: three seconds until it is taken for
/// dead, and its third of the services.
const MOVE: Duration = Duration::from_secs(30);

fn services() -> usize {
    let number = std::env::var("WASMBAY_SERVICES").ok();
    number.map_or(SERVICES, |number| number.parse().unwrap())
}

/// A component with an interface of its own.
fn component(number: usize) -> Vec<u8> {
    let text = format!(
        r#"(component
          (core module $code (func (export "ask") (result i32) (i32.const {number})))
          (core instance $core (instantiate $code))
          (func $ask (result u32) (canon lift (core func $core "ask")))
          (instance $api (export "ask" (func $ask)))
          (export "test:s{number}/api@1.0.0" (instance $api)))"#
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn an_app_of_many_services_converges() {
    let number = services();
    let scale = u32::try_from(number.div_ceil(SERVICES)).unwrap();
    let mut manifest = "name = \"app\"\n".to_owned();
    for one in 0..number {
        let _ = writeln!(manifest, "[service.s{one}]\ncomponent = \"s{one}.wasm\"");
    }
    let fleet = Fleet::start(&manifest).await;
    for one in 0..number {
        fleet.cli.write(&format!("s{one}.wasm"), component(one));
    }
    let mut hosts: Vec<_> = ["a", "b", "c"]
        .map(|name| fleet.host_with(name, number * 2, &[]))
        .into();
    let timeout = format!("{}s", (SERVE * scale).as_secs());
    let began = Instant::now();
    fleet.run(&["deploy", "--timeout", &timeout]).await.done();
    let deployed = began.elapsed();
    let client = fleet.connect().await;
    for one in 0..number {
        let subject = format!("bay.app.test.s{one}.api.v1.ask");
        let reply = client.request(subject, "[]".into()).await.unwrap();
        assert_eq!(*reply.payload, *one.to_string().as_bytes());
    }
    let began = Instant::now();
    kill(&hosts.remove(1));
    until_ok_within(MOVE * scale, "all serve on two hosts again", async || {
        let ps = fleet.ps().await;
        let all = ps["replicas"].as_array().cloned().unwrap_or_default();
        let serving = all.iter().filter(|one| one["state"] == "serving");
        let serving = serving.filter(|one| one["host"] != "b").count();
        if serving == 2 * number {
            Ok(())
        } else {
            Err(serving)
        }
    })
    .await;
    let moved = began.elapsed();
    // One that is changed leaves the others alone.
    fleet.cli.write("s0.wasm", component(number));
    let began = Instant::now();
    fleet
        .run(&["deploy", "--service", "s0", "--force"])
        .await
        .done();
    let changed = began.elapsed();
    println!(
        "{number} services: deployed in {deployed:?}, moved in {moved:?}, one changed in {changed:?}"
    );
    for host in hosts {
        assert!(host.stop().ends_with("[exit 0]"));
    }
    fleet.stop().await;
}
