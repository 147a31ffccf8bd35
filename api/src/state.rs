//! What handlers are given: the engine, and on whose behalf a request asks.

use crate::problem::Said;
use krowoc_engine::{Engine, Scope};
use poem::{FromRequest, Request, RequestBody, Result};
use sqlx::{Postgres, pool::PoolConnection};

/// What every handler has at hand. Cloning it is free.
#[derive(Clone)]
pub struct Api {
    engine: Engine,
}

impl Api {
    /// On an engine.
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// The engine, for commands.
    pub fn engine(&self) -> &Engine {
        &self.engine
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
