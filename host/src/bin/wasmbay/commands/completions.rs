//! `wasmbay completions`.

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::args::Args;
use crate::report::Exit;

/// Print a shell's completions
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  wasmbay completions bash > ~/.local/share/bash-completion/completions/wasmbay
  wasmbay completions zsh > ~/.zfunc/_wasmbay
  wasmbay completions fish > ~/.config/fish/completions/wasmbay.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Completions) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "wasmbay", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(Exit::Done)
}
