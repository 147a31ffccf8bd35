//! The hot path's calls: arrays in, one round trip. The structs mirror the parameters of `complete_v1` and its kin, column by column.

use super::{bundles::Bundles, holder::Holder, rows::Claimed};
use crate::{
    id::{RunId, ScopePath},
    payload::Payload,
};
use sqlx::{PgConnection, Row, postgres::PgRow};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use uuid::Uuid;

/// A set of transitions, decided and ready to be applied.
#[derive(Default)]
pub(crate) struct Transition {
    pub scopes: Scopes,
    pub goes_on: GoesOn,
    pub ends: Ends,
    pub opens: Opens,
    pub results: Results,
    pub run_ends: RunEnds,
    pub items: Items,
    /// Items that end in the bundles that they were leased in.
    pub bundles: Bundles,
    /// Queues on which ready work is left for others.
    pub wake: BTreeSet<i16>,
}

#[derive(Default)]
pub(crate) struct Scopes {
    pub run: Vec<Uuid>,
    pub scope: Vec<Vec<u8>>,
    pub old: Vec<i32>,
    pub new: Vec<i32>,
    pub steps: Vec<Option<Vec<u8>>>,
}

#[derive(Default)]
pub(crate) struct GoesOn {
    pub run: Vec<Uuid>,
    pub scope: Vec<Vec<u8>>,
    pub lane: Vec<i32>,
    pub token: Vec<i64>,
    pub step: Vec<i16>,
    pub queue: Vec<i16>,
    pub state: Vec<&'static str>,
}

#[derive(Default)]
pub(crate) struct Ends {
    pub run: Vec<Uuid>,
    pub scope: Vec<Vec<u8>>,
    pub lane: Vec<i32>,
    pub token: Vec<i64>,
}

#[derive(Default)]
pub(crate) struct Opens {
    pub run: Vec<Uuid>,
    pub scope: Vec<Vec<u8>>,
    pub lane: Vec<i32>,
    pub version: Vec<i32>,
    pub step: Vec<i16>,
    pub queue: Vec<i16>,
    pub priority: Vec<i16>,
    pub state: Vec<&'static str>,
}

#[derive(Default)]
pub(crate) struct Results {
    pub run: Vec<Uuid>,
    pub scope: Vec<Vec<u8>>,
    pub step: Vec<i16>,
    pub attempt: Vec<i32>,
    pub seq: Vec<i32>,
    pub ms: Vec<i32>,
    pub status: Vec<&'static str>,
    pub output: Vec<Option<Payload>>,
    pub blob: Vec<Option<Vec<u8>>>,
    pub error: Vec<Option<String>>,
    pub usage: Vec<Option<String>>,
}

#[derive(Default)]
pub(crate) struct RunEnds {
    pub run: Vec<Uuid>,
    pub status: Vec<&'static str>,
    pub seq: Vec<i32>,
    pub output: Vec<Option<String>>,
    pub blob: Vec<Option<Vec<u8>>>,
    pub error: Vec<Option<String>>,
}

/// Ended items, by their map; sorted before they are sent, since that is the lock order.
#[derive(Default)]
pub(crate) struct Items(pub BTreeMap<(RunId, ScopePath, i16), ItemCount>);

#[derive(Default, Clone, Copy)]
pub(crate) struct ItemCount {
    pub done: i32,
    pub failed: i32,
    /// Items of the same map that the caller has room for.
    pub more: i32,
}

impl Transition {
    /// The commonest small batch: one step succeeded and one successor goes on here.
    fn is_single(&self) -> bool {
        self.scopes.run.len() == 1
            && self.goes_on.run.len() == 1
            && self.goes_on.state[0] == "leased"
            && self.results.run.len() == 1
            && self.results.status[0] == "succeeded"
            && self.results.output[0].is_some()
            && self.opens.run.is_empty()
            && self.ends.run.is_empty()
            && self.run_ends.run.is_empty()
            && self.items.0.is_empty()
            && self.bundles.is_empty()
            && self.wake.is_empty()
    }
}

/// The error code with which a function says that a guard did not hold; everything was rolled back.
pub(crate) const FENCED: &str = "KR001";

/// Did a guard not hold?
pub(crate) fn is_fenced(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == FENCED)
}

