//! The steps of the run as a table.

use super::Run;
use crate::{
    progress::word,
    table::{Table, span},
};
use krowoc_engine::queries::{attempts, steps, usage};

/// A row for each step of the run; the attempts of a map's items are counted together.
pub async fn steps(run: &Run) -> anyhow::Result<Table> {
    let mut conn = run.engine.pool().acquire().await?;
    let views = steps::steps(&mut conn, &run.scope, run.id, &run.dag).await?;
    let used = usage::by_step(&mut conn, &run.scope, run.id, &run.dag).await?;
    let made = attempts::attempts(&mut conn, &run.scope, run.id, &run.dag, None, i64::MAX).await?;
    let mut table = Table::new(&["step", "status", "attempts", "time", "tokens in", "tokens out"]).numbers_from(3);
    for view in views {
        let below = format!("{}[", view.path);
        let of_items: Vec<_> = made.iter().filter(|a| a.path.starts_with(&below)).collect();
        let lost = of_items.iter().filter(|a| a.status == attempts::AttemptStatus::Lost).count();
        let attempts = match view.items {
            Some(items) => format!("{} for {} items, {lost} lost", of_items.len(), items.total),
            None => view.attempts.to_string(),
        };
        // A map's own attempts only open and close it: its time runs from its first item's.
        let began = of_items.iter().map(|a| a.started_at).min().or(view.started_at);
        let time = began.zip(view.finished_at).map_or("-".into(), |(from, to)| span((to - from).num_milliseconds()));
        let inside = format!("{}.", view.id);
        let tokens: Vec<_> = used.iter().filter(|u| u.step == view.id || u.step.starts_with(&inside)).map(|u| u.tokens).collect();
        let sum =
            |part: fn(&usage::Tokens) -> u64| if tokens.is_empty() { "-".into() } else { tokens.iter().map(part).sum::<u64>().to_string() };
        table.row([view.path, word(view.status).to_owned(), attempts, time, sum(|t| t.input), sum(|t| t.output)]);
    }
    Ok(table)
}
