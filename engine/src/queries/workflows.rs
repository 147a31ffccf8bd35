//! Workflows and their versions.

use super::parse;
use crate::{
    definition::PromptVersion,
    error::{Error, Result},
    id::{Scope, VersionId},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// A workflow.
#[derive(Serialize, Clone, Debug)]
pub struct WorkflowView {
    /// Its name, unique in the workspace.
    pub name: String,
    /// The version that a run started by name takes.
    pub version: i32,
    /// How many versions there are.
    pub versions: i64,
    /// When that version was registered last.
    pub applied_at: DateTime<Utc>,
}

/// A version of a workflow.
#[derive(Serialize, Clone, Debug)]
pub struct VersionView {
    /// Its id.
    pub id: VersionId,
    /// The workflow's name.
    pub workflow: String,
    /// Its number in the workflow, from 1.
    pub number: i32,
    /// Who registered it first.
    pub created_by: String,
    /// When it was registered first.
    pub created_at: DateTime<Utc>,
    /// When it was registered last.
    pub applied_at: DateTime<Utc>,
    /// The effective definition.
    pub definition: Value,
    /// The prompts it is pinned to, by the reference as the definition has it.
    pub prompts: BTreeMap<String, PromptVersion>,
}

/// A version in a list.
#[derive(Serialize, Clone, Debug)]
pub struct VersionSummary {
    /// The workflow's name.
    pub workflow: String,
    /// Its number in the workflow, from 1.
    pub number: i32,
    /// Who registered it first.
    pub created_by: String,
    /// When it was registered first.
    pub created_at: DateTime<Utc>,
    /// When it was registered last.
    pub applied_at: DateTime<Utc>,
}

/// A workflow by its name.
pub async fn show(conn: &mut PgConnection, scope: &Scope, workflow: &str) -> Result<WorkflowView> {
    let row = sqlx::query_as!(
        WorkflowView,
        r#"SELECT w.name, v.number AS version, v.applied_at, n.versions AS "versions!" FROM krowoc.workflow w
           CROSS JOIN LATERAL (
             SELECT number, applied_at FROM krowoc.workflow_version WHERE workflow_id = w.id ORDER BY applied_at DESC, number DESC LIMIT 1) v
           CROSS JOIN LATERAL (SELECT count(*) AS versions FROM krowoc.workflow_version WHERE workflow_id = w.id) n
           WHERE w.workspace_id = $1 AND w.name = $2"#,
        scope.workspace.0,
        workflow
    )
    .fetch_optional(conn)
    .await?;
    row.ok_or_else(|| Error::not_found("workflow", workflow))
}

/// A workflow's versions, the newest first, those below number `before`.
pub async fn versions(
    conn: &mut PgConnection,
    scope: &Scope,
    workflow: &str,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<VersionSummary>> {
    let rows = sqlx::query_as!(
        VersionSummary,
        "SELECT w.name AS workflow, v.number, v.created_by, v.created_at, v.applied_at
         FROM krowoc.workflow w JOIN krowoc.workflow_version v ON v.workflow_id = w.id
         WHERE w.workspace_id = $1 AND w.name = $2 AND ($3::int IS NULL OR v.number < $3) ORDER BY v.number DESC LIMIT $4",
        scope.workspace.0,
        workflow,
        before,
        limit
    )
    .fetch_all(&mut *conn)
    .await?;
    if rows.is_empty() {
        // No page behind the last, or no such workflow.
        show(conn, scope, workflow).await?;
    }
    Ok(rows)
}

/// A workflow version as callers name one: the workflow, and the number unless it is the one registered last.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct VersionName {
    /// The workflow's name.
    pub workflow: String,
    /// The version's number.
    pub number: Option<i32>,
}

impl std::fmt::Display for VersionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.number {
            Some(number) => write!(f, "{}@{number}", self.workflow),
            None => f.write_str(&self.workflow),
        }
    }
}

