use super::*;

#[test]
fn variables_are_texts_by_name() {
    let app = accepted(
        "env = { LEVEL = 'debug', SHELVES = 1_200, RATIO = 1.50, OPEN = true, 'a b' = 'x=y' }",
    );
    let env = &app.services["a"].env;
    let env: Vec<_> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        env,
        [
            "LEVEL=debug",
            "OPEN=true",
            "RATIO=1.50",
            "SHELVES=1200",
            "a b=x=y"
        ]
    );
}

#[test]
fn arguments_are_texts_up_to_a_bound() {
    let args = |args: &str| {
        accepted(&format!("args = {args}")).services["a"]
            .args
            .clone()
    };
    assert_eq!(args("['-v', '']"), ["-v", ""]);
    let most = "x".repeat(64 << 10);
    assert_eq!(args(&format!("['{most}']")).concat(), most);
    assert_eq!(
        problem(&format!("args = ['{most}', 'x']")),
        "4:1: service \"a\": `args` has 65537 bytes; accepted: 64KiB in all"
    );
    assert_eq!(
        problem("args = ['a', \"b\\u0000\"]"),
        "4:14: service \"a\": `args`: an argument has a NUL; accepted: texts without one"
    );
    let odd = problem("args = [1]");
    assert!(odd.contains("texts without NUL, 64KiB in all"), "{odd}");
}

#[test]
fn folders_of_files_are_within_the_manifests() {
    let app = accepted("grants = { files = ['templates', 'data/é b'] }");
    let files = app.services["a"].grants.files.iter();
    let files: Vec<_> = files.map(FolderName::as_str).collect();
    assert_eq!(files, ["templates", "data/é b"]);
    for name in [
        "", ".", "..", "/etc", "a/../..", "a//b", "a/", "a\\b", "a/./b",
    ] {
        let why = problem(&format!("grants = {{ files = ['{name}'] }}"));
        assert!(why.contains("is no folder within the manifest's"), "{why}");
    }
    let many = "'a', ".repeat(17);
    let why = problem(&format!("grants = {{ files = [{many}] }}"));
    assert!(
        why.ends_with("`files` has 17 folders; accepted: 16"),
        "{why}"
    );
}

#[test]
fn what_no_environment_can_hold_is_refused() {
    let accepted = "strings, numbers and booleans by name, 64KiB in all, nothing nested; no `=` in a name and no NUL";
    assert_eq!(
        problem("env = { A = [1] }"),
        format!("4:13: service \"a\": `env.A` is [1]; accepted: {accepted}")
    );
    assert_eq!(
        problem("env = ['A=1']"),
        format!("4:7: service \"a\": `env` is ['A=1']; accepted: {accepted}")
    );
    assert_eq!(
        problem("env = { A = \"\\u0000\" }"),
        format!("4:13: service \"a\": `env.A` is \"\\u0000\"; accepted: {accepted}")
    );
    for (name, shown) in [("'A=B'", "A=B"), ("''", ""), ("\"\\u0000\"", "\\u{0}")] {
        assert_eq!(
            problem(&format!("env = {{ {name} = 1 }}")),
            format!(
                "4:9: service \"a\": `env`: `{shown}` is no name of a variable; accepted: a text without `=` and NUL"
            )
        );
    }
}

#[test]
fn an_environment_is_bounded() {
    let of = |bytes: usize| format!("env = {{ A = '{}' }}", "x".repeat(bytes));
    accepted(&of((64 << 10) - 1));
    assert_eq!(
        problem(&of(64 << 10)),
        "4:1: service \"a\": `env` has 65537 bytes of names and values; accepted: 64KiB in all"
    );
}

#[test]
fn a_service_chooses_who_answers_what_it_imports() {
    let app =
        accepted("wire = { 'a:b/c' = 'b', 'a:b/d@1.2.0' = 'b' }\n[service.b]\ncomponent = 'b'");
    let chosen = |interface: &str| {
        let interface = interface.parse().unwrap();
        app.services["a"].exporter_of(&interface).map(str::to_owned)
    };
    assert_eq!(chosen("a:b/c@3.0.0").as_deref(), Some("b"));
    assert_eq!(chosen("a:b/d@1.0.0").as_deref(), Some("b"));
    assert_eq!(chosen("a:b/d@2.0.0"), None);
    assert!(app.services["b"].wires.is_empty());
}

#[test]
fn a_choice_that_cannot_be_one_is_refused() {
    assert_eq!(
        problem("wire = { 'a:b/c' = 'a' }"),
        "4:10: service \"a\": `wire`: the service would call itself for `a:b/c`; accepted: another service that exports it"
    );
    assert_eq!(
        problem("wire = { 'a:b/c' = 'catalo' }\n[service.catalog]\ncomponent = 'b'"),
        "4:10: service \"a\": there is no service `catalo`; did you mean `catalog`? (services: a, catalog)"
    );
    assert_eq!(
        problem("wire = { 'a:b' = 'b' }\n[service.b]\ncomponent = 'b'"),
        "4:10: service \"a\": `wire`: `a:b` is not an interface such as `acme:stock/reserve@1.0.0`"
    );
    assert_eq!(
        problem("wire = { 'a:b/c' = 'b', 'a:b/c@1.0.0' = 'b' }\n[service.b]\ncomponent = 'b'"),
        "4:25: service \"a\": `wire`: `a:b/c` is wired already; keep one of the two"
    );
    assert_eq!(
        problem("wire = { 'a:b/c' = true }"),
        "4:20: service \"a\": `wire.a:b/c` is true; accepted: `[service.NAME.wire]` with \
         `\"namespace:package/interface\" = \"SERVICE\"`"
    );
}

#[test]
fn what_is_not_journaled_is_not_granted_to_a_service_with_durable_functions() {
    for key in ["tcp", "udp"] {
        let why = problem(&format!(
            "durable = ['a:b/c.d']\ngrants = {{ {key} = ['a:1'] }}"
        ));
        let start =
            format!("5:1: service \"a\": `grants.{key}`: what goes over sockets is not journaled");
        assert!(why.starts_with(&start), "{why}");
    }
    let why = problem("durable = ['a:b/c.d']\ngrants = { blobstore = true }");
    let start =
        "5:1: service \"a\": `grants.blobstore`: what is done with objects is not journaled";
    assert!(why.starts_with(start), "{why}");
    let why = problem("durable = ['a:b/c.d']\ngrants = { files = ['a'] }");
    let start = "5:1: service \"a\": `grants.files`: what is read from files is not journaled";
    assert!(why.starts_with(start), "{why}");
    let why = problem("grants = { tcp = ['a'] }");
    assert!(why.contains("`tcp`: `a` is no host with a port"), "{why}");
}

#[test]
fn durable_functions_are_names_of_functions() {
    let why = problem("durable = ['a:b/c']");
    assert!(
        why.starts_with("4:12: service \"a\": `durable`: `a:b/c` is not"),
        "{why}"
    );
    let why = problem("durable = ['a:b/c.d', 'a:b/e.d']");
    assert!(why.contains("would have one name"), "{why}");
    let why = problem("durable = { deadline = '1m' }");
    assert!(why.contains("`functions` is missing"), "{why}");
    let why = problem("undo = { 'a:b/c.d' = { call = 'a:b/c.e' } }");
    assert!(
        why.contains("undoes what durable functions call, and the service has none"),
        "{why}"
    );
}
