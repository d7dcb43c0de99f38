//! What a person sees of an app that runs: its services, what they do, and where a request failed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::json;
use super::running::announced;
use crate::breakers::flaky;
use crate::support::cli::Cli;
use crate::support::components::{CALLER, GUEST};
use crate::support::http::{Response, request};
use crate::support::until_ok_blocking;

const APP: &str = r#"
name = "demo"

[service.caller]
component = "caller.wat"

[service.other]
component = "other.wat"

[service.guest]
component = "guest.wat"

[wire."test:other/api"]
breaker = { calls = 4, open = "10m" }

[[route]]
method = "GET"
path = "/ask/{n}"
call = "test:caller/api.ask"

[[route]]
method = "GET"
path = "/other/{n}"
call = "test:other/api.ask"

[[route]]
method = "GET"
path = "/echo/{text}"
call = "test:guest/api.echo"
"#;

/// The trace of a request, by what was answered.
fn trace_of(answer: &Response) -> &str {
    let parent = answer.head.split("traceparent: ").nth(1).unwrap();
    &parent[3..35]
}

#[test]
fn a_trace_an_open_breaker_and_what_services_do_are_seen_in_a_terminal() {
    let cli = Cli::new().with(&[
        ("wasmbay.toml", APP),
        ("caller.wat", CALLER),
        ("other.wat", &flaky()),
        ("guest.wat", GUEST),
    ]);
    let up = cli.up(&["--admin", "127.0.0.1:0"]);
    let ready = announced(&cli);
    let gateway = ready["gateway"].as_str().unwrap();
    let gateway = gateway.trim_start_matches("http://");
    let get = |path: &str| request(gateway, path, None).unwrap();

    // A trace as a tree: where the request failed, and where the guest was then.
    let failed = get("/ask/1000");
    assert_eq!(failed.status, 502, "{failed:?}");
    let trace = trace_of(&failed);
    // The gateway's span ends with its answer, a moment after the client has it.
    let shown = until_ok_blocking("all spans are there", || {
        let shown = cli.run(&["trace", trace]);
        shown
            .contains("4 spans on 1 host")
            .then_some(())
            .ok_or(shown.clone())?;
        Ok::<_, String>(shown)
    });
    let lines: Vec<_> = shown.lines().collect();
    let at = |text: &str| {
        let found = lines.iter().position(|line| line.starts_with(text));
        found.unwrap_or_else(|| panic!("no {text:?} in {shown}"))
    };
    let places = [
        at("  gateway GET /ask/{n} "),
        at("    caller test:caller/api.ask@1.0.0 "),
        at("      caller test:other/api.ask@1.0.0 "),
        at("        other test:other/api.ask@1.0.0 "),
        at(
            "why: service \"other\": test:other/api.ask@1.0.0: the service trapped: wasm trap: wasm `unreachable`",
        ),
        at("where other was:"),
    ];
    assert!(places.is_sorted(), "{shown}");
    assert!(lines[places[3]].contains("error: "), "{shown}");
    assert!(shown.ends_with("[exit 0]"), "{shown}");
    let spans = json(&cli.run(&["trace", trace, "--output", "json"]));
    assert_eq!(spans["hosts"][0]["spans"].as_array().unwrap().len(), 4);
    let listed = cli.run(&["trace", "--errors", "--service", "other"]);
    assert!(
        listed.contains(trace) && listed.contains("GET /ask/{n}"),
        "{listed}"
    );
    let none = cli.run(&["trace", "0123456789abcdef0123456789abcdef"]);
    assert!(
        none.contains("error: no host has spans of trace 0123456789abcdef"),
        "{none}"
    );
    assert!(
        none.contains("hint: ") && none.ends_with("[exit 1]"),
        "{none}"
    );

    // Its breaker opens: who calls it is degraded, with the reason.
    for _ in 0..3 {
        assert_eq!(get("/other/1000").status, 500);
    }
    let refused = get("/other/1");
    assert_eq!(refused.status, 503, "{refused:?}");
    let why = "the breaker of wire test:other/api, which it calls, is open";
    let ps = cli.run(&["ps"]);
    assert!(ps.contains("degraded") && ps.contains(why), "{ps}");

    // One interval of all services, while one of them works.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(get("/echo/hi").status, 200);
            }
        });
        let top = cli.run(&["top", "--once", "--every", "500ms"]);
        let both = cli.run(&["top", "--once", "--every", "500ms", "--output", "json"]);
        stop.store(true, Ordering::Relaxed);
        let row = |service: &str| -> Vec<&str> {
            let mut rows = top.lines();
            let row = rows.find(|row| row.trim_start().starts_with(&format!("demo/{service} ")));
            row.unwrap_or_else(|| panic!("{top}"))
                .split_whitespace()
                .collect()
        };
        assert!(
            top.contains("SERVICE") && top.ends_with("[exit 0]"),
            "{top}"
        );
        let guest = row("guest");
        assert_eq!((guest[1], guest[3], guest[9]), ("ready", "0", "1"), "{top}");
        assert!(guest[2].parse::<f64>().unwrap() > 0.0, "{top}");
        assert_eq!(row("caller")[1..4], ["degraded", "0", "0"], "{top}");

        let both = json(&both);
        let services = both["services"].as_array().unwrap();
        let of = |name: &str| services.iter().find(|one| one["service"] == name).unwrap();
        assert_eq!(of("caller")["health"]["why"][0], why, "{both}");
        assert!(
            of("guest")["callsPerSecond"].as_f64().unwrap() > 0.0,
            "{both}"
        );
        assert_eq!(of("caller")["imports"][0]["to"][0], "other", "{both}");
    });
    up.stop();
}
