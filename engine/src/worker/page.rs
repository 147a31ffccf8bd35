//! Items of a map that have ended, a page of them: what each brought, where `collect` looks at it. A page is bounded in items and in bytes, and
//! what is too large for a row is read when its item's turn has come, so that a map may bring more than there is memory for.

use super::shared::Job;
use crate::{
    definition::{Bindings, MapPlan},
    error::{Error, Result},
    id::{RunId, ScopePath, StepIx},
    payload::{INLINE_LIMIT, Payload},
    store::{
        blobs, inputs,
        maps::{self, CHUNK, ItemResult},
    },
};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use std::ops::Range;

/// Outputs in rows that a page may hold, in bytes; an item more or less.
const BYTES: usize = 8 << 20;

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
    outputs: Vec<Option<Output>>,
    items: Vec<Option<Payload>>,
}

/// An output, or the hash of one that lies outside its row.
#[derive(Clone)]
enum Output {
    Here(Payload),
    Outside(Vec<u8>),
}

impl Page {
    /// Reads as much of the range as fits, its first item at least. [`Error::Store`]: the same may succeed later.
    pub async fn read(conn: &mut PgConnection, sight: &Sight<'_>, mut range: Range<u32>) -> Result<Self> {
        let (first, last) = (sight.scope().item(sight.map, range.start), sight.scope().item(sight.map, range.end - 1));
        // Room for the first item, whatever its rows hold.
        let room = BYTES + sight.steps.len() * INLINE_LIMIT;
        let results = maps::item_results(conn, sight.run(), &first, &last, &sight.steps, room).await?;
        if let Some(item) = results.iter().find(|result| result.beyond).and_then(|result| item_of(&result.scope)) {
            range.end = item;
        }
        let len = range.len();
        let items = if sight.item { items(conn, sight, &range).await? } else { vec![] };
        let outputs = vec![None; len * sight.steps.len()];
        // Where `collect` looks at no step, an item has come to something unless it failed.
        let mut page = Self { range, absent: vec![!sight.steps.is_empty(); len], outputs, items };
        let mut failed = vec![];
        for result in results {
            page.take(result, sight, &mut failed)?;
        }
        for at in failed {
            page.absent[at] = true;
        }
        Ok(page)
    }

    fn take(&mut self, result: ItemResult, sight: &Sight<'_>, failed: &mut Vec<usize>) -> Result<()> {
        let Some(item) = item_of(&result.scope).filter(|item| self.range.contains(item)) else { return Ok(()) };
        let at = (item - self.range.start) as usize;
        if result.failed {
            if !sight.job.version.dag.step(StepIx(result.step as u16)).allow_failure {
                failed.push(at);
            }
            return Ok(());
        }
        let Some(column) = sight.steps.iter().position(|step| *step == result.step) else { return Ok(()) };
        let output = result.output.map(Output::Here).or(result.blob.map(Output::Outside));
        self.outputs[at * sight.steps.len() + column] = Some(output.ok_or_else(|| missing(item))?);
        self.absent[at] = false;
        Ok(())
    }

    /// The items' numbers.
    pub fn items(&self) -> Range<u32> {
        self.range.clone()
    }

    /// Reads what of an item's outputs lies outside their rows.
    pub async fn fetch(&mut self, conn: &mut PgConnection, sight: &Sight<'_>, item: u32) -> Result<()> {
        let keys = self.outside(sight, item);
        let found = blobs::load(conn, &keys).await?;
        for output in self.outputs_of(sight, item).iter_mut().flatten() {
            if let Output::Outside(hash) = output {
                let payload = found.get(&(sight.run(), std::mem::take(hash))).ok_or_else(|| missing(item))?;
                *output = Output::Here(payload.clone());
            }
        }
        Ok(())
    }

    /// Is there something to [`Page::fetch`]?
    pub fn is_outside(&mut self, sight: &Sight<'_>, item: u32) -> bool {
        !self.outside(sight, item).is_empty()
    }

    fn outside(&mut self, sight: &Sight<'_>, item: u32) -> Vec<(RunId, Vec<u8>)> {
        let outside = |output: &Output| match output {
            Output::Outside(hash) => Some((sight.run(), hash.clone())),
            Output::Here(_) => None,
        };
        self.outputs_of(sight, item).iter().flatten().filter_map(outside).collect()
    }

    fn outputs_of(&mut self, sight: &Sight<'_>, item: u32) -> &mut [Option<Output>] {
        let at = (item - self.range.start) as usize;
        &mut self.outputs[at * sight.steps.len()..][..sight.steps.len()]
    }

    /// Puts what `collect` sees of an item in the place of what it saw of another; false for an item that failed or did nothing. An item can
    /// be shown once, when all of it is here.
    pub fn show(&mut self, item: u32, sight: &Sight<'_>, seen: &mut Bindings) -> bool {
        let at = (item - self.range.start) as usize;
        if self.absent[at] {
            return false;
        }
        for (step, output) in sight.steps.iter().zip(self.outputs_of(sight, item)) {
            let output = output.take().and_then(|output| match output {
                Output::Here(payload) => Some(payload),
                Output::Outside(_) => None,
            });
            seen.step(&sight.job.version.dag.step(StepIx(*step as u16)).id, output);
        }
        if let Some(value) = self.items.get_mut(at).and_then(Option::take) {
            seen.item(&sight.plan.item, value);
        }
        true
    }
}

fn item_of(scope: &ScopePath) -> Option<u32> {
    scope.segments().last().map(|(_, item)| item)
}

fn missing(item: u32) -> Error {
    Error::Internal(format!("the output of item {item} is missing"))
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
