//! Runs are started: one, which may be waited for, or a batch, all or none.

use super::{Body, PREFIX};
use crate::{
    Api,
    problem::{Code, Said},
    views::{Json, LocatedProblem, RunResult, StartedRun},
};
use krowoc_engine::{
    Error, Payload, RunId, Scope,
    commands::StartedRun as Started,
    definition::Problem,
    queries::{runs, workflows::VersionName},
    starter::Wanted,
};
use poem_openapi::{ApiResponse, Object};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Runs of one batch.
const MOST: usize = 10_000;

/// A run to start.
#[derive(Deserialize, Object)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The workflow's name; with `@` and a number that version, else the one registered last: `summarize-note`, `summarize-note@3`.
    #[oai(validator(max_length = 200))]
    workflow: String,
    /// What it is given; an empty object if nothing is said.
    #[serde(default = "nothing")]
    #[oai(default = "nothing")]
    input: Json,
    /// Higher goes first.
    #[serde(default)]
    #[oai(default, validator(minimum(value = "-32768"), maximum(value = "32767")))]
    priority: i16,
}

/// A run of a batch.
#[derive(Deserialize, Object)]
#[serde(deny_unknown_fields)]
pub struct BatchedStart {
    /// The workflow's name; with `@` and a number that version, else the one registered last: `summarize-note`, `summarize-note@3`.
    #[oai(validator(max_length = 200))]
    workflow: String,
    /// What it is given; an empty object if nothing is said.
    #[serde(default = "nothing")]
    #[oai(default = "nothing")]
    input: Json,
    /// Higher goes first.
    #[serde(default)]
    #[oai(default, validator(minimum(value = "-32768"), maximum(value = "32767")))]
    priority: i16,
    /// The same key with the same workflow version and input is the same run, however often it is asked for.
    #[serde(default)]
    #[oai(validator(min_length = 1, max_length = 255))]
    idempotency_key: Option<String>,
}

/// Runs to start together.
#[derive(Deserialize, Object)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// Up to 10,000 of them.
    #[oai(validator(min_items = 1, max_items = 10000))]
    runs: Vec<BatchedStart>,
}

/// Runs that were started together, in the order of the request.
#[derive(Serialize, Object)]
pub struct StartedRuns {
    /// One for each.
    items: Vec<StartedRun>,
}

fn nothing() -> Json {
    Json(Payload::from_json_text("{}"))
}

