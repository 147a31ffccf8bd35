//! Carries runs out without a worker, one attempt at a time, as a test scripts them: the same claims and completions, no clock, no tasks.

use crate::{
    commands::{
        StartRun,
        complete_attempts::{Batch, Completed, Completion, Expansion, Inputs, NoRoom, Outcome, Room, ScopeCache, Wake, complete_attempts},
        give_way, is_permanent, register_workflow, start_runs,
    },
    definition::{Action, Compiled, Problem, PromptSource, PromptVersion, Source, compile},
    error::ErrorClass,
    executor::{StepContext, StepError, StepKind, StepKinds, StepOutput, Usage},
    id::{RunId, Scope},
    payload::Payload,
    queries::keys,
    store::{
        holder::Claimant,
        hot::{self, Claim},
        maps,
        rows::{Claimed, Lease},
        workers,
    },
    testing::TestDatabase,
    version::{Version, Versions},
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// What one attempt comes to.
pub(crate) enum Act {
    Ok(Value),
    Used(u64, u64),
    Fail(ErrorClass),
    Later(Duration),
    /// A limit that is over then.
    Limited(Duration),
    /// A map's items; with keys.
    Items(usize, bool),
    /// A map's items by their keys.
    Keys(&'static [&'static str]),
}

/// A database and a worker without threads.
pub(crate) struct Drain {
    pub conn: PgConnection,
    pub versions: Versions,
    pub scope: Scope,
    /// What the attempts of a step come to, by its address; when it is used up they succeed.
    pub script: HashMap<String, VecDeque<Act>>,
    /// Addresses of the attempts carried out, in order.
    pub log: Vec<String>,
    /// What the worker remembers; a test that has two workers swaps it.
    pub cache: ScopeCache,
    worker: i32,
    database: TestDatabase,
}

struct T;

#[async_trait::async_trait]
impl StepKind for T {
    fn name(&self) -> &'static str {
        "t"
    }
    fn schema(&self) -> Value {
        json!(true)
    }
    async fn execute(&self, _: &StepContext, _: Value) -> Result<StepOutput, StepError> {
        Err(StepError::new(ErrorClass::Internal, "attempts are scripted"))
    }
}

struct NoPrompts;

impl PromptSource for NoPrompts {
    fn resolve(&self, reference: &str) -> Result<PromptVersion, Problem> {
        Err(Problem::new("unknown_prompt", "", reference))
    }
}

/// A workflow of these steps.
pub(crate) fn compiled(steps: &str) -> Compiled {
    let text = format!("krowoc: v1\nname: test\nsteps:\n{steps}");
    let source = Source::parse("test.yaml", &text).unwrap_or_else(|p| panic!("{p:?}"));
    compile(&source, &StepKinds::new().with(T), &NoPrompts).unwrap_or_else(|p| panic!("{p:?}"))
}

impl Drain {
    pub async fn new() -> Self {
        let url = krowoc_postgres::testing::cluster().expect("a server");
        let database = TestDatabase::create(&url).await.expect("a database");
        let mut conn = PgConnection::connect_with(&database.options()).await.expect("a connection");
        let worker = workers::register(&mut conn, "drain", &[1], 1).await.expect("a worker");
        let (versions, scope) = (Versions::default(), Scope::local("test"));
        Self { conn, versions, scope, script: HashMap::new(), log: vec![], cache: ScopeCache::default(), worker, database }
    }

    /// Checks the invariants and removes the database.
    pub async fn done(mut self) {
        assert_eq!(self.violations().await, Vec::<String>::new());
        self.conn.close().await.expect("closed");
        self.database.drop_database().await.expect("dropped");
    }

    /// A pool on the same database.
    pub async fn pool(&self) -> sqlx::PgPool {
        sqlx::PgPool::connect_with(self.database.options()).await.expect("a pool")
    }

