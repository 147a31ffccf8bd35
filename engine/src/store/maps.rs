//! Live maps: expansion, and what finishing one needs.

use crate::{
    id::{RunId, ScopePath, StepIx},
    payload::Payload,
    store::holder::Holder,
};
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap};

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
    /// Its items are leased in bundles.
    pub bundled: bool,
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
    sqlx::query_scalar(
        "SELECT krowoc.expand_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)",
    )
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
    .bind(m.bundled)
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
         JOIN krowoc.map_state m ON m.run_id = ANY (ARRAY[k.run]) AND m.scope = k.scp AND m.step = k.stp ORDER BY m.run_id, m.scope, m.step FOR UPDATE OF m",
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
    /// The outputs before it have used up the room; its own is left out.
    pub beyond: bool,
}

/// Results of a map's items from one scope to another: successes of the named steps, failures of all, in the order of the items. Outputs
/// come until those before have reached so many bytes.
pub(crate) async fn item_results(
    conn: &mut PgConnection,
    run: RunId,
    from: &ScopePath,
    to: &ScopePath,
    steps: &[i16],
    bytes: usize,
) -> Result<Vec<ItemResult>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT scope, step, failed AS "failed!", CASE WHEN before < $5 THEN output END AS output, output_blob, before >= $5 AS "beyond!"
         FROM (SELECT scope, step, status = 'failed' AS failed, output::text AS output, output_blob,
                 coalesce(sum(octet_length(output::text)) OVER (ORDER BY scope, step ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
               FROM krowoc.step_result
               WHERE run_id = $1 AND scope >= $2 AND scope <= $3 AND octet_length(scope) = octet_length($3)
                 AND (status = 'failed' OR status = 'succeeded' AND step = ANY ($4))) r
         ORDER BY scope, step"#,
        run.0,
        &from.0,
        &to.0,
        steps,
        bytes as i64
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
            beyond: r.beyond,
        })
        .collect())
}

/// The keys of the items that enclose each of the scopes, in the scopes' order, from the outermost inwards; none where a map declares no key.
pub(crate) async fn item_keys(conn: &mut PgConnection, scopes: &[(RunId, &ScopePath)]) -> Result<Vec<Vec<Option<String>>>, sqlx::Error> {
    let chunks = load_keys(conn, scopes).await?;
    let key = |(at, item): (ChunkKey, u32)| chunks.get(&at).and_then(|keys| keys.get(item as usize % CHUNK)).cloned();
    Ok(scopes.iter().map(|(run, scope)| around(*run, scope).map(key).collect()).collect())
}

/// A row of `map_chunk`: the run, the scope that the map stands in, the map, the number of the row.
pub(crate) type ChunkKey = (RunId, ScopePath, StepIx, usize);

/// The chunks that the items around a scope lie in, with the items' numbers, from the outermost inwards.
fn around(run: RunId, scope: &ScopePath) -> impl Iterator<Item = (ChunkKey, u32)> {
    scope.items().map(move |(at, map, item)| ((run, at, map, item as usize / CHUNK), item))
}

/// The chunks of keys that the items around the scopes lie in. They are taken apart here: `->>` refuses a key that holds U+0000.
pub(crate) async fn load_keys(
    conn: &mut PgConnection,
    scopes: &[(RunId, &ScopePath)],
) -> Result<HashMap<ChunkKey, Vec<String>>, sqlx::Error> {
    let wanted: BTreeSet<_> = scopes.iter().flat_map(|(run, scope)| around(*run, scope)).map(|(chunk, _)| chunk).collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query!(
        r#"SELECT c.run_id, c.scope, c.step, c.chunk, c.keys::text AS "keys!" FROM unnest($1::uuid[], $2::bytea[], $3::smallint[], $4::int[]) AS k(run, scp, stp, chunk)
           JOIN krowoc.map_chunk c ON c.run_id = ANY (ARRAY[k.run]) AND c.scope = k.scp AND c.step = k.stp AND c.chunk = k.chunk
           WHERE c.keys IS NOT NULL"#,
        &wanted.iter().map(|w| w.0.0).collect::<Vec<_>>(),
        &wanted.iter().map(|w| w.1.0.clone()).collect::<Vec<_>>(),
        &wanted.iter().map(|w| w.2.0 as i16).collect::<Vec<_>>(),
        &wanted.iter().map(|w| w.3 as i32).collect::<Vec<_>>()
    )
    .fetch_all(conn)
    .await?;
    let read = |text: &str| serde_json::from_str(text).map_err(|e| sqlx::Error::Decode(Box::new(e)));
    rows.into_iter()
        .map(|r| Ok(((RunId(r.run_id), ScopePath(r.scope), StepIx(r.step.unsigned_abs()), r.chunk as usize), read(&r.keys)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::{Act, Drain};
    use serde_json::json;

    /// Guard: the running sum in `item_results`. Without it a page of results is as large as they are.
    #[tokio::test]
    async fn results_come_until_those_before_have_filled_the_room() {
        let mut drain = Drain::new().await;
        let (run, _) = drain.start("  m:\n    map: {over: [1, 2, 3], steps: {c: {t: 1}}}\n").await;
        for item in 0..3 {
            drain.will(&format!("m[{item}].c"), [Act::Ok(json!("x".repeat(998)))]);
        }
        drain.drain().await;
        let (first, last) = (ScopePath::root().item(StepIx(0), 0), ScopePath::root().item(StepIx(0), 2));
        for (room, beyond) in [(0, [true, true, true]), (1, [false, true, true]), (1001, [false, false, true]), (2001, [false; 3])] {
            let results = item_results(&mut drain.conn, run, &first, &last, &[1], room).await.expect("results");
            assert_eq!(results.iter().map(|result| result.beyond).collect::<Vec<_>>(), beyond, "{room}");
            assert!(results.iter().all(|result| result.beyond == result.output.is_none()), "{room}");
        }
        drain.done().await;
    }
}
