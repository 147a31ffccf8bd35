//! Every work of `krowoc bench`, one after the other: `make bench`. Words after `--` choose among them: `cargo bench --bench works -- chain
//! latency`. Each is a process of its own, as anybody would start it, so that none measures what another left in memory.

use serde_json::Value;
use std::process::{Command, ExitCode, Stdio};

/// As `krowoc bench` is told; the first word is the name.
const WORKS: [&str; 14] = [
    "chain",
    "throughput",
    "fanout",
    "fanout --items 100000",
    "latency",
    "latency --across",
    "backlog",
    "backlog --history 1000000",
    "backlog --old-snapshot",
    "inflight",
    "idle",
    "rest",
    "rest-bulk",
    "page",
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // cargo says `--bench`; a test runner that comes by does not, and is not to wait for half an hour.
    if !words.iter().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    if let Some(unknown) = wanted.iter().find(|word| !WORKS.iter().any(|work| is(work, word))) {
        eprintln!("no work is called `{unknown}`; there are:\n  {}", WORKS.join("\n  "));
        return ExitCode::from(2);
    }
    let chosen = WORKS.into_iter().filter(|work| wanted.is_empty() || wanted.iter().any(|word| is(work, word)));
    let rows: Vec<[String; 6]> = chosen.map(|work| row(work, measured(work))).collect();
    println!("{}", aligned(&rows));
    if rows.iter().any(|row| row[1] == FAILED) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// `latency` means both of its works, `latency --across` only the one.
fn is(work: &str, word: &str) -> bool {
    work == word || work.split(' ').next() == Some(word)
}

/// Measures a work; its table goes to standard error, as the summary alone is the output. None if it failed, which it has explained.
fn measured(work: &str) -> Option<Value> {
    eprintln!("krowoc bench {work}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_krowoc"));
    let output = command.arg("bench").args(work.split(' ')).args(["--json", "--table"]).stderr(Stdio::inherit()).output().ok()?;
    eprintln!();
    output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten()
}

const HEAD: [&str; 6] = ["work", "value", "unit", "floor", "ratio", "targets met"];
const FAILED: &str = "failed";

fn row(work: &str, report: Option<Value>) -> [String; 6] {
    let Some(report) = report else { return [work, FAILED, "", "", "", ""].map(str::to_owned) };
    let text = |name: &str| report[name].as_str().map_or_else(|| report[name].to_string(), str::to_owned);
    let targets = report["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let met = targets.iter().filter(|target| target["met"] == true).count();
    [work.to_owned(), text("value"), text("unit"), text("floor_value"), text("ratio"), format!("{met} of {}", targets.len())]
}

fn aligned(rows: &[[String; 6]]) -> String {
    let head = HEAD.map(str::to_owned);
    let rows: Vec<&[String; 6]> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &&[String; 6]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
