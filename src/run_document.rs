//! Everything about a run: one JSON document for programs, a page for people.

use crate::{
    output,
    progress::drawn,
    remedy,
    table::{clean, count, excerpt, span},
    tree,
};
use chrono::Local;
use krowoc_engine::{
    Engine, Payload, Result, RunId, Scope,
    queries::{
        self,
        attempts::{self, AttemptView},
        dead_letters::{self, LetterFilter, LetterState, LetterView},
        inside::{self, StepInside},
        runs::{self, RunDetail, RunState},
        steps::{self, StepView},
        usage::{self, StepUsage, Tokens},
    },
};
use serde::Serialize;
use serde_json::Value;
use std::{io::IsTerminal, process::ExitCode};

/// Attempts that failed, and dead letters: so many of each, the latest.
const MOST: usize = 1000;
/// Of each, so many are shown to people.
const SHOWN: usize = 10;

/// What `--json` prints of a run: the views of the engine as they are.
#[derive(Serialize)]
pub struct RunDocument {
    /// The run.
    #[serde(flatten)]
    pub run: RunDetail,
    /// Its own steps.
    pub steps: Vec<StepView>,
    /// The steps inside its maps, each once for all items.
    pub inside: Vec<StepInside>,
    /// Attempts that brought no result, those of map items too.
    pub failed_attempts: Vec<AttemptView>,
    /// There are earlier ones, which are left out.
    pub more_failed_attempts: bool,
    /// What the steps used of models, by step, those in maps too.
    pub usage: Vec<StepUsage>,
    /// The simulator answered calls of this run, as far as the latest thousand attempts tell.
    pub simulated: bool,
    /// Steps that failed for good, those of map items too.
    pub dead_letters: Vec<LetterView>,
    /// There are earlier ones, which are left out: `krowoc dlq list --run RUN --after ID` has them.
    pub more_dead_letters: bool,
}

impl RunDocument {
    /// Reads it.
    pub async fn load(engine: &Engine, scope: &Scope, run: RunId) -> Result<Self> {
        let conn = &mut *engine.pool().acquire().await?;
        let version = queries::version_of(conn, scope, run).await?;
        let version = engine.registry().versions.load(conn, version).await?;
        let filter = LetterFilter { run: Some(run), ..LetterFilter::default() };
        // One more than is kept tells whether there are more.
        let most = MOST as i64 + 1;
        // The oldest stand first here, and last there.
        let mut failed_attempts = attempts::without_result(conn, scope, run, &version.dag, most).await?;
        let left_out = failed_attempts.len().saturating_sub(MOST);
        failed_attempts.drain(..left_out);
        let mut dead_letters = dead_letters::list(conn, scope, &filter, None, most).await?;
        let more_dead_letters = dead_letters.len() > MOST;
        dead_letters.truncate(MOST);
        let usage = usage::by_step(conn, scope, run, &version.dag).await?;
        let simulated = !usage.is_empty() && {
            let latest = attempts::attempts(conn, scope, run, &version.dag, None, MOST as i64).await?;
            latest.iter().any(|attempt| attempt.usage.as_ref().is_some_and(|usage| usage.simulated))
        };
        Ok(Self {
            run: runs::show(conn, scope, run).await?,
            steps: steps::steps(conn, scope, run, &version.dag).await?,
            inside: inside::steps(conn, scope, run, &version.dag).await?,
            failed_attempts,
            more_failed_attempts: left_out > 0,
            usage,
            simulated,
            dead_letters,
            more_dead_letters,
        })
    }

    /// Where the run stands.
    pub fn status(&self) -> RunState {
        self.run.run.status
    }

    /// What the process's exit code says of the run.
    pub fn exit_code(&self) -> ExitCode {
        match self.status() {
            RunState::Failed => ExitCode::FAILURE,
            RunState::Cancelled | RunState::Cancelling => ExitCode::from(3),
            RunState::Succeeded | RunState::Queued | RunState::Running => ExitCode::SUCCESS,
        }
    }

    /// The lines above the steps.
    pub fn header(&self) -> Vec<String> {
        let run = &self.run.run;
        let at = |time: chrono::DateTime<chrono::Utc>| time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string();
        let generation = if run.generation > 1 { format!(", generation {}", run.generation) } else { String::new() };
        let mut lines = vec![
            format!("run       {}", run.id),
            format!("workflow  {} (version {})", run.workflow, run.version),
            format!("status    {}{generation}", word(run.status)),
            format!("started   {} by {}", at(run.created_at), clean(&run.created_by)),
        ];
        if let Some(end) = run.finished_at {
            lines.push(format!("ended     {} after {}", at(end), self.took()));
        }
        lines.extend(run.idempotency_key.as_ref().map(|key| format!("key       {}", clean(key))));
        lines.push(format!("input     {}", excerpt(self.run.input.as_str(), 120)));
        lines
    }

