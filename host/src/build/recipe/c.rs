//! C and C++: bindings in C, a compiler for WASI 0.1, and a component made of the module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    let cpp = sources.iter().any(|source| is_cpp(source));
    for (at, source) in sources.iter().enumerate() {
        let object = job.scratch.join(format!("{at}.o"));
        let mut command = compiler(&cc, is_cpp(source));
        command
            .current_dir(job.folder)
            .args(if is_cpp(source) {
                CPP.as_slice()
            } else {
                C.as_slice()
            })
            // For quotes only: a world may be called `time` or `string`.
            .arg("-iquote")
            .arg(&generated)
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
