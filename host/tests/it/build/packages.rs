//! What services take of others: packages of each language's registry, and archives for C.

use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A new service, of which the test replaces some files.
struct Service {
    _root: tempfile::TempDir,
    folder: PathBuf,
}

impl Service {
    fn new(language: Language) -> Self {
        let root = tempfile::tempdir().unwrap();
        scaffold(language, "hello-you", root.path()).unwrap();
        let folder = root.path().join("hello-you/hello-you");
        Self {
            _root: root,
            folder,
        }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The component, and what was done for it.
    fn build(&self) -> Result<(PathBuf, String), BuildError> {
        let mut said = String::new();
        let guest = Guest::open(&self.folder)?;
        let built = guest.build(&tools(), &mut |line| {
            said.push_str(line);
            said.push('\n');
        });
        built.map(|component| (component, said))
    }

    fn refused(&self) -> String {
        self.build().unwrap_err().to_string()
    }

    /// Runs a program in its folder.
    fn run(&self, program: &str, arguments: &[&str], environment: &[(&str, &str)]) {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin");
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("/usr/bin/env")
            .arg(program)
            .args(arguments)
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", own.display()))
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}"
        );
    }
}

#[test]
fn a_service_in_python_has_the_packages_that_it_lists() {
    let root = tempfile::tempdir().unwrap();
    scaffold(Language::Python, "hello-you", root.path()).unwrap();
    let folder = root.path().join("hello-you/hello-you");
    let source = r#"
import semver
from slugify import slugify
from wit_world import exports


class Greetings(exports.Greetings):
    def greet(self, who: str) -> str:
        return f"{slugify(who)} {semver.Version.parse('1.2.3').bump_minor()}"
"#;
    fs::write(folder.join("app.py"), source).unwrap();
    let list = folder.join("requirements.txt");
    // The first one depends on a third.
    fs::write(&list, "python-slugify==8.0.4\nsemver==3.0.4\n").unwrap();
    let build = || {
        let guest = Guest::open(&folder).unwrap();
        guest.build(&tools(), &mut |_| {})
    };
    let component = build().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        greeting(&component, "Héllo Wörld!", 1),
        "\"hello-world 1.3.0\""
    );

    fs::write(&list, "semver==3.0.4\nxxhash==3.5.0\n").unwrap();
    let error = build().unwrap_err().to_string();
    assert!(
        error.contains(
            "requirements.txt: `xxhash` cannot be part of a component: there is none of pure Python"
        ),
        "{error}"
    );
}

#[test]
fn a_service_in_python_has_packages_that_leave_out_what_is_compiled() {
    let service = Service::new(Language::Python);
    // It needs markupsafe, which is there compiled, or as source that does without.
    service.write("requirements.txt", "jinja2==3.1.6\n");
    let source = r#"
from jinja2 import Template
from wit_world import exports


class Greetings(exports.Greetings):
    def greet(self, who: str) -> str:
        return Template("Hello, {{ who | e }}!").render(who=who)
"#;
    service.write("app.py", source);
    let (component, _) = service.build().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(greeting(&component, "<you>", 1), "\"Hello, &lt;you&gt;!\"");
}

#[test]
fn a_service_in_typescript_has_the_packages_of_its_lock_file() {
    let service = Service::new(Language::TypeScript);
    service.write(
        "package.json",
        r#"{ "dependencies": { "slugify": "1.6.6" } }"#,
    );
    let source = "import slugify from 'slugify';\n\
        export const greetings = { greet: (who: string): string => slugify(who, { lower: true }) };\n";
    service.write("index.ts", source);
    let error = service.refused();
    assert!(
        error.contains("lists `slugify`, which is not installed"),
        "{error}"
    );

    service.run(
        "npm",
        &["install", "--package-lock-only", "--no-audit"],
        &[],
    );
    let (component, said) = service.build().unwrap_or_else(|error| panic!("{error}"));
    assert!(said.contains("npm ci"), "{said}");
    assert_eq!(greeting(&component, "Hello You", 1), "\"hello-you\"");
    // With the same lock file, nothing is asked of the registry.
    service.write("index.ts", &source.replace("{ lower: true }", "'_'"));
    let (component, said) = service.build().unwrap_or_else(|error| panic!("{error}"));
    assert!(
        said.contains("esbuild") && !said.contains("npm ci"),
        "{said}"
    );
    assert_eq!(greeting(&component, "Hello You", 1), "\"Hello_You\"");

    let install = [
        "install",
        "--ignore-scripts",
        "--no-audit",
        "bufferutil@4.0.9",
    ];
    service.run("npm", &install, &[]);
    service.write("index.ts", &source.replace("'slugify'", "'bufferutil'"));
    let error = service.refused();
    let why = "package.json: `bufferutil` cannot be part of a component: it is an addon of Node";
    assert!(error.contains(why), "{error}");
}

