//! Contract cases: what passes, what does not and why, and what is refused before anything runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wasmbay::cases::{self, Cases, Problem};
use wasmbay::manifest::ServiceSpec;
use wasmbay::runtime::{Component, Runtime};

use crate::service::runtime;
use crate::support::components::{CALLER, GUEST, SLEEPER};

/// Components, a runtime, and a service's specification.
struct Bench {
    runtime: Runtime,
    component: Arc<Component>,
    spec: ServiceSpec,
}

fn bench(text: &str) -> Bench {
    let runtime = runtime(20);
    let component = Component::new(runtime.engine(), text.as_bytes()).unwrap();
    Bench {
        runtime,
        component: Arc::new(component),
        spec: ServiceSpec::new("guest"),
    }
}

fn read(cases: &Value) -> Cases {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.json");
    std::fs::write(&file, cases.to_string()).unwrap();
    Cases::read(&file).unwrap()
}

impl Bench {
    /// What is wrong with this case, which is to be one that can be run.
    async fn problems(&self, case: Value) -> Vec<Problem> {
        let mut case = case;
        case["name"] = json!("a case");
        let cases = read(&json!({ "cases": [case] }));
        let checked = cases.check(&self.component.description());
        let case = checked.into_iter().next().unwrap().unwrap();
        let Self {
            runtime,
            component,
            spec,
        } = self;
        cases::run(runtime, "app", component, spec, &case)
            .await
            .unwrap()
    }

    async fn said(&self, case: Value) -> Vec<String> {
        let problems = self.problems(case).await;
        let lines = |problem: &Problem| {
            let differences = problem.differences().iter().map(|one| {
                let side = |side: &Option<String>| side.clone().unwrap_or_default();
                format!("{}: {} / {}", one.path, side(&one.expected), side(&one.got))
            });
            std::iter::once(problem.to_string())
                .chain(differences)
                .collect::<Vec<_>>()
        };
        problems.iter().flat_map(lines).collect()
    }

    /// What is wrong with the file of this case.
    fn refused(&self, case: Value) -> Vec<String> {
        let mut case = case;
        case["name"] = json!("a case");
        let checked = read(&json!({ "cases": [case] })).check(&self.component.description());
        let errors = checked.into_iter().next().unwrap().unwrap_err();
        errors
            .iter()
            .map(|error| format!("{}: {}", error.at, error.why))
            .collect()
    }
}

#[tokio::test]
async fn results_err_values_and_errors_are_expected() {
    let bench = bench(GUEST);
    for case in [
        json!({"call": "api.echo", "arguments": {"text": "hé"}, "returns": "hé"}),
        json!({"call": "test:guest/api.echo", "arguments": ["a"], "returns": "a"}),
        json!({"call": "test:guest/api.check@1.0.0", "arguments": [3], "returns": {"ok": 3}}),
        json!({"call": "api.check", "arguments": {"number": 30}, "returns": {"err": 30.0}}),
        json!({"call": "api.trap", "fails": {"code": 500}}),
        json!({"call": "api.trap", "fails": {"code": 500, "message": "unreachable"}}),
        json!({"call": "api.take-table", "arguments": [1]}),
    ] {
        assert_eq!(bench.problems(case.clone()).await, [], "{case}");
    }
}

#[tokio::test]
async fn each_case_has_an_instance_of_its_own() {
    let bench = bench(GUEST);
    for _ in 0..2 {
        let counted = json!({"call": "api.count", "returns": 1});
        assert_eq!(bench.problems(counted).await, []);
    }
}

#[tokio::test]
async fn what_is_otherwise_is_named() {
    let bench = bench(GUEST);
    let echo =
        |expected: Value| json!({"call": "api.echo", "arguments": ["a"], "returns": expected});
    let said = bench.said(echo(json!("b"))).await;
    assert_eq!(said, ["the result differs", "$: \"b\" / \"a\""]);
    let said = bench
        .said(json!({"call": "api.check", "arguments": [30], "returns": {"ok": 30}}))
        .await;
    assert_eq!(said, ["the result differs", "$.ok: 30 / ", "$.err:  / 30"]);
    let said = bench.said(json!({"call": "api.trap"})).await;
    assert!(
        said[0].starts_with("expected an end without a result, got error 500: "),
        "{said:?}"
    );
    let said = bench
        .said(json!({"call": "api.trap", "fails": {"code": 500, "message": "boom"}}))
        .await;
    assert!(
        said[0].starts_with("expected error 500 with \"boom\", got error 500: "),
        "{said:?}"
    );
    let failing = json!({"call": "api.count", "fails": {"code": 504}});
    assert_eq!(bench.said(failing).await, ["expected error 504, got 1"]);
    let ignored = json!({"call": "api.echo", "arguments": ["a"], "returns": "b", "ignore": ["$"]});
    assert_eq!(bench.problems(ignored).await, []);
}

