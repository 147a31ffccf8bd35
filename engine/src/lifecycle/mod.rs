//! Every rule of run and step state, pure: no I/O, no clock, chance passed in. The same functions decide for a step that just ended,
//! for a lease that expired and for a run that is opened again.
//!
//! [`frame`] says which steps may run when one has ended (by the table in `join`) and when a frame is over, and `restore` puts a frame
//! together again for a redrive or a fork; [`outcome`] says what the end of an attempt means for its step; [`run`] is the run's own state
//! machine. PostgreSQL repeats the states as enums and CHECKs.

pub mod frame;
mod join;
pub mod outcome;
mod restore;
pub mod run;
pub mod seconds;
#[cfg(test)]
pub(crate) mod tests;

pub use frame::{Advance, Ended, FrameEnd, FrameState, Illegal, StepEvent, StepState};
pub use outcome::{AttemptEnd, Counters, Verdict};
pub use run::{RunEvent, RunStatus};
