//! A worker whose database does not answer can be stopped all the same.

mod proxy;

use krowoc_engine::{
    Engine, Payload, RunId, Scope,
    commands::StartRun,
    executor::{StepContext, StepError, StepKind, StepKinds, StepOutput},
    testing::{Noop, TestDatabase, workflow},
    worker::{Worker, WorkerConfig},
};
use proxy::Proxy;
use serde_json::{Value, json};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::sync::Notify;

/// `hold:` goes on until it is let go, and says when it is dropped before.
#[derive(Clone, Default)]
struct Hold {
    let_go: Arc<Notify>,
    dropped: Arc<Notify>,
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
    proxy: Proxy,
    worker: Worker,
}

impl World {
    async fn new(config: WorkerConfig) -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("warn").try_init();
        let database = TestDatabase::create(&krowoc_postgres::testing::cluster().expect("a server")).await.expect("a database");
        let (hold, proxy) = (Hold::default(), Proxy::before(database.options()));
        let kinds = || StepKinds::new().with(Noop).with(hold.clone());
        let direct = database.engine(kinds()).await.expect("an engine");
        let through = Engine::connect(proxy.options(), kinds(), 1).await.expect("an engine");
        let worker = through.worker(config).await.expect("a worker");
        Self { database, direct, hold, proxy, worker }
    }

    async fn start(&self, text: &str) -> RunId {
        let compiled = workflow(&StepKinds::new().with(Noop).with(self.hold.clone()), text);
        let scope = Scope::local("test");
        let version = self.direct.register(&scope, &compiled).await.expect("registered").id;
        let run = StartRun { version, input: Payload::from(&json!({})), idempotency_key: None, priority: 0, trigger: "test".into() };
        self.direct.start_runs(&scope, &[run], None).await.expect("started")[0].id
    }

    /// A run whose only step is being carried out.
    async fn holding(&self) -> RunId {
        let run = self.start("krowoc: v1\nname: h\nsteps:\n  a:\n    hold:\n").await;
        while self.worker.stats().started.load(Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        run
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
