use super::exact::{ExactError, exact};
use super::*;

#[test]
fn the_tools_names_have_words_in_lower_case() {
    for (name, ours, tool) in [
        ("order-id", "orderId", "orderId"),
        ("fetch-URL", "fetchURL", "fetchUrl"),
        ("URL", "URL", "url"),
    ] {
        assert_eq!(
            (camel_case(name), tool_case(name)),
            (ours.into(), tool.into())
        );
    }
}

#[test]
fn problems_are_found_in_what_the_tool_prints() {
    let printed = "Error: : Failed to evaluate user JavaScript module: Error: wasmbay-exports: \
        [{\"interface\":\"a:b/c\",\"export\":\"clock\",\"what\":\"absent\",\"type\":\"undefined\",\"has\":[\"x\",\"yy\"]}]\n    at complete";
    assert_eq!(
        problems(printed),
        ["`clock` of a:b/c is not exported; there is `x`, `yy`"]
    );
    assert!(problems("Error: no luck").is_empty());
    assert!(problems("wasmbay-exports: none").is_empty());
}

#[test]
fn a_component_of_another_tool_is_no_silent_success() {
    let component = wat::parse_str("(component (core module (func)))");
    assert!(matches!(
        exact(&component.unwrap()),
        Err(ExactError::Unknown)
    ));
    assert!(matches!(exact(b"nonsense"), Err(ExactError::Read(_))));
}

/// The modules of the only world of a package.
fn edge(wit: &str) -> Edge {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("wit")).unwrap();
    std::fs::write(root.path().join("wit/w.wit"), wit).unwrap();
    let world = World::of(root.path(), &root.path().join("wit")).unwrap();
    Edge::of(&world, root.path(), Path::new("/x/index.js")).unwrap()
}

#[test]
fn only_what_changes_is_converted() {
    let edge = edge(
        "package a:b;
         interface plain { f: func(x: string, y: list<f32>, z: option<bool>) -> result<string, string>; }
         interface ints { record r { name: string, n: u32 } f: func(x: r, y: string) -> result<u64, r>; }
         world w { import plain; import ints; }",
    );
    let text = |name: &str| {
        let (_, text) = edge.files.iter().find(|(file, _)| file == name).unwrap();
        text
    };
    let plain = text("import-3.js");
    assert!(plain.contains("imported(raw.f, [null, t.t"), "{plain}");
    assert!(plain.contains(", null], null, null);"), "{plain}");
    let ints = text("import-4.js");
    assert!(ints.contains(", null], t.u64, t.t"), "{ints}");
    let types = text("types.js");
    assert!(
        types.contains("record(['name', 'name', null], ['n', 'n', u32])"),
        "{types}"
    );
}

#[test]
fn an_interface_in_two_versions_has_no_name_without_one() {
    let edge = edge(
        "package a:b;
         world w { import c:d/e@1.0.0; import c:d/e@2.0.0; import c:d/f@1.0.0; }
         package c:d@1.0.0 { interface e { f: func(); } interface f { f: func(); } }
         package c:d@2.0.0 { interface e { f: func(); } }",
    );
    let arguments = edge.arguments(Path::new("/x"));
    let has = |name: &str| {
        arguments
            .iter()
            .any(|it| it.starts_with(&format!("--alias:{name}=")))
    };
    assert!(
        has("c:d/e@1.0.0") && has("c:d/e@2.0.0") && has("c:d/f"),
        "{arguments:?}"
    );
    assert!(!has("c:d/e"), "{arguments:?}");
}