#[tokio::test]
async fn the_limits_of_the_manifest_hold() {
    let mut bench = bench(GUEST);
    bench.spec.limits.timeout = Duration::from_millis(50);
    bench.spec.limits.memory = 1 << 20;
    bench.spec.limits.message = 1_000;
    for (case, code) in [
        (json!({"call": "api.spin"}), 504),
        (json!({"call": "api.take-memory", "arguments": [100]}), 500),
        (json!({"call": "api.repeat", "arguments": [2_000]}), 413),
        (
            json!({"call": "api.echo", "arguments": ["x".repeat(2_000)]}),
            413,
        ),
    ] {
        let mut case = case;
        case["fails"] = json!({"code": code});
        assert_eq!(bench.problems(case.clone()).await, [], "{case}");
    }
}

#[tokio::test]
async fn stubs_answer_imports() {
    let bench = bench(CALLER);
    let with = |imports: Value, returns: Value| json!({"call": "test:caller/api.try", "arguments": [1], "imports": imports, "returns": returns});
    let stub = "test:other/api.try";
    for case in [
        with(
            json!([{"call": stub, "returns": {"ok": 7}}]),
            json!({"ok": 7}),
        ),
        with(
            json!([{"call": stub, "returns": {"err": "no"}}]),
            json!({"err": "no"}),
        ),
        with(
            json!([{"call": stub, "arguments": {"n": 1}, "returns": {"ok": 7}}]),
            json!({"ok": 7}),
        ),
        // The first that answers these arguments.
        with(
            json!([
                {"call": stub, "arguments": [2], "times": "any", "returns": {"ok": 2}},
                {"call": stub, "arguments": [1], "returns": {"ok": 1}},
            ]),
            json!({"ok": 1}),
        ),
        with(
            json!([{"call": stub, "arguments": [2], "ignore": ["$.n"], "returns": {"ok": 7}}]),
            json!({"ok": 7}),
        ),
        // A failure is a value where the type has a place for one.
        with(
            json!([{"call": stub, "fails": {"code": 503, "message": "gone"}}]),
            json!({"err": "gone"}),
        ),
    ] {
        assert_eq!(bench.problems(case.clone()).await, [], "{case}");
    }
    let trapped = json!({
        "call": "test:caller/api.ask", "arguments": [1],
        "imports": [{"call": "test:other/api.ask", "fails": {"code": 503, "message": "gone"}}],
        "fails": {"code": 502, "message": "gone"},
    });
    assert_eq!(bench.problems(trapped).await, []);
}

#[tokio::test]
async fn an_import_without_a_stub_and_a_stub_without_a_call_are_named() {
    let bench = bench(CALLER);
    let with = |imports: Value| json!({"call": "test:caller/api.ask", "arguments": [1], "imports": imports, "returns": 7});
    let said = bench.said(with(json!([]))).await;
    assert_eq!(
        said[0],
        "it called test:other/api.ask@1.0.0 with {\"n\":1}: no stub answers that"
    );
    assert!(
        said[1].starts_with("expected 7, got error 502: "),
        "{said:?}"
    );
    let said = bench
        .said(with(
            json!([{"call": "test:other/api.ask", "arguments": [2], "returns": 7}]),
        ))
        .await;
    assert_eq!(
        said[..3],
        [
            "it called test:other/api.ask@1.0.0 with {\"n\":1}: its stub answers other arguments",
            "$.n: 2 / 1",
            "it did not call test:other/api.ask@1.0.0 with {\"n\":2}",
        ]
    );
    let said = bench
        .said(with(json!([
            {"call": "test:other/api.ask", "returns": 7, "times": 3},
            {"call": "test:other/api.try", "returns": {"ok": 7}},
            {"call": "test:other/api.try", "returns": {"ok": 7}, "times": "any"},
        ])))
        .await;
    assert_eq!(
        said,
        [
            "it did not call test:other/api.ask@1.0.0 3 times, but 1",
            "it did not call test:other/api.try@1.0.0",
        ]
    );
    // A stub answers no more calls than it says.
    let twice = json!([{"call": "test:other/api.ask", "returns": 7}]);
    assert_eq!(bench.said(with(twice)).await, Vec::<String>::new());
}

