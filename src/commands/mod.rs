//! One file per command. A command reads its arguments, calls what does the work, and prints.

mod completions;
mod dev;
mod init;
mod schema;
mod serve;
mod validate;
mod version;
mod worker;

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
    /// Run a project: database, HTTP and worker, with workflows registered as they change
    Dev(dev::Dev),
    /// Serve HTTP, and keep the installation in order
    Serve(serve::Serve),
    /// Carry out steps until told to stop
    Worker(worker::Worker),
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
            Self::Dev(command) => command.run(config).await,
            Self::Serve(command) => command.run(config).await,
            Self::Worker(command) => command.run(config).await,
            Self::Schema(command) => command.run(config),
            Self::Completions(command) => command.run(),
            Self::Version(command) => command.run(),
        }
    }
}
