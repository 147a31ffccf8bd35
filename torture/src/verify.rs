//! Compares the ledger, what the world has seen, with the database, what the engine says.

use crate::{
    ledger::{Entry, Event, shortened},
    shapes::SLEEPY,
    world::{Cancel, World},
};
use anyhow::Result;
use krowoc_engine::RunId;
use serde_json::Value;
use sqlx::Row;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// What was found, so that a scenario can tell that it has proved something.
#[derive(Debug, Default)]
pub struct Found {
    /// Accepted runs.
    pub runs: usize,
    /// Recorded ends of `ledger` steps.
    pub steps: usize,
    /// Executions that started.
    pub starts: usize,
    /// Executions that came to an output whose step has recorded another.
    pub repeated: usize,
    /// Attempts on record as lost.
    pub lost: usize,
    /// Outputs of other steps that steps saw, each compared.
    pub inputs: usize,
    /// Lines that a kill cut off.
    pub torn: usize,
}

/// A step's recorded end.
struct Recorded {
    attempt: u32,
    output: Value,
    /// Attempts on record beside it.
    others: HashSet<u32>,
}

type Address = (Uuid, Vec<u8>, i16);

/// Compares, and tells every violation.
pub async fn verify(world: &World) -> Result<Found> {
    let mut wrong = world.database.violations().await?;
    let mut found = Found { runs: world.runs.len(), ..Found::default() };
    check_runs(world, &mut wrong).await?;
    let (recorded, lost) = read(world, &mut wrong).await?;
    (found.lost, found.steps) = (lost, recorded.len());
    let (mut entries, torn) = world.ledger.entries()?;
    // Of these there may be nothing left to compare with.
    entries.retain(|entry| !world.retired.contains(&entry.run));
    found.torn = torn;
    check_starts(world, &entries, &recorded, &mut found, &mut wrong);
    check_order(&entries, &mut wrong);
    check_ends(&entries, &recorded, &mut found, &mut wrong);
    wrong.iter().for_each(|what| world.findings().violation(what));
    Ok(found)
}