#[test]
fn a_service_in_go_has_modules_by_their_sums_or_vendored() {
    let service = Service::new(Language::Go);
    let source = "package export_demo_hello_you_greetings\n\nimport \"github.com/google/uuid\"\n\n\
        func Greet(who string) string {\n\treturn uuid.NewSHA1(uuid.NameSpaceDNS, []byte(who)).String()\n}\n";
    let file = "export_demo_hello_you_greetings/greetings.go";
    service.write(file, source);
    let error = service.refused();
    assert!(error.contains("go get github.com/google/uuid"), "{error}");

    let component = [("GOOS", "wasip1"), ("GOARCH", "wasm"), ("GOWORK", "off")];
    service.run("go", &["get", "github.com/google/uuid@v1.6.0"], &component);
    let (built, _) = service.build().unwrap_or_else(|error| panic!("{error}"));
    let id = greeting(&built, "python.org", 1);
    assert_eq!(id, "\"886313e1-3b8a-5372-9b90-0c9aee199e5d\"");

    // What is vendored is taken from there: a change shows.
    service.run("go", &["mod", "vendor"], &component);
    let vendored = "vendor/github.com/google/uuid/hash.go";
    let text = fs::read_to_string(service.folder.join(vendored)).unwrap();
    assert!(text.contains("func NewSHA1(space UUID, data []byte) UUID {"));
    let changed = text.replace(
        "func NewSHA1(space UUID, data []byte) UUID {",
        "func NewSHA1(space UUID, data []byte) UUID {\n\tdata = nil",
    );
    service.write(vendored, &changed);
    let (built, _) = service.build().unwrap_or_else(|error| panic!("{error}"));
    assert_ne!(greeting(&built, "python.org", 1), id);

    let with_c = source.replacen(
        "import ",
        "/*\nint one(void);\n*/\nimport \"C\"\n\nimport ",
        1,
    );
    service.write(file, &with_c);
    let error = service.refused();
    let why = "go.mod: `wit_component/export_demo_hello_you_greetings` cannot be part of a component: all of its source is for cgo";
    assert!(error.contains(why), "{error}");
}

#[test]
fn a_service_in_c_has_headers_archives_and_flags() {
    let service = Service::new(Language::C);
    service.write(
        "include/shout.h",
        "void shout(char *text, unsigned long length);\n",
    );
    service.write(
        "shout/shout.c",
        "#include \"shout.h\"\n#include <ctype.h>\n\
        void shout(char *text, unsigned long length) { while (length--) text[length] = toupper(text[length]); }\n",
    );
    service.run(
        "wasm-cc",
        &["-Iinclude", "-Os", "-c", "shout/shout.c", "-o", "shout.o"],
        &[],
    );
    fs::create_dir(service.folder.join("lib")).unwrap();
    service.run("ar", &["rcs", "lib/libshout.a", "shout.o"], &[]);
    fs::remove_dir_all(service.folder.join("shout")).unwrap();
    let source = fs::read_to_string(service.folder.join("hello-you.c")).unwrap();
    let source = source.replace(
        "#include <stdlib.h>",
        "#include \"shout.h\"\n#include <stdlib.h>",
    );
    let source = source.replace(
        "    hello_you_string_free(who);",
        "    SHOUT(ret->ptr, ret->len);\n    hello_you_string_free(who);",
    );
    assert!(source.contains("SHOUT"), "{source}");
    service.write("hello-you.c", &source);
    let error = service.refused();
    assert!(error.contains("SHOUT"), "{error}");
    service.write("compile_flags.txt", "-DSHOUT(a,b)=shout((char*)a,b)\n");
    let (component, _) = service.build().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(greeting(&component, "you", 1), "\"HELLO, YOU!\"");
}
