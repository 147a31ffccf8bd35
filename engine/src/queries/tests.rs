//! What people see of runs in every state of theirs.

mod ended;
mod why;

use super::{
    attempts::{attempts, without_result},
    dead_letters, events, inside, queues,
    runs::{self, RunFilter, RunState},
    steps::{self, StepStatus, WaitReason},
    usage,
    why::{Reason, why as why_of},
    workflows,
};
use crate::{
    commands::{StartRun, cancel_run, prune, start_runs},
    drain::{Act, Drain},
    error::{Error, ErrorClass},
    id::{RunId, Scope, WorkspaceId},
    path::StepPath,
    payload::Payload,
};
use std::time::Duration;

fn path(text: &str) -> StepPath {
    text.parse().expect("a path")
}

const KEYED: &str = "  m:
    map:
      over: ${{ [0, 1, 2] }}
      as: i
      key: ${{ i }}
      tolerate: 1
      steps:
        s: {t: 1}
        u: {needs: [s], t: 1}
  z: {needs: [m], t: 1}
";

#[tokio::test]
async fn a_run_is_queued_until_something_of_it_is_claimed() {
    let mut d = Drain::new().await;
    let (run, version) = d.start("  a: {t: 1}\n").await;
    let shown = runs::show(&mut d.conn, &d.scope, run).await.expect("a run");
    assert_eq!((shown.run.status, shown.input.as_str(), shown.run.generation), (RunState::Queued, "{}", 1));
    let sentence = why_of(&mut d.conn, &d.scope, run, &version.dag).await.expect("why").sentence;
    assert!(sentence.contains("`a` has been waiting") && sentence.contains("a free slot"), "{sentence}");
    sqlx::query("UPDATE krowoc.worker SET seen_at = now() - interval '2 min'").execute(&mut d.conn).await.expect("silenced");
    let view = why_of(&mut d.conn, &d.scope, run, &version.dag).await.expect("why");
    assert_eq!(view.waits[0].reason, Reason::NoWorker, "{}", view.sentence);
    d.sql("UPDATE krowoc.worker SET seen_at = now()").await;
    let held = d.claim().await.expect("a claim");
    assert_eq!(runs::show(&mut d.conn, &d.scope, run).await.expect("a run").run.status, RunState::Running);
    let view = why_of(&mut d.conn, &d.scope, run, &version.dag).await.expect("why");
    assert_eq!(view.waits[0].reason, Reason::Leased);
    assert!(view.sentence.contains("worker `drain`"), "{}", view.sentence);
    let queue = queues::queues(&mut d.conn).await.expect("queues").remove(0);
    assert_eq!((queue.name.as_str(), queue.ready_steps, queue.leased), ("default", 0, 1));
    d.carry_out(held).await;
    let shown = runs::show(&mut d.conn, &d.scope, run).await.expect("a run");
    assert_eq!(shown.run.status, RunState::Succeeded);
    let sentence = why_of(&mut d.conn, &d.scope, run, &version.dag).await.expect("why").sentence;
    assert!(sentence.starts_with("The run succeeded"), "{sentence}");
    d.done().await;
}

#[tokio::test]
async fn another_workspace_sees_nothing() {
    let mut d = Drain::new().await;
    d.will("a", [Act::Fail(ErrorClass::Refused)]);
    let (run, version) = d.start("  a: {t: 1}\n").await;
    d.drain().await;
    let other = Scope { workspace: WorkspaceId(2), actor: "x".into() };
    let (conn, dag) = (&mut d.conn, &version.dag);
    assert!(matches!(runs::show(conn, &other, run).await, Err(Error::NotFound { .. })));
    assert!(matches!(steps::steps(conn, &other, run, dag).await, Err(Error::NotFound { .. })));
    assert!(matches!(steps::output(conn, &other, run, dag, &path("a")).await, Err(Error::NotFound { .. })));
    assert!(matches!(events::events(conn, &other, run, dag, 0, 9).await, Err(Error::NotFound { .. })));
    assert!(matches!(attempts(conn, &other, run, dag, None, 9).await, Err(Error::NotFound { .. })));
    assert!(matches!(why_of(conn, &other, run, dag).await, Err(Error::NotFound { .. })));
    assert!(matches!(without_result(conn, &other, run, dag, 9).await, Err(Error::NotFound { .. })));
    assert!(matches!(usage::by_step(conn, &other, run, dag).await, Err(Error::NotFound { .. })));
    assert!(matches!(inside::steps(conn, &other, run, dag).await, Err(Error::NotFound { .. })));
    assert!(matches!(workflows::latest_version(conn, &other, "test").await, Err(Error::NotFound { .. })));
    assert!(runs::list(conn, &other, &RunFilter::default(), None, 9).await.expect("runs").is_empty());
    assert!(workflows::list(conn, &other, None, 9).await.expect("workflows").is_empty());
    assert!(dead_letters::list(conn, &other, &Default::default(), None, 9).await.expect("letters").is_empty());
    assert_eq!(prune(conn, &other, Duration::ZERO, 100).await.expect("pruned").runs, 0);
    let start = StartRun { version: version.id, input: Payload::null(), idempotency_key: None, priority: 0, trigger: "test".into() };
    assert!(matches!(start_runs(conn, &other, &d.versions, &[start], None).await, Err(Error::NotFound { .. })));
    d.done().await;
}

