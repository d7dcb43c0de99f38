//! `wasmbay completions`.

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::args::{Args, Completions};
use crate::report::Exit;

pub(super) fn run(args: &Completions) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "wasmbay", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(Exit::Done)
}
