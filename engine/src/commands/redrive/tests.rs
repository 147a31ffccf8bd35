//! A redriven step runs again, nothing that succeeded does, and events stay gap-free. The invariants are checked after every attempt.

use super::{Redrive, redrive};
use crate::{
    drain::{Act, Drain},
    error::{Error, ErrorClass},
    id::RunId,
    queries::{
        dead_letters::{self, LetterFilter, LetterState},
        events::{self, EventView},
        runs::{self, RunState},
        steps::{self, StepStatus},
    },
    version::Version,
};
use sqlx::Connection;
use uuid::Uuid;

const FAIL: Act = Act::Fail(ErrorClass::Refused);

async fn letters(d: &mut Drain) -> Vec<(Uuid, String, LetterState)> {
    let list = dead_letters::list(&mut d.conn, &d.scope, &LetterFilter::default(), None, 100).await.expect("letters");
    list.into_iter().rev().map(|l| (l.id, l.path, l.state)).collect()
}

async fn letter(d: &mut Drain, path: &str) -> Uuid {
    let all = letters(d).await;
    all.iter().find(|l| l.1 == path).unwrap_or_else(|| panic!("no letter of {path} in {all:?}")).0
}

async fn redrive_one(d: &mut Drain, path: &str) -> Redrive {
    let id = letter(d, path).await;
    let outcome = redrive(&mut d.conn, &d.versions, &d.scope, &[id]).await.expect("redriven").remove(0).outcome;
    assert_eq!(d.violations().await, Vec::<String>::new(), "after the redrive of {path}");
    outcome
}

async fn status(d: &mut Drain, run: RunId) -> RunState {
    runs::show(&mut d.conn, &d.scope, run).await.expect("a run").run.status
}

async fn history(d: &mut Drain, run: RunId, version: &Version) -> Vec<EventView> {
    let all = events::events(&mut d.conn, &d.scope, run, &version.dag, 0, 1000).await.expect("events");
    let numbers: Vec<i32> = all.iter().map(|e| e.seq).collect();
    assert_eq!(numbers, (1..=all.len() as i32).collect::<Vec<_>>(), "{all:?}");
    all
}

fn kinds(events: &[EventView]) -> Vec<String> {
    events.iter().map(|e| e.path.as_ref().map_or(e.kind.clone(), |p| format!("{} {p}", e.kind))).collect()
}

async fn statuses(d: &mut Drain, run: RunId, version: &Version) -> Vec<(String, StepStatus)> {
    let all = steps::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    all.into_iter().map(|s| (s.path, s.status)).collect()
}

const CHAIN: &str = "  a: {t: 1}\n  b: {needs: [a], t: 1}\n  c: {needs: [b], t: 1}\n  x: {t: 1}\n";

#[tokio::test]
async fn a_failed_run_goes_on_from_the_failed_step_and_only_from_there() {
    let mut d = Drain::new().await;
    d.will("b", [FAIL]);
    let (run, version) = d.start(CHAIN).await;
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Failed);
    use StepStatus::{Failed, Pending, Ready, Succeeded, UpstreamFailed};
    let named = |states: [StepStatus; 4]| ["a", "b", "c", "x"].map(str::to_owned).into_iter().zip(states).collect::<Vec<_>>();
    assert_eq!(statuses(&mut d, run, &version).await, named([Succeeded, Failed, UpstreamFailed, Succeeded]));
    d.log.clear();

    assert!(matches!(redrive_one(&mut d, "b").await, Redrive::Redriven));
    assert_eq!(statuses(&mut d, run, &version).await, named([Succeeded, Ready, Pending, Succeeded]));
    assert!(matches!(redrive_one(&mut d, "b").await, Redrive::AlreadyRedriven), "a second redrive changes nothing");
    d.drain().await;
    assert_eq!(d.log, ["b", "c"]);
    let shown = runs::show(&mut d.conn, &d.scope, run).await.expect("a run").run;
    assert_eq!((shown.status, shown.generation), (RunState::Succeeded, 2));
    assert!(shown.error.is_none());
    assert_eq!(letters(&mut d).await[0].2, LetterState::Resolved);
    assert!(matches!(redrive_one(&mut d, "b").await, Redrive::AlreadyRedriven));

    let events = history(&mut d, run, &version).await;
    let expected = [
        "run_started",
        "step_succeeded a",
        "step_failed b",
        "step_succeeded x",
        "run_failed",
        "redriven b",
        "step_succeeded b",
        "step_succeeded c",
        "run_succeeded",
    ];
    let mut found = kinds(&events);
    // `x` is independent: when it came is up to the claims.
    let x = found.iter().position(|k| k == "step_succeeded x").expect("x");
    let moved = found.remove(x);
    found.insert(3, moved);
    assert_eq!(found, expected);
    assert_eq!(events.iter().find(|e| e.kind == "step_failed").and_then(|e| e.data["error"]["class"].as_str()), Some("refused"));
    d.done().await;
}

