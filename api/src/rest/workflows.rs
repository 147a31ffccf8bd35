//! Workflows and their versions.

use super::{
    Answer, Body, Group,
    answer::{BAD, BODY, INVALID, MISSING},
    call::Call,
    page::{List, Page},
    parameters,
};
use crate::{
    Api,
    problem::Said,
    views::{LocatedProblem, RegisteredVersion, VersionSummary, Workflow, WorkflowVersion},
};
use krowoc_engine::{
    Error,
    definition::{Compiled, Problem, PromptFolder, Source, compile},
    queries::workflows,
};
use poem::web::Data;
use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Path, Query},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub struct Workflows;

/// A workflow as its files are.
#[derive(Deserialize, Object)]
#[serde(deny_unknown_fields)]
pub struct WorkflowSource {
    /// The text of the workflow file (YAML).
    workflow: String,
    /// The texts of its prompt files by their paths below the folder `prompts`: `triage/classify.md`.
    #[serde(default)]
    #[oai(default)]
    prompts: BTreeMap<String, String>,
}

/// Whether a workflow is valid, and what is wrong with it if it is not.
#[derive(Serialize, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Verdict {
    /// It can be registered as it is.
    valid: bool,
    /// Its name, if it is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    workflow: Option<String>,
    /// Everything that is wrong, each with its place.
    problems: Vec<LocatedProblem>,
}

/// What came of a registration.
#[derive(ApiResponse)]
enum Registration {
    /// The same content has been registered before: it is the same version, and the one that runs started by name take.
    #[oai(status = 200)]
    Known(Body<RegisteredVersion>),
    /// A version that is new.
    #[oai(status = 201)]
    New(Body<RegisteredVersion>, #[oai(header = "Location")] String),
}

#[OpenApi(prefix_path = "/workflows", tag = "Group::Workflows")]
impl Workflows {
    /// List workflows, by name
    #[oai(path = "/", method = "get", operation_id = "listWorkflows")]
    async fn list(
        &self,
        call: Call,
        api: Data<&Api>,
        /// `next` of the page before.
        cursor: Query<Option<String>>,
        /// At most so many.
        #[oai(default = "parameters::page", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u16>,
    ) -> Answer<Body<Page<Workflow>>, BAD> {
        let list = List::new("workflows", &());
        let after = cursor.0.map(|cursor| list.place::<String>(&cursor)).transpose()?;
        let found = workflows::list(&mut *api.conn().await?, call.scope(), after.as_deref(), i64::from(limit.0) + 1).await?;
        Ok(Body(Page::of(found, limit.0, &list, |workflow| workflow.name.clone())))
    }

    /// Register a workflow
    ///
    /// It is the version that runs started by name take from now on; runs that were started stay on theirs. The same content is the same
    /// version, so that the request may be repeated.
    #[oai(path = "/", method = "post", operation_id = "registerWorkflow")]
    async fn register(&self, call: Call, api: Data<&Api>, source: Body<WorkflowSource>) -> Answer<Registration, { BAD | BODY | INVALID }> {
        let compiled = compiled(&api, source.0).await?.map_err(Error::Invalid)?;
        let registered = api.engine().register(call.scope(), &compiled).await?;
        let place = format!("{}/workflows/{}/versions/{}", super::PREFIX, registered.workflow, registered.number);
        Ok(match registered.created {
            true => Registration::New(Body(registered.into()), place),
            false => Registration::Known(Body(registered.into())),
        })
    }

    /// Check a workflow, and register nothing
    #[oai(path = "/validate", method = "post", operation_id = "validateWorkflow")]
    async fn validate(&self, _call: Call, api: Data<&Api>, source: Body<WorkflowSource>) -> Answer<Body<Verdict>, { BAD | BODY }> {
        Ok(Body(match compiled(&api, source.0).await? {
            Ok(compiled) => Verdict { valid: true, workflow: Some(compiled.dag.name.clone()), problems: vec![] },
            Err(problems) => Verdict { valid: false, workflow: None, problems: problems.iter().map(Into::into).collect() },
        }))
    }

    /// Show a workflow
    #[oai(path = "/:name", method = "get", operation_id = "getWorkflow")]
    async fn show(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The workflow's name.
        #[oai(validator(pattern = r"^[^\x00]*$"))]
        name: Path<String>,
    ) -> Answer<Body<Workflow>, { BAD | MISSING }> {
        let name = parameters::name("name", name.0)?;
        Ok(Body(workflows::show(&mut *api.conn().await?, call.scope(), &name).await?.into()))
    }

    /// List a workflow's versions, the newest first
    #[oai(path = "/:name/versions", method = "get", operation_id = "listWorkflowVersions")]
    async fn versions(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The workflow's name.
        #[oai(validator(pattern = r"^[^\x00]*$"))]
        name: Path<String>,
        /// `next` of the page before.
        cursor: Query<Option<String>>,
        /// At most so many.
        #[oai(default = "parameters::page", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u16>,
    ) -> Answer<Body<Page<VersionSummary>>, { BAD | MISSING }> {
        let name = parameters::name("name", name.0)?;
        let list = List::new("versions", &name);
        let before = cursor.0.map(|cursor| list.place::<i32>(&cursor)).transpose()?;
        let conn = &mut *api.conn().await?;
        let found = workflows::versions(conn, call.scope(), &name, before, i64::from(limit.0) + 1).await?;
        Ok(Body(Page::of(found, limit.0, &list, |version| version.number)))
    }

    /// Show a version of a workflow: its definition and its prompts
    #[oai(path = "/:name/versions/:number", method = "get", operation_id = "getWorkflowVersion")]
    async fn version(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The workflow's name.
        #[oai(validator(pattern = r"^[^\x00]*$"))]
        name: Path<String>,
        /// The version's number.
        #[oai(validator(minimum(value = "1"), maximum(value = "2147483647")))]
        number: Path<i32>,
    ) -> Answer<Body<WorkflowVersion>, { BAD | MISSING }> {
        let name = parameters::name("name", name.0)?;
        Ok(Body(workflows::version_by_number(&mut *api.conn().await?, call.scope(), &name, number.0).await?.into()))
    }
}

/// Compiles it, as the command line does. What is wrong with prompts comes first, since it brings forth the rest; whoever sends a prompt means
/// it, so that it is a problem even where the workflow does not name it.
async fn compiled(api: &Api, source: WorkflowSource) -> Result<Result<Compiled, Vec<Problem>>, Said> {
    let kinds = api.engine().registry().kinds.clone();
    let work = move || {
        let (prompts, mut problems) = PromptFolder::sound_of_texts(&source.prompts);
        match Source::parse("workflow.yaml", &source.workflow).and_then(|source| compile(&source, &kinds, &prompts)) {
            Ok(compiled) if problems.is_empty() => Ok(compiled),
            Ok(_) => Err(problems),
            Err(of_workflow) => {
                problems.extend(of_workflow);
                Err(problems)
            }
        }
    };
    // Thousands of steps take a while to compile.
    tokio::task::spawn_blocking(work).await.map_err(|error| Said::fault().cause(error))
}
