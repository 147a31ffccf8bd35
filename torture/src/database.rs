//! A scratch database on a server, and what the engine itself finds wrong in it.

use anyhow::{Context, Result, bail};
use krowoc_engine::commands;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{str::FromStr, time::Duration};

/// How long a server may take to answer the first time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A database of a scenario's own.
#[derive(Clone)]
pub struct Database {
    server: PgConnectOptions,
    /// The way for everybody, where it is not the direct one.
    way: Option<PgConnectOptions>,
    name: String,
}

impl Database {
    /// Makes one beside the database of a URL, which is left alone. It has no schema yet.
    pub(crate) async fn create(url: &str, prefix: &str, scenario: &str) -> Result<Self> {
        let server = options(url)?;
        let unique = uuid::Uuid::new_v4().as_fields().0;
        let name = format!("{prefix}{}_{unique:08x}", scenario.replace('-', "_"));
        let mut admin = connect(&server).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.context("making a database")?;
        admin.close().await?;
        Ok(Self { server, way: None, name })
    }

    /// From here on it is reached by another way, such as a pooler; it is still made and dropped directly.
    pub fn by_way_of(self, url: &str) -> Result<Self> {
        // Poolers refuse what else is sent at the start of a connection.
        Ok(Self { way: Some(options(url)?.extra_float_digits(None)), ..self })
    }

    /// Gives it the schema.
    pub async fn migrate(&self) -> Result<()> {
        let mut conn = connect(&self.options()).await?;
        commands::migrate(&mut conn).await?;
        conn.close().await?;
        Ok(())
    }

    /// Drops every database on a server whose name begins so. Somebody has died who would have.
    pub(crate) async fn drop_all(url: &str, prefix: &str) -> Result<()> {
        let server = options(url)?;
        let mut admin = connect(&server).await?;
        let names: Vec<String> =
            sqlx::query_scalar("SELECT datname FROM pg_database WHERE starts_with(datname, $1)").bind(prefix).fetch_all(&mut admin).await?;
        admin.close().await?;
        for name in names {
            Self { server: server.clone(), way: None, name }.drop_database().await?;
        }
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How to connect to it.
    pub fn options(&self) -> PgConnectOptions {
        self.way.as_ref().unwrap_or(&self.server).clone().database(&self.name)
    }

    /// How to connect to it directly, where that is another way.
    pub fn direct_options(&self) -> Option<PgConnectOptions> {
        self.way.as_ref().map(|_| self.server.clone().database(&self.name))
    }

    /// Drops it, whoever is still connected.
    pub async fn drop_database(self) -> Result<()> {
        let mut admin = connect(&self.server).await?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name))).execute(&mut admin).await?;
        admin.close().await?;
        Ok(())
    }

    /// Every broken rule in the database at rest, as text; empty when all hold.
    pub async fn violations(&self) -> Result<Vec<String>> {
        let mut conn = connect(&self.options()).await?;
        let rows: Vec<(String, Option<uuid::Uuid>, String)> =
            sqlx::query_as("SELECT rule, run_id, detail FROM krowoc.check_invariants()").fetch_all(&mut conn).await?;
        Ok(rows.into_iter().map(|(rule, run, detail)| format!("{rule}: run {run:?}: {detail}")).collect())
    }
}

/// Says why the server of a URL can't serve; anything else is left for later.
pub(crate) async fn check(url: &str) -> Result<()> {
    let options = options(url)?;
    let mut conn = connect(&options).await?;
    let may: bool =
        sqlx::query_scalar("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user").fetch_one(&mut conn).await?;
    conn.close().await?;
    if !may {
        bail!(
            "the user `{user}` of DATABASE_URL may not create databases, and torture touches none that it has not made\n\
             As a superuser: ALTER ROLE \"{user}\" CREATEDB; or leave out DATABASE_URL, and it runs on a server of its own",
            user = options.get_username()
        );
    }
    Ok(())
}

fn options(url: &str) -> Result<PgConnectOptions> {
    // The URL may hold a password: it is not part of any message.
    PgConnectOptions::from_str(url).map_err(|_| anyhow::anyhow!("this is not a PostgreSQL URL"))
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection> {
    let connected = tokio::time::timeout(PATIENCE, PgConnection::connect_with(options)).await;
    connected.context("the database does not answer")?.context("the database can't be reached")
}