/// What a claim brought.
#[derive(Default)]
pub(crate) struct Claim {
    pub leased: Vec<Claimed>,
    /// The highest priority among what still waits, when everything wanted was found.
    pub left: Option<i16>,
    /// When the next timer is due, when less was found than wanted.
    pub due_in: Option<Duration>,
}

impl Claim {
    fn read(rows: &[PgRow], token: i64) -> Result<Self, sqlx::Error> {
        let mut claim = Self { leased: Vec::with_capacity(rows.len()), ..Self::default() };
        for row in rows {
            match row.try_get::<Option<Uuid>, _>("run_id")? {
                Some(_) => claim.leased.push(Claimed::read(row, token)?),
                None => {
                    claim.left = row.try_get("priority")?;
                    let due_in: Option<i64> = row.try_get("overdue_ms")?;
                    claim.due_in = due_in.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs()));
                }
            }
        }
        Ok(claim)
    }
}

/// Claims up to `want` steps of the queues. `luck`, from [0, 1), rounds the shares of plain steps and map items.
pub(crate) async fn claim(conn: &mut PgConnection, queues: &[i16], want: usize, luck: f64, by: Holder) -> Result<Claim, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM krowoc.claim_v1($1, $2, $3, $4, $5, $6)")
        .bind(queues)
        .bind(want as i32)
        .bind(luck)
        .bind(by.token)
        .bind(by.worker)
        .bind(by.lease_s)
        .fetch_all(conn)
        .await?;
    Claim::read(&rows, by.token)
}

/// Claims up to `want` steps of one run.
pub(crate) async fn claim_run(conn: &mut PgConnection, run: RunId, queues: &[i16], want: usize, by: Holder) -> Result<Claim, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM krowoc.claim_run_v1($1, $2, $3, $4, $5, $6)")
        .bind(run.0)
        .bind(queues)
        .bind(want as i32)
        .bind(by.token)
        .bind(by.worker)
        .bind(by.lease_s)
        .fetch_all(conn)
        .await?;
    Claim::read(&rows, by.token)
}

/// Applies transitions; lanes of maps whose last item ended, and further items of maps that go on, come back leased.
pub(crate) async fn complete(conn: &mut PgConnection, t: &Transition, by: Holder) -> Result<Vec<Claimed>, sqlx::Error> {
    if t.is_single() {
        return complete_one(conn, t, by).await.map(|()| vec![]);
    }
    let (items, bundles) = (ItemArrays::of(&t.items), t.bundles.arrays());
    let rows = sqlx::query(
        "SELECT * FROM krowoc.complete_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, \
         $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $51, $52, $53, $54, $55, $56, $57)",
    )
    .bind(&t.scopes.run)
    .bind(&t.scopes.scope)
    .bind(&t.scopes.old)
    .bind(&t.scopes.new)
    .bind(&t.scopes.steps)
    .bind(&t.goes_on.run)
    .bind(&t.goes_on.scope)
    .bind(&t.goes_on.lane)
    .bind(&t.goes_on.token)
    .bind(&t.goes_on.step)
    .bind(&t.goes_on.queue)
    .bind(&t.goes_on.state)
    .bind(&t.ends.run)
    .bind(&t.ends.scope)
    .bind(&t.ends.lane)
    .bind(&t.ends.token)
    .bind(&t.opens.run)
    .bind(&t.opens.scope)
    .bind(&t.opens.lane)
    .bind(&t.opens.version)
    .bind(&t.opens.step)
    .bind(&t.opens.queue)
    .bind(&t.opens.priority)
    .bind(&t.opens.state)
    .bind(&t.results.run)
    .bind(&t.results.scope)
    .bind(&t.results.step)
    .bind(&t.results.attempt)
    .bind(&t.results.seq)
    .bind(&t.results.ms)
    .bind(&t.results.status)
    .bind(texts(&t.results.output))
    .bind(&t.results.blob)
    .bind(&t.results.error)
    .bind(&t.results.usage)
    .bind(&t.run_ends.run)
    .bind(&t.run_ends.status)
    .bind(&t.run_ends.seq)
    .bind(&t.run_ends.output)
    .bind(&t.run_ends.blob)
    .bind(&t.run_ends.error)
    .bind(&items.run)
    .bind(&items.scope)
    .bind(&items.step)
    .bind(&items.done)
    .bind(&items.failed)
    .bind(&items.more)
    .bind(bundles.run)
    .bind(bundles.scope)
    .bind(bundles.step)
    .bind(bundles.lo)
    .bind(bundles.token)
    .bind(bundles.bits)
    .bind(by.token)
    .bind(by.worker)
    .bind(by.lease_s)
    .bind(queues(&t.wake))
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row: &PgRow| Claimed::read(row, by.token)).collect()
}

