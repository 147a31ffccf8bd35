//! Tests of `krowoc.check_invariants()`: a healthy database in the middle of its work breaks no rule, and every rule finds what it is for.

use crate::{
    commands::cancel_run,
    drain::{Act, Drain},
    error::ErrorClass,
};
use sqlx::Connection;
use std::collections::BTreeSet;

const CHAIN: &str = "  a: {t: 1}\n  b: {needs: [a], t: 1}\n  x: {t: 1}\n";
const MAPS: &str = "  m:
    map:
      over: ${{ [0, 1, 2] }}
      as: i
      concurrency: 2
      steps:
        s: {t: 1}
        u: {needs: [s], t: 1}
  n:
    map:
      over: ${{ [0, 1, 2] }}
      as: i
      steps:
        s: {t: 1}
";

/// A failed run with a letter, one that has succeeded with a large output, one that is being stopped, one on its way, one in its maps.
async fn busy() -> Drain {
    let mut d = Drain::new().await;
    d.will("b", [Act::Fail(ErrorClass::Refused)]);
    d.will("big", [Act::Ok(serde_json::json!("x".repeat(300_000)))]);
    d.start(CHAIN).await;
    d.start("  big: {t: 1}\n").await;
    d.drain().await;
    let (stopping, _) = d.start("  only: {t: 1}\n  wide: {t: 1}\n").await;
    d.claim().await.expect("a claim");
    cancel_run(&mut d.conn, &d.scope, stopping).await.expect("cancelled");
    d.start("  a: {t: 1}\n  b: {needs: [a], t: 1}\n").await;
    d.claim().await.expect("a claim");
    d.start(MAPS).await;
    d.log.clear();
    // Both maps have begun, and an item of the longer one is halfway.
    let ran = |d: &Drain, path: &str| d.log.iter().any(|p| p == path);
    let halfway = |d: &Drain| (0..3).any(|i| ran(d, &format!("m[{i}].s")) && !ran(d, &format!("m[{i}].u")));
    while !ran(&d, "n[0].s") || !halfway(&d) {
        assert!(d.step().await, "{:?}", d.log);
    }
    while d.claim().await.expect("an item of the other").lease.bundle.is_none() {}
    d
}

/// The run that is in its maps, in a subquery's place.
const MAPPING: &str = "(SELECT run_id FROM krowoc.map_state LIMIT 1)";

