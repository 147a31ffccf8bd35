//! `krowoc dlq`

use super::runs::named;
use crate::{
    config::Config,
    database::Session,
    output, remedy, short_id,
    table::{Table, clean, count, excerpt, span},
};
use anyhow::bail;
use chrono::Local;
use clap::{
    ArgGroup, Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use krowoc_engine::{
    ErrorClass, RunId, Scope,
    commands::{Discarded, Redrive as Outcome, Redriven, discard, redrive},
    queries::dead_letters::{self, LetterDetail, LetterFilter, LetterState, LetterView},
};
use serde::Serialize;
use std::{collections::BTreeSet, process::ExitCode};
use uuid::Uuid;

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc dlq list                                what waits for a decision
  krowoc dlq show 5f0c9a71                       one of them, by the beginning of its id
  krowoc dlq redrive --run 0198c0de-1234         once the cause is mended
  krowoc dlq discard 5f0c9a71 --reason 'the sea is calm'")]
pub struct Dlq {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List dead letters, newest first
    List(List),
    /// Show a dead letter: the error, the input, every attempt
    Show(Show),
    /// Send steps back to work: same run, same version; nothing that succeeded runs again
    Redrive(Redrive),
    /// Leave steps as they are, for a reason that is kept
    Discard(Discard),
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc dlq list
  krowoc dlq list --workflow summarize-note --class overloaded
  krowoc dlq list --state all --json | jq length")]
struct List {
    /// Where they stand
    #[arg(long, default_value = "open", value_parser = PossibleValuesParser::new(["open", "redriven", "resolved", "discarded", "all"]))]
    state: String,
    /// Of this workflow
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Of this run: its id, or its first 8 characters or more
    #[arg(long)]
    run: Option<String>,
    /// Failed with this class of error
    #[arg(long, value_parser = classes())]
    class: Option<ErrorClass>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
    /// Those older than this letter: the next page
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Print an array
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc dlq show 5f0c9a71-3d2e-4b1a-9c88-0123456789ab
  krowoc dlq show 5f0c9a71                       the beginning of an id, where it names one letter
  krowoc dlq show 5f0c9a71 --json | jq .input")]
struct Show {
    /// The dead letter's id, or its first 8 characters or more
    id: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(group = ArgGroup::new("which").required(true), after_help = "\
Examples:
  krowoc dlq redrive 5f0c9a71
  krowoc dlq redrive --run 0198c0de-1234         every open one of a run
  krowoc dlq list --class overloaded --json | jq -r '.[].id' | xargs krowoc dlq redrive

Redriving twice does nothing more. A newer version of the workflow does not apply: the run keeps \
its own. The exit code is 1 if any was refused.")]
struct Redrive {
    /// Dead letters' ids, or their first 8 characters or more
    #[arg(value_name = "ID", group = "which")]
    ids: Vec<String>,
    /// Every open dead letter of this run: its id, or its first 8 characters or more
    #[arg(long, group = "which")]
    run: Option<String>,
    /// Print an array: what came of each
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc dlq discard 5f0c9a71 --reason 'the order was withdrawn'

The exit code is 1 if any was refused.")]
struct Discard {
    /// Dead letters' ids, or their first 8 characters or more
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Why they are left
    #[arg(long)]
    reason: String,
    /// Print an array: what came of each
    #[arg(long)]
    json: bool,
}

fn classes() -> impl TypedValueParser<Value = ErrorClass> {
    PossibleValuesParser::new(ErrorClass::ALL.map(ErrorClass::name))
        .try_map(|name| ErrorClass::ALL.into_iter().find(|class| class.name() == name).ok_or("not a class"))
}

fn scope() -> Scope {
    Scope::local("cli")
}

impl Dlq {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        Session::with(config, async |session| match self.action {
            Action::List(command) => command.run(session).await,
            Action::Show(command) => command.run(session).await,
            Action::Redrive(command) => command.run(session).await,
            Action::Discard(command) => command.run(session).await,
        })
        .await
    }
}

impl List {
    async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let run = match &self.run {
            Some(text) => Some(named(session, text).await?),
            None => None,
        };
        let state = [LetterState::Open, LetterState::Redriven, LetterState::Resolved, LetterState::Discarded]
            .into_iter()
            .find(|state| word(*state) == self.state);
        let filter = LetterFilter { state, workflow: self.workflow.clone(), run, class: self.class };
        let conn = &mut *session.engine.pool().acquire().await?;
        let after = match &self.after {
            Some(text) => Some(short_id::letter(conn, &scope(), text).await?),
            None => None,
        };
        let letters = dead_letters::list(conn, &scope(), &filter, after, self.limit.into()).await?;
        match letters.as_slice() {
            letters if self.json => output::json(&letters)?,
            [] if self.state == "all" => output::note("no dead letters"),
            [] => output::note(format!("no dead letters that are {}", self.state)),
            letters => output::line(table(letters).to_string())?,
        }
        if let Some(last) = letters.last().filter(|_| letters.len() == usize::from(self.limit)) {
            output::note(format!("there may be more: {}", self.next(last.id)));
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The same command for the next page.
    fn next(&self, last: Uuid) -> String {
        let words = [
            Some(format!("--state {}", self.state)),
            self.workflow.as_ref().map(|name| format!("--workflow {name}")),
            self.run.as_ref().map(|run| format!("--run {run}")),
            self.class.map(|class| format!("--class {}", class.name())),
            Some(format!("--limit {} --after {last}", self.limit)),
            self.json.then(|| "--json".into()),
        ];
        words.into_iter().flatten().fold("krowoc dlq list".into(), |command, words| format!("{command} {words}"))
    }
}

fn table(letters: &[LetterView]) -> Table {
    let mut table = Table::new(&["ID", "WORKFLOW", "STEP", "STATE", "CLASS", "ATTEMPTS", "FAILED", "MESSAGE"]);
    for letter in letters {
        table.row([
            letter.id.to_string(),
            letter.workflow.clone(),
            letter.path.clone(),
            word(letter.state).to_owned(),
            letter.class.name().to_owned(),
            letter.attempts.to_string(),
            letter.created_at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string(),
            excerpt(&letter.message, 80),
        ]);
    }
    table
}

fn word(state: LetterState) -> &'static str {
    match state {
        LetterState::Open => "open",
        LetterState::Redriven => "redriven",
        LetterState::Resolved => "resolved",
        LetterState::Discarded => "discarded",
    }
}

impl Show {
    async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let conn = &mut *session.engine.pool().acquire().await?;
        let id = short_id::letter(conn, &scope(), &self.id).await?;
        let detail = dead_letters::show(conn, &scope(), id).await?;
        match self.json {
            true => output::json(&detail)?,
            false => output::line(page(&detail).join("\n"))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn page(detail: &LetterDetail) -> Vec<String> {
    let letter = &detail.letter;
    let at = |time: chrono::DateTime<chrono::Utc>| time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S");
    let mut lines = vec![
        format!("letter    {}", letter.id),
        format!("run       {} (generation {})", letter.run, letter.generation),
        format!("workflow  {} (version {})", clean(&letter.workflow), letter.version),
        format!("step      {}", clean(&letter.path)),
        format!("state     {} since {}", word(letter.state), at(letter.changed_at)),
    ];
    lines.extend(letter.reason.as_ref().map(|reason| format!("reason    {}", clean(reason))));
    lines.push(format!("error     {}: {}", letter.class, clean(&detail.error.message)));
    lines.extend(detail.error.details.as_ref().map(|details| format!("details   {}", clean(&details.to_string()))));
    let later = if detail.input_rendered_later { " (rendered now: the attempt left none)" } else { "" };
    lines.push(format!("input     {}{later}", detail.input.as_ref().map_or("not reached".into(), |input| clean(input.as_str()))));
    lines.push(format!("attempts  {}", letter.attempts));
    for attempt in &detail.history {
        let error = attempt.error.as_ref().map(|error| format!(" {}: {}", error.class, clean(&error.message))).unwrap_or_default();
        let took = span(attempt.duration_ms.into());
        lines.push(format!("  {} {} {} after {took}{error}", attempt.attempt, at(attempt.started_at), attempt.status));
    }
    if letter.state == LetterState::Open {
        lines.push(remedy::line([letter.class], &letter.id.to_string()));
    }
    lines
}

/// What came of a letter, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    letter: Uuid,
    /// The step's run.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<RunId>,
    /// The step's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// `redriven`, `already_redriven`, `discarded`, `refused`.
    outcome: &'static str,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<Redriven> for Report {
    fn from(redriven: Redriven) -> Self {
        let (outcome, error) = match redriven.outcome {
            Outcome::Redriven => ("redriven", None),
            Outcome::AlreadyRedriven => ("already_redriven", None),
            Outcome::Refused(error) => ("refused", Some(error.to_string())),
        };
        let (run, path) = redriven.step.unzip();
        Self { letter: redriven.letter, run, path, outcome, error }
    }
}

impl From<Discarded> for Report {
    fn from(discarded: Discarded) -> Self {
        let error = discarded.outcome.err().map(|error| error.to_string());
        let outcome = if error.is_none() { "discarded" } else { "refused" };
        Self { letter: discarded.letter, run: None, path: None, outcome, error }
    }
}

fn print(reports: &[Report], json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::json(&reports)?;
    } else {
        for report in reports {
            let what = report.outcome.replace('_', " ");
            let step = report.path.as_ref().map(|path| format!("  {}", clean(path))).unwrap_or_default();
            let error = report.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            output::line(format!("{what}  {}{step}{error}", report.letter))?;
        }
    }
    let refused = reports.iter().filter(|report| report.outcome == "refused").count();
    if refused > 0 && !json {
        output::note(format!("{} refused; `krowoc dlq list --state all` shows the dead letters there are", count(refused, "letter")));
    }
    Ok(if refused > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Redrive {
    async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let run = match &self.run {
            Some(text) => Some(named(session, text).await?),
            None => None,
        };
        let ids = match run {
            Some(run) => open_letters(session, run).await?,
            None => letters(session, &self.ids).await?,
        };
        let conn = &mut *session.engine.pool().acquire().await?;
        let redriven = redrive(conn, &session.engine.registry().versions, &scope(), &ids).await?;
        let reports: Vec<Report> = redriven.into_iter().map(Report::from).collect();
        let code = print(&reports, self.json)?;
        let runs: BTreeSet<RunId> = reports.iter().filter(|report| report.outcome == "redriven").filter_map(|report| report.run).collect();
        if !self.json && !runs.is_empty() {
            output::note("A worker goes on with it: `krowoc worker` starts one where none runs. To see how it goes:");
            runs.iter().for_each(|run| output::note(format!("  krowoc runs watch {run}")));
        }
        Ok(code)
    }
}

/// The letters that texts on the command line name; none of them is touched if one of the texts is wrong.
async fn letters(session: &Session, texts: &[String]) -> anyhow::Result<Vec<Uuid>> {
    let conn = &mut *session.engine.pool().acquire().await?;
    let mut ids = Vec::with_capacity(texts.len());
    for text in texts {
        ids.push(short_id::letter(conn, &scope(), text).await?);
    }
    Ok(ids)
}

/// Every open letter of a run, page by page; a run without any is an error.
async fn open_letters(session: &Session, run: RunId) -> anyhow::Result<Vec<Uuid>> {
    const PAGE: i64 = 1000;
    let filter = LetterFilter { run: Some(run), state: Some(LetterState::Open), ..LetterFilter::default() };
    let conn = &mut *session.engine.pool().acquire().await?;
    let mut ids: Vec<Uuid> = Vec::new();
    loop {
        let page = dead_letters::list(conn, &scope(), &filter, ids.last().copied(), PAGE).await?;
        ids.extend(page.iter().map(|letter| letter.id));
        match (page.is_empty(), ids.is_empty()) {
            (false, _) => {}
            (true, false) => return Ok(ids),
            (true, true) => bail!("run {run} has no open dead letters\n`krowoc runs show {run}` says how it stands"),
        }
    }
}

impl Discard {
    async fn run(self, session: &Session) -> anyhow::Result<ExitCode> {
        let ids = letters(session, &self.ids).await?;
        let conn = &mut *session.engine.pool().acquire().await?;
        let discarded = discard(conn, &scope(), &ids, &self.reason).await?;
        let reports: Vec<Report> = discarded.into_iter().map(Report::from).collect();
        print(&reports, self.json)
    }
}
