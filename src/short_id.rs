//! Ids as people give them: whole, or their first characters where those name one thing only.

use anyhow::{Context, bail};
use krowoc_engine::{
    Error, RunId, Scope,
    queries::{
        dead_letters,
        runs::{self, RunFilter},
    },
};
use sqlx::PgConnection;
use std::ops::RangeInclusive;
use uuid::Uuid;

/// The fewest characters that are taken for an abbreviation.
const SHORTEST: usize = 8;
/// An abbreviation of several ids is refused with so many of them.
const CANDIDATES: usize = 5;

/// The run that a text names. A whole id is not looked up.
pub async fn run(conn: &mut PgConnection, scope: &Scope, text: &str) -> anyhow::Result<RunId> {
    if let Ok(run) = text.parse() {
        return Ok(run);
    }
    let range = range(text).with_context(|| none("run", text, "krowoc runs list"))?;
    // Lists are in the order of ids, so the runs below the range's end begin with those in it.
    let after = RunId(Uuid::from_u128(range.end().saturating_add(1)));
    let found = runs::list(conn, scope, &RunFilter::default(), Some(after), CANDIDATES as i64 + 1).await?;
    let found = found.into_iter().map(|run| run.id.0).filter(|id| range.contains(&id.as_u128())).collect();
    Ok(RunId(only("run", text, found)?))
}

/// The dead letter that a text names. A whole id is not looked up.
pub async fn letter(conn: &mut PgConnection, scope: &Scope, text: &str) -> anyhow::Result<Uuid> {
    if let Ok(letter) = text.parse() {
        return Ok(letter);
    }
    let range = range(text).with_context(|| none("dead letter", text, "krowoc dlq list --state all"))?;
    let range = Uuid::from_u128(*range.start())..=Uuid::from_u128(*range.end());
    only("dead letter", text, dead_letters::ids(conn, scope, range, CANDIDATES as i64 + 1).await?)
}

fn none(what: &str, text: &str, list: &str) -> String {
    format!("`{text}` is not a {what}'s id: give the id, or its first {SHORTEST} characters or more\n`{list}` shows the {what}s there are")
}

/// The one that was found.
fn only(what: &'static str, text: &str, found: Vec<Uuid>) -> anyhow::Result<Uuid> {
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(Error::not_found(what, text).into()),
        several => {
            let shown: Vec<String> = several.iter().take(CANDIDATES).map(|id| format!("  {id}")).collect();
            let more = if several.len() > CANDIDATES { "\n  …" } else { "" };
            bail!("`{text}` is the beginning of several {what}s' ids:\n{}{more}\nGive more of it", shown.join("\n"))
        }
    }
}

/// The ids that begin with a text, as numbers.
fn range(text: &str) -> Option<RangeInclusive<u128>> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    if text.len() < SHORTEST || digits.len() >= 32 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return None;
    }
    let padded = |fill: &str| u128::from_str_radix(&(digits.clone() + &fill.repeat(32 - digits.len())), 16).ok();
    Some(padded("0")?..=padded("f")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_an_id_is_a_range_of_ids() {
        let id: Uuid = "0198c0de-1234-7abc-8def-0123456789ab".parse().expect("an id");
        for prefix in ["0198c0de", "0198C0DE-12", "0198c0de-1234-7abc-8def-0123456789a"] {
            assert!(range(prefix).expect("a range").contains(&id.as_u128()), "{prefix}");
        }
        assert!(*range("0198c0dd").expect("a range").end() < id.as_u128());
        for wrong in ["0198c0d", "0198c0dx", "", "hello-world"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_abbreviation_of_several_is_refused_with_the_candidates() {
        let ids: Vec<Uuid> = (0..=CANDIDATES as u128).map(|n| Uuid::from_u128(0x0198_c0de << 96 | n)).collect();
        assert_eq!(only("run", "0198c0de", ids[..1].to_vec()).expect("one"), ids[0]);
        let two = only("run", "0198c0de", ids[..2].to_vec()).expect_err("two").to_string();
        assert!(two.contains(&ids[0].to_string()) && two.contains(&ids[1].to_string()) && !two.contains('…'), "{two}");
        let many = only("dead letter", "0198c0de", ids.clone()).expect_err("many").to_string();
        assert!(many.contains('…') && !many.contains(&ids[CANDIDATES].to_string()), "{many}");
    }
}
