//! Attempts, in the order in which they ended: those that brought no result, and the one that did.

use super::{header, keys, parse};
use crate::{
    definition::Dag,
    error::{Error, ErrorClass, Result},
    executor::{StepError, Usage},
    id::{RunId, Scope, ScopePath, StepIx},
    path::StepPath,
    store::rows::Lease,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::fmt;

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStatus {
    /// With a result.
    Succeeded,
    /// With the decision that there is nothing to do.
    Skipped,
    /// With a failure.
    Failed,
    /// A limit outside said when to come back; it does not count.
    Deferred,
    /// Its worker vanished.
    Lost,
    /// Its run was stopped.
    Cancelled,
    /// Its worker gave it back unfinished; it does not count.
    Released,
}

impl AttemptStatus {
    /// The name in database and API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::Deferred => "deferred",
            Self::Lost => "lost",
            Self::Cancelled => "cancelled",
            Self::Released => "released",
        }
    }

    fn of(name: &str) -> Result<Self> {
        [Self::Succeeded, Self::Skipped, Self::Failed, Self::Deferred, Self::Lost, Self::Cancelled, Self::Released]
            .into_iter()
            .find(|status| status.name() == name)
            .ok_or_else(|| Error::Internal(format!("unknown attempt status `{name}`")))
    }
}

impl fmt::Display for AttemptStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An attempt that has ended.
#[derive(Serialize, Clone, Debug)]
pub struct AttemptView {
    /// The step's address; `output` for the computation of the run's output, `map[item].entry` for that which opens an item's first steps.
    pub path: String,
    /// Its number, from 1.
    pub attempt: u32,
    /// How it ended.
    pub status: AttemptStatus,
    /// The class of its failure.
    pub class: Option<ErrorClass>,
    /// Its failure.
    pub error: Option<StepError>,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// How long it took; that with which a map or a wait ends took as long as its items or its time.
    pub duration_ms: u32,
    /// When the next one was due, if one was to follow.
    pub next_at: Option<DateTime<Utc>>,
    /// The worker that carried it out.
    pub worker: Option<i32>,
    /// What it used.
    pub usage: Option<Usage>,
}

/// Attempts of a run, or of one step of it. At most `limit`, the latest.
pub async fn attempts(
    conn: &mut PgConnection,
    scope: &Scope,
    run: RunId,
    dag: &Dag,
    step: Option<&StepPath>,
    limit: i64,
) -> Result<Vec<AttemptView>> {
    header(conn, scope, run).await?;
    let place = match step {
        Some(path) => Some(keys::resolve(conn, run, dag, path).await?),
        None => None,
    };
    let rows = load(conn, run, place.as_ref().map(|p| (&p.scope, p.step)), Which::All, limit).await?;
    with_paths(conn, run, dag, rows).await
}

/// Where a page of attempts ends: a place in the order of [`page`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttemptKey {
    /// Where the step is carried out.
    pub scope: ScopePath,
    /// The step, or what the engine does between steps.
    pub step: i16,
    /// The attempt's number.
    pub attempt: i32,
}

/// Attempts of a run, or of one step of it, in the order of their steps' places and then of their numbers: those after `after`, and where
/// the next page begins if there is one. A page costs the same however much history the run has.
pub async fn page(
    conn: &mut PgConnection,
    scope: &Scope,
    run: RunId,
    dag: &Dag,
    step: Option<&StepPath>,
    after: Option<&AttemptKey>,
    limit: u32,
) -> Result<(Vec<AttemptView>, Option<AttemptKey>)> {
    header(conn, scope, run).await?;
    let place = match step {
        Some(path) => Some(keys::resolve(conn, run, dag, path).await?),
        None => None,
    };
    let (at, ix) = place.map(|place| (place.scope.0, place.step.0 as i16)).unzip();
    let first = AttemptKey { scope: ScopePath::root(), step: i16::MIN, attempt: 0 };
    let after = after.unwrap_or(&first);
    let rows = sqlx::query_as!(
        Stored,
        r#"SELECT scope AS "scope!", step AS "step!", attempt AS "attempt!", status AS "status!", error, usage, finished_at AS "finished_at!",
             duration_ms AS "duration_ms!", next_at, worker FROM (
             (SELECT scope, step, attempt, status::text, error::text, usage::text, finished_at, duration_ms, next_at, worker FROM krowoc.attempt
              WHERE run_id = $1 AND ($2::bytea IS NULL OR scope = $2 AND step = $3) AND (scope, step, attempt) > ($4, $5, $6)
              ORDER BY scope, step, attempt LIMIT $7)
             UNION ALL
             (SELECT scope, step, attempt, status::text, error::text, usage::text, finished_at, duration_ms, NULL, NULL FROM krowoc.step_result r
              WHERE run_id = $1 AND ($2::bytea IS NULL OR scope = $2 AND step = $3) AND (scope, step, attempt) > ($4, $5, $6)
                AND (status <> 'failed' OR NOT EXISTS (
                  SELECT FROM krowoc.attempt a WHERE a.run_id = r.run_id AND a.scope = r.scope AND a.step = r.step AND a.attempt = r.attempt))
              ORDER BY scope, step, attempt LIMIT $7)) t
           ORDER BY scope, step, attempt LIMIT $7"#,
        run.0,
        at,
        ix,
        &after.scope.0,
        after.step,
        after.attempt,
        i64::from(limit) + 1
    )
    .fetch_all(&mut *conn)
    .await?;
    let more = rows.len() > limit as usize;
    let rows = rows.into_iter().take(limit as usize).map(Stored::view).collect::<Result<Vec<_>>>()?;
    let next = rows.last().filter(|_| more).map(|(scope, step, view)| AttemptKey {
        scope: scope.clone(),
        step: *step,
        attempt: view.attempt as i32,
    });
    Ok((with_paths(conn, run, dag, rows).await?, next))
}

