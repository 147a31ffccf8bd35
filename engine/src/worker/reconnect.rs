//! A task's connection, made again after an error with growing pauses. The only place that uses the `backoff` crate: a step's retry is a
//! row with a time, never a sleeping task.

use crate::{
    error::{Error, Result},
    patience::within,
};
use backoff::{ExponentialBackoff, backoff::Backoff};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A server that has not let anybody in after this long is asked anew: what took the connection may not be there any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection, within bounded time.
pub(super) async fn connect(options: &PgConnectOptions) -> Result<PgConnection> {
    within(PATIENCE, async { Ok(PgConnection::connect_with(options).await?) }).await
}

pub(super) struct Reconnect {
    task: &'static str,
    options: PgConnectOptions,
    pauses: ExponentialBackoff,
    pause: Option<Duration>,
}

impl Reconnect {
    pub fn new(task: &'static str, options: &PgConnectOptions) -> Self {
        let mut pauses = ExponentialBackoff {
            initial_interval: Duration::from_millis(50),
            max_interval: Duration::from_secs(2),
            // Never give up: leases and retries are bounded elsewhere, the database comes back when it does.
            max_elapsed_time: None,
            ..Default::default()
        };
        pauses.reset();
        Self { task, options: options.clone(), pauses, pause: None }
    }

    /// With pauses no longer than this: for what must be back as soon as the database is.
    pub fn at_most(mut self, longest: Duration) -> Self {
        self.pauses.max_interval = longest;
        self
    }

    /// A connection, as soon as one can be had; none once `closed` fires.
    pub async fn connect(&mut self, closed: &CancellationToken) -> Option<PgConnection> {
        loop {
            let pause = self.pause.take();
            let attempt = async {
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
                connect(&self.options).await
            };
            let connected = tokio::select! {
                biased;
                () = closed.cancelled() => return None,
                connected = attempt => connected,
            };
            match connected {
                Ok(conn) => return Some(conn),
                Err(e) => self.failed(&e),
            }
        }
    }

    /// The connection's work failed: say so, and pause before the next.
    pub fn failed(&mut self, error: &Error) {
        let pause = self.pauses.next_backoff().unwrap_or(self.pauses.max_interval);
        tracing::warn!(task = self.task, %error, retry_in_ms = pause.as_millis() as u64, "database work failed; trying again");
        self.pause = Some(pause);
    }

    /// The connection works.
    pub fn succeeded(&mut self) {
        if self.pauses.current_interval != self.pauses.initial_interval {
            tracing::warn!(task = self.task, "the database answers again");
        }
        self.pauses.reset();
    }
}
