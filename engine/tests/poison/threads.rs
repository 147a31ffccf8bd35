//! **Guarantee**: a step that keeps its thread ends by its limit all the same, what it brings late is dropped, and the others go on.
//!
//! **Guards**: limits are looked after from the engine's thread (`Underway::look`), a set of threads that answers nothing is stood in for
//! (`StepRuntimes::look`), what has not begun there is called back (`Underway::call_back`), and a worker without threads takes no slot
//! (`Shared::take_slots`).

use crate::world::World;
use krowoc_engine::worker::WorkerConfig;
use serde_json::json;
use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

/// Of a look at limits every half second, two are needed; the rest is for a machine that does other things too.
const GRACE: Duration = Duration::from_millis(2500);
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_attempt_that_keeps_its_thread_ends_by_its_limit_and_is_retried() {
    for by in ["spinning", "blocking"] {
        let world = World::new().await;
        let retry = "{attempts: 2, errors: [timeout], backoff: {initial: 1ms, max: 1ms}}";
        let run = world.start(&format!("keep: {{by: {by}}}\ntimeout: {{attempt: 1s}}\nretry: {retry}")).await;
        assert_eq!(world.ended(run, SOON).await, "succeeded", "{by}");
        let attempts = world.attempts(run).await;
        let [(class, message, ms)] = attempts.as_slice() else { panic!("{attempts:?}") };
        assert_eq!(class, "timeout");
        assert!(message.contains("1s, has passed") && message.contains("does not give its thread back"), "{message}");
        assert!((1000..1000 + GRACE.as_millis() as i32).contains(ms), "it took {ms} ms");
        // The first attempt comes back, late.
        assert_eq!((world.reins.ended.load(SeqCst), world.output(run).await), (1, json!(2)));
        world.reins.let_go();
        world.until(|| world.reins.ended.load(SeqCst) == 2).await;
        world.threads(|threads| threads.sets == 1 && threads.stuck == 0).await;
        assert_eq!(world.output(run).await, json!(2));
        world.done().await;
    }
}

#[tokio::test]
async fn the_total_limit_ends_a_step_that_keeps_its_thread() {
    let world = World::new().await;
    let run = world.start("keep: {by: blocking}\ntimeout: {total: 1s}").await;
    let letter = world.letter(run).await;
    assert_eq!(letter.class, "total_timeout");
    assert!(letter.message.contains("`timeout.total`"), "{}", letter.message);
    let (_, _, ms) = &world.attempts(run).await[0];
    assert!((1000..1000 + GRACE.as_millis() as i32).contains(ms), "it took {ms} ms");
    world.done().await;
}

#[tokio::test]
async fn a_cancelled_run_ends_though_its_step_keeps_its_thread() {
    let world = World::new().await;
    let run = world.start("keep: {by: blocking}").await;
    world.until(|| world.reins.begun.load(SeqCst) == 1).await;
    world.engine.cancel(&krowoc_engine::Scope::local("test"), run).await.expect("cancelled");
    assert_eq!(world.ended(run, SOON).await, "cancelled");
    world.done().await;
}

#[tokio::test]
async fn others_go_on_while_a_step_keeps_every_thread_and_each_is_begun_once() {
    let world = World::new().await;
    let kept = world.start("keep: {by: blocking}").await;
    world.until(|| world.reins.begun.load(SeqCst) == 1).await;
    let since = Instant::now();
    let mut others = vec![];
    for _ in 0..20 {
        others.push(world.start("place: 1").await);
    }
    for other in &others {
        assert_eq!(world.ended(*other, SOON).await, "succeeded");
        assert_eq!(world.output(*other).await, json!("krowoc-spare-1"));
    }
    assert!(since.elapsed() < Duration::from_millis(2000) + GRACE, "they went on after {:?}", since.elapsed());
    assert_eq!(world.places.load(SeqCst), others.len(), "a step was begun twice, or what was called back was begun after all");
    // The usual threads are free again, and used again; the spare ones go.
    world.reins.let_go();
    assert_eq!(world.ended(kept, SOON).await, "succeeded");
    world.threads(|threads| threads.sets == 1 && threads.stuck == 0).await;
    let after = world.start("place: 1").await;
    assert_eq!(world.ended(after, SOON).await, "succeeded");
    assert_eq!(world.output(after).await, json!("krowoc-steps"));
    assert_eq!(world.places.load(SeqCst), others.len() + 1);
    world.done().await;
}

#[tokio::test]
async fn a_worker_all_of_whose_threads_are_kept_takes_nothing_more_and_gives_back_what_has_not_begun() {
    let world = World::new().await;
    for _ in 0..12 {
        world.start("keep: {by: blocking}").await;
    }
    world.threads(|threads| threads.exhausted).await;
    let threads = world.worker.step_threads();
    assert_eq!((threads.sets, threads.stuck, world.reins.begun.load(SeqCst)), (9, 9, 9));
    assert_eq!(world.engine.step_threads(), [threads], "whoever asks after the process's health hears of it");
    let more = world.start("place: 1").await;
    let until = Instant::now() + SOON;
    while (world.lanes("ready").await, world.worker.in_flight()) != (4, 9) {
        assert!(Instant::now() < until, "{} are ready, {} in flight", world.lanes("ready").await, world.worker.in_flight());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Another worker takes it; so it could be taken.
    let other = world.engine.worker(WorkerConfig { threads: Some(8), ..WorkerConfig::default() }).await.expect("a worker");
    assert_eq!(world.ended(more, SOON).await, "succeeded");
    other.stop_now().await.expect("stopped");
    world.reins.let_go();
    world.threads(|threads| !threads.exhausted).await;
    let last = world.start("place: 1").await;
    assert_eq!(world.ended(last, SOON).await, "succeeded");
    world.done().await;
}

#[tokio::test]
async fn a_worker_stops_though_a_step_keeps_its_thread_and_its_step_is_ready_again() {
    let world = World::with(WorkerConfig { drain: Duration::from_millis(100), ..WorkerConfig::default() }).await;
    world.start("keep: {by: blocking}").await;
    world.until(|| world.reins.begun.load(SeqCst) == 1).await;
    let World { worker, reins, engine, .. } = world;
    let stopped = tokio::time::timeout(Duration::from_secs(4), worker.stop()).await;
    stopped.expect("in time").expect("stopped");
    let ready: i64 =
        sqlx::query_scalar("SELECT count(*) FROM krowoc.lane WHERE state::text = 'ready'").fetch_one(engine.pool()).await.expect("counted");
    assert_eq!((ready, reins.ended.load(SeqCst)), (1, 0));
    reins.let_go();
}
