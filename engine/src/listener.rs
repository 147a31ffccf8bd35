//! Hints from the database: work is ready, a run is being stopped. They only shorten a wait; polling finds what a lost hint announced.

use crate::{error::Result, id::RunId};
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use std::{io, time::Duration};

/// What a notification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Steps may be ready.
    Ready,
    /// Attempts of this run are to stop.
    Stopped(RunId),
}

/// How long what is said elsewhere may be on its way.
const HEARD: Duration = Duration::from_secs(2);

/// Listens on a connection of its own. A pooler that hands out connections by transaction takes what it asked for and delivers nothing;
/// therefore it is only one once it has heard something.
pub struct Listener(PgListener);

impl Listener {
    /// Connects `at` this place and subscribes; an error if what is said in `database` is not heard there.
    pub async fn connect(at: &PgConnectOptions, database: &PgConnectOptions) -> Result<Self> {
        let pool = PgPoolOptions::new().max_connections(1).connect_with(at.clone()).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        let trial = format!("krowoc_trial_{}", uuid::Uuid::new_v4().simple());
        listener.listen_all(["krowoc_ready", "krowoc_stop", &trial]).await?;
        // Said on another connection: what a connection says to itself comes back through any pooler.
        let mut other = PgConnection::connect_with(database).await?;
        sqlx::query("SELECT pg_notify($1, '')").bind(&trial).execute(&mut other).await?;
        other.close().await?;
        let heard = async {
            while listener.recv().await?.channel() != trial {}
            Ok::<_, sqlx::Error>(())
        };
        tokio::time::timeout(HEARD, heard).await.map_err(|_| {
            let message = "notifications do not arrive here, as behind a transaction pooler";
            sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message))
        })??;
        listener.unlisten(&trial).await?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestDatabase;

    #[tokio::test]
    async fn who_would_hear_nothing_does_not_take_itself_for_a_listener() {
        let url = krowoc_postgres::testing::cluster().expect("a server");
        let (here, elsewhere) = (TestDatabase::create(&url).await.expect("one"), TestDatabase::create(&url).await.expect("another"));
        Listener::connect(&here.options(), &here.options()).await.map(drop).expect("heard");
        // Notifications do not leave their database, as they do not pass a transaction pooler.
        let error = Listener::connect(&elsewhere.options(), &here.options()).await.map(drop).expect_err("deaf");
        assert!(error.to_string().contains("notifications do not arrive"), "{error}");
        here.drop_database().await.expect("dropped");
        elsewhere.drop_database().await.expect("dropped");
    }
}
