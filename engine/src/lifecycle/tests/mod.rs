//! The rules against their tables, and against an interpreter that was written from the tables alone.

mod frame;
pub(crate) mod graph;
mod joins;
mod outcome;
mod play;
mod properties;
mod reference;
mod restore;
mod run;
