//! `krowoc run`

use super::validate::report;
use crate::{
    config::Config,
    database::Session,
    failure::WrongUsage,
    follow::Followed,
    output,
    progress::{self, Progress},
    run_document::{RunDocument, print_output},
    run_input::{self, Setting},
    signals::Signals,
    workflow_files,
};
use anyhow::{Context, anyhow, bail};
use clap::Args;
use krowoc_engine::{
    Engine, Error, Payload, RunId, Scope,
    commands::{Local, StartRun, StartedRun},
    definition::{Compiled, Problem},
    queries::queues,
    worker::{Serves, Worker, WorkerConfig},
};
use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

/// Ended by a signal, as shells say it.
pub const INTERRUPTED: u8 = 130;

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc run workflows/summarize-note.yaml --set note='Call Ada. Book the room.'
  krowoc run workflows/review.yaml --input @paper.json --set options.depth=3
  krowoc run workflows/summarize-document.yaml --set text=@report.txt
  krowoc run workflows/review.yaml --input @paper.json --json | jq .output
  krowoc run workflows/nightly.yaml --detach --idempotency-key nightly-2026-11-23

The workflow is checked and registered, then a run of it is started, and this process carries out its steps until it has ended; \
workers on the same database may take some of them. Progress goes to standard error; the run's output goes to standard output, a text \
as it is, anything else as JSON.

Linux takes no argument of 128 KiB or more: give a larger input as --input @FILE, a larger text as --set KEY=@FILE.

Ctrl-C lets steps in flight end and leaves the run as it is: `krowoc worker` goes on with it. A second Ctrl-C stops at once.

The exit code is 0 if the run succeeded, 1 if it failed or could not be started, 2 if the command line or the JSON of --input is \
wrong, 3 if the run was cancelled, 130 if it was interrupted and goes on later.")]
pub struct Run {
    /// The workflow file
    file: PathBuf,
    /// The run's input: a JSON document, @FILE with one, or @- for standard input [default: {}]
    #[arg(long, value_name = "JSON|@FILE")]
    input: Option<String>,
    /// A part of the input, after --input: JSON if it reads as JSON, else text; so is what @FILE or @- holds; dots lead into objects
    #[arg(long = "set", value_name = "KEY=VALUE|KEY=@FILE")]
    settings: Vec<Setting>,
    /// Start the run, print its id and leave it to workers that run elsewhere
    #[arg(long)]
    detach: bool,
    /// Print one JSON document: the run with its steps (with --detach: its id)
    #[arg(long)]
    json: bool,
    /// Higher goes first
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i16,
    /// The same key with the same workflow and input is the same run, however often it is asked for
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Run {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let Some(compiled) = self.compile(config)? else { return Ok(ExitCode::FAILURE) };
        let input = run_input::read(self.input.as_deref(), &self.settings).map_err(WrongUsage)?;
        // Before there is a database to join and a worker to stop again.
        let problems = run_input::check(&compiled.dag, &input, &self.settings);
        if !problems.is_empty() {
            return Err(refused(&problems));
        }
        let input = Payload::of(&input).context("--input")?;
        Session::with(config, async |session| {
            let scope = Scope::local("cli");
            match self.detach {
                true => self.leave(session, &scope, &compiled, input).await,
                false => self.carry_out(session, &scope, &compiled, input, config.log.colour).await,
            }
        })
        .await
    }

    /// The workflow, or its problems on standard error.
    fn compile(&self, config: &Config) -> anyhow::Result<Option<Compiled>> {
        let files = workflow_files::find(std::slice::from_ref(&self.file)).context("no workflow to run")?;
        if files.len() > 1 {
            bail!("{} holds {} workflows: name the file of the one to run", self.file.display(), files.len());
        }
        let checked = workflow_files::check(&files, &config.step_kinds());
        if !checked.all_valid() {
            output::note(report(&checked.problems(), config.log.colour && std::io::stderr().is_terminal())?.trim_end());
            return Ok(None);
        }
        match checked.workflows.into_iter().flatten().next() {
            Some(compiled) => Ok(Some(compiled)),
            None => bail!("{} is not a workflow file", self.file.display()),
        }
    }

    async fn start(
        &self,
        engine: &Engine,
        scope: &Scope,
        compiled: &Compiled,
        input: Payload,
        local: Option<&dyn Local>,
    ) -> anyhow::Result<StartedRun> {
        let version = engine.register(scope, compiled).await?;
        let run = StartRun {
            version: version.id,
            input,
            idempotency_key: self.idempotency_key.clone(),
            priority: self.priority,
            trigger: "cli".into(),
        };
        match engine.start_runs(scope, &[run], local).await {
            Ok(started) => started.first().copied().context("no run was started"),
            Err(Error::Invalid(problems)) => Err(refused(&problems)),
            Err(error) => Err(error.into()),
        }
    }

