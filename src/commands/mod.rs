//! One file per command. A command reads its arguments, calls what does the work, and prints.

mod apply;
mod bench;
mod completions;
mod demo;
mod dev;
mod dlq;
mod init;
mod migrate;
mod run;
mod runs;
mod schema;
mod serve;
mod token;
mod torture;
mod validate;
mod version;
mod why;
mod worker;

use crate::config::Config;
use clap::Subcommand;
use std::process::ExitCode;

/// Everything `krowoc` can be told.
#[derive(Subcommand)]
pub enum Command {
    /// Make a project folder with a first workflow, prompt and test
    Init(init::Init),
    /// Check workflow files; every problem is reported at once
    Validate(validate::Validate),
    /// Run a workflow file and show how it goes
    Run(run::Run),
    /// Register workflow files: all of them, or none if one has a problem
    Apply(apply::Apply),
    /// List, show, watch and cancel runs
    Runs(runs::Runs),
    /// Steps that failed for good: look at them, send them back to work
    Dlq(dlq::Dlq),
    /// Say in one sentence what a run waits for
    Why(why::Why),
    /// Bring the database to this version's schema
    Migrate(migrate::Migrate),
    /// Run a project: database, HTTP and worker, with workflows registered as they change
    Dev(dev::Dev),
    /// Serve HTTP, and keep the installation in order
    Serve(serve::Serve),
    /// The token with which the API is used
    Token(token::Token),
    /// Carry out steps until told to stop
    Worker(worker::Worker),
    /// Measure what this machine does
    Bench(bench::Bench),
    /// Do harm on purpose, and see whether a promise is broken
    Torture(torture::Torture),
    /// A process of `torture`
    #[command(hide = true)]
    TortureProcess(torture::TortureProcess),
    /// Summarize a document while its worker is killed halfway
    #[command(hide = true)]
    Demo(demo::Demo),
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
            Self::Run(command) => command.run(config).await,
            Self::Apply(command) => command.run(config).await,
            Self::Runs(command) => command.run(config).await,
            Self::Dlq(command) => command.run(config).await,
            Self::Why(command) => command.run(config).await,
            Self::Migrate(command) => command.run(config).await,
            Self::Dev(command) => command.run(config).await,
            Self::Serve(command) => command.run(config).await,
            Self::Token(command) => command.run(config).await,
            Self::Worker(command) => command.run(config).await,
            Self::Bench(command) => command.run(config).await,
            Self::Torture(command) => command.run(config).await,
            Self::TortureProcess(command) => command.run(config).await,
            Self::Demo(command) => command.run(config).await,
            Self::Schema(command) => command.run(config),
            Self::Completions(command) => command.run(),
            Self::Version(command) => command.run(),
        }
    }
}
