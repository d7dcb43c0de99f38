//! A new service that builds, runs and passes its tests as it is.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use wit_parser::Resolve;

use super::{BuildError, Language};

const MANIFEST: &str = "wasmbay.toml";

/// Longer names would make subjects, paths and identifiers that are unreadable.
const LONGEST_NAME: usize = 48;

/// Crates cannot be called by these, and no WIT name can be one of the others.
const RUST_WORDS: &[&str] = &[
    "abstract", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
    "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "struct",
    "super", "test", "trait", "true", "try", "typeof", "unsafe", "unsized", "use", "virtual",
    "where", "while", "yield",
];

macro_rules! template {
    ($file:literal) => {
        include_str!(concat!("templates/", $file))
    };
}

/// Writes a service that greets, in the language, and returns the files that were written or
/// extended.
///
/// Where `into` holds an app (a `wasmbay.toml`), the service is added to it. Elsewhere a folder
/// named after the service is made in it, with a manifest and the WIT, too.
///
/// # Errors
///
/// If the name is not a WIT name in kebab-case or means something to WIT or Rust; if a file is
/// there already; if one cannot be written. What was written before that stays.
pub fn scaffold(language: Language, name: &str, into: &Path) -> Result<Vec<PathBuf>, BuildError> {
    check(name)?;
    let fill = |template: &str| {
        template
            .replace("{{name}}", name)
            .replace("{{snake}}", &name.replace('-', "_"))
    };
    let existing = into.join(MANIFEST).is_file();
    let package = fill(template!("app/package.wit"));
    // A package cannot refer to itself by its full name.
    let export = if existing {
        "demo:{{name}}/greetings@0.1.0"
    } else {
        "greetings"
    };
    let world = fill(&template!("app/world.wit").replace("{{export}}", export));
    let manifest = fill(template!("app/wasmbay.toml"));
    let service = fill(template!("app/service.toml"));
    let app = if existing {
        into.to_owned()
    } else {
        into.join(name)
    };
    let mut files: Vec<(PathBuf, String)> = if existing {
        // Packages of their own, so that it does not matter what the app's package is called.
        vec![
            (format!("wit/deps/demo-{name}.wit").into(), package),
            (
                format!("wit/{name}.wit").into(),
                world.trim_start().to_owned(),
            ),
        ]
    } else {
        vec![
            (MANIFEST.into(), manifest + &service),
            (".gitignore".into(), template!("app/gitignore").to_owned()),
            ("wit/world.wit".into(), package + &world),
        ]
    };
    for (path, template) in source(language, name) {
        files.push((Path::new(name).join(path), fill(template)));
    }
    // Of the service as a whole, whatever it is written in, where its own tests are of its code.
    let cases = format!("tests/{name}.json");
    files.push((cases.into(), fill(template!("app/cases.json"))));
    let taken = files
        .iter()
        .map(|(path, _)| app.join(path))
        .chain([app.join(name)]);
    if let Some(path) = taken.into_iter().find(|path| path.exists()) {
        return Err(BuildError::Exists { path });
    }
    let mut written = Vec::new();
    for (path, contents) in files {
        let path = app.join(path);
        create(&path, &contents)?;
        written.push(path);
    }
    if existing {
        let path = into.join(MANIFEST);
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut manifest| manifest.write_all(service.as_bytes()))
            .map_err(BuildError::writing(&path))?;
        written.push(path);
    }
    Ok(written)
}

