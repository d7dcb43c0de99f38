//! Environment variables and arguments of a service: those of its manifest, and no others.

use wasmbay::manifest::ServiceSpec;

use crate::service::{Other, guest_on, runtime};

/// Exports `test:environment/api@1.0.0`, whose `all` returns what `wasi:cli/environment` does.
const ENVIRONMENT: &str = r#"
(component
  (import "wasi:cli/environment@0.2.0" (instance $environment
    (export "get-environment" (func (result (list (tuple string string)))))))
  (core module $heap
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 1024))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (local.get $at)))
  (core instance $heap (instantiate $heap))
  (alias core export $heap "memory" (core memory $memory))
  (alias core export $heap "realloc" (core func $realloc))
  (core func $get (canon lower (func $environment "get-environment")
    (memory (core memory $memory)) (realloc (core func $realloc))))
  (core module $code
    (import "wasi" "get" (func $get (param i32)))
    (func (export "all") (result i32)
      (call $get (i32.const 64))
      (i32.const 64)))
  (core instance $core (instantiate $code
    (with "wasi" (instance (export "get" (func $get))))))
  (func $all (result (list (tuple string string)))
    (canon lift (core func $core "all") (memory (core memory $memory))))
  (instance $api (export "all" (func $all)))
  (export "test:environment/api@1.0.0" (instance $api)))
"#;

async fn all(change: impl FnOnce(&mut ServiceSpec)) -> String {
    all_of(ENVIRONMENT, change).await
}

/// The arguments instead.
async fn arguments(change: impl FnOnce(&mut ServiceSpec)) -> String {
    let component = ENVIRONMENT
        .replace("get-environment", "get-arguments")
        .replace("(list (tuple string string))", "(list string)");
    all_of(&component, change).await
}

async fn all_of(component: &str, change: impl FnOnce(&mut ServiceSpec)) -> String {
    let guest = guest_on(&runtime(2), component, Other::Fails, change);
    guest.call("all", "").await.unwrap()
}

#[tokio::test]
async fn a_component_finds_the_variables_of_its_manifest() {
    let given = all(|spec| {
        for (name, value) in [("LEVEL", "debug"), ("ATHENS", "Αθήνα"), ("EMPTY", "")] {
            spec.env.insert(name.to_owned(), value.to_owned());
        }
    });
    assert_eq!(
        given.await,
        r#"[["ATHENS","Αθήνα"],["EMPTY",""],["LEVEL","debug"]]"#
    );
}

#[tokio::test]
async fn without_any_nothing_of_the_hosts_environment_is_there() {
    assert!(std::env::vars_os().next().is_some());
    assert_eq!(all(|_| {}).await, "[]");
}

#[tokio::test]
async fn a_component_finds_the_arguments_of_its_manifest_after_its_name() {
    let given = arguments(|spec| {
        "echo".clone_into(&mut spec.name);
        spec.args = ["--verbose", "", "Αθήνα"].map(str::to_owned).into();
    });
    assert_eq!(given.await, r#"["echo","--verbose","","Αθήνα"]"#);
    assert_eq!(arguments(|_| {}).await, "[]");
}
