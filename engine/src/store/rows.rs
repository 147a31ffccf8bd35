//! The one row that the hot path reads: a lane that this process holds now, with the state of its scope where it has one.

use crate::{
    id::{RunId, ScopePath, VersionId},
    lifecycle::{Counters, FrameState},
};
use sqlx::postgres::PgRow;
use std::time::Duration;

/// A lease on a lane: what an attempt is, and what fences its completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// Where in the run.
    pub scope: ScopePath,
    /// The lane in its scope.
    pub lane: i32,
    /// Fences: only the holder of the lane's current token may write.
    pub token: i64,
    /// The run's workflow version.
    pub version: VersionId,
    /// The step's index, or [`Lease::ENTRY`], [`Lease::FINISH`].
    pub step: i16,
    /// Why the lane was leased: [`Lease::FRESH`], [`Lease::DUE`], [`Lease::FILLED`].
    pub phase: i16,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// What the step has been through.
    pub counters: Counters,
    /// The queue it was claimed from.
    pub queue: i16,
    /// The run's priority.
    pub priority: i16,
    /// The first item of the bundle that this one was leased in, if it was.
    pub bundle: Option<i32>,
    /// How long the step had been at it when this attempt was leased, deferrals not counted.
    pub overdue: Duration,
}

impl Lease {
    /// An item with several first steps, whose lanes are still to be opened.
    pub const ENTRY: i16 = -1;
    /// A run whose steps have ended and whose output is still to be computed.
    pub const FINISH: i16 = -2;
    /// A new attempt.
    pub const FRESH: i16 = 0;
    /// The step's timer has run out.
    pub const DUE: i16 = 1;
    /// The map's items have ended.
    pub const FILLED: i16 = 2;
}

/// A lane just leased, with its scope's state as of that moment; none for an item whose body is one step.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub lease: Lease,
    pub state: Option<VersionedState>,
}

/// A scope's state and the version that guards its next transition.
#[derive(Clone, Debug)]
pub(crate) struct VersionedState {
    pub version: i32,
    pub frame: FrameState,
}

impl Claimed {
    /// Reads a row of `claim_v1`, `complete_v1`, … by position.
    pub fn read(row: &PgRow, token: i64) -> Result<Self, sqlx::Error> {
        use sqlx::Row;
        let lease = Lease {
            run: RunId(row.try_get(0)?),
            scope: ScopePath(row.try_get(1)?),
            lane: row.try_get(2)?,
            token,
            version: VersionId(row.try_get(3)?),
            step: row.try_get(4)?,
            phase: row.try_get(5)?,
            attempt: row.try_get::<i32, _>(6)?.unsigned_abs(),
            counters: Counters { failures: row.try_get::<i16, _>(7)?.unsigned_abs(), losses: row.try_get::<i16, _>(8)?.unsigned_abs() },
            queue: row.try_get(9)?,
            priority: row.try_get(10)?,
            bundle: row.try_get(14)?,
            overdue: Duration::from_millis(row.try_get::<i64, _>(11)?.max(0).unsigned_abs()),
        };
        let state = match (row.try_get::<Option<i32>, _>(12)?, row.try_get::<Option<&[u8]>, _>(13)?) {
            (Some(version), Some(bytes)) => Some(VersionedState { version, frame: decode(bytes)? }),
            _ => None,
        };
        Ok(Self { lease, state })
    }
}

/// Decodes a scope's state; bytes that are none were written by something else than this engine.
pub(crate) fn decode(bytes: &[u8]) -> Result<FrameState, sqlx::Error> {
    FrameState::decode(bytes).ok_or_else(|| sqlx::Error::Decode("scope_state.steps is not a frame's state".into()))
}