    /// The steps as a tree, what they used, and attempts that failed.
    pub fn body(&self, colour: bool) -> Vec<String> {
        let mut lines = tree::lines(&self.steps, &self.inside, colour, |step| drawn(step, colour));
        lines.extend(self.total());
        if !self.failed_attempts.is_empty() {
            lines.extend([String::new(), "Attempts without a result:".into()]);
        }
        let left_out = self.failed_attempts.len().saturating_sub(SHOWN);
        if left_out > 0 {
            let beyond = if self.more_failed_attempts { format!("more than {left_out}") } else { left_out.to_string() };
            let them = if self.more_failed_attempts { format!("the latest {MOST}") } else { "them".into() };
            lines.push(format!("  … {beyond} earlier ones; --json has {them}"));
        }
        for attempt in &self.failed_attempts[left_out..] {
            let at = attempt.finished_at.with_timezone(&Local).format("%H:%M:%S");
            let why = attempt.error.as_ref().map(|error| format!(" {}: {}", error.class, excerpt(&error.message, 160))).unwrap_or_default();
            lines.push(format!("  {at} {} attempt {} {}{why}", clean(&attempt.path), attempt.attempt, attempt.status));
        }
        lines
    }

    /// How it ended and what to do about it; nothing for a run that has not ended.
    pub fn verdict(&self) -> Vec<String> {
        let run = &self.run.run;
        match run.status {
            RunState::Succeeded => vec![format!("✓ run {} succeeded after {}", run.id, self.took())],
            RunState::Cancelled => vec![format!("■ run {} was cancelled after {}", run.id, self.took())],
            RunState::Failed => self.failure(),
            RunState::Queued | RunState::Running | RunState::Cancelling => vec![],
        }
    }

    fn failure(&self) -> Vec<String> {
        let run = &self.run.run;
        let why: Option<Value> = run.error.as_ref().and_then(|error| error.parse().ok());
        let why = why.as_ref().and_then(|error| error["message"].as_str()).unwrap_or("no reason is recorded");
        let mut lines = vec![format!("✗ run {} failed after {}: {}", run.id, self.took(), excerpt(why, 400))];
        let open: Vec<&LetterView> = self.dead_letters.iter().filter(|letter| letter.state == LetterState::Open).collect();
        for letter in open.iter().take(SHOWN) {
            let attempts = count(letter.attempts as usize, "attempt");
            lines.push(format!("  {} failed after {attempts}, {}: {}", clean(&letter.path), letter.class, excerpt(&letter.message, 400)));
            lines.push(format!("    dead letter {}", letter.id));
        }
        let beyond = match (open.len().saturating_sub(SHOWN), self.more_dead_letters) {
            (0, false) => None,
            (0, true) => Some("perhaps more".to_owned()),
            (n, false) => Some(format!("{n} more")),
            (n, true) => Some(format!("more than {n} more")),
        };
        lines.extend(beyond.map(|beyond| format!("  … and {beyond}: krowoc dlq list --run {}", run.id)));
        match open.as_slice() {
            [] => {}
            [letter] => lines.push(remedy::line([letter.class], &letter.id.to_string())),
            letters => lines.push(remedy::line(letters.iter().map(|letter| letter.class), &format!("--run {}", run.id))),
        }
        lines
    }

    /// What all steps used, if any called a model.
    pub fn total(&self) -> Option<String> {
        let mut total = Tokens::default();
        self.usage.iter().for_each(|step| total += step.tokens);
        let cached = if total.cached_input > 0 { format!(", {} of them cached", total.cached_input) } else { String::new() };
        let calls = count(total.calls as usize, "model call");
        let simulated = if self.simulated { " (simulated)" } else { "" };
        (total.calls > 0).then(|| format!("{calls}{simulated}: {} tokens in{cached}, {} tokens out", total.input, total.output))
    }

    fn took(&self) -> String {
        let run = &self.run.run;
        run.finished_at.map(|end| span((end - run.created_at).num_milliseconds())).unwrap_or_default()
    }
}

/// Prints an output: a text as it is, anything else as indented JSON.
pub fn print_output(payload: &Payload) -> std::io::Result<()> {
    match payload.parse::<Value>() {
        Ok(Value::String(text)) if std::io::stdout().is_terminal() => {
            // A terminal would obey control characters in a model's text.
            output::line(text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect::<String>())
        }
        Ok(Value::String(text)) => output::line(text),
        Ok(value) => output::json(&value),
        Err(_) => output::line(payload.as_str()),
    }
}

/// A run's status as the lists have it.
pub fn word(status: RunState) -> &'static str {
    match status {
        RunState::Queued => "queued",
        RunState::Running => "running",
        RunState::Cancelling => "cancelling",
        RunState::Succeeded => "succeeded",
        RunState::Failed => "failed",
        RunState::Cancelled => "cancelled",
    }
}
