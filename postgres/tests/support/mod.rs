//! A home, a server in it, and other processes that use it.
#![allow(dead_code, reason = "each test file uses its part")]

use krowoc_postgres::{Durability, LocalConfig};
use sqlx::{Connection, PgConnection};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

pub type Test = Result<(), Box<dyn std::error::Error>>;

/// A home that others may pass through, as the server's account must when root runs the tests.
pub fn home() -> TempDir {
    let home = tempfile::tempdir().expect("a folder");
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("opened");
    home
}

/// What is shown here does not rest on the disk, and making data durably takes seconds on a busy one.
pub fn config(home: &Path) -> LocalConfig {
    LocalConfig { download: false, durability: Durability::Fast, ..LocalConfig::new(home) }
}

pub fn alive(pid: i32) -> bool {
    // Not a signal: the dead who were not waited for would still take it.
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().expect("ps runs").stdout;
    !state.is_empty() && !state.starts_with(b"Z")
}

/// Waits for what another process will do; the deadline only bounds a failing test.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < until, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Another process that uses the server.
pub struct Holder {
    child: Child,
    output: BufReader<ChildStdout>,
    pub pid: i32,
}

impl Holder {
    pub fn spawn(mut command: Command) -> Child {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("hold starts")
    }

    pub fn command(home: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hold"));
        command.arg(home);
        command
    }

    /// Waits until it has joined.
    pub fn joined(mut child: Child) -> Self {
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).expect("read");
            line.trim().to_owned()
        };
        let pid = line().parse().expect("a joined holder prints the server's process");
        assert!(line().starts_with("postgres://"));
        Self { child, output, pid }
    }

    pub fn join(home: &Path) -> Self {
        Self::joined(Self::spawn(Self::command(home)))
    }

    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited for");
    }

    pub fn leave(mut self) -> String {
        drop(self.child.stdin.take());
        let mut said = String::new();
        self.output.read_line(&mut said).expect("read");
        assert!(self.child.wait().expect("waited for").success());
        said.trim().to_owned()
    }
}

pub async fn count(url: &str) -> Result<i64, sqlx::Error> {
    let mut db = PgConnection::connect(url).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS visits (id bigint GENERATED ALWAYS AS IDENTITY)").execute(&mut db).await?;
    sqlx::query("INSERT INTO visits DEFAULT VALUES").execute(&mut db).await?;
    let n = sqlx::query_scalar("SELECT count(*) FROM visits").fetch_one(&mut db).await?;
    db.close().await?;
    Ok(n)
}

pub async fn setting(url: &str, name: &str) -> Result<String, sqlx::Error> {
    let mut db = PgConnection::connect(url).await?;
    let value = sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut db).await?;
    db.close().await?;
    Ok(value)
}
