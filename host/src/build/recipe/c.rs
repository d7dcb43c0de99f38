//! C and C++: bindings in C, a compiler for WASI 0.1, and a component made of the module.
//!
//! What a guest takes of others: headers in `include/`, archives for WebAssembly in `lib/`, and flags in
//! `compile_flags.txt`, a line each, as clangd reads it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use serde_json::{Value, json};

use super::{Built, Job, Tested, tested};
use crate::build::componentize::{bindings, componentize, write};
use crate::build::language::{c_files, is_cpp};
use crate::build::process::{Stdout, run};
use crate::build::{BuildError, Tool};

const C: [&str; 1] = ["-std=c17"];
const CPP: [&str; 3] = ["-std=c++23", "-fno-exceptions", "-fno-rtti"];

pub(super) fn build(job: &Job<'_>, progress: &mut dyn FnMut(&str)) -> Result<Built, BuildError> {
    let cc = job.tools.find(Tool::WasmCc)?;
    let generated = job.scratch.join("bindings");
    let mut objects = Vec::new();
    let mut sources = c_files(job.folder)?;
    let opts = wit_bindgen_c::Opts::default();
    for (name, contents) in bindings(opts.build(), job.world, job.folder)?.iter() {
        let path = generated.join(name);
        write(&path, contents)?;
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("c") => sources.push(path),
            // The world's types, which the linker carries into the module.
            Some("o") => objects.push(path),
            _ => {}
        }
    }
    let own = Own::of(job.folder)?;
    let cpp = sources.iter().any(|source| is_cpp(source));
    // First, so that an editor has them however the build ends.
    write_commands(job, &cc, &sources, |source| {
        arguments(source, &generated, &own, job.folder)
    })?;
    for (at, source) in sources.iter().enumerate() {
        let object = job.scratch.join(format!("{at}.o"));
        let mut command = compiler(&cc, is_cpp(source));
        command
            .current_dir(job.folder)
            .args(arguments(source, &generated, &own, job.folder))
            .args(["-Os", "-c"])
            .arg(source.strip_prefix(job.folder).unwrap_or(source))
            .arg("-o")
            .arg(&object);
        run(
            "compiling C",
            job.folder,
            &mut command,
            Stdout::Messages,
            progress,
        )?;
        objects.push(object);
    }
    let core = job.scratch.join("core.wasm");
    let mut command = compiler(&cc, cpp);
    command
        .current_dir(job.folder)
        .args(["-mexec-model=reactor", "-Os", "-s"])
        .args(&objects)
        .args(&own.archives)
        .args(&own.flags)
        .arg("-o")
        .arg(&core);
    run(
        "linking",
        job.folder,
        &mut command,
        Stdout::Messages,
        progress,
    )?;
    let core = fs::read(&core).map_err(BuildError::reading(&core))?;
    progress("making a component");
    Ok(Built {
        component: componentize(&core, job.folder)?,
        elsewhere: Vec::new(),
    })
}

/// What the guest brings with it, besides sources.
struct Own {
    include: Option<PathBuf>,
    archives: Vec<PathBuf>,
    flags: Vec<String>,
}

impl Own {
    fn of(folder: &Path) -> Result<Self, BuildError> {
        let include = Some(folder.join("include")).filter(|include| include.is_dir());
        let lib = folder.join("lib");
        let mut archives = Vec::new();
        if lib.is_dir() {
            for entry in fs::read_dir(&lib).map_err(BuildError::reading(&lib))? {
                let path = entry.map_err(BuildError::reading(&lib))?.path();
                if path.extension().is_some_and(|ending| ending == "a") {
                    archives.push(path);
                }
            }
        }
        archives.sort();
        let file = folder.join("compile_flags.txt");
        let flags = match file.is_file() {
            true => fs::read_to_string(&file).map_err(BuildError::reading(&file))?,
            false => String::new(),
        };
        let flags = flags.lines().map(str::trim).filter(|flag| !flag.is_empty());
        Ok(Self {
            include,
            archives,
            flags: flags.map(str::to_owned).collect(),
        })
    }
}

/// The arguments by which a source is understood.
fn arguments(source: &Path, generated: &Path, own: &Own, folder: &Path) -> Vec<OsString> {
    let standard = match is_cpp(source) {
        true => CPP.as_slice(),
        false => C.as_slice(),
    };
    let mut arguments: Vec<OsString> = standard.iter().map(OsString::from).collect();
    // For quotes only: a world may be called `time` or `string`.
    arguments.extend(["-iquote".into(), generated.into()]);
    if let Some(include) = &own.include {
        arguments.extend(["-I".into(), include.into()]);
    }
    // Not those of the guest for what is generated.
    if source.starts_with(folder) && !source.starts_with(generated) {
        arguments.extend(own.flags.iter().map(OsString::from));
    }
    arguments
}

