//! Items that were opened again count among those that may run at once.

use super::*;

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
