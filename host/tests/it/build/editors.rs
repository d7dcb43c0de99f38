//! What editors find after a build, by the checkers that they use: nothing is wrong in a new service, and a mistake in it is
//! seen by the types of its WIT.

use std::process::{Command, Output};

use super::*;

/// A new service after its first build.
fn built(language: Language) -> (tempfile::TempDir, std::path::PathBuf) {
    let root = tempfile::tempdir().unwrap();
    scaffold(language, "hello-you", root.path()).unwrap();
    let folder = root.path().join("hello-you/hello-you");
    build(&Guest::open(&folder).unwrap()).unwrap();
    (root, folder)
}

fn tool(name: &str, folder: &Path) -> Command {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../.tools/bin")
        .join(name);
    assert!(own.exists(), "no {name}: run `guests/tools.sh editors`");
    let mut command = Command::new(own);
    command.current_dir(folder);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Has the checker look at the service as it is, and with a part of a file replaced.
fn checks(
    folder: &Path,
    mut checker: impl FnMut() -> Command,
    (file, from, to): (&str, &str, &str),
    mistake: &str,
) {
    let output = checker().output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let path = folder.join(file);
    let source = fs::read_to_string(&path).unwrap();
    assert!(source.contains(from), "{source}");
    fs::write(&path, source.replace(from, to)).unwrap();
    let output = checker().output().unwrap();
    let said = said(&output);
    assert!(!output.status.success() && said.contains(mistake), "{said}");
}

#[test]
fn typescript_is_checked_by_the_types_of_the_wit() {
    let (_root, folder) = built(Language::TypeScript);
    let to = "import * as own from 'demo:hello-you/greetings@0.1.0';\n\
        export const greetings: typeof own = {\n  greet(who: number)";
    checks(
        &folder,
        || {
            let mut command = tool("tsc", &folder);
            command.args(["--noEmit", "-p", "tsconfig.json"]);
            command
        },
        (
            "index.ts",
            "export const greetings = {\n  greet(who: string)",
            to,
        ),
        "Type 'string' is not assignable to type 'number'",
    );
}

#[test]
fn javascript_is_checked_by_the_types_of_the_wit() {
    let (_root, folder) = built(Language::JavaScript);
    let to = "/** @type {import('demo:hello-you/greetings@0.1.0')} */\n\
        export const greetings = {\n  greet(who) {\n    return 1;";
    checks(
        &folder,
        || {
            let mut command = tool("tsc", &folder);
            command.args(["--noEmit", "-p", "jsconfig.json"]);
            command
        },
        ("index.js", "export const greetings = {\n  greet(who) {", to),
        "is not assignable to type",
    );
}

#[test]
fn python_is_checked_by_the_types_of_the_wit() {
    let (_root, folder) = built(Language::Python);
    checks(
        &folder,
        || tool("pyright", &folder),
        ("app.py", "who: str) -> str", "who: int) -> str"),
        "reportIncompatibleMethodOverride",
    );
}

#[test]
fn go_is_checked_by_the_bindings_beside_it() {
    let (_root, folder) = built(Language::Go);
    checks(
        &folder,
        || {
            let own = tools().find(wasmbay::build::Tool::Go).unwrap();
            let mut command = Command::new(own);
            command.current_dir(&folder).env("GOWORK", "off");
            // Not for a component: so gopls looks at it.
            command.args(["vet", "-unsafeptr=false", "./..."]);
            command
        },
        (
            "export_demo_hello_you_greetings/greetings.go",
            "func Greet(who string) string {\n\treturn \"Hello, \" + who",
            "func Greet(who []byte) string {\n\treturn \"Hello, \" + string(who)",
        ),
        "cannot use",
    );
}

#[test]
fn rust_is_checked_by_the_bindings_of_its_macro() {
    let (_root, folder) = built(Language::Rust);
    checks(
        &folder,
        || {
            let mut command = Command::new("cargo");
            // As rust-analyzer does, for this machine.
            command.current_dir(&folder).args(["check", "--quiet"]);
            command.env("CARGO_TARGET_DIR", folder.join("target"));
            command
        },
        ("src/lib.rs", "fn greet(who: String)", "fn greet(who: u8)"),
        "incompatible type for trait",
    );
}

#[test]
fn c_is_checked_as_its_compilation_database_says() {
    let (_root, folder) = built(Language::C);
    let config = fs::read_to_string(folder.join(".clangd")).unwrap();
    assert!(
        config.contains("CompilationDatabase: .wasmbay/c"),
        "{config}"
    );
    let database = fs::read(folder.join(".wasmbay/c/compile_commands.json")).unwrap();
    let database: Vec<serde_json::Value> = serde_json::from_slice(&database).unwrap();
    let entry = database
        .iter()
        .find(|entry| entry["file"].as_str().unwrap().ends_with("hello-you.c"))
        .unwrap();
    let arguments = entry["arguments"].as_array().unwrap();
    let arguments: Vec<_> = arguments
        .iter()
        .map(|argument| argument.as_str().unwrap())
        .collect();
    assert_eq!(arguments[..2], ["clang", "--target=wasm32-wasi"]);
    let compiler = tools().find(wasmbay::build::Tool::WasmCc).unwrap();
    let zig = compiler.ends_with("zig");
    checks(
        &folder,
        || {
            let mut command = Command::new(&compiler);
            command.current_dir(entry["directory"].as_str().unwrap());
            command.args(zig.then_some("cc"));
            command.arg("-fsyntax-only").args(&arguments[1..]);
            command
        },
        ("hello-you.c", "ret->len =", "ret->length ="),
        "no member named 'length'",
    );
}
