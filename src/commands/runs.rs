//! `krowoc runs`

use super::run::{INTERRUPTED, conclude};
use crate::{
    config::Config,
    database::Session,
    follow::Followed,
    output, progress,
    run_document::{RunDocument, print_output, word},
    short_id,
    signals::Signals,
    table::{Table, span},
};
use chrono::Local;
use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use krowoc_engine::{
    RunId, Scope,
    commands::Cancelled,
    lifecycle::RunStatus,
    queries::runs::{self, RunFilter, RunState, RunView},
};
use std::{io::IsTerminal, process::ExitCode};

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc runs list --status failed               what failed, newest first
  krowoc runs show 0198c0de-1234                 how a run stands, by the beginning of its id
  krowoc runs watch 0198c0de-1234                how it goes on
  krowoc runs cancel 0198c0de-1234               its end")]
pub struct Runs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List runs, newest first
    List(List),
    /// Show a run: its steps, what failed, its output or error
    Show(Show),
    /// Follow a run until it has ended
    Watch(Watch),
    /// Stop a run; what has succeeded stays on record
    Cancel(Cancel),
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc runs list
  krowoc runs list --workflow summarize-note --status failed
  krowoc runs list --json --limit 1000 | jq -r '.[] | select(.generation > 1) | .id'")]
struct List {
    /// Of this workflow
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Standing here
    #[arg(long, value_parser = run_states())]
    status: Option<RunState>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Those older than this run: the next page
    #[arg(long, value_name = "RUN")]
    after: Option<String>,
    /// Print an array
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc runs show 0198c0de-1234-7abc-8def-0123456789ab
  krowoc runs show 0198c0de-1234                 the beginning of an id, where it names one run
  krowoc runs show 0198c0de-1234 --json | jq .output")]
struct Show {
    /// The run's id, or its first 8 characters or more
    run: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc runs watch 0198c0de-1234
  krowoc runs watch 0198c0de-1234 --json | jq .output

What the run waits for is said as `krowoc why` says it, and again when that changes.

The exit code is 0 if the run succeeded, 1 if it failed, 3 if it was cancelled, 130 if watching \
was interrupted, which the run does not notice.")]
struct Watch {
    /// The run's id, or its first 8 characters or more
    run: String,
    /// Print one JSON document at the end
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc runs cancel 0198c0de-1234

Nothing new starts from then on; steps in flight are stopped by their workers. Cancelling twice \
does nothing more.")]
struct Cancel {
    /// The run's id, or its first 8 characters or more
    run: String,
    /// Print a JSON document: status, steps in flight
    #[arg(long)]
    json: bool,
}

fn run_states() -> impl TypedValueParser<Value = RunState> {
    use RunState::{Cancelled, Cancelling, Failed, Queued, Running, Succeeded};
    let states = [Queued, Running, Cancelling, Succeeded, Failed, Cancelled];
    PossibleValuesParser::new(states.map(word))
        .try_map(move |name| states.into_iter().find(|state| word(*state) == name).ok_or("not a status"))
}

impl Runs {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let colour = config.log.colour;
        Session::with(config, async |session| match self.action {
            Action::List(command) => command.run(session).await,
            Action::Show(command) => command.run(session, colour).await,
            Action::Watch(command) => command.run(session, colour).await,
            Action::Cancel(command) => command.run(session).await,
        })
        .await
    }
}

fn scope() -> Scope {
    Scope::local("cli")
}

/// The run that a text on the command line names.
pub(super) async fn named(session: &Session, text: &str) -> anyhow::Result<RunId> {
    short_id::run(&mut *session.engine.pool().acquire().await?, &scope(), text).await
}

impl List {
    async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let after = match &self.after {
            Some(text) => Some(named(session, text).await?),
            None => None,
        };
        let filter = RunFilter { workflow: self.workflow.clone(), status: self.status, ..RunFilter::default() };
        let conn = &mut *session.engine.pool().acquire().await?;
        let found = runs::list(conn, &scope(), &filter, after, self.limit.into()).await?;
        match found.as_slice() {
            found if self.json => output::json(&found)?,
            [] => output::note("no runs; `krowoc run FILE` starts one"),
            found => output::line(table(found).to_string())?,
        }
        if let Some(last) = found.last().filter(|_| found.len() == usize::from(self.limit)) {
            output::note(format!("there may be more: {}", self.next(last.id)));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The same command for the next page.
    fn next(&self, last: RunId) -> String {
        let words = [
            self.workflow.as_ref().map(|name| format!("--workflow {name}")),
            self.status.map(|status| format!("--status {}", word(status))),
            Some(format!("--limit {} --after {last}", self.limit)),
            self.json.then(|| "--json".into()),
        ];
        words.into_iter().flatten().fold("krowoc runs list".into(), |command, words| format!("{command} {words}"))
    }
}

fn table(runs: &[RunView]) -> Table {
    let mut table = Table::new(&["ID", "WORKFLOW", "STATUS", "STARTED", "TOOK"]);
    for run in runs {
        let took = run.finished_at.map(|end| span((end - run.created_at).num_milliseconds()));
        table.row([
            run.id.to_string(),
            format!("{}@{}", run.workflow, run.version),
            word(run.status).to_owned(),
            run.created_at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string(),
            took.unwrap_or_default(),
        ]);
    }
    table
}

impl Show {
    async fn run(self, session: &Session, colour: bool) -> anyhow::Result<ExitCode> {
        let run = named(session, &self.run).await?;
        let document = RunDocument::load(&session.engine, &scope(), run).await?;
        if self.json {
            output::json(&document)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut lines = document.header();
        lines.push(String::new());
        lines.extend(document.body(colour && std::io::stdout().is_terminal()));
        lines.push(String::new());
        lines.extend(document.verdict());
        output::line(lines.join("\n").trim_end())?;
        if let Some(result) = &document.run.output {
            print_output(result)?;
        }
        if !document.status().is_terminal() {
            output::note(format!("`krowoc why {run}` says what it waits for"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Watch {
    async fn run(self, session: &Session, colour: bool) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::listen()?;
        let run = named(session, &self.run).await?;
        let scope = scope();
        let followed = Followed::find(&session.engine, &scope, run).await?.telling_why();
        let mut progress = progress::to_stderr(colour);
        let ended = tokio::select! {
            ended = followed.until_end(&mut *progress, std::future::pending::<()>) => ended.map(Some),
            _ = signals.next() => Ok(None),
        };
        progress.end();
        if ended?.is_none() {
            return Ok(ExitCode::from(INTERRUPTED));
        }
        let document = RunDocument::load(&session.engine, &scope, run).await?;
        conclude(&document, self.json, colour)?;
        Ok(document.exit_code())
    }
}

impl Cancel {
    async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let run = named(session, &self.run).await?;
        let cancelled = session.engine.cancel(&scope(), run).await?;
        if self.json {
            output::json(&cancelled)?;
        } else {
            output::line(said(run, cancelled))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn said(run: RunId, cancelled: Cancelled) -> String {
    match cancelled {
        Cancelled { status: RunStatus::Cancelled, .. } => format!("run {run} is cancelled"),
        Cancelled { in_flight, .. } => format!("run {run} is being cancelled; attempts in flight: {in_flight}"),
    }
}
