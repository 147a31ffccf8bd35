//! Items that were leased together: each ends, fails, is lost, stopped or renewed as if it had a lane of its own.

use super::{NoRoom, status};
use crate::{
    commands::{cancel_run, reap::reap},
    drain::{Act, Drain},
    error::ErrorClass,
    id::RunId,
    queries::runs::RunState,
    store::{
        lanes::{self, HeldLane, Renewal},
        rows::{Claimed, Lease},
    },
};
use sqlx::Connection;
use std::time::Duration;

const MAP: &str = "  m: {map: {over: '${{ [1] }}', as: x, tolerate: 100%, steps: {s: {t: 1}}}}\n";

/// A run whose map has so many items, all of them leased by one claim.
async fn leased(items: usize) -> (Drain, RunId, Vec<Claimed>) {
    let mut d = Drain::new().await;
    d.will("m", [Act::Items(items, false)]);
    let (run, _) = d.start(MAP).await;
    assert!(d.step().await, "the map expands");
    let claimed = d.claim_many(items).await;
    assert_eq!((claimed.len(), bundles(&mut d).await), (items, items.div_ceil(64) as i64));
    assert_eq!(d.violations().await, Vec::<String>::new());
    (d, run, claimed)
}

async fn count(d: &mut Drain, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut d.conn).await.expect("a count")
}

async fn bundles(d: &mut Drain) -> i64 {
    count(d, "SELECT count(*) FROM krowoc.bundle").await
}

/// Lanes of items.
async fn lanes_of_items(d: &mut Drain) -> i64 {
    count(d, "SELECT count(*) FROM krowoc.lane WHERE scope <> ''").await
}

/// Completes them and whatever follows; gives the number of refused completions.
async fn complete(d: &mut Drain, claimed: Vec<Claimed>) -> usize {
    let done = d.complete_together(claimed, &NoRoom).await;
    let mut refused = done.refused;
    for filled in done.leased {
        refused += d.carry_out(filled).await;
    }
    assert_eq!(d.violations().await, Vec::<String>::new());
    refused
}

/// Guard: the bits of a batch are taken from `held`, and a bundle goes with its last item.
#[tokio::test]
async fn items_of_a_bundle_end_in_any_order_and_need_no_lanes() {
    let (mut d, run, mut claimed) = leased(150).await;
    // The first and the last of a bundle, some in between, some of the next.
    for at in [149, 127, 100, 64, 63, 62, 1, 0] {
        let item = claimed.remove(at);
        assert_eq!(complete(&mut d, vec![item]).await, 0);
    }
    assert_eq!((bundles(&mut d).await, lanes_of_items(&mut d).await), (3, 0));
    let rest = claimed.split_off(40);
    assert_eq!(complete(&mut d, rest).await, 0);
    assert_eq!(bundles(&mut d).await, 1);
    assert_eq!(complete(&mut d, claimed).await, 0);
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    assert_eq!(bundles(&mut d).await, 0);
    d.done().await;
}

#[tokio::test]
async fn a_bundle_may_be_full_or_lack_one() {
    for items in [1, 63, 64, 65] {
        let (mut d, run, claimed) = leased(items).await;
        assert_eq!(complete(&mut d, claimed).await, 0);
        assert_eq!(status(&mut d, run).await, RunState::Succeeded);
        d.done().await;
    }
}

/// Guards: `held & bits = bits` where `complete_v1` ends items; for items with a result its key, too.
#[tokio::test]
async fn an_item_of_a_bundle_ends_once() {
    let (mut d, run, claimed) = leased(3).await;
    assert_eq!(complete(&mut d, vec![claimed[0].clone()]).await, 0);
    // Again, beside one that is still held.
    assert_eq!(complete(&mut d, vec![claimed[0].clone(), claimed[1].clone()]).await, 1);
    assert_eq!(complete(&mut d, vec![claimed[2].clone()]).await, 0);
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    d.done().await;
}

