//! Guarantees of the long-running processes, against the real binary and a real PostgreSQL: a worker drains and loses nothing, readiness
//! is the truth, metrics have the names that are documented, a token opens the API, a project under `krowoc dev` follows its files.

mod api;
mod dev;
mod metrics;
mod place;
mod process;
mod serve;
mod worker;
