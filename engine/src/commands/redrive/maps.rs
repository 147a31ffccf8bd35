//! The maps around an item that is opened again: live ones count one item less as ended, failed ones wait for their items again.

use super::reopen::Reopening;
use crate::{
    definition::MapPlan,
    error::{Error, Result},
    id::{ScopePath, StepIx},
    queries::states,
    store::{
        redrive::maps::{self as store, MapRow, NewSpan},
        rows::Lease,
    },
};
use sqlx::PgConnection;

impl Reopening {
    /// Opens the maps around an item that had ended, from the inside outwards, as far as they had ended too.
    pub(super) async fn climb(&mut self, conn: &mut PgConnection, item: &ScopePath, item_failed: bool) -> Result<()> {
        let version = self.version.clone();
        let mut item = item.clone();
        let mut failed = item_failed;
        while let Some((scope, map, number)) = item.parent() {
            let plan = version.map(map).ok_or_else(|| Error::Internal(format!("{scope:?} is no item of a map")))?;
            if let Some(row) = self.maps.get(&(scope.clone(), map)).cloned() {
                return self.reopen_item(conn, (&scope, map), plan, row, (number, failed)).await;
            }
            let scope_was_live = self.scopes.contains_key(&scope);
            failed = self.has_failed(&scope)?;
            self.reopen_map(conn, (&scope, map), plan, &item).await?;
            if scope_was_live {
                return Ok(());
            }
            item = scope;
        }
        Ok(())
    }

    /// One more item of a live map has not ended.
    async fn reopen_item(
        &mut self,
        conn: &mut PgConnection,
        (scope, map): (&ScopePath, StepIx),
        plan: &MapPlan,
        mut row: MapRow,
        (number, failed): (u32, bool),
    ) -> Result<()> {
        row.done -= 1;
        row.failed -= i32::from(failed);
        if !store::back_to_items(conn, self.run, scope, row.lane).await? {
            return Err(Error::Internal(format!("run {} has a map without a lane", self.run)));
        }
        let held = plan.concurrency.is_some_and(|most| row.running() > most as i32);
        if held {
            row.held.push(number as i32);
            store::hold(conn, self.run, &scope.item(map, number)).await?;
        }
        match row.unclaimed {
            // Its tolerance was used up, and is not any more: the items that were not started may be.
            0 if row.goal < row.total && row.failed <= row.max_failed => {
                self.offer(conn, (scope, map), plan, row.goal, row.total, row.running()).await?;
                row.unclaimed = row.total - row.goal;
                row.goal = row.total;
            }
            0 => {}
            _ if held => {}
            _ => store::take_permit(conn, self.run, scope, map).await?,
        }
        store::put(conn, self.run, (scope, map), &row, plan.concurrency.is_some()).await?;
        self.maps.insert((scope.clone(), map), row);
        Ok(())
    }

    /// A map that had failed waits for its items again, one of which has not ended.
    async fn reopen_map(
        &mut self,
        conn: &mut PgConnection,
        (scope, map): (&ScopePath, StepIx),
        plan: &MapPlan,
        item: &ScopePath,
    ) -> Result<()> {
        let (lane, attempt) = self.revive(conn, scope, map).await?;
        let total = states::total_items(conn, self.run, scope, map).await? as i32;
        let (done, failed) = store::count_items(conn, self.run, scope, map, &self.fatal(plan.body), Some(item)).await?;
        let max_failed = plan.tolerate.allowed(total.unsigned_abs()) as i32;
        let started = done + 1;
        let offers = started < total && failed <= max_failed;
        let (goal, unclaimed) = if offers { (total, total - started) } else { (started, 0) };
        let row = MapRow { lane, total, goal, done, failed, max_failed, unclaimed, held: vec![] };
        store::put(conn, self.run, (scope, map), &row, plan.concurrency.is_some()).await?;
        if offers {
            self.offer(conn, (scope, map), plan, started, total, 1).await?;
        }
        self.maps.insert((scope.clone(), map), row);
        // The attempt that was on record has ended; this is the next, though nobody claims it: the last item's worker carries it out.
        self.open_lane(conn, scope, lane, map, "items", Lease::FRESH, attempt + 1).await
    }

    async fn offer(
        &self,
        conn: &mut PgConnection,
        (scope, map): (&ScopePath, StepIx),
        plan: &MapPlan,
        lo: i32,
        hi: i32,
        in_flight: i32,
    ) -> Result<()> {
        let (entry, queue) = match self.version.dag.frame(plan.body).roots[..] {
            [only] => (only.0 as i16, self.version.queues[only.at()]),
            _ => (Lease::ENTRY, self.version.queues[map.at()]),
        };
        let span = NewSpan {
            run: self.run,
            scope,
            map,
            workflow_version: self.header.workflow_version,
            lo,
            hi,
            permits: plan.concurrency.map(|n| n.min(hi.unsigned_abs()) as i32 - in_flight),
            entry,
            queue,
            priority: self.header.priority,
            template: self.version.item_template(plan.body).map(|state| state.encode()),
            bundled: self.version.bundles(plan.body),
            held: self.is_held(scope),
        };
        Ok(store::insert_span(conn, &span).await?)
    }
}
