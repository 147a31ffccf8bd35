//! A PgBouncer that hands out server connections by transaction, before a server of ours.

use crate::{host::Host, scenario::program};
use anyhow::{Context, Result, bail};
use krowoc_postgres::DATABASE;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
    str::FromStr,
    time::{Duration, Instant},
};

/// The first that keeps clients' prepared statements apart (docs/adr/0009).
const OLDEST: (u32, u32) = (1, 21);
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// A pooler. Dropped, it is killed.
pub struct Pooler {
    child: Child,
    sockets: PathBuf,
}

impl Pooler {
    /// Before the server of a URL, which names the folder of its socket. It keeps so many prepared statements for each connection; none: it
    /// does not know of them.
    pub async fn start(program: &Path, host: &Host, name: &str, server: &str, statements: u32) -> Result<Self> {
        let folder = host.make_folder(name)?;
        let sockets = host.make_socket_folder(name)?;
        let options = PgConnectOptions::from_str(server)?;
        let server = options.get_socket().context("a server that listens in a folder")?.display();
        let text = format!(
            "[databases]\n* = host={server} port={port} user={DATABASE}\n\n[pgbouncer]\nlisten_addr =\nlisten_port = 5432\n\
             unix_socket_dir = {sockets}\nauth_type = any\npool_mode = transaction\nmax_prepared_statements = {statements}\n\
             default_pool_size = 100\nmax_client_conn = 500\nadmin_users = {DATABASE}\n",
            port = options.get_port(),
            sockets = sockets.display(),
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, text)?;
        host.give(&file)?;
        let log = folder.join("log");
        let out = File::create(&log)?;
        let mut command = host.service(program);
        command.arg(&file).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let mut pooler = Self { child, sockets };
        pooler.ready(&log).await?;
        Ok(pooler)
    }

    /// The URL of a database through it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{DATABASE}@localhost:5432/{database}?host={}&sslmode=disable", self.sockets.display())
    }

    async fn ready(&mut self, log: &Path) -> Result<()> {
        // Its own console: what stands behind it is not asked.
        let console = PgConnectOptions::from_str(&self.url("pgbouncer"))?.extra_float_digits(None);
        let until = Instant::now() + STARTS_WITHIN;
        while let Err(why) = PgConnection::connect_with(&console).await {
            if Instant::now() > until || self.child.try_wait()?.is_some() {
                bail!("PgBouncer lets nobody in: {why}\n{}", fs::read_to_string(log).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A PgBouncer that is new enough: this one, or the one where packages put it.
pub fn find(given: Option<&Path>) -> Option<PathBuf> {
    given.map(Path::to_owned).or_else(|| program("pgbouncer")).filter(|path| version(path).is_some_and(|version| version >= OLDEST))
}

fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("PgBouncer ")?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart_by_their_numbers() {
        let new_enough = |text: &str| parse(text).map(|version| version >= OLDEST);
        assert_eq!(new_enough("PgBouncer 1.18.0\nlibevent 2.1.12-stable\n"), Some(false));
        assert_eq!(new_enough("PgBouncer 1.24.1\nlibevent 2.1.12-stable\n"), Some(true));
        assert_eq!(new_enough("PgBouncer 2.0.0\n"), Some(true));
        assert_eq!(new_enough("something else"), None);
    }
}
