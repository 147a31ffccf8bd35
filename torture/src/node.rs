//! A PostgreSQL that can be copied, killed and promoted: a process of our own, on data of its own.

use crate::host::{Host, finish};
use anyhow::{Context, Result, bail};
use krowoc_postgres::DATABASE;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, ExitStatus},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a server may take to let somebody in, recovery included.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// What every node is started with: durable, and ready to be copied.
const SETTINGS: [&str; 12] = [
    "listen_addresses=",
    "port=5432",
    "unix_socket_permissions=0700",
    "max_connections=150",
    "shared_buffers=64MB",
    "max_wal_size=256MB",
    "wal_level=replica",
    "max_wal_senders=5",
    "synchronous_commit=on",
    "autovacuum_naptime=60s",
    "jit=off",
    "log_line_prefix=%m [%p] %q%a ",
];

/// A server. Dropped, it is stopped at once; its data stays until its host goes.
pub struct Node {
    host: Arc<Host>,
    /// As others know it.
    pub name: String,
    data: PathBuf,
    sockets: PathBuf,
    settings: Vec<String>,
    running: Option<Child>,
}

impl Node {
    /// A new one with empty data in a folder of the account's, which `initdb` may be told more about, and with further settings.
    pub async fn create(host: &Arc<Host>, name: &str, data: PathBuf, initdb: &[&str], settings: &[&str]) -> Result<Self> {
        let mut command = host.command(&host.postgres("initdb"));
        command.arg("-D").arg(&data).args(["-U", DATABASE, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]).args(initdb);
        finish(command).await?;
        let mut node = Self::on(host, name, data, settings)?;
        node.start().await?;
        Ok(node)
    }

    /// A replica of a running one, which follows it under its name.
    pub async fn replica_of(primary: &Self, name: &str) -> Result<Self> {
        let data = primary.host.make_folder(name)?;
        let place = format!("host={} user={DATABASE} application_name={name}", primary.sockets.display());
        let mut command = primary.host.command(&primary.host.postgres("pg_basebackup"));
        command.args(["-d", &place, "-X", "stream", "-c", "fast", "-R", "-D"]).arg(&data);
        finish(command).await?;
        let settings: Vec<&str> = primary.settings.iter().map(String::as_str).collect();
        let mut node = Self::on(&primary.host, name, data, &settings)?;
        node.start().await?;
        Ok(node)
    }

    fn on(host: &Arc<Host>, name: &str, data: PathBuf, settings: &[&str]) -> Result<Self> {
        let sockets = host.make_socket_folder(name)?;
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Ok(Self { host: host.clone(), name: name.to_owned(), data, sockets, settings, running: None })
    }

    /// The URL of a database of it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{DATABASE}@localhost:5432/{database}?host={}&sslmode=disable", self.sockets.display())
    }

    /// A connection past everything that stands before it.
    pub async fn connect(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url("postgres")).await?)
    }

    /// Has its process ended, and how?
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.running.as_mut().map(Child::try_wait).transpose()?.flatten())
    }

    /// Starts it, unless it runs, and waits until it lets somebody in.
    pub async fn start(&mut self) -> Result<()> {
        let until = Instant::now() + STARTS_WITHIN;
        loop {
            if self.running.is_none() || self.ended()?.is_some() {
                self.spawn()?;
            }
            let why = match self.connect().await {
                Ok(conn) => return Ok(conn.close().await?),
                Err(why) => why,
            };
            if Instant::now() > until {
                bail!("{} lets nobody in: {why:#}\n{}", self.name, self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops it as a crash would.
    pub async fn kill(&mut self) -> Result<Instant> {
        let at = Instant::now();
        self.stop(Signal::QUIT)?;
        Ok(at)
    }

    /// Stops it as a crash would, for good, and removes its data.
    pub async fn destroy(mut self) -> Result<()> {
        self.stop(Signal::QUIT)?;
        let data = self.data.clone();
        Ok(tokio::task::spawn_blocking(move || fs::remove_dir_all(data)).await??)
    }

    /// From here on nobody waits for a replica.
    pub async fn commit_alone(&self) -> Result<()> {
        self.set("synchronous_standby_names", "").await
    }

    /// From here on every commit waits until this replica has it on its disk. Returns when the replica has caught up.
    pub async fn commit_with(&self, replica: &Self, within: Duration) -> Result<()> {
        self.set("synchronous_standby_names", &format!("\"{}\"", replica.name)).await?;
        let until = Instant::now() + within;
        while !self.is_in_sync().await? {
            if Instant::now() > until {
                bail!("{} has not caught up: {}", replica.name, replica.last_words());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Does every commit wait for a replica that is there?
    pub async fn is_in_sync(&self) -> Result<bool> {
        let mut conn = self.connect().await?;
        let sql = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming')";
        let in_sync = sqlx::query_scalar(sql).fetch_one(&mut conn).await?;
        conn.close().await?;
        Ok(in_sync)
    }

    /// A replica becomes a primary, on its own for the time being.
    pub async fn promote(&self) -> Result<()> {
        self.commit_alone().await?;
        let mut conn = self.connect().await?;
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote(true, 60)").fetch_one(&mut conn).await?;
        anyhow::ensure!(promoted, "{} was not promoted: {}", self.name, self.last_words());
        Ok(conn.close().await?)
    }

    /// How often it has died of something, as its log says.
    pub fn deaths(&self) -> Result<u64> {
        let text = fs::read(self.log())?;
        Ok(String::from_utf8_lossy(&text).lines().filter(|line| line.contains("PANIC:")).count() as u64)
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    async fn set(&self, name: &str, value: &str) -> Result<()> {
        let mut conn = self.connect().await?;
        let sql = format!("ALTER SYSTEM SET {name} = '{value}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut conn).await?;
        sqlx::raw_sql("SELECT pg_reload_conf()").execute(&mut conn).await?;
        Ok(conn.close().await?)
    }

    fn log(&self) -> PathBuf {
        self.sockets.join("log")
    }

    fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log()).context("a server's log")?;
        let mut command = self.host.service(&self.host.postgres("postgres"));
        command.arg("-D").arg(&self.data).arg("-c").arg(format!("unix_socket_directories={}", self.sockets.display()));
        for setting in SETTINGS.into_iter().chain(self.settings.iter().map(String::as_str)) {
            command.args(["-c", setting]);
        }
        command.stdout(log.try_clone()?).stderr(log);
        self.running = Some(command.spawn().with_context(|| format!("starting {}", self.name))?);
        Ok(())
    }

    fn stop(&mut self, signal: Signal) -> Result<()> {
        let Some(mut child) = self.running.take() else { return Ok(()) };
        let until = Instant::now() + STOPS_WITHIN;
        while child.try_wait()?.is_none() {
            // Again, as one that is just starting may not listen yet.
            let _ = kill_process(Pid::from_child(&child), signal);
            if Instant::now() > until {
                child.kill()?;
                child.wait()?;
                bail!("{} did not stop within {STOPS_WITHIN:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.stop(Signal::QUIT).inspect_err(|error| tracing::warn!(%error, "a server was killed"));
    }
}
