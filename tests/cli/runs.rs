//! Runs from the command line: carried out, watched, interrupted, mended.

use crate::place::{HELLO, Place, Said, WAITING, flaky};
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_succeeds_prints_its_output_and_ends_with_0() {
    let place = Place::new().await;
    place.file("hello.yaml", HELLO);
    place.file("name.txt", "Ada");
    let said = place.krowoc(&["run", "hello.yaml", "--set", "name=@name.txt"]);
    said.expect(0, &["✓ greet", "✓ each 3/3 items", "  ✓ double 3/3 items", "succeeded after"]);
    assert!(!said.err.contains("WARN"), "{said:#?}");
    assert_eq!(said.json(), json!({"greeting": "Hello, Ada", "numbers": [0, 2, 4]}));

    let document = place.krowoc(&["run", "hello.yaml", "--input", r#"{"name": "Eve"}"#, "--set", "more.a=1", "--json"]);
    let document = document.expect(0, &[]).json();
    assert_eq!(document["status"], "succeeded");
    assert_eq!(document["input"], json!({"name": "Eve", "more": {"a": 1}}));
    assert_eq!((&document["output"]["greeting"], &document["simulated"]), (&json!("Hello, Eve"), &json!(false)));
    let steps: Vec<_> = document["steps"].as_array().expect("steps").iter().map(|s| (s["path"].clone(), s["status"].clone())).collect();
    assert_eq!(steps, [(json!("each"), json!("succeeded")), (json!("greet"), json!("succeeded"))], "{document:#}");
    assert_eq!((&document["inside"][0]["step"], &document["inside"][0]["done"]), (&json!("each.double"), &json!(3)), "{document:#}");
    assert_eq!((&document["dead_letters"], &document["more_dead_letters"]), (&json!([]), &json!(false)));
    let run = document["id"].as_str().expect("an id");
    place.krowoc(&["runs", "show", run]).expect(0, &["✓ each 3/3 items", "  ✓ double 3/3 items"]);
    let list = ["runs", "list", "--workflow", "hello", "--status", "succeeded", "--limit", "1"];
    let next = format!("krowoc runs list --workflow hello --status succeeded --limit 1 --after {run}");
    place.krowoc(&list).expect(0, &[&next]);
    let page = place.krowoc(&[&list[..], &["--json"]].concat());
    assert_eq!(page.expect(0, &[&format!("{next} --json")]).json()[0]["id"], run);
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_ends_with_1_and_its_redrive_runs_what_had_failed() {
    let place = Place::new().await;
    // Attempts are numbered on through a redrive: 1 and 2 fail and are all that is allowed, 3 fails after the redrive, 4 succeeds.
    place.file("flaky.yaml", &flaky(3));
    let failed = place.krowoc(&["run", "flaky.yaml"]);
    failed.expect(1, &["✓ before", "✗ call failed attempt 2", "overloaded", "Once the cause is mended:  krowoc dlq redrive "]);
    let letters = place.krowoc(&["dlq", "list", "--json"]).json();
    let letter = letters[0]["id"].as_str().expect("a letter").to_owned();
    let run = letters[0]["run"].as_str().expect("a run").to_owned();
    assert_eq!((&letters[0]["path"], &letters[0]["class"], &letters[0]["attempts"]), (&json!("call"), &json!("overloaded"), &json!(2)));
    assert!(failed.err.contains(&letter), "{failed:#?}");
    place.krowoc(&["dlq", "list"]).expect(0, &[&letter, "overloaded"]);
    let next = format!("krowoc dlq list --state open --workflow flaky --run {run} --class overloaded --limit 1 --after {letter}");
    place.krowoc(&["dlq", "list", "--workflow", "flaky", "--run", &run, "--class", "overloaded", "--limit", "1"]).expect(0, &[&next]);
    place
        .krowoc(&["dlq", "show", &letter[..8]])
        .expect(0, &["step      call", "error     overloaded", "attempts  2", "krowoc dlq redrive"]);
    let detail = place.krowoc(&["dlq", "show", &letter, "--json"]).json();
    assert_eq!(detail["history"].as_array().map(Vec::len), Some(2), "{detail:#}");
    place.krowoc(&["runs", "show", &run]).expect(0, &["status    failed", "call attempt 1", "call attempt 2", &letter]);
    place.krowoc(&["runs", "list", "--status", "failed"]).expect(0, &[&run, "flaky@1"]);
    place.krowoc(&["why", &run]).expect(0, &["The run failed", "1 dead letter open"]);

    let redriven = place.krowoc(&["dlq", "redrive", &letter[..13].to_uppercase(), "--json"]).expect(0, &[]).json();
    assert_eq!(redriven, json!([{"letter": letter, "run": run, "path": "call", "outcome": "redriven"}]));
    place.krowoc(&["dlq", "redrive", &letter]).expect(0, &["already redriven"]);
    place.krowoc(&["why", &run]).expect(0, &["`call`", "none is alive"]);

    let mut worker = place.command(&["worker"]).stderr(Stdio::null()).spawn().expect("it runs");
    let watched = place.krowoc(&["runs", "watch", &run]);
    signal(&worker, "-TERM");
    assert_eq!(worker.wait().expect("it ends").code(), Some(0));
    watched.expect(0, &["✓ call attempt 4", "1 model call (simulated): ", "succeeded after"]);
    let document = place.krowoc(&["runs", "show", &run, "--json"]).json();
    assert_eq!((&document["status"], &document["generation"]), (&json!("succeeded"), &json!(2)), "{document:#}");
    assert_eq!(document["simulated"], true, "{document:#}");
    let attempts: Vec<_> =
        document["steps"].as_array().expect("steps").iter().map(|s| (s["path"].clone(), s["attempts"].clone())).collect();
    assert!(attempts.contains(&(json!("before"), json!(1))) && attempts.contains(&(json!("call"), json!(4))), "{document:#}");
    assert_eq!(document["usage"][0]["step"], "call", "{document:#}");
    let failed: Vec<_> = document["failed_attempts"].as_array().expect("attempts").iter().map(|a| a["attempt"].clone()).collect();
    assert_eq!(failed, [1, 2, 3], "{document:#}");
    assert_eq!(place.krowoc(&["dlq", "list", "--state", "resolved", "--json"]).json()[0]["id"], letter);
    place.krowoc(&["dlq", "redrive", "--run", &run]).expect(1, &["no open dead letters", "krowoc runs show"]);
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discarded_letter_keeps_its_reason_and_stays_where_it_is() {
    let place = Place::new().await;
    place.file("flaky.yaml", &flaky(9));
    place.krowoc(&["run", "flaky.yaml"]).expect(1, &[]);
    let letters = place.krowoc(&["dlq", "list", "--json"]).json();
    let letter = letters[0]["id"].as_str().expect("a letter");
    place.krowoc(&["dlq", "discard", letter]).expect(2, &["--reason"]);
    place.krowoc(&["dlq", "list", "--after", &letter[..8]]).expect(0, &["no dead letters that are open"]);
    place.krowoc(&["dlq", "discard", &letter[..8], "--reason", "the sea is calm"]).expect(0, &["discarded", letter]);
    place.krowoc(&["dlq", "list"]).expect(0, &["no dead letters that are open"]);
    place.krowoc(&["dlq", "list", "--state", "discarded"]).expect(0, &[letter]);
    place.krowoc(&["dlq", "show", letter]).expect(0, &["the sea is calm"]);
    place.krowoc(&["dlq", "redrive", letter]).expect(1, &["refused", "was discarded"]);
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_with_3_for_those_who_watch_it() {
    let place = Place::new().await;
    place.file("waiting.yaml", WAITING);
    let child = place.command(&["run", "waiting.yaml", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let runs = place.until(&["runs", "list", "--json"], |runs| runs[0]["status"] == "running");
    let run = runs[0]["id"].as_str().expect("an id");
    place.until(&["why", run, "--json"], |why| why["waits"][0]["reason"] == "timer");
    let watcher = place.command(&["runs", "watch", run]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    place.krowoc(&["runs", "cancel", run]).expect(0, &["is cancelled"]);
    let said = Said::of(child.wait_with_output().expect("it ends"));
    assert_eq!(said.expect(3, &["was cancelled"]).json()["status"], "cancelled");
    Said::of(watcher.wait_with_output().expect("it ends")).expect(3, &["was cancelled"]);
    place.krowoc(&["runs", "cancel", run]).expect(0, &["is cancelled"]);
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_a_run_that_nobody_serves_is_told_once_what_it_waits_for() {
    let place = Place::new().await;
    place.file("waiting.yaml", WAITING);
    let run = place.krowoc(&["run", "waiting.yaml", "--detach"]).expect(0, &["no worker serves queue"]).out.trim().to_owned();
    let mut watcher = place.command(&["runs", "watch", &run]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(watcher.stderr.take().expect("piped")).lines().map(|line| line.expect("read"));
    let started = Instant::now();
    let said = lines.next().expect("a line");
    assert!(
        said.contains("`pause` has been waiting")
            && said.contains("a worker for queue `default`: none is alive; `krowoc worker` starts one."),
        "{said}"
    );
    assert!(started.elapsed() < Duration::from_secs(10), "said only after {:?}", started.elapsed());

    let mut worker = place.command(&["worker"]).stderr(Stdio::null()).spawn().expect("it runs");
    let rest: Vec<String> = lines.by_ref().take_while(|line| !line.contains("`pause` waits")).collect();
    assert!(!rest.iter().any(|line| line.contains("none is alive")), "said again though nothing had changed: {rest:#?}");
    signal(&worker, "-TERM");
    assert_eq!(worker.wait().expect("it ends").code(), Some(0));
    signal(&watcher, "-INT");
    assert_eq!(watcher.wait().expect("it ends").code(), Some(130));
    place.krowoc(&["runs", "cancel", &run]).expect(0, &["is cancelled"]);
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_goes_on_where_it_was() {
    let place = Place::new().await;
    place.file("waiting.yaml", WAITING);
    let mut child = place.command(&["run", "waiting.yaml"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    let runs = place.until(&["runs", "list", "--json"], |runs| runs[0]["status"] == "running");
    let run = runs[0]["id"].as_str().expect("an id");
    place.until(&["why", run, "--json"], |why| why["waits"][0]["reason"] == "timer");
    signal(&child, "-INT");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let mut err = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("read");
    assert!(err.contains(&format!("krowoc runs watch {run}")) && err.contains("krowoc worker"), "{err}");
    assert_eq!(place.krowoc(&["runs", "show", run, "--json"]).json()["status"], "running");
    place.done().await;
}

fn signal(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_run_waits_for_a_worker_and_a_key_makes_it_one_run() {
    let place = Place::new().await;
    place.file("hello.yaml", HELLO);
    let start = ["run", "hello.yaml", "--set", "name=Ada", "--detach", "--idempotency-key", "k", "--priority", "-3"];
    let first = place.krowoc(&start);
    first.expect(0, &["no worker serves queue `default`"]);
    let run = first.out.trim();
    let second = place.krowoc(&start);
    assert_eq!(second.expect(0, &["the same run"]).out.trim(), run);
    place.krowoc(&["run", "hello.yaml", "--set", "name=Eve", "--detach", "--idempotency-key", "k"]).expect(1, &["`k`"]);
    let shown = place.krowoc(&["runs", "show", &run[..23], "--json"]).json();
    assert_eq!((&shown["id"], &shown["status"], &shown["priority"]), (&json!(run), &json!("queued"), &json!(-3)));
    place.krowoc(&["why", run]).expect(0, &["for a worker for queue `default`"]);

    // With the key and without --detach, the same run is carried out here.
    let carried_out = place.krowoc(&["run", "hello.yaml", "--set", "name=Ada", "--idempotency-key", "k"]);
    assert_eq!(carried_out.expect(0, &["the same run", run]).json()["greeting"], "Hello, Ada");
    place.krowoc(&["runs", "watch", run]).expect(0, &["succeeded after", "Hello, Ada"]);
    let page = place.krowoc(&["runs", "list", "--limit", "1", "--json"]).json();
    assert_eq!(page[0]["id"], run);
    assert_eq!(place.krowoc(&["runs", "list", "--after", run, "--json"]).json(), json!([]));
    place.done().await;
}
