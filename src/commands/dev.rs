//! `krowoc dev`

use super::{serve::MEASURE_EVERY, validate, worker};
use crate::{
    api_token,
    config::{Config, Database},
    database::Session,
    failure::causes,
    operations::{self, Operations, Surface},
    output,
    signals::Signals,
    watch::Watch,
    workflow_files::{self, Checked},
};
use anyhow::bail;
use clap::Args;
use krowoc_api::Hosts;
use krowoc_engine::{
    Engine, Scope, VersionId,
    definition::Problem,
    maintenance::MaintenanceConfig,
    worker::{Worker, WorkerConfig},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc dev
  krowoc dev my-project --port 0

Runs everything that a project needs: the database (a private one, unless DATABASE_URL names another), HTTP on this machine only, and \
a worker for every queue that the workflows name. What is below workflows/ is registered, and again when it changes. A file with \
problems is reported, and its last good version stays. Ctrl-C drains the worker; a second one stops at once.")]
pub struct Dev {
    /// The project: the folder that holds `workflows`
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    /// The port of 127.0.0.1 to listen on; 0 for any [default: that of KROWOC_BIND, else 7070]
    #[arg(long)]
    port: Option<u16>,
}

impl Dev {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        let workflows = self.folder.join("workflows");
        if !workflows.is_dir() {
            bail!("there is no folder {}; `krowoc init {}` makes a project", workflows.display(), self.folder.display());
        }
        let metrics = operations::measure()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.unwrap_or(config.bind.port())));
        let server = operations::bind(address, "--port").await?;
        let session = Session::open(config).await?;
        let mut signals = Signals::listen()?;
        // Before the first look, so that no change falls between.
        let mut watch = Watch::start(&workflows)?;
        let colour = config.log.colour && std::io::stderr().is_terminal();
        let mut project = Project::new(session.engine.clone(), workflows.clone(), colour);
        project.load().await?;
        let maintenance = session.engine.maintain(MaintenanceConfig {
            reap_every: None,
            keep_runs: config.keep_runs,
            measure_every: Some(MEASURE_EVERY),
        });
        let (guard, made) = api_token::guard(&session.engine, config.api_token.as_ref()).await?;
        let surface = Surface::All { guard, hosts: Hosts::Loopback };
        let mut operations = Operations::start(server, session.engine.clone(), metrics, surface);
        introduce(config, &workflows, operations.address(), made.as_deref())?;
        let ended = loop {
            tokio::select! {
                signal = signals.next() => break Ok(signal),
                error = operations.failed() => break Err(error),
                () = watch.changed() => {}
            }
            // One that can't be loaded now may be after the next change.
            if let Err(error) = project.load().await {
                tracing::error!("workflows could not be loaded: {}", causes(&error));
            }
        };
        operations.drain();
        let why = ended.as_ref().map_or("failure", |signal| signal);
        worker::drain(project.workers, WorkerConfig::default().drain, why, &mut signals).await?;
        maintenance.stop().await;
        if ended.is_ok() {
            operations.stop().await?;
        }
        session.close().await?;
        ended.map(|_| ExitCode::SUCCESS)
    }
}

fn introduce(config: &Config, workflows: &Path, address: SocketAddr, token: Option<&str>) -> anyhow::Result<()> {
    let database = match &config.database {
        Database::Private(home) => format!("private, in {}", home.display()),
        // A URL may hold a password.
        Database::Given(_) => "the one that DATABASE_URL names".into(),
    };
    output::line(format!("API         http://{address}/api/v1/docs"))?;
    token.map_or(Ok(()), api_token::show)?;
    output::line(format!("Health      http://{address}/health/ready"))?;
    output::line(format!("Metrics     http://{address}/metrics"))?;
    output::line(format!("Database    {database}"))?;
    output::line(format!("Watching    {}", workflows.display()))?;
    output::line("Ready. Ctrl-C stops.")?;
    Ok(())
}

/// A project's workflows as they are registered, and the workers that serve them.
struct Project {
    engine: Engine,
    workflows: PathBuf,
    colour: bool,
    registered: BTreeMap<String, VersionId>,
    broken: bool,
    queues: BTreeSet<String>,
    workers: Vec<Worker>,
}

impl Project {
    fn new(engine: Engine, workflows: PathBuf, colour: bool) -> Self {
        Self { engine, workflows, colour, registered: BTreeMap::new(), broken: false, queues: BTreeSet::new(), workers: Vec::new() }
    }

    /// Registers what has changed, reports what is wrong, and sees that every queue is served.
    async fn load(&mut self) -> anyhow::Result<()> {
        let (workflows, kinds) = (self.workflows.clone(), self.engine.registry().kinds.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let files = workflow_files::find(&[workflows])?;
            anyhow::Ok(workflow_files::check(&files, &kinds))
        });
        let checked = match checked.await? {
            Ok(checked) => checked,
            // No file yet: one may come.
            Err(error) => {
                tracing::warn!("{}", causes(&error));
                Checked::default()
            }
        };
        let problems: Vec<Problem> = checked.problems().into_iter().cloned().collect();
        let complete = checked.all_valid();
        let mut queues = BTreeSet::from(["default".to_owned()]);
        let mut found = BTreeSet::new();
        for compiled in checked.workflows.into_iter().flatten() {
            let registered = self.engine.register(&Scope::local("dev"), &compiled).await?;
            queues.extend(compiled.dag.steps.iter().map(|step| step.queue.clone()));
            if self.registered.insert(registered.workflow.clone(), registered.id) != Some(registered.id) {
                output::line(format!("Registered  {} version {}", registered.workflow, registered.number))?;
            }
            found.insert(registered.workflow);
        }
        if complete {
            let gone: Vec<String> = self.registered.keys().filter(|name| !found.contains(*name)).cloned().collect();
            for name in gone {
                output::line(format!("Gone        {name}: no file has that name any more; its last version stays registered"))?;
                self.registered.remove(&name);
            }
        }
        self.report(&problems)?;
        self.serve(queues).await
    }

    fn report(&mut self, problems: &[Problem]) -> anyhow::Result<()> {
        if !problems.is_empty() {
            eprint!("{}", validate::report(&problems.iter().collect::<Vec<_>>(), self.colour)?);
            output::line("Not valid   see above; last good versions stay registered")?;
        } else if self.broken {
            output::line("Valid again")?;
        }
        self.broken = !problems.is_empty();
        Ok(())
    }

    /// A worker's queues are fixed, so queues that are new get a worker of their own.
    async fn serve(&mut self, queues: BTreeSet<String>) -> anyhow::Result<()> {
        let new: Vec<String> = queues.difference(&self.queues).cloned().collect();
        if !new.is_empty() {
            let config = WorkerConfig { name: worker::host_and_process(), queues: new.clone(), ..WorkerConfig::default() };
            self.workers.push(worker::start(&self.engine, config).await?);
            self.queues.extend(new);
        }
        Ok(())
    }
}
