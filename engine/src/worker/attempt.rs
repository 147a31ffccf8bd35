//! Carries out one attempt: condition, rendering, the step kind, the output's check. Outside any transaction; nothing here writes.

use super::{
    expand, gather,
    limit::Limit,
    panics,
    shared::{Job, Shared},
};
use crate::{
    bounds,
    commands::complete_attempts::{Outcome, Wake},
    definition::{Action, Bindings, ExpressionError, Schema, Step, Template, WaitPlan, parse_duration},
    error::ErrorClass,
    executor::{StepContext, StepError, StepKind, StepOutput, Usage},
    id::StepIx,
    payload::Payload,
    store::rows::Lease,
};
use futures::FutureExt;
use serde_json::Value;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Carries out an attempt that has begun. `returned` becomes true when its kind has brought a result: whoever watches its limit is told.
pub(super) async fn attempt(shared: &Shared, job: &Job, begun: Instant, returned: &AtomicBool) -> Outcome {
    let bindings = bind(job);
    let attempt = Attempt { shared, job, begun, returned, bindings: &bindings };
    let ended = AssertUnwindSafe(attempt.outcome()).catch_unwind().await;
    let error = match ended {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(error)) => error.within_bounds(),
        Err(panic) => panics::error(panic),
    };
    // What panicked may be the rendering.
    let input = catch_unwind(AssertUnwindSafe(|| input_of(job, &bindings))).unwrap_or_else(|panic| {
        panics::said(panic);
        None
    });
    Outcome::Failed { error, input }
}

/// An attempt that has begun.
struct Attempt<'a> {
    shared: &'a Shared,
    job: &'a Job,
    begun: Instant,
    returned: &'a AtomicBool,
    bindings: &'a Bindings,
}

impl Attempt<'_> {
    async fn outcome(&self) -> Result<Outcome, StepError> {
        match self.job.version.step(self.job.lease.step) {
            None if self.job.lease.step == Lease::ENTRY => Ok(Outcome::Entered),
            None => finish(self.job, self.bindings),
            Some((ix, step)) => self.carry_out(ix, step).await,
        }
    }

    async fn carry_out(&self, ix: StepIx, step: &Step) -> Result<Outcome, StepError> {
        let (shared, job, bindings) = (self.shared, self.job, self.bindings);
        if job.lease.phase == Lease::FRESH
            && let Some(when) = &step.when
            && !when.render_bool(bindings).map_err(expression)?
        {
            return Ok(Outcome::Skipped);
        }
        match (&step.action, job.lease.phase) {
            (Action::Task { kind, config }, _) => self.task(step, kind, config).await,
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

    async fn task(&self, step: &Step, kind: &str, config: &Template) -> Result<Outcome, StepError> {
        let (shared, job) = (self.shared, self.job);
        let kind = shared.registry.kinds.get(kind).ok_or_else(|| {
            let message = format!("this worker does not know the step kind `{kind}`; run the step on a queue whose workers do");
            StepError::new(ErrorClass::InvalidRequest, message)
        })?;
        let config = config.render(self.bindings).map_err(expression)?;
        let limit = Limit::of(job, self.begun);
        let cancelled = &job.flight.cancelled;
        let context = StepContext {
            run: job.lease.run,
            path: job.version.path(&job.lease.scope, job.lease.step, &job.inputs.keys),
            attempt: job.lease.attempt,
            // What ends by its limit alone is not cancelled, but what it has started elsewhere must hear of it.
            cancelled: if limit.is_some() { cancelled.child_token() } else { cancelled.clone() },
            output_schema: step.output.as_ref().map(|schema| schema.json().clone()),
            prompts: job.version.dag.prompts.clone(),
            idle_timeout: step.timeout.idle,
        };
        if !shared.flights.may_start(job.flight.number, shared.config.lease) {
            return Ok(Outcome::Released);
        }
        let ended = timed(limit, kind.as_ref(), &context, config).await;
        self.returned.store(true, Relaxed);
        let output = ended?;
        check_step_output(step, output.output, output.usage)
    }
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
fn input_of(job: &Job, bindings: &Bindings) -> Option<Payload> {
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

/// One attempt within its limit.
async fn timed(limit: Option<Limit>, kind: &dyn StepKind, context: &StepContext, config: Value) -> Result<StepOutput, StepError> {
    let Some(limit) = limit else { return kind.execute(context, config).await };
    if limit.leaves_nothing() {
        return Err(limit.error());
    }
    let left = limit.at.saturating_duration_since(Instant::now());
    let mut work = kind.execute(context, config);
    if let Ok(ended) = tokio::time::timeout(left, &mut work).await {
        return ended;
    }
    context.cancelled.cancel();
    // What it was in the middle of may panic; its time is up all the same.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(work))) {
        tracing::warn!(path = context.path, panic = panics::said(panic), "a step panicked while it was dropped");
    }
    Err(limit.error())
}

pub(super) fn done(step: &Step, output: Value) -> Result<Outcome, StepError> {
    check_step_output(step, Payload::from(&output), None)
}

fn check_step_output(step: &Step, output: Payload, usage: Option<Usage>) -> Result<Outcome, StepError> {
    check_output("the output", step.output.as_ref(), output, usage)
}

fn check_output(what: &str, schema: Option<&Schema>, output: Payload, usage: Option<Usage>) -> Result<Outcome, StepError> {
    if let Err(mut error) = bounds::check(what, output.len()) {
        error.usage = usage;
        return Err(error);
    }
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
    Ok(Outcome::Succeeded { output, usage: usage.map(Usage::within_bounds) })
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
