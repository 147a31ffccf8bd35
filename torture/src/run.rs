//! One scenario after the other, each until it is done or the time is up; then everything is removed.

use crate::{
    arena::{Arena, Place, Size},
    database, pooler,
    process::{Belongings, Keeper},
    report::{Outcome, Report, Verdict},
    scenario::Scenario,
    server::{Cluster, Server},
};
use anyhow::{Context, Result};
use krowoc_engine::error::said_once;
use std::{
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

/// How long it may take to remove what there was.
const CLEANS_UP_WITHIN: Duration = Duration::from_secs(60);

/// Hears from a scenario, by its name, how far it is.
pub type Progress = Rc<dyn Fn(&str, &str)>;

/// What is to be done.
pub struct Options {
    /// These, in their order.
    pub scenarios: Vec<&'static Scenario>,
    /// How much of everything.
    pub size: Size,
    /// Decides every choice.
    pub seed: u64,
    /// All of them together.
    pub within: Duration,
    /// Is one that is skipped a failure?
    pub require_all: bool,
    /// Does everything stay for a look at it?
    pub keep: bool,
    /// A server on which databases may be made; none: one of our own.
    pub url: Option<String>,
    /// For files and a server of our own; made when missing.
    pub folder: PathBuf,
    /// The product's binary.
    pub executable: PathBuf,
    /// The PgBouncer to use; none: the one that is installed, if it is new enough.
    pub pgbouncer: Option<PathBuf>,
    /// Hears which scenario is how far.
    pub progress: Progress,
}

/// Does it. What a scenario finds is in the report; an error is trouble before the first or after the last. Completing `stop` ends the
/// scenario under way and all after it.
pub async fn run(options: &Options, stop: impl Future<Output = &'static str>) -> Result<Report> {
    let began = Instant::now();
    let deadline = began + options.within;
    std::fs::create_dir_all(&options.folder).with_context(|| format!("making {}", options.folder.display()))?;
    if let Some(url) = &options.url {
        database::check(url).await?;
    }
    let prefix = format!("krowoc_torture_{:08x}_", uuid::Uuid::new_v4().as_fields().0);
    let belongings = Belongings { folder: options.folder.clone(), url: options.url.clone(), prefix: prefix.clone(), keep: options.keep };
    let keeper = Keeper::start(&options.executable, &belongings)?;
    let server = match &options.url {
        Some(url) => Server::Given(url.clone()),
        None => Server::Own(Cluster::start(&options.folder.join("server"), &[]).await?),
    };
    let mut stop = std::pin::pin!(stop);
    let (mut scenarios, mut stopped) = (vec![], None);
    for scenario in &options.scenarios {
        scenarios.push(one(options, scenario, &server, &prefix, deadline, &mut stop, &mut stopped).await);
    }
    let all_good = scenarios.iter().all(|o: &Outcome| match o.verdict {
        Verdict::Passed => true,
        Verdict::Skipped => !options.require_all,
        Verdict::Failed => false,
    });
    clean_up(options, &server, &scenarios).await?;
    keeper.dismiss()?;
    Ok(Report {
        seed: options.seed,
        size: options.size,
        server: if server.cluster().is_some() { "own" } else { "given" },
        passed: all_good,
        seconds: began.elapsed().as_secs_f64(),
        scenarios,
    })
}

async fn one(
    options: &Options,
    scenario: &'static Scenario,
    server: &Server,
    prefix: &str,
    deadline: Instant,
    stop: &mut (impl Future<Output = &'static str> + Unpin),
    stopped: &mut Option<&'static str>,
) -> Outcome {
    let began = Instant::now();
    if let Some(signal) = stopped {
        return untouched(scenario, Verdict::Failed, format!("stopped by {signal} before it began"));
    }
    let pgbouncer = pooler::find(options.pgbouncer.as_deref());
    if let Some(why) = scenario.needs.iter().find_map(|need| need.missing(server, pgbouncer.as_deref())) {
        return untouched(scenario, Verdict::Skipped, why);
    }
    if began >= deadline {
        return untouched(scenario, Verdict::Failed, format!("the time was up before it began (--within {:?})", options.within));
    }
    let progress = options.progress.clone();
    let place = Place {
        folder: options.folder.join(scenario.name),
        deadline,
        executable: options.executable.clone(),
        prefix: prefix.to_owned(),
        pgbouncer,
        progress: Rc::new(move |text: &str| progress(scenario.name, text)),
    };
    let mut arena = Arena::new(scenario.name, options.size, options.seed, server.clone(), place);
    let ended = tokio::select! {
        ended = (scenario.run)(&mut arena) => ended.err().map(|error| said_once(error.chain().map(ToString::to_string))),
        () = tokio::time::sleep_until(deadline.into()) => Some(format!("the time was up (--within {:?})", options.within)),
        signal = stop => {
            *stopped = Some(signal);
            Some(format!("stopped by {signal}"))
        }
    };
    let findings = &arena.findings;
    let (counts, times, violations) = (findings.counted(), findings.measured(), findings.violations());
    let good = ended.is_none() && findings.is_good();
    let (mut reason, mut databases) = (ended, vec![]);
    match options.keep {
        true => databases = arena.database_names(),
        false => {
            let dropped = tokio::time::timeout(CLEANS_UP_WITHIN, arena.drop_databases()).await;
            let trouble = match dropped {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("its database was not dropped: {error:#}")),
                Err(_) => Some("its database was not dropped: the server does not answer".to_owned()),
            };
            reason = reason.or(trouble);
        }
    }
    Outcome {
        name: scenario.name,
        verdict: if good && reason.is_none() { Verdict::Passed } else { Verdict::Failed },
        reason,
        seconds: began.elapsed().as_secs_f64(),
        counts,
        times,
        notes: findings.notes(),
        violations,
        kept: (!good || options.keep).then(|| arena.folder.clone()),
        databases,
    }
}

fn untouched(scenario: &Scenario, verdict: Verdict, why: String) -> Outcome {
    Outcome {
        name: scenario.name,
        verdict,
        reason: Some(why),
        seconds: 0.0,
        counts: vec![],
        times: vec![],
        notes: vec![],
        violations: vec![],
        kept: None,
        databases: vec![],
    }
}

/// Removes the server, and the files of what passed.
async fn clean_up(options: &Options, server: &Server, scenarios: &[Outcome]) -> Result<()> {
    if let Server::Own(cluster) = server {
        let removed = if options.keep { cluster.stop().await } else { cluster.remove().await };
        removed?;
    }
    for outcome in scenarios.iter().filter(|outcome| outcome.kept.is_none()) {
        let folder = options.folder.join(outcome.name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
    }
    // Not if something was kept.
    let _ = std::fs::remove_dir(&options.folder);
    Ok(())
}
