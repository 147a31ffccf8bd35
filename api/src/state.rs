//! What handlers are given: the engine, and on whose behalf a request asks.

use crate::{problem::Said, watch::Watch};
use krowoc_engine::{Engine, RunId, Scope, queries, starter::Starter, version::Version};
use poem::{FromRequest, Request, RequestBody, Result};
use sqlx::{PgConnection, Postgres, pool::PoolConnection};
use std::sync::Arc;

/// What every handler has at hand. Cloning it is free.
#[derive(Clone)]
pub struct Api {
    engine: Engine,
    watch: Watch,
    starter: Starter,
}

impl Api {
    /// On an engine. To be called where a runtime of tokio runs.
    pub fn new(engine: Engine) -> Self {
        Self { watch: Watch::new(&engine), starter: Starter::new(&engine), engine }
    }

    /// The engine, for commands.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Who wakes those that wait for runs to move.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Starts runs, those that are asked for at the same time together.
    pub fn starter(&self) -> &Starter {
        &self.starter
    }

    /// The version that a run is pinned to, for queries that look into it.
    pub async fn version_of(&self, conn: &mut PgConnection, scope: &Scope, run: RunId) -> Result<Arc<Version>, Said> {
        let version = queries::version_of(conn, scope, run).await?;
        Ok(self.engine.registry().versions.load(conn, version).await?)
    }

    /// A connection, for queries.
    pub async fn conn(&self) -> Result<PoolConnection<Postgres>, Said> {
        Ok(self.engine.pool().acquire().await?)
    }
}

/// Who asks. Set by the guard in front of a route; a route without one has no caller and refuses.
#[derive(Clone, Debug)]
pub struct Caller(pub Scope);

impl Caller {
    /// Whoever has the installation's token.
    pub fn with_token() -> Self {
        Self(Scope::local("api"))
    }

    /// What commands and queries are confined to.
    pub fn scope(&self) -> &Scope {
        &self.0
    }
}

impl<'a> FromRequest<'a> for Caller {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        let caller = request.data::<Self>().cloned();
        caller.ok_or_else(|| Said::fault().cause("a handler asked for its caller on a route without a guard").into())
    }
}
