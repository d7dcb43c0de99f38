//! A component that was made with the SDK of Spin runs as it is.

use std::collections::BTreeSet;

use crate::examples::{Example, root};
use crate::support::cli::Cli;

fn manifest(grants: &str) -> String {
    let guest = root().join("guests/rust/spin");
    let guest = guest.display();
    format!(
        r#"
name = "spin"

[service.spin]
component = "{guest}"
grants = {grants}
config = {{ greeting = "hello", api_url = "https://example.com" }}

[[route]]
path = "/*"
service = "spin"
"#
    )
}

fn answered(spin: &Example, method: &str, path: &str, body: &str) -> (u16, String) {
    let response = spin.send(method, path, body);
    (response.status, response.body)
}

#[test]
fn keys_and_variables_of_a_spin_component_are_the_services_data_and_configuration() {
    let manifest = manifest("{ keyvalue = true }");
    let spin = Example::run(Cli::new().with(&[("wasmbay.toml", &manifest)]));
    let done = |body: &str| (200, body.to_owned());
    let failed = |why: &str| (500, why.to_owned());

    assert_eq!(answered(&spin, "GET", "/key/a", ""), (404, String::new()));
    assert_eq!(answered(&spin, "PUT", "/key/a", "1"), done(""));
    assert_eq!(answered(&spin, "PUT", "/key/b/c", "2"), done(""));
    assert_eq!(answered(&spin, "GET", "/key/b/c", ""), done("2"));
    assert_eq!(answered(&spin, "GET", "/exists/a", ""), done("true"));
    assert_eq!(answered(&spin, "GET", "/keys", ""), done("a\nb/c"));
    assert_eq!(answered(&spin, "DELETE", "/key/a", ""), done(""));
    assert_eq!(answered(&spin, "GET", "/exists/a", ""), done("false"));
    assert_eq!(answered(&spin, "GET", "/open/default", ""), done(""));
    assert_eq!(
        answered(&spin, "GET", "/open/other", ""),
        failed("Error::NoSuchStore")
    );

    assert_eq!(
        answered(&spin, "GET", "/variables/greeting", ""),
        done("hello")
    );
    assert_eq!(
        answered(&spin, "GET", "/variables/api_url", ""),
        done("https://example.com")
    );
    assert_eq!(
        answered(&spin, "GET", "/variables/other", ""),
        failed("Error::Undefined(\"`config` of the service has no `other`\")")
    );
    assert_eq!(
        answered(&spin, "GET", "/variables/Other", ""),
        failed("Error::InvalidName(\"`Other` is no name of a variable\")")
    );

    // More keys than a page has come at once, up to a bound.
    let name = |n: u32| format!("{n:04}{}", "k".repeat(600));
    let wanted: BTreeSet<_> = (0..1_050).map(name).collect();
    for name in &wanted {
        assert_eq!(
            answered(&spin, "PUT", &format!("/key/{name}"), "x"),
            done("")
        );
    }
    let (status, keys) = answered(&spin, "GET", "/keys", "");
    assert_eq!(status, 200, "{keys}");
    let keys: BTreeSet<_> = keys.lines().map(str::to_owned).collect();
    assert!(keys.is_superset(&wanted));
    for n in 1_050..1_700 {
        assert_eq!(
            answered(&spin, "PUT", &format!("/key/{}", name(n)), "x"),
            done("")
        );
    }
    let why = "the keys together exceed 1048576 bytes; list them in pages by wasi:keyvalue/store";
    assert_eq!(
        answered(&spin, "GET", "/keys", ""),
        failed(&format!("Error::Other(\"{why}\")"))
    );
    spin.stop();
}

#[test]
fn a_spin_component_without_the_grant_has_no_store() {
    let manifest = manifest("{}");
    let spin = Example::run(Cli::new().with(&[("wasmbay.toml", &manifest)]));
    assert_eq!(
        answered(&spin, "GET", "/keys", ""),
        (500, "Error::AccessDenied".to_owned())
    );
    spin.stop();
}
