//! How far a run has come, on standard error while it runs: a tree that is drawn anew on a terminal, a line for each change elsewhere. What
//! can't be written there is left unsaid; the run does not depend on who watches it.

use crate::{
    output,
    table::{clean, excerpt, span, wrapped},
    tree,
};
use chrono::{DateTime, Local, Utc};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use krowoc_engine::queries::{
    inside::StepInside,
    steps::{MapProgress, StepStatus, StepView, WaitReason},
};
use std::{collections::HashMap, io::IsTerminal};

/// Whoever shows the steps of a run as they change.
pub trait Progress: Send {
    /// The run's own steps, as they stand now, and those inside maps, as they stood not long ago.
    fn show(&mut self, steps: &[StepView], inside: &[StepInside]);
    /// What the run waits for while nothing of it is carried out; none: it goes on.
    fn waits(&mut self, why: Option<String>);
    /// Nothing more comes; what was drawn to be drawn over goes.
    fn end(&mut self);
}

/// The one that fits standard error.
pub fn to_stderr(colour: bool) -> Box<dyn Progress> {
    match std::io::stderr().is_terminal() {
        true => Box::new(Tree::new(colour)),
        false => Box::new(Lines::default()),
    }
}

/// A line for each change that was seen.
#[derive(Default)]
pub struct Lines {
    seen: HashMap<String, Seen>,
    /// The time of the last line.
    latest: DateTime<Utc>,
}

/// What makes a line worth writing. A map's items count by tenths.
#[derive(PartialEq, Clone, Copy)]
struct Seen {
    status: StepStatus,
    attempts: u32,
    tenths: u32,
}

impl Lines {
    /// The lines for what has changed since the last time.
    fn changes(&mut self, steps: &[StepView], inside: &[StepInside], now: DateTime<Utc>) -> Vec<String> {
        let mut changes = Vec::new();
        for step in steps {
            let tenths = step.items.map_or(0, |items| items.done * 10 / items.total.max(1));
            let seen = Seen { status: step.status, attempts: step.attempts, tenths };
            let before = self.seen.insert(step.path.clone(), seen);
            if before == Some(seen) || matches!(step.status, StepStatus::Pending | StepStatus::Ready) {
                continue;
            }
            let at = match step.status {
                StepStatus::Running => step.started_at.filter(|_| step.attempts <= 1),
                _ => step.finished_at,
            };
            changes.push((at.unwrap_or(now), step));
        }
        // Steps come in the order of their names.
        changes.sort_by_key(|(at, _)| *at);
        changes.into_iter().flat_map(|(at, step)| self.lines(at, step, inside)).collect()
    }

    fn lines(&mut self, at: DateTime<Utc>, step: &StepView, inside: &[StepInside]) -> Vec<String> {
        // What ended just before the last look may not have been seen there yet.
        self.latest = self.latest.max(at);
        let shown = StepView { tokens: tree::tokens(step, inside), ..step.clone() };
        let mut lines = vec![format!("{} {} {}", clock(self.latest), mark(step.status), described(&shown))];
        if tree::is_over(step.status) {
            lines.extend(tree::below(step, inside, false).iter().map(|line| format!("{:8} {line}", "")));
        }
        lines
    }
}

impl Progress for Lines {
    fn show(&mut self, steps: &[StepView], inside: &[StepInside]) {
        for line in self.changes(steps, inside, Local::now().into()) {
            output::note(line);
        }
    }

    fn waits(&mut self, why: Option<String>) {
        if let Some(why) = why {
            self.latest = self.latest.max(Local::now().into());
            output::note(format!("{} {}", clock(self.latest), clean(&why)));
        }
    }

    fn end(&mut self) {}
}

/// The time of day here.
fn clock(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%H:%M:%S").to_string()
}

/// One line per step, those inside maps below theirs, and what the run waits for, drawn in place.
struct Tree {
    screen: MultiProgress,
    bars: Vec<ProgressBar>,
    waits: Vec<String>,
    colour: bool,
}

/// Lines on a terminal are cut at its edge; a sentence is broken before that of most.
const SENTENCE: usize = 78;

impl Tree {
    fn new(colour: bool) -> Self {
        Self { screen: MultiProgress::new(), bars: vec![], waits: vec![], colour }
    }
}

impl Progress for Tree {
    fn show(&mut self, steps: &[StepView], inside: &[StepInside]) {
        let now = Local::now().into();
        let line = |step: &StepView| format!("{} {}", painted(step.status, self.colour), with_age(step, age(step, now)));
        let mut lines = tree::lines(steps, inside, self.colour, line);
        lines.extend(self.waits.clone());
        while self.bars.len() < lines.len() {
            let style = ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
            self.bars.push(self.screen.add(ProgressBar::new_spinner().with_style(style)));
        }
        // A wait that is over leaves its line empty.
        for (bar, line) in self.bars.iter().zip(lines.into_iter().chain(std::iter::repeat(String::new()))) {
            bar.set_message(line);
        }
    }

