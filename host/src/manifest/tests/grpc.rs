//! Wires to gRPC services outside.

use super::{accepted, problem};
use crate::manifest::{App, Provider};

#[test]
fn a_wire_to_a_grpc_service_is_read_and_written() {
    let app = accepted(
        "[wire.'a:b/c']\nexternal = 'grpcs://pay.example:443'\nproto-service = 'acme.pay.Pay'\nmethods = { charge = 'ChargeCard' }\n\
         [wire.'a:b/d']\nexternal = 'grpc://[::1]:1'\n",
    );
    let Provider::Grpc(spec) = &app.wires[0].provider else {
        panic!("no gRPC");
    };
    assert_eq!(spec.address.to_string(), "grpcs://pay.example:443");
    assert_eq!(spec.service.as_deref(), Some("acme.pay.Pay"));
    assert_eq!(spec.methods["charge"], "ChargeCard");
    let written = serde_json::to_string(&app).unwrap();
    assert_eq!(serde_json::from_str::<App>(&written).unwrap(), app);
}

#[test]
fn it_is_checked() {
    for (lines, expected) in [
        (
            "[wire.'a:b/c']\nexternal = 'grpc://pay'",
            "5:12: wire \"a:b/c\": `external` is 'grpc://pay'; accepted: `true`, `\"nest\"`, `\"grpc://host:port\"`, `\"grpcs://host:port\"`",
        ),
        (
            "[wire.'a:b/c']\nexternal = 'http://pay:1'",
            "`external` is 'http://pay:1'",
        ),
        (
            "[wire.'a:b/c']\nexternal = true\nmethods = { a = 'A' }",
            "`methods` is for `external = \"grpc://…\"`",
        ),
        (
            "[wire.'a:b/c']\nservice = 'a'\nproto-service = 'a.B'",
            "`proto-service` is for `external = \"grpc://…\"`",
        ),
        (
            "[wire.'a:b/c']\nexternal = 'grpc://a:1'\nproto-service = 'a b'",
            "`proto-service` is 'a b'; accepted: a full name such as",
        ),
        (
            "[wire.'a:b/c']\nexternal = 'grpc://a:1'\nmethods = { a = 'A/B' }",
            "`methods.a`: `A/B` is no name of a method",
        ),
        (
            "[wire.'a:b/c']\nexternal = 'grpc://a:1'\nmethods = { a = 1 }",
            "`methods.a` is 1",
        ),
        (
            "[wire.'a:b/c']\nexternal = 'grpc://a:1'\npatterns = { a = 'b' }",
            "`patterns` is for `external = \"nest\"`",
        ),
        (
            "[wire.'a:b/c']\nexternal = 'grpc://a:1'\nlocal = 'never'",
            "`local` is for interfaces that a service of the app exports",
        ),
    ] {
        let found = problem(lines);
        assert!(found.contains(expected), "{lines}: {found}");
    }
}
