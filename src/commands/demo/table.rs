//! The steps of the run as a table, and its summary in lines.

use super::Run;
use krowoc_engine::queries::{attempts, steps, usage};

const WIDTH: usize = 100;
const HEAD: [&str; 6] = ["step", "status", "attempts", "time", "tokens in", "tokens out"];

/// A row for each step of the run and of the map's items; those of the items are counted together.
pub async fn steps(run: &Run) -> anyhow::Result<String> {
    let mut conn = run.engine.pool().acquire().await?;
    let views = steps::steps(&mut conn, &run.scope, run.id, &run.dag).await?;
    let used = usage::by_step(&mut conn, &run.scope, run.id, &run.dag).await?;
    let made = attempts::attempts(&mut conn, &run.scope, run.id, &run.dag, None, i64::MAX).await?;
    let mut rows = vec![HEAD.map(str::to_owned)];
    for view in views {
        let below = format!("{}[", view.path);
        let of_items: Vec<_> = made.iter().filter(|a| a.path.starts_with(&below)).collect();
        let lost = of_items.iter().filter(|a| a.status == "lost").count();
        let attempts = match view.items {
            Some(items) => format!("{} for {} items, {lost} lost", of_items.len(), items.total),
            None => view.attempts.to_string(),
        };
        // A map's own attempts only open and close it: its time runs from its first item's.
        let began = of_items.iter().map(|a| a.started_at).min().or(view.started_at);
        let time = began.zip(view.finished_at).map_or("-".into(), |(from, to)| seconds((to - from).num_milliseconds()));
        let inside = format!("{}.", view.id);
        let tokens: Vec<_> = used.iter().filter(|u| u.step == view.id || u.step.starts_with(&inside)).map(|u| u.tokens).collect();
        let sum =
            |part: fn(&usage::Tokens) -> u64| if tokens.is_empty() { "-".into() } else { tokens.iter().map(part).sum::<u64>().to_string() };
        let status = serde_json::to_value(view.status)?.as_str().unwrap_or_default().to_owned();
        rows.push([view.path, status, attempts, time, sum(|t| t.input), sum(|t| t.output)]);
    }
    Ok(aligned(&rows))
}

fn seconds(ms: i64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

fn aligned(rows: &[[String; 6]]) -> String {
    let mut widths = [0; 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).enumerate().map(|(at, (cell, width))| match at {
            0..=2 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Lines of at most [`WIDTH`] characters.
pub fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_below_their_heads() {
        let row = |cells: [&str; 6]| cells.map(str::to_owned);
        let text = aligned(&[row(["step", "status", "attempts", "time", "in", "out"]), row(["a", "succeeded", "1", "0.50 s", "1", "22"])]);
        assert_eq!(text, "step  status     attempts    time  in  out\na     succeeded  1         0.50 s   1   22\n");
        assert_eq!(seconds(1_234), "1.23 s");
    }

    #[test]
    fn long_texts_are_broken_at_words() {
        let text = "word ".repeat(50);
        let lines = wrapped(&text);
        assert!(lines.lines().all(|line| line.len() <= WIDTH) && lines.lines().count() == 3, "{lines}");
    }
}