    fn waits(&mut self, why: Option<String>) {
        self.waits = why.map(|why| wrapped(&clean(&why), SENTENCE).lines().map(str::to_owned).collect()).unwrap_or_default();
    }

    fn end(&mut self) {
        for bar in self.bars.drain(..) {
            bar.finish_and_clear();
        }
        // A screen that can't be cleared is one that nobody sees.
        self.screen.clear().ok();
    }
}

/// A step's line in a tree of steps that moves no more.
pub fn drawn(step: &StepView, colour: bool) -> String {
    format!("{} {}", painted(step.status, colour), described(step))
}

/// A status as one character.
fn mark(status: StepStatus) -> char {
    match status {
        StepStatus::Pending => '·',
        StepStatus::Ready => '○',
        StepStatus::Running => '▶',
        StepStatus::Waiting => '…',
        StepStatus::Succeeded => '✓',
        StepStatus::Skipped => '–',
        StepStatus::Failed => '✗',
        StepStatus::UpstreamFailed => '⊘',
        StepStatus::Cancelled => '■',
    }
}

/// The same, in its colour if that is wanted.
pub fn painted(status: StepStatus, colour: bool) -> String {
    let code = match status {
        StepStatus::Succeeded => 32,
        StepStatus::Failed | StepStatus::UpstreamFailed => 31,
        StepStatus::Running => 36,
        StepStatus::Waiting | StepStatus::Cancelled => 33,
        StepStatus::Pending | StepStatus::Ready | StepStatus::Skipped => 90,
    };
    if colour { format!("\u{1b}[{code}m{}\u{1b}[0m", mark(status)) } else { mark(status).to_string() }
}

/// A step's address and everything about it: `draft 400 ms, 812 tokens`.
fn described(step: &StepView) -> String {
    with_age(step, None)
}

/// The same of a step under way, which has been so for this many milliseconds.
fn with_age(step: &StepView, age: Option<i64>) -> String {
    let mut text = excerpt(&step.path, 60);
    match step.status {
        StepStatus::Succeeded => {}
        StepStatus::Waiting => text += &format!(" {}", waiting(step)),
        StepStatus::UpstreamFailed => text += " not run: a step before it failed",
        status => text += &format!(" {}", word(status)),
    }
    let attempt = (step.attempts > 1).then(|| format!("attempt {}", step.attempts));
    let tokens = step.tokens.map(|tokens| format!("{} tokens", tokens.input + tokens.output));
    let figures: Vec<String> = [step.items.map(items), attempt, took(step).or(age).map(span), tokens].into_iter().flatten().collect();
    if !figures.is_empty() {
        text += &format!(" {}", figures.join(", "));
    }
    if let Some(error) = &step.error {
        text += &format!(": {}: {}", error.class, excerpt(&error.message, 160));
    }
    text
}

/// A map's last attempt only gathers what its items brought: of a map, the whole time is told.
fn took(step: &StepView) -> Option<i64> {
    match (step.items, step.started_at.zip(step.finished_at)) {
        (Some(_), Some((start, end))) => Some((end - start).num_milliseconds()),
        _ => step.duration_ms.map(i64::from),
    }
}

fn age(step: &StepView, now: DateTime<Utc>) -> Option<i64> {
    let under_way = matches!(step.status, StepStatus::Running | StepStatus::Waiting);
    step.started_at.filter(|_| under_way).map(|at| (now - at).num_milliseconds())
}

/// A status as the lists have it.
pub fn word(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Pending => "pending",
        StepStatus::Ready => "ready",
        StepStatus::Running => "running",
        StepStatus::Waiting => "waiting",
        StepStatus::Succeeded => "succeeded",
        StepStatus::Skipped => "skipped",
        StepStatus::Failed => "failed",
        StepStatus::UpstreamFailed => "upstream_failed",
        StepStatus::Cancelled => "cancelled",
    }
}

fn waiting(step: &StepView) -> String {
    let Some(waiting) = step.waiting else { return "waiting".into() };
    let until = waiting.until.map(|at| at.with_timezone(&Local).format(" until %H:%M:%S").to_string()).unwrap_or_default();
    match waiting.reason {
        WaitReason::Backoff => format!("waits{until} to try again"),
        WaitReason::Deferred => format!("waits{until} for a limit"),
        WaitReason::Timer => format!("waits{until}"),
        WaitReason::Items => "working on its items".into(),
        WaitReason::Concurrency => "waits for another item to end".into(),
    }
}

fn items(map: MapProgress) -> String {
    let failed = if map.failed > 0 { format!(", {} failed", map.failed) } else { String::new() };
    format!("{}/{} items{failed}", map.done, map.total)
}

