//! What a caller may choose about its server.

use std::{path::PathBuf, time::Duration};

/// How a private server is found and, if it does not run yet, started. A process that joins a running server takes it as it is.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// The folder of the locks, the data, the log and, unless its path is too long, the socket. Made when missing.
    pub home: PathBuf,
    /// The folder of `initdb`, `pg_ctl` and `postgres`; none: the usual places are searched.
    pub binaries: Option<PathBuf>,
    /// May PostgreSQL be downloaded when none is installed?
    pub download: bool,
    /// The account the server runs under when the caller is root; none: `postgres`, else `nobody`. Existing data stays with its
    /// owner's account.
    pub account: Option<String>,
    /// What becomes of the data.
    pub purpose: Purpose,
    /// Whether commits survive a crash.
    pub durability: Durability,
    /// Connections at once.
    pub max_connections: u32,
    /// More settings for the server, put after this crate's own.
    pub settings: Vec<(String, String)>,
    /// How long joining may take, a start with recovery included.
    pub timeout: Duration,
}

/// What becomes of the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// It stays.
    Keep,
    /// It is wiped whenever the server is started anew.
    Throwaway,
}

/// Whether commits survive a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Commits are on the disk when they are acknowledged.
    Durable,
    /// `fsync`, `synchronous_commit` and `full_page_writes` are off: a crash of the server loses its last commits, one of the
    /// machine perhaps everything. For tests.
    Fast,
}

impl LocalConfig {
    /// A durable server in the home, with whatever PostgreSQL is found or can be downloaded.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self {
            home: home.into(),
            binaries: None,
            download: true,
            account: None,
            purpose: Purpose::Keep,
            durability: Durability::Durable,
            max_connections: 100,
            settings: Vec::new(),
            timeout: Duration::from_secs(180),
        }
    }
}
