//! The order of steps that wait for each other, and the cycles among them. No recursion: a chain may be as long as a workflow.

use std::{cmp::Reverse, collections::BinaryHeap};

/// An order in which every step comes after those it waits for, or the cycles.
///
/// Among steps that could come next the one with the smallest rank does, so that the order depends on the graph and the ranks
/// alone. `deps[i]` names what `i` waits for, each once.
pub(super) fn order(deps: &[Vec<usize>], rank: &[usize]) -> Result<Vec<usize>, Vec<Vec<usize>>> {
    let mut successors = vec![Vec::new(); deps.len()];
    let mut missing: Vec<usize> = deps.iter().map(Vec::len).collect();
    for (step, all) in deps.iter().enumerate() {
        for dep in all {
            successors[*dep].push(step);
        }
    }
    let mut ready: BinaryHeap<_> = (0..deps.len()).filter(|s| missing[*s] == 0).map(|s| Reverse((rank[s], s))).collect();
    let mut order = Vec::with_capacity(deps.len());
    while let Some(Reverse((_, step))) = ready.pop() {
        order.push(step);
        for next in &successors[step] {
            missing[*next] -= 1;
            if missing[*next] == 0 {
                ready.push(Reverse((rank[*next], *next)));
            }
        }
    }
    if order.len() == deps.len() { Ok(order) } else { Err(cycles(deps, &missing)) }
}

/// Cycles among the steps that still miss something: each of those waits for another such step, so that a walk from one to the
/// next must come back to itself. Every step is walked once, so steps of several cycles may show only one of them.
fn cycles(deps: &[Vec<usize>], missing: &[usize]) -> Vec<Vec<usize>> {
    const NEW: usize = 0;
    let mut walked = vec![NEW; deps.len()];
    let mut cycles = Vec::new();
    for start in (0..deps.len()).filter(|s| missing[*s] > 0) {
        let (walk, mut path, mut step) = (start + 1, Vec::new(), start);
        while walked[step] == NEW {
            walked[step] = walk;
            path.push(step);
            match deps[step].iter().find(|dep| missing[**dep] > 0) {
                Some(dep) => step = *dep,
                None => break,
            }
        }
        if walked[step] == walk
            && let Some(from) = path.iter().position(|s| *s == step)
        {
            let mut cycle = path.split_off(from);
            let first = cycle.iter().enumerate().min_by_key(|(_, s)| **s).map_or(0, |(at, _)| at);
            cycle.rotate_left(first);
            cycles.push(cycle);
        }
    }
    cycles
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_chain_needs_no_deep_stack() {
        let n = 200_000;
        let deps: Vec<_> = (0..n).map(|i| if i == 0 { vec![] } else { vec![i - 1] }).collect();
        let rank: Vec<_> = (0..n).rev().collect();
        assert_eq!(order(&deps, &rank), Ok((0..n).collect()));
        let ring: Vec<_> = (0..n).map(|i| vec![(i + 1) % n]).collect();
        assert_eq!(order(&ring, &rank), Err(vec![(0..n).collect()]));
    }

    #[test]
    fn each_cycle_is_found_and_starts_with_its_first_step() {
        let deps = [vec![2], vec![0], vec![1], vec![0], vec![5], vec![4], vec![]];
        assert_eq!(order(&deps, &[0; 7]), Err(vec![vec![0, 2, 1], vec![4, 5]]));
    }

    proptest! {
        #[test]
        fn what_a_step_waits_for_comes_before_it(edges in prop::collection::vec((0..40usize, 0..40usize), 0..200)) {
            let mut deps = vec![Vec::new(); 40];
            for (a, b) in edges {
                if a != b && !deps[a.max(b)].contains(&a.min(b)) {
                    deps[a.max(b)].push(a.min(b));
                }
            }
            let order = order(&deps, &(0..40).rev().collect::<Vec<_>>()).unwrap();
            let place = |s: usize| order.iter().position(|x| *x == s).unwrap();
            for (step, all) in deps.iter().enumerate() {
                for dep in all {
                    prop_assert!(place(*dep) < place(step));
                }
            }
        }

        #[test]
        fn a_cycle_that_is_named_is_one(edges in prop::collection::vec((0..12usize, 0..12usize), 0..40)) {
            let mut deps = vec![Vec::new(); 12];
            for (a, b) in edges {
                if a != b && !deps[a].contains(&b) {
                    deps[a].push(b);
                }
            }
            if let Err(cycles) = order(&deps, &[0; 12]) {
                prop_assert!(!cycles.is_empty());
                for cycle in cycles {
                    for (at, step) in cycle.iter().enumerate() {
                        prop_assert!(deps[*step].contains(&cycle[(at + 1) % cycle.len()]));
                    }
                }
            }
        }
    }
}