/// The files of a service's folder.
fn source(language: Language, name: &str) -> Vec<(String, &'static str)> {
    match language {
        Language::Rust => vec![
            ("Cargo.toml".to_owned(), template!("rust/Cargo.toml.in")),
            ("src/lib.rs".to_owned(), template!("rust/src/lib.rs")),
        ],
        Language::Go => {
            let package = format!("export_demo_{}_greetings", name.replace('-', "_"));
            vec![
                ("go.mod".to_owned(), template!("go/go.mod.in")),
                (
                    format!("{package}/greetings.go"),
                    template!("go/greetings.go"),
                ),
                (
                    format!("{package}/greetings_test.go"),
                    template!("go/greetings_test.go"),
                ),
            ]
        }
        Language::TypeScript => vec![
            ("index.ts".to_owned(), template!("typescript/index.ts")),
            (
                "index.test.ts".to_owned(),
                template!("typescript/index.test.ts"),
            ),
            (
                "tsconfig.json".to_owned(),
                template!("typescript/tsconfig.json"),
            ),
        ],
        Language::JavaScript => vec![
            ("index.js".to_owned(), template!("javascript/index.js")),
            (
                "jsconfig.json".to_owned(),
                template!("javascript/jsconfig.json"),
            ),
            (
                "index.test.js".to_owned(),
                template!("javascript/index.test.js"),
            ),
        ],
        Language::Python => vec![
            ("app.py".to_owned(), template!("python/app.py")),
            (
                "pyrightconfig.json".to_owned(),
                template!("python/pyrightconfig.json"),
            ),
            ("test_app.py".to_owned(), template!("python/test_app.py")),
        ],
        Language::C => vec![
            (format!("{name}.c"), template!("c/service.c")),
            (".clangd".to_owned(), template!("c/clangd")),
            ("tests/greet.c".to_owned(), template!("c/tests/greet.c")),
        ],
    }
}

fn check(name: &str) -> Result<(), BuildError> {
    let refuse = |why| {
        Err(BuildError::Name {
            name: name.to_owned(),
            why,
        })
    };
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if !name.split('-').all(is_word) {
        return refuse(
            "it has to be words of lowercase letters and digits that begin with a letter, joined by `-`",
        );
    }
    if name.len() > LONGEST_NAME {
        return refuse("it is longer than 48 characters");
    }
    if RUST_WORDS.contains(&name) {
        return refuse("the word means something in Rust");
    }
    // The world and its interface share one namespace.
    if name == "greetings" {
        return refuse("the interface that it will export has that name");
    }
    let wit = format!("package demo:{name}; world {name} {{}}");
    if Resolve::default().push_str("name.wit", &wit).is_err() {
        return refuse("the word means something in WIT");
    }
    Ok(())
}

/// Writes a file that is not there yet.
fn create(path: &Path, contents: &str) -> Result<(), BuildError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(BuildError::writing(parent))?;
    }
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path);
    file.and_then(|mut file| file.write_all(contents.as_bytes()))
        .map_err(BuildError::writing(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Guest;

    #[test]
    fn names_that_some_language_could_not_take_are_refused() {
        for name in ["hello", "hello-world", "a1-b2", "string-tools", "time"] {
            assert!(check(name).is_ok(), "{name}");
        }
        for (name, why) in [
            ("", "words of lowercase"),
            ("Hello", "words of lowercase"),
            ("hello_world", "words of lowercase"),
            ("a--b", "words of lowercase"),
            ("1st", "words of lowercase"),
            ("../up", "words of lowercase"),
            ("interface", "in WIT"),
            ("string", "in WIT"),
            ("match", "in Rust"),
            ("greetings", "interface that it will export"),
        ] {
            let message = check(name).unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn an_app_is_made_and_services_in_other_languages_are_added_to_it() {
        let root = tempfile::tempdir().unwrap();
        scaffold(Language::Rust, "first-one", root.path()).unwrap();
        let app = root.path().join("first-one");
        for language in Language::ALL {
            let name = format!("in-{language}");
            let written = scaffold(language, &name, &app).unwrap();
            assert!(written.iter().all(|path| path.is_file()), "{written:?}");
            let guest = Guest::open(&app.join(&name)).unwrap();
            assert_eq!((guest.language, guest.world), (language, name));
        }
        let first = Guest::open(&app.join("first-one")).unwrap();
        assert_eq!(first.world, "first-one");
        crate::manifest::Manifest::load(&app.join("wasmbay.toml")).unwrap();
    }

    #[test]
    fn no_file_is_overwritten() {
        let root = tempfile::tempdir().unwrap();
        scaffold(Language::Python, "hello", root.path()).unwrap();
        let error = scaffold(Language::Go, "hello", root.path()).unwrap_err();
        assert!(matches!(error, BuildError::Exists { .. }), "{error}");
        assert!(!root.path().join("hello/hello/go.mod").exists());
    }
}
