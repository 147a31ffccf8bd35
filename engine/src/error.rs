//! What can go wrong, split by what the caller can do about it.

use crate::definition::Problem;
use serde::{Deserialize, Serialize};

/// An error's causes in one line, from the outermost inwards. Many an error repeats its cause in its own words: each is said once.
pub fn said_once(causes: impl IntoIterator<Item = String>) -> String {
    causes.into_iter().fold(String::new(), |said, cause| match (said.is_empty(), said.contains(&cause)) {
        (true, _) => cause,
        (_, true) => said,
        (_, false) => format!("{said}: {cause}"),
    })
}

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thing named does not exist in the caller's workspace.
    #[error("no {what} `{name}`")]
    NotFound {
        /// `run`, `workflow`, `dead letter`, …
        what: &'static str,
        /// As the caller named it.
        name: String,
    },
    /// The thing exists, but not in a state that allows this; nothing was changed.
    #[error("{0}")]
    Conflict(String),
    /// The caller's input is wrong; every problem is listed and nothing was changed.
    #[error("{}", summary(.0))]
    Invalid(Vec<Problem>),
    /// The lease that a write was guarded by is no longer held; nothing was changed.
    #[error("the lease was lost")]
    LeaseLost,
    /// The database refused or could not be reached.
    // Said by this error and therefore no `source` of it: a chain of causes would name it twice.
    #[error("database: {}", told(.0))]
    Store(sqlx::Error),
    /// The database's schema is not the one this binary knows.
    #[error("{0}")]
    Schema(String),
    /// A rule of the engine was broken: a bug, or a database changed by hand.
    #[error("internal: {0}")]
    Internal(String),
}

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Shorthand for [`Error::NotFound`].
    pub fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string() }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error)
    }
}

/// What the database says, led by what it means where PostgreSQL leaves that to be found out.
fn told(error: &sqlx::Error) -> String {
    let meaning = match error.as_database_error().and_then(|e| e.code()).as_deref() {
        Some("53100") => "its disk is full",
        Some("53300") => "it takes no more connections",
        _ => return error.to_string(),
    };
    format!("{meaning}: {error}")
}

fn summary(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        [] => "invalid".into(),
    }
}

/// Why an attempt failed. The same names in files, database, API and console.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "krowoc.error_class", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the documentation; docs/language.md has the table")]
pub enum ErrorClass {
    RateLimited,
    Overloaded,
    ServerError,
    Network,
    Timeout,
    SchemaInvalid,
    Lost,
    QuotaExhausted,
    ContextTooLong,
    Refused,
    Auth,
    InvalidRequest,
    Expression,
    TooLarge,
    Internal,
    TotalTimeout,
    BudgetExceeded,
    Rejected,
    Expired,
    ToleranceExceeded,
    ChildFailed,
    RunTimeout,
}

impl ErrorClass {
    /// Every class, for tables and suggestions.
    pub const ALL: [Self; 22] = [
        Self::RateLimited,
        Self::Overloaded,
        Self::ServerError,
        Self::Network,
        Self::Timeout,
        Self::SchemaInvalid,
        Self::Lost,
        Self::QuotaExhausted,
        Self::ContextTooLong,
        Self::Refused,
        Self::Auth,
        Self::InvalidRequest,
        Self::Expression,
        Self::TooLarge,
        Self::Internal,
        Self::TotalTimeout,
        Self::BudgetExceeded,
        Self::Rejected,
        Self::Expired,
        Self::ToleranceExceeded,
        Self::ChildFailed,
        Self::RunTimeout,
    ];

    /// The name in files, database and API.
    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::ServerError => "server_error",
            Self::Network => "network",
            Self::Timeout => "timeout",
            Self::SchemaInvalid => "schema_invalid",
            Self::Lost => "lost",
            Self::QuotaExhausted => "quota_exhausted",
            Self::ContextTooLong => "context_too_long",
            Self::Refused => "refused",
            Self::Auth => "auth",
            Self::InvalidRequest => "invalid_request",
            Self::Expression => "expression",
            Self::TooLarge => "too_large",
            Self::Internal => "internal",
            Self::TotalTimeout => "total_timeout",
            Self::BudgetExceeded => "budget_exceeded",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::ToleranceExceeded => "tolerance_exceeded",
            Self::ChildFailed => "child_failed",
            Self::RunTimeout => "run_timeout",
        }
    }

    /// Is an exhausted step of this class put into the dead letters?
    pub fn leaves_dead_letter(self) -> bool {
        !matches!(self, Self::Rejected | Self::Expired | Self::ToleranceExceeded | Self::ChildFailed | Self::RunTimeout)
    }
}

impl std::fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_causes_names_each_once() {
        let error = Error::from(sqlx::Error::Io(std::io::Error::other("no route")));
        let chain = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source()).map(|e| e.to_string());
        let said = chain.collect::<Vec<_>>().join(": ");
        assert_eq!(said.matches("no route").count(), 1, "{said}");
    }
}
