//! Krowoc's HTTP surface: REST and GraphQL over the same [`views`]. It turns requests into the engine's commands and queries, and owns no
//! durable state.

pub mod correlation;
pub mod health;
pub mod metrics;
pub mod problem;
pub mod server;
mod state;
pub mod views;

pub use state::{Api, Caller};

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
