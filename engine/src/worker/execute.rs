//! Carries out one attempt: condition, rendering, the step kind, the output's check. Outside any transaction; nothing here writes.

use super::{
    gather,
    pace::Pace,
    shared::{Job, Shared},
};
use crate::{
    commands::complete_attempts::{Expansion, Outcome, Wake},
    definition::{Action, Bindings, Budget, ExpressionError, MapPlan, Schema, Step, Template, WaitPlan, parse_duration},
    error::ErrorClass,
    executor::{StepContext, StepError, StepKind, Usage},
    id::StepIx,
    payload::Payload,
    store::rows::Lease,
};
use futures::FutureExt;
use serde_json::Value;
use std::{collections::HashSet, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// How many items a map may have.
const MAX_ITEMS: usize = 1_000_000;

/// Carries out a job. What may take the processor or wait goes to a task of its own; the engine's small work stays on this one.
pub(super) async fn execute(shared: &Arc<Shared>, job: Arc<Job>) -> Outcome {
    if is_small(shared, &job) {
        let ended = AssertUnwindSafe(attempt(shared, &job)).catch_unwind().await;
        return ended.unwrap_or_else(|panic| panicked(&job, &panic_message(panic.as_ref())));
    }
    let task = {
        let (within, job) = (shared.clone(), job.clone());
        AbortOnDropHandle::new(shared.runtime.spawn(async move { attempt(&within, &job).await }.in_current_span()))
    };
    tokio::select! {
        // An end that has come counts, with what it brought and used, though a cancellation came as well.
        biased;
        ended = task => ended.unwrap_or_else(|e| match e.try_into_panic() {
            Ok(panic) => panicked(&job, &panic_message(panic.as_ref())),
            // Its runtime is being shut down: there is nothing left here that could carry out steps.
            Err(_) => {
                shared.stopping.cancel();
                Outcome::Released
            }
        }),
        // Given back: if the lane is still ours the step is ready again; if its run is being stopped, this ends the attempt.
        () = job.flight.cancelled.cancelled() => Outcome::Released,
    }
}

fn panicked(job: &Job, what: &str) -> Outcome {
    // What panicked may be the rendering.
    let input = std::panic::catch_unwind(AssertUnwindSafe(|| input_of(job, &bind(job)))).ok().flatten();
    Outcome::Failed { error: StepError::new(ErrorClass::Internal, format!("the step panicked: {what}")), input }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "no message".to_owned(),
    }
}

/// What a step on this thread may look at, in bytes: the leases of all others are renewed here.
const SMALL: usize = 16 * 1024;

/// Little constant or passed-on configuration for a kind that is done with it at once: not worth a task.
fn is_small(shared: &Shared, job: &Job) -> bool {
    match job.version.step(job.lease.step) {
        None => job.lease.step == Lease::ENTRY,
        Some((_, step)) => match &step.action {
            Action::Task { kind, config } => {
                let instant = shared.registry.kinds.get(kind).is_some_and(|k| k.is_instant());
                let plain = step.when.is_none() && step.output.is_none() && (config.is_constant() || config.is_bare_reference());
                instant && plain && job.inputs.bytes() <= SMALL
            }
            Action::Wait(_) => job.lease.phase == Lease::DUE,
            Action::Map(_) => false,
        },
    }
}

async fn attempt(shared: &Shared, job: &Job) -> Outcome {
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
fn input_of(job: &Job, bindings: &Bindings) -> Option<Payload> {
    match &job.version.step(job.lease.step)?.1.action {
        Action::Task { config, .. } => config.render_payload(bindings).ok(),
        Action::Map(plan) => plan.over.render_payload(bindings).ok(),
        Action::Wait(_) => None,
    }
}

fn expression(error: ExpressionError) -> StepError {
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
            Box::pin(expand(step, plan, bindings)).await
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

fn done(step: &Step, output: Value) -> Result<Outcome, StepError> {
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

async fn expand(step: &Step, plan: &MapPlan, bindings: &Bindings) -> Result<Outcome, StepError> {
    let unfit = |message: String| StepError::new(ErrorClass::Expression, message);
    let items = match plan.over.render(bindings).map_err(expression)? {
        Value::Array(items) => items,
        other => return Err(unfit(format!("`over` must be a list, not {}", kind_of(&other)))),
    };
    if items.len() > MAX_ITEMS {
        return Err(StepError::new(ErrorClass::TooLarge, format!("a map may have {MAX_ITEMS} items, this one has {}", items.len())));
    }
    if items.is_empty() {
        let output = if plan.collect.is_some() { serde_json::json!([]) } else { gather::counted(0, 0) };
        return done(step, output);
    }
    let items: Vec<String> = items.iter().map(Value::to_string).collect();
    let keys = match &plan.key {
        Some(key) => Some(keys(&plan.item, key, &items, bindings).await?),
        None => None,
    };
    Ok(Outcome::Expanded(Expansion { items, keys }))
}

/// Each item's key, as a JSON string; two items with one key are an error that names both.
async fn keys(name: &str, key: &Template, items: &[String], bindings: &Bindings) -> Result<Vec<String>, StepError> {
    let mut budget = Budget::for_items(items.len());
    let mut pace = Pace::new();
    let mut seen = HashSet::with_capacity(items.len());
    let mut keys = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        pace.rest().await;
        let mut bindings = bindings.clone();
        bindings.item(name, Payload::from_json_text(item.as_str()));
        let rendered = key.render_within(&bindings, &mut budget);
        let key = match rendered.map_err(|error| expression(error.of(format_args!("the key of item {at}"))))? {
            Value::String(text) => text,
            Value::Number(n) => n.to_string(),
            other => {
                return Err(StepError::new(ErrorClass::Expression, format!("the key of item {at} must be text or a number, not {other}")));
            }
        };
        if !seen.insert(key.clone()) {
            return Err(StepError::new(ErrorClass::Expression, format!("two items have the key `{key}`, one of them item {at}")));
        }
        keys.push(Value::String(key).to_string());
    }
    Ok(keys)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    fn template(source: &str) -> Template {
        Template::compile(&json!(source), "/key").expect("a template")
    }

    #[tokio::test]
    async fn many_keys_leave_the_thread_to_others_meanwhile() {
        let heard = Arc::new(AtomicBool::new(false));
        let other = heard.clone();
        // On the only thread there is: it runs where the loop lets it.
        tokio::spawn(async move { other.store(true, Relaxed) });
        let items: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
        let keys = keys("n", &template("${{ 'k' ~ n }}"), &items, &Bindings::default()).await.expect("keys");
        assert_eq!((keys.len(), keys[7].as_str()), (20_000, "\"k7\""));
        assert!(heard.load(Relaxed));
    }

    #[tokio::test]
    async fn a_key_that_would_take_for_ever_fails_and_is_named() {
        let items = ["1".to_owned(), "1000000".to_owned()];
        let error = keys("n", &template("${{ range(n) | list | length }}"), &items, &Bindings::default()).await.expect_err("too dear");
        assert_eq!(error.class, ErrorClass::Expression);
        assert!(error.message.starts_with("the key of item 1: ") && error.message.contains("too much work"), "{error}");
    }
}
