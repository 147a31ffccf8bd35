//! Guarantee: operators learn whether the process lives, whether it may be sent work and why not, and what it has done.

use krowoc_api::{
    health::{Check, Readiness},
    metrics::Metrics,
    operations,
};
use poem::{http::StatusCode, test::TestClient};
use serde_json::json;
use std::sync::Arc;

struct Fixed(Vec<Check>);

#[async_trait::async_trait]
impl Readiness for Fixed {
    async fn check(&self) -> Vec<Check> {
        self.0.clone()
    }
}

struct Hanging;

#[async_trait::async_trait]
impl Readiness for Hanging {
    async fn check(&self) -> Vec<Check> {
        std::future::pending().await
    }
}

fn client(readiness: impl Readiness) -> TestClient<impl poem::Endpoint> {
    TestClient::new(operations(Arc::new(readiness), Metrics::install().expect("installed")))
}

#[tokio::test]
async fn a_process_with_a_dead_database_lives_but_is_not_ready() {
    let client = client(Fixed(vec![Check::failed("database", "connection refused"), Check::ok("workers")]));
    let live = client.get("/health/live").send().await;
    live.assert_status_is_ok();
    live.assert_json(json!({"status": "live"})).await;
    let ready = client.get("/health/ready").send().await;
    ready.assert_status(StatusCode::SERVICE_UNAVAILABLE);
    ready
        .assert_json(json!({"status": "not_ready", "checks": [
            {"name": "database", "ok": false, "problem": "connection refused"},
            {"name": "workers", "ok": true},
        ]}))
        .await;
}

#[tokio::test]
async fn a_process_whose_checks_hold_is_ready() {
    let ready = client(Fixed(vec![Check::ok("database")])).get("/health/ready").send().await;
    ready.assert_status_is_ok();
    ready.assert_json(json!({"status": "ready", "checks": [{"name": "database", "ok": true}]})).await;
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_is_an_answer_too() {
    let ready = client(Hanging).get("/health/ready").send().await;
    ready.assert_status(StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn metrics_are_rendered_for_prometheus() {
    let client = client(Fixed(Vec::new()));
    metrics::counter!("krowoc_test_total").increment(3);
    metrics::histogram!("krowoc_test_seconds").record(0.02);
    let response = client.get("/metrics").send().await;
    response.assert_status_is_ok();
    response.assert_header("content-type", "text/plain; version=0.0.4; charset=utf-8");
    let text = response.0.into_body().into_string().await.expect("text");
    assert!(text.contains("krowoc_test_total 3"), "{text}");
    assert!(text.contains("krowoc_test_seconds_bucket{le=\"0.025\"} 1"), "{text}");
}

#[tokio::test]
async fn installing_metrics_again_gives_the_same_recorder() {
    let first = Metrics::install().expect("installed");
    metrics::counter!("krowoc_again_total").increment(1);
    assert!(first.render().contains("krowoc_again_total 1"));
    assert!(Metrics::install().expect("installed").render().contains("krowoc_again_total 1"));
}
