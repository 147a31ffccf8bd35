//! Guarantee: the command line runs, shows and mends runs against a real PostgreSQL; exit codes and `--json` are what scripts rely on, and
//! every error says what to do next.

use krowoc_engine::testing::TestDatabase;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// A database and a folder of a test's own.
struct Place {
    database: TestDatabase,
    url: String,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new() -> Self {
        let cluster = krowoc_postgres::testing::cluster().expect("a server");
        let database = TestDatabase::create(&cluster).await.expect("a database");
        let url = url(&cluster, database.options().get_database().expect("its name"));
        Self { database, url, folder: tempfile::tempdir().expect("a folder") }
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("written");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        command(self.folder.path(), &self.url, arguments)
    }

    fn krowoc(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().expect("krowoc runs"))
    }

    /// Waits until what a command prints as JSON is as wanted.
    fn until(&self, arguments: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let said = self.krowoc(arguments).json();
            if wanted(&said) {
                return said;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{arguments:?} still says {said:#}");
        }
    }

    /// Every test ends with a database in which all rules hold.
    async fn done(self) {
        assert_eq!(self.database.violations().await.expect("checked"), Vec::<String>::new());
        self.database.drop_database().await.expect("dropped");
    }
}

/// The same server, another database.
fn url(cluster: &str, database: &str) -> String {
    let (address, query) = cluster.split_once('?').map_or((cluster, String::new()), |(address, query)| (address, format!("?{query}")));
    let (server, _) = address.rsplit_once('/').expect("a URL");
    format!("{server}/{database}{query}")
}

fn command(folder: &Path, url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_krowoc"));
    command.args(arguments).current_dir(folder).env_clear().env("HOME", folder).env("DATABASE_URL", url).env("KROWOC_LOG", "warn");
    command
}

/// What a command said, and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    #[track_caller]
    fn expect(&self, code: i32, parts: &[&str]) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        for part in parts {
            assert!(self.err.contains(part) || self.out.contains(part), "`{part}` is missing in {self:#?}");
        }
        self
    }
}

const HELLO: &str = "\
krowoc: v1
name: hello
input: {type: object, required: [name], properties: {name: {type: string}, more: {type: object}}}
steps:
  greet: {transform: {text: 'Hello, ${{ input.name }}'}}
  each:
    map:
      over: ${{ range(3) }}
      as: n
      steps:
        double: {transform: '${{ n * 2 }}'}
      collect: ${{ steps.double.output }}
output: {greeting: '${{ steps.greet.output.text }}', numbers: '${{ steps.each.output }}'}
";

/// A call whose first attempts fail, with two attempts for each go.
fn flaky(fail_first: u16) -> String {
    format!(
        "krowoc: v1
name: flaky
steps:
  before: {{transform: {{x: 1}}}}
  call:
    needs: [before]
    llm: {{model: 'sim/instant?fail_first={fail_first}&error=overloaded', messages: [{{role: user, content: Say something about the sea.}}]}}
    retry: {{attempts: 2, backoff: {{kind: constant, initial: 10ms, max: 10ms, jitter: none}}}}
output: ${{{{ steps.call.output }}}}
"
    )
}

const WAITING: &str = "krowoc: v1\nname: waiting\nsteps:\n  pause: {wait: {for: 1h}}\n";

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
