//! A step kind of one's own: `word_count:` in a workflow file. `cargo run --example custom_step`

use async_trait::async_trait;
use krowoc_engine::{
    Engine, ErrorClass, Payload, Scope,
    commands::StartRun,
    definition::{PromptFolder, Source, compile},
    executor::{StepContext, StepError, StepKind, StepKinds, StepOutput},
    queries::runs,
    worker::WorkerConfig,
};
use krowoc_postgres::{DATABASE, Local, LocalConfig};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// `word_count: {text}` → `{words, longest}`
struct WordCount;

#[async_trait]
impl StepKind for WordCount {
    fn name(&self) -> &'static str {
        "word_count"
    }

    fn schema(&self) -> Value {
        json!({"type": "object", "required": ["text"], "additionalProperties": false, "properties": {"text": {"type": "string"}}})
    }

    fn calls_out(&self) -> bool {
        false // no timeouts and retries are needed
    }

    async fn execute(&self, _context: &StepContext, config: Value) -> Result<StepOutput, StepError> {
        let words: Vec<&str> = config["text"].as_str().unwrap_or_default().split_whitespace().collect();
        let Some(longest) = words.iter().max_by_key(|word| word.len()) else {
            return Err(StepError::new(ErrorClass::InvalidRequest, "the text has no words; give one that has"));
        };
        StepOutput::json(&json!({"words": words.len(), "longest": longest}))
    }
}

const WORKFLOW: &str = "
krowoc: v1
name: count
input: {type: object, required: [text], properties: {text: {type: string}}}
steps:
  count: {word_count: {text: '${{ input.text }}'}}
output: ${{ steps.count.output }}
";

/// Runs the workflow on a private PostgreSQL and gives its output; `embed.rs` explains these lines.
pub async fn count(home: &Path, text: &str) -> anyhow::Result<Value> {
    let database = Local::join(LocalConfig::new(home)).await?;
    let engine = Engine::connect(database.url(DATABASE).parse()?, StepKinds::new().with(WordCount), 4).await?;
    engine.migrate().await?;
    let scope = Scope::local("example");
    let source = Source::parse("count.yaml", WORKFLOW);
    let compiled = source.and_then(|source| compile(&source, &engine.registry().kinds, &PromptFolder::default()));
    let compiled = compiled.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let version = engine.register(&scope, &compiled).await?.id;
    let worker = engine.worker(WorkerConfig::default()).await?;
    let input = Payload::from(&json!({"text": text}));
    let run = StartRun { version, input, idempotency_key: None, priority: 0, trigger: "example".into() };
    let run = engine.start_runs(&scope, &[run], Some(&*worker.local())).await?[0].id;
    let ended = loop {
        let found = runs::show(&mut *engine.pool().acquire().await?, &scope, run).await?;
        if found.run.finished_at.is_some() {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    worker.stop().await?;
    engine.pool().close().await;
    database.leave().await?;
    let output = ended.output.ok_or_else(|| anyhow::anyhow!("the run failed: {:?}", ended.run.error))?;
    Ok(output.parse()?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    println!("{}", count(&std::env::temp_dir().join("krowoc-example"), "a durable workflow is one that ends").await?);
    Ok(())
}
