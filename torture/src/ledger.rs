//! The effect ledger: a file outside the engine to which the steps of all worker processes append what they do. It is what the outside
//! world would have seen, whatever the database says afterwards.

use anyhow::{Context, Result};
use krowoc_engine::{
    ErrorClass, RunId,
    executor::{StepContext, StepError, StepKind, StepOutput},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What happened to an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// It began.
    Start,
    /// It brought an output.
    End,
    /// It failed, as its configuration wanted.
    Failed,
    /// The engine dropped it.
    Aborted,
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// What happened.
    pub event: Event,
    /// When, by [`now_us`].
    pub at_us: i64,
    /// When, as the process itself would have said.
    pub wall_us: i64,
    /// In which process.
    pub pid: u32,
    /// In which run.
    pub run: RunId,
    /// To which step.
    pub path: String,
    /// In which attempt.
    pub attempt: u32,
    /// The configuration of a start, the output of an end.
    #[serde(default)]
    pub value: Value,
}

/// Microseconds on the clock that all processes of the machine share and that nobody can set; asked of the kernel itself, since a scenario
/// puts another clock before the C library's.
pub fn now_us() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

/// Microseconds since 1970 on the clock of this process, which may have been put wrong on purpose.
#[expect(clippy::disallowed_methods, reason = "the engine must not read it; the judge wants to know what it would have read")]
pub fn wall_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or_else(|before| -(before.duration().as_micros() as i64), |since| since.as_micros() as i64)
}

/// Long paddings become their length, so that lines stay short; payloads are compared in this form.
pub fn shortened(value: &Value) -> Value {
    match value {
        Value::String(s) if s.len() > 200 => json!(s.len()),
        Value::Array(items) => items.iter().map(shortened).collect(),
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), shortened(v))).collect()),
        other => other.clone(),
    }
}

/// `ledger:` writes its start, sleeps `ms`, and writes its end. `in` holds outputs of other steps, `expects` how many; `fail_first`
/// attempts fail, `pad` bytes make the output large.
#[derive(Clone)]
pub struct LedgerKind {
    file: Arc<File>,
}

impl LedgerKind {
    /// Appends to this file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path).context("the ledger can't be opened")?;
        Ok(Self { file: Arc::new(file) })
    }

    fn write(&self, context: &StepContext, event: Event, value: Value) {
        let entry = Entry {
            event,
            at_us: now_us(),
            wall_us: wall_us(),
            pid: std::process::id(),
            run: context.run,
            path: context.path.clone(),
            attempt: context.attempt,
            value,
        };
        // One write per line, and the line's break in front: what a kill cuts off spoils no other process's line.
        let line = serde_json::to_string(&entry).map_err(io::Error::other);
        let written = line.and_then(|line| (&*self.file).write_all(format!("\n{line}").as_bytes()));
        if let Err(error) = written {
            // Whatever happens without a witness would be taken for a fault of the engine.
            tracing::error!(%error, "the ledger takes no line");
            std::process::abort();
        }
    }
}

/// Notes when the engine drops an execution.
struct Running<'a> {
    kind: &'a LedgerKind,
    context: &'a StepContext,
    ended: bool,
}

impl Running<'_> {
    fn end(&mut self, event: Event, value: Value) {
        self.ended = true;
        self.kind.write(self.context, event, value);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.kind.write(self.context, Event::Aborted, Value::Null);
        }
    }
}

#[async_trait::async_trait]
impl StepKind for LedgerKind {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["ms"],
            "properties": {
                "ms": { "type": "integer" }, "expects": { "type": "integer" }, "in": true, "seed": true, "item": true,
                "fail_first": { "type": "integer" }, "pad": { "type": "integer" }
            }
        })
    }

    async fn execute(&self, context: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        self.write(context, Event::Start, shortened(&config));
        let mut running = Running { kind: self, context, ended: false };
        tokio::time::sleep(Duration::from_millis(config["ms"].as_u64().unwrap_or(0))).await;
        if u64::from(context.attempt) <= config["fail_first"].as_u64().unwrap_or(0) {
            running.end(Event::Failed, Value::Null);
            return Err(StepError::new(ErrorClass::ServerError, "as the workflow wants"));
        }
        // The nonce tells executions of one step apart: a successor must have seen the one that was recorded.
        let mut output = json!({ "path": context.path, "attempt": context.attempt, "nonce": uuid::Uuid::new_v4() });
        if let Some(pad) = config["pad"].as_u64() {
            output["pad"] = json!("x".repeat(pad as usize));
        }
        running.end(Event::End, shortened(&output));
        StepOutput::json(&output)
    }
}

/// Reads the ledger.
pub struct Ledger {
    path: PathBuf,
    read: u64,
}

impl Ledger {
    /// Makes it where it is not.
    pub fn at(path: PathBuf) -> Result<Self> {
        LedgerKind::open(&path)?;
        Ok(Self { path, read: 0 })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything, and how many lines were cut off by a kill.
    pub fn entries(&self) -> Result<(Vec<Entry>, usize)> {
        let text = std::fs::read_to_string(&self.path).context("the ledger can't be read")?;
        let (mut entries, mut torn) = (vec![], 0);
        for line in text.lines().filter(|l| !l.is_empty()) {
            match serde_json::from_str(line) {
                Ok(entry) => entries.push(entry),
                Err(_) => torn += 1,
            }
        }
        Ok((entries, torn))
    }

    /// The process of the latest end that was written since the last call.
    pub fn latest_end(&mut self) -> Result<Option<u32>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        self.read += text.len() as u64;
        Ok(text.lines().rev().filter_map(|l| serde_json::from_str::<Entry>(l).ok()).find(|e| e.event == Event::End).map(|e| e.pid))
    }
}
