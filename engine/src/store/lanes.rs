//! Lanes outside the hot path: checking tokens under lock, stopping a run's lanes, taking over expired leases.

use super::{bundles, holder::Holder, rows::Lease};
use crate::{
    id::{RunId, ScopePath, VersionId},
    lifecycle::Counters,
};
use sqlx::PgConnection;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};
use uuid::Uuid;

/// A lane under lock whose token was still good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// The token: a batch may hold an older lease on the same lane, which is stale.
    pub token: i64,
    /// Is its run being stopped?
    pub aborting: bool,
}

/// Locks the lanes whose token is still good, in key order.
pub(crate) async fn lock_held(conn: &mut PgConnection, leases: &[&Lease]) -> Result<HashMap<(RunId, ScopePath, i32), Held>, sqlx::Error> {
    let runs: Vec<Uuid> = leases.iter().map(|l| l.run.0).collect();
    let scopes: Vec<Vec<u8>> = leases.iter().map(|l| l.scope.0.clone()).collect();
    let lanes: Vec<i32> = leases.iter().map(|l| l.lane).collect();
    let tokens: Vec<i64> = leases.iter().map(|l| l.token).collect();
    let rows = sqlx::query!(
        "SELECT l.run_id, l.scope, l.lane, l.token AS \"token!\", l.state = 'aborting' AS \"aborting!\"
         FROM unnest($1::uuid[], $2::bytea[], $3::int[], $4::bigint[]) AS k(run, scp, lane, token)
         JOIN krowoc.lane l ON l.run_id = ANY (ARRAY[k.run]) AND l.scope = k.scp AND l.lane = k.lane AND l.token = k.token
         ORDER BY l.run_id, l.scope, l.lane FOR UPDATE OF l",
        &runs,
        &scopes,
        &lanes,
        &tokens
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|r| ((RunId(r.run_id), ScopePath(r.scope), r.lane), Held { token: r.token, aborting: r.aborting })).collect())
}

