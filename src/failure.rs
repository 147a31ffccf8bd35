//! How a command that failed ends: what it says, what to do next where the error itself can't know the command line, and its exit code.

use crate::output;
use krowoc_engine::{Error, error::said_once};
use std::{fmt, process::ExitCode};

/// The command line was wrong in a way that only the work with it shows.
#[derive(Debug)]
pub struct WrongUsage(pub String);

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}

/// Says what went wrong. Every error is a failure: a reader of the output that has gone is none to begin with (see [`output`]).
pub fn report(error: &anyhow::Error) -> ExitCode {
    output::note(format!("error: {}", causes(error)));
    if let Some(advice) = next_step(error) {
        output::note(advice);
    }
    // As clap has it.
    if error.is::<WrongUsage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// An error with its causes.
pub fn causes(error: &anyhow::Error) -> String {
    said_once(error.chain().map(ToString::to_string))
}

/// What to do when the database takes no more connections.
pub const CONNECTIONS: &str = "Try again when some are free, or raise PostgreSQL's max_connections; \
     `SELECT application_name, count(*) FROM pg_stat_activity GROUP BY 1` shows who holds them";

/// The next step for whoever sees this error.
fn next_step(error: &anyhow::Error) -> Option<&'static str> {
    match error.chain().find_map(|cause| cause.downcast_ref::<Error>())? {
        Error::NotFound { what: "run", .. } => Some("`krowoc runs list` shows the runs there are"),
        Error::NotFound { what: "dead letter", .. } => Some("`krowoc dlq list --state all` shows the dead letters there are"),
        Error::NotFound { what: "workflow" | "workflow version", .. } => Some("`krowoc apply FILE` registers a workflow"),
        Error::Store(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => {
            Some("The connection to PostgreSQL was lost: see whether it runs, then try again; nothing that was recorded is lost")
        }
        Error::Store(sqlx::Error::Database(error)) => match error.code().as_deref() {
            Some("53100") => Some("Free space on PostgreSQL's disk, then try again; what was accepted before goes on by itself"),
            Some("53300") => Some(CONNECTIONS),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::io;

    fn broken(kind: io::ErrorKind) -> anyhow::Error {
        anyhow::Error::from(Error::Store(sqlx::Error::Io(kind.into()))).context("showing it")
    }

    #[test]
    fn what_is_not_there_names_the_list_to_look_in() {
        let error = Err::<(), _>(Error::not_found("run", 7)).context("showing it").expect_err("an error");
        assert!(next_step(&error).is_some_and(|advice| advice.contains("krowoc runs list")));
        assert_eq!(next_step(&anyhow::anyhow!("else")), None);
    }

    #[test]
    fn a_database_connection_that_breaks_is_a_failure() {
        assert_eq!(report(&broken(io::ErrorKind::BrokenPipe)), ExitCode::FAILURE);
    }

    #[test]
    fn each_cause_is_said_once() {
        let repeated = anyhow::anyhow!("refused").context("connecting: refused").context("showing it");
        assert_eq!(causes(&repeated), "showing it: connecting: refused");
        assert_eq!(causes(&anyhow::anyhow!("a").context("b").context("c")), "c: b: a");
    }

    #[test]
    fn a_wrong_command_line_ends_as_claps_do() {
        let wrong = anyhow::Error::from(WrongUsage("--input: none".into()));
        assert_eq!((report(&wrong), causes(&wrong)), (ExitCode::from(2), "--input: none".into()));
    }
}
