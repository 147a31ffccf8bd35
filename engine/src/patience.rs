//! How long an answer of the database is waited for: a connection whose other end is gone may never say so.

use std::{io::ErrorKind, time::Duration};

/// For a statement beside leases of this length. What it leases would be lost by then; and no statement of the hot path takes half as long on
/// a server that works.
pub(crate) fn patience(lease: Duration) -> Duration {
    lease.clamp(Duration::from_secs(5), Duration::from_secs(30))
}

/// What does not answer in time has failed, and its connection with it: the work was dropped in the middle.
pub(crate) async fn within<T, E: From<sqlx::Error>>(limit: Duration, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let silence = || sqlx::Error::Io(std::io::Error::new(ErrorKind::TimedOut, format!("no answer within {limit:?}")));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(silence().into()))
}
