//! Which language a folder's guest is in, and where its source begins.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{BuildError, Tool, recipe};
use crate::text::shown;

/// A language that guests are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Language {
    /// Rust, compiled for `wasm32-wasip2`.
    Rust,
    /// Go, compiled for WASI and made a component.
    Go,
    /// TypeScript, bundled to JavaScript.
    TypeScript,
    /// JavaScript, run by QuickJS.
    JavaScript,
    /// Python, run by CPython.
    Python,
    /// C, or C++ where a file's ending says so.
    C,
}

/// A text that names no language of [`Language::ALL`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no language `{0}` here: rust, go, typescript, javascript, python or c")]
pub struct UnknownLanguage(String);

impl Language {
    /// Every language, in the order in which lists show them.
    pub const ALL: [Self; 6] = [
        Self::Rust,
        Self::Go,
        Self::TypeScript,
        Self::JavaScript,
        Self::Python,
        Self::C,
    ];

    /// The tools that its recipe runs, unless the guest asks for another runtime; see [`tools_of`].
    #[must_use]
    pub fn tools(self) -> &'static [Tool] {
        match self {
            Self::Rust => &[Tool::Cargo],
            Self::Go => &[Tool::Go],
            Self::TypeScript | Self::JavaScript => &[Tool::Esbuild, Tool::ComponentizeQjs],
            Self::Python => &[Tool::ComponentizePy],
            Self::C => &[Tool::WasmCc],
        }
    }
}

impl Language {
    /// Whether a path in a guest's folder is a test by the custom of the language, and no part of the component.
    pub(super) fn is_test(self, inside: &Path) -> bool {
        let name = inside.file_name().and_then(|name| name.to_str());
        let name = name.unwrap_or_default();
        match self {
            Self::Rust | Self::C => inside.starts_with("tests"),
            Self::Go => name.ends_with("_test.go"),
            Self::TypeScript | Self::JavaScript => name.contains(".test."),
            Self::Python => {
                inside.starts_with("tests") || name.starts_with("test_") && name.ends_with(".py")
            }
        }
    }
}

/// What runs a guest in TypeScript or JavaScript.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    /// Small, and what a guest has that asks for nothing.
    QuickJs,
    /// Large, with `fetch`, timers and promises.
    StarlingMonkey,
}

/// The runtime that the guest's `package.json` asks for: `"wasmbay": { "runtime": "starlingmonkey" }`.
pub(super) fn runtime(folder: &Path) -> Result<Runtime, BuildError> {
    let package = package(folder);
    let asked = package
        .as_ref()
        .and_then(|package| package.get("wasmbay")?.get("runtime"));
    match asked.map(|asked| (asked.as_str(), asked)) {
        None | Some((Some("quickjs"), _)) => Ok(Runtime::QuickJs),
        Some((Some("starlingmonkey"), _)) => Ok(Runtime::StarlingMonkey),
        Some((_, other)) => Err(BuildError::Runtime {
            folder: folder.to_owned(),
            found: shown(&other.to_string()).into_owned(),
        }),
    }
}

/// The tools that build the guest in this folder.
#[must_use]
pub fn tools_of(folder: &Path, language: Language) -> &'static [Tool] {
    let script = matches!(language, Language::TypeScript | Language::JavaScript);
    let packages = || recipe::pip::wanted(folder).is_ok_and(|wanted| wanted.is_some());
    let locked = || folder.join(recipe::npm::LOCK).is_file();
    match runtime(folder) {
        Ok(Runtime::StarlingMonkey) if script && locked() => {
            &[Tool::Esbuild, Tool::ComponentizeJs, Tool::Npm]
        }
        Ok(Runtime::StarlingMonkey) if script => &[Tool::Esbuild, Tool::ComponentizeJs],
        _ if script && locked() => &[Tool::Esbuild, Tool::ComponentizeQjs, Tool::Npm],
        _ if language == Language::Python && packages() => &[Tool::ComponentizePy, Tool::Pip],
        _ => language.tools(),
    }
}