/// Attempts of a run that brought no result. At most `limit`, the latest.
pub async fn without_result(conn: &mut PgConnection, scope: &Scope, run: RunId, dag: &Dag, limit: i64) -> Result<Vec<AttemptView>> {
    header(conn, scope, run).await?;
    let rows = load(conn, run, None, Which::WithoutResult, limit).await?;
    with_paths(conn, run, dag, rows).await
}

async fn with_paths(conn: &mut PgConnection, run: RunId, dag: &Dag, rows: Vec<Row>) -> Result<Vec<AttemptView>> {
    let keys = keys::load(conn, run, dag, rows.iter().map(|r| &r.0)).await?;
    let path = |scope: &ScopePath, step: i16| match u16::try_from(step) {
        Ok(ix) => keys.path(dag, scope, StepIx(ix)),
        // The engine's own work: it has no step, but it can be lost like one.
        Err(_) if step == Lease::ENTRY => format!("{}.entry", keys.item_path(dag, scope)),
        Err(_) => "output".to_owned(),
    };
    Ok(rows.into_iter().map(|(scope, step, view)| AttemptView { path: path(&scope, step), ..view }).collect())
}

/// Every attempt of the step at an address that the caller knows in words.
pub(crate) async fn at(conn: &mut PgConnection, run: RunId, path: &str, scope: &ScopePath, step: StepIx) -> Result<Vec<AttemptView>> {
    let rows = load(conn, run, Some((scope, step)), Which::All, i64::MAX).await?;
    Ok(rows.into_iter().map(|(_, _, view)| AttemptView { path: path.to_owned(), ..view }).collect())
}

/// An attempt with its place, its path still empty.
type Row = (ScopePath, i16, AttemptView);

#[derive(PartialEq)]
enum Which {
    All,
    WithoutResult,
}

async fn load(conn: &mut PgConnection, run: RunId, step: Option<(&ScopePath, StepIx)>, which: Which, limit: i64) -> Result<Vec<Row>> {
    let (at, ix) = step.map(|(scope, step)| (scope.0.clone(), step.0 as i16)).unzip();
    // An attempt that ended its step in failure is in both tables.
    let rows = sqlx::query_as!(
        Stored,
        r#"SELECT scope AS "scope!", step AS "step!", attempt AS "attempt!", status AS "status!", error, usage, finished_at AS "finished_at!",
             duration_ms AS "duration_ms!", next_at, worker FROM (
             SELECT scope, step, attempt, status::text, error::text, usage::text, finished_at, duration_ms, next_at, worker FROM krowoc.attempt
             WHERE run_id = $1 AND ($2::bytea IS NULL OR scope = $2 AND step = $3)
             UNION ALL
             SELECT scope, step, attempt, status::text, error::text, usage::text, finished_at, duration_ms, NULL, NULL FROM krowoc.step_result r
             WHERE run_id = $1 AND ($2::bytea IS NULL OR scope = $2 AND step = $3) AND ($5 OR status = 'failed') AND (status <> 'failed' OR NOT EXISTS (
               SELECT FROM krowoc.attempt a WHERE a.run_id = r.run_id AND a.scope = r.scope AND a.step = r.step AND a.attempt = r.attempt))) t
           ORDER BY finished_at DESC, scope DESC, step DESC, attempt DESC LIMIT $4"#,
        run.0,
        at,
        ix,
        limit,
        which == Which::All
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().rev().map(Stored::view).collect()
}

/// An attempt as it is stored.
struct Stored {
    scope: Vec<u8>,
    step: i16,
    attempt: i32,
    status: String,
    error: Option<String>,
    usage: Option<String>,
    finished_at: DateTime<Utc>,
    duration_ms: i32,
    next_at: Option<DateTime<Utc>>,
    worker: Option<i32>,
}

impl Stored {
    fn view(self) -> Result<Row> {
        let error: Option<StepError> = self.error.as_deref().map(parse).transpose()?;
        let view = AttemptView {
            path: String::new(),
            attempt: self.attempt.unsigned_abs(),
            status: AttemptStatus::of(&self.status)?,
            class: error.as_ref().map(|e| e.class),
            error,
            started_at: self.finished_at - TimeDelta::milliseconds(self.duration_ms.into()),
            finished_at: self.finished_at,
            duration_ms: self.duration_ms.max(0).unsigned_abs(),
            next_at: self.next_at,
            worker: self.worker,
            usage: self.usage.as_deref().map(parse).transpose()?,
        };
        Ok((ScopePath(self.scope), self.step, view))
    }
}
