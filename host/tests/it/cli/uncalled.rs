//! Components that nothing can call, or that nothing leads to.

use super::session;
use crate::support::cli::{Cli, assert_seen};

/// Components without anything that can be called, each in its way.
const UNCALLABLE: &str = r#"
name = "demo"

[service.command]
component = "command.wat"

[service.empty]
component = "empty.wat"

[service.loose]
component = "loose.wat"

[service.types]
component = "types.wat"
"#;

const COMMAND: &str = r#"
(component
  (core module $code (func (export "run") (result i32) (i32.const 0)))
  (core instance $core (instantiate $code))
  (func $run (result (result)) (canon lift (core func $core "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))
"#;

const LOOSE: &str = r#"
(component
  (core module $code (func (export "greet")))
  (core instance $core (instantiate $code))
  (func (export "greet") (canon lift (core func $core "greet"))))
"#;

const TYPES: &str = r#"
(component
  (type $sku string)
  (instance $types (export "sku" (type $sku)))
  (export "shop:types/types@1.0.0" (instance $types)))
"#;

#[test]
fn what_cannot_be_called_is_no_service() {
    let cli = Cli::new().with(&[
        ("wasmbay.toml", UNCALLABLE),
        ("command.wat", COMMAND),
        ("empty.wat", "(component)"),
        ("loose.wat", LOOSE),
        ("types.wat", TYPES),
    ]);
    let (check, up) = (cli.run(&["check"]), cli.run(&["up"]));
    assert!(
        up.contains("service \"command\": nothing of it can be called"),
        "{up}"
    );
    assert!(
        !up.contains("is ready") && up.ends_with("[exit 78]"),
        "{up}"
    );
    let inspect = cli.run(&["inspect", "loose.wat"]);
    assert_seen!(cli, "uncallable", [check, inspect].join("\n\n"));
}

/// Takes HTTP requests, and answers none of them.
const WEB: &str = r#"
(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $out))
  (core module $code (func (export "handle") (param i32 i32)))
  (core instance $core (instantiate $code))
  (func $handle (param "request" (own $request)) (param "response-out" (own $out))
    (canon lift (core func $core "handle")))
  (instance $handler (export "handle" (func $handle)))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))
"#;

#[test]
fn an_http_component_without_a_route_is_warned_of() {
    let app = "name = \"demo\"\n\n[service.web]\ncomponent = \"web.wat\"\n";
    let cli = Cli::new().with(&[("wasmbay.toml", app), ("web.wat", WEB)]);
    assert_seen!(
        cli,
        "no_route",
        session(&cli, &[&["check"], &["check", "--output", "json"]])
    );
    let up = cli.up(&["--no-watch"]);
    up.until("service \"web\": answers HTTP, but no route leads to it");
    up.stop();
    cli.write(
        "wasmbay.toml",
        format!("{app}\n[[route]]\npath = \"/*\"\nservice = \"web\"\n"),
    );
    let passes = cli.run(&["check"]);
    assert!(!passes.contains("warning"), "{passes}");
}
