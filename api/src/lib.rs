//! Krowoc's HTTP surface: REST and GraphQL over the same [`views`]. It turns requests into the engine's commands and queries, and owns no
//! durable state.

pub mod auth;
pub mod correlation;
pub mod health;
pub mod limits;
pub mod metrics;
pub mod problem;
pub mod rest;
pub mod server;
mod state;
pub mod views;
pub mod watch;

pub use state::{Api, Caller};

use auth::{Guard, LoopbackOnly};
use correlation::Correlation;
use limits::{Limits, LimitsConfig};
use poem::{Endpoint, EndpointExt, Response, Route};
use std::sync::Arc;

/// The routes that operators and their machines use: `/health/live`, `/health/ready`, `/metrics`. They are open.
pub fn operations(readiness: Arc<dyn health::Readiness>, metrics: metrics::Metrics) -> impl Endpoint<Output = Response> {
    with_operations(Route::new(), readiness, metrics).with(Correlation)
}

fn with_operations(route: Route, readiness: Arc<dyn health::Readiness>, metrics: metrics::Metrics) -> Route {
    route
        .at("/health/live", poem::get(health::live))
        .at("/health/ready", poem::get(health::ready).data(readiness))
        .at("/metrics", poem::get(metrics::scrape).data(metrics))
}

/// What a server of the whole API is made of.
pub struct Served {
    /// What handlers are given.
    pub api: Api,
    /// Who knows the token.
    pub guard: Guard,
    /// What is taken at once.
    pub limits: LimitsConfig,
    /// What the process depends on.
    pub readiness: Arc<dyn health::Readiness>,
    /// What it has counted.
    pub metrics: metrics::Metrics,
    /// For which hosts it answers.
    pub hosts: Hosts,
}

/// For which hosts a server answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hosts {
    /// Whatever name it is reached by.
    Any,
    /// For loopback names only.
    Loopback,
}

/// All routes: those of [`operations`], and the API.
pub fn routes(served: Served) -> impl Endpoint<Output = Response> {
    let Served { api, guard, limits, readiness, metrics, hosts } = served;
    let limits = Limits::new(limits);
    let route = with_operations(Route::new(), readiness, metrics)
        .nest(rest::PREFIX, rest::operations(api).with(limits).with(guard))
        .at(format!("{}/openapi.json", rest::PREFIX), rest::document_endpoint())
        .at(format!("{}/docs", rest::PREFIX), rest::docs_endpoint());
    let checked = match hosts {
        Hosts::Any => route.map_to_response().boxed(),
        Hosts::Loopback => route.with(LoopbackOnly).map_to_response().boxed(),
    };
    checked.with(Correlation)
}
