//! Named moments around every commit of the hot path, at which `krowoc torture` has a process die. Disarmed, as it is everywhere else, a
//! point costs one relaxed load and a branch. Only [`arm`] arms one: no file and no variable of the environment can (docs/adr/0007).

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// A commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Site {
    /// Runs are accepted.
    Start,
    /// Steps are leased.
    Claim,
    /// Steps end: a batch in one statement.
    Complete,
    /// The same, with items that were leased in bundles.
    CompleteBundled,
    /// The same with what needs statements of its own: large payloads, ends of maps.
    CompleteMore,
    /// Steps end on the path that locks first.
    CompleteLocked,
    /// Attempts end, their steps do not.
    Reschedule,
    /// The items of a map are stored.
    Expand,
    /// What a commit leased goes on in the process; there is no commit of its own.
    GoOn,
    /// Leases are renewed.
    Renew,
    /// Expired leases are taken over.
    TakeOver,
    /// A run is stopped.
    Stop,
    /// Failed steps are sent back to work.
    Redrive,
    /// Old runs are removed.
    Prune,
}

/// Every commit.
pub const SITES: [Site; 14] = [
    Site::Start,
    Site::Claim,
    Site::Complete,
    Site::CompleteBundled,
    Site::CompleteMore,
    Site::CompleteLocked,
    Site::Reschedule,
    Site::Expand,
    Site::GoOn,
    Site::Renew,
    Site::TakeOver,
    Site::Stop,
    Site::Redrive,
    Site::Prune,
];

/// On which side of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Everything is said but the commit; where one statement is all, before it is sent.
    Before,
    /// The commit was acknowledged, and nothing has been made of that yet.
    After,
}

/// A moment in a process' life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Point {
    /// The commit.
    pub site: Site,
    /// The side.
    pub side: Side,
}

impl Point {
    /// All, those of one commit beside each other.
    pub fn all() -> impl Iterator<Item = Self> {
        SITES.into_iter().flat_map(|site| [Side::Before, Side::After].map(|side| Self { site, side }))
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.side == Side::Before { "before" } else { "after" };
        write!(f, "{side} {:?}", self.site)
    }
}

static ARMED: AtomicBool = AtomicBool::new(false);
static PLAN: Mutex<Option<Plan>> = Mutex::new(None);

struct Plan {
    point: Point,
    passes_left: u32,
    then: Box<dyn FnMut() + Send>,
}

/// From now on this process calls `then` when it comes to the point for the `nth` time, from 1, and each time after that; until it is armed
/// with something else.
pub fn arm(point: Point, nth: u32, then: impl FnMut() + Send + 'static) {
    let plan = Plan { point, passes_left: nth.saturating_sub(1), then: Box::new(then) };
    *PLAN.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
    ARMED.store(true, Relaxed);
}

/// Makes a commit between its two points. One that fails, or is not answered, has no second.
pub(crate) async fn around<T, E>(site: Site, commit: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    reach(site, Side::Before);
    let done = commit.await?;
    reach(site, Side::After);
    Ok(done)
}

/// Passes a point.
#[inline]
pub(crate) fn reach(site: Site, side: Side) {
    if ARMED.load(Relaxed) {
        reached(Point { site, side });
    }
}

#[cold]
fn reached(point: Point) {
    if let Some(plan) = PLAN.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        plan.pass(point);
    }
}

impl Plan {
    fn pass(&mut self, point: Point) {
        match self.passes_left {
            _ if self.point != point => {}
            0 => (self.then)(),
            _ => self.passes_left -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, sync::mpsc, thread};

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let names: BTreeSet<String> = Point::all().map(|point| point.to_string()).collect();
        assert_eq!(names.len(), 2 * SITES.len());
    }

    #[test]
    fn a_plan_acts_at_its_point_from_the_nth_pass_on() {
        let (acted, acts) = mpsc::channel();
        let (prune, redrive) = (Point { site: Site::Prune, side: Side::After }, Point { site: Site::Redrive, side: Side::After });
        let mut plan = Plan { point: prune, passes_left: 1, then: Box::new(move || acted.send(()).expect("heard")) };
        let acts_at = |plan: &mut Plan, point| {
            plan.pass(point);
            acts.try_iter().count()
        };
        assert_eq!([redrive, prune, redrive, prune, prune].map(|point| acts_at(&mut plan, point)), [0, 0, 0, 1, 1]);
    }

    /// What is armed is the process's: other tests may pass the point, on threads of their own.
    #[tokio::test]
    async fn only_a_commit_that_succeeded_has_a_second_point() {
        let commit = |ok: bool| around(Site::Prune, async move { if ok { Ok(()) } else { Err("refused") } });
        assert_eq!(commit(true).await, Ok(()), "disarmed");
        let (acted, acts) = mpsc::channel();
        arm(Point { site: Site::Prune, side: Side::After }, 1, move || {
            // After this test nobody listens.
            let _ = acted.send(thread::current().id());
        });
        assert_eq!((commit(false).await, commit(true).await, commit(true).await), (Err("refused"), Ok(()), Ok(())));
        assert_eq!(acts.try_iter().filter(|on| *on == thread::current().id()).count(), 2);
    }
}
