//! `wasmbay man`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{CommandFactory as _, ValueHint};

use crate::args::Args;
use crate::report::Exit;

/// Write the manual pages into a folder
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay man ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// The folder, which is made where it is not there
    #[arg(value_hint = ValueHint::DirPath)]
    folder: PathBuf,
}

pub(super) fn run(args: &Man) -> anyhow::Result<Exit> {
    let folder = args.folder.display();
    let cannot = || format!("cannot write manual pages into {folder}");
    std::fs::create_dir_all(&args.folder).with_context(cannot)?;
    clap_mangen::generate_to(Args::command(), &args.folder).with_context(cannot)?;
    Ok(Exit::Done)
}