/// Writes how each source is compiled, for clangd and whatever else reads a compilation database. The compiler is a script
/// or zig, which have target and headers of their own; so both are said there.
fn write_commands(
    job: &Job<'_>,
    cc: &Path,
    sources: &[PathBuf],
    arguments: impl Fn(&Path) -> Vec<OsString>,
) -> Result<(), BuildError> {
    let [c, cpp] = [false, true].map(|cpp| {
        let used = sources.iter().any(|source| is_cpp(source) == cpp);
        if used { headers(cc, cpp) } else { Vec::new() }
    });
    let entries = sources.iter().map(|source| {
        let mut all = ["clang", "--target=wasm32-wasi", "-nostdinc"]
            .map(OsString::from)
            .to_vec();
        for folder in if is_cpp(source) { &cpp } else { &c } {
            all.extend(["-isystem".into(), folder.into()]);
        }
        all.extend(arguments(source));
        all.extend(["-c".into(), source.into()]);
        let text = |argument: OsString| argument.to_string_lossy().into_owned();
        let all: Vec<_> = all.into_iter().map(text).collect();
        json!({ "directory": job.folder, "file": source, "arguments": all })
    });
    let text = Value::from(entries.collect::<Vec<_>>()).to_string();
    write(&job.scratch.join("compile_commands.json"), text.as_bytes())
}

/// The folders in which the compiler looks for headers, as it prints them; none where it does not.
fn headers(cc: &Path, cpp: bool) -> Vec<String> {
    let mut command = compiler(cc, cpp);
    let language = if cpp { "c++" } else { "c" };
    command.args(["-E", "-v", "-x", language, "/dev/null"]);
    let Ok(output) = command.stdin(process::Stdio::null()).output() else {
        return Vec::new();
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let lines = said
        .lines()
        .skip_while(|line| !line.contains("#include <...>"))
        .skip(1);
    let folders = lines.take_while(|line| line.starts_with(' '));
    folders.map(|folder| folder.trim().to_owned()).collect()
}

/// Runs each file in `tests/`: a program of this machine's compiler, which fails by its exit code. It can include
/// the service's sources, and the header of the bindings, whose functions are for components alone.
pub(super) fn test(
    job: &Job<'_>,
    files: &[PathBuf],
    progress: &mut dyn FnMut(&str),
) -> Result<Option<Tested>, BuildError> {
    let is_program = |file: &&PathBuf| {
        let is_c = file.extension().is_some_and(|ending| ending == "c");
        file.parent() == Some(Path::new("tests")) && (is_c || is_cpp(file))
    };
    let mut all: Option<Tested> = None;
    for source in files.iter().filter(is_program) {
        let cpp = is_cpp(source);
        let compilers: &[_] = match cpp {
            true => &["c++", "clang++", "g++"],
            false => &["cc", "clang", "gcc"],
        };
        let program = job.scratch.join(source).with_extension("test");
        if let Some(folder) = program.parent() {
            fs::create_dir_all(folder).map_err(BuildError::writing(folder))?;
        }
        let mut command = Command::new(job.tools.runner(compilers)?);
        command
            .arg(if cpp { "-std=gnu++20" } else { "-std=gnu17" })
            .arg("-iquote")
            .arg(job.scratch.join("bindings"))
            .args(["-g", "-o"])
            .arg(&program)
            .arg(source);
        let mut one = tested("cc", job, &mut command, progress)?;
        if one.passed {
            one = tested("tests/", job, &mut Command::new(&program), progress)?;
        }
        if !one.passed {
            one.output = format!("{} failed\n{}", source.display(), one.output);
        }
        let before = all.take();
        all = Some(Tested {
            runner: "C programs".to_owned(),
            passed: one.passed && before.as_ref().is_none_or(|before| before.passed),
            took: one.took
                + before
                    .as_ref()
                    .map_or(std::time::Duration::ZERO, |before| before.took),
            output: before.map_or(String::new(), |before| before.output) + &one.output,
        });
    }
    Ok(all)
}

/// The compiler for one of the two languages: a pair of wrappers, or zig, which is both.
fn compiler(cc: &Path, cpp: bool) -> Command {
    let zig = cc
        .file_stem()
        .and_then(|stem| stem.to_str())
        .is_some_and(|stem| stem.ends_with("zig"));
    if zig {
        let mut command = Command::new(cc);
        command.arg(if cpp { "c++" } else { "cc" }).args([
            "-target",
            "wasm32-wasi",
            "-Wno-deprecated",
            // Its default is 16 MiB of stack, all of it in each instance's memory.
            "-Wl,-z,stack-size=65536",
        ]);
        return command;
    }
    let wrapper: PathBuf = if cpp {
        cc.with_file_name("wasm-c++")
    } else {
        cc.to_owned()
    };
    Command::new(wrapper)
}
