//! **Guarantee**: a step that panics fails with `internal` and takes nothing with it, wherever it panics and whatever with.
//!
//! **Guards**: what panics is caught where the step runs (`attempt`), what it throws is not dropped (`panics::said`), and what its task's
//! end throws is an error of the step (`broken_off`).

use crate::world::World;
use std::time::Duration;

#[tokio::test]
async fn a_panic_is_an_error_of_its_step_whatever_is_thrown() {
    let world = World::new().await;
    for (how, said) in [
        ("text", "the step panicked: as the test says"),
        ("number", "the step panicked: no message"),
        ("mine", "the step panicked: no message"),
        ("poll", "the step panicked: the fuse has burnt down"),
    ] {
        let run = world.start(&format!("explode: {how}")).await;
        let letter = world.letter(run).await;
        assert_eq!((letter.class.as_str(), letter.message.as_str()), ("internal", said), "{how}");
        assert_eq!(letter.input.as_deref(), Some(format!("\"{how}\"").as_str()));
    }
    let long = world.start("explode: long").await;
    let letter = world.letter(long).await;
    assert!(letter.size < 40_000 && letter.message.ends_with("bytes in all)"), "{} bytes", letter.size);
    goes_on(world).await;
}

#[tokio::test]
async fn a_panic_of_what_is_dropped_by_a_limit_changes_nothing_about_its_end() {
    let world = World::new().await;
    let run = world.start("explode: drop\ntimeout: {attempt: 50ms}").await;
    let letter = world.letter(run).await;
    assert_eq!(letter.class, "timeout", "{letter:?}");
    goes_on(world).await;
}

#[tokio::test]
async fn a_panic_of_what_is_dropped_by_a_cancellation_touches_nobody() {
    let world = World::new().await;
    let run = world.start("explode: drop").await;
    world.until(|| world.worker.in_flight() == 1).await;
    world.engine.cancel(&krowoc_engine::Scope::local("test"), run).await.expect("cancelled");
    assert_eq!(world.ended(run, Duration::from_secs(20)).await, "cancelled");
    goes_on(world).await;
}

async fn goes_on(world: World) {
    let run = world.start("place: 1").await;
    assert_eq!(world.ended(run, Duration::from_secs(20)).await, "succeeded");
    world.done().await;
}