async fn complete_one(conn: &mut PgConnection, t: &Transition, by: Holder) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT krowoc.complete_one_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)")
        .bind(t.scopes.run[0])
        .bind(&t.scopes.scope[0])
        .bind(t.scopes.old[0])
        .bind(t.scopes.new[0])
        .bind(&t.scopes.steps[0])
        .bind(t.goes_on.lane[0])
        .bind(t.goes_on.token[0])
        .bind(t.results.step[0])
        .bind(t.results.attempt[0])
        .bind(t.results.seq[0])
        .bind(t.results.ms[0])
        .bind(t.results.output[0].as_ref().map(Payload::as_str))
        .bind(&t.results.usage[0])
        .bind(t.goes_on.step[0])
        .bind(t.goes_on.queue[0])
        .bind(by.token)
        .bind(by.lease_s)
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends of attempts that do not end their step.
#[derive(Default)]
pub(crate) struct Reschedules {
    pub run: Vec<Uuid>,
    pub scope: Vec<Vec<u8>>,
    pub lane: Vec<i32>,
    pub token: Vec<i64>,
    pub state: Vec<&'static str>,
    pub phase: Vec<i16>,
    pub delay_s: Vec<f64>,
    pub due: Vec<Option<chrono::DateTime<chrono::Utc>>>,
    pub failures: Vec<i16>,
    pub losses: Vec<i16>,
    pub excused_s: Vec<f64>,
    pub step: Vec<i16>,
    pub attempt: Vec<i32>,
    pub status: Vec<Option<&'static str>>,
    pub class: Vec<Option<&'static str>>,
    pub ms: Vec<i32>,
    pub error: Vec<Option<String>>,
    pub usage: Vec<Option<String>>,
    /// Items among them that were leased in bundles, and are taken out.
    pub bundles: Bundles,
    pub wake: BTreeSet<i16>,
}

/// Applies them; returns the positions (from 0) of those whose token was still good.
pub(crate) async fn reschedule(conn: &mut PgConnection, r: &Reschedules, worker: i32) -> Result<Vec<usize>, sqlx::Error> {
    let bundles = r.bundles.arrays();
    let accepted: Vec<i32> = sqlx::query_scalar(
        "SELECT krowoc.reschedule_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)",
    )
    .bind(&r.run)
    .bind(&r.scope)
    .bind(&r.lane)
    .bind(&r.token)
    .bind(&r.state)
    .bind(&r.phase)
    .bind(&r.delay_s)
    .bind(&r.due)
    .bind(&r.failures)
    .bind(&r.losses)
    .bind(&r.excused_s)
    .bind(&r.step)
    .bind(&r.attempt)
    .bind(&r.status)
    .bind(&r.class)
    .bind(&r.ms)
    .bind(&r.error)
    .bind(&r.usage)
    .bind(bundles.run)
    .bind(bundles.scope)
    .bind(bundles.step)
    .bind(bundles.lo)
    .bind(bundles.token)
    .bind(bundles.bits)
    .bind(worker)
    .bind(queues(&r.wake))
    .fetch_all(conn)
    .await?;
    Ok(accepted.into_iter().map(|at| at as usize - 1).collect())
}

struct ItemArrays {
    run: Vec<Uuid>,
    scope: Vec<Vec<u8>>,
    step: Vec<i16>,
    done: Vec<i32>,
    failed: Vec<i32>,
    more: Vec<i32>,
}

impl ItemArrays {
    fn of(items: &Items) -> Self {
        let mut a = Self { run: vec![], scope: vec![], step: vec![], done: vec![], failed: vec![], more: vec![] };
        for ((run, scope, step), count) in &items.0 {
            a.run.push(run.0);
            a.scope.push(scope.0.clone());
            a.step.push(*step);
            a.done.push(count.done);
            a.failed.push(count.failed);
            a.more.push(count.more);
        }
        a
    }
}

fn queues(wake: &BTreeSet<i16>) -> Vec<i16> {
    wake.iter().copied().collect()
}

fn texts(payloads: &[Option<Payload>]) -> Vec<Option<&str>> {
    payloads.iter().map(|p| p.as_ref().map(Payload::as_str)).collect()
}
