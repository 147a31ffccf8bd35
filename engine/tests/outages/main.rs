//! A worker whose database goes away, comes back, or does not answer: no step is blamed for it, no lease is lost that could be kept, and
//! the worker can be stopped all the same.

mod proxy;

use krowoc_engine::{
    Engine, Payload, RunId, Scope,
    commands::StartRun,
    executor::{StepContext, StepError, StepKind, StepKinds, StepOutput},
    testing::{Noop, TestDatabase, ended, workflow},
    worker::{Worker, WorkerConfig},
};
use proxy::Proxy;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Condvar, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Handle},
    sync::Notify,
};

/// `hold:` goes on until it is let go, and says when it is dropped before.
#[derive(Clone, Default)]
struct Hold {
    let_go: Arc<Notify>,
    dropped: Arc<Notify>,
}

/// `block:` blocks its thread until it is released.
#[derive(Clone, Default)]
struct Block(Arc<(Mutex<bool>, Condvar)>);

impl Block {
    fn release(&self) {
        *self.0.0.lock().expect("not poisoned") = true;
        self.0.1.notify_all();
    }
}

#[async_trait::async_trait]
impl StepKind for Block {
    fn name(&self) -> &'static str {
        "block"
    }

    fn schema(&self) -> Value {
        json!(true)
    }

    /// It stays in the process, and is not instant all the same.
    fn calls_out(&self) -> bool {
        false
    }

    async fn execute(&self, _: &StepContext, _: Value) -> Result<StepOutput, StepError> {
        let released = self.0.0.lock().expect("not poisoned");
        drop(self.0.1.wait_while(released, |released| !*released).expect("not poisoned"));
        StepOutput::json(&Value::Null)
    }
}

struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait::async_trait]
impl StepKind for Hold {
    fn name(&self) -> &'static str {
        "hold"
    }

    fn schema(&self) -> Value {
        json!(true)
    }

    async fn execute(&self, _: &StepContext, _: Value) -> Result<StepOutput, StepError> {
        let dropped = OnDrop(self.dropped.clone());
        self.let_go.notified().await;
        std::mem::forget(dropped);
        StepOutput::json(&Value::Null)
    }
}

/// A worker that reaches its database through a proxy, and a test that reaches it directly.
struct World {
    database: TestDatabase,
    direct: Engine,
    hold: Hold,
    block: Block,
    proxy: Proxy,
    worker: Worker,
}

impl World {
    async fn new(config: WorkerConfig) -> Self {
        Self::on(config, Handle::current()).await
    }