/// Removes lanes of stopped runs whose attempt has ended; the caller has them under lock and found them aborting.
pub(crate) async fn remove_aborting(conn: &mut PgConnection, leases: &[&Lease]) -> Result<(), sqlx::Error> {
    let runs: Vec<Uuid> = leases.iter().map(|l| l.run.0).collect();
    let scopes: Vec<Vec<u8>> = leases.iter().map(|l| l.scope.0.clone()).collect();
    let lanes: Vec<i32> = leases.iter().map(|l| l.lane).collect();
    let tokens: Vec<i64> = leases.iter().map(|l| l.token).collect();
    // By token, not by state: that would have the planner walk the index of all leases.
    sqlx::query!(
        "DELETE FROM krowoc.lane l USING unnest($1::uuid[], $2::bytea[], $3::int[], $4::bigint[]) AS k(run, scp, lane, token)
         WHERE l.run_id = ANY (ARRAY[k.run]) AND l.scope = k.scp AND l.lane = k.lane AND l.token = k.token",
        &runs,
        &scopes,
        &lanes,
        &tokens
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Puts lanes that nobody will work at here back to where any worker finds them, as if they had never been leased: the attempt does not
/// count and is not put on record. Those whose run is being stopped stay as they are.
pub(crate) async fn put_back(conn: &mut PgConnection, leases: &[&Lease]) -> Result<(), sqlx::Error> {
    let runs: Vec<Uuid> = leases.iter().map(|l| l.run.0).collect();
    let scopes: Vec<Vec<u8>> = leases.iter().map(|l| l.scope.0.clone()).collect();
    let lanes: Vec<i32> = leases.iter().map(|l| l.lane).collect();
    let tokens: Vec<i64> = leases.iter().map(|l| l.token).collect();
    sqlx::query!(
        "UPDATE krowoc.lane l SET state = 'ready', token = NULL, lease_until = NULL, ready_at = krowoc.now(), attempt = l.attempt - 1,
           total_from = CASE WHEN l.attempt > 1 THEN l.total_from END
         FROM unnest($1::uuid[], $2::bytea[], $3::int[], $4::bigint[]) AS k(run, scp, lane, token)
         WHERE l.run_id = ANY (ARRAY[k.run]) AND l.scope = k.scp AND l.lane = k.lane AND l.token = k.token AND l.state <> 'aborting'",
        &runs,
        &scopes,
        &lanes,
        &tokens
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The same for everything that a worker holds by one token: its transaction was committed, and nobody heard of it. Gives how many.
pub(crate) async fn put_back_unheard(conn: &mut PgConnection, worker: i32, token: i64) -> Result<u64, sqlx::Error> {
    bundles::take_out_held(conn, worker, token).await?;
    // Both states, which imply the predicate of the index of leases: there is none of tokens.
    let done = sqlx::query!(
        "UPDATE krowoc.lane SET state = 'ready', token = NULL, lease_until = NULL, ready_at = krowoc.now(), attempt = attempt - 1,
           total_from = CASE WHEN attempt > 1 THEN total_from END
         WHERE worker = $1 AND state IN ('leased', 'aborting') AND token = $2 AND state <> 'aborting'",
        worker,
        token
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// How many lanes a run still has.
pub(crate) async fn count(conn: &mut PgConnection, run: RunId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!("SELECT count(*) AS \"n!\" FROM krowoc.live_lane WHERE run_id = $1", run.0).fetch_one(conn).await
}

/// Stops a run's lanes: what is leased may only end, everything else is gone at once. Returns how many attempts are in flight.
///
/// An attempt that ends without ending its step writes its lane under no other lock, so a lane that was leased when a statement began may
/// wait for items or a timer when the statement gets at it, and is passed over: hence again until nothing has moved. The caller holds the
/// run's scopes.
pub(crate) async fn stop(conn: &mut PgConnection, run: RunId) -> Result<u64, sqlx::Error> {
    loop {
        let in_flight = stop_once(conn, run).await?;
        let moved = sqlx::query_scalar!(
            "SELECT EXISTS (SELECT FROM krowoc.span WHERE run_id = $1) OR EXISTS (SELECT FROM krowoc.live_lane WHERE run_id = $1 AND state <> 'aborting') AS \"moved!\"",
            run.0
        )
        .fetch_one(&mut *conn)
        .await?;
        if !moved {
            return Ok(in_flight);
        }
    }
}

async fn stop_once(conn: &mut PgConnection, run: RunId) -> Result<u64, sqlx::Error> {
    // Also maps that were expanded meanwhile: whoever ends an item of them holds the map, then the lane, and last asks for the span.
    sqlx::query!("SELECT step FROM krowoc.map_state WHERE run_id = $1 ORDER BY scope, step FOR UPDATE", run.0)
        .fetch_all(&mut *conn)
        .await?;
    sqlx::query!("DELETE FROM krowoc.span WHERE run_id = $1", run.0).execute(&mut *conn).await?;
    bundles::take_out_run(conn, run).await?;
    sqlx::query!("SELECT lane FROM krowoc.lane WHERE run_id = $1 ORDER BY scope, lane FOR UPDATE", run.0).fetch_all(&mut *conn).await?;
    sqlx::query!("DELETE FROM krowoc.lane WHERE run_id = $1 AND state NOT IN ('leased', 'aborting')", run.0).execute(&mut *conn).await?;
    let done = sqlx::query!("UPDATE krowoc.lane SET state = 'aborting' WHERE run_id = $1 AND state IN ('leased', 'aborting')", run.0)
        .execute(conn)
        .await?;
    Ok(done.rows_affected())
}

/// Tells workers that attempts of a run are to be stopped; heard after the commit.
pub(crate) async fn notify_stopped(conn: &mut PgConnection, run: RunId) -> Result<(), sqlx::Error> {
    sqlx::query!("SELECT pg_notify('krowoc_stop', $1) AS \"sent!: ()\"", run.0.to_string()).fetch_one(conn).await?;
    Ok(())
}

/// Takes over leases that have expired, with a token of the caller's.
pub(crate) async fn take_expired(conn: &mut PgConnection, limit: i64, by: Holder) -> Result<Vec<Lease>, sqlx::Error> {
    bundles::take_out_expired(conn, limit).await?;
    let rows = sqlx::query!(
        "UPDATE krowoc.lane l SET token = $2, lease_until = krowoc.now() + make_interval(secs => $3) FROM (
           SELECT run_id, scope, lane FROM krowoc.lane WHERE state IN ('leased', 'aborting') AND lease_until < krowoc.now() LIMIT $1 FOR UPDATE SKIP LOCKED) x
         WHERE l.run_id = ANY (ARRAY[x.run_id]) AND l.scope = x.scope AND l.lane = x.lane
         RETURNING l.run_id, l.scope, l.lane, l.workflow_version, l.step, l.phase, l.attempt, l.failures, l.losses, l.queue, l.priority,
           (extract(epoch FROM krowoc.now() - coalesce(l.total_from, krowoc.now())) * 1000)::bigint AS \"overdue_ms!\"",
        limit,
        by.token,
        by.lease_s
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| Lease {
            run: RunId(r.run_id),
            scope: ScopePath(r.scope),
            lane: r.lane,
            token: by.token,
            version: VersionId(r.workflow_version),
            step: r.step,
            phase: r.phase,
            attempt: r.attempt.unsigned_abs(),
            counters: Counters { failures: r.failures.unsigned_abs(), losses: r.losses.unsigned_abs() },
            queue: r.queue,
            priority: r.priority,
            bundle: None,
            overdue: Duration::from_millis(r.overdue_ms.max(0).unsigned_abs()),
        })
        .collect())
}

/// What a renewal found of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    Renewed,
    /// Somebody is writing it, and decides about it.
    Held,
    Lost,
}

impl Renewal {
    fn of(renewed: bool) -> Self {
        if renewed { Self::Renewed } else { Self::Held }
    }
}

/// Renews leases.
pub(crate) async fn renew(conn: &mut PgConnection, leases: &[HeldLane], lease_s: f64) -> Result<Vec<Renewal>, sqlx::Error> {
    let mut found = renew_bundled(conn, leases, lease_s).await?;
    // Also items that have been taken out of their bundles.
    let alone: Vec<usize> = (0..leases.len()).filter(|at| found[*at] == Renewal::Lost).collect();
    if !alone.is_empty() {
        for (at, renewed) in renew_lanes(conn, alone.iter().map(|at| &leases[*at]), lease_s).await? {
            found[alone[at as usize - 1]] = Renewal::of(renewed);
        }
    }
    Ok(found)
}

async fn renew_bundled(conn: &mut PgConnection, leases: &[HeldLane], lease_s: f64) -> Result<Vec<Renewal>, sqlx::Error> {
    let places: Vec<_> = leases.iter().map(|l| bundles::place(l.run, &l.scope, l.bundle, l.token)).collect();
    let keys: BTreeSet<_> = places.iter().flatten().map(|(key, _)| key).collect();
    if keys.is_empty() {
        return Ok(vec![Renewal::Lost; leases.len()]);
    }
    let keys: Vec<_> = keys.into_iter().collect();
    let bundles: BTreeMap<_, _> = keys.iter().copied().zip(bundles::renew(conn, &keys, lease_s).await?).collect();
    let of = |place: &Option<_>| {
        let (key, bit) = place.as_ref()?;
        bundles.get(key).filter(|bundle| bundle.held & bit != 0).map(|bundle| Renewal::of(bundle.renewed))
    };
    Ok(places.iter().map(|place| of(place).unwrap_or(Renewal::Lost)).collect())
}

async fn renew_lanes<'a>(
    conn: &mut PgConnection,
    leases: impl Iterator<Item = &'a HeldLane> + Clone,
    lease_s: f64,
) -> Result<Vec<(i32, bool)>, sqlx::Error> {
    sqlx::query_as("SELECT at, renewed FROM krowoc.renew_v1($1, $2, $3, $4, $5)")
        .bind(leases.clone().map(|l| l.run.0).collect::<Vec<_>>())
        .bind(leases.clone().map(|l| l.scope.0.as_slice()).collect::<Vec<_>>())
        .bind(leases.clone().map(|l| l.lane).collect::<Vec<_>>())
        .bind(leases.map(|l| l.token).collect::<Vec<_>>())
        .bind(lease_s)
        .fetch_all(conn)
        .await
}

/// What a renewal needs of a lease.
#[derive(Clone, Debug)]
pub(crate) struct HeldLane {
    pub run: RunId,
    pub scope: ScopePath,
    pub lane: i32,
    pub token: i64,
    pub bundle: Option<i32>,
}

/// The highest priority among ready steps and items of the queues.
pub(crate) async fn most_urgent(conn: &mut PgConnection, queues: &[i16]) -> Result<Option<i16>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT max(p.top) FROM unnest($1::smallint[]) AS q(id) CROSS JOIN LATERAL (
           (SELECT l.priority AS top FROM krowoc.lane l WHERE l.queue = q.id AND l.state = 'ready' ORDER BY l.priority DESC, l.ready_at LIMIT 1)
           UNION ALL
           (SELECT s.priority FROM krowoc.span s WHERE s.queue = q.id AND (s.permits IS NULL OR s.permits > 0) AND NOT s.held ORDER BY s.priority DESC, s.ready_at LIMIT 1)) p",
        queues
    )
    .fetch_one(conn)
    .await
}
