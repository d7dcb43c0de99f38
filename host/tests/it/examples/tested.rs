//! The cases of the shop's services, run by the command line.

use std::process::Command;
use std::sync::PoisonError;

use serde_json::Value;

use super::{BUILDING, CACHE, manifest, read, root};
use crate::support::cli::Cli;

#[test]
fn shop_passes_its_cases() {
    let cli = Cli::new().with(&[("wasmbay.toml", &manifest("shop"))]);
    let services = [
        "catalog",
        "inventory",
        "notifications",
        "orders",
        "payment",
        "sales",
    ];
    for service in services {
        let file = format!("tests/{service}.json");
        cli.write(&file, read(&format!("examples/shop/{file}")));
    }
    let _one = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmbay"));
    command
        .args(["test", "--output", "json", "--cache", CACHE])
        .current_dir(cli.path(""))
        .env("WASMBAY_TOOLS", root().join(".tools"))
        .env_remove("RUST_LOG");
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    let tested: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (name, tested) in services.iter().zip(tested["services"].as_array().unwrap()) {
        assert_eq!(tested["service"], *name);
        assert!(tested["cases"].as_array().unwrap().len() >= 2, "{tested}");
        // Those that have some.
        let units = ["inventory", "payment"].contains(name);
        assert_eq!(tested["unitTests"].is_object(), units, "{tested}");
    }
}
