//! Which connections are cut, and on which side of a commit.

use super::wire::Act;
use crate::dice::Dice;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// On which side of the commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Side {
    /// The client has sent it, and the server never hears of it.
    Before,
    /// The server has answered that it is done, and the client never hears of it.
    After,
}

/// A connection that was cut.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Whose; its `application_name`.
    pub client: String,
    /// At which commit.
    pub act: Act,
    /// On which side.
    pub side: Side,
}

/// So long after a cut there is no other: somebody must come to something in between.
const PAUSE: Duration = Duration::from_millis(30);

/// Cuts to come, and those that were made.
pub struct Cuts(Mutex<Inner>);

struct Inner {
    left: BTreeMap<(Act, Side), u64>,
    dice: Dice,
    last: Option<Instant>,
    made: Vec<Cut>,
    /// Of each client the latest, until it is asked for.
    latest: HashMap<String, Cut>,
}

impl Cuts {
    /// So many of each kind on each side.
    pub fn new(each: &[(Act, u64)], dice: Dice) -> Self {
        let left = each.iter().flat_map(|(act, n)| [((*act, Side::Before), *n), ((*act, Side::After), *n)]).collect();
        Self(Mutex::new(Inner { left, dice, last: None, made: vec![], latest: HashMap::new() }))
    }

    /// How many are to come.
    pub fn left(&self) -> u64 {
        self.inner().left.values().sum()
    }

    /// How many of a kind are to come.
    pub fn left_of(&self, act: Act) -> u64 {
        self.inner().left.iter().filter(|((kind, _), _)| *kind == act).map(|(_, n)| n).sum()
    }

    /// Those that were made.
    pub fn made(&self) -> Vec<Cut> {
        self.inner().made.clone()
    }

    /// The latest cut of a client, once.
    pub fn take(&self, client: &str) -> Option<Cut> {
        self.inner().latest.remove(client)
    }

    /// Is the connection that this comes over to be cut, and when? What has many cuts to come is cut the more often.
    pub(super) fn choose(&self, act: Act) -> Option<Side> {
        let mut inner = self.inner();
        if inner.last.is_some_and(|last| last.elapsed() < PAUSE) {
            return None;
        }
        let sides: Vec<(Side, u64)> =
            [Side::Before, Side::After].map(|side| (side, inner.left.get(&(act, side)).copied().unwrap_or(0))).into();
        let (of_this, all): (u64, u64) = (sides.iter().map(|(_, n)| n).sum(), inner.left.values().sum());
        if of_this == 0 || inner.dice.below(all) >= of_this * 4 {
            return None;
        }
        let before = inner.dice.below(of_this) < sides[0].1;
        let side = if before { Side::Before } else { Side::After };
        *inner.left.entry((act, side)).or_default() -= 1;
        inner.last = Some(Instant::now());
        Some(side)
    }

    /// It did not come to that.
    pub(super) fn give_back(&self, act: Act, side: Side) {
        *self.inner().left.entry((act, side)).or_default() += 1;
    }

    /// It is made: to be said before either side can see it.
    pub(super) fn make(&self, cut: Cut) {
        let mut inner = self.inner();
        inner.latest.insert(cut.client.clone(), cut.clone());
        inner.made.push(cut);
    }

    /// For tests of one side.
    #[cfg(test)]
    pub(super) fn keep_only(&self, side: Side) {
        self.inner().left.retain(|(_, other), _| *other == side);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_cuts_as_planned_and_a_pause_between_them() {
        let cuts = Cuts::new(&[(Act::Start, 2), (Act::Claim, 1)], Dice::new(1, "cuts"));
        let mut chosen = vec![];
        while cuts.left() > 0 {
            for act in [Act::Start, Act::Claim, Act::Renew] {
                let before = Instant::now();
                chosen.extend(cuts.choose(act).map(|side| (act, side, before)));
            }
        }
        assert_eq!([Act::Start, Act::Claim, Act::Renew].map(|act| cuts.choose(act)), [None; 3], "all were chosen");
        let count = |act, side| chosen.iter().filter(|(a, s, _)| (*a, *s) == (act, side)).count();
        let sides = [Side::Before, Side::After];
        assert_eq!([Act::Start, Act::Claim].map(|act| sides.map(|side| count(act, side))), [[2, 2], [1, 1]]);
        assert!(chosen.windows(2).all(|pair| pair[1].2 - pair[0].2 >= PAUSE / 2), "{chosen:?}");
    }

    #[test]
    fn what_did_not_come_about_is_to_come_again() {
        let cuts = Cuts::new(&[(Act::Claim, 1)], Dice::new(1, "cuts"));
        let side = cuts.choose(Act::Claim).expect("one");
        assert_eq!(cuts.left_of(Act::Claim), 1);
        cuts.give_back(Act::Claim, side);
        assert_eq!(cuts.left_of(Act::Claim), 2);
    }
}
