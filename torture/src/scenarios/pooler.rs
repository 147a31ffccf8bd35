//! **Promise**: behind a pooler that hands out server connections by transaction everything is as without one; behind one that mixes up prepared
//! statements nothing begins (docs/adr/0009).
//!
//! **Guards**: no state of a session is relied on; the trial when a program connects (`try_statements`); listening goes past the pooler
//! (`KROWOC_LISTEN_URL`).
//!
//! Other scenarios take place once more with PgBouncer in front, in their short form and to the same figures. Their counts are this one's.

use super::{cancels, commits, dead_letters, idempotency, kills};
use crate::{
    arena::{Arena, Size},
    command::krowoc,
    findings::Figure,
    host::Host,
    pooler::Pooler,
    scenario::{Need, Scenario},
    server::Server,
};
use anyhow::{Context, Result};
use futures::FutureExt;
use std::time::Duration;

pub const SCENARIO: Scenario = Scenario {
    name: "pooler",
    about: "other scenarios once more, with PgBouncer in transaction mode before the database",
    needs: &[Need::OwnServer, Need::PgBouncer],
    run: |arena| run(arena).boxed_local(),
};

/// Those that leave the server alone.
const AGAIN: [Scenario; 5] = [kills::SCENARIO, commits::SCENARIO, cancels::SCENARIO, idempotency::SCENARIO, dead_letters::SCENARIO];

/// Prepared statements that are kept for each connection; the engine's are fewer.
const STATEMENTS: u32 = 200;

async fn run(arena: &mut Arena) -> Result<()> {
    let findings = arena.findings.clone();
    let passed = findings.count("scenarios that passed", Figure::Exactly(AGAIN.len() as u64));
    let refused = findings.count("poolers without prepared statements refused", Figure::Exactly(1));
    let cluster = arena.server.cluster().context("a cluster of our own")?;
    let program = arena.pgbouncer.clone().context("a PgBouncer")?;
    let host = Host::beside(cluster, "pooler").await?;
    std::fs::create_dir_all(&arena.folder)?;
    refused.add(u64::from(is_refused(arena, &Pooler::start(&program, &host, "forgetful", &cluster.url(), 0).await?).await?));
    let pooler = Pooler::start(&program, &host, "keeping", &cluster.url(), STATEMENTS).await?;
    let server = Server::Pooled { server: cluster.url(), pooler: pooler.url("postgres") };
    for scenario in &AGAIN {
        passed.add(u64::from(again(arena, scenario, &server).await?));
    }
    Ok(())
}

/// Does it pass?
async fn again(arena: &mut Arena, scenario: &Scenario, server: &Server) -> Result<bool> {
    let mut inner = arena.inner(scenario.name, Size::Short, server.clone());
    let ended = (scenario.run)(&mut inner).await;
    arena.findings.include(scenario.name, &inner.findings);
    inner.drop_databases().await?;
    ended.with_context(|| scenario.name)?;
    Ok(inner.findings.is_good())
}

/// A user's command, through a pooler that does not know of prepared statements.
async fn is_refused(arena: &Arena, pooler: &Pooler) -> Result<bool> {
    let database = arena.database().await?;
    let said = krowoc(&arena.executable, &pooler.url(database.name()), &["runs", "list"], Duration::from_secs(20)).await?;
    let clear = !said.success && said.err.contains("mixes up the prepared statements") && said.err.contains("max_prepared_statements");
    if !clear {
        arena.findings.violation(format!("a pooler without prepared statements is not refused as such: {said:?}"));
    }
    Ok(clear)
}