#[tokio::test]
async fn sleeping_moves_the_time_of_a_case_on() {
    let bench = bench(SLEEPER);
    let slept = json!({"call": "api.sleep", "arguments": {"milliseconds": 5}});
    assert_eq!(bench.problems(slept).await, []);
}

#[test]
fn what_does_not_fit_the_types_is_refused_by_its_path() {
    let guest = bench(GUEST);
    let caller = bench(CALLER);
    for (bench, case, why) in [
        (
            &guest,
            json!({"call": "api.echo", "arguments": {"text": 7}, "returns": "7"}),
            "$.cases[0].arguments.text: expected string, found 7",
        ),
        (
            &guest,
            json!({"call": "api.echo", "arguments": {"texd": "a"}, "returns": "7"}),
            "$.cases[0].arguments: expected the key text, found \"texd\"",
        ),
        (
            &guest,
            json!({"call": "api.check", "arguments": [1], "returns": {"ok": "1"}}),
            "$.cases[0].returns.ok: expected u32 (0 to 4294967295), found \"1\"",
        ),
        (
            &guest,
            json!({"call": "api.check", "arguments": [1]}),
            "$.cases[0]: neither `returns` nor `fails` says how the call ends; it returns result<u32, u32>",
        ),
        (
            &guest,
            json!({"call": "api.count", "returns": 1, "fails": {"code": 500}}),
            "$.cases[0]: it has both `returns` and `fails`: a call ends in one way",
        ),
        (
            &guest,
            json!({"call": "api.count", "fails": {"code": 418}}),
            "$.cases[0].fails.code: expected one of the codes 202, 400, 404, 413, 429, 500, 502, 503, 504, 508, found 418",
        ),
        (
            &guest,
            json!({"call": "api.count", "returns": 1, "ignore": ["ok"]}),
            "$.cases[0].ignore[0]: expected a path such as `$.lines[*].sku` or `$..orderId`, found \"ok\"",
        ),
        (
            &guest,
            json!({"call": "api.count", "returns": 1, "time": "noon"}),
            "$.cases[0].time: expected a time from 1970 on such as 2026-01-01T12:00:00Z, found \"noon\"",
        ),
        (
            &caller,
            json!({"call": "test:caller/api.try", "arguments": [1], "returns": {"ok": 1},
                "imports": [{"call": "test:other/api.try", "returns": {"ok": -1}}]}),
            "$.cases[0].imports[0].returns.ok: expected u32 (0 to 4294967295), found -1",
        ),
        (
            &caller,
            json!({"call": "test:caller/api.try", "arguments": [1], "returns": {"ok": 1},
                "imports": [{"call": "test:other/api.try", "arguments": ["1"], "returns": {"ok": 1}}]}),
            "$.cases[0].imports[0].arguments[0]: expected u32 (0 to 4294967295), found \"1\"",
        ),
        (
            &caller,
            json!({"call": "test:caller/api.try", "arguments": [1], "returns": {"ok": 1},
                "imports": [{"call": "other/api.tri", "returns": {"ok": 1}}]}),
            "$.cases[0].imports[0].call: the component imports no function `other/api.tri`",
        ),
    ] {
        let refused = bench.refused(case);
        assert!(refused[0].starts_with(why), "{refused:?}");
    }
    let unknown = guest.refused(json!({"call": "api.cont", "returns": 1}));
    assert!(
        unknown[0].starts_with(
            "$.cases[0].call: the component exports no function `api.cont`; did you mean `api.count`?; it exports test:guest/api.check@1.0.0, "
        ),
        "{unknown:?}"
    );
}

#[test]
fn the_files_of_an_app_are_found_by_service() {
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path();
    assert_eq!(cases::files(app).unwrap(), []);
    for file in [
        "b.json",
        "a/two.json",
        "a/one.json",
        "a/notes.md",
        "README.md",
    ] {
        let path = app.join("tests").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "{}").unwrap();
    }
    let found = cases::files(app).unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|(service, file)| (&**service, file.strip_prefix(app).unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("a", Path::new("tests/a/one.json")),
            ("a", Path::new("tests/a/two.json")),
            ("b", Path::new("tests/b.json")),
        ]
    );
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.json");
    std::fs::File::create(&file)
        .unwrap()
        .set_len(cases::MAX_BYTES + 1)
        .unwrap();
    let error = Cases::read(&file).unwrap_err().to_string();
    assert!(
        error.ends_with("large.json: $: it cannot be read: it has more than 67108864 bytes"),
        "{error}"
    );
}
