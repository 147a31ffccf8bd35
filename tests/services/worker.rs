//! Guarantee: a worker that is told to stop lets running steps end and starts no more; told twice, it gives them back at once. Either way
//! another worker goes on where it was.

use crate::{
    place::{Place, slow},
    process::{Process, get, measures},
};
use krowoc_postgres::{DATABASE, Durability, Left, Local, LocalConfig};
use rustix::process::Signal;
use std::{
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

const LEASED: &str = "SELECT count(*) FROM krowoc.lane WHERE state = 'leased'";
const READY: &str = "SELECT count(*) FROM krowoc.lane WHERE state = 'ready'";

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_lets_the_running_step_end_and_the_run_goes_on_elsewhere() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new().await;
        let mut first = place.krowoc(&["worker", "--name", "first"]);
        first.says("worker ready");
        let run = place.start(&slow("2s")).await;
        place.until(LEASED, 1).await;
        first.signal(signal);
        let (status, said) = first.ends();
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(said.contains("draining") && said.contains("within=30s"), "{said}");
        assert_eq!(
            place.count("SELECT count(*) FROM krowoc.step_result WHERE attempt = 1").await,
            1,
            "the running step did not end: {said}"
        );
        assert_eq!(place.count(READY).await, 1, "the next step waits for another worker: {said}");
        assert_eq!(place.count("SELECT count(*) FROM krowoc.worker").await, 0, "it signed off");

        let mut second = place.krowoc(&["worker", "--name", "second"]);
        assert_eq!(place.ended(run).await, "succeeded");
        assert_eq!(place.count("SELECT count(*) FROM krowoc.step_result WHERE attempt > 1").await, 0, "a step ran twice");
        second.says("worker ready");
        second.signal(signal);
        assert_eq!(second.ends().0.code(), Some(0));
        place.done().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_gives_the_step_back_at_once_and_another_worker_runs_it_again() {
    let place = Place::new().await;
    let mut first = place.krowoc(&["worker", "--name", "first", "--drain", "10m"]);
    first.says("worker ready");
    let run = place.start(&slow("10m")).await;
    place.until(LEASED, 1).await;
    first.signal(Signal::TERM);
    first.says("draining");
    assert_eq!(place.count(LEASED).await, 1, "the first signal gives nothing back");
    let insisted = Instant::now();
    first.signal(Signal::TERM);
    let (status, said) = first.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(insisted.elapsed() < Duration::from_secs(20), "it took {:?}: {said}", insisted.elapsed());
    assert_eq!(place.count(READY).await, 1, "{said}");
    assert_eq!(place.count("SELECT count(*) FROM krowoc.attempt WHERE status = 'released' AND attempt = 1").await, 1, "{said}");

    let mut second = place.krowoc(&["worker", "--name", "second", "--drain", "0s"]);
    second.says("worker ready");
    place
        .until("SELECT count(*) FROM krowoc.lane l JOIN krowoc.worker w ON w.id = l.worker WHERE l.attempt = 2 AND w.name = 'second'", 1)
        .await;
    place.engine.cancel(&place.scope, run).await.expect("cancelled");
    assert_eq!(place.ended(run).await, "cancelled");
    second.signal(Signal::TERM);
    assert_eq!(second.ends().0.code(), Some(0));
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_outlasts_the_drain_is_given_back() {
    let place = Place::new().await;
    let mut worker = place.krowoc(&["worker", "--drain", "100ms"]);
    worker.says("worker ready");
    let run = place.start(&slow("10m")).await;
    place.until(LEASED, 1).await;
    worker.signal(Signal::TERM);
    let (status, said) = worker.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(place.count(READY).await, 1, "{said}");
    place.engine.cancel(&place.scope, run).await.expect("cancelled");
    place.done().await;
}

#[test]
fn a_worker_says_where_it_works_and_when_its_database_goes_and_comes_back() {
    let home = tempfile::tempdir().expect("a folder");
    // The server's account, where the test runs as root, must reach its data.
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    let config = LocalConfig { durability: Durability::Fast, ..LocalConfig::new(home.path()) };
    let database = Local::join_blocking(&config).expect("a server");
    let url = format!("{}&password=sesame", database.url(DATABASE));
    let environment = [("DATABASE_URL", url.as_str())];
    let (migrated, said) = Process::start(home.path(), &environment, &["migrate"]).ends();
    assert!(migrated.success(), "{said}");
    let mut worker = Process::start(home.path(), &environment, &["worker", "--concurrency", "7", "--lease", "9s", "--drain", "1m"]);
    let said = worker.says("worker ready");
    for part in ["queues=\"default\" concurrency=7 lease=9s host=", "database=\"krowoc\""] {
        assert!(said.contains(part), "`{part}` is missing in {said}");
    }
    assert_eq!(database.leave_blocking().expect("left"), Left::Stopped);
    worker.says("database work failed; trying again");
    let database = Local::join_blocking(&config).expect("a server");
    worker.says("the database answers again");
    worker.signal(Signal::TERM);
    let (status, said) = worker.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("within=60s") && said.contains("worker stopped"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
    database.leave_blocking().expect("left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_shows_what_it_has_done() {
    let place = Place::new().await;
    let mut worker = place.krowoc(&["worker", "--bind", "127.0.0.1:0"]);
    let address = worker.address();
    assert_eq!(get(&address, "/health/ready").0, 200);
    let fails = "krowoc: v1\nname: fails\nsteps:\n  call: {llm: {model: 'sim/instant?fail_first=9&error=auth', messages: [{role: user, content: x}]}}\n";
    let runs = [place.start(&slow("0s")).await, place.start(fails).await];
    assert_eq!(place.ended(runs[0]).await, "succeeded");
    assert_eq!(place.ended(runs[1]).await, "failed");
    let metrics = measures(&address, "krowoc_runs_ended_total 2");
    for line in [
        "krowoc_attempts_total{status=\"succeeded\",class=\"\"} 2",
        "krowoc_attempts_total{status=\"failed\",class=\"auth\"} 1",
        "krowoc_completions_refused_total 0",
        "krowoc_leases_lost_total 0",
        "krowoc_slots 1024",
        "krowoc_slots_in_use ",
        "krowoc_claim_seconds_bucket",
        "krowoc_claim_batch_steps_bucket{le=\"1024\"}",
        "krowoc_commit_seconds_bucket",
        "krowoc_commit_batch_steps_bucket",
        "# HELP krowoc_steps_completed_total Steps brought to an end",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    worker.signal(Signal::TERM);
    assert_eq!(worker.ends().0.code(), Some(0));
    place.done().await;
}
