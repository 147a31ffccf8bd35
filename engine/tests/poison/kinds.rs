//! Step kinds that misbehave as a test tells them to.

use krowoc_engine::{
    ErrorClass, Payload,
    executor::{StepContext, StepError, StepKind, StepOutput},
};
use serde_json::{Value, json};
use std::{
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Nothing here spins or blocks for longer, whatever becomes of the test.
const LONGEST: Duration = Duration::from_secs(120);

/// What the kinds of a test share: how often they were begun and ended, and whether they may go on.
#[derive(Default)]
pub struct Reins {
    let_go: Mutex<bool>,
    changed: Condvar,
    gone_on: AtomicBool,
    pub begun: AtomicUsize,
    pub ended: AtomicUsize,
}

impl Reins {
    /// Whatever spins or blocks goes on.
    pub fn let_go(&self) {
        *self.let_go.lock().expect("not poisoned") = true;
        self.gone_on.store(true, SeqCst);
        self.changed.notify_all();
    }

    fn block(&self) {
        let held = self.let_go.lock().expect("not poisoned");
        drop(self.changed.wait_timeout_while(held, LONGEST, |let_go| !*let_go).expect("not poisoned"));
    }

    fn spin(&self) {
        let since = Instant::now();
        while !self.gone_on.load(SeqCst) && since.elapsed() < LONGEST {
            std::hint::spin_loop();
        }
    }
}

/// `keep:` keeps its thread in its first attempt, until it is let go: `{by: spinning | blocking}`. It gives its attempt's number.
pub struct Keep(pub Arc<Reins>);

#[async_trait::async_trait]
impl StepKind for Keep {
    fn name(&self) -> &'static str {
        "keep"
    }

    fn schema(&self) -> Value {
        json!(true)
    }

    fn calls_out(&self) -> bool {
        false
    }

    async fn execute(&self, context: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        self.0.begun.fetch_add(1, SeqCst);
        match config["by"].as_str() {
            _ if context.attempt > 1 => {}
            Some("spinning") => self.0.spin(),
            _ => self.0.block(),
        }
        self.0.ended.fetch_add(1, SeqCst);
        StepOutput::json(&context.attempt)
    }
}

/// `place:` gives the name of the thread that carries it out, and the number of times that its step was begun.
pub struct Place(pub Arc<AtomicUsize>);

#[async_trait::async_trait]
impl StepKind for Place {
    fn name(&self) -> &'static str {
        "place"
    }

    fn schema(&self) -> Value {
        json!(true)
    }

    fn calls_out(&self) -> bool {
        false
    }

    async fn execute(&self, _: &StepContext, _: Value) -> Result<StepOutput, StepError> {
        self.0.fetch_add(1, SeqCst);
        StepOutput::json(std::thread::current().name().unwrap_or_default())
    }
}

/// `bring:` brings or says a lot: `{bytes, as: value | text | error}`.
pub struct Bring;

#[async_trait::async_trait]
impl StepKind for Bring {
    fn name(&self) -> &'static str {
        "bring"
    }

    fn schema(&self) -> Value {
        json!(true)
    }

    fn calls_out(&self) -> bool {
        false
    }

    async fn execute(&self, _: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        let bulk = "é".repeat(config["bytes"].as_u64().unwrap_or_default() as usize / 2);
        match config["as"].as_str() {
            Some("error") => Err(StepError::new(ErrorClass::Refused, bulk.clone()).details(json!({ "page": bulk }))),
            Some("text") => Ok(StepOutput { output: Payload::from_json_text(format!("\"{bulk}\"")), usage: None }),
            _ => StepOutput::json(&bulk),
        }
    }
}

/// `explode:` panics, in the way that its configuration names.
pub struct Explode;

#[async_trait::async_trait]
impl StepKind for Explode {
    fn name(&self) -> &'static str {
        "explode"
    }

    fn schema(&self) -> Value {
        json!(true)
    }

    fn calls_out(&self) -> bool {
        false
    }

    async fn execute(&self, _: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        match config.as_str() {
            Some("long") => panic!("{}", "é".repeat(5 << 20)),
            Some("number") => std::panic::panic_any(7),
            Some("mine") => std::panic::panic_any(Mine),
            Some("poll") => Fuse(2).await,
            Some("drop") => {
                let _mine = Mine;
                std::future::pending::<()>().await;
            }
            _ => panic!("as the test says"),
        }
        StepOutput::json(&Value::Null)
    }
}

/// Panics when it is dropped.
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        panic!("stepped on");
    }
}

/// Panics when it is polled for the last time.
struct Fuse(u32);

impl Future for Fuse {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0 = self.0.checked_sub(1).expect("the fuse has burnt down");
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
