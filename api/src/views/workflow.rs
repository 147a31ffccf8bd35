//! Workflows and their versions.

use super::Json;
use async_graphql::SimpleObject;
use chrono::{DateTime, Utc};
use krowoc_engine::{
    Payload, commands,
    definition::PromptVersion,
    queries::workflows::{self, VersionView, WorkflowView},
};
use poem_openapi::Object;
use serde::Serialize;
use serde_json::Value;

/// A workflow.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
pub struct Workflow {
    /// Its name, unique in the workspace.
    pub name: String,
    /// The number of the version that a run started by name takes: the one registered last.
    pub version: i32,
    /// How many versions there are.
    pub versions: i64,
    /// When that version was registered last.
    pub applied_at: DateTime<Utc>,
}

impl From<WorkflowView> for Workflow {
    fn from(view: WorkflowView) -> Self {
        Self { name: view.name, version: view.version, versions: view.versions, applied_at: view.applied_at }
    }
}

/// A version of a workflow in a list.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
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

impl From<workflows::VersionSummary> for VersionSummary {
    fn from(view: workflows::VersionSummary) -> Self {
        let workflows::VersionSummary { workflow, number, created_by, created_at, applied_at } = view;
        Self { workflow, number, created_by, created_at, applied_at }
    }
}

/// A version of a workflow. It never changes.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
pub struct WorkflowVersion {
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
    pub definition: Json,
    /// The prompts it is pinned to.
    pub prompts: Vec<PinnedPrompt>,
}

impl From<VersionView> for WorkflowVersion {
    fn from(view: VersionView) -> Self {
        Self {
            workflow: view.workflow,
            number: view.number,
            created_by: view.created_by,
            created_at: view.created_at,
            applied_at: view.applied_at,
            definition: (&view.definition).into(),
            prompts: view.prompts.into_iter().map(PinnedPrompt::from).collect(),
        }
    }
}

/// A prompt as a workflow version is pinned to it.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
#[oai(skip_serializing_if_is_none)]
pub struct PinnedPrompt {
    /// As the definition names it: `triage/classify@production`.
    pub reference: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Labels that meant this version then.
    pub labels: Vec<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// For finding it.
    pub tags: Vec<String>,
    /// The model it is meant for, where the step names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its messages, in order, with `{{ variable }}` places.
    pub messages: Vec<PromptMessage>,
    /// Declared variables with their schemas.
    pub variables: Json,
}

/// A message of a prompt, not rendered.
#[derive(Clone, Debug, Serialize, Object, SimpleObject)]
pub struct PromptMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// A Jinja text.
    pub content: String,
}

impl From<(String, PromptVersion)> for PinnedPrompt {
    fn from((reference, prompt): (String, PromptVersion)) -> Self {
        Self {
            reference,
            name: prompt.name,
            version: prompt.version,
            labels: prompt.labels,
            description: prompt.description,
            tags: prompt.tags,
            model: prompt.model,
            messages: prompt.messages.into_iter().map(|message| PromptMessage { role: message.role, content: message.content }).collect(),
            variables: Json(Payload::from(&Value::Object(prompt.variables.into_iter().collect()))),
        }
    }
}

/// A version that was registered.
#[derive(Clone, Debug, PartialEq, Serialize, Object, SimpleObject)]
pub struct RegisteredVersion {
    /// The workflow's name.
    pub workflow: String,
    /// Its number in the workflow, from 1.
    pub number: i32,
    /// It is new; the same content registered again is the same version.
    pub created: bool,
}

impl From<commands::Registered> for RegisteredVersion {
    fn from(registered: commands::Registered) -> Self {
        Self { workflow: registered.workflow, number: registered.number, created: registered.created }
    }
}
