//! What the command line refuses, and what it says then.

use crate::place::{HELLO, Place, Said, command, flaky};
use serde_json::json;
use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread")]
async fn apply_registers_all_or_nothing_and_the_same_content_once() {
    let place = Place::new().await;
    place.file("hello.yaml", HELLO);
    place.file("broken.yaml", "krowoc: v1\nname: broken\nsteps:\n  a: {transform: {}, needs: [b]}\n");
    let refused = place.krowoc(&["apply", ".", "--json"]);
    refused.expect(1, &["broken.yaml:4:", "nothing was registered"]);
    fs::remove_file(place.folder.path().join("broken.yaml")).expect("removed");
    let first = place.krowoc(&["apply", ".", "--json"]).expect(0, &[]).json();
    assert_eq!((&first[0]["workflow"], &first[0]["number"], &first[0]["created"]), (&json!("hello"), &json!(1), &json!(true)), "{first:#}");
    place.krowoc(&["apply", "hello.yaml"]).expect(0, &["unchanged  hello (version 1)"]);
    place.file("hello.yaml", &HELLO.replace("Hello", "Good day"));
    place.krowoc(&["apply", "hello.yaml"]).expect(0, &["created    hello (version 2)"]);
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_to_do_next() {
    let place = Place::new().await;
    place.file("hello.yaml", HELLO);
    place.file("broken.yaml", "krowoc: v1\nname: broken\nsteps:\n  a: {transform: {}, needs: [b]}\n");
    place.krowoc(&["run", "gone.yaml"]).expect(1, &["gone.yaml: cannot be read"]);
    place.krowoc(&["run", "broken.yaml"]).expect(1, &["broken.yaml:4:", "needs: [b]"]);
    place.krowoc(&["run", "."]).expect(1, &["holds 2 workflows"]);
    let refused = place.krowoc(&["run", "hello.yaml"]);
    refused.expect(1, &["the run was not started", "name", "--input or --set"]);
    assert!(!refused.err.contains("WARN"), "a worker was started for nothing: {refused:#?}");
    place.krowoc(&["run", "hello.yaml", "--input", "{name: 1}"]).expect(2, &["--input", "line 1 column 2"]);
    place.krowoc(&["run", "hello.yaml", "--input", "@gone.json"]).expect(2, &["--input: gone.json can't be read"]);
    place.krowoc(&["run", "hello.yaml", "--set", "name=@gone.txt"]).expect(2, &["gone.txt can't be read", r#"--set 'name="@gone.txt"'"#]);
    place.krowoc(&["run", "hello.yaml", "--set", "name=5"]).expect(1, &["/name", r#"--set 'name="5"'"#]);
    place.krowoc(&["run", "hello.yaml", "--set", "name"]).expect(2, &["expected key=value"]);
    place.krowoc(&["run", "hello.yaml", "--detatch"]).expect(2, &["--detach"]);
    place.krowoc(&["worker", "--queue", "bad queue!"]).expect(2, &["bad queue!", "small letters"]);
    for option in ["--lease", "--drain"] {
        place.krowoc(&["worker", option, "1"]).expect(2, &["`1` has no unit", "`1s`"]);
    }
    place.krowoc(&["run", "nowhere.yaml"]).expect(1, &["nowhere.yaml: cannot be read"]);
    assert_eq!(place.krowoc(&["runs", "list", "--json"]).json(), json!([]), "something was started");

    let unknown = "0198c0de-1234-7abc-8def-0123456789ab";
    for arguments in [["runs", "show", unknown], ["runs", "watch", &unknown[..13]], ["runs", "cancel", unknown]] {
        place.krowoc(&arguments).expect(1, &["no run `0198c0de", "krowoc runs list"]);
    }
    place.krowoc(&["why", "hello"]).expect(1, &["not a run's id", "krowoc runs list"]);
    place.krowoc(&["dlq", "show", unknown]).expect(1, &["no dead letter", "krowoc dlq list"]);
    place.krowoc(&["dlq", "redrive", unknown]).expect(1, &["refused", "krowoc dlq list"]);
    place.krowoc(&["dlq", "show", &unknown[..8]]).expect(1, &["no dead letter `0198c0de`", "krowoc dlq list"]);
    place.krowoc(&["dlq", "redrive", "letter"]).expect(1, &["not a dead letter's id", "first 8 characters", "krowoc dlq list --state all"]);
    place.krowoc(&["dlq", "redrive"]).expect(2, &["--run"]);
    place.krowoc(&["runs", "list", "--status", "done"]).expect(2, &["succeeded"]);
    place.done().await;
}

#[test]
fn a_stopped_postgresql_is_named_at_once_and_without_its_password() {
    let folder = tempfile::tempdir().expect("a folder");
    // A port that was free a moment ago, and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let url = format!("postgres://ada:sesame@127.0.0.1:{port}/work");
    let started = Instant::now();
    let said = Said::of(command(folder.path(), &url, &["runs", "list"]).output().expect("krowoc runs"));
    said.expect(1, &[&format!("127.0.0.1:{port}"), "`work`", "`ada`", "DATABASE_URL"]);
    assert!(!said.err.contains("sesame"), "{said:#?}");
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_checked_and_migrated_when_told_to() {
    let place = Place::new().await;
    place.krowoc(&["migrate", "--check"]).expect(0, &["current"]);
    place.krowoc(&["migrate"]).expect(0, &["nothing to do"]);
    let engine = place.database.engine(krowoc_engine::executor::StepKinds::new()).await.expect("an engine");
    sqlx::raw_sql("DROP SCHEMA krowoc CASCADE").execute(engine.pool()).await.expect("dropped");
    place.krowoc(&["migrate", "--check"]).expect(1, &["krowoc migrate"]);
    place.krowoc(&["runs", "list"]).expect(1, &["krowoc migrate"]);
    place.krowoc(&["migrate"]).expect(0, &["current now"]);
    place.krowoc(&["runs", "list"]).expect(0, &["no runs"]);
    engine.pool().close().await;
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_is_no_failure() {
    let place = Place::new().await;
    place.file("hello.yaml", HELLO);
    let mut command = place.command(&["run", "hello.yaml", "--set", "name=Ada"]);
    // The log goes where nobody reads either.
    command.env("KROWOC_LOG", "debug").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_eq!(place.krowoc(&["runs", "list", "--json"]).json()[0]["status"], "succeeded");
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_stays_one_when_its_reader_stops_reading() {
    let place = Place::new().await;
    place.file("flaky.yaml", &flaky(9));
    for arguments in [&["run", "flaky.yaml"][..], &["run", "flaky.yaml", "--json"]] {
        let mut child = place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        drop(child.stdout.take());
        drop(child.stderr.take());
        assert_eq!(child.wait().expect("it ends").code(), Some(1), "{arguments:?}");
    }
    place.done().await;
}
