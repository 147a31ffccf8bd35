//! Guarantee: the command line runs, shows and mends runs against a real PostgreSQL; exit codes and `--json` are what scripts rely on, and
//! every error says what to do next.

mod errors;
mod place;
mod runs;
