//! Live maps: expansion, and what finishing one needs.

use crate::{
    id::{RunId, ScopePath},
    payload::Payload,
    store::hot::Holder,
};
use sqlx::PgConnection;

/// Items in a row of `map_chunk`.
pub(crate) const CHUNK: usize = 256;

/// A map whose items are known.
pub(crate) struct NewMap<'a> {
    pub run: RunId,
    pub scope: &'a ScopePath,
    pub step: i16,
    pub lane: i32,
    /// The token of the map's lease.
    pub held: i64,
    pub workflow_version: i32,
    pub total: i32,
    pub max_failed: i32,
    pub permits: Option<i32>,
    pub entry: i16,
    pub queue: i16,
    pub priority: i16,
    pub template: Option<Vec<u8>>,
    pub items: &'a [String],
    pub keys: Option<&'a [String]>,
    /// The first so many items are leased to the caller.
    pub mine: i32,
}

/// Stores its items, its counter and its span, and leases the first items; false if the map's own lease was lost.
pub(crate) async fn insert(conn: &mut PgConnection, m: &NewMap<'_>, by: Holder) -> Result<bool, sqlx::Error> {
    let items = chunks(m.items);
    let keys: Vec<Option<String>> = match m.keys {
        Some(keys) => chunks(keys).into_iter().map(Some).collect(),
        None => vec![None; items.len()],
    };
    // Others hear of what this process can't take.
    let ready: &[i16] = if m.mine < m.permits.unwrap_or(m.total) { &[m.queue] } else { &[] };
    sqlx::query_scalar("SELECT krowoc.expand_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)")
        .bind(m.run.0)
        .bind(&m.scope.0)
        .bind(m.lane)
        .bind(m.held)
        .bind(m.step)
        .bind(m.workflow_version)
        .bind(m.total)
        .bind(m.max_failed)
        .bind(m.permits)
        .bind(m.entry)
        .bind(m.queue)
        .bind(m.priority)
        .bind(&m.template)
        .bind(items)
        .bind(keys)
        .bind(m.mine)
        .bind(by.token)
        .bind(by.worker)
        .bind(by.lease_s)
        .bind(ready)
        .fetch_one(conn)
        .await
}

/// JSON array texts of up to [`CHUNK`] elements each.
fn chunks(elements: &[String]) -> Vec<String> {
    elements.chunks(CHUNK).map(|c| format!("[{}]", c.join(","))).collect()
}

/// The counts of a map.
pub(crate) struct MapCounts {
    pub total: i32,
    pub goal: i32,
    pub failed: i32,
    pub max_failed: i32,
}

/// Reads them.
pub(crate) async fn counts(conn: &mut PgConnection, run: RunId, scope: &ScopePath, step: i16) -> Result<Option<MapCounts>, sqlx::Error> {
    sqlx::query_as!(
        MapCounts,
        "SELECT total, goal, failed, max_failed FROM krowoc.map_state WHERE run_id = $1 AND scope = $2 AND step = $3",
        run.0,
        &scope.0,
        step
    )
    .fetch_optional(conn)
    .await
}

/// Removes the counter of a map that has ended; its chunks stay, they are history.
pub(crate) async fn remove(conn: &mut PgConnection, run: RunId, scope: &ScopePath, step: i16) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM krowoc.map_state WHERE run_id = $1 AND scope = $2 AND step = $3", run.0, &scope.0, step)
        .execute(conn)
        .await?;
    Ok(())
}

/// Locks maps in key order, before any lane of their items.
pub(crate) async fn lock(conn: &mut PgConnection, keys: &[(RunId, ScopePath, i16)]) -> Result<(), sqlx::Error> {
    let runs: Vec<uuid::Uuid> = keys.iter().map(|k| k.0.0).collect();
    let scopes: Vec<Vec<u8>> = keys.iter().map(|k| k.1.0.clone()).collect();
    let steps: Vec<i16> = keys.iter().map(|k| k.2).collect();
    sqlx::query!(
        "SELECT m.step FROM unnest($1::uuid[], $2::bytea[], $3::smallint[]) AS k(run, scp, stp)
         JOIN krowoc.map_state m ON m.run_id = k.run AND m.scope = k.scp AND m.step = k.stp ORDER BY m.run_id, m.scope, m.step FOR UPDATE OF m",
        &runs,
        &scopes,
        &steps
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// How a step of an item ended, as far as a map's output wants to know.
pub(crate) struct ItemResult {
    pub scope: ScopePath,
    pub step: i16,
    pub failed: bool,
    pub output: Option<Payload>,
    pub blob: Option<Vec<u8>>,
}

/// Results of a map's items from one scope to another: successes of the named steps, failures of all, in the order of the items.
pub(crate) async fn item_results(
    conn: &mut PgConnection,
    run: RunId,
    from: &ScopePath,
    to: &ScopePath,
    steps: &[i16],
) -> Result<Vec<ItemResult>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT scope, step, status = 'failed' AS \"failed!\", output::text, output_blob FROM krowoc.step_result
         WHERE run_id = $1 AND scope >= $2 AND scope <= $3 AND octet_length(scope) = octet_length($3)
           AND (status = 'failed' OR status = 'succeeded' AND step = ANY ($4))
         ORDER BY scope, step",
        run.0,
        &from.0,
        &to.0,
        steps
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|r| ItemResult {
            scope: ScopePath(r.scope),
            step: r.step,
            failed: r.failed,
            output: r.output.map(Payload::from_json_text),
            blob: r.output_blob,
        })
        .collect())
}

/// The keys of the items that enclose a scope, from the outermost inwards; none where a map declares no key.
pub(crate) async fn item_keys(conn: &mut PgConnection, run: RunId, scope: &ScopePath) -> Result<Vec<Option<String>>, sqlx::Error> {
    let (mut keys, mut at) = (vec![], scope.clone());
    while let Some((parent, map, item)) = at.parent() {
        let key = sqlx::query_scalar!(
            "SELECT keys ->> $5 FROM krowoc.map_chunk WHERE run_id = $1 AND scope = $2 AND step = $3 AND chunk = $4",
            run.0,
            &parent.0,
            map.0 as i16,
            (item as usize / CHUNK) as i32,
            (item as usize % CHUNK) as i32
        )
        .fetch_optional(&mut *conn)
        .await?;
        keys.push(key.flatten());
        at = parent;
    }
    keys.reverse();
    Ok(keys)
}
