//! Carries out one attempt: condition, rendering, the step kind, the output's check. Outside any transaction; nothing here writes.

use super::{
    expand, gather,
    shared::{Job, Shared},
};
use crate::{
    commands::complete_attempts::{Outcome, Wake},
    definition::{Action, Bindings, ExpressionError, Schema, Step, Template, WaitPlan, parse_duration},
    error::ErrorClass,
    executor::{StepContext, StepError, StepKind, Usage},
    id::StepIx,
    payload::Payload,
    store::rows::Lease,
};
use serde_json::Value;
use std::time::Duration;

pub(super) async fn attempt(shared: &Shared, job: &Job) -> Outcome {
    let bindings = bind(job);
    let outcome = match job.version.step(job.lease.step) {
        None if job.lease.step == Lease::ENTRY => Ok(Outcome::Entered),
        None => finish(job, &bindings),
        Some((ix, step)) => carry_out(shared, job, ix, step, &bindings).await,
    };
    outcome.unwrap_or_else(|error| Outcome::Failed { error, input: input_of(job, &bindings) })
}

/// What the expressions of a job see.
pub(super) fn bind(job: &Job) -> Bindings {
    let mut bindings = Bindings::default();
    let inputs = &job.inputs;
    if let Some(input) = &inputs.input {
        bindings.input(input.clone());
    }
    if let Some(facts) = &inputs.facts {
        bindings.run((**facts).clone());
    }
    for (ix, output) in &inputs.steps {
        bindings.step(&job.version.dag.step(*ix).id, output.clone());
    }
    for (ix, item) in &inputs.items {
        if let Some(plan) = job.version.map(*ix) {
            bindings.item(&plan.item, item.clone());
        }
    }
    bindings
}

/// The rendered configuration of a failed task, for its dead letter. Where rendering is what failed there is none.
pub(super) fn input_of(job: &Job, bindings: &Bindings) -> Option<Payload> {
    match &job.version.step(job.lease.step)?.1.action {
        Action::Task { config, .. } => config.render_payload(bindings).ok(),
        Action::Map(plan) => plan.over.render_payload(bindings).ok(),
        Action::Wait(_) => None,
    }
}

pub(super) fn expression(error: ExpressionError) -> StepError {
    StepError::new(ErrorClass::Expression, error.message).details(serde_json::json!({ "pointer": error.pointer }))
}

/// The run's output.
fn finish(job: &Job, bindings: &Bindings) -> Result<Outcome, StepError> {
    let output = match &job.version.dag.output {
        Some(template) => template.render_payload(bindings).map_err(expression)?,
        None => Payload::null(),
    };
    check_output("the run's output", job.version.dag.output_schema.as_ref(), output, None)
}

async fn carry_out(shared: &Shared, job: &Job, ix: StepIx, step: &Step, bindings: &Bindings) -> Result<Outcome, StepError> {
    if job.lease.phase == Lease::FRESH
        && let Some(when) = &step.when
        && !when.render_bool(bindings).map_err(expression)?
    {
        return Ok(Outcome::Skipped);
    }
    match (&step.action, job.lease.phase) {
        (Action::Task { kind, config }, _) => task(shared, job, step, kind, config, bindings).await,
        (Action::Wait(_), Lease::DUE) => done(step, serde_json::json!({ "waited_s": job.lease.overdue.as_secs_f64() })),
        (Action::Wait(plan), _) => sleep(plan, bindings),
        (Action::Map(plan), Lease::FILLED) => {
            // On the heap: every step's future would otherwise have room for the queries of a map's end, and is moved with it.
            match Box::pin(gather::gather(shared, job, ix, plan, bindings)).await? {
                Some(output) => check_step_output(step, output, None),
                None => Ok(Outcome::Released),
            }
        }
        (Action::Map(plan), _) => {
            gather::prepare(shared);
            Box::pin(expand::expand(step, plan, bindings)).await
        }
    }
}

async fn task(shared: &Shared, job: &Job, step: &Step, kind: &str, config: &Template, bindings: &Bindings) -> Result<Outcome, StepError> {
    let kind = shared.registry.kinds.get(kind).ok_or_else(|| {
        let message = format!("this worker does not know the step kind `{kind}`; run the step on a queue whose workers do");
        StepError::new(ErrorClass::InvalidRequest, message)
    })?;
    let config = config.render(bindings).map_err(expression)?;
    let context = StepContext {
        run: job.lease.run,
        path: job.version.path(&job.lease.scope, job.lease.step, &job.inputs.keys),
        attempt: job.lease.attempt,
        cancelled: job.flight.cancelled.clone(),
        output_schema: step.output.as_ref().map(|schema| schema.json().clone()),
        prompts: job.version.dag.prompts.clone(),
        idle_timeout: step.timeout.idle,
    };
    if !shared.flights.may_start(job.flight.number, shared.config.lease) {
        return Ok(Outcome::Released);
    }
    let output = timed(job, step, kind.as_ref(), &context, config).await?;
    check_step_output(step, output.output, output.usage)
}

