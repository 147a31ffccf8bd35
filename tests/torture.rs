//! Guarantee: what `krowoc torture` promises to find is looked for. Each scenario's short form is done by the real binary, and its report must
//! hold the counts that the scenario is there for: one that does less than it says fails here. And torture itself leaves nothing behind,
//! however it ends, and touches nothing that it has not made.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Which PostgreSQL.
#[derive(Clone, Copy, PartialEq)]
enum Server {
    /// One of its own.
    Own,
    /// The one that all tests of faults share, as a user's with `DATABASE_URL`.
    Shared,
}

fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a folder");
    // The server's account, where the test runs as root, must reach its data.
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    home
}

fn torture(home: &Path, server: Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_krowoc"));
    command.arg("torture");
    if let Some(pgbouncer) = pgbouncer() {
        command.arg("--pgbouncer").arg(pgbouncer);
    }
    command.args(arguments).env("KROWOC_HOME", home).env("TMPDIR", home).env_remove("DATABASE_URL").stdin(Stdio::null());
    if server == Server::Shared {
        command.env("DATABASE_URL", krowoc_postgres::testing::cluster_durable().expect("a server"));
    }
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Does a scenario's short form; counts, by their names, that must have come to so much.
fn passes(scenario: &str, server: Server, due: &[(&str, u64)]) {
    let home = home();
    let file = home.path().join("report.json");
    let mut command = torture(home.path(), server, &[scenario, "--size", "short", "--within", "4m", "--json"]);
    command.arg(&file);
    if require_all() {
        command.arg("--require-all");
    }
    let output = command.output().expect("krowoc runs");
    println!("{}", said(&output));
    let report: Value = serde_json::from_slice(&std::fs::read(&file).expect("a report")).expect("JSON");
    let outcome = &report["scenarios"][0];
    if outcome["verdict"] == "skipped" && !require_all() {
        return;
    }
    if outcome["verdict"] != "passed" {
        // The folder is all there is to look at.
        println!("kept: {}", home.keep().display());
    }
    assert_eq!((outcome["verdict"].as_str(), output.status.code()), (Some("passed"), Some(0)), "{outcome:#}");
    for (name, least) in due {
        let counts = outcome["counts"].as_array().expect("counts");
        let value = counts.iter().find(|count| count["name"] == *name).map(|count| count["value"].as_u64().expect("a number"));
        assert!(value >= Some(*least), "{name}: {value:?}, not {least}");
    }
}

/// Where everything that scenarios need has been installed, a skipped one is a failure.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration of their own")]
fn require_all() -> bool {
    std::env::var_os("KROWOC_TEST_REQUIRE_ALL").is_some_and(|value| !value.is_empty())
}

/// Where `scripts/test.sh` has found or built one that is new enough.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration of their own")]
fn pgbouncer() -> Option<std::ffi::OsString> {
    std::env::var_os("KROWOC_TEST_PGBOUNCER").filter(|path| !path.is_empty())
}

#[test]
fn kills() {
    passes("kills", Server::Shared, &[("kills", 200), ("fail points reached", 28)]);
}

#[test]
fn commits() {
    passes("commits", Server::Shared, &[("kills", 60), ("effects repeated", 5)]);
}

#[test]
fn freezes() {
    passes("freezes", Server::Shared, &[("freezes", 50), ("completions refused", 50)]);
}

#[test]
fn restarts() {
    passes("restarts", Server::Own, &[("restarts", 50), ("submissions cut off", 10)]);
}

#[test]
fn clocks() {
    passes("clocks", Server::Shared, &[("workers with a wrong clock", 3), ("timers and backoffs", 96)]);
}

#[test]
fn cuts() {
    passes("cuts", Server::Own, &[("cuts before the server heard", 100), ("cuts after it had answered", 100), ("completions refused", 11)]);
}

#[test]
fn failover() {
    passes("failover", Server::Own, &[("failovers, in sync until then", 5), ("submissions cut off", 5)]);
}

#[test]
fn disk() {
    passes("disk", Server::Own, &[("starts refused: disk full", 40), ("deaths of PostgreSQL by that", 2)]);
}

#[test]
fn pool() {
    passes("pool", Server::Own, &[("starts refused: no connection", 60), ("own pool: starts given up: the pool was exhausted", 8)]);
}

#[test]
fn pooler() {
    passes("pooler", Server::Own, &[("scenarios that passed", 5), ("poolers without prepared statements refused", 1)]);
}

#[test]
fn cancels() {
    passes("cancels", Server::Shared, &[("runs cancelled", 100), ("runs that completed first", 20)]);
}

#[test]
fn idempotency() {
    passes("idempotency", Server::Shared, &[("requests with a shared key", 500), ("slices that share keys", 20)]);
}

#[test]
fn dead_letters() {
    passes("dead-letters", Server::Shared, &[("letters redriven", 60)]);
}

#[test]
fn every_scenario_is_tested_here() {
    let home = home();
    let output = torture(home.path(), Server::Own, &["--list"]).output().expect("krowoc runs");
    let listed: Vec<String> = said(&output).lines().skip(1).filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert!(listed.len() >= 8, "{listed:?}");
    for scenario in listed {
        assert!(include_str!("torture.rs").contains(&format!("passes(\"{scenario}\"")), "{scenario} has no test");
    }
}

#[test]
fn what_is_cut_off_fails_with_what_it_had_reached_and_leaves_nothing() {
    let home = home();
    let output = torture(home.path(), Server::Own, &["commits", "--within", "8s", "--seed", "7"]).output().expect("krowoc runs");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for words in ["commits FAILED: the time was up (--within 8s)", "NOT MET", "--seed 7 makes the same choices again"] {
        assert!(text.contains(words), "{words} is missing in\n{text}");
    }
    // What a failure leaves to be looked at, and no server.
    let left: Vec<_> =
        home.path().read_dir().expect("read").flatten().flat_map(|entry| entry.path().read_dir().expect("read").flatten()).collect();
    assert!(left.len() == 1 && left[0].file_name() == "commits", "{left:?}");
}

#[test]
fn what_is_killed_is_cleaned_up_after() {
    let home = home();
    let mut child =
        torture(home.path(), Server::Own, &["freezes"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("krowoc runs");
    let folder = home.path().join(format!("torture-{}", child.id()));
    let log = folder.join("freezes/worker-4.log");
    wait("the workers have begun", || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("worker ready")));
    let data = folder.join("server/postgres/data").canonicalize().expect("data");
    kill_process(Pid::from_child(&child), Signal::KILL).expect("killed");
    child.wait().expect("gone");
    wait("the folder is gone", || !folder.exists() && !data.exists());
    let of_it = |line: &[u8]| String::from_utf8_lossy(line).contains(&*home.path().to_string_lossy());
    wait("no process is left", || {
        let processes = Path::new("/proc").read_dir().expect("/proc").flatten();
        !processes.filter_map(|process| std::fs::read(process.path().join("environ")).ok()).any(|environ| of_it(&environ))
    });
}

#[test]
fn a_user_who_may_not_create_databases_is_told_what_to_do() {
    let home = home();
    let url = krowoc_postgres::testing::cluster_durable().expect("a server");
    let sql = "DO $$ BEGIN CREATE ROLE torture_reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut conn = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.expect("connected");
        sqlx::raw_sql(sql).execute(&mut conn).await.expect("made");
    });
    let output = torture(home.path(), Server::Shared, &["idempotency"])
        .env("DATABASE_URL", url.replacen("//krowoc@", "//torture_reader@", 1))
        .output()
        .expect("krowoc runs");
    let text = said(&output);
    assert!(output.status.code() == Some(1) && text.contains("ALTER ROLE \"torture_reader\" CREATEDB"), "{text}");
}

#[test]
fn an_unknown_scenario_is_a_wrong_command_line() {
    let home = home();
    let output = torture(home.path(), Server::Own, &["kill"]).output().expect("krowoc runs");
    assert!(output.status.code() == Some(2) && said(&output).contains("krowoc torture --list"), "{}", said(&output));
}

#[test]
fn what_stops_the_server_is_skipped_on_somebody_elses() {
    let home = home();
    for (more, code) in [(&[][..], 0), (&["--require-all"][..], 1)] {
        let output = torture(home.path(), Server::Shared, &[&["restarts"], more].concat()).output().expect("krowoc runs");
        let text = said(&output);
        assert!(output.status.code() == Some(code) && text.contains("skipped") && text.contains("leave out DATABASE_URL"), "{text}");
    }
}

#[track_caller]
fn wait(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < until, "in vain: {what}");
        sleep(Duration::from_millis(20));
    }
}
