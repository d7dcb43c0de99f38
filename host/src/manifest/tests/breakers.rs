//! Circuit breakers of wires, and what answers while they are open.

use std::time::Duration;

use super::{accepted, problem};
use crate::manifest::{BreakerPolicy, BreakerSpec, Fallback, LocalCall, Percent, Provider};

fn wire(lines: &str) -> String {
    format!("[service.b]\ncomponent = 'b'\n[wire.'a:b/c']\n{lines}")
}

fn read(lines: &str) -> BreakerSpec {
    let mut app = accepted(&wire(lines));
    let wire = app.wires.remove(0);
    assert_eq!(
        (wire.provider, wire.local),
        (Provider::Exporter, LocalCall::Prefer)
    );
    wire.breaker.unwrap()
}

#[test]
fn a_breaker_is_read_with_its_defaults() {
    let policy = BreakerPolicy {
        errors: Percent(5_000),
        window: Duration::from_secs(10),
        calls: 10,
        open: Duration::from_secs(5),
    };
    let usual = BreakerSpec {
        policy: policy.clone(),
        fallback: None,
    };
    assert_eq!(read("breaker = {}"), usual);
    let own = read("breaker = { errors = '5%', open = '1m' }\nfallback = { service = 'b' }");
    let changed = BreakerPolicy {
        errors: Percent(500),
        open: Duration::from_secs(60),
        ..policy
    };
    assert_eq!(own.policy, changed);
    assert_eq!(own.fallback, Some(Fallback::Service("b".to_owned())));
    let values = read("breaker = {}\nfallback = { values = { get = 0, all = [] } }");
    let Some(Fallback::Values(values)) = values.fallback else {
        panic!("no values");
    };
    assert_eq!(values.keys().collect::<Vec<_>>(), ["all", "get"]);
}

#[test]
fn an_app_is_written_with_its_breakers() {
    for lines in [
        "breaker = {}",
        "local = 'never'\nbreaker = { calls = 3 }\nfallback = { values = { get = { tag = 'x', val = '$$1' } } }",
        "service = 'b'\nbreaker = { window = '1m' }\nfallback = { service = 'a' }",
    ] {
        let app = accepted(&wire(lines));
        let written = serde_json::to_string(&app).unwrap();
        assert_eq!(
            serde_json::from_str::<crate::manifest::App>(&written).unwrap(),
            app
        );
    }
}

#[test]
fn breakers_are_checked() {
    let found = |lines: &str| problem(&wire(lines));
    for (lines, expected) in [
        (
            "fallback = { service = 'b' }",
            "7:1: wire \"a:b/c\": `fallback` answers while a breaker is open; add `breaker = {}`",
        ),
        (
            "breaker = { errors = '0%' }",
            "7:22: wire \"a:b/c\": breaker: `errors` is '0%'; accepted: \"10%\" or \"0.5%\", 1% to 100%",
        ),
        (
            "breaker = { errors = 0.5 }",
            "7:22: wire \"a:b/c\": breaker: `errors` is 0.5; accepted: \"10%\" or \"0.5%\", 1% to 100%",
        ),
        (
            "breaker = {}\nfallback = {}",
            "8:1: wire \"a:b/c\": fallback: accepted: either `service = \"…\"` or `values = { FUNCTION = … }`",
        ),
        (
            "breaker = {}\nfallback = { service = 'bb' }",
            "8:24: wire \"a:b/c\": fallback: there is no service `bb`; did you mean `b`? (services: a, b)",
        ),
        (
            "mode = 'event'\nbreaker = {}",
            "8:1: wire \"a:b/c\": `breaker` is for calls; events have `retry`",
        ),
    ] {
        assert_eq!(found(lines), expected, "{lines}");
    }
    for wrong in ["'+5%'", "'101%'", "'5'", "'%'", "'0.5%'", "'256%'"] {
        let shown = found(&format!("breaker = {{ errors = {wrong} }}"));
        assert!(
            shown.contains("accepted: \"10%\" or \"0.5%\", 1% to 100%"),
            "{wrong}: {shown}"
        );
    }
}
