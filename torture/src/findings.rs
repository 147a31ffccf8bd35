//! What a scenario tells: counts and what they must come to, times, violations. They are kept as they come, so that a scenario that is cut
//! off has told what it had reached.

use serde::Serialize;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a count must come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// So many or more.
    AtLeast(u64),
    /// So many or fewer.
    AtMost(u64),
    /// So many.
    Exactly(u64),
}

impl Figure {
    /// Is it met?
    pub fn is_met(self, value: u64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
            Self::Exactly(due) => value == due,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(n) => write!(f, "≥ {n}"),
            Self::AtMost(n) => write!(f, "≤ {n}"),
            Self::Exactly(n) => write!(f, "= {n}"),
        }
    }
}

/// A count as it is reported.
#[derive(Clone, Debug, Serialize)]
pub struct Counted {
    /// What was counted.
    pub name: String,
    /// How many.
    pub value: u64,
    /// What they must come to.
    pub pass: Figure,
    /// Do they?
    pub met: bool,
}

/// Measured times as they are reported, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    /// What was measured.
    pub name: String,
    /// How often.
    pub samples: usize,
    /// The middle one.
    pub p50_ms: u64,
    /// The one that 99 of 100 do not exceed.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
    /// What `p99_ms` must not exceed, and why: for a recovery the lease and five seconds.
    pub p99_at_most_ms: u64,
    /// Does it not, and was anything measured?
    pub met: bool,
}

#[derive(Default)]
struct Inner {
    counts: Vec<(String, u64, Figure)>,
    times: Vec<(String, Vec<Duration>, Duration)>,
    notes: Vec<String>,
    violations: Vec<String>,
}

/// A scenario's findings. Cloning gives another hand on the same.
#[derive(Clone, Default)]
pub struct Findings(Arc<Mutex<Inner>>);

impl Findings {
    /// Something to be counted, from 0. Declared before anything happens, so that what never happened is told.
    pub fn count(&self, name: impl Into<String>, pass: Figure) -> Count {
        let mut inner = self.inner();
        inner.counts.push((name.into(), 0, pass));
        Count { findings: self.clone(), at: inner.counts.len() - 1 }
    }

    /// Times to be measured, whose 99th percentile must not exceed a limit. None at all is a failure.
    pub fn times(&self, name: impl Into<String>, p99_at_most: Duration) -> Stopwatch {
        let mut inner = self.inner();
        inner.times.push((name.into(), vec![], p99_at_most));
        Stopwatch { findings: self.clone(), at: inner.times.len() - 1 }
    }

    /// A promise was broken: what, in which run, and what there is to look at.
    pub fn violation(&self, what: impl fmt::Display) {
        self.inner().violations.push(what.to_string());
    }

    /// Something worth reading that nothing depends on.
    pub fn note(&self, what: impl fmt::Display) {
        self.inner().notes.push(what.to_string());
    }

    /// Everything that another has told, under a name.
    pub fn include(&self, name: &str, other: &Self) {
        let other = other.inner();
        let mut inner = self.inner();
        inner.counts.extend(other.counts.iter().map(|(what, n, pass)| (format!("{name}: {what}"), *n, *pass)));
        inner.times.extend(other.times.iter().map(|(what, samples, limit)| (format!("{name}: {what}"), samples.clone(), *limit)));
        inner.notes.extend(other.notes.iter().map(|note| format!("{name}: {note}")));
        inner.violations.extend(other.violations.iter().map(|what| format!("{name}: {what}")));
    }

    /// Counts so far.
    pub fn counted(&self) -> Vec<Counted> {
        let counted = |(name, value, pass): &(String, u64, Figure)| Counted {
            name: name.clone(),
            value: *value,
            pass: *pass,
            met: pass.is_met(*value),
        };
        self.inner().counts.iter().map(counted).collect()
    }

    /// Times so far.
    pub fn measured(&self) -> Vec<Times> {
        self.inner().times.iter().map(|(name, samples, limit)| times(name, samples, *limit)).collect()
    }

    /// Was nothing violated, and is every figure met?
    pub fn is_good(&self) -> bool {
        self.violations().is_empty() && self.counted().iter().all(|c| c.met) && self.measured().iter().all(|t| t.met)
    }

    /// Notes so far.
    pub fn notes(&self) -> Vec<String> {
        self.inner().notes.clone()
    }

    /// Violations so far.
    pub fn violations(&self) -> Vec<String> {
        self.inner().violations.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn times(name: &str, samples: &[Duration], limit: Duration) -> Times {
    let mut ms: Vec<u64> = samples.iter().map(|sample| sample.as_millis() as u64).collect();
    ms.sort_unstable();
    // The nearest rank: the smallest that so many of 100 do not exceed.
    let rank = |percent: usize| ms.get((ms.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
    let (p99, limit) = (rank(99), limit.as_millis() as u64);
    Times {
        name: name.to_owned(),
        samples: ms.len(),
        p50_ms: rank(50),
        p99_ms: p99,
        max_ms: ms.last().copied().unwrap_or_default(),
        p99_at_most_ms: limit,
        met: !ms.is_empty() && p99 <= limit,
    }
}

/// A count under way.
#[derive(Clone)]
pub struct Count {
    findings: Findings,
    at: usize,
}

impl Count {
    /// So many more.
    pub fn add(&self, n: u64) {
        self.findings.inner().counts[self.at].1 += n;
    }

    /// So many in all.
    pub fn set(&self, n: u64) {
        self.findings.inner().counts[self.at].1 = n;
    }

    /// How many there are.
    pub fn get(&self) -> u64 {
        self.findings.inner().counts[self.at].1
    }

    /// Has it come to what it must?
    pub fn is_met(&self) -> bool {
        let (_, value, pass) = &self.findings.inner().counts[self.at];
        pass.is_met(*value)
    }
}

/// Times under way.
#[derive(Clone)]
pub struct Stopwatch {
    findings: Findings,
    at: usize,
}

impl Stopwatch {
    /// One more.
    pub fn record(&self, took: Duration) {
        self.findings.inner().times[self.at].1.push(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_fails() {
        let findings = Findings::default();
        let kills = findings.count("kills", Figure::AtLeast(3));
        findings.times("recovery", Duration::from_secs(6));
        assert!(!findings.counted()[0].met && !findings.measured()[0].met);
        kills.add(3);
        assert!(kills.is_met() && findings.counted()[0].met);
    }

    #[test]
    fn figures_bound_from_their_side() {
        assert_eq!([2, 3, 4].map(|n| Figure::AtLeast(3).is_met(n)), [false, true, true]);
        assert_eq!([2, 3, 4].map(|n| Figure::AtMost(3).is_met(n)), [true, true, false]);
        assert_eq!([2, 3, 4].map(|n| Figure::Exactly(3).is_met(n)), [false, true, false]);
    }

    #[test]
    fn a_percentile_is_a_sample() {
        let ms = |n: u64| Duration::from_millis(n);
        let samples: Vec<Duration> = (1..=200).map(ms).collect();
        let t = times("recovery", &samples, ms(198));
        assert_eq!((t.samples, t.p50_ms, t.p99_ms, t.max_ms, t.met), (200, 100, 198, 200, true));
        let t = times("recovery", &samples, ms(197));
        assert!(!t.met);
        assert_eq!(times("recovery", &[ms(5)], ms(5)).p99_ms, 5);
    }
}
