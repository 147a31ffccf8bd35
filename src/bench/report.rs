//! What a work found: for programs, and as a small table for people.

use super::meter::{self, Cost, Cpu};
use krowoc_engine::worker::Stats;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{fmt::Write, sync::atomic::Ordering::Relaxed};

/// A work's figures. `ratio` is value by floor: for times how many floors it takes, for rates the share of the floor that is left.
#[derive(Serialize)]
pub struct Report {
    work: &'static str,
    value: f64,
    unit: &'static str,
    floor_name: &'static str,
    floor_value: f64,
    ratio: f64,
    steps: u64,
    cpu_s_per_1000_steps: Option<Cpu>,
    floor_cpu_s_per_1000_steps: Option<Cpu>,
    wal_bytes_per_step: f64,
    rss_mb: Option<f64>,
    peak_rss_mb: Option<f64>,
    /// Other work on the machine lowers every figure.
    load_average: Option<f64>,
    #[serde(flatten)]
    more: Map<String, Value>,
    targets: Vec<Target>,
}

/// A figure that is to be reached (docs/performance.md).
#[derive(Serialize)]
struct Target {
    figure: &'static str,
    value: f64,
    bound: &'static str,
    target: f64,
    met: bool,
}

/// A value with its unit, the floor beside it.
pub struct Headline {
    /// The work.
    pub work: &'static str,
    /// The figure.
    pub value: f64,
    /// Of both.
    pub unit: &'static str,
    /// What the floor is.
    pub floor_name: &'static str,
    /// The floor's figure.
    pub floor_value: f64,
}

impl Report {
    /// A report of `steps` steps that cost so much.
    pub fn new(headline: Headline, steps: u64, cost: Cost) -> Self {
        let Headline { work, value, unit, floor_name, floor_value } = headline;
        let thousands = steps.max(1) as f64 / 1000.0;
        let me = std::process::id();
        Self {
            work,
            value: round(value),
            unit,
            floor_name,
            floor_value: round(floor_value),
            ratio: round(value / floor_value),
            steps,
            cpu_s_per_1000_steps: cost.cpu.map(|c| c.by(thousands)),
            floor_cpu_s_per_1000_steps: None,
            wal_bytes_per_step: round(cost.wal_bytes as f64 / steps.max(1) as f64),
            rss_mb: meter::resident_mb(me).map(round),
            peak_rss_mb: meter::peak_resident_mb(me).map(round),
            load_average: meter::load_average(),
            more: Map::new(),
            targets: vec![],
        }
    }

    /// Another figure or setting of this work.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Another measured figure.
    pub fn figure(self, name: &str, value: f64) -> Self {
        self.with(name, round(value))
    }

    /// What the floor's rows cost: processor time depends less than time itself on what else the machine does.
    pub fn floor_cost(mut self, rows: usize, cost: Cost) -> Self {
        self.floor_cpu_s_per_1000_steps = cost.cpu.map(|c| c.by(rows as f64 / 1000.0));
        self
    }

    /// What the worker counted.
    pub fn counters(self, stats: &Stats) -> Self {
        let (steps, commits) = (stats.steps.load(Relaxed), stats.commits.load(Relaxed));
        self.with("worker_commits", commits)
            .figure("worker_steps_per_commit", steps as f64 / commits.max(1) as f64)
            .with("worker_claims", stats.claims.load(Relaxed))
            .with("worker_conflicts", stats.conflicts.load(Relaxed))
            .with("worker_refused", stats.refused.load(Relaxed))
    }

    /// The memory of other processes than this one.
    pub fn resident(mut self, rss_mb: Option<f64>, peak_rss_mb: Option<f64>) -> Self {
        (self.rss_mb, self.peak_rss_mb) = (rss_mb.map(round), peak_rss_mb.map(round));
        self
    }

    /// A figure that must not exceed its target.
    pub fn at_most(self, figure: &'static str, value: f64, target: f64) -> Self {
        self.target(Target { figure, value: round(value), bound: "<=", target, met: value <= target })
    }