    async fn leave(&self, session: &Session, scope: &Scope, compiled: &Compiled, input: Payload) -> anyhow::Result<ExitCode> {
        let started = self.start(&session.engine, scope, compiled, input, None).await?;
        match self.json {
            true => output::json(&started)?,
            false => output::line(started.id.to_string())?,
        }
        if !started.created {
            output::note("this idempotency key has been used before: it is the same run");
        }
        let queues = queues::queues(&mut *session.engine.pool().acquire().await?).await?;
        for name in queues_of(compiled) {
            if !queues.iter().any(|queue| queue.name == name && queue.workers > 0) {
                output::note(format!("no worker serves queue `{name}` now; start one with `krowoc worker --queue {name}`"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn carry_out(
        &self,
        session: &Session,
        scope: &Scope,
        compiled: &Compiled,
        input: Payload,
        colour: bool,
    ) -> anyhow::Result<ExitCode> {
        // Only now: until there is something to leave in good order, Ctrl-C simply ends the process.
        let mut signals = Signals::listen()?;
        let engine = &session.engine;
        let config = WorkerConfig {
            name: format!("run/{}", std::process::id()),
            queues: queues_of(compiled),
            serves: Serves::OneRun,
            ..WorkerConfig::default()
        };
        let worker = engine.worker(config).await?;
        let mut progress = progress::to_stderr(colour);
        let watched = async {
            let started = self.start(engine, scope, compiled, input, Some(&*worker.local())).await?;
            worker.serve(started.id);
            note_start(started, compiled);
            self.watch(engine, scope, started.id, &worker, &mut *progress, &mut signals).await
        }
        .await;
        progress.end();
        let (run, ended) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                // The first error tells more than what stopping may add to it.
                worker.stop_now().await.ok();
                return Err(error);
            }
        };
        if !ended {
            output::note("stopping: steps in flight may end; once more to stop at once");
        }
        worker
            .stop_or(async {
                signals.next().await;
            })
            .await?;
        self.conclude(engine, scope, run, colour).await
    }

    /// Watches until the run has ended (true) or a signal came.
    async fn watch(
        &self,
        engine: &Engine,
        scope: &Scope,
        run: RunId,
        worker: &Worker,
        progress: &mut dyn Progress,
        signals: &mut Signals,
    ) -> anyhow::Result<(RunId, bool)> {
        let followed = Followed::find(engine, scope, run).await?;
        let stats = worker.stats();
        tokio::select! {
            ended = followed.until_end(progress, || stats.ended.notified()) => ended.map(|_| (run, true)).with_context(|| {
                format!("lost sight of run {run}, which goes on when the database is back (krowoc worker, krowoc runs watch {run})")
            }),
            _ = signals.next() => Ok((run, false)),
        }
    }

    async fn conclude(&self, engine: &Engine, scope: &Scope, run: RunId, colour: bool) -> anyhow::Result<ExitCode> {
        let document = RunDocument::load(engine, scope, run).await?;
        conclude(&document, self.json, colour)?;
        if document.status().is_terminal() {
            return Ok(document.exit_code());
        }
        output::note(format!(
            "run {run} has not ended; nothing that it did is lost. To go on:\n  krowoc worker\n  krowoc runs watch {run}"
        ));
        Ok(ExitCode::from(INTERRUPTED))
    }
}

/// What is left to say of a run that was watched: its steps where they were only drawn in passing, what was used, how it ended, its output.
pub fn conclude(document: &RunDocument, json: bool, colour: bool) -> anyhow::Result<()> {
    match std::io::stderr().is_terminal() {
        true => document.body(colour).iter().for_each(output::note),
        false => document.total().iter().for_each(output::note),
    }
    document.verdict().iter().for_each(output::note);
    if json {
        output::json(document)?;
    } else if let Some(result) = &document.run.output {
        print_output(result)?;
    }
    Ok(())
}

fn note_start(started: StartedRun, compiled: &Compiled) {
    let again = if started.created { "" } else { " (this idempotency key has been used before: it is the same run)" };
    output::note(format!("run {} of {}{again}", started.id, compiled.dag.name));
}

/// The problems of a run's input as an error.
fn refused(problems: &[Problem]) -> anyhow::Error {
    let problems: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
    anyhow!("the run was not started:\n{}\nGive its input with --input or --set", problems.join("\n"))
}

/// The queues of the steps, none twice. What comes between steps is on their queues too.
fn queues_of(compiled: &Compiled) -> Vec<String> {
    let mut queues: Vec<String> = Vec::new();
    for step in &compiled.dag.steps {
        if !queues.contains(&step.queue) {
            queues.push(step.queue.clone());
        }
    }
    queues
}
