//! Two transactions may get in each other's way although each takes its locks in order: rows that one of them has just made have no order
//! yet. The database undoes one; its caller did nothing wrong, so the command begins again.

use crate::error::Error;

/// How often a command may begin again.
const MOST: u32 = 5;

/// How often it has.
#[derive(Default)]
pub(crate) struct Tries(u32);

impl Tries {
    /// Shall the command begin again after this error?
    pub fn another(&mut self, error: &Error) -> bool {
        is_contention(error) && self.left()
    }

    /// May the command begin again, now that what it found had changed under its eyes?
    pub fn left(&mut self) -> bool {
        self.0 += 1;
        self.0 <= MOST
    }
}

/// Was the transaction undone for the sake of another: a deadlock, or a failure to serialize?
fn is_contention(error: &Error) -> bool {
    match error {
        Error::Store(sqlx::Error::Database(e)) => e.code().is_some_and(|code| code == "40P01" || code == "40001"),
        _ => false,
    }
}
