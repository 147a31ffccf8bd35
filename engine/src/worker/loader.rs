//! Reads what claimed steps look at: whatever gathered during the last read is one batch of three queries.

use super::{
    reconnect::Reconnect,
    shared::{Job, Shared},
};
use crate::{
    commands::complete_attempts::Outcome,
    error::{Error, ErrorClass, Result},
    executor::StepError,
    id::{RunId, ScopePath, StepIx},
    payload::Payload,
    store::{
        blobs,
        inputs::{self, Chunk, StepAddress},
        maps::CHUNK,
    },
};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tokio::sync::mpsc;

const BATCH: usize = 1024;

pub(super) async fn run(shared: Arc<Shared>, mut to_load: mpsc::UnboundedReceiver<Job>) {
    let mut reconnect = Reconnect::new("loader", &shared.options);
    let mut conn = None;
    let mut jobs = Vec::with_capacity(BATCH);
    let mut chunks = ChunkCache::default();
    loop {
        tokio::select! {
            biased;
            n = to_load.recv_many(&mut jobs, BATCH) => if n == 0 { return },
            () = shared.closed.cancelled() => return,
        }
        while !jobs.is_empty() {
            if conn.is_none() {
                conn = reconnect.connect(&shared.closed).await;
            }
            let Some(connection) = &mut conn else { return };
            match shared.claimant().in_time(load(connection, &mut jobs, &mut chunks)).await {
                Ok(()) => {
                    reconnect.succeeded();
                    jobs.drain(..).for_each(|job| shared.hand_out(job));
                }
                Err(Error::Store(e)) => {
                    reconnect.failed(&e.into());
                    conn = None;
                }
                Err(_) => {
                    for job in std::mem::take(&mut jobs) {
                        alone(&shared, connection, job, &mut chunks).await;
                    }
                }
            }
        }
    }
}

/// In a batch that can't be read, the one job at fault fails with that; the others go on.
async fn alone(shared: &Shared, conn: &mut PgConnection, mut job: Job, chunks: &mut ChunkCache) {
    match shared.claimant().in_time(load(conn, std::slice::from_mut(&mut job), chunks)).await {
        Ok(()) => shared.hand_out(job),
        Err(Error::Store(_)) => shared.load_again(job),
        Err(e) => {
            let error = StepError::new(ErrorClass::Internal, format!("the step's inputs could not be read: {e}"));
            shared.finish(Arc::new(job), Outcome::Failed { error, input: None });
        }
    }
}

/// Recently read chunks of maps' items: the next items of the same map are mostly in the same ones.
#[derive(Default)]
struct ChunkCache(HashMap<(StepAddress, i32), Arc<ReadChunk>>);

struct ReadChunk {
    items: Vec<Payload>,
    keys: Option<Vec<String>>,
}

impl ChunkCache {
    const MAX: usize = 256;