/// Guards: `reschedule_v1` and the locked path take items out first; `held & bits = bits`.
#[tokio::test]
async fn an_item_that_fails_leaves_its_bundle() {
    let (mut d, run, claimed) = leased(4).await;
    d.will("m[1].s", [Act::Fail(ErrorClass::Overloaded)]);
    d.will("m[2].s", [Act::Fail(ErrorClass::Refused)]);
    let all = claimed.clone();
    assert_eq!(complete(&mut d, claimed[1..3].to_vec()).await, 0, "one is tried again, one has failed");
    assert_eq!((bundles(&mut d).await, lanes_of_items(&mut d).await), (1, 1));
    assert_eq!(count(&mut d, "SELECT held FROM krowoc.bundle").await, 0b1001);
    assert_eq!(complete(&mut d, vec![all[1].clone()]).await, 1, "it has been dealt with, and has no result that would say so");
    assert_eq!(complete(&mut d, all).await, 2, "two have been dealt with");
    assert_eq!((bundles(&mut d).await, lanes_of_items(&mut d).await), (0, 1));
    d.sql("UPDATE krowoc.lane SET ready_at = krowoc.now() WHERE state = 'backoff'").await;
    let again = d.claim().await.expect("the second attempt");
    assert_eq!((again.lease.attempt, again.lease.counters.failures), (2, 1));
    assert_eq!(complete(&mut d, vec![again]).await, 0);
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    assert_eq!(count(&mut d, "SELECT count(*) FROM krowoc.dead_letter").await, 1);
    d.done().await;
}

/// Guards: `token` where items end; the reaper takes expired bundles apart.
#[tokio::test]
async fn items_of_a_bundle_that_nobody_renews_are_lost_one_by_one() {
    let (mut d, run, claimed) = leased(70).await;
    assert_eq!(complete(&mut d, claimed[..10].to_vec()).await, 0);
    d.sql("UPDATE krowoc.bundle SET lease_until = krowoc.now() - interval '1 s'").await;
    assert_eq!(reap(&mut d.conn, &d.versions, 0, Duration::from_secs(30)).await.expect("reaped"), 60);
    assert_eq!((bundles(&mut d).await, lanes_of_items(&mut d).await), (0, 60));
    assert_eq!(complete(&mut d, claimed[10..].to_vec()).await, 60, "whoever had them has lost them");
    assert_eq!(count(&mut d, "SELECT count(*) FROM krowoc.attempt WHERE status = 'lost' AND attempt = 1").await, 60);
    d.sql("UPDATE krowoc.lane SET ready_at = krowoc.now() WHERE state = 'backoff'").await;
    d.drain().await;
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    assert_eq!(count(&mut d, "SELECT count(*) FROM krowoc.step_result WHERE scope <> '' AND attempt = 2").await, 60);
    d.done().await;
}

/// Guard: a cancel takes a run's bundles apart before it stops its lanes.
#[tokio::test]
async fn a_stopped_run_refuses_what_its_bundles_hold() {
    let (mut d, run, claimed) = leased(70).await;
    let stopped = cancel_run(&mut d.conn, &d.scope, run).await.expect("stopped");
    assert_eq!(stopped.in_flight, 70);
    assert_eq!(bundles(&mut d).await, 0);
    let (held, lease_s) = (held(&claimed), 30.0);
    assert!(
        lanes::renew(&mut d.conn, &held, lease_s).await.expect("renewed").iter().all(|found| *found == Renewal::Lost),
        "their attempts are told to stop"
    );
    d.complete_together(claimed, &NoRoom).await;
    assert_eq!(status(&mut d, run).await, RunState::Cancelled);
    assert_eq!(count(&mut d, "SELECT count(*) FROM krowoc.step_result WHERE scope <> ''").await, 0);
    d.done().await;
}

fn held(claimed: &[Claimed]) -> Vec<HeldLane> {
    let held = |Lease { run, scope, lane, token, bundle, .. }: &Lease| HeldLane {
        run: *run,
        scope: scope.clone(),
        lane: *lane,
        token: *token,
        bundle: *bundle,
    };
    claimed.iter().map(|c| held(&c.lease)).collect()
}

