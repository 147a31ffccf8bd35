//! A map whose items have ended: its output, gathered from their results in the order of the items, a page at a time.

use super::{
    pace::Pace,
    shared::{Job, Shared},
};
use crate::{
    definition::{Bindings, Budget, MapPlan},
    error::ErrorClass,
    executor::StepError,
    id::{RunId, ScopePath, StepIx},
    payload::Payload,
    store::{
        blobs,
        inputs::{self},
        maps::{self, CHUNK, ItemResult, MapCounts},
    },
};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use std::collections::{BTreeMap, HashMap};

/// Items to a page: a page of results is held in memory at a time, beside the output itself.
const PAGE: u32 = 4 * CHUNK as u32;

/// The output of a map without `collect`.
pub(super) fn counted(total: i32, failed: i32) -> serde_json::Value {
    serde_json::json!({ "total": total, "succeeded": total - failed, "failed": failed })
}

/// A map's output, or the error of having too many failures.
pub(super) async fn gather(shared: &Shared, job: &Job, map: StepIx, plan: &MapPlan, bindings: &Bindings) -> Result<Payload, StepError> {
    let (run, scope) = (job.lease.run, &job.lease.scope);
    let mut conn = shared.pool.acquire().await.map_err(unreadable)?;
    let counts = maps::counts(&mut conn, run, scope, job.lease.step).await.map_err(unreadable)?;
    let counts = counts.ok_or_else(|| StepError::new(ErrorClass::Internal, "the map's counts are not stored"))?;
    if counts.failed > counts.max_failed {
        return Err(too_many(&counts));
    }
    let Some(collect) = &plan.collect else { return Ok(Payload::from(&counted(counts.total, counts.failed))) };
    let gather = Gather { job, map, plan, total: counts.total.unsigned_abs() };
    let mut budget = Budget::for_items(gather.total as usize);
    let mut pace = Pace::new();
    let mut output = String::from("[");
    for from in (0..gather.total).step_by(PAGE as usize) {
        let page = gather.page(&mut conn, from).await?;
        for item in from..gather.total.min(from + PAGE) {
            pace.rest().await;
            if output.len() > 1 {
                output.push(',');
            }
            match page.bind(bindings, &gather, item) {
                Some(bindings) => {
                    let value = collect
                        .render_payload_within(&bindings, &mut budget)
                        .map_err(|e| StepError::new(ErrorClass::Expression, e.of(format_args!("`collect` of item {item}")).message))?;
                    output.push_str(value.as_str());
                }
                None => output.push_str("null"),
            }
        }
    }
    output.push(']');
    Ok(Payload::from_json_text(output))
}

fn too_many(counts: &MapCounts) -> StepError {
    let MapCounts { total, goal, failed, max_failed } = counts;
    let started = if goal < total { format!(", {} were not started", total - goal) } else { String::new() };
    let message = format!("{failed} of {total} items failed, {max_failed} are tolerated{started}; mend and redrive their dead letters");
    StepError::new(ErrorClass::ToleranceExceeded, message)
}

/// The database failed under a read: another attempt may do better.
fn unreadable(error: sqlx::Error) -> StepError {
    StepError::new(ErrorClass::Network, format!("the items' results could not be read: {error}"))
}

struct Gather<'a> {
    job: &'a Job,
    map: StepIx,
    plan: &'a MapPlan,
    total: u32,
}

/// What the items of a page brought.
struct Page {
    outputs: BTreeMap<u32, Vec<(StepIx, Payload)>>,
    failed: Vec<u32>,
    items: HashMap<u32, Payload>,
}

impl Gather<'_> {
    /// Steps of the body that `collect` looks at.
    fn wanted(&self) -> Vec<i16> {
        let dag = &self.job.version.dag;
        self.plan.collect_reads.steps.iter().filter(|ix| dag.step(**ix).frame == self.plan.body).map(|ix| ix.0 as i16).collect()
    }

    async fn page(&self, conn: &mut PgConnection, from: u32) -> Result<Page, StepError> {
        let (run, scope) = (self.job.lease.run, &self.job.lease.scope);
        let last = self.total.min(from + PAGE) - 1;
        let range = (scope.item(self.map, from), scope.item(self.map, last));
        let results = maps::item_results(conn, run, &range.0, &range.1, &self.wanted()).await.map_err(unreadable)?;
        let blobs = blobs_of(conn, run, &results).await?;
        let mut page = Page { outputs: BTreeMap::new(), failed: vec![], items: HashMap::new() };
        for result in results {
            let Some((_, _, item)) = result.scope.parent() else { continue };
            let step = StepIx(result.step as u16);
            match (result.failed, result.output, result.blob) {
                (true, ..) if !self.job.version.dag.step(step).allow_failure => page.failed.push(item),
                (true, ..) => {}
                (false, Some(output), _) => page.outputs.entry(item).or_default().push((step, output)),
                (false, None, hash) => {
                    let payload = hash.and_then(|hash| blobs.get(&(run, hash)).cloned());
                    let payload =
                        payload.ok_or_else(|| StepError::new(ErrorClass::Internal, format!("the output of item {item} is missing")))?;
                    page.outputs.entry(item).or_default().push((step, payload));
                }
            }
        }
        if self.plan.collect_reads.items.contains(&self.map) {
            page.items = self.items(conn, scope, from, last).await?;
        }
        Ok(page)
    }

    async fn items(&self, conn: &mut PgConnection, scope: &ScopePath, from: u32, last: u32) -> Result<HashMap<u32, Payload>, StepError> {
        let address = (self.job.lease.run, scope.clone(), self.map.0 as i16);
        let chunks: Vec<i32> = (from as usize / CHUNK..=last as usize / CHUNK).map(|c| c as i32).collect();
        let wanted: Vec<_> = chunks.iter().map(|chunk| (address.clone(), *chunk)).collect();
        let mut items = HashMap::new();
        for (at, chunk) in inputs::chunks(conn, &wanted).await.map_err(unreadable)? {
            let values: Vec<Box<RawValue>> = serde_json::from_str(&chunk.items)
                .map_err(|e| StepError::new(ErrorClass::Internal, format!("the map's items are not readable: {e}")))?;
            let first = chunks[at] as u32 * CHUNK as u32;
            items.extend((first..).zip(values).map(|(n, raw)| (n, Payload::from_json_text(raw.get()))));
        }
        Ok(items)
    }
}

async fn blobs_of(conn: &mut PgConnection, run: RunId, results: &[ItemResult]) -> Result<HashMap<(RunId, Vec<u8>), Payload>, StepError> {
    let keys: Vec<_> = results.iter().filter_map(|r| r.blob.clone().map(|hash| (run, hash))).collect();
    blobs::load(conn, &keys).await.map_err(unreadable)
}

impl Page {
    /// What `collect` sees for an item; none for one that failed or did nothing.
    fn bind(&self, around: &Bindings, gather: &Gather<'_>, item: u32) -> Option<Bindings> {
        if self.failed.contains(&item) {
            return None;
        }
        let dag = &gather.job.version.dag;
        let outputs = self.outputs.get(&item);
        let wanted = gather.wanted();
        if outputs.is_none() && !wanted.is_empty() {
            return None;
        }
        let mut bindings = around.clone();
        for step in wanted {
            let output = outputs.and_then(|o| o.iter().find(|(ix, _)| ix.0 as i16 == step)).map(|(_, output)| output.clone());
            bindings.step(&dag.step(StepIx(step as u16)).id, output);
        }
        if let Some(value) = self.items.get(&item) {
            bindings.item(&gather.plan.item, value.clone());
        }
        Some(bindings)
    }
}
