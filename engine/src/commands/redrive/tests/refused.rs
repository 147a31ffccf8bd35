//! What is not redriven, and why.

use super::*;
use crate::error::Error;

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
    assert!(matches!(&refused, Redrive::Refused(Error::Conflict(why)) if why.ends_with("start a new run instead")), "{refused:?}");

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
