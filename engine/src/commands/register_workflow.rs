//! A compiled workflow becomes a version.

use crate::{
    definition::Compiled,
    error::{Error, Result},
    id::{Scope, VersionId},
    store::workflows,
};
use sqlx::{Connection, PgConnection};

/// A registered version.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Registered {
    /// The version.
    pub id: VersionId,
    /// The workflow's name.
    pub workflow: String,
    /// Its number, from 1.
    pub number: i32,
    /// Is it new? The same content registered again is the same version.
    pub created: bool,
}

/// Registers a version; idempotent by content. It is the one that runs started by name take from now on; running runs stay on theirs.
pub async fn register_workflow(conn: &mut PgConnection, scope: &Scope, compiled: &Compiled) -> Result<Registered> {
    let prompts = serde_json::to_string(&compiled.prompts).map_err(|e| Error::Internal(format!("prompts: {e}")))?;
    let mut tx = conn.begin().await?;
    let v = workflows::register(&mut tx, scope, &compiled.dag.name, &compiled.hash, &compiled.definition.to_string(), &prompts).await?;
    tx.commit().await?;
    Ok(Registered { id: v.id, workflow: compiled.dag.name.clone(), number: v.number, created: v.created })
}