#[tokio::test]
async fn a_map_shows_its_items_by_key_and_page() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(3, true)]);
    d.will("m[k1].s", [Act::Fail(ErrorClass::Refused)]);
    d.will("m[k0].s", [Act::Used(10, 4)]);
    d.will("m[k2].s", [Act::Used(1, 1)]);
    let (run, version) = d.start(KEYED).await;
    assert!(d.step().await);
    let held = d.claim().await.expect("the first item");
    let shown = steps::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    assert_eq!((shown[0].status, shown[0].waiting.map(|w| w.reason)), (StepStatus::Waiting, Some(WaitReason::Items)));
    assert_eq!(shown[0].items.map(|i| (i.total, i.done, i.failed, i.running)), Some((3, 0, 0, 1)));
    let all = steps::items(&mut d.conn, &d.scope, run, &version.dag, &path("m"), None, 10).await.expect("items");
    assert_eq!(all.iter().map(|i| i.status).collect::<Vec<_>>(), [StepStatus::Running, StepStatus::Pending, StepStatus::Pending]);
    d.carry_out(held).await;
    d.drain().await;

    let shown = steps::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    assert_eq!(shown[0].items.map(|i| (i.total, i.done, i.failed, i.running)), Some((3, 3, 1, 0)));
    let page = steps::items(&mut d.conn, &d.scope, run, &version.dag, &path("m"), Some(0), 1).await.expect("items");
    assert_eq!(page.len(), 1);
    assert_eq!((page[0].path.as_str(), page[0].key.as_deref(), page[0].status), ("m[k1]", Some("k1"), StepStatus::Failed));
    assert_eq!(
        page[0].steps.iter().map(|s| (s.path.as_str(), s.status, s.class)).collect::<Vec<_>>(),
        [("m[k1].s", StepStatus::Failed, Some(ErrorClass::Refused)), ("m[k1].u", StepStatus::UpstreamFailed, None)]
    );
    let output = steps::output(&mut d.conn, &d.scope, run, &version.dag, &path("m[k2].u")).await.expect("an output");
    assert_eq!(output.expect("one").as_str(), "\"m[k2].u\"");
    for missing in ["m[9].s", "m[k9].s"] {
        let gone = steps::output(&mut d.conn, &d.scope, run, &version.dag, &path(missing)).await;
        assert!(matches!(gone, Err(Error::NotFound { .. })), "{missing}: {gone:?}");
    }
    for wrong in ["nope", "m.s", "z[1]", "m[k0].nope"] {
        let wrong_path = steps::output(&mut d.conn, &d.scope, run, &version.dag, &path(wrong)).await;
        assert!(matches!(wrong_path, Err(Error::Invalid(_))), "{wrong}: {wrong_path:?}");
    }
    let used = usage::by_step(&mut d.conn, &d.scope, run, &version.dag).await.expect("usage");
    assert_eq!(
        used.iter().map(|u| (u.step.as_str(), u.tokens.calls, u.tokens.input, u.tokens.output)).collect::<Vec<_>>(),
        [("m.s", 2, 11, 5)]
    );
    let inside = inside::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    assert_eq!(
        inside.iter().map(|s| (s.step.as_str(), s.total, s.done, s.failed, s.attempts, s.tokens.map(|t| t.input))).collect::<Vec<_>>(),
        [("m.s", 3, 3, 1, 3, Some(11)), ("m.u", 3, 2, 0, 2, None)]
    );
    let tried = attempts(&mut d.conn, &d.scope, run, &version.dag, Some(&path("m[k1].s")), 9).await.expect("attempts");
    assert_eq!(tried.iter().map(|a| (a.path.as_str(), a.attempt, a.status.name())).collect::<Vec<_>>(), [("m[k1].s", 1, "failed")]);
    d.done().await;
}

