//! Bundles: items of a map that were leased together, where their bodies are one step. A bundle is one row however many of its items are
//! under way; an item that does anything but end well is taken out of it, into a lane of its own, and is then like any other.

use super::rows::Lease;
use crate::id::{RunId, ScopePath};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Items in a bundle at most: a bit for each in `bundle.held`.
pub(crate) const SIZE: u32 = 64;

/// A bundle as its holder knows it: the run, the scope that the map stands in, the map, the first item, the token.
type Key = (RunId, ScopePath, i16, i32, i64);

/// Items by their bundle, in the order of locks.
#[derive(Default)]
pub(crate) struct Bundles(BTreeMap<Key, i64>);

impl Bundles {
    /// Those of the leases that were given out in bundles.
    pub fn of<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> Self {
        let mut bundles = Self::default();
        for lease in leases {
            bundles.add(lease);
        }
        bundles
    }

    /// Adds the item of a lease; false if it was not leased in a bundle.
    pub fn add(&mut self, lease: &Lease) -> bool {
        let Some((key, bit)) = place(lease.run, &lease.scope, lease.bundle, lease.token) else { return false };
        *self.0.entry(key).or_default() |= bit;
        true
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As parameters of a call.
    pub fn arrays(&self) -> Arrays {
        let mut a = Arrays::default();
        for ((run, scope, step, lo, token), bits) in &self.0 {
            a.run.push(run.0);
            a.scope.push(scope.0.clone());
            a.step.push(*step);
            a.lo.push(*lo);
            a.token.push(*token);
            a.bits.push(*bits);
        }
        a
    }
}

/// The parameters `b_…`.
#[derive(Default)]
pub(crate) struct Arrays {
    pub run: Vec<Uuid>,
    pub scope: Vec<Vec<u8>>,
    pub step: Vec<i16>,
    pub lo: Vec<i32>,
    pub token: Vec<i64>,
    pub bits: Vec<i64>,
}

/// The bundle of an item and its bit there.
pub(super) fn place(run: RunId, item: &ScopePath, bundle: Option<i32>, token: i64) -> Option<(Key, i64)> {
    let (lo, (scope, map, item)) = (bundle?, item.parent()?);
    let bit = item.checked_sub(lo.unsigned_abs()).filter(|bit| *bit < SIZE)?;
    Some(((run, scope, map.0 as i16, lo, token), 1 << bit))
}

/// Takes items out of their bundles, in the caller's transaction.
pub(crate) async fn take_out(conn: &mut PgConnection, leases: &[&Lease]) -> Result<(), sqlx::Error> {
    let bundles = Bundles::of(leases.iter().copied());
    if bundles.is_empty() {
        return Ok(());
    }
    let b = bundles.arrays();
    sqlx::query("SELECT krowoc.take_out_v1($1, $2, $3, $4, $5, $6)")
        .bind(b.run)
        .bind(b.scope)
        .bind(b.step)
        .bind(b.lo)
        .bind(b.token)
        .bind(b.bits)
        .execute(conn)
        .await?;
    Ok(())
}

/// Takes all of a run's items out of their bundles, in the caller's transaction.
pub(crate) async fn take_out_run(conn: &mut PgConnection, run: RunId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"SELECT krowoc.unbundle_v1(x.b, (x.b).held) AS "done!: ()"
           FROM (SELECT b FROM krowoc.bundle b WHERE b.run_id = $1 ORDER BY b.scope, b.step, b.lo FOR UPDATE) x"#,
        run.0
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// Takes apart up to so many bundles whose lease has expired: their items' lanes have expired then.
pub(crate) async fn take_out_expired(conn: &mut PgConnection, limit: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"SELECT krowoc.unbundle_v1(x.b, (x.b).held) AS "done!: ()"
           FROM (SELECT b FROM krowoc.bundle b WHERE b.lease_until < krowoc.now() LIMIT $1 FOR UPDATE SKIP LOCKED) x"#,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// Takes apart the bundles that a worker holds by one token.
pub(super) async fn take_out_held(conn: &mut PgConnection, worker: i32, token: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"SELECT krowoc.unbundle_v1(x.b, (x.b).held) AS "done!: ()"
           FROM (SELECT b FROM krowoc.bundle b WHERE b.worker = $1 AND b.token = $2 ORDER BY b.run_id, b.scope, b.step, b.lo FOR UPDATE) x"#,
        worker,
        token
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// What a renewal found of a bundle; by default that it is not there any more.
#[derive(Clone, Copy, Default)]
pub(super) struct RenewedBundle {
    /// The items that it still holds.
    pub held: i64,
    /// False: somebody was writing it.
    pub renewed: bool,
}

/// Renews the leases of bundles.
pub(super) async fn renew(conn: &mut PgConnection, keys: &[&Key], lease_s: f64) -> Result<Vec<RenewedBundle>, sqlx::Error> {
    let rows: Vec<(i32, bool, i64)> = sqlx::query_as("SELECT at, renewed, held FROM krowoc.renew_bundles_v1($1, $2, $3, $4, $5, $6)")
        .bind(keys.iter().map(|k| k.0.0).collect::<Vec<_>>())
        .bind(keys.iter().map(|k| k.1.0.as_slice()).collect::<Vec<_>>())
        .bind(keys.iter().map(|k| k.2).collect::<Vec<_>>())
        .bind(keys.iter().map(|k| k.3).collect::<Vec<_>>())
        .bind(keys.iter().map(|k| k.4).collect::<Vec<_>>())
        .bind(lease_s)
        .fetch_all(conn)
        .await?;
    let mut found = vec![RenewedBundle::default(); keys.len()];
    for (at, renewed, held) in rows {
        found[at as usize - 1] = RenewedBundle { held, renewed };
    }
    Ok(found)
}
