//! `krowoc completions`

use crate::{Cli, output};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc completions bash > ~/.local/share/bash-completion/completions/krowoc
  krowoc completions zsh > ~/.zfunc/_krowoc
  krowoc completions fish > ~/.config/fish/completions/krowoc.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "krowoc", &mut script);
        output::bytes(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
