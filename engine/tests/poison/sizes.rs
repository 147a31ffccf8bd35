//! **Guarantee**: what is larger than anybody can keep is `too_large`, before it is copied; what a failure says is cut.
//!
//! **Guards**: `bounds`, where outputs are checked (`check_output`, `StepOutput::json`), where a map gathers (`gather::append`), and where runs
//! are started (`check_inputs`).

use crate::world::World;
use krowoc_engine::{Error, Payload};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn outputs_that_nobody_can_keep_are_too_large_however_they_are_made() {
    let world = World::new().await;
    let mut runs = vec![];
    for _ in 0..3 {
        for shape in ["value", "text"] {
            runs.push(world.start(&format!("bring: {{bytes: {}, as: {shape}}}", 64 * MIB)).await);
        }
    }
    for run in runs {
        let letter = world.letter(run).await;
        assert_eq!(letter.class, "too_large");
        assert!(letter.message.starts_with("the output has 64.0 MiB of JSON, at most 32 MiB are kept"), "{}", letter.message);
    }
    let fits = world.start(&format!("bring: {{bytes: {}}}", 31 * MIB)).await;
    assert_eq!(world.ended(fits, std::time::Duration::from_secs(60)).await, "succeeded");
    world.done().await;
}

#[tokio::test]
async fn a_map_that_gathers_more_than_anybody_can_keep_is_too_large() {
    let world = World::new().await;
    let steps = "      steps:\n        one:\n          bring: {bytes: 65536}\n      collect: ${{ steps.one.output }}";
    let run = world
        .start_file(&format!("krowoc: v1\nname: m\nsteps:\n  m:\n    map:\n      over: ${{{{ range(600) }}}}\n      as: n\n{steps}\n"))
        .await;
    let letter = world.letter(run).await;
    assert_eq!(letter.class, "too_large");
    assert!(letter.message.starts_with("up to item 511, what `collect` makes of the items has 32.0 MiB"), "{}", letter.message);
    world.done().await;
}

#[tokio::test]
async fn a_large_input_is_refused_with_its_place() {
    let world = World::new().await;
    let input = Payload::from_json_text(format!("\"{}\"", "x".repeat(33 * MIB)));
    let refused = world.start_with("krowoc: v1\nname: i\nsteps:\n  a:\n    place: 1\n", input).await;
    let Err(Error::Invalid(problems)) = refused else { panic!("{refused:?}") };
    assert_eq!((problems.len(), problems[0].code, problems[0].pointer.as_str()), (1, "too_large", ""));
    assert!(problems[0].message.starts_with("the input has 33.0 MiB of JSON"), "{}", problems[0].message);
    world.done().await;
}

#[tokio::test]
async fn an_error_is_stored_as_far_as_anybody_reads() {
    let world = World::new().await;
    let run = world.start(&format!("bring: {{bytes: {}, as: error}}", 10 * MIB)).await;
    let letter = world.letter(run).await;
    assert_eq!(letter.class, "refused");
    assert!(letter.size < 100_000, "{} bytes", letter.size);
    assert!(letter.message.starts_with("éé") && letter.message.ends_with("é… (cut; 10485760 bytes in all)"));
    assert_eq!(letter.details["bytes"], 10 * MIB + 11);
    world.done().await;
}

/// Guard: a page's room in bytes (`page::BYTES`), and what lies outside rows is read item by item. Without them all results of a map are in
/// memory at once.
#[tokio::test]
async fn a_map_that_brings_more_than_a_page_holds_gathers_every_item_once_and_in_order() {
    let world = World::new().await;
    // Eighteen pages of rows and, each fourth, what lies outside of them.
    let bytes = "bytes: '${{ 300000 if n is divisibleby 4 else 200000 }}'";
    let steps = format!(
        "      steps:\n        one:\n          bring: {{{bytes}}}\n      collect: {{n: '${{{{ n }}}}', size: '${{{{ steps.one.output | length }}}}'}}"
    );
    let run = world
        .start_file(&format!(
            "krowoc: v1\nname: m\nsteps:\n  m:\n    map:\n      over: ${{{{ range(200) }}}}\n      as: n\n{steps}\noutput: ${{{{ steps.m.output }}}}\n"
        ))
        .await;
    assert_eq!(world.ended(run, std::time::Duration::from_secs(60)).await, "succeeded");
    let output: String = sqlx::query_scalar("SELECT output::text FROM krowoc.run WHERE id = $1")
        .bind(run.0)
        .fetch_one(world.engine.pool())
        .await
        .expect("an output");
    let items: Vec<serde_json::Value> = serde_json::from_str(&output).expect("JSON");
    let due = (0..200).map(|n| serde_json::json!({ "n": n, "size": if n % 4 == 0 { 150_000 } else { 100_000 } }));
    assert!(items.iter().eq(&due.collect::<Vec<_>>()), "{output}");
    world.done().await;
}
