//! A client's side: jobs in their order, each answered by a line once its commit was acknowledged.

use super::Job;
use anyhow::Result;
use krowoc_engine::{
    Engine, Error, Payload, RunId, Scope, VersionId,
    commands::{Redrive, StartRun, cancel_run, redrive, start_runs},
    lifecycle::RunStatus,
    version::Versions,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use std::io::Write;

/// What a job came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The run of the key.
    Started(RunId),
    /// It is cancelled, or will be.
    Cancelled,
    /// It has ended otherwise, or begun to.
    TooLate,
    /// So many letters were sent back to work.
    Redriven(usize),
}

/// Does all jobs.
pub async fn work(engine: &Engine, scope: &Scope, jobs: &[Job]) -> Result<()> {
    for job in jobs {
        let answer = carry_out(&mut *engine.pool().acquire().await?, &engine.registry().versions, scope, job).await?;
        let answer = serde_json::to_string(&answer)?;
        // One write: a kill leaves all of a line or, as its end tells, less.
        std::io::stdout().lock().write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}

/// Does one, once.
pub async fn carry_out(conn: &mut PgConnection, versions: &Versions, scope: &Scope, job: &Job) -> krowoc_engine::error::Result<Answer> {
    match job {
        Job::Start { version, seed, key } => {
            let input = Payload::from(&json!({ "seed": seed }));
            let run = StartRun {
                version: VersionId(*version),
                input,
                idempotency_key: Some(key.clone()),
                priority: 0,
                trigger: "torture".into(),
            };
            let started = start_runs(conn, scope, versions, &[run], None).await?;
            Ok(Answer::Started(started[0].id))
        }
        Job::Cancel { run } => match cancel_run(conn, scope, *run).await {
            Ok(cancelled) => {
                debug_assert!(matches!(cancelled.status, RunStatus::Cancelled | RunStatus::Cancelling));
                Ok(Answer::Cancelled)
            }
            Err(Error::Conflict(_)) => Ok(Answer::TooLate),
            Err(error) => Err(error),
        },
        Job::Redrive { letters } => {
            let done = redrive(conn, versions, scope, letters).await?;
            Ok(Answer::Redriven(done.iter().filter(|letter| matches!(letter.outcome, Redrive::Redriven)).count()))
        }
    }
}
