//! Errors of the database, by what whoever asked can do about them.

use super::{Code, Said};
use sqlx::Error;

/// A database that is away or comes back comes first; the caller's text that it can't hold is the caller's; all else is a fault.
pub(super) fn said(error: &Error) -> Said {
    let state = error.as_database_error().and_then(|e| e.code());
    match (error, state.as_deref()) {
        (Error::Io(_) | Error::Tls(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed, _) => away(),
        (_, Some(state)) if is_away(state) => away(),
        // A NUL, which PostgreSQL's text has no place for.
        (_, Some("22021" | "22P05")) => Said::new(Code::Invalid, "a text holds a character that can't be stored (U+0000)"),
        _ => Said::fault(),
    }
}

fn away() -> Said {
    Said::new(Code::Unavailable, "the database can't be reached; nothing is known to have changed, and the same request may be sent again")
}

/// PostgreSQL's class 08 (connection), 57P (shutdown, starting up), 53 (too many connections, no room), 25006 (a standby), and 40 (a
/// deadlock or a conflict that a command has not got over by itself).
fn is_away(state: &str) -> bool {
    ["08", "57P", "53", "25006", "40"].iter().any(|class| state.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_a_fault() {
        for state in ["08006", "57P01", "57P03", "53300", "25006", "40P01"] {
            assert!(is_away(state), "{state}");
        }
        for state in ["42P01", "23505", "22003", "57014"] {
            assert!(!is_away(state), "{state}");
        }
        assert_eq!(said(&Error::PoolTimedOut).code, Code::Unavailable);
        assert_eq!(said(&Error::RowNotFound).code, Code::Internal);
    }
}
