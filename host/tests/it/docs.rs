//! The documentation agrees with the code.

use std::path::{Path, PathBuf};

use wasmbay::build::{Language, scaffold};
use wasmbay::call::{CODES, Code};
use wasmbay::cases::Cases;
use wasmbay::interface::FunctionId;
use wasmbay::manifest::{self, Manifest};
use wasmbay::{subject, wire};

use crate::support::cli::Cli;
use crate::support::shown::curls;

/// The line of a document after which the code writes.
const MARK: &str = "-->\n\n";

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

/// Compares the reference that the code writes with the end of a document, or updates the document.
fn check(name: &str, reference: &str) {
    let path = document(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let (prose, written) = text.split_once(MARK).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{prose}{MARK}{reference}")).unwrap();
    } else {
        assert_eq!(
            written, reference,
            "docs/{name} is out of date: UPDATE_DOCS=1 cargo test -p wasmbay --test it docs"
        );
    }
}

#[test]
fn the_manifest_reference_is_the_table_of_keys() {
    check("manifest.md", &manifest::reference());
}

#[test]
fn the_interfaces_are_those_of_the_code() {
    check("interfaces.md", &wasmbay::interfaces::reference());
}

/// The verbs that a help text lists.
fn verbs_in(help: &str) -> Vec<String> {
    let Some((_, verbs)) = help.split_once("Commands:\n") else {
        return Vec::new();
    };
    let verbs = verbs.lines().take_while(|line| !line.is_empty());
    // What is indented further goes on with what a verb does.
    let verbs = verbs.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    verbs
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_command_line_reference_is_the_help() {
    let cli = Cli::new();
    let help = |args: &[&str]| {
        let output = cli.command(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let main = help(&["--help"]);
    let mut reference = format!("```text\n{}\n```\n", main.trim_end());
    let verbs = verbs_in(&main);
    for verb in verbs.iter().filter(|verb| *verb != "help") {
        let text = help(&[verb, "--help"]);
        reference.push_str(&format!(
            "\n## `wasmbay {verb}`\n\n```text\n{}\n```\n",
            text.trim_end()
        ));
        for below in verbs_in(&text).iter().filter(|below| *below != "help") {
            let help = help(&[verb, below, "--help"]);
            reference.push_str(&format!(
                "\n### `wasmbay {verb} {below}`\n\n```text\n{}\n```\n",
                help.trim_end()
            ));
        }
    }
    check("cli.md", &reference);
}

#[test]
fn the_manifests_shown_are_accepted() {
    for path in [
        "manifest.md",
        "events.md",
        "messaging.md",
        "pipelines.md",
        "jobs.md",
        "interfaces.md",
        "registries.md",
        "databases.md",
    ]
    .map(document)
    {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut shown = 0;
        for block in text.split("```toml\n").skip(1) {
            let manifest = block.split("```").next().unwrap();
            Manifest::parse(&path, manifest).unwrap_or_else(|error| panic!("{error}"));
            shown += 1;
        }
        assert!(shown > 0);
    }
}

#[test]
fn the_cases_shown_can_be_read() {
    let text = std::fs::read_to_string(document("testing.md")).unwrap();
    let shown = blocks(&text, "json");
    assert!(!shown.is_empty());
    let folder = tempfile::tempdir().unwrap();
    for block in shown {
        let file = folder.path().join("shown.json");
        std::fs::write(&file, block).unwrap();
        Cases::read(&file).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_manifests_of_the_examples_are_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut loaded = 0;
    for example in std::fs::read_dir(folder).unwrap() {
        let example = example.unwrap().path();
        if example.join("wasmbay.toml").exists() {
            Manifest::load(&example).unwrap_or_else(|error| panic!("{error}"));
            loaded += 1;
        }
    }
    assert!(loaded > 0);
}

#[test]
fn the_wire_reference_is_what_the_code_does() {
    let text = std::fs::read_to_string(document("wire.md")).unwrap();
    let rows = |columns: usize| {
        text.lines().filter_map(move |line| {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            (line.starts_with('|') && cells.len() == columns).then_some(cells)
        })
    };

    let subjects: Vec<_> = rows(3)
        .filter(|cells| cells[2].starts_with("`bay."))
        .collect();
    assert_eq!(subjects.len(), 5);
    for cells in subjects {
        let [function, app, subject] = [0, 1, 2].map(|i| cells[i].trim_matches('`'));
        let function: FunctionId = function.parse().unwrap();
        assert_eq!(subject::of_function(app, &function), subject);
    }

    let codes: Vec<_> = rows(2)
        .filter_map(|cells| cells[0].parse::<u16>().ok())
        .collect();
    assert_eq!(codes, CODES.map(Code::status));

    for header in [
        wire::CONTENT_TYPE,
        wire::DEADLINE,
        wire::HOPS,
        wire::CALLER,
        wire::STEP,
        wire::MESSAGE_ID,
        wire::TRACEPARENT,
        wire::TRACESTATE,
        wire::BAGGAGE,
        wire::ERROR,
        wire::ERROR_CODE,
    ] {
        assert!(
            text.contains(&format!("`{header}`")),
            "{header} is not described"
        );
    }
    assert!(text.contains(&format!("queue group `{}`", subject::QUEUE_GROUP)));
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in [
        "host/ARCHITECTURE.md",
        "docs/wire.md",
        "docs/events.md",
        "docs/messaging.md",
        "docs/guests.md",
        "docs/jobs.md",
        "docs/databases.md",
        "docs/testing.md",
        "docs/fleet.md",
        "docs/deploy.md",
        "docs/nats.md",
        "docs/registries.md",
        "README.md",
    ] {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        for word in text.split(['`', ' ', '(', ')', '\n', '|']) {
            let ours = ["host/", "docs/", "guests/", "examples/", "wit/"];
            if ours.iter().any(|start| word.starts_with(start)) && !word.contains(['<', '*', '…'])
            {
                let path = root.join(word.trim_end_matches(['.', ',', ':', ';']));
                assert!(path.exists(), "{name} names {word}");
            }
        }
    }
}

fn readme() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join("README.md")).unwrap()
}

/// The blocks of the README in a language.
fn blocks(readme: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    readme
        .split(&start)
        .skip(1)
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_readmes_commands_exist() {
    let readme = readme();
    let output = Cli::new().command(&["--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let makefile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Makefile");
    let makefile = std::fs::read_to_string(makefile).unwrap();
    // Blocks and quoted words alike stand between an odd backtick and an even one.
    let code = || readme.split('`').skip(1).step_by(2).flat_map(str::lines);
    let shown = |program: &str| -> Vec<String> {
        code()
            .filter_map(|line| line.trim_start_matches("$ ").strip_prefix(program))
            .map(|rest| rest.split_whitespace().next().unwrap().to_owned())
            .collect()
    };
    let verbs = shown("wasmbay ");
    for verb in &verbs {
        assert!(help.contains(&format!("\n  {verb} ")), "wasmbay {verb}");
    }
    for verb in help.split("Commands:\n").nth(1).unwrap().lines() {
        match verb.split_whitespace().next() {
            None => break,
            Some("help") => {}
            Some(verb) => assert!(verbs.iter().any(|shown| shown == verb), "{verb}"),
        }
    }
    let targets = shown("make ");
    assert!(targets.len() >= 2);
    for target in targets {
        assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
    }
}

#[test]
fn the_readme_shows_what_the_demo_prints() {
    let tried = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop/try.txt");
    let tried = std::fs::read_to_string(tried).unwrap();
    let tried: Vec<_> = tried
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("curl "))
        .collect();
    let shown = curls(&readme());
    let shown: Vec<_> = shown.iter().map(|curl| curl.line.as_str()).collect();
    assert_eq!(shown, tried);
}

#[test]
fn the_readmes_manifest_is_accepted() {
    let manifests = blocks(&readme(), "toml");
    assert_eq!(manifests.len(), 1);
    Manifest::parse(Path::new("README.md"), &manifests[0])
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_readmes_first_services_are_what_new_writes() {
    let readme = readme();
    for (language, block, files) in [
        (Language::Python, "wit", &["wit/world.wit"][..]),
        (
            Language::Python,
            "python",
            &["hello/app.py", "hello/test_app.py"],
        ),
        (Language::Rust, "rust", &["hello/src/lib.rs"]),
        (
            Language::Go,
            "go",
            &[
                "hello/export_demo_hello_greetings/greetings.go",
                "hello/export_demo_hello_greetings/greetings_test.go",
            ],
        ),
        (
            Language::TypeScript,
            "typescript",
            &["hello/index.ts", "hello/index.test.ts"],
        ),
        (Language::C, "c", &["hello/hello.c", "hello/tests/greet.c"]),
        (Language::C, "json", &["tests/hello.json"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        scaffold(language, "hello", folder.path()).unwrap();
        let app = folder.path().join("hello");
        let written = files
            .iter()
            .map(|file| std::fs::read_to_string(app.join(file)).unwrap());
        let written: Vec<_> = written.collect();
        assert_eq!(blocks(&readme, block), written, "{files:?}");
    }
}
