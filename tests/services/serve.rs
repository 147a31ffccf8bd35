//! Guarantee: `serve` says whether it may be sent work, comes back by itself when the database does, measures the queues, and keeps the
//! installation in order where no worker is left.

use crate::{
    place::{Place, slow},
    process::{Process, answers, get, measures},
};
use krowoc_postgres::{DATABASE, Durability, Left, Local, LocalConfig};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt;

#[test]
fn readiness_follows_the_database_and_recovers_with_it() {
    let home = tempfile::tempdir().expect("a folder");
    // The server's account, where the test runs as root, must reach its data.
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    let config = LocalConfig { durability: Durability::Fast, ..LocalConfig::new(home.path()) };
    let database = Local::join_blocking(&config).expect("a server");
    let url = database.url(DATABASE);
    let environment = [("DATABASE_URL", url.as_str())];
    let (migrated, said) = Process::start(home.path(), &environment, &["migrate"]).ends();
    assert!(migrated.success(), "{said}");
    let mut serve = Process::start(home.path(), &environment, &["serve", "--bind", "127.0.0.1:0"]);
    let address = serve.address();
    let ready = answers(&address, "/health/ready", 200);
    assert!(ready.contains(r#"{"name":"schema","ok":true}"#) && ready.contains("no worker is alive"), "{ready}");

    assert_eq!(database.leave_blocking().expect("left"), Left::Stopped);
    let down = answers(&address, "/health/ready", 503);
    assert!(down.contains(r#""name":"database","ok":false"#) && !down.contains(&*home.path().to_string_lossy()), "{down}");
    assert_eq!(get(&address, "/health/live").0, 200, "alive all the same");

    let database = Local::join_blocking(&config).expect("a server");
    assert_eq!(database.url(DATABASE), url);
    answers(&address, "/health/ready", 200);
    serve.signal(Signal::TERM);
    let (status, said) = serve.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    database.leave_blocking().expect("left");
}

#[test]
fn a_taken_address_is_said_with_the_option_that_chooses_another() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("workflows")).expect("made");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, port) = (taken.local_addr().expect("an address").to_string(), taken.local_addr().expect("an address").port().to_string());
    for (arguments, settings) in [
        (["serve", "--bind", &address], "--bind or KROWOC_BIND"),
        (["worker", "--bind", &address], "--bind"),
        (["dev", "--port", &port], "--port"),
    ] {
        let (status, said) = Process::start(folder.path(), &[], &arguments).ends();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.starts_with(&format!("error: {address} can't be served: ")), "{said}");
        assert!(said.ends_with(&format!("\nChoose another with {settings}; port 0 takes any that is free\n")), "{said}");
        assert_eq!(said.matches("hoose another").count(), 1, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_schema_is_not_ready() {
    let place = Place::new().await;
    let mut serve = place.krowoc(&["serve", "--bind", "127.0.0.1:0"]);
    let address = serve.address();
    answers(&address, "/health/ready", 200);
    let version =
        "UPDATE krowoc.schema_migration SET version = version + 1000 WHERE version = (SELECT max(version) FROM krowoc.schema_migration)";
    sqlx::query(version).execute(place.engine.pool()).await.expect("a newer schema");
    let body = answers(&address, "/health/ready", 503);
    assert!(body.contains(r#"{"name":"database","ok":true}"#) && body.contains("upgrade krowoc"), "{body}");
    serve.signal(Signal::TERM);
    assert_eq!(serve.ends().0.code(), Some(0));
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_measured_and_unserved_ones_named() {
    let place = Place::new().await;
    let run = place.start("krowoc: v1\nname: far\nsteps:\n  a: {queue: gpu, transform: {x: 1}}\n").await;
    let mut serve = place.krowoc(&["serve", "--bind", "127.0.0.1:0"]);
    let address = serve.address();
    let ready = answers(&address, "/health/ready", 200);
    assert!(ready.contains("no worker serves: gpu"), "{ready}");
    // Set after all others.
    let metrics = measures(&address, "krowoc_queue_workers{queue=\"gpu\"} 0");
    assert!(metrics.contains("krowoc_queue_ready_steps{queue=\"gpu\"} 1"), "{metrics}");
    for name in ["ready_items", "leased_steps", "timed_steps", "oldest_ready_seconds"] {
        assert!(metrics.contains(&format!("krowoc_queue_{name}{{queue=\"gpu\"}}")), "{name} is missing in\n{metrics}");
    }
    place.engine.cancel(&place.scope, run).await.expect("cancelled");
    serve.signal(Signal::TERM);
    assert_eq!(serve.ends().0.code(), Some(0));
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_step_is_taken_over_without_any_worker() {
    let place = Place::new().await;
    let mut worker = place.krowoc(&["worker", "--lease", "500ms"]);
    worker.says("worker ready");
    let run = place.start(&slow("10m")).await;
    place.until("SELECT count(*) FROM krowoc.lane WHERE state = 'leased'", 1).await;
    worker.signal(Signal::KILL);
    assert_eq!(worker.ends().0.code(), None, "killed");
    place.until("SELECT count(*) FROM krowoc.lane WHERE lease_until < now()", 1).await;
    let mut serve = place.krowoc(&["serve", "--bind", "127.0.0.1:0"]);
    place.until("SELECT count(*) FROM krowoc.attempt WHERE status = 'lost'", 1).await;
    place.until("SELECT count(*) FROM krowoc.lane WHERE state = 'leased'", 0).await;
    let address = serve.address();
    measures(&address, "krowoc_leases_reaped_total 1");
    place.engine.cancel(&place.scope, run).await.expect("cancelled");
    serve.signal(Signal::TERM);
    assert_eq!(serve.ends().0.code(), Some(0));
    place.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_kept_unless_the_policy_says_otherwise() {
    let place = Place::new().await;
    let mut worker = place.krowoc(&["worker"]);
    let old = place.start("krowoc: v1\nname: quick\nsteps:\n  a: {transform: {x: 1}}\n").await;
    assert_eq!(place.ended(old).await, "succeeded");
    worker.says("worker ready");
    worker.signal(Signal::TERM);
    assert_eq!(worker.ends().0.code(), Some(0));
    let live = place.start(&slow("10m")).await;
    let runs = "SELECT count(*) FROM krowoc.run";
    let environment = [("DATABASE_URL", place.url.as_str()), ("KROWOC_KEEP_RUNS", "1h")];
    let mut keeps = Process::start(place.folder.path(), &environment, &["serve", "--bind", "127.0.0.1:0"]);
    let address = keeps.address();
    // There from the end of the first round.
    measures(&address, "krowoc_runs_pruned_total 0");
    assert_eq!(place.count(runs).await, 2);
    keeps.signal(Signal::TERM);
    assert_eq!(keeps.ends().0.code(), Some(0));

    let environment = [("DATABASE_URL", place.url.as_str()), ("KROWOC_KEEP_RUNS", "1ms")];
    let mut prunes = Process::start(place.folder.path(), &environment, &["serve", "--bind", "127.0.0.1:0"]);
    prunes.says("old runs were removed");
    assert_eq!(place.count(runs).await, 1, "the live one stays");
    place.engine.cancel(&place.scope, live).await.expect("cancelled");
    prunes.signal(Signal::TERM);
    assert_eq!(prunes.ends().0.code(), Some(0));
    place.done().await;
}
