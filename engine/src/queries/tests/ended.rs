//! Nothing of a run that has ended is shown as if it lived.

use super::*;
use crate::version::Version;

async fn nothing_lives(d: &mut Drain, run: RunId, version: &Version) {
    use StepStatus::{Pending, Ready, Running, Waiting};
    let shown = runs::show(&mut d.conn, &d.scope, run).await.expect("a run").run;
    assert!(shown.status.is_terminal(), "{:?} after {:?}", shown.status, d.log);
    let lives = |status: StepStatus| matches!(status, Pending | Ready | Running | Waiting);
    let own = steps::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    assert!(own.iter().all(|s| !lives(s.status) && s.items.is_none_or(|i| i.running == 0)), "{own:#?}");
    let inside = inside::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    assert!(inside.iter().all(|s| s.running == 0), "{inside:#?}");
    let mut maps: Vec<String> = own.iter().filter(|s| s.kind == "map").map(|s| s.path.clone()).collect();
    while let Some(map) = maps.pop() {
        let items = steps::items(&mut d.conn, &d.scope, run, &version.dag, &path(&map), None, 99).await.expect("items");
        for step in items.iter().flat_map(|item| &item.steps) {
            assert!(!lives(step.status), "{step:#?}");
            maps.extend((step.kind == "map").then(|| step.path.clone()));
        }
        assert!(items.iter().all(|item| !lives(item.status)), "{items:#?}");
    }
}

const NESTED: &str = "  m:
    map:
      over: ${{ [0, 1, 2] }}
      as: i
      steps:
        a: {t: 1}
        n: {needs: [a], map: {over: '${{ [0] }}', as: j, steps: {x: {t: 1}, y: {needs: [x], t: 1}}}}
        b: {needs: [n], t: 1}
  z: {needs: [m], t: 1}
";

#[tokio::test]
async fn wherever_a_run_in_nested_maps_fails_or_is_cancelled() {
    for failing in ["m[0].a", "m[1].n[1].x", "m[1].n[2].y", "m[2].b"] {
        let mut d = Drain::new().await;
        d.will(failing, [Act::Fail(ErrorClass::Refused)]);
        let (run, version) = d.start(NESTED).await;
        d.drain().await;
        nothing_lives(&mut d, run, &version).await;
        d.done().await;
    }
    for before in [1, 2, 4, 7, 11, 16] {
        let mut d = Drain::new().await;
        let (run, version) = d.start(NESTED).await;
        for _ in 0..before {
            assert!(d.step().await);
        }
        let held = d.claim().await.expect("a claim");
        cancel_run(&mut d.conn, &d.scope, run).await.expect("stopping");
        d.carry_out(held).await;
        nothing_lives(&mut d, run, &version).await;
        d.done().await;
    }
}

#[tokio::test]
async fn when_its_time_is_up() {
    let mut d = Drain::new().await;
    let (run, version) = d.start(&format!("{NESTED}timeout: 1h\n")).await;
    for _ in 0..5 {
        assert!(d.step().await);
    }
    d.sql("UPDATE krowoc.run_timeout SET due_at = krowoc.now() - interval '1 s'").await;
    crate::commands::reap(&mut d.conn, &d.versions, 0, Duration::from_secs(30)).await.expect("reaped");
    nothing_lives(&mut d, run, &version).await;
    d.done().await;
}

/// Whoever prints a map when it is over prints what is inside it for the last time.
#[tokio::test]
async fn a_map_is_not_over_while_an_attempt_inside_it_is_in_flight() {
    let mut d = Drain::new().await;
    let (run, version) = d.start(NESTED).await;
    let held = loop {
        let claimed = d.claim().await.expect("a claim");
        match claimed.lease.scope.segments().count() {
            2 => break claimed,
            _ => assert_eq!(d.carry_out(claimed).await, 0),
        }
    };
    let (_, item) = held.lease.scope.segments().next().expect("an item of `m`");
    cancel_run(&mut d.conn, &d.scope, run).await.expect("stopping");
    let own = steps::steps(&mut d.conn, &d.scope, run, &version.dag).await.expect("steps");
    let shown: Vec<_> = own.iter().map(|s| (s.path.as_str(), s.status, s.items.map(|i| i.running))).collect();
    assert_eq!(shown, [("m", StepStatus::Waiting, Some(1)), ("z", StepStatus::Cancelled, None)]);
    let items = steps::items(&mut d.conn, &d.scope, run, &version.dag, &path("m"), None, 9).await.expect("items");
    for shown in items {
        let due = if shown.number == item { StepStatus::Waiting } else { StepStatus::Cancelled };
        assert_eq!((shown.steps[1].id.as_str(), shown.steps[1].status, shown.status), ("n", due, due), "{shown:#?}");
    }
    d.carry_out(held).await;
    nothing_lives(&mut d, run, &version).await;
    d.done().await;
}
