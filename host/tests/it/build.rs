//! A new service in each language, built as it is. The tools are those of `guests/tools.sh`.

mod editors;
mod packages;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmbay::build::{BuildError, Guest, Language, Tools, scaffold};
use wasmbay::call::Call;
use wasmbay::cases::{self, Cases};
use wasmbay::interfaces::Backend;
use wasmbay::interfaces::memory::MemoryBackend;
use wasmbay::manifest::ServiceSpec;
use wasmbay::runtime::{Component, Engine, EngineOptions, Runtime, Service};
use wit_component::DecodedWasm;
use wit_parser::{Resolve, WorldId};

/// The tools of this checkout, wherever the guest is.
fn tools() -> Tools {
    Tools::near(Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// The names of what a component exports.
fn exports(component: &Path) -> BTreeSet<String> {
    let bytes = fs::read(component).unwrap();
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&bytes).unwrap() else {
        panic!("{} is no component", component.display());
    };
    names(&resolve, world)
}

fn names(resolve: &Resolve, world: WorldId) -> BTreeSet<String> {
    let exports = &resolve.worlds.get(world).unwrap().exports;
    exports
        .keys()
        .map(|key| resolve.name_world_key(key))
        .collect()
}

fn build(guest: &Guest) -> Result<(), BuildError> {
    let mut said = Vec::new();
    let built = guest.build(&tools(), &mut |line| said.push(line.to_owned()));
    assert!(!said.is_empty(), "no progress was reported");
    assert_eq!(built?, guest.component());
    Ok(())
}

/// The service's last greeting, after it was loaded and called so many times as a host does it.
fn greeting(component: &Path, who: &str, times: u32) -> String {
    greetings(component, who, times, times).pop().unwrap()
}

/// The service's greetings, of instances that serve so many calls each.
fn greetings(component: &Path, who: &str, times: u32, reuse: u32) -> Vec<String> {
    let engine = Engine::new(EngineOptions {
        instances: 20,
        cache: None,
    })
    .unwrap();
    let spec = ServiceSpec {
        reuse,
        ..ServiceSpec::new("hello-you")
    };
    let component = Component::new(&engine, &fs::read(component).unwrap()).unwrap();
    let runtime = Runtime::new(engine).unwrap();
    let service = Service::new(&runtime, "app", Arc::new(component), Arc::new(spec)).unwrap();
    let body = Bytes::from(format!(r#"{{"who":"{who}"}}"#));
    // A service that needs no other one.
    let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let function = service
        .interfaces()
        .find_map(|exported| exported.functions.get("greet"))
        .unwrap();
    let call = || Call::new(body.clone(), Duration::from_secs(60));
    let replies = (0..times).map(|_| {
        let reply = tokio.block_on(service.call(function, call(), &backend));
        String::from_utf8(reply.unwrap().body.to_vec()).unwrap()
    });
    replies.collect()
}

/// Runs the unit tests and the contract case of a new service, and the unit tests again when they expect something
/// else.
fn passes_its_tests(guest: &Guest) {
    let test = || guest.test(&tools(), &mut |_| ()).unwrap().unwrap();
    let tested = test();
    assert!(tested.passed, "{}: {}", tested.runner, tested.output);

    let app = guest.folder.parent().unwrap();
    let files = cases::files(app).unwrap();
    let [(service, file)] = files.as_slice() else {
        panic!("{files:?}")
    };
    let engine = Engine::new(EngineOptions {
        instances: 20,
        cache: None,
    });
    let engine = engine.unwrap();
    let component = Arc::new(Component::load(&engine, &guest.component()).unwrap());
    let runtime = Runtime::new(engine).unwrap();
    let checked = Cases::read(file).unwrap().check(&component.description());
    let spec = ServiceSpec::new(service.as_str());
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for case in checked {
        let case = case.unwrap();
        let run = cases::run(&runtime, "app", &component, &spec, &case);
        assert_eq!(tokio.block_on(run).unwrap(), []);
    }

    let expect = |from: &str, to: &str| {
        let mut changed = 0;
        for file in files_below(&guest.folder) {
            let text = fs::read_to_string(&file).unwrap();
            if text.contains(from) {
                fs::write(&file, text.replace(from, to)).unwrap();
                changed += 1;
            }
        }
        assert_eq!(changed, 1);
    };
    expect("Hello, you!", "Bye, you!");
    let tested = test();
    assert!(!tested.passed, "{}: {}", tested.runner, tested.output);
    assert!(!tested.output.trim().is_empty());
    expect("Bye, you!", "Hello, you!");
}

/// What people wrote in a guest's folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_output = ["target", ".wasmbay", "Cargo.lock", "__pycache__"].contains(&name);
        match (is_output, path.is_dir()) {
            (true, _) => {}
            (false, true) => files.extend(files_below(&path)),
            (false, false) => files.push(path),
        }
    }
    files
}

/// Makes a service, builds it, calls it, builds it again with nothing to do, and breaks it by the
/// replacement: the compiler's message then names the broken file and line.
fn makes_a_component(language: Language, broken: (&str, &str, &str), message: &str) {
    let root = tempfile::tempdir().unwrap();
    let name = "hello-you";
    scaffold(language, name, root.path()).unwrap();
    let folder = root.path().join(name).join(name);
    let guest = Guest::open(&folder).unwrap();
    assert_eq!(guest.language, language);

    build(&guest).unwrap();
    assert!(
        exports(&guest.component()).contains("demo:hello-you/greetings@0.1.0"),
        "{:?}",
        exports(&guest.component())
    );

    assert_eq!(greeting(&guest.component(), "you", 1), r#""Hello, you!""#);
    passes_its_tests(&guest);
    // So much that a garbage collector has to run, also while the host writes the arguments.
    let who = "you".repeat(5_000);
    let said = greeting(&guest.component(), &who, 1_000);
    assert_eq!(said, format!(r#""Hello, {who}!""#));

    let started = Instant::now();
    let mut ran = false;
    guest.build(&tools(), &mut |_| ran = true).unwrap();
    assert!(!ran, "a second build had something to do");
    let fresh = started.elapsed();
    assert!(fresh < Duration::from_secs(1), "{fresh:?}");

    let (file, from, to) = broken;
    let path = folder.join(file);
    let source = fs::read_to_string(&path).unwrap();
    assert!(source.contains(from), "{source}");
    fs::write(&path, source.replace(from, to)).unwrap();
    let error = build(&guest).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
    // What was built before is still there.
    assert!(guest.component().is_file());
}

#[test]
fn a_new_service_in_rust_builds_as_it_is() {
    let broken = ("src/lib.rs", "fn greet(who: String)", "fn greet(who: u8)");
    makes_a_component(Language::Rust, broken, "src/lib.rs:6");
}

#[test]
fn a_new_service_in_go_builds_as_it_is() {
    let file = "export_demo_hello_you_greetings/greetings.go";
    let broken = (file, "return \"Hello, \"", "return 1");
    makes_a_component(Language::Go, broken, "greetings.go:7");
}

#[test]
fn a_new_service_in_typescript_builds_as_it_is() {
    let broken = ("index.ts", "return `", "return return `");
    makes_a_component(Language::TypeScript, broken, "index.ts:3");
}

#[test]
fn a_new_service_in_javascript_builds_as_it_is() {
    let broken = ("index.js", "return `", "return return `");
    makes_a_component(Language::JavaScript, broken, "index.js:3");
}

#[test]
fn a_new_service_in_python_builds_as_it_is() {
    let broken = ("app.py", "return f", "return return f");
    makes_a_component(Language::Python, broken, "app.py\", line 6");
}

#[test]
fn generators_in_python_differ_between_instances() {
    let root = tempfile::tempdir().unwrap();
    scaffold(Language::Python, "hello-you", root.path()).unwrap();
    let folder = root.path().join("hello-you/hello-you");
    let source = r#"
import random
from wit_world import exports

OWN = random.Random()
SEEDED = random.Random(7)


class Greetings(exports.Greetings):
    def greet(self, who: str) -> str:
        return f"{random.random()} {OWN.random()} {SEEDED.random()}"
"#;
    fs::write(folder.join("app.py"), source).unwrap();
    let guest = Guest::open(&folder).unwrap();
    build(&guest).unwrap();
    let numbers = greetings(&guest.component(), "you", 2, 1);
    let [first, second] = &numbers[..] else {
        panic!("{numbers:?}");
    };
    let pairs: Vec<_> = first
        .trim_matches('"')
        .split(' ')
        .zip(second.trim_matches('"').split(' '))
        .collect();
    let same: Vec<_> = pairs.iter().map(|(one, other)| one == other).collect();
    // The one with a seed of its own begins alike in each instance.
    assert_eq!(same, [false, false, true], "{pairs:?}");
}

#[test]
fn a_new_service_in_c_builds_as_it_is() {
    let broken = ("hello-you.c", "ret->len =", "ret->length =");
    makes_a_component(Language::C, broken, "hello-you.c:9");
}

#[test]
fn a_guest_in_go_builds_below_a_workspace_that_knows_nothing_of_it() {
    let root = tempfile::tempdir().unwrap();
    scaffold(Language::Go, "hello-you", root.path()).unwrap();
    fs::write(root.path().join("go.work"), "go 1.24\n").unwrap();
    let guest = Guest::open(&root.path().join("hello-you/hello-you")).unwrap();
    build(&guest).unwrap();
}

/// A service whose function has a word of its language as the name of its parameter.
#[test]
fn a_name_that_its_language_cannot_have_is_explained() {
    for (language, word) in [(Language::C, "restrict"), (Language::Python, "self")] {
        let root = tempfile::tempdir().unwrap();
        scaffold(language, "hello-you", root.path()).unwrap();
        let wit = root.path().join("hello-you/wit/world.wit");
        let text = fs::read_to_string(&wit).unwrap();
        assert!(text.contains("(who: string)"), "{text}");
        fs::write(
            &wit,
            text.replace("string)", &format!("string, {word}: u32)")),
        )
        .unwrap();
        let guest = Guest::open(&root.path().join("hello-you/hello-you")).unwrap();
        let error = build(&guest).unwrap_err().to_string();
        let named = format!("parameter `{word}` of `greet` of demo:hello-you/greetings@0.1.0");
        assert!(error.ends_with(&named), "{error}");
    }
}

#[test]
fn c_plus_plus_is_compiled_beside_the_bindings_in_c() {
    let root = tempfile::tempdir().unwrap();
    scaffold(Language::C, "mixed", root.path()).unwrap();
    let folder = root.path().join("mixed/mixed");
    fs::remove_file(folder.join("mixed.c")).unwrap();
    fs::write(
        folder.join("mixed.cpp"),
        r#"#include "mixed.h"
#include <string>
#include <cstring>

extern "C" void exports_demo_mixed_greetings_greet(mixed_string_t *who, mixed_string_t *ret) {
    std::string text = "Hello, " + std::string(reinterpret_cast<char *>(who->ptr), who->len);
    mixed_string_dup_n(ret, text.data(), text.size());
    mixed_string_free(who);
}
"#,
    )
    .unwrap();
    let guest = Guest::open(&folder).unwrap();
    build(&guest).unwrap();
    assert!(exports(&guest.component()).contains("demo:mixed/greetings@0.1.0"));
}

#[test]
fn every_guest_of_this_repository_exports_what_its_world_says() {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests");
    let mut built = BTreeSet::new();
    for language in Language::ALL {
        let Ok(folders) = fs::read_dir(guests.join(language.to_string())) else {
            continue;
        };
        let folders = folders.map(|entry| entry.unwrap().path());
        for folder in folders.filter(|folder| folder.is_dir() && !folder.ends_with("target")) {
            let guest = Guest::open(&folder).unwrap();
            assert_eq!(guest.language, language, "{}", folder.display());
            let component = guest.build(&tools(), &mut |_| ()).unwrap();
            let mut resolve = Resolve::default();
            let (package, _) = resolve.push_path(&guest.wit).unwrap();
            let world = resolve.select_world(&[package], Some(&guest.world));
            let promised = names(&resolve, world.unwrap());
            let exported = exports(&component);
            assert!(
                exported.is_superset(&promised),
                "{} exports {exported:?}",
                folder.display()
            );
            built.insert(language);
        }
    }
    assert!(built.len() > 1, "there are guests in {built:?} only");
}
