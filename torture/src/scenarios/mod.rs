//! One file per kind of harm. The header of each names the promise and the guards that were removed once to see it fail
//! (docs/reliability.md).

mod cancels;
mod clocks;
mod commits;
mod dead_letters;
mod freezes;
mod idempotency;
mod kills;
mod restarts;

use crate::scenario::Scenario;

/// All, in the order in which they are done.
pub const SCENARIOS: &[Scenario] = &[
    kills::SCENARIO,
    commits::SCENARIO,
    freezes::SCENARIO,
    restarts::SCENARIO,
    clocks::SCENARIO,
    cancels::SCENARIO,
    idempotency::SCENARIO,
    dead_letters::SCENARIO,
];
