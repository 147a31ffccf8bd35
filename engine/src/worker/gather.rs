//! A map whose items have ended: its output, gathered from their results in the order of the items, a page at a time.

use super::{
    pace::Pace,
    page::{Page, Sight},
    reader::Reader,
    shared::{Job, Shared},
};
use crate::{
    bounds,
    definition::{Bindings, Budget, MapPlan, Template},
    error::{Error, ErrorClass},
    executor::StepError,
    id::{RunId, ScopePath, StepIx},
    patience::within,
    payload::Payload,
    store::maps::{self, CHUNK, MapCounts},
};
use std::time::Duration;

/// Items to a page, at most: a page of results is held in memory at a time, beside the output itself.
const PAGE: u32 = 4 * CHUNK as u32;

/// A page may be large and the disk slow; a connection that has gone silent must not keep a map for ever.
const ANSWER: Duration = Duration::from_secs(120);

/// The output of a map without `collect`.
pub(super) fn counted(total: i32, failed: i32) -> serde_json::Value {
    serde_json::json!({ "total": total, "succeeded": total - failed, "failed": failed })
}

/// While a map's items are carried out there is time to make a connection for its end, and to have the server plan what it will be asked.
pub(super) fn prepare(shared: &Shared) {
    if !shared.readers.is_cold() {
        return;
    }
    let readers = shared.readers.clone();
    tokio::spawn(async move {
        let ready = async {
            let mut conn = readers.connect().await?;
            let (nobody, scope) = (RunId(uuid::Uuid::nil()), ScopePath::root());
            maps::counts(&mut conn, nobody, &scope, 0).await?;
            maps::item_results(&mut conn, nobody, &scope, &scope, &[], 0).await?;
            Ok::<_, Error>(conn)
        };
        // Whoever reads meets the error again, and deals with it.
        if let Ok(conn) = ready.await {
            readers.keep(conn);
        }
    });
}

/// A map's output, or the error of having too many failures; nothing if the step was cancelled meanwhile. The database may go away and come
/// back: that is no fault of the map's.
pub(super) async fn gather(
    shared: &Shared,
    job: &Job,
    map: StepIx,
    plan: &MapPlan,
    bindings: &Bindings,
) -> Result<Option<Payload>, StepError> {
    let mut reader = shared.readers.turn(&job.flight.cancelled).await;
    let output = read(&mut reader, &Sight::new(job, map, plan), plan.collect.as_ref(), bindings).await;
    reader.done();
    output
}

async fn read(
    reader: &mut Reader<'_>,
    sight: &Sight<'_>,
    collect: Option<&Template>,
    bindings: &Bindings,
) -> Result<Option<Payload>, StepError> {
    let Some(counts) = counts(reader, sight).await? else { return Ok(None) };
    if counts.failed > counts.max_failed {
        return Err(too_many(&counts));
    }
    let Some(collect) = collect else { return Ok(Some(Payload::from(&counted(counts.total, counts.failed)))) };
    let total = counts.total.unsigned_abs();
    let effort = Effort { budget: Budget::for_items(total as usize), pace: Pace::new() };
    // One for all items: what the next one has takes the place of what the last one had.
    let mut gathered = Gathered { output: String::from("["), collect, seen: bindings.clone(), effort };
    let mut from = 0;
    while from < total {
        let Some(page) = page(reader, sight, from..total.min(from + PAGE)).await? else { return Ok(None) };
        from = page.items().end;
        if !gathered.append(page, reader, sight).await? {
            return Ok(None);
        }
    }
    gathered.output.push(']');
    Ok(Some(Payload::from_json_text(gathered.output)))
}

/// What rendering the items may cost, and when others are let run.
struct Effort {
    budget: Budget,
    pace: Pace,
}

/// The output so far, and what makes it of the items.
struct Gathered<'a> {
    output: String,
    collect: &'a Template,
    seen: Bindings,
    effort: Effort,
}

impl Gathered<'_> {
    /// Adds a page; false if the step was cancelled meanwhile.
    async fn append(&mut self, mut page: Page, reader: &mut Reader<'_>, sight: &Sight<'_>) -> Result<bool, StepError> {
        for item in page.items() {
            // Others wait for this thread, renewals of leases among them.
            self.effort.pace.rest().await;
            if page.is_outside(sight, item) && !fetch(&mut page, reader, sight, item).await? {
                return Ok(false);
            }
            if item > 0 {
                self.output.push(',');
            }
            if !page.show(item, sight, &mut self.seen) {
                self.output.push_str("null");
                continue;
            }
            let value = self.collect.render_payload_within(&self.seen, &mut self.effort.budget);
            let value =
                value.map_err(|e| StepError::new(ErrorClass::Expression, e.of(format_args!("`collect` of item {item}")).message))?;
            // Before it grows: what items bring together is bounded by nothing else.
            bounds::check("what `collect` makes of the items", self.output.len() + value.len() + 1).map_err(|e| of_items(e, item))?;
            self.output.push_str(value.as_str());
        }
        Ok(true)
    }
}

async fn fetch(page: &mut Page, reader: &mut Reader<'_>, sight: &Sight<'_>, item: u32) -> Result<bool, StepError> {
    loop {
        let Some(conn) = reader.connection().await else { return Ok(false) };
        match within(ANSWER, page.fetch(conn, sight, item)).await {
            Ok(()) => return Ok(true),
            Err(e) => reader.failed(e)?,
        }
    }
}

fn of_items(error: StepError, last: u32) -> StepError {
    StepError { message: format!("up to item {last}, {}", error.message), ..error }
}

async fn counts(reader: &mut Reader<'_>, sight: &Sight<'_>) -> Result<Option<MapCounts>, StepError> {
    loop {
        let Some(conn) = reader.connection().await else { return Ok(None) };
        match within(ANSWER, async { Ok(maps::counts(conn, sight.run(), sight.scope(), sight.step()).await?) }).await {
            Ok(Some(counts)) => return Ok(Some(counts)),
            Ok(None) => return Err(StepError::new(ErrorClass::Internal, "the map's counts are not stored")),
            Err(e) => reader.failed(e)?,
        }
    }
}

async fn page(reader: &mut Reader<'_>, sight: &Sight<'_>, items: std::ops::Range<u32>) -> Result<Option<Page>, StepError> {
    loop {
        let Some(conn) = reader.connection().await else { return Ok(None) };
        match within(ANSWER, Page::read(conn, sight, items.clone())).await {
            Ok(page) => {
                reader.succeeded();
                return Ok(Some(page));
            }
            Err(e) => reader.failed(e)?,
        }
    }
}

fn too_many(counts: &MapCounts) -> StepError {
    let MapCounts { total, goal, failed, max_failed } = counts;
    let started = if goal < total { format!(", {} were not started", total - goal) } else { String::new() };
    let message = format!("{failed} of {total} items failed, {max_failed} are tolerated{started}; mend and redrive their dead letters");
    StepError::new(ErrorClass::ToleranceExceeded, message)
}