#[tokio::test]
async fn a_step_that_fails_again_can_be_redriven_again() {
    let mut d = Drain::new().await;
    d.will("b", [FAIL, FAIL]);
    let (run, version) = d.start(CHAIN).await;
    d.drain().await;
    for _ in 0..2 {
        assert!(matches!(redrive_one(&mut d, "b").await, Redrive::Redriven));
        d.drain().await;
    }
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    let id = letter(&mut d, "b").await;
    let shown = dead_letters::show(&mut d.conn, &d.scope, id).await.expect("a letter");
    let history_of: Vec<_> = shown.history.iter().map(|a| (a.attempt, a.status.as_str())).collect();
    assert_eq!(history_of, [(1, "failed"), (2, "failed"), (3, "succeeded")]);
    history(&mut d, run, &version).await;
    d.done().await;
}

#[tokio::test]
async fn a_step_is_redriven_while_its_run_is_still_going() {
    let mut d = Drain::new().await;
    d.will("a", [FAIL]);
    let (run, version) = d.start("  a: {t: 1}\n  b: {needs: [a], t: 1}\n  x: {t: 1}\n  y: {needs: [x], t: 1}\n").await;
    while !d.log.contains(&"a".to_owned()) {
        assert!(d.step().await);
    }
    // A step that is under way meanwhile loses its cached state, not its result.
    let held = d.claim().await.expect("a claim");
    assert!(matches!(redrive_one(&mut d, "a").await, Redrive::Redriven));
    assert_eq!(d.carry_out(held).await, 0);
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    assert_eq!(d.log.iter().filter(|p| *p == "a").count(), 2);
    assert_eq!(d.log.iter().filter(|p| *p == "x").count(), 1);
    history(&mut d, run, &version).await;
    d.done().await;
}

#[tokio::test]
async fn what_a_tolerated_failure_skipped_runs_when_it_is_mended() {
    let mut d = Drain::new().await;
    d.will("a", [FAIL]);
    let (run, version) = d.start("  a: {allow_failure: true, t: 1}\n  b: {needs: [a], t: 1}\n  w: {t: 1}\n  z: {needs: [w], t: 1}\n").await;
    while !d.log.contains(&"a".to_owned()) {
        assert!(d.step().await);
    }
    let b = |all: Vec<(String, StepStatus)>| all.into_iter().find(|s| s.0 == "b").map(|s| s.1);
    assert_eq!(b(statuses(&mut d, run, &version).await), Some(StepStatus::Skipped));
    assert!(matches!(redrive_one(&mut d, "a").await, Redrive::Redriven));
    assert_eq!(b(statuses(&mut d, run, &version).await), Some(StepStatus::Pending));
    d.drain().await;
    assert_eq!(b(statuses(&mut d, run, &version).await), Some(StepStatus::Succeeded));
    d.done().await;
}

fn map(tolerate: &str, body: &str) -> String {
    format!(
        "  m:\n    map:\n      over: ${{{{ [0, 1, 2, 3, 4] }}}}\n      as: it\n{tolerate}      steps:\n{body}  z: {{needs: [m], t: 1}}\n"
    )
}

