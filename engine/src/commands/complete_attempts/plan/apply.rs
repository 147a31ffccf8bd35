//! A transition that was planned is applied, and what came of it is remembered or given back.

use super::{Continued, Planner};
use crate::{
    commands::complete_attempts::{Completed, ScopeCache},
    fail_point::{self, Site},
    store::{
        hot,
        rows::{Claimed, Lease},
    },
};
use sqlx::{Connection, PgConnection};

impl Planner<'_> {
    /// May items be claimed that were not leased along with what was? A freed place may have gone to an item that was held back, and a map
    /// may have none left.
    pub fn leaves_items(&self, leased: &[Claimed]) -> bool {
        let more: i32 = self.transition.items.0.values().map(|count| count.more).sum();
        let items = leased.iter().filter(|claimed| claimed.lease.phase != Lease::FILLED).count();
        self.permits_freed || items < more.unsigned_abs() as usize
    }

    /// Applies everything in one transaction; what it leased to the caller comes back.
    pub async fn apply(&self, conn: &mut PgConnection) -> Result<Vec<Claimed>, sqlx::Error> {
        if self.extras.is_empty() {
            let site = if self.transition.bundles.is_empty() { Site::Complete } else { Site::CompleteBundled };
            return fail_point::around(site, hot::complete(conn, &self.transition, self.by)).await;
        }
        let mut tx = conn.begin().await?;
        let leased = self.apply_in(&mut tx).await?;
        fail_point::around(Site::CompleteMore, tx.commit()).await?;
        Ok(leased)
    }

    /// The same inside the caller's transaction.
    pub async fn apply_in(&self, conn: &mut PgConnection) -> Result<Vec<Claimed>, sqlx::Error> {
        let leased = hot::complete(conn, &self.transition, self.by).await?;
        self.extras.apply(conn, self.by).await?;
        Ok(leased)
    }

    /// After the commit: what the process may remember and go on with.
    pub fn settle(self, cache: &mut ScopeCache, done: &mut Completed, leased: Vec<Claimed>) {
        done.commits += 1;
        done.steps += self.steps;
        done.runs += self.runs;
        done.taken += self.taken;
        done.wake |= self.leaves_items(&leased) || !self.transition.wake.is_empty();
        done.leased.extend(leased);
        for (at, lease, version) in self.continued {
            let scope = &self.scopes[at].0;
            // The frame was found once already, when the lane's predecessor was placed in it.
            let inputs = version.frame_of(&lease.scope).map(|frame| scope.inputs(&version, frame, &lease)).unwrap_or_default();
            done.continued.push(Continued { lease, version, inputs, state: None });
        }
        for (scope, ended) in self.scopes {
            if !ended {
                cache.put(scope);
            }
        }
    }

    /// Forgets what was planned.
    pub fn begin_again(&mut self) {
        self.give_back();
        *self = Self::new(self.by, self.room);
    }

    /// The transaction did not happen: slots that were taken for successors are free again.
    pub fn give_back(&self) {
        if let Some(room) = self.room {
            room.give_back(self.taken);
        }
    }
}
