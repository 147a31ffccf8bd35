//! Items of a map that have ended, a page of them: what each brought, where `collect` looks at it.

use super::shared::Job;
use crate::{
    definition::{Bindings, MapPlan},
    error::{Error, Result},
    id::{RunId, ScopePath, StepIx},
    payload::Payload,
    store::{
        blobs, inputs,
        maps::{self, CHUNK, ItemResult},
    },
};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use std::{collections::HashMap, ops::Range};

/// A map, and what its `collect` looks at in each item.
pub(super) struct Sight<'a> {
    job: &'a Job,
    map: StepIx,
    plan: &'a MapPlan,
    /// Steps of the body; the item's outputs are kept in this order.
    steps: Vec<i16>,
    /// The item itself.
    item: bool,
}

impl<'a> Sight<'a> {
    pub fn new(job: &'a Job, map: StepIx, plan: &'a MapPlan) -> Self {
        let (dag, reads) = (&job.version.dag, &plan.collect_reads);
        let steps = reads.steps.iter().filter(|ix| dag.step(**ix).frame == plan.body).map(|ix| ix.0 as i16).collect();
        Self { job, map, plan, steps, item: reads.items.contains(&map) }
    }

    pub fn run(&self) -> RunId {
        self.job.lease.run
    }

    /// The scope in which the map stands.
    pub fn scope(&self) -> &ScopePath {
        &self.job.lease.scope
    }

    pub fn step(&self) -> i16 {
        self.job.lease.step
    }
}

/// What the items of a page brought.
pub(super) struct Page {
    range: Range<u32>,
    /// By item: it failed, or nothing that is looked at came of it.
    absent: Vec<bool>,
    /// By item and step.
    outputs: Vec<Option<Payload>>,
    items: Vec<Option<Payload>>,
}

impl Page {
    /// Reads it. [`Error::Store`]: the same may succeed later.
    pub async fn read(conn: &mut PgConnection, sight: &Sight<'_>, range: Range<u32>) -> Result<Self> {
        let (first, last) = (sight.scope().item(sight.map, range.start), sight.scope().item(sight.map, range.end - 1));
        let results = maps::item_results(conn, sight.run(), &first, &last, &sight.steps).await?;
        let blobs = blobs_of(conn, sight.run(), &results).await?;
        let len = range.len();
        let items = if sight.item { items(conn, sight, &range).await? } else { vec![] };
        let outputs = vec![None; len * sight.steps.len()];
        // Where `collect` looks at no step, an item has come to something unless it failed.
        let mut page = Self { range, absent: vec![!sight.steps.is_empty(); len], outputs, items };
        let mut failed = vec![];
        for result in results {
            page.take(result, sight, &blobs, &mut failed)?;
        }
        for at in failed {
            page.absent[at] = true;
        }
        Ok(page)
    }

    fn take(&mut self, result: ItemResult, sight: &Sight<'_>, blobs: &Blobs, failed: &mut Vec<usize>) -> Result<()> {
        let Some(at) = result.scope.segments().last().and_then(|(_, item)| item.checked_sub(self.range.start)) else { return Ok(()) };
        let at = at as usize;
        if result.failed {
            if !sight.job.version.dag.step(StepIx(result.step as u16)).allow_failure {
                failed.push(at);
            }
            return Ok(());
        }
        let Some(column) = sight.steps.iter().position(|step| *step == result.step) else { return Ok(()) };
        let outside = || result.blob.and_then(|hash| blobs.get(&(sight.run(), hash)).cloned());
        let output = result.output.or_else(outside);
        let missing = || Error::Internal(format!("the output of item {} is missing", self.range.start + at as u32));
        self.outputs[at * sight.steps.len() + column] = Some(output.ok_or_else(missing)?);
        self.absent[at] = false;
        Ok(())
    }

    /// The items' numbers.
    pub fn items(&self) -> Range<u32> {
        self.range.clone()
    }

    /// Puts what `collect` sees of an item in the place of what it saw of another; false for an item that failed or did nothing. An item can
    /// be shown once.
    pub fn show(&mut self, item: u32, sight: &Sight<'_>, seen: &mut Bindings) -> bool {
        let at = (item - self.range.start) as usize;
        if self.absent[at] {
            return false;
        }
        let outputs = &mut self.outputs[at * sight.steps.len()..][..sight.steps.len()];
        for (step, output) in sight.steps.iter().zip(outputs) {
            seen.step(&sight.job.version.dag.step(StepIx(*step as u16)).id, output.take());
        }
        if let Some(value) = self.items.get_mut(at).and_then(Option::take) {
            seen.item(&sight.plan.item, value);
        }
        true
    }
}

type Blobs = HashMap<(RunId, Vec<u8>), Payload>;

async fn blobs_of(conn: &mut PgConnection, run: RunId, results: &[ItemResult]) -> Result<Blobs> {
    let keys: Vec<_> = results.iter().filter_map(|r| r.blob.clone().map(|hash| (run, hash))).collect();
    Ok(blobs::load(conn, &keys).await?)
}

/// The items of a page themselves, each of them.
async fn items(conn: &mut PgConnection, sight: &Sight<'_>, range: &Range<u32>) -> Result<Vec<Option<Payload>>> {
    let address = (sight.run(), sight.scope().clone(), sight.step());
    let chunks: Vec<_> =
        (range.start as usize / CHUNK..=(range.end - 1) as usize / CHUNK).map(|chunk| (address.clone(), chunk as i32)).collect();
    let mut items = vec![None; range.len()];
    for (position, chunk) in inputs::chunks(conn, &chunks).await? {
        let values: Vec<&RawValue> =
            serde_json::from_str(&chunk.items).map_err(|e| Error::Internal(format!("the map's items are not readable: {e}")))?;
        let first = chunks[position].1 as usize * CHUNK;
        for (number, value) in (first..).zip(values) {
            if let Some(place) = number.checked_sub(range.start as usize).and_then(|at| items.get_mut(at)) {
                *place = Some(Payload::from_json_text(value.get()));
            }
        }
    }
    match items.iter().position(Option::is_none) {
        Some(at) => Err(Error::Internal(format!("item {} of the map is not stored", range.start + at as u32))),
        None => Ok(items),
    }
}