/// A step for tests.
#[cfg(test)]
pub fn sample(status: StepStatus, attempts: u32) -> StepView {
    StepView {
        path: "draft".into(),
        id: "draft".into(),
        kind: "llm".into(),
        status,
        waiting: None,
        attempts,
        started_at: None,
        finished_at: None,
        duration_ms: None,
        tokens: None,
        class: None,
        error: None,
        items: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use krowoc_engine::{ErrorClass, executor::StepError, queries::usage::Tokens};

    fn lines(lines: &mut Lines, step: StepView) -> Vec<String> {
        let changes = lines.changes(&[step], &[], DateTime::UNIX_EPOCH);
        // The time of day depends on where the test runs.
        changes.into_iter().map(|line| line.split_once(' ').map(|(_, rest)| rest.to_owned()).unwrap_or_default()).collect()
    }

    #[test]
    fn each_change_is_one_line() {
        let mut out = Lines::default();
        assert!(lines(&mut out, sample(StepStatus::Pending, 0)).is_empty());
        assert_eq!(lines(&mut out, sample(StepStatus::Running, 1)), ["▶ draft running"]);
        assert!(lines(&mut out, sample(StepStatus::Running, 1)).is_empty(), "nothing has changed");
        assert_eq!(lines(&mut out, sample(StepStatus::Waiting, 1)), ["… draft waiting"]);
        assert_eq!(lines(&mut out, sample(StepStatus::Running, 2)), ["▶ draft running attempt 2"]);
        let tokens = Tokens { calls: 1, input: 800, cached_input: 0, output: 12 };
        let done = StepView { duration_ms: Some(400), tokens: Some(tokens), ..sample(StepStatus::Succeeded, 1) };
        assert_eq!(lines(&mut out, done), ["✓ draft 400 ms, 812 tokens"]);
    }

    #[test]
    fn lines_come_in_the_order_of_their_times() {
        let at = |seconds| Some(DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(seconds));
        let done = |path: &str, end| StepView { path: path.into(), finished_at: at(end), ..sample(StepStatus::Succeeded, 1) };
        let running = |path: &str, start| StepView { path: path.into(), started_at: at(start), ..sample(StepStatus::Running, 1) };
        let mut out = Lines::default();
        let seen = [done("a", 30), StepView { path: "b".into(), ..sample(StepStatus::Waiting, 1) }, running("c", 31), done("d", 20)];
        let lines = out.changes(&seen, &[], at(40).expect("a time"));
        let steps = |lines: &[String]| lines.iter().map(|line| line.split(' ').nth(2).unwrap_or_default().to_owned()).collect::<Vec<_>>();
        assert_eq!(steps(&lines), ["d", "a", "c", "b"]);
        // It ended while the look before was under way, which had another clock.
        let late = out.changes(&[done("c", 39)], &[], at(41).expect("a time"));
        let clock = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        assert_eq!(clock(&late[0]), clock(&lines[3]), "no line is older than the one above it");
    }

    #[test]
    fn a_map_is_a_line_for_each_tenth_of_its_items() {
        let mut out = Lines::default();
        let map = |done, failed| StepView {
            items: Some(MapProgress { total: 20, done, failed, running: 3 }),
            waiting: Some(krowoc_engine::queries::steps::Waiting { reason: WaitReason::Items, until: None }),
            ..sample(StepStatus::Waiting, 1)
        };
        assert_eq!(lines(&mut out, map(0, 0)), ["… draft working on its items 0/20 items"]);
        assert!(lines(&mut out, map(1, 0)).is_empty());
        assert_eq!(lines(&mut out, map(2, 1)), ["… draft working on its items 2/20 items, 1 failed"]);
    }

    #[test]
    fn a_map_took_as_long_as_its_items() {
        let start = DateTime::UNIX_EPOCH;
        let map = StepView {
            items: Some(MapProgress { total: 20, done: 20, failed: 0, running: 0 }),
            started_at: Some(start),
            finished_at: Some(start + chrono::TimeDelta::seconds(90)),
            duration_ms: Some(9),
            ..sample(StepStatus::Succeeded, 1)
        };
        assert_eq!(drawn(&map, false), "✓ draft 20/20 items, 1 min 30 s");
    }

    #[test]
    fn a_failure_is_shown_without_the_control_characters_of_its_text() {
        let error = StepError::new(ErrorClass::Overloaded, "later\u{1b}[2J\nplease");
        let failed = StepView { error: Some(error), ..sample(StepStatus::Failed, 3) };
        assert_eq!(drawn(&failed, false), "✗ draft failed attempt 3: overloaded: later [2J please");
        assert!(drawn(&failed, true).starts_with("\u{1b}[31m✗\u{1b}[0m draft"));
    }
}
