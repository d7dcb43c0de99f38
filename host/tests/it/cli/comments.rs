//! The documentation comments of an app's WIT, in what describes the app.

use std::process::Output;

use serde_json::Value;

use crate::support::cli::Cli;
use crate::support::components::GUEST;

const MANIFEST: &str = "name = \"app\"\n[service.guest]\ncomponent = \"guest.wat\"\n";

const WIT: &str = "
package test:guest@1.0.0;

/// What guests can do.
interface api {
    /// Says it again. Every
    /// word of it.
    echo: func(text: string) -> string;
    /// Of another type.
    count: func() -> string;
}
";

fn app() -> Cli {
    Cli::new().with(&[("wasmbay.toml", MANIFEST), ("guest.wat", GUEST)])
}

/// What `openapi` prints, and what it says beside.
fn openapi(cli: &Cli) -> (Value, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = cli.command(&["openapi"]).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{stderr}");
    (serde_json::from_slice(&stdout).unwrap(), stderr)
}

fn operation<'d>(document: &'d Value, function: &str) -> &'d Value {
    &document["paths"][format!("/rpc/test:guest/api@1.0.0/{function}")]["post"]
}

#[test]
fn functions_have_their_comments() {
    let cli = app().with(&[("wit/guest.wit", WIT)]);
    let (document, _) = openapi(&cli);
    let echo = operation(&document, "echo");
    assert_eq!(echo["summary"], "Says it again.");
    assert_eq!(echo["description"], "Says it again. Every\nword of it.");
    let count = operation(&document, "count");
    assert_eq!(count["summary"], "test:guest/api.count@1.0.0");
    assert_eq!(count.get("description"), None);
    // Another version of the package says nothing.
    cli.write("wit/guest.wit", WIT.replace("1.0.0", "1.0.1"));
    let (document, said) = openapi(&cli);
    assert_eq!(operation(&document, "echo").get("description"), None);
    assert!(!said.contains("warning"), "{said}");
}

#[test]
fn proto_files_have_comments() {
    let cli = app().with(&[("wit/guest.wit", WIT)]);
    let printed = cli.command(&["proto"]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let service = "\n// What guests can do.\nservice Api {\n";
    assert!(printed.contains(service), "{printed}");
    let echo = "\n  // Says it again. Every\n  // word of it.\n  rpc Echo(";
    assert!(printed.contains(echo), "{printed}");
    assert!(!printed.contains("Of another type"), "{printed}");
}

#[test]
fn wit_that_does_not_parse_is_a_warning() {
    let (without, _) = openapi(&app());
    let cli = app().with(&[("wit/guest.wit", "package test:guest@1.0.0;\ninterface {}")]);
    let (document, said) = openapi(&cli);
    assert_eq!(document, without);
    assert!(
        said.contains("warning: no documentation comments: "),
        "{said}"
    );
    assert!(said.contains("guest.wit:2:"), "{said}");
}

#[test]
fn comments_beyond_their_bound_are_left_out() {
    let long = "x".repeat(wasmbay::plan::MAX_DOCS);
    let long = WIT.replace("Says it again.", &long);
    let cli = app().with(&[("wit/guest.wit", &long)]);
    let (document, said) = openapi(&cli);
    assert_eq!(operation(&document, "echo").get("description"), None);
    assert!(said.contains("more than 262144 bytes"), "{said}");
}
