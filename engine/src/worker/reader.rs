//! Connections for reads beside the hot path: a map's end. Few at once, each kept for the next, and made again where the database went
//! away: a read that failed says nothing about the step that it was for.

use super::reconnect::{Reconnect, connect};
use crate::{
    error::{Error, ErrorClass, Result},
    executor::StepError,
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

/// What was used a moment ago is taken to work; what lay idle for longer is asked first.
const FRESH: Duration = Duration::from_secs(1);

/// A few connections, and turns to use them.
pub(crate) struct Readers {
    options: PgConnectOptions,
    at_once: usize,
    turns: Semaphore,
    idle: Mutex<Vec<(PgConnection, Instant)>>,
    warmed: AtomicBool,
}

impl Readers {
    pub fn new(options: PgConnectOptions, at_once: usize) -> Self {
        Self { options, at_once, turns: Semaphore::new(at_once), idle: Mutex::default(), warmed: AtomicBool::new(false) }
    }

    /// Waits its turn, however long the others take: a step that is cancelled is dropped while it waits.
    pub async fn turn<'a>(&'a self, cancelled: &'a CancellationToken) -> Reader<'a> {
        // Nobody closes the semaphore.
        let turn = self.turns.acquire().await.ok();
        Reader { readers: self, cancelled, reconnect: Reconnect::new("reader", &self.options), conn: None, _turn: turn }
    }

    /// True once: whoever hears it makes a connection ready for those who read later.
    pub fn is_cold(&self) -> bool {
        !self.warmed.swap(true, Relaxed)
    }

    /// A connection that nobody has used.
    pub async fn connect(&self) -> Result<PgConnection> {
        connect(&self.options).await
    }

    /// Keeps a connection for the next.
    pub fn keep(&self, conn: PgConnection) {
        let mut idle = self.idle();
        if idle.len() < self.at_once {
            idle.push((conn, Instant::now()));
        }
    }

    /// Closes what nobody uses: it belongs to threads that are gone.
    pub fn forget(&self) {
        self.idle().clear();
    }

    async fn kept(&self) -> Option<PgConnection> {
        loop {
            let (mut conn, since) = self.idle().pop()?;
            if since.elapsed() < FRESH || matches!(tokio::time::timeout(FRESH, conn.ping()).await, Ok(Ok(()))) {
                return Some(conn);
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(PgConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn. Dropped in the middle of a read, it closes its connection.
pub(super) struct Reader<'a> {
    readers: &'a Readers,
    cancelled: &'a CancellationToken,
    reconnect: Reconnect,
    conn: Option<PgConnection>,
    _turn: Option<SemaphorePermit<'a>>,
}

impl Reader<'_> {
    /// A connection, as soon as one can be had; none once the step is cancelled.
    pub async fn connection(&mut self) -> Option<&mut PgConnection> {
        if self.cancelled.is_cancelled() {
            return None;
        }
        if self.conn.is_none() {
            self.conn = match self.readers.kept().await {
                Some(conn) => Some(conn),
                None => self.reconnect.connect(self.cancelled).await,
            };
        }
        self.conn.as_mut()
    }

    /// The read brought what it should.
    pub fn succeeded(&mut self) {
        self.reconnect.succeeded();
    }

    /// The read failed: it is to be tried again, unless what is stored can't be read by anybody.
    pub fn failed(&mut self, error: Error) -> Result<(), StepError> {
        self.conn = None;
        if is_permanent(&error) {
            return Err(StepError::new(ErrorClass::Internal, format!("what is stored of the step can't be read: {error}")));
        }
        // What the others have left is as old.
        self.readers.forget();
        self.reconnect.failed(&error);
        Ok(())
    }

    /// Leaves the connection to the next.
    pub fn done(mut self) {
        if let Some(conn) = self.conn.take() {
            self.readers.keep(conn);
        }
    }
}

/// Will the same read fail the same way for ever? A database that is away, full or starting comes back; data of the wrong kind stays so.
fn is_permanent(error: &Error) -> bool {
    match error {
        Error::Store(sqlx::Error::Database(e)) => e.code().is_some_and(|code| ["22", "54"].iter().any(|class| code.starts_with(class))),
        Error::Store(e) => matches!(e, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_however_long_the_others_take() {
        let readers = Readers::new(PgConnectOptions::new(), 2);
        let cancelled = CancellationToken::new();
        let (first, _second) = (readers.turn(&cancelled).await, readers.turn(&cancelled).await);
        let mut third = std::pin::pin!(readers.turn(&cancelled));
        // An hour of the test's own clock.
        assert!(tokio::time::timeout(Duration::from_secs(3600), third.as_mut()).await.is_err());
        drop(first);
        third.await;
    }

    #[test]
    fn only_what_nobody_can_read_is_given_up() {
        let mut reader = Error::Store(sqlx::Error::Decode("no payload".into()));
        assert!(is_permanent(&reader));
        for passing in [sqlx::Error::PoolTimedOut, sqlx::Error::WorkerCrashed, sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())]
        {
            reader = Error::Store(passing);
            assert!(!is_permanent(&reader), "{reader}");
        }
    }
}
