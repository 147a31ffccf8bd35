//! Krowoc's HTTP surface. It turns requests into the engine's commands and queries, and owns no durable state.

pub mod health;
pub mod metrics;
pub mod server;

use poem::{EndpointExt, IntoEndpoint, Route};
use std::sync::Arc;

/// The routes that operators and their machines use: `/health/live`, `/health/ready`, `/metrics`.
pub fn operations(readiness: Arc<dyn health::Readiness>, metrics: metrics::Metrics) -> impl IntoEndpoint {
    Route::new()
        .at("/health/live", poem::get(health::live))
        .at("/health/ready", poem::get(health::ready))
        .at("/metrics", poem::get(metrics::scrape))
        .data(readiness)
        .data(metrics)
}