/// A rule and a way to break it; `$m` is the run in its maps.
const BREAKS: &[(&str, &str)] = &[
    ("ended_run_is_live", "UPDATE krowoc.run SET finished_at = now(), status = 'succeeded' WHERE id = $m"),
    ("ended_run_is_live", "INSERT INTO krowoc.run_timeout SELECT id, now() FROM krowoc.run WHERE status = 'failed'"),
    ("unknown_run", "DELETE FROM krowoc.run WHERE status = 'failed'"),
    ("unknown_run", "INSERT INTO krowoc.blob VALUES (gen_random_uuid(), sha256('x'), 1, 'x')"),
    ("live_run_without_state", "DELETE FROM krowoc.scope_state WHERE run_id = $m AND scope = ''"),
    ("live_run_without_lane", "DELETE FROM krowoc.lane WHERE run_id = $m; DELETE FROM krowoc.bundle WHERE run_id = $m"),
    ("lane_without_scope", "DELETE FROM krowoc.scope_state WHERE run_id = $m AND scope <> ''"),
    ("lease_without_holder", "UPDATE krowoc.lane SET worker = NULL WHERE state = 'leased'"),
    ("lease_without_holder", "UPDATE krowoc.lane SET token = NULL WHERE state = 'leased'"),
    (
        "lane_of_ended_step",
        "UPDATE krowoc.lane l SET step = r.step FROM krowoc.step_result r WHERE l.run_id = $m AND r.run_id = $m AND l.scope = r.scope",
    ),
    (
        "lane_of_ended_step",
        "INSERT INTO krowoc.step_result (run_id, finished_at, seq, duration_ms, step, attempt, status, scope) \
       SELECT run_id, now(), 2, 1, step, 1, 'skipped', scope FROM krowoc.lane WHERE state = 'leased'",
    ),
    ("aborting_lane", "UPDATE krowoc.lane SET state = 'leased' WHERE state = 'aborting'"),
    ("aborting_lane", "UPDATE krowoc.lane SET state = 'aborting' WHERE state = 'leased'"),
    ("span_of_stopped_run", "UPDATE krowoc.run SET status = 'cancelling' WHERE id IN (SELECT run_id FROM krowoc.span)"),
    ("engine_lane", "UPDATE krowoc.lane SET step = -2 WHERE state = 'leased'"),
    ("engine_lane", "UPDATE krowoc.lane SET step = -1 WHERE state = 'leased'"),
    ("scope_bytes", "UPDATE krowoc.scope_state SET steps = '\\x0000'"),
    ("scope_bytes", "UPDATE krowoc.scope_state SET steps = set_byte(steps, 6, 9)"),
    ("open_count", "UPDATE krowoc.scope_state SET steps = set_byte(steps, 4, 9)"),
    (
        "ended_scope",
        "UPDATE krowoc.scope_state SET steps = set_byte(set_byte(set_byte(steps, 4, 0), 6, 2), 7, 2) WHERE run_id = $m AND scope <> ''",
    ),
    ("lane_number", "UPDATE krowoc.scope_state SET steps = set_byte(steps, 0, 0)"),
    ("live_steps", "DELETE FROM krowoc.lane WHERE state = 'leased'"),
    ("live_steps", "UPDATE krowoc.scope_state SET steps = set_byte(steps, 7, 1) WHERE octet_length(steps) = 8 AND scope = ''"),
    ("map_without_lane", "DELETE FROM krowoc.lane WHERE state = 'items'"),
    ("map_lane", "UPDATE krowoc.lane SET state = 'ready' WHERE state = 'items'"),
    ("map_lane", "UPDATE krowoc.map_state SET goal = done"),
    ("map_done", "UPDATE krowoc.map_state SET done = done + 1 WHERE done < goal"),
    ("map_items", "DELETE FROM krowoc.span"),
    ("map_items", "DELETE FROM krowoc.lane WHERE run_id = $m AND scope <> ''"),
    ("map_items", "DELETE FROM krowoc.bundle"),
    ("map_items", "UPDATE krowoc.bundle SET held = 15"),
    ("empty_bundle", "UPDATE krowoc.bundle SET held = 0"),
    ("lane_of_ended_step", "UPDATE krowoc.bundle SET lo = 0"),
    ("items_without_map", "UPDATE krowoc.bundle SET step = step + 1"),
    ("ended_run_is_live", "UPDATE krowoc.bundle SET run_id = (SELECT id FROM krowoc.run WHERE status = 'failed')"),
    ("map_span", "UPDATE krowoc.span SET hi = hi + 1"),
    ("map_span", "UPDATE krowoc.span SET permits = CASE WHEN permits IS NULL THEN 1 END"),
    ("map_held", "UPDATE krowoc.map_state SET held = '{7}'"),
    ("map_held_up", "UPDATE krowoc.map_state SET held = array_fill(0, ARRAY[9])"),
    ("held_by_nobody", "UPDATE krowoc.span SET held = true"),
    ("map_chunks", "DELETE FROM krowoc.map_chunk"),
    ("items_without_map", "DELETE FROM krowoc.map_state"),
    ("failure_without_letter", "DELETE FROM krowoc.dead_letter"),
    ("letter_state", "DELETE FROM krowoc.step_result WHERE status = 'failed'"),
    ("letter_state", "UPDATE krowoc.dead_letter SET state = 'redriven'"),
    ("event_numbers", "UPDATE krowoc.run SET last_seq = last_seq + 1 WHERE status = 'failed'"),
    ("event_numbers", "UPDATE krowoc.step_result SET seq = seq + 1 WHERE seq > 0"),
    ("event_numbers", "INSERT INTO krowoc.run_event SELECT run_id, seq, now(), 'twice', '{}' FROM krowoc.step_result WHERE seq > 0"),
    ("event_numbers", "DELETE FROM krowoc.run_event"),
    ("event_numbers", "UPDATE krowoc.scope_state SET version = version + 1 WHERE scope = ''"),
    ("item_event", "UPDATE krowoc.step_result SET seq = 1 WHERE scope <> ''"),
    ("missing_payload", "DELETE FROM krowoc.blob"),
    ("missing_payload", "UPDATE krowoc.run SET input = NULL, input_blob = sha256('x') WHERE status = 'failed'"),
];

#[tokio::test]
async fn every_rule_finds_what_breaks_it() {
    let mut d = busy().await;
    assert_eq!(d.violations().await, Vec::<String>::new());
    let mut missed = vec![];
    for (rule, sql) in BREAKS {
        let mut tx = d.conn.begin().await.expect("a transaction");
        let mapping: uuid::Uuid =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT {MAPPING}"))).fetch_one(&mut *tx).await.expect("a run in its maps");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.replace("$m", &format!("'{mapping}'"))))
            .execute(&mut *tx)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
        let found: Vec<String> =
            sqlx::query_scalar("SELECT rule FROM krowoc.check_invariants()").fetch_all(&mut *tx).await.expect("checked");
        if !found.iter().any(|f| f == rule) {
            missed.push(format!("{rule} misses: {sql}; found {found:?}"));
        }
        tx.rollback().await.expect("rolled back");
    }
    assert!(missed.is_empty(), "{missed:#?}");
    d.done().await;
}

/// A rule that no break covers is one whose test is missing.
#[tokio::test]
async fn every_rule_has_a_break() {
    let text = include_str!("../../../migrations/0008_invariants.sql");
    let in_quotes = |line: &str, lead: &str| line.split_once(lead).and_then(|(_, rest)| rest.split('\'').next().map(str::to_owned));
    let rules: BTreeSet<String> = text
        .lines()
        .filter_map(|l| {
            in_quotes(l, "RETURN QUERY SELECT '").or_else(|| {
                in_quotes(l, "SELECT '").filter(|_| l.contains("detail") || l.contains("format(")).or_else(|| in_quotes(l, "      ('"))
            })
        })
        .collect();
    let broken: BTreeSet<String> = BREAKS.iter().map(|b| b.0.to_owned()).collect();
    let missing: Vec<_> = rules.iter().filter(|r| r.contains('_') && !broken.contains(*r)).collect();
    assert!(rules.len() >= broken.len() && missing.is_empty(), "without a break: {missing:?}");
}
