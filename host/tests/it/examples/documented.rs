//! The shop's OpenAPI document, by programs of others.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::{CACHE, Example, manifest, root};
use crate::support::cli::Cli;

fn tool(name: &str) -> Command {
    let tool: PathBuf = root().join(".tools/bin").join(name);
    assert!(
        tool.exists(),
        "no {name}: run `guests/tools.sh schemathesis`"
    );
    Command::new(tool)
}

/// Runs a program that has to have nothing to say against what it looks at.
fn satisfied(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{error}");
}

#[test]
fn the_shop_answers_only_what_its_document_allows() {
    let shop = Example::start("shop");
    let served = shop.get("/openapi.json");
    assert_eq!(served.status, 200);
    let served = served.json();
    // What the command prints, and the same for a validator.
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest("shop"))]);
    let printed = cli
        .command(&["openapi", "--cache", CACHE])
        .output()
        .unwrap();
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(printed, served);
    let place = &served["paths"]["/orders"]["post"];
    assert_eq!(place["operationId"], "orders-place");
    for status in ["201", "202", "402", "404", "409", "default"] {
        assert!(
            place["responses"].get(status).is_some(),
            "{status}: {place}"
        );
    }
    cli.write("openapi.json", served.to_string());
    satisfied(tool("openapi-spec-validator").arg(cli.path("openapi.json")));
    satisfied(
        tool("schemathesis")
            .args(["run", &format!("http://{}/openapi.json", shop.gateway)])
            .args([
                "--max-examples",
                "5",
                "--seed",
                "1",
                "--phases",
                "coverage,fuzzing",
            ])
            .args([
                "--checks",
                "status_code_conformance,content_type_conformance,response_schema_conformance",
            ])
            .current_dir(cli.path("")),
    );
    shop.stop();
}
