//! Why a run is not further: one sentence, and what each of its live steps is doing or waiting for. `lane` reads them and says it of each,
//! `words` says it of the run.

mod lane;
mod words;

use super::{Header, header, keys, runs};
use crate::{
    definition::Dag,
    error::Result,
    id::{RunId, Scope},
    lifecycle::RunStatus,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// The answer.
#[derive(Serialize, Clone, Debug)]
pub struct WhyView {
    /// One sentence.
    pub sentence: String,
    /// How many live steps there are.
    pub live: i64,
    /// Those that matter most, at most 100: what runs, what waits, what is ready.
    pub waits: Vec<WaitView>,
}

/// What a live step is doing or waiting for.
#[derive(Serialize, Clone, Debug)]
pub struct WaitView {
    /// The step's address; `output` for the computation of the run's output.
    pub path: String,
    /// What it is doing.
    pub reason: Reason,
    /// The attempt under way, or the last one.
    pub attempt: u32,
    /// Since when, where that is on record: [`Reason`] says of what.
    pub since: Option<DateTime<Utc>>,
    /// Until when: a due time, or the end of a lease that is not renewed.
    pub until: Option<DateTime<Utc>>,
    /// What will end the wait.
    pub wakes: String,
}

/// What a live step is doing, and what [`WaitView::since`] counts from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A worker carries it out: since this attempt began. Where an earlier one is on record, since this one could begin.
    Leased,
    /// A worker is told to stop it: since the same.
    Aborting,
    /// Its worker has not been heard of: since the same.
    WorkerSilent,
    /// No worker serves its queue: since it could have been carried out.
    NoWorker,
    /// The workers of its queue are busy with others: since it could have been carried out.
    Ready,
    /// The next attempt has its time: since the last one failed.
    Backoff,
    /// A limit has its time: since the attempt that met it.
    Deferred,
    /// It is a `wait` step: since it began to wait.
    Timer,
    /// Items of a map are under way: since there were any.
    Items,
    /// As many items of its map are under way as may be: since its item was opened again.
    Concurrency,
}

/// What the run waits for, or how it ended.
pub async fn why(conn: &mut PgConnection, scope: &Scope, run: RunId, dag: &Dag) -> Result<WhyView> {
    let head = header(conn, scope, run).await?;
    if head.status.is_terminal() {
        let sentence = ended(conn, scope, run, &head).await?;
        return Ok(WhyView { sentence, live: 0, waits: vec![] });
    }
    let (live, lanes) = lane::load(conn, run).await?;
    let keys = keys::load(conn, run, dag, lanes.iter().map(|l| &l.scope)).await?;
    let waits: Vec<WaitView> = lanes.iter().map(|lane| lane.view(dag, &keys, head.now)).collect();
    let sentence = match waits.first() {
        None => "Nothing of the run is live: that is a fault of the engine; `krowoc.check_invariants()` says more.".into(),
        Some(first) if head.status == RunStatus::Cancelling => words::stopping(first, live),
        Some(first) => words::summary(first, live, head.now),
    };
    Ok(WhyView { sentence, live, waits })
}

async fn ended(conn: &mut PgConnection, scope: &Scope, run: RunId, head: &Header) -> Result<String> {
    let took = head.finished_at.map(|at| format!(" after {}", words::span(at - head.created_at))).unwrap_or_default();
    let view = runs::show(conn, scope, run).await?;
    let why = view.run.error.as_ref().and_then(|e| e.parse::<serde_json::Value>().ok());
    let why = why.as_ref().and_then(|e| e.get("message")).and_then(|m| m.as_str()).map(|m| format!(": {m}")).unwrap_or_default();
    let open = sqlx::query_scalar!(r#"SELECT count(*) AS "open!" FROM krowoc.dead_letter WHERE run_id = $1 AND state = 'open'"#, run.0)
        .fetch_one(conn)
        .await?;
    let letters = if open > 0 { format!(" ({} open)", words::count(open, "dead letter", "dead letters")) } else { String::new() };
    Ok(format!(
        "The run {}{took}{why}{letters}.",
        match head.status {
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "was cancelled",
            RunStatus::Running | RunStatus::Cancelling => "is live",
        }
    ))
}
