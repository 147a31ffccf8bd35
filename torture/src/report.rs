//! What came of it: for programs, and as a table for people.

use crate::{
    arena::Size,
    findings::{Counted, Times},
};
use serde::Serialize;
use std::{fmt, path::PathBuf};

/// How many violations of a scenario people are shown; the JSON has all.
const SHOWN: usize = 20;

/// Of all scenarios.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Replays the choices: `--seed`.
    pub seed: u64,
    /// How much of everything.
    pub size: Size,
    /// `own` or `given`: whose server it was.
    pub server: &'static str,
    /// Did every scenario pass, or was skipped where that is allowed?
    pub passed: bool,
    /// How long it took.
    pub seconds: f64,
    /// Each.
    pub scenarios: Vec<Outcome>,
}

/// How a scenario went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing was violated, and every figure was met.
    Passed,
    /// Something was, or was not.
    Failed,
    /// It can't be done here.
    Skipped,
}

/// Of one scenario.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// Why it was skipped, or ended early.
    pub reason: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// What was counted.
    pub counts: Vec<Counted>,
    /// What was measured.
    pub times: Vec<Times>,
    /// Worth reading.
    pub notes: Vec<String>,
    /// Promises that were broken.
    pub violations: Vec<String>,
    /// What there is to look at: ledger, logs.
    pub kept: Option<PathBuf>,
    /// Databases that were kept.
    pub databases: Vec<String>,
}

impl Report {
    /// The table, and below it what went wrong.
    pub fn text(&self) -> String {
        self.to_string()
    }

    fn rows(&self) -> Vec<[String; 5]> {
        let mut rows = vec![["scenario", "counted", "must be", "is", "verdict"].map(str::to_owned)];
        for outcome in &self.scenarios {
            let verdict = match outcome.verdict {
                Verdict::Passed => format!("passed in {:.0} s", outcome.seconds),
                Verdict::Failed => format!("FAILED after {:.0} s", outcome.seconds),
                Verdict::Skipped => "skipped".to_owned(),
            };
            let mut head = Some([outcome.name.to_owned(), verdict]);
            let mut row = |name: &str, must: String, is: String, met: bool| {
                let [scenario, verdict] = head.take().unwrap_or_default();
                let is = if met { is } else { format!("{is}  NOT MET") };
                rows.push([scenario, name.to_owned(), must, is, verdict]);
            };
            for c in &outcome.counts {
                row(&c.name, c.pass.to_string(), c.value.to_string(), c.met);
            }
            for t in &outcome.times {
                let is = format!("{} ms (p50 {}, max {}, of {})", t.p99_ms, t.p50_ms, t.max_ms, t.samples);
                row(&format!("{}, p99", t.name), format!("≤ {} ms", t.p99_at_most_ms), is, t.met);
            }
            if outcome.counts.is_empty() && outcome.times.is_empty() {
                row(outcome.reason.as_deref().unwrap_or_default(), String::new(), String::new(), true);
            }
        }
        rows
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..5).map(width).collect();
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        for outcome in self.scenarios.iter().filter(|outcome| outcome.verdict == Verdict::Failed) {
            writeln!(f, "\n{} FAILED{}", outcome.name, outcome.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())?;
            for violation in outcome.violations.iter().take(SHOWN) {
                writeln!(f, "  {violation}")?;
            }
            if let Some(more) = outcome.violations.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                writeln!(f, "  … and {more} more, all in --json")?;
            }
            if let Some(kept) = &outcome.kept {
                writeln!(f, "  ledger and logs: {}", kept.display())?;
            }
            if !outcome.databases.is_empty() {
                writeln!(f, "  databases: {}", outcome.databases.join(", "))?;
            }
        }
        let word = if self.passed { "passed" } else { "FAILED" };
        writeln!(f, "\n{word} in {:.0} s; --seed {} makes the same choices again", self.seconds, self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Figure, Findings};

    #[test]
    fn what_was_not_met_and_what_was_violated_is_plain_to_see() {
        let findings = Findings::default();
        findings.count("kills", Figure::Exactly(200)).set(7);
        findings.violation("I2: run 1 is gone");
        let outcome = Outcome {
            name: "kills",
            verdict: Verdict::Failed,
            reason: None,
            seconds: 2.0,
            counts: findings.counted(),
            times: vec![],
            notes: vec![],
            violations: findings.violations(),
            kept: Some("/tmp/kept".into()),
            databases: vec![],
        };
        let skipped = Outcome { name: "clocks", verdict: Verdict::Skipped, reason: Some("no libfaketime".into()), ..empty() };
        let report = Report { seed: 9, size: Size::Short, server: "own", passed: false, seconds: 2.0, scenarios: vec![outcome, skipped] };
        let text = report.text();
        for words in ["= 200", "7  NOT MET", "FAILED after 2 s", "I2: run 1 is gone", "/tmp/kept", "no libfaketime", "--seed 9"] {
            assert!(text.contains(words), "{words} is missing in\n{text}");
        }
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["scenarios"][0]["counts"][0]["pass"]["exactly"], 200);
        assert_eq!(json["scenarios"][0]["verdict"], "failed");
    }

    fn empty() -> Outcome {
        Outcome {
            name: "",
            verdict: Verdict::Passed,
            reason: None,
            seconds: 0.0,
            counts: vec![],
            times: vec![],
            notes: vec![],
            violations: vec![],
            kept: None,
            databases: vec![],
        }
    }
}