pub(super) fn package(folder: &Path) -> Option<serde_json::Value> {
    let text = fs::read(folder.join("package.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rust => "rust",
            Self::Go => "go",
            Self::TypeScript => "typescript",
            Self::JavaScript => "javascript",
            Self::Python => "python",
            Self::C => "c",
        })
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Self, UnknownLanguage> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "rust" | "rs" => Self::Rust,
            "go" | "golang" => Self::Go,
            "typescript" | "ts" => Self::TypeScript,
            "javascript" | "js" => Self::JavaScript,
            "python" | "py" => Self::Python,
            "c" | "c++" | "cpp" => Self::C,
            _ => return Err(UnknownLanguage(text.to_owned())),
        })
    }
}

/// Recognises a guest's language by the files in its folder.
///
/// A `Cargo.toml` or a `go.mod` decides alone; else it is the ending of the file that the source
/// begins with.
///
/// # Errors
///
/// If the folder cannot be read, holds no guest, or could be in several languages.
pub fn detect(folder: &Path) -> Result<Language, BuildError> {
    fs::read_dir(folder).map_err(BuildError::reading(folder))?;
    if folder.join("Cargo.toml").is_file() {
        return Ok(Language::Rust);
    }
    if folder.join("go.mod").is_file() {
        return Ok(Language::Go);
    }
    let script = script(folder).map(|entry| {
        let typed = entry
            .extension()
            .is_some_and(|ending| ending == "ts" || ending == "mts");
        if typed {
            Language::TypeScript
        } else {
            Language::JavaScript
        }
    });
    let python = module(folder).map(|_| Language::Python);
    let c = (!c_files(folder)?.is_empty()).then_some(Language::C);
    let mut found = [script, python, c].into_iter().flatten();
    match (found.next(), found.next()) {
        (Some(language), None) => Ok(language),
        (Some(first), Some(second)) => Err(BuildError::TwoLanguages {
            folder: folder.to_owned(),
            first,
            second,
        }),
        (None, _) => Err(BuildError::NoLanguage {
            folder: folder.to_owned(),
        }),
    }
}

/// The script that a guest in TypeScript or JavaScript begins with: what its `package.json` calls
/// `main`, else the first of `index`, `main`, `app`, `service` and the folder's name, there or in
/// `src/`.
pub(super) fn script(folder: &Path) -> Option<PathBuf> {
    let package = package(folder);
    if let Some(main) = package
        .as_ref()
        .and_then(|package| package.get("main"))
        .and_then(|main| main.as_str())
    {
        return Some(folder.join(main)).filter(|main| main.is_file());
    }
    let name = folder.file_name()?.to_string_lossy();
    let name: &str = &name;
    let stems = ["index", "main", "app", "service", name];
    ["ts", "mts", "js", "mjs"].iter().find_map(|ending| {
        stems.iter().find_map(|stem| {
            [folder.to_owned(), folder.join("src")]
                .iter()
                .map(|place| place.join(format!("{stem}.{ending}")))
                .find(|path| path.is_file())
        })
    })
}

/// The name of the module that a guest in Python begins with: `app`, `main` or the folder's name.
pub(super) fn module(folder: &Path) -> Option<String> {
    let name = folder.file_name()?.to_string_lossy().replace('-', "_");
    ["app".to_owned(), "main".to_owned(), name]
        .into_iter()
        .find(|module| folder.join(format!("{module}.py")).is_file())
}

/// The files in C and C++ of the folder and its `src/`, in order of their names.
pub(super) fn c_files(folder: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let mut files = Vec::new();
    for place in [folder.to_owned(), folder.join("src")] {
        if !place.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&place).map_err(BuildError::reading(&place))? {
            let path = entry.map_err(BuildError::reading(&place))?.path();
            let known = path.extension().is_some_and(|ending| ending == "c");
            if (known || is_cpp(&path)) && path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

pub(super) fn is_cpp(path: &Path) -> bool {
    path.extension()
        .and_then(|ending| ending.to_str())
        .is_some_and(|ending| ["cc", "cpp", "cxx"].contains(&ending))
}
