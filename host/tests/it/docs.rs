//! What the documentation says is what the code does.

use std::path::{Path, PathBuf};

use wasmbay::manifest::{App, keys};

/// The line of `docs/manifest.md` after which the code writes.
const MARK: &str = "-->\n\n";

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

#[test]
fn the_manifest_reference_is_the_table_of_keys() {
    let path = document("manifest.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (prose, written) = text.split_once(MARK).unwrap();
    let reference = keys::reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{prose}{MARK}{reference}")).unwrap();
    } else {
        assert_eq!(
            written, reference,
            "docs/manifest.md is out of date: UPDATE_DOCS=1 cargo test -p wasmbay --test it docs"
        );
    }
}

#[test]
fn the_manifests_shown_are_accepted() {
    let path = document("manifest.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut shown = 0;
    for block in text.split("```toml\n").skip(1) {
        let manifest = block.split("```").next().unwrap();
        App::parse(&path, manifest).unwrap_or_else(|error| panic!("{error}"));
        shown += 1;
    }
    assert!(shown > 0);
}

#[test]
fn the_manifests_of_the_examples_are_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut loaded = 0;
    for example in std::fs::read_dir(folder).unwrap() {
        let example = example.unwrap().path();
        if example.join("wasmbay.toml").exists() {
            App::load(&example).unwrap_or_else(|error| panic!("{error}"));
            loaded += 1;
        }
    }
    assert!(loaded > 0);
}
