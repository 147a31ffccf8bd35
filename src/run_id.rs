//! A run's id as people give it: whole, or its first characters where those name one run only.

use anyhow::{Context, bail};
use krowoc_engine::{
    RunId, Scope,
    queries::runs::{self, RunFilter},
};
use sqlx::PgConnection;
use uuid::Uuid;

/// The fewest characters that are taken for an abbreviation.
const SHORTEST: usize = 8;

/// The run that a text names. A whole id is not looked up.
pub async fn resolve(conn: &mut PgConnection, scope: &Scope, text: &str) -> anyhow::Result<RunId> {
    if let Ok(run) = text.parse() {
        return Ok(run);
    }
    let (first, last) = range(text).with_context(|| {
        format!("`{text}` is not a run's id: give the id, or its first {SHORTEST} characters or more\n`krowoc runs list` shows the runs there are")
    })?;
    // Lists are in the order of ids, so the runs below the range's end begin with those in it.
    let after = RunId(Uuid::from_u128(last.saturating_add(1)));
    let found = runs::list(conn, scope, &RunFilter::default(), Some(after), 2).await?;
    let found: Vec<RunId> = found.into_iter().map(|run| run.id).filter(|run| run.0.as_u128() >= first).collect();
    match found.as_slice() {
        [run] => Ok(*run),
        [] => Err(krowoc_engine::Error::not_found("run", text).into()),
        [one, two, ..] => bail!("`{text}` is the beginning of several runs' ids: {one}, {two}, …\nGive more of it"),
    }
}

/// The ids that begin with a text, as numbers.
fn range(text: &str) -> Option<(u128, u128)> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if text.len() < SHORTEST || digits.len() >= 32 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let padded = |fill: &str| u128::from_str_radix(&(digits.clone() + &fill.repeat(32 - digits.len())), 16).ok();
    Some((padded("0")?, padded("f")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_is_a_range_of_ids() {
        let id: Uuid = "0198c0de-1234-7abc-8def-0123456789ab".parse().expect("an id");
        for prefix in ["0198c0de", "0198C0DE-12", "0198c0de-1234-7abc-8def-0123456789a"] {
            let (first, last) = range(prefix).expect("a range");
            assert!((first..=last).contains(&id.as_u128()), "{prefix}");
        }
        let (_, last) = range("0198c0dd").expect("a range");
        assert!(last < id.as_u128());
        for wrong in ["0198c0d", "0198c0dx", "", "hello-world"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }
}
