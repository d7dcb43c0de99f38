//! A text in the person's editor.

use std::io::{IsTerminal as _, Write as _};
use std::process::Command;

use anyhow::Context as _;

use crate::report::failure;

/// Opens a text in an editor, and returns the file if it changed. `given` is the command that takes the text
/// otherwise.
pub(super) fn open(
    before: &str,
    name: &str,
    suffix: &str,
    given: &str,
) -> anyhow::Result<Option<tempfile::NamedTempFile>> {
    let named = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR"));
    let (Some(editor), true) = (editor, std::io::stdin().is_terminal()) else {
        return Err(failure(
            "there is no body, and no $EDITOR on a terminal to write one",
            format!("give the body: `{given} @FILE`, or - for stdin"),
        ));
    };
    let mut file = tempfile::Builder::new()
        .prefix(name)
        .suffix(suffix)
        .tempfile()?;
    file.write_all(before.as_bytes())?;
    // It may have arguments of its own.
    let ended = Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(file.path())
        .status()
        .with_context(|| format!("cannot run {editor}"))?;
    if !ended.success() {
        anyhow::bail!("{editor} failed: {ended}");
    }
    let after = std::fs::read(file.path()).context("cannot read what was edited")?;
    Ok((after != before.as_bytes()).then_some(file))
}
