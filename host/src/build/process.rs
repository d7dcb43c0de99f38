//! Running a compiler: its messages are passed on as they come and kept for the error.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use super::BuildError;

/// What a tool writes to its standard output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stdout {
    /// Messages, like what it writes to its standard error.
    Messages,
    /// What it was run for.
    Data,
}

/// Runs a command of a build to its end and returns its standard output.
///
/// `progress` is called with each line of its standard error.
pub(super) fn run(
    step: &str,
    folder: &Path,
    command: &mut Command,
    stdout: Stdout,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, BuildError> {
    progress(step);
    let program = PathBuf::from(command.get_program());
    let start = |source| BuildError::Start {
        program: program.clone(),
        source,
    };
    let mut child = command
        // Where a compiler itself was when it found the mistake does not matter.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    // One pipe in a thread: a compiler that fills the other would otherwise wait for ever.
    let out = child.stdout.take().map(|mut pipe| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // A pipe that breaks has given what it had.
            let _ = pipe.read_to_end(&mut bytes);
            bytes
        })
    });
    let mut output = String::new();
    if let Some(pipe) = child.stderr.take() {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line);
            if !text.trim().is_empty() {
                progress(text.trim());
            }
            output.push_str(&text);
            line.clear();
        }
    }
    let out = out
        .and_then(|reader| reader.join().ok())
        .unwrap_or_default();
    let status = child.wait().map_err(start)?;
    if status.success() {
        return Ok(out);
    }
    if stdout == Stdout::Messages {
        output.push_str(&String::from_utf8_lossy(&out));
    }
    Err(BuildError::Failed {
        step: step.to_owned(),
        folder: folder.to_owned(),
        status,
        output,
    })
}
