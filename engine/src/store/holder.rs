//! Who leases what: every lease names its worker and the transaction that gave it.

use crate::patience::{patience, within};
use std::time::Duration;

/// Who leases, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant {
    pub worker: i32,
    pub lease_s: f64,
}

impl Claimant {
    /// For one transaction: what it leases is known by its token, also where nobody heard whether it was committed.
    pub fn holder(self) -> Holder {
        Holder { token: new_token(), worker: self.worker, lease_s: self.lease_s }
    }

    /// Waits for an answer, but no longer than what it leases would last.
    pub async fn in_time<T, E: From<sqlx::Error>>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        within(patience(Duration::from_secs_f64(self.lease_s)), work).await
    }
}

/// Who leases what in a transaction, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub token: i64,
    pub worker: i32,
    pub lease_s: f64,
}

impl Holder {
    /// As [`Claimant::in_time`].
    pub async fn in_time<T, E: From<sqlx::Error>>(self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        Claimant { worker: self.worker, lease_s: self.lease_s }.in_time(work).await
    }
}

/// A token that no other lease has.
fn new_token() -> i64 {
    // 63 random bits; the sign is kept clear so that a token reads well in a log.
    (uuid::Uuid::new_v4().as_u64_pair().1 >> 1) as i64
}
