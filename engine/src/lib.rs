//! Krowoc's engine: durable runs of DAG workflows on PostgreSQL.
//!
//! The route of a run follows the folders: [`definition`] (file → workflow → DAG), [`commands`] (every change of durable state),
//! [`worker`] (claim, execute, complete), [`lifecycle`] (the pure rules), `store` (the SQL that writes), [`queries`] (what people
//! and programs read), [`maintenance`] (reaper, timers, retention). The engine knows no HTTP framework and no provider.

mod bounds;
pub mod commands;
pub mod definition;
#[cfg(test)]
mod drain;
mod engine;
pub mod error;
pub mod executor;
pub mod fail_point;
pub mod id;
pub mod lifecycle;
pub mod listener;
pub mod maintenance;
pub mod measures;
pub mod path;
mod patience;
pub mod payload;
pub mod queries;
pub mod starter;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod version;
pub mod worker;

pub use engine::Engine;
pub use error::{Error, ErrorClass, Result};
pub use id::{RunId, Scope, ScopePath, VersionId, WorkspaceId};
pub use payload::{Payload, Unsound};