/// The ids of versions, in the names' order, all in one statement; none where there is no such version.
pub async fn resolve(conn: &mut PgConnection, scope: &Scope, names: &[VersionName]) -> Result<Vec<Option<VersionId>>> {
    let (workflows, numbers): (Vec<&str>, Vec<Option<i32>>) = names.iter().map(|n| (n.workflow.as_str(), n.number)).unzip();
    let rows = sqlx::query!(
        r#"SELECT n.at AS "at!", v.id FROM unnest($2::text[], $3::int[]) WITH ORDINALITY AS n(workflow, number, at)
           JOIN krowoc.workflow w ON w.workspace_id = $1 AND w.name = n.workflow
           CROSS JOIN LATERAL (SELECT id FROM krowoc.workflow_version WHERE workflow_id = w.id AND (n.number IS NULL OR number = n.number)
             ORDER BY applied_at DESC, number DESC LIMIT 1) v"#,
        scope.workspace.0,
        &workflows as &[&str],
        &numbers as &[Option<i32>]
    )
    .fetch_all(conn)
    .await?;
    let mut ids = vec![None; names.len()];
    for row in rows {
        if let Some(id) = usize::try_from(row.at - 1).ok().and_then(|at| ids.get_mut(at)) {
            *id = Some(VersionId(row.id));
        }
    }
    Ok(ids)
}

/// The workspace's workflows, by name, those after `after`.
pub async fn list(conn: &mut PgConnection, scope: &Scope, after: Option<&str>, limit: i64) -> Result<Vec<WorkflowView>> {
    let rows = sqlx::query_as!(
        WorkflowView,
        r#"SELECT w.name, v.number AS version, v.applied_at, n.versions AS "versions!" FROM krowoc.workflow w
           CROSS JOIN LATERAL (
             SELECT number, applied_at FROM krowoc.workflow_version WHERE workflow_id = w.id ORDER BY applied_at DESC, number DESC LIMIT 1) v
           CROSS JOIN LATERAL (SELECT count(*) AS versions FROM krowoc.workflow_version WHERE workflow_id = w.id) n
           WHERE w.workspace_id = $1 AND ($2::text IS NULL OR w.name > $2) ORDER BY w.name LIMIT $3"#,
        scope.workspace.0,
        after,
        limit
    )
    .fetch_all(conn)
    .await?;
    Ok(rows)
}

/// The version that a run started by name takes: the one registered last.
pub async fn latest_version(conn: &mut PgConnection, scope: &Scope, workflow: &str) -> Result<VersionView> {
    version(conn, scope, workflow, None).await?.ok_or_else(|| Error::not_found("workflow", workflow))
}

/// A version by its number.
pub async fn version_by_number(conn: &mut PgConnection, scope: &Scope, workflow: &str, number: i32) -> Result<VersionView> {
    version(conn, scope, workflow, Some(number)).await?.ok_or_else(|| Error::not_found("workflow version", format!("{workflow}@{number}")))
}

async fn version(conn: &mut PgConnection, scope: &Scope, workflow: &str, number: Option<i32>) -> Result<Option<VersionView>> {
    let row = sqlx::query!(
        r#"SELECT v.id, w.name, v.number, v.created_by, v.created_at, v.applied_at, v.definition::text AS "definition!", v.prompts::text AS "prompts!"
           FROM krowoc.workflow w JOIN krowoc.workflow_version v ON v.workflow_id = w.id
           WHERE w.workspace_id = $1 AND w.name = $2 AND ($3::int IS NULL OR v.number = $3) ORDER BY v.applied_at DESC, v.number DESC LIMIT 1"#,
        scope.workspace.0,
        workflow,
        number
    )
    .fetch_optional(conn)
    .await?;
    row.map(|r| {
        Ok(VersionView {
            id: VersionId(r.id),
            workflow: r.name,
            number: r.number,
            created_by: r.created_by,
            created_at: r.created_at,
            applied_at: r.applied_at,
            definition: parse(&r.definition)?,
            prompts: parse(&r.prompts)?,
        })
    })
    .transpose()
}

/// What [`restore`](crate::definition::restore) compiles.
#[derive(Clone, Debug)]
pub struct LoadedVersion {
    /// The effective definition.
    pub definition: Value,
    /// The prompts it is pinned to.
    pub prompts: BTreeMap<String, PromptVersion>,
    /// The workflow's name.
    pub workflow: String,
}

/// Loads a version by its id. Ids come from rows of the caller's workspace, so there is no confinement here.
pub async fn load_version(conn: &mut PgConnection, id: VersionId) -> Result<LoadedVersion> {
    let row = sqlx::query!(
        r#"SELECT v.definition::text AS "definition!", v.prompts::text AS "prompts!", w.name
           FROM krowoc.workflow_version v JOIN krowoc.workflow w ON w.id = v.workflow_id WHERE v.id = $1"#,
        id.0
    )
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| Error::not_found("workflow version", id.0))?;
    Ok(LoadedVersion { definition: parse(&row.definition)?, prompts: parse(&row.prompts)?, workflow: row.name })
}
