//! A database of a test's own, the whole API on it, and a worker where one is asked for.

use krowoc_api::{
    Api, Hosts, Served,
    auth::{Guard, hash},
    health::{Check, Readiness},
    limits::LimitsConfig,
    metrics::Metrics,
    routes,
};
use krowoc_engine::{
    Engine,
    executor::StepKinds,
    testing::TestDatabase,
    worker::{Worker, WorkerConfig},
};
use poem::{
    Endpoint, Response,
    http::StatusCode,
    test::{TestClient, TestRequestBuilder, TestResponse},
};
use serde_json::{Value, json};
use std::sync::Arc;

pub const TOKEN: &str = "krw_0123456789abcdef";

struct Ready;

#[async_trait::async_trait]
impl Readiness for Ready {
    async fn check(&self) -> Vec<Check> {
        vec![Check::ok("database")]
    }
}

pub struct Place {
    pub api: Api,
    pub engine: Engine,
    pub client: TestClient<poem::endpoint::BoxEndpoint<'static, Response>>,
    pub limits: LimitsConfig,
    database: TestDatabase,
    worker: Option<Worker>,
}

pub fn served(api: &Api, limits: LimitsConfig) -> impl Endpoint<Output = Response> + use<> {
    routes(Served {
        api: api.clone(),
        guard: Guard::given(hash(TOKEN)),
        limits,
        readiness: Arc::new(Ready),
        metrics: Metrics::install().expect("installed"),
        hosts: Hosts::Any,
    })
}

impl Place {
    /// Where runs are accepted and nothing carries them out.
    pub async fn new() -> Self {
        Self::with(LimitsConfig::default()).await
    }

    pub async fn with(limits: LimitsConfig) -> Self {
        let url = krowoc_postgres::testing::cluster().expect("a server");
        let database = TestDatabase::create(&url).await.expect("a database");
        let engine = database.engine(StepKinds::new()).await.expect("an engine");
        let api = Api::new(engine.clone());
        let client = TestClient::new(poem::EndpointExt::boxed(served(&api, limits)));
        Self { api, engine, client, limits, database, worker: None }
    }

    /// Where a worker carries them out.
    pub async fn working() -> Self {
        let mut place = Self::new().await;
        place.worker = Some(place.engine.worker(WorkerConfig::default()).await.expect("a worker"));
        place
    }

    pub fn get(&self, path: &str) -> TestRequestBuilder<'_, poem::endpoint::BoxEndpoint<'static, Response>> {
        self.client.get(format!("/api/v1{path}")).header("authorization", format!("Bearer {TOKEN}"))
    }

    pub fn post(&self, path: &str) -> TestRequestBuilder<'_, poem::endpoint::BoxEndpoint<'static, Response>> {
        self.client.post(format!("/api/v1{path}")).header("authorization", format!("Bearer {TOKEN}"))
    }

    /// The JSON of a GET that succeeds.
    pub async fn read(&self, path: &str) -> Value {
        let answer = self.get(path).send().await;
        answer.assert_status_is_ok();
        value(answer).await
    }

    /// Status and JSON of a POST.
    pub async fn send(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let answer = self.post(path).body_json(body).send().await;
        (answer.0.status(), value(answer).await)
    }

    /// Registers a workflow.
    pub async fn register(&self, text: &str) -> Value {
        let (status, registered) = self.send("/workflows", &json!({"workflow": text})).await;
        assert!(status.is_success(), "{registered}");
        registered
    }

    /// Starts a run; its id.
    pub async fn start(&self, workflow: &str, input: Value) -> String {
        let (status, started) = self.send("/runs", &json!({"workflow": workflow, "input": input})).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{started}");
        started["id"].as_str().expect("an id").to_owned()
    }

    /// Starts a run and waits for its end.
    pub async fn ended(&self, workflow: &str, input: Value) -> Value {
        let (status, run) = self.send("/runs?wait=60", &json!({"workflow": workflow, "input": input})).await;
        assert_eq!(status, StatusCode::OK, "{run}");
        run
    }

    pub async fn done(self) {
        if let Some(worker) = self.worker {
            worker.stop().await.expect("stopped");
        }
        assert_eq!(self.database.violations().await.expect("checked"), [""; 0]);
        self.api.watch().close();
        self.engine.pool().close().await;
        self.database.drop_database().await.expect("dropped");
    }
}

pub async fn value(answer: TestResponse) -> Value {
    serde_json::from_slice(&answer.0.into_body().into_bytes().await.expect("a body")).expect("JSON")
}

/// The problem that an answer is.
#[track_caller]
pub fn code(problem: &Value) -> &str {
    problem["code"].as_str().unwrap_or_else(|| panic!("no problem: {problem}"))
}