/// Every run that was accepted, and no other, has ended as its shape says, with its last step's output.
async fn check_runs(world: &World, wrong: &mut Vec<String>) -> Result<()> {
    let rows = sqlx::query("SELECT id, status::text, coalesce(error::text, '') FROM krowoc.run").fetch_all(world.engine.pool()).await?;
    let ended: HashMap<RunId, (String, String)> = rows.iter().map(|r| (RunId(r.get(0)), (r.get(1), r.get(2)))).collect();
    let unknown = |id: &&RunId| !world.runs.contains_key(*id) && !world.retired.contains(*id);
    wrong.extend(ended.keys().filter(unknown).map(|id| format!("run {id} was never accepted")));
    for (id, accepted) in &world.runs {
        let due: &[&str] = match accepted.cancel {
            Cancel::None => &[accepted.shape.status],
            // It never ends, but its steps may have been lost four times before the cancel came.
            Cancel::Asked if accepted.shape == SLEEPY => &["cancelled", "failed"],
            Cancel::Asked => &[accepted.shape.status, "cancelled"],
            Cancel::Acknowledged => &["cancelled"],
        };
        match ended.get(id) {
            None => wrong.push(format!("I2: run {id} was accepted and is gone")),
            Some((status, error)) if !due.contains(&status.as_str()) => {
                wrong.push(format!("I2: run {id} is {status} {error}, not {}", due.join(" or ")));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Was the run stopped on the way, so that what began may have come to nothing?
fn was_stopped(world: &World, run: &RunId) -> bool {
    world.runs.get(run).is_some_and(|accepted| accepted.cancel != Cancel::None)
}

/// Recorded ends of `ledger` steps by their address for people, and how many attempts were lost.
async fn read(world: &World, wrong: &mut Vec<String>) -> Result<(HashMap<(RunId, String), Recorded>, usize)> {
    let pool = world.engine.pool();
    let mut attempts: HashMap<Address, HashSet<u32>> = HashMap::new();
    let mut lost = 0;
    for r in sqlx::query("SELECT run_id, scope, step, attempt, status::text FROM krowoc.attempt").fetch_all(pool).await? {
        attempts.entry((r.get(0), r.get(1), r.get(2))).or_default().insert(r.get::<i32, _>(3) as u32);
        lost += usize::from(r.get::<String, _>(4) == "lost");
    }
    let mut recorded = HashMap::new();
    let rows = sqlx::query(
        "SELECT r.run_id, r.scope, r.step, r.attempt, r.output::text, b.data, d.path
         FROM krowoc.step_result r LEFT JOIN krowoc.blob b ON b.run_id = r.run_id AND b.hash = r.output_blob
         LEFT JOIN krowoc.dead_letter d ON d.run_id = r.run_id AND d.scope = r.scope AND d.step = r.step AND r.status = 'failed'",
    );
    for r in rows.fetch_all(pool).await? {
        if world.retired.contains(&RunId(r.get(0))) {
            continue;
        }
        let text = match (r.get::<Option<String>, _>(4), r.get::<Option<Vec<u8>>, _>(5)) {
            (Some(text), _) => text,
            (None, Some(data)) => String::from_utf8(lz4_flex::decompress_size_prepended(&data)?)?,
            (None, None) => "null".into(),
        };
        let output = shortened(&serde_json::from_str(&text)?);
        let failed_path: Option<String> = r.get(6);
        // Maps and waits write no ledger; skipped steps have nothing to write.
        let Some(path) = output["path"].as_str().map(str::to_owned).or(failed_path) else { continue };
        let others = attempts.remove(&(r.get(0), r.get(1), r.get(2))).unwrap_or_default();
        let end = Recorded { attempt: r.get::<i32, _>(3) as u32, output, others };
        if recorded.insert((RunId(r.get(0)), path.clone()), end).is_some() {
            wrong.push(format!("{path} has two results"));
        }
    }
    let mut counts: HashMap<RunId, usize> = HashMap::new();
    for ((run, _), end) in &recorded {
        *counts.entry(*run).or_default() += usize::from(!end.output.is_null());
    }
    for (id, accepted) in &world.runs {
        let (count, due) = (counts.get(id).copied().unwrap_or(0), accepted.shape.steps);
        if accepted.shape.status == "succeeded" && accepted.cancel == Cancel::None && count != due {
            wrong.push(format!("run {id} has {count} results of ledger steps, not {due}"));
        }
    }
    Ok((recorded, lost))
}

/// Each execution is an attempt on record, no attempt was executed twice, and what it saw is what its predecessors recorded.
fn check_starts(
    world: &World,
    entries: &[Entry],
    recorded: &HashMap<(RunId, String), Recorded>,
    found: &mut Found,
    wrong: &mut Vec<String>,
) {
    let mut seen = HashSet::new();
    for entry in entries.iter().filter(|e| e.event == Event::Start) {
        let Entry { run, path, attempt, value, .. } = entry;
        found.starts += 1;
        if !seen.insert((run, path, attempt)) {
            wrong.push(format!("I1: attempt {attempt} of {run}/{path} was executed twice"));
        }
        match recorded.get(&(*run, path.clone())) {
            None if was_stopped(world, run) => {}
            None => wrong.push(format!("{run}/{path} was executed and has no result")),
            Some(end) if *attempt > end.attempt => {
                wrong.push(format!("I1: attempt {attempt} of {run}/{path} was executed, the result is of attempt {}", end.attempt));
            }
            Some(end) if *attempt < end.attempt && !end.others.contains(attempt) && !was_stopped(world, run) => {
                wrong.push(format!("attempt {attempt} of {run}/{path} was executed and is on no record"));
            }
            Some(_) => {}
        }
        check_inputs(world, entry, recorded, found, wrong);
        let item = path.rsplit_once('[').and_then(|(_, rest)| rest.split_once(']')).and_then(|(n, _)| n.parse::<u64>().ok());
        if let Some(given) = value.get("item")
            && given.as_u64() != item
        {
            wrong.push(format!("{run}/{path} got item {given}"));
        }
        if let Some(given) = value.get("seed")
            && given.as_u64() != world.runs.get(run).map(|a| a.seed)
        {
            wrong.push(format!("{run}/{path} got the run input {given}"));
        }
    }
}

fn check_inputs(world: &World, entry: &Entry, recorded: &HashMap<(RunId, String), Recorded>, found: &mut Found, wrong: &mut Vec<String>) {
    let Entry { run, path, value, .. } = entry;
    if !world.runs.contains_key(run) {
        wrong.push(format!("a step of the unknown run {run} was executed"));
    }
    let mut outputs = vec![];
    outputs_in(&value["in"], &mut outputs);
    if outputs.len() as u64 != value["expects"].as_u64().unwrap_or(0) {
        wrong.push(format!("I4: {run}/{path} saw {} outputs of {}: {value}", outputs.len(), value["expects"]));
    }
    for output in outputs {
        found.inputs += 1;
        let of = output["path"].as_str().unwrap_or_default().to_owned();
        let due = recorded.get(&(*run, of)).map(|end| &end.output);
        if due != Some(output) {
            wrong.push(format!("I4: {run}/{path} saw {output}, recorded is {due:?}"));
        }
    }
}

/// Every output of a `ledger` step in a value.
fn outputs_in<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) if map.contains_key("path") => found.push(value),
        Value::Object(map) => map.values().for_each(|v| outputs_in(v, found)),
        Value::Array(items) => items.iter().for_each(|v| outputs_in(v, found)),
        _ => {}
    }
}

/// I1 by the clock: a step that somebody has seen the output of is recorded, so it starts no more.
fn check_order(entries: &[Entry], wrong: &mut Vec<String>) {
    let mut used: HashMap<(RunId, &str), i64> = HashMap::new();
    for entry in entries.iter().filter(|e| e.event == Event::Start) {
        let mut outputs = vec![];
        outputs_in(&entry.value["in"], &mut outputs);
        for of in outputs.iter().filter_map(|o| o["path"].as_str()) {
            let first = used.entry((entry.run, of)).or_insert(i64::MAX);
            *first = entry.at_us.min(*first);
        }
    }
    for entry in entries.iter().filter(|e| e.event == Event::Start) {
        if let Some(first) = used.get(&(entry.run, entry.path.as_str()))
            && entry.at_us > *first
        {
            wrong.push(format!("I1: {}/{} started {} µs after its output had been used", entry.run, entry.path, entry.at_us - first));
        }
    }
}

/// What is recorded was brought by an execution; what others brought for the same step is counted.
fn check_ends(entries: &[Entry], recorded: &HashMap<(RunId, String), Recorded>, found: &mut Found, wrong: &mut Vec<String>) {
    let mut brought = HashSet::new();
    for entry in entries.iter().filter(|e| e.event == Event::End) {
        match recorded.get(&(entry.run, entry.path.clone())) {
            Some(end) if end.output == entry.value => {
                brought.insert((entry.run, entry.path.as_str()));
            }
            _ => found.repeated += 1,
        }
    }
    for ((run, path), end) in recorded {
        if !end.output.is_null() && !brought.contains(&(*run, path.as_str())) {
            wrong.push(format!("{run}/{path} has an output that nothing brought: {}", end.output));
        }
    }
}
