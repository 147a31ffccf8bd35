//! The steps of a run as a tree: the run's own, and below each map the steps inside it, each once for all items. What a line says of a
//! step is in [`crate::progress`].

use crate::{
    progress::painted,
    table::{clean, count},
};
use krowoc_engine::queries::{
    inside::StepInside,
    steps::{StepStatus, StepView},
    usage::Tokens,
};

/// A line for each step: the run's own as `line` draws them, with what the steps inside used.
pub fn lines(steps: &[StepView], inside: &[StepInside], colour: bool, line: impl Fn(&StepView) -> String) -> Vec<String> {
    let own = |step: &StepView| line(&StepView { tokens: tokens(step, inside), ..step.clone() });
    steps.iter().flat_map(|step| std::iter::once(own(step)).chain(below(step, inside, colour))).collect()
}

/// The lines below a step, indented.
pub fn below(step: &StepView, inside: &[StepInside], colour: bool) -> Vec<String> {
    inside_of(step, inside).map(|inner| format!("{}{}", "  ".repeat(depth(inner)), described(inner, step.status, colour))).collect()
}

/// What a step used, and what was used inside it.
pub fn tokens(step: &StepView, inside: &[StepInside]) -> Option<Tokens> {
    let all = step.tokens.into_iter().chain(inside_of(step, inside).filter_map(|inner| inner.tokens));
    all.reduce(|mut sum, tokens| {
        sum += tokens;
        sum
    })
}

fn inside_of<'a>(step: &StepView, inside: &'a [StepInside]) -> impl Iterator<Item = &'a StepInside> {
    inside.iter().filter(|inner| inner.step.split('.').next() == Some(step.id.as_str()))
}

fn depth(inner: &StepInside) -> usize {
    inner.step.matches('.').count()
}

/// `✗ read 16/17 items, 1 failed, 20 attempts, 12195 tokens`
fn described(inner: &StepInside, map: StepStatus, colour: bool) -> String {
    let mut text = format!("{} {}", painted(status(inner, map), colour), clean(&inner.id));
    if inner.total > 0 {
        text += &format!(" {}/{} items", inner.done, inner.total);
    }
    if inner.failed > 0 {
        text += &format!(", {} failed", inner.failed);
    }
    if is_over(map) && (1..inner.total).contains(&inner.done) {
        text += &format!(", {} not run", inner.total - inner.done);
    }
    // A map's and a wait's own attempts only open and close it.
    if inner.attempts > inner.done + inner.running && !matches!(inner.kind.as_str(), "map" | "wait") {
        text += &format!(", {}", count(inner.attempts as usize, "attempt"));
    }
    if let Some(tokens) = inner.tokens {
        text += &format!(", {} tokens", tokens.input + tokens.output);
    }
    text
}

/// Where all items together stand. Once the run's own map is over, what has not ended will not.
fn status(inner: &StepInside, map: StepStatus) -> StepStatus {
    let over = is_over(map) || inner.total > 0 && inner.done >= inner.total;
    match inner {
        StepInside { running: 1.., .. } => StepStatus::Running,
        StepInside { failed: 1.., .. } if over => StepStatus::Failed,
        StepInside { done: 1.., .. } if over => StepStatus::Succeeded,
        _ if map == StepStatus::Cancelled => StepStatus::Cancelled,
        _ if over => StepStatus::Skipped,
        StepInside { attempts: 1.., .. } => StepStatus::Waiting,
        _ => StepStatus::Pending,
    }
}

/// Has it ended, however?
pub fn is_over(status: StepStatus) -> bool {
    use StepStatus::{Cancelled, Failed, Skipped, Succeeded, UpstreamFailed};
    matches!(status, Succeeded | Skipped | Failed | UpstreamFailed | Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{drawn, sample};

    fn inner(step: &str, done: u64, failed: u64) -> StepInside {
        let id = step.rsplit('.').next().unwrap_or_default().to_owned();
        let tokens = Some(Tokens { calls: done, input: 100 * done, cached_input: 0, output: done }).filter(|_| done > 0);
        StepInside { step: step.into(), id, kind: "llm".into(), total: 20, done, failed, running: 0, attempts: done, tokens }
    }

    fn tree(map: StepStatus, inside: &[StepInside]) -> Vec<String> {
        let steps = [sample(StepStatus::Succeeded, 1), StepView { id: "read".into(), path: "read".into(), ..sample(map, 1) }];
        lines(&steps, inside, false, |step| drawn(step, false))
    }

    #[test]
    fn a_map_has_a_line_below_it_for_each_step_inside_and_names_all_tokens() {
        let again = StepInside { running: 2, attempts: 9, ..inner("read.notes.ask", 5, 0) };
        let inside = [inner("read.notes", 20, 1), again, inner("read.sum", 0, 0)];
        let expected = [
            "✓ draft",
            "… read waiting 2525 tokens",
            "  ✗ notes 20/20 items, 1 failed, 2020 tokens",
            "    ▶ ask 5/20 items, 9 attempts, 505 tokens",
            "  · sum 0/20 items",
        ];
        assert_eq!(tree(StepStatus::Waiting, &inside), expected);
    }

    #[test]
    fn what_will_not_be_carried_out_any_more_is_said() {
        let inside = [inner("read.notes", 7, 0), inner("read.sum", 0, 0)];
        let ended = tree(StepStatus::Succeeded, &inside);
        assert_eq!(ended[2..], ["  ✓ notes 7/20 items, 13 not run, 707 tokens", "  – sum 0/20 items"]);
        assert_eq!(tree(StepStatus::Cancelled, &inside)[3], "  ■ sum 0/20 items");
    }
}
