//! `krowoc why`

use super::runs::named;
use crate::{
    config::Config,
    database::Session,
    output,
    table::{Table, clean},
};
use chrono::{DateTime, Local, Utc};
use clap::Args;
use krowoc_engine::{
    Scope,
    queries::{
        self,
        why::{Reason, WhyView, why},
    },
};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc why 0198c0de-1234
  krowoc why 0198c0de-1234 --json | jq -r '.waits[] | .path + \": \" + .wakes'")]
pub struct Why {
    /// The run's id, or its first 8 characters or more
    run: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Why {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let answer = Session::with(config, async |session| self.ask(session).await).await?;
        if self.json {
            output::json(&answer)?;
            return Ok(ExitCode::SUCCESS);
        }
        output::line(clean(&answer.sentence))?;
        if answer.waits.len() > 1 {
            output::line(table(&answer).to_string())?;
        }
        if let Some(left_out) = usize::try_from(answer.live).ok().and_then(|live| live.checked_sub(answer.waits.len())).filter(|n| *n > 0) {
            output::line(format!("… and {left_out} more"))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn ask(&self, session: &Session) -> anyhow::Result<WhyView> {
        let scope = Scope::local("cli");
        let run = named(session, &self.run).await?;
        let conn = &mut *session.engine.pool().acquire().await?;
        let version = queries::version_of(conn, &scope, run).await?;
        let version = session.engine.registry().versions.load(conn, version).await?;
        Ok(why(conn, &scope, run, &version.dag).await?)
    }
}

fn table(answer: &WhyView) -> Table {
    let mut table = Table::new(&["STEP", "DOES", "ATTEMPT", "SINCE", "UNTIL", "NEXT"]);
    let time = |at: Option<DateTime<Utc>>| at.map(|at| at.with_timezone(&Local).format("%H:%M:%S").to_string()).unwrap_or_default();
    for wait in &answer.waits {
        let (since, until) = (time(wait.since), time(wait.until));
        table.row([wait.path.clone(), word(wait.reason).to_owned(), wait.attempt.to_string(), since, until, wait.wakes.clone()]);
    }
    table
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::Leased => "runs",
        Reason::Aborting => "is stopped",
        Reason::WorkerSilent => "has a silent worker",
        Reason::NoWorker => "has no worker",
        Reason::Ready => "is ready",
        Reason::Backoff => "waits to try again",
        Reason::Deferred => "waits for a limit",
        Reason::Timer => "waits for its time",
        Reason::Items => "waits for items",
        Reason::Concurrency => "waits for another item",
    }
}
