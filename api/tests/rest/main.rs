//! REST on a real database, with a worker in the process.

mod errors;
mod events;
mod letters;
mod place;
mod runs;
mod starts;
mod workflows;