/// Guards: a renewal asks for the item's bit, and for the lanes of what is in no bundle any more.
#[tokio::test]
async fn a_renewal_keeps_a_bundle_and_says_which_items_are_held() {
    let (mut d, run, claimed) = leased(5).await;
    d.sql("UPDATE krowoc.bundle SET lease_until = krowoc.now() + interval '1 s'").await;
    let ended = claimed[4].clone();
    assert_eq!(complete(&mut d, vec![ended]).await, 0);
    // One has been taken out, as for a completion that the locked path would refuse.
    let mut other = d.connect().await;
    crate::store::bundles::take_out(&mut other, &[&claimed[1].lease]).await.expect("taken out");
    let lost = Lease { token: claimed[2].lease.token + 1, ..claimed[2].lease.clone() };
    let mut asked = held(&claimed);
    asked.push(held(&[Claimed { lease: lost, state: None }]).remove(0));
    let kept = lanes::renew(&mut d.conn, &asked, 60.0).await.expect("renewed");
    let (kept, lost) = kept.split_at(4);
    assert_eq!(
        (kept, lost),
        ([Renewal::Renewed; 4].as_slice(), [Renewal::Lost; 2].as_slice()),
        "the fifth has ended, the last has another token"
    );
    assert_eq!(count(&mut d, "SELECT count(*) FROM krowoc.live_lane WHERE lease_until > krowoc.now() + interval '30 s'").await, 4);
    assert_eq!(complete(&mut d, claimed[..4].to_vec()).await, 0);
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    d.done().await;
}

/// Guard: whoever puts back what a commit leased that nobody heard of takes it out of its bundles.
#[tokio::test]
async fn what_was_leased_unheard_is_ready_again_as_if_it_had_not_been() {
    let (mut d, run, claimed) = leased(3).await;
    let worker = count(&mut d, "SELECT max(worker)::bigint FROM krowoc.bundle").await as i32;
    assert_eq!(lanes::put_back_unheard(&mut d.conn, worker, claimed[0].lease.token + 1).await.expect("nothing to put back"), 0);
    assert_eq!(lanes::put_back_unheard(&mut d.conn, worker, claimed[0].lease.token).await.expect("put back"), 3);
    assert_eq!(d.violations().await, Vec::<String>::new());
    let again = d.claim_many(9).await;
    assert!(again.iter().all(|c| c.lease.attempt == 1 && c.lease.counters.losses == 0) && again.len() == 3);
    assert_eq!(complete(&mut d, again).await, 0);
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    d.done().await;
}

/// Guard: a renewal tells what it has renewed from what somebody else is writing, and the end of an item renews its bundle.
#[tokio::test]
async fn a_bundle_that_is_being_written_is_held_and_not_taken_for_renewed() {
    let (mut d, run, claimed) = leased(70).await;
    d.sql("UPDATE krowoc.bundle SET lease_until = krowoc.now() + interval '1 s'").await;
    let mut other = d.connect().await;
    let mut tx = other.begin().await.expect("a transaction");
    sqlx::query("SELECT FROM krowoc.bundle WHERE lo = 0 FOR UPDATE").execute(&mut *tx).await.expect("locked");
    let found = lanes::renew(&mut d.conn, &held(&claimed), 60.0).await.expect("renewed");
    assert!(found[..64].iter().all(|found| *found == Renewal::Held) && found[64..].iter().all(|found| *found == Renewal::Renewed));
    tx.rollback().await.expect("rolled back");
    let ended = claimed[0].clone();
    assert_eq!(complete(&mut d, vec![ended]).await, 0);
    assert_eq!(count(&mut d, "SELECT count(*) FROM krowoc.bundle WHERE lease_until > krowoc.now() + interval '30 s'").await, 2);
    assert_eq!(complete(&mut d, claimed[1..].to_vec()).await, 0);
    assert_eq!(status(&mut d, run).await, RunState::Succeeded);
    d.done().await;
}
