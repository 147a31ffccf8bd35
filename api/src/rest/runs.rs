//! Runs: listed, looked into, cancelled.

use super::{
    Answer, Body, Group,
    answer::{BAD, BODY, CONFLICT, INVALID, MISSING},
    call::Call,
    page::{List, Page},
    parameters,
    start::{self, Batch, BatchRequest, Start, StartRequest},
};
use crate::{
    Api,
    problem::{Code, Said},
    views::{Attempt, CancelledRun, Json, MapItem, Run, RunDetail, RunStatus, Step, StepInside, Why},
};
use chrono::{DateTime, Utc};
use krowoc_engine::{
    RunId, ScopePath,
    queries::{
        attempts::{self, AttemptKey},
        inside,
        runs::{self, RunFilter},
        steps, why,
    },
};
use poem::web::Data;
use poem_openapi::{
    Object, OpenApi,
    param::{Header, Path, Query},
};
use serde::Serialize;
use std::time::Duration;
use uuid::Uuid;

pub struct Runs;

/// A run's own steps, each after those it waits for, then by id.
#[derive(Serialize, Object)]
pub struct StepList {
    /// Every step.
    items: Vec<Step>,
}

/// The steps inside a run's maps, in the file's order, each before what stands inside it.
#[derive(Serialize, Object)]
pub struct InsideList {
    /// Every step, once for all items.
    items: Vec<StepInside>,
}

#[OpenApi(prefix_path = "/runs", tag = "Group::Runs")]
impl Runs {
    /// List runs, newest first
    #[oai(path = "/", method = "get", operation_id = "listRuns")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the request")]
    async fn list(
        &self,
        call: Call,
        api: Data<&Api>,
        /// Of this workflow.
        #[oai(validator(pattern = r"^[^\x00]*$"))]
        workflow: Query<Option<String>>,
        /// Standing here.
        status: Query<Option<RunStatus>>,
        /// Accepted at this time or later.
        since: Query<Option<DateTime<Utc>>>,
        /// Accepted before this time.
        until: Query<Option<DateTime<Utc>>>,
        /// `next` of the page before.
        cursor: Query<Option<String>>,
        /// At most so many.
        #[oai(default = "parameters::page", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u16>,
    ) -> Answer<Body<Page<Run>>, BAD> {
        let filter = RunFilter {
            workflow: parameters::name_if("workflow", workflow.0)?,
            status: status.0.map(Into::into),
            since: parameters::time("since", since.0)?,
            until: parameters::time("until", until.0)?,
        };
        let list = List::new("runs", &(&filter.workflow, filter.status, filter.since, filter.until));
        let after = cursor.0.map(|cursor| list.place::<RunId>(&cursor)).transpose()?;
        let found = runs::list(&mut *api.conn().await?, call.scope(), &filter, after, i64::from(limit.0) + 1).await?;
        Ok(Body(Page::of(found, limit.0, &list, |run| run.id)))
    }

    /// Start a run
    ///
    /// With an `Idempotency-Key` the request may be repeated: the same key with the same workflow version and input is the same run, with
    /// others a conflict. With `wait`, the answer comes when the run has ended, or when that time is over.
    #[oai(path = "/", method = "post", operation_id = "startRun")]
    async fn start(
        &self,
        call: Call,
        api: Data<&Api>,
        /// Under which another request for the same run is recognised: 1 to 255 bytes.
        #[oai(name = "Idempotency-Key", validator(min_length = 1, max_length = 255))]
        key: Header<Option<String>>,
        /// So many seconds to wait for the run's end, up to 60.
        #[oai(default, validator(minimum(value = "0"), maximum(value = "60")))]
        wait: Query<u16>,
        request: Body<StartRequest>,
    ) -> Answer<Start, { BAD | BODY | MISSING | CONFLICT | INVALID }> {
        Ok(start::one(&api, call.scope(), request.0, key.0, Duration::from_secs(wait.0.into())).await?)
    }

    /// Start many runs: all, or none if one can't be
    ///
    /// What is wrong with one is said with its place in the batch.
    #[oai(path = "/batch", method = "post", operation_id = "startRuns")]
    async fn batch(
        &self,
        call: Call,
        api: Data<&Api>,
        request: Body<BatchRequest>,
    ) -> Answer<Batch, { BAD | BODY | MISSING | CONFLICT | INVALID }> {
        Ok(start::batch(&api, call.scope(), request.0).await?)
    }

    /// Show a run: how it stands, what it was given, what it came to
    #[oai(path = "/:id", method = "get", operation_id = "getRun")]
    async fn show(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The run's id.
        id: Path<Uuid>,
    ) -> Answer<Body<RunDetail>, { BAD | MISSING }> {
        Ok(Body(runs::show(&mut *api.conn().await?, call.scope(), RunId(id.0)).await?.into()))
    }

    /// Stop a run; what has succeeded stays on record
    ///
    /// Nothing new starts from then on; attempts in flight are stopped by their workers. Cancelling twice does nothing more. A run that has
    /// succeeded or failed is a conflict.
    #[oai(path = "/:id/cancel", method = "post", operation_id = "cancelRun")]
    async fn cancel(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The run's id.
        id: Path<Uuid>,
    ) -> Answer<Body<CancelledRun>, { BAD | MISSING | CONFLICT }> {
        Ok(Body(api.engine().cancel(call.scope(), RunId(id.0)).await?.into()))
    }

