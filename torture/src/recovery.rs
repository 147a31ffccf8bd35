//! How long it takes from a process's death until nothing is leased in its name any more: every step that it held has been taken over, or has
//! ended. Seen from outside, in the database; a session of the dead process that the server has not ended yet may still lease something.

use crate::{
    findings::{Findings, Stopwatch},
    world::World,
};
use anyhow::{Result, bail};
use sqlx::PgPool;
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinHandle};

/// How often it looks.
const LOOK: Duration = Duration::from_millis(25);

/// What is worth a note.
const LONG: Duration = Duration::from_secs(3);

/// A process that died.
struct Dead {
    name: String,
    at: Instant,
    /// When something was last seen to be leased in its name.
    leased: Option<Instant>,
    /// Under how many tokens: each that takes over gives another.
    tokens: HashSet<i64>,
    /// When a session of it was last seen.
    session: Option<Instant>,
}

/// Watches over a world's dead.
pub struct Watch {
    deaths: mpsc::UnboundedSender<Dead>,
    watching: JoinHandle<Result<Seen>>,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Processes that died with leases.
    pub held: u64,
    /// Those that held none.
    pub empty_handed: u64,
}

impl Watch {
    /// Begins; each recovery of leases goes to the stopwatch.
    pub fn begin(world: &World, recovery: Stopwatch) -> Self {
        let (deaths, dead) = mpsc::unbounded_channel();
        let watching = tokio::spawn(watch(world.engine.pool().clone(), dead, recovery, world.findings().clone()));
        Self { deaths, watching }
    }

    /// A worker has died.
    pub fn died(&self, name: &str, at: Instant) {
        // It hears as long as it watches; when it has failed, its end says why.
        let _ = self.deaths.send(Dead { name: name.to_owned(), at, leased: None, tokens: HashSet::new(), session: None });
    }

    /// Waits until all have been recovered from.
    pub async fn end(self, limit: Duration) -> Result<Seen> {
        drop(self.deaths);
        match tokio::time::timeout(limit, self.watching).await {
            Ok(seen) => seen?,
            Err(_) => bail!("I2: after {limit:?} something is still leased in the name of a dead process"),
        }
    }
}

async fn watch(pool: PgPool, mut deaths: mpsc::UnboundedReceiver<Dead>, recovery: Stopwatch, findings: Findings) -> Result<Seen> {
    let (mut open, mut seen): (Vec<Dead>, Seen) = (vec![], Seen::default());
    loop {
        if open.is_empty() {
            match deaths.recv().await {
                Some(dead) => open.push(dead),
                None => return Ok(seen),
            }
        }
        while let Ok(dead) = deaths.try_recv() {
            open.push(dead);
        }
        let (leases, sessions) = look(&pool, &open).await?;
        let now = Instant::now();
        open.retain_mut(|dead| {
            let (tokens, sessions) = (leases.get(&dead.name), sessions.contains(&dead.name));
            let leases = tokens.is_some();
            dead.tokens.extend(tokens.into_iter().flatten());
            dead.leased = if leases { Some(now) } else { dead.leased };
            dead.session = if sessions { Some(now) } else { dead.session };
            if leases || sessions {
                return true;
            }
            match dead.leased {
                Some(last) => {
                    seen.held += 1;
                    recovery.record(now - dead.at);
                    if now - dead.at > LONG {
                        let session = dead.session.map(|seen| seen - dead.at);
                        findings.note(format!(
                            "{}: leased until {:?} after its death under {} tokens, its sessions until {session:?}",
                            dead.name,
                            last - dead.at,
                            dead.tokens.len()
                        ));
                    }
                }
                None => seen.empty_handed += 1,
            }
            false
        });
        tokio::time::sleep(LOOK).await;
    }
}

/// What is leased in their names, and their sessions that are at something: sessions first, since what one leases with its last breath is seen
/// then. One that is idle may belong to a pooler, which gives it to others.
async fn look(pool: &PgPool, open: &[Dead]) -> Result<(HashMap<String, Vec<i64>>, HashSet<String>)> {
    let names: Vec<&str> = open.iter().map(|dead| dead.name.as_str()).collect();
    let sessions: Vec<String> = sqlx::query_scalar(
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' AND application_name = ANY ($1)",
    )
    .bind(&names)
    .fetch_all(pool)
    .await?;
    let leases: Vec<(String, Vec<i64>)> = sqlx::query_as(
        "SELECT w.name, array_agg(DISTINCT l.token) FROM krowoc.live_lane l JOIN krowoc.worker w ON w.id = l.worker
         WHERE w.name = ANY ($1) AND l.state IN ('leased', 'aborting') GROUP BY 1",
    )
    .bind(&names)
    .fetch_all(pool)
    .await?;
    Ok((leases.into_iter().collect(), sessions.into_iter().collect()))
}