/// What came of a start.
#[derive(ApiResponse)]
#[expect(clippy::large_enum_variant, reason = "it lives for the moment in which the answer is written")]
pub enum Start {
    /// The run has ended while it was waited for: here is what it came to. Whether that is a success stands in `status`.
    #[oai(status = 200)]
    Ended(Body<RunResult>),
    /// The run is accepted: it will reach an end.
    #[oai(status = 202)]
    Accepted(Body<StartedRun>, #[oai(header = "Location")] String),
}

/// What came of a batch.
#[derive(ApiResponse)]
pub enum Batch {
    /// The runs are accepted: each will reach an end.
    #[oai(status = 202)]
    Accepted(Body<StartedRuns>),
}

/// Starts a run, and waits for its end if that is asked for.
pub(super) async fn one(api: &Api, scope: &Scope, request: StartRequest, key: Option<String>, wait: Duration) -> Result<Start, Said> {
    let StartRequest { workflow, input, priority } = request;
    let wanted = wanted(workflow, input, priority, key)?;
    let started = api.starter().start(scope, wanted).await;
    let started = started.map_err(|error| located(Said::of(&error), |pointer| (String::new(), pointer)))?;
    if !wait.is_zero()
        && let Some(ended) = ended(api, scope, started, wait).await
    {
        return Ok(Start::Ended(Body(ended)));
    }
    let place = format!("{PREFIX}/runs/{}", started.id);
    Ok(Start::Accepted(Body(started.into()), place))
}

/// Starts many, all or none.
pub(super) async fn batch(api: &Api, scope: &Scope, request: BatchRequest) -> Result<Batch, Said> {
    let runs = request.runs;
    if runs.is_empty() || runs.len() > MOST {
        return Err(Error::Invalid(vec![Problem::new("runs", "/runs", format!("1 to {MOST} runs are started together"))]).into());
    }
    let wanted = runs.into_iter().map(|run| wanted(run.workflow, run.input, run.priority, run.idempotency_key));
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    let alone = wanted.len() == 1;
    let started = api.starter().start_all(scope, wanted).await.map_err(|error| {
        located(error.into(), |pointer| match alone {
            true => ("/runs/0".into(), pointer),
            false => split(&pointer),
        })
    })?;
    Ok(Batch::Accepted(Body(StartedRuns { items: started.into_iter().map(Into::into).collect() })))
}

/// Problems of runs with their places in the body: `place` takes a pointer apart into that of the run and that in its input.
fn located(said: Said, place: impl Fn(String) -> (String, String)) -> Said {
    let problems = said.problems.into_iter().map(|problem| {
        let (run, input) = place(problem.pointer);
        let pointer = match problem.code.as_str() {
            "idempotency_key" => format!("{run}/idempotency_key"),
            _ => format!("{run}/input{input}"),
        };
        LocatedProblem { pointer, ..problem }
    });
    Said { problems: problems.collect(), ..said }
}

/// `/3/a/b` into `/runs/3` and `/a/b`.
fn split(pointer: &str) -> (String, String) {
    let rest = pointer.strip_prefix('/').unwrap_or(pointer);
    let (at, input) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (format!("/runs/{at}"), input.to_owned())
}

/// Waits for the run's end; nothing if that does not come in time, or can't be seen: the run is started all the same.
async fn ended(api: &Api, scope: &Scope, started: Started, within: Duration) -> Option<RunResult> {
    let _place = api.watch().place().ok()?;
    let mut watched = api.watch().run(started.id);
    tokio::time::timeout(within, watched.ended()).await.ok()??;
    match shown(api, scope, started.id).await {
        Ok(run) => run.run.status.is_terminal().then(|| RunResult { run: run.into(), created: started.created }),
        Err(error) => {
            tracing::warn!(run = %started.id, %error, "a run that has ended could not be shown");
            None
        }
    }
}

async fn shown(api: &Api, scope: &Scope, run: RunId) -> krowoc_engine::Result<runs::RunDetail> {
    runs::show(&mut *api.engine().pool().acquire().await?, scope, run).await
}

fn wanted(workflow: String, input: Json, priority: i16, key: Option<String>) -> Result<Wanted, Said> {
    let version = version(&workflow)?;
    if key.as_deref().is_some_and(|key| key.contains('\0')) {
        let problem = Problem::new("idempotency_key", "/idempotency_key", "an idempotency key holds no U+0000");
        return Err(Error::Invalid(vec![problem]).into());
    }
    Ok(Wanted { version, input: input.0, idempotency_key: key, priority, trigger: "api".into() })
}

/// `name` or `name@3`.
fn version(text: &str) -> Result<VersionName, Said> {
    let (workflow, number) = match text.split_once('@') {
        None => (text, None),
        Some((workflow, number)) => (workflow, Some(number)),
    };
    let number = number.map(|number| number.parse().ok().filter(|n: &i32| *n > 0).ok_or(number)).transpose();
    match number {
        Ok(number) if !workflow.contains('\0') => Ok(VersionName { workflow: workflow.to_owned(), number }),
        Ok(_) => Err(Said::new(Code::NotFound, "no workflow has a name with U+0000")),
        Err(number) => Err(Said::new(Code::NotFound, format!("no workflow version `{workflow}@{number}`: a version is a number from 1"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_by_its_workflow_and_perhaps_its_number() {
        let read = |text| version(text).map(|name| (name.workflow, name.number)).map_err(|said| said.code);
        assert_eq!(read("note"), Ok(("note".into(), None)));
        assert_eq!(read("note@3"), Ok(("note".into(), Some(3))));
        for wrong in ["note@", "note@0", "note@-1", "note@x", "note@3@4", "note@99999999999", "no\0te"] {
            assert_eq!(read(wrong), Err(Code::NotFound), "{wrong:?}");
        }
    }
}
