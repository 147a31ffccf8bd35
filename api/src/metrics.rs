//! The process's metrics, in Prometheus' text format. Whoever measures uses the `metrics` crate's macros and knows nothing of this.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use poem::{IntoResponse, Response, handler, web::Data};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Between two rounds that fold raw samples into buckets; without them samples pile up where nobody scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// From a fast claim to a model that takes minutes. Applies to every metric whose name ends in `_seconds`.
const SECONDS: [f64; 16] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0];

/// Batches; the engine's largest has 1,024. Applies to every histogram whose name ends in `_batch_steps`.
const STEPS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// The recorder's read side.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

/// Why nothing is recorded.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}")]
pub struct MetricsError(#[from] BuildError);

impl Metrics {
    /// Installs the recorder for the whole process; later calls give the same one.
    pub fn install() -> Result<Self, MetricsError> {
        static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = installed.as_ref() {
            return Ok(metrics.clone());
        }
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_batch_steps".into()), &STEPS)?;
        Ok(installed.insert(Self(recorder.install_recorder()?)).clone())
    }

    /// Everything recorded so far.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Keeps memory bounded; runs until it is dropped.
    pub async fn keep_up(self) {
        let mut ticks = tokio::time::interval(UPKEEP_EVERY);
        loop {
            ticks.tick().await;
            self.0.run_upkeep();
        }
    }
}

/// `GET /metrics`
#[handler]
pub(crate) fn scrape(Data(metrics): Data<&Metrics>) -> Response {
    metrics.render().with_content_type("text/plain; version=0.0.4; charset=utf-8").into_response()
}
