//! Steps of a run.

use super::*;

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
    let shown = run_queries::show(&mut d.conn, &d.scope, run).await.expect("a run").run;
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
    let history_of: Vec<_> = shown.history.iter().map(|a| (a.attempt, a.status.name())).collect();
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
