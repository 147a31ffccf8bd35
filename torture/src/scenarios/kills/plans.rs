//! Who dies where and how often. Every point is assigned to the kind of process that comes to it.

use crate::{dice::Dice, process::FailPoint};
use krowoc_engine::fail_point::{Point, Site};
use std::collections::VecDeque;

/// A kind of process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Worker,
    Server,
    Client,
}

/// How a process dies.
#[derive(Clone, Copy, Debug)]
pub enum Plan {
    /// By itself, when it comes there.
    At(FailPoint),
    /// After so many milliseconds.
    After(u64),
}

/// What is left to be done, by kind.
pub struct Plans([VecDeque<Plan>; 3]);

impl Plans {
    /// Each point so often, and so many random moments.
    pub fn new(each: u64, random: u64, dice: &mut Dice) -> Self {
        let mut plans: [Vec<Plan>; 3] = Default::default();
        for point in Point::all() {
            for n in 0..each {
                let kind = kind(point.site, n);
                plans[kind as usize].push(Plan::At(FailPoint { point, nth: dice.between(1, 1 + passes(point.site)) as u32 }));
            }
        }
        for n in 0..random {
            let kind = match n % 5 {
                0..3 => Kind::Worker,
                3 => Kind::Server,
                _ => Kind::Client,
            };
            plans[kind as usize].push(Plan::After(dice.between(if kind == Kind::Client { 10 } else { 150 }, 500)));
        }
        for plans in &mut plans {
            dice.shuffle(plans);
            not_last(plans, dice);
        }
        Self(plans.map(VecDeque::from))
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.0.iter().map(VecDeque::len).sum::<usize>() as u64
    }

    /// How many are left for processes of this kind.
    pub fn left_of(&self, kind: Kind) -> usize {
        self.0[kind as usize].len()
    }

    /// The next for a process of this kind.
    pub fn next(&mut self, kind: Kind) -> Option<Plan> {
        self.0[kind as usize].pop_front()
    }

    /// It could not be carried out yet.
    pub fn later(&mut self, kind: Kind, plan: Plan) {
        self.0[kind as usize].push_back(plan);
    }
}

/// Who is to take over what others leave needs others to die: none of these is among the last.
fn not_last(plans: &mut [Plan], dice: &mut Dice) {
    let takes_over = |plan: &Plan| matches!(plan, Plan::At(at) if at.point.site == Site::TakeOver);
    let last = plans.len() * 2 / 3;
    let mut earlier: Vec<usize> = (0..last).filter(|at| !takes_over(&plans[*at])).collect();
    dice.shuffle(&mut earlier);
    for at in last..plans.len() {
        if takes_over(&plans[at])
            && let Some(place) = earlier.pop()
        {
            plans.swap(at, place);
        }
    }
}

fn kind(site: Site, n: u64) -> Kind {
    match site {
        Site::Start | Site::Stop | Site::Redrive => Kind::Client,
        Site::Prune => Kind::Server,
        // Both do, under the same rules.
        Site::TakeOver if n.is_multiple_of(2) => Kind::Server,
        Site::TakeOver
        | Site::Claim
        | Site::Complete
        | Site::CompleteBundled
        | Site::CompleteMore
        | Site::CompleteLocked
        | Site::Reschedule
        | Site::Expand
        | Site::GoOn
        | Site::Renew => Kind::Worker,
    }
}

/// How many passes a process may make before it dies: as many as it makes within a second or so.
fn passes(site: Site) -> u64 {
    match site {
        Site::Prune | Site::Stop | Site::Redrive => 1,
        Site::TakeOver | Site::Renew | Site::Expand | Site::CompleteLocked | Site::CompleteMore | Site::CompleteBundled => 2,
        Site::Start => 3,
        Site::Claim | Site::Complete | Site::Reschedule | Site::GoOn => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_point_is_somebodys_and_the_number_of_kills_is_as_asked() {
        let mut plans = Plans::new(4, 88, &mut Dice::new(1, "plans"));
        assert_eq!(plans.left(), 200);
        let mut points = BTreeSet::new();
        for kind in [Kind::Worker, Kind::Server, Kind::Client] {
            while let Some(plan) = plans.next(kind) {
                if let Plan::At(FailPoint { point, .. }) = plan {
                    points.insert(point);
                }
            }
        }
        assert_eq!(points.len(), Point::all().count());
    }

    #[test]
    fn others_die_after_whoever_is_to_take_over() {
        for seed in 0..50 {
            let mut plans = Plans::new(4, 88, &mut Dice::new(seed, "plans"));
            for kind in [Kind::Worker, Kind::Server] {
                let all: Vec<Plan> = std::iter::from_fn(|| plans.next(kind)).collect();
                let last = &all[all.len() * 2 / 3..];
                assert!(
                    last.len() > 4 && !last.iter().any(|plan| matches!(plan, Plan::At(at) if at.point.site == Site::TakeOver)),
                    "{all:?}"
                );
            }
        }
    }
}
