//! Guarantee: under `krowoc dev` what is registered follows the files, a broken file takes nothing away, and every queue is served.

use crate::{place::Place, process::answers};
use rustix::process::Signal;
use std::fs;

const VERSIONS: &str = "SELECT count(*) FROM krowoc.workflow_version";

fn workflow(text: &str) -> String {
    format!("krowoc: v1\nname: greet\nsteps:\n  say: {{transform: {{text: '{text}'}}}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_follows_the_files() {
    let place = Place::new().await;
    let workflows = place.folder.path().join("workflows");
    fs::create_dir(&workflows).expect("made");
    let file = workflows.join("greet.yaml");
    fs::write(&file, workflow("one")).expect("written");
    let mut dev = place.krowoc(&["dev", "--port", "0"]);
    let said = dev.says("Ready.");
    assert!(said.contains("Registered  greet version 1"), "{said}");
    answers(&dev.address(), "/health/ready", 200);

    fs::write(&file, workflow("two")).expect("written");
    dev.says("Registered  greet version 2");
    assert_eq!(place.count(VERSIONS).await, 2);

    fs::write(&file, workflow("three").replace("transform", "transfrom")).expect("written");
    let said = dev.says("last good versions stay registered");
    assert!(said.contains("greet.yaml:4:") && said.contains("did you mean `transform`?"), "{said}");
    assert_eq!(place.count(VERSIONS).await, 2);

    fs::write(&file, workflow("four")).expect("written");
    dev.says("Valid again");
    assert_eq!(place.count(VERSIONS).await, 3);

    // A queue that no worker served so far.
    let far = "krowoc: v1\nname: far\nsteps:\n  a: {queue: gpu, transform: {x: 1}}\n";
    fs::write(workflows.join("far.yaml"), far).expect("written");
    dev.says("queues=\"gpu\"");
    let run = place.start(far).await;
    assert_eq!(place.ended(run).await, "succeeded");

    fs::remove_file(workflows.join("far.yaml")).expect("removed");
    dev.says("Gone        far");
    dev.signal(Signal::INT);
    let (status, said) = dev.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(place.count("SELECT count(*) FROM krowoc.worker").await, 0, "a worker did not sign off: {said}");
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_project_it_says_how_to_make_one() {
    let place = Place::new().await;
    let (status, said) = place.krowoc(&["dev"]).ends();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("krowoc init"), "{said}");
    place.done().await;
}
