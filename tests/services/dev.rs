//! Guarantee: under `krowoc dev` what is registered follows the files, a broken file takes nothing away, and every queue is served.

use crate::{
    place::Place,
    process::{Process, answers},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{fs, os::unix::fs::PermissionsExt};

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

/// Guard: whoever stands on the private server starts it again.
#[test]
fn a_private_server_that_died_is_started_again() {
    let home = tempfile::tempdir().expect("a folder");
    // The server's account, where the test runs as root, must reach its data.
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    fs::create_dir(home.path().join("workflows")).expect("made");
    fs::write(home.path().join("workflows/greet.yaml"), workflow("one")).expect("written");
    let krowoc_home = home.path().join("data").display().to_string();
    let environment = [("KROWOC_HOME", krowoc_home.as_str()), ("PATH", "/usr/local/bin:/usr/bin:/bin")];
    let mut dev = Process::start(home.path(), &environment, &["dev", "--port", "0"]);
    dev.says("Ready.");
    let address = dev.address();
    let pid_file = home.path().join("data/postgres/data/postmaster.pid");
    let pid: i32 = fs::read_to_string(&pid_file).expect("text").lines().next().expect("a line").parse().expect("a number");
    kill_process(Pid::from_raw(pid).expect("a process"), Signal::KILL).expect("killed");
    dev.says("the private PostgreSQL runs again");
    answers(&address, "/health/ready", 200);
    dev.signal(Signal::TERM);
    let (status, said) = dev.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!pid_file.exists(), "the last one out stops the server: {said}");
}
