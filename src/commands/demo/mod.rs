//! `krowoc demo`: the product's first minute, as `make demo` shows it. A long text is summarized by workers that are processes of their
//! own; the first is killed with SIGKILL when half of the text has been read, the second goes on. What is claimed at the end is read from
//! the database, and a claim that does not hold fails the command.

mod proof;
mod table;
mod watch;

use super::run::INTERRUPTED;
use crate::{config::Config, database::Session, output, signals::Signals, table::wrapped};
use anyhow::{Context, bail};
use clap::Args;
use krowoc_engine::{
    Engine, Payload, RunId, Scope,
    commands::StartRun,
    definition::{Compiled, Dag, Problem, PromptFolder, Source, compile},
    queries::runs::{self, RunState},
};
use proof::Proof;
use serde_json::{Value, json};
use std::{
    process::{ExitCode, Stdio},
    sync::Arc,
};
use tokio::process::{Child, Command};
use watch::Watch;

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc demo
  krowoc demo --model openai/gpt-4.1-mini")]
pub struct Demo {
    /// The model [default: openai/gpt-4.1-mini where OPENAI_API_KEY is set, else the simulator]
    #[arg(long)]
    model: Option<String>,
}

const REAL: &str = "openai/gpt-4.1-mini";
const SIMULATED: &str = "sim/fast";
/// Short, so that the calls of a killed worker are taken over in seconds.
const LEASE: &str = "2s";
const TITLE: &str = "the GNU General Public License, version 3";
const DOCUMENT: &str = include_str!("../../../examples/data/gpl-3.txt");
const WORKFLOW: &str = include_str!("../../../workflows/summarize-document.yaml");
const PROMPTS: [(&str, &str); 2] = [
    ("summarize/notes.md", include_str!("../../../workflows/prompts/summarize/notes.md")),
    ("summarize/summary.md", include_str!("../../../workflows/prompts/summarize/summary.md")),
];

impl Demo {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let key = config.steps.openai_api_key.is_some();
        let model = self.model.clone().unwrap_or_else(|| if key { REAL } else { SIMULATED }.into());
        output::line(format!("document  {TITLE}: {} characters", DOCUMENT.chars().count()))?;
        output::line(match model.starts_with("sim/") {
            true => format!("model     {model}: simulated, its answers are sentences of the text (with OPENAI_API_KEY set: {REAL})"),
            false => format!("model     {model}"),
        })?;
        let mut signals = Signals::listen()?;
        Session::with(config, async |session| {
            let mut workers = Vec::new();
            let shown = tokio::select! {
                shown = show(&session.engine, &model, &mut workers) => shown,
                _ = signals.next() => Ok(ExitCode::from(INTERRUPTED)),
            };
            // However it ended, the workers are gone before this process leaves: the last one out stops the private server.
            for worker in workers.iter_mut().filter(|worker| worker.id().is_some()) {
                worker.kill().await.context("a worker could not be killed")?;
            }
            shown
        })
        .await
    }
}

/// A run and what it takes to read of it.
struct Run {
    engine: Engine,
    scope: Scope,
    id: RunId,
    dag: Arc<Dag>,
}

async fn show(engine: &Engine, model: &str, workers: &mut Vec<Child>) -> anyhow::Result<ExitCode> {
    let run = start(engine, model).await?;
    output::line(format!("run       {}\n", run.id))?;
    let watch = Watch::new(&run);

    let first = workers.push_mut(worker().context("the first worker could not be started")?);
    output::line(format!("worker 1  process {} reads the parts, four at a time", pid(first)))?;
    let half = watch.until_half(first).await?;
    first.kill().await.context("the worker could not be killed")?;
    let kept = proof::finished(&run).await?;
    output::line(format!(
        "worker 1  killed with SIGKILL when {} of {} parts were read; {} calls were in flight",
        half.done, half.total, half.running
    ))?;

    let second = workers.push_mut(worker().context("the second worker could not be started")?);
    output::line(format!("worker 2  process {} goes on", pid(second)))?;
    watch.until_end(second).await?;
    stop(second).await.context("the second worker could not be stopped")?;

    let detail = runs::show(&mut *run.engine.pool().acquire().await?, &run.scope, run.id).await?;
    if detail.run.status != RunState::Succeeded {
        let why = detail.run.error.map_or_else(|| "it was stopped".to_owned(), |e| e.as_str().to_owned());
        bail!("run {} has not succeeded: {why}", run.id);
    }
    let result: Value = detail.output.unwrap_or_else(Payload::null).parse()?;
    output::line(format!("\nSummary ({}):\n", result["model"].as_str().unwrap_or(model)))?;
    output::line(wrapped(result["summary"].as_str().unwrap_or_default(), 100))?;
    output::line(format!("\n{}\n", table::steps(&run).await?))?;
    let proof = Proof::of(&run, &kept).await?;
    output::line(proof.line())?;
    proof.check(half.running)?;
    Ok(ExitCode::SUCCESS)
}

async fn start(engine: &Engine, model: &str) -> anyhow::Result<Run> {
    let scope = Scope::local("demo");
    let compiled = workflow(engine)?;
    let version = engine.register(&scope, &compiled).await?.id;
    let input = Payload::from(&json!({"text": DOCUMENT, "title": TITLE, "model": model}));
    let request = StartRun { version, input, idempotency_key: None, priority: 0, trigger: "demo".into() };
    let started = engine.start_runs(&scope, &[request], None).await?;
    let id = started.first().context("no run was started")?.id;
    Ok(Run { engine: engine.clone(), scope, id, dag: compiled.dag })
}

fn workflow(engine: &Engine) -> anyhow::Result<Compiled> {
    let compiled = PromptFolder::from_texts(PROMPTS).and_then(|prompts| {
        let source = Source::parse("summarize-document.yaml", WORKFLOW)?;
        compile(&source, &engine.registry().kinds, &prompts)
    });
    compiled.map_err(|problems: Vec<Problem>| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the workflow is not valid:\n{}", lines.join("\n"))
    })
}

/// `krowoc worker` as anybody would start it, on the same database.
fn worker() -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    // It is to say nothing of the leases that it takes over: that is the story here.
    command.args(["worker", "--concurrency", "16", "--lease", LEASE]).env("KROWOC_LOG", "error");
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn()?)
}

/// As an operator would: it finishes what it has and leaves.
async fn stop(worker: &mut Child) -> anyhow::Result<()> {
    if let Some(id) = worker.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    }
    worker.wait().await?;
    Ok(())
}

fn pid(child: &Child) -> String {
    child.id().map_or_else(|| "(ended)".into(), |id| id.to_string())
}