    /// A figure that must reach its target.
    pub fn at_least(self, figure: &'static str, value: f64, target: f64) -> Self {
        self.target(Target { figure, value: round(value), bound: ">=", target, met: value >= target })
    }

    /// Processor seconds per 1,000 steps, engine and PostgreSQL together.
    pub fn cpu_at_most(self, target: f64) -> Self {
        match self.cpu_s_per_1000_steps {
            Some(Cpu { krowoc, postgres }) => self.at_most("cpu_s_per_1000_steps", krowoc + postgres, target),
            None => self,
        }
    }

    fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut rows = vec![
            (self.work.to_owned(), format!("{} {}", number(self.value), self.unit)),
            (format!("floor: {}", self.floor_name), format!("{} {}", number(self.floor_value), self.unit)),
            ("ratio to the floor".into(), number(self.ratio)),
            ("steps".into(), self.steps.to_string()),
        ];
        if let Some(cpu) = self.cpu_s_per_1000_steps {
            rows.push(("CPU s per 1,000 steps: krowoc, postgres".into(), format!("{}, {}", number(cpu.krowoc), number(cpu.postgres))));
        }
        if let Some(cpu) = self.floor_cpu_s_per_1000_steps {
            rows.push(("CPU s per 1,000 of the floor's rows".into(), format!("{}, {}", number(cpu.krowoc), number(cpu.postgres))));
        }
        rows.push(("write-ahead log per step".into(), format!("{} bytes", number(self.wal_bytes_per_step))));
        if let (Some(now), Some(peak)) = (self.rss_mb, self.peak_rss_mb) {
            rows.push(("resident memory, peak".into(), format!("{}, {} MB", number(now), number(peak))));
        }
        if let Some(load) = self.load_average {
            rows.push(("load average of the machine".into(), number(load)));
        }
        rows.extend(self.more.iter().map(|(name, value)| (name.replace('_', " "), plain(value))));
        rows.extend(self.targets.iter().map(|t| {
            let word = if t.met { "met" } else { "NOT MET" };
            (
                format!("reference machine's target: {} {} {}", t.figure.replace('_', " "), t.bound, number(t.target)),
                format!("{}: {word}", number(t.value)),
            )
        }));
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        rows.iter().fold(String::new(), |mut table, (name, value)| {
            // Writing to a string can't fail.
            let _ = writeln!(table, "{name:width$}  {value}");
            table
        })
    }
}

impl Cpu {
    fn by(self, thousands: f64) -> Self {
        Self { krowoc: round(self.krowoc / thousands), postgres: round(self.postgres / thousands) }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Number(n) => n.as_f64().map_or_else(|| n.to_string(), number),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Four digits say all that a measurement knows.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let digits = 3 - value.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

fn number(value: f64) -> String {
    format!("{}", round(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_digits_are_kept() {
        assert_eq!([round(0.0123456), round(86_432.1), round(3.0), round(0.0)], [0.01235, 86_430.0, 3.0, 0.0]);
    }

    #[test]
    fn a_missed_target_is_plain_to_see() {
        let headline = Headline { work: "chain", value: 0.4, unit: "ms per step", floor_name: "a commit per step", floor_value: 0.2 };
        let cost = Cost { cpu: Some(Cpu { krowoc: 1.0, postgres: 2.0 }), wal_bytes: 100_000 };
        let report = Report::new(headline, 1000, cost).figure("p99_ms", 0.5).at_most("value", 0.4, 0.32).cpu_at_most(4.0);
        let table = report.table();
        assert!(
            table.contains("reference machine's target: value <= 0.32") && table.contains("0.4: NOT MET") && table.contains("3: met"),
            "{table}"
        );
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["ratio"], 2.0);
        assert_eq!(json["cpu_s_per_1000_steps"]["postgres"], 2.0);
        assert_eq!(json["p99_ms"], 0.5);
        assert_eq!(json["targets"][0]["met"], false);
    }
}
