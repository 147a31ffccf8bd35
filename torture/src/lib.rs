//! `krowoc torture`: faults on purpose, and a judge outside the engine that says whether a promise was broken.
//!
//! A [`Scenario`] gets an [`Arena`]: a server, a folder, dice and a deadline. It puts a [`World`] there, a database with processes around it
//! and runs that it has accepted, does its harm, and tells its [`Findings`]: counts with what they must come to, times, violations. A
//! scenario passes if nothing was violated and every count is as it should be, so that one that did nothing fails.
//!
//! Steps of the kind `ledger` write what they do to a file of their own ([`ledger`]); [`verify`] compares it with the database. Processes
//! are the product's own binary once more, with orders on its standard input ([`process`]); the `ledger` kind and fail points exist in such
//! a process only, and no file or variable can turn another into one. The engine's feature `testing` is not used. Whatever goes wrong
//! here is for people to read, hence `anyhow`.

pub mod arena;
pub mod command;
pub mod database;
pub mod dice;
pub mod disk;
pub mod findings;
pub mod holdings;
pub mod host;
pub mod ledger;
pub mod load;
pub mod node;
pub mod pooler;
pub mod process;
pub mod proxy;
pub mod recovery;
pub mod report;
mod retire;
mod run;
pub mod scenario;
mod scenarios;
pub mod server;
pub mod shapes;
pub mod verify;
pub mod world;

pub use arena::{Arena, Size};
pub use findings::{Count, Figure, Findings};
pub use report::{Report, Verdict};
pub use run::{Options, Progress, run};
pub use scenario::{Need, Scenario};
pub use scenarios::SCENARIOS;
pub use server::{Cluster, Server};
pub use world::World;
