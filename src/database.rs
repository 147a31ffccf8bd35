//! The engine on the database that the configuration names: the user's own, or the private one, which is joined and left.

use crate::{
    config::{Config, Database},
    failure::CONNECTIONS,
};
use anyhow::{Context, bail};
use krowoc_engine::{Engine, executor::StepKinds};
use krowoc_postgres::{DATABASE, Local, LocalConfig};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{path::Path, str::FromStr, sync::Arc, time::Duration};
use tokio_util::task::AbortOnDropHandle;

/// How long the first connection may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is seen whether the private server still runs.
const LOOK: Duration = Duration::from_secs(2);

/// An engine, and the share of the private server that it stands on.
pub struct Session {
    /// The engine.
    pub engine: Engine,
    private: Option<Private>,
}

/// A share of the private server, and who starts it again when it has died under everybody.
struct Private {
    local: Arc<Local>,
    keeper: AbortOnDropHandle<()>,
}

impl Private {
    async fn join(home: &Path) -> anyhow::Result<Self> {
        let join = || LocalConfig::new(home);
        let local = Arc::new(Local::join(join()).await.context("the private PostgreSQL could not be started")?);
        let (watched, config) = (local.clone(), join());
        let keeper = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                if !watched.is_running() {
                    restart(config.clone()).await;
                }
            }
        }));
        Ok(Self { local, keeper })
    }

    /// Leaves it; the last one out stops it.
    async fn leave(self) -> anyhow::Result<()> {
        self.keeper.abort();
        // Whoever was just starting it again holds it until that is done.
        let _ = self.keeper.await;
        if let Some(local) = Arc::into_inner(self.local) {
            local.leave().await?;
        }
        Ok(())
    }
}

/// Another share starts a server that is not there; the first one keeps it.
async fn restart(config: LocalConfig) {
    tracing::warn!("the private PostgreSQL has stopped; starting it again");
    match Local::join(config).await {
        Ok(again) => match again.leave().await {
            Ok(_) => tracing::warn!("the private PostgreSQL runs again"),
            Err(error) => tracing::warn!(%error, "after starting the private PostgreSQL again"),
        },
        Err(error) => tracing::error!(%error, "the private PostgreSQL could not be started again"),
    }
}

impl Session {
    /// Opens a session for some work and closes it, however the work ends.
    pub async fn with<T>(config: &Config, work: impl AsyncFnOnce(&Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let session = Self::open(config).await?;
        let done = work(&session).await;
        let closed = session.close().await;
        // What went wrong first tells more.
        let value = done?;
        closed?;
        Ok(value)
    }

    /// Connects. A private database is brought to this binary's schema; the user's own is only checked, since `krowoc migrate` is theirs
    /// to run.
    pub async fn open(config: &Config) -> anyhow::Result<Self> {
        Self::open_with(config, config.step_kinds()).await
    }

    /// The same, with these kinds.
    pub async fn open_with(config: &Config, kinds: StepKinds) -> anyhow::Result<Self> {
        let session = Self::connect_with(config, kinds).await?;
        match session.private {
            Some(_) => session.engine.migrate().await?,
            None => session.engine.check_schema().await?,
        }
        Ok(session)
    }

    /// Connects without looking at the schema.
    pub async fn connect(config: &Config) -> anyhow::Result<Self> {
        Self::connect_with(config, config.step_kinds()).await
    }

    async fn connect_with(config: &Config, kinds: StepKinds) -> anyhow::Result<Self> {
        let (url, private) = match &config.database {
            Database::Given(url) => (url.clone(), None),
            Database::Private(home) => {
                let private = Private::join(home).await?;
                (private.local.url(DATABASE), Some(private))
            }
        };
        let options = options("DATABASE_URL", &url)?;
        reach(&options).await?;
        let engine = Engine::connect(options, kinds, 8).await.context("the database can't be reached")?;
        let engine = match &config.listen_url {
            Some(url) => engine.listening_at(self::options("KROWOC_LISTEN_URL", url)?),
            None => engine,
        };
        Ok(Self { engine, private })
    }

    /// Closes connections and leaves the private server; the last one out stops it.
    pub async fn close(self) -> anyhow::Result<()> {
        self.engine.pool().close().await;
        match self.private {
            Some(private) => private.leave().await,
            None => Ok(()),
        }
    }
}

fn options(name: &str, url: &str) -> anyhow::Result<PgConnectOptions> {
    // The URL may hold a password: it is not part of any message.
    let options = PgConnectOptions::from_str(url).map_err(|_| anyhow::anyhow!("{name} is not a PostgreSQL URL"))?;
    // As the URL has it, if it has one.
    let options = if options.get_application_name().is_some() { options } else { options.application_name("krowoc") };
    // Poolers refuse what else is sent at the start of a connection.
    Ok(options.extra_float_digits(None))
}

/// First connections say at once what a pool would only say after half a minute of trying, or in the middle of its work.
async fn reach(options: &PgConnectOptions) -> anyhow::Result<()> {
    let failure = match tokio::time::timeout(PATIENCE, try_statements(options)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => sqlx::Error::Protocol(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    let (place, database) = place(options);
    if is_statement_lost(&failure) {
        bail!(
            "before PostgreSQL at {place} stands a pooler that mixes up the prepared statements of its clients: {failure}\n\
             PgBouncer 1.21 and newer keeps them apart where `max_prepared_statements` is above 0; older ones must pool by session"
        );
    }
    if failure.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == "53300") {
        bail!("PostgreSQL at {place} takes no more connections: {failure}\n{CONNECTIONS}");
    }
    let failure = match failure {
        sqlx::Error::Protocol(message) => message,
        error => error.to_string(),
    };
    bail!(
        "PostgreSQL at {place}, database `{database}`, can't be reached as user `{}`: {failure}\n\
         See whether it runs (`pg_isready -d \"$DATABASE_URL\"`) and whether DATABASE_URL names it rightly;\n\
         without DATABASE_URL krowoc runs a private PostgreSQL of its own",
        options.get_username()
    )
}

/// Two connections give the same name to two statements. A pooler that hands out one server connection to both and does not know of
/// statements lets the second find the first one's; or carries out the wrong one, later and unnoticed.
async fn try_statements(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let mut first = PgConnection::connect_with(options).await?;
    sqlx::query("SELECT 1").execute(&mut first).await?;
    let mut second = PgConnection::connect_with(options).await?;
    sqlx::query("SELECT 2").execute(&mut second).await?;
    second.close().await?;
    first.close().await
}

/// `duplicate_prepared_statement`, `invalid_sql_statement_name`
fn is_statement_lost(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == "42P05" || code == "26000")
}

/// Where a database is and what it is called: what may be shown of a URL.
pub fn place(options: &PgConnectOptions) -> (String, &str) {
    let place = match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    (place, options.get_database().unwrap_or(options.get_username()))
}
