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
        "no {name}: run `guests/tools.sh schemathesis openapi`"
    );
    Command::new(tool)
}

/// Runs a program that has to have nothing to say against what it looks at, and returns what it printed.
fn satisfied(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{error}");
    said
}

/// A client that is made of the document compiles, and gets orders and declined cards by their types.
fn a_generated_client_places_an_order(shop: &Example, cli: &Cli) {
    satisfied(
        tool("openapi-typescript")
            .arg(cli.path("openapi.json"))
            .arg("--output")
            .arg(cli.path("shop.ts")),
    );
    let packages = tool("tsc").get_program().to_owned();
    let packages = PathBuf::from(packages).canonicalize().unwrap();
    let packages = packages
        .ancestors()
        .find(|folder| folder.ends_with("node_modules"));
    std::os::unix::fs::symlink(packages.unwrap(), cli.path("node_modules")).unwrap();
    cli.write("order.ts", include_str!("order.ts"));
    cli.write("package.json", r#"{ "type": "module" }"#);
    satisfied(
        tool("tsc")
            .args(["--strict", "--target", "es2022", "--module", "nodenext"])
            .arg("order.ts")
            .current_dir(cli.path("")),
    );
    let said = satisfied(
        Command::new("node")
            .arg("order.js")
            .arg(format!("http://{}", shop.gateway))
            .current_dir(cli.path("")),
    );
    assert!(said.starts_with("201 string EUR\n402 "), "{said}");
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
        tool("redocly")
            .args(["lint", "--extends", "spec"])
            .arg(cli.path("openapi.json"))
            .env("REDOCLY_TELEMETRY", "off"),
    );
    a_generated_client_places_an_order(&shop, &cli);
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
