//! A task's connection, made again after an error with growing pauses. The only place that uses the `backoff` crate: a step's retry is a
//! row with a time, never a sleeping task.

use crate::error::Error;
use backoff::{ExponentialBackoff, backoff::Backoff};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub(super) struct Reconnect {
    task: &'static str,
    options: PgConnectOptions,
    pauses: ExponentialBackoff,
    pause: Option<Duration>,
}

impl Reconnect {
    pub fn new(task: &'static str, options: &PgConnectOptions) -> Self {
        let pauses = ExponentialBackoff {
            initial_interval: Duration::from_millis(50),
            max_interval: Duration::from_secs(2),
            // Never give up: leases and retries are bounded elsewhere, the database comes back when it does.
            max_elapsed_time: None,
            ..Default::default()
        };
        Self { task, options: options.clone(), pauses, pause: None }
    }

    /// A connection, as soon as one can be had; none once `closed` fires.
    pub async fn connect(&mut self, closed: &CancellationToken) -> Option<PgConnection> {
        loop {
            if let Some(pause) = self.pause.take() {
                tokio::select! {
                    () = closed.cancelled() => return None,
                    () = tokio::time::sleep(pause) => {}
                }
            }
            if closed.is_cancelled() {
                return None;
            }
            match PgConnection::connect_with(&self.options).await {
                Ok(conn) => return Some(conn),
                Err(e) => self.failed(&e.into()),
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
        self.pauses.reset();
    }
}
