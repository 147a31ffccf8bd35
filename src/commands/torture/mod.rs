//! `krowoc torture`

mod process;

pub use process::TortureProcess;

use crate::{
    config::{Config, Database},
    duration,
    failure::WrongUsage,
    output,
    signals::Signals,
    table::Table,
};
use anyhow::Context;
use clap::{Args, ValueEnum};
use krowoc_torture::{Options, Progress, Report, SCENARIOS, Scenario};
use std::{
    cell::Cell,
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  krowoc torture
  krowoc torture kills --seed 42
  krowoc torture --size long --within 3h --json report.json
  krowoc torture --list

Without DATABASE_URL everything happens on a PostgreSQL of its own, durable, beside the private one, which is not touched. With \
DATABASE_URL databases are made on that server and dropped again, for which its user needs CREATEDB; nothing else there is touched, and \
what stops the server is skipped. The exit code is 0 if every scenario passed, or was skipped with a reason.")]
pub struct Torture {
    /// Scenarios [default: all]
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// How much of everything
    #[arg(long, default_value = "short")]
    size: Size,
    /// Makes the same choices as the run that printed it
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// What takes longer is cut off, and fails [default: 15m, long: 4h]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    within: Option<Duration>,
    /// The report as JSON, to a file or with `-` to standard output
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Show the scenarios
    #[arg(long)]
    list: bool,
    /// A scenario that is skipped is a failure
    #[arg(long)]
    require_all: bool,
    /// Keep databases, ledgers and logs
    #[arg(long)]
    keep: bool,
    /// A PgBouncer, 1.21 or newer, to put before the database [default: the one that is installed]
    #[arg(long, value_name = "FILE")]
    pgbouncer: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    /// Minutes
    Short,
    /// An hour or more
    Long,
}

impl From<Size> for krowoc_torture::Size {
    fn from(size: Size) -> Self {
        match size {
            Size::Short => Self::Short,
            Size::Long => Self::Long,
        }
    }
}

impl Torture {
    pub async fn run(self, config: &Config) -> anyhow::Result<ExitCode> {
        if self.list {
            let mut table = Table::new(&["scenario", "what it does"]);
            SCENARIOS.iter().for_each(|scenario| table.row([scenario.name.to_owned(), scenario.about.to_owned()]));
            output::line(table.to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
        let options = self.options(config)?;
        output::note(format!("--seed {}", options.seed));
        let mut signals = Signals::listen()?;
        let report = krowoc_torture::run(&options, signals.next()).await?;
        self.tell(&report)?;
        Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn options(&self, config: &Config) -> anyhow::Result<Options> {
        let default = if matches!(self.size, Size::Short) { 15 * 60 } else { 4 * 3600 };
        let name = format!("torture-{}", std::process::id());
        let (url, folder) = match &config.database {
            Database::Given(url) => (Some(url.clone()), std::env::temp_dir().join(format!("krowoc-{name}"))),
            // The folder for temporary files may lie in memory, where `fsync` costs nothing.
            Database::Private(home) => (None, home.join(name)),
        };
        Ok(Options {
            scenarios: self.chosen()?,
            size: self.size.into(),
            seed: self.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0),
            within: self.within.unwrap_or(Duration::from_secs(default)),
            require_all: self.require_all,
            keep: self.keep,
            url,
            folder,
            executable: std::env::current_exe().context("finding this program")?,
            pgbouncer: self.pgbouncer.clone(),
            progress: progress(),
        })
    }

    fn chosen(&self) -> anyhow::Result<Vec<&'static Scenario>> {
        if self.scenarios.is_empty() {
            return Ok(SCENARIOS.iter().collect());
        }
        let find = |name: &String| SCENARIOS.iter().find(|scenario| scenario.name == name.as_str());
        let unknown = |name: &String| WrongUsage(format!("there is no scenario `{name}`; `krowoc torture --list` shows those there are"));
        self.scenarios.iter().map(|name| find(name).ok_or_else(|| unknown(name).into())).collect()
    }

    fn tell(&self, report: &Report) -> anyhow::Result<()> {
        match self.json.as_deref() {
            Some(file) if file == Path::new("-") => {
                output::note(report.text().trim_end());
                return Ok(output::json(report)?);
            }
            Some(file) => {
                std::fs::write(file, serde_json::to_vec_pretty(report)?).with_context(|| format!("writing {}", file.display()))?;
            }
            None => {}
        }
        Ok(output::line(report.text().trim_end())?)
    }
}

/// A line now and then.
fn progress() -> Progress {
    const EVERY: Duration = Duration::from_secs(5);
    let last = Cell::new(Instant::now());
    Rc::new(move |scenario, text| {
        if last.get().elapsed() >= EVERY {
            last.set(Instant::now());
            output::note(format!("{scenario}: {text}"));
        }
    })
}