const ONE: &str = "        s: {t: 1}\n";
const TWO: &str = "        s: {t: 1}\n        u: {needs: [s], t: 1}\n";
const WIDE: &str = "        p: {t: 1}\n        q: {t: 1}\n        s: {needs: [p, q], t: 1}\n";

/// The map fails by one item; its redrive runs that item and those that were not started, and no other again.
async fn mends_a_map(body: &str, last: &str, concurrency: &str) {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(5, false)]);
    d.will("m[1].s", [FAIL]);
    let (run, version) = d.start(&map(concurrency, body)).await;
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Failed);
    let shown = steps::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    assert_eq!(shown[0].class, Some(ErrorClass::ToleranceExceeded));
    assert_eq!(shown[0].items.map(|i| (i.total, i.failed)), Some((5, 1)));
    let before = d.log.clone();
    assert!(matches!(redrive_one(&mut d, "m[1].s").await, Redrive::Redriven));
    assert!(matches!(redrive_one(&mut d, "m[1].s").await, Redrive::AlreadyRedriven));
    d.log.clear();
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded, "{:?}", d.log);
    for item in 0..5 {
        let path = format!("m[{item}].{last}");
        let times = before.iter().chain(&d.log).filter(|p| **p == path).count();
        let due = if last == "s" && item == 1 { 2 } else { 1 };
        assert_eq!(times, due, "{path} in {before:?} then {:?}", d.log);
    }
    let all = steps::items(&mut d.conn, &d.scope, run, &version.dag, &"m".parse().expect("a path"), None, 10).await.expect("items");
    assert!(all.iter().all(|i| i.status == StepStatus::Succeeded), "{all:?}");
    let kinds = kinds(&history(&mut d, run, &version).await);
    assert_eq!(
        kinds,
        ["run_started", "step_failed m", "run_failed", "redriven m[1].s", "step_succeeded m", "step_succeeded z", "run_succeeded"]
    );
    d.done().await;
}

#[tokio::test]
async fn an_item_of_one_step_is_redriven() {
    mends_a_map(ONE, "s", "").await;
}

#[tokio::test]
async fn an_item_of_two_steps_is_redriven() {
    mends_a_map(TWO, "u", "").await;
}

#[tokio::test]
async fn an_item_with_several_first_steps_is_redriven() {
    mends_a_map(WIDE, "s", "").await;
}

#[tokio::test]
async fn a_redriven_item_counts_among_those_that_may_run_at_once() {
    mends_a_map(TWO, "u", "      concurrency: 1\n").await;
}

#[tokio::test]
async fn redriven_items_run_no_more_at_once_than_the_map_allows() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(5, true)]);
    for item in ["m[k0].s", "m[k1].s"] {
        d.will(item, [FAIL]);
    }
    let (run, _) = d.start(&map("      key: ${{ it }}\n      concurrency: 1\n      tolerate: 1\n", ONE)).await;
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Failed);
    let ids = [letter(&mut d, "m[k0].s").await, letter(&mut d, "m[k1].s").await];
    let done = redrive(&mut d.conn, &d.versions, &d.scope, &ids).await.expect("redriven");
    assert!(done.iter().all(|r| matches!(r.outcome, Redrive::Redriven)), "{done:?}");
    assert_eq!(d.violations().await, Vec::<String>::new());
    d.log.clear();
    drain_at_most(&mut d, 1).await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    assert_eq!(d.log, ["m[k0].s", "m[k1].s", "m[k2].s", "m[k3].s", "m[k4].s", "m", "z"]);
    d.done().await;
}

