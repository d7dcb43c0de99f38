//! What is no component, or none that can be wired, is refused by name.

use wasmbay::manifest::Digest;
use wasmbay::runtime::{Component, ComponentError};
use wasmbay::runtime::{Engine, EngineOptions, Runtime, Service};

use crate::support::components::{CALLER, GUEST};

fn engine(cache: Option<&std::path::Path>) -> Engine {
    Engine::new(EngineOptions {
        instances: 2,
        cache: cache.map(Into::into),
    })
    .unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    let mut error: &dyn std::error::Error = &Component::new(&engine(None), bytes).err().unwrap();
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        text = format!("{text}: {source}");
        error = source;
    }
    text
}

#[test]
fn exports_and_imports_are_read_from_the_component() {
    let component = Component::new(&engine(None), CALLER.as_bytes()).unwrap();
    let names = |of: &[wasmbay::shape::InterfaceDescription]| {
        of.iter().map(|i| i.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&component.exports), ["test:caller/api@1.0.0"]);
    assert_eq!(names(&component.imports), ["test:other/api@1.0.0"]);
    assert_eq!(
        component.imports[0].functions["try"].to_string(),
        "func(n: u32) -> result<u32, string>"
    );
    assert_eq!(component.digest, Digest::of(CALLER.as_bytes()));
}

#[test]
fn a_core_module_is_told_from_a_component() {
    let error = refusal(&wat::parse_str("(module)").unwrap());
    assert!(error.contains("core WebAssembly module"), "{error}");
    assert!(error.contains("wasm32-wasip2"), "{error}");
}

#[test]
fn a_truncated_file_is_refused() {
    let bytes = wat::parse_str(GUEST).unwrap();
    for end in [9, bytes.len() / 2, bytes.len() - 1] {
        let error = Component::new(&engine(None), &bytes[..end]).err().unwrap();
        assert!(
            matches!(error, ComponentError::Invalid(_)),
            "{end}: {error}"
        );
    }
}

#[test]
fn what_is_no_webassembly_is_refused() {
    assert!(refusal(b"\x7fELF\x02\x01\x01\x00").contains("starts with `\\x7fELF"));
    assert!(refusal(b"").contains("starts with nothing"));
}

#[test]
fn a_resource_in_a_remote_interface_is_refused() {
    let text = r#"(component (import "a:b/store" (instance
        (export "handle" (type $h (sub resource)))
        (export "open" (func (result (own $h)))))))"#;
    let error = refusal(text.as_bytes());
    assert!(error.starts_with("import a:b/store: "), "{error}");
    assert!(error.contains("resource"), "{error}");
}

#[test]
fn a_function_outside_of_an_interface_is_refused() {
    let error = refusal(br#"(component (import "lonely" (func)))"#);
    assert_eq!(
        error,
        "import `lonely`: it stands outside of any interface; move it into one"
    );
}

#[test]
fn compiled_code_comes_from_the_cache_the_second_time() {
    let cache = tempfile::tempdir().unwrap();
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(cache.path())
            .unwrap()
            .flat_map(|engine| std::fs::read_dir(engine.unwrap().path()).unwrap())
            .map(|file| file.unwrap().path())
            .filter(|file| file.extension().is_some_and(|e| e == "cwasm"))
            .collect();
        files.sort();
        files
    };
    Component::new(&engine(Some(cache.path())), GUEST.as_bytes()).unwrap();
    let [file] = files().try_into().unwrap();
    let written = std::fs::metadata(&file).unwrap().modified().unwrap();
    Component::new(&engine(Some(cache.path())), GUEST.as_bytes()).unwrap();
    assert_eq!(
        std::fs::metadata(&file).unwrap().modified().unwrap(),
        written
    );

    std::fs::write(&file, "damaged").unwrap();
    Component::new(&engine(Some(cache.path())), GUEST.as_bytes()).unwrap();
    assert!(
        std::fs::metadata(&file).unwrap().len() > 1_000,
        "compiled anew"
    );
}

#[cfg(unix)]
#[test]
fn a_cache_that_others_can_write_to_is_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let cache = tempfile::tempdir().unwrap();
    Component::new(&engine(Some(cache.path())), GUEST.as_bytes()).unwrap();
    let folder = std::fs::read_dir(cache.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let files = std::fs::read_dir(&folder).unwrap();
    let file = files
        .map(|file| file.unwrap().path())
        .find(|file| file.extension().is_some_and(|e| e == "cwasm"))
        .unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(&file, "planted").unwrap();
    Component::new(&engine(Some(cache.path())), GUEST.as_bytes()).unwrap();
    assert_eq!(
        std::fs::read(&file).unwrap(),
        b"planted",
        "neither read nor replaced"
    );
}

#[test]
fn a_stream_within_a_stream_is_refused_with_its_path() {
    for (text, named) in [
        (
            r#"(component (import "a:b/c" (instance
                (type $s (stream u8))
                (type $t (tuple u8 $s))
                (type $all (stream $t))
                (export "run" (func async (param "rows" $all))))))"#,
            "a:b/c: function \"run\": parameter \"rows\": what it gives: element 1: a stream within a stream",
        ),
        (
            r#"(component (import "a:b/c" (instance
                (type $f (future))
                (export "run" (func async (result $f))))))"#,
            "a:b/c: function \"run\": result: a future without a type",
        ),
    ] {
        let error = refusal(text.as_bytes());
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn what_no_host_interface_is_for_is_listed_all_at_once() {
    let text = r#"(component
        (import "wasi:sql/types@0.2.0-draft" (instance (export "f" (func))))
        (import "wasi:io/poll@0.2.0" (instance (export "pollable" (type (sub resource)))))
        (import "fermyon:spin/llm@2.0.0" (instance (export "infer" (func))))
        (import "wasi:keyvalue/types@9.0.0" (instance (type $t u8) (export "t" (type (eq $t))))))"#;
    let component = Component::new(&engine(None), text.as_bytes()).unwrap();
    let names: Vec<_> = component.missing.iter().map(|m| &*m.interface).collect();
    let missing = ["wasi:sql/types@0.2.0-draft", "fermyon:spin/llm@2.0.0"];
    assert_eq!(names, missing);
    let runtime = Runtime::new(engine(None)).unwrap();
    let spec = crate::service::spec(|_| {});
    let error = Service::new(&runtime, "app", component.into(), spec.into());
    let error = error.err().unwrap().to_string();
    for name in missing {
        assert!(error.contains(name), "{error}");
    }
    assert!(error.contains("of Spin"), "{error}");
}
