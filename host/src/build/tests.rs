use std::fs;

use super::*;

/// A folder with files of these names and contents.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    root
}

const TWO_WORLDS: &str = "package a:b; world one {} world two {}";

#[test]
fn a_language_is_recognised_by_its_files() {
    for (file, language) in [
        ("Cargo.toml", Language::Rust),
        ("go.mod", Language::Go),
        ("index.ts", Language::TypeScript),
        ("src/main.ts", Language::TypeScript),
        ("service.js", Language::JavaScript),
        ("app.py", Language::Python),
        ("anything.c", Language::C),
        ("anything.cpp", Language::C),
    ] {
        let root = folder(&[(file, "")]);
        assert_eq!(detect(root.path()).unwrap(), language, "{file}");
        assert_eq!(language.to_string().parse(), Ok(language));
    }
    let root = folder(&[
        ("package.json", r#"{"main":"lib/x.mts"}"#),
        ("lib/x.mts", ""),
    ]);
    assert_eq!(detect(root.path()).unwrap(), Language::TypeScript);
    // A crate may well have C in it.
    let root = folder(&[("Cargo.toml", ""), ("shim.c", "")]);
    assert_eq!(detect(root.path()).unwrap(), Language::Rust);
}

#[test]
fn a_folder_of_no_language_or_of_two_is_refused() {
    let root = folder(&[("README.md", "")]);
    let message = detect(root.path()).unwrap_err().to_string();
    assert!(
        message.contains("holds no guest: it has none of Cargo.toml"),
        "{message}"
    );
    let root = folder(&[("app.py", ""), ("index.ts", "")]);
    let message = detect(root.path()).unwrap_err().to_string();
    assert!(
        message.contains("could be a guest in typescript or in python"),
        "{message}"
    );
    let error = detect(&root.path().join("absent")).unwrap_err();
    assert!(matches!(error, BuildError::Read { .. }), "{error}");
}

#[test]
fn the_world_is_the_one_of_the_folders_name_else_the_only_one() {
    let root = folder(&[
        ("wit/w.wit", TWO_WORLDS),
        ("x/two/app.py", ""),
        ("x/other/app.py", ""),
        ("single/wit/w.wit", "package a:b; world only {}"),
        ("single/any_name/app.py", ""),
    ]);
    let open = |path: &str| Guest::open(&root.path().join(path));
    assert_eq!(open("x/two").unwrap().world, "two");
    let only = open("single/any_name").unwrap();
    assert_eq!(only.world, "only");
    assert_eq!(only.wit, root.path().join("single/wit"));
    assert_eq!(only.component(), only.folder.join(".wasmbay/only.wasm"));
    let message = open("x/other").unwrap_err().to_string();
    assert!(
        message.ends_with("is named `other` like the guest's folder; its worlds are `one`, `two`"),
        "{message}"
    );
}

#[test]
fn a_program_needs_no_world_and_has_the_one_of_its_name() {
    let root = folder(&[
        ("bare/Cargo.toml", ""),
        ("bare/src/main.rs", ""),
        ("app/wit/w.wit", TWO_WORLDS),
        ("app/other/Cargo.toml", ""),
        ("app/other/src/main.rs", ""),
        ("app/two/Cargo.toml", ""),
        ("app/two/src/main.rs", ""),
        ("app/three/Cargo.toml", ""),
        ("app/three/src/lib.rs", ""),
    ]);
    let open = |path: &str| Guest::open(&root.path().join(path));
    let bare = open("bare").unwrap();
    assert_eq!((&*bare.world, bare.wit.is_dir()), ("bare", false));
    assert_eq!(bare.component(), bare.folder.join(".wasmbay/bare.wasm"));
    assert_eq!(open("app/other").unwrap().world, "other");
    let imports = |guest: &Guest| {
        let world = World::of(&guest.folder, &guest.wit).unwrap();
        world.resolve.worlds.get(world.id).unwrap().imports.len()
    };
    // One that calls others says so in WIT.
    let two = open("app/two").unwrap();
    let named = World::of(&two.folder, &two.wit).unwrap();
    assert_eq!(
        (named.name.as_str(), imports(&open("app/other").unwrap())),
        ("two", 0)
    );
    assert!(
        named
            .resolve
            .package_names
            .keys()
            .all(|name| name.namespace != "wasmbay")
    );
    assert!(open("app/three").is_err());
}

#[test]
fn wit_that_is_wrong_or_absent_is_explained() {
    let root = folder(&[("wit/w.wit", "package a:b;\nworld {"), ("x/app.py", "")]);
    let error = Guest::open(&root.path().join("x")).unwrap_err();
    let mut chain = vec![error.to_string()];
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(error) = cause {
        chain.push(error.to_string());
        cause = error.source();
    }
    assert!(chain.join("\n").contains("w.wit:2:7"), "{chain:#?}");
    let root = folder(&[("x/app.py", "")]);
    let message = Guest::open(&root.path().join("x")).unwrap_err().to_string();
    assert!(
        message.starts_with("there is no wit/ folder in "),
        "{message}"
    );
}

/// What the fingerprint says of a guest whose component was made of what is there now.
struct Stamped {
    root: tempfile::TempDir,
    elsewhere: PathBuf,
}

impl Stamped {
    fn new() -> Self {
        let root = folder(&[
            ("wit/w.wit", TWO_WORLDS),
            ("one/app.py", "1"),
            ("one/lib/more.py", "2"),
            ("shared.py", "3"),
        ]);
        let elsewhere = root.path().join("shared.py");
        let stamped = Self { root, elsewhere };
        stamped.with_inputs(|component, inputs| {
            let before = inputs.sources(&[]).unwrap();
            let elsewhere = vec![stamped.elsewhere.clone()];
            let fingerprint = Fingerprint::take(inputs, before, elsewhere).unwrap();
            fs::create_dir_all(component.parent().unwrap()).unwrap();
            fingerprint.write(component).unwrap();
        });
        stamped
    }

    fn with_inputs<T>(&self, use_them: impl FnOnce(&Path, &Inputs<'_>) -> T) -> T {
        let guest = Guest::open(&self.root.path().join("one")).unwrap();
        let tools = Tools::near(self.root.path());
        let inputs = Inputs {
            folder: &guest.folder,
            language: guest.language,
            world: &World::of(&guest.folder, &guest.wit).unwrap(),
            tools: &tools,
        };
        use_them(&guest.component(), &inputs)
    }

    fn is_fresh(&self) -> bool {
        self.with_inputs(|component, inputs| {
            Fingerprint::read(component).allows_reuse(inputs).unwrap()
        })
    }

    fn write(&self, path: &str, contents: &str) {
        fs::write(self.root.path().join(path), contents).unwrap();
    }
}

#[test]
fn a_fingerprint_holds_until_something_that_matters_changes() {
    let stamped = Stamped::new();
    assert!(stamped.is_fresh());
    // Touched, not changed.
    stamped.write("one/app.py", "1");
    // Hidden, generated, and a world that is another guest's.
    stamped.write("one/.notes", "x");
    fs::create_dir(stamped.root.path().join("one/__pycache__")).unwrap();
    stamped.write("one/__pycache__/app.pyc", "x");
    stamped.write("wit/w.wit", "package a:b; world one {} world three {}");
    assert!(stamped.is_fresh());
    for (path, contents) in [
        ("one/app.py", "11"),
        ("one/lib/more.py", ""),
        ("one/new.py", ""),
        ("shared.py", "33"),
        ("wit/w.wit", "package a:b; world one { import f: func(); }"),
    ] {
        let stamped = Stamped::new();
        stamped.write(path, contents);
        assert!(!stamped.is_fresh(), "{path}");
    }
    assert!(
        !Stamped::new()
            .with_inputs(|_, inputs| { Fingerprint::default().allows_reuse(inputs).unwrap() })
    );
}

#[test]
fn what_is_watched_is_what_can_change_the_component() {
    let stamped = Stamped::new();
    let root = stamped.root.path();
    let guest = Guest::open(&root.join("one")).unwrap();
    assert_eq!(
        guest.sources(),
        [
            root.join("one"),
            root.join("wit"),
            stamped.elsewhere.clone()
        ]
    );
    for (path, counts) in [
        ("one/app.py", true),
        ("wit/deps/x.wit", true),
        ("shared.py", true),
        ("one/.wasmbay/one.wasm", false),
        ("one/node_modules/x/index.js", false),
        ("one/shop_x/wit_bindings.go", false),
        ("two/app.py", false),
    ] {
        assert_eq!(guest.is_source(&root.join(path)), counts, "{path}");
    }
}

/// Programs in a project that write their arguments to the file that they are to make.
fn fake_tools(root: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    for (name, script) in [
        (
            "esbuild",
            "for a; do case $a in --outfile=*) printf '%s\\n' \"$@\" >\"${a#--outfile=}\";; esac; done",
        ),
        (
            "componentize-js",
            "for last; do :; done; { printf '%s\\n' \"$@\"; cat \"$1\"; } >\"$last\"",
        ),
    ] {
        let path = root.join(".tools/bin").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

const STARLINGMONKEY: &str = r#"{ "wasmbay": { "runtime": "starlingmonkey" } }"#;

#[test]
fn a_guest_is_built_for_the_runtime_that_it_asks_for() {
    let wit = "package a:b@1.0.0; interface i { f: func(); } interface j { f: func(); }
        world one { import i; export j; }";
    let root = folder(&[
        ("wasmbay.toml", ""),
        ("wit/w.wit", wit),
        ("one/index.js", "export const j = {};"),
        ("one/package.json", STARLINGMONKEY),
    ]);
    fake_tools(root.path());
    let guest = Guest::open(&root.path().join("one")).unwrap();
    let tools = Tools::of_app(root.path(), &guest.folder);
    let component = guest.build(&tools, &mut |_| ()).unwrap();
    let made = fs::read_to_string(component).unwrap();
    for argument in [
        "--world-name\none\n",
        "--disable\nfetch-event\n",
        "--external:a:b/i@1.0.0\n",
        "--alias:a:b/i=a:b/i@1.0.0\n",
    ] {
        assert!(made.contains(argument), "{argument}: {made}");
    }
    assert!(made.contains("one/index.js\n"), "{made}");
}

#[test]
fn only_a_guest_that_asks_for_the_larger_runtime_needs_its_tool() {
    let tools = |package: &str, source: &str| {
        let root = folder(&[("package.json", package), (source, "")]);
        tools_of(root.path(), detect(root.path()).unwrap())
    };
    let larger: &[_] = &[Tool::Esbuild, Tool::ComponentizeJs];
    assert_eq!(tools(STARLINGMONKEY, "index.ts"), larger);
    assert_eq!(tools("{}", "index.ts"), Language::TypeScript.tools());
    assert_eq!(tools(STARLINGMONKEY, "app.py"), Language::Python.tools());
}

#[test]
fn a_guest_in_python_with_packages_needs_what_installs_them() {
    let tools = |list: &str| {
        let root = folder(&[("app.py", ""), (list, "semver\n")]);
        tools_of(root.path(), Language::Python)
    };
    assert_eq!(tools("requirements.txt"), [Tool::ComponentizePy, Tool::Pip]);
    assert_eq!(tools("notes.txt"), Language::Python.tools());
}

#[test]
fn a_guest_with_a_lock_file_needs_what_installs_its_packages() {
    let root = folder(&[
        ("package.json", "{}"),
        ("index.ts", ""),
        ("package-lock.json", "{}"),
    ]);
    let tools = tools_of(root.path(), Language::TypeScript);
    assert_eq!(tools, [Tool::Esbuild, Tool::ComponentizeQjs, Tool::Npm]);
}

#[test]
fn a_runtime_that_there_is_not_is_refused() {
    let root = folder(&[
        ("wit/w.wit", TWO_WORLDS),
        ("one/index.js", ""),
        ("one/package.json", r#"{ "wasmbay": { "runtime": "v8" } }"#),
    ]);
    let guest = Guest::open(&root.path().join("one")).unwrap();
    let tools = Tools::near(root.path());
    let refused = guest.build(&tools, &mut |_| ()).unwrap_err().to_string();
    assert!(
        refused.ends_with("one/package.json is \"v8\"; accepted: \"quickjs\", \"starlingmonkey\""),
        "{refused}"
    );
}