#[tokio::test]
async fn the_steps_of_maps_inside_maps_are_counted_over_all_items() {
    let mut d = Drain::new().await;
    let map = |item: &str, steps: &str| format!("{{map: {{over: '${{{{ [0] }}}}', as: {item}, steps: {steps}}}}}");
    let outer = map("i", &format!("{{a: {}, b: {{needs: [a], t: 1}}}}", map("j", "{x: {t: 1}}")));
    d.will("m", [Act::Items(2, false)]);
    d.will("m[0].a", [Act::Items(3, false)]);
    d.will("m[1].a", [Act::Items(1, false)]);
    let (run, version) = d.start(&format!("  m: {outer}\n")).await;
    assert!(d.step().await);
    let begun = inside::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    assert_eq!(
        begun.iter().map(|s| (s.step.as_str(), s.total, s.done)).collect::<Vec<_>>(),
        [("m.a", 2, 0), ("m.a.x", 0, 0), ("m.b", 2, 0)]
    );
    d.drain().await;
    let ended = inside::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    assert_eq!(
        ended.iter().map(|s| (s.step.as_str(), s.total, s.done)).collect::<Vec<_>>(),
        [("m.a", 2, 2), ("m.a.x", 4, 4), ("m.b", 2, 2)]
    );
    d.done().await;
}

#[tokio::test]
async fn failed_attempts_are_found_behind_any_number_of_others() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(3, true)]);
    d.will("m[k0].s", [Act::Fail(ErrorClass::Refused)]);
    let (run, version) = d.start(KEYED).await;
    d.drain().await;
    let latest = attempts(&mut d.conn, &d.scope, run, &version.dag, None, 2).await.expect("attempts");
    assert!(latest.iter().all(|a| a.status.name() == "succeeded"), "{latest:?}");
    let failed = without_result(&mut d.conn, &d.scope, run, &version.dag, 2).await.expect("attempts");
    assert_eq!(failed.iter().map(|a| (a.path.as_str(), a.status.name())).collect::<Vec<_>>(), [("m[k0].s", "failed")]);
    d.done().await;
}

#[tokio::test]
async fn waiting_steps_say_for_what_and_until_when() {
    let mut d = Drain::new().await;
    d.will("a", [Act::Fail(ErrorClass::Network)]);
    d.will("w", [Act::Later(Duration::from_secs(7200))]);
    let (run, version) = d.start("  a: {t: 1, retry: {attempts: 3, backoff: {initial: 1h, max: 2h}}}\n  w: {wait: {for: 2h}}\n").await;
    d.drain().await;
    let shown = steps::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    let reasons: Vec<_> = shown.iter().map(|s| (s.status, s.waiting.map(|w| w.reason), s.attempts)).collect();
    assert_eq!(reasons, [(StepStatus::Waiting, Some(WaitReason::Backoff), 1), (StepStatus::Waiting, Some(WaitReason::Timer), 1)]);
    assert!(shown.iter().all(|s| s.waiting.is_some_and(|w| w.until.is_some())));
    let view = why_of(&mut d.conn, &d.scope, run, &version.dag).await.expect("why");
    assert_eq!(view.live, 2);
    assert!(view.sentence.starts_with("`a` waits another "), "{}", view.sentence);
    cancel_run(&mut d.conn, &d.scope, run).await.expect("cancelled");
    let shown = steps::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    assert!(shown.iter().all(|s| s.status == StepStatus::Cancelled), "{shown:?}");
    let kinds: Vec<_> = events::events(&mut d.conn, &d.scope, run, &version.dag, 1, 9)
        .await
        .expect("events")
        .into_iter()
        .map(|e| (e.seq, e.kind))
        .collect();
    assert_eq!(kinds, [(2, "cancel_requested".into()), (3, "run_cancelled".into())]);
    d.done().await;
}

