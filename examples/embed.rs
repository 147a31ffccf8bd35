//! The engine inside another program: its own database, its own worker, no other process. Here a shop takes orders, and an order that comes
//! twice is one run. `cargo run --example embed`

use krowoc_engine::{
    Engine, Payload, RunId, Scope,
    commands::StartRun,
    definition::{Compiled, PromptFolder, Source, compile},
    executor::StepKinds,
    queries::runs,
    worker::WorkerConfig,
};
use krowoc_postgres::{DATABASE, Local, LocalConfig};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

const WORKFLOW: &str = "
krowoc: v1
name: order
input:
  type: object
  required: [number, lines]
  properties:
    number: {type: string}
    lines: {type: array, items: {type: object, required: [price], properties: {price: {type: number}}}}
steps:
  total: {transform: \"${{ input.lines | map(attribute='price') | sum }}\"}
  pause: {needs: [total], wait: {for: 100ms}}
  letter:
    needs: [pause]
    transform: ${{ 'Order ' ~ input.number ~ ' comes to ' ~ steps.total.output ~ '.' }}
output: ${{ steps.letter.output }}
";

/// What this program does with its engine.
pub async fn orders(home: &Path) -> anyhow::Result<Vec<Value>> {
    // A private PostgreSQL; with one of your own, its URL takes the place of these two lines.
    let database = Local::join(LocalConfig::new(home)).await?;
    let options = database.url(DATABASE).parse()?;

    let engine = Engine::connect(options, krowoc_steps::kinds(Default::default()), 4).await?;
    engine.migrate().await?;
    let scope = Scope::local("shop");
    let compiled = compiled(&engine.registry().kinds)?;
    let version = engine.register(&scope, &compiled).await?.id;
    let worker = engine.worker(WorkerConfig { name: "shop".into(), ..WorkerConfig::default() }).await?;

    let order = |number: &str, price: u32| StartRun {
        version,
        input: Payload::from(&json!({"number": number, "lines": [{"price": price}, {"price": 5}]})),
        idempotency_key: Some(number.to_owned()),
        priority: 0,
        trigger: "shop".into(),
    };
    // All or none are accepted; those that are accepted will come to an end, whatever becomes of this process.
    let started = engine.start_runs(&scope, &[order("A-1", 20), order("A-2", 30)], Some(&*worker.local())).await?;
    let again = engine.start_runs(&scope, &[order("A-1", 20)], None).await?;
    anyhow::ensure!(again[0].id == started[0].id, "an order was taken twice");

    let mut letters = Vec::new();
    for run in &started {
        letters.push(output(&engine, &scope, run.id).await?);
    }
    worker.stop().await?;
    engine.pool().close().await;
    database.leave().await?;
    Ok(letters)
}

fn compiled(kinds: &StepKinds) -> anyhow::Result<Compiled> {
    let source = Source::parse("order.yaml", WORKFLOW);
    let compiled = source.and_then(|source| compile(&source, kinds, &PromptFolder::default()));
    compiled.map_err(|problems| anyhow::anyhow!("{problems:?}"))
}

async fn output(engine: &Engine, scope: &Scope, run: RunId) -> anyhow::Result<Value> {
    loop {
        let found = runs::show(&mut *engine.pool().acquire().await?, scope, run).await?;
        match (found.output, found.run.error) {
            (Some(output), _) => return Ok(output.parse()?),
            (None, Some(error)) => anyhow::bail!("run {run}: {}", error.as_str()),
            (None, None) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for letter in orders(&std::env::temp_dir().join("krowoc-example")).await? {
        println!("{letter}");
    }
    Ok(())
}
