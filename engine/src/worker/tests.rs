//! How one attempt is carried out, without a worker around it.

use super::{WorkerConfig, execute, shared::Shared};
use crate::{
    commands::complete_attempts::{Inputs, Outcome},
    drain::Drain,
    error::ErrorClass,
    executor::{StepContext, StepError, StepKind, StepKinds, StepOutput, Usage},
    payload::Payload,
    store::rows::Claimed,
    version::{Registry, Versions},
};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// What the steps of a test do.
#[derive(Clone, Copy)]
enum Deed {
    Succeed,
    Panic,
    /// Its own step is cancelled while it ends.
    EndCancelled,
}

struct Probe {
    deed: Deed,
    calls_out: bool,
    instant: bool,
    calls: Arc<AtomicUsize>,
    /// Calls that had a task of their own.
    apart: Arc<AtomicUsize>,
}

#[async_trait::async_trait]
impl StepKind for Probe {
    fn name(&self) -> &'static str {
        "t"
    }

    fn schema(&self) -> Value {
        json!(true)
    }

    fn calls_out(&self) -> bool {
        self.calls_out
    }

    fn is_instant(&self) -> bool {
        self.instant
    }

    async fn execute(&self, context: &StepContext, _: Value) -> Result<StepOutput, StepError> {
        self.calls.fetch_add(1, Relaxed);
        self.apart.fetch_add(usize::from(tokio::task::try_id().is_some()), Relaxed);
        match self.deed {
            Deed::Succeed => {}
            Deed::Panic => panic!("as the test says"),
            Deed::EndCancelled => context.cancelled.cancel(),
        }
        Ok(StepOutput::json(&1)?.with_usage(Usage { input_tokens: 7, ..Usage::default() }))
    }
}

/// Carries out the first step of a workflow; gives what came of it and how often the kind was called.
async fn carry_out(steps: &str, deed: Deed, calls_out: bool, overdue: Duration) -> (Outcome, usize) {
    let calls = Arc::<AtomicUsize>::default();
    let probe = Probe { deed, calls_out, instant: false, calls: calls.clone(), apart: Arc::default() };
    let outcome = carry_out_with(steps, probe, overdue, Inputs { complete: true, ..Default::default() }).await;
    (outcome, calls.load(Relaxed))
}

async fn carry_out_with(steps: &str, probe: Probe, overdue: Duration, inputs: Inputs) -> Outcome {
    let mut drain = Drain::new().await;
    let (_, version) = drain.start(steps).await;
    let Claimed { mut lease, state } = drain.claim().await.expect("a step");
    drain.done().await;
    lease.overdue = overdue;
    let registry = Registry { kinds: Arc::new(StepKinds::new().with(probe)), versions: Arc::new(Versions::default()) };
    let (shared, mut channels) = Shared::new((PgConnectOptions::new(), PgConnectOptions::new()), registry, WorkerConfig::default(), 1, vec![]);
    shared.dispatch(lease, version, state, inputs, Instant::now());
    let job = channels.jobs.recv().await.expect("a job");
    execute::execute(&shared, Arc::new(job)).await
}

/// Guard: `is_small`. The thread on which leases are renewed is for what is done at once.
#[tokio::test]
async fn only_instant_kinds_with_little_to_look_at_have_no_task_of_their_own() {
    let steps = "  a:\n    t: '${{ input }}'\n";
    for (instant, bytes, apart) in [(true, 10, 0), (true, 20_000, 1), (false, 10, 1)] {
        let calls = Arc::<AtomicUsize>::default();
        let probe = Probe { deed: Deed::Succeed, calls_out: false, instant, calls: Arc::default(), apart: calls.clone() };
        let inputs = Inputs { input: Some(Payload::from(&json!("x".repeat(bytes)))), complete: true, ..Default::default() };
        let outcome = carry_out_with(steps, probe, Duration::ZERO, inputs).await;
        assert!(matches!(outcome, Outcome::Succeeded { .. }), "{outcome:?}");
        assert_eq!(calls.load(Relaxed), apart, "instant: {instant}, {bytes} bytes");
    }
}

#[tokio::test]
async fn an_attempt_without_time_left_is_not_begun() {
    let steps = "  a:\n    t:\n    timeout: {total: 1s}\n";
    for calls_out in [true, false] {
        let (outcome, calls) = carry_out(steps, Deed::Succeed, calls_out, Duration::from_secs(1)).await;
        assert!(matches!(&outcome, Outcome::Failed { error, .. } if error.class == ErrorClass::TotalTimeout), "{outcome:?}");
        assert_eq!(calls, 0);
    }
    let (outcome, calls) = carry_out(steps, Deed::Succeed, true, Duration::from_millis(1)).await;
    assert!(matches!(outcome, Outcome::Succeeded { .. }), "{outcome:?}");
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn a_step_that_panics_leaves_its_input() {
    for calls_out in [true, false] {
        let (outcome, _) = carry_out("  a:\n    t: {x: 1}\n", Deed::Panic, calls_out, Duration::ZERO).await;
        let Outcome::Failed { error, input } = outcome else { panic!("{outcome:?}") };
        assert_eq!((error.class, error.message.as_str()), (ErrorClass::Internal, "the step panicked: as the test says"));
        assert_eq!(input.as_ref().map(Payload::as_str), Some(r#"{"x":1}"#));
    }
}

#[tokio::test]
async fn an_end_that_has_come_counts_though_the_step_is_cancelled() {
    // Either of two could be taken: each time it must be the end.
    for _ in 0..10 {
        let (outcome, _) = carry_out("  a:\n    t:\n", Deed::EndCancelled, true, Duration::ZERO).await;
        let Outcome::Succeeded { usage, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(usage.expect("usage").input_tokens, 7);
    }
}