/// One attempt within its own limit and what is left of the step's.
async fn timed(
    job: &Job,
    step: &Step,
    kind: &dyn StepKind,
    context: &StepContext,
    config: Value,
) -> Result<crate::executor::StepOutput, StepError> {
    let spent = job.lease.overdue.saturating_add(job.flight.since.elapsed());
    let left = step.timeout.total.map(|total| total.saturating_sub(spent));
    if left == Some(Duration::ZERO) {
        // Not even asked: a limit of nothing would still let a quick kind end well.
        return Err(out_of_time());
    }
    let (limit, class) = match (step.timeout.attempt, left) {
        (Some(attempt), Some(left)) if left < attempt => (Some(left), ErrorClass::TotalTimeout),
        (None, Some(left)) => (Some(left), ErrorClass::TotalTimeout),
        (attempt, _) => (attempt, ErrorClass::Timeout),
    };
    let Some(limit) = limit else { return kind.execute(context, config).await };
    match tokio::time::timeout(limit, kind.execute(context, config)).await {
        Ok(ended) => ended,
        Err(_) if class == ErrorClass::TotalTimeout => Err(out_of_time()),
        Err(_) => Err(StepError::new(class, format!("the attempt took longer than {limit:?}; raise `timeout.attempt` if that is usual"))),
    }
}

fn out_of_time() -> StepError {
    StepError::new(ErrorClass::TotalTimeout, "the step's total timeout has passed; raise `timeout.total` or lower `timeout.attempt`")
}

pub(super) fn done(step: &Step, output: Value) -> Result<Outcome, StepError> {
    check_step_output(step, Payload::from(&output), None)
}

fn check_step_output(step: &Step, output: Payload, usage: Option<Usage>) -> Result<Outcome, StepError> {
    check_output("the output", step.output.as_ref(), output, usage)
}

fn check_output(what: &str, schema: Option<&Schema>, output: Payload, usage: Option<Usage>) -> Result<Outcome, StepError> {
    if let Some(schema) = schema {
        let value: Value = output.parse().map_err(|e| StepError::new(ErrorClass::Internal, format!("{what} is not JSON: {e}")))?;
        let violations = schema.check(&value);
        if let Some(first) = violations.first() {
            let more = if violations.len() > 1 { format!(" (and {} more)", violations.len() - 1) } else { String::new() };
            let message = format!("{what} misses its schema at `{}`: {}{more}", first.pointer, first.message);
            let mut error = StepError::new(ErrorClass::SchemaInvalid, message).details(serde_json::json!({ "violations": violations }));
            error.usage = usage;
            return Err(error);
        }
    }
    // Here, where only this step waits for it.
    output.packed();
    Ok(Outcome::Succeeded { output, usage })
}

fn sleep(plan: &WaitPlan, bindings: &Bindings) -> Result<Outcome, StepError> {
    let unfit = |message: String| StepError::new(ErrorClass::Expression, message);
    let wake = match plan {
        WaitPlan::For(template) => match template.render(bindings).map_err(expression)? {
            Value::String(text) => Wake::After(parse_duration(&text).map_err(|e| unfit(format!("`for`: {e}")))?),
            Value::Number(n) => {
                let seconds = n.as_f64().and_then(|s| Duration::try_from_secs_f64(s).ok());
                Wake::After(seconds.ok_or_else(|| unfit(format!("`for`: {n} seconds is no duration")))?)
            }
            other => return Err(unfit(format!("`for` must be a duration such as `30s` or a number of seconds, not {other}"))),
        },
        WaitPlan::Until(template) => match template.render(bindings).map_err(expression)? {
            Value::String(text) => {
                let at = chrono::DateTime::parse_from_rfc3339(&text);
                Wake::At(at.map_err(|e| unfit(format!("`until`: `{text}` is not an RFC 3339 time: {e}")))?.to_utc())
            }
            other => return Err(unfit(format!("`until` must be an RFC 3339 time, not {other}"))),
        },
    };
    Ok(Outcome::Sleep(wake))
}