/// Drains with as many workers as there is work, and sees that no more than `most` items of map `m` are under way at once.
async fn drain_at_most(d: &mut Drain, most: usize) {
    loop {
        let mut held = vec![];
        while let Some(claimed) = d.claim().await {
            held.push(claimed);
        }
        if held.is_empty() {
            return;
        }
        let items: std::collections::HashSet<_> = held.iter().filter_map(|c| c.lease.scope.segments().next()).collect();
        assert!(items.len() <= most, "{items:?} are under way at once");
        for claimed in held {
            assert_eq!(d.carry_out(claimed).await, 0);
            assert_eq!(d.violations().await, Vec::<String>::new());
        }
    }
}

/// All items have been claimed and have failed, so that there is no span left to count permits.
#[tokio::test]
async fn redriven_items_of_a_map_without_a_span_keep_its_limit_too() {
    for body in [ONE, TWO, WIDE, NESTED] {
        let mut d = Drain::new().await;
        d.will("m", [Act::Items(5, false)]);
        let failing = match body {
            NESTED => "inner[1].s",
            _ => "s",
        };
        for item in 0..5 {
            d.will(&format!("m[{item}].{failing}"), [FAIL]);
        }
        let (run, _) = d.start(&map("      concurrency: 2\n      tolerate: 4\n", body)).await;
        d.drain().await;
        assert_eq!(status(&mut d, run).await, RunState::Failed);
        let ids: Vec<Uuid> = letters(&mut d).await.into_iter().map(|l| l.0).collect();
        let done = redrive(&mut d.conn, &d.versions, &d.scope, &ids).await.expect("redriven");
        assert!(done.iter().all(|r| matches!(r.outcome, Redrive::Redriven)), "{done:?}");
        assert_eq!(d.violations().await, Vec::<String>::new());
        drain_at_most(&mut d, 2).await;
        assert_eq!(status(&mut d, run).await, RunState::Succeeded, "{:?}", d.log);
        d.done().await;
    }
}

#[tokio::test]
async fn an_item_is_redriven_while_its_map_is_live() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(3, false)]);
    d.will("m[0].s", [FAIL]);
    let (run, _) = d.start(&map("      tolerate: 3\n", TWO)).await;
    while !d.log.contains(&"m[0].s".to_owned()) {
        assert!(d.step().await);
    }
    assert!(matches!(redrive_one(&mut d, "m[0].s").await, Redrive::Redriven));
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    assert_eq!(d.log.iter().filter(|p| *p == "m[0].u").count(), 1);
    d.done().await;
}

#[tokio::test]
async fn a_map_about_to_be_finished_waits_for_a_redriven_item() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(1, false)]);
    d.will("m[0].s", [FAIL]);
    let (run, _) = d.start(&map("      tolerate: 1\n", ONE)).await;
    assert!(d.step().await);
    let item = d.claim().await.expect("the item");
    // The item's end hands the map over to be finished; the redrive comes before that is done.
    let filled = d.carry_out_but_not_on(item).await;
    assert!(matches!(redrive_one(&mut d, "m[0].s").await, Redrive::Redriven));
    assert_eq!(d.carry_out(filled).await, 1, "whoever was to finish the map has lost it");
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    d.done().await;
}

const NESTED: &str =
    "        inner:\n          map:\n            over: ${{ [0, 1, 2] }}\n            as: jt\n            steps:\n              s: {t: 1}\n";

#[tokio::test]
async fn maps_in_maps_are_opened_from_the_inside_outwards() {
    for body in [NESTED.to_owned(), format!("{NESTED}        v: {{needs: [inner], t: 1}}\n")] {
        let mut d = Drain::new().await;
        d.will("m", [Act::Items(5, false)]);
        d.will("m[1].inner[2].s", [FAIL]);
        let (run, version) = d.start(&map("", &body)).await;
        d.drain().await;
        assert_eq!(status(&mut d, run).await, RunState::Failed);
        assert!(matches!(redrive_one(&mut d, "m[1].inner[2].s").await, Redrive::Redriven));
        let before = d.log.clone();
        d.drain().await;
        assert_eq!(status(&mut d, run).await, RunState::Succeeded, "{:?}", d.log);
        for path in before.iter().filter(|p| p.ends_with('s') && *p != "m[1].inner[2].s") {
            assert_eq!(d.log.iter().filter(|p| *p == path).count(), 1, "{path} ran again");
        }
        history(&mut d, run, &version).await;
        d.done().await;
    }
}