    /// Say why a run is not further, or how it ended
    #[oai(path = "/:id/why", method = "get", operation_id = "whyRun")]
    async fn why(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The run's id.
        id: Path<Uuid>,
    ) -> Answer<Body<Why>, { BAD | MISSING }> {
        let (run, conn) = (RunId(id.0), &mut *api.conn().await?);
        let version = api.version_of(conn, call.scope(), run).await?;
        Ok(Body(why::why(conn, call.scope(), run, &version.dag).await?.into()))
    }

    /// Show a run's own steps
    #[oai(path = "/:id/steps", method = "get", operation_id = "listSteps")]
    async fn steps(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The run's id.
        id: Path<Uuid>,
    ) -> Answer<Body<StepList>, { BAD | MISSING }> {
        let (run, conn) = (RunId(id.0), &mut *api.conn().await?);
        let version = api.version_of(conn, call.scope(), run).await?;
        let steps = steps::steps(conn, call.scope(), run, &version.dag).await?;
        Ok(Body(StepList { items: steps.into_iter().map(Into::into).collect() }))
    }

    /// Show the steps inside a run's maps, each once for all items
    ///
    /// Counted from the rows of every item: of a run with very many items it takes a while.
    #[oai(path = "/:id/steps/inside", method = "get", operation_id = "listStepsInside")]
    async fn inside(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The run's id.
        id: Path<Uuid>,
    ) -> Answer<Body<InsideList>, { BAD | MISSING }> {
        let (run, conn) = (RunId(id.0), &mut *api.conn().await?);
        let version = api.version_of(conn, call.scope(), run).await?;
        let steps = inside::steps(conn, call.scope(), run, &version.dag).await?;
        Ok(Body(InsideList { items: steps.into_iter().map(Into::into).collect() }))
    }

    /// Show what a step came to
    ///
    /// The answer is the output itself. A step that has not succeeded has none, which is a 404.
    #[oai(path = "/:id/steps/output", method = "get", operation_id = "getStepOutput")]
    async fn output(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The run's id.
        id: Path<Uuid>,
        /// The step's address: `draft`, `review[s1].findings`.
        path: Query<String>,
    ) -> Answer<Body<Json>, { BAD | MISSING }> {
        let (run, path) = (RunId(id.0), parameters::path("path", path.0)?);
        let conn = &mut *api.conn().await?;
        let version = api.version_of(conn, call.scope(), run).await?;
        let output = steps::output(conn, call.scope(), run, &version.dag, &path).await.map_err(unknown_step)?;
        let none = || Said::new(Code::NotFound, format!("step `{path}` has no output: it has not succeeded"));
        Ok(Body(output.ok_or_else(none)?.into()))
    }

    /// Show a map's items with their steps, in their order
    #[oai(path = "/:id/items", method = "get", operation_id = "listMapItems")]
    async fn items(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The run's id.
        id: Path<Uuid>,
        /// The map's address: `review`, or `review[s1].findings` for one inside another.
        map: Query<String>,
        /// `next` of the page before.
        cursor: Query<Option<String>>,
        /// At most so many.
        #[oai(default = "parameters::page", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u16>,
    ) -> Answer<Body<Page<MapItem>>, { BAD | MISSING }> {
        let (run, path) = (RunId(id.0), parameters::path("map", map.0)?);
        let list = List::new("items", &(run, path.to_string()));
        let after = cursor.0.map(|cursor| list.place::<u32>(&cursor)).transpose()?;
        let conn = &mut *api.conn().await?;
        let version = api.version_of(conn, call.scope(), run).await?;
        let limit_and_one = u32::from(limit.0) + 1;
        let items = steps::items(conn, call.scope(), run, &version.dag, &path, after, limit_and_one).await.map_err(unknown_step)?;
        Ok(Body(Page::of(items, limit.0, &list, |item| item.number)))
    }

    /// Show a run's attempts, or those of one step, in the order of their steps' places
    #[oai(path = "/:id/attempts", method = "get", operation_id = "listAttempts")]
    async fn attempts(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The run's id.
        id: Path<Uuid>,
        /// Of the step with this address.
        path: Query<Option<String>>,
        /// `next` of the page before.
        cursor: Query<Option<String>>,
        /// At most so many.
        #[oai(default = "parameters::page", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u16>,
    ) -> Answer<Body<Page<Attempt>>, { BAD | MISSING }> {
        let run = RunId(id.0);
        let path = path.0.map(|path| parameters::path("path", path)).transpose()?;
        let list = List::new("attempts", &(run, path.as_ref().map(ToString::to_string)));
        let after = cursor.0.map(|cursor| list.place::<(Vec<u8>, i16, i32)>(&cursor)).transpose()?;
        let after = after.map(|(scope, step, attempt)| AttemptKey { scope: ScopePath(scope), step, attempt });
        let conn = &mut *api.conn().await?;
        let version = api.version_of(conn, call.scope(), run).await?;
        let page = attempts::page(conn, call.scope(), run, &version.dag, path.as_ref(), after.as_ref(), limit.0.into());
        let (found, next) = page.await.map_err(unknown_step)?;
        let next = next.map(|key| list.cursor(&(key.scope.0, key.step, key.attempt)));
        Ok(Body(Page { items: found.into_iter().map(Into::into).collect(), next }))
    }
}

/// An address that its workflow has no step for names what is not there.
fn unknown_step(error: krowoc_engine::Error) -> Said {
    match error {
        krowoc_engine::Error::Invalid(problems) => {
            Said::new(Code::NotFound, problems.first().map_or_else(|| "no such step".into(), |problem| problem.message.clone()))
        }
        error => error.into(),
    }
}
