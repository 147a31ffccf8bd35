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
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// What the steps of a test do.
#[derive(Clone, Copy)]
enum Deed {
    Succeed,
    Panic,
    /// Its own step is cancelled while it ends.
    EndCancelled,
    /// It never ends.
    Wait,
}

struct Probe {
    deed: Deed,
    calls_out: bool,
    instant: bool,
    calls: Arc<AtomicUsize>,
    /// Calls that had a task of their own.
    apart: Arc<AtomicUsize>,
    /// Cancels the step.
    flight: Arc<OnceLock<CancellationToken>>,
}

impl Probe {
    fn new(deed: Deed) -> Self {
        Self { deed, calls_out: false, instant: false, calls: Arc::default(), apart: Arc::default(), flight: Arc::default() }
    }
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

    async fn execute(&self, _: &StepContext, _: Value) -> Result<StepOutput, StepError> {
        self.calls.fetch_add(1, Relaxed);
        self.apart.fetch_add(usize::from(tokio::task::try_id().is_some()), Relaxed);
        match self.deed {
            Deed::Succeed => {}
            Deed::Panic => panic!("as the test says"),
            Deed::Wait => std::future::pending().await,
            Deed::EndCancelled => self.flight.get().expect("the step's").cancel(),
        }
        Ok(StepOutput::json(&1)?.with_usage(Usage { input_tokens: 7, ..Usage::default() }))
    }
}

/// Carries out the first step of a workflow; gives what came of it and how often the kind was called.
async fn carry_out(steps: &str, deed: Deed, calls_out: bool, overdue: Duration) -> (Outcome, usize) {
    let calls = Arc::<AtomicUsize>::default();
    let probe = Probe { calls_out, calls: calls.clone(), ..Probe::new(deed) };
    let outcome = carry_out_with(steps, probe, overdue, Inputs { complete: true, ..Default::default() }).await;
    (outcome, calls.load(Relaxed))
}

async fn carry_out_with(steps: &str, probe: Probe, overdue: Duration, inputs: Inputs) -> Outcome {
    let (flight, deed) = (probe.flight.clone(), probe.deed);
    let mut drain = Drain::new().await;
    let (_, version) = drain.start(steps).await;
    let Claimed { mut lease, state } = drain.claim().await.expect("a step");
    drain.done().await;
    lease.overdue = overdue;
    let registry = Registry { kinds: Arc::new(StepKinds::new().with(probe)), versions: Arc::new(Versions::default()) };
    let config = WorkerConfig { threads: Some(1), ..WorkerConfig::default() };
    let (shared, mut channels) =
        Shared::new((PgConnectOptions::new(), PgConnectOptions::new()), registry, config, 1, vec![]).expect("a worker's parts");
    shared.dispatch(lease, version, state, inputs, Instant::now());
    let job = channels.jobs.recv().await.expect("a job");
    assert!(flight.set(job.flight.cancelled.clone()).is_ok());
    let waits = matches!(deed, Deed::Wait);
    let mut executing = std::pin::pin!(execute::execute(&shared, Arc::new(job)));
    let outcome = match futures::poll!(executing.as_mut()) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending if waits => {
            shared.runtimes.shut_down();
            executing.await
        }
        Poll::Pending => {
            // Whoever waits for the end of a task looks when there is nothing left to come.
            while !shared.runtimes.are_deserted() {
                std::thread::yield_now();
            }
            executing.await
        }
    };
    shared.runtimes.shut_down();
    outcome
}

/// Guard: `is_small`. The thread on which leases are renewed is for what is done at once.
#[tokio::test]
async fn only_instant_kinds_with_little_to_look_at_have_no_task_of_their_own() {
    let steps = "  a:\n    t: '${{ input }}'\n";
    for (instant, bytes, apart) in [(true, 10, 0), (true, 20_000, 1), (false, 10, 1)] {
        let calls = Arc::<AtomicUsize>::default();
        let probe = Probe { instant, apart: calls.clone(), ..Probe::new(Deed::Succeed) };
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

/// Guard: a task that is cancelled with its runtime is no failure (`broken_off`).
#[tokio::test]
async fn a_step_whose_threads_go_away_is_given_back() {
    let (outcome, _) = carry_out("  a:\n    t:\n", Deed::Wait, false, Duration::ZERO).await;
    assert!(matches!(outcome, Outcome::Released), "{outcome:?}");
}