    /// Another connection to the same database.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.database.options()).await.expect("a connection")
    }

    /// Changes the database by hand.
    pub async fn sql(&mut self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut self.conn).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// Returns when a session waits for a lock that another holds.
    pub async fn until_one_waits(conn: &mut PgConnection) {
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')";
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut *conn).await.expect("an answer") {
            tokio::task::yield_now().await;
        }
    }

    /// Every broken rule.
    pub async fn violations(&mut self) -> Vec<String> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT rule, detail FROM krowoc.check_invariants()").fetch_all(&mut self.conn).await.expect("checked");
        rows.into_iter().map(|(rule, detail)| format!("{rule}: {detail}")).collect()
    }

    pub fn will(&mut self, path: &str, acts: impl IntoIterator<Item = Act>) {
        self.script.entry(path.into()).or_default().extend(acts);
    }

    pub async fn start(&mut self, steps: &str) -> (RunId, Arc<Version>) {
        let compiled = compiled(steps);
        let id = register_workflow(&mut self.conn, &self.scope, &compiled).await.expect("registered").id;
        let run = StartRun { version: id, input: Payload::from(&json!({})), idempotency_key: None, priority: 0, trigger: "test".into() };
        let started = start_runs(&mut self.conn, &self.scope, &self.versions, &[run], None).await.expect("started");
        (started[0].id, self.versions.get(id).expect("loaded"))
    }

    pub fn claimant(&self) -> Claimant {
        Claimant { worker: self.worker, lease_s: 600.0 }
    }

    /// Claims one step.
    pub async fn claim(&mut self) -> Option<Claimed> {
        self.claim_with(0.5).await.leased.pop()
    }

    /// The same with a chance of one's own, and what the claim says beside.
    pub async fn claim_with(&mut self, luck: f64) -> Claim {
        self.claim_up_to(1, luck).await
    }

    /// Claims so many steps at once.
    pub async fn claim_many(&mut self, want: usize) -> Vec<Claimed> {
        self.claim_up_to(want, 0.5).await.leased
    }

    async fn claim_up_to(&mut self, want: usize, luck: f64) -> Claim {
        let by = self.claimant().holder();
        let queues: Vec<i16> = sqlx::query_scalar("SELECT id FROM krowoc.task_queue").fetch_all(&mut self.conn).await.expect("queues");
        hot::claim(&mut self.conn, &queues, want, luck, by).await.expect("claimed")
    }

    /// Carries out what is claimed, and whatever its completion hands over; gives the number of refused completions.
    pub async fn carry_out(&mut self, claimed: Claimed) -> usize {
        let (mut work, mut refused) = (vec![claimed], 0);
        while let Some(claimed) = work.pop() {
            let done = self.complete(claimed).await;
            work.extend(done.leased);
            refused += done.refused;
        }
        refused
    }

    /// Carries out the last item of a map and gives the map that is handed over to be finished.
    pub async fn carry_out_but_not_on(&mut self, claimed: Claimed) -> Claimed {
        self.complete(claimed).await.leased.pop().expect("a map whose items have ended")
    }

    async fn complete(&mut self, claimed: Claimed) -> Completed {
        self.complete_together(vec![claimed], &NoRoom).await
    }

    /// Carries out what is claimed and completes it as one batch, split where it must be, as a worker does.
    pub async fn complete_together(&mut self, all: Vec<Claimed>, room: &dyn Room) -> Completed {
        let completions = self.ended(all).await;
        let by = self.claimant();
        let (mut pending, mut done) = (vec![Batch::decide(completions, || 0.5)], Completed::default());
        while let Some(batch) = pending.last_mut() {
            if batch.is_empty() {
                pending.pop();
                continue;
            }
            if let Err(e) = complete_attempts(&mut self.conn, &mut self.cache, batch, by, room, &mut done).await {
                assert!(is_permanent(&e), "{e}");
                give_way(&mut pending, &e);
            }
        }
        done
    }

    /// Carries out what is claimed, and records nothing.
    pub async fn ended(&mut self, all: Vec<Claimed>) -> Vec<Completion> {
        let mut completions = vec![];
        for Claimed { lease, state } in all {
            let version = self.versions.load(&mut self.conn, lease.version).await.expect("a version");
            let outcome = self.outcome(&version, &lease).await;
            let elapsed = Duration::from_millis(5);
            completions.push(Completion { lease, version, outcome, elapsed, loaded: state, inputs: Inputs::default() });
        }
        completions
    }

    /// Carries out one attempt; false if nothing is ready.
    pub async fn step(&mut self) -> bool {
        match self.claim().await {
            Some(claimed) => {
                assert_eq!(self.carry_out(claimed).await, 0, "refused: {:?}", self.log);
                assert_eq!(self.violations().await, Vec::<String>::new(), "after {:?}", self.log);
                true
            }
            None => false,
        }
    }

    /// Carries out everything that is ready.
    pub async fn drain(&mut self) {
        while self.step().await {}
    }

    async fn outcome(&mut self, version: &Version, lease: &Lease) -> Outcome {
        let Some((ix, step)) = version.step(lease.step) else {
            return match lease.step {
                Lease::ENTRY => Outcome::Entered,
                _ => Outcome::Succeeded { output: Payload::null(), usage: None },
            };
        };
        let keys = keys::load(&mut self.conn, lease.run, &version.dag, [&lease.scope]).await.expect("keys");
        let path = keys.path(&version.dag, &lease.scope, ix);
        self.log.push(path.clone());
        let failed = |class: ErrorClass| Outcome::Failed { error: StepError::new(class, "as scripted: \u{0}"), input: None };
        if lease.phase == Lease::FILLED {
            let counts = maps::counts(&mut self.conn, lease.run, &lease.scope, lease.step).await.expect("counts").expect("a map");
            if counts.failed > counts.max_failed {
                return failed(ErrorClass::ToleranceExceeded);
            }
        }
        let ok = |output: Value| Outcome::Succeeded { output: Payload::from(&output), usage: None };
        let act = match lease.phase {
            Lease::DUE => None,
            // A map's own acts are its expansion and then its end.
            _ => self.script.get_mut(&path).and_then(VecDeque::pop_front),
        };
        match act {
            Some(Act::Ok(output)) => ok(output),
            Some(Act::Fail(class)) => failed(class),
            Some(Act::Limited(after)) => {
                let error = StepError::new(ErrorClass::RateLimited, "as scripted").retry_after(Some(after));
                Outcome::Failed { error, input: None }
            }
            Some(Act::Later(after)) => Outcome::Sleep(Wake::After(after)),
            Some(Act::Used(input, output)) => {
                let usage = Usage { model: "m".into(), input_tokens: input, output_tokens: output, ..Usage::default() };
                Outcome::Succeeded { output: Payload::null(), usage: Some(usage) }
            }
            Some(Act::Items(n, keyed)) => Outcome::Expanded(Expansion {
                items: (0..n).map(|i| i.to_string()).collect(),
                keys: keyed.then(|| (0..n).map(|i| format!("\"k{i}\"")).collect()),
            }),
            Some(Act::Keys(keys)) => Outcome::Expanded(Expansion {
                items: (0..keys.len()).map(|i| i.to_string()).collect(),
                keys: Some(keys.iter().map(|key| json!(key).to_string()).collect()),
            }),
            None if matches!(step.action, Action::Map(_)) && lease.phase == Lease::FRESH => {
                Outcome::Expanded(Expansion { items: vec!["0".into(), "1".into(), "2".into()], keys: None })
            }
            None => ok(json!(path)),
        }
    }
}
