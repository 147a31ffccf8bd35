//! A private PostgreSQL server for one machine, for those who have not set up one of their own.
//!
//! Several processes share the server of a home folder: the first starts it, the last one out stops it, and a process that is
//! killed in between leaves a running server which the next one takes over. The server listens on a Unix socket in a private
//! folder only. This crate knows nothing of the engine; it hands out a URL.
//!
//! Two files in the home carry the sharing. `users.lock` is held shared by everyone who uses the server; whoever gets it
//! exclusively knows that nobody does. `start.lock` is held exclusively while somebody joins. Both are advisory locks of the
//! operating system, which end with the process that holds them, however it ends.

mod account;
mod binaries;
mod cluster;
mod config;
mod error;
mod files;
mod folder;
mod local;
mod lock;
mod place;
mod postmaster;
mod probe;
mod settings;
pub mod testing;

pub use config::{Durability, LocalConfig, Purpose};
pub use error::{Error, Result};
pub use local::{Left, Local};
pub use place::remove_home;

/// The database that every server has, and the superuser's name.
pub const DATABASE: &str = "krowoc";

/// The oldest PostgreSQL that serves.
pub const OLDEST_MAJOR: u32 = 15;
