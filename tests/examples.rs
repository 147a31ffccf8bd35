//! Guarantee: the programs in `examples/` do what they say.

#[allow(dead_code, reason = "its `main` is for `cargo run`")]
#[path = "../examples/custom_step.rs"]
mod custom_step;
#[allow(dead_code, reason = "its `main` is for `cargo run`")]
#[path = "../examples/embed.rs"]
mod embed;

use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt};

/// A home that the account of root's server can reach; to a closed one it would go elsewhere, and stay there.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a folder");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_kind_of_ones_own_runs_in_a_workflow() {
    let home = home();
    let counted = custom_step::count(home.path(), "two lengthy words").await.expect("counted");
    assert_eq!(counted, json!({"words": 3, "longest": "lengthy"}));
    let refused = custom_step::count(home.path(), " ").await.expect_err("no words").to_string();
    assert!(refused.contains("failed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_embeds_the_engine_and_an_order_that_comes_twice_is_one_run() {
    let home = home();
    let letters = embed::orders(home.path()).await.expect("letters");
    assert_eq!(letters, [json!("Order A-1 comes to 25."), json!("Order A-2 comes to 35.")]);
}
