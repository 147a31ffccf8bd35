//! The engine's guarantees against real faults: worker processes that are killed or frozen, a durable PostgreSQL that is restarted, callers
//! that race. One file per guarantee; the header of each names the guard that it protects and that was removed once to see it turn red.
//! `docs/reliability.md` has the table.
//!
//! [`process`] is the worker process, [`ledger`] what its steps write outside the engine, [`world`] a database with such processes around
//! it, [`verify`] the comparison of the ledger with the database.

mod cancel;
mod dead_letters;
mod frozen;
mod idempotency;
mod kill_9;
mod ledger;
mod process;
mod restart;
mod verify;
mod workflows;
mod world;