    async fn fill(&mut self, conn: &mut PgConnection, wanted: BTreeSet<(StepAddress, i32)>) -> Result<()> {
        let missing: Vec<_> = wanted.into_iter().filter(|key| !self.0.contains_key(key)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.0.len() + missing.len() > Self::MAX {
            self.0.clear();
        }
        for (at, chunk) in inputs::chunks(conn, &missing).await? {
            self.0.insert(missing[at].clone(), Arc::new(read_chunk(&chunk)?));
        }
        Ok(())
    }

    fn get(&self, address: &StepAddress, item: u32) -> Result<(&ReadChunk, usize)> {
        let key = (address.clone(), (item as usize / CHUNK) as i32);
        let chunk = self.0.get(&key).ok_or_else(|| Error::Internal(format!("item {item} of a map of run {} is not stored", address.0)))?;
        Ok((chunk, item as usize % CHUNK))
    }
}

fn read_chunk(chunk: &Chunk) -> Result<ReadChunk> {
    let unreadable = |e: serde_json::Error| Error::Internal(format!("a map's items are not readable: {e}"));
    let items: Vec<Box<RawValue>> = serde_json::from_str(&chunk.items).map_err(unreadable)?;
    let keys = chunk.keys.as_deref().map(serde_json::from_str).transpose().map_err(unreadable)?;
    Ok(ReadChunk { items: items.into_iter().map(|raw| Payload::from_json_text(raw.get())).collect(), keys })
}

async fn load(conn: &mut PgConnection, jobs: &mut [Job], chunks: &mut ChunkCache) -> Result<()> {
    load_items(conn, jobs, chunks).await?;
    let mut blobs = load_runs(conn, jobs).await?;
    blobs.extend(load_results(conn, jobs).await?);
    if !blobs.is_empty() {
        let keys: Vec<_> = blobs.iter().map(|b| (jobs[b.job].lease.run, b.hash.clone())).collect();
        let payloads = blobs::load(conn, &keys).await?;
        for (blob, key) in blobs.into_iter().zip(keys) {
            let payload = payloads.get(&key).ok_or_else(|| Error::Internal(format!("a payload of run {} is missing", key.0)))?;
            match blob.step {
                None => jobs[blob.job].inputs.input = Some(payload.clone()),
                Some(step) => jobs[blob.job].inputs.steps.push((step, Some(payload.clone()))),
            }
        }
    }
    for job in jobs {
        job.inputs.complete = true;
    }
    Ok(())
}

/// A payload that lies outside its row: a step's output, or the run's input.
struct Outside {
    job: usize,
    step: Option<StepIx>,
    hash: Vec<u8>,
}

async fn load_runs(conn: &mut PgConnection, jobs: &mut [Job]) -> Result<Vec<Outside>> {
    let wanted = |job: &Job| {
        let reads = job.version.reads(&job.lease);
        reads.is_some_and(|r| r.input && job.inputs.input.is_none() || r.run && job.inputs.facts.is_none())
    };
    let ids: BTreeSet<_> = jobs.iter().filter(|j| wanted(j)).map(|j| j.lease.run.0).collect();
    if ids.is_empty() {
        return Ok(vec![]);
    }
    let runs = inputs::runs(conn, &ids.into_iter().collect::<Vec<_>>()).await?;
    let mut outside = vec![];
    for (at, job) in jobs.iter_mut().enumerate().filter(|(_, j)| wanted(j)) {
        let run = runs.get(&job.lease.run).ok_or_else(|| Error::Internal(format!("run {} has lanes but no header", job.lease.run)))?;
        job.inputs.input = run.input.clone();
        job.inputs.facts = Some(run.facts.clone());
        if let Some(hash) = &run.blob {
            outside.push(Outside { job: at, step: None, hash: hash.clone() });
        }
    }
    Ok(outside)
}

async fn load_results(conn: &mut PgConnection, jobs: &mut [Job]) -> Result<Vec<Outside>> {
    let (mut addresses, mut owners) = (vec![], vec![]);
    for (at, job) in jobs.iter_mut().enumerate() {
        let Some(reads) = job.version.reads(&job.lease) else { continue };
        let known: Vec<StepIx> = job.inputs.steps.iter().map(|(ix, _)| *ix).collect();
        for ix in reads.steps.iter().filter(|ix| !known.contains(ix)) {
            let Some(scope) = job.version.dag.enclosing(&job.lease.scope, *ix) else { continue };
            addresses.push((job.lease.run, scope, ix.0 as i16));
            owners.push((at, *ix));
        }
    }
    if addresses.is_empty() {
        return Ok(vec![]);
    }
    let mut outside = vec![];
    let mut absent: BTreeSet<usize> = (0..owners.len()).collect();
    for (at, output, blob) in inputs::results(conn, &addresses).await? {
        absent.remove(&at);
        let (job, ix) = owners[at];
        match (output, blob) {
            (_, Some(hash)) => outside.push(Outside { job, step: Some(ix), hash }),
            (output, None) => jobs[job].inputs.steps.push((ix, output)),
        }
    }
    for at in absent {
        let (job, ix) = owners[at];
        jobs[job].inputs.steps.push((ix, None));
    }
    Ok(outside)
}

/// Items of enclosing maps, and their keys where paths show them.
async fn load_items(conn: &mut PgConnection, jobs: &mut [Job], chunks: &mut ChunkCache) -> Result<()> {
    let mut wanted = BTreeSet::new();
    for job in jobs.iter() {
        for (address, item, _) in items_of(job) {
            wanted.insert((address, (item as usize / CHUNK) as i32));
        }
    }
    chunks.fill(conn, wanted).await?;
    for job in jobs {
        let found: Vec<_> = items_of(job).collect();
        job.inputs.items.clear();
        job.inputs.keys = vec![None; job.lease.scope.segments().count()];
        for (address, item, depth) in found {
            let map = StepIx(address.2 as u16);
            let (chunk, at) = chunks.get(&address, item)?;
            if let Some(keys) = &chunk.keys {
                job.inputs.keys[depth] = keys.get(at).cloned();
            }
            if job.version.reads(&job.lease).is_some_and(|r| r.items.contains(&map)) {
                let value = chunk
                    .items
                    .get(at)
                    .ok_or_else(|| Error::Internal(format!("item {item} of a map of run {} is not stored", address.0)))?;
                job.inputs.items.push((map, value.clone()));
            }
        }
    }
    Ok(())
}

/// The enclosing items that the work looks at, by value or by key: address of the map, number, depth.
fn items_of(job: &Job) -> impl Iterator<Item = (StepAddress, u32, usize)> + '_ {
    let (run, reads): (RunId, _) = (job.lease.run, job.version.reads(&job.lease));
    let mut scope = ScopePath::root();
    job.lease.scope.segments().enumerate().filter_map(move |(depth, (map, item))| {
        let address = (run, scope.clone(), map.0 as i16);
        scope = scope.item(map, item);
        let read = reads.is_some_and(|r| r.items.contains(&map)) || job.version.map(map).is_some_and(|plan| plan.key.is_some());
        read.then_some((address, item, depth))
    })
}
