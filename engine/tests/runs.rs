//! Runs of every shape reach their end with the right results.

use krowoc_engine::{
    Engine, Payload, RunId, Scope,
    commands::StartRun,
    executor::StepKinds,
    testing::{Noop, Scripted, TestDatabase, ended, workflow},
    worker::{Serves, Worker, WorkerConfig},
};
use serde_json::{Value, json};
use std::time::Duration;

struct Fixture {
    database: TestDatabase,
    engine: Engine,
    worker: Worker,
    scope: Scope,
}

impl Fixture {
    async fn new(config: WorkerConfig) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("warn").try_init();
        let url = krowoc_postgres::testing::cluster().expect("a server");
        let database = TestDatabase::create(&url).await.expect("a database");
        let engine = database.engine(StepKinds::new()).await.expect("an engine");
        let worker = engine.worker(config).await.expect("a worker");
        Self { database, engine, worker, scope: Scope::local("test") }
    }

    async fn start(&self, text: &str, input: Value) -> RunId {
        let compiled = workflow(&StepKinds::new().with(Noop).with(Scripted), text);
        let version = self.engine.register(&self.scope, &compiled).await.expect("registered").id;
        let run = StartRun { version, input: Payload::from(&input), idempotency_key: None, priority: 0, trigger: "test".into() };
        self.engine.start_runs(&self.scope, &[run], None).await.expect("started")[0].id
    }

    async fn run(&self, text: &str, input: Value) -> (String, Value) {
        let run = self.start(text, input).await;
        let status = ended(&self.engine, run, Duration::from_secs(20)).await;
        (status, self.output(run).await)
    }

    async fn output(&self, run: RunId) -> Value {
        let text: Option<String> = sqlx::query_scalar("SELECT coalesce(output, error)::text FROM krowoc.run WHERE id = $1")
            .bind(run.0)
            .fetch_one(self.engine.pool())
            .await
            .expect("output");
        text.map_or(Value::Null, |t| serde_json::from_str(&t).expect("JSON"))
    }

    async fn done(self) {
        eprintln!("stopping");
        self.worker.stop().await.expect("stopped");
        eprintln!("stopped");
        self.engine.pool().close().await;
        self.database.drop_database().await.expect("dropped");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_hands_outputs_on() {
    let f = Fixture::new(WorkerConfig::default()).await;
    let (status, output) = f
        .run(
            "krowoc: v1\nname: chain\nsteps:\n  a:\n    noop: ${{ input.x }}\n  b:\n    noop: {got: '${{ steps.a.output }}'}\n  c:\n    noop: ${{ steps.b.output }}\noutput: ${{ steps.c.output.got }}\n",
            json!({"x": 7}),
        )
        .await;
    assert_eq!((status.as_str(), output), ("succeeded", json!(7)));
    f.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_collects_in_order() {
    let f = Fixture::new(WorkerConfig { concurrency: 8, ..Default::default() }).await;
    let text = "krowoc: v1\nname: m\nsteps:\n  m:\n    map:\n      over: ${{ range(1000) }}\n      as: n\n      steps:\n        one:\n          noop: ${{ n + 1 }}\n      collect: ${{ steps.one.output }}\n  sum:\n    noop: ${{ steps.m.output | sum }}\noutput: ${{ steps.sum.output }}\n";
    let (status, output) = f.run(text, json!({})).await;
    assert_eq!((status.as_str(), output), ("succeeded", json!(500_500)));
    f.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_of_many_pages_collects_what_each_item_brought_and_null_for_the_rest() {
    let f = Fixture::new(WorkerConfig { concurrency: 64, ..Default::default() }).await;
    // Item 7 fails, 1,500 does nothing, the output of 2,000 is too large for a row.
    let text = "krowoc: v1\nname: m\nsteps:\n  m:\n    map:\n      over: ${{ range(2500) }}\n      as: n\n      tolerate: 1\n      steps:\n        one:\n          when: ${{ n != 1500 }}\n          noop: ${{ range(100000) if n == 2000 else n + 1 if n != 7 else nothing }}\n        two:\n          allow_failure: true\n          scripted: {fail_first: '${{ 9 if n == 9 else 0 }}', output: 2}\n          retry: {attempts: 1}\n      collect: {item: '${{ n }}', one: '${{ steps.one.output | length if n == 2000 else steps.one.output | default(0) }}', two: '${{ steps.two.output | default(0) }}'}\noutput: ${{ steps.m.output }}\n"
        .replace("else nothing", "else [1][n]");
    let (status, output) = f.run(&text, json!({})).await;
    assert_eq!(status, "succeeded", "{output}");
    let items = output.as_array().expect("a list");
    assert_eq!(items.len(), 2500);
    for (n, item) in items.iter().enumerate() {
        let expected = match n {
            7 => Value::Null,
            9 => json!({"item": 9, "one": 10, "two": 0}),
            1500 => json!({"item": 1500, "one": 0, "two": 2}),
            2000 => json!({"item": 2000, "one": 100_000, "two": 2}),
            n => json!({"item": n, "one": n + 1, "two": 2}),
        };
        assert_eq!(*item, expected);
    }
    f.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_of_several_steps_and_a_nested_map_collect() {
    let f = Fixture::new(WorkerConfig { concurrency: 8, ..Default::default() }).await;
    let text = "krowoc: v1\nname: m\nsteps:\n  m:\n    map:\n      over: ${{ range(20) }}\n      as: n\n      key: ${{ 'k' ~ n }}\n      concurrency: 3\n      steps:\n        one:\n          noop: ${{ n + 1 }}\n        other:\n          noop: ${{ n }}\n        inner:\n          map:\n            over: ${{ range(3) }}\n            as: k\n            steps:\n              x:\n                noop: ${{ k + steps_sum }}\n            collect: ${{ steps.x.output }}\n      collect: ${{ steps.one.output + steps.other.output + (steps.inner.output | sum) }}\noutput: ${{ steps.m.output }}\n"
        .replace("k + steps_sum", "k * n");
    let (status, output) = f.run(&text, json!({})).await;
    let expected: Vec<i64> = (0..20).map(|n| n + 1 + n + 3 * n).collect();
    assert_eq!((status.as_str(), output), ("succeeded", json!(expected)));
    f.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_retried_then_dead_lettered_and_waits_wait() {
    let f = Fixture::new(WorkerConfig { concurrency: 8, ..Default::default() }).await;
    let retry = "retry: {attempts: 3, backoff: {kind: constant, initial: 20ms, max: 20ms, jitter: none}}";
    let text = format!(
        "krowoc: v1\nname: f\nsteps:\n  flaky:\n    scripted: {{fail_first: 2, output: 1}}\n    {retry}\n  pause:\n    needs: [flaky]\n    wait: {{for: 50ms}}\n  broken:\n    needs: [pause]\n    scripted: {{fail_first: 9}}\n    {retry}\n  after:\n    noop: ${{{{ steps.broken.output }}}}\n  panics:\n    allow_failure: true\n    scripted: {{panic: true}}\n"
    );
    let (status, output) = f.run(&text, json!({})).await;
    assert_eq!(status, "failed", "{output}");
    let letters: Vec<(String, i32)> =
        sqlx::query_as("SELECT path, attempts FROM krowoc.dead_letter ORDER BY path").fetch_all(f.engine.pool()).await.expect("letters");
    assert_eq!(letters, [("broken".to_owned(), 3), ("panics".to_owned(), 1)]);
    f.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_output_misses_its_schema_fails_once_and_for_all() {
    let f = Fixture::new(WorkerConfig::default()).await;
    let text = "krowoc: v1\nname: o\nsteps:\n  a:\n    noop: ${{ input.x }}\noutput: {n: '${{ steps.a.output }}'}\noutput_schema: {type: object, properties: {n: {type: integer}}}\n";
    assert_eq!(f.run(text, json!({"x": 7})).await, ("succeeded".into(), json!({"n": 7})));
    let (status, error) = f.run(text, json!({"x": "seven"})).await;
    assert_eq!((status.as_str(), &error["class"]), ("failed", &json!("schema_invalid")), "{error}");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("the run's output misses its schema at `/n`")), "{error}");
    f.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_at_once_and_stops_what_is_in_flight() {
    let f = Fixture::new(WorkerConfig { concurrency: 8, lease: Duration::from_secs(1), ..Default::default() }).await;
    let run =
        f.start("krowoc: v1\nname: c\nsteps:\n  a:\n    scripted: {sleep_ms: 60000}\n  b:\n    needs: [a]\n    noop:\n", json!({})).await;
    while f.worker.stats().started.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    f.engine.cancel(&f.scope, run).await.expect("cancelled");
    assert_eq!(ended(&f.engine, run, Duration::from_secs(5)).await, "cancelled");
    f.done().await;
}

/// Guards: an ended item of a limited map takes the next one, and whoever is left without one wakes the claimer.
#[tokio::test(flavor = "multi_thread")]
async fn a_limited_map_goes_on_without_a_poll() {
    let f = Fixture::new(WorkerConfig { concurrency: 8, poll: Duration::from_secs(600), ..Default::default() }).await;
    let text = "krowoc: v1\nname: m\nsteps:\n  m:\n    map:\n      over: ${{ range(40) }}\n      as: n\n      concurrency: 3\n      steps:\n        one:\n          noop: ${{ n + 1 }}\n      collect: ${{ steps.one.output }}\noutput: ${{ steps.m.output | sum }}\n";
    let compiled = workflow(&StepKinds::new().with(Noop).with(Scripted), text);
    let version = f.engine.register(&f.scope, &compiled).await.expect("registered").id;
    let run = StartRun { version, input: Payload::null(), idempotency_key: None, priority: 0, trigger: "test".into() };
    let run = f.engine.start_runs(&f.scope, &[run], Some(&*f.worker.local())).await.expect("started")[0].id;
    assert_eq!(ended(&f.engine, run, Duration::from_secs(20)).await, "succeeded");
    assert_eq!(f.output(run).await, json!(820));
    f.done().await;
}

/// Guard: a worker for one run claims by that run's key.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_for_one_run_leaves_others_alone() {
    let f = Fixture::new(WorkerConfig { serves: Serves::OneRun, poll: Duration::from_millis(20), ..Default::default() }).await;
    let text = "krowoc: v1\nname: m\nsteps:\n  m:\n    map:\n      over: ${{ range(10) }}\n      as: n\n      steps:\n        one:\n          noop: ${{ n + 1 }}\n      collect: ${{ steps.one.output }}\n  nap:\n    needs: [m]\n    wait: {for: 10ms}\noutput: ${{ steps.m.output | sum }}\n";
    let (other, own) = (f.start(text, json!({})).await, f.start(text, json!({})).await);
    f.worker.serve(own);
    assert_eq!(ended(&f.engine, own, Duration::from_secs(20)).await, "succeeded");
    assert_eq!(f.output(own).await, json!(55));
    let untouched: bool =
        sqlx::query_scalar("SELECT count(*) = 1 AND bool_and(state = 'ready' AND attempt = 0) FROM krowoc.lane WHERE run_id = $1")
            .bind(other.0)
            .fetch_one(f.engine.pool())
            .await
            .expect("its lane");
    assert!(untouched, "the other run's first step was taken");
    f.done().await;
}