#[tokio::test]
async fn a_map_that_failed_over_its_items_results_keeps_its_items() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(3, false), Act::Fail(ErrorClass::Expression)]);
    let (run, version) = d.start(&map("", TWO)).await;
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Failed);
    d.log.clear();
    assert!(matches!(redrive_one(&mut d, "m").await, Redrive::Redriven));
    d.drain().await;
    assert_eq!((status(&mut d, run).await, d.log.join(" ")), (RunState::Succeeded, "m z".into()));
    history(&mut d, run, &version).await;
    d.done().await;
}

#[tokio::test]
async fn what_may_not_be_redriven_is_refused_and_left_as_it_was() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(2, false)]);
    d.will("m[0].s", [FAIL]);
    let (_, _) = d.start(&map("      tolerate: 1\n", ONE)).await;
    d.drain().await;
    let refused = redrive_one(&mut d, "m[0].s").await;
    assert!(matches!(&refused, Redrive::Refused(Error::Conflict(why)) if why.contains("succeeded")), "{refused:?}");

    d.will("b", [FAIL]);
    let (run, _) = d.start("  b: {t: 1}\n  x: {t: 1}\n  y: {needs: [x], t: 1}\n").await;
    while !d.log.contains(&"b".to_owned()) {
        assert!(d.step().await);
    }
    let held = d.claim().await;
    crate::commands::cancel_run(&mut d.conn, &d.scope, run).await.expect("cancelled");
    let refused = redrive_one(&mut d, "b").await;
    assert!(matches!(&refused, Redrive::Refused(Error::Conflict(_))), "{refused:?}");
    if let Some(held) = held {
        d.carry_out(held).await;
    }
    assert_eq!(status(&mut d, run).await, RunState::Cancelled);
    let refused = redrive_one(&mut d, "b").await;
    assert!(matches!(&refused, Redrive::Refused(Error::Conflict(why)) if why.contains("fork")), "{refused:?}");

    let other = crate::id::Scope { workspace: crate::id::WorkspaceId(99), ..d.scope.clone() };
    let id = letter(&mut d, "b").await;
    let done = redrive(&mut d.conn, &d.versions, &other, &[id]).await.expect("answered").remove(0);
    assert!(matches!(done.outcome, Redrive::Refused(Error::NotFound { .. })));
    d.done().await;
}

#[tokio::test]
async fn a_discarded_letter_stays_with_its_reason() {
    use crate::commands::discard;
    let mut d = Drain::new().await;
    d.will("b", [FAIL]);
    d.start(CHAIN).await;
    d.drain().await;
    let id = letter(&mut d, "b").await;
    assert!(matches!(discard(&mut d.conn, &d.scope, &[id], " ").await, Err(Error::Invalid(_))));
    for reason in ["obsolete", "another"] {
        discard(&mut d.conn, &d.scope, &[id], reason).await.expect("answered").remove(0).outcome.expect("discarded");
    }
    assert_eq!(dead_letters::show(&mut d.conn, &d.scope, id).await.expect("a letter").letter.reason.as_deref(), Some("obsolete"));
    assert!(matches!(redrive_one(&mut d, "b").await, Redrive::Refused(Error::Conflict(_))));
    let done = discard(&mut d.conn, &d.scope, &[Uuid::nil()], "gone").await.expect("answered").remove(0);
    assert!(matches!(done.outcome, Err(Error::NotFound { .. })));
    d.done().await;
}

