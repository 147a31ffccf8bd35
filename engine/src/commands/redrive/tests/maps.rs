//! Items, and the maps around them.

use super::*;

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
