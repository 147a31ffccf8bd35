//! What a work costs beside time: processor seconds of this process and of PostgreSQL, write-ahead log, memory.

use serde::Serialize;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::fs;

/// `USER_HZ`: the unit of times in `/proc`, the same on every architecture that matters (proc(5), `getconf CLK_TCK`).
const TICKS_PER_S: f64 = 100.0;

/// Reads the counters.
pub struct Meter {
    conn: PgConnection,
    /// None where PostgreSQL runs on another machine, or there is no `/proc`.
    postmaster: Option<u32>,
}

/// The counters at one moment.
#[derive(Clone, Copy)]
pub struct Reading {
    cpu: Option<Cpu>,
    wal_bytes: i64,
}

/// Processor seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cpu {
    /// Of this process.
    pub krowoc: f64,
    /// Of the server and all its sessions.
    pub postgres: f64,
}

/// The cost between two readings.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    /// None where PostgreSQL's is out of sight.
    pub cpu: Option<Cpu>,
    /// Write-ahead log.
    pub wal_bytes: i64,
}

impl Meter {
    /// A connection of its own, made before anything is measured.
    pub async fn connect(options: &PgConnectOptions) -> anyhow::Result<Self> {
        let mut conn = PgConnection::connect_with(options).await?;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await?;
        let postmaster = Process::read(backend.unsigned_abs()).filter(|p| p.name == "postgres").map(|p| p.parent);
        Ok(Self { conn, postmaster })
    }

    /// The counters now.
    pub async fn read(&mut self) -> anyhow::Result<Reading> {
        let wal_bytes =
            sqlx::query_scalar("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetch_one(&mut self.conn).await?;
        Ok(Reading { cpu: self.cpu(), wal_bytes })
    }

    /// What was used since.
    pub async fn since(&mut self, before: Reading) -> anyhow::Result<Cost> {
        let now = self.read().await?;
        let cpu =
            now.cpu.zip(before.cpu).map(|(now, then)| Cpu { krowoc: now.krowoc - then.krowoc, postgres: now.postgres - then.postgres });
        Ok(Cost { cpu, wal_bytes: now.wal_bytes - before.wal_bytes })
    }

    fn cpu(&self) -> Option<Cpu> {
        Some(Cpu { krowoc: Process::read(std::process::id())?.own_s, postgres: self.postgres_s()? })
    }

    /// Processor seconds of the server, its living sessions and those that have ended.
    pub fn postgres_s(&self) -> Option<f64> {
        let postmaster = self.postmaster?;
        let server = Process::read(postmaster)?;
        // Looking through all processes would cost as much as what is measured.
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).ok()?;
        let sessions: f64 = children.split_whitespace().filter_map(|id| Process::read(id.parse().ok()?)).map(|p| p.own_s).sum();
        Some(server.own_s + server.reaped_s + sessions)
    }
}

impl Cost {
    /// Adds what another stretch used.
    pub fn add(&mut self, other: Self) {
        self.cpu = match (self.cpu, other.cpu) {
            (Some(a), Some(b)) => Some(Cpu { krowoc: a.krowoc + b.krowoc, postgres: a.postgres + b.postgres }),
            (a, b) => a.or(b),
        };
        self.wal_bytes += other.wal_bytes;
    }
}

/// A line of `/proc/<pid>/stat` (proc_pid_stat(5)).
struct Process {
    name: String,
    parent: u32,
    own_s: f64,
    reaped_s: f64,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name may hold blanks and brackets: its end is the last bracket.
        let (head, tail) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        Some(Self {
            name: head.split_once('(')?.1.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            own_s: (ticks(11)? + ticks(12)?) / TICKS_PER_S,
            reaped_s: (ticks(13)? + ticks(14)?) / TICKS_PER_S,
        })
    }
}

/// Processor seconds of another process.
pub fn cpu_s(pid: u32) -> Option<f64> {
    Process::read(pid).map(|p| p.own_s)
}

/// Resident memory of a process now, in MB of 2^20 bytes; none without `/proc`.
pub fn resident_mb(pid: u32) -> Option<f64> {
    status_mb(pid, "VmRSS:")
}

/// The most that it ever was.
pub fn peak_resident_mb(pid: u32) -> Option<f64> {
    status_mb(pid, "VmHWM:")
}

fn status_mb(pid: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kb = status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse::<f64>().ok())?;
    Some(kb / 1024.0)
}

/// How many processes wanted a processor in the last minute: what else the machine was doing.
pub fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_any_name_is_read() {
        let line = "4711 (a) b (c) S 17 4711 4711 0 -1 4194560 1 2 3 4 150 50 20 30 20 0 1 0 100 1000 200";
        let process = Process::parse(line).expect("read");
        assert_eq!((process.name.as_str(), process.parent, process.own_s, process.reaped_s), ("a) b (c", 17, 2.0, 0.5));
    }
}