/// Guard: `unused_version`. With versions from 1 again, what a worker remembers of the item as it was passes for what it is now.
#[tokio::test]
async fn a_worker_that_remembers_an_item_from_before_does_not_bring_its_old_state_back() {
    let retry = "retry: {attempts: 2}";
    let body = format!("        p: {{t: 1, {retry}}}\n        q: {{t: 1, {retry}}}\n        r: {{needs: [p, q], t: 1}}\n");
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(1, false)]);
    for step in ["m[0].p", "m[0].q"] {
        d.will(step, [Act::Fail(ErrorClass::Network), Act::Fail(ErrorClass::Network)]);
    }
    let (run, _) = d.start(&map("", &body)).await;
    d.drain().await;
    assert_eq!(d.log, ["m", "m[0].p", "m[0].q"], "both wait for another attempt");
    let before = std::mem::take(&mut d.cache);
    d.sql("UPDATE krowoc.lane SET ready_at = ready_at - interval '1 h' WHERE state = 'backoff'").await;
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Failed);
    // Both at once, so that the item is as many transitions old, after the first has succeeded, as when it was remembered.
    let ids = [letter(&mut d, "m[0].p").await, letter(&mut d, "m[0].q").await];
    let done = redrive(&mut d.conn, &d.versions, &d.scope, &ids).await.expect("redriven");
    assert!(done.iter().all(|r| matches!(r.outcome, Redrive::Redriven)), "{done:?}");
    assert!(d.step().await);
    d.cache = before;
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    assert_eq!(d.log.iter().filter(|p| *p == "m[0].r").count(), 1);
    d.done().await;
}

#[tokio::test]
async fn a_key_may_hold_any_character() {
    let mut d = Drain::new().await;
    d.will("m", [Act::Keys(&["a\0b", "]", "c"])]);
    let path = r#"m["a\u0000b"].s"#;
    d.will(path, [FAIL]);
    let (run, _) = d.start(&map("      key: ${{ it }}\n", ONE)).await;
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Failed);
    assert!(d.log.contains(&path.to_owned()), "{:?}", d.log);
    let (id, shown, _) = letters(&mut d).await.remove(0);
    assert!(shown.contains(r"a\u0000b"), "{shown}");
    let done = redrive(&mut d.conn, &d.versions, &d.scope, &[id]).await.expect("redriven").remove(0);
    assert!(matches!(done.outcome, Redrive::Redriven), "{done:?}");
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    d.done().await;
}

#[tokio::test]
async fn a_run_that_is_opened_again_has_its_whole_time_again() {
    let mut d = Drain::new().await;
    d.will("b", [FAIL]);
    let (run, _) = d.start("  b: {t: 1}\ntimeout: 1h\n").await;
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Failed);
    assert!(matches!(redrive_one(&mut d, "b").await, Redrive::Redriven));
    let left: f64 = sqlx::query_scalar("SELECT extract(epoch FROM due_at - krowoc.now())::float8 FROM krowoc.run_timeout")
        .fetch_one(&mut d.conn)
        .await
        .expect("a timer");
    assert!((3500.0..=3600.0).contains(&left), "{left}");
    d.drain().await;
    d.done().await;
}

/// Guard: the header is locked before the letters, as retention does.
#[tokio::test]
async fn retention_and_a_redrive_of_the_same_run_do_not_wait_for_each_other() {
    let mut d = Drain::new().await;
    d.will("b", [FAIL]);
    let (run, _) = d.start(CHAIN).await;
    d.drain().await;
    let ids = [letter(&mut d, "b").await];
    let (mut pruning, mut looking) = (d.connect().await, d.connect().await);
    let mut tx = pruning.begin().await.expect("a transaction");
    let locked = crate::store::retention::lock_old(&mut tx, &d.scope, -60.0, None, 10).await.expect("locked");
    assert_eq!(locked, [run.0]);
    let prune = async {
        Drain::until_one_waits(&mut looking).await;
        crate::store::retention::delete(&mut tx, &locked, 1000).await.expect("no deadlock");
        tx.commit().await.expect("committed");
    };
    let (done, ()) = tokio::join!(redrive(&mut d.conn, &d.versions, &d.scope, &ids), prune);
    let done = done.expect("answered").remove(0);
    assert!(matches!(done.outcome, Redrive::Refused(Error::NotFound { .. })), "{done:?}");
    d.done().await;
}
