//! A client's side: jobs in their order, each answered by a line once its commit was acknowledged.

use super::Job;
use anyhow::Result;
use krowoc_engine::{
    Engine, Error, Payload, RunId, Scope, VersionId,
    commands::{Redrive, StartRun, redrive},
    lifecycle::RunStatus,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
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
        let answer = serde_json::to_string(&carry_out(engine, scope, job).await?)?;
        // One write: a kill leaves all of a line or, as its end tells, less.
        std::io::stdout().lock().write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}

async fn carry_out(engine: &Engine, scope: &Scope, job: &Job) -> Result<Answer> {
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
            let started = engine.start_runs(scope, &[run], None).await?;
            Ok(Answer::Started(started[0].id))
        }
        Job::Cancel { run } => match engine.cancel(scope, *run).await {
            Ok(cancelled) => {
                debug_assert!(matches!(cancelled.status, RunStatus::Cancelled | RunStatus::Cancelling));
                Ok(Answer::Cancelled)
            }
            Err(Error::Conflict(_)) => Ok(Answer::TooLate),
            Err(error) => Err(error.into()),
        },
        Job::Redrive { letters } => {
            let done = redrive(&mut *engine.pool().acquire().await?, &engine.registry().versions, scope, letters).await?;
            Ok(Answer::Redriven(done.iter().filter(|letter| matches!(letter.outcome, Redrive::Redriven)).count()))
        }
    }
}
