//! `idle`: what an installation costs that has nothing to do: a server and a worker, each a process of its own as in production, and their
//! PostgreSQL.

use super::{
    Settings,
    ground::Ground,
    meter::{self, Cost, Meter},
    report::{Headline, Report},
};
use anyhow::{Context, bail};
use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::process::{Child, Command};

/// Every statement leaves a line in the log of a server of its own.
pub const SERVER_SETTINGS: [(&str, &str); 2] = [("log_statement", "all"), ("log_line_prefix", "%a ")];
const READY_WITHIN: Duration = Duration::from_secs(10);
/// After its start a process settles: pools, caches, the first looks at the queues.
const SETTLE: Duration = Duration::from_secs(3);

pub async fn measure(ground: &Ground, settings: &Settings) -> anyhow::Result<Report> {
    let time = Duration::from_secs(settings.seconds.unwrap_or(15));
    let meter = Meter::connect(&ground.options).await?;
    let alone = Snapshot::take(ground, &meter, &[]).await?;
    tokio::time::sleep(time / 2).await;
    let alone = alone.until(&Snapshot::take(ground, &meter, &[]).await?);
    let installation = [Part::start(ground, &["serve"])?, Part::start(ground, &["worker"])?];
    let worker_known = Instant::now();
    while !worker_registered(ground).await? {
        if worker_known.elapsed() > READY_WITHIN {
            bail!("the worker was not ready within {READY_WITHIN:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(SETTLE).await;
    let ids: Vec<u32> = installation.iter().filter_map(|part| part.0.id()).collect();
    if ids.len() < installation.len() {
        bail!("a process of the installation has ended");
    }
    let before = Snapshot::take(ground, &meter, &ids).await?;
    tokio::time::sleep(time).await;
    let used = before.until(&Snapshot::take(ground, &meter, &ids).await?);
    let sum = |of: fn(u32) -> Option<f64>| ids.iter().map(|id| of(*id)).sum::<Option<f64>>();
    let (resident, peak) = (sum(meter::resident_mb), sum(meter::peak_resident_mb));
    for part in installation {
        part.stop().await?;
    }
    let core = (used.krowoc_s + used.postgres_s) / used.time_s * 100.0;
    let headline = Headline {
        work: "idle",
        value: core,
        unit: "% of a core",
        floor_name: "PostgreSQL alone",
        // A hundredth of a second is the least that can be told from nothing.
        floor_value: (alone.postgres_s.max(0.01)) / alone.time_s * 100.0,
    };
    let report = Report::new(headline, 0, Cost::default())
        .resident(resident, peak)
        .figure("seconds", used.time_s)
        .figure("krowoc_core_percent", used.krowoc_s / used.time_s * 100.0)
        .figure("postgres_core_percent", used.postgres_s / used.time_s * 100.0)
        .figure("statements_per_s", used.statements as f64 / used.time_s)
        .with("statements_counted", if ground.log().is_some() { "in the server's log" } else { "as transactions" })
        .at_most("value", core, 0.5)
        .at_most("statements_per_s", used.statements as f64 / used.time_s, 3.0);
    Ok(match resident {
        Some(mb) => report.at_most("rss_mb", mb, 40.0),
        None => report,
    })
}

async fn worker_registered(ground: &Ground) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM krowoc.worker WHERE idle)").fetch_one(ground.engine.pool()).await?)
}

/// A process of the installation; killed should the measurement fail.
struct Part(Child);

impl Part {
    fn start(ground: &Ground, arguments: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let child = Command::new(program)
            .args(arguments)
            .env("DATABASE_URL", ground.url())
            .env("KROWOC_BIND", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting `krowoc {}`", arguments.join(" ")))?;
        Ok(Self(child))
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.0.try_wait()? {
            bail!("a process of the installation ended by itself: {status}");
        }
        Ok(self.0.kill().await?)
    }
}

/// Counters at a moment, or between two.
struct Snapshot {
    at: Instant,
    used: Used,
}

#[derive(Clone, Copy)]
struct Used {
    time_s: f64,
    krowoc_s: f64,
    postgres_s: f64,
    statements: i64,
}

impl Snapshot {
    async fn take(ground: &Ground, meter: &Meter, processes: &[u32]) -> anyhow::Result<Self> {
        let unknown = "processor times can't be read: this needs /proc, and PostgreSQL on the same machine";
        let krowoc_s = processes.iter().map(|id| meter::cpu_s(*id)).sum::<Option<f64>>().context(unknown)?;
        let postgres_s = meter.postgres_s().context(unknown)?;
        let statements = match ground.log() {
            Some(log) => logged(&log)?,
            None => {
                sqlx::query_scalar("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
                    .fetch_one(ground.engine.pool())
                    .await?
            }
        };
        Ok(Self { at: Instant::now(), used: Used { time_s: 0.0, krowoc_s, postgres_s, statements } })
    }

    fn until(&self, later: &Self) -> Used {
        Used {
            time_s: (later.at - self.at).as_secs_f64(),
            krowoc_s: later.used.krowoc_s - self.used.krowoc_s,
            postgres_s: later.used.postgres_s - self.used.postgres_s,
            statements: later.used.statements - self.used.statements,
        }
    }
}

fn logged(log: &Path) -> anyhow::Result<i64> {
    let text = fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
    Ok(text.lines().filter(|line| line.contains(" LOG:  execute ") || line.contains(" LOG:  statement: ")).count() as i64)
}