async fn page(d: &mut Drain, filter: RunFilter, after: Option<RunId>, limit: i64) -> Vec<RunId> {
    let list = runs::list(&mut d.conn, &d.scope, &filter, after, limit).await.expect("runs");
    list.into_iter().map(|r| r.id).collect()
}

#[tokio::test]
async fn lists_are_paged_newest_first_and_filtered() {
    let mut d = Drain::new().await;
    let mut ids = vec![];
    for _ in 0..3 {
        d.will("a", [Act::Ok(serde_json::json!(1))]);
        ids.push(d.start("  a: {t: 1}\n").await.0);
        d.drain().await;
    }
    d.will("a", [Act::Fail(ErrorClass::Refused)]);
    ids.push(d.start("  a: {t: 1}\n").await.0);
    d.drain().await;
    ids.push(d.start("  a: {t: 1}\n").await.0);
    ids.reverse();
    assert_eq!(page(&mut d, RunFilter::default(), None, 2).await, ids[..2]);
    assert_eq!(page(&mut d, RunFilter::default(), Some(ids[1]), 9).await, ids[2..]);
    for (status, due) in [
        (RunState::Queued, &ids[..1]),
        (RunState::Running, &[][..]),
        (RunState::Cancelling, &[]),
        (RunState::Failed, &ids[1..2]),
        (RunState::Succeeded, &ids[2..]),
        (RunState::Cancelled, &[]),
    ] {
        assert_eq!(page(&mut d, RunFilter { status: Some(status), ..Default::default() }, None, 9).await, due, "{status:?}");
    }
    let of = |name: &str| RunFilter { workflow: Some(name.into()), ..Default::default() };
    assert_eq!(page(&mut d, of("test"), None, 9).await.len(), 5);
    assert!(page(&mut d, of("other"), None, 9).await.is_empty());
    let listed = workflows::list(&mut d.conn, &d.scope, None, 9).await.expect("workflows");
    assert_eq!(listed.iter().map(|w| (w.name.as_str(), w.version, w.versions)).collect::<Vec<_>>(), [("test", 1, 1)]);
    d.done().await;
}

#[tokio::test]
async fn retention_takes_what_has_ended_and_is_old_and_nothing_else() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(3, true)]);
    d.will("m[k1].s", [Act::Fail(ErrorClass::Refused)]);
    let (old, _) = d.start(KEYED).await;
    d.will("b", [Act::Fail(ErrorClass::Refused)]);
    let (failed, _) = d.start("  b: {t: 1}\n").await;
    d.drain().await;
    let (live, _) = d.start("  b: {t: 1}\n  c: {needs: [b], t: 1}\n").await;
    assert!(d.step().await);
    assert_eq!(prune(&mut d.conn, &d.scope, Duration::from_secs(3600), 2).await.expect("pruned").runs, 0, "nothing is old yet");
    let age = "UPDATE krowoc.run SET created_at = created_at - interval '2 h', finished_at = finished_at - interval '2 h'";
    sqlx::raw_sql(age).execute(&mut d.conn).await.expect("aged");
    assert_eq!(prune(&mut d.conn, &d.scope, Duration::from_secs(3600), 2).await.expect("pruned").runs, 0, "their letters are open");
    d.sql("UPDATE krowoc.dead_letter SET state = 'discarded', reason = 'no more'").await;
    let pruned = prune(&mut d.conn, &d.scope, Duration::from_secs(3600), 2).await.expect("pruned");
    assert_eq!(pruned.runs, 2);
    assert!(pruned.rows >= 8, "{pruned:?}");
    for (run, there) in [(old, false), (failed, false), (live, true)] {
        assert_eq!(runs::show(&mut d.conn, &d.scope, run).await.is_ok(), there);
    }
    d.drain().await;
    d.done().await;
}

#[tokio::test]
async fn a_large_output_is_shown_as_if_it_stood_in_its_row() {
    let mut d = Drain::new().await;
    let large = serde_json::json!("x".repeat(300_000));
    d.will("a", [Act::Ok(large.clone())]);
    let (run, version) = d.start("  a: {t: 1}\n").await;
    d.drain().await;
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM krowoc.blob").fetch_one(&mut d.conn).await.expect("counted");
    assert_eq!(stored, 1);
    let output = steps::output(&mut d.conn, &d.scope, run, &version.dag, &path("a")).await.expect("an output");
    assert_eq!(output.expect("one").as_str(), large.to_string());
    d.done().await;
}