    /// A worker that is started from there.
    async fn on(config: WorkerConfig, runtime: Handle) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("warn").try_init();
        let database = TestDatabase::create(&krowoc_postgres::testing::cluster().expect("a server")).await.expect("a database");
        let (hold, block, proxy) = (Hold::default(), Block::default(), Proxy::before(database.options()));
        let kinds = || StepKinds::new().with(Noop).with(hold.clone()).with(block.clone());
        let direct = database.engine(kinds()).await.expect("an engine");
        let through = Engine::connect(proxy.options(), kinds(), 1).await.expect("an engine");
        let worker = runtime.spawn(async move { through.worker(config).await }).await.expect("started").expect("a worker");
        Self { database, direct, hold, block, proxy, worker }
    }

    async fn start(&self, text: &str) -> RunId {
        let compiled = workflow(&StepKinds::new().with(Noop).with(self.hold.clone()).with(self.block.clone()), text);
        let scope = Scope::local("test");
        let version = self.direct.register(&scope, &compiled).await.expect("registered").id;
        let run = StartRun { version, input: Payload::from(&json!({})), idempotency_key: None, priority: 0, trigger: "test".into() };
        self.direct.start_runs(&scope, &[run], None).await.expect("started")[0].id
    }

    /// A run whose only step is being carried out.
    async fn holding(&self) -> RunId {
        self.busy_with("hold").await
    }

    async fn busy_with(&self, kind: &str) -> RunId {
        let run = self.start(&format!("krowoc: v1\nname: h\nsteps:\n  a:\n    {kind}:\n")).await;
        while self.worker.stats().started.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        run
    }

    /// When the lease of the run's only lane ends, in seconds.
    async fn lease_ends(&self, run: RunId) -> f64 {
        sqlx::query_scalar("SELECT extract(epoch FROM lease_until)::float8 FROM krowoc.lane WHERE run_id = $1")
            .bind(run.0)
            .fetch_one(self.direct.pool())
            .await
            .expect("a lane")
    }

    async fn is_renewed(&self, run: RunId, within: Duration) {
        let (ends, until) = (self.lease_ends(run).await, Instant::now() + within);
        while self.lease_ends(run).await <= ends {
            assert!(Instant::now() < until, "the lease was not renewed within {within:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn done(self) {
        self.stopped_within(Duration::from_secs(10), std::future::pending()).await;
    }

    /// Stops the worker, at once when `now` says so, and removes what the test made.
    async fn stopped_within(self, limit: Duration, now: impl Future<Output = ()>) {
        let stopped = tokio::time::timeout(limit, self.worker.stop_or(now)).await;
        stopped.expect("stopped in time").expect("stopped");
        self.direct.pool().close().await;
        self.database.drop_database().await.expect("dropped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_whose_end_can_not_be_read_for_a_while_succeeds_all_the_same() {
    let world = World::new(WorkerConfig::default()).await;
    // In the text of the query for items' results, which every new connection sends to have it prepared.
    world.proxy.cut_on("octet_length(scope)", 4);
    let map =
        "over: ${{ range(3) }}\n      as: n\n      steps:\n        one:\n          noop: ${{ n }}\n      collect: ${{ steps.one.output }}";
    let run = world.start(&format!("krowoc: v1\nname: m\nsteps:\n  m:\n    map:\n      {map}\noutput: ${{{{ steps.m.output }}}}\n")).await;
    assert_eq!(ended(&world.direct, run, Duration::from_secs(20)).await, "succeeded");
    assert_eq!(world.proxy.cuts_left(), 0, "the reads were not cut off");
    let (output, attempts): (String, i64) = sqlx::query_as(
        "SELECT output::text, (SELECT count(*) FROM krowoc.attempt a WHERE a.run_id = r.id) FROM krowoc.run r WHERE id = $1",
    )
    .bind(run.0)
    .fetch_one(world.direct.pool())
    .await
    .expect("a run");
    assert_eq!((output.as_str(), attempts), ("[0,1,2]", 0));
    world.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_fails_is_repeated_at_once() {
    // Looks are three seconds apart: the second comes soon after the cut, the third is too late for the test.
    let world = World::new(WorkerConfig { lease: Duration::from_secs(9), ..Default::default() }).await;
    let run = world.holding().await;
    world.proxy.cut();
    world.is_renewed(run, Duration::from_millis(4500)).await;
    world.hold.let_go.notify_one();
    assert_eq!(ended(&world.direct, run, Duration::from_secs(20)).await, "succeeded");
    world.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_without_an_answer_is_repeated_before_the_lease_ends() {
    let lease = Duration::from_secs(8);
    let world = World::new(WorkerConfig { lease, ..Default::default() }).await;
    let run = world.holding().await;
    world.proxy.silence();
    world.is_renewed(run, lease).await;
    // Others of its tasks still wait for an answer.
    world.stopped_within(Duration::from_secs(15), std::future::ready(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_database_does_not_answer_stops_in_bounded_time() {
    let world = World::new(WorkerConfig { drain: Duration::from_millis(50), ..Default::default() }).await;
    world.holding().await;
    world.proxy.silence_all();
    world.stopped_within(Duration::from_secs(15), std::future::pending()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_stops_a_worker_whose_database_does_not_answer_at_once() {
    let world = World::new(WorkerConfig { drain: Duration::ZERO, ..Default::default() }).await;
    world.holding().await;
    world.proxy.silence_all();
    // The signal comes when the step has been dropped, that is, while it is being given back.
    let signal = world.hold.dropped.clone();
    world.stopped_within(Duration::from_secs(4), async move { signal.notified().await }).await;
}

/// Guard: `put_back_unheard`. Without it the second step waits for the end of a lease that nobody knows of, and is counted as lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_was_leased_by_a_commit_nobody_heard_of_goes_on_at_once() {
    for steps in [
        "  a:\n    noop: nobody-hears-this\n  b:\n    needs: [a]\n    noop: 1\n",
        // The map's items are born leased in the commit that stores them, in a bundle.
        "  m:\n    map:\n      over: ${{ ['nobody-hears-this', 'b'] }}\n      as: x\n      steps:\n        b:\n          noop: ${{ x }}\n",
    ] {
        let world = World::new(WorkerConfig::default()).await;
        world.proxy.cut_after("nobody-hears-this");
        let run = world.start(&format!("krowoc: v1\nname: u\nsteps:\n{steps}")).await;
        assert_eq!(ended(&world.direct, run, Duration::from_secs(20)).await, "succeeded");
        assert!(world.proxy.has_cut_after(), "the commit was heard of");
        let lost: i64 = sqlx::query_scalar("SELECT count(*) FROM krowoc.attempt").fetch_one(world.direct.pool()).await.expect("a count");
        let tries: i32 =
            sqlx::query_scalar("SELECT max(attempt) FROM krowoc.step_result").fetch_one(world.direct.pool()).await.expect("a count");
        assert_eq!((lost, tries), (0, 1));
        world.done().await;
    }
}

/// Guard: every answer of the database is waited for `within` a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_have_gone_silent_keep_no_result_and_no_step_waiting() {
    let world = World::new(WorkerConfig { lease: Duration::from_secs(5), ..Default::default() }).await;
    let run = world.holding().await;
    world.proxy.silence();
    world.hold.let_go.notify_one();
    assert_eq!(ended(&world.direct, run, Duration::from_secs(30)).await, "succeeded", "its result is recorded on another connection");
    let next = world.start("krowoc: v1\nname: n\nsteps:\n  a:\n    noop: ${{ run.id }}\n").await;
    assert_eq!(ended(&world.direct, next, Duration::from_secs(30)).await, "succeeded", "it is claimed and read for on others");
    world.done().await;
}

/// Guard: the engine's tasks have a thread of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_block_every_thread_of_theirs_keep_their_leases_and_nobody_else_waiting() {
    let world = World::new(WorkerConfig { lease: Duration::from_secs(3), threads: Some(1), ..Default::default() }).await;
    let run = world.busy_with("block").await;
    world.is_renewed(run, Duration::from_secs(3)).await;
    let other = world.start("krowoc: v1\nname: o\nsteps:\n  a:\n    noop: 1\n  b:\n    noop: ${{ steps.a.output }}\n").await;
    assert_eq!(ended(&world.direct, other, Duration::from_secs(20)).await, "succeeded");
    world.block.release();
    assert_eq!(ended(&world.direct, run, Duration::from_secs(20)).await, "succeeded");
    world.done().await;
}

/// Guard: steps have threads of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_outlives_the_runtime_that_it_was_started_from() {
    let started_from = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let world = World::on(WorkerConfig::default(), started_from.handle().clone()).await;
    let run = world.holding().await;
    started_from.shutdown_background();
    world.hold.let_go.notify_one();
    assert_eq!(ended(&world.direct, run, Duration::from_secs(20)).await, "succeeded");
    world.done().await;
}
