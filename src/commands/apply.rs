//! `krowoc apply`

use super::validate::report;
use crate::{config::Config, database::Session, output, table::count, workflow_files};
use clap::Args;
use krowoc_engine::{Scope, commands::Registered, definition::Compiled};
use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc apply                                every workflow below workflows/
  krowoc apply workflows/support-triage.yaml
  krowoc apply --json workflows/ | jq -r '.[] | select(.created) | .workflow'

Everything is checked first; if any workflow has a problem, nothing is registered and the exit code is 1. A problem of a prompt that \
none of the workflows names is only reported. A file whose content was registered before stays the same version. Runs that have been \
started keep the version that they were started with.")]
pub struct Apply {
    /// Workflow files, or folders of them
    #[arg(default_value = "workflows", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print an array of the versions
    #[arg(long)]
    json: bool,
}

impl Apply {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let files = workflow_files::find(&self.paths)?;
        let checked = workflow_files::check(&files, &config.step_kinds());
        let problems = checked.problems();
        if !problems.is_empty() {
            output::note(report(&problems, config.log.colour && std::io::stderr().is_terminal())?.trim_end());
        }
        if !checked.all_valid() {
            output::note(format!("{}; nothing was registered", count(problems.len(), "problem")));
            return Ok(ExitCode::FAILURE);
        }
        let compiled: Vec<Compiled> = checked.workflows.into_iter().flatten().collect();
        let registered = Session::with(config, async |session| register(session, &compiled).await).await?;
        if self.json {
            output::json(&registered)?;
        } else {
            for version in registered {
                let what = if version.created { "created" } else { "unchanged" };
                output::line(format!("{what:<9}  {} (version {})", version.workflow, version.number))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn register(session: &Session, compiled: &[Compiled]) -> anyhow::Result<Vec<Registered>> {
    let scope = Scope::local("cli");
    let mut registered = Vec::with_capacity(compiled.len());
    for compiled in compiled {
        registered.push(session.engine.register(&scope, compiled).await?);
    }
    Ok(registered)
}
