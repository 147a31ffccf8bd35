//! Hints from the database: work is ready, a run is being stopped. They only shorten a wait; polling finds what a lost hint announced.

use crate::{error::Result, id::RunId};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};

/// What a notification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Steps may be ready.
    Ready,
    /// Attempts of this run are to stop.
    Stopped(RunId),
}

/// Listens on a connection of its own, which must not go through a transaction pooler.
pub struct Listener(PgListener);

impl Listener {
    /// Connects and subscribes.
    pub async fn connect(options: &PgConnectOptions) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen_all(["krowoc_ready", "krowoc_stop"]).await?;
        Ok(Self(listener))
    }

    /// The next hint. A lost connection is made again; what was said in between is lost, so that counts as "look".
    pub async fn next(&mut self) -> Hint {
        loop {
            match self.0.try_recv().await {
                Ok(Some(said)) if said.channel() == "krowoc_stop" => {
                    if let Ok(run) = said.payload().parse() {
                        return Hint::Stopped(run);
                    }
                }
                Ok(_) => return Hint::Ready,
                Err(e) => {
                    tracing::debug!(error = %e, "listening failed; polling goes on");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    return Hint::Ready;
                }
            }
        }
    }
}
