//! Certificates of the gateway.

use super::{accepted, problem};
use crate::manifest::ClientCertificate;

const PAIR: &str = "certificate = 'a.pem'\nkey = 'a.key'\n";

#[test]
fn clients_need_a_certificate_where_their_authority_is_named() {
    let client = |lines: &str| {
        let app = accepted(&format!("[gateway.tls]\n{PAIR}{lines}"));
        app.gateway.tls.unwrap().client
    };
    assert_eq!(client(""), ClientCertificate::None);
    assert_eq!(client("client-ca = 'ca.pem'"), ClientCertificate::Required);
    let optional = client("client-ca = 'ca.pem'\nclient = 'optional'");
    assert_eq!(optional, ClientCertificate::Optional);
    assert_eq!(accepted("").gateway.tls, None);
}

#[test]
fn certificates_are_checked() {
    for (lines, why) in [
        (
            "certificate = 'a.pem'\n",
            "4:10: gateway: tls: `key` is missing; accepted: a path to a PEM file",
        ),
        (
            "key = 'a.key'\n",
            "4:10: gateway: tls: `certificate` is missing; accepted: a path to a PEM file",
        ),
        (
            &format!("{PAIR}client = 'required'"),
            "7:1: gateway: tls: `client` needs `client-ca`, which says whose certificates are taken",
        ),
        (
            &format!("{PAIR}client = 'maybe'"),
            "7:10: gateway: tls: `client` is 'maybe'; accepted: none, optional, required",
        ),
        (
            &format!("{PAIR}cert = 'x'"),
            "7:1: gateway: tls: unknown key `cert` (accepted: certificate, key, client-ca, client)",
        ),
    ] {
        assert_eq!(problem(&format!("[gateway.tls]\n{lines}")), why);
    }
}
