//! One file per command. A command reads its arguments, calls what does the work, and prints.

mod bench;
mod completions;
mod init;
mod schema;
mod validate;
mod version;

use crate::config::Config;
use clap::Subcommand;
use std::process::ExitCode;

/// Everything `krowoc` can be told.
#[derive(Subcommand)]
pub enum Command {
    /// Make a project folder with a first workflow and prompt
    Init(init::Init),
    /// Check workflow files; every problem is reported at once
    Validate(validate::Validate),
    /// Measure what this machine does
    Bench(bench::Bench),
    /// Print a schema for editors and other tools
    Schema(schema::Schema),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print the version
    Version(version::Version),
}

impl Command {
    /// Carries the command out; the code is the process's.
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        match self {
            Self::Init(command) => command.run(config),
            Self::Validate(command) => command.run(config),
            Self::Bench(command) => command.run(config).await,
            Self::Schema(command) => command.run(config),
            Self::Completions(command) => command.run(),
            Self::Version(command) => command.run(),
        }
    }
}
