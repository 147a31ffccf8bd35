//! One file per kind of harm. The header of each names the promise and the guards that were removed once to see it fail
//! (docs/reliability.md).

mod cancels;
mod clocks;
mod commits;
mod cuts;
mod dead_letters;
mod disk;
mod failover;
mod freezes;
mod idempotency;
mod kills;
mod pool;
mod pooler;
mod restarts;

use crate::scenario::Scenario;

/// All, in the order in which they are done.
pub const SCENARIOS: &[Scenario] = &[
    kills::SCENARIO,
    commits::SCENARIO,
    freezes::SCENARIO,
    restarts::SCENARIO,
    clocks::SCENARIO,
    cuts::SCENARIO,
    failover::SCENARIO,
    disk::SCENARIO,
    pool::SCENARIO,
    cancels::SCENARIO,
    idempotency::SCENARIO,
    dead_letters::SCENARIO,
    pooler::SCENARIO,
];
